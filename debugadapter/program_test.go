//go:build linux && (amd64 || arm64)

package debugadapter

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter/daptest"
	"github.com/google/go-dap"
)

// single is a Host of one program.
type single struct {
	t      testing.TB
	launch daptest.M
	again  bool
	closed int
}

func (s *single) Begin(context.Context, Request, func(string)) (Begun, error) {
	p, err := s.start(context.Background())
	return Begun{Program: p}, err
}

func (s *single) start(context.Context) (*Program, error) {
	d := startDelve(s.t)
	conn, err := dialRaw(d)
	if err != nil {
		return nil, err
	}
	p := &Program{Conn: conn, Launch: raw(s.launch), Close: func() { s.closed++; d.kill() }}
	if s.again {
		p.Again = s.start
	}
	return p, nil
}

// A program's end is the session's, its restart the same session again.
func TestProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.go")
	v := compile(t, path, strings.Replace(fixture(t, "show"), "// exit", "// here", 1))
	host := &single{t: t, launch: daptest.M{"mode": "exec", "program": v.exe, "args": []string{"exit"}}, again: true}
	c, ended := serve(t, host)
	c.Must("initialize", daptest.Initialize())
	start := c.Send("launch", daptest.M{"program": filepath.Dir(path), "mode": "test"})
	c.Event("initialized")
	id := c.Must("setBreakpoints", daptest.Lines(path, v.here)).Breakpoints(t)[0].Id
	c.Must("configurationDone", nil)
	if m := start.Wait(); !m.Success {
		t.Fatalf("launch: %s", m.Raw)
	}
	for range 2 {
		s := c.Stopped()
		if s.HitBreakpointIDs[0] != id {
			t.Errorf("stopped by %v, not by %d", s.HitBreakpointIDs, id)
		}
		if f := c.Frames(s.ThreadID); f[0].Line != v.here {
			t.Errorf("stopped at %+v", f[0])
		}
		if host.closed == 0 {
			c.Must("restart", nil)
		}
	}
	c.Must("continue", daptest.M{"threadId": 1})
	var e struct{ ExitCode int }
	c.Event("exited").Into(t, &e)
	if e.ExitCode != 7 {
		t.Errorf("exited with %d", e.ExitCode)
	}
	c.Event("terminated")
	c.Must("disconnect", nil)
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
	if host.closed != 2 {
		t.Errorf("closed %d times", host.closed)
	}
}

// A disconnect ends what still runs.
func TestProgramDisconnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.go")
	v := compile(t, path, fixture(t, "ticker"))
	c, ended := serve(t, &single{t: t, launch: daptest.M{"mode": "exec", "program": v.exe}})
	launch(t, c, path, v.here)
	c.Stopped()
	if m := c.Call("restart", nil); m.Success {
		t.Errorf("restart where none is offered: %s", m.Raw)
	}
	var pid int
	for _, e := range c.All() {
		if e.Event == "process" {
			var b dap.ProcessEventBody
			e.Into(t, &b)
			pid = b.SystemProcessId
		}
	}
	c.Must("disconnect", daptest.M{"terminateDebuggee": true})
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile("/proc/" + string(raw(pid)) + "/cmdline"); pid == 0 || err == nil && strings.Contains(string(b), v.exe) {
		t.Errorf("the program, pid %d, still runs", pid)
	}
}

// A launch that the debugger refuses is answered in its words.
func TestProgramRefused(t *testing.T) {
	c, ended := serve(t, &single{t: t, launch: daptest.M{"mode": "exec", "program": "/no/such/program"}})
	c.Must("initialize", daptest.Initialize())
	start := c.Send("launch", daptest.M{"program": "/x"})
	c.Event("initialized")
	c.Must("configurationDone", nil)
	if m := start.Wait(); m.Success || !strings.Contains(m.ErrorText(), "Failed to launch") {
		t.Errorf("launch: %s", m.Raw)
	}
	c.Must("disconnect", nil)
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
}

// After a launch that was refused, VS Code asks for the end: that is granted, with no second error.
func TestTerminateAfterRefusal(t *testing.T) {
	c, ended := serve(t, &single{t: t})
	c.Must("initialize", daptest.Initialize())
	if m := c.Send("launch", daptest.M{"no-such-key": 1}).Wait(); m.Success || !strings.Contains(m.ErrorText(), "no-such-key") {
		t.Errorf("launch: %s", m.Raw)
	}
	c.Must("terminate", nil)
	c.Event("terminated")
	c.Must("disconnect", nil)
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
}

// absent is a host with nothing to debug.
type absent struct{}

func (absent) Begin(context.Context, Request, func(string)) (Begun, error) {
	return Begun{}, &api.Problem{Code: "no-core", Message: "the core file is gone"}
}

// What an editor sends after initialized, and what comes too late for a launch that failed by then, is answered: a refusal of
// it would be shown as a second error.
func TestConfigurationAfterRefusal(t *testing.T) {
	c, ended := serve(t, absent{})
	c.Must("initialize", daptest.Initialize())
	for range 2 { // it may be tried again
		start := c.Send("launch", daptest.M{"program": "/x"})
		c.Event("initialized")
		if m := start.Wait(); m.Success || !strings.Contains(m.ErrorText(), "the core file is gone") {
			t.Errorf("launch: %s", m.Raw)
		}
		var b struct{ Breakpoints []dap.Breakpoint }
		c.Must("setBreakpoints", daptest.Lines("/x/main.go", 3)).Into(t, &b)
		if len(b.Breakpoints) != 1 || b.Breakpoints[0].Verified {
			t.Errorf("%+v", b)
		}
		c.Must("setFunctionBreakpoints", daptest.M{"breakpoints": []daptest.M{}})
		c.Must("setExceptionBreakpoints", daptest.M{"filters": []string{}})
		c.Must("configurationDone", nil)
		if m := c.Call("threads", nil); m.Success {
			t.Errorf("threads: %s", m.Raw)
		}
	}
	c.Must("disconnect", nil)
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
}

// A core file is shown where it died.
func TestCore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "main.go")
	v := compile(t, path, fixture(t, "show"))
	core := filepath.Join(dir, "core")
	makeCore(t, v.exe, core)
	c, ended := serve(t, &single{t: t, launch: daptest.M{"mode": "core", "program": v.exe, "coreFilePath": core}})
	c.Must("initialize", daptest.Initialize())
	start := c.Send("launch", daptest.M{"mode": "core", "exe": v.exe, "coreFilePath": core})
	c.Event("initialized")
	c.Must("configurationDone", nil)
	if m := start.Wait(); !m.Success {
		t.Fatalf("launch: %s", m.Raw)
	}
	s := c.Stopped()
	found := false
	for _, f := range c.Frames(s.ThreadID) {
		found = found || f.Name == "main.loop"
	}
	if !found {
		t.Errorf("main.loop is not in the stack of thread %d\n%s", s.ThreadID, c.Log())
	}
	c.Must("disconnect", nil)
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
}
