package forge

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// giteaAPI speaks the API of Gitea and Forgejo: each server has its description at /api/swagger. A draft is a title that begins with "WIP:".
type giteaAPI struct{ *Forge }

type giteaPull struct {
	Number    int
	HTMLURL   string `json:"html_url"`
	Title     string
	Body      string
	State     string
	Draft     *bool     // older ones do not say
	UpdatedAt time.Time `json:"updated_at"`
	User      struct{ Login string }
	Head      struct {
		Ref, SHA string
		RepoID   int64 `json:"repo_id"`
		Repo     *struct {
			Name  string
			Owner struct{ Login string }
		}
	}
	Base struct {
		Ref    string
		RepoID int64 `json:"repo_id"`
	}
	Reviewers []*struct{ Login string } `json:"requested_reviewers"`
	Teams     []*struct{ Name string }  `json:"requested_reviewers_teams"`
}

const giteaPage = 50 // Gitea's own limit

var giteaDraft = regexp.MustCompile(`(?i)^\s*(\[wip\]|wip:)\s*`) // as it comes; WORK_IN_PROGRESS_PREFIXES can be others

func (g *giteaAPI) review(p giteaPull) Review {
	r := Review{Number: p.Number, URL: p.HTMLURL, Title: giteaDraft.ReplaceAllString(p.Title, ""), Body: p.Body, Open: p.State == "open", Head: Head{Branch: p.Head.Ref}, Base: p.Base.Ref, Commit: p.Head.SHA, Author: p.User.Login, Updated: p.UpdatedAt}
	r.Draft = giteaDraft.MatchString(p.Title)
	if p.Draft != nil {
		r.Draft = *p.Draft
	}
	if r.sourceOther = p.Head.RepoID != p.Base.RepoID; r.sourceOther {
		r.Head.Owner = "unknown" // its fork is gone
		if p.Head.Repo != nil {
			r.Head.Owner, r.Head.Repo = p.Head.Repo.Owner.Login, p.Head.Repo.Name
		}
	}
	for _, u := range p.Reviewers {
		if u != nil {
			r.Reviewers = append(r.Reviewers, u.Login)
		}
	}
	for _, t := range p.Teams {
		if t != nil {
			r.Reviewers = append(r.Reviewers, t.Name)
		}
	}
	return r
}

func (g *giteaAPI) at(ctx context.Context) (string, error) {
	p, err := g.path(ctx)
	return "/repos/" + p, err // checked by validPath
}

func (g *giteaAPI) repository(ctx context.Context) (*Repository, error) {
	type repo struct {
		FullName    string `json:"full_name"`
		HTMLURL     string `json:"html_url"`
		Default     string `json:"default_branch"`
		CloneURL    string `json:"clone_url"`
		SSHURL      string `json:"ssh_url"`
		Archived    bool
		Permissions struct{ Push bool }
	}
	var v struct {
		repo
		Parent *repo
	}
	if _, err := g.client.get(ctx, "/repos/"+g.Path, nil, &v); err != nil {
		return nil, err
	}
	r := &Repository{Path: v.FullName, URL: v.HTMLURL, Default: v.Default, CanPush: v.Permissions.Push, Archived: v.Archived}
	if p := v.Parent; p != nil {
		r.Parent = &Parent{Path: p.FullName, Default: p.Default, CloneURL: p.CloneURL, SSHURL: p.SSHURL}
	}
	return r, nil
}

// list goes through all that are open: there is no filter by branch, and what is asked by base and head is any of them, the oldest closed one
// for instance.
func (g *giteaAPI) list(ctx context.Context, head Head, base string, open bool) ([]Review, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	q, pages := url.Values{"state": {"closed"}, "sort": {"recentupdate"}, "limit": {strconv.Itoa(giteaPage)}}, 1
	if open {
		q.Set("state", "open")
		pages = maxPages
	}
	if base != "" {
		q.Set("base_branch", base) // older ones do not know it
	}
	var out []Review
	err = g.client.pages(ctx, at+"/pulls", q, pages, func(a *answer) (bool, error) {
		var list []giteaPull
		if err := g.client.decode(a, &list); err != nil {
			return false, err
		}
		for _, p := range list {
			r := g.review(p)
			if r.Head.Branch == head.Branch && strings.EqualFold(r.Head.Owner, head.Owner) && (head.Repo == "" || strings.EqualFold(r.Head.Repo, head.Repo)) && (base == "" || r.Base == base) {
				out = append(out, r)
			}
		}
		return open && len(out) > 0, nil
	})
	return out, err
}

func (g *giteaAPI) create(ctx context.Context, d Draft) (*Review, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	head := d.Head.Branch
	if !d.Head.own() {
		head = d.Head.Owner + ":" + head
		if d.Head.Repo != "" {
			head = d.Head.Owner + "/" + d.Head.Repo + ":" + d.Head.Branch
		}
	}
	var p giteaPull
	if _, err := g.client.send(ctx, http.MethodPost, g.client.base+at+"/pulls", map[string]string{"title": "WIP: " + d.Title, "body": d.Body, "head": head, "base": d.Base}, &p); err != nil {
		return nil, err
	}
	return g.made(g.review(p))
}

func (g *giteaAPI) update(ctx context.Context, number int, c Change) (*Review, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	at += "/pulls/" + strconv.Itoa(number)
	var p giteaPull
	if _, err := g.client.get(ctx, at, nil, &p); err != nil {
		return nil, err
	}
	send := map[string]string{}
	if c.Title != nil {
		// A title without it would publish the review. Whatever makes this one a draft is kept.
		send["title"] = giteaDraft.FindString(p.Title) + *c.Title
	}
	if c.Body != nil {
		send["body"] = *c.Body
	}
	if len(send) > 0 {
		if _, err := g.client.send(ctx, http.MethodPatch, g.client.base+at, send, &p); err != nil {
			return nil, err
		}
	}
	return g.made(g.review(p))
}

func (g *giteaAPI) request(ctx context.Context, number int, r Reviewers) (Requested, error) {
	at, err := g.at(ctx)
	if err != nil {
		return Requested{}, err
	}
	at += "/pulls/" + strconv.Itoa(number)
	return oneByOne(r, func(r Reviewers) ([]string, error) {
		send := map[string][]string{}
		if len(r.People) > 0 {
			send["reviewers"] = r.People
		}
		for _, t := range r.Teams {
			send["team_reviewers"] = append(send["team_reviewers"], t[strings.LastIndex(t, "/")+1:])
		}
		if _, err := g.client.send(ctx, http.MethodPost, g.client.base+at+"/requested_reviewers", send, nil); err != nil {
			return nil, err
		}
		// It answers with the requests that are new; who is asked now the review says.
		var p giteaPull
		if _, err := g.client.get(ctx, at, nil, &p); err != nil {
			return nil, err
		}
		return g.review(p).Reviewers, nil
	})
}

type giteaUser struct {
	Login string
	Name  string `json:"full_name"`
	Email string
}

func (g *giteaAPI) people(ctx context.Context) ([]Person, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	var open []giteaPull
	if _, err := g.client.get(ctx, at+"/pulls", url.Values{"state": {"open"}, "sort": {"recentupdate"}, "limit": {strconv.Itoa(giteaPage)}}, &open); err != nil {
		return nil, err
	}
	waiting := map[string]int{}
	for _, p := range open {
		for _, u := range g.review(p).Reviewers {
			waiting[u]++
		}
	}
	var list []giteaUser
	if _, err := g.client.get(ctx, at+"/reviewers", nil, &list); err != nil {
		return nil, err
	}
	var out []Person
	for _, u := range list[:min(len(list), maxPeople)] {
		out = append(out, Person{Login: u.Login, Name: u.Name, Email: visible(u.Email), Waiting: waiting[u.Login]})
	}
	return out, nil
}

// visible is an address that is one: Gitea answers with login@noreply.HOST where the user hides theirs.
func visible(email string) string {
	if _, domain, _ := strings.Cut(email, "@"); domain == "" || strings.HasPrefix(domain, "noreply.") {
		return ""
	}
	return email
}

// identify asks for the commits, whose author's account Gitea has found by any of its addresses.
func (g *giteaAPI) identify(ctx context.Context, authors []Author) (map[string]string, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	q := url.Values{"stat": {"false"}, "verification": {"false"}, "files": {"false"}}
	return each(ctx, authors, func(ctx context.Context, a Author) (string, error) {
		if a.Commit == "" {
			return "", nil
		}
		var c struct{ Author *giteaUser }
		_, err := g.client.get(ctx, at+"/git/commits/"+a.Commit, q, &c)
		if is(err, http.StatusNotFound, http.StatusUnprocessableEntity) { // it is not pushed
			return "", nil
		}
		if err != nil || c.Author == nil {
			return "", err
		}
		return c.Author.Login, nil
	})
}

// members looks for the team in the organisation's list, since its members are asked for by number. The search for teams knows only those
// that the token's owner is in.
func (g *giteaAPI) members(ctx context.Context, organisation, team string) ([]string, error) {
	id := 0
	err := g.client.pages(ctx, "/orgs/"+organisation+"/teams", url.Values{"limit": {strconv.Itoa(giteaPage)}}, maxMembers/giteaPage, func(a *answer) (bool, error) {
		var list []struct {
			ID   int
			Name string
		}
		if err := g.client.decode(a, &list); err != nil {
			return false, err
		}
		for _, t := range list {
			if strings.EqualFold(t.Name, team) {
				id = t.ID
			}
		}
		return id != 0, nil
	})
	if err == nil && id == 0 {
		err = &refusal{status: http.StatusNotFound}
	}
	if err != nil {
		return nil, err
	}
	return logins(ctx, g.client, "/teams/"+strconv.Itoa(id)+"/members", "limit")
}
