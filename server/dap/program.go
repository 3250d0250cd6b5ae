package dap

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter"
)

// program begins the session of a test, or of a core file that a service has left in its environment.
func (h *Host) program(ctx context.Context, f *front, cfg debugadapter.Config, progress func(string)) (debugadapter.Begun, error) {
	path := h.path(cfg.Program)
	if path != "" {
		if st, err := os.Stat(path); err != nil || !st.IsDir() {
			path = filepath.Dir(path)
		}
	}
	svc, err := f.find(cfg.Name, path)
	if err != nil {
		return debugadapter.Begun{}, err
	}
	var p *debugadapter.Program
	if cfg.Mode == "core" {
		p, err = f.core(ctx, svc.Name, cfg)
	} else {
		progress("building the tests of " + filepath.Base(path))
		p, err = f.test(ctx, svc.Name, path, cfg)
	}
	if err != nil {
		return debugadapter.Begun{}, err
	}
	return debugadapter.Begun{Program: p}, nil
}

// test builds a test and brings it beside its service, again for each restart.
func (f *front) test(ctx context.Context, service, dir string, cfg debugadapter.Config) (*debugadapter.Program, error) {
	started, err := f.c.DebugTest(ctx, service, dir)
	if err != nil {
		return nil, err
	}
	conn, err := f.c.DialTask(ctx, service, started.ID)
	if err != nil {
		return nil, err
	}
	launch, err := json.Marshal(map[string]any{"mode": "exec", "program": started.Program, "cwd": started.Dir, "args": cfg.Args, "env": cfg.Env,
		"outputMode": "remote", "noDebug": cfg.NoDebug, "stopOnEntry": cfg.StopOnEntry})
	if err != nil {
		return nil, err
	}
	return &debugadapter.Program{Conn: conn, Launch: launch, Close: f.leave,
		Again: func(ctx context.Context) (*debugadapter.Program, error) {
			again := newFront(f.c, f.log)
			if err := again.attach(ctx); err != nil {
				return nil, err
			}
			p, err := again.test(ctx, service, dir, cfg)
			if err != nil {
				again.leave()
			}
			return p, err
		}}, nil
}

// core opens a core file where it is: with the executable that left it.
func (f *front) core(ctx context.Context, service string, cfg debugadapter.Config) (*debugadapter.Program, error) {
	conn, start, err := f.c.DialCore(ctx, service, cfg.CoreFilePath)
	if err != nil {
		return nil, err
	}
	launch, err := json.Marshal(map[string]any{"mode": "core", "program": start.Program, "coreFilePath": cfg.CoreFilePath})
	if err != nil {
		return nil, err
	}
	return &debugadapter.Program{Conn: conn, Launch: launch, Close: f.leave}, nil
}

// localCore opens a core file of this machine.
func (h *Host) localCore(ctx context.Context, cfg debugadapter.Config) (debugadapter.Begun, error) {
	core, exe := h.path(cfg.CoreFilePath), cfg.Exe
	if exe == "" {
		exe = cfg.Program
	}
	exe = h.path(exe)
	if err := checkCore(core, exe); err != nil {
		return debugadapter.Begun{}, err
	}
	if h.Core == nil {
		return debugadapter.Begun{}, &api.Problem{Code: api.CodeNoDebugger, Message: "core files can be opened on Linux only", Hint: "open it on a Linux machine; a core file in an environment can be opened from everywhere"}
	}
	conn, err := h.Core(ctx)
	if err != nil {
		return debugadapter.Begun{}, err
	}
	args := map[string]any{"mode": "core", "program": exe, "coreFilePath": core}
	if rules := sourcePaths(ctx, exe, h.Dir); len(rules) > 0 && cfg.Display["substitutePath"] == nil {
		args["substitutePath"] = rules
	}
	launch, err := json.Marshal(args)
	if err != nil {
		return debugadapter.Begun{}, err
	}
	return debugadapter.Begun{Program: &debugadapter.Program{Conn: conn, Launch: launch}}, nil
}
