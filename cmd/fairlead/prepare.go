package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/local"
	"fairlead.dev/server"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/build"
)

// prepare finds what a request of a front end means: the settings, the main package, the environment's name, and how
// that environment is opened.
func prepare(ctx context.Context, f folders, fs *forms, r api.RunRequest) (server.Plan, error) {
	return prepareAs(ctx, f, fs, r, "")
}

// prepareAs is prepare with the environment's name given, where that is not empty.
func prepareAs(ctx context.Context, f folders, fs *forms, r api.RunRequest, as string) (server.Plan, error) {
	dir, err := absDir(r.Dir)
	if err != nil {
		return server.Plan{}, err
	}
	o := runOptions{dir: dir, main: r.Main, args: r.Args, place: placeFlags{on: r.On, kubeconfig: r.Kubeconfig, context: r.Context, namespace: r.Namespace, registry: r.Registry},
		keep: r.Keep, takeOver: r.TakeOver, env: r.Env, serviceEnv: r.ServiceEnv, fresh: r.Fresh, shared: r.Shared}
	svc, set, spec, err := findService(ctx, f, dir, o)
	if err != nil {
		return server.Plan{}, err
	}
	if as != "" {
		spec.Name = as
	}
	for _, note := range set.notes {
		fs.log.Info(note, "service", svc.Name)
	}
	on, native, target := set.on, set.build.Native, set.build.Target
	var synced []syncer.Folder
	if !native {
		// A local service runs in its own folder and reads them in place.
		spec.Trees, synced = set.trees, set.synced
	}
	rec := server.Record{Environment: api.Environment{Name: spec.Name, Service: svc.Name, Provider: on, Context: set.kube.Context, Namespace: set.kube.Namespace},
		Kubeconfig: set.kube.Kubeconfig, Dir: dir, Package: svc.Dir, Module: svc.ModuleDir}
	if !native {
		if err := goOnSwitched(f, r, &spec, &rec); err != nil {
			return server.Plan{}, err
		}
	}
	cfg := server.Config{
		Spec: spec, Record: rec, Records: f.records(), Service: svc, Build: set.build, Target: target, Process: set.process,
		Folders: synced, Ignored: set.watchIgnored, Rest: set.rest, TakeOver: o.takeOver, Keep: o.keep, SettingsFiles: set.files,
		Lease: server.Lease(*set.kube.Lease), Calls: fs.calls(set.calls, set.registry, svc.Name, func(callee string) string { return set.sourceOf(callee, svc) }),
		Reload: func() (server.Reloaded, []*api.Problem) {
			now, err := loadSettings(dir, set.service, o)
			if err != nil {
				return server.Reloaded{}, api.Problems(err, "settings")
			}
			if native {
				now.process.Dir = set.process.Dir // no setting's
			}
			var ps []*api.Problem
			if now.on != set.on || !maps.Equal(now.trees, set.trees) || now.name != set.name || now.main != set.main || !reflect.DeepEqual(now.needs, set.declared) {
				ps = append(ps, &api.Problem{Code: "settings-restart", Severity: api.SeverityWarning, Message: "some of the changed settings shape the environment itself",
					Hint: "stop fairlead run and start it again"})
			}
			return server.Reloaded{Process: now.process, Build: now.build, Lease: server.Lease(*now.kube.Lease)}, ps
		},
		Open: func(ctx context.Context, spec bridge.Spec, progress bridge.Progress) (bridge.Environment, error) {
			if native {
				l := f.local()
				l.Env = r.Env
				return local.Open(ctx, spec, l)
			}
			k := set.kube
			k.Progress = progress
			return kube.Open(ctx, spec, k)
		},
	}
	shape := map[string]string{"list of arguments": strings.Join(r.Args, "\x00"), "environment of its own": strings.Join(r.ServiceEnv, "\x00")}
	if native {
		shape["working directory"] = set.process.Dir
	}
	plan := server.Plan{Config: cfg, Why: svc.Why, Shape: shape}
	if native {
		plan.Dependencies = needs(f, fs, r, set, svc, spec)
	}
	return plan, nil
}

// goOnSwitched goes on with dependencies that were switched while the environment was there. What the request names goes
// before them.
func goOnSwitched(f folders, r api.RunRequest, spec *bridge.Spec, rec *server.Record) error {
	old, err := f.records().Load(spec.Name)
	if err != nil {
		return err
	}
	rec.Switched, spec.Dependencies = map[string]api.DependencyMode{}, maps.Clone(spec.Dependencies)
	for name, mode := range old.Switched {
		if slices.Contains(r.Fresh, name) || slices.Contains(r.Shared, name) {
			continue
		}
		if spec.Dependencies == nil {
			spec.Dependencies = map[string]api.DependencyWish{}
		}
		wish := spec.Dependencies[name]
		wish.Mode = mode
		spec.Dependencies[name], rec.Switched[name] = wish, mode
	}
	return nil
}

// findService finds the service that a folder means, its settings, and the environment that it has or would have.
func findService(ctx context.Context, f folders, dir string, o runOptions) (build.Service, choice, bridge.Spec, error) {
	set, err := loadSettings(dir, "", o)
	if err != nil {
		return build.Service{}, set, bridge.Spec{}, err
	}
	svc, err := build.Find(ctx, dir, build.FindOptions{Config: set.build, Main: set.main, Hint: set.services})
	if err != nil {
		return svc, set, bridge.Spec{}, err
	}
	if set.service == "" && slices.Contains(set.services, svc.Name) { // the file has an entry for what was found
		if set, err = loadSettings(dir, svc.Name, o); err != nil {
			return svc, set, bridge.Spec{}, err
		}
	}
	if set.name != "" {
		svc.Name = set.name
	}
	if set.registered, err = registered(ctx, f, set.registry, svc.Name); err != nil {
		set.notes = append(set.notes, "what the registry lists is not known, or of before: "+err.Error())
	}
	if set.build.Native {
		set.process.Dir = runDir(dir, svc)
		set.needRegistered(svc)
	}
	owner := server.Owner()
	place := set.on
	if !set.build.Native {
		// Two clusters or namespaces are two environments.
		config := set.kube.Kubeconfig
		if config == "" {
			config = lookup(o.env, "KUBECONFIG")
		}
		place = strings.Join([]string{set.on, config, set.kube.Context, set.kube.Namespace}, "\n")
	}
	// The main package's folder, and not the one that was asked for: from the module's root, from the package's own and
	// from an editor it is the same service.
	return svc, set, bridge.Spec{Name: server.EnvironmentName(svc.Name, svc.Dir, owner, place), Service: svc.Name, Owner: owner, Dir: dir, Version: version,
		Keep: o.keep, Dependencies: set.dependencies, Registered: set.registered}, nil
}

// runDir is where a service of this machine runs, since what it reads by relative names is there: as go run would in the folder
// that was asked for, or, where that is outside of the service's module and go run would not, in the main package's.
func runDir(dir string, svc build.Service) string {
	if rel, err := filepath.Rel(svc.ModuleDir, dir); err != nil || !filepath.IsLocal(rel) {
		return svc.Dir
	}
	return dir
}

// lookup finds a variable in an environment; of several the last counts.
func lookup(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

// environment is this process's, for an agent in another folder: relative paths in KUBECONFIG are made absolute.
func environment() []string {
	env := os.Environ()
	for i, kv := range env {
		v, ok := strings.CutPrefix(kv, "KUBECONFIG=")
		if !ok {
			continue
		}
		list := filepath.SplitList(v)
		for j, p := range list {
			if abs, err := filepath.Abs(p); err == nil && p != "" {
				list[j] = abs
			}
		}
		env[i] = "KUBECONFIG=" + strings.Join(list, string(os.PathListSeparator))
	}
	return env
}
