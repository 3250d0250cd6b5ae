package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter/daptest"
)

// phase waits until the agent says that its only service is in a phase.
func (p *place) phase(t testing.TB, want api.Phase) {
	t.Helper()
	eventually(t, "phase "+string(want), func() error {
		s := p.m.fairlead(t, p.m.root, "agent", "status")
		if !strings.Contains(s.stdout, "  "+string(want)+"  ") {
			return fmt.Errorf("%s%s", s.stdout, s.stderr)
		}
		return nil
	})
}

// console waits for a line of the debug console.
func (d *debugger) console(t testing.TB, part string) {
	t.Helper()
	d.EventWhere("console: "+part, func(m daptest.Message) bool {
		var b struct{ Category, Output string }
		if m.Event != "output" {
			return false
		}
		m.Into(t, &b)
		return b.Category == "console" && strings.Contains(b.Output, part)
	})
}

// A save while the process stands waits, and says so: until the process goes on, or until it is asked for; or it does not
// wait, where that is wanted. What was in flight is answered by the code that it came to.
func TestDebugSaveWhileStopped(t *testing.T) {
	for _, tt := range []struct {
		onSave string
		then   string // what the editor does about it
	}{{"continue", "continue"}, {"never", "restart"}, {"now", ""}} {
		t.Run(tt.onSave, func(t *testing.T) {
			p := newLocal(t)
			s := p.debuggee(t, "v1")
			d := p.dap(t)
			if m := p.launch(t, d, s, daptest.M{"onSave": tt.onSave}).Wait(); !m.Success {
				t.Fatal(m)
			}
			url := p.live(t, s)
			old := asks(url)
			if v := d.look(t, s); v != "v1" {
				t.Fatalf("v = %s", v)
			}
			change := func() { s.edit(t, "v2", 3) }
			if tt.then == "" {
				p.swapped(t, change)
			} else {
				change()
				p.phase(t, api.PhaseWaiting)
				d.console(t, "waits")
				p.swapped(t, func() {
					if tt.onSave == "never" {
						d.Must("restart", nil)
					} else {
						d.Must("continue", daptest.M{"threadId": 1})
					}
				})
			}
			if got, err := old(); got != "v1" || err != nil {
				t.Errorf("what was in flight: %q %v", got, err)
			}
			answer := asks(url)
			if v := d.hit(t, s); v != "v2" {
				t.Errorf("v = %s", v)
			}
			if got, err := answer(); got != "v2" || err != nil {
				t.Errorf("answered %q %v", got, err)
			}
			d.unbroken(t)
		})
	}
}

// A debugger that attaches to what a terminal runs leaves it running: the second one finds a process with symbols, and does
// not restart it. A third one meanwhile is told who debugs.
func TestDebugAttachAndDetach(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.debuggee(t, "v1")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.wait(t, "ready", func(e api.Event) bool { _, ok := e.(*api.ReadyEvent); return ok })
		url := a.url(t)
		d := p.dap(t)
		if m := p.attach(t, d, s).Wait(); !m.Success {
			t.Fatal(m)
		}
		answer := asks(url)
		d.hit(t, s)
		if got, err := answer(); got != "v1" || err != nil {
			t.Fatalf("answered %q %v", got, err)
		}
		third := p.dap(t)
		if m := third.Call("attach", daptest.M{}); m.Success || !strings.Contains(m.ErrorText(), "debugs") {
			t.Errorf("a second debugger is told: %s", m.Raw)
		}
		third.Must("disconnect", nil)
		d.Must("disconnect", daptest.M{"terminateDebuggee": false})
		if got, err := get(url + "/answer"); got != "v1" || err != nil { // the breakpoint is gone
			t.Fatalf("after the debugger has left: %q %v", got, err)
		}
		pid, err := get(url + "/pid")
		if err != nil {
			t.Fatal(err)
		}
		again := p.dap(t)
		if m := p.attach(t, again, s).Wait(); !m.Success {
			t.Fatal(m)
		}
		answer = asks(url)
		again.hit(t, s)
		if _, err := answer(); err != nil {
			t.Fatal(err)
		}
		if now, err := get(url + "/pid"); now != pid {
			t.Errorf("process %s %v, was %s: attaching to what has symbols restarted it", now, err, pid)
		}
		a.interrupt(t)
		again.Event("terminated") // the environment is gone
		again.Must("disconnect", nil)
		p.wantNothing(t)
	})
}

// An editor that vanishes leaves the process running, without breakpoints, also where it stood.
func TestDebugEditorVanishes(t *testing.T) {
	p := newLocal(t)
	s := p.debuggee(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.wait(t, "ready", func(e api.Event) bool { _, ok := e.(*api.ReadyEvent); return ok })
	url := a.url(t)
	d := p.dap(t)
	p.attach(t, d, s).Wait()
	answer := asks(url)
	d.look(t, s)
	d.cmd.Process.Kill()
	if got, err := answer(); got != "v1" || err != nil {
		t.Fatalf("answered %q %v", got, err)
	}
	if got, err := get(url + "/answer"); got != "v1" || err != nil {
		t.Fatalf("a breakpoint is left: %q %v", got, err)
	}
	a.interrupt(t)
	p.wantNothing(t)
}

// The agent is killed under a debug session: the session waits with the reason shown, and is hit in the process of the
// next agent's environment.
func TestDebugAgentKilled(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.debuggee(t, "v1")
		d := p.dap(t)
		if m := p.launch(t, d, s, nil).Wait(); !m.Success {
			t.Fatal(m)
		}
		answer := asks(p.live(t, s))
		d.hit(t, s)
		if _, err := answer(); err != nil {
			t.Fatal(err)
		}
		agent := one(t, "agents", p.m.agents())
		syscall.Kill(agent, syscall.SIGKILL)
		d.console(t, "the agent has ended")
		eventually(t, "another agent", func() error {
			if now := p.m.agents(); len(now) != 1 || now[0] == agent {
				return fmt.Errorf("agents %v", now)
			}
			return nil
		})
		p.phase(t, api.PhaseLive)
		p.hitAgain(t, d, s)
		d.unbroken(t)
		d.Must("disconnect", daptest.M{"terminateDebuggee": true})
		p.wantNothing(t)
	})
}

// hitAgain asks until the breakpoint is hit: which process runs may not have settled yet.
func (p *place) hitAgain(t testing.TB, d *debugger, s *debuggee) {
	t.Helper()
	stops := d.Seen("stopped")
	eventually(t, "hit again", func() error {
		url := p.live(t, s)
		c := make(chan struct{})
		go func() { defer close(c); get(url + "/answer") }()
		for {
			select {
			case <-c:
				return fmt.Errorf("answered without a stop")
			default:
				if d.Seen("stopped") > stops {
					return nil
				}
			}
		}
	})
	if v := d.hit(t, s); v != s.version {
		t.Errorf("v = %s, want %s", v, s.version)
	}
}

// The pod is deleted, the API server goes away: the session waits, and comes back.
func TestDebugPodReplaced(t *testing.T) {
	p := newKube(t)
	s := p.debuggee(t, "v1")
	d := p.dap(t)
	if m := p.launch(t, d, s, nil).Wait(); !m.Success {
		t.Fatal(m)
	}
	answer := asks(p.live(t, s))
	d.hit(t, s)
	if _, err := answer(); err != nil {
		t.Fatal(err)
	}
	if err := p.c.kube.CoreV1().Pods(p.ns).Delete(t.Context(), p.c.pod(t, p.ns).Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	d.console(t, "lost")
	p.phase(t, api.PhaseLive)
	p.hitAgain(t, d, s)
	p.swapped(t, func() { s.edit(t, "v2", 2) })
	p.hitAgain(t, d, s)
	d.unbroken(t)
	d.Must("disconnect", daptest.M{"terminateDebuggee": true})
	p.wantNothing(t)
}

// The service dies under the debugger: the panic is a stop, then the session waits for the save that mends it.
func TestDebugServiceDies(t *testing.T) {
	p := newLocal(t)
	s := p.debuggee(t, "v1")
	good, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.dir, "boom.go"), "package main\n\nimport \"net/http\"\n\nfunc init() { http.HandleFunc(\"/boom\", func(http.ResponseWriter, *http.Request) { go func() { panic(\"boom\") }() }) }\n")
	d := p.dap(t)
	if m := p.launch(t, d, s, nil).Wait(); !m.Success {
		t.Fatal(m)
	}
	get(p.live(t, s) + "/boom")
	if stop := d.Stopped(); stop.Reason != "exception" || !strings.Contains(stop.Text, "boom") {
		t.Errorf("stopped: %+v", stop)
	}
	d.Must("continue", daptest.M{"threadId": 1})
	d.console(t, "code 2")
	write(t, s.file, string(good)+"\n") // a save
	p.phase(t, api.PhaseLive)
	p.hitAgain(t, d, s)
	d.unbroken(t)
}

// A build that fails when the session begins does not end it: the save that mends it is debugged.
func TestDebugBrokenFromTheStart(t *testing.T) {
	p := newLocal(t)
	s := p.debuggee(t, "v1")
	good, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.file, strings.Replace(string(good), "v := version", "v := versio", 1))
	d := p.dap(t)
	if m := p.launch(t, d, s, nil).Wait(); !m.Success {
		t.Fatal(m)
	}
	d.console(t, "undefined: versio")
	write(t, s.file, string(good))
	p.phase(t, api.PhaseLive)
	p.hitAgain(t, d, s)
	d.unbroken(t)
}

// What is wrong with a configuration is said in the editor, with what to do.
func TestDebugBadInput(t *testing.T) {
	p := newLocal(t)
	s := p.debuggee(t, "v1")
	stripped, core := filepath.Join(t.TempDir(), "stripped"), filepath.Join(t.TempDir(), "core")
	write(t, core, "no core")
	goBuild(t, s.dir, stripped, "-ldflags=-s -w")
	for name, tt := range map[string]struct {
		request string
		args    daptest.M
		want    []string
	}{
		"unknown key":          {"launch", daptest.M{"progam": s.dir}, []string{`"progam"`, `"program"`}},
		"wrong type":           {"launch", daptest.M{"program": s.dir, "args": "-x"}, []string{`"args"`, "list"}},
		"nothing to launch":    {"launch", daptest.M{}, []string{`"program"`}},
		"no Go service":        {"launch", daptest.M{"program": p.m.root}, []string{"Go module", "go mod init"}},
		"nothing runs":         {"attach", daptest.M{}, []string{"no service runs", "launch"}},
		"no core file":         {"launch", daptest.M{"mode": "core", "coreFilePath": core, "exe": stripped}, []string{"is not a core file"}},
		"test without service": {"launch", daptest.M{"mode": "test", "program": s.dir}, []string{"no service", "fairlead run"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := p.dap(t)
			m := d.Call(tt.request, tt.args)
			if m.Success {
				t.Fatal("it was taken")
			}
			for _, w := range tt.want {
				if !strings.Contains(m.ErrorText(), w) {
					t.Errorf("%q does not say %q", m.ErrorText(), w)
				}
			}
			d.Must("disconnect", nil)
		})
	}
	p.wantNothing(t)
}
