package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/platform/export"
	"fairlead.dev/platform/registry"
)

func newRegistry(stdout, stderr io.Writer) *cobra.Command {
	var at string
	var asJSON bool
	c := &cobra.Command{
		Use:   "registry",
		Short: "Show the registry of services: where it is, what is in it, and what is wrong with its files",
		Long: `Registry shows who owns which service, who decides on new callers, and what it may call. It is files in a
git repository: the one that registry: in fairlead.yaml names, or one of your own on this machine.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, s, err := readRegistry(c.Context(), at)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(stdout).Encode(registryReport(r, s))
			}
			if err := printRegistry(stdout, r, s); err != nil {
				return err
			}
			errs := make([]error, len(s.Problems))
			for i, p := range s.Problems {
				errs[i] = p
			}
			return errors.Join(errs...)
		},
	}
	c.PersistentFlags().StringVar(&at, "at", "", "`URL` or path of the registry, in place of the one that fairlead.yaml names")
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object with services, teams and problems")
	c.AddCommand(newRegistryExport(stdout, stderr, &at))
	return c
}

func newRegistryExport(stdout, stderr io.Writer, at *string) *cobra.Command {
	var to, service, dir string
	var o export.Options
	c := &cobra.Command{
		Use:   "export --to ENGINE",
		Short: "Write what the registry grants as policies of a service mesh, of grpc-go or of Kubernetes",
		Long: `Export writes, for each service of the registry, the policy that lets in who may call it and nobody else.
A service NAME is taken to be the pods with the label app: NAME, under the service account NAME.

What an engine cannot express is said in its output, and on standard error. docs/registry.md has what.`,
		Example: `  fairlead registry export --to istio --namespace shop | kubectl apply --dry-run=server -f -
  fairlead registry export --to grpc --service billing > billing-authz.json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains(export.Engines(), to) {
				return &usageError{fmt.Errorf("--to is one of %s", strings.Join(export.Engines(), ", "))}
			}
			if to == "grpc" && service == "" && dir == "" {
				return &usageError{errors.New("grpc-go reads a policy from a file of its own: add --service NAME, or --dir DIR for all")}
			}
			_, s, err := readRegistry(c.Context(), *at)
			if err != nil {
				return err
			}
			docs, err := export.Export(s, to, o)
			if err != nil {
				return err
			}
			if service != "" {
				if docs = slices.DeleteFunc(docs, func(d export.Document) bool { return d.Service != service }); len(docs) == 0 {
					return &api.Problem{Code: "registry-unknown", Message: "the registry has no service " + service, Hint: "fairlead registry lists them"}
				}
			}
			return writeExport(stdout, stderr, docs, to, dir)
		},
	}
	c.Flags().StringVar(&to, "to", "", "`ENGINE`: "+strings.Join(export.Engines(), ", "))
	c.Flags().StringVar(&service, "service", "", "only the policy of the service `NAME`")
	c.Flags().StringVar(&dir, "dir", "", "write a file for each service into `DIR`, in place of standard output")
	c.Flags().StringVar(&o.Namespace, "namespace", "", "`NAMESPACE` of services whose names have none (default \"default\")")
	c.Flags().StringVar(&o.Domain, "trust-domain", "", "`DOMAIN` of the mesh's identities (default \"cluster.local\")")
	c.Flags().StringVar(&o.Label, "label", "", "`KEY` of the label that has a service's name (default \"app\")")
	return c
}

func writeExport(stdout, stderr io.Writer, docs []export.Document, to, dir string) error {
	ending := ".yaml"
	if to == "grpc" {
		ending = ".json"
	}
	for i, d := range docs {
		for _, n := range d.Notes {
			fmt.Fprintf(stderr, "fairlead: note: %s: %s\n", clean(d.Service), clean(n))
		}
		if dir != "" {
			if err := os.WriteFile(filepath.Join(dir, d.Service+ending), d.Text, 0o644); err != nil {
				return &api.Problem{Code: "export-write", Message: "write a policy: " + err.Error(), Hint: "name a folder that is there and can be written to"}
			}
			continue
		}
		if i > 0 {
			if _, err := io.WriteString(stdout, "---\n"); err != nil {
				return err
			}
		}
		if _, err := stdout.Write(d.Text); err != nil {
			return err
		}
	}
	return nil
}

// openRegistry opens the registry that the settings of the current folder name, or another.
func openRegistry(ctx context.Context, at string) (*registry.Registry, error) {
	dir, err := workingDir()
	if err != nil {
		return nil, err
	}
	if at == "" {
		set, err := loadSettings(dir, "", runOptions{dir: dir, env: environment()})
		if err != nil {
			return nil, err
		}
		at = set.registry
	} else if p := filepath.Join(dir, filepath.FromSlash(at)); !filepath.IsAbs(at) {
		if _, err := os.Stat(p); err == nil {
			at = p
		}
	}
	f, err := findFolders()
	if err != nil {
		return nil, err
	}
	return registry.Open(ctx, registry.Options{Dir: f.registry(), Remote: at})
}

func readRegistry(ctx context.Context, at string) (*registry.Registry, *registry.Snapshot, error) {
	r, err := openRegistry(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	s, err := r.Snapshot(ctx)
	return r, s, err
}

type registryJSON struct {
	Remote   string         `json:"remote"`
	Embedded bool           `json:"embedded"`
	Revision string         `json:"revision,omitempty"`
	Time     *time.Time     `json:"time,omitempty"`
	Services []serviceJSON  `json:"services"`
	Teams    []teamJSON     `json:"teams"`
	Problems []*api.Problem `json:"problems"`
}

type serviceJSON struct {
	Name        string      `json:"name"`
	Team        string      `json:"team,omitempty"`
	Description string      `json:"description,omitempty"`
	Repository  string      `json:"repository,omitempty"`
	Access      string      `json:"access"`
	Endpoints   []string    `json:"endpoints,omitempty"`
	Calls       []grantJSON `json:"calls"`
	Callers     []string    `json:"callers"`
}

type grantJSON struct {
	Service      string   `json:"service"`
	Methods      []string `json:"methods"`
	Reason       string   `json:"reason,omitempty"`
	Environments string   `json:"environments"`
}

type teamJSON struct {
	Name    string   `json:"name"`
	Changes string   `json:"changes"`
	Members []string `json:"members,omitempty"`
}

func registryReport(r *registry.Registry, s *registry.Snapshot) registryJSON {
	out := registryJSON{Remote: r.Where(), Embedded: r.Embedded(), Revision: s.Revision, Services: []serviceJSON{}, Teams: []teamJSON{}, Problems: append([]*api.Problem{}, s.Problems...)}
	if s.Revision != "" {
		out.Time = &s.Time
	}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		svc := s.Services[name]
		j := serviceJSON{Name: name, Team: svc.Team, Description: svc.Description, Repository: svc.Repository, Access: string(cmp.Or(svc.Access, registry.AccessOpen)), Calls: []grantJSON{}, Callers: append([]string{}, s.Callers(name)...)}
		for _, e := range svc.Endpoints {
			j.Endpoints = append(j.Endpoints, e.Method)
		}
		for _, g := range svc.Calls {
			j.Calls = append(j.Calls, grantJSON{g.Service, g.Methods, g.Reason, cmp.Or(g.Environments, "shared")})
		}
		out.Services = append(out.Services, j)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Teams)) {
		t := s.Teams[name]
		out.Teams = append(out.Teams, teamJSON{name, string(cmp.Or(t.Changes, registry.ChangesDirect)), t.Members})
	}
	return out
}

func printRegistry(w io.Writer, r *registry.Registry, s *registry.Snapshot) error {
	kind := ""
	if r.Embedded() {
		kind = " (on this machine alone; registry: in fairlead.yaml names a team's)"
	}
	fmt.Fprintf(w, "%s%s\n", clean(r.Where()), kind)
	if s.Revision == "" {
		_, err := fmt.Fprintln(w, "nothing is registered yet: every call is let through. A commit with services/NAME.yaml registers a service (docs/registry.md)")
		return err
	}
	fmt.Fprintf(w, "revision %s of %s\n\n", s.Revision[:12], s.Time.Format("2006-01-02 15:04"))
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tTEAM\tACCESS\tMAY CALL\tCALLED BY")
	list := func(names []string) string { return cmp.Or(strings.Join(names, ", "), "-") }
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		svc := s.Services[name]
		var calls []string
		for _, g := range svc.Calls {
			calls = append(calls, g.Service)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", name, cmp.Or(svc.Team, "-"), cmp.Or(svc.Access, registry.AccessOpen), list(calls), list(s.Callers(name)))
	}
	return t.Flush()
}
