package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
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
	var fresh, shared []string
	c := &cobra.Command{
		Use:   "run [DIR] [-- ARGS...]",
		Short: "Run the service of a folder in an environment and bring every save there",
		Long: `Run finds the service in DIR (the current folder by default), makes its environment or finds the one
that is there, builds, ships and starts the service, prints its local address, streams its logs, and
brings every save there until it is interrupted. Then it removes the environment, unless --keep.

A background process, the agent, does the work (it is started where there is none, see fairlead agent),
so that a terminal and an editor can follow the same environment: a run of what runs already joins it,
and leaves it running when it is interrupted.

What follows -- is given to the service as its arguments.`,
		Example: `  fairlead run
  fairlead run ./services/shop --on kubernetes --namespace staging
  fairlead run --main ./cmd/shop -- --port 8080
  fairlead run --on kubernetes --fresh postgres,redis`,
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
			o := runOptions{dir: dir, main: main, args: service, place: place, keep: keep, takeOver: takeOver, fresh: fresh, shared: shared}
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
	c.Flags().StringSliceVar(&fresh, "fresh", nil, "`names` of dependencies of which the environment gets a copy of its own, empty at first")
	c.Flags().StringSliceVar(&shared, "shared", nil, "`names` of dependencies that are those of staging, whatever fairlead.yaml says")
	c.Flags().BoolVar(&takeOver, "take-over", false, "take the environment over from another agent that holds it")
	return c
}

type runOptions struct {
	dir, main      string
	args           []string
	place          placeFlags
	keep, takeOver bool
	env            []string // nil is this process's
	serviceEnv     []string
	fresh, shared  []string // names of dependencies
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
