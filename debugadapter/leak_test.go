//go:build linux && (amd64 || arm64)

package debugadapter

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"fairlead.dev/debugadapter/daptest"
)

// A hundred redeploys in one session, half of them while it stands: every one is hit with the client's id, and the hundredth
// holds no more goroutines and descriptors than the tenth.
func TestHundredRedeploys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.go")
	var vs []version
	for _, n := range []int{0, 4, 2} {
		vs = append(vs, compile(t, path, shifted(t, n)))
	}
	p := newPod(t)
	p.deploy(path, vs[0])
	c, ended := serve(t, p)
	id := launch(t, c, path, vs[0].here)[0]
	s := c.Stopped()
	goroutines, files := 0, 0
	for n := 1; n <= 100; n++ {
		v := vs[n%len(vs)]
		if n%2 == 0 { // running as far as the client knows: the breakpoint may be hit again before the swap
			c.Must("continue", daptest.M{"threadId": s.ThreadID})
		}
		p.deploy(path, v)
		c.Event("invalidated")
		s = c.Stopped()
		if len(s.HitBreakpointIDs) != 1 || s.HitBreakpointIDs[0] != id {
			t.Fatalf("redeploy %d: %+v\n%s", n, s, c.Log())
		}
		if f := c.Frames(s.ThreadID); f[0].Line != v.here {
			t.Fatalf("redeploy %d: at line %d, not %d", n, f[0].Line, v.here)
		}
		switch n {
		case 10:
			goroutines, files = runtime.NumGoroutine(), descriptors(t)
		case 100:
			// The old backend's two goroutines may be on their way out.
			deadline := time.After(daptest.Timeout)
			for runtime.NumGoroutine() > goroutines || descriptors(t) > files {
				select {
				case <-deadline:
					buf := make([]byte, 1<<20)
					t.Fatalf("after 10 redeploys %d goroutines and %d descriptors, after 100 %d and %d\n%s", goroutines, files, runtime.NumGoroutine(), descriptors(t), buf[:runtime.Stack(buf, true)])
				default:
					runtime.Gosched()
				}
			}
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
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
	t.Logf("%d goroutines, %d descriptors", goroutines, files)
}

func descriptors(t testing.TB) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}
