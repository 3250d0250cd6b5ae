package build

import (
	"cmp"
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"fairlead.dev/api"
)

var reUndefined = regexp.MustCompile(`^undefined: (?:(\w+)\.)?\w`)

// explainCgo replaces what the compiler says when C code cannot be built for the target, which is dozens of undefined
// names or assembler messages, by what it means.
func (b *Builder) explainCgo(ctx context.Context, ms []message) []*api.Problem {
	var out []*api.Problem
	said := map[string]bool{}
	seen := cgoFolders{}
	for _, m := range ms {
		pkg := ""
		switch {
		case m.pkg == "runtime/cgo" && m.Code == codeFailed && !b.tool.host():
			pkg = m.pkg
		case b.tool.cgoOff:
			pkg = b.needsCgo(ctx, m, seen)
		}
		if pkg == "" {
			out = append(out, m.Problem)
			continue
		}
		if !said[pkg] {
			said[pkg] = true
			out = append(out, b.cgoProblem(pkg, m))
		}
	}
	return out
}

func (b *Builder) cgoProblem(pkg string, m message) *api.Problem {
	t := b.tool.cfg.Target
	p := &api.Problem{
		Code: "cgo-cross", Severity: api.SeverityError, File: m.File, Line: m.Line, Column: m.Column,
		Message: fmt.Sprintf("%s uses cgo, which is off when building for a pod (%s/%s)", pkg, t.OS, t.Arch),
		Hint:    "use a package without C code, or set CGO_ENABLED=1 in build.env and build on a system like the image's",
	}
	if !b.tool.host() {
		p.Message = fmt.Sprintf("%s uses cgo, which cannot be built for %s/%s on %s/%s without a C compiler for it", pkg, t.OS, t.Arch, b.tool.vars.GOHOSTOS, b.tool.vars.GOHOSTARCH)
		p.Hint = "use a package without C code, or set CGO_ENABLED=1 and CC to a cross compiler (such as " + crossCompiler(t) + ") in build.env"
	}
	if pkg == "runtime/cgo" {
		p.Message = fmt.Sprintf("the C compiler cannot build for %s/%s: %s", t.OS, t.Arch, m.Message)
		p.Hint = "set CC in build.env to a C compiler for the target (such as " + crossCompiler(t) + "), or CGO_ENABLED=0 to build without C code"
	}
	return p
}

// crossCompiler is an example of a compiler's name.
func crossCompiler(t api.Target) string {
	cpu := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686"}[t.Arch]
	if cpu == "" || t.OS != "linux" {
		return "zig cc -target ..."
	}
	return cpu + "-linux-gnu-gcc"
}

// needsCgo returns the package whose cgo files explain a message, or "". It looks at files only where a message is one
// that leaving out files brings about.
func (b *Builder) needsCgo(ctx context.Context, m message, seen cgoFolders) string {
	if x := reExcluded.FindStringSubmatch(m.Message); x != nil {
		if !seen.uses(x[1]) {
			return ""
		}
		return cmp.Or(m.pkg, x[1])
	}
	x := reUndefined.FindStringSubmatch(m.Message)
	if x == nil || m.File == "" {
		return ""
	}
	if x[1] == "" {
		if seen.uses(filepath.Dir(m.File)) {
			return m.pkg
		}
		return ""
	}
	// undefined: name.X, with name an imported package of which the cgo files are left out
	f, err := parser.ParseFile(token.NewFileSet(), m.File, nil, parser.ImportsOnly|parser.SkipObjectResolution)
	if err != nil {
		return ""
	}
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		named := spec.Name != nil && spec.Name.Name == x[1]
		if !named && !(spec.Name == nil && strings.Contains(lastElement(path), x[1])) {
			continue
		}
		dir := dirOf(b.svc.Modules)(path)
		if first, _, _ := strings.Cut(path, "/"); dir == "" && !strings.Contains(first, ".") {
			continue // the standard library, which needs no cgo
		}
		if dir == "" {
			if known, ok := seen[path]; ok && !known {
				continue
			}
			out, err := b.tool.output(ctx, b.svc.ModuleDir, append(append([]string{"list", "-e", "-find", "-f={{.Dir}}"}, b.tool.flags.list()...), "--", path)...)
			if err != nil {
				return ""
			}
			dir = strings.TrimSpace(string(out))
		}
		if dir != "" && seen.uses(dir) {
			return path
		}
		seen[path] = false
	}
	return ""
}

// cgoFolders remembers, while one output is read, which folders (and import paths) have Go files that import "C".
type cgoFolders map[string]bool

func (c cgoFolders) uses(dir string) bool {
	known, ok := c[dir]
	if !ok {
		known = usesCgo(dir)
		c[dir] = known
	}
	return known
}

// usesCgo says whether a Go file in dir imports "C".
func usesCgo(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".go" || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.ImportsOnly|parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		for _, spec := range f.Imports {
			if spec.Path.Value == `"C"` {
				return true
			}
		}
	}
	return false
}
