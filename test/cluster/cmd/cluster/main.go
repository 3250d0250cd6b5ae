// Command cluster runs the project's own Kubernetes for its tests: one node of
// real parts on this machine, without Docker. See the README beside go.mod.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fairlead.dev/test/cluster/internal/cluster"
	"fairlead.dev/test/cluster/internal/fault"
	"fairlead.dev/test/cluster/internal/machine"
	"fairlead.dev/test/cluster/internal/part"
)

const usage = `usage: cluster COMMAND [--dir DIR]

commands:
  up                 start the cluster, or mend it; prints the path of its kubeconfig
  down               stop it and remove its state
  status [--json]    tell how each part is
  start PART         start one part
  stop PART          stop one part
  restart PART       stop and start one part
  restart-apiserver  the same for the API server
  build              build what is missing from the cache, and start nothing
  install            install the missing Debian packages

flags:
`

// errUsage ends the command with status 2; what is wrong has been printed.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err == nil {
		return
	}
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	// One line each: whoever reads this reads it in the log of a test run.
	fmt.Fprintln(os.Stderr, "cluster: error:", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " "))
	if hint := fault.Hint(err); hint != "" {
		fmt.Fprintln(os.Stderr, "cluster: hint:", hint)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cache, cacheErr := os.UserCacheDir()
	cache = filepath.Join(cache, "fairlead-test")

	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	dir := flags.String("dir", filepath.Join(cache, "run"), "folder for the state of the cluster")
	source := flags.String("source", "", "folder of the test cluster's module (default: found from the working folder)")
	asJSON := flags.Bool("json", false, "status: one JSON object a line")

	// Flags may come before and after the words, as people type them.
	var words []string
	for rest := args; ; {
		if err := flags.Parse(rest); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil
			}
			return errUsage
		}
		if flags.NArg() == 0 {
			break
		}
		words, rest = append(words, flags.Arg(0)), flags.Args()[1:]
	}
	if cacheErr != nil {
		return fault.New(fmt.Errorf("find the cache folder: %w", cacheErr), "set HOME or XDG_CACHE_HOME")
	}
	abs, err := filepath.Abs(*dir)
	if err != nil {
		return fmt.Errorf("find the state folder: %w", err)
	}
	progress := func(format string, a ...any) { fmt.Fprintf(stderr, "cluster: "+format+"\n", a...) }
	c := &cluster.Cluster{
		Dir:      abs,
		Cache:    &part.Cache{Dir: filepath.Join(cache, "cluster"), Progress: progress},
		Progress: progress,
	}
	command, operands := "", 0
	if len(words) > 0 {
		command = words[0]
	}
	switch command {
	case "start", "stop", "restart":
		operands = 1
	}
	if len(words) != 1+operands {
		flags.Usage()
		return errUsage
	}
	switch command {
	case "up", "build":
		if *source == "" {
			*source = "."
		}
		if c.Cache.Source, err = part.FindSource(*source); err != nil {
			return fault.New(err, "run it in the checkout, or name its test/cluster folder with --source")
		}
	}

	switch command {
	case "up":
		if err := c.Up(ctx); err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, c.Kubeconfig())
		return err
	case "build":
		_, err := c.Build(ctx)
		return err
	case "down":
		return c.Down(ctx)
	case "status":
		return status(ctx, c, *asJSON, stdout)
	case "start":
		return c.Start(ctx, words[1])
	case "stop":
		return c.Stop(ctx, words[1])
	case "restart":
		return restart(ctx, c, words[1])
	case "restart-apiserver":
		return restart(ctx, c, "apiserver")
	case "install":
		return install(ctx, progress)
	}
	flags.Usage()
	return errUsage
}

func restart(ctx context.Context, c *cluster.Cluster, name string) error {
	if err := c.Stop(ctx, name); err != nil {
		return err
	}
	return c.Start(ctx, name)
}

func install(ctx context.Context, progress func(string, ...any)) error {
	missing := machine.MissingPackages()
	if len(missing) == 0 {
		progress("nothing is missing")
		return nil
	}
	progress("installing %s", strings.Join(missing, " "))
	if err := machine.InstallPackages(ctx, missing); err != nil {
		return err
	}
	if missing := machine.MissingPackages(); len(missing) > 0 {
		return fmt.Errorf("install packages: still missing after it: %s", strings.Join(missing, " "))
	}
	return nil
}

func status(ctx context.Context, c *cluster.Cluster, asJSON bool, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	reports, err := c.Status(ctx)
	if err != nil {
		return err
	}
	var bad []string
	encode := json.NewEncoder(stdout)
	for _, r := range reports {
		state := "ok"
		if r.Err != nil {
			bad = append(bad, r.Name)
			state = r.Err.Error()
		}
		if asJSON {
			err = encode.Encode(struct {
				Name   string `json:"name"`
				PID    int    `json:"pid,omitempty"`
				Memory int64  `json:"memory,omitempty"`
				OK     bool   `json:"ok"`
				State  string `json:"state"`
			}{r.Name, r.PID, r.Memory, r.Err == nil, state})
		} else {
			_, err = fmt.Fprintf(stdout, "%-19s pid %-7d %4d MiB  %s\n", r.Name, r.PID, r.Memory>>20, state)
		}
		if err != nil {
			return fmt.Errorf("print the status: %w", err)
		}
	}
	if len(bad) > 0 {
		return fault.New(fmt.Errorf("check the cluster: not healthy: %s", strings.Join(bad, ", ")), "cluster up mends it")
	}
	return nil
}
