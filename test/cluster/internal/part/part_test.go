package part

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

// source makes a module and returns its root.
func source(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "go.mod"), "module fairlead.dev/test/cluster\n")
	write(t, filepath.Join(root, "main.go"), "package main\n")
	return root
}

func TestKeyChangesWithWhatIsBuilt(t *testing.T) {
	p := Part{Name: "p", Dir: ".", Packages: []string{"example.com/p"}}
	for _, test := range []struct {
		name, file, content string
		want                bool
	}{
		{"a source", "main.go", "package main // changed\n", true},
		{"a new source", "sub/new.go", "package sub\n", true},
		{"the checksums", "go.sum", "x\n", true},
		{"a test", "main_test.go", "package main\n", false},
		{"a text", "README.md", "x\n", false},
		{"test data", "testdata/x.go", "package x\n", false},
		{"another module", "other/go.mod", "module other\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := source(t)
			before, err := p.Key(root)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(root, test.file), test.content)
			if test.file == "other/go.mod" {
				write(t, filepath.Join(root, "other/main.go"), "package main\n")
			}
			after, err := p.Key(root)
			if err != nil {
				t.Fatal(err)
			}
			if changed := before != after; changed != test.want {
				t.Errorf("key changed: %v, want %v", changed, test.want)
			}
		})
	}
	root := source(t)
	one, _ := p.Key(root)
	p.Packages = append(p.Packages, "example.com/q")
	if two, _ := p.Key(root); one == two {
		t.Error("the key is the same for another set of packages")
	}
}

// cache returns a cache whose builds write one file and are counted.
func cache(t *testing.T) (c *Cache, builds *int) {
	t.Helper()
	builds = new(int)
	return &Cache{
		Dir:      t.TempDir(),
		Source:   source(t),
		Progress: t.Logf,
		build: func(_ context.Context, _ Part, out string) error {
			*builds++
			return os.WriteFile(filepath.Join(out, "program"), []byte("good"), 0o755)
		},
	}, builds
}

func TestEnsureBuildsOnce(t *testing.T) {
	c, builds := cache(t)
	p := Part{Name: "p", Dir: "."}
	first, err := c.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if first != second || *builds != 1 {
		t.Errorf("%d builds, folders %s and %s; want one", *builds, first, second)
	}
}

func TestEnsureReplacesWhatIsDamaged(t *testing.T) {
	for name, damage := range map[string]func(entry string) error{
		"content":      func(e string) error { return os.WriteFile(filepath.Join(e, "program"), []byte("evil"), 0o755) },
		"cut short":    func(e string) error { return os.Truncate(filepath.Join(e, "program"), 2) },
		"file gone":    func(e string) error { return os.Remove(filepath.Join(e, "program")) },
		"file added":   func(e string) error { return os.WriteFile(filepath.Join(e, "runc"), nil, 0o755) },
		"digests gone": func(e string) error { return os.Remove(filepath.Join(e, digestFile)) },
		"digests empty": func(e string) error {
			return os.WriteFile(filepath.Join(e, digestFile), nil, 0o644)
		},
		"digests name a place outside": func(e string) error {
			return os.WriteFile(filepath.Join(e, digestFile), []byte("0  ../program\n"), 0o644)
		},
		"empty": func(e string) error {
			return errors.Join(os.RemoveAll(e), os.Mkdir(e, 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, builds := cache(t)
			p := Part{Name: "p", Dir: "."}
			entry, err := c.Ensure(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(entry); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Ensure(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(entry, "program"))
			if err != nil || string(got) != "good" || *builds != 2 {
				t.Errorf("program %q, %v after %d builds; want it built again", got, err, *builds)
			}
		})
	}
}

func TestEnsureLeavesNothingOfAFailedBuild(t *testing.T) {
	c, _ := cache(t)
	boom := errors.New("boom")
	c.build = func(_ context.Context, _ Part, out string) error {
		return errors.Join(os.WriteFile(filepath.Join(out, "half"), nil, 0o755), boom)
	}
	if _, err := c.Ensure(t.Context(), Part{Name: "p", Dir: "."}); !errors.Is(err, boom) {
		t.Fatalf("got %v, want the build's error", err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestEnsurePrunes(t *testing.T) {
	c, _ := cache(t)
	old := time.Now().Add(-2 * unusedAfter)
	for name, removed := range map[string]bool{
		"p-0123456789abcdef": true,  // old
		"p.tmp-1":            true,  // of a killed build
		"pp-0123456789abcde": false, // another part's
	} {
		dir := filepath.Join(c.Dir, name)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chtimes(dir, old, old)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_, err := os.Stat(dir)
			if got := errors.Is(err, fs.ErrNotExist); got != removed {
				t.Errorf("%s removed: %v, want %v", name, got, removed)
			}
		}()
	}
	recent := filepath.Join(c.Dir, "p-fedcba9876543210")
	if err := os.Mkdir(recent, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ensure(t.Context(), Part{Name: "p", Dir: "."}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(recent); err != nil {
		t.Errorf("an entry used of late: %v", err)
	}
}

func TestFindSource(t *testing.T) {
	checkout := t.TempDir()
	root := filepath.Join(checkout, "test", "cluster")
	write(t, filepath.Join(root, "go.mod"), "module fairlead.dev/test/cluster\n\ngo 1.26.0\n")
	write(t, filepath.Join(root, "kube", "go.mod"), "module fairlead.dev/test/cluster/kube\n")
	for _, from := range []string{"", "test", "test/cluster", "test/cluster/kube"} {
		got, err := FindSource(filepath.Join(checkout, from))
		if err != nil || got != root {
			t.Errorf("from %q: %q, %v, want %q", from, got, err, root)
		}
	}
	if _, err := FindSource(t.TempDir()); !errors.Is(err, ErrNoSource) {
		t.Errorf("from elsewhere: %v, want ErrNoSource", err)
	}
}

// The modules beside this one are what Parts says, or up would fail after the
// longest of the builds.
func TestPartsAreThere(t *testing.T) {
	root, err := FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range Parts() {
		mod, err := os.ReadFile(filepath.Join(root, p.Dir, "go.mod"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, pkg := range p.Packages {
			local, isLocal := strings.CutPrefix(pkg, "fairlead.dev/test/cluster")
			if isLocal {
				if _, err := os.Stat(filepath.Join(root, local, "main.go")); err != nil {
					t.Error(err)
				}
			} else if !strings.Contains(string(mod), pkg) {
				t.Errorf("%s: go.mod does not list the tool %s", p.Name, pkg)
			}
		}
	}
}

func TestBuildArgs(t *testing.T) {
	// A change of flags must change the key: it is part of what is hashed.
	got := fmt.Sprint(buildArgs("out", []string{"pkg"}))
	if !strings.Contains(got, "-trimpath") || !strings.HasSuffix(got, "-o out pkg]") {
		t.Errorf("go %s", got)
	}
}
