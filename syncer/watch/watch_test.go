package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// rig is a running watcher.
type rig struct {
	*Watcher
	tb       testing.TB
	root     string
	problems chan []*api.Problem
	n        int
}

func start(tb testing.TB, opt Options) *rig {
	tb.Helper()
	if opt.Root == "" {
		opt.Root = tb.TempDir()
	}
	r := &rig{tb: tb, root: opt.Root, problems: make(chan []*api.Problem, 100)}
	opt.Problems = func(ps []*api.Problem) { r.problems <- ps }
	w, err := New(opt)
	must(tb, err)
	r.Watcher = w
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			must(tb, err)
		case <-time.After(patience):
			tb.Error("Run does not return")
		}
	})
	select {
	case <-w.Ready():
	case <-time.After(patience):
		tb.Fatal("not ready")
	}
	return r
}

func (r *rig) path(rel string) string {
	if filepath.IsAbs(rel) {
		return rel
	}
	return filepath.Join(r.root, filepath.FromSlash(rel))
}

func (r *rig) write(rel, text string) { r.tb.Helper(); write(r.tb, r.path(rel), text) }

// replace writes a file in one step, so that no state in between can be seen, however slow the machine is.
func (r *rig) replace(rel, text string) {
	r.tb.Helper()
	r.write(rel+"~", text)
	must(r.tb, os.Rename(r.path(rel+"~"), r.path(rel)))
}

func (r *rig) next() Change {
	r.tb.Helper()
	select {
	case c := <-r.Changes():
		return c
	case <-time.After(patience):
		r.tb.Fatal("no change was reported")
		panic("unreachable")
	}
}

// names lists a change's files relative to the root, the removed ones with a minus.
func (r *rig) names(c Change) []string {
	var out []string
	for _, f := range c.Files {
		rel, err := filepath.Rel(r.root, f.Path)
		if err != nil || strings.HasPrefix(rel, "..") {
			rel = f.Path
		}
		if f.Removed {
			rel = "-" + rel
		}
		out = append(out, filepath.ToSlash(rel))
	}
	return out
}

// expect receives one change, and then sees to it that no other file's follows.
func (r *rig) expect(want ...string) {
	r.tb.Helper()
	c := r.next()
	if diff := cmp.Diff(want, r.names(c)); diff != "" {
		r.tb.Fatalf("change (-want +got):\n%s", diff)
	}
	if c.Overflow {
		r.tb.Fatal("overflow")
	}
	r.quiet(want...)
}

// gather receives changes until each of the files has been in one, and allows nothing else: for what another process
// does, which may be held up in the middle on a loaded machine.
func (r *rig) gather(want ...string) {
	r.tb.Helper()
	missing := map[string]bool{}
	for i, w := range want {
		var optional bool
		if want[i], optional = strings.CutPrefix(w, "?"); !optional {
			missing[w] = true
		}
	}
	for len(missing) > 0 {
		for _, n := range r.names(r.next()) {
			if !slices.Contains(want, n) {
				r.tb.Fatalf("%s was reported, want %v", n, want)
			}
			delete(missing, n)
		}
	}
	r.quiet(want...)
}

// quiet checks that nothing is reported: it makes one more change, and expects that alone. What belongs to the same
// save as a change before it (but for a slow machine) is allowed.
func (r *rig) quiet(allowed ...string) {
	r.tb.Helper()
	r.n++
	name := "barrier"
	r.replace(name, fmt.Sprint(r.n))
	for {
		done := false
		for _, n := range r.names(r.next()) {
			if n == name {
				done = true
			} else if !slices.Contains(allowed, n) {
				r.tb.Fatalf("%s was reported", n)
			}
		}
		if done {
			return
		}
	}
}

func TestSaves(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a.go", "one")
	write(t, root+"/gone.go", "one")
	r := start(t, Options{Root: root})

	t.Run("plain", func(t *testing.T) {
		r.write("a.go", "two")
		r.expect("a.go")
	})
	t.Run("same content", func(t *testing.T) {
		r.replace("a.go", "two")
		must(t, os.Chtimes(r.path("a.go"), time.Time{}, time.Unix(1, 0)))
		must(t, os.Chmod(r.path("a.go"), 0o600))
		r.quiet()
	})
	t.Run("executable", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("Windows has no executable bits")
		}
		must(t, os.Chmod(r.path("a.go"), 0o755))
		r.expect("a.go")
	})
	t.Run("atomic", func(t *testing.T) {
		r.write("a.go.tmp123~", "three")
		must(t, os.Rename(r.path("a.go.tmp123~"), r.path("a.go")))
		r.expect("a.go")
	})
	t.Run("backup", func(t *testing.T) { // vim
		r.write("4913", "")
		must(t, os.Remove(r.path("4913")))
		must(t, os.Rename(r.path("a.go"), r.path("a.go~")))
		r.write("a.go", "four")
		must(t, os.Remove(r.path("a.go~")))
		r.expect("a.go")
	})
	t.Run("new", func(t *testing.T) {
		r.write("b.go", "one")
		r.expect("b.go")
	})
	t.Run("removed", func(t *testing.T) {
		must(t, os.Remove(r.path("b.go")))
		r.expect("-b.go")
		must(t, os.Remove(r.path("gone.go")))
		r.expect("-gone.go")
	})
	t.Run("made and removed", func(t *testing.T) {
		r.write("c.go", "one")
		must(t, os.Remove(r.path("c.go")))
		r.quiet("c.go", "-c.go") // either is right if the machine was slow; see TestTiming
	})
	t.Run("renamed", func(t *testing.T) {
		must(t, os.Rename(r.path("a.go"), r.path("d.go")))
		r.expect("-a.go", "d.go")
	})
	t.Run("emptied", func(t *testing.T) {
		r.write("d.go", "")
		r.expect("d.go")
	})
	t.Run("scratch", func(t *testing.T) {
		for _, name := range []string{".d.go.swp", ".d.go.swx", "d.go~", "#d.go#", ".#d.go", "d.go___jb_tmp___", ".DS_Store"} {
			r.write(name, "x")
		}
		r.quiet()
	})
}

func TestVim(t *testing.T) {
	if _, err := exec.LookPath("vim"); err != nil {
		t.Skip("vim is not installed (it is only the original of what TestSaves imitates)")
	}
	root := t.TempDir()
	write(t, root+"/a.go", "one\n")
	r := start(t, Options{Root: root})
	for _, set := range []string{"backupcopy=yes", "backupcopy=no", "backup", "nowritebackup"} {
		c := exec.Command("vim", "-u", "NONE", "-N", "-es", "+set "+set, "+s/^/x/", "+wq", "a.go")
		c.Dir = root
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		r.gather("a.go")
	}
}

func TestRelevant(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a.go", "one")
	write(t, root+"/a.txt", "one")
	goOnly := func(p string) bool { return strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "barrier") }
	r := start(t, Options{Root: root, Relevant: goOnly})
	r.write("a.txt", "two")
	must(t, os.Remove(r.path("a.txt")))
	r.write("b.txt", "two")
	r.quiet()
	r.write("a.go", "two")
	r.expect("a.go")
	r.SetRelevant(nil)
	r.write("b.txt", "three")
	r.expect("b.txt")
	must(t, os.Remove(r.path("b.txt")))
	r.expect("-b.txt")
	r.SetRelevant(goOnly)
	r.write("a.txt", "three")
	r.quiet()
}

func TestFolders(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/old/a.go", "one")
	write(t, root+"/old/sub/b.go", "one")
	elsewhere := t.TempDir()
	r := start(t, Options{Root: root})

	t.Run("made with files", func(t *testing.T) {
		r.write("new/deep/er/c.go", "one")
		r.gather("new/deep/er/c.go")
		r.write("new/deep/er/c.go", "two")
		r.expect("new/deep/er/c.go")
	})
	t.Run("renamed", func(t *testing.T) {
		must(t, os.Rename(r.path("old"), r.path("moved")))
		r.expect("moved/a.go", "moved/sub/b.go", "-old/a.go", "-old/sub/b.go")
		r.write("moved/sub/b.go", "two")
		r.expect("moved/sub/b.go")
	})
	t.Run("there and back", func(t *testing.T) {
		for range 5 {
			must(t, os.Rename(r.path("moved"), r.path("other")))
			must(t, os.Rename(r.path("other"), r.path("moved")))
		}
		r.quiet()
		r.write("moved/sub/b.go", "three")
		r.expect("moved/sub/b.go")
	})
	t.Run("swapped", func(t *testing.T) {
		r.write("one/sub/x.go", "1")
		r.gather("one/sub/x.go")
		r.write("two/sub/x.go", "2")
		r.gather("two/sub/x.go")
		must(t, os.Rename(r.path("one"), r.path("tmp")))
		must(t, os.Rename(r.path("two"), r.path("one")))
		must(t, os.Rename(r.path("tmp"), r.path("two")))
		r.expect("one/sub/x.go", "two/sub/x.go")
		r.write("one/sub/x.go", "3")
		r.expect("one/sub/x.go")
		r.write("two/sub/x.go", "4")
		r.expect("two/sub/x.go")
	})
	t.Run("moved out and in", func(t *testing.T) {
		must(t, os.Rename(r.path("moved"), elsewhere+"/m"))
		r.expect("-moved/a.go", "-moved/sub/b.go")
		write(t, elsewhere+"/m/a.go", "five")
		r.quiet()
		must(t, os.Rename(elsewhere+"/m", r.path("moved")))
		r.expect("moved/a.go", "moved/sub/b.go")
		r.write("moved/sub/b.go", "six")
		r.expect("moved/sub/b.go")
	})
	t.Run("removed", func(t *testing.T) {
		must(t, os.RemoveAll(r.path("moved")))
		r.gather("-moved/a.go", "-moved/sub/b.go")
	})
	t.Run("replaced by a file and back", func(t *testing.T) {
		must(t, os.RemoveAll(r.path("new")))
		r.write("new", "a file")
		r.gather("-new/deep/er/c.go", "new")
		must(t, os.Remove(r.path("new")))
		r.write("new/deep/er/c.go", "two")
		r.gather("-new", "new/deep/er/c.go")
	})
	t.Run("links", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("links need a privilege on Windows")
		}
		must(t, os.Symlink("..", r.path("one/up")))
		must(t, os.Symlink(elsewhere, r.path("one/else")))
		must(t, os.Symlink("x.go", r.path("one/sub/link.go")))
		must(t, os.Symlink("nowhere", r.path("one/sub/broken.go")))
		r.expect("one/sub/link.go")
		must(t, os.Remove(r.path("one/sub/broken.go")))
		write(t, elsewhere+"/x.go", "unseen")
		r.quiet()
	})
	t.Run("root goes and comes back", func(t *testing.T) {
		must(t, os.Rename(root, elsewhere+"/root"))
		if ps := <-r.problems; len(ps) != 1 || ps[0].Code != CodeRootMissing {
			t.Fatalf("problems %v", ps)
		}
		gone := r.names(r.next())
		if !slices.Contains(gone, "-one/sub/x.go") {
			t.Errorf("change %v", gone)
		}
		must(t, os.Rename(elsewhere+"/root", root))
		back := r.names(r.next())
		if !slices.Contains(back, "one/sub/x.go") {
			t.Errorf("change %v", back)
		}
		if ps := <-r.problems; len(ps) != 0 {
			t.Fatalf("problems %v", ps)
		}
		r.write("one/sub/x.go", "again")
		r.gather("one/sub/x.go")
	})
}

func TestGitignore(t *testing.T) {
	isolateGit(t)
	root := t.TempDir()
	git(t, root, "init", "-q")
	write(t, root+"/.gitignore", "/out/\n*.log\n/node_modules\n")
	write(t, root+"/out/x.go", "one")
	write(t, root+"/sub/.gitignore", "!keep.log\nlocal\n")
	write(t, root+"/sub/keep.log", "one")
	write(t, root+"/node_modules/a/b.js", "one")
	inner := root + "/inner"
	git(t, root, "init", "-q", "inner")
	write(t, inner+"/a.log", "one")
	write(t, inner+"/.git/info/exclude", "secret\n")
	write(t, inner+"/secret", "one")
	r := start(t, Options{Root: root, Relevant: func(p string) bool { return filepath.Base(p) != ".gitignore" }})

	for _, p := range []string{"out/x.go", "out/new/x.go", "a.log", "sub/b.log", "sub/local", "node_modules/a/b.js", "inner/secret", ".git/x"} {
		r.write(p, "two")
	}
	git(t, root, "status")
	r.quiet()
	r.write("sub/keep.log", "two")
	r.write("inner/a.log", "two") // another repository: the rules around it do not hold
	r.gather("inner/a.log", "sub/keep.log")

	// Changed rules hold from the next settled burst on.
	r.write(".gitignore", "*.log\n/sub\n")
	r.gather("node_modules/a/b.js", "out/new/x.go", "out/x.go")
	r.write("sub/keep.log", "three")
	r.quiet()
	r.write("out/new/x.go", "three")
	r.expect("out/new/x.go")
	must(t, os.Remove(r.path(".gitignore")))
	r.gather("a.log", "sub/b.log", "sub/keep.log")
}

func TestExtra(t *testing.T) {
	isolateGit(t)
	base := t.TempDir()
	root := base + "/ws"
	mod := base + "/mod"
	git(t, base, "init", "-q", "ws")
	write(t, root+"/.gitignore", "/gen/\n*.pb.go\n")
	write(t, root+"/gen/pb/x.pb.go", "one")
	write(t, root+"/gen/other/y.go", "one")
	write(t, root+"/api/api.pb.go", "one")
	write(t, root+"/api/v1/v.go", "one")
	write(t, mod+"/.gitignore", "bin/\n")
	write(t, mod+"/m.go", "one")
	write(t, mod+"/sub/s.go", "one")
	write(t, mod+"/bin/b.go", "one")
	r := start(t, Options{Root: root, Extra: []string{root + "/gen/pb", root + "/api", mod + "/...", base + "/later/on"}})

	r.write("gen/pb/x.pb.go", "two")
	r.expect("gen/pb/x.pb.go")
	r.write("gen/other/y.go", "two")
	r.quiet()
	r.write("api/api.pb.go", "two")
	r.expect("api/api.pb.go")
	r.write("api/v1/v.go", "two") // still watched as a part of the workspace
	r.expect("api/v1/v.go")
	r.write("api/v1/v.pb.go", "two")
	r.quiet()
	write(t, mod+"/m.go", "two")
	write(t, mod+"/bin/b.go", "two")
	r.expect(mod + "/m.go")
	write(t, mod+"/sub/s.go", "two")
	r.expect(mod + "/sub/s.go")

	// One that appears.
	write(t, base+"/later/unrelated/x.go", "one")
	r.quiet()
	write(t, base+"/later/on/x.go", "one")
	r.gather(base + "/later/on/x.go")
	write(t, base+"/later/on/x.go", "two")
	r.expect(base + "/later/on/x.go")
	must(t, os.RemoveAll(base+"/later"))
	r.gather("-" + base + "/later/on/x.go")
	write(t, base+"/later/on/x.go", "three")
	r.gather(base + "/later/on/x.go")

	// A generator that begins with a clean folder.
	must(t, os.RemoveAll(r.path("gen")))
	r.write("gen/pb/x.pb.go", "three")
	r.gather("gen/pb/x.pb.go", "?-gen/pb/x.pb.go")

	r.SetExtra([]string{"gen/other"}) // relative to the root
	r.write("gen/other/y.go", "three")
	r.gather("gen/other/y.go")
	r.write("gen/pb/x.pb.go", "four")
	r.write("api/api.pb.go", "four")
	write(t, mod+"/m.go", "four")
	write(t, base+"/later/on/x.go", "four")
	r.quiet()
	r.write("api/v1/v.go", "four")
	r.expect("api/v1/v.go")
	r.SetExtra([]string{"api", "."}) // which are watched already
	r.quiet()
	r.write("api/api.pb.go", "five")
	r.expect("api/api.pb.go")
	r.write("top.pb.go", "five")
	r.expect("top.pb.go")
	r.write("api/v1/v.go", "five")
	r.expect("api/v1/v.go")
	r.write("gen/other/y.go", "five")
	r.quiet()
}

func TestNotify(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a.go", "one")
	// With a rest that outlasts the test, what comes does not come from the settled burst.
	r := start(t, Options{Root: root, Rest: time.Hour, RestBurst: time.Hour, Cap: time.Hour})
	r.write("a.go", "two")
	r.Notify(r.path("a.go"))
	if diff := cmp.Diff([]string{"a.go"}, r.names(r.next())); diff != "" {
		t.Fatal(diff)
	}
	r.write("b.go", "two")
	r.Notify(r.path("a.go"), r.path("b.go"), r.path("none.go"))
	if diff := cmp.Diff([]string{"b.go"}, r.names(r.next())); diff != "" {
		t.Fatal(diff)
	}
}

func TestNotifyOnce(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a.go", "one")
	outside := t.TempDir() + "/x.go"
	write(t, outside, "one")
	r := start(t, Options{Root: root})
	for i := range 50 {
		r.replace("a.go", fmt.Sprint(i))
		r.Notify(r.path("a.go"))
		if diff := cmp.Diff([]string{"a.go"}, r.names(r.next())); diff != "" {
			t.Fatal(diff)
		}
		r.Notify(r.path("a.go")) // nothing new
		r.quiet()
	}
	r.quiet()
	r.Notify(outside)
	r.expect(outside)
	r.Notify(outside)
	r.quiet()
	must(t, os.Remove(r.path("a.go")))
	r.Notify(r.path("a.go"))
	r.expect("-a.go")
}

func TestUnion(t *testing.T) {
	r := start(t, Options{})
	// Nobody receives until the watcher holds both.
	r.write("a", "1")
	awaitPending(r, 1)
	r.write("b", "1")
	awaitPending(r, 2)
	must(t, os.Remove(r.path("a")))
	r.write("c", "1")
	awaitPending(r, 3)
	c := r.next()
	if diff := cmp.Diff([]string{"-a", "b", "c"}, r.names(c)); diff != "" {
		t.Error(diff)
	}
	if age := time.Since(c.First); age <= 0 || age > patience {
		t.Errorf("First is %v ago", age)
	}
	r.quiet()
}

// awaitPending waits until that many files are to be sent, without receiving them.
func awaitPending(r *rig, n int) {
	r.tb.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := make(chan int, 1)
		r.mail.put(func(m *mail) { m.look = append(m.look, func(l *loop) { got <- len(l.pending) }) })
		if <-got >= n {
			return
		}
		if time.Now().After(deadline) {
			r.tb.Fatalf("%d files are not pending", n)
		}
		runtime.Gosched()
	}
}

func TestCheckout(t *testing.T) {
	dir := checkoutRepo(t, 2000)
	r := start(t, Options{Root: dir})
	for i, branch := range []string{"two", "one", "two"} {
		done := make(chan struct{})
		go func() { // while a receiver waits, so that nothing is joined
			defer close(done)
			if out, err := exec.Command("git", "-C", dir, "checkout", "-q", branch).CombinedOutput(); err != nil {
				t.Errorf("git checkout: %v\n%s", err, out)
			}
		}()
		c := r.next()
		<-done
		if len(c.Files) != 2000 {
			t.Fatalf("checkout of %s: %d files in the first change, want 2000", branch, len(c.Files))
		}
		removed := 0
		for _, f := range c.Files {
			if f.Removed {
				removed++
			}
		}
		if removed != 100 {
			t.Errorf("%d files removed, want 100", removed)
		}
		write(t, dir+"/d00/own.go", fmt.Sprint(i))
		r.gather("d00/own.go")
		must(t, os.Remove(dir+"/d00/own.go"))
		r.gather("-d00/own.go")
		must(t, os.Remove(dir+"/barrier"))
		if diff := cmp.Diff([]string{"-barrier"}, r.names(r.next())); diff != "" {
			t.Error(diff)
		}
	}
}

// limitedSource is fsnotify with fewer watches than the operating system has.
type limitedSource struct {
	source
	left *atomic.Int64
}

func (s limitedSource) Add(path string) error {
	if s.left.Add(-1) < 0 {
		s.left.Add(1)
		return &fs.PathError{Op: "add", Path: path, Err: syscall.ENOSPC}
	}
	return s.source.Add(path)
}

func limited(left *atomic.Int64) func() (source, error) {
	return func() (source, error) {
		s, err := openFsnotify()
		return limitedSource{s, left}, err
	}
}

func TestWatchLimit(t *testing.T) {
	root := t.TempDir()
	for i := range 6 {
		write(t, fmt.Sprintf("%s/d%d/sub/a.go", root, i), "one")
	}
	var left atomic.Int64
	left.Store(5)
	r := start(t, Options{Root: root, open: limited(&left), poll: 2 * time.Millisecond, retry: time.Hour})
	ps := <-r.problems
	if len(ps) != 1 || ps[0].Code != CodeWatchLimit || ps[0].Severity != api.SeverityWarning ||
		!strings.Contains(ps[0].Message, "8 of 13 folders") {
		t.Fatalf("problems %+v", ps)
	}
	if runtime.GOOS == "linux" && (!strings.Contains(ps[0].Message, fmt.Sprintf("fs.inotify.max_user_watches (%d)", sysctl("fs.inotify.max_user_watches"))) ||
		!strings.Contains(ps[0].Hint, "sysctl -w fs.inotify.max_user_watches=")) {
		t.Errorf("problem %+v", ps[0])
	}
	for i := range 6 {
		r.write(fmt.Sprintf("d%d/sub/a.go", i), "two, longer")
		r.gather(fmt.Sprintf("d%d/sub/a.go", i))
		r.write(fmt.Sprintf("d%d/sub/new/b.go", i), "new")
		r.gather(fmt.Sprintf("d%d/sub/new/b.go", i))
		must(t, os.RemoveAll(r.path(fmt.Sprintf("d%d/sub", i))))
		r.gather(fmt.Sprintf("-d%d/sub/a.go", i), fmt.Sprintf("-d%d/sub/new/b.go", i))
	}
}

func TestWatchLimitRaised(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a/b/c.go", "one")
	var left atomic.Int64
	left.Store(1)
	r := start(t, Options{Root: root, open: limited(&left), poll: time.Millisecond, retry: time.Millisecond})
	if ps := <-r.problems; len(ps) != 1 {
		t.Fatalf("problems %v", ps)
	}
	r.write("a/b/c.go", "two, longer")
	r.expect("a/b/c.go")
	left.Store(100)
	for ps := range r.problems {
		if len(ps) == 0 {
			break
		}
	}
	r.write("a/b/c.go", "three")
	r.expect("a/b/c.go")
}

func TestNoInstances(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a/b/c.go", "one")
	write(t, root+"/d.go", "one")
	var mu sync.Mutex
	broken := true
	open := func() (source, error) {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return nil, fmt.Errorf("couldn't initialize inotify: %w", syscall.EMFILE)
		}
		return openFsnotify()
	}
	r := start(t, Options{Root: root, open: open, poll: time.Millisecond, retry: time.Millisecond})
	ps := <-r.problems
	if len(ps) != 1 || ps[0].Code != CodeWatchInstances {
		t.Fatalf("problems %v", ps)
	}
	if runtime.GOOS == "linux" && (!strings.Contains(ps[0].Message, fmt.Sprintf("fs.inotify.max_user_instances (%d)", sysctl("fs.inotify.max_user_instances"))) ||
		!strings.Contains(ps[0].Hint, "sysctl -w fs.inotify.max_user_instances=")) {
		t.Errorf("problem %+v", ps[0])
	}
	r.write("a/b/c.go", "two, longer")
	r.expect("a/b/c.go")
	must(t, os.Remove(r.path("d.go")))
	r.expect("-d.go")
	r.write("x/y.go", "new")
	r.gather("x/y.go")

	mu.Lock()
	broken = false
	mu.Unlock()
	if ps := <-r.problems; len(ps) != 0 {
		t.Fatalf("problems %v", ps)
	}
	r.write("a/b/c.go", "three")
	r.expect("a/b/c.go")
}

// lossySource loses all events from a certain one on, until it is told to say so.
type lossySource struct {
	source
	losing *atomic.Bool
	tell   chan struct{}
	events chan event
}

func lossy(losing *atomic.Bool, tell chan struct{}) func() (source, error) {
	return func() (source, error) {
		s, err := openFsnotify()
		if err != nil {
			return nil, err
		}
		l := lossySource{s, losing, tell, make(chan event)}
		go func() {
			defer close(l.events)
			for {
				e, err, ok := s.Next()
				if !ok {
					return
				}
				if err == nil && !losing.Load() {
					l.events <- e
				}
			}
		}()
		return l, nil
	}
}

func (s lossySource) Next() (event, error, bool) {
	select {
	case <-s.tell:
		return event{}, errOverflow, true
	case e, ok := <-s.events:
		return e, nil, ok
	}
}

func TestOverflow(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a/x.go", "one")
	write(t, root+"/b/x.go", "two")
	write(t, root+"/c/x.go", "three")
	write(t, root+"/d/x.go", "four")
	var losing atomic.Bool
	tell := make(chan struct{})
	r := start(t, Options{Root: root, open: lossy(&losing, tell)})
	for _, d := range "abcd" { // so that their content is known
		r.write(string(d)+"/x.go", string(d))
		r.gather(string(d) + "/x.go")
	}
	losing.Store(true)
	must(t, os.Rename(r.path("a"), r.path("tmp")))
	must(t, os.Rename(r.path("b"), r.path("a")))
	must(t, os.Rename(r.path("tmp"), r.path("b")))
	must(t, os.RemoveAll(r.path("c")))
	r.write("new/x.go", "new")
	r.write("a/y.go", "new")
	losing.Store(false)
	tell <- struct{}{}
	c := r.next()
	if diff := cmp.Diff([]string{"a/x.go", "a/y.go", "b/x.go", "-c/x.go", "new/x.go"}, r.names(c)); diff != "" || !c.Overflow {
		t.Fatalf("overflow %v; change (-want +got):\n%s", c.Overflow, diff)
	}
	for _, p := range []string{"a/x.go", "b/x.go", "new/x.go"} {
		r.write(p, "later")
		r.expect(p)
	}
}

// TestLearn checks that what files contained at the start is known in the end.
func TestLearn(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a.go", "one")
	learnt := make(chan struct{}, 10)
	r := start(t, Options{Root: root, epoch: time.Now().Add(time.Hour), learn: func() { learnt <- struct{}{} }})
	<-learnt
	r.replace("a.go", "one")
	must(t, os.Chtimes(r.path("a.go"), time.Time{}, time.Unix(1, 0)))
	r.quiet()
	r.write("a.go", "two")
	r.expect("a.go")
}

// TestLearnTooLate checks that a file which was touched after the watcher began is not taken to be as it was.
func TestLearnTooLate(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/a.go", "one")
	box := mailbox{wake: make(chan struct{}, 1)}
	learn(t.Context(), &box, []string{root + "/a.go"}, time.Now().Add(-time.Minute))
	if m := box.take(); len(m.contents) != 0 {
		t.Errorf("learned %v", m.contents)
	}
	learn(t.Context(), &box, []string{root + "/a.go"}, time.Now().Add(time.Minute))
	if m := box.take(); len(m.contents) != 1 {
		t.Errorf("learned %v", m.contents)
	}
}

// fakeSource has events only when the test sends them.
type fakeSource struct {
	events chan event
	closed chan struct{}
}

func (s fakeSource) Add(string) error    { return nil }
func (s fakeSource) Remove(string) error { return nil }
func (s fakeSource) Close() error        { close(s.closed); return nil }

func (s fakeSource) Next() (event, error, bool) {
	select {
	case e := <-s.events:
		e.at = time.Now()
		return e, nil, true
	case <-s.closed:
		return event{}, nil, false
	}
}

// TestTiming checks to the microsecond when things are reported, with time that stands still while anything runs.
func TestTiming(t *testing.T) {
	root := t.TempDir() // outside the bubble: its cleanup waits for real
	write(t, root+"/a.go", "one")
	write(t, root+"/b.go", "one")
	synctest.Test(t, func(t *testing.T) {
		src := fakeSource{make(chan event), make(chan struct{})}
		w, err := New(Options{Root: root, open: func() (source, error) { return src, nil }})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		<-w.Ready()
		synctest.Wait()

		begin := time.Now()
		expect := func(after time.Duration, want ...string) {
			t.Helper()
			c := <-w.Changes()
			var got []string
			for _, f := range c.Files {
				got = append(got, filepath.Base(f.Path))
			}
			if d := time.Since(begin); d != after || !slices.Equal(got, want) {
				t.Errorf("%v after %v, want %v after %v", got, d, want, after)
			}
			begin = time.Now()
		}

		write(t, root+"/a.go", "two")
		src.events <- event{path: root + "/a.go", op: opWrite}
		time.Sleep(time.Millisecond)
		src.events <- event{path: root + "/a.go", op: opWrite}
		expect(time.Millisecond+defaultRest, "a.go")

		// An editor says so: at once, and the event that follows is nothing new.
		write(t, root+"/a.go", "three")
		w.Notify(root + "/a.go")
		expect(0, "a.go")
		src.events <- event{path: root + "/a.go", op: opWrite}

		// Gone for a moment.
		time.Sleep(time.Second)
		begin = time.Now()
		must(t, os.Remove(root+"/a.go"))
		src.events <- event{path: root + "/a.go", op: opRemove}
		time.Sleep(20 * time.Millisecond)
		write(t, root+"/a.go", "four")
		src.events <- event{path: root + "/a.go", op: opCreate}
		expect(20*time.Millisecond+defaultRest, "a.go")

		// Gone for good.
		must(t, os.Remove(root+"/a.go"))
		src.events <- event{path: root + "/a.go", op: opRemove}
		expect(restGone, "a.go")

		// Made and removed at once.
		write(t, root+"/c.go", "one")
		src.events <- event{path: root + "/c.go", op: opCreate}
		src.events <- event{path: root + "/c.go", op: opWrite}
		must(t, os.Remove(root+"/c.go"))
		src.events <- event{path: root + "/c.go", op: opRemove}
		time.Sleep(time.Second)

		// Changed and changed back, slowly, soon after a report: its receiver may have read what lay between.
		begin = time.Now()
		write(t, root+"/b.go", "two")
		src.events <- event{path: root + "/b.go", op: opWrite}
		expect(defaultRest, "b.go")
		for range 30 {
			src.events <- event{path: root + "/b.go", op: opWrite}
			time.Sleep(2 * time.Millisecond)
		}
		begin = time.Now()
		expect(defaultRest-2*time.Millisecond, "b.go")

		// With nothing to do there is no timer: time would go on by itself, and the bubble would be no deadlock but a
		// loop.
		synctest.Wait()
		cancel()
		must(t, <-done)
	})
}

func TestNewErrors(t *testing.T) {
	if _, err := New(Options{Root: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("err %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	if _, err := New(Options{Root: file}); err == nil {
		t.Error("a file as root is no error")
	}
	w, err := New(Options{Root: t.TempDir()})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, w.Run(ctx))
	if err := w.Run(ctx); err == nil {
		t.Error("a second Run is no error")
	}
}
