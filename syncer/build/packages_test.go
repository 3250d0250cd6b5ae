package build

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"fairlead.dev/api"
	"github.com/google/go-cmp/cmp"
)

func TestPackages(t *testing.T) {
	dir := write(t, shop...)
	put(t, dir, "shop/pkg/half.go", "package pkg\n\nimport \"strings\n")
	b := builder(t, dir, FindOptions{Main: "./shop/cmd/shop", Config: Config{Target: api.Target{OS: "linux"}}})
	pkgs, in, err := b.Packages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !in.Relevant(filepath.Join(dir, "lib", "lib.go")) {
		t.Error("the inputs are not those of the list")
	}
	own := map[string][]string{}
	for _, p := range pkgs {
		if p.Standard == p.Own {
			t.Errorf("%s: standard %v, own %v", p.ImportPath, p.Standard, p.Own)
		}
		if p.Broken != (p.ImportPath == "example.com/shop/pkg") {
			t.Errorf("%s: broken %v", p.ImportPath, p.Broken)
		}
		if !p.Own {
			continue
		}
		own[p.ImportPath] = nil
		for _, f := range p.Files {
			rel, err := filepath.Rel(dir, f)
			if err != nil {
				t.Fatal(err)
			}
			own[p.ImportPath] = append(own[p.ImportPath], filepath.ToSlash(rel))
		}
	}
	want := map[string][]string{
		"example.com/lib":           {"lib/lib.go"},
		"example.com/local":         {"local/local.go"},
		"example.com/shop/pkg":      {"shop/pkg/pkg.go", "shop/pkg/half.go"}, // what cannot be parsed is there too
		"example.com/shop/cmd/shop": {"shop/cmd/shop/main.go"},
	}
	slices.Sort(own["example.com/shop/pkg"])
	slices.Sort(want["example.com/shop/pkg"])
	if diff := cmp.Diff(want, own); diff != "" {
		t.Errorf("the user's own (-want +got):\n%s", diff)
	}
	more, _, err := b.Packages(t.Context(), "example.com/lib/unused")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(more, func(p Package) bool { return p.ImportPath == "example.com/lib/unused" }) {
		t.Error("an extra package was not listed")
	}
}

func TestExports(t *testing.T) {
	dir := write(t, shop...)
	put(t, dir, "lib/lib.go", "package lib\n\nvar x int = \"\"\n")
	b := builder(t, dir, FindOptions{Main: "./shop/cmd/shop", Config: Config{Target: api.Target{OS: "linux"}}})
	files, err := b.Exports(t.Context(), []string{"errors", "example.com/local", "example.com/lib", "example.com/not/there"})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"errors", "example.com/local"} {
		if st, err := os.Stat(files[path]); err != nil || st.Size() == 0 {
			t.Errorf("%s: %q: %v", path, files[path], err)
		}
	}
	if len(files) != 2 {
		t.Errorf("%v: what does not compile has export data", files)
	}
}
