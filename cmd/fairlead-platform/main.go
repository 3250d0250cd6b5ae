// Command fairlead-platform is what a team runs: the janitor of environments, and the portal. It only wires: what it does
// is in bridge/kube/janitor and platform.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/janitor"
	"fairlead.dev/bridge/kube/lease"
	"fairlead.dev/server/settings"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a command line that cannot be meant.
type usageError struct{ error }

// run is the whole program: 0 done, 1 failed, 2 used wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "fairlead-platform",
		Short:         "What a team runs in its cluster for Fairlead",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(newJanitor(stderr), newManifest(stdout), newPortal(stderr), &cobra.Command{Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { _, err := fmt.Fprintln(stdout, version); return err }})
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "fairlead-platform: error: %v\n", err)
	var p *api.Problem
	if errors.As(err, &p) && p.Hint != "" {
		fmt.Fprintf(stderr, "fairlead-platform: hint: %s\n", p.Hint)
	}
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintln(stderr, "fairlead-platform: hint: see fairlead-platform help")
		return 2
	}
	return 1
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

func newJanitor(stderr io.Writer) *cobra.Command {
	var kubeconfig, kcontext, namespace, leaseNamespace, recordNamespace, sleep, remove string
	c := &cobra.Command{
		Use:   "janitor",
		Short: "Put unused environments to sleep, and delete those that sleep for long",
		Long: `Janitor watches the environments of a cluster. One that is unused is scaled to zero, and one that sleeps for long
is deleted, after what each environment says itself (lease: in fairlead.yaml) or the flags here. Of several
janitors one leads. It logs what it does to stderr, as JSON, and ends with SIGTERM.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var p lease.Policy
			var err error
			if p.Sleep, err = settings.Duration(sleep); err != nil {
				return usageError{fmt.Errorf("--sleep: %w", err)}
			}
			if p.Delete, err = settings.Duration(remove); err != nil {
				return usageError{fmt.Errorf("--delete: %w", err)}
			}
			log := slog.New(slog.NewJSONHandler(stderr, nil))
			host, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("find this pod's name: %w", err)
			}
			cl, err := kube.Connect(kube.Options{Kubeconfig: kubeconfig, Context: kcontext, Namespace: namespace, Version: version, Logger: log})
			if err != nil {
				return err
			}
			j := janitor.New(janitor.Options{Cluster: cl, Namespace: namespace, Fallback: &p, RecordNamespace: recordNamespace, By: "janitor " + host, Logger: log})
			log.Info("janitor: starts", "version", version, "server", cl.Server(), "sleep", p.Sleep, "delete", p.Delete)
			// Unique also for a pod's container that was started again: the one before may have been the leader.
			return janitor.Elect(c.Context(), j, janitor.Election{Namespace: leaseNamespace, Name: janitor.LeaseName, Identity: host + "-" + rand.Text()[:8], TTL: 15 * time.Second}, log)
		},
	}
	f := c.Flags()
	f.StringVar(&kubeconfig, "kubeconfig", "", "`file` with the cluster's address and credentials (default: those of the pod)")
	f.StringVar(&kcontext, "context", "", "`name` of the kubeconfig's context")
	f.StringVar(&namespace, "namespace", "", "`name` of the only namespace to look at (default: all)")
	f.StringVar(&leaseNamespace, "lease-namespace", "fairlead", "`name` of the namespace with the janitors' coordination Lease")
	f.StringVar(&recordNamespace, "record-namespace", "", "`name` of the namespace that records why environments went whose own namespace went too (default: only the log does)")
	f.StringVar(&sleep, "sleep", "2h", "`duration` that an environment that says none may be unused, or never")
	f.StringVar(&remove, "delete", "3d", "`duration` that an environment that says none may be asleep, or never")
	return c
}

// What an image reference and a namespace look like: they are put into YAML.
var (
	imageRef = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._/:@]*$`)
	nsName   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

func newManifest(stdout io.Writer) *cobra.Command {
	var o janitor.ManifestOptions
	c := &cobra.Command{
		Use:     "manifest",
		Short:   "Print what puts the janitor into a cluster",
		Example: "  fairlead-platform manifest --image registry.example.com/fairlead-platform:1.0 | kubectl apply -f -",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if !nsName.MatchString(o.Namespace) {
				return usageError{fmt.Errorf("--namespace: %q is no namespace", o.Namespace)}
			}
			if !imageRef.MatchString(o.Image) {
				return usageError{fmt.Errorf("--image: %q is no image", o.Image)}
			}
			b, err := janitor.Manifest(o)
			if err != nil {
				return err
			}
			_, err = stdout.Write(b)
			return err
		},
	}
	c.Flags().StringVar(&o.Namespace, "namespace", "fairlead", "`name` of the janitor's namespace")
	c.Flags().StringVar(&o.Image, "image", "fairlead-platform", "`reference` of an image whose entry point is fairlead-platform")
	return c
}
