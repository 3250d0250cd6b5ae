package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/syncer"
)

// switches are a session's changes of what its environment has shared and fresh. The environment is opened again with
// other wishes, one change at a time; what is connected stays so for as long as its pod does.
type switches struct {
	asked chan switchRequest
	over  chan struct{} // closed when no more are taken
	news  chan struct{} // the dependencies are to be looked at again

	mu    sync.Mutex
	until chan struct{} // closed when the one that is under way is over; nil without
}

type switchRequest struct {
	api.DependencyRequest
	done chan error
}

// begin says whether one may begin: none is under way.
func (w *switches) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until != nil {
		return false
	}
	w.until = make(chan struct{})
	return true
}

func (w *switches) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.until)
	w.until = nil
}

func (w *switches) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.until != nil
}

// wait returns when none is under way.
func (w *switches) wait(ctx context.Context) error {
	w.mu.Lock()
	until := w.until
	w.mu.Unlock()
	if until == nil {
		return nil
	}
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// switchDependency gives the environment a copy of a dependency, or staging's again, and returns when that is so. One that
// cannot be had leaves the environment as it was. A caller that goes leaves the switch to go on.
func (s *Session) switchDependency(ctx context.Context, r api.DependencyRequest) error {
	if err := s.notYours("its dependencies are its owner's to switch"); err != nil {
		return err
	}
	select {
	case <-s.envReady:
	default:
		return &api.Problem{Code: "environment-opening", Message: "the environment is just being made", Hint: "switch a dependency once it is there"}
	}
	if _, ok := s.opened().(depender); !ok {
		return &api.Problem{Code: "not-switched", Message: "on this machine dependencies are not switched while the service runs",
			Hint: fmt.Sprintf("stop it and run it again with --%s %s, or write that under dependencies: in fairlead.yaml", r.Mode, r.Name)}
	}
	if !s.switches.begin() {
		return &api.Problem{Code: "environment-switching", Message: "a dependency of the environment is just being switched", Hint: "do it once that is done"}
	}
	req := switchRequest{r, make(chan error, 1)}
	s.switches.asked <- req // there is room: one at a time has begun
	select {
	case err := <-req.done:
		return err
	case <-s.switches.over:
		return &api.Problem{Code: CodeNoService, Message: s.cfg.Spec.Name + " is just ending", Hint: "run it again"}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// followSwitches carries switches out until ctx ends.
func (s *Session) followSwitches(ctx context.Context) {
	defer close(s.switches.over)
	for {
		select {
		case r := <-s.switches.asked:
			err := s.switchTo(ctx, r.DependencyRequest)
			s.switches.end()
			r.done <- err
			select {
			case s.switches.news <- struct{}{}:
			default:
			}
		case <-ctx.Done():
			return
		}
	}
}

// switchTo opens the environment with another wish, and with the former ones where that fails.
func (s *Session) switchTo(ctx context.Context, r api.DependencyRequest) error {
	before := s.cfg.Spec
	spec := before
	if spec.Dependencies = maps.Clone(before.Dependencies); spec.Dependencies == nil {
		spec.Dependencies = map[string]api.DependencyWish{}
	}
	wish := spec.Dependencies[r.Name]
	wish.Mode = r.Mode
	spec.Dependencies[r.Name] = wish
	s.progress(fmt.Sprintf("making %s %s", r.Name, r.Mode))
	env, err := s.cfg.Open(ctx, spec, s.progress)
	if err == nil {
		s.cfg.Spec.Dependencies = spec.Dependencies // nobody else reads them
		err = s.keep.change(func(rec *Record) {
			rec.Switched = maps.Clone(rec.Switched)
			if rec.Switched == nil {
				rec.Switched = map[string]api.DependencyMode{}
			}
			rec.Switched[r.Name] = r.Mode
		})
		s.note(switched{spec.Dependencies})
		s.reopened(env)
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p := *api.Problems(err, "failed")[0]
	p.Owner = keyNeeds
	p.Message = fmt.Sprintf("%s is not %s: %s", r.Name, r.Mode, p.Message)
	s.progress("going back: " + oneLine(p.Message))
	back, berr := s.cfg.Open(ctx, before, s.progress)
	if berr == nil {
		s.reopened(back)
	} else if ctx.Err() == nil {
		s.reconnect()
		berr = &api.Problem{Code: "not-restored", Owner: keyNeeds, Message: "the environment was not brought back to what it was: " + oneLine(berr.Error()), Hint: "fairlead stop, and run it again"}
	}
	problems := []error{&p}
	if berr != nil {
		problems = append(problems, berr)
	}
	for _, q := range api.Problems(errors.Join(problems...), "failed") {
		s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.keep.get().Generation, Time: time.Now()}, Problem: *q})
	}
	if len(problems) == 1 {
		return &p
	}
	return errors.Join(problems...)
}

// reopened goes on with the environment as it was opened again.
func (s *Session) reopened(env bridge.Environment) {
	was := s.opened()
	s.env.Store(&env)
	if err := s.keep.change(func(r *Record) { r.Environment = env.Info() }); err != nil {
		s.cfg.Logger.Warn("the record was not written", "err", err)
	}
	if env.Target() != was.Target() {
		s.loop.Changed(syncer.Change{Build: true, Saved: time.Now()})
	}
	if env.Info().Pod == was.Info().Pod && s.up.Load() {
		s.tell("connected", "") // nothing was replaced, and requests in flight are not disturbed
	} else {
		s.reconnect()
	}
	was.Close()
}

// reconnect has the connection made anew: the pod that it leads to is another by now.
func (s *Session) reconnect() {
	if s.up.Load() {
		s.conn.Reconnect()
	}
}

// switchDependency is the session's.
func (a *Agent) switchDependency(ctx context.Context, name string, r api.DependencyRequest) error {
	if r.Name == "" || len(r.Name) > maxName || r.Mode != api.DependencyShared && r.Mode != api.DependencyFresh {
		return badRequest(`a dependency has a name, and mode "shared" or "fresh"`)
	}
	a.mu.Lock()
	h, err := a.find(name)
	if err == nil && h.ending {
		err = &api.Problem{Code: CodeNoService, Message: fmt.Sprintf("%s is just ending", name), Hint: "run it again"}
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return h.session.switchDependency(ctx, r)
}

// wishesText writes wishes down, to be compared.
func wishesText(m map[string]api.DependencyWish) string {
	var out []string
	for name, w := range m {
		out = append(out, fmt.Sprintf("%s=%s,%s", name, w.Mode, w.Seed))
	}
	slices.Sort(out)
	return strings.Join(out, "\x00")
}
