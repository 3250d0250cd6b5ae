package callsite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"fairlead.dev/api"
	"fairlead.dev/syncer/build"
)

// app makes the module that the cases are packages of: real generated code of gRPC and Connect, and gRPC itself.
func app(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "app"))); err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// write unpacks an archive's files.
func write(t testing.TB, dir string, files []txtar.File) {
	t.Helper()
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func finder(t testing.TB, dir string, cfg build.Config) *Finder {
	t.Helper()
	svc, err := build.Find(t.Context(), dir, build.FindOptions{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	b, err := build.New(t.Context(), svc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return New(b)
}

// testCase is an archive: "query NAME METHOD CALLEE", "stack NAME FUNC FILE:LINE", "tags: TAG" before the files, and in these
// comments "// want NAME: WHY" on the lines that are to be found.
type testCase struct {
	tags  []string
	names []string
	query map[string]*Query
}

func parseCase(t *testing.T, dir, comment string) testCase {
	t.Helper()
	c := testCase{query: map[string]*Query{}}
	for line := range strings.Lines(comment) {
		words := strings.Fields(line)
		switch {
		case len(words) > 3 && words[0] == "query":
			c.names = append(c.names, words[1])
			last := len(words) - 1
			c.query[words[1]] = &Query{Call: api.Call{Method: strings.Join(words[2:last], " "), Callee: words[last]}, Addresses: []string{words[last] + ":8080"}}
		case len(words) == 4 && words[0] == "stack":
			file, line, _ := strings.Cut(strings.Replace(words[3], "FILE", dir, 1), ":")
			n, err := strconv.Atoi(line)
			if err != nil {
				t.Fatal(err)
			}
			c.query[words[1]].Stack = append(c.query[words[1]].Stack, Frame{Func: words[2], File: file, Line: n})
		case len(words) > 1 && words[0] == "tags:":
			c.tags = words[1:]
		}
	}
	if len(c.names) == 0 {
		t.Fatal("no query")
	}
	return c
}

var reMarker = regexp.MustCompile(`// (want|related|fallback) ([\w, ]+?)( -\d+)?(?:: (.*))?$`)

// marked are the lines of the markers of a query, with what is to be said there.
func marked(t *testing.T, files []txtar.File, kind, query string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range files {
		n := 0
		for line := range strings.Lines(string(f.Data)) {
			n++
			m := reMarker.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil || m[1] != kind || !slices.Contains(strings.Split(strings.ReplaceAll(m[2], " ", ""), ","), query) {
				continue
			}
			off, _ := strconv.Atoi(strings.TrimSpace(m[3]))
			out[fmt.Sprintf("%s:%d", f.Name, n+off)] = m[4]
		}
	}
	return out
}

func TestFind(t *testing.T) {
	dir := app(t)
	archives, err := filepath.Glob(filepath.Join("testdata", "cases", "*.txtar"))
	if err != nil || len(archives) < 10 {
		t.Fatalf("%d cases: %v", len(archives), err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			root := filepath.Join(dir, strings.TrimSuffix(filepath.Base(name), ".txtar"))
			write(t, root, ar.Files)
			check(t, root, ar)
		})
	}
}

// check finds what an archive asks for in the module that has its files.
func check(t *testing.T, root string, ar *txtar.Archive) {
	t.Helper()
	c := parseCase(t, root, string(ar.Comment))
	f := finder(t, root, build.Config{Target: api.Target{OS: "linux"}, Tags: c.tags})
	var queries []Query
	for _, name := range c.names {
		queries = append(queries, *c.query[name])
	}
	results, err := f.Find(t.Context(), queries)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range c.names {
		compare(t, root, ar.Files, name, results[i])
	}
}

// compare compares a result with the markers.
func compare(t *testing.T, root string, files []txtar.File, query string, r Result) {
	t.Helper()
	line := func(file string, n int) string {
		rel, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s:%d", filepath.ToSlash(rel), n)
	}
	want, got := marked(t, files, "want", query), map[string]string{}
	for _, p := range r.Places {
		at := line(p.File, p.Line)
		got[at] = p.Why
		if strings.Contains(p.Why, want[at]) {
			got[at] = want[at]
		}
		if text := source(t, p); text != strings.TrimSpace(text) || strings.Contains(text, "//") && !strings.Contains(text, "\"") {
			t.Errorf("%s: the place at %s is %q", query, at, text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: places (-want +got):\n%s%s", query, diff, r.Reason)
	}
	related := map[string]string{}
	for _, p := range r.Places {
		for _, q := range p.Related {
			related[line(q.File, q.Line)] = ""
		}
	}
	if want := marked(t, files, "related", query); len(want) > 0 {
		if diff := cmp.Diff(want, related); diff != "" {
			t.Errorf("%s: related (-want +got):\n%s", query, diff)
		}
	}
	for at, reason := range marked(t, files, "fallback", query) {
		if r.Fallback == nil || line(r.Fallback.File, r.Fallback.Line) != at || !strings.Contains(r.Reason, reason) {
			t.Errorf("%s: fallback %+v, reason %q; want %s, %q", query, r.Fallback, r.Reason, at, reason)
		}
	}
}

// source is the text of a place.
func source(t *testing.T, p Place) string {
	t.Helper()
	src, err := os.ReadFile(p.File)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Split(string(src), "\n")[p.Line-1]
	if p.Column < 1 || p.EndColumn <= p.Column || p.EndColumn > len(line)+1 {
		t.Fatalf("%s:%d: columns %d to %d of %q", p.File, p.Line, p.Column, p.EndColumn, line)
	}
	return line[p.Column-1 : p.EndColumn-1]
}

func TestCancel(t *testing.T) {
	dir := app(t)
	write(t, filepath.Join(dir, "svc"), []txtar.File{{Name: "main.go", Data: []byte("package main\n\nimport \"net/http\"\n\nfunc main() { http.Get(\"http://billing/v1/x\") }\n")}})
	f := finder(t, filepath.Join(dir, "svc"), build.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := []Query{{Call: api.Call{Method: "GET /v1/x", Callee: "billing"}}}
	if _, err := f.Find(ctx, q); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	r, err := f.Find(t.Context(), q)
	if err != nil || len(r[0].Places) != 1 {
		t.Fatalf("after a search that was cancelled: %+v, %v", r, err)
	}
}
