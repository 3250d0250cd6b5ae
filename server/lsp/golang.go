package lsp

import (
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
)

// entry is where a document's service begins.
type entry struct {
	main bool // the document is of a main package
	at   span // "func main", its name included
	is   bool // there is one
}

// A file beyond this size is generated, and parsing it would be felt.
const maxParse = 4 << 20

var reClause = regexp.MustCompile(`(?m)^package[ \t]+main\b`)

var reMain = regexp.MustCompile(`(?m)^func[ \t]+main[ \t]*\(`)

// find looks for func main of package main. While the code is being typed and does not parse, it is where it was.
func (d *document) find() entry {
	d.once.Do(func() {
		d.search()
		d.looked.Store(true)
	})
	return d.entry
}

func (d *document) search() {
	s := d.text.s
	if !strings.Contains(s, "main") {
		return
	}
	// Most files are of other packages, which their first line says.
	if f, err := parser.ParseFile(token.NewFileSet(), d.path, s, parser.PackageClauseOnly); err == nil && f.Name.Name != "main" {
		return
	}
	switch {
	case len(s) > maxParse:
		d.entry.main = reClause.MatchString(s)
	default:
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, d.path, s, parser.SkipObjectResolution|parser.ParseComments)
		if f == nil {
			return
		}
		d.entry.main = f.Name != nil && f.Name.Name == "main" && !ignored(f)
		if !d.entry.main {
			break
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "main" {
				d.entry.at = span{fset.Position(fn.Pos()).Offset, fset.Position(fn.Name.End()).Offset}
				d.entry.is = true
				return
			}
		}
		if err == nil {
			return // it has none, and that is sure
		}
	}
	if !d.entry.main {
		return
	}
	// The parser gives up where braces do not match; what looks like it at the beginning of a line is it, most likely.
	if m := reMain.FindStringIndex(s); m != nil {
		d.entry.at, d.entry.is = span{m[0], m[1] - 1}, true
	} else if d.prior != nil && d.prior.end <= len(s) {
		d.entry.at, d.entry.is = *d.prior, true
	}
}

// known returns where func main is, as far as that was looked for already: it is asked for at every keystroke.
func (d *document) known() *span {
	switch {
	case !d.looked.Load():
		return d.prior
	case d.entry.is:
		at := d.entry.at
		return &at
	}
	return nil
}

// ignored says whether a file is kept out of every build, as programs are that are run by hand.
func ignored(f *ast.File) bool {
	for _, g := range f.Comments {
		if g.Pos() > f.Package {
			break
		}
		for _, c := range g.List {
			if !constraint.IsGoBuild(c.Text) {
				continue
			}
			if x, err := constraint.Parse(c.Text); err == nil && !x.Eval(func(tag string) bool { return tag != "ignore" }) {
				return true
			}
		}
	}
	return false
}

// tokenEnd is where the token at an offset ends: an identifier, a number, a quoted text or a run of operators. It stays
// within the line. The compiler gives only where an error begins.
func tokenEnd(s string, at int) int {
	end := len(s)
	if i := strings.IndexAny(s[at:], "\r\n"); i >= 0 {
		end = at + i
	}
	line := s[at:end]
	if line == "" {
		return at
	}
	word := func(r rune) bool {
		return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
	}
	first := rune(line[0])
	switch {
	case first == '"' || first == '`' || first == '\'':
		for i := 1; i < len(line); i++ {
			if line[i] == '\\' && first != '`' {
				i++
			} else if rune(line[i]) == first {
				return at + i + 1
			}
		}
		return end
	case word(first):
		if i := strings.IndexFunc(line, func(r rune) bool { return !word(r) }); i >= 0 {
			return at + i
		}
		return end
	case first == ' ' || first == '\t':
		return at + 1
	}
	const operators = "+-*/%&|^<>=!:."
	i := 0
	for i < len(line) && strings.IndexByte(operators, line[i]) >= 0 {
		i++
	}
	return at + max(i, 1)
}
