package forge

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/platform/portal"
	"fairlead.dev/platform/registry"
	"fairlead.dev/test/gitea"
)

// One real Gitea for both, since starting it takes longest.
func TestGitea(t *testing.T) {
	g := gitea.Start(t)
	token := g.User(t, "mira")
	t.Run("reviews", func(t *testing.T) { testReviews(t, g, token) })
	t.Run("registry", func(t *testing.T) { testRegistry(t, g, token) })
}

// A developer's review: pushed by ssh and by HTTP, found, drafted, changed, reviewers asked while it is a draft.
func testReviews(t *testing.T, g *gitea.Server, token string) {
	ctx := t.Context()
	dir := t.TempDir()
	web := g.Repo(t, "mira", "shop")
	remote := g.SSH + "/mira/shop.git"
	jo := g.User(t, "jo")
	stranger := g.User(t, "mallory")
	g.API(t, token, http.MethodPut, "/repos/mira/shop/collaborators/jo", map[string]string{"permission": "write"}, nil)

	// git over ssh to Gitea's own server, with a key of Mira's.
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	g.API(t, token, http.MethodPost, "/user/keys", map[string]string{"title": "test", "key": string(public)}, nil)
	credentials := func(name, user, token string) string {
		file := filepath.Join(dir, name)
		write(t, file+"-credentials", strings.Replace(g.URL, "http://", "http://"+user+":"+token+"@", 1)+"\n")
		write(t, file, "[user]\n\tname = "+user+"\n\temail = "+user+"@example.com\n[credential]\n\thelper = store --file="+file+"-credentials\n")
		return file
	}
	config := credentials("mira.gitconfig", "mira", token)
	work := filepath.Join(dir, "work")
	run := func(config string, args ...string) (string, error) {
		cmd := exec.Command("git", append([]string{"-C", work}, args...)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+config,
			"GIT_SSH_COMMAND=ssh -F /dev/null -i "+key+" -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="+filepath.Join(dir, "known_hosts"))
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	git := func(config string, args ...string) string {
		t.Helper()
		out, err := run(config, args...)
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return out
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	git(config, "init", "--quiet", "--initial-branch=main")
	git(config, "commit", "--quiet", "--allow-empty", "-m", "begin")
	git(config, "push", "--quiet", remote, "main")
	g.Filled(t, "mira/shop")
	commit := func(config, branch string) string {
		t.Helper()
		git(config, "checkout", "--quiet", "-b", branch, "main")
		write(t, filepath.Join(work, strings.ReplaceAll(branch, "/", "-")), branch)
		git(config, "add", ".")
		git(config, "commit", "--quiet", "-m", branch)
		return git(config, "rev-parse", "HEAD")
	}
	sha := commit(config, "fix/charge")
	git(config, "push", "--quiet", web, "fix/charge")
	joConfig := credentials("jo.gitconfig", "jo", jo)
	joSHA := commit(joConfig, "jo")
	git(joConfig, "push", "--quiet", web, "jo")

	// By ssh the forge's address is another; the token is what git has for it.
	me := User{Home: dir, Dir: work, Env: append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+config, URLVariable+"="+g.URL)}
	o := me.Options(remote)
	f, err := Open(ctx, remote, o)
	if err != nil || f.Kind != Gitea || f.URL != g.URL || f.Path != "mira/shop" {
		t.Fatalf("got %+v, %v", f, err)
	}
	if from, ok, err := f.Authenticated(ctx); err != nil || !ok || from != "of git credential fill" {
		t.Fatalf("the token is %s, %v", from, err)
	}
	repo, err := f.Repository(ctx)
	if want := (&Repository{Path: "mira/shop", URL: g.URL + "/mira/shop", Default: "main", CanPush: true}); err != nil || !reflect.DeepEqual(repo, want) {
		t.Fatalf("got %+v, %v", repo, err)
	}
	head := Head{Branch: "fix/charge"}
	if r, err := f.Find(ctx, head, "main"); r != nil || err != nil {
		t.Fatalf("found %+v, %v", r, err)
	}
	draft := Draft{Head: head, Base: "main", Title: "Charge once", Body: "Closes " + f.Issue("", 7) + "\n"}
	made, err := f.Create(ctx, draft)
	if err != nil || made.Number != 1 || !made.Draft || !made.Open || made.Title != "Charge once" || made.URL != g.URL+"/mira/shop/pulls/1" || made.Head != head || made.Base != "main" || made.Commit != sha || made.Author != "mira" || made.Body != draft.Body {
		t.Fatalf("made %+v, %v", made, err)
	}
	if _, err := f.Create(ctx, draft); code(t, err) != "forge-exists" || told(err).Link != made.URL {
		t.Errorf("a second time: %v", err)
	}
	if r, err := f.Find(ctx, head, "main"); err != nil || r == nil || r.Number != 1 {
		t.Errorf("found %+v, %v", r, err)
	}
	if r, err := f.Find(ctx, head, "other"); err != nil || r != nil {
		t.Errorf("for another base: %+v, %v", r, err)
	}
	title, body := "Charge only once", "by hand"
	if r, err := f.Update(ctx, 1, Change{Title: &title}); err != nil || !r.Draft || r.Title != title || r.Body != draft.Body {
		t.Errorf("another title: %+v, %v", r, err)
	}
	if r, err := f.Update(ctx, 1, Change{Body: &body}); err != nil || !r.Draft || r.Title != title || r.Body != body {
		t.Errorf("another body: %+v, %v", r, err)
	}

	// Reviewers, while it is a draft: each is told of, whoever else is wrong.
	asked, err := f.RequestReviewers(ctx, 1, Reviewers{People: []string{"jo", "mallory", "nobody-at-all", "mira"}, Teams: []string{"payments"}})
	if err != nil || !slices.Equal(asked.Taken, []string{"jo"}) || len(asked.Refused) != 4 {
		t.Errorf("asked %+v, %v", asked, err)
	}
	for _, r := range asked.Refused {
		if r.Why == "" || strings.HasPrefix(r.Why, "4") {
			t.Errorf("%s was refused without a reason: %q", r.Who, r.Why)
		}
	}
	if again, err := f.RequestReviewers(ctx, 1, Reviewers{People: []string{"jo"}}); err != nil || !slices.Equal(again.Taken, []string{"jo"}) {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	// A team of an organisation, as CODEOWNERS names it.
	g.API(t, token, http.MethodPost, "/orgs", map[string]string{"username": "acme"}, nil)
	var team struct{ ID int }
	g.API(t, token, http.MethodPost, "/orgs/acme/teams", map[string]any{"name": "payments", "permission": "write", "units": []string{"repo.code", "repo.pulls"}}, &team)
	g.API(t, token, http.MethodPut, fmt.Sprintf("/teams/%d/members/jo", team.ID), nil, nil)
	members, err := f.Members(ctx, []string{"acme/payments", "acme/nobody", "nowhere/payments"})
	if want := map[string][]string{"acme/payments": {"jo"}}; err != nil || !reflect.DeepEqual(members, want) {
		t.Errorf("members: %v, %v", members, err)
	}
	people, err := f.People(ctx)
	if i := slices.IndexFunc(people, func(p Person) bool { return p.Login == "jo" }); err != nil || i < 0 || people[i].Waiting != 1 || people[i].Email != "jo@example.com" || slices.ContainsFunc(people, func(p Person) bool { return p.Login == "mallory" }) {
		t.Errorf("people: %+v, %v", people, err)
	}
	who, err := f.Identify(ctx, []Author{{"jo@example.com", joSHA}, {"mira@example.com", sha}, {"nobody@example.com", strings.Repeat("a", 40)}})
	if want := map[string]string{"jo@example.com": "jo", "mira@example.com": "mira"}; err != nil || !reflect.DeepEqual(who, want) {
		t.Errorf("identified %v, %v", who, err)
	}

	// A fork's branch, for the repository that it was forked from, with no more rights than are documented.
	g.API(t, jo, http.MethodPost, "/repos/mira/shop/forks", map[string]string{"name": "shop-of-jo"}, nil)
	git(joConfig, "push", "--quiet", "--force", g.URL+"/jo/shop-of-jo.git", "jo:fix/charge") // a fork has its parent's branches
	with := func(token string) Options {
		return Options{Sources: []Source{func(_ context.Context, _ Target) (Token, error) { return newToken(token, "of a test") }}}
	}
	fork, err := Open(ctx, g.URL+"/jo/shop-of-jo.git", with(g.Scoped(t, "jo", "write:repository")))
	if err != nil {
		t.Fatal(err)
	}
	repo, err = fork.Repository(ctx)
	if err != nil || repo.Parent == nil || repo.Parent.Path != "mira/shop" || repo.Parent.Default != "main" || !strings.HasSuffix(repo.Parent.SSHURL, "/mira/shop.git") {
		t.Fatalf("a fork: %+v, %v", repo, err)
	}
	upstream, err := fork.On(repo.Parent.Path)
	if err != nil {
		t.Fatal(err)
	}
	fromFork := Head{Owner: "jo", Repo: "shop-of-jo", Branch: "fix/charge"}
	made, err = upstream.Create(ctx, Draft{Head: fromFork, Base: "main", Title: "From a fork"})
	if err != nil || made.Number != 2 || made.Head != fromFork || !made.Draft || made.URL != g.URL+"/mira/shop/pulls/2" {
		t.Errorf("of a fork: %+v, %v", made, err)
	}
	if r, err := upstream.Find(ctx, fromFork, ""); err != nil || r == nil || r.Number != 2 {
		t.Errorf("of a fork, found %+v, %v", r, err)
	}
	if r, err := f.Find(ctx, head, ""); err != nil || r == nil || r.Number != 1 {
		t.Errorf("its own branch of that name: %+v, %v", r, err)
	}
	if asked, err := upstream.RequestReviewers(ctx, 2, Reviewers{People: []string{"mira"}}); err != nil || len(asked.Taken) != 1 {
		t.Errorf("asked %+v, %v", asked, err)
	}

	// Who may not.
	for name, c := range map[string]struct{ token, code string }{
		"a wrong token":      {strings.Repeat("0123456789abcdef", 3)[:40], "forge-token"},
		"a stranger's":       {stranger, "forge-missing"},
		"one that may read":  {g.Scoped(t, "mira", "read:repository"), "forge-refused"},
		"one for issues":     {g.Scoped(t, "mira", "write:issue"), "forge-refused"},
		"no token of anyone": {"", "forge-no-token"},
	} {
		f, err := Open(ctx, web, with(c.token))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Create(ctx, Draft{Head: Head{Branch: "jo"}, Base: "main", Title: "x"}); code(t, err) != c.code {
			t.Errorf("%s: %s: %v", name, code(t, err), err)
		}
	}
	if _, err := f.Create(ctx, Draft{Head: Head{Branch: "not-pushed"}, Base: "main", Title: "x"}); code(t, err) != "forge-missing" {
		t.Errorf("what is not pushed: %v", err)
	}

	// What git is told: a protected branch, and after that an archive. The name is another by then.
	g.API(t, token, http.MethodPost, "/repos/mira/shop/branch_protections", map[string]any{"rule_name": "main", "enable_push": false}, nil)
	git(config, "checkout", "--quiet", "main")
	git(config, "commit", "--quiet", "--allow-empty", "-m", "past the review")
	if out, err := run(config, "push", remote, "main"); err == nil || PushProblem(out) == nil || PushProblem(out).Code != "forge-protected" {
		t.Errorf("a protected branch: %v: %+v\n%s", err, PushProblem(out), out)
	}
	if out, err := run(credentials("mallory.gitconfig", "mallory", stranger), "push", web, "main:other"); err == nil || PushProblem(out) == nil || PushProblem(out).Hint == "" {
		t.Errorf("a stranger's push: %v: %s", err, out)
	}
	g.API(t, token, http.MethodPatch, "/repos/mira/shop", map[string]any{"name": "store"}, nil)
	renamed, err := Open(ctx, web, o)
	if err != nil {
		t.Fatal(err)
	}
	if repo, err := renamed.Repository(ctx); err != nil || !repo.Renamed || repo.Path != "mira/store" {
		t.Errorf("renamed: %+v, %v", repo, err)
	}
	if r, err := renamed.Update(ctx, 1, Change{Title: &title}); err != nil || r.URL != g.URL+"/mira/store/pulls/1" {
		t.Errorf("renamed: %+v, %v", r, err)
	}
	g.API(t, token, http.MethodPatch, "/repos/mira/store", map[string]any{"archived": true}, nil)
	archived, err := Open(ctx, g.SSH+"/mira/store.git", o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archived.Create(ctx, Draft{Head: Head{Branch: "jo"}, Base: "main", Title: "x"}); code(t, err) != "forge-archived" {
		t.Errorf("archived: %v", err)
	}
	if out, err := run(config, "push", g.SSH+"/mira/store.git", "HEAD:other"); err == nil || PushProblem(out) == nil || PushProblem(out).Code != "forge-archived" {
		t.Errorf("a push to an archive: %v: %+v\n%s", err, PushProblem(out), out)
	}
}

// pr is what Gitea says of a pull request.
type pr struct {
	Number int
	Title  string
	Body   string
	State  string
	Draft  bool
	Head   struct{ Ref, SHA string }
	Base   struct{ Ref string }
}

// The whole way on a real Gitea: the branch by git with a credential helper, the draft by the API, in force when it is merged. Last through
// the portal: its form, the link in its answer.
func testRegistry(t *testing.T, g *gitea.Server, token string) {
	remote := g.Repo(t, "mira", "registry")
	dir := t.TempDir()
	credentials := filepath.Join(dir, "credentials")
	write(t, credentials, strings.Replace(remote, "http://", "http://mira:"+token+"@", 1)+"\n")
	write(t, filepath.Join(dir, "gitconfig"), "[credential]\n\thelper = store --file="+credentials+"\n\tuseHttpPath = true\n")
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(dir, "gitconfig"))
	tokenFile := filepath.Join(dir, "token")
	write(t, tokenFile, token+"\n")
	env := map[string]string{TokenFileVariable: tokenFile, URLVariable: g.URL}
	reviewer, err := FromEnvironment(t.Context(), remote, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.Open(t.Context(), registry.Options{Dir: filepath.Join(dir, "registry"), Remote: remote, Reviewer: reviewer})
	if err != nil {
		t.Fatal(err)
	}
	author := registry.Author{Name: "Mira", Email: "mira@example.com"}
	submit := func(id, caller string, methods ...string) registry.Result {
		t.Helper()
		res, err := r.Submit(t.Context(), registry.Request{ID: id, Caller: caller, Callee: "billing", Methods: methods, Reason: "to charge", Author: author})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	pulls := func(want int) []pr {
		t.Helper()
		var all []pr
		g.API(t, token, http.MethodGet, "/repos/mira/registry/pulls?state=all&sort=oldest", nil, &all)
		if len(all) != want {
			t.Fatalf("%d pull requests, want %d: %+v", len(all), want, all)
		}
		return all
	}
	// Open to everyone, as nobody has registered it: a commit, also the repository's first.
	if res := submit("request-0", "orders", "/b.B/Charge"); !res.Granted {
		t.Fatalf("got %+v", res)
	}
	until(t, "the repository has its first push", func() bool {
		var repo struct {
			Empty   bool
			Default string `json:"default_branch"`
		}
		g.API(t, token, http.MethodGet, "/repos/mira/registry", nil, &repo)
		return !repo.Empty && repo.Default == "main"
	})
	g.API(t, token, http.MethodPost, "/repos/mira/registry/contents/services/billing.yaml", map[string]string{"branch": "main", "message": "billing is reviewed",
		"content": "dmVyc2lvbjogMQpuYW1lOiBiaWxsaW5nCmFjY2VzczogcmV2aWV3Cg=="}, nil) // version: 1, name: billing, access: review

	first := submit("request-1", "checkout", "/b.B/Charge")
	p := pulls(1)[0]
	if first.Granted || !p.Draft || p.Title != "WIP: checkout: call billing" || p.Base.Ref != "main" || p.Head.Ref != first.Branch || p.Head.SHA != first.Revision || p.State != "open" {
		t.Fatalf("got %+v of %+v", p, first)
	}
	if !strings.Contains(p.Body, "to charge") || !strings.Contains(p.Body, "Mira") || !strings.Contains(p.Body, "`/b.B/Charge`") || strings.Contains(p.Body, token) {
		t.Errorf("the body is %q", p.Body)
	}
	if want := g.URL + "/mira/registry/pulls/1"; first.Review != want {
		t.Errorf("the link is %s, want %s", first.Review, want)
	}

	// A second press is the same review, and so is the first one again.
	second := submit("request-2", "checkout", "/b.B/Refund")
	if second.Review != first.Review {
		t.Errorf("a second request: %+v", second)
	}
	until(t, "the review shows the second request", func() bool { return pulls(1)[0].Head.SHA == second.Revision })
	if again := submit("request-1", "checkout", "/b.B/Charge"); !again.Repeated || again.Review != first.Review {
		t.Errorf("the first again: %+v", again)
	}

	// Merged as one new commit: in force, and the next request is a review of its own.
	g.API(t, token, http.MethodPatch, "/repos/mira/registry/pulls/1", map[string]string{"title": "checkout: call billing"}, nil)
	until(t, "it has looked for conflicts", func() bool {
		var p struct{ Mergeable bool }
		g.API(t, token, http.MethodGet, "/repos/mira/registry/pulls/1", nil, &p)
		return p.Mergeable
	})
	g.API(t, token, http.MethodPost, "/repos/mira/registry/pulls/1/merge", map[string]any{"Do": "squash", "merge_message_field": "charged"}, nil)
	s, err := r.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if governed, patterns := s.Grants("checkout", "billing"); !governed || len(patterns) != 2 {
		t.Errorf("merged: %v %v", governed, patterns)
	}
	third := submit("request-3", "checkout", "/b.B/Void")
	if p := pulls(2)[1]; p.Number != 2 || !p.Draft || third.Review != g.URL+"/mira/registry/pulls/2" {
		t.Errorf("after the merge: %+v of %+v", p, third)
	}

	// Closed, so refused: the same form again opens nothing, another one does.
	g.API(t, token, http.MethodPatch, "/repos/mira/registry/pulls/2", map[string]string{"state": "closed"}, nil)
	if again := submit("request-3", "checkout", "/b.B/Void"); again.Review != third.Review {
		t.Errorf("what was refused, again: %+v", again)
	}
	pulls(2)
	if fourth := submit("request-4", "checkout", "/b.B/List"); fourth.Review != g.URL+"/mira/registry/pulls/3" {
		t.Errorf("another request: %+v", fourth)
	}
	pulls(3)

	// By the portal: a form that is sent, a page with a link, a merge over there.
	merge := func(number int, title string) {
		t.Helper()
		at := fmt.Sprintf("/repos/mira/registry/pulls/%d", number)
		g.API(t, token, http.MethodPatch, at, map[string]string{"title": title}, nil)
		until(t, "it has looked for conflicts", func() bool {
			var p struct{ Mergeable bool }
			g.API(t, token, http.MethodGet, at, nil, &p)
			return p.Mergeable
		})
		g.API(t, token, http.MethodPost, at+"/merge", map[string]any{"Do": "squash", "merge_message_field": "charged"}, nil)
	}
	page := throughPortal(t, r, author, "/request?caller=rates&callee=billing&method=/b.B/Charge")
	p = pulls(4)[3]
	if link := g.URL + "/mira/registry/pulls/4"; !p.Draft || p.Title != "WIP: rates: call billing" || !strings.Contains(page, "<h1>Sent for review</h1>") || !strings.Contains(page, `href="`+link+`"`) {
		t.Errorf("by the portal: %+v of %s", p, page)
	}
	if s, err = r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, patterns := s.Grants("rates", "billing"); len(patterns) != 0 {
		t.Errorf("in force before it is merged: %v", patterns)
	}
	merge(4, "rates: call billing")
	if s, err = r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, patterns := s.Grants("rates", "billing"); !slices.Equal(patterns, []string{"/b.B/Charge"}) {
		t.Errorf("merged: %v", patterns)
	}
}

var formField = regexp.MustCompile(`<input type="(?:hidden|checkbox|radio)"[^>]*>`)

// throughPortal signs in, opens a form, sends it as a browser does, and returns the page that follows.
func throughPortal(t *testing.T, r *registry.Registry, user registry.Author, form string) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	p, err := portal.New(portal.Options{URL: "http://" + srv.Listener.Addr().String(), Registry: r, Local: &user})
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = p.Handler()
	srv.Start()
	defer srv.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Jar: jar, Timeout: 2 * time.Minute}
	read := func(res *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v\n%s", res.Request.URL, res.Status, err, b)
		}
		return string(b)
	}
	read(client.PostForm(p.URL()+"/sign-in", url.Values{"code": {p.Code()}, "to": {"/"}}))
	page := read(client.Get(p.URL() + form))
	_, page, ok := strings.Cut(page, `id="request"`)
	if !ok {
		t.Fatal("there is no form")
	}
	send := url.Values{"reason": {"to charge"}}
	for _, in := range formField.FindAllString(page, -1) {
		attribute := func(name string) string {
			_, v, _ := strings.Cut(in, " "+name+`="`)
			v, _, _ = strings.Cut(v, `"`)
			return html.UnescapeString(v)
		}
		if strings.Contains(in, `type="hidden"`) || strings.Contains(in, " checked") {
			send.Add(attribute("name"), attribute("value"))
		}
	}
	return read(client.PostForm(p.URL()+"/request", send))
}

// until waits for what Gitea does behind its answer.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for tick := time.NewTicker(100 * time.Millisecond); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("Gitea does not come to this: %s", what)
		}
	}
}
