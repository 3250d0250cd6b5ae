package syncer

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
)

// put writes a file with a time.
func put(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err == nil {
		err = os.Chtimes(path, at, at)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, trees *Trees, f Folder) (map[string]api.File, []string) {
	t.Helper()
	ts, sources, problems, err := trees.Read([]Folder{f})
	if err != nil || len(ts) != 1 || ts[0].Name != f.Name {
		t.Fatalf("%+v %v", ts, err)
	}
	files := map[string]api.File{}
	for _, x := range ts[0].Files {
		files[x.Path] = x
		if x.Link == "" {
			if _, err := os.Stat(sources[x.Digest]); err != nil {
				t.Errorf("%s: its content is found nowhere: %v", x.Path, err)
			}
		}
	}
	var warned []string
	for _, p := range problems {
		if p.Severity != api.SeverityWarning || p.Message == "" {
			t.Errorf("%+v", p)
		}
		rel, _ := filepath.Rel(f.Path, p.File)
		warned = append(warned, filepath.ToSlash(rel))
	}
	return files, warned
}

func names(files map[string]api.File) []string {
	var out []string
	for n := range files {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// What travels, what stays here in silence, and what stays here with a word.
func TestTreesRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links take a right there")
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.txt"), "a", time.Now())
	put(t, filepath.Join(dir, "sub", "b.txt"), "b", time.Now())
	put(t, filepath.Join(dir, "sub", "no.tmp"), "x", time.Now())
	put(t, filepath.Join(dir, "cache", "c"), "x", time.Now())
	if err := os.Chmod(filepath.Join(dir, "a.txt"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"sub/in": "../a.txt", "out": "../x", "sub/far": "../../x", "abs": dir, "up": ".."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	files, warned := read(t, &Trees{}, Folder{Name: "files", Path: dir, Ignored: func(rel string, isDir bool) bool {
		return isDir && rel == "cache" || strings.HasSuffix(rel, ".tmp")
	}})
	if got, want := names(files), []string{"a.txt", "sub/b.txt", "sub/in"}; !slices.Equal(got, want) {
		t.Errorf("%v travels, want %v", got, want)
	}
	if f := files["a.txt"]; f.Mode != 0o755 || f.Size != 1 || f.Digest == "" || f.Digest == files["sub/b.txt"].Digest {
		t.Errorf("%+v", f)
	}
	if f := files["sub/in"]; f.Link != "../a.txt" {
		t.Errorf("%+v", f)
	}
	if want := []string{"abs", "out", "sub/far", "up"}; !slices.Equal(warned, want) {
		t.Errorf("warned of %v, want %v", warned, want)
	}
	if _, _, _, err := (&Trees{}).Read([]Folder{{Name: "files", Path: filepath.Join(dir, "none")}}); err == nil {
		t.Error("a folder that is not there was read")
	}
}

// Two names that differ only in case are one file on some laptops: the first one travels.
func TestTreesCaseClash(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "ReadMe"), "1", time.Now())
	put(t, filepath.Join(dir, "readME"), "2", time.Now())
	if ents, _ := os.ReadDir(dir); len(ents) != 2 {
		t.Skip("the file system tells no case apart")
	}
	files, warned := read(t, &Trees{}, Folder{Name: "files", Path: dir})
	if got := names(files); !slices.Equal(got, []string{"ReadMe"}) || !slices.Equal(warned, []string{"readME"}) {
		t.Errorf("%v travels, warned of %v", got, warned)
	}
}

// A file is read again when its size or its time is another, and also when it has been changed so lately that the clock
// may not have moved on; else its digest is remembered.
func TestTreesReadsAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	digest := func(trees *Trees) api.Digest {
		t.Helper()
		files, _ := read(t, trees, Folder{Name: "files", Path: dir})
		return files["f"].Digest
	}
	old, soon := time.Now().Add(-time.Hour), time.Now().Add(time.Minute) // soon: as if it had been just now, on a slow machine too
	for name, c := range map[string]struct {
		text    string
		was, is time.Time
		same    bool
	}{
		"another size":      {"longer", old, old, false},
		"a later time":      {"two", old, old.Add(time.Second), false},
		"an earlier time":   {"two", old, old.Add(-time.Hour), false},
		"neither":           {"two", old, old, true},
		"neither, just now": {"two", soon, soon, false},
	} {
		trees := &Trees{}
		put(t, path, "one", c.was)
		first := digest(trees)
		put(t, path, c.text, c.is)
		if second := digest(trees); (second == first) != c.same {
			t.Errorf("%s: %s, then %s", name, first, second)
		}
	}
}
