package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fairlead.dev/api"
)

// count is how many events f wants, from the so-manieth on.
func (a *agent) count(from int, f func(api.Event) bool) int {
	n := 0
	for _, e := range a.all()[from:] {
		if f(e) {
			n++
		}
	}
	return n
}

// Thirty saves in quick succession: the last one is what runs, and most of those before it are not even built.
func TestManySaves(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v0")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.live(t, "v0")
		from := len(a.all())
		for i := range 30 {
			s.edit(t, fmt.Sprintf("v%d", i+1))
		}
		a.live(t, "v30")
		a.running(t, "v30")
		if n := a.count(from, isBuild(true)); n > 10 {
			t.Errorf("%d builds of 30 saves at once", n)
		}
		a.wantContract(t)
	})
}

// Another branch is checked out, where thousands of files are different: one build, of all of them.
func TestCheckout(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		skip(t, "there is no git")
	}
	p := newLocal(t)
	s := newTiny(t, "unused")
	write(t, s.version, "package main\n\nimport \"example.com/tiny/many\"\n\nvar version = many.All()\n")
	const files = 2000
	branch := func(name string) {
		all := "package many\n\n// All is of every file.\nfunc All() string {\n\tfor _, s := range []string{"
		for i := range files {
			write(t, filepath.Join(s.dir, "many", fmt.Sprintf("f%04d.go", i)), fmt.Sprintf("package many\n\nconst c%d = %q\n", i, name))
			all += fmt.Sprintf("c%d, ", i)
		}
		write(t, filepath.Join(s.dir, "many", "all.go"), all+"} {\n\t\tif s != c0 {\n\t\t\treturn \"a mixture\"\n\t\t}\n\t}\n\treturn c0\n}\n")
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=e2e", "-c", "user.email=e2e@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		cmd.Dir, cmd.Env = s.dir, append(append([]string{}, p.m.env...), "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git("init", "-q", "-b", "one")
	branch("one")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	git("checkout", "-q", "-b", "two")
	branch("two")
	git("commit", "-q", "-a", "-m", "two")

	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "two")
	a.running(t, "two")
	for _, b := range []string{"one", "two", "one"} {
		from := len(a.all())
		git("checkout", "-q", b)
		a.live(t, b)
		after(3 * time.Second) // a build too many would come now
		if n := a.count(from, isBuild(true)); n != 1 {
			t.Errorf("%d builds after the checkout of %s", n, b)
		}
		if n := a.count(from, isBuild(false)); n != 0 {
			t.Errorf("%d failed builds after the checkout of %s", n, b)
		}
		a.running(t, b)
	}
	a.wantContract(t)
}

// A save while the one before it is on its way.
func TestSaveDuringTransfer(t *testing.T) {
	t.Parallel()
	p := newKube(t)
	s := newShop(t, "v0")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v0")
	for i := range 3 {
		a.skipAll()
		s.edit(t, fmt.Sprintf("v%d, the first", i))
		a.wait(t, "the first one's build", isBuild(true))
		v := fmt.Sprintf("v%d, the second", i)
		s.edit(t, v)
		a.live(t, v)
		a.running(t, v)
	}
	p.wantRestarts(t, 0)
	a.wantContract(t)
}

// What is saved is noticed whatever its time of modification says, as after unpacking an archive or with a wrong clock.
func TestStrangeTimes(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v0")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.live(t, "v0")
		for i, mtime := range []time.Time{
			time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC),
			time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		} {
			// The size is the same each time, so that nothing but the content tells.
			v := fmt.Sprintf("v%d", i+1)
			other := filepath.Join(t.TempDir(), "version.go")
			write(t, other, s.source(v))
			if err := os.Chtimes(other, mtime, mtime); err != nil {
				t.Fatal(err)
			}
			if i == 2 { // in place
				s.edit(t, v)
				if err := os.Chtimes(s.version, mtime, mtime); err != nil {
					t.Fatal(err)
				}
			} else if err := os.Rename(other, s.version); err != nil {
				t.Fatal(err)
			}
			a.live(t, v)
			a.running(t, v)
		}
	})
}
