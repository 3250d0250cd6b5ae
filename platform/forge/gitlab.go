package forge

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// gitlabAPI speaks REST v4: docs.gitlab.com/api/merge_requests, /api/projects, /api/project_members, /api/users. A draft is a title that begins with
// "Draft: " (docs.gitlab.com/user/project/merge_requests/drafts).
type gitlabAPI struct{ *Forge }

type gitlabUser struct {
	ID       int
	Username string
	Name     string
	State    string
	Email    string // of a member; the API says it to few
	Public   string `json:"public_email"`
}

type gitlabMerge struct {
	IID       int
	WebURL    string `json:"web_url"`
	Title     string
	Text      string `json:"description"`
	State     string
	Draft     bool
	SHA       string
	UpdatedAt time.Time `json:"updated_at"`
	Source    string    `json:"source_branch"`
	Target    string    `json:"target_branch"`
	SourceID  int       `json:"source_project_id"`
	TargetID  int       `json:"target_project_id"`
	Author    gitlabUser
	Reviewers []gitlabUser
}

var gitlabDraft = regexp.MustCompile(`(?i)^\s*(\[draft\]|\(draft\)|draft:)\s*`)

func (g *gitlabAPI) review(m gitlabMerge) Review {
	r := Review{Number: m.IID, URL: m.WebURL, Title: gitlabDraft.ReplaceAllString(m.Title, ""), Body: m.Text, Draft: m.Draft, Open: m.State == "opened", Head: Head{Branch: m.Source}, Base: m.Target, Commit: m.SHA, Author: m.Author.Username, Updated: m.UpdatedAt, sourceOther: m.SourceID != m.TargetID}
	for _, u := range m.Reviewers {
		r.Reviewers = append(r.Reviewers, u.Username)
	}
	return r
}

// project is a project in an address: its path, whole and escaped.
func project(path string) string { return "/projects/" + url.PathEscape(path) }

func (g *gitlabAPI) at(ctx context.Context) (string, error) {
	p, err := g.path(ctx)
	return project(p), err
}

type gitlabProject struct {
	ID          int
	Path        string `json:"path_with_namespace"`
	WebURL      string `json:"web_url"`
	Default     string `json:"default_branch"`
	Archived    bool
	CloneURL    string         `json:"http_url_to_repo"`
	SSHURL      string         `json:"ssh_url_to_repo"`
	Parent      *gitlabProject `json:"forked_from_project"`
	Permissions struct {
		Project *struct {
			Level int `json:"access_level"`
		} `json:"project_access"`
		Group *struct {
			Level int `json:"access_level"`
		} `json:"group_access"`
	}
}

const gitlabDeveloper = 30 // docs.gitlab.com/api/access_requests: the roles

func (g *gitlabAPI) repository(ctx context.Context) (*Repository, error) {
	var v gitlabProject
	if _, err := g.client.get(ctx, project(g.Path), nil, &v); err != nil {
		return nil, err
	}
	r := &Repository{Path: v.Path, URL: v.WebURL, Default: v.Default, Archived: v.Archived}
	if p := v.Permissions.Project; p != nil && p.Level >= gitlabDeveloper {
		r.CanPush = true
	}
	if p := v.Permissions.Group; p != nil && p.Level >= gitlabDeveloper {
		r.CanPush = true
	}
	if p := v.Parent; p != nil {
		r.Parent = &Parent{Path: p.Path, Default: p.Default, CloneURL: p.CloneURL, SSHURL: p.SSHURL}
	}
	return r, nil
}

// id is a project's number, which forks are told apart by.
func (g *gitlabAPI) id(ctx context.Context, path string) (int, error) {
	var v gitlabProject
	_, err := g.client.get(ctx, project(path), nil, &v)
	return v.ID, err
}

func (h Head) path() string { return h.Owner + "/" + h.Repo }

func (g *gitlabAPI) list(ctx context.Context, head Head, base string, open bool) ([]Review, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	source := 0
	if !head.own() {
		if source, err = g.id(ctx, head.path()); err != nil {
			return nil, err
		}
	}
	q := url.Values{"state": {"all"}, "source_branch": {head.Branch}, "order_by": {"updated_at"}, "sort": {"desc"}, "per_page": {"100"}}
	if open {
		q.Set("state", "opened")
	}
	if base != "" {
		q.Set("target_branch", base)
	}
	var list []gitlabMerge
	if _, err := g.client.get(ctx, at+"/merge_requests", q, &list); err != nil {
		return nil, err
	}
	var out []Review
	for _, m := range list {
		r := g.review(m)
		if r.sourceOther {
			r.Head.Owner, r.Head.Repo = head.Owner, head.Repo
		}
		if r.Open == open && m.Source == head.Branch && (head.own() && !r.sourceOther || !head.own() && m.SourceID == source) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (g *gitlabAPI) create(ctx context.Context, d Draft) (*Review, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	send := map[string]any{"title": "Draft: " + d.Title, "description": d.Body, "source_branch": d.Head.Branch, "target_branch": d.Base}
	if !d.Head.own() { // asked of the fork, for the target
		path, err := g.path(ctx)
		if err != nil {
			return nil, err
		}
		target, err := g.id(ctx, path)
		if err != nil {
			return nil, err
		}
		at, send["target_project_id"] = project(d.Head.path()), target
	}
	var m gitlabMerge
	if _, err := g.client.send(ctx, http.MethodPost, g.client.base+at+"/merge_requests", send, &m); err != nil {
		return nil, err
	}
	r := g.review(m)
	r.Head = d.Head
	return g.made(r)
}

func (g *gitlabAPI) merge(ctx context.Context, number int) (address string, m gitlabMerge, err error) {
	at, err := g.at(ctx)
	if err != nil {
		return "", m, err
	}
	at += "/merge_requests/" + strconv.Itoa(number)
	_, err = g.client.get(ctx, at, nil, &m)
	return g.client.base + at, m, err
}

func (g *gitlabAPI) update(ctx context.Context, number int, c Change) (*Review, error) {
	address, was, err := g.merge(ctx, number)
	if err != nil {
		return nil, err
	}
	send := map[string]string{}
	if c.Title != nil {
		send["title"] = *c.Title
		if was.Draft { // a title without it would publish the review
			send["title"] = "Draft: " + *c.Title
		}
	}
	if c.Body != nil {
		send["description"] = *c.Body
	}
	m := was
	if len(send) > 0 {
		if _, err := g.client.send(ctx, http.MethodPut, address, send, &m); err != nil {
			return nil, err
		}
	}
	return g.made(g.review(m))
}

// request sets the reviewers anew, since that is all there is: those who are asked already stay. They are set by ID.
func (g *gitlabAPI) request(ctx context.Context, number int, r Reviewers) (Requested, error) {
	var got Requested
	for _, t := range r.Teams {
		got.Refused = append(got.Refused, Refused{Who: t, Why: "is a group, and GitLab asks people only"})
	}
	address, was, err := g.merge(ctx, number)
	if err != nil {
		return got, err
	}
	var ids []int
	for _, u := range was.Reviewers {
		ids = append(ids, u.ID)
	}
	var asked []string
	for _, p := range r.People {
		var found []gitlabUser
		if _, err := g.client.get(ctx, "/users", url.Values{"username": {p}}, &found); err != nil {
			return got, err
		}
		switch {
		case len(found) == 0:
			got.Refused = append(got.Refused, Refused{Who: p, Why: "is not on this forge"})
		case found[0].State != "active":
			got.Refused = append(got.Refused, Refused{Who: p, Why: "is " + clean(short(found[0].State)) + " on this forge"})
		default:
			if !slices.Contains(ids, found[0].ID) {
				ids = append(ids, found[0].ID)
			}
			asked = append(asked, p)
		}
	}
	if len(asked) == 0 {
		return got, nil
	}
	var m gitlabMerge
	if _, err := g.client.send(ctx, http.MethodPut, address, map[string]any{"reviewer_ids": ids}, &m); err != nil {
		return got, err
	}
	now := g.review(m).Reviewers
	for _, p := range asked {
		if slices.ContainsFunc(now, func(n string) bool { return strings.EqualFold(n, p) }) {
			got.Taken = append(got.Taken, p)
			continue
		}
		why := "has no access to the project"
		if len(ids) > 1 && len(now) == 1 {
			why = "was left out: this GitLab's plan has one reviewer a merge request" // docs.gitlab.com/user/project/merge_requests/reviews
		}
		got.Refused = append(got.Refused, Refused{Who: p, Why: why})
	}
	return got, nil
}

func (g *gitlabAPI) people(ctx context.Context) ([]Person, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	var open []gitlabMerge
	if _, err := g.client.get(ctx, at+"/merge_requests", url.Values{"state": {"opened"}, "order_by": {"updated_at"}, "sort": {"desc"}, "per_page": {"100"}}, &open); err != nil {
		return nil, err
	}
	waiting := map[string]int{}
	for _, m := range open {
		for _, u := range m.Reviewers {
			waiting[u.Username]++
		}
	}
	var out []Person
	err = g.client.pages(ctx, at+"/members/all", url.Values{"per_page": {"100"}}, maxPeople/100, func(a *answer) (bool, error) {
		var list []gitlabUser
		if err := g.client.decode(a, &list); err != nil {
			return false, err
		}
		for _, u := range list {
			if u.State == "active" && !slices.ContainsFunc(out, func(p Person) bool { return p.Login == u.Username }) { // inherited twice
				out = append(out, Person{Login: u.Username, Name: u.Name, Email: cmp.Or(u.Email, u.Public), Waiting: waiting[u.Username]})
			}
		}
		return false, nil
	})
	return out, err
}

// identify searches by address, which finds public ones, and for an administrator all. GitLab's commits do not name an account.
func (g *gitlabAPI) identify(ctx context.Context, authors []Author) (map[string]string, error) {
	return each(ctx, authors, func(ctx context.Context, a Author) (string, error) {
		// username+ID is in the private address that GitLab gives to commits: 12-mira@users.noreply.gitlab.com.
		if local, domain, _ := strings.Cut(a.Email, "@"); strings.HasPrefix(domain, "users.noreply.") {
			if _, name, ok := strings.Cut(local, "-"); ok && loginPattern.MatchString(name) {
				return name, nil
			}
		}
		var found []gitlabUser
		if _, err := g.client.get(ctx, "/users", url.Values{"search": {a.Email}}, &found); err != nil || len(found) != 1 { // several are a guess
			return "", err
		}
		return found[0].Username, nil
	})
}

// members are a group's, those of the groups above it included (docs.gitlab.com/api/group_members).
func (g *gitlabAPI) members(ctx context.Context, organisation, team string) ([]string, error) {
	var out []string
	err := g.client.pages(ctx, "/groups/"+url.PathEscape(organisation+"/"+team)+"/members/all", url.Values{"per_page": {"100"}}, maxMembers/100, func(a *answer) (bool, error) {
		var list []gitlabUser
		if err := g.client.decode(a, &list); err != nil {
			return false, err
		}
		for _, u := range list {
			if u.State == "active" {
				out = append(out, u.Username)
			}
		}
		return false, nil
	})
	return out, err
}
