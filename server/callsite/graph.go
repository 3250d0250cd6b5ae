package callsite

import (
	"cmp"
	"context"
	"errors"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fairlead.dev/syncer/build"
)

// pkg is one package and what has been learned of it. Everything below importers is made when it is asked for.
type pkg struct {
	build.Package
	deps      []*pkg
	importers []*pkg

	words words
	stubs []stub // nil until they were looked for
	// types are its declarations, for those that import it. Those of packages that are not the user's come from export data.
	types    *types.Package
	checking bool   // its types are being made: an import cycle, as an edit may leave one
	decls    uint64 // what types were made of; see declarations
	facts    *facts
	used     uint64 // the query that asked for facts last
}

// graph is the packages of the service.
type graph struct {
	pkgs   map[string]*pkg
	byDir  map[string]*pkg // the user's own
	inputs *build.Inputs
	// missing says that a package is imported which is not there.
	missing bool
}

// newGraph makes the graph of a listing. Packages that are as they were keep what was learned of them in old.
func newGraph(list []build.Package, in *build.Inputs, old *graph) *graph {
	g := &graph{pkgs: make(map[string]*pkg, len(list)), byDir: map[string]*pkg{}, inputs: in}
	for _, l := range list {
		p := &pkg{Package: l}
		if old != nil {
			if o := old.pkgs[l.ImportPath]; o != nil && o.Dir == l.Dir && o.Name == l.Name && slices.Equal(o.Files, l.Files) && slices.Equal(o.Imports, l.Imports) {
				p.words, p.stubs, p.types, p.decls, p.facts, p.used = o.words, o.stubs, o.types, o.decls, o.facts, o.used
			}
		}
		g.pkgs[l.ImportPath] = p
		if l.Own {
			g.byDir[l.Dir] = p
			if real, err := filepath.EvalSymlinks(l.Dir); err == nil {
				g.byDir[real] = p
			}
		}
	}
	for _, l := range list {
		p := g.pkgs[l.ImportPath]
		for _, path := range p.Imports {
			d := g.pkgs[path]
			if d == nil {
				g.missing = g.missing || p.Own && path != "C" && path != "unsafe"
				continue
			}
			p.deps = append(p.deps, d)
			d.importers = append(d.importers, p)
		}
	}
	if old == nil {
		return g
	}
	// The list has a package before those that import it, so one pass carries on what was made anew.
	for _, l := range list {
		p := g.pkgs[l.ImportPath]
		if !p.Own {
			continue
		}
		stale := false
		for _, d := range p.deps {
			if od := old.pkgs[d.ImportPath]; d.Own && (od == nil || od.types != nil && d.types == nil) {
				stale = true
			}
		}
		if stale {
			p.types, p.facts = nil, nil
		}
	}
	return g
}

// dependents returns the user's packages, and with foreign those of others beside the standard library, that import p, also
// through others, sorted by path. p is the first.
func (g *graph) dependents(p *pkg, foreign bool) []*pkg {
	seen := map[*pkg]bool{p: true}
	out := []*pkg{}
	for todo := []*pkg{p}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, i := range next.importers {
			if !seen[i] && (i.Own || foreign && !i.Standard) {
				seen[i] = true
				out = append(out, i)
				todo = append(todo, i)
			}
		}
	}
	slices.SortFunc(out, func(a, b *pkg) int { return cmp.Compare(a.ImportPath, b.ImportPath) })
	return slices.Insert(out, 0, p)
}

// own returns the user's packages, sorted by path.
func (g *graph) own() []*pkg {
	return slices.DeleteFunc(g.all(), func(p *pkg) bool { return !p.Own })
}

// all returns the packages, sorted by path.
func (g *graph) all() []*pkg {
	return slices.SortedFunc(maps.Values(g.pkgs), func(a, b *pkg) int { return cmp.Compare(a.ImportPath, b.ImportPath) })
}

// imports says whether p imports a package itself.
func (p *pkg) imports(path string) bool { return slices.Contains(p.Imports, path) }

// words are the hashes of the words in a package's source, sorted: of each as it is, and of each behind a dot with that dot.
// Words of comments and strings count, so that it says in vain at worst that there may be one.
type words []uint32

// readWords reads a package's words. A file that cannot be read has none.
func readWords(files []string) words {
	w := words{}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		w = append(w, scanWords(src)...)
		slices.Sort(w)
		w = slices.Compact(w)
	}
	return slices.Clip(w)
}

const (
	hashOffset = 2166136261 // FNV-1a
	hashPrime  = 16777619
)

func wordHash(s string) uint32 {
	h := uint32(hashOffset)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * hashPrime
	}
	return h
}

func scanWords(src []byte) []uint32 {
	seen := map[uint32]bool{}
	dot := false // the last byte that was neither space nor part of a word
	for i := 0; i < len(src); {
		c := src[i]
		if !letter(c) {
			if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
				dot = c == '.'
			}
			i++
			continue
		}
		h, hd := uint32(hashOffset), uint32('.'^hashOffset)
		hd *= hashPrime
		for ; i < len(src) && letter(src[i]); i++ {
			h, hd = (h^uint32(src[i]))*hashPrime, (hd^uint32(src[i]))*hashPrime
		}
		seen[h] = true
		if dot {
			seen[hd] = true
		}
		dot = false
	}
	out := make([]uint32, 0, len(seen))
	for h := range seen {
		out = append(out, h)
	}
	return out
}

// letter says whether a byte may be part of a word of Go. Bytes of other than ASCII are.
func letter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80
}

// mentions says whether a word may stand in p's source.
func (p *pkg) mentions(word string) bool {
	if p.words == nil {
		p.words = readWords(p.Files)
	}
	_, ok := slices.BinarySearch(p.words, wordHash(word))
	return ok
}

// mentionsAll says it of every word of a text.
func (p *pkg) mentionsAll(text string) bool {
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return r < 0x80 && !letter(byte(r)) }) {
		if !p.mentions(w) {
			return false
		}
	}
	return true
}

// apply takes in that files were changed, made or removed. It says whether the packages have to be listed again.
func (f *Finder) apply(ctx context.Context, files []string) (relist bool, err error) {
	for _, file := range files {
		if f.graph.inputs.Stale([]string{file}) || f.graph.missing && filepath.Ext(file) == ".go" {
			relist = true
		}
	}
	changed := map[*pkg]bool{}
	for _, file := range files {
		if p := f.graph.byDir[filepath.Dir(file)]; p != nil && filepath.Ext(file) == ".go" {
			changed[p] = true
		}
	}
	for p := range changed {
		if _, err := os.Stat(p.Dir); errors.Is(err, fs.ErrNotExist) {
			relist = true
		}
		p.words, p.stubs, p.facts = nil, nil, nil
		if p.types == nil {
			continue // nobody's types were made of it
		}
		parsed, err := f.parse(ctx, p)
		if err != nil {
			return relist, err
		}
		if parsed.decls != p.decls {
			for _, d := range f.graph.dependents(p, false) {
				d.types, d.facts = nil, nil
			}
		}
	}
	return relist, nil
}

// load lists the packages anew and keeps what is still true of them.
func (f *Finder) load(ctx context.Context) error {
	list, in, err := f.builder.Packages(ctx)
	if err != nil {
		return err
	}
	// A file that cannot be parsed hides what it imports from the go command.
	known := map[string]bool{"C": true, "unsafe": true}
	for _, p := range list {
		known[p.ImportPath] = true
	}
	var extra []string
	for i := range list {
		if !list[i].Own || !list[i].Broken {
			continue
		}
		for _, path := range importsOf(list[i].Files) {
			if !slices.Contains(list[i].Imports, path) {
				list[i].Imports = append(list[i].Imports, path)
			}
			if !known[path] {
				known[path] = true
				extra = append(extra, path)
			}
		}
	}
	if len(extra) > 0 {
		imports := map[string][]string{}
		for _, p := range list {
			imports[p.ImportPath] = p.Imports
		}
		if list, in, err = f.builder.Packages(ctx, extra...); err != nil {
			return err
		}
		for i, p := range list {
			if p.Broken && imports[p.ImportPath] != nil {
				list[i].Imports = imports[p.ImportPath]
			}
		}
	}
	g := newGraph(list, in, f.graph)
	f.missing = map[string]error{}

	// Of packages that are not the user's only those that his import are asked for: their export data says all of the others
	// that can be seen through them.
	var want []string
	for _, p := range g.own() {
		for _, d := range p.deps {
			if !d.Own && d.ImportPath != "unsafe" {
				want = append(want, d.ImportPath)
			}
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	if f.graph != nil && !f.moduleChanged && !slices.ContainsFunc(want, func(p string) bool { return f.exports[p] == "" && f.unexported[p] == false }) {
		f.graph = g
		return nil
	}
	exports, err := f.builder.Exports(ctx, want)
	if err != nil {
		return err
	}
	for path, file := range exports {
		if old := f.exports[path]; old != file && (old != "" || f.unexported[path]) {
			// Another version of something, or something that was missing: types of before and after do not mix.
			f.forget(g)
			break
		}
	}
	f.unexported = map[string]bool{}
	for _, path := range want {
		f.unexported[path] = exports[path] == ""
	}
	f.graph, f.exports, f.moduleChanged = g, exports, false
	return nil
}

// forget drops all that was made of export data and of source.
func (f *Finder) forget(g *graph) {
	f.imported, f.exportFiles = map[string]*types.Package{}, token.NewFileSet()
	for _, p := range g.pkgs {
		p.types, p.facts = nil, nil
	}
}

// settings says whether a file decides which versions of others' packages there are.
func settings(file string) bool {
	switch filepath.Base(file) {
	case "go.mod", "go.sum", "go.work", "go.work.sum", "modules.txt":
		return true
	}
	return false
}
