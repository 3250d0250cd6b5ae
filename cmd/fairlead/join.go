package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/server"
	"fairlead.dev/syncer/build"
)

func newJoin(stdout, stderr io.Writer) *cobra.Command {
	var at clusterFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "join [NAMESPACE/]ENVIRONMENT",
		Short: "Follow a colleague's environment: its logs, its state, its service at a local address",
		Long: `Join follows an environment on Kubernetes that somebody else made: it prints the service's address on this
machine, which leads into the environment, streams the logs, and says what is new when its owner saves.
Nothing of this machine goes there: to edit the service, run it in an environment of your own.

It takes the rights that fairlead env share prints, and none to Secrets. It ends when it is interrupted,
which its owner does not notice, and with the environment.`,
		Example: `  fairlead join shop/orders-ann-3f9c2a1b
  fairlead join shop/orders-ann-3f9c2a1b --context staging`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{fmt.Errorf("join takes one environment, as NAMESPACE/ENVIRONMENT")}
			}
			ns, name, ok := strings.Cut(args[0], "/")
			if !ok {
				ns, name = at.namespace, args[0]
			} else if at.namespace != "" && at.namespace != ns {
				return &usageError{fmt.Errorf("the environment is in namespace %s, and --namespace says %s", ns, at.namespace)}
			}
			file := at.kubeconfig
			if file != "" {
				abs, err := filepath.Abs(file) // the agent has another folder
				if err != nil {
					return err
				}
				file = abs
			}
			var show renderer = &textRenderer{out: stdout, err: stderr, color: isTerminal(stderr)}
			if asJSON {
				show = newJSONRenderer(stdout)
			}
			return joinEnvironment(c.Context(), show, api.JoinRequest{Environment: name, Namespace: ns, Kubeconfig: file, Context: at.context, Env: environment()})
		},
	}
	at.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "write what happens as JSON, one object a line (see docs/events.md)")
	return c
}

// joinEnvironment is `fairlead join`.
func joinEnvironment(ctx context.Context, show renderer, r api.JoinRequest) error {
	fr, err := newFront(fmt.Sprintf("fairlead join (pid %d)", os.Getpid()), show)
	if err != nil {
		return err
	}
	return fr.attached(ctx, "", func(ctx context.Context) (api.RunAnswer, error) { return fr.c.Join(ctx, r) })
}

// join finds the environment that a request means to follow.
func join(ctx context.Context, f folders, r api.JoinRequest) (server.Plan, error) {
	o := kube.Options{Kubeconfig: r.Kubeconfig, Context: r.Context, Server: r.Cluster, Env: r.Env, Version: version}
	ns := r.Namespace
	if ns == "" {
		found, err := findOne(ctx, o, r.Environment)
		if err != nil {
			return server.Plan{}, err
		}
		ns = found.Namespace
	}
	for _, rec := range f.records().All() {
		if rec.Environment.Name == r.Environment && !rec.Joined && !alive(rec.PID) {
			return server.Plan{}, &api.Problem{Code: "own-environment", Message: fmt.Sprintf("environment %s is your own", r.Environment), Hint: "go on with it by fairlead run in " + rec.Dir}
		}
	}
	env, stored, err := kube.Join(ctx, o, ns, r.Environment)
	if err != nil {
		return server.Plan{}, err
	}
	info := env.Info()
	env.Close()
	info.Resumed = false
	owner := stored.Owner
	if owner == "" {
		owner = "somebody"
	}
	return server.Plan{
		Why: fmt.Sprintf("this is %s of %s; what its owner saves is live here, and nothing of yours goes there", info.Name, owner),
		Config: server.Config{Joined: true, Owner: owner, Records: f.records(),
			Spec:    bridge.Spec{Name: info.Name, Service: info.Service, Owner: server.Owner(), Version: version},
			Record:  server.Record{Environment: info, Kubeconfig: r.Kubeconfig, Joined: true},
			Service: build.Service{Name: info.Service},
			Open: func(ctx context.Context, _ bridge.Spec, progress bridge.Progress) (bridge.Environment, error) {
				o := o
				o.Progress = progress
				env, _, err := kube.Join(ctx, o, ns, r.Environment)
				if err != nil {
					return nil, err
				}
				return env, nil
			}},
	}, nil
}
