package server

import (
	"context"
	"maps"
	"slices"
	"strings"

	"fairlead.dev/api"
)

// Called is where on this machine a service is that environments here call: its source's folder, and host:port of one that runs.
// Either is empty where that is not known.
func (a *Agent) Called(callee string) (folder, address string) {
	for _, h := range a.held() {
		if find := h.plan.Config.Calls.Folder; find != nil && folder == "" {
			folder = find(callee)
		}
		if h.needs != nil && address == "" {
			address = h.needs.service(callee)
		}
	}
	return folder, address
}

// Observed is what the services of a name have been seen to call of another one: in the environment of that name, or else in all.
// An environment that does not answer has seen nothing.
func (a *Agent) Observed(ctx context.Context, caller, callee, environment string) []api.Seen {
	all := map[string]*api.Seen{}
	for _, h := range a.held() {
		if h.plan.Config.Spec.Service != caller || environment != "" && h.name != environment {
			continue
		}
		seen, err := h.session.observed(ctx)
		if err != nil {
			a.cfg.Logger.Debug("ask what was called", "environment", h.name, "err", err)
			continue
		}
		for _, s := range seen {
			if s.Callee != callee || s.Method == "" {
				continue
			}
			if got := all[s.Method]; got == nil {
				all[s.Method] = &s
			} else {
				got.Count += s.Count
				if got.Verdict == api.CallAllowed {
					got.Verdict = s.Verdict // what was refused anywhere is what is asked for
				}
			}
		}
	}
	var out []api.Seen
	for _, m := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[m])
	}
	return out
}

// held are the sessions that are not ending, in order.
func (a *Agent) held() []*held {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*held
	for _, h := range a.sessions {
		if !h.ending {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(x, y *held) int { return strings.Compare(x.name, y.name) })
	return out
}

// service is where a dependency answers that is a service; empty for another, and while it does not.
func (n *needs) service(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.all {
		if d.Name == name && d.Check == nil {
			return n.addr[name]
		}
	}
	return ""
}
