// Package forge speaks to the forge that a git remote is on: GitHub, GitLab, Gitea and Forgejo by their documented APIs, Gerrit by what
// is pushed to it, others by the page where a review is opened by hand. It knows neither what is reviewed nor how it is pushed, and
// runs git only to ask for a credential.
//
// The APIs are spoken to with net/http. Their clients were measured beside a program that links html/template, as ours do, which
// keeps methods that nobody calls: go-github v88 adds 1.0 MB, client-go v1.46 of GitLab 4.6 MB, Gitea's SDK 0.6 MB and five modules. For six
// requests each that is too much, and what is hard here is none of them: the token that goes to one host only, limits that are told
// instead of waited for, answers that are a proxy's. That is client.go, once for all.
package forge

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"fairlead.dev/api"
)

// Kind is a forge's make.
type Kind string

// The kinds that are known. Forgejo has Gitea's API. Plain is any other git server: a review is a branch there.
const (
	GitHub Kind = "github"
	GitLab Kind = "gitlab"
	Gitea  Kind = "gitea"
	Gerrit Kind = "gerrit"
	Plain  Kind = "git"
)

var names = map[Kind]string{GitHub: "GitHub", GitLab: "GitLab", Gitea: "Gitea", Gerrit: "Gerrit", Plain: "git"}

// Options say how a forge is found. The zero value is: by its host or by asking it, without a token.
type Options struct {
	// Kind and URL are the forge's, where the remote does not tell: URL is the address of its pages, as https://git.example.com/forge.
	Kind Kind
	URL  string
	// Sources are asked for a token one after the other, at the first request that takes one. Environment and System have them.
	Sources []Source
	// Transport is how requests are made; nil is the usual one, with the environment's proxies.
	Transport http.RoundTripper
}

// Forge is one repository on a forge. It may be used by several goroutines. Its methods fail with an *api.Problem, or with the context's
// error. Where Kind is Gerrit or Plain there is no API to call: methods fail with the code forge-none; Gerrit has GerritPush.
type Forge struct {
	Kind Kind
	URL  string // of its pages, without a slash at the end
	Path string // owner/repository, as the remote calls it
	// Why is why the kind is Plain, with what would make it another one.
	Why *api.Problem

	remote remote
	client *client
	driver driver

	mu   sync.Mutex
	repo *Repository
}

// driver is what differs between the APIs. Its errors are a *refusal, an *api.Problem or the context's.
type driver interface {
	repository(ctx context.Context) (*Repository, error)
	// list has reviews of a branch, the newest first; of those that are not open the newest page only.
	list(ctx context.Context, head Head, base string, open bool) ([]Review, error)
	create(ctx context.Context, d Draft) (*Review, error)
	update(ctx context.Context, number int, c Change) (*Review, error)
	request(ctx context.Context, number int, r Reviewers) (Requested, error)
	people(ctx context.Context) ([]Person, error)
	identify(ctx context.Context, authors []Author) (map[string]string, error)
	// members are a team's; the name's parts have been checked.
	members(ctx context.Context, organisation, team string) ([]string, error)
}

// Repository is what the forge says of a repository.
type Repository struct {
	Path     string // owner/repository, as it is called now
	URL      string // its page
	Default  string // branch
	Parent   *Parent
	CanPush  bool // by the token's owner
	Archived bool
	// Renamed says that the remote has another name than Path. Git and the API follow it, until somebody else takes that name.
	Renamed bool
}

// Parent is what a repository was forked from.
type Parent struct {
	Path, Default    string
	CloneURL, SSHURL string
}

// Head is a branch to be reviewed. Owner and Repo are empty where it is in the repository itself, and else name the fork.
type Head struct{ Owner, Repo, Branch string }

func (h Head) own() bool { return h.Owner == "" }

// Draft is a review to be opened.
type Draft struct {
	Head        Head
	Base        string // branch
	Title, Body string
}

// Review is a pull or merge request. Title has no prefix of a draft's.
type Review struct {
	Number      int       `json:"number"`
	URL         string    `json:"url"`
	Title       string    `json:"title"`
	Body        string    `json:"body"`
	Draft       bool      `json:"draft"`
	Open        bool      `json:"open"`
	Head        Head      `json:"head"`
	Base        string    `json:"base"`
	Commit      string    `json:"commit"` // the branch's, as the forge has seen it
	Author      string    `json:"author"`
	Reviewers   []string  `json:"reviewers,omitempty"` // who is asked, by login
	Updated     time.Time `json:"updated"`
	sourceOther bool      // from another repository
}

// Change is what a review gets anew; nil stays as it is.
type Change struct{ Title, Body *string }

// Reviewers are who is to be asked: logins, and teams of the organisation by name.
type Reviewers struct{ People, Teams []string }

// Requested says who is asked now, and who could not be.
type Requested struct {
	Taken   []string  `json:"taken"`
	Refused []Refused `json:"refused,omitempty"`
}

// Refused is a reviewer who was not taken.
type Refused struct {
	Who string `json:"who"`
	Why string `json:"why"`
}

// Person is who may be asked for a review.
type Person struct {
	Login string `json:"login"`
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"` // few forges tell it
	// Waiting is for how many open reviews of this repository they are asked already, of the newest hundred.
	Waiting int `json:"waiting"`
}

// Author is who wrote a commit: the address that git has, and one commit of theirs that is pushed.
type Author struct{ Email, Commit string }

const (
	maxPeople  = 500
	maxAuthors = 50
	maxTeams   = 10
	maxMembers = 300     // of one
	maxTitle   = 255     // GitLab's and Gitea's limit; GitHub's is one more
	maxBody    = 65536   // GitHub's, in characters
	maxBodyLab = 1048576 // GitLab's
)

// Authenticated says whether a source has a token for the forge, and which one. It asks the sources, no network.
func (f *Forge) Authenticated(ctx context.Context) (from string, ok bool, err error) {
	if f.driver == nil {
		return "", false, nil
	}
	t, err := f.client.credential(ctx)
	return t.From, t.value != "", err
}

// On is another repository of the same forge, such as a fork's parent.
func (f *Forge) On(path string) (*Forge, error) {
	if !validPath(path) {
		return nil, &api.Problem{Code: "forge-remote", Message: strconv.Quote(short(path)) + " is no repository's path", Hint: "write it as owner/repository"}
	}
	o := &Forge{Kind: f.Kind, URL: f.URL, Path: path, Why: f.Why, remote: f.remote, client: f.client}
	o.remote.path = path
	o.driver = newDriver(o)
	return o, nil
}

// Repository asks for the repository, once: later calls have the same answer.
func (f *Forge) Repository(ctx context.Context) (*Repository, error) {
	if err := f.has(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.repo != nil {
		return f.repo, nil
	}
	r, err := f.driver.repository(ctx)
	if err != nil {
		return nil, f.problem("read the repository", err)
	}
	if !validPath(r.Path) {
		return nil, f.client.answerProblem("a repository without a name")
	}
	r.Renamed = !strings.EqualFold(r.Path, f.Path)
	f.repo = r
	return r, nil
}

// path is the repository's as the forge calls it now: a write to an old name is refused by some and lost by others.
func (f *Forge) path(ctx context.Context) (string, error) {
	r, err := f.Repository(ctx)
	if err != nil {
		return "", err
	}
	return r.Path, nil
}

// Find looks for the open review of a branch; nil where there is none. An empty base is any.
func (f *Forge) Find(ctx context.Context, head Head, base string) (*Review, error) {
	if err := f.has(); err != nil {
		return nil, err
	}
	if p := checkHead(head); p != nil {
		return nil, p
	}
	list, err := f.list(ctx, head, base, true)
	if len(list) == 0 || err != nil {
		return nil, err
	}
	return &list[0], nil
}

func (f *Forge) list(ctx context.Context, head Head, base string, open bool) ([]Review, error) {
	list, err := f.driver.list(ctx, head, base, open)
	if err != nil {
		return nil, f.problem("list the reviews", err)
	}
	for _, r := range list {
		if _, err := f.made(r); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Create opens a review, always as a draft. Where the branch has one already the problem is forge-exists, with its page as Link; where
// the forge has no drafts it is forge-no-draft, and nothing is opened.
func (f *Forge) Create(ctx context.Context, d Draft) (*Review, error) {
	if err := f.has(); err != nil {
		return nil, err
	}
	if p := f.check(d); p != nil {
		return nil, p
	}
	r, err := f.Repository(ctx)
	if err != nil {
		return nil, err
	}
	if r.Archived {
		return nil, f.archived()
	}
	made, err := f.driver.create(ctx, d)
	if err == nil && !made.Draft {
		return made, &api.Problem{Code: "forge-no-draft", Message: fmt.Sprintf("%s opened %s, but not as a draft", f.client.name, made.URL), Hint: "make it a draft there, or close it; its administrator knows which title makes a draft", Link: made.URL}
	}
	if err == nil {
		return made, nil
	}
	if exists(err) {
		// Another was faster, or it is there under another base.
		list, again := f.list(ctx, d.Head, "", true)
		if again == nil && len(list) > 0 {
			return nil, &api.Problem{Code: "forge-exists", Message: fmt.Sprintf("%s has a review of %s already: %s", f.client.name, d.Head.Branch, list[0].URL), Hint: "update that one, or close it there", Link: list[0].URL}
		}
	}
	return nil, f.problem("open a review", err)
}

// Update changes the title or the body of a review. Who must not overwrite what its author wrote compares Review.Body first.
func (f *Forge) Update(ctx context.Context, number int, c Change) (*Review, error) {
	if err := f.has(); err != nil {
		return nil, err
	}
	d := Draft{Head: Head{Branch: "x"}, Base: "x", Title: "x"}
	if c.Title != nil {
		d.Title = *c.Title
	}
	if c.Body != nil {
		d.Body = *c.Body
	}
	if p := f.check(d); p != nil {
		return nil, p
	}
	r, err := f.driver.update(ctx, number, c)
	return r, f.problem("change the review", err)
}

// RequestReviewers asks people and teams for a review, beside those who are asked already. That one of them cannot be asked is no
// error: Requested says so.
func (f *Forge) RequestReviewers(ctx context.Context, number int, r Reviewers) (Requested, error) {
	if err := f.has(); err != nil {
		return Requested{}, err
	}
	var bad []Refused
	ok := func(who []string) []string {
		var good []string
		for _, w := range who {
			if loginPattern.MatchString(w) {
				good = append(good, w)
			} else {
				bad = append(bad, Refused{Who: clean(short(w)), Why: "is not a login of " + names[f.Kind]})
			}
		}
		return good
	}
	r = Reviewers{People: ok(r.People), Teams: ok(r.Teams)}
	if len(r.People)+len(r.Teams) == 0 {
		return Requested{Refused: bad}, nil
	}
	got, err := f.driver.request(ctx, number, r)
	got.Refused = append(bad, got.Refused...)
	return got, f.problem("ask for reviews", err)
}

// People lists who may be asked for a review here, at most 500, in two to a few requests.
func (f *Forge) People(ctx context.Context) ([]Person, error) {
	if err := f.has(); err != nil {
		return nil, err
	}
	p, err := f.driver.people(ctx)
	return p, f.problem("list who may review", err)
}

// Identify finds the logins of commits' authors, by e-mail address. Who is not found is not in the map. At most the first 50 are looked for:
// on GitHub that is one request, elsewhere one for each.
func (f *Forge) Identify(ctx context.Context, authors []Author) (map[string]string, error) {
	if err := f.has(); err != nil {
		return nil, err
	}
	var ask []Author
	for _, a := range authors[:min(len(authors), maxAuthors)] {
		if a.Email != "" && len(a.Email) < 300 && (a.Commit == "" || commitPattern.MatchString(a.Commit)) {
			ask = append(ask, a)
		}
	}
	if len(ask) == 0 {
		return map[string]string{}, nil
	}
	m, err := f.driver.identify(ctx, ask)
	return m, f.problem("look for authors", err)
}

// atOnce is how many requests of one kind are under way: forges bound what one token does at a time.
const atOnce = 4

// each asks for the logins of several. The first error ends it.
func each(ctx context.Context, authors []Author, ask func(context.Context, Author) (login string, err error)) (map[string]string, error) {
	logins := make([]string, len(authors))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, a := range authors {
		group.Go(func() (err error) {
			logins[i], err = ask(ctx, a)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i, l := range logins {
		if l != "" {
			out[authors[i].Email] = l
		}
	}
	return out, nil
}

// Members are the people of teams as CODEOWNERS names these (organisation/team, on GitLab a group's path), by their logins. A team that
// is not there, or that the token may not look into, is not in the map. At most ten are looked into.
func (f *Forge) Members(ctx context.Context, teams []string) (map[string][]string, error) {
	if err := f.has(); err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, team := range teams[:min(len(teams), maxTeams)] {
		i := strings.LastIndexByte(team, '/')
		if i < 0 || !pathPattern.MatchString(team) || strings.Contains(team, "..") {
			continue
		}
		m, err := f.driver.members(ctx, team[:i], team[i+1:])
		switch {
		case is(err, http.StatusNotFound, http.StatusForbidden, http.StatusUnauthorized):
		case err != nil:
			return out, f.problem("look into team "+team, err)
		default:
			out[team] = m
		}
	}
	return out, nil
}

// Issue is how an issue is written in a review's text so that the forge links it: #12, or team/shop#12 where it is another repository's.
// Behind "Closes " it is closed by the merge. It is empty where a number means nothing.
func (f *Forge) Issue(repository string, number int) string {
	if f.driver == nil {
		return ""
	}
	if repository == "" || strings.EqualFold(repository, f.Path) {
		repository = ""
	}
	return repository + "#" + strconv.Itoa(number)
}

func (f *Forge) has() error {
	if f.driver != nil {
		return nil
	}
	p := &api.Problem{Code: "forge-none", Message: f.remote.String() + " has no API of a forge that Fairlead knows", Hint: "push the branch, and open its review by hand"}
	if f.Kind == Gerrit {
		p.Message, p.Hint = "Gerrit opens a review by a push", "push to refs/for/BRANCH"
	} else if f.Why != nil {
		p.Message += ": " + f.Why.Message
	}
	return p
}

func (f *Forge) archived() *api.Problem {
	return &api.Problem{Code: "forge-archived", Message: f.Path + " is archived on " + f.client.name + ", so it can only be read", Hint: "have it unarchived there, or push to the repository that replaces it"}
}

var (
	pathPattern   = regexp.MustCompile(`^[-A-Za-z0-9._~]+(/[-A-Za-z0-9._~]+)*$`)
	loginPattern  = regexp.MustCompile(`^[A-Za-z0-9_]([-A-Za-z0-9_./]*[-A-Za-z0-9_])?$`)
	commitPattern = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
)

// checkHead is for names that end in addresses. That git takes them its caller knows.
func checkHead(h Head) *api.Problem {
	bad := func(what, s string) *api.Problem {
		return &api.Problem{Code: "forge-draft", Message: strconv.Quote(short(s)) + " is not a " + what, Hint: "give the branch that was pushed"}
	}
	if !validBranch(h.Branch) {
		return bad("branch", h.Branch)
	}
	if h.Owner != "" && !validPath(h.Owner) || h.Repo != "" && !validPath(h.Repo) {
		return bad("repository", h.Owner+"/"+h.Repo)
	}
	return nil
}

// validPath is for owner/repository, also as a forge says it: what is made of it stays below the API's address.
func validPath(p string) bool {
	for seg := range strings.SplitSeq(p, "/") {
		if seg == "." || seg == ".." {
			return false
		}
	}
	return pathPattern.MatchString(p)
}

func validBranch(b string) bool {
	return b != "" && len(b) <= 250 && utf8.ValidString(b) && !strings.HasPrefix(b, "-") && !strings.Contains(b, "..") && !strings.ContainsFunc(b, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(" ~^:?*[\\", r) })
}

func (f *Forge) check(d Draft) *api.Problem {
	if p := checkHead(d.Head); p != nil {
		return p
	}
	limit := maxBody
	switch f.Kind {
	case GitLab:
		limit = maxBodyLab
	case Gitea:
		limit = maxAnswer / 8
	}
	problem := func(m, h string) *api.Problem { return &api.Problem{Code: "forge-draft", Message: m, Hint: h} }
	switch {
	case !validBranch(d.Base):
		return problem(strconv.Quote(short(d.Base))+" is not a branch", "name the branch that the change is for")
	case strings.TrimSpace(d.Title) == "":
		return problem("the review has no title", "give one")
	case utf8.RuneCountInString(d.Title) > maxTitle-len("Draft: ") || strings.ContainsFunc(d.Title, unicode.IsControl):
		return problem("the review's title is longer than a line", "write what the change does in a few words; the rest belongs into the description")
	case !utf8.ValidString(d.Title+d.Body) || strings.ContainsRune(d.Body, 0):
		return problem("the review's text is no UTF-8", "leave out what is not text")
	case utf8.RuneCountInString(d.Body) > limit:
		return problem(fmt.Sprintf("the review's description has more than %d characters, which %s refuses", limit, names[f.Kind]), "shorten it")
	}
	return nil
}

func short(s string) string {
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// clean is for words from outside, which end in a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// made is a review as the forge answers with it. Its page is shown to people who click on it.
func (f *Forge) made(r Review) (*Review, error) {
	if !isPage(r.URL) || r.Number <= 0 {
		return nil, f.client.answerProblem("a review that has no address")
	}
	return &r, nil
}

func isPage(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}
