package reviewer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// day0 is when the test repositories begin.
var day0 = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// testRepo is a real repository with a work tree.
type testRepo struct {
	t   *testing.T
	dir string
	day int // of the next commit
}

func newRepo(t *testing.T) *testRepo {
	t.Helper()
	r := &testRepo{t: t, dir: t.TempDir()}
	r.git(nil, "init", "-q", "-b", "main")
	return r
}

func (r *testRepo) git(env []string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull, "GIT_AUTHOR_NAME=Nobody", "GIT_AUTHOR_EMAIL=n@x.org",
		"GIT_COMMITTER_NAME=Nobody", "GIT_COMMITTER_EMAIL=n@x.org")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *testRepo) write(name, text string) {
	r.t.Helper()
	file := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// by is the environment of somebody's git on the repository's day.
func (r *testRepo) by(who string) []string {
	name, email, _ := strings.Cut(strings.TrimSuffix(who, ">"), " <")
	at := day0.AddDate(0, 0, r.day).Format(time.RFC3339)
	return []string{"GIT_AUTHOR_NAME=" + name, "GIT_AUTHOR_EMAIL=" + email, "GIT_COMMITTER_NAME=" + name, "GIT_COMMITTER_EMAIL=" + email,
		"GIT_AUTHOR_DATE=" + at, "GIT_COMMITTER_DATE=" + at}
}

// commit commits all that was written, a day after the last.
func (r *testRepo) commit(who, message string, files ...string) {
	r.t.Helper()
	for _, f := range files {
		r.write(f, fmt.Sprintf("%s\nday %d\n", f, r.day))
	}
	r.git(nil, "add", "-A")
	r.git(r.by(who), "commit", "-q", "--allow-empty", "-m", message)
	r.day++
}

func (r *testRepo) open(cache string) *History {
	r.t.Helper()
	h, err := Open(r.t.Context(), Source{Dir: r.dir, Rev: "main", Cache: cache})
	if err != nil {
		r.t.Fatal(err)
	}
	if h.Unsaved != nil {
		r.t.Fatalf("the index was not saved: %v", h.Unsaved)
	}
	return h
}

// random gives a repository a history with branches, requests' merges, moves and clocks that are wrong.
func (r *testRepo) random(rnd *rand.Rand, commits int) {
	r.t.Helper()
	var b strings.Builder
	files := []map[string]bool{} // of each commit
	for c := range commits {
		tree := map[string]bool{}
		from, merge := c-1-rnd.IntN(min(c+1, 4)), -1
		if from >= 0 {
			for f := range files[from] {
				tree[f] = true
			}
			if other := c - 1 - rnd.IntN(min(c, 6)); other != from && rnd.IntN(3) == 0 {
				merge = other
			}
		}
		message := fmt.Sprintf("change %d\n\nReviewed-by: Person N%d <p%d@x.org>\n", c, rnd.IntN(9), rnd.IntN(9))
		if merge >= 0 {
			message = fmt.Sprintf("Merge pull request #%d from a/b\n", c)
		}
		who := fmt.Sprintf("Person N%d <p%d@x.org>", rnd.IntN(9), rnd.IntN(9))
		at := day0.Unix() + int64(c*3600+rnd.IntN(90000)-45000)
		fmt.Fprintf(&b, "commit refs/heads/main\nmark :%d\nauthor %s %d +0000\ncommitter %s %d +0000\ndata %d\n%s", c+1, who, at, who, at, len(message), message)
		if from >= 0 {
			fmt.Fprintf(&b, "from :%d\n", from+1)
		} else {
			fmt.Fprintln(&b, "deleteall")
		}
		if merge >= 0 {
			fmt.Fprintf(&b, "merge :%d\n", merge+1)
		}
		for range 1 + rnd.IntN(3) {
			f := fmt.Sprintf("d%d/f%d", rnd.IntN(3), rnd.IntN(20))
			text := fmt.Sprint(rnd.IntN(1000))
			fmt.Fprintf(&b, "M 644 inline %s\ndata %d\n%s\n", f, len(text), text)
			tree[f] = true
		}
		for _, f := range slices.Sorted(maps.Keys(tree)) { // the seed alone decides
			if to := fmt.Sprintf("moved/%d-%s", c, filepath.Base(f)); rnd.IntN(20) == 0 {
				fmt.Fprintf(&b, "R %s %s\n", f, to)
				delete(tree, f)
				tree[to] = true
			}
		}
		files = append(files, tree)
	}
	b.WriteString("done\n")
	cmd := exec.Command("git", "-C", r.dir, "fast-import", "--quiet", "--done", "--force")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("git fast-import: %v\n%s", err, out)
	}
}
