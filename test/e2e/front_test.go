package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fairlead.dev/api"
)

// A second run of the same service joins the first one's environment, and the last one to leave ends it.
func TestRunJoins(t *testing.T) {
	p := newLocal(t)
	s := newTiny(t, "v1")
	first := p.run(t, s.dir, "--", "-port", p.port(t))
	first.live(t, "v1")
	second := p.run(t, s.dir)
	second.live(t, "v1")
	s.edit(t, "v2")
	first.live(t, "v2")
	second.live(t, "v2")
	third := p.run(t, s.dir)
	third.live(t, "v2")
	// Whoever ends first, the one that began it or one that joined, leaves it to the others.
	for i, a := range []*agent{third, first} {
		if code := a.interrupt(t); code != 0 {
			t.Errorf("exit %d of %d", code, i)
		}
		second.running(t, "v2")
	}
	if code := second.interrupt(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	p.wantNothing(t)
}

// A front end that is killed: its environment goes after the grace, and nothing is left.
func TestFrontEndKilled(t *testing.T) {
	p := newLocal(t)
	p.m.env = append(p.m.env, "FAIRLEAD_TEST_GRACE=2s")
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	killWait(t, a.cmd.Process.Pid)
	p.wantNothing(t)
}

// The agent is killed under a run: it is started again, and goes on with the same environment.
func TestAgentLostUnderRun(t *testing.T) {
	p := newLocal(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	sup, before := one(t, "supervisors", p.supervisors(t)), a.pid(t)
	a.skipAll()
	killWait(t, before)
	if e := a.wait(t, "connected", isEnv("connected")).(*api.EnvironmentEvent); !e.Resumed {
		t.Errorf("not resumed: %+v", e)
	}
	s.edit(t, "v2")
	a.live(t, "v2")
	a.running(t, "v2")
	if now := one(t, "supervisors", p.supervisors(t)); now != sup || a.pid(t) == before {
		t.Errorf("supervisor %d, was %d; agent %d, was %d", now, sup, a.pid(t), before)
	}
	a.interrupt(t)
	p.wantNothing(t)
}

// Two services in one agent do not touch each other. The one that is stopped by another command says so.
func TestTwoServices(t *testing.T) {
	p := newLocal(t)
	s1, s2 := newTiny(t, "v1"), newTiny(t, "w1")
	a1 := p.run(t, s1.dir, "--", "-port", p.port(t))
	a2 := p.run(t, s2.dir, "--", "-port", p.port(t))
	a1.live(t, "v1")
	a2.live(t, "w1")
	if x, y := a1.pid(t), a2.pid(t); x != y {
		t.Errorf("agents %d and %d", x, y)
	}
	p.m.ok(t, s1.dir, "stop")
	if code := a1.ended(t); code != 1 || !strings.Contains(a1.stderr(), "fairlead stop") {
		t.Errorf("exit %d: %s", code, a1.stderr())
	}
	wantErrorAndHint(t, a1.stderr())
	s2.edit(t, "w2")
	a2.live(t, "w2")
	a2.interrupt(t)
	p.wantNothing(t)
}

// A panic of the service is a problem at its line.
func TestPanicHasAPlace(t *testing.T) {
	p := newLocal(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	write(t, filepath.Join(s.dir, "boom.go"), "package main\n\nfunc init() {\n\tpanic(\"boom\")\n}\n")
	e := a.wait(t, "the panic", isProblem("panic")).(*api.ProblemEvent)
	if e.File != filepath.Join(s.dir, "boom.go") || e.Line != 4 || e.Message != "panic: boom" || e.Owner != "process" {
		t.Errorf("%+v", e.Problem)
	}
	if err := os.Remove(filepath.Join(s.dir, "boom.go")); err != nil {
		t.Fatal(err)
	}
	a.live(t, "v1")
	a.interrupt(t)
	p.wantNothing(t)
}

// An agent that leaves nothing but a socket behind (kill -9) is replaced, and two front ends at once start one agent.
func TestOneAgent(t *testing.T) {
	p := newLocal(t)
	s1, s2 := newTiny(t, "v1"), newTiny(t, "w1")
	a := p.run(t, s1.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	a.kill(t)
	a1 := p.run(t, s1.dir, "--", "-port", p.port(t))
	a2 := p.run(t, s2.dir, "--", "-port", p.port(t))
	a1.live(t, "v1")
	a2.live(t, "w1")
	eventually(t, "be one", func() error {
		if n := len(a1.agents()); n != 1 {
			return fmt.Errorf("%d agents", n)
		}
		return nil
	})
	if said := p.m.fairlead(t, s1.dir, "agent", "stop"); said.code != 1 || !strings.Contains(said.stderr, "--force") {
		t.Errorf("%+v", said)
	}
	syscall.Kill(a1.cmd.Process.Pid, syscall.SIGINT)
	syscall.Kill(a2.cmd.Process.Pid, syscall.SIGINT)
	a1.ended(t)
	a2.ended(t)
	p.m.ok(t, s1.dir, "agent", "stop")
	if n := len(p.m.agents()); n != 0 {
		t.Errorf("%d agents", n)
	}
	p.wantNothing(t)
}

// A service that takes any free port keeps its address here, from save to save and from run to run.
func TestAnyPort(t *testing.T) {
	p := newLocal(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", "0")
	first := a.live(t, "v1").URL
	s.edit(t, "v2")
	if u := a.live(t, "v2").URL; u != first {
		t.Errorf("%s after a save, was %s", u, first)
	}
	if got, err := get(first + "/version"); err != nil || got != "v2" {
		t.Errorf("%s answers %q, %v", first, got, err)
	}
	a.interrupt(t)
	p.wantNothing(t)
}
