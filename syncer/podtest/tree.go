package podtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/syncer"
)

// runTrees edits a folder in every way and compares the pod's copy each time.
func runTrees(t *testing.T, s Subject) {
	one := Build(t, "one")
	src := t.TempDir()
	trees := &syncer.Trees{}
	sh := NewShipper(t)
	m := Manifest(0, one)
	ship := func(sent int) {
		t.Helper()
		ts, sources, problems, err := trees.Read([]syncer.Folder{{Name: "files", Path: src}})
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		m.Generation++
		m.Trees = ts
		ev, _, err := sh.Ship(t.Context(), s.Pod, m, one, sources)
		if err != nil {
			t.Fatal(err)
		}
		if ev.Files != sent {
			t.Fatalf("generation %d: %d files travelled, want %d", m.Generation, ev.Files, sent)
		}
		if d := cmp.Diff(listing(t, src), listing(t, s.Tree)); d != "" {
			t.Fatalf("the pod's copy differs (-here +there):\n%s", d)
		}
	}
	write(t, filepath.Join(src, "a.txt"), "a")
	write(t, filepath.Join(src, "deep/er/b.txt"), "b")
	write(t, filepath.Join(src, "run.sh"), "#!")
	os.Chmod(filepath.Join(src, "run.sh"), 0o755)
	if err := os.Symlink("../a.txt", filepath.Join(src, "deep/link")); err != nil {
		t.Fatal(err)
	}
	ship(4) // the executable too
	write(t, filepath.Join(src, "a.txt"), "changed")
	ship(1)
	os.Chmod(filepath.Join(src, "a.txt"), 0o600) // only the mode
	ship(0)
	os.Remove(filepath.Join(src, "deep/er/b.txt"))
	os.Remove(filepath.Join(src, "deep/er"))
	ship(0)
	// A folder becomes a file, a file a folder.
	os.RemoveAll(filepath.Join(src, "deep"))
	write(t, filepath.Join(src, "deep"), "now a file")
	os.Remove(filepath.Join(src, "a.txt"))
	write(t, filepath.Join(src, "a.txt/inside"), "now a folder")
	ship(2)
	// The pod's copy loses a file, and one appears that nobody sent.
	os.Remove(filepath.Join(s.Tree, "run.sh"))
	write(t, filepath.Join(s.Tree, "stray"), "x")
	write(t, filepath.Join(src, "new"), "n")
	ship(2)
	// A link planted in the pod's copy leads outside: nothing is written through it.
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(s.Tree, "sub")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(src, "sub/file"), "inside")
	ship(1)
	if left := must(os.ReadDir(outside)); len(left) > 0 {
		t.Fatalf("written outside the folder: %v", left)
	}
}

// listing maps each path below dir to its kind, mode and content.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel := must(filepath.Rel(dir, p))
		if d.Type()&fs.ModeSymlink != 0 {
			out[rel] = "link " + must(os.Readlink(p))
			return nil
		}
		fi := must(d.Info())
		out[rel] = fi.Mode().String() + " " + string(must(os.ReadFile(p)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
