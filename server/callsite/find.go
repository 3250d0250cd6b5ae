package callsite

import (
	"cmp"
	"context"
	"fmt"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"fairlead.dev/api"
	"fairlead.dev/syncer/build"
)

// The bounds of what one query costs and of what a Finder holds.
const (
	MaxPlaces = 8 // of a Result
	// maxFacts is how many packages' facts are kept; those that were not asked for longest go first. A package's facts are some
	// 20 KB. Types are kept of the packages that were read and of what these import.
	maxFacts   = 1000
	maxCallers = 200 // of one function
	maxLevels  = 3   // how far constants are followed through parameters to callers
	maxLift    = 4   // how far generated code is followed to who calls it
	maxMethod  = 4096
)

// Query asks where one call is made.
type Query struct {
	api.Call
	// Addresses are those by which the service reaches the callee, as "billing:8080" or "127.0.0.1:41234".
	Addresses []string
	// Stack is where the call was made if that is known, the innermost frame first.
	Stack []Frame
}

// Frame is one call of a stack, as the runtime writes it. One without Func is a line on which the call's error was logged.
type Frame struct {
	Func string
	File string
	Line int
}

// Result is where a call is made.
type Result struct {
	// Places are the call's places in the user's source, the likeliest first, at most MaxPlaces. More counts the rest.
	Places []Place
	More   int
	// Fallback is func main, where no place was found, and nil where even that cannot be read. Reason says for a person why there
	// is none.
	Fallback *Place
	Reason   string
}

// Place is a call expression, as much of it as is on its line.
type Place struct {
	File              string
	Line              int // from 1
	Column, EndColumn int // in bytes, from 1; EndColumn is behind the last
	// Func is the function around it, as a stack names it.
	Func string
	// Why says for a person how it was found.
	Why string
	// Related are the callers of the function around it, where that is the only one that makes the call.
	Related []api.Place

	first, last int // lines of the whole expression
}

// Finder finds calls in the source of one main package, as one builder builds it. It is made for one target and one set of
// flags; who builds otherwise makes another. All methods may be used by several goroutines; searches take turns.
type Finder struct {
	builder *build.Builder

	pendingMu sync.Mutex
	pending   map[string]bool // files that changed since the last search

	turn chan struct{} // holds one value while nobody searches

	// What follows is the searcher's.
	graph         *graph
	exports       map[string]string // files with export data, by import path
	unexported    map[string]bool   // packages that were asked for and have none
	imported      map[string]*types.Package
	exportFiles   *token.FileSet
	missing       map[string]error // packages whose types could not be read
	moduleChanged bool             // versions of others' packages may be other ones
	relist        bool
	syntax        map[*pkg]*parsed // of this search
	query         uint64           // counts searches
}

// New makes a Finder. Nothing is read before the first search.
func New(b *build.Builder) *Finder {
	f := &Finder{builder: b, pending: map[string]bool{}, turn: make(chan struct{}, 1)}
	f.reset()
	f.turn <- struct{}{}
	return f
}

func (f *Finder) reset() {
	f.graph, f.exports, f.unexported, f.imported = nil, map[string]string{}, map[string]bool{}, map[string]*types.Package{}
	f.exportFiles, f.missing = token.NewFileSet(), map[string]error{}
	f.moduleChanged, f.relist = false, false
}

// Invalidate says that files were changed, made, removed or renamed. It does not wait for a search. Paths are absolute.
func (f *Finder) Invalidate(files []string) {
	f.pendingMu.Lock()
	defer f.pendingMu.Unlock()
	for _, file := range files {
		f.pending[filepath.Clean(file)] = true
	}
}

// Forget drops all that was learned, for when nothing will be asked for a while. The next search begins anew.
func (f *Finder) Forget(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.turn:
	}
	defer func() { f.turn <- struct{}{} }()
	f.reset()
	return nil
}

// Warm reads beforehand what most searches need: which packages there are, and the facts of those that make requests or import a
// generated client. It may take seconds, and is worth them off the path of anything that waits.
func (f *Finder) Warm(ctx context.Context) error {
	return f.search(ctx, func() error {
		var pkgs []*pkg
		for _, p := range f.graph.own() {
			if mayRequest(p, true) || slices.ContainsFunc(p.deps, func(d *pkg) bool { return len(stubsOf(d)) > 0 }) {
				pkgs = append(pkgs, p)
			}
		}
		_, err := f.factsOf(ctx, pkgs)
		return err
	})
}

// Find returns a result for each query, in their order. Its error is the go command's, or ctx's: source with errors is
// searched for what can be read of it.
func (f *Finder) Find(ctx context.Context, queries []Query) ([]Result, error) {
	out := make([]Result, len(queries))
	err := f.search(ctx, func() error {
		for i, q := range queries {
			s := search{f: f, ctx: ctx, q: q}
			r, err := s.run()
			if err != nil {
				return err
			}
			out[i] = r
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// search takes a turn and does something with the graph as it is now.
func (f *Finder) search(ctx context.Context, do func() error) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.turn:
	}
	defer func() { f.turn <- struct{}{} }()
	f.query++
	f.syntax = map[*pkg]*parsed{}
	defer func() { f.syntax = nil; f.shed() }()
	if err := f.refresh(ctx); err != nil {
		return err
	}
	return do()
}

// refresh takes in what changed since the last search.
func (f *Finder) refresh(ctx context.Context) error {
	f.pendingMu.Lock()
	files := f.pending
	f.pending = map[string]bool{}
	f.pendingMu.Unlock()
	err := func() error {
		relist := f.graph == nil || f.relist
		if f.graph != nil && len(files) > 0 {
			changed := make([]string, 0, len(files))
			for file := range files {
				changed = append(changed, file)
				f.moduleChanged = f.moduleChanged || settings(file)
			}
			stale, err := f.apply(ctx, changed)
			if err != nil {
				return err
			}
			relist = relist || stale
		}
		if !relist {
			return nil
		}
		f.relist = true // until it is done
		if err := f.load(ctx); err != nil {
			return err
		}
		f.relist = false
		return nil
	}()
	if err != nil {
		// Cancelled, or the go command failed: the changes are still to be taken in.
		f.pendingMu.Lock()
		defer f.pendingMu.Unlock()
		for file := range files {
			f.pending[file] = true
		}
	}
	return err
}

// shed drops the facts that were not asked for longest.
func (f *Finder) shed() {
	if f.graph == nil {
		return
	}
	var with []*pkg
	for _, p := range f.graph.pkgs {
		if p.facts != nil {
			with = append(with, p)
		}
	}
	if len(with) <= maxFacts {
		return
	}
	slices.SortFunc(with, func(a, b *pkg) int { return cmp.Compare(b.used, a.used) })
	for _, p := range with[maxFacts:] {
		p.facts = nil
	}
}

// search answers one query.
type search struct {
	f   *Finder
	ctx context.Context
	q   Query

	method string   // of HTTP
	path   []string // the segments; "*" for an identifier
	found  []site
	notes  []string // why nothing may have been found

	assigns   map[string][]origin // of fields and package variables, by key
	following []string            // the wrappers that are being followed
}

// site is one place that may be the answer.
type site struct {
	Place
	pkg     *pkg
	fn      string
	penalty int  // how unlikely it is; 0 is certain
	affine  bool // something there names the callee
	loose   bool // a part of the path is not known there
	framed  bool // fn is a stack's name, and no key
}

func (s *search) run() (Result, error) {
	method, path, isHTTP := strings.Cut(s.q.Method, " ")
	if !isHTTP {
		method, path = "POST", s.q.Method
	}
	if !strings.HasPrefix(path, "/") || len(s.q.Method) > maxMethod {
		s.note("what was called is not known: %q is no method", s.q.Method)
		return s.result()
	}
	if isHTTP && path == "/" {
		s.path = []string{}
	} else {
		s.path = strings.Split(strings.Trim(path, "/"), "/")
	}
	s.method = method
	// Connect's protocol is HTTP whose path is the method's name, so that both are asked for.
	if isRPC(path) {
		if err := s.rpc(path); err != nil {
			return Result{}, err
		}
	}
	if err := s.requests(isHTTP); err != nil {
		return Result{}, err
	}
	return s.result()
}

// isRPC says whether a path may be "/package.Service/Method".
func isRPC(path string) bool {
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return ok && service != "" && token.IsIdentifier(method) && !strings.ContainsAny(service, "*%") &&
		(strings.Contains(service, ".") || token.IsExported(service))
}

func (s *search) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// result ranks what was found.
func (s *search) result() (Result, error) {
	slices.SortStableFunc(s.found, func(a, b site) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	seen := map[string]bool{}
	s.found = slices.DeleteFunc(s.found, func(a site) bool {
		key := fmt.Sprint(a.File, ":", a.Line, ":", a.Column)
		dup := seen[key]
		seen[key] = true
		return dup
	})
	s.sift()
	s.byStack()
	if err := s.byLog(); err != nil {
		return Result{}, err
	}
	if len(s.found) == 0 || s.found[0].penalty >= penaltyGuess {
		s.byFrame()
	}
	if len(s.found) == 0 {
		return s.fallback()
	}
	if err := s.relate(); err != nil {
		return Result{}, err
	}
	var r Result
	for _, a := range s.found[:min(len(s.found), MaxPlaces)] {
		if a.Func = a.fn; !a.framed {
			a.Func = runtimeName(a.fn, a.pkg.ImportPath, a.pkg.Name)
		}
		r.Places = append(r.Places, a.Place)
	}
	r.More = len(s.found) - len(r.Places)
	return r, nil
}

func (a site) rank() int {
	if a.affine {
		return a.penalty
	}
	return a.penalty + 2
}

// sift leaves out what only may be the call where something else certainly may: a path with an unknown part where another has
// all of it, and a URL of who knows whom where another names the callee.
func (s *search) sift() {
	if len(s.found) == 0 {
		return
	}
	best := s.found[0]
	s.found = slices.DeleteFunc(s.found, func(a site) bool {
		return a.loose && !best.loose || best.affine && !a.affine && a.penalty >= best.penalty || a.penalty >= penaltyGuess && best.penalty < penaltyGuess
	})
}

// byStack leaves of several the one that a stack names: by its line, or else by its function, since lines move with edits.
func (s *search) byStack() {
	if len(s.q.Stack) == 0 || len(s.found) < 2 {
		return
	}
	for _, match := range []func(site, Frame) bool{
		func(a site, fr Frame) bool {
			return a.first <= fr.Line && fr.Line <= a.last && sameFile(a.File, fr.File) && a.inFunc(fr)
		},
		site.inFunc,
	} {
		for _, fr := range s.q.Stack {
			var hit []site
			for _, a := range s.found {
				if match(a, fr) {
					hit = append(hit, a)
				}
			}
			if len(hit) > 0 {
				s.found = hit
				return
			}
		}
	}
}

// byFrame takes the innermost line of the user's that the stack names, where reading found none that says as much.
func (s *search) byFrame() {
	for _, fr := range s.q.Stack {
		file := filepath.FromSlash(fr.File)
		p := s.f.graph.byDir[filepath.Dir(file)]
		if p == nil || !slices.Contains(p.Files, file) {
			continue
		}
		if at, ok := wholeLine(file, fr.Line); ok {
			at.Why = "the call's stack names this line"
			if fr.Func == "" {
				at.Why = "its error is logged on this line"
			}
			s.found = []site{{Place: at, pkg: p, fn: fr.Func, affine: true, framed: true}}
			return
		}
	}
}

// wholeLine is the place of a line's text. What is generated is nobody's line.
func wholeLine(file string, line int) (Place, bool) {
	src, err := os.ReadFile(file)
	if err != nil || reGenerated.Match(src) {
		return Place{}, false
	}
	lines := strings.Split(string(src), "\n")
	if line < 1 || line > len(lines) {
		return Place{}, false
	}
	text := lines[line-1]
	if i := strings.LastIndex(text, "//"); i > 0 && !strings.ContainsAny(text[i:], "\"`") {
		text = text[:i]
	}
	text = strings.TrimRight(text, " \t\r")
	begin := len(text) - len(strings.TrimLeft(text, " \t"))
	return Place{File: file, Line: line, Column: begin + 1, EndColumn: len(text) + 1, first: line, last: line}, begin < len(text)
}

// reGenerated is the line by which generated source says what it is (go.dev/s/generatedcode).
var reGenerated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// inFunc says whether a stack's frame is of the function that the site is in, or of a literal in it.
func (a site) inFunc(fr Frame) bool {
	name := runtimeName(a.fn, a.pkg.ImportPath, a.pkg.Name)
	rest, ok := strings.CutPrefix(fr.Func, name)
	return ok && (rest == "" || rest[0] == '.')
}

// sameFile compares a file with what an executable has, which was built with -trimpath perhaps.
func sameFile(a, b string) bool {
	return a == b || filepath.Base(a) == filepath.Base(filepath.FromSlash(b))
}

// relate adds the callers of the function around the only site, the next place to look at.
func (s *search) relate() error {
	if len(s.found) != 1 || s.found[0].framed || !s.f.near(s.found[0].fn) {
		return nil
	}
	a := &s.found[0]
	callers, err := s.f.callers(s.ctx, a.fn, false)
	if err != nil {
		return err
	}
	for _, c := range callers {
		if len(a.Related) == MaxPlaces {
			break
		}
		if c.pkg.Own && c.call.fn != a.fn {
			message := short(a.fn) + " is called here"
			if c.call.taken {
				message = short(a.fn) + " is taken here, to be called elsewhere"
			}
			a.Related = append(a.Related, api.Place{File: c.call.at.File, Line: c.call.at.Line, Column: c.call.at.Column, Message: message})
		}
	}
	return nil
}

// fallback is what is said where nothing was found.
func (s *search) fallback() (Result, error) {
	r := Result{Reason: strings.Join(slices.Compact(s.notes), "; ")}
	if n := len(s.f.missing); n > 0 {
		paths := []string{}
		for path := range s.f.missing {
			paths = append(paths, path)
		}
		slices.Sort(paths)
		r.Reason += fmt.Sprintf("; the types of %s could not be read: %v", paths[0], s.f.missing[paths[0]])
		if n > 1 {
			r.Reason += fmt.Sprintf(" (and of %d more)", n-1)
		}
	}
	for _, p := range s.f.graph.own() {
		if p.ImportPath != s.f.builder.Service().ImportPath {
			continue
		}
		parsed, err := s.f.parse(s.ctx, p)
		if err != nil {
			return r, err
		}
		r.Fallback = mainFunc(parsed)
	}
	return r, nil
}

// short is a function's key as a person says it: "(*Shop).charge".
func short(key string) string {
	key, _, lit := strings.Cut(key, "·")
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		head := ""
		if strings.HasPrefix(key, "(*") {
			head = "(*"
		} else if strings.HasPrefix(key, "(") {
			head = "("
		}
		key = head + key[i+1:]
	}
	if lit {
		return "a function in " + key
	}
	return key
}
