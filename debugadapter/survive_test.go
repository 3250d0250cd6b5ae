//go:build linux && (amd64 || arm64)

package debugadapter

import (
	"path/filepath"
	"strings"
	"testing"

	"fairlead.dev/debugadapter/daptest"
)

// shifted is the ticker with n lines more in front of step.
func shifted(t testing.TB, n int) string {
	return strings.Replace(fixture(t, "ticker"), "func step(", strings.Repeat("// one more\n", n)+"func step(", 1)
}

// One session, a few redeploys with the lines moved, running and stopped: the breakpoint is hit in the new code with the
// client's id, and the client sees nothing of processes that end.
func TestSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.go")
	var vs []version
	for _, n := range []int{0, 3, 1} {
		vs = append(vs, compile(t, path, shifted(t, n)))
	}
	p := newPod(t)
	p.deploy(path, vs[0])
	c, ended := serve(t, p)
	id := launch(t, c, path, vs[0].here)[0]
	for round := range 6 {
		v := vs[round%len(vs)]
		if round > 0 {
			if round%2 == 1 { // running: nothing is hit any more
				c.Must("setFunctionBreakpoints", daptest.M{"breakpoints": []daptest.M{}})
				c.Must("continue", daptest.M{"threadId": 1})
			}
			p.deploy(path, v)
			c.Event("invalidated")
		}
		s := c.Stopped()
		if s.Reason != "breakpoint" || len(s.HitBreakpointIDs) != 1 {
			t.Fatalf("round %d: %+v\n%s", round, s, c.Log())
		}
		f := c.Frames(s.ThreadID)
		if f[0].Line != v.here || f[0].Name != "main.step" {
			t.Fatalf("round %d: stopped at %+v, not at line %d", round, f[0], v.here)
		}
		if s.HitBreakpointIDs[0] != id {
			t.Errorf("round %d: breakpoint %d was hit, not %d", round, s.HitBreakpointIDs[0], id)
		}
	}
	for _, name := range []string{"exited", "terminated"} {
		if n := c.Seen(name); n > 0 {
			t.Errorf("%d %s events", n, name)
		}
	}
	if n := c.Seen("initialized"); n != 1 {
		t.Errorf("%d initialized events", n)
	}
	c.Must("disconnect", nil)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(p.ended) != 1 || p.ended[0] {
		t.Errorf("End was told %v", p.ended)
	}
}
