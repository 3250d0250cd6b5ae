package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/platform/forge"
	"fairlead.dev/platform/registry"
)

func newPortal(stdout, stderr io.Writer) *cobra.Command {
	var at, listen string
	var print bool
	var ancestors []string
	c := &cobra.Command{
		Use:   "portal [PATH]",
		Short: "Open the portal: who may call what, and the form that asks for it",
		Long: `Portal serves the registry's pages on this machine, and opens PATH of them in the browser, / by default. It is for
the user who started it: whoever comes signs in by a code that works once. It ends with Ctrl-C.

A team's own portal is fairlead-platform portal; docs/portal.md has both.`,
		Example: `  fairlead portal
  fairlead portal '/request?caller=checkout&callee=billing'`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && !strings.HasPrefix(args[0], "/") {
				return &usageError{errors.New("portal takes one path, as /services/billing")}
			}
			return runPortal(c.Context(), stdout, stderr, at, listen, cmp.Or(strings.Join(args, ""), "/"), print, ancestors)
		},
	}
	c.Flags().StringVar(&at, "at", "", "`URL` or path of the registry, in place of the one that fairlead.yaml names")
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "loopback `ADDRESS` to listen on; port 0 takes a free one")
	c.Flags().BoolVar(&print, "print", false, "print the address and a code to sign in with, and open no browser")
	c.Flags().StringArrayVar(&ancestors, "frame-ancestor", nil, "`ORIGIN` whose pages may frame the portal, for an editor that runs in a browser, as https://code.example.com")
	return c
}

func runPortal(ctx context.Context, stdout, stderr io.Writer, at, listen, path string, print bool, ancestors []string) error {
	host, _, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return &usageError{fmt.Errorf("--listen: %q is no address of this machine alone, as 127.0.0.1:0", listen)}
	}
	f, err := findFolders()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	reg, err := openForChange(ctx, at)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return &api.Problem{Code: "portal-listen", Message: "listen: " + err.Error(), Hint: "give another --listen, or none"}
	}
	defer ln.Close()
	p, box, err := localPortal(ctx, f, reg, ln, ancestors, nil, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { box.Run(ctx) })

	fmt.Fprintf(stdout, "registry  %s\nportal    %s\n", clean(reg.Where()), p.URL()+path)
	opened := false
	if !print {
		page, err := p.OpeningFile(f.state, path)
		if err != nil {
			return err
		}
		defer os.Remove(page) // its code is used up, or soon old
		if err := openBrowser(page); err != nil {
			log.Warn("portal: no browser was started", "error", err)
		} else {
			opened = true
		}
	}
	if !opened {
		fmt.Fprintf(stdout, "code      %s (works once, for ten minutes)\n", p.Code())
	}
	return p.Serve(ctx, ln, nil)
}

// openForChange opens the registry with the forge that reviews are opened on, if the environment has a token for it.
func openForChange(ctx context.Context, at string) (*registry.Registry, error) {
	f, err := findFolders()
	if err != nil {
		return nil, err
	}
	r, err := openRegistry(ctx, at)
	if err != nil {
		return nil, err
	}
	return reviewed(ctx, f, r)
}

// reviewed is a registry with the forge that it is on, where the environment has a token for that.
func reviewed(ctx context.Context, f folders, r *registry.Registry) (*registry.Registry, error) {
	if r.Embedded() {
		return r, nil
	}
	reviewer, err := forge.FromEnvironment(ctx, r.Where(), os.Getenv)
	if err != nil || reviewer == nil {
		return r, err
	}
	return registry.Open(ctx, registry.Options{Dir: f.registry(), Remote: r.Where(), Reviewer: reviewer})
}

// localUser is who commits here, as git knows it, or else as the system does.
func localUser(ctx context.Context) (registry.Author, error) {
	get := func(key string) string {
		out, err := exec.CommandContext(ctx, "git", "config", "--get", key).Output()
		if err != nil {
			return "" // it is not set
		}
		return strings.TrimSpace(string(out))
	}
	a := registry.Author{Name: get("user.name"), Email: get("user.email")}
	if a.Email == "" {
		u, err := user.Current()
		if err != nil {
			return a, &api.Problem{Code: "no-author", Message: "find out who you are: " + err.Error(), Hint: "git config --global user.email you@example.com"}
		}
		host, err := os.Hostname()
		if err != nil {
			host = "localhost"
		}
		a.Email = u.Username + "@" + host
	}
	a.Name = cmp.Or(a.Name, a.Email)
	return a, nil
}
