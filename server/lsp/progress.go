package lsp

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.lsp.dev/protocol"

	"fairlead.dev/api"
)

// Progress is shown for what lasts. Somebody who has just pressed Run looks for a sign at once; after a save the eyes are
// on the code, most builds are over in half a second, and something that flashes at each is a nuisance. (The lens has
// the state in any case.)
const (
	progressAfterRun  = 150 * time.Millisecond
	progressAfterSave = 700 * time.Millisecond
)

// progress is one piece of work that an editor shows: from opening or building until it is live or is not.
type progress struct {
	name    string // the service's
	title   string
	token   string
	mu      sync.Mutex
	phase   api.Phase
	message string
	last    string        // said at the end
	more    chan struct{} // phase or message changed
	ended   chan struct{}
	once    sync.Once
}

// workOf is what a cancel in a phase means; empty where there is nothing to cancel.
func workOf(p api.Phase) string {
	switch p {
	case api.PhaseOpening:
		return "environment"
	case api.PhaseBuilding:
		return "build"
	case api.PhaseShipping:
		return "transfer"
	}
	return ""
}

func working(p api.Phase) bool { return workOf(p) != "" || p == api.PhaseStarting }

// track begins, changes or ends a service's progress.
func (s *Server) track(svc *service) {
	if !s.caps.progress || s.state != stateRunning {
		return
	}
	if !working(svc.Phase) {
		s.endProgress(svc, stateText(&svc.Service))
		return
	}
	p := svc.progress
	if p == nil {
		s.number++
		p = &progress{name: svc.Name, title: "Fairlead: " + svc.Environment.Service, token: fmt.Sprintf("fairlead-%d", s.number),
			more: make(chan struct{}, 1), ended: make(chan struct{})}
		svc.progress = p
		s.tokens[p.token] = p
		wait := progressAfterSave
		if svc.Phase == api.PhaseOpening || svc.Generation == 0 {
			wait = progressAfterRun
		}
		s.spawn(func(ctx context.Context) { s.progress(ctx, p, wait) })
	}
	p.mu.Lock()
	p.phase, p.message = svc.Phase, stateText(&svc.Service)
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
}

func (s *Server) endProgress(svc *service, last string) {
	if p := svc.progress; p != nil {
		svc.progress = nil
		delete(s.tokens, p.token)
		p.mu.Lock()
		p.last = last
		p.mu.Unlock()
		p.once.Do(func() { close(p.ended) })
	}
}

// progress draws one progress, if it lasts.
func (s *Server) progress(ctx context.Context, p *progress, wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ended:
		return
	case <-ctx.Done():
		return
	}
	send := s.beginProgress(ctx, p.token)
	if send == nil {
		return
	}
	state := func() (string, bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.message, workOf(p.phase) != ""
	}
	message, can := state()
	send(&protocol.WorkDoneProgressBegin{Kind: "begin", Title: p.title, Cancellable: &can, Message: &message})
	for {
		select {
		case <-p.more:
			now, can := state()
			if now != message {
				send(&protocol.WorkDoneProgressReport{Kind: "report", Cancellable: &can, Message: &now})
				message = now
			}
		case <-p.ended:
			p.mu.Lock()
			end := &protocol.WorkDoneProgressEnd{Kind: "end"}
			if p.last != "" {
				end.Message = &p.last
			}
			p.mu.Unlock()
			send(end)
			return
		case <-ctx.Done():
			return
		}
	}
}

// beginProgress has the editor make a progress, and returns what tells it more; nil where it does not: a token that was not created must
// not be used.
func (s *Server) beginProgress(ctx context.Context, token string) (send func(any)) {
	id := protocol.String(token)
	create, cancel := shorter(ctx)
	defer cancel()
	if err := s.client.WorkDoneProgressCreate(create, &protocol.WorkDoneProgressCreateParams{Token: id}); err != nil {
		s.log.Debug("create a progress", "err", err)
		return nil
	}
	return func(v any) {
		b, err := protocol.Marshal(v)
		if err == nil {
			err = s.client.Progress(ctx, &protocol.ProgressParams{Token: id, Value: b})
		}
		if err != nil {
			s.log.Debug("send progress", "err", err)
		}
	}
}

// workDoneProgressCancel cancels what a progress shows at this moment.
func (s *Server) workDoneProgressCancel(params *protocol.WorkDoneProgressCancelParams) {
	token, _ := params.Token.(protocol.String)
	s.mu.Lock()
	p, cancel := s.tokens[string(token)], s.works[string(token)]
	s.mu.Unlock()
	if cancel != nil {
		cancel()
		return
	}
	if p == nil {
		return
	}
	p.mu.Lock()
	what := workOf(p.phase)
	p.mu.Unlock()
	if what == "" {
		return
	}
	s.spawn(func(ctx context.Context) {
		if err := s.agent.Cancel(ctx, p.name, what); err != nil {
			s.show(messageError, "Fairlead: cancel: "+errorText(err))
		}
	})
}
