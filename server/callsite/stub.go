package callsite

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"slices"
	"strconv"
	"strings"
)

// stub is a method of a generated client.
type stub struct {
	method string // "/billing.v1.Billing/Charge"
	name   string // Charge
	client string // the interface, or "" where the constructor returns the struct
	object string // the struct that implements it
}

// rpcLibraries are what the generated clients of gRPC and Connect import.
var rpcLibraries = []string{"google.golang.org/grpc", "connectrpc.com/connect", "github.com/bufbuild/connect-go"}

// stubsOf returns the generated clients of a package. Its generated files are read as syntax: what a method's name on the wire
// is stands in no type.
func stubsOf(p *pkg) []stub {
	if p.stubs != nil {
		return p.stubs
	}
	p.stubs = []stub{}
	if p.Standard || !slices.ContainsFunc(rpcLibraries, p.imports) {
		return p.stubs
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.Files {
		src, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(src, []byte("// Code generated ")) || !bytes.Contains(src, []byte(`"/`)) {
			continue
		}
		file, _ := parser.ParseFile(fset, name, src, parser.SkipObjectResolution|parser.ParseComments)
		if file != nil && ast.IsGenerated(file) {
			files = append(files, file)
		}
	}
	consts := map[string]string{}
	made := map[string]string{}                  // struct -> what its constructor returns
	procedures := map[string]map[string]string{} // struct -> field of a Connect client -> procedure
	for _, file := range files {
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
				constants(g, consts)
			}
		}
	}
	for _, file := range files {
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Body != nil {
				constructor(fn, consts, made, procedures)
			}
		}
	}
	for _, file := range files {
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || fn.Body == nil || len(fn.Recv.List) != 1 {
				continue
			}
			object := typeName(fn.Recv.List[0].Type)
			method := sends(fn, consts, procedures[object])
			if method == "" || object == "" {
				continue
			}
			client := made[object]
			if client == object {
				client = ""
			}
			p.stubs = append(p.stubs, stub{method: method, name: fn.Name.Name, client: client, object: object})
		}
	}
	return p.stubs
}

func constants(g *ast.GenDecl, into map[string]string) {
	for _, spec := range g.Specs {
		vs, ok := spec.(*ast.ValueSpec)
		if !ok {
			continue
		}
		for i, name := range vs.Names {
			if i < len(vs.Values) {
				if s, ok := literal(vs.Values[i], nil); ok {
					into[name.Name] = s
				}
			}
		}
	}
}

// literal is a string literal, a constant of the package, or the sum of such.
func literal(e ast.Expr, consts map[string]string) (string, bool) {
	switch e := ast.Unparen(e).(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		s, ok := consts[e.Name]
		return s, ok
	case *ast.BinaryExpr:
		a, _ := literal(e.X, consts)
		b, ok := literal(e.Y, consts)
		return a + b, ok && e.Op == token.ADD
	}
	return "", false
}

// typeName is a type without its pointer and arguments.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// constructor notes what a function that returns &client{...} says of it.
func constructor(fn *ast.FuncDecl, consts, made map[string]string, procedures map[string]map[string]string) {
	if fn.Type.Results == nil || len(fn.Type.Results.List) == 0 {
		return
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		object := typeName(lit.Type)
		if object == "" {
			return true
		}
		if _, ok := made[object]; !ok {
			made[object] = typeName(fn.Type.Results.List[0].Type)
		}
		for _, e := range lit.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			field, _ := kv.Key.(*ast.Ident)
			call, _ := kv.Value.(*ast.CallExpr)
			if field == nil || call == nil || len(call.Args) < 2 {
				continue
			}
			if id := calledIdent(call); id == nil || id.Name != "NewClient" {
				continue
			}
			if s, ok := literal(call.Args[1], consts); ok && strings.HasPrefix(s, "/") {
				if procedures[object] == nil {
					procedures[object] = map[string]string{}
				}
				procedures[object][field.Name] = s
			}
		}
		return true
	})
}

// sends returns the method that a client's method calls on the wire.
func sends(fn *ast.FuncDecl, consts, procedures map[string]string) (method string) {
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok || method != "" {
			return method == ""
		}
		id := calledIdent(c)
		if id == nil {
			return true
		}
		if id.Name == "Invoke" || id.Name == "NewStream" || id.Name == "NewClientStream" {
			for _, a := range c.Args {
				if s, ok := literal(a, consts); ok && strings.HasPrefix(s, "/") {
					method = s
				}
			}
			return true
		}
		// Connect's: c.charge.CallUnary(ctx, req)
		if sel, ok := ast.Unparen(c.Fun).(*ast.SelectorExpr); ok && strings.HasPrefix(id.Name, "Call") {
			if field, ok := sel.X.(*ast.SelectorExpr); ok && procedures[field.Sel.Name] != "" {
				method = procedures[field.Sel.Name]
			}
		}
		return true
	})
	return method
}

// rpc finds the calls of a method's generated clients.
func (s *search) rpc(method string) error {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	last := service[strings.LastIndexByte(service, '.')+1:]
	clients := 0
	var where []string
	for _, p := range s.f.graph.all() {
		if p.Standard || !slices.ContainsFunc(rpcLibraries, p.imports) || !p.mentions(name) || !p.mentions(last) {
			continue
		}
		for _, st := range stubsOf(p) {
			if st.method != method {
				continue
			}
			clients++
			where = append(where, p.Name+"."+s.said(st)+"."+st.name)
			if err := s.stub(p, st); err != nil {
				return err
			}
		}
	}
	if clients == 0 {
		s.note("no generated client of %s is among the service's packages", method)
	} else if len(s.found) == 0 {
		s.note("%s is called nowhere in the source of the service's packages", strings.Join(where, ", "))
	}
	return nil
}

func (s *search) said(st stub) string {
	if st.client != "" {
		return st.client
	}
	return st.object
}

// stub finds the calls of one generated client's method.
func (s *search) stub(p *pkg, st stub) error {
	why := "the generated client's method " + p.Name + "." + s.said(st) + "." + st.name
	foreign := !p.Own
	keys := []string{"(*" + p.ImportPath + "." + st.object + ")." + st.name}
	if st.client != "" {
		keys = append(keys, "("+p.ImportPath+"."+st.client+")."+st.name)
	}
	pkgs := s.f.graph.dependents(p, foreign)
	pkgs = slices.DeleteFunc(pkgs, func(d *pkg) bool { return d == p && !p.Own || !d.mentions("."+st.name) })
	all, err := s.f.factsOf(s.ctx, pkgs)
	if err != nil {
		return err
	}
	for i, fs := range all {
		for _, key := range keys {
			for _, c := range pick(nil, pkgs[i], fs, key) {
				if err := s.add(c, why, 0, 0, nil); err != nil {
					return err
				}
			}
		}
	}

	sig, methods := s.signatureOf(p, st)
	if sig.text == "" {
		return nil
	}
	via, err := s.f.interfaceCallers(s.ctx, st.name, sig, func(c *call) bool {
		// Of the generated code only the client itself makes calls: a handler's interface has the same methods in Connect.
		return !slices.Contains(keys, c.callee) && !strings.HasPrefix(c.iface, p.ImportPath+".") &&
			!slices.ContainsFunc(c.methods, func(m string) bool { return !slices.Contains(methods, m) })
	})
	if err != nil {
		return err
	}
	for _, c := range via {
		if err := s.add(c, "through the interface "+short(c.call.iface)+", which "+p.Name+"."+s.said(st)+" satisfies", 4, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

// signatureOf returns a client's method's signature, and all of its methods.
func (s *search) signatureOf(p *pkg, st stub) (signature, []string) {
	t, err := importer{s.f, s.ctx}.Import(p.ImportPath)
	if err != nil || st.client == "" {
		return signature{}, nil
	}
	obj := t.Scope().Lookup(st.client)
	if obj == nil {
		return signature{}, nil
	}
	i, ok := obj.Type().Underlying().(*types.Interface)
	if !ok {
		return signature{}, nil
	}
	for m := range i.Methods() {
		if m.Name() == st.name {
			return describe(m.Signature()), methodsOf(i)
		}
	}
	return signature{}, nil
}

// add takes a call in. One that generated code makes, or another module, stands for the calls of the function around it, so
// that the innermost line of the user's own is what is found.
func (s *search) add(c caller, why string, penalty, level int, seen map[string]bool) error {
	if c.pkg.Own && !s.generated(c.pkg, c.call.fn) {
		s.found = append(s.found, site{Place: withWhy(c.call.at, why), pkg: c.pkg, fn: c.call.fn, penalty: penalty, affine: true})
		return nil
	}
	return s.lift(c.pkg, c.call.fn, why, penalty, level, seen)
}

// lift takes in the callers of a function that is not the user's own writing.
func (s *search) lift(p *pkg, fn, why string, penalty, level int, seen map[string]bool) error {
	root, _, _ := strings.Cut(fn, "·")
	if seen == nil {
		seen = map[string]bool{}
	}
	if level >= maxLift || seen[root] {
		return nil
	}
	seen[root] = true
	callers, err := s.f.callers(s.ctx, root, !p.Own)
	if err != nil {
		return err
	}
	for _, c := range callers {
		more := 0
		if c.via {
			more = 4
		}
		if err := s.add(c, "through "+short(root)+", "+strings.TrimPrefix(why, "through "), penalty+more, level+1, seen); err != nil {
			return err
		}
	}
	return nil
}

// generated says whether a function is in a file that says that it is generated.
func (s *search) generated(p *pkg, fn string) bool {
	root, _, _ := strings.Cut(fn, "·")
	f := p.facts.funcs[root]
	return f != nil && f.generated
}

func withWhy(p Place, why string) Place {
	p.Why = why
	return p
}

// mainFunc is the place of func main, or of the package clause where there is none.
func mainFunc(s *parsed) *Place {
	var out *Place
	for _, file := range s.files {
		at := file.Name
		name := ""
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "main" {
				at, name = fn.Name, "main.main"
			}
		}
		if out == nil || name != "" {
			begin, end := s.fset.Position(at.Pos()), s.fset.Position(at.End())
			out = &Place{File: begin.Filename, Line: begin.Line, Column: begin.Column, EndColumn: end.Column, Func: name, Why: "the service's func main", first: begin.Line, last: end.Line}
		}
	}
	return out
}
