package forge

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What GitHub documents for every request (docs.github.com/rest/using-the-rest-api/getting-started-with-the-rest-api).
func githubHeaders(r *http.Request) string {
	if strings.HasSuffix(r.URL.Path, "/meta") {
		if r.Header.Get("Authorization") != "" {
			return "it is given the token before it has said what it is"
		}
		return ""
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer "+secret:
		return "the Authorization is " + r.Header.Get("Authorization")
	case r.Header.Get("Accept") != "application/vnd.github+json" || r.Header.Get("X-GitHub-Api-Version") != "2022-11-28" || r.Header.Get("User-Agent") == "":
		return fmt.Sprintf("the headers are %v", r.Header)
	}
	return ""
}

func githubPullJSON(base string, n int, owner, branch string, draft bool) string {
	return fmt.Sprintf(`{"number":%d,"html_url":"%s/team/shop/pull/%d","title":"Charge once","body":"why","state":"open","draft":%t,"updated_at":"2026-11-01T10:00:00Z","user":{"login":"mira"},
		"head":{"ref":%q,"sha":"c0ffee","repo":{"name":"shop","owner":{"login":%q}}},"base":{"ref":"main","repo":{"name":"shop","owner":{"login":"team"}}},
		"requested_reviewers":[{"login":"jo"}],"requested_teams":[{"slug":"payments"}]}`, n, base, n, draft, branch, owner)
}

func TestGitHub(t *testing.T) {
	c := newContract(t, githubHeaders)
	ctx := t.Context()
	c.on("GET /api/v3/meta", route{answer: answers(200, `{"verifiable_password_authentication":true,"installed_version":"3.20.0"}`)})
	// docs.github.com/rest/repos/repos#get-a-repository; a renamed one redirects to its number.
	c.on("GET /api/v3/repos/team/old", route{answer: answers(301, `{"message":"Moved Permanently"}`, "Location", c.URL+"/api/v3/repositories/7")})
	c.on("GET /api/v3/repositories/7", route{answer: answers(200, `{"full_name":"team/shop","html_url":"https://x/team/shop","default_branch":"main","fork":true,"archived":false,"permissions":{"push":true},
		"parent":{"full_name":"big/shop","default_branch":"trunk","clone_url":"https://x/big/shop.git","ssh_url":"git@x:big/shop.git"}}`)})
	f := c.open("team/old.git", Options{})
	if f.Kind != GitHub {
		t.Fatalf("it is a %s: %v", f.Kind, f.Why)
	}
	repo, err := f.Repository(ctx)
	if want := (&Repository{Path: "team/shop", URL: "https://x/team/shop", Default: "main", CanPush: true, Renamed: true, Parent: &Parent{Path: "big/shop", Default: "trunk", CloneURL: "https://x/big/shop.git", SSHURL: "git@x:big/shop.git"}}); err != nil || !reflect.DeepEqual(repo, want) {
		t.Fatalf("got %+v, %v", repo, err)
	}

	// docs.github.com/rest/pulls/pulls#list-pull-requests. head has the branches of an owner in whichever fork.
	var head string
	const listQuery = "state head base sort direction per_page page"
	list := route{query: listQuery, answer: func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		head = r.URL.Query().Get("head")
		reply(w, 200, "["+githubPullJSON(c.URL, 4, "stranger", "fix", true)+","+githubPullJSON(c.URL, 5, "team", "fix", true)+"]")
	}}
	c.on("GET /api/v3/repos/team/shop/pulls", list)
	got, err := f.Find(ctx, Head{Branch: "fix"}, "main")
	if err != nil || got == nil || got.Number != 5 || !got.Draft || got.Body != "why" || got.Author != "mira" || got.Commit != "c0ffee" || got.Updated.IsZero() || !slices.Equal(got.Reviewers, []string{"jo", "payments"}) || head != "team:fix" {
		t.Errorf("found %+v of %s, %v", got, head, err)
	}
	if got, err := f.Find(ctx, Head{Owner: "stranger", Branch: "fix"}, "main"); err != nil || got == nil || got.Number != 4 || head != "stranger:fix" {
		t.Errorf("of a fork: %+v of %s, %v", got, head, err)
	}

	// docs.github.com/rest/pulls/pulls#create-a-pull-request
	var sent map[string]any
	const createBody = "title head head_repo base body maintainer_can_modify draft issue"
	c.on("POST /api/v3/repos/team/shop/pulls", route{body: createBody, required: "title head base draft", answer: func(w http.ResponseWriter, _ *http.Request, body map[string]any) {
		sent = body
		reply(w, 201, githubPullJSON(c.URL, 6, "mira", "new", true))
	}})
	draft := Draft{Head: Head{Owner: "mira", Repo: "shop", Branch: "new"}, Base: "main", Title: "Charge once", Body: "why"}
	made, err := f.Create(ctx, draft)
	if err != nil || made.Number != 6 || !made.Draft || sent["draft"] != true || sent["head"] != "mira:new" || sent["head_repo"] != "shop" || sent["base"] != "main" || sent["body"] != "why" || sent["title"] != "Charge once" {
		t.Errorf("made %+v of %v, %v", made, sent, err)
	}
	validation := func(detail string) string {
		return `{"message":"Validation Failed","errors":[` + detail + `],"documentation_url":"https://docs.github.com/rest/pulls/pulls#create-a-pull-request","status":"422"}`
	}
	for name, k := range map[string]struct{ answer, code string }{
		"a second one":   {validation(`{"resource":"PullRequest","code":"custom","message":"A pull request already exists for team:fix."}`), "forge-exists"},
		"without drafts": {`{"message":"Draft pull requests are not supported in this repository."}`, "forge-no-draft"},
		"nothing in it":  {validation(`{"resource":"PullRequest","code":"custom","message":"No commits between main and fix"}`), "forge-nothing"},
		"no such base":   {validation(`{"resource":"PullRequest","field":"base","code":"invalid"}`), "forge-refused"},
		"archived":       {`{"message":"Repository was archived so is read-only."}`, "forge-archived"},
	} {
		status := 422
		if name == "archived" {
			status = 403
		}
		c.on("POST /api/v3/repos/team/shop/pulls", route{body: createBody, answer: answers(status, k.answer)})
		_, err := f.Create(ctx, Draft{Head: Head{Branch: "fix"}, Base: "main", Title: "Charge once"})
		if got := code(t, err); got != k.code || (got == "forge-exists") != (told(err).Link == c.URL+"/team/shop/pull/5") {
			t.Errorf("%s: %s: %v", name, got, err)
		}
	}

	// docs.github.com/rest/pulls/pulls#update-a-pull-request: only what is given.
	c.on("PATCH /api/v3/repos/team/shop/pulls/6", route{body: "title body state base maintainer_can_modify", answer: func(w http.ResponseWriter, _ *http.Request, body map[string]any) {
		sent = body
		reply(w, 200, githubPullJSON(c.URL, 6, "mira", "new", true))
	}})
	text := "new"
	if _, err := f.Update(ctx, 6, Change{Body: &text}); err != nil || len(sent) != 1 || sent["body"] != "new" {
		t.Errorf("an update sent %v, %v", sent, err)
	}

	// docs.github.com/rest/pulls/review-requests: one who may not be asked fails the whole request.
	c.on("POST /api/v3/repos/team/shop/pulls/6/requested_reviewers", route{body: "reviewers team_reviewers", answer: func(w http.ResponseWriter, _ *http.Request, body map[string]any) {
		switch who := fmt.Sprint(body["reviewers"]); {
		case strings.Contains(who, "stranger"):
			reply(w, 422, `{"message":"Reviews may only be requested from collaborators. One or more of the users or teams you specified is not a collaborator of the team/shop repository."}`)
		case strings.Contains(who, "mira"):
			reply(w, 422, `{"message":"Review cannot be requested from pull request author."}`)
		default:
			reply(w, 201, githubPullJSON(c.URL, 6, "mira", "new", true))
		}
	}})
	asked, err := f.RequestReviewers(ctx, 6, Reviewers{People: []string{"jo", "stranger", "mira", "no login"}, Teams: []string{"team/payments"}})
	if want := (Requested{Taken: []string{"jo", "team/payments"}, Refused: []Refused{{"no login", "is not a login of GitHub"}, {"stranger", "has no access to the repository"}, {"mira", "wrote it"}}}); err != nil || !reflect.DeepEqual(asked, want) {
		t.Errorf("asked %+v, %v", asked, err)
	}

	// docs.github.com/graphql: assignableUsers by cursor, review requests, commits' authors.
	c.on("POST /api/graphql", route{body: "query variables", required: "query variables", answer: func(w http.ResponseWriter, _ *http.Request, body map[string]any) {
		query, _ := body["query"].(string)
		vars, _ := body["variables"].(map[string]any)
		if vars["owner"] != "team" || vars["name"] != "shop" || strings.Count(query, "{") != strings.Count(query, "}") || strings.Contains(query, "email") {
			t.Errorf("the query is %s of %v", query, vars)
		}
		pulls := `"pullRequests":{"nodes":[{"reviewRequests":{"nodes":[{"requestedReviewer":{"login":"jo"}},{"requestedReviewer":{}},{"requestedReviewer":null}]}}]}`
		switch {
		case strings.Contains(query, "object(oid"):
			reply(w, 200, `{"data":{"repository":{"a0":{"author":{"user":{"login":"jo"}}},"a1":{"author":{"user":null}},"a2":null}},"errors":[{"type":"NOT_FOUND","message":"no a2"}]}`)
		case vars["after"] == nil:
			reply(w, 200, `{"data":{"repository":{"assignableUsers":{"nodes":[{"login":"jo","name":"Jo"}],"pageInfo":{"hasNextPage":true,"endCursor":"next"}},`+pulls+`}}}`)
		default:
			reply(w, 200, `{"data":{"repository":{"assignableUsers":{"nodes":[{"login":"mira","name":null}],"pageInfo":{"hasNextPage":false,"endCursor":"end"}},`+pulls+`}}}`)
		}
	}})
	people, err := f.People(ctx)
	if want := []Person{{Login: "jo", Name: "Jo", Waiting: 1}, {Login: "mira"}}; err != nil || !reflect.DeepEqual(people, want) {
		t.Errorf("people: %+v, %v", people, err)
	}
	// docs.github.com/rest/teams/members: by pages; a team that is not shown is none.
	c.on("GET /api/v3/orgs/team/teams/payments/members", route{query: "per_page page", answer: func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		if r.URL.Query().Get("page") == "" {
			reply(w, 200, `[{"login":"jo"}]`, "Link", `<`+c.URL+`/api/v3/x?page=2&per_page=100>; rel="next"`)
			return
		}
		reply(w, 200, `[{"login":"lee"}]`)
	}})
	c.on("GET /api/v3/orgs/team/teams/secret/members", route{query: "per_page page", answer: answers(404, `{"message":"Not Found"}`)})
	members, err := f.Members(ctx, []string{"team/payments", "team/secret", "no-team", "../x/y"})
	if want := map[string][]string{"team/payments": {"jo", "lee"}}; err != nil || !reflect.DeepEqual(members, want) {
		t.Errorf("members: %v, %v", members, err)
	}
	sha := strings.Repeat("a", 40)
	who, err := f.Identify(ctx, []Author{{"jo@x", sha}, {"gone@x", sha}, {"elsewhere@x", sha}, {"bad@x", `") {`}})
	if err != nil || len(who) != 1 || who["jo@x"] != "jo" {
		t.Errorf("identified %v, %v", who, err)
	}
	c.on("POST /api/graphql", route{body: "query variables", answer: answers(200, `{"data":{"repository":null},"errors":[{"type":"FORBIDDEN","message":"Resource not accessible by personal access token"}]}`)})
	if _, err := f.People(ctx); code(t, err) != "forge-refused" {
		t.Errorf("without the right: %v", err)
	}
	c.on("POST /api/graphql", route{body: "query variables", answer: answers(200, `{"errors":[{"type":"RATE_LIMITED","message":"API rate limit exceeded"}]}`)})
	if _, err := f.People(ctx); code(t, err) != "forge-limit" {
		t.Errorf("the limit: %v", err)
	}

	// The registry's reviews: what was closed at this very commit is not opened again.
	c.on("GET /api/v3/repos/team/shop/pulls", route{query: listQuery, answer: func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		if r.URL.Query().Get("state") == "open" {
			reply(w, 200, "[]")
			return
		}
		reply(w, 200, "["+githubPullJSON(c.URL, 5, "team", "fix", true)+"]")
	}})
	env := map[string]string{TokenVariable: secret, URLVariable: c.URL}
	reviewer, err := FromEnvironment(ctx, c.URL+"/team/old.git", func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if u, err := reviewer.Draft(ctx, registryReview("c0ffee")); err != nil || u != c.URL+"/team/shop/pull/5" {
		t.Errorf("what was closed: %s, %v", u, err)
	}
	c.on("POST /api/v3/repos/team/shop/pulls", route{body: createBody, required: "draft", answer: answers(201, githubPullJSON(c.URL, 8, "team", "fix", true))})
	if u, err := reviewer.Draft(ctx, registryReview("another")); err != nil || u != c.URL+"/team/shop/pull/8" {
		t.Errorf("another commit: %s, %v", u, err)
	}
	if open, err := reviewer.Pending(ctx, "fix"); err != nil || open {
		t.Errorf("pending: %v, %v", open, err)
	}
	// An answer that is no draft is not passed off as one.
	c.on("POST /api/v3/repos/team/shop/pulls", route{body: createBody, answer: answers(201, githubPullJSON(c.URL, 9, "team", "fix", false))})
	if _, err := f.Create(ctx, Draft{Head: Head{Branch: "fix"}, Base: "main", Title: "x"}); code(t, err) != "forge-no-draft" || told(err).Link == "" {
		t.Errorf("no draft: %v", err)
	}
}
