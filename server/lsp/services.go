package lsp

import (
	"context"

	"go.lsp.dev/jsonrpc2"

	"fairlead.dev/api"
)

// servicesParams is the notification fairlead/services: all that is known, at every change.
type servicesParams struct {
	Agent    agentState    `json:"agent"`
	Services []api.Service `json:"services"`
}

type agentState struct {
	Connected bool         `json:"connected"`
	Version   string       `json:"version,omitempty"`
	Problem   *api.Problem `json:"problem,omitempty"`
}

// sendServices tells a client that draws services itself.
func (s *Server) sendServices() {
	s.mu.Lock()
	if !s.caps.fairlead || s.state != stateRunning {
		s.mu.Unlock()
		return
	}
	p := servicesParams{Agent: agentState{Connected: s.link.synced, Problem: s.link.problem}, Services: s.list()}
	if s.link.agent != nil {
		p.Agent.Version = s.link.agent.Version
	}
	body := raw(p)
	s.mu.Unlock()
	if err := s.conn.Notify(s.ctx, "fairlead/services", body); err != nil {
		s.log.Debug("tell the services", "err", err)
	}
}

type accessParams struct {
	Name string `json:"name"`
}

// access tells a client that reads a journal itself where it is.
func (s *Server) access(p *accessParams) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		if p.Name == "" {
			return nil, jsonrpc2.NewError(jsonrpc2.InvalidParams, "name is missing")
		}
		a, err := s.agent.Access(ctx, p.Name)
		if err != nil {
			return nil, err
		}
		return raw(a), nil
	}
}
