//go:build linux && (amd64 || arm64)

package debugadapter

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter/daptest"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-dap"
)

// What Delve can, the proxy says it can, whatever version of it is linked.
func TestCapabilities(t *testing.T) {
	conn, err := dialRaw(startDelve(t))
	if err != nil {
		t.Fatal(err)
	}
	var theirs, ours map[string]any
	daptest.New(t, conn).Must("initialize", daptest.Initialize()).Into(t, &theirs)
	if err := json.Unmarshal(raw(capabilities()), &ours); err != nil {
		t.Fatal(err)
	}
	if len(theirs) < 10 {
		t.Fatalf("Delve said %v", theirs)
	}
	for k, v := range theirs {
		if d := cmp.Diff(v, ours[k]); d != "" {
			t.Errorf("%s: Delve -, ours +:\n%s", k, d)
		}
		delete(ours, k)
	}
	if d := cmp.Diff(map[string]any{"supportTerminateDebuggee": true, "supportsCancelRequest": true}, ours); d != "" {
		t.Errorf("beyond Delve's: want -, got +:\n%s", d)
	}
}

// stopOnEntry is for the first process of the session, not for each.
func TestStopOnEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.go")
	v := compile(t, path, fixture(t, "ticker"))
	p := newPod(t)
	p.deploy(path, v)
	c, _ := serve(t, p)
	c.Must("initialize", daptest.Initialize())
	c.Must("launch", daptest.M{"program": "/x", "stopOnEntry": true})
	c.Must("setBreakpoints", daptest.Lines(path, v.here))
	c.Must("configurationDone", nil)
	if s := c.Stopped(); s.Reason != "entry" {
		t.Errorf("stopped: %+v", s)
	}
	c.Must("continue", daptest.M{"threadId": 1})
	c.Stopped()
	p.deploy(path, v)
	c.Event("continued")
	if s := c.Stopped(); s.Reason != "breakpoint" {
		t.Errorf("the next process stopped: %+v", s)
	}
}

// An editor that knows none of the newer things is not sent them, and its breakpoints survive all the same, though it
// never sends them again: function and exception breakpoints, conditions, lines that moved.
func TestPlainEditor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.go")
	vs := []version{compile(t, path, fixture(t, "ticker")), compile(t, path, shifted(t, 7))}
	p := newPod(t)
	p.deploy(path, vs[0])
	c, _ := serve(t, p)
	c.Must("initialize", daptest.M{"adapterID": "go"})
	start := c.Send("attach", nil)
	c.Event("initialized")
	c.Must("setBreakpoints", daptest.M{"source": daptest.M{"path": path}, "breakpoints": []daptest.M{{"line": vs[0].here, "condition": "n == 3"}}})
	fn := c.Must("setFunctionBreakpoints", daptest.M{"breakpoints": []daptest.M{{"name": "main.step", "condition": "n == 5"}}}).Breakpoints(t)[0].Id
	c.Must("setExceptionBreakpoints", daptest.M{"filters": []string{}})
	c.Must("configurationDone", nil)
	if !start.Wait().Success {
		t.Fatal("attach failed")
	}
	for round, v := range vs {
		if round > 0 {
			p.deploy(path, v)
		}
		for _, want := range []string{"3", "5"} {
			s := c.Stopped()
			f := c.Frames(s.ThreadID)
			var e struct{ Result string }
			c.Must("evaluate", daptest.M{"expression": "n", "frameId": f[0].Id}).Into(t, &e)
			if e.Result != want {
				t.Errorf("round %d: stopped at n = %s, not %s", round, e.Result, want)
			}
			if want == "3" && f[0].Line != v.here {
				t.Errorf("round %d: at line %d, not %d", round, f[0].Line, v.here)
			}
			if want == "5" && (s.Reason != "function breakpoint" || s.HitBreakpointIDs[0] != fn) {
				t.Errorf("round %d: %+v, not breakpoint %d", round, s, fn)
			}
			if want == "3" {
				c.Must("continue", daptest.M{"threadId": s.ThreadID})
			}
		}
	}
	for _, name := range []string{"invalidated", "progressStart", "progressEnd"} {
		if n := c.Seen(name); n > 0 {
			t.Errorf("%d %s events", n, name)
		}
	}
	// The client was told where its breakpoint is now.
	moved := false
	for _, e := range c.All() {
		var b struct{ Breakpoint dap.Breakpoint }
		if e.Event == "breakpoint" {
			e.Into(t, &b)
			moved = moved || b.Breakpoint.Line == vs[1].here
		}
	}
	if !moved {
		t.Errorf("no event tells of line %d\n%s", vs[1].here, c.Log())
	}
}

// What belongs to one process does not survive it, and says so.
func TestInstructionBreakpointDropped(t *testing.T) {
	p, c, _, path, v, s := ticker(t)
	pc := c.Frames(s.ThreadID)[1].InstructionPointerReference
	b := c.Must("setInstructionBreakpoints", daptest.M{"breakpoints": []daptest.M{{"instructionReference": pc}}}).Breakpoints(t)[0]
	if !b.Verified {
		t.Fatalf("the instruction breakpoint: %+v", b)
	}
	p.deploy(path, v)
	c.EventWhere("it is dropped", func(m daptest.Message) bool {
		var e struct{ Breakpoint dap.Breakpoint }
		if m.Event == "breakpoint" {
			m.Into(t, &e)
		}
		return e.Breakpoint.Id == b.Id && !e.Breakpoint.Verified && e.Breakpoint.Message == addressGone
	})
	c.Stopped()
}

// Without the debugger there is a session, and no debugger.
func TestNoDebug(t *testing.T) {
	p := newPod(t)
	p.dialed = func() error { t.Error("the debugger was dialled"); return nil }
	p.events <- Event{Kind: Process, Generation: 1}
	c, ended := serve(t, p)
	c.Must("initialize", daptest.Initialize())
	c.Must("launch", daptest.M{"program": "/x", "noDebug": true})
	if b := c.Must("setBreakpoints", daptest.Lines("/x/main.go", 1)).Breakpoints(t)[0]; b.Verified || !strings.Contains(b.Message, "without the debugger") {
		t.Errorf("a breakpoint: %+v", b)
	}
	c.Must("configurationDone", nil)
	c.Must("threads", nil)
	c.Must("disconnect", nil)
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
}

// A debugger that cannot be had is told with what to do, and the next process is tried again.
func TestNoDebugger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.go")
	v := compile(t, path, fixture(t, "ticker"))
	p := newPod(t)
	p.dialed = func() error {
		return &api.Problem{Code: api.CodeNoPtrace, Message: "the kernel refuses debuggers", Hint: "lower kernel.yama.ptrace_scope"}
	}
	p.deploy(path, v)
	c, _ := serve(t, p)
	launch(t, c, path, v.here)
	c.EventWhere("the reason", func(m daptest.Message) bool {
		return m.Event == "output" && strings.Contains(string(m.Body), "refuses debuggers. Lower kernel")
	})
	p.mu.Lock()
	p.dialed = nil
	p.mu.Unlock()
	p.deploy(path, v)
	c.Stopped()
}

func TestSources(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.go")
	write(t, path, "a\nb\nc")
	began := time.Now().Add(time.Second)
	s := newSources(began)
	if got, state := s.built(path); state != known || got.raw != "a\nb\nc" {
		t.Errorf("a file older than the build: %v, %v", got, state)
	}
	write(t, path, "x\na\nb\nc")
	if got, state := s.built(path); state != known || got.raw != "a\nb\nc" {
		t.Errorf("after an edit, the build's: %v, %v", got, state)
	}
	if line, ok := s.shown(path, 2); !ok || line != 3 {
		t.Errorf("line 2 of the build is shown at %d, %v", line, ok)
	}
	other := filepath.Join(filepath.Dir(path), "b.go")
	write(t, other, "b")
	if err := os.Chtimes(other, time.Time{}, began.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, state := s.built(other); state != newer {
		t.Errorf("a file newer than the build is %v", state)
	}
	if _, state := s.built("/no/such/file.go"); state != foreign {
		t.Errorf("a file that is not there is %v", state)
	}
	s.building(2, []string{other})
	write(t, other, "c")
	s.runs(2)
	if got, state := s.built(other); state != known || got.raw != "b" {
		t.Errorf("what the build began with: %v, %v", got, state)
	}
	if a, b := pathKeyOn("windows", `C:\x\y.go`), pathKeyOn("windows", "c:/x/y.go"); a != b {
		t.Errorf("%s is not %s", a, b)
	}
}
