package callsite

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// facts is what a package's source says about calls. It holds words and numbers only.
type facts struct {
	funcs    map[string]*function
	calls    []call
	byCallee map[string][]int // places in calls
	requests []request
	assigns  map[string][]assign // what fields and package variables are given, by key
	returns  map[string][]value  // a function's first result, where it is a string or a URL, by key
}

// function is one that the package declares. Its key is types.Func.FullName's: "(*example.com/app/pay.Shop).charge".
type function struct {
	signature
	name      string
	method    bool
	generated bool // in a file that says so
	at        Place
}

// signature tells methods of one name apart, without the names of their parameters.
type signature struct {
	text string
	pkgs []string // whose types are in it
}

// call is a call of a function that is not the standard library's, or another use of one.
type call struct {
	callee string
	name   string
	// iface is the interface that declares the method which is called; empty for other functions. methods are all of it.
	iface   string
	methods []string
	fn      string // whose body it is in
	at      Place
	taken   bool     // the function is taken as a value and not called
	handed  bool     // one of the arguments is a function, as where a server registers a handler
	args    []values // nil for an argument that is neither a string nor a URL
}

// request is where a request is made whose path is an argument.
type request struct {
	kind   requestKind
	method values
	url    values
	fn     string
	at     Place
}

type requestKind int

const (
	requestHTTP    requestKind = iota
	requestInvoke              // of a gRPC connection, without a generated client
	requestConnect             // connect.NewClient: the calls themselves are made by what it returns
)

// assign is one value of a field or a package variable.
type assign struct {
	value  values
	method string // of HTTP, where the same literal says one
	fn     string
	at     Place
}

// maxArgs is how many arguments of a call are looked at.
const maxArgs = 12

// extractor makes the facts of one package. One function declaration is under way at a time.
type extractor struct {
	graph     *graph
	pkg       *pkg
	fset      *token.FileSet
	info      *types.Info
	facts     *facts
	generated bool

	params   map[types.Object]part
	literals map[*ast.FuncLit]string
	locals   map[local][]assignment
	holder   map[ast.Expr]types.Object // the variable that a call's first result goes to
	fns      []string                  // the functions around what is looked at, the innermost last
	around   []ast.Expr                // the calls and literals around it
	depth    int                       // of eval
}

// local is a variable of a function, or one of the fields by which a URL or a request is changed ("URL.Path").
type local struct {
	obj   types.Object
	field string
}

// assignment is one to a local.
type assignment struct {
	rhs    ast.Expr
	ranged bool // rhs is ranged over
	tok    token.Token
	pos    token.Pos
	block  ast.Node // the innermost around it
}

func extract(g *graph, p *pkg, s *parsed, info *types.Info) *facts {
	x := &extractor{graph: g, pkg: p, fset: s.fset, info: info,
		facts: &facts{funcs: map[string]*function{}, byCallee: map[string][]int{}, assigns: map[string][]assign{}, returns: map[string][]value{}}}
	for _, file := range s.files {
		x.generated = ast.IsGenerated(file)
		for _, d := range file.Decls {
			x.declaration(d)
		}
	}
	for i, c := range x.facts.calls {
		x.facts.byCallee[c.callee] = append(x.facts.byCallee[c.callee], i)
	}
	return x.facts
}

func (x *extractor) declaration(d ast.Decl) {
	x.params, x.literals, x.locals, x.holder = map[types.Object]part{}, map[*ast.FuncLit]string{}, map[local][]assignment{}, map[ast.Expr]types.Object{}
	switch d := d.(type) {
	case *ast.FuncDecl:
		fn, _ := x.info.Defs[d.Name].(*types.Func)
		if fn == nil {
			return
		}
		key := fn.FullName()
		sig := fn.Signature()
		x.facts.funcs[key] = &function{name: fn.Name(), method: sig.Recv() != nil, generated: x.generated, signature: describe(sig), at: x.place(d.Name, d.Name)}
		if d.Body == nil {
			return
		}
		x.parameters(key, d.Type)
		x.prepare(key, d.Body)
		x.fns = []string{key}
		x.walk(d.Body)
	case *ast.GenDecl:
		if d.Tok != token.VAR {
			return
		}
		key := x.pkg.ImportPath + ".init"
		x.prepare(key, d)
		x.fns = []string{key}
		x.walk(d)
	}
}

// parameters notes a function's parameters.
func (x *extractor) parameters(key string, t *ast.FuncType) {
	i := 0
	for _, field := range t.Params.List {
		for _, name := range field.Names {
			if obj := x.info.Defs[name]; obj != nil {
				if _, variadic := field.Type.(*ast.Ellipsis); !variadic {
					x.params[obj] = part{kind: partParam, text: key, n: i, name: name.Name}
				}
			}
			i++
		}
		if len(field.Names) == 0 {
			i++
		}
	}
}

// prepare notes what is assigned to the variables of a function, and names the function literals in it.
func (x *extractor) prepare(key string, root ast.Node) {
	var blocks, stack []ast.Node
	ast.Inspect(root, func(n ast.Node) bool {
		if n == nil {
			last := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if len(blocks) > 0 && blocks[len(blocks)-1] == last {
				blocks = blocks[:len(blocks)-1]
			}
			return true
		}
		stack = append(stack, n)
		block := root
		if len(blocks) > 0 {
			block = blocks[len(blocks)-1]
		}
		switch n := n.(type) {
		case *ast.BlockStmt, *ast.CaseClause, *ast.CommClause:
			blocks = append(blocks, n)
		case *ast.FuncLit:
			at := x.fset.Position(n.Pos())
			lit := key + "·" + strconv.Itoa(at.Line) + ":" + strconv.Itoa(at.Column)
			x.literals[n] = lit
			x.parameters(lit, n.Type)
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				switch {
				case len(n.Rhs) == len(n.Lhs):
					x.assigned(l, assignment{rhs: n.Rhs[i], tok: n.Tok, pos: n.Pos(), block: block})
				case i == 0 && len(n.Rhs) == 1:
					x.assigned(l, assignment{rhs: n.Rhs[0], tok: n.Tok, pos: n.Pos(), block: block})
				default:
					x.assigned(l, assignment{tok: n.Tok, pos: n.Pos(), block: block})
				}
			}
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if len(n.Values) > 0 && (i == 0 || len(n.Values) == len(n.Names)) {
					x.assigned(name, assignment{rhs: n.Values[i], tok: token.ASSIGN, pos: n.Pos(), block: block})
				}
			}
		case *ast.RangeStmt:
			if n.Value != nil {
				x.assigned(n.Value, assignment{rhs: n.X, ranged: true, tok: token.ASSIGN, pos: n.Pos(), block: n.Body})
			}
		}
		return true
	})
}

// assigned notes one assignment to a local or to a field of it.
func (x *extractor) assigned(lhs ast.Expr, a assignment) {
	obj, field := x.localOf(lhs)
	if obj == nil {
		return
	}
	if a.rhs != nil && field == "" {
		x.holder[ast.Unparen(a.rhs)] = obj
	}
	x.locals[local{obj, field}] = append(x.locals[local{obj, field}], a)
}

// localOf returns the variable of a function that an expression begins with, and the fields that it names of it.
func (x *extractor) localOf(e ast.Expr) (types.Object, string) {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		v, _ := x.object(e).(*types.Var)
		if v == nil || v.IsField() || v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
			return nil, ""
		}
		return v, ""
	case *ast.SelectorExpr:
		obj, field := x.localOf(e.X)
		if obj == nil {
			return nil, ""
		}
		if field != "" {
			field += "."
		}
		return obj, field + e.Sel.Name
	case *ast.StarExpr:
		return x.localOf(e.X)
	}
	return nil, ""
}

func (x *extractor) object(id *ast.Ident) types.Object {
	if o := x.info.Uses[id]; o != nil {
		return o
	}
	return x.info.Defs[id]
}

// fn is the function that what is looked at is in.
func (x *extractor) fn() string { return x.fns[len(x.fns)-1] }

// walk takes the facts of a declaration.
func (x *extractor) walk(root ast.Node) {
	called := map[*ast.Ident]bool{}
	var stack []ast.Node
	ast.Inspect(root, func(n ast.Node) bool {
		if n == nil {
			switch stack[len(stack)-1].(type) {
			case *ast.FuncLit:
				x.fns = x.fns[:len(x.fns)-1]
				x.around = x.around[:len(x.around)-1]
			case *ast.CallExpr, *ast.CompositeLit:
				x.around = x.around[:len(x.around)-1]
			}
			stack = stack[:len(stack)-1]
			return true
		}
		stack = append(stack, n)
		switch n := n.(type) {
		case *ast.FuncLit:
			x.fns = append(x.fns, x.literals[n])
			x.around = append(x.around, n)
		case *ast.CallExpr:
			x.around = append(x.around, n)
			if id := calledIdent(n); id != nil {
				called[id] = true
				x.call(n, id)
			}
		case *ast.CompositeLit:
			x.around = append(x.around, n)
			x.composite(n)
		case *ast.Ident:
			if fn, _ := x.info.Uses[n].(*types.Func); fn != nil && !called[n] {
				at := x.place(n, n)
				if len(stack) > 1 {
					if sel, ok := stack[len(stack)-2].(*ast.SelectorExpr); ok && sel.Sel == n {
						at = x.place(sel, n)
					}
				}
				x.use(fn, at)
			}
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				if key := x.targetKey(l); key != "" && (i == 0 || len(n.Lhs) == len(n.Rhs)) && x.textual(l) {
					x.assign(key, n.Rhs[i], "", x.place(n, n))
				}
			}
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if key := x.targetKey(name); key != "" && i < len(n.Values) && x.textual(name) {
					x.assign(key, n.Values[i], "", x.place(name, name))
				}
			}
		case *ast.ReturnStmt:
			if key := x.fn(); len(n.Results) > 0 && x.textual(n.Results[0]) && len(x.facts.returns[key]) < maxAlternatives {
				x.facts.returns[key] = append(x.facts.returns[key], x.eval(n.Results[0])...)
			}
		}
		return true
	})
}

// calledIdent returns the name of what is called.
func calledIdent(c *ast.CallExpr) *ast.Ident {
	fun := ast.Unparen(c.Fun)
	switch f := fun.(type) {
	case *ast.IndexExpr:
		fun = f.X
	case *ast.IndexListExpr:
		fun = f.X
	}
	switch f := fun.(type) {
	case *ast.Ident:
		return f
	case *ast.SelectorExpr:
		return f.Sel
	}
	return nil
}

// call notes a call, and the request that it may be.
func (x *extractor) call(c *ast.CallExpr, id *ast.Ident) {
	at := x.place(c, id)
	switch obj := x.info.Uses[id].(type) {
	case *types.Func:
		fn := obj.Origin()
		key := fn.FullName()
		if x.requested(c, key, at) || fn.Pkg() == nil {
			return
		}
		if p := x.graph.pkgs[fn.Pkg().Path()]; p == nil || p.Standard {
			return
		}
		k := x.callOf(fn, at)
		k.args, k.handed = x.arguments(c)
		x.facts.calls = append(x.facts.calls, k)
	case *types.Var:
		// A function literal that a variable holds is called by that variable's name.
		as := x.locals[local{obj, ""}]
		for _, a := range as {
			if lit, ok := a.rhs.(*ast.FuncLit); ok && x.literals[lit] != "" {
				k := call{callee: x.literals[lit], name: obj.Name(), fn: x.fn(), at: at}
				k.args, k.handed = x.arguments(c)
				x.facts.calls = append(x.facts.calls, k)
			}
		}
	}
}

// use notes a function that is not called but taken as a value.
func (x *extractor) use(obj *types.Func, at Place) {
	fn := obj.Origin()
	if fn.Pkg() == nil {
		return
	}
	if p := x.graph.pkgs[fn.Pkg().Path()]; p == nil || p.Standard {
		return
	}
	k := x.callOf(fn, at)
	k.taken = true
	x.facts.calls = append(x.facts.calls, k)
}

func (x *extractor) callOf(fn *types.Func, at Place) call {
	k := call{callee: fn.FullName(), name: fn.Name(), fn: x.fn(), at: at}
	if recv := fn.Signature().Recv(); recv != nil {
		if i, ok := recv.Type().Underlying().(*types.Interface); ok {
			k.iface = types.TypeString(recv.Type(), nil)
			k.methods = methodsOf(i)
		}
	}
	return k
}

// maxMethods bounds what is noted of an interface. One with more is no one's seam for a client.
const maxMethods = 64

// methodsOf returns an interface's methods with their signatures.
func methodsOf(i *types.Interface) []string {
	var out []string
	for m := range i.Methods() {
		if len(out) == maxMethods {
			return nil
		}
		out = append(out, m.Name()+describe(m.Signature()).text)
	}
	return out
}

// describe returns a signature's description.
func describe(sig *types.Signature) signature {
	var s signature
	var b strings.Builder
	qualifier := func(p *types.Package) string {
		if !slices.Contains(s.pkgs, p.Path()) {
			s.pkgs = append(s.pkgs, p.Path())
		}
		return p.Path()
	}
	for i, tuple := range []*types.Tuple{sig.Params(), sig.Results()} {
		b.WriteString("(")
		for v := range tuple.Variables() {
			b.WriteString(types.TypeString(v.Type(), qualifier) + ",")
		}
		if i == 0 && sig.Variadic() {
			b.WriteString("...")
		}
		b.WriteString(")")
	}
	s.text = b.String()
	return s
}

// arguments returns what is known of a call's arguments.
func (x *extractor) arguments(c *ast.CallExpr) (args []values, handed bool) {
	n := min(len(c.Args), maxArgs)
	for i, a := range c.Args[:n] {
		t := x.info.TypeOf(a)
		if t == nil {
			continue
		}
		if _, ok := t.Underlying().(*types.Signature); ok {
			handed = true
		}
		if isHandler(t) {
			handed = true
		}
		if !isText(t) {
			continue
		}
		if args == nil {
			args = make([]values, n)
		}
		args[i] = x.eval(a)
	}
	return args, handed
}

// isHandler says whether a value of the type serves HTTP: who is given one registers it.
func isHandler(t types.Type) bool {
	obj, _, _ := types.LookupFieldOrMethod(t, true, nil, "ServeHTTP")
	_, ok := obj.(*types.Func)
	return ok
}

// composite notes the fields of a struct literal, and the request that it may be.
func (x *extractor) composite(c *ast.CompositeLit) {
	t := x.info.TypeOf(c)
	if t == nil {
		return
	}
	st, ok := t.Underlying().(*types.Struct)
	if !ok {
		return
	}
	owner := ownerKey(t)
	if owner == "net/http.Request" {
		x.requestLiteral(c)
		return
	}
	method := ""
	for _, e := range c.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok && strings.HasSuffix(id.Name, "Method") && x.textual(kv.Value) {
				if v := x.eval(kv.Value); len(v) == 1 && len(v[0]) == 1 {
					method = v[0][0].text
				}
			}
		}
	}
	for i, e := range c.Elts {
		value, name := e, ""
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			id, _ := kv.Key.(*ast.Ident)
			if id == nil {
				continue
			}
			value, name = kv.Value, id.Name
		} else if i < st.NumFields() {
			name = st.Field(i).Name()
		}
		if owner == "" || name == "" || !x.textual(value) {
			continue
		}
		x.assign(owner+"."+name, value, method, x.placeAround(c, e))
	}
}

// placeAround is where a literal's field is given a value: the call that the literal is an argument of, or the field.
func (x *extractor) placeAround(c *ast.CompositeLit, field ast.Expr) Place {
	for _, e := range slices.Backward(x.around) {
		switch e := e.(type) {
		case *ast.CallExpr:
			if id := calledIdent(e); id != nil && e.Pos() < c.Pos() {
				return x.place(e, id)
			}
		case *ast.FuncLit:
			return x.place(field, field)
		}
	}
	return x.place(field, field)
}

func (x *extractor) assign(key string, e ast.Expr, method string, at Place) {
	if len(x.facts.assigns[key]) < 16*maxAlternatives {
		x.facts.assigns[key] = append(x.facts.assigns[key], assign{value: x.eval(e), method: method, fn: x.fn(), at: at})
	}
}

// targetKey returns the key of a field or a package variable, or "".
func (x *extractor) targetKey(e ast.Expr) string {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		if v, ok := x.object(e).(*types.Var); ok && !v.IsField() && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
			return v.Pkg().Path() + "." + v.Name()
		}
	case *ast.SelectorExpr:
		sel := x.info.Selections[e]
		if sel == nil {
			return x.targetKey(e.Sel) // of another package
		}
		if sel.Kind() != types.FieldVal {
			return ""
		}
		t := sel.Recv()
		for _, i := range sel.Index()[:len(sel.Index())-1] {
			st, ok := deref(t).Underlying().(*types.Struct)
			if !ok {
				return ""
			}
			t = st.Field(i).Type()
		}
		if owner := ownerKey(t); owner != "" {
			return owner + "." + sel.Obj().Name()
		}
	}
	return ""
}

func deref(t types.Type) types.Type {
	if p, ok := t.Underlying().(*types.Pointer); ok {
		return p.Elem()
	}
	return t
}

// ownerKey names a named type without its arguments.
func ownerKey(t types.Type) string {
	n, ok := types.Unalias(deref(t)).(*types.Named)
	if !ok || n.Obj().Pkg() == nil {
		return ""
	}
	return n.Obj().Pkg().Path() + "." + n.Obj().Name()
}

// textual says whether an expression is a string or a URL.
func (x *extractor) textual(e ast.Expr) bool {
	t := x.info.TypeOf(e)
	return t != nil && isText(t)
}

func isText(t types.Type) bool {
	if b, ok := deref(t).Underlying().(*types.Basic); ok {
		return b.Info()&types.IsString != 0
	}
	return isURL(t)
}

func isURL(t types.Type) bool { return ownerKey(t) == "net/url.URL" }

// place is that of a call or another expression, of which name is the name. A diagnostic over many lines is hard to read, so
// it ends with the line, and in a chain over several it begins with the name.
func (x *extractor) place(e ast.Node, name ast.Node) Place {
	begin, end, at := x.fset.Position(e.Pos()), x.fset.Position(e.End()), x.fset.Position(name.Pos())
	p := Place{File: begin.Filename, first: begin.Line, last: end.Line}
	start := begin
	if begin.Line != at.Line {
		start = at
	}
	p.Line, p.Column, p.EndColumn = start.Line, start.Column, end.Column
	if end.Line != start.Line {
		p.EndColumn = x.fset.Position(name.End()).Column
	}
	return p
}
