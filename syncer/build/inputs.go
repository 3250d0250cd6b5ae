package build

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	gobuild "go/build"
	"go/parser"
	"go/token"
	"hash/maphash"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Inputs is what decides the content of an executable: the files that the go command reads for it, as far as they are
// the user's own (the main modules, modules replaced by a local folder, vendor; not the module cache or the standard
// library). It is immutable and may be used by several goroutines.
//
// Paths given to it are absolute and spelled as Dirs spells them. A C header outside of its package's folder and the
// targets of -overlay are not known.
type Inputs struct {
	files    map[string]bool       // files that are read by name
	settings map[string]bool       // go.mod and its like, whether they exist or not
	packages map[string]*pkgFolder // folders of packages, also of those that are imported and do not exist
	exists   map[string]bool       // these folders and the ones above them, up to their module: did they exist?
	heads    map[string]head       // the user's Go files, by path
	ignored  map[string]bool       // those of them that build constraints leave out
	embeds   bool
	broken   bool // the list ends where the go command could not go on
	name     gobuild.Context
	dirs     []string
}

// pkgFolder is a package's folder.
type pkgFolder struct {
	patterns []pattern
}

// pattern is one of //go:embed.
type pattern struct {
	glob string
	all  bool // files with a leading . or _ in folders too
}

// head stands for the part of a Go file that decides what else is read: package name, build constraints, imports, embed
// directives. The zero head equals none.
type head uint64

// Inputs lists what the executable depends on, as it is now.
func (b *Builder) Inputs(ctx context.Context) (*Inputs, error) {
	pkgs, err := b.deps(ctx)
	if err != nil {
		return nil, err
	}
	return newInputs(b.svc, b.tool, pkgs), nil
}

// deps lists the packages of the executable and of further import paths.
func (b *Builder) deps(ctx context.Context, extra ...string) ([]goPackage, error) {
	args := append([]string{"list", "-e", "-deps",
		"-json=Dir,ImportPath,Name,Standard,Incomplete,Module,GoFiles,CgoFiles,IgnoredGoFiles,IgnoredOtherFiles,CFiles,CXXFiles,MFiles,HFiles,FFiles,SFiles,SwigFiles,SwigCXXFiles,SysoFiles,EmbedPatterns,EmbedFiles,Imports,Error"},
		b.tool.flags.list()...)
	out, err := b.tool.output(ctx, b.svc.ModuleDir, append(append(args, "--", b.svc.ImportPath), extra...)...)
	if err != nil {
		return nil, b.listError(err)
	}
	return decodePackages(out)
}

func newInputs(svc Service, t *tool, pkgs []goPackage) *Inputs {
	in := &Inputs{
		files: map[string]bool{}, settings: map[string]bool{}, packages: map[string]*pkgFolder{}, exists: map[string]bool{}, heads: map[string]head{}, ignored: map[string]bool{},
		name: gobuild.Default,
	}
	in.name.GOOS, in.name.GOARCH, in.name.UseAllFiles = t.cfg.Target.OS, t.cfg.Target.Arch, false
	// MatchFile then judges by the name alone.
	in.name.OpenFile = func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("package p\n")), nil }

	roots := []string{svc.ModuleDir}
	for _, m := range svc.Modules {
		roots = append(roots, m.Dir)
	}
	if svc.GoWork != "" {
		root := filepath.Dir(svc.GoWork)
		roots = append(roots, root)
		in.settings[svc.GoWork], in.settings[svc.GoWork+".sum"] = true, true
	}
	for _, root := range roots {
		for _, name := range []string{"go.mod", "go.sum", "go.work", "go.work.sum", filepath.Join("vendor", "modules.txt")} {
			in.settings[filepath.Join(root, name)] = true
		}
	}
	in.files[filepath.Join(svc.Dir, "default.pgo")] = true // what -pgo=auto, the default, looks for

	embedDirs := map[string]bool{}
	where := dirOf(svc.Modules)
	for _, p := range pkgs {
		if p.Standard {
			continue
		}
		if p.Error != nil || p.Incomplete {
			in.broken = true
		}
		if p.Dir == "" {
			// Imported, but not there. As soon as it is, the build may succeed.
			if dir := where(p.ImportPath); dir != "" {
				in.addFolder(dir, roots)
			}
			continue
		}
		if within(p.Dir, t.vars.GOMODCACHE) || within(p.Dir, t.vars.GOROOT) {
			continue
		}
		vendored := slices.ContainsFunc(roots, func(r string) bool { return within(p.Dir, filepath.Join(r, "vendor")) })
		if p.Module != nil && p.Module.Dir != "" && !vendored {
			if p.Module.GoMod != "" {
				in.settings[p.Module.GoMod] = true
			}
			roots = append(roots, p.Module.Dir)
		}
		f := in.addFolder(p.Dir, roots)
		for _, names := range [][]string{p.GoFiles, p.CgoFiles, p.CFiles, p.CXXFiles, p.MFiles, p.HFiles, p.FFiles, p.SFiles, p.SwigFiles, p.SwigCXXFiles, p.SysoFiles, p.EmbedFiles} {
			for _, name := range names {
				in.addFile(filepath.Join(p.Dir, filepath.FromSlash(name)))
			}
		}
		for _, s := range p.EmbedPatterns {
			glob, all := strings.CutPrefix(s, "all:")
			f.patterns = append(f.patterns, pattern{path.Clean(glob), all})
			in.embeds = true
			// The folder that a pattern names, and those above its first wildcard, are watched even while empty.
			fixed := glob
			if i := strings.IndexAny(glob, `*?[\`); i >= 0 {
				fixed = path.Dir(glob[:i] + "x")
			}
			embedDirs[filepath.Join(p.Dir, filepath.FromSlash(fixed))] = true
		}
		for _, name := range p.EmbedFiles {
			for d := path.Dir(name); d != "."; d = path.Dir(d) {
				embedDirs[filepath.Join(p.Dir, filepath.FromSlash(d))] = true
			}
		}
		if !vendored { // a vendored package has thousands of files that change only with modules.txt
			in.addHeads(p)
		}
	}
	for dir := range embedDirs {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			in.exists[dir] = true
		}
	}
	for dir, exists := range in.exists {
		if exists {
			in.dirs = append(in.dirs, dir)
		}
	}
	for file := range in.settings {
		if st, err := os.Stat(filepath.Dir(file)); err == nil && st.IsDir() && filepath.Base(file) != "modules.txt" {
			in.dirs = append(in.dirs, filepath.Dir(file))
		}
	}
	slices.Sort(in.dirs)
	in.dirs = slices.Compact(in.dirs)
	return in
}

// addFolder notes a package's folder and those above it up to the root that it lies in.
func (in *Inputs) addFolder(dir string, roots []string) *pkgFolder {
	f := in.packages[dir]
	if f == nil {
		f = &pkgFolder{}
		in.packages[dir] = f
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
			in.packages[real] = f
		}
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, ok := in.exists[d]; ok {
			break
		}
		_, err := os.Stat(d)
		in.exists[d] = err == nil
		if slices.Contains(roots, d) || d == filepath.Dir(d) || !slices.ContainsFunc(roots, func(r string) bool { return within(d, r) }) {
			break
		}
	}
	return f
}

// addFile notes a file that is read. Where it is a link, an editor changes what it leads to.
func (in *Inputs) addFile(file string) {
	in.files[file] = true
	if st, err := os.Lstat(file); err == nil && st.Mode()&os.ModeSymlink != 0 {
		if real, err := filepath.EvalSymlinks(file); err == nil {
			in.files[real] = true
		}
	}
}

// addHeads reads the heads of a package's Go files. If they do not agree with what the go command saw a moment before,
// a file has changed in between and none is trusted.
func (in *Inputs) addHeads(p goPackage) {
	imports, patterns := map[string]bool{}, map[string]bool{}
	agree := true
	for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
		file := filepath.Join(p.Dir, name)
		h := readHead(file)
		in.heads[file] = h.sum
		agree = agree && h.sum != 0
		for _, s := range h.imports {
			imports[s] = true
		}
		for _, s := range h.patterns {
			patterns[s] = true
		}
	}
	for _, name := range p.IgnoredGoFiles {
		file := filepath.Join(p.Dir, name)
		in.heads[file] = readHead(file).sum
		in.ignored[file] = true
	}
	for _, s := range p.Imports {
		implied := len(p.CgoFiles) > 0 && (s == "unsafe" || s == "syscall" || s == "runtime/cgo") // what cgo adds
		agree = agree && (imports[s] || implied)
		delete(imports, s)
	}
	for _, s := range p.EmbedPatterns {
		agree = agree && patterns[s]
		delete(patterns, s)
	}
	delete(imports, "C")
	if agree && len(imports) == 0 && len(patterns) == 0 {
		return
	}
	for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
		in.heads[filepath.Join(p.Dir, name)] = 0
	}
}

// fileHead is a Go file's head and what of it can be compared with a listing.
type fileHead struct {
	sum               head // 0 for what cannot be read
	imports, patterns []string
}

var headSeed = maphash.MakeSeed()

// readHead reads a Go file's head.
func readHead(file string) fileHead {
	src, err := os.ReadFile(file)
	if err != nil {
		return fileHead{}
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly|parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fileHead{}
	}
	var h fileHead
	for _, spec := range f.Imports {
		s, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fileHead{}
		}
		h.imports = append(h.imports, s)
	}
	slices.Sort(h.imports)
	h.imports = slices.Compact(h.imports)
	for line := range bytes.Lines(src) {
		if args, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("//go:embed")); ok && len(args) > 0 && (args[0] == ' ' || args[0] == '\t') {
			h.patterns = append(h.patterns, embedPatterns(string(args))...)
		}
	}
	sum := strings.Join(slices.Concat([]string{f.Name.Name}, constraints(f), []string{"imports"}, h.imports, []string{"embeds"}, h.patterns), "\n")
	h.sum = max(head(maphash.String(headSeed, sum)), 1)
	return h
}

// embedPatterns splits what follows //go:embed: patterns between spaces, bare or as Go strings.
func embedPatterns(s string) []string {
	var out []string
	for {
		s = strings.TrimSpace(s)
		if s == "" {
			return out
		}
		word, rest := s, ""
		if q, err := strconv.QuotedPrefix(s); err == nil {
			word, rest = q, s[len(q):]
			if u, err := strconv.Unquote(q); err == nil {
				word = u
			}
		} else if i := strings.IndexAny(s, " \t"); i >= 0 {
			word, rest = s[:i], s[i:]
		}
		out, s = append(out, word), rest
	}
}

// constraints returns a file's build constraints.
func constraints(f *ast.File) []string {
	var out []string
	for _, g := range f.Comments {
		if g.Pos() > f.Package {
			break
		}
		for _, c := range g.List {
			if strings.HasPrefix(c.Text, "//go:build") || strings.HasPrefix(c.Text, "// +build") {
				out = append(out, c.Text)
			}
		}
	}
	return out
}

// Dirs lists the folders in which changes can be relevant, sorted. All of them existed when the inputs were listed.
func (in *Inputs) Dirs() []string { return slices.Clone(in.dirs) }

// Relevant says whether a change of path (made, written, removed, renamed) may change the executable. For a new file
// that its build constraints leave out it says so in vain, once. It looks at the disk only for files that are left out
// and for folders themselves.
func (in *Inputs) Relevant(path string) bool {
	path = filepath.Clean(path)
	if in.files[path] || in.settings[path] {
		return true
	}
	if in.ignored[path] {
		return readHead(path).sum != in.heads[path]
	}
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	if in.packages[dir] != nil && in.source(dir, name) {
		return true
	}
	if existed, ok := in.exists[path]; ok {
		// Some watchers report a folder whenever something in it changes; only its coming or going counts.
		_, err := os.Stat(path)
		return existed != (err == nil)
	}
	return in.embeds && in.embedded(path)
}

// Extensions of what the go command compiles besides Go.
var otherSources = []string{
	".s", ".S", ".sx", ".syso", ".c", ".cc", ".cpp", ".cxx", ".m", ".h", ".hh", ".hpp", ".hxx", ".f", ".F", ".for", ".f90", ".swig", ".swigcxx",
}

// source says whether a file of that name, new in a package's folder, belongs to the package.
func (in *Inputs) source(dir, name string) bool {
	if name == "" || name[0] == '.' || name[0] == '_' || strings.HasSuffix(name, "_test.go") {
		return false
	}
	ext := filepath.Ext(name)
	if ext != ".go" && !slices.Contains(otherSources, ext) {
		return false
	}
	if ext == ".syso" {
		return true // MatchFile would want to read it
	}
	ok, err := in.name.MatchFile(dir, name) // for the _GOOS_GOARCH in the name: the context reads no file
	return ok || err != nil
}

// embedded says whether an embed pattern of a package above takes the path in.
func (in *Inputs) embedded(file string) bool {
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		if f := in.packages[dir]; f != nil && len(f.patterns) > 0 {
			rel, err := filepath.Rel(dir, file)
			if err == nil && f.embeds(filepath.ToSlash(rel)) {
				return true
			}
		}
		if dir == filepath.Dir(dir) {
			return false
		}
	}
}

// embeds says whether a pattern matches rel or a folder above it.
func (f *pkgFolder) embeds(rel string) bool {
	for _, p := range f.patterns {
		for i := 0; i <= len(rel); i++ {
			if i < len(rel) && rel[i] != '/' {
				continue
			}
			if p.glob != "." {
				if ok, err := path.Match(p.glob, rel[:i]); err != nil || !ok {
					continue
				}
			} else if i == len(rel) {
				i = -1
			}
			if i == len(rel) || p.all {
				return true
			}
			hidden := false
			for part := range strings.SplitSeq(rel[i+1:], "/") {
				hidden = hidden || part == "" || part[0] == '.' || part[0] == '_'
			}
			if !hidden {
				return true
			}
			break
		}
	}
	return false
}

// Stale says whether these changes may have altered the inputs themselves, so that they should be listed again: an
// import, a build constraint, an embed directive, the set of files, go.mod. A change of what a function does has not.
func (in *Inputs) Stale(changed []string) bool {
	for _, file := range changed {
		file = filepath.Clean(file)
		if !in.Relevant(file) {
			continue
		}
		if in.broken || in.settings[file] {
			return true
		}
		if old, ok := in.heads[file]; ok {
			if h := readHead(file).sum; h != old || h == 0 {
				return true
			}
			continue
		}
		if !in.files[file] {
			return true // new
		}
		if st, err := os.Stat(file); err != nil || filepath.Ext(file) == ".go" && st.Mode().IsRegular() {
			return true // gone, or a vendored or linked Go file, whose head is not kept
		}
	}
	return false
}

// listError turns a failed listing into what the user can read.
func (b *Builder) listError(err error) error {
	f := finder{tool: b.tool, dir: b.svc.ModuleDir, modules: b.svc.Modules}
	return fmt.Errorf("list what %s depends on: %w", b.svc.ImportPath, f.explain(b.svc.ModuleDir, err))
}
