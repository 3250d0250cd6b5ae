package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"

	"github.com/google/go-cmp/cmp"
)

// The lease is renewed at once, then once a minute however much is done, with what was done last.
func TestRenewing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var u uses
		type renewal struct {
			At  time.Duration
			Why string
		}
		var got []renewal
		var told int
		var fails atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		u.note("it was opened")
		go func() {
			defer close(done)
			renewing(ctx, func(_ context.Context, why string) error {
				got = append(got, renewal{time.Since(start), why})
				if fails.Add(-1) >= 0 {
					return errors.New("the cluster is away")
				}
				return nil
			}, u.take, func(error) { told++ })
		}()
		at := func(d time.Duration, f func()) {
			<-time.After(time.Until(start.Add(d)))
			f()
		}
		at(10*time.Second, func() { u.note("a request") })
		at(30*time.Second, func() { u.note("a save") })
		at(61*time.Second, func() { fails.Store(1) })
		at(190*time.Second, func() { fails.Store(2) })
		at(310*time.Second, cancel)
		<-done
		want := []renewal{{0, "it was opened"}, {time.Minute, "a save"}, {2 * time.Minute, ""}, {3 * time.Minute, ""}, {4 * time.Minute, ""}, {5 * time.Minute, ""}}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if told != 2 { // two failures in a row are told once
			t.Errorf("told %d times", told)
		}
	})
}

// A session that is kept lives without a front end until its time, and ends at once when it is kept no longer.
func TestAgentKeepsUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, all := fakeAgent()
		run := func() {
			at, err := a.attach("a", "a", false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.run(t.Context(), api.RunRequest{Client: "a", Dir: "/x"}); err != nil {
				t.Fatal(err)
			}
			if err := a.keepService(t.Context(), "x", time.Now().Add(3*time.Hour)); err != nil {
				t.Fatal(err)
			}
			a.detach(at, true)
		}
		there := func(want bool, when string) {
			t.Helper()
			synctest.Wait()
			if s := a.services(); (len(s) == 1) != want {
				t.Fatalf("%s: %+v", when, s)
			}
		}
		run()
		time.Sleep(3*time.Hour - time.Second)
		there(true, "while it is kept")
		if s := a.services(); s[0].KeepUntil.IsZero() || len(s[0].Clients) != 0 {
			t.Errorf("%+v", s[0])
		}
		time.Sleep(5 * time.Second)
		there(false, "when it is kept no longer")

		run()
		time.Sleep(time.Hour)
		if err := a.keepService(t.Context(), "x", time.Now().Add(6*time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		there(true, "when it is kept for longer")
		if err := a.keepService(t.Context(), "x", time.Time{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		there(false, "when it is kept no longer")

		// A stop goes before it.
		run()
		if _, err := a.stop("x", "it was stopped"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		there(false, "when it was stopped")
		if len(*all) != 3 || !(*all)[2].discarded {
			t.Errorf("%d sessions", len(*all))
		}
		if err := a.keepService(t.Context(), "x", time.Now().Add(time.Hour)); err == nil {
			t.Error("kept what is not there")
		}
		time.Sleep(5 * time.Minute)
		a.wg.Wait()
	})
}

// leasedEnv is an environment that is kept, or of which that cannot be told.
type leasedEnv struct {
	bridge.Environment
	until   time.Time
	err     error
	deleted *bool
	lease   func(sleep, remove time.Duration) error
}

func (e leasedEnv) SetLease(_ context.Context, sleep, remove time.Duration) error {
	return e.lease(sleep, remove)
}

func (e leasedEnv) Renew(context.Context, string) error        { return nil }
func (e leasedEnv) Kept(context.Context) (time.Time, error)    { return e.until, e.err }
func (e leasedEnv) KeepUntil(context.Context, time.Time) error { return e.err }
func (e leasedEnv) KeepFor(_ context.Context, d time.Duration) (time.Time, error) {
	return time.Now().Add(d), e.err
}
func (e leasedEnv) Delete(context.Context) error { *e.deleted = true; return nil }
func (e leasedEnv) Close() error                 { return nil }

// What is kept in the cluster outlives its session, unless it is stopped.
func TestSessionLeavesWhatIsKept(t *testing.T) {
	kept := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		until           time.Time
		err             error
		stop            bool
		deleted, failed bool
	}{
		"not kept":                   {deleted: true},
		"kept":                       {until: kept},
		"kept, and stopped":          {until: kept, stop: true, deleted: true},
		"not to be told":             {err: errors.New("away"), failed: true},
		"not to be told and stopped": {err: errors.New("away"), stop: true, deleted: true},
	} {
		deleted := false
		var told []string
		s := &Session{keep: &keeper{recs: Records{Dir: t.TempDir()}, rec: Record{Environment: api.Environment{Name: "x"}}}, builds: &builds{}, debug: newDebugging(nil),
			envReady: make(chan struct{})}
		var env bridge.Environment = leasedEnv{until: c.until, err: c.err, deleted: &deleted}
		s.env.Store(&env)
		s.cfg = Config{Records: s.keep.recs, Emit: func(e api.Event) { told = append(told, e.(*api.EnvironmentEvent).Reason) }}
		s.cfg.Spec.Name = "x"
		close(s.envReady)
		if c.stop {
			s.Discard()
		}
		if err := s.close(nil); (err != nil) != c.failed {
			t.Errorf("%s: %v", name, err)
		}
		if deleted != c.deleted {
			t.Errorf("%s: deleted %v", name, deleted)
		}
		if is := len(told) == 1 && strings.HasPrefix(told[0], "the environment stays"); is != (!c.deleted && !c.failed) {
			t.Errorf("%s: told %q", name, told)
		}
	}
}

// A lease that changes while the environment runs is brought to it, tried again where that fails, and then the newest.
func TestFollowLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got, told []string
		fails := 1
		var env bridge.Environment = leasedEnv{lease: func(sleep, remove time.Duration) error {
			got = append(got, fmt.Sprint(sleep, " ", remove))
			if fails--; fails >= 0 {
				return errors.New("the cluster is away")
			}
			return nil
		}}
		s := &Session{keep: &keeper{}, debug: newDebugging(nil), envReady: make(chan struct{}), leases: make(chan Lease, 1)}
		s.env.Store(&env)
		s.cfg.Emit = func(e api.Event) { told = append(told, e.(*api.ProblemEvent).Message) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.followLease(ctx); close(done) }()
		s.setLease(Lease{time.Hour, 2 * time.Hour}) // before there is an environment
		close(s.envReady)
		synctest.Wait()
		s.setLease(Lease{3 * time.Hour, 0})
		time.Sleep(2 * renewEvery)
		cancel()
		<-done
		if d := cmp.Diff([]string{"1h0m0s 2h0m0s", "3h0m0s 0s"}, got); d != "" {
			t.Error(d)
		}
		if len(told) != 1 || !strings.Contains(told[0], "does not hold yet: the cluster is away") {
			t.Errorf("%q", told)
		}
	})
}
