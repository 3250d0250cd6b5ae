package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// TestMain is also the process that is killed in the middle of a submission.
func TestMain(m *testing.M) {
	if dir := os.Getenv("REGISTRY_TEST_DIR"); dir != "" {
		killed(dir, os.Getenv("REGISTRY_TEST_REMOTE"), os.Getenv("REGISTRY_TEST_KILL"))
	}
	home, err := os.MkdirTemp("", "registry-test-")
	if err != nil {
		panic(err)
	}
	os.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, "gitconfig"))
	os.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	code := m.Run()
	os.RemoveAll(home)
	os.Exit(code)
}

// gitDo runs git as a person does, in a folder.
func gitDo(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=Mira", "GIT_AUTHOR_EMAIL=mira@example.com", "GIT_COMMITTER_NAME=Mira", "GIT_COMMITTER_EMAIL=mira@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// bare makes a remote with files.
func bare(t *testing.T, files map[string]string) string {
	t.Helper()
	remote := filepath.Join(t.TempDir(), "remote.git")
	gitDo(t, "", "init", "-q", "--bare", "-b", "main", remote)
	if len(files) > 0 {
		pushFiles(t, remote, "main", files)
	}
	return remote
}

// pushFiles commits files as a person does, with a work tree of his own, and returns the commit.
func pushFiles(t *testing.T, remote, branch string, files map[string]string) string {
	t.Helper()
	work := t.TempDir()
	gitDo(t, "", "clone", "-q", remote, work)
	if gitDo(t, work, "ls-remote", remote, "refs/heads/"+branch) != "" {
		gitDo(t, work, "checkout", "-q", branch)
	} else {
		gitDo(t, work, "checkout", "-q", "-B", branch)
	}
	for name, text := range files {
		p := filepath.Join(work, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gitDo(t, work, "add", "-A")
	gitDo(t, work, "commit", "-q", "-m", "by hand")
	gitDo(t, work, "push", "-q", remote, "HEAD:refs/heads/"+branch)
	return gitDo(t, work, "rev-parse", "HEAD")
}

func open(t *testing.T, opts Options) *Registry {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	r, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func snapshot(t *testing.T, r *Registry) *Snapshot {
	t.Helper()
	s, err := r.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func submit(t *testing.T, r *Registry, q Request) Result {
	t.Helper()
	res, err := r.Submit(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

var mira = Author{Name: "Mira Öz", Email: "mira@example.com"}

func ask(id, caller, callee string, methods ...string) Request {
	return Request{ID: id, Caller: caller, Callee: callee, Methods: methods, Reason: "to charge", Author: mira}
}

// code is the problem's that an error is.
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

func TestEmbedded(t *testing.T) {
	dir := t.TempDir()
	r := open(t, Options{Dir: dir})
	if s := snapshot(t, r); s.Revision != "" || len(s.Services) != 0 || len(s.Problems) != 0 {
		t.Fatalf("a new registry has %+v", s)
	}
	// The reason tries to be a trailer, and the end of a document.
	q := ask("request-1", "checkout", "billing", "/billing.v1.Billing/Charge")
	q.Reason, q.Environments = "because\n\nRequest-Id: request-2\n---\n", "fresh"
	res := submit(t, r, q)
	if !res.Granted || res.Review != "" || !slices.Equal(res.Changed, q.Methods) || res.Time.IsZero() {
		t.Fatalf("got %+v", res)
	}
	log := gitDo(t, r.Where(), "log", "-1", "--format=%an <%ae>, %cn: %s; %(trailers:key=Request-Id,valueonly)", res.Revision)
	if want := "Mira Öz <mira@example.com>, Fairlead: checkout: call billing; request-1"; log != want {
		t.Errorf("the commit is %q, want %q", log, want)
	}
	if s := snapshot(t, open(t, Options{Dir: dir})); s.Revision != res.Revision || s.Grant("checkout", "billing").Environments != "fresh" || s.Grant("checkout", "billing").Reason != "because Request-Id: request-2 ---" {
		t.Errorf("another process has %+v", s.Services["checkout"])
	}

	again := submit(t, r, q)
	want := res
	want.Repeated = true
	if d := cmp.Diff(want, again); d != "" {
		t.Errorf("the same ID again:\n%s", d)
	}
	if res := submit(t, r, ask("request-2", "checkout", "billing", "/billing.v1.Billing/Refund")); res.Repeated || len(res.Changed) != 1 {
		t.Errorf("a reason passed for another request: %+v", res)
	}
	if res := submit(t, r, ask("request-3", "checkout", "billing", "/billing.v1.Billing/Charge")); !res.Granted || res.Changed != nil || res.Repeated {
		t.Errorf("what is granted, asked for again: %+v", res)
	}
	// Granted, taken back by hand, and the same form again: it is no new request.
	pushFiles(t, r.Where(), "main", map[string]string{"services/checkout.yaml": "version: 1\nname: checkout\n"})
	if submit(t, r, q); snapshot(t, r).Grant("checkout", "billing") != nil {
		t.Error("a form that was submitted before granted again what was taken back")
	}
}

func TestRequestIsChecked(t *testing.T) {
	r := open(t, Options{})
	for name, change := range map[string]func(*Request){
		"id":        func(q *Request) { q.ID = "a\nb" },
		"traversal": func(q *Request) { q.Caller = "../../etc/passwd" },
		"option":    func(q *Request) { q.Callee = "--upload-pack=x" },
		"itself":    func(q *Request) { q.Callee = q.Caller },
		"method":    func(q *Request) { q.Methods = []string{"Charge"} },
		"none":      func(q *Request) { q.Methods = nil },
		"mode":      func(q *Request) { q.Environments = "off" },
		"base":      func(q *Request) { q.Base = "--all" },
		"reason":    func(q *Request) { q.Reason = "\x1b[2J" },
		"email":     func(q *Request) { q.Author.Email = "Mira <mira@example.com>" },
		"author":    func(q *Request) { q.Author.Name = "Mira\nRequest-Id: x" },
	} {
		q := ask("request-1", "checkout", "billing", "/a.B/C")
		change(&q)
		_, err := r.Submit(t.Context(), q)
		if c := code(t, err); c != "registry-request" && c != "registry-author" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := snapshot(t, r); s.Revision != "" {
		t.Error("a wrong request left a commit")
	}
}

// 200 submissions from 16 writers, each with a clone of its own, none lost and none doubled. Every fourth is submitted twice, by
// two writers at once.
func TestManyWriters(t *testing.T) {
	const writers, total = 16, 200
	remote := bare(t, map[string]string{"services/billing.yaml": "version: 1\nname: billing\n", "services/s0.yaml": "version: 1\nname: s0 # the first\n"})
	var wg sync.WaitGroup
	start := time.Now()
	for w := range writers {
		r := open(t, Options{Remote: remote})
		wg.Go(func() {
			for i := range total {
				if i%writers != w && (i%4 != 0 || (i+1)%writers != w) {
					continue
				}
				q := ask(fmt.Sprintf("request-%d", i), fmt.Sprintf("s%d", i%5), "billing", fmt.Sprintf("/billing.v1.Billing/M%d", i))
				if res, err := r.Submit(t.Context(), q); err != nil || !res.Granted {
					t.Errorf("request %d: %+v, %v", i, res, err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d submissions by %d writers took %.1f s", total, writers, time.Since(start).Seconds())
	s := snapshot(t, open(t, Options{Remote: remote}))
	if len(s.Problems) > 0 {
		t.Fatal(s.Problems[0])
	}
	have := map[string]int{}
	for _, svc := range s.Services {
		for _, g := range svc.Calls {
			for _, m := range g.Methods {
				have[m]++
			}
		}
	}
	for i := range total {
		if n := have[fmt.Sprintf("/billing.v1.Billing/M%d", i)]; n != 1 {
			t.Errorf("method %d is there %d times", i, n)
		}
	}
	if n := gitDo(t, remote, "rev-list", "--count", "main"); n != fmt.Sprint(total+1) {
		t.Errorf("%s commits, want %d", n, total+1)
	}
	if !strings.Contains(gitDo(t, remote, "show", "main:services/s0.yaml"), "name: s0 # the first\n") {
		t.Error("a comment was lost")
	}
}

// killed submits, and is killed before or after the push.
func killed(dir, remote, when string) {
	r, err := Open(context.Background(), Options{Dir: dir, Remote: remote})
	if err != nil {
		panic(err)
	}
	die := func() {
		self, _ := os.FindProcess(os.Getpid())
		_ = self.Kill()
		select {}
	}
	if when == "before" {
		r.beforePush = die
	}
	if _, err := r.Submit(context.Background(), ask("request-1", "checkout", "billing", "/a.B/C")); err != nil {
		panic(err)
	}
	die()
}

func TestKilled(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		remote, dir := bare(t, nil), t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "REGISTRY_TEST_DIR="+dir, "REGISTRY_TEST_REMOTE="+remote, "REGISTRY_TEST_KILL="+when)
		if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("it was not killed: %v\n%s", err, out)
		}
		r := open(t, Options{Dir: dir, Remote: remote})
		res := submit(t, r, ask("request-1", "checkout", "billing", "/a.B/C"))
		if !res.Granted || res.Repeated != (when == "after") {
			t.Errorf("%s the push: %+v", when, res)
		}
		if n := gitDo(t, remote, "rev-list", "--count", "main"); n != "1" {
			t.Errorf("killed %s the push: %s commits", when, n)
		}
	}
}

// forge is a Reviewer that only remembers.
type forge struct {
	open   bool
	drafts []Review
	err    error
}

func (f *forge) Draft(_ context.Context, r Review) (string, error) {
	if f.err != nil {
		return "", f.err
	}
	f.open, f.drafts = true, append(f.drafts, r)
	return "https://git.example.com/pulls/1", nil
}

func (f *forge) Pending(context.Context, string) (bool, error) { return f.open, nil }

func TestReview(t *testing.T) {
	for _, kind := range []string{"plain", "forge"} {
		t.Run(kind, func(t *testing.T) {
			remote := bare(t, map[string]string{
				"services/billing.yaml":  "version: 1\nname: billing\nteam: money\naccess: review\n",
				"services/checkout.yaml": "# ours\nversion: 1\nname: checkout\n",
			})
			main := gitDo(t, remote, "rev-parse", "main")
			opts, f := Options{Remote: remote}, &forge{}
			if kind == "forge" {
				opts.Reviewer = f
			}
			r := open(t, opts)
			one := ask("request-1", "checkout", "billing", "/a.B/One")
			if kind == "forge" {
				f.err = &api.Problem{Code: "forge-away", Message: "away", Hint: "later"}
				if _, err := r.Submit(t.Context(), one); code(t, err) != "forge-away" {
					t.Fatal(err)
				}
				f.err = nil
			}
			first := submit(t, r, one)
			if first.Granted || !strings.HasPrefix(first.Branch, "fairlead/checkout-billing-") || first.Why != "billing is reviewed by its owners, team money" {
				t.Fatalf("got %+v", first)
			}
			if first.Repeated != (kind == "forge") || (first.Review != "") != (kind == "forge") {
				t.Errorf("got %+v", first)
			}
			if _, patterns := snapshot(t, r).Grants("checkout", "billing"); patterns != nil {
				t.Error("what is reviewed is in force")
			}
			second := submit(t, r, ask("request-2", "checkout", "billing", "/a.B/Two"))
			if second.Branch != first.Branch {
				t.Errorf("a second request has the branch %s beside %s", second.Branch, first.Branch)
			}
			// The same again, as a lost answer makes one press the button again.
			if again := submit(t, r, one); !again.Repeated || again.Revision != first.Revision {
				t.Errorf("the same ID again: %+v, first %+v", again, first)
			}
			if n := gitDo(t, remote, "rev-list", "--count", main+".."+first.Branch); n != "2" {
				t.Errorf("the branch has %s commits, want 2", n)
			}
			text := gitDo(t, remote, "show", first.Branch+":services/checkout.yaml")
			if !strings.HasPrefix(text, "# ours\n") || !strings.Contains(text, "/a.B/One") || !strings.Contains(text, "/a.B/Two") {
				t.Errorf("the branch says\n%s", text)
			}
			if gitDo(t, remote, "rev-parse", "main") != main {
				t.Error("the branch in force has moved")
			}

			// Merged as another commit, as forges squash: the next request begins anew on it.
			pushFiles(t, remote, "main", map[string]string{"services/checkout.yaml": text + "\n"})
			f.open = false
			if governed, patterns := snapshot(t, r).Grants("checkout", "billing"); !governed || len(patterns) != 2 {
				t.Errorf("merged: %v %v", governed, patterns)
			}
			third := submit(t, r, ask("request-3", "checkout", "billing", "/a.B/Three"))
			if n := gitDo(t, remote, "rev-list", "--count", "main.."+third.Branch); n != "1" {
				t.Errorf("after the merge the branch has %s commits beside the one in force, want 1", n)
			}
			if kind == "forge" && (len(f.drafts) != 4 || f.drafts[3].Head != third.Revision || f.drafts[3].Base != "main" || !strings.Contains(f.drafts[3].Body, "Mira")) {
				t.Errorf("the forge was told %+v", f.drafts)
			}
		})
	}
}

func TestFormOfLongAgo(t *testing.T) {
	billing := "version: 1\nname: billing\nendpoints: [{method: /a.B/Old}, {method: /a.B/Kept}]\n"
	remote := bare(t, map[string]string{"services/billing.yaml": billing})
	r := open(t, Options{Remote: remote})
	base := snapshot(t, r).Revision
	pushFiles(t, remote, "main", map[string]string{"services/billing.yaml": "version: 1\nname: billing\nendpoints: [{method: /a.B/Kept}]\n", "services/other.yaml": "version: 1\nname: other\n"})
	q := ask("request-1", "checkout", "billing", "/a.B/Old")
	q.Base = base
	if _, err := r.Submit(t.Context(), q); code(t, err) != "registry-changed" || !strings.Contains(err.Error(), "/a.B/Old") {
		t.Errorf("a method that is gone: %v", err)
	}
	q.Methods = []string{"/a.B/Kept"}
	if res := submit(t, r, q); !res.Granted {
		t.Errorf("a method that is still there: %+v", res)
	}
}

func TestRefused(t *testing.T) {
	remote := bare(t, map[string]string{"services/checkout.yaml": "version: 1\nname: checkout\ncalls: {}\n"})
	r := open(t, Options{Remote: remote})
	if _, err := r.Submit(t.Context(), ask("request-1", "checkout", "billing", "/a.B/C")); code(t, err) != "registry-broken" {
		t.Errorf("a broken file: %v", err)
	}
	hook := filepath.Join(remote, "hooks", "pre-receive")
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho main is protected >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Submit(t.Context(), ask("request-1", "orders", "billing", "/a.B/C")); code(t, err) != "registry-refused" {
		t.Errorf("a server that refuses: %v", err)
	}
	if err := os.Rename(remote, remote+".away"); err != nil {
		t.Fatal(err)
	}
	before := r.Last()
	s, err := r.Snapshot(t.Context())
	if code(t, err) != "registry-missing" || s != before || s == nil {
		t.Errorf("a remote that is gone: %v, the last snapshot: %v", err, s == before)
	}
	if s, err := open(t, Options{Dir: r.opts.Dir, Remote: remote}).Snapshot(t.Context()); code(t, err) != "registry-missing" || s == nil || s.Revision != before.Revision {
		t.Errorf("the next process, without the remote: %v, %v", s, err)
	}
}

func TestRemotesAreChecked(t *testing.T) {
	for remote, ok := range map[string]bool{
		"https://git.example.com/team/registry.git": true, "ssh://git@git.example.com/team/registry.git": true, "git@git.example.com:team/registry.git": true, "/srv/registry.git": true,
		"https://user:secret@git.example.com/r.git": false, "https://token@git.example.com/r.git": false, "ext::sh -c touch% /tmp/x": false, "--upload-pack=x": false,
		"ssh://-oProxyCommand=x/r": false, "registry.git": false, "git://git.example.com/r.git": false, "https://git.example.com/\nr": false, "ftp://x/y": false,
	} {
		p := CheckRemote(remote)
		if (p == nil) != ok {
			t.Errorf("%s: %v", remote, p)
		}
		if p != nil && (strings.Contains(p.Message+p.Hint, "secret") || strings.Contains(p.Message+p.Hint, "token")) {
			t.Errorf("the problem repeats a credential: %v", p)
		}
	}
	if _, err := Open(t.Context(), Options{Dir: t.TempDir(), Branch: "--x"}); code(t, err) != "registry-branch" {
		t.Errorf("a branch: %v", err)
	}
}

// Nothing of the user's git settings or of the repository is run.
func TestRunsNothing(t *testing.T) {
	dir := t.TempDir()
	mark := filepath.Join(dir, "ran")
	hook := "#!/bin/sh\necho ran >" + mark + "\n"
	hooks := filepath.Join(dir, "template", "hooks")
	if err := os.MkdirAll(hooks, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"pre-push", "post-update", "pre-receive", "reference-transaction"} {
		if err := os.WriteFile(filepath.Join(hooks, h), []byte(hook), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "gitconfig")
	text := fmt.Sprintf("[init]\n\ttemplateDir = %s\n[core]\n\thooksPath = %s\n\tfsmonitor = touch %s\n[filter \"x\"]\n\tclean = touch %s\n\tsmudge = touch %s\n[commit]\n\tgpgSign = true\n", filepath.Dir(hooks), hooks, mark, mark, mark)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", conf)
	t.Setenv("GIT_OBJECT_DIRECTORY", filepath.Join(dir, "nowhere"))
	r := open(t, Options{})
	submit(t, r, ask("request-1", "checkout", "billing", "/a.B/C"))
	if _, err := os.Stat(mark); !os.IsNotExist(err) {
		t.Errorf("something was run: %v", err)
	}
}

func TestWatch(t *testing.T) {
	remote := bare(t, map[string]string{"services/a.yaml": "version: 1\nname: a\n"})
	r, other := open(t, Options{Remote: remote}), open(t, Options{Remote: remote})
	type told struct {
		s   *Snapshot
		err error
	}
	heard := make(chan told, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Watch(ctx, func(s *Snapshot, err error) { heard <- told{s, err} }) })
	defer wg.Wait()
	defer cancel()
	next := func(what string, revision string) told {
		t.Helper()
		select {
		case got := <-heard:
			if got.err == nil && got.s.Revision != revision {
				t.Fatalf("%s: revision %s, want %s", what, got.s.Revision, revision)
			}
			return got
		case <-time.After(time.Minute):
			t.Fatalf("%s: nothing was told", what)
		}
		panic("unreachable")
	}
	next("at first", gitDo(t, remote, "rev-parse", "main"))
	rev := submit(t, other, ask("request-1", "a", "b", "/a.B/C")).Revision
	start := time.Now()
	next("another's submission", rev)
	t.Logf("another's submission was told after %d ms", time.Since(start).Milliseconds())
	rev = pushFiles(t, remote, "main", map[string]string{"services/b.yaml": "version: 1\nname: b\n"})
	next("a push by hand", rev)
	rev = submit(t, r, ask("request-2", "b", "a", "/a.B/C")).Revision
	next("one's own submission", rev)

	if err := os.Rename(remote, remote+".away"); err != nil {
		t.Fatal(err)
	}
	if got := next("a remote that is away", ""); code(t, got.err) != "registry-missing" || got.s.Revision != rev {
		t.Errorf("told %v", got)
	}
	if err := os.Rename(remote+".away", remote); err != nil {
		t.Fatal(err)
	}
	if got := next("a remote that is back", rev); got.err != nil {
		t.Errorf("told %v", got.err)
	}
}

// A remote that is asked once an hour is asked at once, and on, while somebody expects a change.
func TestExpect(t *testing.T) {
	remote := bare(t, map[string]string{"services/a.yaml": "version: 1\nname: a\n"})
	r, other := open(t, Options{Remote: remote, Poll: time.Hour}), open(t, Options{Remote: remote})
	heard := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Watch(ctx, func(s *Snapshot, _ error) { heard <- s.Revision }) })
	defer wg.Wait()
	defer cancel()
	<-heard
	for i := range 2 {
		if i == 0 {
			r.Expect(time.Hour)
		}
		want := submit(t, other, ask(fmt.Sprintf("request-%d", i), "a", "b", fmt.Sprintf("/a.B/C%d", i))).Revision
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("told of %s, want %s", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("nothing was told")
		}
	}
}

// A remote by HTTP, as git itself serves it, with a login that git's own credential helper has.
func TestHTTP(t *testing.T) {
	remote := bare(t, nil)
	gitDo(t, remote, "config", "http.receivepack", "true")
	backend := filepath.Join(gitDo(t, "", "--exec-path"), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Fatalf("git's HTTP server is missing: %v", err)
	}
	h := &cgi.Handler{Path: backend, Root: "/", Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(remote), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1"}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != "mira" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, req)
	}))
	defer srv.Close()
	r := open(t, Options{Remote: srv.URL + "/remote.git"})
	_, err := r.Snapshot(t.Context())
	if code(t, err) != "registry-login" {
		t.Errorf("without a login: %v", err)
	}
	dir := t.TempDir()
	credentials := filepath.Join(dir, "credentials")
	if err := os.WriteFile(credentials, []byte(strings.Replace(srv.URL, "http://", "http://mira:secret@", 1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "gitconfig")
	if err := os.WriteFile(conf, []byte("[credential]\n\thelper = store --file="+credentials+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", conf)
	res := submit(t, r, ask("request-1", "checkout", "billing", "/a.B/C"))
	if !res.Granted || gitDo(t, remote, "rev-parse", "main") != res.Revision {
		t.Errorf("got %+v", res)
	}
	pushFiles(t, remote, "main", map[string]string{"services/billing.yaml": "version: 1\nname: billing\n"})
	if governed, patterns := snapshot(t, r).Grants("checkout", "billing"); !governed || len(patterns) != 1 {
		t.Errorf("fetched: %v %v", governed, patterns)
	}
	srv.Close()
	if _, err := r.Snapshot(t.Context()); code(t, err) != "registry-away" {
		t.Errorf("a server that is gone: %v", err)
	}
}
