// Command fairlead is the agent and its command line. It only wires: what it does is in server and the engines.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
)

// version is set by the linker; the pod's side must have the same.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program: 0 done, 1 failed, 2 used wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var said *saidError
	if errors.As(err, &said) {
		return 1
	}
	var usage *usageError
	printError(stderr, err)
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// saidError has been shown already.
type saidError struct{ err error }

func (e *saidError) Error() string { return e.err.Error() }

// printError writes an error as a person should read it: what happened, then what to do. Several problems are written
// one after the other.
func printError(w io.Writer, err error) {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		for _, e := range many.Unwrap() {
			printError(w, e)
		}
		return
	}
	var p *api.Problem
	if errors.As(err, &p) {
		fmt.Fprintf(w, "fairlead: error: %s\n", clean(p.Error()))
		if p.Hint != "" {
			fmt.Fprintf(w, "fairlead: hint: %s\n", clean(p.Hint))
		}
		return
	}
	fmt.Fprintf(w, "fairlead: error: %s\n", clean(err.Error()))
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintln(w, "fairlead: hint: see fairlead help")
	}
}

// clean keeps an error on one line and a terminal from being written to by what an error quotes.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0:
			return -1
		}
		return r
	}, s)
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "fairlead",
		Short: "Run the service you edit in an environment of its own; every save is live there a moment later",
		Long: `Fairlead runs the Go service that you edit in an environment of its own, on this machine or
beside the staging services of a Kubernetes cluster, and brings every save there a moment later.

  fairlead run            in a service's folder: build, ship, start, follow saves
  fairlead status         what runs, and where
  fairlead stop           remove the environment`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(newRun(stdout, stderr), newJoin(stdout, stderr), newStatus(stdout), newLogs(stdout, stderr), newOpen(stdout), newStop(stdout, stderr), newEnv(stdout, stderr),
		newAgent(stdout, stderr), newLSP(stderr), newDAP(stdout, stderr), newDebug(stdout, stderr), newSchema(stdout), newDoctor(stdout), newDeps(stdout), newAccess(stdout), newReview(stdout, stderr), newEngine(stderr), newRegistry(stdout, stderr), newPortal(stdout, stderr), newRBAC(stdout), newVersion(stdout))
	return root
}

func newVersion(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(stdout, version)
			return err
		},
	}
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}
