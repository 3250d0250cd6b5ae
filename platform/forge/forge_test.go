package forge

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
	"fairlead.dev/test/gitea"
)

func code(t *testing.T, err error) string {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) {
		t.Fatalf("not a problem: %v", err)
	}
	if p.Message == "" || p.Hint == "" {
		t.Errorf("a problem without words or next step: %+v", p)
	}
	return p.Code
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

// The whole way on a real Gitea: the branch by git with a credential helper, the draft by the API, in force when it is merged.
func TestGitea(t *testing.T) {
	g := gitea.Start(t)
	token := g.User(t, "mira")
	remote := g.Repo(t, "mira", "registry")
	dir := t.TempDir()
	credentials := filepath.Join(dir, "credentials")
	write(t, credentials, strings.Replace(remote, "http://", "http://mira:"+token+"@", 1)+"\n")
	write(t, filepath.Join(dir, "gitconfig"), "[credential]\n\thelper = store --file="+credentials+"\n\tuseHttpPath = true\n")
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(dir, "gitconfig"))
	tokenFile := filepath.Join(dir, "token")
	write(t, tokenFile, token+"\n")
	env := map[string]string{TokenFileVariable: tokenFile}
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

	// Who may not.
	other, err := OpenGitea(t.Context(), remote, g.User(t, "mallory"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Draft(t.Context(), registry.Review{Branch: third.Branch, Base: "main", Title: "x"}); code(t, err) != "forge-refused" {
		t.Errorf("another user: %v", err)
	}
	wrong, err := OpenGitea(t.Context(), remote, "0123456789abcdef0123456789abcdef01234567")
	if err == nil {
		_, err = wrong.Pending(t.Context(), "main")
	}
	if code(t, err) != "forge-refused" {
		t.Errorf("a wrong token: %v", err)
	}
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

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	for remote, want := range map[string]place{
		"https://git.example.com/team/registry.git":      {"https://git.example.com", "team", "registry"},
		"https://git.example.com:3000/team/registry":     {"https://git.example.com:3000", "team", "registry"},
		"https://example.com/git/team/registry.git/":     {"https://example.com/git", "team", "registry"},
		"git@git.example.com:team/registry.git":          {"https://git.example.com", "team", "registry"},
		"ssh://git@git.example.com:22/team/registry.git": {"https://git.example.com", "team", "registry"},
		"http://127.0.0.1:3000/team/registry.git":        {"http://127.0.0.1:3000", "team", "registry"},
		"http://git.example.com/team/registry.git":       {}, // without TLS
		"/srv/registry.git":                              {},
		"file:///srv/team/registry.git":                  {},
		"https://git.example.com/registry.git":           {},
		"https://git.example.com/../registry.git":        {},
		"https:///team/registry.git":                     {},
	} {
		got, err := find(remote)
		if got != want {
			t.Errorf("%s: %+v, want %+v", remote, got, want)
		}
		if want == (place{}) && code(t, err) != "forge-remote" {
			t.Errorf("%s: %v", remote, err)
		}
	}
}

func TestToken(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "  secret-1\n")
	write(t, filepath.Join(dir, "empty"), "\n")
	write(t, filepath.Join(dir, "lines"), "a\nX-Header: b\n")
	for _, c := range []struct {
		file, value, want string
		fails             bool
	}{
		{"", "", "", false}, {"", "secret-2", "secret-2", false}, {"token", "secret-2", "secret-1", false}, {"empty", "secret-2", "", true}, {"gone", "", "", true}, {"lines", "", "", true}, {"", "a b", "", true},
	} {
		env := map[string]string{TokenVariable: c.value}
		if c.file != "" {
			env[TokenFileVariable] = filepath.Join(dir, c.file)
		}
		got, err := Token(func(k string) string { return env[k] })
		if (err != nil) != c.fails || !c.fails && got != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
		if err != nil && (code(t, err) != "forge-token" || strings.Contains(err.Error(), "X-Header")) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// A server that is no Gitea, and one that wants the token sent elsewhere.
func TestNoGitea(t *testing.T) {
	var leaked string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { leaked += r.Header.Get("Authorization") }))
	defer elsewhere.Close()
	answer := func(w http.ResponseWriter, r *http.Request) {}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked += r.Header.Get("Authorization")
		answer(w, r)
	}))
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		code   string
	}{
		"a redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, "forge-unknown"},
		"nothing":    {http.NotFound, "forge-unknown"},
		"a page":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "forge-answer"},
		"other JSON": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }, "forge-unknown"},
	} {
		answer = c.answer
		if _, err := OpenGitea(t.Context(), srv.URL+"/team/registry.git", "secret"); code(t, err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if leaked != "" {
		t.Errorf("the token went to what is no Gitea: %s", leaked)
	}
	srv.Close()
	if _, err := OpenGitea(t.Context(), srv.URL+"/team/registry.git", "secret"); code(t, err) != "forge-away" || strings.Contains(err.Error(), "secret") {
		t.Errorf("a server that is gone: %v", err)
	}
}
