package callsite

import (
	"context"
	"slices"
	"strings"
)

// caller is one call of a function that was asked for.
type caller struct {
	pkg  *pkg
	call *call
	via  bool // through an interface that has a method of that name and signature
}

// packageOf returns the package that a key's function, field or variable is declared in.
func (f *Finder) packageOf(key string) *pkg {
	s := strings.TrimPrefix(strings.TrimPrefix(key, "("), "*")
	from := strings.LastIndexByte(s, '/') + 1
	if b := strings.IndexByte(s, '['); b >= 0 && b < from { // a type argument's path
		from = strings.LastIndexByte(s[:b], '/') + 1
	}
	for i := from; i < len(s); i++ {
		if s[i] == '.' { // the last element of a path may have dots too
			if p := f.graph.pkgs[s[:i]]; p != nil {
				return p
			}
		}
	}
	return nil
}

// lastName is what a function, a field or a variable of a key is called.
func lastName(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

func exported(name string) bool {
	return name != "" && (name[0] >= 'A' && name[0] <= 'Z' || name[0] >= 0x80)
}

// users are the packages in which a name of p may be used, p first: all that reach p and in whose source it stands.
func (f *Finder) users(p *pkg, name string, foreign bool) []*pkg {
	if !exported(name) {
		return []*pkg{p}
	}
	var out []*pkg
	for _, d := range f.graph.dependents(p, foreign) {
		if d == p && (p.Own || foreign && !p.Standard) && d.mentions(name) || d != p && d.mentions("."+name) {
			out = append(out, d)
		}
	}
	return out
}

// callers returns who calls a function, or takes it as a value. With foreign those in other modules count too.
func (f *Finder) callers(ctx context.Context, key string, foreign bool) ([]caller, error) {
	p := f.packageOf(key)
	if p == nil {
		return nil, nil
	}
	if strings.Contains(key, "·") { // a function literal
		all, err := f.factsOf(ctx, []*pkg{p})
		if err != nil {
			return nil, err
		}
		return pick(nil, p, all[0], key), nil
	}
	name := lastName(key)
	pkgs := f.users(p, name, foreign)
	all, err := f.factsOf(ctx, pkgs)
	if err != nil {
		return nil, err
	}
	var out []caller
	for i, fs := range all {
		out = pick(out, pkgs[i], fs, key)
	}
	if p.facts == nil || p.facts.funcs[key] == nil || !p.facts.funcs[key].method {
		return out[:min(len(out), maxCallers)], nil
	}
	fn := p.facts.funcs[key]
	via, err := f.interfaceCallers(ctx, name, fn.signature, func(c *call) bool { return c.callee != key })
	return append(out, via...)[:min(len(out)+len(via), maxCallers)], err
}

func pick(out []caller, p *pkg, fs *facts, key string) []caller {
	for _, i := range fs.byCallee[key] {
		out = append(out, caller{pkg: p, call: &fs.calls[i]})
	}
	return out
}

// maxRelated is how many packages are read to say who else calls a function. It helps, and is not worth seconds.
const maxRelated = 40

// near says whether the callers of a function are in a few packages.
func (f *Finder) near(key string) bool {
	p, name := f.packageOf(key), lastName(key)
	if p == nil || strings.Contains(key, "·") || !exported(name) {
		return true
	}
	n := 0
	for _, d := range f.graph.own() {
		if d.mentions("." + name) {
			n++
		}
	}
	return n <= maxRelated
}

// interfaceCallers returns the calls through interfaces that declare a method of this name and signature. They stand in
// packages that reach all whose types are in the signature.
func (f *Finder) interfaceCallers(ctx context.Context, name string, sig signature, ok func(*call) bool) ([]caller, error) {
	var pkgs []*pkg
	for _, p := range f.graph.own() {
		if p.mentions("."+name) && (exported(name) || slices.Contains(sig.pkgs, p.ImportPath)) {
			pkgs = append(pkgs, p)
		}
	}
	for _, path := range sig.pkgs {
		d := f.graph.pkgs[path]
		if d == nil || d.Standard || len(pkgs) == 0 {
			continue
		}
		reach := map[*pkg]bool{}
		for _, r := range f.graph.dependents(d, true) {
			reach[r] = true
		}
		pkgs = slices.DeleteFunc(pkgs, func(p *pkg) bool { return !reach[p] })
	}
	all, err := f.factsOf(ctx, pkgs)
	if err != nil {
		return nil, err
	}
	var out []caller
	want := name + sig.text
	for i, fs := range all {
		for j := range fs.calls {
			c := &fs.calls[j]
			if c.iface != "" && c.name == name && slices.Contains(c.methods, want) && ok(c) {
				out = append(out, caller{pkg: pkgs[i], call: c, via: true})
			}
		}
	}
	return out, nil
}

// assigned returns what a field or a package variable is given, anywhere in the user's source.
func (s *search) assigned(key string) ([]origin, error) {
	if o, ok := s.assigns[key]; ok {
		return o, nil
	}
	var out []origin
	if p := s.f.packageOf(key); p != nil && p.Own {
		pkgs := s.f.users(p, lastName(key), false)
		// A literal of another package names the field without a dot.
		if exported(lastName(key)) {
			for _, d := range s.f.graph.dependents(p, false) {
				if d.mentions(lastName(key)) && !slices.Contains(pkgs, d) {
					pkgs = append(pkgs, d)
				}
			}
		}
		all, err := s.f.factsOf(s.ctx, pkgs)
		if err != nil {
			return nil, err
		}
		for i, fs := range all {
			for j := range fs.assigns[key] {
				out = append(out, origin{pkg: pkgs[i], assign: &fs.assigns[key][j]})
			}
		}
	}
	if s.assigns == nil {
		s.assigns = map[string][]origin{}
	}
	s.assigns[key] = out
	return out, nil
}

// origin is where a field or a variable got a value.
type origin struct {
	pkg *pkg
	*assign
}

// known is one of the strings that values may be: parts of text, of what is not known, and of the parameters of the function
// that it is in.
type known struct {
	parts value
	names []string // of variables, fields and parameters that it is built from
	from  *origin  // what gave the last of its fields a value
}

// The bounds of what is put in for fields, results and parameters.
const (
	maxExpand = 4
	maxKnown  = 24
)

// soft marks text that came from somewhere else and may be another one: a default, what one of several constructors says.
const soft = 1

// expand puts in what is known of fields, package variables and results of functions.
func (s *search) expand(v values, depth int) ([]known, error) {
	var out []known
	for _, a := range v {
		ks := []known{{}}
		for _, p := range a {
			next, err := s.expandPart(p, depth)
			if err != nil {
				return nil, err
			}
			var joined []known
			for _, k := range ks {
				for _, n := range next {
					if len(joined) < maxKnown && len(k.parts)+len(n.parts) <= 2*maxParts {
						j := known{parts: slices.Concat(k.parts, n.parts), names: slices.Concat(k.names, n.names), from: k.from}
						if n.from != nil {
							j.from = n.from
						}
						joined = append(joined, j)
					}
				}
			}
			ks = joined
		}
		out = append(out, ks...)
	}
	return out[:min(len(out), maxKnown)], nil
}

func (s *search) expandPart(p part, depth int) ([]known, error) {
	unknown := known{parts: value{{kind: partAny}}}
	if p.name != "" {
		unknown.names = []string{p.name}
	}
	switch p.kind {
	case partText, partSegment, partAny:
		return []known{{parts: value{p}}}, nil
	case partParam:
		return []known{{parts: value{p}, names: []string{p.name}}}, nil
	case partEnv:
		if len(p.args) == 1 && len(p.args[0]) == 1 && len(p.args[0][0]) == 1 && p.args[0][0][0].kind == partText {
			unknown.names = []string{p.args[0][0][0].text}
		}
		return []known{unknown}, nil
	}
	if depth >= maxExpand {
		return []known{unknown}, nil
	}
	var out []known
	add := func(v values, from *origin) error {
		ks, err := s.expand(v, depth+1)
		for _, k := range ks {
			k.parts = slices.Clone(k.parts)
			for i := range k.parts {
				if k.parts[i].kind == partText {
					k.parts[i].n = soft
				}
			}
			if from != nil {
				k.from = from
			}
			if p.name != "" {
				k.names = append(slices.Clone(k.names), p.name)
			}
			if len(out) < maxKnown {
				out = append(out, k)
			}
		}
		return err
	}
	switch p.kind {
	case partField:
		origins, err := s.assigned(p.text)
		if err != nil {
			return nil, err
		}
		for i := range origins {
			o := origins[i]
			vs, err := s.arguments(o.value, depth)
			if err != nil {
				return nil, err
			}
			if err := add(vs, &o); err != nil {
				return nil, err
			}
		}
	case partResult:
		fp := s.f.packageOf(p.text)
		if fp == nil || !fp.Own {
			break
		}
		all, err := s.f.factsOf(s.ctx, []*pkg{fp})
		if err != nil {
			return nil, err
		}
		for _, r := range all[0].returns[p.text] {
			if isEmpty(values{r}) { // beside an error
				continue
			}
			if err := add(substitute(values{r}, p.text, p.args), nil); err != nil {
				return nil, err
			}
		}
	}
	if len(out) == 0 {
		return []known{unknown}, nil
	}
	return out, nil
}

// arguments puts in for the parameters of a constructor, say, what its callers give it.
func (s *search) arguments(v values, depth int) (values, error) {
	var out values
	for _, a := range v {
		i := slices.IndexFunc(a, func(p part) bool { return p.kind == partParam })
		if i < 0 || depth >= maxExpand {
			out = append(out, a)
			continue
		}
		callers, err := s.f.callers(s.ctx, a[i].text, false)
		if err != nil {
			return nil, err
		}
		n := len(out)
		for _, c := range callers {
			if !c.call.taken && !c.via && len(out)-n < maxAlternatives {
				for _, sub := range substitute(values{a}, a[i].text, c.call.args) {
					// What the callers' own parameters are is not followed any further, but their names may say something.
					out = append(out, sub)
				}
			}
		}
		if len(out) == n {
			out = append(out, a)
		}
	}
	return out, nil
}

// substitute puts arguments in for the parameters of a function.
func substitute(v values, fn string, args []values) values {
	var out values
	for _, a := range v {
		parts := []values{}
		for _, p := range a {
			switch {
			case p.kind == partParam && p.text == fn:
				if p.n < len(args) && len(args[p.n]) > 0 {
					parts = append(parts, args[p.n])
				} else {
					parts = append(parts, values{{{kind: partAny, name: p.name}}})
				}
			case len(p.args) > 0:
				q := p
				q.args = make([]values, len(p.args))
				for i := range p.args {
					q.args[i] = substitute(p.args[i], fn, args)
				}
				parts = append(parts, values{{q}})
			default:
				parts = append(parts, values{{p}})
			}
		}
		out = append(out, join(parts...)...)
	}
	return out[:min(len(out), maxAlternatives)]
}

// hasParam says whether a parameter is part of values, directly or as an argument.
func hasParam(v values) bool {
	for _, a := range v {
		for _, p := range a {
			if p.kind == partParam || slices.ContainsFunc(p.args, hasParam) {
				return true
			}
		}
	}
	return false
}
