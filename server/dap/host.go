package dap

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter"
	"fairlead.dev/server/client"
)

// Host finds or makes what debug sessions are about; see debugadapter.Host.
type Host struct {
	// New makes a client of the agent, which starts the agent where there is none. name is who asks, for people.
	New func(name string) (*client.Client, error)
	// Env is the front end's environment, as KEY=VALUE.
	Env []string
	// Dir is what relative paths in debug configurations are relative to.
	Dir string
	// Core starts a debugger on this machine for core files that are here; nil where there is none.
	Core   func(ctx context.Context) (io.ReadWriteCloser, error)
	Logger *slog.Logger
}

// Begin implements debugadapter.Host.
func (h *Host) Begin(ctx context.Context, r debugadapter.Request, progress func(string)) (debugadapter.Begun, error) {
	if r.Config.Mode == "core" && r.Config.Name == "" {
		return h.localCore(ctx, r.Config)
	}
	c, err := h.New("the debugger of " + cmp.Or(r.Client, "an editor"))
	if err != nil {
		return debugadapter.Begun{}, err
	}
	f := newFront(c, h.Logger)
	begun, err := h.begin(ctx, f, r, progress)
	if err != nil {
		f.leave()
	}
	return begun, err
}

func (h *Host) begin(ctx context.Context, f *front, r debugadapter.Request, progress func(string)) (debugadapter.Begun, error) {
	if err := f.attach(ctx); err != nil {
		return debugadapter.Begun{}, err
	}
	if r.Config.Mode == "test" || r.Config.Mode == "core" {
		return h.program(ctx, f, r.Config, progress)
	}
	req, name, err := h.request(f, r)
	if err != nil {
		return debugadapter.Begun{}, err
	}
	if name == "" {
		answer, err := f.c.Run(ctx, req)
		if err != nil {
			return debugadapter.Begun{}, err
		}
		name = answer.Name
	} else {
		req = api.RunRequest{} // who runs it asks for it again, if the agent is lost
	}
	s := &service{f: f, name: name, req: req, onSave: r.Config.OnSave, noDebug: r.Config.NoDebug,
		events: make(chan debugadapter.Event, eventQueue), commands: make(chan api.DebugCommand, eventQueue)}
	s.ctx, s.cancel = context.WithCancel(f.ctx)
	if err := s.begin(ctx, progress); err != nil {
		return debugadapter.Begun{}, err
	}
	return debugadapter.Begun{Service: s}, nil
}

// path makes a path of a debug configuration absolute, with symbolic links followed; empty stays empty.
func (h *Host) path(p string) string {
	if p == "" {
		return ""
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(h.Dir, p)
	}
	if real, err := filepath.EvalSymlinks(p); err == nil {
		return real
	}
	return p
}

// request finds what a debug configuration means: a request to the agent, or the name of what runs.
func (h *Host) request(f *front, r debugadapter.Request) (req api.RunRequest, name string, err error) {
	cfg := r.Config
	path := h.path(cfg.Program)
	if r.Attach {
		svc, err := f.find(cfg.Name, path)
		if err != nil {
			return req, "", err
		}
		return req, svc.Name, nil
	}
	req = api.RunRequest{Path: path, Args: cfg.Args, On: cfg.On, Env: h.Env}
	if cfg.Main != "" {
		req.Path, req.Dir, req.Main = "", path, cfg.Main
	}
	for k, v := range cfg.Env {
		req.ServiceEnv = append(req.ServiceEnv, k+"="+v)
	}
	return req, "", nil
}

// find chooses the running service that an attach request means: by name, by a path in it, or the only one.
func (f *front) find(name, path string) (api.Service, error) {
	all := f.services()
	var found []api.Service
	for _, s := range all {
		switch {
		case name != "":
			if s.Name == name || s.Environment.Service == name {
				found = append(found, s)
			}
		case path != "":
			for _, dir := range []string{s.Package, s.Module, s.Dir} {
				if rel, err := filepath.Rel(dir, path); dir != "" && err == nil && filepath.IsLocal(rel) {
					found = append(found, s)
					break
				}
			}
		default:
			found = append(found, s)
		}
	}
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.Name
	}
	there := "nothing runs"
	if len(names) > 0 {
		there = "there are " + strings.Join(names, ", ")
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		what := "no service runs"
		if name != "" || path != "" {
			what = fmt.Sprintf("no service %s runs", cmp.Or(name, path))
		}
		return api.Service{}, &api.Problem{Code: "no-service", Message: what, Hint: there + `; use the request "launch", or fairlead run, to make one`}
	}
	return api.Service{}, &api.Problem{Code: "many-services", Message: "several services run", Hint: `say which by "service": ` + there}
}
