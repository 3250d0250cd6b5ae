package main

import (
	"cmp"
	"context"

	"fairlead.dev/platform/registry"
	"fairlead.dev/server"
)

// grants follows what a registry grants one caller.
func (f folders) grants(remote, caller string) func(context.Context, func(server.Granted, error)) {
	return func(ctx context.Context, tell func(server.Granted, error)) {
		r, err := registry.Open(ctx, registry.Options{Dir: f.registry(), Remote: remote})
		if err != nil {
			tell(nil, err)
			return
		}
		r.Watch(ctx, func(s *registry.Snapshot, err error) {
			if s == nil {
				tell(nil, err)
				return
			}
			tell(func(callee string) (bool, []string, string) {
				governed, patterns := s.Grants(caller, callee)
				if !governed {
					return false, nil, ""
				}
				return true, patterns, about(s, callee)
			}, err)
		})
	}
}

// about says who decides on a new caller of a service.
func about(s *registry.Snapshot, callee string) string {
	svc, ok := s.Services[callee]
	if !ok {
		return ""
	}
	owner := "its owners"
	if svc.Team != "" {
		owner = "team " + svc.Team
	}
	if cmp.Or(svc.Access, registry.AccessOpen) == registry.AccessReview {
		return "new callers are reviewed by " + owner
	}
	return "it is open to whoever asks"
}
