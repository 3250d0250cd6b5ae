package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fairlead.dev/api"
)

// A session that has joined follows an environment that another user made: it connects without attaching, so that the
// owner's agent goes on undisturbed, and has of a session the followers, the tunnels and the lease.

// notYours refuses what only an environment's owner may do.
func (s *Session) notYours(what string) error {
	if !s.cfg.Joined {
		return nil
	}
	return &api.Problem{Code: api.CodeNotYours, Message: fmt.Sprintf("%s is the environment of %s, and only followed here: %s", s.cfg.Spec.Name, s.cfg.Owner, what),
		Hint: "fairlead run, in your own checkout of the service, makes an environment of your own"}
}

// standing tells what the pod runs when the session begins to follow it: the events that led there are history, and may be
// lost.
func (s *Session) standing(ctx context.Context, st *api.Status) {
	head := api.Header{Generation: st.Generation, Time: time.Now()}
	if st.State == api.StateEmpty {
		return
	}
	head.Type = api.KindProcess
	s.podEvent(ctx, &api.ProcessEvent{Header: head, State: st.State, PID: st.PID, Digest: st.Digest, ExitCode: st.ExitCode})
	if st.State == api.StateRunning {
		head.Type = api.KindListening
		s.podEvent(ctx, &api.ListeningEvent{Header: head, Ports: st.Ports})
	}
}

// leave ends a session that only followed: everything stays as it is but what this machine remembers.
func (s *Session) leave(why error) error {
	if err := s.cfg.Records.Remove(s.cfg.Spec.Name); err != nil {
		s.cfg.Logger.Warn("the record was not removed", "err", err)
	}
	select {
	case <-s.envReady:
		s.opened().Close()
	default:
		return why
	}
	var p *api.Problem
	switch {
	case errors.As(why, &p) && p.Code == api.CodeGone:
		return &api.Problem{Code: api.CodeGone, Message: fmt.Sprintf("%s has ended the environment %s, or it was removed because nobody used it", s.cfg.Owner, s.cfg.Spec.Name),
			Hint: "fairlead run, in your own checkout of the service, makes an environment of your own"}
	case why == nil:
		s.tell("stopped", fmt.Sprintf("left: %s goes on with it", s.cfg.Owner))
	}
	return why
}

// join finds or begins the session that follows an environment.
func (a *Agent) join(ctx context.Context, r api.JoinRequest) (api.RunAnswer, error) {
	plan, err := a.cfg.Join(ctx, r)
	if err != nil {
		return api.RunAnswer{}, err
	}
	return a.enter(ctx, plan, r.Client, false)
}
