package callsite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	// What build.Find would say, without some of its questions to the go command.
	root := dir
	for {
		if exists(filepath.Join(root, "go.mod")) {
			break
		}
		root = filepath.Dir(root)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	svc := build.Service{Module: strings.Fields(string(mod))[1], ModuleDir: root, Dir: dir}
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	svc.ImportPath = path.Join(svc.Module, filepath.ToSlash(rel))
	svc.Modules = []build.Module{{Path: svc.Module, Dir: root}}
	if work := filepath.Join(filepath.Dir(root), "go.work"); exists(work) {
		svc.GoWork = work
	}
	b, err := build.New(t.Context(), svc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return New(b)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// testCase is an archive: "query NAME METHOD CALLEE", "stack NAME FUNC FILE:LINE", "log NAME FILE:LINE", "tags: TAG" before the files, and in these
// comments "// want NAME: WHY" on the lines that are to be found.
type testCase struct {
	dir   string // where the main package is
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
		case len(words) == 3 && words[0] == "log":
			file, line, _ := strings.Cut(strings.Replace(words[2], "FILE", dir, 1), ":")
			n, err := strconv.Atoi(line)
			if err != nil {
				t.Fatal(err)
			}
			c.query[words[1]].Stack = append(c.query[words[1]].Stack, Frame{File: file, Line: n})
		case len(words) > 1 && words[0] == "dir:":
			c.dir = words[1]
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
	f := finder(t, filepath.Join(root, c.dir), build.Config{Target: api.Target{OS: "linux"}, Tags: c.tags})
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

// Modules of their own, without the network and what this machine has of others' modules.
func TestModules(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	for _, name := range []string{"vendor", "work"} {
		t.Run(name, func(t *testing.T) {
			ar, err := txtar.ParseFile(filepath.Join("testdata", "modules", name+".txtar"))
			if err != nil {
				t.Fatal(err)
			}
			root, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			write(t, root, ar.Files)
			check(t, root, ar)
		})
	}
}

// lines are where a method is found, as FILE:LINE below a folder.
func lines(t testing.TB, f *Finder, root, method string) []string {
	t.Helper()
	r, err := f.Find(t.Context(), []Query{{Call: api.Call{Method: method, Callee: "billing"}}})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, p := range r[0].Places {
		rel, err := filepath.Rel(root, p.File)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s:%d", filepath.ToSlash(rel), p.Line))
	}
	return out
}

func TestEdits(t *testing.T) {
	dir := filepath.Join(app(t), "edits")
	ar := txtar.Parse([]byte(`
-- main.go --
package main

import "example.com/app/edits/shop"

func main() {
	shop.Run(nil)
}
-- shop/shop.go --
package shop

import (
	"context"

	"example.com/app/billingpb"
	"example.com/app/edits/base"
)

func Run(c billingpb.BillingClient) {
	c.Charge(context.Background(), nil)
	var b base.Base
	b.Charge(context.Background(), nil)
}
-- base/base.go --
package base

import "context"

type Base struct{ Inner }

type Inner struct{}

func (Inner) Charge(context.Context, any) {}
-- other/other.go --
package other

import "net/http"

func Get() { http.Get("http://billing/v1/other") }
`))
	write(t, dir, ar.Files)
	f := finder(t, dir, build.Config{Target: api.Target{OS: "linux"}})
	const charge, get = "/billing.v1.Billing/Charge", "GET /v1/other"
	want := func(step, method string, lines_ ...string) {
		t.Helper()
		if diff := cmp.Diff(append([]string{}, lines_...), lines(t, f, dir, method)); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", step, diff)
		}
	}
	edit := func(name, old, new string) {
		t.Helper()
		file := filepath.Join(dir, filepath.FromSlash(name))
		src, err := os.ReadFile(file)
		if err != nil && old != "" {
			t.Fatal(err)
		}
		text := strings.Replace(string(src), old, new, 1)
		if text == string(src) {
			t.Fatalf("%q is not in %s", old, name)
		}
		write(t, dir, []txtar.File{{Name: name, Data: []byte(text)}})
		f.Invalidate([]string{file})
	}
	pkg := func(name string) *pkg { return f.graph.pkgs["example.com/app/edits/"+name] }

	if err := f.Warm(t.Context()); err != nil || pkg("shop").facts == nil || pkg("base").facts != nil {
		t.Fatalf("after warming: shop %v, base %v, %v", pkg("shop").facts, pkg("base").facts, err)
	}
	want("at first", charge, "shop/shop.go:11")
	base, list := pkg("base").types, f.graph
	if base == nil {
		t.Fatal("nothing was kept")
	}
	edit("shop/shop.go", "\tc.Charge", "\t// A line more.\n\tc.Charge")
	want("a body was edited", charge, "shop/shop.go:12")
	if pkg("base").types != base || f.graph != list {
		t.Fatal("another package was made anew for the edit of a body")
	}

	edit("base/base.go", "Charge(context.Context, any) {}", "Charge(context.Context, any) { print() }")
	want("a body below was edited", charge, "shop/shop.go:12")
	if pkg("base").types != base {
		t.Fatal("the declarations were made anew for the edit of a body")
	}
	edit("base/base.go", "Inner struct{}", "Inner struct{ billingpb.BillingClient }")
	edit("base/base.go", "\nfunc (Inner) Charge(context.Context, any) { print() }", "")
	edit("base/base.go", "import \"context\"", "import \"example.com/app/billingpb\"")
	want("a type below was edited", charge, "shop/shop.go:12", "shop/shop.go:14")

	list = f.graph
	edit("base/base.go", "Inner struct{ billingpb.BillingClient }", "Inner struct{ billingpb.BillingServer }")
	want("it was edited back, and no import with it", charge, "shop/shop.go:12")
	edit("base/base.go", "Inner struct{ billingpb.BillingServer }", "Inner struct{ billingpb.BillingClient }")
	want("and again", charge, "shop/shop.go:12", "shop/shop.go:14")
	if f.graph != list {
		t.Fatal("the packages were listed again for an edit of a type")
	}

	edit("shop/shop.go", "c.Charge(", "c.Charge((")
	want("a syntax error", charge, "shop/shop.go:12", "shop/shop.go:14")
	edit("shop/shop.go", "c.Charge((", "c.Charge(")

	want("nothing imports it", get)
	edit("main.go", "import ", "import _ \"example.com/app/edits/other\"\nimport ")
	want("a package is new", get, "other/other.go:5")
	edit("shop/more.go", "", "package shop\n\nimport \"net/http\"\n\nfunc more() { http.Get(\"http://billing/v1/other\") }\n")
	want("a file is new", get, "other/other.go:5", "shop/more.go:5")
	if err := os.Remove(filepath.Join(dir, "other", "other.go")); err != nil {
		t.Fatal(err)
	}
	f.Invalidate([]string{filepath.Join(dir, "other", "other.go")})
	want("a file is gone", get, "shop/more.go:5")
	want("at last", charge, "shop/shop.go:12", "shop/shop.go:14")
	if err := f.Forget(t.Context()); err != nil || f.graph != nil {
		t.Fatalf("forgotten: %v, %v", f.graph, err)
	}
	want("after all was forgotten", charge, "shop/shop.go:12", "shop/shop.go:14")
}

func TestConcurrent(t *testing.T) {
	dir := filepath.Join(app(t), "many")
	write(t, dir, []txtar.File{{Name: "main.go", Data: []byte("package main\n\nimport \"net/http\"\n\nfunc main() { http.Get(\"http://billing/v1/x\") }\n")}})
	f := finder(t, dir, build.Config{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				f.Invalidate([]string{filepath.Join(dir, "main.go")})
				r, err := f.Find(t.Context(), []Query{{Call: api.Call{Method: "GET /v1/x", Callee: "billing"}}})
				if err != nil || len(r[0].Places) != 1 {
					t.Errorf("%+v, %v", r, err)
				}
			}
		})
	}
	wg.Wait()
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

// countdown is a context that is cancelled when it was asked for the n-th time.
type countdown struct {
	context.Context
	n int
}

func (c *countdown) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// A search that is cancelled anywhere leaves nothing half made behind.
func TestCancelAnywhere(t *testing.T) {
	dir := filepath.Join(app(t), "cut")
	write(t, dir, txtar.Parse([]byte(`
-- main.go --
package main

import "example.com/app/cut/pay"

func main() { (&pay.Shop{}).Pay() }
-- pay/pay.go --
package pay

import "example.com/app/cut/clients"

type Shop struct{ clients.Set }

func (s *Shop) Pay() { s.Charge(nil, nil) }
-- clients/clients.go --
package clients

import "example.com/app/billingpb"

type Set struct{ billingpb.BillingClient }
`)).Files)
	f := finder(t, dir, build.Config{Target: api.Target{OS: "linux"}})
	const charge = "/billing.v1.Billing/Charge"
	whole := lines(t, f, dir, charge)
	if len(whole) != 1 {
		t.Fatalf("%v", whole)
	}
	for n := 0; ; n++ {
		f.forget(f.graph)
		_, err := f.Find(&countdown{t.Context(), n}, []Query{{Call: api.Call{Method: charge, Callee: "billing"}}})
		if err == nil {
			if n < 8 {
				t.Fatalf("it was cancelled at %d places only", n)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if diff := cmp.Diff(whole, lines(t, f, dir, charge)); diff != "" {
			t.Fatalf("after a search that was cancelled at its place %d (-want +got):\n%s", n, diff)
		}
	}
}
