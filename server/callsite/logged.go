package callsite

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// byLog leaves of several the ones whose function, or else one of whose callers, has a line on which the call's error was logged. Such
// a line is near the call and is not it: it stands behind it, or where its error was handed up to.
func (s *search) byLog() error {
	if len(s.found) < 2 {
		return nil
	}
	funcs := functions{}
	for _, fr := range s.q.Stack {
		if fr.Func != "" {
			continue
		}
		best, hit := 0, []site(nil)
		for _, a := range s.found {
			n := common(a.File, fr.File)
			if n == 0 || n < best || !funcs.same(a.File, a.Line, fr.Line) {
				continue
			}
			if n > best {
				best, hit = n, nil
			}
			hit = append(hit, a)
		}
		if len(hit) > 0 {
			s.found = hit
			return nil
		}
		for _, a := range s.found {
			if a.framed || !s.f.near(a.fn) {
				continue
			}
			callers, err := s.f.callers(s.ctx, a.fn, false)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(callers, func(c caller) bool {
				return c.pkg.Own && common(c.call.at.File, fr.File) > 0 && funcs.same(c.call.at.File, c.call.at.Line, fr.Line)
			}) {
				hit = append(hit, a)
			}
		}
		if len(hit) > 0 {
			s.found = hit
			return nil
		}
	}
	return nil
}

// common counts the last elements that two paths have in common: a logger writes a file as it was built, with its folder, or its name
// alone.
func common(a, b string) int {
	as, bs := strings.Split(filepath.ToSlash(a), "/"), strings.Split(filepath.ToSlash(b), "/")
	n := 0
	for n < len(as) && n < len(bs) && as[len(as)-1-n] == bs[len(bs)-1-n] {
		n++
	}
	return n
}

// functions are the first and last lines of the functions of files.
type functions map[string][][2]int

// same says whether two lines of a file are in the same function.
func (f functions) same(file string, a, b int) bool {
	spans, ok := f[file]
	if !ok {
		files := token.NewFileSet()
		if tree, _ := parser.ParseFile(files, file, nil, parser.SkipObjectResolution); tree != nil { // as far as it can be read
			for _, d := range tree.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					spans = append(spans, [2]int{files.Position(fn.Pos()).Line, files.Position(fn.End()).Line})
				}
			}
		}
		f[file] = spans
	}
	return slices.ContainsFunc(spans, func(s [2]int) bool { return s[0] <= a && a <= s[1] && s[0] <= b && b <= s[1] })
}
