package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
)

func newAccess(stdout io.Writer) *cobra.Command {
	var environment string
	c := &cobra.Command{
		Use:   "access [CALLEE [METHOD]...]",
		Short: "Print where access to a service that refused a call is requested, with the form filled in",
		Long: `Access prints the address of the form on which access to CALLEE is requested, by default to the first service that
stands refused; with METHODs ticked, by default those that were refused. The address signs you in, once: open it in your
own browser, and pass on the link in the service's error message instead.`,
		Example: `  fairlead access
  fairlead access billing /billing.v1.Billing/Charge`,
		RunE: func(c *cobra.Command, args []string) error {
			var env []string
			if environment != "" {
				env = []string{environment}
			}
			f, rec, err := pickArg(env)
			if err != nil {
				return err
			}
			cl, err := newClient(f, "fairlead access", false)
			if err != nil {
				return err
			}
			var r api.FormRequest
			if len(args) > 0 {
				r.Callee, r.Methods = args[0], args[1:]
			}
			if len(r.Methods) == 0 {
				seen, err := cl.Calls(c.Context(), rec.Environment.Name)
				if err != nil {
					return err
				}
				for _, s := range seen {
					if s.Verdict == api.CallAllowed || r.Callee != "" && s.Callee != r.Callee || s.Method == "" {
						continue
					}
					r.Callee = s.Callee
					r.Methods = append(r.Methods, s.Method)
				}
			}
			if r.Callee == "" {
				return &api.Problem{Code: "nothing-refused", Message: "no call of " + rec.Environment.Service + " stands refused", Hint: "name the service that is to be called; fairlead deps --observed lists what was called"}
			}
			url, err := cl.Form(c.Context(), rec.Environment.Name, r)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(stdout, url)
			return err
		},
	}
	c.Flags().StringVar(&environment, "env", "", "`environment` of the calling service, where there are several")
	return c
}

// printObserved lists what an environment's service was seen to call.
func printObserved(ctx context.Context, w io.Writer, environment string, asJSON bool) error {
	f, err := findFolders()
	if err != nil {
		return err
	}
	cl, err := newClient(f, "fairlead deps", false)
	if err != nil {
		return err
	}
	seen, err := cl.Calls(ctx, environment)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(w).Encode(map[string]any{"calls": append([]api.Seen{}, seen...)})
	}
	if len(seen) == 0 {
		_, err := fmt.Fprintln(w, "no call was seen yet")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "DEPENDENCY\tPROTOCOL\tMETHOD\tCALLS\tLAST")
	for _, s := range seen {
		last := string(s.Verdict)
		if s.By != "" {
			last += " by " + s.By
		}
		method := cmp.Or(s.Method, "(not seen: it is no HTTP, or encrypted)")
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", clean(s.Callee), s.Protocol, clean(method), s.Count, clean(last))
	}
	return t.Flush()
}
