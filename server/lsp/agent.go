package lsp

import (
	"context"
	"errors"
	"slices"
	"time"

	"fairlead.dev/api"
)

// Agent is what the server needs of the agent. It has more methods than an interface should: it is the whole of what an
// editor's user can ask for, and package client has them all.
type Agent interface {
	// Attach finds or starts the agent and stays attached until ctx ends, over losses and restarts. handle is called from
	// one goroutine, in order.
	Attach(ctx context.Context, handle func(Update))
	Run(ctx context.Context, r api.RunRequest) (api.RunAnswer, error)
	// Join follows an environment that somebody else made.
	Join(ctx context.Context, r api.JoinRequest) (api.RunAnswer, error)
	Stop(ctx context.Context, name string) error
	Cancel(ctx context.Context, name, what string) error
	Saved(ctx context.Context, paths ...string) error
	Access(ctx context.Context, name string) (api.JournalAccess, error)
	// Journal reads until handle returns an error, which it returns, or the session ends.
	Journal(ctx context.Context, name string, after uint64, logs bool, handle func(api.Entry) error) error
	// DebugChoice says what a save does while the process stands in the debugger.
	DebugChoice(ctx context.Context, name string, ch api.DebugChoice) error
	// KeepUntil keeps the environment until a time, used or not; the zero time keeps it no longer.
	KeepUntil(ctx context.Context, name string, until time.Time) error
	// SwitchDependency gives an environment a copy of a dependency, or staging's again, and returns when that is so.
	SwitchDependency(ctx context.Context, name string, r api.DependencyRequest) error
	// Form is the page on which access is asked for; its address signs in, once.
	Form(ctx context.Context, name string, r api.FormRequest) (string, error)
	// AnswerDue does api.DueKeep or api.DueStop to an environment that is due.
	AnswerDue(ctx context.Context, id, do string) error
	// Restart ends the agent, whatever it holds; Attach starts the next one.
	Restart(ctx context.Context) error
}

// Update is what Attach tells: the agent's message, or that the agent is out of reach and why.
type Update struct {
	api.Update
	Lost error
}

// link is what is known of the agent.
type link struct {
	agent   *api.Agent   // nil while it is out of reach
	problem *api.Problem // why it is
	synced  bool         // its services are all known
	seen    map[string]bool
	last    api.Agent // that was attached last
	told    string    // the problem that a message was shown for
	lost    bool      // since it was synced last
}

// service is one service under edit and what this server keeps beside it.
type service struct {
	api.Service
	marks    []*mark
	progress *progress
	failed   time.Time // Since of the failed phase that the build's marks are anchored for
	said     map[string]bool
	asked    bool   // what a save is to do while the process stands in the debugger
	home     *place // where problems without a place are shown; found when first needed
}

// place is a line of a file.
type place struct {
	path string
	line int
}

// held is a run that this editor asked for. It is asked for again when the agent was restarted.
type held struct {
	request api.RunRequest
	join    *api.JoinRequest // in place of request
	open    bool             // the browser is to be opened when it is live
	// lost: the agent has been lost since. A run that was answered while an attachment began may be missing in what that
	// attachment tells first, and has not ended for that.
	lost bool
}

// handle takes in what the agent says.
func (s *Server) handle(u Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case u.Lost != nil:
		if before := s.link.problem; before != nil && before.Message == problemOf(u.Lost).Message {
			return // tried again, with the same outcome
		}
		s.lost(u.Lost)
	case u.Agent != nil:
		if u.Agent.PID != s.link.last.PID {
			s.restarting = false
		}
		s.link.agent, s.link.problem, s.link.synced, s.link.seen = u.Agent, nil, false, map[string]bool{}
	case u.Service != nil:
		if s.link.seen != nil {
			s.link.seen[u.Service.Name] = true
		}
		s.update(u.Service)
	case u.Synced:
		s.synced()
	case u.Due != nil:
		due := *u.Due
		s.spawn(func(ctx context.Context) { s.askDue(ctx, due) })
		return
	default:
		return // events: what matters of them is in the service
	}
	s.changed()
}

// changed has everything redrawn that shows services.
func (s *Server) changed() {
	s.lenses.poke()
	s.status.poke()
	s.publish.poke()
}

func (s *Server) lost(err error) {
	p := problemOf(err)
	s.link.agent, s.link.synced, s.link.seen, s.link.problem, s.link.lost = nil, false, nil, p, true
	// What the services do now is not known; showing the last state would be a guess. Their marks stay until the agent is
	// back: the errors of a build do not go away with the agent.
	for _, svc := range s.services {
		s.endProgress(svc, "")
	}
	for _, h := range s.held {
		h.lost = true
	}
	if s.link.told == p.Message || s.state != stateRunning {
		return
	}
	wait := lostMessageAfter
	if p.Code == codeVersion || p.Code == codeStart {
		wait = 0
	}
	s.after(wait, func() {
		s.mu.Lock()
		still := s.link.agent == nil && s.link.problem != nil && s.link.told != s.link.problem.Message
		if still {
			p = s.link.problem
			s.link.told = p.Message
		}
		s.mu.Unlock()
		if !still {
			return
		}
		if s.ask(s.ctx, messageError, "Fairlead: "+withHint(p), "Restart agent") == "Restart agent" {
			if err := s.restartAgent(s.ctx); err != nil {
				s.show(messageError, "Fairlead: "+err.Error())
			}
		}
	})
}

const (
	codeVersion = "agent-version"
	codeStart   = "agent-start"
	// An agent that is restarted is back within a second; a message for that would be noise.
	lostMessageAfter = 4 * time.Second
)

// synced ends the list of services that an attachment begins with.
func (s *Server) synced() {
	for name, svc := range s.services {
		if !s.link.seen[name] {
			s.endProgress(svc, "")
			delete(s.services, name)
		}
	}
	now := *s.link.agent
	restarted := s.link.last.PID != 0 && (s.link.last.PID != now.PID || !s.link.last.Started.Equal(now.Started))
	seen := s.link.seen
	if s.link.lost { // what was refused before may be over; what was refused while the first attachment began is not
		for pkg, problems := range s.refused {
			s.refused[pkg] = slices.DeleteFunc(problems, func(p *api.Problem) bool { return p.File == "" })
		}
	}
	s.link.last, s.link.synced, s.link.seen, s.link.told, s.link.lost = now, true, nil, "", false
	for name, h := range s.held {
		lost := h.lost
		h.lost = false
		switch {
		case !restarted && !seen[name] && !lost: // see held
		case !restarted && !seen[name]:
			delete(s.held, name) // it was ended while nobody told us
		case restarted && !seen[name]:
			delete(s.held, name)
			s.spawn(func(ctx context.Context) {
				if err := s.again(ctx, h); err != nil {
					s.show(messageError, "Fairlead: run "+name+" again: "+errorText(err))
				}
			})
		case restarted:
			// Somebody else runs it by now; being held by this editor too is what its user asked for.
			s.spawn(func(ctx context.Context) {
				if h.join != nil {
					s.agent.Join(ctx, *h.join)
					return
				}
				s.agent.Run(ctx, h.request)
			})
		}
	}
	if s.runAfterSync != nil {
		close(s.runAfterSync)
		s.runAfterSync = nil
	}
}

// again asks once more for what this editor held.
func (s *Server) again(ctx context.Context, h *held) error {
	if h.join != nil {
		_, err := s.join(ctx, *h.join)
		return err
	}
	_, err := s.run(ctx, h.request, h.open)
	return err
}

// update takes in one service's new state.
func (s *Server) update(now *api.Service) {
	svc := s.services[now.Name]
	if now.Phase == api.PhaseEnded {
		s.ended(svc, now)
		return
	}
	if svc == nil {
		svc = &service{said: map[string]bool{}}
		s.services[now.Name] = svc
		delete(s.endedWith, now.Package)
		delete(s.refused, now.Package) // it runs, whoever had more luck
	}
	before := svc.Service
	svc.Service = *now
	s.mark(svc, before)
	s.track(svc)
	s.tell(svc)
	s.askWaiting(svc, now)
	if h := s.held[now.Name]; h != nil && h.open && now.Phase == api.PhaseLive && now.URL != "" {
		h.open = false
		url := now.URL
		s.spawn(func(ctx context.Context) { s.openAfterRun(ctx, *now, url) })
	}
}

func (s *Server) ended(svc *service, now *api.Service) {
	if svc != nil {
		s.endProgress(svc, "")
		svc.Service = *now
		s.tell(svc)
	} else {
		s.tell(&service{Service: *now, said: map[string]bool{}})
	}
	delete(s.services, now.Name)
	if !s.restarting {
		delete(s.held, now.Name)
	}
	// Why it ended stays to be read on the lens until it is run again.
	if len(now.Problems) > 0 && now.Package != "" {
		s.endedWith[now.Package] = &now.Problems[0]
	}
}

// restartAgent ends the agent; being attached again is what Attach does.
func (s *Server) restartAgent(ctx context.Context) error {
	s.mu.Lock()
	s.restarting = true // until the next: what this editor holds ends with the agent, and is wanted still
	s.mu.Unlock()
	err := s.agent.Restart(ctx)
	if err != nil {
		s.mu.Lock()
		s.restarting = false
		s.mu.Unlock()
	}
	return err
}

// tell shows, once, errors that have no place in a file and so might be missed.
func (s *Server) tell(svc *service) {
	standing := map[string]bool{}
	for i := range svc.Problems {
		p := svc.Problems[i]
		key := p.Code + "\x00" + p.Message
		standing[key] = true
		if p.File != "" || p.Severity == api.SeverityInfo || svc.said[key] || s.state != stateRunning {
			continue
		}
		svc.said[key] = true
		name, text := svc.Environment.Service, withHint(&p)
		show := func() { s.show(messageType(p.Severity), "Fairlead, "+name+": "+text) }
		if p.Code != api.CodeLost {
			s.spawn(func(context.Context) { show() })
			continue
		}
		// A connection that is back at once is told by the lens; a message would only be in the way.
		s.after(lostMessageAfter, func() {
			s.mu.Lock()
			now := s.services[svc.Name]
			stands := now != nil && slices.ContainsFunc(now.Problems, func(q api.Problem) bool { return q.Code == p.Code && q.Message == p.Message })
			s.mu.Unlock()
			if stands {
				show()
			}
		})
	}
	for key := range svc.said {
		if !standing[key] {
			delete(svc.said, key)
		}
	}
}

// problemOf returns the problem in an error, or makes one of it.
func problemOf(err error) *api.Problem {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	return &api.Problem{Code: "agent", Message: err.Error()}
}

// withHint is a problem as one text for a person.
func withHint(p *api.Problem) string {
	if p.Hint == "" {
		return p.Message
	}
	return p.Message + " (" + p.Hint + ")"
}

func errorText(err error) string { return withHint(problemOf(err)) }

// list returns the services in the order of their names.
func (s *Server) list() []api.Service {
	out := make([]api.Service, 0, len(s.services))
	for _, svc := range s.services {
		out = append(out, svc.Service)
	}
	slices.SortFunc(out, func(a, b api.Service) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}
