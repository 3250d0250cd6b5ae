package build

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"fairlead.dev/api"
	"github.com/google/go-cmp/cmp"
)

// shop is a workspace of two modules, one of which replaces a third by a folder, with all that inputs can be.
var shop = []string{
	"go.work", "go 1.24\n\nuse (\n\t./shop\n\t./lib\n)\n",
	"lib/go.mod", gomod("example.com/lib"),
	"lib/lib.go", "package lib\n",
	"lib/unused/unused.go", "package unused\n",
	"shop/go.mod", gomod("example.com/shop") + "\nrequire example.com/local v0.0.0\n\nreplace example.com/local => ../local\n",
	"shop/cmd/shop/main.go", "package main\n\nimport (\n\t_ \"example.com/lib\"\n\t_ \"example.com/local\"\n\t\"example.com/shop/pkg\"\n)\n\nfunc main() { pkg.F() }\n",
	"shop/cmd/other/main.go", mainGo,
	"shop/pkg/pkg.go", "package pkg\n\nimport (\n\t\"embed\"\n\t\"fmt\"\n)\n\n//go:embed static/*.html all:conf\n//go:embed \"with space.txt\"\nvar fs embed.FS\n\nfunc F() { fmt.Println(fs) }\n",
	"shop/pkg/pkg_test.go", "package pkg\n",
	"shop/pkg/pkg_windows.go", "package pkg\n",
	"shop/pkg/tagged.go", "//go:build never\n\npackage pkg\n\nimport _ \"os\"\n",
	"shop/pkg/README.md", "",
	"shop/pkg/static/a.html", "a",
	"shop/pkg/conf/.hidden", "h",
	"shop/pkg/conf/deep/x.yaml", "x",
	"shop/pkg/with space.txt", "s",
	"shop/unused/unused.go", "package unused\n",
	"local/go.mod", gomod("example.com/local"),
	"local/local.go", "package local\n",
}

func shopInputs(t *testing.T, dir string) *Inputs {
	t.Helper()
	b := builder(t, dir, FindOptions{Main: "./shop/cmd/shop", Config: Config{Target: api.Target{OS: "linux"}}})
	in, err := b.Inputs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestRelevant(t *testing.T) {
	dir := write(t, shop...)
	in := shopInputs(t, dir)
	for name, want := range map[string]bool{
		"go.work":                     true,
		"go.work.sum":                 true,
		"shop/go.mod":                 true,
		"shop/go.sum":                 true,
		"shop/vendor/modules.txt":     true,
		"lib/go.mod":                  true,
		"local/go.mod":                true,
		"lib/lib.go":                  true,
		"lib/new.go":                  true,
		"lib/unused/unused.go":        false,
		"local/local.go":              true,
		"shop/cmd/shop/main.go":       true,
		"shop/cmd/shop/default.pgo":   true,
		"shop/cmd/shop/new.go":        true,
		"shop/cmd/shop/new_linux.go":  true,
		"shop/cmd/shop/new_darwin.go": false,
		"shop/cmd/shop/new_test.go":   false,
		"shop/cmd/shop/_new.go":       false,
		"shop/cmd/shop/.#main.go":     false,
		"shop/cmd/shop/main.go~":      false,
		"shop/cmd/shop/asm.s":         true,
		"shop/cmd/shop/rsrc.syso":     true,
		"shop/cmd/shop/new/new.go":    false,
		"shop/cmd/other/main.go":      false,
		"shop/pkg/pkg.go":             true,
		"shop/pkg/pkg_test.go":        false,
		"shop/pkg/pkg_windows.go":     false,
		"shop/pkg/tagged.go":          false, // as long as its constraint stays
		"shop/pkg/README.md":          false,
		"shop/pkg/static/a.html":      true,
		"shop/pkg/static/b.html":      true,
		"shop/pkg/static/b.css":       false,
		"shop/pkg/static/.html":       true,
		"shop/pkg/conf":               false, // there before and now
		"shop/pkg/conf/.hidden":       true,
		"shop/pkg/conf/.new/_new":     true,
		"shop/pkg/with space.txt":     true,
		"shop/pkg":                    false,
		"shop/unused/unused.go":       false,
		"shop":                        false,
		"":                            false,
		"shop/cmd/shop/../shop/x.go":  true,
	} {
		path := dir + string(filepath.Separator) + filepath.FromSlash(name)
		if got := in.Relevant(path); got != want {
			t.Errorf("Relevant(%s) = %v", name, got)
		}
	}
	var dirs []string
	for _, d := range in.Dirs() {
		rel, err := filepath.Rel(dir, d)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, filepath.ToSlash(rel))
	}
	want := []string{".", "lib", "local", "shop", "shop/cmd", "shop/cmd/shop", "shop/pkg", "shop/pkg/conf", "shop/pkg/conf/deep", "shop/pkg/static"}
	if d := cmp.Diff(want, dirs); d != "" {
		t.Errorf("dirs (-want +got):\n%s", d)
	}
}

// TestStale changes one file at a time.
func TestStale(t *testing.T) {
	for _, tt := range []struct {
		name, file, old, new string // in file, old becomes new; without old, new is its content; without both it goes
		relevant, stale      bool
	}{
		{"body", "shop/pkg/pkg.go", "Println(fs)", "Println(fs, 1)", true, false},
		{"import", "shop/pkg/pkg.go", `"fmt"`, "\"fmt\"\n\t_ \"os\"", true, true},
		{"import order", "shop/pkg/pkg.go", "\t\"embed\"\n\t\"fmt\"\n", "\t\"fmt\"\n\t\"embed\"\n", true, false},
		{"embed", "shop/pkg/pkg.go", "all:conf", "conf", true, true},
		{"constraint added", "shop/pkg/pkg.go", "package pkg", "//go:build linux\n\npackage pkg", true, true},
		{"constraint removed", "shop/pkg/tagged.go", "//go:build never\n\n", "", true, true},
		{"body of what is left out", "shop/pkg/tagged.go", "os\"\n", "os\"\n\nfunc G() {}\n", false, false},
		{"package clause", "lib/lib.go", "package lib", "package libb", true, true},
		{"syntax of the imports", "lib/lib.go", "package lib", "package lib\n\nimport (", true, true},
		{"syntax of the rest", "lib/lib.go", "package lib", "package lib\n\nfunc (", true, false},
		{"new", "lib/new.go", "", "package lib\n", true, true},
		{"new test", "lib/new_test.go", "", "package lib\n", false, false},
		{"removed", "lib/lib.go", "", "", true, true},
		{"go.mod", "shop/go.mod", "go 1.24", "go 1.24.0", true, true},
		{"go.sum", "shop/go.sum", "", "\n", true, true},
		{"embedded", "shop/pkg/static/a.html", "a", "b", true, false},
		{"embedded, new", "shop/pkg/static/b.html", "", "b", true, true},
		{"embedded, removed", "shop/pkg/static/a.html", "", "", true, true},
		{"elsewhere", "shop/unused/unused.go", "package", "// c\npackage", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, shop...)
			in := shopInputs(t, dir)
			file := filepath.Join(dir, filepath.FromSlash(tt.file))
			switch {
			case tt.old == "" && tt.new == "":
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			case tt.old == "":
				put(t, dir, tt.file, tt.new)
			default:
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				put(t, dir, tt.file, strings.Replace(string(b), tt.old, tt.new, 1))
			}
			if got := in.Relevant(file); got != tt.relevant {
				t.Errorf("relevant: %v", got)
			}
			if got := in.Stale([]string{filepath.Join(dir, "x"), file}); got != tt.stale {
				t.Errorf("stale: %v", got)
			}
			if tt.stale {
				return
			}
			// What is not stale would be listed the same again.
			b := builder(t, dir, FindOptions{Main: "./shop/cmd/shop", Config: Config{Target: api.Target{OS: "linux"}}})
			again, err := b.Inputs(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(in.files, again.files); d != "" {
				t.Errorf("the files differ:\n%s", d)
			}
			if !slices.Equal(in.Dirs(), again.Dirs()) {
				t.Errorf("the folders differ: %v, %v", in.Dirs(), again.Dirs())
			}
		})
	}
}

// TestInputsBroken edits what an import, a package or an embed pattern lacks.
func TestInputsBroken(t *testing.T) {
	dir := write(t, "go.mod", gomod("example.com/m"),
		"main.go", "package main\n\nimport (\n\t\"embed\"\n\n\t_ \"example.com/m/a/missing\"\n\t_ \"example.com/m/cut\"\n)\n\n//go:embed page.html\nvar _ embed.FS\n\nfunc main() {}\n",
		"cut/cut.go", "package cut\n\nimport (\n")
	in, err := builder(t, dir, FindOptions{}).Inputs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"main.go", "page.html", "a/missing/x.go", "cut/cut.go", "cut/new.go"} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if !in.Relevant(file) || !in.Stale([]string{file}) {
			t.Errorf("%s: relevant %v, stale %v", name, in.Relevant(file), in.Stale([]string{file}))
		}
	}
	for _, name := range []string{"a", filepath.Join("a", "missing")} {
		folder := filepath.Join(dir, name)
		if in.Relevant(folder) {
			t.Errorf("%s is relevant before it is made", name)
		}
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if !in.Relevant(folder) {
			t.Errorf("%s is not relevant when it is made", name)
		}
	}
}

func TestInputsFolderGoes(t *testing.T) {
	dir := write(t, shop...)
	in := shopInputs(t, dir)
	old := filepath.Join(dir, "shop", "pkg")
	if err := os.Rename(old, old+"2"); err != nil {
		t.Fatal(err)
	}
	if !in.Relevant(old) || !in.Stale([]string{old}) || in.Relevant(old+"2") {
		t.Errorf("a package's folder was renamed: relevant %v, stale %v, new name relevant %v", in.Relevant(old), in.Stale([]string{old}), in.Relevant(old+"2"))
	}
}

func TestInputsLinks(t *testing.T) {
	dir := write(t, "m/go.mod", gomod("example.com/m"), "m/main.go", mainGo, "shared/version.go", "package main\n")
	if err := os.Symlink(filepath.Join(dir, "shared", "version.go"), filepath.Join(dir, "m", "version.go")); err != nil {
		skip(t, "no symbolic links here: "+err.Error())
	}
	in, err := builder(t, filepath.Join(dir, "m"), FindOptions{}).Inputs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"m/version.go", "shared/version.go"} {
		if !in.Relevant(filepath.Join(dir, filepath.FromSlash(name))) {
			t.Errorf("%s is not relevant", name)
		}
	}
}

func TestInputsVendor(t *testing.T) {
	dir := write(t, "go.mod", gomod("example.com/m")+"\nrequire example.com/y v1.0.0\n", "main.go", "package main\n\nimport _ \"example.com/y\"\n\nfunc main() {}\n",
		"vendor/modules.txt", "# example.com/y v1.0.0\n## explicit; go 1.24\nexample.com/y\n", "vendor/example.com/y/y.go", "package y\n")
	b := builder(t, dir, FindOptions{Config: Config{Env: []string{"GOPROXY=off"}}})
	in, err := b.Inputs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vendor/modules.txt", "vendor/example.com/y/y.go"} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if !in.Relevant(file) || !in.Stale([]string{file}) {
			t.Errorf("%s: relevant %v, stale %v", name, in.Relevant(file), in.Stale([]string{file}))
		}
	}
	if _, err := b.Build(t.Context(), Request{OutDir: t.TempDir()}); err != nil {
		t.Error(err)
	}
}

// TestInputsRace lists a file that changed after the go command had read it.
func TestInputsRace(t *testing.T) {
	dir := write(t, "go.mod", gomod("example.com/m"), "main.go", "package main\n\nimport _ \"os\"\n\nfunc main() {}\n", "other.go", "package main\n")
	b := builder(t, dir, FindOptions{})
	in := newInputs(b.svc, b.tool, []goPackage{{Dir: dir, ImportPath: "example.com/m", Name: "main", GoFiles: []string{"main.go", "other.go"}}})
	if !in.Stale([]string{filepath.Join(dir, "other.go")}) {
		t.Error("a listing that its files contradict is trusted")
	}
}

func TestInputsCgo(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("cgo is on for a native build, which is tried on linux")
	}
	dir := write(t, "go.mod", gomod("example.com/m"), "main.go", "package main\n\n// #include \"x.h\"\nimport \"C\"\n\nfunc main() { C.f() }\n",
		"x.c", "int f() { return 1; }\n", "x.h", "int f();\n")
	b := builder(t, dir, FindOptions{Config: Config{Native: true, Env: []string{"CGO_ENABLED=1"}}})
	in, err := b.Inputs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"main.go", "x.c", "x.h"} {
		file := filepath.Join(dir, name)
		if !in.Relevant(file) || in.Stale([]string{file}) {
			t.Errorf("%s: relevant %v, stale %v", name, in.Relevant(file), in.Stale([]string{file}))
		}
	}
}

func BenchmarkRelevant(b *testing.B) {
	dir := write(b, shop...)
	bl := builder(b, dir, FindOptions{Main: "./shop/cmd/shop"})
	in, err := bl.Inputs(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"shop/pkg/pkg.go", "shop/pkg/new.go", "shop/node_modules/a/b/c/d/e/f/g.js"} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		b.Run(filepath.Base(name), func(b *testing.B) {
			for b.Loop() {
				in.Relevant(file)
			}
		})
	}
}

// What go:embed takes: a folder without its hidden files, unless "all:" or a pattern names them.
func TestEmbeds(t *testing.T) {
	for _, c := range []struct {
		p    pattern
		rel  string
		want bool
	}{
		{pattern{glob: "static"}, "static/a/b.css", true},
		{pattern{glob: "static"}, "static/.hidden", false},
		{pattern{glob: "static"}, "static/_draft/x", false},
		{pattern{glob: "static"}, "static/a/.git/x", false},
		{pattern{glob: "static", all: true}, "static/.hidden", true},
		{pattern{glob: "static/.*"}, "static/.hidden", true},
		{pattern{glob: "static"}, "static2/x", false},
		{pattern{glob: "*.html"}, "index.html", true},
		{pattern{glob: "*.html"}, "a/index.html", false},
		{pattern{glob: "."}, "any/thing", true},
		{pattern{glob: "."}, ".hidden", false},
	} {
		f := &pkgFolder{patterns: []pattern{c.p}}
		if got := f.embeds(c.rel); got != c.want {
			t.Errorf("%+v: %s: %v", c.p, c.rel, got)
		}
	}
}
