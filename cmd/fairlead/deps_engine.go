package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/local/engine"
	"fairlead.dev/server"
	"fairlead.dev/server/settings"
)

// engineOf says which engine a dependency is on this machine: the one that fairlead.yaml names, else that of the service's DSNs
// that have {{NAME}}; empty: it is none. What the service logs in with comes from the same places.
func (c choice) engineOf(name string) (string, engine.Use) {
	d := c.needs[name]
	use := engine.Find(name, c.process.Env, c.process.Args)
	kind := d.Engine
	if kind == "" && d.Main+d.Run == "" && !slices.Contains(c.services, name) {
		kind = use.Kind
	}
	if kind == "" {
		return "", engine.Use{}
	}
	if kind != use.Kind {
		use.Logins = nil // another engine's
	}
	if d.User != "" || d.Password != "" {
		use.Logins = []engine.Login{{User: d.User, Password: d.Password, Database: d.Database}}
	}
	if len(use.Logins) == 0 {
		use.Logins = []engine.Login{{}} // as nobody, which is right for Redis
	}
	for i, l := range use.Logins {
		use.Logins[i] = l.WithDefaults(kind)
	}
	return kind, use
}

// engineFolder is where an engine has its data. A shared one's outlives its environment; a fresh one's is in the environment's own
// folder, and goes with it.
func engineFolder(f folders, env string, fresh bool) string {
	if fresh {
		return filepath.Join(f.local().StateDir, env, "engine")
	}
	return filepath.Join(f.state, "data", env)
}

// engineEnvironment names the environment that an engine runs in.
func engineEnvironment(set choice, name string, of bridge.Spec) (env string, fresh bool) {
	if set.needs[name].Mode == string(api.DependencyFresh) {
		return server.CopyName(name, set.base, of.Name), true
	}
	return server.EnvironmentName(name, set.base, server.Owner(), "local"), false
}

// engineNeed is a dependency that is an engine.
func engineNeed(f folders, r api.RunRequest, set choice, name, kind string, use engine.Use, of bridge.Spec) server.Dependency {
	d := set.needs[name]
	n := server.Dependency{Dependency: api.Dependency{Name: name, Mode: api.DependencyMode(d.Mode), Engine: kind, Why: set.whyNeeded(name)}}
	if d.Engine == "" {
		n.Why = append([]string{use.Where + " of " + settings.FileName}, slices.DeleteFunc(n.Why, func(s string) bool { return s == settings.FileName })...)
	}
	if d.Port != 0 {
		n.Ports = []int{d.Port}
	}
	if b, err := engine.Installed(kind, r.Env); err == nil {
		n.Workload = b.String()
	}
	env, fresh := engineEnvironment(set, name, of)
	dir := engineFolder(f, env, fresh)
	n.Plan = func(context.Context) (server.Plan, error) {
		return enginePlan(f, r, set, name, kind, env, dir, fresh, use.Logins[0])
	}
	n.Check = func(ctx context.Context, addr string) error { return engine.Ready(ctx, dir, r.Env, addr, use.Logins) }
	n.Trouble = func() string { return engine.Trouble(dir) }
	return n
}

// enginePlan is what runs an engine: this executable, in the place of a command.
func enginePlan(f folders, r api.RunRequest, set choice, name, kind, env, dir string, fresh bool, login engine.Login) (server.Plan, error) {
	d := set.needs[name]
	if _, err := engine.Installed(kind, r.Env); err != nil {
		return server.Plan{}, err
	}
	seed := ""
	if filepath.IsAbs(d.Seed) {
		seed = d.Seed
	}
	if rdb := filepath.Ext(seed); seed != "" && (kind == engine.Redis) == (rdb == ".sql") {
		return server.Plan{}, &api.Problem{Code: "seed-failed", Message: filepath.Base(seed) + " is no seed of " + engine.Title(kind), Hint: "use a .sql file for PostgreSQL and MariaDB, an .rdb file or a .redis file with a command a line for Redis"}
	}
	exe, err := os.Executable()
	if err != nil {
		return server.Plan{}, fmt.Errorf("find the engine's runner: %w", err)
	}
	want := d.Port
	if fresh {
		want = 0 // the shared one has that
	}
	port := engine.Port(dir, want, server.PortIsFree)
	if port == 0 {
		if port, err = server.FreePort(); err != nil {
			return server.Plan{}, err
		}
	}
	proc := api.Process{Dir: set.base, Port: port, Grace: engine.Grace}
	cfg := commandConfig(f, r, set, name, env, "exec "+shellWord(exe)+" engine "+shellWord(dir), proc)
	open := cfg.Open
	cfg.Open = func(ctx context.Context, spec bridge.Spec, progress bridge.Progress) (bridge.Environment, error) {
		e, err := open(ctx, spec, progress)
		if err != nil {
			return nil, err
		}
		if err := engine.Write(dir, engine.Spec{Name: name, Kind: kind, Port: port, Lasting: !fresh, Seed: seed, Login: login}); err != nil {
			return nil, err
		}
		return e, nil
	}
	return server.Plan{Config: cfg, Why: "dependencies: of fairlead.yaml", Shape: map[string]string{"engine": kind, "seed": seed}}, nil
}

// shellWord quotes a text for sh.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// engineNote is what deps adds to an engine: how to install it, or where its data stays.
func engineNote(set choice, n server.Dependency, of bridge.Spec) string {
	if n.Engine == "" {
		return ""
	}
	f, err := findFolders()
	if err != nil {
		return err.Error()
	}
	if _, err := engine.Installed(n.Engine, environment()); err != nil {
		var p *api.Problem
		errors.As(err, &p)
		return fmt.Sprintf("%s: %s: %s", n.Name, p.Message, p.Hint)
	}
	env, fresh := engineEnvironment(set, n.Name, of)
	if dir := engineFolder(f, env, fresh); !fresh && engine.HasData(dir) {
		return fmt.Sprintf("%s keeps its data in %s; fairlead deps reset %s removes it", n.Name, dir, n.Name)
	}
	return ""
}

// newEngine is the process of an engine. It is started by a session's supervisor.
func newEngine(stderr io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:    "engine FOLDER",
		Short:  "Run the database of a folder",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !filepath.IsAbs(args[0]) {
				return &usageError{errors.New("the folder is no absolute path")}
			}
			return engine.Run(c.Context(), args[0], stderr)
		},
	}
}

func newDepsReset(stdout io.Writer) *cobra.Command {
	var main string
	c := &cobra.Command{
		Use:   "reset NAME [DIR]",
		Short: "Remove the data of a shared database of this machine; the next run makes it anew",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return &usageError{errors.New("say which dependency: fairlead deps reset NAME [DIR]")}
			}
			dir, err := absDir(strings.Join(args[1:], ""))
			if err != nil {
				return err
			}
			f, err := findFolders()
			if err != nil {
				return err
			}
			_, set, of, err := findService(c.Context(), f, dir, runOptions{dir: dir, main: main, place: placeFlags{on: "local"}, env: environment()})
			if err != nil {
				return err
			}
			name := args[0]
			if kind, _ := set.engineOf(name); kind == "" {
				return &api.Problem{Code: "no-dependency", Message: strconv.Quote(name) + " is no database of this service on this machine", Hint: "fairlead deps lists its dependencies"}
			}
			env, fresh := engineEnvironment(set, name, of)
			if fresh {
				return &api.Problem{Code: "no-dependency", Message: name + " is fresh: its data goes with the environment", Hint: "stop the environment with fairlead stop"}
			}
			if err := engine.Reset(engineFolder(f, env, false)); err != nil {
				return fmt.Errorf("reset %s: %w", name, err)
			}
			_, err = fmt.Fprintf(stdout, "%s has no data any more\n", name)
			return err
		},
	}
	c.Flags().StringVar(&main, "main", "", "`package` of the service, where there are several: an import path or ./folder")
	return c
}
