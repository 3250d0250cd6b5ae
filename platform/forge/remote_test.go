package forge

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Where a remote leads, without a request.
func TestRemote(t *testing.T) {
	for _, c := range []struct {
		remote string
		kind   Kind
		url    string
		want   string // kind address path, or the problem's code
	}{
		{"https://github.com/team/shop.git", "", "", "github https://github.com team/shop"},
		{"git@github.com:team/shop.git", "", "", "github https://github.com team/shop"},
		{"ssh://git@ssh.github.com:443/team/shop.git", "", "", "github https://github.com team/shop"},
		{"git+ssh://git@github.com/team/shop", "", "", "github https://github.com team/shop"},
		{"https://acme.ghe.com/team/shop", "", "", "github https://acme.ghe.com team/shop"},
		{"git@gitlab.com:shop/api/v2/checkout.git", "", "", "gitlab https://gitlab.com shop/api/v2/checkout"},
		{"https://user:password@gitlab.com/shop/checkout.git/", "", "", "gitlab https://gitlab.com shop/checkout"},
		{"https://codeberg.org/team/shop.git", "", "", "gitea https://codeberg.org team/shop"},
		{"https://go.googlesource.com/tools", "", "", "gerrit https://go-review.googlesource.com tools"},
		{"https://go-review.googlesource.com/a/tools", "", "", "gerrit https://go-review.googlesource.com tools"},
		{"ssh://mira@review.example.com:29418/kernel/common", Gerrit, "", "gerrit https://review.example.com kernel/common"},
		{"git@bitbucket.org:team/shop.git", "", "", "git https://bitbucket.org team/shop"},
		{"https://git.example.com/team/shop.git", Gitea, "", "gitea https://git.example.com team/shop"},
		{"https://git.example.com:3000/team/shop", Gitea, "", "gitea https://git.example.com:3000 team/shop"},
		{"https://example.com/git/team/shop.git", Gitea, "", "gitea https://example.com/git team/shop"},
		{"https://example.com/git/team/shop.git", GitLab, "https://example.com/git/", "gitlab https://example.com/git team/shop"},
		{"ssh://git@git.example.com:2222/team/shop.git", Gitea, "", "gitea https://git.example.com team/shop"},
		{"git@github.com:team/shop.git", "", "https://github.com", "github https://github.com team/shop"},
		{"ssh://git@ssh.github.com:443/team/shop.git", "", "https://github.com/", "github https://github.com team/shop"},
		{"ssh://git@[::1]:2222/team/shop.git", Gitea, "http://127.0.0.1:3000", "gitea http://127.0.0.1:3000 team/shop"},
		{"http://127.0.0.1:3000/team/shop.git", Gitea, "", "gitea http://127.0.0.1:3000 team/shop"},
		{"/srv/shop.git", "", "", "git  /srv/shop.git"},
		{"../shop.git", "", "", "git  ../shop.git"},
		{`C:\src\shop`, "", "", `git  C:\src\shop`},
		{"file:///srv/shop.git", "", "", "git  /srv/shop.git"},
		{"http://git.example.com/team/shop.git", Gitea, "", "forge-remote"}, // without TLS
		{"https://github.com/shop.git", "", "", "forge-remote"},
		{"https://github.com/../shop.git", "", "", "forge-remote"},
		{"https://github.com//shop.git", "", "", "forge-remote"},
		{"https:///team/shop.git", "", "", "forge-remote"},
		{"ssh://-oProxyCommand=x/team/shop", "", "", "forge-remote"},
		{"-oProxyCommand=x:team/shop", "", "", "forge-remote"},
		{"ext::sh -c x", "", "", "forge-remote"},
		{"ftp://github.com/team/shop", "", "", "forge-remote"},
		{"https://github.com/te am/shop", "", "", "forge-remote"},
		{"https://github.com/team/shop?x=\n", "", "", "forge-remote"},
		{"", "", "", "forge-remote"},
		{"https://git.example.com/team/shop", "svn", "", "forge-kind"},
		{"https://git.example.com/team/shop", Gitea, "http://git.example.com", "forge-url"},
		{"https://git.example.com/team/shop", Gitea, "https://u:p@git.example.com", "forge-url"},
	} {
		f, err := Open(t.Context(), c.remote, Options{Kind: c.kind, URL: c.url})
		got := ""
		if err != nil {
			if got = code(t, err); strings.Contains(err.Error(), "password") {
				t.Errorf("%s: the password is in %v", c.remote, err)
			}
		} else {
			got = strings.Join([]string{string(f.Kind), f.URL, f.Path}, " ")
			if f.Kind == Plain && (f.Why == nil || f.Why.Hint == "") {
				t.Errorf("%s: plain without a reason", c.remote)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q (%v)", c.remote, got, c.want, err)
		}
	}
}

// The API's address by the pages'.
func TestAPI(t *testing.T) {
	for remote, want := range map[string]string{
		"https://github.com/a/b":           "https://api.github.com https://api.github.com/graphql",
		"https://acme.ghe.com/a/b":         "https://api.acme.ghe.com https://api.acme.ghe.com/graphql",
		"https://gitlab.com/a/b":           "https://gitlab.com/api/v4 ",
		"https://codeberg.org/a/b":         "https://codeberg.org/api/v1 ",
		"https://github.example.com/a/b?x": "https://github.example.com/api/v3 https://github.example.com/api/graphql",
	} {
		o := Options{}
		if strings.Contains(remote, "example") {
			o.Kind = GitHub
		}
		f, err := Open(t.Context(), remote, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.client.base + " " + f.client.graph; got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

// What a host says of itself when it is asked, without a token. Real Gitea is in TestGitea; GitHub and GitLab are where the rest of them is.
func TestDetect(t *testing.T) {
	var answer map[string]http.HandlerFunc
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the token went to what is not known: %s", r.URL)
		}
		if h := answer[r.URL.Path]; h != nil {
			h(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	json := func(status int, text string, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { reply(w, status, text, headers...) }
	}
	page := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>Sign in")) }
	open := func(remote string) *Forge {
		t.Helper()
		f, err := Open(t.Context(), remote, Options{Sources: []Source{given}})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for name, c := range map[string]struct {
		answer map[string]http.HandlerFunc
		kind   Kind
		why    string
	}{
		"Gitea":                          {map[string]http.HandlerFunc{"/api/v1/version": json(200, `{"version":"1.26.0"}`)}, Gitea, ""},
		"Gitea for its users only":       {map[string]http.HandlerFunc{"/api/v1/version": json(403, `{"message":"Only signed in user is allowed to call APIs."}`)}, Gitea, ""},
		"GitLab with an open version":    {map[string]http.HandlerFunc{"/api/v4/version": json(200, `{"version":"18.1.0","revision":"x"}`)}, GitLab, ""},
		"GitHub Enterprise, private":     {map[string]http.HandlerFunc{"/api/v3/meta": json(401, `{"message":"Must authenticate to access this API."}`, "X-GitHub-Request-Id", "x")}, GitHub, ""},
		"Gerrit":                         {map[string]http.HandlerFunc{"/config/server/version": json(200, ")]}'\n\"3.9.1\"\n")}, Gerrit, ""},
		"nothing":                        {nil, Plain, "forge-unknown"},
		"a page for everything":          {map[string]http.HandlerFunc{"/api/v1/version": page, "/api/v4/version": page, "/api/v3/meta": page, "/config/server/version": page}, Plain, "forge-unknown"},
		"other JSON":                     {map[string]http.HandlerFunc{"/api/v1/version": json(200, `{}`), "/api/v4/version": json(403, `{"message":"no"}`), "/config/server/version": json(200, `"3"`)}, Plain, "forge-unknown"},
		"a sign-in on another host":      {map[string]http.HandlerFunc{"/api/v1/version": json(302, ``, "Location", "https://sso.example.com/")}, Plain, "forge-moved"},
		"GitLab behind one for v1 alone": {map[string]http.HandlerFunc{"/api/v1/version": json(302, ``, "Location", "/users/sign_in"), "/api/v4/version": json(401, `{"message":"401 Unauthorized"}`)}, GitLab, ""},
	} {
		answer = c.answer
		f := open(srv.URL + "/team/shop.git")
		if f.Kind != c.kind || (f.Why == nil) != (c.why == "") || f.Why != nil && (f.Why.Code != c.why || f.Why.Hint == "") {
			t.Errorf("%s: a %s: %+v", name, f.Kind, f.Why)
		}
		if f.driver == nil {
			if _, err := f.Find(t.Context(), Head{Branch: "b"}, ""); code(t, err) != "forge-none" {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	answer = map[string]http.HandlerFunc{"/config/server/version": json(200, ")]}'\n\"3.9.1\"\n")}
	if f := open(srv.URL + "/a/tools"); f.Kind != Gerrit || f.Path != "tools" { // its projects need no owner
		t.Errorf("Gerrit's project is %s of a %s", f.Path, f.Kind)
	}
	srv.Close()
	f := open(srv.URL + "/team/shop.git")
	if f.Kind != Plain || f.Why.Code != "forge-away" {
		t.Errorf("a server that is gone: a %s: %v", f.Kind, f.Why)
	}
	// The registry's reviews were asked for with a token: that there can be none is an error.
	env := map[string]string{TokenVariable: secret, URLVariable: srv.URL}
	getenv := func(k string) string { return env[k] }
	if r, err := FromEnvironment(t.Context(), srv.URL+"/team/registry.git", getenv); r != nil || code(t, err) != "forge-away" {
		t.Errorf("a registry on a server that is gone: %v", err)
	}
	if r, err := FromEnvironment(t.Context(), "/srv/registry.git", getenv); r != nil || err != nil {
		t.Errorf("a registry in a folder: %v", err)
	}
	env[URLVariable] = "https://git.example.com"
	if r, err := FromEnvironment(t.Context(), srv.URL+"/team/registry.git", getenv); r != nil || err != nil {
		t.Errorf("another forge's token: %v, %v", r, err)
	}
}

// Without a token the registry's review is opened by hand.
func TestByHand(t *testing.T) {
	for remote, want := range map[string]string{
		"https://github.com/team/registry.git": "https://github.com/team/registry/compare/main...fix",
		"git@gitlab.com:t/s/r.git":             "https://gitlab.com/t/s/r/-/merge_requests/new?merge_request%5Bsource_branch%5D=fix&merge_request%5Btarget_branch%5D=main",
		"https://git.example.com/t/r.git":      "", "/srv/registry.git": "", "https://github.com.evil.example/t/r": "", "https://go.googlesource.com/tools": "", "": "",
	} {
		r, err := FromEnvironment(t.Context(), remote, func(string) string { return "" })
		if (r == nil) != (want == "") || err != nil {
			t.Errorf("%s: %v, %v", remote, r, err)
		}
		if r == nil {
			continue
		}
		page, err := r.Draft(t.Context(), registryReview("c0ffee"))
		open, err2 := r.Pending(t.Context(), "fix")
		if page != want || !open || err != nil || err2 != nil {
			t.Errorf("%s: %s, %v, %v, %v", remote, page, open, err, err2)
		}
	}
}

// A host that the user's ssh has another name for: the real ssh reads the real configuration.
func TestAlias(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config"), "Host work\n  HostName GitHub.com\n  User git\n")
	script := "#!/bin/sh\nexec " + ssh + " -F " + filepath.Join(dir, "config") + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	f, err := Open(t.Context(), "git@work:team/shop.git", Options{})
	if err != nil || f.Kind != GitHub || f.URL != "https://github.com" || f.Path != "team/shop" {
		t.Errorf("got %+v, %v", f, err)
	}
}

func TestLinks(t *testing.T) {
	for remote, want := range map[string][2]string{
		"git@github.com:team/shop.git":   {"https://github.com/team/shop/compare/main...feature/a%23b", "https://github.com/team/shop/compare/main...mira:feature/a%23b"},
		"git@codeberg.org:team/shop.git": {"https://codeberg.org/team/shop/compare/main...feature/a%23b", "https://codeberg.org/team/shop/compare/main...mira:feature/a%23b"},
		"git@gitlab.com:shop/api/x.git": {"https://gitlab.com/shop/api/x/-/merge_requests/new?merge_request%5Bsource_branch%5D=feature%2Fa%23b&merge_request%5Btarget_branch%5D=main",
			"https://gitlab.com/mira/x/-/merge_requests/new?merge_request%5Bsource_branch%5D=feature%2Fa%23b&merge_request%5Btarget_branch%5D=main"},
		"git@bitbucket.org:team/shop.git":     {"https://bitbucket.org/team/shop/pull-requests/new?dest=main&source=feature%2Fa%23b", "https://bitbucket.org/team/shop/pull-requests/new?dest=main&source=feature%2Fa%23b"},
		"https://go.googlesource.com/tools":   {"", ""},
		"https://git.sr.ht/~mira/shop":        {"", ""},
		"/srv/git/with/an/odd: name/shop":     {"", ""},
		"ssh://git@altssh.gitlab.com/a/b.git": {"https://gitlab.com/a/b/-/merge_requests/new?merge_request%5Bsource_branch%5D=feature%2Fa%23b&merge_request%5Btarget_branch%5D=main", "https://gitlab.com/mira/x/-/merge_requests/new?merge_request%5Bsource_branch%5D=feature%2Fa%23b&merge_request%5Btarget_branch%5D=main"},
	} {
		f, err := Open(t.Context(), remote, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]string{f.Compare(Head{Branch: "feature/a#b"}, "main"), f.Compare(Head{Owner: "mira", Repo: "x", Branch: "feature/a#b"}, "main")}; got != want {
			t.Errorf("%s: %q", remote, got)
		}
		here, there := f.Issue(strings.ToUpper(f.Path), 12), f.Issue("other/repo", 3)
		if f.driver == nil && here+there != "" || f.driver != nil && (here != "#12" || there != "other/repo#3") {
			t.Errorf("%s: issues are %q and %q", remote, here, there)
		}
	}
}
