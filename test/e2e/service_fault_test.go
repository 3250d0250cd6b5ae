package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/api"
)

// kill -9 of the service: its end is told, and the next save starts it again in the same pod.
func TestServiceKilled(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v1")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.live(t, "v1")
		a.running(t, "v1")
		sup := one(t, "supervisors", p.supervisors(t))
		syscall.Kill(one(t, "services", p.services(t)), syscall.SIGKILL)
		e := a.wait(t, "exited", isProcess(api.StateExited)).(*api.ProcessEvent)
		if e.ExitCode == nil || *e.ExitCode != 137 || e.Reason == "" {
			t.Errorf("%+v, want exit code 137", e)
		}
		// A browser is told why, not refused.
		if _, err := get(a.url(t) + "/version"); err == nil || !strings.Contains(err.Error(), "signal 9") {
			t.Errorf("a request says %v", err)
		}
		s.edit(t, "v2")
		a.live(t, "v2")
		a.running(t, "v2")
		if now := one(t, "supervisors", p.supervisors(t)); now != sup {
			t.Errorf("supervisor %d, was %d", now, sup)
		}
		p.wantRestarts(t, 0)

		// kill -9 of the supervisor: the last good build comes back by itself.
		syscall.Kill(sup, syscall.SIGKILL)
		lost := a.wait(t, "lost", isEnv("lost")).(*api.EnvironmentEvent)
		if lost.Reason == "" {
			t.Error("no reason is told")
		}
		a.wait(t, "connected", isEnv("connected"))
		a.live(t, "v2")
		a.running(t, "v2")
		p.wantRestarts(t, 1)
		s.edit(t, "v3")
		a.live(t, "v3")
		a.running(t, "v3")
	})
}

// wantRestarts checks how often the pod's container was started again.
func (p *place) wantRestarts(t testing.TB, n int32) {
	t.Helper()
	if p.c == nil {
		return
	}
	eventually(t, fmt.Sprintf("restarts %d", n), func() error {
		for _, st := range p.c.pod(t, p.ns).Status.ContainerStatuses {
			if st.RestartCount != n {
				return fmt.Errorf("container %s was restarted %d times", st.Name, st.RestartCount)
			}
		}
		return nil
	})
}

// Services that do not behave: one ignores SIGTERM, one leaves a child in a session of its own, one drains for 3 s.
// None costs the loop seconds, and nothing of a former generation is left.
func TestUnrulyService(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		for name, args := range map[string][]string{"ignores SIGTERM": {"-ignore-term"}, "forks": {"-fork"}, "drains": {"-drain", "3s"}} {
			t.Run(name, func(t *testing.T) {
				s := newTiny(t, "v1")
				a := p.run(t, s.dir, append([]string{"--", "-port", p.port(t)}, args...)...)
				a.live(t, "v1")
				for _, v := range []string{"v2", "v3"} {
					s.edit(t, v)
					a.live(t, v)
				}
				a.running(t, "v3")
				want := 1
				if name == "forks" {
					want = 2
				}
				var of []int
				for _, pid := range p.podProcesses(t) {
					if executable(pid) == "tiny" {
						of = append(of, pid)
					}
				}
				if len(of) != want {
					t.Errorf("%d processes of the service, want %d: %s", len(of), want, describe(of))
				}
				a.wantQuickStops(t, time.Second)
				if code := a.interrupt(t); code != 0 {
					t.Errorf("exit %d", code)
				}
				p.wantNothing(t)
			})
		}
	})
}

// wantQuickStops checks how long the service was away in each swap.
func (a *agent) wantQuickStops(t testing.TB, limit time.Duration) {
	t.Helper()
	var stopping time.Time
	n := 0
	for _, e := range a.all() {
		x, ok := e.(*api.ProcessEvent)
		switch {
		case ok && x.State == api.StateStopping:
			stopping = x.Time
		case ok && x.State == api.StateStarting && !stopping.IsZero():
			if d := x.Time.Sub(stopping); d > limit {
				t.Errorf("generation %d: %s from the end of the old process to the start of the new", x.Generation, d)
			}
			n++
		}
	}
	if n == 0 {
		t.Error("no swap was seen")
	}
}

// A service that crashes at its start, again and again: the supervisor stays, and a good build is taken at any moment.
func TestCrashLoop(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v1")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.live(t, "v1")
		sup := one(t, "supervisors", p.supervisors(t))
		for i := range 3 {
			write(t, s.version, fmt.Sprintf("package main\n\nvar version = crash()\n\nfunc crash() string { panic(\"crash %d\") }\n", i))
			a.wait(t, fmt.Sprintf("crash %d in the log", i), isLine(fmt.Sprintf("crash %d", i)))
			e := a.wait(t, "exited", isProcess(api.StateExited)).(*api.ProcessEvent)
			if e.ExitCode == nil || *e.ExitCode != 2 {
				t.Errorf("%+v", e)
			}
		}
		s.edit(t, "v2")
		a.live(t, "v2")
		a.running(t, "v2")
		if now := one(t, "supervisors", p.supervisors(t)); now != sup {
			t.Errorf("supervisor %d, was %d", now, sup)
		}
	})
}

// 50 MB/s of logs: memory is bounded, what is dropped is counted aloud, and edits arrive meanwhile.
func TestLogFlood(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v1")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.live(t, "v1")
		sup := one(t, "supervisors", p.supervisors(t))
		const limit = 200 << 20
		watch := func() {
			for what, pid := range map[string]int{"agent": a.pid(t), "front end": a.cmd.Process.Pid, "supervisor": sup} {
				if m := memory(pid); m > limit {
					t.Errorf("the %s has %d MB", what, m>>20)
				}
			}
		}
		if _, err := get(a.url(t) + "/flood?mb=50&for=8s"); err != nil {
			t.Fatal(err)
		}
		a.wait(t, "lines that were dropped", func(e api.Event) bool {
			watch()
			l, ok := e.(*api.LogEvent)
			return ok && l.Dropped > 0
		})
		s.edit(t, "v2")
		a.live(t, "v2")
		// The new one writes as much, and is followed to its end.
		if _, err := get(a.url(t) + "/flood?mb=50&for=4s"); err != nil {
			t.Fatal(err)
		}
		a.wait(t, "the end of the flood", func(e api.Event) bool {
			watch()
			l, ok := e.(*api.LogEvent)
			return ok && l.Generation > 1 && l.Text == "flood is over"
		})
		watch()
		a.running(t, "v2")
		s.edit(t, "v3")
		a.live(t, "v3")
		a.running(t, "v3")
	})
}
