package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// Without a terminal it does what the flags say and no more: it shows what it would do, commits what is named, and pushes.
func TestReviewCommand(t *testing.T) {
	dir, write, _ := registryFolder(t)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	write(".gitconfig", "[user]\n\tname = Mira\n\temail = mira@acme.dev\n")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", filepath.Join(dir, "shop")}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write("shop/fairlead.yaml", "review:\n  ticket: https://acme.atlassian.net/browse/{key}\n  templates: {'docs/**': words}\n")
	write("shop/docs/a.md", "a\n")
	write("shop/.github/PULL_REQUEST_TEMPLATE/code.md", "## Code\n")
	write("shop/.github/PULL_REQUEST_TEMPLATE/words.md", "## Description\n")
	git("init", "-q", "-b", "main")
	git("add", "-A")
	git("commit", "-qm", "first")
	git("init", "-q", "--bare", filepath.Join(dir, "remote.git"))
	git("remote", "add", "origin", filepath.Join(dir, "remote.git"))
	git("push", "-qu", "origin", "main")
	git("switch", "-qc", "shop-12-words")
	t.Chdir(filepath.Join(dir, "shop"))

	if _, errs := fairlead(t, 1, "review", "--yes"); !strings.Contains(errs, "nothing to review") || !strings.Contains(errs, "hint: ") {
		t.Errorf("with nothing: %s", errs)
	}
	write("shop/docs/a.md", "b\n")
	write("shop/left.txt", "x\n")
	out, _ := fairlead(t, 0, "review", "--dry-run", "--json")
	var p api.ReviewPlan
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if p.Branch != "shop-12-words" || p.Template != ".github/PULL_REQUEST_TEMPLATE/words.md" || p.Ticket == nil || p.Ticket.URL != "https://acme.atlassian.net/browse/SHOP-12" || !strings.Contains(p.Body, "[SHOP-12](https://acme.atlassian.net/browse/SHOP-12)") {
		t.Errorf("%+v", p)
	}
	if out, _ := fairlead(t, 0, "review", "--dry-run"); !strings.Contains(out, "modified  docs/a.md, not committed") || !strings.Contains(out, "ticket    SHOP-12, by the branch's name") {
		t.Errorf("%s", out)
	}
	for _, args := range [][]string{{"--all", "--staged"}, {"--file", "none.txt"}, {"a", "b"}, {"--body-file", "none"}} {
		if _, errs := fairlead(t, 2, slices.Concat([]string{"review", "--yes"}, args)...); errs == "" {
			t.Errorf("%v", args)
		}
	}
	if git("rev-parse", "HEAD") != git("rev-parse", "main") {
		t.Fatal("something was committed")
	}
	out, errs := fairlead(t, 0, "review", "--yes", "--file", "docs/a.md", "--message", "docs: b")
	if !strings.Contains(out, "shop-12-words is pushed to origin") || !strings.Contains(errs, "note: ") {
		t.Errorf("%s\n%s", out, errs)
	}
	if got := git("show", "--format=%s", "--name-only", "HEAD"); got != "docs: b\n\ndocs/a.md" {
		t.Errorf("the commit: %q", got)
	}
	if d := cmp.Diff("?? left.txt", git("status", "--porcelain")); d != "" {
		t.Error(d)
	}
	if git("rev-parse", "origin/shop-12-words") != git("rev-parse", "HEAD") {
		t.Error("it was not pushed")
	}
	if err := os.WriteFile("fairlead.yaml", []byte("review: {ticket: nowhere}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, errs := fairlead(t, 1, "review", "--dry-run"); !strings.Contains(errs, "with {key} in it") {
		t.Errorf("%s", errs)
	}
}
