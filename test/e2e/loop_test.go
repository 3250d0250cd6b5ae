package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
)

// The main job: run, edit, live; a broken edit changes nothing; Ctrl-C leaves nothing.
func TestEditToRunning(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v1")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.live(t, "v1")
		url := a.url(t)
		s.edit(t, "v2")
		a.live(t, "v2")
		s.edit(t, "v3")
		r := a.live(t, "v3")
		if r.URL != url {
			t.Errorf("the address was %s and is %s", url, r.URL)
		}
		before := a.running(t, "v3")

		write(t, s.version, "package main\n\nconst version = 3 +\n")
		pr := a.wait(t, "the compiler's message", func(e api.Event) bool { _, ok := e.(*api.ProblemEvent); return ok }).(*api.ProblemEvent)
		if pr.File != s.version || pr.Line != 4 && pr.Line != 3 || pr.Column == 0 || pr.Message == "" {
			t.Errorf("%+v", pr.Problem)
		}
		b := a.wait(t, "the failed build", isBuild(false)).(*api.BuildEvent)
		if b.Generation <= r.Generation {
			t.Errorf("generation %d after %d", b.Generation, r.Generation)
		}
		if st := a.running(t, "v3"); st.PID != before.PID {
			t.Errorf("a failed build restarted the service: pid %d, was %d", st.PID, before.PID)
		}
		s.edit(t, "v4")
		a.live(t, "v4")
		a.running(t, "v4")

		if code := a.interrupt(t); code != 0 {
			t.Errorf("exit %d after Ctrl-C\n%s", code, a.stderr())
		}
		a.wait(t, "deleted", isEnv("deleted"))
		p.wantNothing(t)
		a.wantContract(t)
	})
}

// wantContract checks what every line must have.
func (a *agent) wantContract(t testing.TB) {
	t.Helper()
	for _, l := range a.bad {
		t.Errorf("no event: %s", l)
	}
	var gen api.Generation
	seq := map[uint64]bool{}
	for i, e := range a.all() {
		h := e.Head()
		if h.Type == "" || h.Time.IsZero() {
			t.Errorf("event %d has no type or time: %+v", i, e)
		}
		if h.Seq != 0 && seq[h.Seq] {
			t.Errorf("event %d was told twice: %+v", i, e)
		}
		seq[h.Seq] = true
		if r, ok := e.(*api.ReadyEvent); ok {
			if r.Generation < gen {
				t.Errorf("ready goes back from generation %d to %d", gen, r.Generation)
			}
			gen = r.Generation
		}
	}
}

// --keep leaves the environment, and stop removes it; stop also ends a run that is active.
func TestKeepAndStop(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v1")
		a := p.run(t, s.dir, "--keep", "--", "-port", p.port(t))
		a.live(t, "v1")
		before := a.running(t, "v1")
		if code := a.interrupt(t); code != 0 {
			t.Errorf("exit %d\n%s", code, a.stderr())
		}
		// The pod may take a moment to see that its agent has gone.
		eventually(t, "it is kept, and nobody's", func() error {
			all := p.m.status(t)
			if len(all) != 1 || all[0].Pod == nil || all[0].Pod.PID != before.PID || all[0].Pod.Holder != "" {
				return fmt.Errorf("after --keep: %+v", all)
			}
			return nil
		})
		// The next run goes on with it.
		a = p.run(t, s.dir, "--keep", "--", "-port", p.port(t))
		a.live(t, "v1")
		a.running(t, "v1")
		if e := a.wait2(t); !e.Resumed {
			t.Errorf("not resumed: %+v", e)
		}
		p.m.ok(t, s.dir, "stop")
		if code := a.ended(t); code != 1 {
			t.Errorf("the run that lost its environment ended with %d", code)
		}
		wantErrorAndHint(t, a.stderr())
		p.wantNothing(t)
	})
}

// wait2 returns the last connected environment.
func (a *agent) wait2(t testing.TB) *api.EnvironmentEvent {
	t.Helper()
	var out *api.EnvironmentEvent
	for _, e := range a.all() {
		if x, ok := e.(*api.EnvironmentEvent); ok && x.State == "connected" {
			out = x
		}
	}
	if out == nil {
		t.Fatal("it never was connected")
	}
	return out
}

// The large service, over a cluster: what travels is a difference.
func TestShop(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newShop(t, "v1")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.live(t, "v1")
		s.edit(t, "v2, with some more words in it")
		a.live(t, "v2, with some more words in it")
		a.running(t, "v2, with some more words in it")
		// The embedded page is part of the executable.
		page := filepath.Join(s.dir, "internal", "page", "page.html")
		write(t, page, "<h1>edited</h1>")
		a.wait(t, "a build of the edited page", isBuild(true))
		if p.c == nil {
			return
		}
		for _, e := range a.all() {
			if x, ok := e.(*api.TransferEvent); ok && x.Generation > 1 && (x.Full || x.Bytes > 600_000) {
				t.Errorf("%+v", x)
			}
		}
	})
}

// A package that an edit brings in is followed from then on, also while the go command is still asked what it is made of.
func TestNewPackage(t *testing.T) {
	p := newLocal(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	for i, pause := range []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 120 * time.Millisecond} {
		name := fmt.Sprint("part", i)
		put := func(v string) string {
			v = name + v
			write(t, filepath.Join(s.dir, name, "part.go"), fmt.Sprintf("package %s\n\nfunc Version() string { return %q }\n", name, v))
			return v
		}
		put("-old")
		write(t, s.version, fmt.Sprintf("package main\n\nimport \"example.com/tiny/%s\"\n\nvar version = %[1]s.Version()\n", name))
		after(pause) // the save has been noticed, and the answer takes longer
		a.live(t, put("-soon"))
		a.live(t, put("-later"))
	}
	a.running(t, "part2-later")
}

// A start that is interrupted while its pod is made leaves nothing.
func TestInterruptedStart(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.wait(t, "the pod is waited for", func(e api.Event) bool {
		x, ok := e.(*api.EnvironmentEvent)
		return ok && x.State == "creating" && strings.HasPrefix(x.Reason, "waiting for pod")
	})
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	p.wantNothing(t)
}
