package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/go-delve/delve/pkg/goversion"
	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/syncer/build"
)

// debuggedSession is a session without an environment, of which only the debugging is looked at.
func debuggedSession(t *testing.T) (*Session, func() *api.Debug) {
	t.Helper()
	var last *api.Debug
	s, err := NewSession(Config{Spec: bridge.Spec{Name: "orders-1", Service: "orders"}, Records: Records{Dir: t.TempDir()}, Service: build.Service{Name: "orders"},
		Emit: func(api.Event) {}, note: func(step any) {
			if d, ok := step.(debugged); ok {
				last = d.debug
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	never, cancel := context.WithCancel(context.Background())
	cancel()
	s.conn.Run(never) // there is no pod, and none is waited for
	return s, func() *api.Debug { s.emitMu.Lock(); defer s.emitMu.Unlock(); return last }
}

func yes(b bool) api.DebugCommand { return api.DebugCommand{Stopped: &b} }

// A swap waits while the process stands, as was chosen, and says so.
func TestDebugHold(t *testing.T) {
	for name, tt := range map[string]struct {
		onSave string
		then   func(s *Session, c *Claim) // that lets it in; nil: nothing holds it
		not    func(s *Session, c *Claim) // that does not, before
	}{
		"it runs":             {onSave: api.OnSaveContinue},
		"now":                 {onSave: api.OnSaveNow, not: func(_ *Session, c *Claim) { c.Do(yes(true)) }},
		"until it goes on":    {onSave: api.OnSaveContinue, then: func(_ *Session, c *Claim) { c.Do(yes(false)) }},
		"until it is let in":  {onSave: api.OnSaveContinue, then: func(s *Session, _ *Claim) { s.choose(api.DebugChoice{Apply: true}) }},
		"another choice":      {onSave: api.OnSaveNever, then: func(s *Session, c *Claim) { s.choose(api.DebugChoice{OnSave: api.OnSaveNow}) }},
		"until it restarts":   {onSave: api.OnSaveNever, then: func(_ *Session, c *Claim) { c.Do(api.DebugCommand{Restart: true}) }},
		"until nobody debugs": {onSave: api.OnSaveNever, then: func(_ *Session, c *Claim) { c.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, shown := debuggedSession(t)
				if err := s.debug.hold(t.Context(), 1); err != nil {
					t.Fatalf("without a debugger: %v", err)
				}
				c, err := s.Debug("an editor", tt.onSave)
				if err != nil {
					t.Fatal(err)
				}
				if tt.then != nil {
					c.Do(yes(true))
				} else if tt.not != nil {
					tt.not(s, c)
				}
				done := make(chan error, 1)
				go func() { done <- s.debug.hold(t.Context(), 7) }()
				synctest.Wait()
				if tt.then == nil {
					if err := <-done; err != nil {
						t.Fatal(err)
					}
					return
				}
				if len(done) > 0 || shown() == nil || shown().Waiting != 7 || !shown().Stopped {
					t.Fatalf("it does not wait, or does not say so: %+v", shown())
				}
				if tt.onSave == api.OnSaveNever {
					c.Do(yes(false)) // to go on is not enough
					synctest.Wait()
					if len(done) > 0 {
						t.Fatal("it came in when the process went on")
					}
					c.Do(yes(true))
				}
				tt.then(s, c)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if now := shown(); now != nil && now.Waiting != 0 {
					t.Errorf("it is shown as waiting still: %+v", now)
				}
			})
		})
	}
}

// A newer generation ends the wait of an older one. What was let in by force counts until there is a new process, and no
// longer.
func TestDebugHoldSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := debuggedSession(t)
		c, err := s.Debug("an editor", api.OnSaveContinue)
		if err != nil {
			t.Fatal(err)
		}
		c.Do(yes(true))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- s.debug.hold(ctx, 7) }()
		synctest.Wait()
		c.Do(api.DebugCommand{Restart: true})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := s.debug.hold(t.Context(), 8); err != nil { // the loop's next, in place of the one let in
			t.Fatal(err)
		}
		s.debug.event(&api.ProcessEvent{Header: api.Header{Type: api.KindProcess, Generation: 8}, State: api.StateStarting, PID: 8})
		c.Do(yes(true))
		go func() { done <- s.debug.hold(ctx, 9) }()
		synctest.Wait()
		if len(done) > 0 {
			t.Error("the restart lets the next save in, too")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// The front end is told of each process that has symbols, once, and of why there is none; a second front end is refused.
func TestDebugEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, shown := debuggedSession(t)
		d := s.debug
		start := func(g api.Generation, pid int, digest api.Digest) {
			d.event(&api.ProcessEvent{Header: api.Header{Type: api.KindProcess, Generation: g}, State: api.StateStarting, PID: pid, Digest: digest})
			d.event(&api.ProcessEvent{Header: api.Header{Type: api.KindProcess, Generation: g}, State: api.StateRunning, PID: pid, Digest: digest})
		}
		built := func(g api.Generation, digest api.Digest, ok bool) {
			d.building(g)
			d.event(&api.BuildEvent{Header: api.Header{Type: api.KindBuild, Generation: g}, OK: ok, Digest: digest})
		}
		built(1, "plain", true)
		start(1, 11, "plain")
		if d.start() || d.wantSymbols() {
			t.Error("builds have symbols before anybody debugs")
		}
		c, err := s.Debug("an editor", api.OnSaveContinue)
		if err != nil {
			t.Fatal(err)
		}
		var p *api.Problem
		if _, err := s.Debug("another", ""); !errors.As(err, &p) || p.Code != api.CodeDebugHeld || p.Hint == "" {
			t.Errorf("a second one: %v", err)
		}
		if shown().Ready {
			t.Error("what has no symbols is ready to be debugged")
		}
		built(2, "symbols", true)
		if !d.start() || !d.wantSymbols() {
			t.Error("the next build has no symbols, or is not started under the debugger")
		}
		start(2, 12, "symbols")
		if !shown().Ready {
			t.Error("it is not ready")
		}
		start(2, 13, "symbols") // Delve was killed
		built(3, "", false)
		d.event(&api.ProcessEvent{Header: api.Header{Type: api.KindProcess, Generation: 2}, State: api.StateExited, Reason: "the service exited with code 2"})
		d.event(&api.EnvironmentEvent{Header: api.Header{Type: api.KindEnvironment}, State: "lost", Reason: "no route"})
		d.connected(api.Status{Generation: 2, PID: 14, Digest: "symbols", State: api.StateRunning})
		d.event(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: 2}, Problem: api.Problem{Owner: keyDebug, Message: "no room", Hint: "more memory"}})
		var got []api.DebugEvent
		for len(c.events) > 0 {
			got = append(got, <-c.events)
		}
		want := []api.DebugEvent{
			{Note: "what runs has no symbols: it is built again with them, and started under the debugger"},
			{Building: 2}, {Process: 2}, {Process: 2}, {Building: 3}, {Note: "the last save does not build: what ran before goes on"},
			{Gone: "the service exited with code 2: the next save starts it again"}, {Gone: "the connection is lost: no route"}, {Process: 2}, {Note: "no room (more memory)"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		c.Close()
		if shown() != nil {
			t.Errorf("it is shown as debugged still: %+v", shown())
		}
		again, err := s.Debug("another", "")
		if err != nil {
			t.Fatal(err)
		}
		if e := <-again.events; e.Process != 2 {
			t.Errorf("a process with symbols is there, and the next debugger is told %+v", e)
		}
		d.over()
		if _, open := <-again.events; open {
			t.Error("the session is over, and the debugger is not told")
		}
	})
}

// A front end that reads nothing loses its debug session, and blocks nobody.
func TestDebugSlowFrontEnd(t *testing.T) {
	s, _ := debuggedSession(t)
	c, err := s.Debug("an editor", "")
	if err != nil {
		t.Fatal(err)
	}
	for g := range api.Generation(2 * debugQueue) {
		s.debug.building(g + 1)
	}
	n := 0
	for range c.Events() {
		n++
	}
	if n != debugQueue {
		t.Errorf("%d events", n)
	}
}

// The versions that the debugger knows are Delve's own; others are told.
func TestDebuggerGo(t *testing.T) {
	if goversion.MinSupportedVersionOfGoMinor != debuggerGoMin || goversion.MaxSupportedVersionOfGoMinor != debuggerGoMax {
		t.Errorf("Delve knows go1.%d to go1.%d", goversion.MinSupportedVersionOfGoMinor, goversion.MaxSupportedVersionOfGoMinor)
	}
	for v, want := range map[string]string{"go1.26.8": "", "go1.25": "", "go1.27rc1": "", "go1.28.1": "newer", "go1.24.3": "older", "devel": "", "": ""} {
		if got := unknownGo(v); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", v, got, want)
		}
	}
}
