package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/local"
	"fairlead.dev/bridge/payload"
	"fairlead.dev/server"
)

// folders are where this machine keeps Fairlead's things, by the platform's rules.
type folders struct{ state, cache, run string }

func findFolders() (folders, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return folders{}, &api.Problem{Code: "no-home", Message: "find a folder for Fairlead's state: " + err.Error(), Hint: "set HOME"}
	}
	f := folders{cache: filepath.Join(cache, "fairlead")}
	switch state := os.Getenv("XDG_STATE_HOME"); {
	case filepath.IsAbs(state):
		f.state = filepath.Join(state, "fairlead")
	case runtime.GOOS == "linux":
		home, err := os.UserHomeDir()
		if err != nil {
			return folders{}, err
		}
		f.state = filepath.Join(home, ".local", "state", "fairlead") // XDG Base Directory Specification 0.8
	default:
		conf, err := os.UserConfigDir()
		if err != nil {
			return folders{}, err
		}
		f.state = filepath.Join(conf, "fairlead", "state")
	}
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		f.run = filepath.Join(run, "fairlead")
	} else {
		f.run = filepath.Join(os.TempDir(), fmt.Sprintf("fairlead-%d", os.Getuid()))
	}
	return f, nil
}

func (f folders) records() server.Records { return server.Records{Dir: filepath.Join(f.state, "env")} }

// registry is where the clones of registries are, and the one of this machine alone.
func (f folders) registry() string { return filepath.Join(f.state, "registry") }

func (f folders) local() local.Options {
	return local.Options{StateDir: filepath.Join(f.state, "local"), CacheDir: f.cache, SocketDir: f.run, Payload: payload.Executable}
}

// openRecorded opens an environment again by its record, for the commands that only look at it or end it.
func openRecorded(ctx context.Context, f folders, rec server.Record) (bridge.Environment, error) {
	spec := bridge.Spec{Name: rec.Environment.Name, Service: rec.Environment.Service, Owner: server.Owner(), Dir: rec.Dir, Token: rec.Token, Version: version}
	switch rec.Environment.Provider {
	case "local":
		return local.Attach(spec, f.local()), nil
	case "kubernetes":
		if rec.Joined {
			env, _, err := kube.Join(ctx, kube.Options{Kubeconfig: rec.Kubeconfig, Context: rec.Environment.Context, Version: version}, rec.Environment.Namespace, rec.Environment.Name)
			if err != nil {
				return nil, err
			}
			return env, nil
		}
		return kube.Lookup(ctx, kube.Options{Kubeconfig: rec.Kubeconfig, Context: rec.Environment.Context, Version: version}, rec.Environment.Namespace, rec.Environment.Name)
	}
	return nil, &api.Problem{Code: "bad-record", Message: fmt.Sprintf("environment %s: unknown provider %q", rec.Environment.Name, rec.Environment.Provider)}
}

// pick chooses the environment that a command means: the named one, else the one of the folder, else the only one.
func pick(recs []server.Record, name, dir string) (server.Record, error) {
	if name != "" {
		for _, r := range recs {
			if r.Environment.Name == name {
				return r, nil
			}
		}
		return server.Record{}, &api.Problem{Code: "no-environment", Message: fmt.Sprintf("there is no environment %q", name), Hint: "fairlead status lists them"}
	}
	var here []server.Record
	// The main package's own folder says more than the one that it was run from, and that more than the module's.
	for _, of := range []func(server.Record) string{
		func(r server.Record) string { return r.Package },
		func(r server.Record) string { return r.Dir },
		func(r server.Record) string { return r.Module },
	} {
		for _, r := range recs {
			if rel, err := filepath.Rel(of(r), dir); of(r) != "" && err == nil && filepath.IsLocal(rel) {
				here = append(here, r)
			}
		}
		if len(here) > 0 {
			break
		}
	}
	if len(here) == 0 {
		here = recs
	}
	switch len(here) {
	case 1:
		return here[0], nil
	case 0:
		return server.Record{}, &api.Problem{Code: "no-environment", Message: "there is no environment", Hint: "fairlead run, in a service's folder, makes one"}
	}
	names := ""
	for _, r := range here {
		names += " " + r.Environment.Name
	}
	return server.Record{}, &api.Problem{Code: "many-environments", Message: "there are several environments:" + names, Hint: "name one of them"}
}

func workingDir() (string, error) {
	d, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the current folder: %w", err)
	}
	if e, err := filepath.EvalSymlinks(d); err == nil {
		d = e
	}
	return d, nil
}
