//go:build unix

package review

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/test/gitea"
)

// pull is what Gitea says of a pull request.
type pull struct {
	Number int
	Title  string
	Body   string
	Draft  bool
	State  string
	Head   struct{ Ref, Sha string }
	Base   struct{ Ref string }
	Asked  []struct{ Login string } `json:"requested_reviewers"`
}

// The button on a real Gitea: a draft with template, ticket and environment, the reviewers who were ticked; pressed again, the same one,
// with its author's own words left alone; from a fork, for what was forked.
func TestGitea(t *testing.T) {
	g := gitea.Start(t)
	r := newRepo(t)
	tokens := map[string]string{}
	for _, name := range []string{"mira", "jo", "bo"} {
		tokens[name] = g.User(t, name)
	}
	web := g.Repo(t, "mira", "shop")
	g.API(t, tokens["mira"], http.MethodPut, "/repos/mira/shop/collaborators/jo", map[string]string{"permission": "write"}, nil)
	g.API(t, tokens["mira"], http.MethodPut, "/repos/mira/shop/collaborators/bo", map[string]string{"permission": "read"}, nil)
	var me struct{ Email string }
	g.API(t, tokens["jo"], http.MethodGet, "/user", nil, &me)

	host := strings.TrimPrefix(g.URL, "http://")
	as := func(name string) {
		r.file(r.home+"/credentials", "http://"+name+":"+tokens[name]+"@"+host+"\n")
		r.git("config", "--global", "credential.helper", "store --file="+r.home+"/credentials")
	}
	as("mira")
	r.git("remote", "set-url", "origin", web)
	by := func(name, email, path, text, subject string) {
		r.file(path, text)
		r.git("add", "-A")
		r.git("-c", "user.name="+name, "-c", "user.email="+email, "commit", "-qm", subject)
	}
	by("Jo Doe", me.Email, "total.go", "package shop\n\n// Total is what a cart costs.\nfunc Total(n int) int {\n\treturn n * 2\n}\n", "shop: double")
	by("Jo Doe", me.Email, "docs/a.md", "a\n", "docs: a")
	by("Somebody Else", "else@acme.dev", "other.go", "package shop\n", "shop: other")
	r.file(".gitea/PULL_REQUEST_TEMPLATE/docs.md", "## Docs\n")
	r.file("CODEOWNERS", "total.go @bo\n")
	r.git("add", "-A")
	r.git("commit", "-qm", "templates")
	r.git("push", "-q", "origin", "main")
	g.Filled(t, "mira/shop")
	var issue struct{ Number int }
	g.API(t, tokens["mira"], http.MethodPost, "/repos/mira/shop/issues", map[string]string{"title": "The total is wrong"}, &issue)

	o := r.options()
	o.Memory = &Memory{}
	defer o.Memory.Close()
	asked := 0
	o.Environment = func(context.Context) *Environment {
		asked++
		return &Environment{Name: "orders-mira", Text: "`fairlead join shop/orders-mira`", Tested: fmt.Sprintf("Run as orders-mira, %d.", asked)}
	}
	r.file("total.go", "package shop\n\n// Total is what a cart costs.\nfunc Total(n int) int {\n\treturn n * 3\n}\n")
	o.Ticket = fmt.Sprintf("#%d", issue.Number)
	p, err := Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if p.Forge != "Gitea (mira/shop)" || !p.New || !strings.HasPrefix(p.Branch, fmt.Sprint(issue.Number)+"-") || p.Existing != nil || len(p.Notes) > 0 {
		t.Errorf("%+v", p)
	}
	var who []string
	for _, q := range p.Reviewers {
		who = append(who, q.Login)
	}
	if len(p.Reviewers) < 2 || p.Reviewers[0].Login != "bo" || !p.Reviewers[0].Required || p.Reviewers[1].Login != "jo" || !strings.Contains(p.Reviewers[1].Why, "total.go") || slices.Contains(who, "mira") {
		t.Errorf("reviewers: %+v", p.Reviewers)
	}
	res, err := Create(t.Context(), o, api.ReviewRequest{State: p.State, Files: []string{"total.go"}, Message: "shop: three times", Reviewers: []string{"jo", "nobody-at-all"}})
	if err != nil {
		t.Fatal(err)
	}
	get := func() (got pull) {
		t.Helper()
		g.API(t, tokens["mira"], http.MethodGet, fmt.Sprintf("/repos/mira/shop/pulls/%d", res.Number), nil, &got)
		return got
	}
	got := get()
	if !res.Made || !got.Draft || got.Title != "WIP: shop: three times" || got.Head.Ref != fmt.Sprint(issue.Number)+"-shop-three-times" || got.Head.Sha != res.Commit || got.Base.Ref != "main" || !slices.Equal(res.Asked, []string{"jo"}) ||
		len(got.Asked) != 1 || got.Asked[0].Login != "jo" || len(res.Notes) != 1 || !strings.Contains(res.Notes[0], "nobody-at-all was not asked") {
		t.Errorf("%+v\n%+v", res, got)
	}
	for _, want := range []string{"## What\n\n<!-- fairlead:summary", "- shop: three times", "## Testing\n\n<!-- fairlead:tests", "Run as orders-mira", fmt.Sprintf("Refs #%d", issue.Number), "`fairlead join shop/orders-mira`"} {
		if !strings.Contains(got.Body, want) {
			t.Errorf("the text lacks %q:\n%s", want, got.Body)
		}
	}
	// The issue knows of it: what forges link is linked.
	var timeline []struct{ Type string }
	g.API(t, tokens["mira"], http.MethodGet, fmt.Sprintf("/repos/mira/shop/issues/%d/timeline", issue.Number), nil, &timeline)
	if !slices.ContainsFunc(timeline, func(e struct{ Type string }) bool { return e.Type == "pull_ref" }) {
		t.Errorf("the issue's timeline: %+v", timeline)
	}

	// Its author writes; then more is committed and the button pressed again.
	body := strings.Replace(got.Body, "Run as orders-mira", "By hand, too. Run as orders-mira", 1) + "\nMy own words.\n"
	g.API(t, tokens["mira"], http.MethodPatch, fmt.Sprintf("/repos/mira/shop/pulls/%d", res.Number), map[string]string{"title": "WIP: A better title", "body": body}, nil)
	by("Mira", "mira@acme.dev", "more.go", "package shop\n", "shop: more")
	o.Ticket = ""
	if p, err = Plan(t.Context(), o); err != nil || p.Existing == nil || p.Existing.Number != res.Number || p.Unpushed != 1 {
		t.Fatalf("%+v %v", p, err)
	}
	if i := slices.IndexFunc(p.Reviewers, func(q api.ReviewPerson) bool { return q.Login == "jo" }); i < 0 || !p.Reviewers[i].Asked {
		t.Errorf("who is asked already: %+v", p.Reviewers)
	}
	again, err := Create(t.Context(), o, api.ReviewRequest{State: p.State, Title: "another", Body: &body})
	if err != nil || again.Made || again.Number != res.Number || again.Pushed != 1 {
		t.Fatalf("%+v %v", again, err)
	}
	got = get()
	if got.Title != "WIP: A better title" || got.Head.Sha != r.git("rev-parse", "HEAD") || strings.Count(got.Body, "- shop: more") != 1 || !strings.Contains(got.Body, "By hand, too. Run as orders-mira, 2.") && !strings.Contains(got.Body, "By hand, too. Run as orders-mira, 3.") || !strings.HasSuffix(strings.TrimSpace(got.Body), "My own words.") {
		t.Errorf("%+v", got)
	}

	// A folder of documentation takes its own template.
	r.git("switch", "-qc", "words", "origin/main")
	by("Mira", "mira@acme.dev", "docs/b.md", "b\n", "docs: b")
	if p, err = Plan(t.Context(), o); err != nil || filepath.Base(p.Template) != "docs.md" || len(p.Templates) != 2 {
		t.Errorf("%s of %v, %v", p.Template, p.Templates, err)
	}

	// From a fork, whose upstream is a remote by the usual name.
	g.API(t, tokens["bo"], http.MethodPost, "/repos/mira/shop/forks", map[string]string{}, nil)
	as("bo")
	r.git("remote", "rename", "origin", "upstream")
	r.git("remote", "add", "origin", g.URL+"/bo/shop.git")
	r.git("fetch", "-q", "origin")
	if p, err = Plan(t.Context(), o); err != nil || p.Remote != "origin" || p.Forge != "Gitea (mira/shop)" {
		t.Fatalf("%+v %v", p, err)
	}
	if res, err = Create(t.Context(), o, api.ReviewRequest{State: p.State}); err != nil {
		t.Fatal(err)
	}
	if got = get(); !got.Draft || got.Head.Ref != "words" || !strings.HasPrefix(res.URL, g.URL+"/mira/shop/pulls/") {
		t.Errorf("%+v %+v", res, got)
	}
	// Without a token the branch is there, and the page is where it is opened by hand.
	r.git("config", "--global", "--unset", "credential.helper")
	r.git("switch", "-qc", "by-hand")
	by("Mira", "mira@acme.dev", "docs/c.md", "c\n", "docs: c")
	r.git("remote", "set-url", "--push", "origin", strings.Replace(g.URL, "http://", "http://bo:"+tokens["bo"]+"@", 1)+"/bo/shop.git")
	if p, err = Plan(t.Context(), o); err != nil || !strings.Contains(strings.Join(p.Notes, "\n"), "no token for Gitea") {
		t.Fatalf("%+v %v", p, err)
	}
	if res, err = Create(t.Context(), o, api.ReviewRequest{State: p.State}); err != nil || !res.Compare || !strings.HasPrefix(res.URL, g.URL+"/mira/shop/compare/") {
		t.Errorf("%+v %v", res, err)
	}
	if text := fmt.Sprint(p, res); strings.Contains(text, tokens["bo"]) {
		t.Errorf("a token is told: %s", text)
	}
}
