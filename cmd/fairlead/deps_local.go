package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/local"
	"fairlead.dev/server"
	"fairlead.dev/server/client"
	"fairlead.dev/server/settings"
	"fairlead.dev/syncer/build"
)

// needs are the dependencies of a service on this machine, as fairlead.yaml and the registry have them: services of the workspace, which are
// run as the service itself is, and commands.
func needs(f folders, fs *forms, r api.RunRequest, set choice, svc build.Service, of bridge.Spec) []server.Dependency {
	var out []server.Dependency
	for _, name := range slices.Sorted(maps.Keys(set.needs)) {
		d := set.needs[name]
		if d.Mode == string(api.DependencyOff) {
			continue
		}
		n := server.Dependency{Dependency: api.Dependency{Name: name, Mode: api.DependencyMode(d.Mode), Why: set.whyNeeded(name)}, Ready: d.Ready}
		if d.Port != 0 {
			n.Ports = []int{d.Port}
		}
		kind, use := set.engineOf(name)
		if kind != "" {
			n = engineNeed(f, r, set, name, kind, use, of)
		} else if d.Run != "" {
			n.Workload = d.Run
			n.Plan = func(context.Context) (server.Plan, error) { return commandPlan(f, r, set, name, of) }
		} else {
			dir, main, where := set.workspaceService(name, svc)
			n.Workload = where
			n.Plan = func(ctx context.Context) (server.Plan, error) {
				if where == "" {
					return server.Plan{}, &api.Problem{Code: "no-dependency", Message: "nothing says how it is run on this machine",
						Hint: fmt.Sprintf("write engine:, run: or main: under dependencies: %s: in fairlead.yaml", name)}
				}
				return servicePlan(ctx, f, fs, r, set, name, dir, main, of)
			}
		}
		out = append(out, n)
	}
	return out
}

// workspaceService finds the service of the workspace that a dependency is: the main package that fairlead.yaml says, that
// of the entry of its name under services:, or a folder of its name where repositories have their main packages. where
// says it for a person; empty: there is none.
func (c choice) workspaceService(name string, svc build.Service) (dir, main, where string) {
	if m := c.needs[name].Main; m != "" {
		folder := m
		if !filepath.IsAbs(m) {
			folder = filepath.Join(c.base, m)
		}
		if of := moduleOf(folder); of != "" && of != moduleOf(c.base) {
			return folder, ".", m // as fairlead run in its folder would: what is said here is of another module
		}
		return c.base, m, m
	}
	if slices.Contains(c.services, name) {
		if l, _ := settings.Load(settings.Options{Dir: c.base, Service: name}); l.Main != "" {
			return c.base, l.Main, "services: " + name
		}
	}
	for _, root := range []string{svc.ModuleDir, c.base, filepath.Dir(svc.ModuleDir)} {
		for _, sub := range []string{"cmd", "services", "apps", "."} {
			p := filepath.Join(root, sub, name)
			if p != svc.Dir && hasMain(p) {
				return p, ".", p
			}
		}
	}
	return "", "", ""
}

// sourceOf is the folder with the source of a service that is called, where it is one of the workspace: that of its module, or of its
// main package where the module is the caller's own and says of others too what can be called.
func (c choice) sourceOf(name string, svc build.Service) string {
	dir, main, where := c.workspaceService(name, svc)
	if where == "" {
		return ""
	}
	if filepath.IsAbs(main) {
		dir = main
	} else {
		dir = filepath.Join(dir, main) // an import path leads to a folder that is not there: nothing is found then
	}
	if at := moduleOf(dir); at != "" && at != svc.ModuleDir {
		return at
	}
	return dir
}

// moduleOf is the folder of the module that a folder lies in, or "".
func moduleOf(dir string) string {
	for at := dir; at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
	}
	return ""
}

// expandInCluster puts the addresses of dependencies into arguments and variables: in a cluster they are the names of
// Services, with the ports that fairlead.yaml says.
func (c *choice) expandInCluster() error {
	var unknown []string
	addr := func(name string) string {
		d, ok := c.needs[name]
		if ok && d.Port == 0 {
			unknown = append(unknown, name)
		}
		if !ok || d.Port == 0 {
			return ""
		}
		return name + ":" + strconv.Itoa(d.Port)
	}
	for _, texts := range [][]string{c.process.Args, c.process.Env} {
		for i := range texts {
			texts[i] = server.Expand(texts[i], addr)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return &api.Problem{Code: "settings-value", File: filepath.Join(c.base, settings.FileName), Line: 1,
		Message: fmt.Sprintf("{{%s}} is used, and nothing says which port that has in the cluster", unknown[0]),
		Hint:    fmt.Sprintf("write port: under dependencies: %s:", unknown[0])}
}

// hasMain says whether a folder looks like a main package: the go command will say more.
func hasMain(dir string) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err == nil && slices.Contains(strings.Split(strings.ReplaceAll(string(b), "\r", ""), "\n"), "package main") {
			return true
		}
	}
	return false
}

// servicePlan is what runs a service of the workspace as a dependency: the session that a front end would have of it, or,
// fresh, one of the environment's own with a port of its own in PORT.
func servicePlan(ctx context.Context, f folders, fs *forms, r api.RunRequest, set choice, name, dir, main string, of bridge.Spec) (server.Plan, error) {
	d := set.needs[name]
	req := api.RunRequest{Dir: dir, Main: main, On: "local", Env: r.Env, ServiceEnv: pairs(d.Env)}
	as := ""
	if d.Mode == string(api.DependencyFresh) {
		port, err := server.FreePort()
		if err != nil {
			return server.Plan{}, err
		}
		req.ServiceEnv = append(req.ServiceEnv, "PORT="+strconv.Itoa(port))
		as = server.CopyName(name, dir, of.Name)
	}
	return prepareAs(ctx, f, fs, req, as)
}

// commandPlan is what runs a command as a dependency.
func commandPlan(f folders, r api.RunRequest, set choice, name string, of bridge.Spec) (server.Plan, error) {
	d := set.needs[name]
	env := server.EnvironmentName(name, set.base, server.Owner(), "local")
	port := d.Port
	if d.Mode == string(api.DependencyFresh) {
		env, port = server.CopyName(name, set.base, of.Name), 0
	}
	if port == 0 {
		var err error
		if port, err = server.FreePort(); err != nil {
			return server.Plan{}, err
		}
	}
	here := func(s string) string {
		return server.Expand(s, func(n string) string {
			if n == "port" {
				return strconv.Itoa(port)
			}
			return ""
		})
	}
	proc := api.Process{Dir: set.base, Port: port, Env: []string{"PORT=" + strconv.Itoa(port)}}
	for _, kv := range pairs(d.Env) {
		proc.Env = append(proc.Env, here(kv))
	}
	cfg := commandConfig(f, r, set, name, env, here(d.Run), proc)
	return server.Plan{Config: cfg, Why: "dependencies: of " + settings.FileName, Shape: map[string]string{"command": cfg.Command}}, nil
}

// commandConfig is a session that runs a command.
func commandConfig(f folders, r api.RunRequest, set choice, name, env, command string, proc api.Process) server.Config {
	return server.Config{
		Spec: bridge.Spec{Name: env, Service: name, Owner: server.Owner(), Dir: set.base, Version: version}, Records: f.records(), Command: command, Process: proc, Target: set.build.Target,
		Record:  server.Record{Environment: api.Environment{Name: env, Service: name, Provider: "local"}, Dir: set.base, Package: set.base, Module: set.base},
		Service: build.Service{Name: name, Dir: set.base, ModuleDir: set.base},
		Open: func(ctx context.Context, spec bridge.Spec, _ bridge.Progress) (bridge.Environment, error) {
			l := f.local()
			l.Env = r.Env
			return local.Open(ctx, spec, l)
		},
	}
}

// localDependencies are what fairlead.yaml and the registry name, and how they are if the agent runs the service.
func localDependencies(ctx context.Context, set choice, svc build.Service, spec bridge.Spec) (api.DependencyReport, error) {
	r := api.DependencyReport{Notes: set.notes}
	running, err := runningService(ctx, spec.Name)
	if err != nil {
		return r, err
	}
	for _, n := range needs(folders{}, nil, api.RunRequest{Env: environment()}, set, svc, spec) {
		d := n.Dependency
		if running != nil {
			for _, now := range running.Dependencies {
				if now.Name == d.Name {
					d.Health, d.Detail = now.Health, now.Detail
				}
			}
		}
		if note := engineNote(set, n, spec); note != "" {
			r.Notes = append(r.Notes, note)
		} else if d.Workload == "" {
			r.Notes = append(r.Notes, fmt.Sprintf("nothing says how %s is run on this machine: write engine:, run: or main: under dependencies: %s: in fairlead.yaml", d.Name, d.Name))
		}
		r.Dependencies = append(r.Dependencies, d)
	}
	return r, nil
}

// runningService is what the agent has of an environment; nil without one, or without an agent.
func runningService(ctx context.Context, name string) (*api.Service, error) {
	f, err := findFolders()
	if err != nil {
		return nil, err
	}
	c, err := newClient(f, "fairlead deps", false)
	if err != nil {
		return nil, err
	}
	all, err := c.Services(ctx)
	var p *api.Problem
	if errors.As(err, &p) && p.Code == client.CodeNoAgent {
		return nil, nil // it holds nothing
	}
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, nil
}
