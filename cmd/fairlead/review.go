package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fairlead.dev/api"
	"fairlead.dev/server/client"
	"fairlead.dev/server/review"
	"fairlead.dev/server/settings"
)

func newReview(stdout, stderr io.Writer) *cobra.Command {
	var req api.ReviewRequest
	var body, file string
	var all, staged, yes, dry, asJSON, noBrowser bool
	var files []string
	c := &cobra.Command{
		Use:   "review [DIR]",
		Short: "Open a draft review of the change in a work tree: branch, push, template, ticket, reviewers",
		Long: `Review shows what a review of the change in DIR (the current folder by default) would be, and with your
consent makes it: a branch where you are on the default one, a commit of the files that you pick, a push
(never a forced one), and a draft on the forge with its template filled in, the ticket linked, and a
request for each reviewer whom you pick. A second time it updates the same review: what you have edited
there stays. On a terminal it asks; elsewhere it does what the flags say.`,
		Example: `  fairlead review
  fairlead review --staged --message "orders: round totals" --reviewer mira --yes
  fairlead review --dry-run --json`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("unexpected argument %q", args[1])}
			}
			if all && (staged || len(files) > 0) || staged && len(files) > 0 {
				return &usageError{errors.New("--all, --staged and --file say different things: use one")}
			}
			dir, err := absDir(strings.Join(args, ""))
			if err != nil {
				return err
			}
			if req.Dir = dir; c.Flags().Changed("body-file") {
				b, err := os.ReadFile(file)
				if err != nil {
					return &usageError{fmt.Errorf("--body-file: %w", err)}
				}
				body = string(b)
				req.Body = &body
			}
			f, err := findFolders()
			if err != nil {
				return err
			}
			ask := !yes && !asJSON && interactive(os.Stdin) && interactive(os.Stderr)
			r := reviews{f: f, env: os.Environ(), alone: !ask, memory: &review.Memory{Brief: !ask || dry}}
			defer r.memory.Close()
			tell := progressLine(stderr, !asJSON)
			plan, err := r.plan(c.Context(), req, tell)
			tell("")
			if err != nil {
				return err
			}
			if dry {
				return showPlan(stdout, plan, asJSON)
			}
			req.State = plan.State
			for _, ch := range plan.Changes {
				if ch.Kind != "submodule" && (all || staged && ch.Staged || slices.Contains(files, ch.Path)) {
					req.Files = append(req.Files, ch.Path)
				}
			}
			for _, name := range files {
				if !slices.Contains(req.Files, name) {
					return &usageError{fmt.Errorf("--file %s has no change: paths are relative to %s", name, plan.Dir)}
				}
			}
			if len(req.Files) > 0 && req.Message == "" {
				req.Message = plan.Message
			}
			if ask {
				if err := askReview(c.Context(), os.Stdin, stderr, plan, &req); err != nil {
					return err
				}
			}
			res, err := r.create(c.Context(), req, tell)
			tell("")
			if asJSON && err == nil {
				return json.NewEncoder(stdout).Encode(res)
			}
			if err != nil {
				return err
			}
			printReview(stdout, stderr, plan, res)
			if res.URL != "" && !noBrowser && interactive(os.Stdout) {
				return openBrowser(res.URL)
			}
			return nil
		},
	}
	c.Flags().StringVar(&req.Base, "base", "", "`branch` that the review is for (default: the remote's)")
	c.Flags().StringVar(&req.Branch, "branch", "", "`name` of the branch that is made, where one is")
	c.Flags().StringVar(&req.Title, "title", "", "the review's `title` (default: the first commit's subject)")
	c.Flags().StringVar(&file, "body-file", "", "`FILE` with the review's text, in place of the filled template")
	c.Flags().StringVar(&req.Template, "template", "", "`name` of the template, where there are several")
	c.Flags().StringVar(&req.Ticket, "ticket", "", "`KEY`, #number or address of what the change is for (default: found in commits and the branch's name)")
	c.Flags().BoolVar(&all, "all", false, "commit everything that is not committed")
	c.Flags().BoolVar(&staged, "staged", false, "commit what is staged")
	c.Flags().StringSliceVar(&files, "file", nil, "commit these `files`")
	c.Flags().StringVarP(&req.Message, "message", "m", "", "the commit's `message` (default: one that says what is touched)")
	c.Flags().StringSliceVar(&req.Reviewers, "reviewer", nil, "`logins` of who is to be asked for a review")
	c.Flags().StringSliceVar(&req.Teams, "team", nil, "`teams` to be asked")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "ask nothing: do what the flags say")
	c.Flags().BoolVar(&dry, "dry-run", false, "only show what would be done")
	c.Flags().BoolVar(&noBrowser, "no-browser", false, "only print the review's address")
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object: the plan with --dry-run, else what was done")
	return c
}

// interactive says whether a person can be asked there; /dev/null is a device too, and is nobody.
func interactive(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// progressLine shows what is done on a line of its own on a terminal; an empty text takes it away.
func progressLine(w io.Writer, on bool) func(string) {
	f, ok := w.(*os.File)
	if !on || !ok || !isTerminal(f) {
		return func(string) {}
	}
	return func(s string) { fmt.Fprintf(w, "\r\x1b[K%s", clean(s)) }
}

// reviews makes draft reviews for a front end of this machine, whose environment and terminal git has.
type reviews struct {
	f      folders
	env    []string
	alone  bool
	memory *review.Memory
}

// options are what the settings of a folder and its environments say of its reviews.
func (r reviews) options(ctx context.Context, dir string, tell func(string)) (review.Options, error) {
	l, problems := settings.Load(settings.Options{Dir: dir})
	var wrong []error
	for _, p := range problems {
		if p.Severity == "" || p.Severity == api.SeverityError {
			wrong = append(wrong, p)
		}
	}
	if len(wrong) > 0 {
		return review.Options{}, errors.Join(wrong...)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return review.Options{}, &api.Problem{Code: "no-home", Message: "find your configuration: " + err.Error(), Hint: "set HOME"}
	}
	return review.Options{Dir: dir, Env: r.env, Alone: r.alone, Home: home, Cache: filepath.Join(r.f.cache, "history"), Base: l.Review.Base, TicketURL: l.Review.Ticket, Templates: l.Review.Templates,
		Environment: r.environment(ctx, dir), Progress: tell, Memory: r.memory}, nil
}

func (r reviews) plan(ctx context.Context, req api.ReviewRequest, tell func(string)) (api.ReviewPlan, error) {
	o, err := r.options(ctx, req.Dir, tell)
	if err != nil {
		return api.ReviewPlan{}, err
	}
	if req.Base != "" {
		o.Base = req.Base
	}
	o.Template, o.Ticket = req.Template, req.Ticket
	return review.Plan(ctx, o)
}

func (r reviews) create(ctx context.Context, req api.ReviewRequest, tell func(string)) (api.ReviewResult, error) {
	o, err := r.options(ctx, req.Dir, tell)
	if err != nil {
		return api.ReviewResult{}, err
	}
	res, err := review.Create(ctx, o, req)
	if err == nil && res.URL != "" && !res.Compare {
		r.tellAgent(ctx, req.Dir, res.ReviewRef)
	}
	return res, err
}

// running are the services under edit of a folder's module or below it; none without an agent.
func (r reviews) running(ctx context.Context, dir string) (*client.Client, []api.Service) {
	c, err := newClient(r.f, "fairlead review", false)
	if err != nil {
		return nil, nil
	}
	all, err := c.Services(ctx)
	if err != nil {
		return nil, nil // a review does without
	}
	within := func(of, p string) bool {
		rel, err := filepath.Rel(of, p)
		return err == nil && filepath.IsLocal(rel)
	}
	return c, slices.DeleteFunc(all, func(s api.Service) bool { return s.Joined || !within(dir, s.Package) && !within(s.Module, dir) })
}

func (r reviews) tellAgent(ctx context.Context, dir string, ref api.ReviewRef) {
	c, all := r.running(ctx, dir)
	for _, s := range all {
		c.Reviewed(ctx, s.Name, ref) // it is only shown
	}
}

// environment tells the review where the change runs, by the agent's services and this machine's records of them.
func (r reviews) environment(_ context.Context, dir string) func(context.Context) *review.Environment {
	return func(ctx context.Context) *review.Environment {
		_, all := r.running(ctx, dir)
		if len(all) == 0 {
			return nil
		}
		s := all[0]
		e := &review.Environment{Name: s.Name}
		place := "on this machine"
		if s.Provider == "kubernetes" {
			place = "on Kubernetes, namespace " + s.Namespace
		}
		if s.Phase == api.PhaseLive {
			e.Tested = fmt.Sprintf("Run as `%s` %s: generation %d, live since %s.", s.Name, place, s.Generation, s.Since.UTC().Format("2006-01-02 15:04 MST"))
			var deps []string
			for _, d := range s.Dependencies {
				if d.Mode == api.DependencyShared || d.Mode == api.DependencyFresh {
					deps = append(deps, fmt.Sprintf("%s (%s)", d.Name, d.Mode))
				}
			}
			if len(deps) > 0 {
				e.Tested += " With " + strings.Join(deps, ", ") + "."
			}
		}
		if s.Provider != "kubernetes" {
			return e // nobody else can open it
		}
		rec, err := pick(r.f.records().All(), s.Name, dir)
		if err != nil {
			return e
		}
		sh, err := share(rec)
		if err != nil {
			return e
		}
		e.Text = fmt.Sprintf("`%s` of service %s, namespace %s. To open it, to follow its logs, or to see how long it stays:\n\n```\n%s\n```\n\nor in VS Code: [open the environment](%s) (`%s`). It sleeps when nobody uses it, and `fairlead env keep %s` keeps it.",
			s.Name, s.Environment.Service, s.Namespace, sh.Join, sh.Link, sh.Link, s.Name)
		return e
	}
}

// shownReviewers are as many as a person looks through.
const shownReviewers = 8

func showPlan(w io.Writer, p api.ReviewPlan, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(p)
	}
	made := ""
	if p.New {
		made = " (is made)"
	}
	fmt.Fprintf(w, "branch    %s%s, for %s on %s\n", clean(p.Branch), made, clean(p.Base), clean(p.Forge))
	if p.Existing != nil {
		fmt.Fprintf(w, "review    %s (is updated)\n", clean(p.Existing.URL))
	}
	fmt.Fprintf(w, "title     %s\n", clean(p.Title))
	if p.Ticket != nil {
		fmt.Fprintf(w, "ticket    %s, by %s\n", clean(p.Ticket.Key), p.Ticket.From)
	}
	if p.Template != "" {
		fmt.Fprintf(w, "template  %s\n", clean(p.Template))
	}
	for _, c := range p.Commits {
		fmt.Fprintf(w, "commit    %.9s %s\n", c.Hash, clean(c.Subject))
	}
	for i, c := range p.Changes {
		if i == 20 {
			fmt.Fprintf(w, "          and %d more that are not committed\n", len(p.Changes)-i)
			break
		}
		fmt.Fprintf(w, "%-9s %s, not committed\n", c.Kind, clean(c.Path))
	}
	for i, r := range p.Reviewers {
		if i == shownReviewers {
			fmt.Fprintf(w, "    and %d more (--json has them)\n", len(p.Reviewers)-i)
			break
		}
		who := clean(r.Name)
		if r.Login != "" {
			who += " (" + clean(r.Login) + ")"
		}
		fmt.Fprintf(w, "%2d  %s: %s\n", i+1, who, clean(r.Why))
	}
	for _, t := range p.Teams {
		fmt.Fprintf(w, "team      %s: %s\n", clean(t.Name), clean(t.Why))
	}
	for _, n := range p.Notes {
		fmt.Fprintln(w, "note: "+clean(n))
	}
	return nil
}

// askReview shows a plan on a terminal, and has the user pick.
func askReview(ctx context.Context, in io.Reader, w io.Writer, p api.ReviewPlan, req *api.ReviewRequest) error {
	if err := showPlan(w, p, false); err != nil {
		return err
	}
	r := bufio.NewReader(in)
	ask := func(format string, args ...any) (string, error) {
		fmt.Fprintf(w, format, args...)
		type answer struct {
			s   string
			err error
		}
		got := make(chan answer, 1)
		go func() { s, err := r.ReadString('\n'); got <- answer{s, err} }()
		select {
		case a := <-got:
			return strings.TrimSpace(a.s), a.err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	fmt.Fprintln(w)
	if len(req.Files) == 0 && slices.ContainsFunc(p.Changes, func(c api.ReviewChange) bool { return c.Kind != "submodule" }) {
		var picked []string
		for _, c := range p.Changes {
			if c.Picked {
				picked = append(picked, c.Path)
			}
		}
		what := "commit nothing"
		if len(picked) > 0 {
			what = "commit " + strings.Join(picked[:min(3, len(picked))], ", ")
			if len(picked) > 3 {
				what += fmt.Sprintf(" and %d more", len(picked)-3)
			}
		}
		s, err := ask("Commit? [y] %s  [a] everything  [n] nothing: ", clean(what))
		if err != nil {
			return err
		}
		switch strings.ToLower(s) {
		case "y", "yes":
			req.Files = picked
		case "a", "all":
			for _, c := range p.Changes {
				if c.Kind != "submodule" {
					req.Files = append(req.Files, c.Path)
				}
			}
		case "n", "no", "":
		default:
			return &usageError{fmt.Errorf("%q is none of y, a, n", s)}
		}
		if len(req.Files) > 0 && req.Message == "" {
			if req.Message, err = ask("Message [%s]: ", clean(p.Message)); err != nil {
				return err
			}
			if req.Message == "" {
				req.Message = p.Message
			}
		}
	}
	if len(req.Reviewers) == 0 && slices.ContainsFunc(p.Reviewers, func(r api.ReviewPerson) bool { return r.Login != "" }) {
		s, err := ask("Ask for a review? Numbers as 1 3, or nothing: ")
		if err != nil {
			return err
		}
		for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' }) {
			n, err := strconv.Atoi(w)
			if err != nil || n < 1 || n > len(p.Reviewers) || p.Reviewers[n-1].Login == "" {
				return &usageError{fmt.Errorf("%q is none of the numbers above of somebody with a login", w)}
			}
			req.Reviewers = append(req.Reviewers, p.Reviewers[n-1].Login)
		}
	}
	s, err := ask("Make it? [Y/n]: ")
	if err != nil {
		return err
	}
	if s = strings.ToLower(s); s != "" && s != "y" && s != "yes" {
		return &saidError{errors.New("nothing was done")}
	}
	return nil
}

func printReview(w, errs io.Writer, p api.ReviewPlan, r api.ReviewResult) {
	switch {
	case r.URL == "":
		fmt.Fprintf(w, "%s is pushed to %s\n", clean(r.Branch), clean(p.Remote))
	case r.Compare:
		fmt.Fprintf(w, "%s is pushed; its review is opened at\n%s\n", clean(r.Branch), clean(r.URL))
	case r.Made:
		fmt.Fprintf(w, "draft review %s of %s\n", clean(r.URL), clean(r.Branch))
	default:
		fmt.Fprintf(w, "updated %s\n", clean(r.URL))
	}
	for _, a := range r.Asked {
		fmt.Fprintf(w, "asked %s\n", clean(a))
	}
	for _, n := range r.Notes {
		fmt.Fprintln(errs, "fairlead: note: "+clean(n))
	}
}

// lspReviews makes reviews for an editor, whose terminal nobody sees.
type lspReviews struct {
	f      folders
	memory *review.Memory
}

func (l lspReviews) reviews() reviews {
	return reviews{f: l.f, env: os.Environ(), alone: true, memory: l.memory}
}

// Plan is lsp.Reviews'.
func (l lspReviews) Plan(ctx context.Context, r api.ReviewRequest, tell func(string)) (api.ReviewPlan, error) {
	return l.reviews().plan(ctx, r, tell)
}

// Create is lsp.Reviews'.
func (l lspReviews) Create(ctx context.Context, r api.ReviewRequest, tell func(string)) (api.ReviewResult, error) {
	return l.reviews().create(ctx, r, tell)
}
