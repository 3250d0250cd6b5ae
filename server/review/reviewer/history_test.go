package reviewer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/server/review/codeowners"
	"github.com/google/go-cmp/cmp"
)

const (
	ann = "Ann Able <ann@x.org>"
	bob = "Bob Best <bob@x.org>"
	cyd = "Cyd Cole <cyd@x.org>"
	dan = "Dan Dale <dan@x.org>"
)

func indexFile(t *testing.T, cache string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cache, "reviewers-*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("index files: %v %v", files, err)
	}
	return files[0]
}

func indexBytes(t *testing.T, cache string) []byte {
	t.Helper()
	data, err := os.ReadFile(indexFile(t, cache))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// However a history came to be known, in how many steps, its index is the same, to the byte.
func TestIndexIsTheSameWhateverTheSteps(t *testing.T) {
	for _, seed := range []uint64{0, 5, 6, 12} { // in all but the first a merged branch ends in a merge
		rnd := rand.New(rand.NewPCG(seed, 7))
		r := newRepo(t)
		r.random(rnd, 60)
		tip := r.git(nil, "rev-parse", "main")
		all := strings.Fields(r.git(nil, "rev-list", "main"))
		whole := t.TempDir()
		h := r.open(whole)
		if h.Commits() != len(all) || len(h.index.moves) == 0 {
			t.Fatalf("%d commits of %d, %d moves", h.Commits(), len(all), len(h.index.moves))
		}
		steps := t.TempDir()
		cut := all[1+rnd.IntN(len(all)-1)]
		for _, at := range []string{cut, tip} {
			r.git(nil, "update-ref", "refs/heads/main", at)
			r.open(steps)
		}
		if !bytes.Equal(indexBytes(t, whole), indexBytes(t, steps)) {
			t.Errorf("seed %d: the index made over %s differs from the one made at once", seed, cut)
		}
		if diff := cmp.Diff(h.index, r.open(steps).index, cmp.AllowUnexported(index{}, commit{}, moved{}, identity{}), cmp.Transformer("empty", func(l []int32) string { return string(int32s(l)) })); diff != "" {
			t.Errorf("seed %d: read again it is another:\n%s", seed, diff)
		}
		order := map[id]int{}
		for i, c := range h.index.commits {
			order[c.id] = i
		}
		for line := range strings.Lines(r.git(nil, "rev-list", "--parents", "main")) {
			ids := strings.Fields(line)
			child, _ := parseID(ids[0])
			for _, p := range ids[1:] {
				if parent, _ := parseID(p); order[parent] >= order[child] {
					t.Errorf("seed %d: %s stands before its parent %s", seed, ids[0], p)
				}
			}
		}
	}
}

func int32s(l []int32) []byte {
	var b []byte
	for _, n := range l {
		b = append(b, byte(n), byte(n>>8))
	}
	return b
}

func TestHistoryOfARepository(t *testing.T) {
	r, cache := newRepo(t), t.TempDir()
	r.commit(ann, "one", "server/a.go", "server/b.go", "docs/x.md")
	r.commit(bob, "two\n\nReviewed-by: Ann Able <ann@x.org>\nReviewed-by: Gopher Robot <gobot@golang.org>\nCo-authored-by: Cyd Cole <12+cyd@users.noreply.github.com>\n", "server/a.go")
	r.git(nil, "mv", "server/b.go", "server/c.go")
	r.commit(dan, "moved\n\nAcked-by: bob@x.org\nRun-TryBot: Ann Able <ann@x.org>\n")
	r.git(nil, "checkout", "-q", "-b", "topic")
	r.commit(cyd, "topic", "server/t.go")
	r.git(nil, "checkout", "-q", "main")
	r.commit(ann, "between", "docs/x.md")
	r.git(r.by(dan), "merge", "-q", "--no-ff", "-m", "Merge pull request #7 from cyd/topic", "topic")
	r.day++
	h := r.open(cache)

	var merge Past
	for i := range h.Commits() {
		if p := h.At(i); p.Merge {
			merge = p
		}
	}
	if len(merge.Files) != 1 || merge.Files[0].Path != "server/t.go" || !strings.Contains(merge.Author, "Cyd Cole") {
		t.Errorf("the request's merge is %+v", merge)
	}
	two := h.At(1)
	if diff := cmp.Diff([]string{"Bob Best <bob@x.org>", "Cyd Cole <cyd@x.org>"}, two.WroteBy); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"Ann Able <ann@x.org>"}, two.ReviewedBy); diff != "" {
		t.Errorf("a program reviewed: %s", diff)
	}
	if got := h.At(2).ReviewedBy; len(got) != 1 || got[0] != "Bob Best <bob@x.org>" {
		t.Errorf("an address alone is %v", got)
	}
	if got := h.people[h.find(cyd)].Logins; len(got) != 1 || got[0] != "cyd" {
		t.Errorf("the login of a noreply address: %v", got)
	}

	// Who merged it reviewed Cyd; what moved is known under its old name.
	got := h.Rank(Change{Author: cyd, Files: []File{{Path: "server/c.go"}}, Time: day0.AddDate(0, 0, r.day)}, Known{})
	why := map[string]string{}
	for _, s := range got.Suggestions {
		why[s.Name] = s.Why
	}
	if !strings.Contains(why["Dan Dale"], "reviewed your last change") {
		t.Errorf("who merged it: %q", why["Dan Dale"])
	}
	if !strings.Contains(why["Ann Able"], "wrote 50 %") || !strings.Contains(why["Ann Able"], "server/c.go") {
		t.Errorf("of the moved file: %q", why["Ann Able"])
	}

	// A mailmap counts for an index that is there already.
	r.write(".mailmap", "Robert Best <robert@x.org> <bob@x.org>\n")
	again := r.open(cache)
	if got := again.At(1).WroteBy[0]; got != "Robert Best <robert@x.org>" {
		t.Errorf("mailmap: %s", got)
	}
}

func TestIndexIsMadeAnew(t *testing.T) {
	r, cache := newRepo(t), t.TempDir()
	r.commit(ann, "one", "a.go")
	r.commit(bob, "two", "a.go")
	r.open(cache)
	file := indexFile(t, cache)

	r.git(r.by(cyd), "commit", "-q", "--amend", "-m", "another", "--author", cyd)
	if h := r.open(cache); h.Commits() != 2 || h.At(1).Author != cyd {
		t.Errorf("of a branch that was rewritten: %d commits, the last by %s", h.Commits(), h.At(h.Commits()-1).Author)
	}
	good := indexBytes(t, cache)
	for name, bad := range map[string][]byte{"cut": good[:len(good)/2], "empty": {}, "changed": append(bytes.Clone(good[:60]), append([]byte{good[60] ^ 1}, good[61:]...)...), "another": []byte("hello")} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if h := r.open(cache); h.Commits() != 2 || !bytes.Equal(good, indexBytes(t, cache)) {
			t.Errorf("%s: it was not mended", name)
		}
	}
	if left, err := filepath.Glob(filepath.Join(cache, ".reviewers-*")); err != nil || len(left) != 0 {
		t.Errorf("left over: %v %v", left, err)
	}

	// Where it cannot be kept, the history is there and it is said.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := Open(t.Context(), Source{Dir: r.dir, Rev: "main", Cache: cache})
	if err != nil || h.Commits() != 2 || h.Unsaved == nil {
		t.Errorf("where something is in the way: %v, %+v", err, h)
	}
}

func TestShallowClone(t *testing.T) {
	r := newRepo(t)
	r.commit(ann, "one", "a.go", "b.go", "c.go")
	for range 4 {
		r.commit(bob, "more", "a.go")
	}
	clone := &testRepo{t: t, dir: t.TempDir()}
	clone.git(nil, "clone", "-q", "--depth", "2", "file://"+r.dir, ".")
	cache := t.TempDir()
	h := clone.open(cache)
	if !h.Shallow || h.Commits() != 2 {
		t.Fatalf("shallow %v, %d commits", h.Shallow, h.Commits())
	}
	if p := h.At(0); len(p.Files) != 0 {
		t.Errorf("where the clone ends, %s seems to have written %v", p.Author, p.Files)
	}
	clone.git(nil, "fetch", "-q", "--unshallow")
	if h := clone.open(cache); h.Shallow || h.Commits() != 5 || len(h.At(0).Files) != 3 {
		t.Errorf("unshallowed: %v, %d commits", h.Shallow, h.Commits())
	}
}

func TestHistoryThatCannotBeRead(t *testing.T) {
	empty := newRepo(t)
	full := newRepo(t)
	full.commit(ann, "one", "a.go")
	treeless := newRepo(t)
	treeless.commit(ann, "one", "a.go")
	treeless.git(nil, "config", "remote.origin.partialclonefilter", "tree:0")
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for code, src := range map[string]Source{
		"history-missing":  {Dir: t.TempDir(), Cache: t.TempDir()},
		"history-revision": {Dir: full.dir, Rev: "origin/none", Cache: t.TempDir()},
		"history-treeless": {Dir: treeless.dir, Cache: t.TempDir()},
		"history-cache":    {Dir: full.dir, Cache: filepath.Join(blocked, "cache")},
	} {
		_, err := Open(t.Context(), src)
		var p *api.Problem
		if !errors.As(err, &p) || p.Code != code || p.Hint == "" {
			t.Errorf("%s: %v", code, err)
		}
	}
	var p *api.Problem
	if _, err := Open(t.Context(), Source{Dir: empty.dir, Cache: t.TempDir()}); !errors.As(err, &p) || p.Code != "history-revision" {
		t.Errorf("a repository without commits: %v", err)
	}
	// A revision is never an option of git's.
	if _, err := Open(t.Context(), Source{Dir: full.dir, Rev: "--output=" + filepath.Join(full.dir, "x"), Cache: t.TempDir()}); err == nil {
		t.Error("an option was taken for a revision")
	}
	if _, err := os.Stat(filepath.Join(full.dir, "x")); err == nil {
		t.Error("git wrote a file")
	}
}

func TestProgressAndCancel(t *testing.T) {
	r := newRepo(t)
	r.random(rand.New(rand.NewPCG(1, 1)), 700)
	var last, total atomic.Int64
	src := Source{Dir: r.dir, Rev: "main", Cache: t.TempDir(), Progress: func(done, of int) {
		last.Store(max(last.Load(), int64(done)))
		total.Store(int64(of))
	}}
	h, err := Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if int(last.Load()) != h.Commits() || int(total.Load()) != h.Commits() {
		t.Errorf("told %d of %d, of %d commits", last.Load(), total.Load(), h.Commits())
	}
	ctx, cancel := context.WithCancel(t.Context())
	src.Cache, src.Progress = t.TempDir(), func(int, int) { cancel() }
	if _, err := Open(ctx, src); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if files, err := filepath.Glob(filepath.Join(src.Cache, "*")); err != nil || len(files) > 0 {
		t.Errorf("left over: %v %v", files, err)
	}
}

// What is committed counts, at the first of the places, and nothing of the work tree.
func TestCodeOwnersOfTheBranch(t *testing.T) {
	r, cache := newRepo(t), t.TempDir()
	r.commit(ann, "one", "a.go")
	who := func(d codeowners.Dialect) (owners, path string) {
		t.Helper()
		f, path, err := r.open(cache).CodeOwners(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range f.Match([]string{"a.go"}) {
			owners += o.Owner
		}
		return owners, path
	}
	if o, path := who(codeowners.GitHub); o != "" || path != "" {
		t.Errorf("without a file: %q in %q", o, path)
	}
	r.write("docs/CODEOWNERS", "* @docs\n")
	r.write("CODEOWNERS", ".* @root\n* @root\n")
	r.commit(ann, "owners")
	r.write(".github/CODEOWNERS", "* @github\n")
	if o, path := who(codeowners.GitHub); o != "root" || path != "CODEOWNERS" {
		t.Errorf("before it is committed: %q in %q", o, path)
	}
	r.commit(ann, "owners of github")
	r.git(nil, "checkout", "-q", "-b", "topic")
	r.write(".github/CODEOWNERS", "* @topic\n")
	r.commit(ann, "owners of the change itself")
	if o, path := who(codeowners.GitHub); o != "github" || path != ".github/CODEOWNERS" {
		t.Errorf("GitHub: %q in %q", o, path)
	}
	if o, path := who(codeowners.GitLab); o != "root" || path != "CODEOWNERS" {
		t.Errorf("GitLab: %q in %q", o, path)
	}
}

func TestBlame(t *testing.T) {
	r := newRepo(t)
	r.write("a.go", strings.Repeat("ann\n", 10))
	r.commit(ann, "one")
	r.write("a.go", strings.Repeat("ann\n", 4)+strings.Repeat("bob\n", 3)+strings.Repeat("ann\n", 3))
	r.commit(bob, "two")
	h := r.open(t.TempDir())
	got, missed := h.Blame(t.Context(), map[string][]Span{"a.go": {{4, 6}, {10, 10}}, "gone.go": {{1, 1}}})
	if diff := cmp.Diff([]Written{{"ann@x.org", 2}, {"bob@x.org", 2}}, got); diff != "" {
		t.Error(diff)
	}
	if len(missed) != 1 || missed[0] != "gone.go" {
		t.Errorf("missed %v", missed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, missed := h.Blame(ctx, map[string][]Span{"a.go": {{1, 1}}}); len(got) != 0 || len(missed) != 1 {
		t.Errorf("out of time: %v, missed %v", got, missed)
	}
}

// The newest commits alone do where there is no index yet; nothing of that is kept, and once all was read all counts.
func TestRecent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 7))
	r := newRepo(t)
	r.random(rnd, 60) // with merges, whose parents are cut off
	total := len(strings.Fields(r.git(nil, "rev-list", "main")))
	cache := t.TempDir()
	recent := func(n int) *History {
		t.Helper()
		h, err := Open(t.Context(), Source{Dir: r.dir, Rev: "main", Cache: cache, Recent: n})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for n := 1; n < total; n += 7 {
		h := recent(n)
		if !h.Partial || h.Commits() != n {
			t.Errorf("of %d: %d commits, partial %v", n, h.Commits(), h.Partial)
		}
		h.Rank(Change{Author: ann, Time: h.At(n - 1).Time, Files: []File{{Path: "a"}}}, Known{})
	}
	if files, _ := filepath.Glob(filepath.Join(cache, "*")); len(files) > 0 {
		t.Errorf("kept: %v", files)
	}
	if h := recent(total + 1); h.Partial || h.Commits() != total {
		t.Errorf("of more than there are: %d commits, partial %v", h.Commits(), h.Partial)
	}
	if h := recent(5); h.Partial || h.Commits() != total {
		t.Errorf("with an index: %d commits, partial %v", h.Commits(), h.Partial)
	}
}
