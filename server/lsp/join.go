package lsp

import (
	"context"
	"fmt"

	"go.lsp.dev/jsonrpc2"

	"fairlead.dev/api"
)

// joinArgs name an environment that somebody else made, and the kubeconfig's context for its cluster, or that one's address.
type joinArgs struct {
	Environment string `json:"environment"`
	Namespace   string `json:"namespace,omitempty"`
	Context     string `json:"context,omitempty"`
	Cluster     string `json:"cluster,omitempty"`
}

func (s *Server) joinCommand(ctx context.Context, a joinArgs) (any, error) {
	s.mu.Lock()
	trusted := s.set.Trusted
	s.mu.Unlock()
	if !trusted {
		return nil, &api.Problem{Code: "untrusted", Message: "this workspace is not trusted, so no environment is joined from it", Hint: "trust the workspace in the editor first"}
	}
	if a.Environment == "" {
		return nil, jsonrpc2.NewError(jsonrpc2.InvalidParams, "environment is missing")
	}
	answer, err := s.join(ctx, api.JoinRequest{Environment: a.Environment, Namespace: a.Namespace, Context: a.Context, Cluster: a.Cluster, Env: s.opts.Environ})
	if err != nil {
		return nil, err
	}
	return raw(answer), nil
}

// join asks the agent to follow an environment and remembers that this editor did.
func (s *Server) join(ctx context.Context, r api.JoinRequest) (api.RunAnswer, error) {
	answer, err := s.agent.Join(ctx, r)
	if err != nil {
		return answer, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[answer.Name] = &held{join: &r}
	s.changed()
	return answer, nil
}

// switchDependency makes a dependency shared or fresh. What that costs is for the editor to ask.
func (s *Server) switchDependency(ctx context.Context, svc api.Service, a named) error {
	if a.Dependency == "" || a.Mode != api.DependencyShared && a.Mode != api.DependencyFresh {
		return jsonrpc2.NewError(jsonrpc2.InvalidParams, fmt.Sprintf("%s takes dependency, a name, and mode, shared or fresh", commandDependency))
	}
	return s.agent.SwitchDependency(ctx, svc.Name, api.DependencyRequest{Name: a.Dependency, Mode: a.Mode})
}
