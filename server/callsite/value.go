package callsite

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// value is a string as source makes it, from its parts one after the other.
type value []part

// values are those that an expression may have. None are known where it is empty.
type values []value

// The bounds of what is known of one expression: URLs that are made in more ways are not told apart by reading.
const (
	maxAlternatives = 6
	maxParts        = 24
	maxEval         = 24 // how deep one expression leads to others
)

type partKind int

const (
	partText    partKind = iota
	partAny              // unknown
	partSegment          // unknown, and without a slash
	partEnv              // an environment variable or a flag, of that name
	partParam            // parameter n of function text
	partField            // a field or a package variable, by its key
	partResult           // what function text returns for args
)

type part struct {
	kind partKind
	text string
	name string // what a person calls it: a parameter, a field
	n    int
	args []values
}

func text(s string) values { return values{{{kind: partText, text: s}}} }

var (
	anything = values{{{kind: partAny}}}
	segment  = values{{{kind: partSegment}}}
)

// join puts values one after the other.
func join(vs ...values) values {
	out := values{nil}
	for _, v := range vs {
		if len(v) == 0 {
			v = anything
		}
		var next values
		for _, a := range out {
			for _, b := range v {
				if len(next) < maxAlternatives && len(a)+len(b) <= maxParts {
					next = append(next, slices.Concat(a, b))
				}
			}
		}
		if len(next) == 0 {
			return anything
		}
		out = next
	}
	return out
}

// either is one of several.
func either(vs ...values) values {
	var out values
	for _, v := range vs {
		out = append(out, v...)
	}
	return out[:min(len(out), maxAlternatives)]
}

// joinPath is what url.JoinPath and path.Join make of elements.
func joinPath(base values, elems ...values) values {
	out := trim(base, "/")
	for _, e := range elems {
		out = join(out, text("/"), trimLeft(e))
	}
	return out
}

// trim takes a suffix from where it is text.
func trim(v values, suffix string) values {
	out := slices.Clone(v)
	for i, a := range out {
		if n := len(a); n > 0 && a[n-1].kind == partText {
			a = slices.Clone(a)
			a[n-1].text = strings.TrimRight(a[n-1].text, suffix)
			out[i] = a
		}
	}
	return out
}

func trimLeft(v values) values {
	out := slices.Clone(v)
	for i, a := range out {
		if len(a) > 0 && a[0].kind == partText {
			a = slices.Clone(a)
			a[0].text = strings.TrimLeft(a[0].text, "/")
			out[i] = a
		}
	}
	return out
}

// hostOnly is a URL without its path.
func hostOnly(v values) values {
	out := values{}
	for _, a := range v {
		var host value
		for i, p := range a {
			if p.kind != partText {
				host = append(host, p)
				if i == 0 {
					break // it may be all of the host, and may have a path, which is replaced
				}
				continue
			}
			from := 0
			if j := strings.Index(p.text, "://"); j >= 0 {
				from = j + 3
			} else if i == 0 {
				break
			}
			if j := strings.IndexByte(p.text[from:], '/'); j >= 0 {
				host = append(host, part{kind: partText, text: p.text[:from+j]})
				break
			}
			host = append(host, p)
		}
		out = append(out, host)
	}
	return out
}

// eval says of what strings an expression is made.
func (x *extractor) eval(e ast.Expr) values {
	if x.depth >= maxEval {
		return anything
	}
	x.depth++
	defer func() { x.depth-- }()
	e = ast.Unparen(e)
	if tv, ok := x.info.Types[e]; ok && tv.Value != nil && tv.Value.Kind() == constant.String {
		return text(constant.StringVal(tv.Value))
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return join(x.eval(e.X), x.eval(e.Y))
		}
	case *ast.StarExpr:
		return x.eval(e.X)
	case *ast.UnaryExpr:
		if e.Op == token.AND {
			return x.eval(e.X)
		}
	case *ast.Ident:
		return x.variable(e, e)
	case *ast.SelectorExpr:
		if key := x.targetKey(e); key != "" {
			if strings.HasPrefix(key, "net/url.URL.") {
				if e.Sel.Name == "Path" {
					return anything
				}
				return segment
			}
			return values{{{kind: partField, text: key, name: e.Sel.Name}}}
		}
	case *ast.CompositeLit:
		if t := x.info.TypeOf(e); t != nil && isURL(t) {
			return x.urlLiteral(e)
		}
	case *ast.CallExpr:
		return x.result(e)
	}
	return anything
}

// variable is the value of a variable where at stands.
func (x *extractor) variable(id *ast.Ident, at ast.Expr) values {
	obj, _ := x.object(id).(*types.Var)
	if obj == nil {
		return anything
	}
	if key := x.targetKey(id); key != "" {
		return values{{{kind: partField, text: key, name: id.Name}}}
	}
	var v values
	if p, ok := x.params[obj]; ok {
		v = values{{p}}
	}
	v = x.assignedTo(local{obj, ""}, at, v)
	if isURL(obj.Type()) {
		if as := x.locals[local{obj, "Host"}]; len(as) > 0 && as[0].pos < at.Pos() {
			v = join(text("http://"), x.assignedTo(local{obj, "Host"}, at, nil))
		}
		if x.hasBefore(local{obj, "Path"}, at) {
			v = join(hostOnly(orAny(v)), x.pathAfter(local{obj, "Path"}, at, v))
		}
	}
	return orAny(v)
}

func orAny(v values) values {
	if len(v) == 0 {
		return anything
	}
	return v
}

func (x *extractor) hasBefore(l local, at ast.Expr) bool {
	return slices.ContainsFunc(x.locals[l], func(a assignment) bool { return a.pos < at.Pos() })
}

// pathAfter is a URL's path, with a slash, after what was assigned to it.
func (x *extractor) pathAfter(l local, at ast.Expr, old values) values {
	v := x.assignedTo(l, at, old)
	return join(text("/"), trimLeft(v))
}

// assignedTo is what a local holds where at stands, if it held old at first. Assignments count in the order of the source; one
// in a block that does not go on to at is another possibility.
func (x *extractor) assignedTo(l local, at ast.Expr, old values) values {
	v := old
	for _, a := range x.locals[l] {
		if a.pos >= at.Pos() || a.rhs != nil && a.rhs.Pos() <= at.Pos() && at.End() <= a.rhs.End() {
			continue
		}
		var rhs values
		switch {
		case a.rhs == nil:
			rhs = anything
		case a.ranged:
			rhs = x.elements(a.rhs)
		default:
			rhs = x.eval(a.rhs)
		}
		if a.tok == token.ADD_ASSIGN {
			rhs = join(orAny(v), rhs)
		}
		if a.block.Pos() <= at.Pos() && at.End() <= a.block.End() {
			v = rhs
		} else {
			v = either(v, rhs)
		}
	}
	return v
}

// elements are what ranging over a literal of strings gives.
func (x *extractor) elements(e ast.Expr) values {
	lit, ok := ast.Unparen(e).(*ast.CompositeLit)
	if !ok {
		return anything
	}
	var out values
	for _, el := range lit.Elts {
		if kv, ok := el.(*ast.KeyValueExpr); ok {
			el = kv.Value
		}
		out = either(out, x.eval(el))
	}
	return out
}

// urlLiteral is a url.URL literal.
func (x *extractor) urlLiteral(c *ast.CompositeLit) values {
	var host, path values // which scheme it is decides nothing
	for _, e := range c.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return anything
		}
		id, _ := kv.Key.(*ast.Ident)
		if id == nil {
			continue
		}
		switch id.Name {
		case "Host":
			host = x.eval(kv.Value)
		case "Path":
			path = x.eval(kv.Value)
		}
	}
	if path != nil {
		path = join(text("/"), trimLeft(path))
	} else {
		path = text("")
	}
	if host == nil {
		return path
	}
	return join(text("http://"), host, path)
}

// result is the first result of a call.
func (x *extractor) result(c *ast.CallExpr) values {
	if tv, ok := x.info.Types[c.Fun]; ok && tv.IsType() { // a conversion
		if len(c.Args) == 1 && x.textual(c.Args[0]) {
			return x.eval(c.Args[0])
		}
		return anything
	}
	id := calledIdent(c)
	if id == nil {
		return anything
	}
	obj, _ := x.info.Uses[id].(*types.Func)
	if obj == nil {
		if v, ok := x.info.Uses[id].(*types.Var); ok {
			for _, a := range x.locals[local{v, ""}] {
				if lit, ok := a.rhs.(*ast.FuncLit); ok && x.literals[lit] != "" {
					args, _ := x.arguments(c)
					return values{{{kind: partResult, text: x.literals[lit], name: id.Name, args: args}}}
				}
			}
		}
		return anything
	}
	arg := func(i int) values {
		if i < len(c.Args) {
			return x.eval(c.Args[i])
		}
		return anything
	}
	rest := func(from int) []values {
		var out []values
		if c.Ellipsis.IsValid() {
			return []values{anything}
		}
		for i := from; i < len(c.Args); i++ {
			out = append(out, arg(i))
		}
		return out
	}
	recv := func() values {
		if s, ok := ast.Unparen(c.Fun).(*ast.SelectorExpr); ok {
			return x.eval(s.X)
		}
		return anything
	}
	fn := obj.Origin()
	key := fn.FullName()
	switch key {
	case "fmt.Sprintf":
		return x.formatted(c)
	case "fmt.Sprint":
		return join(rest(0)...)
	case "net/url.JoinPath":
		return joinPath(arg(0), rest(1)...)
	case "(*net/url.URL).JoinPath":
		return joinPath(recv(), rest(0)...)
	case "path.Join":
		return joinPath(arg(0), rest(1)...)
	case "strings.Join":
		return x.joined(c)
	case "strings.TrimRight", "strings.TrimSuffix":
		if s := arg(1); len(s) == 1 && len(s[0]) == 1 && s[0][0].kind == partText {
			return trim(arg(0), s[0][0].text)
		}
		return arg(0)
	case "strings.TrimLeft", "strings.TrimPrefix":
		return trimLeft(arg(0))
	case "strings.TrimSpace", "strings.Clone", "strings.Replace", "strings.ReplaceAll", "strings.ToLower", "net/url.Parse", "net/url.ParseRequestURI":
		return arg(0)
	case "(*net/url.URL).String":
		return recv()
	case "(*net/url.URL).Parse", "(*net/url.URL).ResolveReference":
		ref := arg(0)
		if len(ref) > 0 && len(ref[0]) > 0 && ref[0][0].kind == partText && strings.HasPrefix(ref[0][0].text, "/") {
			return join(hostOnly(recv()), ref)
		}
		return joinPath(recv(), ref)
	case "net/url.PathEscape", "net/url.QueryEscape", "strconv.Itoa", "strconv.FormatInt", "strconv.FormatUint", "strconv.Quote":
		return segment
	case "os.Getenv", "os.LookupEnv", "syscall.Getenv":
		if v := arg(0); len(v) == 1 && len(v[0]) == 1 && (v[0][0].kind == partText || v[0][0].kind == partParam) {
			return values{{{kind: partEnv, text: v[0][0].text, name: v[0][0].text, args: []values{v}}}}
		}
		return anything
	case "cmp.Or":
		return either(rest(0)...)
	case "flag.String", "(*flag.FlagSet).String":
		name := arg(0)
		if len(name) == 1 && len(name[0]) == 1 && name[0][0].kind == partText {
			return either(values{{{kind: partEnv, text: "-" + name[0][0].text, name: "-" + name[0][0].text}}}, arg(1))
		}
		return arg(1)
	}
	if fn.Pkg() == nil {
		return anything
	}
	if p := x.graph.pkgs[fn.Pkg().Path()]; p != nil && p.Own {
		args, _ := x.arguments(c)
		return values{{{kind: partResult, text: key, name: fn.Name(), args: args}}}
	}
	if fn.Name() == "String" && x.info.TypeOf(c) != nil {
		return segment // of an identifier or a number: what has a name of its own is no path
	}
	return anything
}

// joined is strings.Join of a literal.
func (x *extractor) joined(c *ast.CallExpr) values {
	if len(c.Args) != 2 {
		return anything
	}
	lit, ok := ast.Unparen(c.Args[0]).(*ast.CompositeLit)
	if !ok {
		return anything
	}
	sep := x.eval(c.Args[1])
	var out []values
	for i, e := range lit.Elts {
		if i > 0 {
			out = append(out, sep)
		}
		out = append(out, x.eval(e))
	}
	return join(out...)
}

// formatted is fmt.Sprintf.
func (x *extractor) formatted(c *ast.CallExpr) values {
	if len(c.Args) == 0 || c.Ellipsis.IsValid() {
		return anything
	}
	format := x.eval(c.Args[0])
	if len(format) != 1 || len(format[0]) != 1 || format[0][0].kind != partText {
		return anything
	}
	s := format[0][0].text
	var out []values
	next := 1
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 || i == len(s)-1 {
			return join(append(out, text(s))...)
		}
		out = append(out, text(s[:i]))
		j := i + 1
		for j < len(s) && strings.IndexByte("+-# 0123456789.*[]", s[j]) >= 0 {
			j++
		}
		if j == len(s) {
			return join(append(out, anything)...)
		}
		switch verb := s[j]; {
		case verb == '%':
			out = append(out, text("%"))
		case strings.ContainsAny(s[i+1:j], "[*") || next >= len(c.Args):
			out = append(out, anything)
		default:
			a := c.Args[next]
			next++
			switch {
			case x.textual(a):
				out = append(out, x.eval(a))
			default:
				out = append(out, segment) // a number or an identifier
			}
		}
		s = s[j+1:]
	}
}
