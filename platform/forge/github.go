package forge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// githubAPI speaks REST as of 2022-11-28 (docs.github.com/rest/pulls/pulls, /rest/pulls/review-requests, /rest/repos/repos), and GraphQL where one
// request replaces many.
type githubAPI struct{ *Forge }

type githubPull struct {
	Number    int
	HTMLURL   string `json:"html_url"`
	Title     string
	Body      string
	State     string
	Draft     bool
	UpdatedAt time.Time `json:"updated_at"`
	User      struct{ Login string }
	Head      struct {
		Ref, SHA string
		Repo     *struct {
			Name  string
			Owner struct{ Login string }
		}
	}
	Base struct {
		Ref  string
		Repo struct {
			Name  string
			Owner struct{ Login string }
		}
	}
	Reviewers []struct{ Login string } `json:"requested_reviewers"`
	Teams     []struct{ Slug string }  `json:"requested_teams"`
}

func (g *githubAPI) review(p githubPull) Review {
	r := Review{Number: p.Number, URL: p.HTMLURL, Title: p.Title, Body: p.Body, Draft: p.Draft, Open: p.State == "open", Head: Head{Branch: p.Head.Ref}, Base: p.Base.Ref, Commit: p.Head.SHA, Author: p.User.Login, Updated: p.UpdatedAt}
	if h := p.Head.Repo; h == nil { // its fork is gone
		r.Head.Owner = "unknown"
	} else if !strings.EqualFold(h.Owner.Login+"/"+h.Name, p.Base.Repo.Owner.Login+"/"+p.Base.Repo.Name) {
		r.Head.Owner, r.Head.Repo = h.Owner.Login, h.Name
	}
	for _, u := range p.Reviewers {
		r.Reviewers = append(r.Reviewers, u.Login)
	}
	for _, t := range p.Teams {
		r.Reviewers = append(r.Reviewers, t.Slug)
	}
	return r
}

func (g *githubAPI) at(ctx context.Context) (string, error) {
	p, err := g.path(ctx)
	return "/repos/" + p, err // checked by validPath
}

func (g *githubAPI) repository(ctx context.Context) (*Repository, error) {
	var v struct {
		FullName string `json:"full_name"`
		HTMLURL  string `json:"html_url"`
		Default  string `json:"default_branch"`
		Archived bool
		Parent   *struct {
			FullName string `json:"full_name"`
			Default  string `json:"default_branch"`
			CloneURL string `json:"clone_url"`
			SSHURL   string `json:"ssh_url"`
		}
		Permissions struct{ Push bool }
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

func (g *githubAPI) list(ctx context.Context, head Head, base string, open bool) ([]Review, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	owner := head.Owner
	if owner == "" {
		owner, _, _ = strings.Cut(strings.TrimPrefix(at, "/repos/"), "/")
	}
	q := url.Values{"state": {"closed"}, "head": {owner + ":" + head.Branch}, "sort": {"updated"}, "direction": {"desc"}, "per_page": {"100"}}
	if open {
		q.Set("state", "open")
	}
	if base != "" {
		q.Set("base", base)
	}
	var list []githubPull
	if _, err := g.client.get(ctx, at+"/pulls", q, &list); err != nil {
		return nil, err
	}
	var out []Review
	for _, p := range list {
		// head is a filter of the owner's branches, in whichever fork.
		if r := g.review(p); r.Head.Branch == head.Branch && strings.EqualFold(r.Head.Owner, head.Owner) && (head.Repo == "" || strings.EqualFold(r.Head.Repo, head.Repo)) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (g *githubAPI) create(ctx context.Context, d Draft) (*Review, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	send := map[string]any{"title": d.Title, "body": d.Body, "base": d.Base, "head": d.Head.Branch, "draft": true}
	if !d.Head.own() {
		send["head"] = d.Head.Owner + ":" + d.Head.Branch
		if d.Head.Repo != "" { // needed where both have one owner
			send["head_repo"] = d.Head.Repo
		}
	}
	var p githubPull
	if _, err := g.client.send(ctx, http.MethodPost, g.client.base+at+"/pulls", send, &p); err != nil {
		return nil, err
	}
	return g.made(g.review(p))
}

func (g *githubAPI) update(ctx context.Context, number int, c Change) (*Review, error) {
	at, err := g.at(ctx)
	if err != nil {
		return nil, err
	}
	send := map[string]string{}
	if c.Title != nil {
		send["title"] = *c.Title
	}
	if c.Body != nil {
		send["body"] = *c.Body
	}
	var p githubPull
	if _, err := g.client.send(ctx, http.MethodPatch, g.client.base+at+"/pulls/"+strconv.Itoa(number), send, &p); err != nil {
		return nil, err
	}
	return g.made(g.review(p))
}

func (g *githubAPI) request(ctx context.Context, number int, r Reviewers) (Requested, error) {
	at, err := g.at(ctx)
	if err != nil {
		return Requested{}, err
	}
	address := g.client.base + at + "/pulls/" + strconv.Itoa(number) + "/requested_reviewers"
	return oneByOne(r, func(r Reviewers) ([]string, error) {
		send := map[string][]string{}
		if len(r.People) > 0 {
			send["reviewers"] = r.People
		}
		for _, t := range r.Teams { // a slug; code owners' files write it as @organisation/slug
			send["team_reviewers"] = append(send["team_reviewers"], t[strings.LastIndex(t, "/")+1:])
		}
		var p githubPull
		if _, err := g.client.send(ctx, http.MethodPost, address, send, &p); err != nil {
			return nil, err
		}
		return g.review(p).Reviewers, nil
	})
}

// oneByOne asks for all reviewers at once, and for each alone where that is refused, since one who may not be asked takes the others with
// him.
func oneByOne(r Reviewers, ask func(Reviewers) (now []string, err error)) (Requested, error) {
	all := len(r.People) + len(r.Teams)
	now, err := ask(r)
	if err == nil {
		var got Requested
		for _, who := range slices.Concat(r.People, r.Teams) {
			name := who[strings.LastIndex(who, "/")+1:]
			if slices.ContainsFunc(now, func(n string) bool { return strings.EqualFold(n, who) || strings.EqualFold(n, name) }) {
				got.Taken = append(got.Taken, who)
			} else {
				got.Refused = append(got.Refused, Refused{Who: who, Why: "the forge took the request, and does not list them as a reviewer"})
			}
		}
		return got, nil
	}
	if !is(err, http.StatusUnprocessableEntity, http.StatusNotFound, http.StatusBadRequest) {
		return Requested{}, err
	}
	if all == 1 {
		return Requested{Refused: []Refused{{Who: slices.Concat(r.People, r.Teams)[0], Why: why(err)}}}, nil
	}
	var got Requested
	each := func(one Reviewers) error {
		res, err := oneByOne(one, ask)
		got.Taken, got.Refused = append(got.Taken, res.Taken...), append(got.Refused, res.Refused...)
		return err
	}
	for _, p := range r.People {
		if err := each(Reviewers{People: []string{p}}); err != nil {
			return got, err
		}
	}
	for _, t := range r.Teams {
		if err := each(Reviewers{Teams: []string{t}}); err != nil {
			return got, err
		}
	}
	return got, nil
}

// why is a refusal in a few words.
func why(err error) string {
	switch {
	case says(err, "author"):
		return "wrote it"
	case says(err, "not a collaborator", "may only be requested from collaborators", "read permission", "can't read", "can't be", "cannot be"):
		return "has no access to the repository"
	case is(err, http.StatusNotFound), says(err, "not exist", "could not resolve", "not found"):
		return "is not on this forge, or cannot be asked in this repository"
	}
	return err.Error()
}

// query asks GraphQL (docs.github.com/graphql), which says 200 to what it refuses.
func (g *githubAPI) query(ctx context.Context, query string, variables map[string]any, v any) error {
	var a struct {
		Data   json.RawMessage
		Errors []struct{ Type, Message string }
	}
	if _, err := g.client.send(ctx, http.MethodPost, g.client.graph, map[string]any{"query": query, "variables": variables}, &a); err != nil {
		return err
	}
	if len(a.Errors) > 0 && !g.answered(a.Data) {
		e := a.Errors[0]
		status := map[string]int{"NOT_FOUND": http.StatusNotFound, "FORBIDDEN": http.StatusForbidden, "INSUFFICIENT_SCOPES": http.StatusForbidden}[e.Type]
		if e.Type == "RATE_LIMITED" {
			return g.client.limit(time.Minute)
		}
		if status == 0 {
			status = http.StatusUnprocessableEntity
		}
		return &refusal{status: status, message: clean(short(e.Message)), header: http.Header{}}
	}
	if err := json.Unmarshal(a.Data, v); err != nil {
		return g.client.answerProblem(err.Error())
	}
	return nil
}

func (g *githubAPI) owned(ctx context.Context) (map[string]any, error) {
	p, err := g.path(ctx)
	owner, name, _ := strings.Cut(p, "/")
	return map[string]any{"owner": owner, "name": name}, err
}

// people leaves e-mail addresses out: GraphQL refuses the whole query to a token without user:email, and gh's has none.
func (g *githubAPI) people(ctx context.Context) ([]Person, error) {
	vars, err := g.owned(ctx)
	if err != nil {
		return nil, err
	}
	const query = `query($owner:String!,$name:String!,$after:String){repository(owner:$owner,name:$name){` +
		`assignableUsers(first:100,after:$after){nodes{login name} pageInfo{hasNextPage endCursor}} ` +
		`pullRequests(states:OPEN,first:100,orderBy:{field:UPDATED_AT,direction:DESC}){nodes{reviewRequests(first:20){nodes{requestedReviewer{... on User{login}}}}}}}}`
	var out []Person
	waiting := map[string]int{}
	for len(out) < maxPeople {
		var v struct {
			Repository struct {
				Users struct {
					Nodes    []struct{ Login, Name string }
					PageInfo struct {
						HasNextPage bool
						EndCursor   string
					}
				} `json:"assignableUsers"`
				Pulls struct {
					Nodes []struct {
						Requests struct {
							Nodes []struct {
								Reviewer struct{ Login string } `json:"requestedReviewer"`
							}
						} `json:"reviewRequests"`
					}
				} `json:"pullRequests"`
			}
		}
		if err := g.query(ctx, query, vars, &v); err != nil {
			return nil, err
		}
		if len(out) == 0 {
			for _, p := range v.Repository.Pulls.Nodes {
				for _, r := range p.Requests.Nodes {
					waiting[r.Reviewer.Login]++
				}
			}
		}
		for _, u := range v.Repository.Users.Nodes {
			out = append(out, Person{Login: u.Login, Name: u.Name, Waiting: waiting[u.Login]})
		}
		page := v.Repository.Users.PageInfo
		if !page.HasNextPage || page.EndCursor == "" {
			break
		}
		vars["after"] = page.EndCursor
	}
	return out[:min(len(out), maxPeople)], nil
}

// identify asks for commits: their author's account is what GitHub has found by any of the account's addresses, also private ones.
func (g *githubAPI) identify(ctx context.Context, authors []Author) (map[string]string, error) {
	vars, err := g.owned(ctx)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("query($owner:String!,$name:String!){repository(owner:$owner,name:$name){")
	n := 0
	for i, a := range authors {
		if a.Commit != "" {
			fmt.Fprintf(&b, "a%d:object(oid:%q){... on Commit{author{user{login}}}} ", i, a.Commit)
			n++
		}
	}
	b.WriteString("}}")
	out := map[string]string{}
	if n == 0 {
		return out, nil
	}
	var v struct {
		Repository map[string]*struct {
			Author struct{ User *struct{ Login string } }
		}
	}
	if err := g.query(ctx, b.String(), vars, &v); err != nil {
		return nil, err
	}
	for i, a := range authors {
		if o := v.Repository["a"+strconv.Itoa(i)]; o != nil && o.Author.User != nil && o.Author.User.Login != "" {
			out[a.Email] = o.Author.User.Login
		}
	}
	return out, nil
}

// answered says whether there is a repository in what GraphQL answered beside its errors: a commit that it does not know is an error too.
func (g *githubAPI) answered(data json.RawMessage) bool {
	var v struct{ Repository json.RawMessage }
	return json.Unmarshal(data, &v) == nil && len(v.Repository) > 0 && string(v.Repository) != "null"
}

// members needs the token's right to read the organisation (docs.github.com/rest/teams/members).
func (g *githubAPI) members(ctx context.Context, organisation, team string) ([]string, error) {
	return logins(ctx, g.client, "/orgs/"+organisation+"/teams/"+team+"/members", "per_page")
}

// logins reads the pages of a list of users.
func logins(ctx context.Context, c *client, path, size string) ([]string, error) {
	var out []string
	err := c.pages(ctx, path, url.Values{size: {"100"}}, maxMembers/100, func(a *answer) (bool, error) {
		var list []struct{ Login string }
		if err := c.decode(a, &list); err != nil {
			return false, err
		}
		for _, u := range list {
			out = append(out, u.Login)
		}
		return false, nil
	})
	return out, err
}
