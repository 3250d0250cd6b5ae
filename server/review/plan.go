package review

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/forge"
	"fairlead.dev/server/review/reviewer"
)

// Options say what a review is made of.
type Options struct {
	Dir string   // in the work tree
	Env []string // of who asks, as os.Environ has it
	// Alone: whoever asks has no terminal on which ssh, gpg or a hook could ask anything.
	Alone bool
	Home  string // where the forges' own commands have their configuration
	Cache string // folder of the history's index
	// Base is the branch that the review is for; empty is the remote's default. Template and Ticket go before what is found.
	Base, Template, Ticket string
	// TicketURL is where a ticket is, with {key} in it; Templates are patterns of paths and the templates that they take.
	TicketURL string
	Templates map[string]string
	// Environment is what the service's environment is, for the review's text; nil where there is none.
	Environment func(context.Context) *Environment
	// Progress is told what is done, in a few words.
	Progress func(string)
	// Memory, unless nil, has the last plan for Create.
	Memory *Memory

	now func() time.Time // a test's
}

// Environment is where the change runs.
type Environment struct {
	Name string
	// Text is Markdown: where it is, how it is opened or joined, how long it stays.
	Text string
	// Tested is what was done in it, for the template's part about tests: "Run in environment x: 14 saves live". It may be empty.
	Tested string
}

const (
	maxCommits = 250 // that are listed: GitHub's own limit
	// maxUnknown bounds how many of the suggested are looked for on the forge: each may be a request, and the first are those who matter.
	maxUnknown = 8
	// recentCommits are enough for the first suggestions in a large repository: a second of reading, in place of one for each ten
	// thousand. meanwhileAfter is when the rest is begun, or later: not while somebody waits for the draft.
	recentCommits  = 10_000
	meanwhileAfter = 3 * time.Second
	// blameLimit bounds how long it is found out whose lines are edited: the rest of the ranking does without.
	blameLimit = 400 * time.Millisecond
	// forgeLimit bounds what is asked of the forge for a plan. What is missing then is noted.
	forgeLimit = 10 * time.Second
)

// prepared is a plan with what it was made of.
type prepared struct {
	api.ReviewPlan
	tree     *tree
	places   places
	forge    *forge.Forge // of the repository that the review is in
	can      bool         // the forge is one with an API, and there is a token
	from     string       // the commit that the branch left the base at
	head     forge.Head
	ticket   *ticket
	template string
	sections []section
	existing *forge.Review

	mu sync.Mutex // of the notes, while what is asked for is on its way
}

// Plan looks at a work tree and says what its review would be. Its errors are *api.Problem.
func Plan(ctx context.Context, o Options) (api.ReviewPlan, error) {
	p, err := prepare(ctx, o, true)
	if err != nil {
		return api.ReviewPlan{}, err
	}
	plan := p.ReviewPlan
	o.Memory.keep(p, o)
	return plan, nil
}

func (o *Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// prepare makes a plan, with suggestions of reviewers where these are wanted.
func prepare(ctx context.Context, o Options, suggest bool) (*prepared, error) {
	o.progress("looking at the work tree")
	t, err := look(ctx, o.Dir, o.Env, o.Alone)
	if err != nil {
		return nil, err
	}
	if t.doing != "" {
		return nil, &api.Problem{Code: "review-busy", Message: "git is in the middle of " + t.doing + " here", Hint: "finish it, or give it up: git status says how"}
	}
	if len(t.clash) > 0 {
		return nil, &api.Problem{Code: "review-conflict", Message: fmt.Sprintf("there are conflicts in %s: %s", count(len(t.clash), "file"), strings.Join(t.clash[:min(3, len(t.clash))], ", ")), Hint: "resolve them first"}
	}
	p := &prepared{tree: t}
	p.Dir, p.Commit, p.Changes, p.Reviewers = t.top, t.head, t.changes, []api.ReviewPerson{}
	ctx, cancel := context.WithCancel(ctx) // what is under way ends with what fails
	defer cancel()
	var stateErr error
	var wg sync.WaitGroup
	wg.Go(func() { p.State, stateErr = t.state(ctx) })
	defer wg.Wait()
	if p.places, err = t.places(ctx, o.Base); err != nil {
		return nil, err
	}
	if err := p.findForge(ctx, o); err != nil {
		return nil, err
	}
	if err := p.compare(ctx); err != nil {
		return nil, err
	}
	found := p.ask(ctx, o, suggest)
	if err := p.describe(ctx, o); err != nil {
		cancel()
		found()
		return nil, err
	}
	found()
	if wg.Wait(); stateErr != nil {
		return nil, stateErr
	}
	return p, ctx.Err()
}

func (p *prepared) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := fmt.Sprintf(format, args...); !slices.Contains(p.Notes, n) {
		p.Notes = append(p.Notes, n)
	}
}

// findForge says where the review will be: on the remote that the branch is for. The one that is pushed to may be a fork's.
func (p *prepared) findForge(ctx context.Context, o Options) error {
	at := func(remote string) (*forge.Forge, string, error) {
		url, err := p.tree.line(ctx, "remote", "get-url", remote) // with url.X.insteadOf
		if err != nil {
			return nil, "", gitProblem("look for remote "+remote, err, "see what git remote -v says")
		}
		f, err := forge.Open(ctx, url, forge.User{Env: o.Env, Home: o.Home, Dir: p.tree.top}.Options(url))
		return f, url, err
	}
	f, url, err := at(p.places.base)
	if err != nil {
		return err
	}
	p.forge, p.Remote = f, p.places.push
	p.Forge = kindText(f.Kind)
	if f.Path != "" && f.Kind != forge.Plain {
		p.Forge += " (" + f.Path + ")"
	} else if f.Kind == forge.Plain {
		p.Forge = "git"
	}
	if p.places.push != p.places.base {
		own, pushURL, err := at(p.places.push)
		if err != nil {
			return err
		}
		if own.Path != f.Path && pushURL != url {
			p.head.Owner, p.head.Repo = path.Dir(own.Path), path.Base(own.Path)
		}
	}
	switch f.Kind {
	case forge.Plain:
		if f.Why != nil {
			p.note("%s", withHint(f.Why))
		}
		return nil
	case forge.Gerrit:
		return nil
	}
	_, ok, err := f.Authenticated(ctx)
	if err != nil {
		return err
	}
	if p.can = ok; !ok {
		p.note("there is no token for %s here (%s): the branch is pushed, and the page opens where its review is opened by hand; docs/forges.md says where a token is looked for", p.Forge, f.URL)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, forgeLimit)
	defer cancel()
	r, err := f.Repository(ctx)
	if err != nil {
		return err
	}
	if r.Archived {
		return &api.Problem{Code: "forge-archived", Message: r.Path + " is archived on its forge, so it can only be read", Hint: "have it unarchived, or push to the one that replaces it"}
	}
	if r.Renamed {
		p.note("%s is called %s by now: git remote set-url %s gives the remote its new address", f.Path, r.Path, p.places.base)
	}
	if p.places.branch == "" {
		p.places.branch = r.Default
		p.places.ref = p.places.base + "/" + r.Default
	}
	if r.Parent != nil && p.head.Owner == "" {
		// Only the fork is a remote here. What a change of it is for is what it was forked from.
		parent, err := f.On(r.Parent.Path)
		if err != nil {
			return err
		}
		p.head.Owner, p.head.Repo = path.Dir(r.Path), path.Base(r.Path)
		p.forge = parent
		p.Forge = kindText(f.Kind) + " (" + r.Parent.Path + ")"
		p.note("%s is a fork of %s, which the review is for; git remote add upstream %s lets it be compared with what is there", r.Path, r.Parent.Path, cmp.Or(r.Parent.CloneURL, r.Parent.SSHURL))
		if o.Base == "" && r.Parent.Default != "" {
			p.places.branch = r.Parent.Default
		}
	} else if !r.CanPush && p.head.Owner == "" {
		p.note("you may not push to %s, as far as its forge says: fork it, and git remote add your fork", r.Path)
	}
	return nil
}

func kindText(k forge.Kind) string {
	switch k {
	case forge.GitHub:
		return "GitHub"
	case forge.GitLab:
		return "GitLab"
	case forge.Gitea:
		return "Gitea"
	case forge.Gerrit:
		return "Gerrit"
	}
	return "git"
}

func withHint(p *api.Problem) string {
	if p.Hint == "" {
		return p.Message
	}
	return p.Message + ": " + p.Hint
}

// compare finds what is to be reviewed.
func (p *prepared) compare(ctx context.Context) error {
	t := p.tree
	if p.places.branch == "" {
		return &api.Problem{Code: "review-base", Message: "it is not known which branch the review is for", Hint: "name it with --base, or base: under review: in fairlead.yaml; git remote set-head " + p.places.base + " --auto tells git"}
	}
	p.Base = p.places.branch
	if !t.yes(ctx, "rev-parse", "--verify", "--quiet", p.places.ref+"^{commit}") {
		return &api.Problem{Code: "review-base", Message: p.places.ref + " is not known here", Hint: "git fetch " + p.places.base + ", or name another branch with --base"}
	}
	from, err := t.line(ctx, "merge-base", p.places.ref, "HEAD")
	if err != nil || from == "" {
		hint := "choose another base"
		if t.shallow {
			hint = "the clone is shallow: git fetch --unshallow brings the rest"
		}
		return &api.Problem{Code: "review-base", Message: "HEAD and " + p.places.ref + " have no commit in common that is known here", Hint: hint}
	}
	p.from = from
	// With HEAD detached, or on the base branch itself, which is for what has been reviewed, the change is put on a branch of its own.
	p.New = t.branch == "" || t.branch == p.places.branch && p.head.Owner == ""
	if !p.New {
		p.head.Branch = t.branch
	}
	out, err := t.read(ctx, "log", "--reverse", "-n", strconv.Itoa(maxCommits), "--format=%H%x00%s", p.from+"..HEAD")
	if err != nil {
		return gitProblem("list the commits", err, "see what git log says")
	}
	p.Commits = []api.ReviewCommit{}
	for l := range strings.Lines(out) {
		if hash, subject, ok := strings.Cut(strings.TrimSuffix(l, "\n"), "\x00"); ok {
			p.Commits = append(p.Commits, api.ReviewCommit{Hash: hash, Subject: subject})
		}
	}
	if len(p.Commits) == 0 && !slices.ContainsFunc(p.Changes, func(c api.ReviewChange) bool { return c.Kind != "submodule" }) {
		if len(p.Changes) > 0 {
			return &api.Problem{Code: "review-nothing", Message: "only submodules have changes, and nothing is committed that " + p.places.ref + " lacks", Hint: "commit in the submodule, and git add it here"}
		}
		return &api.Problem{Code: "review-nothing", Message: "there is nothing to review: no change, and no commit that " + p.places.ref + " lacks", Hint: "change something, or say with --base what it is to be compared with"}
	}
	if n, err := t.line(ctx, "rev-list", "--count", "HEAD.."+p.places.ref); err == nil {
		p.Behind, _ = strconv.Atoi(n)
	}
	if t.shallow {
		p.note("the clone is shallow, so that reviewers are suggested from what of the history is here")
	}
	for _, c := range p.Changes {
		if c.Kind == "submodule" {
			p.note("submodule %s has changes of its own, which no commit here takes", c.Path)
		}
	}
	return nil
}

// messages are those of the commits, whole.
func (p *prepared) messages(ctx context.Context) ([]string, error) {
	out, err := p.tree.read(ctx, "log", "--reverse", "-z", "-n", strconv.Itoa(maxCommits), "--format=%B", p.from+"..HEAD")
	if err != nil {
		return nil, gitProblem("read the commits", err, "see what git log says")
	}
	var all []string
	for m := range strings.SplitSeq(out, "\x00") {
		if m = strings.TrimSpace(m); m != "" {
			all = append(all, m)
		}
	}
	return all, nil
}

// paths are the files of the change: those of its commits, and those that are picked.
func (p *prepared) paths(ctx context.Context) ([]string, error) {
	out, err := p.tree.read(ctx, "diff", "--name-only", "-z", "--no-renames", p.from, "HEAD", "--")
	if err != nil {
		return nil, gitProblem("list the files", err, "see what git diff says")
	}
	var all []string
	for f := range strings.SplitSeq(out, "\x00") {
		if f != "" {
			all = append(all, f)
		}
	}
	for _, c := range p.Changes {
		if c.Picked && !slices.Contains(all, c.Path) {
			all = append(all, c.Path)
		}
	}
	return all, nil
}

// describe finds branch, ticket, template and text.
func (p *prepared) describe(ctx context.Context, o Options) error {
	t := p.tree
	messages, err := p.messages(ctx)
	if err != nil {
		return err
	}
	files, err := p.paths(ctx)
	if err != nil {
		return err
	}
	if p.Message = t.proposeMessage(ctx, p.Changes); len(p.Commits) > 0 {
		p.Title = p.Commits[0].Subject
	} else {
		p.Title = p.Message
	}
	if p.ticket = findTicket(t.branch, messages, o.TicketURL != ""); o.Ticket != "" {
		tk, ok := parseTicket(o.Ticket)
		if !ok {
			return &api.Problem{Code: "review-ticket", Message: strconv.Quote(o.Ticket) + " is no ticket", Hint: "write it as SHOP-12, #12, team/shop#12 or its address"}
		}
		tk.From = "you"
		p.ticket = &tk
	}
	if p.ticket != nil {
		p.ticket.address(o.TicketURL)
		p.Ticket = &p.ticket.ReviewTicket
	}
	if p.Branch = t.branch; p.New {
		p.Branch = t.newBranch(ctx, p.places.push, p.Title, p.ticket)
		p.head.Branch = p.Branch
	}
	p.Unpushed = len(p.Commits)
	if ref := "refs/remotes/" + p.places.push + "/" + p.Branch; !p.New && t.yes(ctx, "rev-parse", "--verify", "--quiet", ref) {
		if n, err := t.line(ctx, "rev-list", "--count", ref+"..HEAD"); err == nil {
			p.Unpushed, _ = strconv.Atoi(n)
		}
	}
	all, err := t.templates(ctx, p.places.ref, p.forge.Kind)
	if err != nil {
		return gitProblem("look for templates", err, "see what git ls-tree "+p.places.ref+" says")
	}
	if p.forge.Kind == forge.Gerrit { // what a change says there is its commit's message
		all = nil
	}
	for _, a := range all {
		p.Templates = append(p.Templates, a.path)
	}
	chosen := chooseTemplate(all, files, t.branch, o.Templates)
	if o.Template != "" {
		i := slices.IndexFunc(all, func(a template) bool { return namesTemplate(a.path, o.Template) })
		if i < 0 {
			return &api.Problem{Code: "review-template", Message: p.places.ref + " has no template " + strconv.Quote(o.Template), Hint: "it has " + cmp.Or(strings.Join(p.Templates, ", "), "none")}
		}
		chosen = &all[i]
	}
	if chosen != nil {
		p.Template, p.template = chosen.path, chosen.text
	}
	p.sections = p.known(ctx, o, messages)
	p.Body = fill(p.template, p.sections)
	return nil
}

var (
	trailerLine = regexp.MustCompile(`^[A-Z][-A-Za-z]+: \S|^\(cherry picked from `)
	ticketLine  = trailerPattern
)

// known is what can be said of the change.
func (p *prepared) known(ctx context.Context, o Options, messages []string) []section {
	summary := ""
	if len(messages) == 1 {
		_, text, _ := strings.Cut(messages[0], "\n")
		summary = withoutTrailers(text)
	}
	if summary == "" {
		for _, c := range p.Commits {
			summary += "- " + c.Subject + "\n"
		}
	}
	if summary == "" && p.Title != "" { // what is to be committed
		summary = "- " + p.Title
	}
	out := []section{{id: "summary", title: "Summary", heading: headingSummary, text: summary}}
	if p.ticket != nil {
		out = append(out, section{id: "ticket", title: "Ticket", heading: headingTicket, text: p.ticket.line(p.forge.Issue)})
	}
	if o.Environment != nil {
		if e := o.Environment(ctx); e != nil {
			out = append(out, section{id: "tests", title: "Tested", heading: headingTest, text: e.Tested}, section{id: "environment", title: "Environment", heading: headingEnv, text: e.Text})
		}
	}
	return out
}

// withoutTrailers leaves out a message's last paragraph where that is made of trailers (git-interpret-trailers(1)), and lines that name
// the ticket, which has a place of its own.
func withoutTrailers(s string) string {
	parts := strings.Split(strings.TrimSpace(s), "\n\n")
	last := parts[len(parts)-1]
	if !slices.ContainsFunc(strings.Split(last, "\n"), func(l string) bool { return !trailerLine.MatchString(l) && !strings.HasPrefix(l, " ") }) {
		parts = parts[:len(parts)-1]
	}
	return strings.TrimSpace(ticketLine.ReplaceAllString(strings.Join(parts, "\n\n"), ""))
}

// ask begins to find the review that there is and who could review; found waits for it. What cannot be found out is noted: a review can
// do without. Only the forge's answers are waited for no longer than forgeLimit: a history that is read for the first time takes what it
// takes, with its progress told.
func (p *prepared) ask(ctx context.Context, o Options, suggest bool) (found func()) {
	o.progress("looking for reviewers")
	limited, cancel := context.WithTimeout(ctx, forgeLimit)
	var wg sync.WaitGroup
	if p.can && !p.New {
		wg.Go(func() {
			r, err := p.forge.Find(limited, p.head, p.Base)
			if err != nil {
				p.note("whether the branch has a review is not known: %s", said(err))
				return
			}
			if p.existing = r; r != nil {
				p.Existing = &api.ReviewRef{Number: r.Number, URL: r.URL, Title: r.Title, Draft: r.Draft}
			}
		})
	}
	var people []forge.Person
	if p.can && suggest {
		wg.Go(func() {
			var err error
			if people, err = p.forge.People(limited); err != nil {
				p.note("who may review is not known to be complete: %s", said(err))
			}
		})
	}
	var h *reviewer.History
	var change reviewer.Change
	if suggest {
		wg.Go(func() {
			var err error
			if h, change, err = p.history(ctx, o); err != nil {
				p.note("no reviewers are suggested: %s", said(err))
			}
		})
	}
	return func() {
		defer cancel()
		if wg.Wait(); h == nil || ctx.Err() != nil {
			return
		}
		if h.Unsaved != nil {
			p.note("the history is read anew each time: %s", said(h.Unsaved))
		}
		limited, cancel := context.WithTimeout(ctx, forgeLimit)
		defer cancel()
		p.suggest(limited, o, h, change, people)
	}
}

func said(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "it took too long"
	}
	var p *api.Problem
	if errors.As(err, &p) {
		return withHint(p)
	}
	return err.Error()
}
