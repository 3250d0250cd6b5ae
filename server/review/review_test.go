package review

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// repo is a work tree with a bare remote beside it.
type repo struct {
	t      testing.TB
	home   string
	work   string
	remote string
	env    []string
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	dir := t.TempDir()
	r := &repo{t: t, home: filepath.Join(dir, "home"), work: filepath.Join(dir, "work"), remote: filepath.Join(dir, "remote.git")}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); !strings.HasPrefix(name, "GIT_") && name != "HOME" && name != "XDG_CONFIG_HOME" && name != "FAIRLEAD_FORGE" {
			r.env = append(r.env, kv)
		}
	}
	r.env = append(r.env, "HOME="+r.home, "XDG_CONFIG_HOME="+r.home, "GIT_CONFIG_NOSYSTEM=1")
	r.file(r.home+"/.gitconfig", "[user]\n\tname = Mira\n\temail = mira@example.com\n[init]\n\tdefaultBranch = main\n[protocol \"file\"]\n\tallow = always\n")
	r.git("init", "-q", r.work)
	r.git("init", "-q", "--bare", r.remote)
	r.file("go.mod", "module example.com/shop\n")
	r.file("total.go", "package shop\n\nfunc Total(n int) int {\n\treturn n\n}\n")
	r.file(".github/pull_request_template.md", "## What\n\n## Testing\n")
	r.git("add", "-A")
	r.git("commit", "-qm", "shop: first")
	r.git("remote", "add", "origin", r.remote)
	r.git("push", "-q", "-u", "origin", "main")
	r.git("remote", "set-head", "origin", "main")
	return r
}

// file writes one, below the work tree unless its path is absolute.
func (r *repo) file(name, text string) {
	r.t.Helper()
	if !filepath.IsAbs(name) {
		name = filepath.Join(r.work, name)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(slices.Clone(r.env), "LC_ALL=C")
	if cmd.Dir = r.work; args[0] == "init" {
		cmd.Dir = r.home
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *repo) options() Options {
	return Options{Dir: r.work, Env: r.env, Alone: true, Home: r.home, Cache: filepath.Join(r.home, "cache")}
}

func (r *repo) plan() api.ReviewPlan {
	r.t.Helper()
	p, err := Plan(r.t.Context(), r.options())
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func problem(t testing.TB, err error) *api.Problem {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Hint == "" {
		t.Fatalf("no problem with a hint: %v", err)
	}
	return p
}

// On the default branch, with work that is not committed: a branch of its own, a commit of just what was agreed to, a push, and the
// rest as it was. The remote is plain git, so the review is the branch.
func TestCreatePlain(t *testing.T) {
	r := newRepo(t)
	r.file("total.go", "package shop\n\nfunc Total(n int) int {\n\treturn n + 1\n}\n")
	r.file("new.go", "package shop\n")
	r.file("secret.env", "x")
	main := r.git("rev-parse", "main")
	p := r.plan()
	if p.Branch != "change-total" || !p.New || p.Base != "main" || p.Message != "Change Total" || len(p.Reviewers) > 0 {
		t.Errorf("%+v", p)
	}
	picked := map[string]bool{}
	for _, c := range p.Changes {
		picked[c.Path] = c.Picked
	}
	if d := cmp.Diff(map[string]bool{"total.go": true, "new.go": false, "secret.env": false}, picked); d != "" {
		t.Error(d)
	}
	if r.git("rev-parse", "--abbrev-ref", "HEAD") != "main" || r.git("rev-parse", "HEAD") != main {
		t.Error("a plan has changed something")
	}
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State}); problem(t, err).Code != "review-nothing" {
		t.Errorf("with nothing agreed to: %v", err)
	}
	if got := r.git("rev-parse", "--abbrev-ref", "HEAD"); got != "main" {
		t.Errorf("it is on %s", got)
	}
	res, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"total.go", "new.go"}, Message: "shop: one more\n\nBecause.", Branch: "mira/one-more"})
	if err != nil {
		t.Fatal(err)
	}
	if res.Branch != "mira/one-more" || res.Commit == "" || res.Pushed != 1 || !res.Compare {
		t.Errorf("%+v", res)
	}
	if got := r.git("show", "--format=%s|%b", "--name-only", "HEAD"); got != "shop: one more|Because.\n\nnew.go\ntotal.go" && got != "shop: one more|Because.\n\n\nnew.go\ntotal.go" {
		t.Errorf("the commit: %q", got)
	}
	if got := r.git("status", "--porcelain"); got != "?? secret.env" {
		t.Errorf("the rest: %q", got)
	}
	if r.git("rev-parse", "main") != main || r.git("--git-dir", r.remote, "rev-parse", "mira/one-more") != res.Commit || r.git("--git-dir", r.remote, "rev-parse", "main") != main {
		t.Error("the branches are not what they should be")
	}
	if got := r.git("rev-parse", "--abbrev-ref", "HEAD@{upstream}"); got != "origin/mira/one-more" {
		t.Errorf("upstream %s", got)
	}
	// A second press pushes what is new.
	r.file("total.go", "package shop\n\nfunc Total(n int) int {\n\treturn n + 2\n}\n")
	p = r.plan()
	if p.New || p.Branch != "mira/one-more" || p.Unpushed != 0 || len(p.Commits) != 1 || !strings.Contains(p.Body, "Because.") || p.Title != "shop: one more" {
		t.Errorf("%+v", p)
	}
	res, err = Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"total.go"}, Message: "two more"})
	if err != nil || res.Pushed != 1 || r.git("--git-dir", r.remote, "rev-parse", "mira/one-more") != r.git("rev-parse", "HEAD") {
		t.Errorf("%+v %v", res, err)
	}
}

// What is staged in part is committed as it is staged, and never more than that.
func TestCreateStaged(t *testing.T) {
	r := newRepo(t)
	r.git("switch", "-qc", "SHOP-4-total")
	r.file("total.go", "package shop\n\nfunc Total(n int) int {\n\treturn n + 1\n}\n")
	r.git("add", "total.go")
	r.file("total.go", "package shop\n\nfunc Total(n int) int {\n\treturn n + 1 // not yet\n}\n")
	r.file("other.go", "package shop\n")
	p := r.plan()
	if p.Ticket == nil || p.Ticket.Key != "SHOP-4" {
		t.Errorf("ticket %+v", p.Ticket)
	}
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"total.go", "other.go"}, Message: "x"}); problem(t, err).Code != "review-partial" {
		t.Errorf("%v", err)
	}
	if got := r.git("status", "--porcelain"); got != "MM total.go\n?? other.go" {
		t.Errorf("after the refusal: %q", got)
	}
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"total.go"}, Message: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := r.git("show", "HEAD:total.go"); strings.Contains(got, "not yet") || !strings.Contains(got, "n + 1") {
		t.Errorf("committed: %s", got)
	}
	if got := r.git("status", "--porcelain"); got != "M total.go\n?? other.go" && got != " M total.go\n?? other.go" {
		t.Errorf("the rest: %q", got)
	}
}

// What a person has seen is told from everything else, also what has the same name, size and time, and what is staged beneath it.
func TestState(t *testing.T) {
	r := newRepo(t)
	r.git("init", "-q", r.home+"/sub")
	sub := func(args ...string) { r.git(append([]string{"-C", r.work + "/sub"}, args...)...) }
	r.git("-C", r.home+"/sub", "commit", "-q", "--allow-empty", "-m", "first")
	r.git("submodule", "--quiet", "add", r.home+"/sub", "sub")
	r.file("link.txt", "x")
	r.git("add", "-A")
	r.git("commit", "-qm", "more")
	at := time.Now().Add(-time.Hour)
	same := func(name, text string) {
		r.file(name, text)
		if err := os.Chtimes(filepath.Join(r.work, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to string) {
		os.Remove(r.work + "/link.txt")
		if err := os.Symlink(to, r.work+"/link.txt"); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]string{}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"nothing", func() {}},
		{"an edit", func() { same("total.go", "package a") }},
		{"another of the same size", func() { same("total.go", "package b") }},
		{"a new file", func() { r.file("new.go", "package shop") }},
		{"more of it", func() { r.file("new.go", "package shop // more") }},
		{"what is staged", func() { r.git("add", "total.go") }},
		{"more than what is staged", func() { same("total.go", "package c") }},
		{"other than what was staged", func() { r.git("add", "total.go"); same("total.go", "package d") }},
		{"a symbolic link", func() { link("a") }},
		{"another", func() { link("b") }},
		{"a commit of a submodule", func() { sub("commit", "-q", "--allow-empty", "-m", "second") }},
		{"another of it", func() { sub("commit", "-q", "--allow-empty", "-m", "third") }},
		{"a removal", func() { os.Remove(r.work + "/go.mod") }},
		{"the branch", func() { r.git("switch", "-qc", "(detached)") }},
		{"none", func() { r.git("switch", "-q", "--detach") }},
	} {
		step.do()
		state := func() (string, *tree) {
			tr, err := look(t.Context(), r.work, r.env, true)
			if err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			s, err := tr.state(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			return s, tr
		}
		s, tr := state()
		if was, ok := seen[s]; ok {
			t.Errorf("%s is taken for %s", step.name, was)
		}
		seen[s] = step.name
		// A fetch changes nothing that was seen.
		r.git("update-ref", "refs/remotes/origin/main", map[bool]string{true: "HEAD", false: "HEAD~1"}[len(seen)%2 == 0])
		if again, _ := state(); again != s {
			t.Errorf("%s is not what it was a moment before", step.name)
		}
		if want := map[string]string{"the branch": "(detached)"}; tr.branch != want[step.name] && (tr.branch != "main" || step.name == "none") {
			t.Errorf("%s: the branch is %q", step.name, tr.branch)
		}
	}
}

// A hook that refuses leaves everything as it was, also the branch that was begun for the commit; its words are told.
func TestCreateRefused(t *testing.T) {
	r := newRepo(t)
	r.file(".git/hooks/pre-commit", "#!/bin/sh\necho the linter says no >&2\nexit 1\n")
	r.file("new.go", "package shop\n")
	p := r.plan()
	_, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"new.go"}, Message: "x"})
	if pr := problem(t, err); pr.Code != "review-commit" || !strings.Contains(pr.Message, "the linter says no") {
		t.Errorf("%+v", pr)
	}
	if got := r.git("status", "--porcelain", "--branch"); got != "## main...origin/main\n?? new.go" {
		t.Errorf("after it: %q", got)
	}
	if got := r.git("branch", "--format=%(refname:short)"); got != "main" {
		t.Errorf("branches: %q", got)
	}
	// Detached it comes back to where it was, too.
	r.git("switch", "-q", "--detach")
	p = r.plan()
	if !p.New {
		t.Errorf("detached: %+v", p)
	}
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"new.go"}, Message: "x"}); problem(t, err).Code != "review-commit" {
		t.Error(err)
	}
	if got := r.git("status", "--porcelain", "--branch"); got != "## HEAD (no branch)\n?? new.go" {
		t.Errorf("after it: %q", got)
	}
	// A push that the remote refuses says so, and is not forced.
	r.file(".git/hooks/pre-commit", "#!/bin/sh\n")
	r.git("switch", "-qc", "theirs")
	r.git("commit", "-q", "--allow-empty", "-m", "theirs")
	r.git("push", "-q", "origin", "theirs")
	theirs := r.git("rev-parse", "HEAD")
	r.git("reset", "-q", "--hard", "main")
	r.git("update-ref", "-d", "refs/remotes/origin/theirs")
	p = r.plan()
	_, err = Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"new.go"}, Message: "ours"})
	if pr := problem(t, err); pr.Code != "forge-behind" {
		t.Errorf("%+v", pr)
	}
	if got := r.git("--git-dir", r.remote, "rev-parse", "theirs"); got != theirs {
		t.Error("it was forced")
	}
}

// What was not seen is not agreed to.
func TestCreateChanged(t *testing.T) {
	r := newRepo(t)
	r.file("total.go", "package shop\n")
	p := r.plan()
	r.file("total.go", "package shop // another\n")
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"total.go"}, Message: "x"}); problem(t, err).Code != "review-changed" {
		t.Error(err)
	}
	// Also where the plan is remembered, which is for the request about it and for no other.
	o := r.options()
	o.Memory = &Memory{}
	p, err := Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r.file("total.go", "package shop // a third\n")
	if _, err := Create(t.Context(), o, api.ReviewRequest{State: p.State, Files: []string{"total.go"}, Message: "x"}); problem(t, err).Code != "review-changed" {
		t.Error(err)
	}
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{Files: []string{"../x"}, Message: "x"}); problem(t, err).Code != "review-files" {
		t.Error(err)
	}
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{Files: []string{"total.go"}, Message: "x", Branch: "--force"}); problem(t, err).Code != "review-branch" {
		t.Error(err)
	}
	if got := r.git("status", "--porcelain", "--branch"); got != "## main...origin/main\n M total.go" {
		t.Errorf("after it: %q", got)
	}
}

// Worktrees, submodules, a rebase under way, no remote: each is understood or said.
func TestTrees(t *testing.T) {
	r := newRepo(t)
	dir := t.TempDir()
	r.git("worktree", "add", "-q", "-b", "side", dir+"/side")
	r.file(dir+"/side/side.go", "package shop\n")
	o := r.options()
	o.Dir = dir + "/side"
	p, err := Plan(t.Context(), o)
	if err != nil || p.Branch != "side" || len(p.Changes) != 1 {
		t.Fatalf("%+v %v", p, err)
	}
	if _, err := Create(t.Context(), o, api.ReviewRequest{State: p.State, Files: []string{"side.go"}, Message: "side"}); err != nil {
		t.Error(err)
	}
	if got := r.git("status", "--porcelain", "--branch"); got != "## main...origin/main" {
		t.Errorf("the other work tree: %q", got)
	}

	r.git("init", "-q", dir+"/sub")
	sub := func(args ...string) { r.git(append([]string{"-C", dir + "/sub"}, args...)...) }
	sub("commit", "-q", "--allow-empty", "-m", "first")
	r.git("switch", "-qc", "with-sub")
	r.git("submodule", "--quiet", "add", dir+"/sub", "sub")
	r.git("commit", "-qm", "add a submodule")
	r.file("sub/dirty.txt", "x")
	p = r.plan()
	if len(p.Changes) != 1 || p.Changes[0].Kind != "submodule" || p.Changes[0].Picked || !strings.Contains(strings.Join(p.Notes, "\n"), "submodule sub has changes of its own") {
		t.Errorf("%+v %q", p.Changes, p.Notes)
	}
	r.git("-C", r.work+"/sub", "add", "-A")
	r.git("-C", r.work+"/sub", "commit", "-qm", "not pushed")
	p = r.plan()
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"sub"}, Message: "sub"}); problem(t, err).Code != "review-submodule" {
		t.Error(err)
	}

	r.git("switch", "-q", "main")
	r.git("submodule", "--quiet", "deinit", "-f", "--all")
	r.file(".git/MERGE_HEAD", r.git("rev-parse", "side")+"\n")
	if _, err := Plan(t.Context(), r.options()); problem(t, err).Code != "review-busy" {
		t.Error(err)
	}
	if err := os.Remove(r.work + "/.git/MERGE_HEAD"); err != nil {
		t.Fatal(err)
	}
	r.git("remote", "remove", "origin")
	if _, err := Plan(t.Context(), r.options()); problem(t, err).Code != "review-remote" {
		t.Error(err)
	}
	o.Dir = dir
	if _, err := Plan(t.Context(), o); problem(t, err).Code != "review-git" {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Plan(ctx, r.options()); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// A commit is signed as its author's others are, and its trailers are its hooks'.
func TestCreateSigned(t *testing.T) {
	r := newRepo(t)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.home+"/key").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.git("config", "gpg.format", "ssh")
	r.git("config", "user.signingkey", r.home+"/key.pub")
	r.git("config", "commit.gpgsign", "true")
	r.file(".git/hooks/commit-msg", "#!/bin/sh\necho 'Change-Id: I0123456789012345678901234567890123456789' >> \"$1\"\n")
	r.file("new.go", "package shop\n")
	p := r.plan()
	if _, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"new.go"}, Message: "new\n"}); err != nil {
		t.Fatal(err)
	}
	if got := r.git("cat-file", "commit", "HEAD"); !strings.Contains(got, "gpgsig -----BEGIN SSH SIGNATURE") || !strings.Contains(got, "Change-Id: I0123") {
		t.Errorf("the commit:\n%s", got)
	}
	r.git("config", "user.signingkey", r.home+"/none.pub")
	r.file("new.go", "package shop // more\n")
	p = r.plan()
	_, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"new.go"}, Message: "more\n"})
	if pr := problem(t, err); pr.Code != "review-commit" || !strings.Contains(pr.Hint, "could not sign") {
		t.Errorf("%+v", pr)
	}
}

// On Gerrit the push is the review: each commit a change, as work in progress, with topic and reviewers. A commit without a Change-Id is
// told and not rewritten.
func TestCreateGerrit(t *testing.T) {
	r := newRepo(t)
	r.file(r.remote+"/hooks/post-receive", "#!/bin/sh\nread old new ref\necho $ref > pushed\necho\necho SUCCESS\necho\necho '  https://gerrit.acme.dev/c/shop/+/12 shop: one more [WIP] [NEW]'\n")
	r.git("remote", "set-url", "origin", "https://gerrit.acme.dev/shop")
	r.git("config", "url."+r.remote+".pushInsteadOf", "https://gerrit.acme.dev/shop")
	r.env = append(r.env, "FAIRLEAD_FORGE=gerrit", "FAIRLEAD_FORGE_URL=https://gerrit.acme.dev")
	r.file("total.go", "package shop\n\n// Total.\n")
	r.git("-c", "user.name=Jo Doe", "-c", "user.email=jo@acme.dev", "commit", "-qam", "shop: jo's")
	r.git("update-ref", "refs/remotes/origin/main", "HEAD")
	r.git("switch", "-qc", "SHOP-4-total")
	r.file("total.go", "package shop\n")
	p := r.plan()
	if len(p.Reviewers) != 1 || p.Reviewers[0].Login != "jo@acme.dev" {
		t.Errorf("reviewers: %+v", p.Reviewers)
	}
	if p.Forge != "Gerrit (shop)" || p.Template != "" {
		t.Errorf("%+v", p)
	}
	head := r.git("rev-parse", "HEAD")
	_, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Files: []string{"total.go"}, Message: "shop: one more"})
	if pr := problem(t, err); pr.Code != "forge-change-id" || !strings.Contains(pr.Hint, "commit-msg hook") {
		t.Errorf("%+v", pr)
	}
	if got := r.git("rev-parse", "HEAD~1"); got != head {
		t.Error("the commit that was agreed to is not there")
	}
	r.git("commit", "-q", "--amend", "-m", "shop: one more\n\nChange-Id: I0123456789012345678901234567890123456789")
	p = r.plan()
	res, err := Create(t.Context(), r.options(), api.ReviewRequest{State: p.State, Reviewers: []string{"jo@acme.dev"}})
	if err != nil {
		t.Fatal(err)
	}
	if res.URL != "https://gerrit.acme.dev/c/shop/+/12" || res.Number != 12 || !res.Draft || !res.Made || !slices.Equal(res.Asked, []string{"jo@acme.dev"}) {
		t.Errorf("%+v", res)
	}
	if got, err := os.ReadFile(r.remote + "/pushed"); err != nil || strings.TrimSpace(string(got)) != "refs/for/main%wip,topic=SHOP-4,r=jo@acme.dev" {
		t.Errorf("%q %v", got, err)
	}
}

// A shallow clone pushes what it has, and says that it knows little of people; a base that is not there is said.
func TestCreateShallow(t *testing.T) {
	r := newRepo(t)
	r.git("commit", "-q", "--allow-empty", "-m", "second")
	r.git("push", "-q", "origin", "main")
	dir := t.TempDir()
	r.git("clone", "-q", "--depth=1", "file://"+r.remote, dir+"/shallow")
	r.file(dir+"/shallow/total.go", "package shop\n")
	o := r.options()
	o.Dir = dir + "/shallow"
	p, err := Plan(t.Context(), o)
	if err != nil || !strings.Contains(strings.Join(p.Notes, "\n"), "the clone is shallow") {
		t.Fatalf("%+v %v", p, err)
	}
	res, err := Create(t.Context(), o, api.ReviewRequest{State: p.State, Files: []string{"total.go"}, Message: "x"})
	if err != nil || r.git("--git-dir", r.remote, "rev-parse", res.Branch) != res.Commit {
		t.Errorf("%+v %v", res, err)
	}
	o.Base = "nowhere"
	if _, err := Plan(t.Context(), o); problem(t, err).Code != "review-base" {
		t.Error(err)
	}
}
