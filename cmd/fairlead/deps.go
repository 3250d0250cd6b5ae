package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
)

func newDeps(stdout io.Writer) *cobra.Command {
	var place placeFlags
	var main string
	var asJSON bool
	c := &cobra.Command{
		Use:   "deps [DIR]",
		Short: "List what the service depends on, why it is thought so, and how its environment has it",
		Long: `Deps finds what the service in DIR (the current folder by default) depends on: the Services of the
staging namespace that the environment variables, arguments and ConfigMaps of its Deployment name.
Secrets are not read. What it finds wrong, or cannot find, is corrected in fairlead.yaml. On this
machine the dependencies are those that fairlead.yaml names: services of the workspace, databases by
their installed programs, or commands.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("unexpected argument %q", args[1])}
			}
			dir, err := absDir(strings.Join(args, ""))
			if err != nil {
				return err
			}
			svc, set, spec, err := findService(c.Context(), dir, runOptions{dir: dir, main: main, place: place, env: environment()})
			if err != nil {
				return err
			}
			var r api.DependencyReport
			if set.on == "local" {
				r, err = localDependencies(c.Context(), set, svc, spec)
			} else {
				r, err = kube.FindDependencies(c.Context(), spec, set.kube)
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
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object with dependencies, notes and problems")
	c.AddCommand(newDepsReset(stdout))
	return c
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

// wishes writes dependencies down, to be compared.
func wishes(m map[string]api.DependencyWish) string {
	var out []string
	for name, w := range m {
		out = append(out, fmt.Sprintf("%s=%s,%s", name, w.Mode, w.Seed))
	}
	slices.Sort(out)
	return strings.Join(out, "\x00")
}
