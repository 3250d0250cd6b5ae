package forge

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fairlead.dev/platform/registry"
)

func registryReview(head string) registry.Review {
	return registry.Review{Branch: "fix", Base: "main", Head: head, Title: "checkout: call billing", Body: "why"}
}

// docs.gitlab.com/api/rest/authentication: an OAuth-compliant header for every kind of token.
func gitlabHeaders(r *http.Request) string {
	switch got := r.Header.Get("Authorization"); {
	case strings.HasSuffix(r.URL.Path, "/version") && got != "":
		return "it is given the token before it has said what it is"
	case !strings.HasSuffix(r.URL.Path, "/version") && got != "Bearer "+secret:
		return "the Authorization is " + got
	}
	return ""
}

func mergeJSON(base string, iid, source int, branch, title, reviewers string) string {
	return fmt.Sprintf(`{"iid":%d,"web_url":"%s/shop/api/checkout/-/merge_requests/%d","title":%q,"description":"why","state":"opened","draft":%t,"sha":"c0ffee","updated_at":"2026-11-01T10:00:00.000Z",
		"source_branch":%q,"target_branch":"main","source_project_id":%d,"target_project_id":3,"author":{"username":"mira"},"reviewers":[%s]}`, iid, base, iid, title, strings.HasPrefix(title, "Draft: "), branch, source, reviewers)
}

func TestGitLab(t *testing.T) {
	c := newContract(t, gitlabHeaders)
	ctx := t.Context()
	const project, fork = "/api/v4/projects/shop%2Fapi%2Fcheckout", "/api/v4/projects/mira%2Fcheckout"
	// docs.gitlab.com/api/version takes a token, and docs.gitlab.com/api/projects#get-a-single-project redirects from an old path.
	c.on("GET /api/v4/version", route{answer: answers(401, `{"message":"401 Unauthorized"}`)})
	c.on("GET /api/v4/projects/shop%2Fold%2Fcheckout", route{answer: answers(301, ``, "Location", c.URL+"/api/v4/projects/3")})
	projectJSON := `{"id":3,"path_with_namespace":"shop/api/checkout","web_url":"https://x/shop/api/checkout","default_branch":"main","archived":false,
		"permissions":{"project_access":null,"group_access":{"access_level":40}},
		"forked_from_project":{"id":1,"path_with_namespace":"big/checkout","default_branch":"trunk","http_url_to_repo":"https://x/big/checkout.git","ssh_url_to_repo":"git@x:big/checkout.git"}}`
	c.on("GET /api/v4/projects/3", route{answer: answers(200, projectJSON)})
	c.on("GET "+project, route{answer: answers(200, projectJSON)})
	c.on("GET "+fork, route{answer: answers(200, `{"id":9,"path_with_namespace":"mira/checkout"}`)})
	f := c.open("shop/old/checkout.git", Options{})
	if f.Kind != GitLab || f.Path != "shop/old/checkout" {
		t.Fatalf("it is a %s at %s: %v", f.Kind, f.Path, f.Why)
	}
	repo, err := f.Repository(ctx)
	if want := (&Repository{Path: "shop/api/checkout", URL: "https://x/shop/api/checkout", Default: "main", CanPush: true, Renamed: true, Parent: &Parent{Path: "big/checkout", Default: "trunk", CloneURL: "https://x/big/checkout.git", SSHURL: "git@x:big/checkout.git"}}); err != nil || !reflect.DeepEqual(repo, want) {
		t.Fatalf("got %+v, %v", repo, err)
	}

	// docs.gitlab.com/api/merge_requests#list-project-merge-requests
	const listQuery = "state source_branch target_branch order_by sort per_page page"
	c.on("GET "+project+"/merge_requests", route{query: listQuery, answer: func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		reply(w, 200, "["+mergeJSON(c.URL, 4, 9, "fix", "Draft: Charge once", "")+","+mergeJSON(c.URL, 5, 3, "fix", "Draft: Charge once", `{"id":21,"username":"jo"}`)+"]")
	}})
	got, err := f.Find(ctx, Head{Branch: "fix"}, "main")
	if err != nil || got == nil || got.Number != 5 || !got.Draft || got.Title != "Charge once" || got.Body != "why" || got.Commit != "c0ffee" || !slices.Equal(got.Reviewers, []string{"jo"}) {
		t.Errorf("found %+v, %v", got, err)
	}
	if got, err := f.Find(ctx, Head{Owner: "mira", Repo: "checkout", Branch: "fix"}, "main"); err != nil || got == nil || got.Number != 4 || got.Head.Owner != "mira" {
		t.Errorf("of a fork: %+v, %v", got, err)
	}

	// docs.gitlab.com/api/merge_requests#create-mr: asked of the source's project.
	const createBody = "title source_branch target_branch description target_project_id reviewer_ids assignee_id labels remove_source_branch squash allow_collaboration milestone_id"
	var sent map[string]any
	create := route{body: createBody, required: "title source_branch target_branch", answer: func(w http.ResponseWriter, _ *http.Request, body map[string]any) {
		sent = body
		reply(w, 201, mergeJSON(c.URL, 6, 3, "new", fmt.Sprint(body["title"]), ""))
	}}
	c.on("POST "+project+"/merge_requests", create)
	c.on("POST "+fork+"/merge_requests", create)
	draft := Draft{Head: Head{Branch: "new"}, Base: "main", Title: "Charge once", Body: "why"}
	if made, err := f.Create(ctx, draft); err != nil || made.Number != 6 || !made.Draft || made.Title != "Charge once" || sent["title"] != "Draft: Charge once" || sent["description"] != "why" || sent["target_project_id"] != nil {
		t.Errorf("made %+v of %v, %v", made, sent, err)
	}
	c.log()
	draft.Head = Head{Owner: "mira", Repo: "checkout", Branch: "new"}
	if _, err := f.Create(ctx, draft); err != nil || sent["target_project_id"] != 3.0 || !slices.Contains(c.log(), "POST "+fork+"/merge_requests") {
		t.Errorf("of a fork: %v, %v", sent, err)
	}
	for name, k := range map[string]struct {
		status       int
		answer, code string
	}{
		"a second one": {409, `{"message":["Another open merge request already exists for this source branch: !5"]}`, "forge-exists"},
		"no branch":    {400, `{"message":{"source_branch":["does not exist"]}}`, "forge-refused"},
		"no right":     {403, `{"message":"403 Forbidden"}`, "forge-refused"},
		"a scope":      {403, `{"error":"insufficient_scope","error_description":"The request requires higher privileges than provided by the access token.","scope":"api"}`, "forge-refused"},
		"moved":        {405, `{"message":"405 Method Not Allowed: Non GET methods are not allowed for moved projects"}`, "forge-renamed"},
		"expired":      {401, `{"error":"invalid_token","error_description":"Token is expired. You can either do re-authorization or token refresh."}`, "forge-token"},
		"archived":     {403, `{"message":"403 Forbidden - The project is archived"}`, "forge-archived"},
		"the limit":    {429, `Retry later`, "forge-limit"}, // docs.gitlab.com: a plain text
	} {
		c.on("POST "+project+"/merge_requests", route{body: createBody, answer: answers(k.status, k.answer)})
		_, err := f.Create(ctx, Draft{Head: Head{Branch: "fix"}, Base: "main", Title: "x"})
		if got := code(t, err); got != k.code {
			t.Errorf("%s: %s: %v", name, got, err)
		}
	}

	// docs.gitlab.com/api/merge_requests#update-mr. A title without its prefix would publish it.
	const updateBody = "title description reviewer_ids state_event target_branch"
	c.on("GET "+project+"/merge_requests/5", route{answer: answers(200, mergeJSON(c.URL, 5, 3, "fix", "Draft: Charge once", `{"id":21,"username":"jo"}`))})
	c.on("PUT "+project+"/merge_requests/5", route{body: updateBody, answer: func(w http.ResponseWriter, _ *http.Request, body map[string]any) {
		sent = body
		reply(w, 200, mergeJSON(c.URL, 5, 3, "fix", fmt.Sprint(body["title"]), ""))
	}})
	title := "Charge twice"
	if r, err := f.Update(ctx, 5, Change{Title: &title}); err != nil || !r.Draft || r.Title != title || len(sent) != 1 || sent["title"] != "Draft: Charge twice" {
		t.Errorf("an update: %+v of %v, %v", r, sent, err)
	}

	// Reviewers are set, by ID: those who are asked already are among them. docs.gitlab.com/api/users#list-users
	c.on("GET /api/v4/users", route{query: "username search", answer: func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		switch r.URL.RawQuery {
		case "username=lee":
			reply(w, 200, `[{"id":22,"username":"lee","state":"active"}]`)
		case "username=left":
			reply(w, 200, `[{"id":23,"username":"left","state":"blocked"}]`)
		case "search=lee%40x":
			reply(w, 200, `[{"id":22,"username":"lee","state":"active"}]`)
		case "search=many%40x":
			reply(w, 200, `[{"username":"a"},{"username":"b"}]`)
		default:
			reply(w, 200, `[]`)
		}
	}})
	c.on("PUT "+project+"/merge_requests/5", route{body: updateBody, required: "reviewer_ids", answer: func(w http.ResponseWriter, _ *http.Request, body map[string]any) {
		sent = body
		reply(w, 200, mergeJSON(c.URL, 5, 3, "fix", "Draft: x", `{"id":21,"username":"jo"},{"id":22,"username":"lee"}`))
	}})
	asked, err := f.RequestReviewers(ctx, 5, Reviewers{People: []string{"lee", "left", "nobody"}, Teams: []string{"shop/payments"}})
	if want := (Requested{Taken: []string{"lee"}, Refused: []Refused{{"shop/payments", "is a group, and GitLab asks people only"}, {"left", "is blocked on this forge"}, {"nobody", "is not on this forge"}}}); err != nil || !reflect.DeepEqual(asked, want) || fmt.Sprint(sent["reviewer_ids"]) != "[21 22]" {
		t.Errorf("asked %+v by %v, %v", asked, sent, err)
	}
	// A plan with one reviewer takes the first and says nothing.
	c.on("PUT "+project+"/merge_requests/5", route{body: updateBody, answer: answers(200, mergeJSON(c.URL, 5, 3, "fix", "Draft: x", `{"id":21,"username":"jo"}`))})
	if asked, err := f.RequestReviewers(ctx, 5, Reviewers{People: []string{"lee"}}); err != nil || len(asked.Refused) != 1 || !strings.Contains(asked.Refused[0].Why, "one reviewer") {
		t.Errorf("asked %+v, %v", asked, err)
	}

	// docs.gitlab.com/api/project_members, by pages: rel="next" with an address of its own, and x-next-page.
	c.on("GET "+project+"/members/all", route{query: "per_page page", answer: func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		switch r.URL.Query().Get("page") {
		case "":
			reply(w, 200, `[{"username":"jo","name":"Jo","state":"active"}]`, "Link", `<https://internal.example.com/api/v4/x?page=2&per_page=100>; rel="next", <https://internal.example.com/api/v4/x?page=1>; rel="first"`)
		case "2":
			reply(w, 200, `[{"username":"jo","state":"active"},{"username":"left","state":"blocked"}]`, "X-Next-Page", "3")
		default:
			reply(w, 200, `[{"username":"lee","state":"active","public_email":"lee@x"}]`, "X-Next-Page", "")
		}
	}})
	people, err := f.People(ctx)
	if want := []Person{{Login: "jo", Name: "Jo", Waiting: 1}, {Login: "lee", Email: "lee@x"}}; err != nil || !reflect.DeepEqual(people, want) {
		t.Errorf("people: %+v, %v", people, err)
	}
	// docs.gitlab.com/api/group_members: the group's path is one segment.
	c.on("GET /api/v4/groups/shop%2Fpayments/members/all", route{query: "per_page page", answer: answers(200, `[{"username":"jo","state":"active"},{"username":"left","state":"blocked"}]`)})
	members, err := f.Members(ctx, []string{"shop/payments"})
	if want := map[string][]string{"shop/payments": {"jo"}}; err != nil || !reflect.DeepEqual(members, want) {
		t.Errorf("members: %v, %v", members, err)
	}
	who, err := f.Identify(ctx, []Author{{Email: "lee@x"}, {Email: "many@x"}, {Email: "none@x"}, {Email: "12-mira@users.noreply.gitlab.com"}})
	if want := map[string]string{"lee@x": "lee", "12-mira@users.noreply.gitlab.com": "mira"}; err != nil || !reflect.DeepEqual(who, want) {
		t.Errorf("identified %v, %v", who, err)
	}

	// The registry's reviews.
	c.on("GET "+project+"/merge_requests", route{query: listQuery, answer: func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
		if r.URL.Query().Get("state") == "opened" {
			reply(w, 200, "[]")
			return
		}
		reply(w, 200, "["+strings.Replace(mergeJSON(c.URL, 5, 3, "fix", "Draft: x", ""), `"opened"`, `"merged"`, 1)+"]")
	}})
	if u, err := (reviews{f}).Draft(ctx, registryReview("c0ffee")); err != nil || !strings.HasSuffix(u, "/merge_requests/5") {
		t.Errorf("what was merged: %s, %v", u, err)
	}
	c.on("POST "+project+"/merge_requests", create)
	if u, err := (reviews{f}).Draft(ctx, registryReview("another")); err != nil || !strings.HasSuffix(u, "/merge_requests/6") {
		t.Errorf("another commit: %s, %v", u, err)
	}
	// An archived project is told before anything is sent to it.
	c.on("GET "+project, route{answer: answers(200, strings.Replace(projectJSON, `"archived":false`, `"archived":true`, 1))})
	if _, err := c.open("shop/api/checkout", Options{Kind: GitLab}).Create(ctx, draft); code(t, err) != "forge-archived" {
		t.Errorf("archived: %v", err)
	}
}
