package callsite

import (
	"cmp"
	"slices"
	"strings"
)

// penaltyGuess and more have sites that are told only where there is nothing better: the path is no one's words there.
const (
	penaltyGuess = 20
	penaltyBase  = 30
)

// requests finds the requests that may be the call.
func (s *search) requests(isHTTP bool) error {
	before := len(s.found)
	var pkgs []*pkg
	for _, p := range s.f.graph.own() {
		if mayRequest(p, isHTTP) {
			pkgs = append(pkgs, p)
		}
	}
	all, err := s.f.factsOf(s.ctx, pkgs)
	if err != nil {
		return err
	}
	for i, fs := range all {
		for _, r := range fs.requests {
			if isHTTP && r.kind == requestInvoke || !isHTTP && r.kind == requestHTTP {
				continue
			}
			if _, err := s.request(pkgs[i], r, 0, nil); err != nil {
				return err
			}
		}
	}
	if len(s.found) == before && isHTTP {
		s.note("no request is made in the source of the service's packages whose path can be read as %s", s.q.Method)
	}
	if isHTTP && (len(s.found) == 0 || s.best() >= penaltyGuess) {
		return s.constants()
	}
	return nil
}

func (s *search) best() int {
	return slices.MinFunc(s.found, func(a, b site) int { return cmp.Compare(a.penalty, b.penalty) }).penalty
}

// mayRequest says whether a request may be made in a package. One of gRPC is not made by net/http alone.
func mayRequest(p *pkg, isHTTP bool) bool {
	for lib, words := range libraries {
		if (isHTTP || lib != "net/http") && p.imports(lib) && slices.ContainsFunc(words, p.mentions) {
			return true
		}
	}
	return false
}

// candidate is how a request may be the call.
type candidate struct {
	fit
	penalty int
	affine  bool
	names   []string
	from    *origin
	only    bool // nothing of the path is known: the URL names the callee
}

// request takes in a request that may be the call, or what calls the function around it if that decides the path or the method.
// It says whether there was one.
func (s *search) request(p *pkg, r request, level int, through []string) (bool, error) {
	methods, err := s.expand(r.method, 0)
	if err != nil {
		return false, err
	}
	methodOpen, agrees := false, false
	for _, k := range methods {
		if len(k.parts) == 1 && k.parts[0].kind == partText {
			agrees = agrees || strings.EqualFold(k.parts[0].text, s.method)
		} else {
			methodOpen = true
		}
	}
	if !agrees && !methodOpen {
		return false, nil
	}
	// Most requests are for something else by the text that stands right there. What fields hold is dear to find out.
	if !slices.ContainsFunc(r.url, func(v value) bool {
		_, may := s.candidate(r, known{parts: v})
		return may
	}) {
		return false, nil
	}
	urls, err := s.expand(r.url, 0)
	if err != nil {
		return false, err
	}
	var best *candidate
	possible := false
	for _, k := range urls {
		c, may := s.candidate(r, k)
		possible = possible || may
		if c == nil {
			continue
		}
		if !agrees {
			c.penalty++
		}
		if best == nil || c.rank() < best.rank() {
			best = c
		}
	}
	if !possible {
		return false, nil
	}
	complete := best != nil && best.loose == 0 && best.extra == 0 && !best.only && agrees
	if !complete && level < maxLevels {
		found, decided, err := s.follow(r, level, through)
		if err != nil || found || decided {
			return found, err
		}
	}
	if best == nil || best.only && (level > 0 || hasParam(r.url)) {
		return false, nil
	}
	at, fn, sp := r.at, r.fn, p
	if o := best.from; o != nil {
		at, fn, sp = o.at, o.fn, o.pkg
	}
	why := s.why(r, best, through)
	if s.generated(sp, fn) {
		return true, s.lift(sp, fn, why, best.penalty, 0, nil)
	}
	s.found = append(s.found, site{Place: withWhy(at, why), pkg: sp, fn: fn, penalty: best.penalty, affine: best.affine, loose: best.loose+best.extra > 0})
	return true, nil
}

func (c *candidate) rank() int {
	if c.affine {
		return c.penalty
	}
	return c.penalty + 2
}

// follow looks for the request in the callers of the function around it, whose arguments are a part of it. It says whether one of
// them is the call, and whether all callers are known, so that no other can be.
func (s *search) follow(r request, level int, through []string) (found, decided bool, err error) {
	for _, fn := range paramsOf(r.url, paramsOf(r.method, nil)) {
		if slices.Contains(s.following, fn) { // recursion
			continue
		}
		s.following = append(s.following, fn)
		callers, err := s.f.callers(s.ctx, fn, false)
		if err != nil {
			return false, false, err
		}
		known := len(callers) > 0 && len(callers) < maxCallers
		for _, c := range callers {
			if c.call.taken {
				known = false
				continue
			}
			next := request{kind: r.kind, method: substitute(r.method, fn, c.call.args), url: substitute(r.url, fn, c.call.args), fn: c.call.fn, at: c.call.at}
			ok, err := s.request(c.pkg, next, level+1, append(slices.Clip(through), fn))
			if err != nil {
				return false, false, err
			}
			found = found || ok
		}
		decided = decided || known
		s.following = s.following[:len(s.following)-1]
	}
	return found, decided, nil
}

// paramsOf returns the functions whose parameters are a part of values.
func paramsOf(v values, out []string) []string {
	for _, a := range v {
		for _, p := range a {
			if p.kind == partParam && !slices.Contains(out, p.text) {
				out = append(out, p.text)
			}
			for _, arg := range p.args {
				out = paramsOf(arg, out)
			}
		}
	}
	return out
}

// candidate says how one URL may be the call's. It is nil if nothing speaks for that, and may is false if it cannot be.
func (s *search) candidate(r request, k known) (c *candidate, may bool) {
	p := patternOf(k.parts)
	c = &candidate{names: k.names}
	switch s.q.host(p.host) {
	case hostCallee:
		c.affine = true
	case hostOther:
		if p.fixed {
			return nil, false
		}
		c.penalty += 3
	}
	for _, n := range k.names {
		c.affine = c.affine || s.q.names(n)
	}
	f, ok := matchPath(p, s.path)
	says := f.says(p, s.path) || c.affine && len(s.path) == 0 && f.base == 0
	if !ok || !says {
		if ok && r.kind == requestHTTP && c.affine && len(p.segs) == 0 && (p.base || p.open) {
			c.only, c.penalty = true, c.penalty+penaltyBase
			return c, true
		}
		return nil, ok
	}
	c.fit = f
	c.penalty += f.penalty()
	if k.from != nil && !ownPath(k.parts) && !strings.Contains(allText(k.parts), "://") {
		c.from = k.from
	}
	return c, true
}

// ownPath says whether some of the path is text where the request is made.
func ownPath(v value) bool {
	return slices.ContainsFunc(v, func(p part) bool {
		return p.kind == partText && p.n != soft && strings.ContainsFunc(p.text, func(r rune) bool { return r != '/' && r != ':' && r != '.' && r != '?' })
	})
}

func allText(v value) string {
	var b strings.Builder
	for _, p := range v {
		if p.kind == partText {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// why says how a request was found.
func (s *search) why(r request, c *candidate, through []string) string {
	what := "a request for " + s.q.Method
	switch {
	case c.only:
		what = "a request to the callee whose path is not known here"
	case r.kind == requestInvoke:
		what = "the connection is told to call " + s.q.Method
	case r.kind == requestConnect:
		what = "a Connect client is made for " + s.q.Method
	case c.loose+c.extra > 0:
		what = "a request that may be for " + s.q.Method
	}
	if len(through) > 0 {
		what = "through wrapper " + short(through[0]) + ", " + what
	}
	for _, n := range c.names {
		if s.q.names(n) {
			return what + "; the URL is built from " + n
		}
	}
	if i := slices.IndexFunc(c.names, func(n string) bool { return strings.ToUpper(n) == n }); i >= 0 {
		return what + "; the URL is built from " + c.names[i]
	}
	return what
}

// constants finds where functions and structs of other modules are given the path, as the clients of other libraries are.
func (s *search) constants() error {
	words := strings.Join(slices.DeleteFunc(slices.Clone(s.path), func(p string) bool { return p == "*" }), " ")
	if words == "" {
		return nil
	}
	var pkgs []*pkg
	for _, p := range s.f.graph.own() {
		if p.mentionsAll(words) {
			pkgs = append(pkgs, p)
		}
	}
	all, err := s.f.factsOf(s.ctx, pkgs)
	if err != nil {
		return err
	}
	for i, fs := range all {
		for _, c := range fs.calls {
			lib := s.f.packageOf(c.callee)
			if lib == nil || lib.Own || c.handed || c.taken || s.generated(pkgs[i], c.fn) || otherMethod(c.name, s.method) {
				continue
			}
			for _, arg := range c.args {
				f, ok, err := s.given(arg)
				if err != nil {
					return err
				}
				if ok {
					s.found = append(s.found, site{Place: withWhy(c.at, short(c.callee)+" is given a path that is "+s.q.Method+"'s"), pkg: pkgs[i], fn: c.fn, penalty: penaltyGuess + f.penalty()})
				}
			}
		}
		for key, as := range fs.assigns {
			if lib := s.f.packageOf(key); lib == nil || lib.Own || lib.Standard {
				continue
			}
			for _, a := range as {
				if a.method != "" && !strings.EqualFold(a.method, s.method) {
					continue
				}
				f, ok, err := s.given(a.value)
				if err != nil {
					return err
				}
				if !ok {
					continue
				}
				// A generated client tells its library so, what an operation is.
				why, penalty := short(key)+" is a path that is "+s.q.Method+"'s", penaltyGuess+f.penalty()
				if s.generated(pkgs[i], a.fn) {
					err = s.lift(pkgs[i], a.fn, why, penalty, 0, nil)
				} else {
					s.found = append(s.found, site{Place: withWhy(a.at, why), pkg: pkgs[i], fn: a.fn, penalty: penalty})
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// given says whether a string is the path, or the end of it.
func (s *search) given(v values) (fit, bool, error) {
	ks, err := s.expand(v, 0)
	for _, k := range ks {
		p := patternOf(k.parts)
		p.base = p.host == "" // the library may have been told a base long before
		if f, ok := matchPath(p, s.path); ok && f.says(p, s.path) && f.loose+f.extra == 0 && strings.Contains(allText(k.parts), "/") {
			return f, true, err
		}
	}
	return fit{}, false, err
}

// otherMethod says whether a function is named after another method of HTTP.
func otherMethod(name, method string) bool {
	switch m := strings.ToUpper(name); m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m != method
	}
	return false
}
