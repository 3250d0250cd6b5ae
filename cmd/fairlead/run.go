package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/local"
	"fairlead.dev/server"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/build"
)

// placeFlags say where an environment is; several commands have them.
type placeFlags struct {
	on, kubeconfig, context, namespace, registry string
}

func (p *placeFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.on, "on", "", "where the environment is: `local` or kubernetes (default: what fairlead.yaml says, else local)")
	f.StringVar(&p.kubeconfig, "kubeconfig", "", "`file` with the cluster's address and credentials (default: KUBECONFIG, else ~/.kube/config)")
	f.StringVar(&p.context, "context", "", "`name` of the kubeconfig's context")
	f.StringVar(&p.namespace, "namespace", "", "`name` of the namespace (default: the context's)")
	f.StringVar(&p.registry, "registry", "", "`host[/path]` that the cluster pulls from and you may push to")
	c.RegisterFlagCompletionFunc("on", cobra.FixedCompletions([]string{"local", "kubernetes"}, cobra.ShellCompDirectiveNoFileComp))
}

func newRun(stdout, stderr io.Writer) *cobra.Command {
	var place placeFlags
	var main string
	var asJSON, keep, takeOver bool
	c := &cobra.Command{
		Use:   "run [DIR] [-- ARGS...]",
		Short: "Run the service of a folder in an environment and bring every save there",
		Long: `Run finds the service in DIR (the current folder by default), makes its environment or finds the one
that is there, builds, ships and starts the service, prints its local address, streams its logs, and
brings every save there until it is interrupted. Then it removes the environment, unless --keep.

What follows -- is given to the service as its arguments.`,
		Example: `  fairlead run
  fairlead run ./services/shop --on kubernetes --namespace staging
  fairlead run --main ./cmd/shop -- --port 8080`,
		RunE: func(c *cobra.Command, args []string) error {
			dir, rest := "", args
			if n := c.ArgsLenAtDash(); n >= 0 {
				rest = args[:n]
			}
			if len(rest) > 1 {
				return &usageError{fmt.Errorf("unexpected argument %q (the service's own arguments follow --)", rest[1])}
			}
			if len(rest) == 1 {
				dir = rest[0]
			}
			var service []string
			if n := c.ArgsLenAtDash(); n >= 0 {
				service = args[n:]
			}
			o := runOptions{dir: dir, main: main, args: service, place: place, keep: keep, takeOver: takeOver}
			if asJSON {
				o.show = newJSONRenderer(stdout)
			} else {
				o.show = &textRenderer{out: stdout, err: stderr, color: isTerminal(stderr)}
			}
			return runService(c.Context(), o)
		},
	}
	place.add(c)
	c.Flags().StringVar(&main, "main", "", "`package` to run, where there are several: an import path or ./folder")
	c.Flags().BoolVar(&asJSON, "json", false, "write what happens as JSON, one object a line (see docs/events.md)")
	c.Flags().BoolVar(&keep, "keep", false, "leave the environment running at the end")
	c.Flags().BoolVar(&takeOver, "take-over", false, "take the environment over from another agent that holds it")
	return c
}

type runOptions struct {
	dir, main      string
	args           []string
	place          placeFlags
	keep, takeOver bool
	show           renderer
}

// absDir resolves the folder that a command works on.
func absDir(dir string) (string, error) {
	if dir == "" {
		return workingDir()
	}
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", &api.Problem{Code: "no-folder", Message: fmt.Sprintf("there is no folder %s", dir), Hint: "name the folder of a Go service"}
	}
	if fi, err := os.Stat(abs); err != nil || !fi.IsDir() {
		return "", &api.Problem{Code: "no-folder", Message: fmt.Sprintf("%s is not a folder", dir), Hint: "name the folder of a Go service"}
	}
	return abs, nil
}

// runService is `fairlead run`.
func runService(ctx context.Context, o runOptions) error {
	dir, err := absDir(o.dir)
	if err != nil {
		return err
	}
	set, err := loadSettings(dir, "", o)
	if err != nil {
		return err
	}
	f, err := findFolders()
	if err != nil {
		return err
	}
	svc, err := build.Find(ctx, dir, build.FindOptions{Config: set.build, Main: set.main, Hint: set.services})
	if err != nil {
		return err
	}
	if set.service == "" && slices.Contains(set.services, svc.Name) { // the file has an entry for what was found
		if set, err = loadSettings(dir, svc.Name, o); err != nil {
			return err
		}
	}
	if set.name != "" {
		svc.Name = set.name
	}
	on, native, target := set.on, set.build.Native, set.build.Target
	owner := server.Owner()
	place := on
	if !native {
		// Two clusters or namespaces are two environments.
		place = strings.Join([]string{on, set.kube.Kubeconfig, set.kube.Context, set.kube.Namespace}, "\n")
	}
	spec := bridge.Spec{Name: server.EnvironmentName(svc.Name, dir, owner, place), Service: svc.Name, Owner: owner, Dir: dir, Version: version, Keep: o.keep}
	var folders []syncer.Folder
	if !native {
		// A local service runs in its own folder and reads them in place.
		spec.Trees, folders = set.trees, set.synced
	}
	rec := server.Record{Environment: api.Environment{Name: spec.Name, Service: svc.Name, Provider: on, Context: set.kube.Context, Namespace: set.kube.Namespace},
		Kubeconfig: set.kube.Kubeconfig, Dir: dir}
	if t, ok := o.show.(*textRenderer); ok {
		t.service, t.dir = svc.Name, dir
		t.say("%s: %s", svc.Name, svc.Why)
	}
	s, err := server.NewSession(server.Config{
		Spec: spec, Record: rec, Records: f.records(), Service: svc, Build: set.build, Target: target, Process: set.process,
		Folders: folders, Ignored: set.watchIgnored, Rest: set.rest, TakeOver: o.takeOver, Keep: o.keep, Emit: o.show.show,
		SettingsFiles: set.files,
		Reload: func() (api.Process, build.Config, []*api.Problem) {
			now, err := loadSettings(dir, set.service, o)
			if err != nil {
				return api.Process{}, build.Config{}, problemsOf(err)
			}
			var ps []*api.Problem
			if now.on != set.on || !maps.Equal(now.trees, set.trees) || now.name != set.name || now.main != set.main {
				ps = append(ps, &api.Problem{Code: "settings-restart", Severity: api.SeverityWarning, Message: "some of the changed settings shape the environment itself",
					Hint: "stop fairlead run and start it again"})
			}
			return now.process, now.build, ps
		},
		Open: func(ctx context.Context, spec bridge.Spec, progress bridge.Progress) (bridge.Environment, error) {
			if native {
				return local.Open(ctx, spec, f.local())
			}
			k := set.kube
			k.Progress = progress
			return kube.Open(ctx, spec, k)
		},
	})
	if err != nil {
		return err
	}
	err = s.Run(ctx)
	var p *api.Problem
	if errors.As(err, &p) {
		if j, ok := o.show.(*jsonRenderer); ok {
			j.show(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Time: time.Now()}, Problem: *p})
		}
	}
	return err
}

// problemsOf lists the problems in an error.
func problemsOf(err error) []*api.Problem {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*api.Problem
		for _, e := range many.Unwrap() {
			out = append(out, problemsOf(e)...)
		}
		return out
	}
	var p *api.Problem
	if errors.As(err, &p) {
		return []*api.Problem{p}
	}
	return []*api.Problem{{Code: "settings", Message: err.Error()}}
}
