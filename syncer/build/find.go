package build

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"fairlead.dev/api"
)

// Service is a main package and where it stands. All paths are absolute, with symbolic links evaluated.
type Service struct {
	Name       string // a DNS label made from the import path
	ImportPath string
	Dir        string // the main package's folder
	Module     string // the path of its module
	ModuleDir  string // its module's root, where the go command runs
	GoWork     string // the go.work in use, or ""
	Why        string // why this package, in one phrase
	Modules    []Module
}

// Module is a module whose source is the user's own: a main module of the workspace.
type Module struct{ Path, Dir string }

// FindOptions says what is known beforehand.
type FindOptions struct {
	Config
	// Main names the package: an import path, a folder relative to the one that is searched, or an absolute folder.
	Main string
	// Hint lists names that the service may have, such as those of Deployments. They decide only where nothing else does.
	Hint []string
}

// Find finds the service in dir. Where several main packages could be meant it is an *api.Problem that lists them.
func Find(ctx context.Context, dir string, opts FindOptions) (Service, error) {
	dir, err := realFolder(dir)
	if err != nil {
		return Service{}, err
	}
	f, err := newFinder(ctx, dir, opts.Config)
	if err != nil {
		return Service{}, err
	}
	if opts.Main != "" {
		return f.named(ctx, opts.Main)
	}
	if mayBeMain(dir) && f.inModule() {
		// Asking for this folder alone is quick in a repository of thousands of packages.
		pkgs, err := f.list(ctx, dir, ".")
		if err != nil {
			return Service{}, err
		}
		if len(pkgs) == 1 && pkgs[0].Name == "main" {
			return f.service(pkgs[0], "the folder itself is package main"), nil
		}
	}
	mains, err := f.mains(ctx)
	if err != nil {
		return Service{}, err
	}
	return f.choose(mains, opts.Hint)
}

// realFolder returns dir absolute and without symbolic links.
func realFolder(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the service: %w", err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", &api.Problem{Code: "no-folder", Severity: api.SeverityError, Message: "no folder " + abs, Hint: "give the folder of a Go service"}
		}
		return "", fmt.Errorf("find the service: %w", err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", fmt.Errorf("find the service: %w", err)
	}
	if !st.IsDir() {
		if filepath.Ext(real) != ".go" {
			return "", &api.Problem{Code: "no-folder", Severity: api.SeverityError, Message: abs + " is not a folder", Hint: "give the folder of a Go service"}
		}
		return filepath.Dir(real), nil
	}
	return real, nil
}

// finder searches one folder.
type finder struct {
	*tool
	dir     string
	modules []Module // of the workspace or the module around dir
}

func newFinder(ctx context.Context, dir string, cfg Config) (*finder, error) {
	t, err := newTool(ctx, dir, cfg)
	if err != nil {
		return nil, err
	}
	f := &finder{tool: t, dir: dir}
	if !f.inModule() && f.goWork() == "" {
		return f, nil
	}
	out, err := t.output(ctx, dir, "list", "-m", "-f", "{{.Path}}\t{{.Dir}}")
	if err != nil {
		return nil, f.explain(dir, err)
	}
	for line := range strings.Lines(string(out)) {
		if p, d, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "\t"); ok && d != "" {
			f.modules = append(f.modules, Module{Path: p, Dir: d})
		}
	}
	return f, nil
}

func (f *finder) inModule() bool { return f.vars.GOMOD != "" && f.vars.GOMOD != os.DevNull }

func (f *finder) goWork() string {
	if f.vars.GOWORK == "off" {
		return ""
	}
	return f.vars.GOWORK
}

// explain turns a go command's exit into what the user can read.
func (f *finder) explain(dir string, err error) error {
	var exit *exitError
	if !errors.As(err, &exit) {
		return err
	}
	problems := problems(parseOutput(dir, dirOf(f.modules), exit.output))
	if len(problems) == 0 {
		return fmt.Errorf("%w: %s", err, lastLines(exit.output))
	}
	if len(problems) == 1 {
		return problems[0]
	}
	return &Failure{Problems: problems, Output: exit.output}
}

// goPackage is what `go list -json` says of a package, as far as it matters here.
type goPackage struct {
	Dir, ImportPath, Name                                                                                  string
	Standard, Incomplete                                                                                   bool
	Module                                                                                                 *goModule
	GoFiles, CgoFiles, IgnoredGoFiles, IgnoredOtherFiles, CFiles, CXXFiles, MFiles, HFiles, FFiles, SFiles []string
	SwigFiles, SwigCXXFiles, SysoFiles, EmbedPatterns, EmbedFiles, Imports                                 []string
	Error                                                                                                  *struct{ Pos, Err string }
}

type goModule struct {
	Path, Dir, GoMod, Version string
	Main                      bool
	Replace                   *goModule
}

// list asks for packages by name, without their dependencies.
func (f *finder) list(ctx context.Context, dir string, patterns ...string) ([]goPackage, error) {
	args := append([]string{"list", "-e", "-find", "-json=Dir,ImportPath,Name,Module,Error"}, f.flags.list()...)
	out, err := f.output(ctx, dir, append(append(args, "--"), patterns...)...)
	if err != nil {
		return nil, f.explain(dir, err)
	}
	return decodePackages(out)
}

func decodePackages(out []byte) ([]goPackage, error) {
	var pkgs []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p goPackage
		if err := dec.Decode(&p); err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs, nil
}

// mains lists the main packages below the folder: of the module around it, of the workspace's modules in it, or else
// of the modules that lie somewhere below.
func (f *finder) mains(ctx context.Context) ([]goPackage, error) {
	var patterns []string
	for _, m := range f.modules {
		switch {
		case within(m.Dir, f.dir):
			patterns = append(patterns, m.Dir+string(filepath.Separator)+"...")
		case within(f.dir, m.Dir):
			patterns = append(patterns, f.dir+string(filepath.Separator)+"...")
		}
	}
	slices.Sort(patterns)
	var mains []goPackage
	var broken *api.Problem
	if patterns = slices.Compact(patterns); len(patterns) > 0 {
		pkgs, err := f.list(ctx, f.dir, patterns...)
		if err != nil {
			return nil, err
		}
		for _, p := range pkgs {
			if p.Name == "main" {
				mains = append(mains, p)
			} else if p.Error != nil && broken == nil {
				text := p.Error.Err
				if p.Error.Pos != "" {
					text = p.Error.Pos + ": " + text
				}
				if ms := parseOutput(f.dir, dirOf(f.modules), text); len(ms) > 0 {
					broken = ms[0].Problem
				}
			}
		}
	}
	if len(mains) > 0 {
		return mains, nil
	}
	var nested []string
	if f.goWork() == "" {
		nested = nestedModules(f.dir)
	}
	for _, dir := range nested {
		sub, err := newFinder(ctx, dir, f.cfg)
		if err != nil {
			return nil, err
		}
		pkgs, err := sub.mains(ctx)
		if err != nil && problemCode(err) != "no-main" {
			return nil, err
		}
		mains = append(mains, pkgs...)
	}
	switch {
	case len(mains) > 0:
		return mains, nil
	case broken != nil:
		return nil, broken
	case len(patterns) == 0 && len(nested) == 0 && f.goWork() != "":
		return nil, &api.Problem{
			Code: "not-in-workspace", Severity: api.SeverityError,
			Message: fmt.Sprintf("%s has no module that %s lists", f.dir, f.goWork()),
			Hint:    "run `go work use DIR` for the service's module, or set GOWORK=off",
		}
	case len(patterns) == 0 && len(nested) == 0:
		return nil, &api.Problem{
			Code: "no-module", Severity: api.SeverityError,
			Message: f.dir + " is not in a Go module, and no folder in it is one",
			Hint:    "start in the folder of a Go service, or make it a module with `go mod init`",
		}
	}
	return nil, f.noMain(ctx)
}

func problemCode(err error) string {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// noMain says that there is no main package below the folder, and where the module has some.
func (f *finder) noMain(ctx context.Context) error {
	p := &api.Problem{
		Code: "no-main", Severity: api.SeverityError,
		Message: fmt.Sprintf("no main package for %s/%s in %s", f.cfg.Target.OS, f.cfg.Target.Arch, f.dir),
		Hint:    "start in the folder of a Go service, or name its main package with --main",
	}
	for _, m := range f.modules {
		if f.dir == m.Dir || !within(f.dir, m.Dir) {
			continue
		}
		pkgs, err := f.list(ctx, m.Dir, "./...")
		if err != nil {
			continue
		}
		var names []string
		for _, pkg := range pkgs {
			if pkg.Name == "main" {
				names = append(names, f.label(pkg))
			}
		}
		if len(names) > 0 {
			p.Hint = "the module's main packages are " + enumerate(names) + ": start in one of these folders, or name one with --main"
		}
	}
	return p
}

// nestedModules lists the modules in folders below dir that no workspace joins. Four levels are deeper than
// repositories put services, and quick to look through.
func nestedModules(dir string) []string {
	var out []string
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		rel, _ := filepath.Rel(dir, p)
		name := d.Name()
		if rel != "." {
			if name[0] == '.' || name[0] == '_' || name == "node_modules" || name == "vendor" || name == "testdata" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				out = append(out, p)
				return filepath.SkipDir
			}
			if strings.Count(rel, string(filepath.Separator)) >= 3 {
				return filepath.SkipDir
			}
		}
		return nil
	})
	return out
}

// mayBeMain says whether a file in dir begins with "package main", without regard to build constraints.
func mayBeMain(dir string) bool {
	files, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "*.go"))
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.PackageClauseOnly); err == nil && f.Name.Name == "main" {
			return true
		}
	}
	return false
}

func escapeGlob(s string) string {
	if filepath.Separator == '\\' {
		return s // Windows has no escape, and brackets in a folder's name are rare
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// named finds the package that the user named.
func (f *finder) named(ctx context.Context, name string) (Service, error) {
	const why = "it was named"
	slashed := filepath.FromSlash(name)
	at := slashed
	if !filepath.IsAbs(slashed) {
		at = filepath.Join(f.dir, slashed)
	}
	first, _, _ := strings.Cut(filepath.ToSlash(slashed), "/")
	isPath := filepath.IsAbs(slashed) || first == "." || first == ".."
	if _, err := os.Stat(at); err == nil || isPath {
		dir, err := realFolder(at)
		if err != nil {
			return Service{}, err
		}
		sub, err := newFinder(ctx, dir, f.cfg)
		if err != nil {
			return Service{}, err
		}
		if !sub.inModule() {
			return Service{}, &api.Problem{
				Code: "no-module", Severity: api.SeverityError, Message: dir + " is not in a Go module",
				Hint: "name a main package of a Go module with --main",
			}
		}
		pkgs, err := sub.list(ctx, dir, ".")
		if err != nil {
			return Service{}, err
		}
		return sub.onlyMain(ctx, pkgs, name, why)
	}

	finders := []*finder{f}
	if len(f.modules) == 0 {
		finders = nil
		for _, dir := range nestedModules(f.dir) {
			sub, err := newFinder(ctx, dir, f.cfg)
			if err != nil {
				return Service{}, err
			}
			finders = append(finders, sub)
		}
	}
	var last error
	for _, sub := range finders {
		pkgs, err := sub.list(ctx, sub.dir, name)
		if err != nil {
			return Service{}, err
		}
		svc, err := sub.onlyMain(ctx, pkgs, name, why)
		if err == nil {
			return svc, nil
		}
		last = err
	}
	if last == nil {
		_, last = f.mains(ctx)
	}
	return Service{}, last
}

// onlyMain returns the one package of pkgs if it is a main package, or says what is wrong with it.
func (f *finder) onlyMain(ctx context.Context, pkgs []goPackage, name, why string) (Service, error) {
	if len(pkgs) == 1 && pkgs[0].Name == "main" && pkgs[0].Dir != "" {
		return f.service(pkgs[0], why), nil
	}
	p := &api.Problem{Code: "no-main", Severity: api.SeverityError, Message: "no main package " + name}
	switch {
	case len(pkgs) > 1:
		p.Message = fmt.Sprintf("%s names %d packages", name, len(pkgs))
	case len(pkgs) == 1 && pkgs[0].Name != "" && pkgs[0].Dir != "":
		p.Message = fmt.Sprintf("%s is package %s, not a main package", name, pkgs[0].Name)
	case len(pkgs) == 1 && pkgs[0].Error != nil:
		text, _, _ := strings.Cut(pkgs[0].Error.Err, "\n")
		p.Message += ": " + reToDoIt.ReplaceAllString(text, "")
	}
	p.Hint = "name a main package with --main: an import path or a folder"
	all := &finder{tool: f.tool, dir: f.dir, modules: f.modules}
	for _, m := range f.modules {
		if within(f.dir, m.Dir) {
			all.dir = m.Dir
		}
	}
	if mains, err := all.mains(ctx); err == nil {
		var names []string
		for _, m := range mains {
			names = append(names, m.ImportPath)
		}
		p.Hint = "name one of " + enumerate(names) + " with --main"
	}
	return Service{}, p
}

// choose picks one of several main packages.
func (f *finder) choose(mains []goPackage, hint []string) (Service, error) {
	slices.SortFunc(mains, func(a, b goPackage) int { return cmp.Compare(a.ImportPath, b.ImportPath) })
	if len(mains) == 1 {
		return f.service(mains[0], "the only main package below the folder"), nil
	}
	likeModule := func(p goPackage) bool {
		return p.Module != nil && lastElement(p.ImportPath) == lastElement(p.Module.Path)
	}
	serious := func(p goPackage) bool { return !aside(p) }
	if p, ok := single(mains, likeModule); ok {
		return f.service(p, "its folder is named like the module"), nil
	}
	if p, ok := single(mains, serious); ok {
		return f.service(p, "the only main package outside examples, tests and tools"), nil
	}
	rest := slices.DeleteFunc(slices.Clone(mains), aside)
	if p, ok := single(rest, likeModule); ok {
		return f.service(p, "its folder is named like the module"), nil
	}
	if len(rest) == 0 {
		rest = mains
	}
	for _, name := range hint {
		called := func(p goPackage) bool { return lastElement(p.ImportPath) == name || serviceName(p) == name }
		p, ok := single(rest, called)
		if !ok {
			continue
		}
		others := slices.ContainsFunc(hint, func(h string) bool {
			return h != name && slices.ContainsFunc(rest, func(q goPackage) bool {
				return q.ImportPath != p.ImportPath && (lastElement(q.ImportPath) == h || serviceName(q) == h)
			})
		})
		if !others {
			return f.service(p, "it is named like "+name), nil
		}
	}
	labels := make([]string, len(rest))
	for i, p := range rest {
		labels[i] = f.label(p)
	}
	return Service{}, &api.Problem{
		Code: "many-mains", Severity: api.SeverityError,
		Message: fmt.Sprintf("%d main packages in %s: %s", len(rest), f.dir, enumerate(labels)),
		Hint:    "name one with --main, for example --main " + labels[0],
	}
}

func single(pkgs []goPackage, is func(goPackage) bool) (goPackage, bool) {
	i := slices.IndexFunc(pkgs, is)
	if i < 0 || slices.ContainsFunc(pkgs[i+1:], is) {
		return goPackage{}, false
	}
	return pkgs[i], true
}

// label names a package as --main takes it: the folder relative to the one that is searched.
func (f *finder) label(p goPackage) string {
	rel, err := filepath.Rel(f.dir, p.Dir)
	if err != nil {
		return p.ImportPath
	}
	rel = filepath.ToSlash(rel)
	if rel != "." && !strings.HasPrefix(rel, "../") {
		rel = "./" + rel
	}
	return rel
}

// enumerate lists names, of which a person reads some.
func enumerate(names []string) string {
	const most = 12
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// service completes what is known of a package.
func (f *finder) service(p goPackage, why string) Service {
	s := Service{
		Name: serviceName(p), ImportPath: p.ImportPath, Dir: p.Dir, ModuleDir: f.dir,
		GoWork: f.goWork(), Why: why, Modules: f.modules,
	}
	if p.Module != nil {
		s.Module = p.Module.Path
		if p.Module.Main && p.Module.Dir != "" {
			s.ModuleDir = p.Module.Dir
		}
		if len(s.Modules) == 0 { // found in a module below the folder
			s.Modules = []Module{{Path: p.Module.Path, Dir: p.Module.Dir}}
		}
	}
	return s
}

// Folders whose main packages accompany a service.
var asideFolders = []string{
	"bench", "benchmark", "benchmarks", "codegen", "demo", "demos", "doc", "docs", "e2e", "example", "examples", "gen",
	"hack", "integration", "sample", "samples", "script", "scripts", "test", "testdata", "tests", "tool", "tools",
}

// aside says whether a package lies in a folder for examples, tests or tools of its module.
func aside(p goPackage) bool {
	rel := p.ImportPath
	if p.Module != nil {
		rel = strings.TrimPrefix(rel, p.Module.Path)
	}
	for part := range strings.SplitSeq(rel, "/") {
		if slices.Contains(asideFolders, part) {
			return true
		}
	}
	return false
}

var reVersion = regexp.MustCompile(`^v[0-9]+$`)

// elements splits an import path, without its major version (/v2, and .v2 of gopkg.in).
func elements(importPath string) []string {
	parts := strings.Split(importPath, "/")
	if len(parts) > 1 && reVersion.MatchString(parts[len(parts)-1]) {
		parts = parts[:len(parts)-1]
	}
	last := parts[len(parts)-1]
	if ext := path.Ext(last); len(parts) > 1 && ext != "" && reVersion.MatchString(ext[1:]) {
		parts[len(parts)-1] = strings.TrimSuffix(last, ext)
	}
	return parts
}

func lastElement(importPath string) string {
	parts := elements(importPath)
	return parts[len(parts)-1]
}

// Folder names that say nothing about the service in them.
var genericFolders = []string{"app", "bin", "cmd", "main", "server", "service", "src"}

// serviceName makes a DNS label (RFC 1035: Kubernetes asks it of a Service) of the import path: its last element that
// says something, or the module's last.
func serviceName(p goPackage) string {
	name := lastElement(p.ImportPath)
	if p.Module != nil {
		rel := strings.Trim(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")
		name = lastElement(p.Module.Path)
		parts := strings.Split(rel, "/")
		for i, part := range slices.Backward(parts) {
			if part == "" || i > 0 && reVersion.MatchString(part) || slices.Contains(genericFolders, part) {
				continue
			}
			name = part
			break
		}
	}
	return dnsLabel(name)
}

// dnsLabel makes a DNS label of any string.
func dnsLabel(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	out := strings.Trim(b.String(), "-")
	switch {
	case out == "":
		out = "service"
	case out[0] <= '9':
		out = "svc-" + out
	}
	return strings.TrimRight(out[:min(len(out), 63)], "-")
}

// within says whether path is dir or lies in it. Both are absolute and clean.
func within(path, dir string) bool {
	if path == dir {
		return true
	}
	if !strings.HasSuffix(dir, string(filepath.Separator)) {
		dir += string(filepath.Separator)
	}
	return strings.HasPrefix(path, dir)
}

// dirOf returns a function that says where a package of the main modules has its folder, whether it exists or not.
func dirOf(modules []Module) func(string) string {
	return func(importPath string) string {
		best := Module{}
		for _, m := range modules {
			if (importPath == m.Path || strings.HasPrefix(importPath, m.Path+"/")) && len(m.Path) >= len(best.Path) {
				best = m
			}
		}
		if best.Dir == "" {
			return ""
		}
		return filepath.Join(best.Dir, filepath.FromSlash(strings.TrimPrefix(importPath, best.Path)))
	}
}

// problems returns the problems of messages.
func problems(ms []message) []*api.Problem {
	out := make([]*api.Problem, len(ms))
	for i, m := range ms {
		out[i] = m.Problem
	}
	return out
}

// lastLines returns the end of an output, for where nothing in it was understood.
func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
