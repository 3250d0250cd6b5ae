package main

import (
	"cmp"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
	"fairlead.dev/server/settings"
	"fairlead.dev/syncer/build"
)

// registryLimit bounds how long a start waits for a registry elsewhere: what was read of it before does as well.
const registryLimit = 3 * time.Second

// registered are the services that a service's file in the registry lists under calls:, with how its environments have them. The
// registry of this machine is not made for that. With an error, they are what is known from before.
func registered(ctx context.Context, f folders, remote, service string) (map[string]api.DependencyMode, error) {
	if remote == "" {
		if _, err := os.Stat(filepath.Join(f.registry(), registry.EmbeddedName)); err != nil {
			return nil, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, registryLimit)
	defer cancel()
	r, err := registry.Open(ctx, registry.Options{Dir: f.registry(), Remote: remote})
	if err != nil {
		return nil, err
	}
	s, err := r.Snapshot(ctx)
	if s == nil || s.Services[service] == nil {
		return nil, err
	}
	out := map[string]api.DependencyMode{}
	for _, g := range s.Services[service].Calls {
		if g.Service == service {
			continue
		}
		out[g.Service] = api.DependencyShared
		if g.Environments == registry.EnvironmentsFresh {
			out[g.Service] = api.DependencyFresh
		}
	}
	return out, err
}

// needRegistered adds to what the service needs on this machine what the registry lists and is found here: a service of the workspace,
// or a database whose address the service's variables ask for. The rest runs elsewhere, and is noted.
func (c *choice) needRegistered(svc build.Service) {
	c.needs = maps.Clone(c.declared)
	for name, d := range c.needs {
		if d.Mode == "" {
			d.Mode = string(cmp.Or(c.registered[name], api.DependencyShared))
			c.needs[name] = d
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.registered)) {
		if _, ok := c.declared[name]; ok {
			continue
		}
		if c.needs == nil {
			c.needs = map[string]settings.Dependency{}
		}
		c.needs[name] = settings.Dependency{Mode: string(c.registered[name])}
		if kind, _ := c.engineOf(name); kind != "" {
			continue
		}
		if _, _, where := c.workspaceService(name, svc); where == "" {
			delete(c.needs, name)
			c.notes = append(c.notes, "the registry lists "+name+", which is no service of the workspace: engine:, run: or main: under dependencies: "+name+": in fairlead.yaml says how it is run on this machine")
		}
	}
}

// whyNeeded says what names a dependency on this machine.
func (c *choice) whyNeeded(name string) []string {
	var why []string
	if _, ok := c.declared[name]; ok {
		why = append(why, settings.FileName)
	}
	if mode, ok := c.registered[name]; ok {
		from := "the registry"
		if mode == api.DependencyFresh && c.declared[name].Mode == "" { // it decides
			from += ", as fresh"
		}
		why = append(why, from)
	}
	return why
}
