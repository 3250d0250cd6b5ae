package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/server"
)

func newEnvShare(stdout io.Writer) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "share [ENVIRONMENT]",
		Short: "Print what a colleague needs to open the service in an environment, or to follow it",
		Long: `Share prints where an environment is, the command and the link by which a colleague follows it, what opens
its service without Fairlead, and the rights that each takes. Nothing of it is secret: the environment's
token and your credentials are not in it.`,
		RunE: func(_ *cobra.Command, args []string) error {
			_, rec, err := pickArg(args)
			if err != nil {
				return err
			}
			s, err := share(rec)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(stdout).Encode(s)
			}
			return s.print(stdout)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return c
}

// shared is what `fairlead env share` prints; --json gives it as it is.
type shared struct {
	Environment string `json:"environment"`
	Service     string `json:"service"`
	Namespace   string `json:"namespace"`
	Context     string `json:"context"` // here; a colleague's may have another name
	Cluster     string `json:"cluster"` // the API server's address
	Join        string `json:"join"`    // the command that follows it
	Link        string `json:"link"`    // the same for VS Code
	Forward     string `json:"forward"` // the command that opens its service without Fairlead
	Port        int    `json:"port"`    // the service's
	// PortGuessed: the service's port is not known yet.
	PortGuessed bool `json:"port_guessed,omitempty"`
}

func share(rec server.Record) (shared, error) {
	e := rec.Environment
	if e.Provider != "kubernetes" {
		return shared{}, &api.Problem{Code: "not-shared", Message: fmt.Sprintf("environment %s is on this machine, and answers on its loopback address only", e.Name),
			Hint: "run the service on a cluster with --on kubernetes to share it; an editor on this machine joins by itself"}
	}
	cl, err := kube.Connect(kube.Options{Kubeconfig: rec.Kubeconfig, Context: e.Context, Version: version})
	if err != nil {
		return shared{}, err
	}
	port := cmp.Or(rec.Main, 8080)
	return shared{Environment: e.Name, Service: e.Service, Namespace: e.Namespace, Context: e.Context, Cluster: cl.Server(), Port: port, PortGuessed: rec.Main == 0,
		Join: "fairlead join " + e.Namespace + "/" + e.Name, Link: joinLink(e, cl.Server()),
		Forward: fmt.Sprintf("kubectl -n %s port-forward deployment/%s %d:%d", e.Namespace, e.Name, port, port)}, nil
}

// joinLink is what VS Code's extension takes: two names, and the cluster's address, by which it finds which of its user's
// contexts is meant.
func joinLink(e api.Environment, cluster string) string {
	return "vscode://fairlead.fairlead/join?" + url.Values{"namespace": {e.Namespace}, "environment": {e.Name}, "cluster": {cluster}}.Encode()
}

func (s shared) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, `Environment  %[1]s (service %[2]s)
Cluster      %[3]s (here context %[4]s)
Namespace    %[5]s

To follow it (its service at a local address, logs, state) with a context of your own for that cluster:

  %[6]s        # --context NAME where it is not the current one
  %[7]s

That takes these rights in the namespace, and none to Secrets:

  - {apiGroups: ["apps"], resources: ["deployments"], verbs: ["get", "list", "watch"]}
  - {apiGroups: [""], resources: ["pods"], verbs: ["list", "watch"]}
  - {apiGroups: [""], resources: ["pods/exec"], verbs: ["create"]}
  - {apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"]}    # optional: to follow it is a use, and keeps it awake
  - {apiGroups: [""], resources: ["pods/log"], verbs: ["get"]}             # optional: what its other containers write

Without Fairlead, to open the service:

  %[8]s
  http://127.0.0.1:%[9]d/

  - {apiGroups: ["apps"], resources: ["deployments"], verbs: ["get"]}
  - {apiGroups: [""], resources: ["pods"], verbs: ["get", "list"]}
  - {apiGroups: [""], resources: ["pods/portforward"], verbs: ["create"]}

To edit the service beside this one, in an environment of your own:

  fairlead run --on kubernetes --namespace %[5]s
  fairlead rbac --namespace %[5]s     # the rights that takes
`, s.Environment, s.Service, s.Cluster, s.Context, s.Namespace, s.Join, s.Link, s.Forward, s.Port)
	if err == nil && s.PortGuessed {
		_, err = fmt.Fprintln(w, "\nWhich port the service listens on is not known yet; 8080 is a guess.")
	}
	return err
}
