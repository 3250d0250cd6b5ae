package build

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.dev/api"
)

const mainGo = "package main\n\nfunc main() {}\n"

func gomod(path string) string { return "module " + path + "\n\ngo 1.24\n" }

func TestFind(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []string
		in    string // below the files
		main  string
		hint  []string
		want  string // "NAME IMPORTPATH FOLDER: WHY"
		code  string // of the problem
		says  []string
	}{
		{name: "folder", files: []string{"go.mod", gomod("example.com/shop/v2"), "main.go", mainGo, "cmd/x/x.go", mainGo},
			want: "shop example.com/shop/v2 .: the folder itself is package main"},
		{name: "only one", files: []string{"go.mod", gomod("example.com/shop"), "a.go", "package shop\n", "cmd/server/x.go", mainGo},
			want: "shop example.com/shop/cmd/server cmd/server: the only main package below the folder"},
		{name: "named like the module", files: []string{"go.mod", gomod("example.com/shop/v3"), "cmd/shop/x.go", mainGo, "cmd/shopcli/x.go", mainGo},
			want: "shop example.com/shop/v3/cmd/shop cmd/shop: its folder is named like the module"},
		{name: "outside of tools", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "hack/x.go", mainGo, "internal/tools/gen/x.go", mainGo, "examples/shop2/x.go", mainGo},
			want: "api example.com/shop/cmd/api cmd/api: the only main package outside examples, tests and tools"},
		{name: "like the module, but an example has that name too", files: []string{"go.mod", gomod("example.com/shop"), "cmd/shop/x.go", mainGo, "cmd/api/x.go", mainGo, "examples/shop/x.go", mainGo},
			want: "shop example.com/shop/cmd/shop cmd/shop: its folder is named like the module"},
		{name: "hint", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "cmd/worker/x.go", mainGo}, hint: []string{"redis", "worker"},
			want: "worker example.com/shop/cmd/worker cmd/worker: it is named like worker"},
		{name: "hint that fits two", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "cmd/worker/x.go", mainGo}, hint: []string{"worker", "api"},
			code: "many-mains", says: []string{"2 main packages", "./cmd/api, ./cmd/worker", "--main ./cmd/api"}},
		{name: "many", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "cmd/worker/x.go", mainGo, "tools/x.go", mainGo},
			code: "many-mains", says: []string{"2 main packages", "./cmd/api, ./cmd/worker", "--main"}},
		{name: "from a folder below", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "cmd/worker/x.go", mainGo}, in: "cmd/api",
			want: "api example.com/shop/cmd/api cmd/api: the folder itself is package main"},
		{name: "main by folder", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "cmd/worker/x.go", mainGo}, main: "./cmd/worker",
			want: "worker example.com/shop/cmd/worker cmd/worker: it was named"},
		{name: "main by file", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "cmd/worker/x.go", mainGo}, main: "cmd/worker/x.go",
			want: "worker example.com/shop/cmd/worker cmd/worker: it was named"},
		{name: "main by import path", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "cmd/worker/x.go", mainGo}, main: "example.com/shop/cmd/worker",
			want: "worker example.com/shop/cmd/worker cmd/worker: it was named"},
		{name: "main in a module below", files: []string{"a/go.mod", gomod("example.com/a"), "a/x.go", mainGo, "b/go.mod", gomod("example.com/b"), "b/x.go", mainGo}, main: "example.com/b",
			want: "b example.com/b b: it was named"},
		{name: "main is no main", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo, "lib/x.go", "package lib\n"}, main: "./lib",
			code: "no-main", says: []string{"./lib is package lib", "example.com/shop/cmd/api"}},
		{name: "main does not exist", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo}, main: "example.com/shop/cmd/apo",
			code: "no-main", says: []string{"no main package example.com/shop/cmd/apo", "example.com/shop/cmd/api"}},
		{name: "main folder does not exist", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x.go", mainGo}, main: "./cmd/apo",
			code: "no-folder", says: []string{"cmd"}},
		{name: "other system's", files: []string{"go.mod", gomod("example.com/shop"), "cmd/api/x_windows.go", mainGo, "cmd/svc/x.go", "//go:build linux\n\n" + mainGo},
			want: "svc example.com/shop/cmd/svc cmd/svc: the only main package below the folder"},
		{name: "workspace", files: []string{"go.work", "go 1.24\n\nuse (\n\t./lib\n\t./orders\n)\n", "lib/go.mod", gomod("example.com/lib"), "lib/x.go", "package lib\n", "orders/go.mod", gomod("example.com/orders"), "orders/cmd/server/x.go", mainGo},
			want: "orders example.com/orders/cmd/server orders/cmd/server: the only main package below the folder"},
		{name: "workspace, not listed", files: []string{"go.work", "go 1.24\n\nuse ./lib\n", "lib/go.mod", gomod("example.com/lib"), "orders/go.mod", gomod("example.com/orders"), "orders/x.go", mainGo}, in: "orders",
			code: "not-in-workspace", says: []string{"orders", "go.work", "go work use"}},
		{name: "modules without a workspace", files: []string{"lib/go.mod", gomod("example.com/lib"), "lib/x.go", "package lib\n", "services/orders/go.mod", gomod("example.com/orders"), "services/orders/x.go", mainGo},
			want: "orders example.com/orders services/orders: the only main package below the folder"},
		{name: "a module below a module", files: []string{"go.mod", gomod("example.com/lib"), "x.go", "package lib\n", "cmd/go.mod", gomod("example.com/lib/cmd"), "cmd/x.go", mainGo},
			want: "cmd example.com/lib/cmd cmd: the only main package below the folder"},
		{name: "no main", files: []string{"go.mod", gomod("example.com/lib"), "x.go", "package lib\n"},
			code: "no-main", says: []string{"no main package for linux/", "--main"}},
		{name: "no main here", files: []string{"go.mod", gomod("example.com/shop"), "lib/x.go", "package lib\n", "cmd/api/x.go", mainGo}, in: "lib",
			code: "no-main", says: []string{"../cmd/api", "--main"}},
		{name: "no module", files: []string{"x.go", mainGo}, code: "no-module", says: []string{"not in a Go module", "go mod init"}},
		{name: "no folder", in: "nowhere", code: "no-folder", says: []string{"nowhere"}},
		{name: "package clause does not parse", files: []string{"go.mod", gomod("example.com/shop"), "x.go", "pakage main\n"},
			code: codeFailed, says: []string{"x.go:1:1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, tt.files...)
			svc, err := Find(t.Context(), filepath.Join(dir, filepath.FromSlash(tt.in)), FindOptions{Main: tt.main, Hint: tt.hint, Config: Config{Target: api.Target{OS: "linux"}}})
			var p *api.Problem
			if tt.code != "" {
				if !errors.As(err, &p) || p.Code != tt.code || p.Hint == "" && tt.code != codeFailed {
					t.Fatalf("got %+v and %#v, want a problem %s", svc, err, tt.code)
				}
				for _, s := range tt.says {
					if text := p.Error() + " " + p.Hint; !strings.Contains(text, s) {
						t.Errorf("%q does not say %q", text, s)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(dir, svc.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := svc.Name + " " + svc.ImportPath + " " + filepath.ToSlash(rel) + ": " + svc.Why; got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if len(svc.Modules) == 0 || svc.ModuleDir == "" || svc.Module == "" {
				t.Errorf("incomplete: %+v", svc)
			}
			// What was found can be built.
			b, err := New(t.Context(), svc, Config{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Inputs(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNoToolchain(t *testing.T) {
	dir := write(t, "go.mod", gomod("example.com/m"), "x.go", mainGo)
	_, err := Find(t.Context(), dir, FindOptions{Config: Config{Go: filepath.Join(dir, "go")}})
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != "no-toolchain" || p.Hint == "" {
		t.Errorf("got %v", err)
	}
}

func TestFindCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Find(ctx, t.TempDir(), FindOptions{}); !errors.Is(err, ctx.Err()) {
		t.Errorf("got %v", err)
	}
}

func TestServiceName(t *testing.T) {
	for _, tt := range []struct{ path, module, want string }{
		{"github.com/a/podinfo/cmd/podinfo", "github.com/a/podinfo", "podinfo"},
		{"github.com/a/podinfo", "github.com/a/podinfo", "podinfo"},
		{"github.com/a/shop/v12", "github.com/a/shop/v12", "shop"},
		{"github.com/a/shop/v2/cmd/v2", "github.com/a/shop/v2", "shop"},
		{"example.com/shop/services/orders/cmd/server", "example.com/shop", "orders"},
		{"example.com/server", "example.com/server", "server"},
		{"gopkg.in/thing.v3", "gopkg.in/thing.v3", "thing"},
		{"example.com/m/cmd/My_Service", "example.com/m", "my-service"},
		{"example.com/m/cmd/3scale", "example.com/m", "svc-3scale"},
		{"example.com/m/" + strings.Repeat("a", 62) + "-b", "example.com/m", strings.Repeat("a", 62)},
		{"-", "-", "service"},
	} {
		p := goPackage{ImportPath: tt.path}
		p.Module = &goModule{Path: tt.module}
		if got := serviceName(p); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
		}
	}
}
