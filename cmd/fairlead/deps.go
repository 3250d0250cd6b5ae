package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
)

func newDeps(stdout io.Writer) *cobra.Command {
	var place placeFlags
	var main string
	var asJSON, observed bool
	var fresh, shared []string
	c := &cobra.Command{
		Use:   "deps [DIR]",
		Short: "List what the service depends on, why it is thought so, and how its environment has it",
		Long: `Deps finds what the service in DIR (the current folder by default) depends on: the Services of the
staging namespace that the environment variables, arguments and ConfigMaps of its Deployment name,
and those that the registry lists. Secrets are not read. What it finds wrong, or cannot find, is
corrected in fairlead.yaml. On this machine the dependencies are those that fairlead.yaml and the
registry name: services of the workspace, databases by their installed programs, or commands.

--fresh and --shared switch dependencies of the environment that runs, on Kubernetes: its pod is replaced,
and a copy that is shared again is removed with its data. That holds as long as the environment does.`,
		Example: `  fairlead deps
  fairlead deps --fresh redis
  fairlead deps --observed`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("unexpected argument %q", args[1])}
			}
			dir, err := absDir(strings.Join(args, ""))
			if err != nil {
				return err
			}
			f, err := findFolders()
			if err != nil {
				return err
			}
			svc, set, spec, err := findService(c.Context(), f, dir, runOptions{dir: dir, main: main, place: place, env: environment(), fresh: fresh, shared: shared})
			if err != nil {
				return err
			}
			if observed {
				return printObserved(c.Context(), stdout, spec.Name, asJSON)
			}
			if len(fresh)+len(shared) > 0 {
				if err := switchDependencies(c.Context(), spec.Name, fresh, shared); err != nil {
					return err
				}
			}
			var r api.DependencyReport
			if set.on == "local" {
				r, err = localDependencies(c.Context(), set, svc, spec)
			} else {
				r, err = kube.FindDependencies(c.Context(), spec, set.kube)
				r.Notes = append(set.notes, r.Notes...)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(stdout).Encode(r)
			}
			if err := printDeps(stdout, r); err != nil {
				return err
			}
			if len(r.Problems) > 0 {
				errs := make([]error, len(r.Problems))
				for i, p := range r.Problems {
					errs[i] = p
				}
				return errors.Join(errs...)
			}
			return nil
		},
	}
	place.add(c)
	c.Flags().StringVar(&main, "main", "", "`package` of the service, where there are several: an import path or ./folder")
	c.Flags().StringSliceVar(&fresh, "fresh", nil, "`names` of dependencies of which the running environment is to have a copy of its own")
	c.Flags().StringSliceVar(&shared, "shared", nil, "`names` of dependencies that are to be staging's again: their copies go, with their data")
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object with dependencies, notes and problems")
	c.Flags().BoolVar(&observed, "observed", false, "list what the service in the running environment was seen to call, in place of what it depends on")
	c.AddCommand(newDepsReset(stdout))
	return c
}

// switchDependencies switches those of an environment that this machine's agent holds.
func switchDependencies(ctx context.Context, environment string, fresh, shared []string) error {
	f, err := findFolders()
	if err != nil {
		return err
	}
	cl, err := newClient(f, "fairlead deps", false)
	if err != nil {
		return err
	}
	for mode, names := range map[api.DependencyMode][]string{api.DependencyFresh: fresh, api.DependencyShared: shared} {
		for _, name := range names {
			if err := cl.SwitchDependency(ctx, environment, api.DependencyRequest{Name: name, Mode: mode}); err != nil {
				return err
			}
		}
	}
	return nil
}

func printDeps(w io.Writer, r api.DependencyReport) error {
	if len(r.Dependencies) == 0 {
		fmt.Fprintln(w, "no dependencies were found")
	} else {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "DEPENDENCY\tMODE\tENGINE\tWORKLOAD\tHEALTH\tWHY")
		for _, d := range r.Dependencies {
			name := d.Name
			if len(d.Also) > 0 {
				name += " (" + strings.Join(d.Also, ", ") + ")"
			}
			health := string(d.Health)
			if d.Detail != "" {
				health += ": " + d.Detail
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", clean(name), d.Mode, cmp.Or(d.Engine, "-"), cmp.Or(d.Workload, "-"), cmp.Or(clean(health), "-"), clean(strings.Join(d.Why, "; ")))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, "note: "+clean(n))
	}
	name := "NAME"
	if len(r.Dependencies) > 0 {
		name = r.Dependencies[0].Name
	}
	_, err := fmt.Fprintf(w, "\nTo change one, or to add one that was not found, write in fairlead.yaml:\n\n  dependencies:\n    %s: fresh # a copy of your own; shared is the one that all have, off is none\n", clean(name))
	return err
}
