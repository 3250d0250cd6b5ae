//go:build linux && (amd64 || arm64)

package debugadapter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter/daptest"
	"github.com/google/go-dap"
)

// ticker is a session that stands at the ticker's line.
func ticker(t *testing.T) (*pod, *daptest.Client, <-chan error, string, version, daptest.Stop) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "main.go")
	v := compile(t, path, fixture(t, "ticker"))
	p := newPod(t)
	p.deploy(path, v)
	c, ended := serve(t, p)
	launch(t, c, path, v.here)
	return p, c, ended, path, v, c.Stopped()
}

// wait is the session's end.
func wait(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(daptest.Timeout):
		t.Fatal("the session did not end")
	}
	return nil
}

func letRun(t *testing.T, c *daptest.Client, path string, thread int) {
	t.Helper()
	c.Must("setBreakpoints", daptest.Lines(path))
	c.Must("continue", daptest.M{"threadId": thread})
}

// A stream that breaks off while the process stands: it stands at the same place when the stream is back, and the client is
// told once more, so that it asks for frames that exist.
func TestCutWhileStopped(t *testing.T) {
	p, c, _, _, v, s := ticker(t)
	p.cut()
	again := c.Stopped()
	if again.Reason != "breakpoint" || again.ThreadID != s.ThreadID || !slices.Equal(again.HitBreakpointIDs, s.HitBreakpointIDs) {
		t.Errorf("stopped again: %+v, not %+v", again, s)
	}
	if f := c.Frames(again.ThreadID); f[0].Line != v.here {
		t.Errorf("it stands at %+v", f[0])
	}
	if n := c.Seen("continued"); n != 0 {
		t.Errorf("%d continued events", n)
	}
	c.Must("continue", daptest.M{"threadId": again.ThreadID})
	c.Stopped() // and the breakpoint is still the client's
}

func TestCutWhileRunning(t *testing.T) {
	p, c, _, path, v, s := ticker(t)
	letRun(t, c, path, s.ThreadID)
	p.cut()
	bps := c.Must("setBreakpoints", daptest.Lines(path, v.here)).Breakpoints(t)
	again := c.Stopped()
	if again.HitBreakpointIDs[0] != bps[0].Id {
		t.Errorf("stopped by %v, not by %d", again.HitBreakpointIDs, bps[0].Id)
	}
}

// The debugger is killed while it works at a request: the request is answered, and the next process is debugged.
func TestDebuggerKilled(t *testing.T) {
	p, c, _, path, v, s := ticker(t)
	ask := c.Send("evaluate", daptest.M{"expression": "call step(1)"})
	p.stop()
	if m := ask.Wait(); !m.Success && m.Text == "" {
		t.Errorf("the request was answered %s", m.Raw)
	}
	p.deploy(path, v)
	again := c.Stopped()
	if again.HitBreakpointIDs[0] != s.HitBreakpointIDs[0] {
		t.Errorf("stopped by %v, not by %v", again.HitBreakpointIDs, s.HitBreakpointIDs)
	}
}

// Requests that need a process wait for the one that is on its way, whether the debugger is gone or says that its process is.
func TestRequestsWait(t *testing.T) {
	for name, end := range map[string]func(*delve){
		"the process exits":   (*delve).exit,
		"the debugger breaks": func(d *delve) { d.cmd.Process.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			p, c, _, path, v, s := ticker(t)
			letRun(t, c, path, s.ThreadID)
			end(p.current)
			p.await("its end was noticed", func() bool { return p.closed > 0 })
			waiting := c.Send("threads", nil)
			cancelled := c.Send("evaluate", daptest.M{"expression": "1"})
			c.Must("cancel", daptest.M{"requestId": cancelled.Seq})
			if m := cancelled.Wait(); m.Success || m.Text != "cancelled" {
				t.Errorf("what was cancelled was answered %s", m.Raw)
			}
			if waiting.Answered() {
				t.Error("threads was answered without a process")
			}
			p.deploy(path, v)
			if m := waiting.Wait(); !m.Success {
				t.Errorf("threads: %s", m.Raw)
			}
		})
	}
}

// A process that exits by itself is told with its reason; what is asked is answered at once; it comes back.
func TestGoneAndBack(t *testing.T) {
	p, c, _, path, v, s := ticker(t)
	p.stop()
	p.events <- Event{Kind: Gone, Text: "the service exited with code 2: the next save starts it again"}
	c.EventWhere("the reason", func(m daptest.Message) bool {
		return m.Event == "output" && strings.Contains(string(m.Body), "fairlead: the service exited with code 2")
	})
	var b struct{ Threads []dap.Thread }
	c.Must("threads", nil).Into(t, &b)
	if len(b.Threads) != 1 || !strings.Contains(b.Threads[0].Name, "exited with code 2") {
		t.Errorf("threads: %+v", b)
	}
	if f := c.Frames(1); len(f) != 0 {
		t.Errorf("frames: %+v", f)
	}
	for _, command := range []string{"continue", "next", "scopes", "variables"} {
		c.Must(command, daptest.M{"threadId": 1})
	}
	for _, command := range []string{"evaluate", "pause", "setVariable", "disassemble"} {
		if m := c.Call(command, daptest.M{"threadId": 1, "expression": "1"}); m.Success || !strings.Contains(m.ErrorText(), "exited with code 2") {
			t.Errorf("%s: %s", command, m.Raw)
		}
	}
	bps := c.Must("setBreakpoints", daptest.Lines(path, v.here)).Breakpoints(t)
	if bps[0].Verified || !strings.Contains(bps[0].Message, "exited") || bps[0].Id != s.HitBreakpointIDs[0] {
		t.Errorf("a breakpoint without a process: %+v", bps[0])
	}
	p.deploy(path, v)
	var e struct{ Breakpoint dap.Breakpoint }
	c.EventWhere("the breakpoint is verified", func(m daptest.Message) bool {
		return m.Event == "breakpoint" && strings.Contains(string(m.Body), `"verified":true`)
	}).Into(t, &e)
	if e.Breakpoint.Id != bps[0].Id || e.Breakpoint.Line != v.here {
		t.Errorf("verified: %+v", e.Breakpoint)
	}
	c.Stopped()
	if got := fmt.Sprint(p.standing); got != "[true false true]" {
		t.Errorf("Stopped was told %s", got)
	}
}

// A storm of processes, while the client stands: the last one counts, and nothing is left of the others.
func TestStorm(t *testing.T) {
	p, c, _, path, v, _ := ticker(t)
	for range 20 {
		p.events <- Event{Kind: Process, Generation: p.generation()} // the debugger is the same; each is a new session
	}
	p.deploy(path, v)
	c.EventWhere("continued", func(m daptest.Message) bool { return m.Event == "continued" })
	p.await("the last process stands", func() bool { return len(p.standing) > 0 && p.standing[len(p.standing)-1] })
	for {
		s := c.Stopped()
		if m := c.Call("stackTrace", daptest.M{"threadId": s.ThreadID}); m.Success {
			var b struct{ StackFrames []dap.StackFrame }
			m.Into(t, &b)
			if b.StackFrames[0].Line != v.here {
				t.Errorf("stopped at %+v", b.StackFrames[0])
			}
			break
		}
	}
	for _, name := range []string{"exited", "terminated"} {
		if n := c.Seen(name); n > 0 {
			t.Errorf("%d %s events", n, name)
		}
	}
}

func TestEditorVanishes(t *testing.T) {
	p, c, ended, _, _, _ := ticker(t)
	c.Close()
	if err := wait(t, ended); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Serve returned %v", err)
	}
	if len(p.ended) != 1 || p.ended[0] {
		t.Errorf("End was told %v", p.ended)
	}
	if got := fmt.Sprint(p.standing); got != "[true false]" {
		t.Errorf("Stopped was told %s", got)
	}
}

func TestBeginFails(t *testing.T) {
	p := newPod(t)
	p.begin = func(context.Context, Request, func(string)) error {
		return &api.Problem{Code: "no-service", Message: "there is no service in /x", Hint: "name a folder with a main package"}
	}
	c, ended := serve(t, p)
	c.Must("initialize", daptest.Initialize())
	got := c.Call("launch", daptest.M{"program": "/x"})
	if got.Success || got.ErrorText() != "there is no service in /x. Name a folder with a main package" || !strings.Contains(string(got.Body), `"showUser":true`) {
		t.Errorf("launch: %s", got.Raw)
	}
	c.Must("disconnect", nil)
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
}

// What Begin does is shown, and can be cancelled: by its progress, by the request, by a disconnect.
func TestBeginCancelled(t *testing.T) {
	for _, how := range []string{"progress", "request", "disconnect"} {
		t.Run(how, func(t *testing.T) {
			p := newPod(t)
			p.begin = func(ctx context.Context, r Request, progress func(string)) error {
				if r.Client != "daptest" || r.Attach || r.Config.Program != "/x" {
					t.Errorf("the request: %+v", r)
				}
				progress("building")
				<-ctx.Done()
				return ctx.Err()
			}
			c, ended := serve(t, p)
			c.Must("initialize", daptest.Initialize())
			start := c.Send("launch", daptest.M{"program": "/x"})
			c.Event("initialized")
			var e struct{ ProgressID, Message string }
			c.Event("progressUpdate").Into(t, &e)
			if e.Message != "building" {
				t.Errorf("progress: %+v", e)
			}
			bps := c.Must("setBreakpoints", daptest.Lines("/x/main.go", 3)).Breakpoints(t)
			if bps[0].Verified || bps[0].Message != "building" {
				t.Errorf("a breakpoint before the process: %+v", bps[0])
			}
			switch how {
			case "progress":
				c.Must("cancel", daptest.M{"progressId": e.ProgressID})
			case "request":
				c.Must("cancel", daptest.M{"requestId": start.Seq})
			case "disconnect":
				c.Must("disconnect", nil)
				if err := wait(t, ended); err != nil {
					t.Error(err)
				}
			}
			if m := start.Wait(); m.Success {
				t.Errorf("launch: %s", m.Raw)
			}
			if how != "disconnect" {
				c.Event("progressEnd")
			}
		})
	}
}

// A breakpoint whose code is gone says so; it comes back with its code. One on a line that Delve cannot bind has Delve's words.
func TestBreakpointNoLonger(t *testing.T) {
	p, c, _, path, v, s := ticker(t)
	id := s.HitBreakpointIDs[0]
	// The first version keeps the breakpoint's line but has no code there; the second has no such line.
	inline := strings.Replace(v.source, "\treturn doubled + 1 // here\n", "\t// return doubled + 1 // here\n\tpanic(doubled)\n", 1)
	p.deploy(path, compile(t, path, strings.Replace(inline, "sum += step(n)", "sum += n", 1)))
	changed := func(words string) {
		t.Helper()
		var e struct{ Breakpoint dap.Breakpoint }
		c.Event("breakpoint").Into(t, &e)
		if e.Breakpoint.Id != id || e.Breakpoint.Verified != (words == "") || !strings.Contains(e.Breakpoint.Message, words) {
			t.Errorf("the breakpoint became %+v, not %q", e.Breakpoint, words)
		}
	}
	changed("could not find statement")
	none := strings.Replace(v.source, "\tdoubled := n * 2\n\treturn doubled + 1 // here\n", "\tpanic(n)\n", 1)
	p.deploy(path, compile(t, path, strings.Replace(none, "sum += step(n)", "sum += n", 1)))
	changed(notInCode)
	p.deploy(path, v)
	changed("")
	if again := c.Stopped(); again.HitBreakpointIDs[0] != id {
		t.Errorf("stopped by %v, not by %d", again.HitBreakpointIDs, id)
	}
}

// A build that fails leaves the old code running: its breakpoints go on, with the lines where the editor has them now.
func TestFailedBuildWithLinesMoved(t *testing.T) {
	p, c, _, path, v, s := ticker(t)
	moved := shifted(t, 5) + "\nfunc broken( {\n"
	write(t, path, moved)
	p.events <- Event{Kind: Building, Generation: p.generation() + 1}
	p.events <- Event{Kind: Note, Text: "the build failed"}
	c.EventWhere("the note", func(m daptest.Message) bool {
		return m.Event == "output" && strings.Contains(string(m.Body), "fairlead: the build failed")
	})
	if f := c.Frames(s.ThreadID); f[0].Line != v.here+5 {
		t.Errorf("the frame is at line %d of the file as it is now, not %d", f[0].Line, v.here+5)
	}
	// What VS Code sends at the save.
	bps := c.Must("setBreakpoints", daptest.Lines(path, v.here+5, strings.Count(moved, "\n")-1, v.here)).Breakpoints(t)
	if !bps[0].Verified || bps[0].Line != v.here+5 {
		t.Errorf("the moved breakpoint: %+v", bps[0])
	}
	if bps[1].Verified || bps[1].Message != notInCode {
		t.Errorf("a breakpoint in what is not built: %+v", bps[1])
	}
	if bps[2].Verified || bps[2].Message != notInCode {
		t.Errorf("a breakpoint in the new lines: %+v", bps[2])
	}
	c.Must("continue", daptest.M{"threadId": s.ThreadID})
	again := c.Stopped()
	if again.HitBreakpointIDs[0] != bps[0].Id {
		t.Errorf("stopped by %v, not by %d", again.HitBreakpointIDs, bps[0].Id)
	}
}

func TestServiceOver(t *testing.T) {
	p, c, ended, _, _, _ := ticker(t)
	p.err = &api.Problem{Message: "the environment was removed", Hint: "start it again"}
	close(p.events)
	c.EventWhere("the reason", func(m daptest.Message) bool {
		return m.Event == "output" && strings.Contains(string(m.Body), "the environment was removed. Start it again")
	})
	c.Event("terminated")
	c.Must("disconnect", nil)
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
}

func TestRestartAndDisconnect(t *testing.T) {
	p, c, ended, _, v, _ := ticker(t)
	c.Must("restart", nil)
	s := c.Stopped()
	if f := c.Frames(s.ThreadID); f[0].Line != v.here || p.restarts != 1 {
		t.Errorf("after %d restarts at %+v", p.restarts, f[0])
	}
	c.Must("disconnect", daptest.M{"terminateDebuggee": true})
	if err := wait(t, ended); err != nil {
		t.Error(err)
	}
	if len(p.ended) != 1 || !p.ended[0] {
		t.Errorf("End was told %v", p.ended)
	}
}

// Steps are standing still, only continue lets a swap in.
func TestStanding(t *testing.T) {
	p, c, _, path, _, s := ticker(t)
	c.Must("next", daptest.M{"threadId": s.ThreadID})
	s = c.Stopped()
	if got := fmt.Sprint(p.standing); got != "[true]" {
		t.Errorf("after a step, Stopped was told %s", got)
	}
	letRun(t, c, path, s.ThreadID)
	c.Must("threads", nil)
	if got := fmt.Sprint(p.standing); got != "[true false]" {
		t.Errorf("after continue, Stopped was told %s", got)
	}
	c.Must("pause", daptest.M{"threadId": 1})
	c.Stopped()
	if got := fmt.Sprint(p.standing); got != "[true false true]" {
		t.Errorf("after pause, Stopped was told %s", got)
	}
}

// A service that panics as soon as it is let go stops at its panic; one that exits at once is told when the host does. Both
// times the next process is debugged in the same session.
func TestDiesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "main.go")
	show := compile(t, path, fixture(t, "show"))
	v := compile(t, path, fixture(t, "ticker"))
	p := newPod(t)
	p.args = []string{"panic"}
	p.deploy(path, show)
	c, _ := serve(t, p)
	launch(t, c, "")
	if s := c.Stopped(); s.Reason != "exception" || !strings.Contains(s.Text, "oh 7") {
		t.Errorf("stopped: %+v", s)
	}
	c.Must("continue", daptest.M{"threadId": 1})
	p.args = []string{"exit"}
	p.deploy(path, show)
	p.events <- Event{Kind: Gone, Text: "it exited with code 7"}
	c.EventWhere("the reason", func(m daptest.Message) bool {
		return m.Event == "output" && strings.Contains(string(m.Body), "it exited with code 7")
	})
	write(t, path, v.source) // a list of lines is of the file as it is
	c.Must("setBreakpoints", daptest.Lines(path, v.here))
	p.deploy(path, v)
	if s := c.Stopped(); s.Reason != "breakpoint" {
		t.Errorf("stopped: %+v", s)
	}
	for _, name := range []string{"exited", "terminated"} {
		if n := c.Seen(name); n > 0 {
			t.Errorf("%d %s events", n, name)
		}
	}
}
