package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/janitor"
	"fairlead.dev/bridge/kube/lease"
	"fairlead.dev/server"
	"fairlead.dev/server/client"
	"fairlead.dev/server/settings"
)

// passLimit bounds one look at all environments of a cluster.
const passLimit = 30 * time.Second

// clusterFlags say which cluster is looked at.
type clusterFlags struct{ kubeconfig, context, namespace string }

func (p *clusterFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.kubeconfig, "kubeconfig", "", "`file` with the cluster's address and credentials (default: KUBECONFIG, else ~/.kube/config)")
	f.StringVar(&p.context, "context", "", "`name` of the kubeconfig's context")
	f.StringVar(&p.namespace, "namespace", "", "`name` of the only namespace to look at (default: all that may be looked at)")
}

func (p *clusterFlags) options(stderr io.Writer) kube.Options {
	return kube.Options{Kubeconfig: p.kubeconfig, Context: p.context, Namespace: p.namespace, Version: version,
		Progress: func(m string) { fmt.Fprintf(stderr, "fairlead: %s\n", clean(m)) }}
}

// janitor makes one that works with what the kubeconfig may do. nil: there is no cluster, and none was asked for.
func (p *clusterFlags) janitor(stderr io.Writer, dryRun bool) (*janitor.Janitor, *kube.Cluster, error) {
	cl, err := kube.Connect(p.options(stderr))
	var problem *api.Problem
	if errors.As(err, &problem) && problem.Code == "no-context" && *p == (clusterFlags{}) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	begun := func(f *janitor.Finding) { // several at a time, so each line names its environment
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(stderr, "fairlead: %s\n", clean(map[lease.Action]string{lease.Sleep: "putting to sleep", lease.Delete: "deleting", lease.Woken: "noting as used"}[f.Decision.Action]+": "+f.Namespace+"/"+f.Name))
	}
	return janitor.New(janitor.Options{Cluster: cl, Namespace: p.namespace, DryRun: dryRun, By: server.Owner() + " (fairlead env gc)", Began: begun}), cl, nil
}

func newEnv(stdout, stderr io.Writer) *cobra.Command {
	c := &cobra.Command{
		Use:   "env",
		Short: "Look after environments: what there is, how long it stays",
		Long: `Env looks at the environments of this machine's agent and at all of a Kubernetes cluster.

On Kubernetes an environment that nobody uses is put to sleep (scaled to zero; the next run wakes it), and
later deleted: lease: in fairlead.yaml says when. A janitor in the cluster does it (fairlead-platform), or
fairlead env gc from anywhere. On this machine an environment goes with its last front end.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown command %q", "env "+args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newEnvList(stdout, stderr), newEnvKeep(stdout, stderr), newEnvGC(stdout, stderr), newEnvShare(stdout), newStop(stdout, stderr))
	return c
}

// envLine is one environment in `fairlead env list --json`.
type envLine struct {
	api.Environment
	Owner   string    `json:"owner,omitempty"`
	Dir     string    `json:"dir,omitempty"`
	Created time.Time `json:"created,omitzero"`
	LastUse time.Time `json:"last_use,omitzero"`
	// State is "used", "unused", "warned", "asleep" or "going" on Kubernetes, "left" for the namespace of one that is gone;
	// of a local one the phase of its service, or "no agent".
	State string `json:"state"`
	Why   string `json:"why"` // it still lives
	// Then is what becomes of it at Due if nobody uses it: "sleep" or "delete".
	Then lease.Action `json:"then,omitempty"`
	Due  time.Time    `json:"due,omitzero"`
	Note string       `json:"note,omitempty"`
}

func newEnvList(stdout, stderr io.Writer) *cobra.Command {
	var at clusterFlags
	var asJSON, gone bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List environments: whose, how old, last used when, and why they are still there",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), passLimit)
			defer cancel()
			j, cl, err := at.janitor(stderr, true)
			if err != nil {
				return err
			}
			if gone {
				return listGone(ctx, stdout, j, at.namespace, asJSON)
			}
			lines, err := localLines(ctx)
			if err != nil {
				return err
			}
			now := time.Now()
			var failed error
			if j != nil {
				var found []janitor.Finding
				if found, failed = j.Pass(ctx, kube.Filter{}); failed == nil {
					now, failed = cl.Clock().Now()
				}
				for i := range found {
					lines = append(lines, clusterLine(&found[i]))
				}
			}
			if asJSON {
				for _, l := range lines {
					if err := json.NewEncoder(stdout).Encode(l); err != nil {
						return err
					}
				}
			} else if err := printEnvs(stdout, lines, now); err != nil {
				return err
			}
			return failed
		},
	}
	at.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object an environment and line")
	c.Flags().BoolVar(&gone, "gone", false, "those that a janitor deleted within the last week, and why")
	return c
}

// localLines are the environments of this machine's agent, and those that wait for one.
func localLines(ctx context.Context) ([]envLine, error) {
	f, err := findFolders()
	if err != nil {
		return nil, err
	}
	services := map[string]api.Service{}
	cl, err := newClient(f, "fairlead env", false)
	if err != nil {
		return nil, err
	}
	all, err := cl.Services(ctx)
	var p *api.Problem
	if err != nil && !(errors.As(err, &p) && p.Code == client.CodeNoAgent) {
		return nil, err
	}
	for _, s := range all {
		services[s.Name] = s
	}
	var lines []envLine
	for _, rec := range f.records().All() {
		if rec.Environment.Provider != "local" {
			continue
		}
		l := envLine{Environment: rec.Environment, Owner: server.Owner(), Dir: rec.Dir, Created: rec.Since, State: "no agent", Why: "it is going: no agent holds it"}
		if s, ok := services[l.Name]; ok {
			l.State, l.Why = string(s.Phase), ""
			if len(s.Clients) > 0 {
				l.Why = fmt.Sprintf("held by %v", s.Clients)
			}
			if s.KeepUntil.After(time.Now()) {
				l.Why, l.Then, l.Due = "it is kept until "+s.KeepUntil.Local().Format(time.DateTime), lease.Delete, s.KeepUntil
			}
		} else if rec.Agent != "" && alive(rec.PID) {
			l.State, l.Why = "held", "held by "+rec.Agent
		}
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b envLine) int { return cmp.Compare(a.Name, b.Name) })
	return lines, nil
}

func clusterLine(f *janitor.Finding) envLine {
	d := f.Decision
	l := envLine{Environment: f.Environment, Owner: f.Owner, Dir: f.Dir, Created: f.Created, LastUse: f.LastUse, Why: d.Why, Then: d.Then, Due: d.Due, Note: f.Note}
	l.Provider = "kubernetes"
	switch {
	case f.Left:
		l.State = "left"
	case f.Going:
		l.State = "going"
	case f.Asleep:
		l.State = "asleep"
	case d.Action == lease.Warn:
		l.State = "warned"
	case d.Action == lease.Sleep:
		l.State = "unused"
	default:
		l.State = "used"
	}
	return l
}

func printEnvs(w io.Writer, lines []envLine, now time.Time) error {
	if len(lines) == 0 {
		_, err := fmt.Fprintln(w, "no environments; fairlead run, in a service's folder, makes one")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ENVIRONMENT\tWHERE\tSERVICE\tOWNER\tAGE\tLAST USE\tSTATE\tWHY IT IS THERE")
	for _, l := range lines {
		where := l.Provider
		if l.Namespace != "" {
			where += "/" + l.Namespace
		}
		why := l.Why
		if l.Then != "" && !l.Due.IsZero() {
			verb := map[lease.Action]string{lease.Sleep: "sleeps", lease.Delete: "goes"}[l.Then]
			if left := l.Due.Sub(now); left > 0 {
				why += "; " + verb + " in " + ago(left)
			} else {
				why += "; " + verb + " with the next fairlead env gc, or the cluster's janitor"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", clean(l.Name), clean(where), orDash(clean(l.Service)), orDash(clean(l.Owner)), since(now, l.Created), since(now, l.LastUse), l.State, clean(why))
	}
	return t.Flush()
}

func orDash(s string) string { return cmp.Or(s, "-") }

func since(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return ago(max(now.Sub(t), 0))
}

// ago writes a duration with the two units that count.
func ago(d time.Duration) string {
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func listGone(ctx context.Context, stdout io.Writer, j *janitor.Janitor, ns string, asJSON bool) error {
	if j == nil {
		return &api.Problem{Code: "no-context", Message: "there is no kubeconfig, and what went on this machine is not recorded", Hint: "name one with --kubeconfig or $KUBECONFIG"}
	}
	gone, err := j.Gone(ctx, ns)
	if err != nil {
		return err
	}
	if asJSON {
		for _, g := range gone {
			if err := json.NewEncoder(stdout).Encode(g); err != nil {
				return err
			}
		}
		return nil
	}
	if len(gone) == 0 {
		_, err := fmt.Fprintln(stdout, "no environment was deleted by a janitor within the last week")
		return err
	}
	t := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ENVIRONMENT\tNAMESPACE\tOWNER\tWENT\tLAST USE\tWHY\tBY")
	for _, g := range gone {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", clean(g.Name), clean(g.Namespace), orDash(clean(g.Owner)), g.At.Local().Format(time.DateTime), g.LastUse.Local().Format(time.DateTime), clean(g.Why), clean(g.By))
	}
	return t.Flush()
}

func newEnvGC(stdout, stderr io.Writer) *cobra.Command {
	var at clusterFlags
	var asJSON, dryRun bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Put unused environments of the cluster to sleep, and delete those that sleep for long",
		Long: `Gc does once, from here and with what your kubeconfig may do, what the cluster's janitor does all the time, a few
environments at a time. Interrupted, it says what is left; a deletion that has begun goes on in the cluster.
It does nothing to environments of this machine: they go with their last front end.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			j, _, err := at.janitor(stderr, dryRun)
			if err != nil {
				return err
			}
			if j == nil {
				_, err := fmt.Fprintln(stdout, "there is no kubeconfig, so nothing to do: environments of this machine go with their last front end")
				return err
			}
			found, err := j.Pass(c.Context(), kube.Filter{})
			acted, note := 0, ""
			for i := range found {
				f := &found[i]
				if asJSON {
					if err := json.NewEncoder(stdout).Encode(f); err != nil {
						return err
					}
					continue
				}
				if f.Decision.Action == lease.Warn && f.Note != "" {
					note = f.Note
				}
				if (f.Decision.Action == lease.Keep || f.Decision.Action == lease.Warn) && f.Copies == "" {
					continue
				}
				acted++
				fmt.Fprintln(stdout, gcLine(f, dryRun))
			}
			if note != "" {
				fmt.Fprintf(stderr, "fairlead: %s\n", clean(note))
			}
			if !asJSON && acted == 0 && err == nil {
				fmt.Fprintf(stdout, "nothing to do: %d environments stay (fairlead env list says why)\n", len(found))
			}
			return err
		},
	}
	at.add(c)
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object an environment and line")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return c
}

func gcLine(f *janitor.Finding, dryRun bool) string {
	what := map[lease.Action]string{lease.Sleep: "put to sleep", lease.Delete: "deleted", lease.Woken: "noted as used"}[f.Decision.Action]
	if what == "" { // what somebody had begun
		return clean(fmt.Sprintf("%s: %s/%s (%s)", f.Copies, f.Namespace, f.Name, f.Decision.Why))
	}
	if f.Left {
		what = "deleted the namespace of"
	}
	switch {
	case dryRun:
		what = "would be " + what
	case !f.Done:
		what = "not " + what
	}
	s := fmt.Sprintf("%s: %s/%s (%s)", what, f.Namespace, f.Name, f.Decision.Why)
	for _, more := range []string{f.Copies, f.Note} {
		if more != "" {
			s += ": " + more
		}
	}
	return clean(s)
}

func newEnvKeep(stdout, stderr io.Writer) *cobra.Command {
	var at clusterFlags
	var for_, until string
	var off bool
	c := &cobra.Command{
		Use:   "keep [ENVIRONMENT]",
		Short: "Keep an environment for a time, used or not",
		Long: `Keep lets an environment live until a time, whether anybody uses it or not. fairlead stop removes it all the same.

On Kubernetes it is neither put to sleep nor deleted until then, by any janitor, and does not go with the last
front end. On this machine the agent holds it until then.`,
		Example: `  fairlead env keep --for 3d
  fairlead env keep shop-ann-3f2a --until 2026-03-01T18:00:00Z
  fairlead env keep --off`,
		RunE: func(c *cobra.Command, args []string) error {
			if set := b2i(for_ != "") + b2i(until != "") + b2i(off); set != 1 {
				return &usageError{errors.New("say one of --for, --until and --off")}
			}
			var span time.Duration
			var end time.Time
			var err error
			switch {
			case for_ != "":
				if span, err = settings.Duration(for_); err != nil || span == 0 {
					return &usageError{fmt.Errorf("--for: %q is no duration such as 90m, 2h or 3d", for_)}
				}
			case until != "":
				if end, err = time.Parse(time.RFC3339, until); err != nil {
					return &usageError{fmt.Errorf("--until: %q is no time such as 2026-03-01T18:00:00Z", until)}
				}
			}
			return keepEnv(c.Context(), stdout, stderr, at, args, span, end)
		},
	}
	at.add(c)
	c.Flags().StringVar(&for_, "for", "", "`duration` from now on, such as 90m, 2h or 3d")
	c.Flags().StringVar(&until, "until", "", "`time`, as 2026-03-01T18:00:00Z")
	c.Flags().BoolVar(&off, "off", false, "keep it no longer")
	return c
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// keepEnv keeps an environment of this machine's records or, by its name, of the cluster.
func keepEnv(ctx context.Context, stdout, stderr io.Writer, at clusterFlags, args []string, span time.Duration, end time.Time) error {
	f, rec, err := pickArg(args)
	var p *api.Problem
	unknown := errors.As(err, &p) && p.Code == "no-environment" && len(args) == 1
	if err != nil && !unknown {
		return err
	}
	say := func(name string, end time.Time) error {
		if end.IsZero() {
			_, err = fmt.Fprintf(stdout, "%s is kept no longer\n", name)
		} else {
			_, err = fmt.Fprintf(stdout, "%s is kept until %s\n", name, end.Local().Format(time.DateTime))
		}
		return err
	}
	if !unknown && rec.Environment.Provider == "local" {
		if span > 0 {
			end = time.Now().Add(span)
		}
		cl, err := newClient(f, "fairlead env keep", false)
		if err != nil {
			return err
		}
		if err := cl.KeepUntil(ctx, rec.Environment.Name, end); err != nil {
			return err
		}
		return say(rec.Environment.Name, end)
	}
	var e *kube.Environment
	if unknown {
		e, err = findInCluster(ctx, at.options(stderr), args[0])
	} else {
		e, err = kube.Lookup(ctx, kube.Options{Kubeconfig: rec.Kubeconfig, Context: rec.Environment.Context, Version: version}, rec.Environment.Namespace, rec.Environment.Name)
	}
	if err != nil {
		return err
	}
	if span > 0 {
		end, err = e.KeepFor(ctx, span)
	} else {
		err = e.KeepUntil(ctx, end)
	}
	if err != nil {
		return err
	}
	return say(e.Info().Name, end)
}

// findInCluster finds an environment that this machine has no record of.
func findInCluster(ctx context.Context, o kube.Options, name string) (*kube.Environment, error) {
	found, err := findOne(ctx, o, name)
	if err != nil {
		return nil, err
	}
	return kube.Lookup(ctx, o, found.Namespace, name)
}

// findOne finds an environment by its name alone.
func findOne(ctx context.Context, o kube.Options, name string) (bridge.Stored, error) {
	found, err := kube.Find(ctx, o, kube.Filter{Name: name})
	if err != nil {
		return bridge.Stored{}, err
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return bridge.Stored{}, &api.Problem{Code: "no-environment", Message: fmt.Sprintf("there is no environment %q, neither of this machine nor in the cluster", name), Hint: "fairlead env list lists them"}
	}
	return bridge.Stored{}, &api.Problem{Code: "many-environments", Message: fmt.Sprintf("there are %d environments %q", len(found), name), Hint: "say which with --namespace"}
}
