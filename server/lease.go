package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
)

// leased is a bridge.Environment that somebody else removes when it is not used for long (on Kubernetes, a janitor).
type leased interface {
	// Renew tells that it is used, and how in words.
	Renew(ctx context.Context, why string) error
	// Kept says until when it stays, used or not; the zero time if it is not kept.
	Kept(ctx context.Context) (time.Time, error)
	// KeepFor keeps it for a time from now on, by its own clock, used or not, and returns until when. KeepUntil with the zero
	// time keeps it no longer.
	KeepFor(ctx context.Context, d time.Duration) (time.Time, error)
	KeepUntil(ctx context.Context, until time.Time) error
	// SetLease says how long it stays unused, before it is put to sleep and then before it is deleted; zero is for ever.
	SetLease(ctx context.Context, sleep, remove time.Duration) error
}

// Lease is how long an unused environment stays; zero is for ever.
type Lease struct{ Sleep, Delete time.Duration }

const (
	// renewEvery is how often a lease is renewed at most. The shortest that an environment may stay unused is five of it.
	renewEvery = time.Minute
	// renewLimit bounds one renewal.
	renewLimit = 20 * time.Second
	// keptLimit bounds the question whether an environment is kept.
	keptLimit = 10 * time.Second
)

// uses is what the environment was used for since the last renewal.
type uses struct {
	mu   sync.Mutex
	last string
}

func (u *uses) note(what string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = what
}

func (u *uses) take() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := u.last
	u.last = ""
	return last
}

// renew renews the lease of an environment that has one, for as long as the session lives: a session that nobody holds
// ends, so its life is a use. Noted uses only say what is done with it.
func (s *Session) renew(ctx context.Context) {
	env, err := s.environment(ctx)
	if err != nil {
		return
	}
	l, ok := env.(leased)
	if !ok {
		return
	}
	s.uses.note("it was opened")
	renew := func(ctx context.Context, why string) error {
		if err := l.Renew(ctx, why); err != nil {
			return err
		}
		if until, err := l.Kept(ctx); err == nil {
			s.note(kept{until}) // whoever said so
		}
		return nil
	}
	renewing(ctx, renew, s.use, func(err error) {
		s.cfg.Logger.Warn("the environment's lease was not renewed", "err", err)
		var p *api.Problem
		if !errors.As(err, &p) || p.Code != "forbidden" {
			return // a lost cluster is told by the connection, and tried again
		}
		w := *p
		w.Owner, w.Severity = keyEnvironment, api.SeverityWarning
		w.Message = "the environment's lease is not renewed, so it may be put to sleep while it is used: " + w.Message
		s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.keep.get().Generation}, Problem: w})
	})
}

// followLease brings a lease to the environment that changed in the settings while it runs.
func (s *Session) followLease(ctx context.Context) {
	env, err := s.environment(ctx)
	if err != nil {
		return
	}
	l, ok := env.(leased)
	if !ok {
		return
	}
	for {
		var want Lease
		select {
		case want = <-s.leases:
		case <-ctx.Done():
			return
		}
		for told := false; ; told = true {
			rctx, cancel := context.WithTimeout(ctx, renewLimit)
			err := l.SetLease(rctx, want.Sleep, want.Delete)
			cancel()
			if err == nil || ctx.Err() != nil {
				break
			}
			if !told {
				for _, p := range api.Problems(err, "lease") {
					p.Owner, p.Severity = keySettings, api.SeverityWarning
					p.Message = "the changed lease: does not hold yet: " + p.Message
					s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.keep.get().Generation}, Problem: *p})
				}
			}
			if pause(ctx, renewEvery) != nil {
				return
			}
			select {
			case want = <-s.leases: // changed once more
			default:
			}
		}
	}
}

// setLease notes a lease that the settings have now.
func (s *Session) setLease(l Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l == s.lease {
		return
	}
	s.lease = l
	select { // only the last one counts
	case <-s.leases:
	default:
	}
	s.leases <- l
}

// renewing renews at once and then every minute until ctx ends. failed is told the first failure of each row of them.
func renewing(ctx context.Context, renew func(context.Context, string) error, use func() string, failed func(error)) {
	t := time.NewTicker(renewEvery)
	defer t.Stop()
	bad := false
	for {
		rctx, cancel := context.WithTimeout(ctx, renewLimit)
		err := renew(rctx, use())
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil && !bad {
			failed(err)
		}
		bad = err != nil
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// use says how the environment is used.
func (s *Session) use() string {
	if s.cfg.Joined {
		return Owner() + " follows it"
	}
	if last := s.uses.take(); last != "" {
		return last
	}
	if s.debug.claimed() {
		return "a debugger is attached"
	}
	return "a front end is attached"
}

// stays says whether the environment outlives the session because it is kept, and tells it.
func (s *Session) stays(env bridge.Environment) (bool, error) {
	l, ok := env.(leased)
	if !ok || s.discarded.Load() {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), keptLimit)
	defer cancel()
	until, err := l.Kept(ctx)
	if err != nil || until.IsZero() {
		return false, err
	}
	s.tell("stopping", fmt.Sprintf("the environment stays: it is kept until %s", until.Local().Format(time.DateTime)))
	return true, nil
}

// keepUntil keeps the environment until a time; the zero time ends that. One that has a lease stays in its cluster, and the
// session ends with its last front end as ever; another lives with its session, and here says whether it does.
func (s *Session) keepUntil(ctx context.Context, t time.Time) (here bool, err error) {
	var env bridge.Environment
	select {
	case <-s.envReady:
		env = s.opened()
	default: // it is being made: it is known by its settings where
		if s.cfg.Record.Environment.Provider != "local" {
			return false, &api.Problem{Code: "environment-opening", Message: "the environment is just being made", Hint: "keep it once it is there"}
		}
	}
	if l, ok := env.(leased); ok {
		ctx, cancel := context.WithTimeout(ctx, keptLimit)
		defer cancel()
		if t.IsZero() {
			err = l.KeepUntil(ctx, t)
		} else {
			t, err = l.KeepFor(ctx, time.Until(t))
		}
		if err == nil {
			s.note(kept{t})
		}
		return false, err
	}
	return true, s.keep.change(func(r *Record) { r.KeepUntil = t })
}

// keptUntil is what keepUntil wrote, also under a former agent.
func (s *Session) keptUntil() time.Time { return s.keep.get().KeepUntil }

// claimed says whether somebody debugs.
func (d *debugging) claimed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.claim != nil
}

// keepService makes a session live without a front end until a time; the zero time lets it end with its last one, or now.
func (a *Agent) keepService(ctx context.Context, name string, until time.Time) error {
	a.mu.Lock()
	h, err := a.find(name)
	if err == nil && h.ending {
		err = &api.Problem{Code: CodeNoService, Message: fmt.Sprintf("%s is just ending", name), Hint: "run it again"}
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	here, err := h.session.keepUntil(ctx, until)
	if err != nil || !here {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	h.keepUntil = until
	a.changed(h)
	if len(h.holders) == 0 {
		a.letGoWhenDue(h, "it is kept no longer")
	}
	return nil
}

// letGoWhenDue ends a session that nobody holds, at once or when it is kept no longer.
func (a *Agent) letGoWhenDue(h *held, why string) {
	if h.keepTimer != nil {
		h.keepTimer.Stop()
		h.keepTimer = nil
	}
	left := time.Until(h.keepUntil)
	if left <= 0 {
		a.endLockedSession(h, why)
		return
	}
	var t *time.Timer
	t = time.AfterFunc(left, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if h.keepTimer == t && !a.wanted(h, map[string]bool{}) {
			a.endLockedSession(h, "it is kept no longer")
		}
	})
	h.keepTimer = t
	a.changed(h)
}
