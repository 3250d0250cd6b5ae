package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/api"
)

// kill -9 of the agent: the next run finds its environment and resumes it; nothing is doubled.
func TestAgentKilled(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v1")
		port := p.port(t)
		a := p.run(t, s.dir, "--", "-port", port)
		a.live(t, "v1")
		before := a.running(t, "v1")
		sup := one(t, "supervisors", p.supervisors(t))
		a.kill(t)

		// Saved while no agent was there.
		s.edit(t, "v2")
		a = p.run(t, s.dir, "--", "-port", port)
		e := a.wait(t, "connected", isEnv("connected")).(*api.EnvironmentEvent)
		if !e.Resumed {
			t.Errorf("not resumed: %+v", e)
		}
		a.live(t, "v2")
		st := a.running(t, "v2")
		if now := one(t, "supervisors", p.supervisors(t)); now != sup || st.Epoch != before.Epoch {
			t.Errorf("supervisor %d (epoch %s), was %d (%s)", now, st.Epoch, sup, before.Epoch)
		}
		if st.Generation <= before.Generation {
			t.Errorf("generation %d after %d", st.Generation, before.Generation)
		}
		if n := len(p.m.status(t)); n != 1 {
			t.Errorf("%d environments", n)
		}
		if p.c != nil {
			if o := p.c.objects(t, p.ns); len(o) != 3 {
				t.Errorf("there are %v, want a Deployment, a Pod and a Secret", o)
			}
		}
		for _, e := range a.all() {
			if isLine("starting v1")(e) {
				t.Errorf("what the killed agent had shown is shown again: %+v", e)
			}
		}
		s.edit(t, "v3")
		a.live(t, "v3")
		a.running(t, "v3")
		a.interrupt(t)
		p.wantNothing(t)
	})
}

// A local environment whose agent was killed goes by itself.
func TestAgentKilledAlone(t *testing.T) {
	t.Parallel()
	p := newLocal(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t), "-fork")
	a.live(t, "v1")
	a.kill(t)
	killed := time.Now()
	eventually(t, "be gone", func() error {
		if pids := p.m.processes(); len(pids) > 0 {
			return fmt.Errorf("still there: %s", describe(pids))
		}
		return nil
	})
	// Ten seconds are promised. Beyond that the machine may be busy.
	if d := time.Since(killed); d < 5*time.Second || d > 40*time.Second {
		t.Errorf("it took %s", d)
	}
	// What is left of it is found and forgotten.
	p.m.ok(t, s.dir, "stop")
	p.wantNothing(t)
}

// Two agents on one environment: the second is told who holds it; --take-over puts the first out.
func TestTwoAgents(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v1")
		port := p.port(t)
		first := p.run(t, s.dir, "--", "-port", port)
		first.live(t, "v1")
		before := first.running(t, "v1")

		second := p.runEnv(t, p.elsewhere(), s.dir, "--", "-port", port)
		if code := second.ended(t); code != 1 {
			t.Errorf("exit %d", code)
		}
		wantErrorAndHint(t, second.stderr())
		if who := fmt.Sprintf("(pid %d)", first.pid(t)); !strings.Contains(second.stderr(), who) || !strings.Contains(second.stderr(), "--take-over") {
			t.Errorf("want %s and --take-over in\n%s", who, second.stderr())
		}
		second.wait(t, "held", isProblem(api.CodeHeld))
		if st := first.running(t, "v1"); st.PID != before.PID {
			t.Errorf("the first one's service was restarted: %+v", st)
		}
		s.edit(t, "v2")
		first.live(t, "v2")

		third := p.runEnv(t, p.elsewhere(), s.dir, "--take-over", "--", "-port", port)
		if code := first.ended(t); code != 1 {
			t.Errorf("exit %d of the one that was put out", code)
		}
		wantErrorAndHint(t, first.stderr())
		if who := fmt.Sprintf("(pid %d)", third.pid(t)); !strings.Contains(first.stderr(), who) {
			t.Errorf("want %s in\n%s", who, first.stderr())
		}
		third.live(t, "v2")
		s.edit(t, "v3")
		third.live(t, "v3")
		third.running(t, "v3")
		third.interrupt(t)
		p.wantNothing(t)
	})
}

// An agent that was stopped for a while (a laptop that slept) goes on where it was.
func TestAgentSlept(t *testing.T) {
	t.Parallel()
	p := newKube(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	syscall.Kill(a.pid(t), syscall.SIGSTOP)
	s.edit(t, "v2")
	after(25 * time.Second) // longer than the connection's keep-alive waits
	syscall.Kill(a.pid(t), syscall.SIGCONT)
	a.live(t, "v2")
	a.running(t, "v2")
}
