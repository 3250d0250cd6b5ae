package callsite

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/tools/go/gcexportdata"
)

// parsed is a package's syntax. It lives as long as one query: kept, that of a large module would be most of the memory.
type parsed struct {
	fset  *token.FileSet
	files []*ast.File
	decls uint64
}

// parse parses a package, or returns what this query has parsed before. Files that cannot be read are left out, and of those
// with errors the parser's best guess is taken: in the middle of an edit both are what there is.
func (f *Finder) parse(ctx context.Context, p *pkg) (*parsed, error) {
	if s := f.syntax[p]; s != nil {
		return s, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := parseFiles(p.Files)
	f.syntax[p] = s
	return s, nil
}

// parseAll parses several packages at the same time.
func (f *Finder) parseAll(ctx context.Context, pkgs []*pkg) error {
	pkgs = slices.DeleteFunc(slices.Clone(pkgs), func(p *pkg) bool { return f.syntax[p] != nil })
	out := make([]*parsed, len(pkgs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(pkgs)) {
		wg.Go(func() {
			for i := range next {
				out[i] = parseFiles(pkgs[i].Files)
			}
		})
	}
	var err error
	for i := range pkgs {
		if err = ctx.Err(); err != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	for i, s := range out {
		if s != nil {
			f.syntax[pkgs[i]] = s
		}
	}
	return err
}

func parseFiles(names []string) *parsed {
	s := &parsed{fset: token.NewFileSet()}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		file, _ := parser.ParseFile(s.fset, name, src, parser.SkipObjectResolution|parser.ParseComments)
		if file != nil && file.Name != nil {
			s.files = append(s.files, file)
		}
	}
	s.decls = declarations(s.files)
	return s
}

// importsOf returns what files import, as far as it can be read.
func importsOf(names []string) []string {
	var out []string
	for _, name := range names {
		file, _ := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.SkipObjectResolution)
		if file == nil {
			continue
		}
		for _, spec := range file.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err == nil {
				out = append(out, path)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// declarations is a hash of what a package that imports this one may see of it: everything but comments and the bodies of
// functions.
func declarations(files []*ast.File) uint64 {
	h := fnv.New64a()
	var visit func(ast.Node) bool
	visit = func(n ast.Node) bool {
		switch n := n.(type) {
		case nil:
			io.WriteString(h, ")")
			return false
		case *ast.Comment, *ast.CommentGroup:
			return false
		case *ast.FuncDecl:
			io.WriteString(h, "(func")
			if n.Recv != nil {
				ast.Inspect(n.Recv, visit)
			}
			ast.Inspect(n.Name, visit)
			ast.Inspect(n.Type, visit)
			return false
		case *ast.Ident:
			io.WriteString(h, " "+n.Name)
		case *ast.BasicLit:
			io.WriteString(h, " "+n.Value)
		case *ast.BinaryExpr:
			io.WriteString(h, " "+n.Op.String())
		case *ast.UnaryExpr:
			io.WriteString(h, " "+n.Op.String())
		case *ast.GenDecl:
			io.WriteString(h, " "+n.Tok.String())
		case *ast.TypeSpec:
			io.WriteString(h, " "+strconv.FormatBool(n.Assign.IsValid()))
		case *ast.ChanType:
			io.WriteString(h, " "+strconv.Itoa(int(n.Dir)))
		}
		fmt.Fprintf(h, "(%T", n)
		return true
	}
	for _, f := range files {
		ast.Inspect(f, visit)
	}
	return h.Sum64()
}

// closure returns p's own dependencies that have no types yet, those without dependencies of their own first.
func closure(pkgs []*pkg) []*pkg {
	var out []*pkg
	seen := map[*pkg]bool{}
	var visit func(*pkg)
	visit = func(p *pkg) {
		for _, d := range p.deps {
			if d.Own && d.types == nil && !seen[d] {
				seen[d] = true
				visit(d)
				out = append(out, d)
			}
		}
	}
	for _, p := range pkgs {
		visit(p)
	}
	return out
}

// importer gives the types of what a package imports.
type importer struct {
	f   *Finder
	ctx context.Context
}

// Import implements types.Importer.
func (i importer) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	if p := i.f.graph.pkgs[path]; p != nil && p.Own {
		return i.f.declared(i.ctx, p)
	}
	return i.f.exported(path)
}

// errCycle says that a package imports itself.
var errCycle = errors.New("import cycle")

// declared returns the types of one of the user's packages without a look at its function bodies.
func (f *Finder) declared(ctx context.Context, p *pkg) (*types.Package, error) {
	if p.types != nil {
		return p.types, nil
	}
	if p.checking {
		return nil, errCycle
	}
	p.checking = true
	defer func() { p.checking = false }()
	s, err := f.parse(ctx, p)
	if err != nil {
		return nil, err
	}
	conf := types.Config{Importer: importer{f, ctx}, IgnoreFuncBodies: true, FakeImportC: true, Error: func(error) {}}
	t, _ := conf.Check(p.ImportPath, s.fset, s.files, nil)
	if err := ctx.Err(); err != nil {
		return nil, err // what was not imported is missing in it
	}
	p.types, p.decls = t, s.decls
	return t, nil
}

// exported returns the types of a package that is not the user's.
func (f *Finder) exported(path string) (*types.Package, error) {
	if t := f.imported[path]; t != nil && t.Complete() {
		return t, nil
	}
	name := f.exports[path]
	if name == "" {
		return nil, f.unreadable(path, errors.New("it does not compile, or is not there"))
	}
	file, err := os.Open(name)
	if err != nil {
		delete(f.exports, path) // the go command's cache was emptied: the next listing fills it
		f.relist = true
		return nil, f.unreadable(path, err)
	}
	defer file.Close()
	r, err := gcexportdata.NewReader(file)
	if err != nil {
		return nil, f.unreadable(path, err)
	}
	t, err := gcexportdata.Read(r, f.exportFiles, f.imported, path)
	if err != nil {
		return nil, f.unreadable(path, err)
	}
	return t, nil
}

// unreadable notes what the types of are missing, which may be why something is not found.
func (f *Finder) unreadable(path string, err error) error {
	f.missing[path] = err
	return err
}

// factsOf returns the facts of several packages, in their order.
func (f *Finder) factsOf(ctx context.Context, pkgs []*pkg) ([]*facts, error) {
	var todo []*pkg
	for _, p := range pkgs {
		p.used = f.query
		if p.facts == nil {
			todo = append(todo, p)
		}
	}
	if len(todo) > 0 {
		if err := f.needExports(ctx, todo); err != nil {
			return nil, err
		}
		deps := closure(todo)
		if err := f.parseAll(ctx, slices.Concat(deps, todo)); err != nil {
			return nil, err
		}
		for _, d := range deps {
			if _, err := f.declared(ctx, d); err != nil && ctx.Err() != nil {
				return nil, err
			}
		}
		for _, p := range todo {
			if err := f.check(ctx, p); err != nil {
				return nil, err
			}
		}
	}
	out := make([]*facts, len(pkgs))
	for i, p := range pkgs {
		out[i] = p.facts
	}
	return out, nil
}

// needExports asks for the export data that packages need which are not the user's and are read as source all the same.
func (f *Finder) needExports(ctx context.Context, pkgs []*pkg) error {
	var want []string
	for _, p := range pkgs {
		for _, d := range p.deps {
			if !d.Own && d.ImportPath != "unsafe" && f.exports[d.ImportPath] == "" && !f.unexported[d.ImportPath] {
				want = append(want, d.ImportPath)
			}
		}
	}
	if len(want) == 0 {
		return nil
	}
	slices.Sort(want)
	want = slices.Compact(want)
	files, err := f.builder.Exports(ctx, want)
	if err != nil {
		return err
	}
	for _, path := range want {
		f.unexported[path] = files[path] == ""
	}
	maps.Copy(f.exports, files)
	return nil
}

// check makes a package's facts.
func (f *Finder) check(ctx context.Context, p *pkg) error {
	s, err := f.parse(ctx, p)
	if err != nil {
		return err
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{}}
	conf := types.Config{Importer: importer{f, ctx}, FakeImportC: true, Error: func(error) {}}
	// Errors are the compiler's to tell. What could be resolved in spite of them is in info.
	conf.Check(p.ImportPath, s.fset, s.files, info)
	if err := ctx.Err(); err != nil {
		return err
	}
	p.facts = extract(f.graph, p, s, info)
	return nil
}
