package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/payload"
)

// finding is one line of `fairlead doctor`.
type finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Says  string `json:"says"`
	Hint  string `json:"hint,omitempty"`
}

func newDoctor(stdout io.Writer) *cobra.Command {
	var place placeFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor [DIR]",
		Short: "Say what is missing on this machine and in the cluster, and how to get it",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("unexpected argument %q", args[1])}
			}
			dir := ""
			if len(args) == 1 {
				dir = args[0]
			}
			found, err := diagnose(c.Context(), dir, place)
			if err != nil {
				return err
			}
			bad := 0
			for _, f := range found {
				if !f.OK {
					bad++
				}
				if asJSON {
					if err := json.NewEncoder(stdout).Encode(f); err != nil {
						return err
					}
					continue
				}
				mark := "ok     "
				if !f.OK {
					mark = "missing"
				}
				fmt.Fprintf(stdout, "%s  %s: %s\n", mark, f.Check, clean(f.Says))
				if f.Hint != "" {
					for _, l := range strings.Split(f.Hint, "\n") {
						fmt.Fprintf(stdout, "         %s\n", clean(l))
					}
				}
			}
			if bad > 0 {
				return &saidError{fmt.Errorf("%d things are missing", bad)}
			}
			return nil
		},
	}
	place.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object a finding and line")
	return c
}

func diagnose(ctx context.Context, dir string, place placeFlags) ([]finding, error) {
	dir, err := absDir(dir)
	if err != nil {
		return nil, err
	}
	set, err := loadSettings(dir, "", runOptions{place: place})
	if err != nil {
		return nil, err
	}
	var out []finding
	add := func(check, says string, err error) {
		f := finding{Check: check, OK: err == nil, Says: says}
		if err != nil {
			f.Says = err.Error()
			var p *api.Problem
			if errors.As(err, &p) {
				f.Hint = p.Hint
			}
		}
		out = append(out, f)
	}
	goVersion, err := exec.CommandContext(ctx, "go", "version").Output()
	if err != nil {
		err = &api.Problem{Code: "no-toolchain", Message: "the go command does not run: " + err.Error(), Hint: "install Go and put it on the PATH"}
	}
	add("go", strings.TrimSpace(string(goVersion)), err)
	for _, arch := range payload.Archs {
		b, err := payload.Executable(arch)
		add("pod's side, linux/"+arch, fmt.Sprintf("%.1f MB, %s", float64(len(b))/1e6, payload.Digest(b)), err)
	}
	if runtime.GOOS != "linux" {
		add("local environments", "", &api.Problem{Message: "they need Linux, and this is " + runtime.GOOS, Hint: "use --on kubernetes"})
	} else {
		add("local environments", "run on this machine", nil)
	}
	if set.on != "kubernetes" {
		return out, nil
	}
	problems := kube.Check(ctx, set.kube)
	for _, p := range problems {
		add("cluster", "", p)
	}
	if len(problems) == 0 {
		add("cluster", "reached, and all rights are there", nil)
	}
	return out, nil
}

func newRBAC(stdout io.Writer) *cobra.Command {
	var o kube.RoleOptions
	c := &cobra.Command{
		Use:   "rbac",
		Short: "Print the smallest Kubernetes Role that Fairlead works with",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := stdout.Write(kube.Role(o))
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.Namespace, "namespace", "", "`name` of the namespace that it is for")
	f.StringVar(&o.User, "user", "", "`name` of the user who gets it")
	f.StringVar(&o.Group, "group", "", "`name` of the group that gets it")
	f.StringVar(&o.ServiceAccount, "service-account", "", "`NAMESPACE/NAME` of the service account that gets it")
	f.BoolVar(&o.OwnNamespace, "own-namespace", false, "add the ClusterRole that a namespace for each environment takes")
	return c
}
