package review

import (
	"cmp"
	"context"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/forge"
	"fairlead.dev/server/review/codeowners"
	"fairlead.dev/server/review/reviewer"
)

// history reads what reviewers are suggested from.
func (p *prepared) history(ctx context.Context, o Options) (*reviewer.History, reviewer.Change, error) {
	src := reviewer.Source{Dir: p.tree.top, Rev: p.places.ref, Cache: o.Cache, Progress: func(done, total int) {
		o.progress("reading the history: %d of %d commits", done, total)
	}}
	if o.Memory != nil && !o.Memory.Brief { // the rest can be read meanwhile
		src.Recent = recentCommits
	}
	h, err := reviewer.Open(ctx, src)
	if err != nil {
		return nil, reviewer.Change{}, err
	}
	if h.Partial {
		p.note("reviewers are suggested from the newest %d commits this time; the others are read meanwhile", recentCommits)
		o.Memory.meanwhile(func(ctx context.Context) {
			src.Recent, src.Progress = 0, nil
			reviewer.Open(ctx, src) // what goes wrong is told the next time
		})
	}
	c := reviewer.Change{Time: time.Now()}
	if o.now != nil {
		c.Time = o.now()
	}
	if ident, err := p.tree.line(ctx, "var", "GIT_AUTHOR_IDENT"); err == nil {
		if i := strings.LastIndexByte(ident, '>'); i > 0 {
			c.Author = ident[:i+1]
		}
	}
	spans := map[string][]reviewer.Span{}
	// Against the work tree: what is picked is a part of the change.
	out, err := p.tree.read(ctx, "diff", "--no-ext-diff", "--no-textconv", "--unified=0", "--find-renames", p.from, "--")
	if err != nil {
		return nil, c, gitProblem("look for the edited lines", err, "see what git diff says")
	}
	c.Files, spans = edited(out)
	owners, place, err := h.CodeOwners(ctx, p.dialect())
	if err != nil {
		return nil, c, err
	}
	if owners != nil {
		for _, wrong := range owners.Problems {
			p.note("%s:%d: %s", place, wrong.Line, wrong.Message)
		}
		var paths []string
		for _, f := range c.Files {
			paths = append(paths, f.Path)
		}
		c.Owners = owners.Match(paths)
	}
	bctx, cancel := context.WithTimeout(ctx, blameLimit)
	defer cancel()
	c.Lines, _ = h.Blame(bctx, spans)
	return h, c, nil
}

var hunk = regexp.MustCompile(`^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@`)

// edited reads a diff without context: the files by their names on the base branch, how many of their lines are edited, and which.
func edited(diff string) ([]reviewer.File, map[string][]reviewer.Span) {
	var files []reviewer.File
	spans := map[string][]reviewer.Span{}
	name := ""
	for l := range strings.Lines(diff) {
		l = strings.TrimRight(l, "\n")
		switch {
		case strings.HasPrefix(l, "diff --git "):
			name = ""
		case strings.HasPrefix(l, "--- a/"):
			name = strings.TrimRight(l[len("--- a/"):], "\t")
		case strings.HasPrefix(l, "--- \"a/"), strings.HasPrefix(l, "+++ \"b/"):
			if s, err := strconv.Unquote(l[4:]); err == nil && (name == "" || l[0] == '-') {
				name = s[2:]
			}
		case strings.HasPrefix(l, "+++ b/") && name == "":
			name = strings.TrimRight(l[len("+++ b/"):], "\t")
		}
		m := hunk.FindStringSubmatch(l)
		if m == nil || name == "" {
			continue
		}
		number := func(s string) int {
			if s == "" {
				return 1
			}
			n, _ := strconv.Atoi(s)
			return n
		}
		first, before, after := number(m[1]), number(m[2]), number(m[4])
		if len(files) == 0 || files[len(files)-1].Path != name {
			files = append(files, reviewer.File{Path: name})
		}
		files[len(files)-1].Lines += max(before, after)
		if before > 0 {
			spans[name] = append(spans[name], reviewer.Span{From: first, To: first + before - 1})
		}
	}
	return files, spans
}

// dialect is that of the forge's CODEOWNERS. Forgejo's is Gitea's with a place more.
func (p *prepared) dialect() codeowners.Dialect {
	switch p.forge.Kind {
	case forge.GitLab:
		return codeowners.GitLab
	case forge.Gitea:
		return codeowners.Forgejo
	}
	return codeowners.GitHub
}

// suggest ranks, with what the forge knows of people.
func (p *prepared) suggest(ctx context.Context, o Options, h *reviewer.History, c reviewer.Change, people []forge.Person) {
	known := reviewer.Known{Logins: map[string]string{}, Open: map[string]int{}}
	var teams []string
	for _, o := range c.Owners {
		if o.Team {
			teams = append(teams, o.Owner)
		}
	}
	if p.can && len(teams) > 0 { // so that a person of the team is named
		var err error
		if known.Members, err = p.forge.Members(ctx, teams); err != nil {
			p.note("who is in the teams that CODEOWNERS names is not known: %s", said(err))
		}
	}
	login := map[string]string{} // by lower case, as the forge writes it
	for _, q := range people {
		login[strings.ToLower(q.Login)] = q.Login
		if q.Email != "" {
			known.Logins[strings.ToLower(q.Email)] = q.Login
		}
		known.Open[q.Login] = q.Waiting
	}
	r := h.Rank(c, known)
	if p.can && p.identify(ctx, o, r.Suggestions, known.Logins) {
		r = h.Rank(c, known)
	}
	asked := map[string]bool{}
	if p.existing != nil {
		for _, l := range p.existing.Reviewers {
			asked[strings.ToLower(l)] = true
		}
	}
	for _, s := range r.Suggestions {
		q := api.ReviewPerson{Name: s.Name, Email: s.Email, Login: s.Login, Why: s.Why, Required: s.Required, Asked: asked[strings.ToLower(s.Login)]}
		if p.forge.Kind == forge.Gerrit { // which asks by the address
			q.Login = q.Email
		}
		if len(login) > 0 && q.Login != "" {
			l, ok := login[strings.ToLower(q.Login)]
			if !ok && !q.Required {
				continue // the forge does not let them be asked
			}
			q.Login = cmp.Or(l, q.Login)
		}
		p.Reviewers = append(p.Reviewers, q)
	}
	for _, team := range r.Teams {
		p.Teams = append(p.Teams, api.ReviewTeam{Name: team.Name, Why: team.Why})
	}
}

// identify looks for the logins of those suggested first, since few forges tell addresses, and says whether it found any. What was found
// out is known for the next time.
func (p *prepared) identify(ctx context.Context, o Options, suggested []reviewer.Suggestion, logins map[string]string) (some bool) {
	learn := func(email, login string) {
		if login != "" {
			logins[strings.ToLower(email)], some = login, true
		}
	}
	var unknown []forge.Author
	left := maxUnknown
	for _, s := range suggested {
		if s.Login != "" || s.Email == "" {
			continue
		}
		if left--; left < 0 {
			break
		}
		if login, ok := o.Memory.login(p.forge.URL, s.Email); ok {
			learn(s.Email, login)
		} else {
			unknown = append(unknown, forge.Author{Email: s.Email})
		}
	}
	if len(unknown) == 0 {
		return some
	}
	if p.forge.Kind != forge.GitLab { // which looks for the address alone
		var wg sync.WaitGroup
		for i := range unknown {
			wg.Go(func() { unknown[i].Commit = p.lastOf(ctx, unknown[i].Email) })
		}
		wg.Wait()
	}
	found, err := p.forge.Identify(ctx, unknown)
	if err != nil {
		p.note("not everybody's login is known: %s", said(err))
		return some
	}
	for _, a := range unknown {
		o.Memory.learn(p.forge.URL, a.Email, found[a.Email])
		learn(a.Email, found[a.Email])
	}
	return some
}

// lastOf is a commit of somebody's that the base branch has, by which a forge can tell who they are; empty where there is none.
func (p *prepared) lastOf(ctx context.Context, email string) string {
	s, err := p.tree.line(ctx, "log", "-n", "1", "--format=%H", "--fixed-strings", "--author=<"+email+">", p.places.ref, "--")
	if err != nil {
		return ""
	}
	return s
}
