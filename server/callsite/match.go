package callsite

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// In a pattern these stand for what is not known: any string, and any without a slash. No URL has such bytes.
const (
	wildAny     = '\x01'
	wildSegment = '\x02'
)

// pattern is a URL as far as it is known.
type pattern struct {
	host string // "" where it is not known
	// fixed: the source says this host and no other.
	fixed bool
	// base: something unknown stands before the path, the host with a part of the path perhaps.
	base bool
	segs []string
	// open: something unknown follows the path, a query perhaps.
	open bool
}

// patternOf makes a pattern of a string's parts.
func patternOf(v value) pattern {
	var b strings.Builder
	hard := true // of the host
	for _, p := range v {
		switch p.kind {
		case partText:
			if p.n == soft && !strings.Contains(b.String(), "://") {
				hard = false
			}
			b.WriteString(strings.Map(func(r rune) rune {
				if r < ' ' {
					return -1
				}
				return r
			}, p.text))
		case partSegment:
			b.WriteByte(wildSegment)
		default:
			b.WriteByte(wildAny)
		}
	}
	s := b.String()
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i]
	}
	var p pattern
	switch _, rest, ok := strings.Cut(s, "://"); {
	case ok:
		host, path, _ := strings.Cut(rest, "/")
		if i := strings.IndexByte(host, wildAny); i >= 0 && i == len(host)-1 {
			p.base = true // what is not known may go on into the path
		}
		if !strings.ContainsAny(host, string([]rune{wildAny, wildSegment})) {
			p.host, p.fixed = host, hard
		}
		s = path
	case s != "" && s[0] == wildAny:
		p.base = true
		s = strings.TrimLeft(s, string(wildAny))
	case strings.HasPrefix(s, "/"):
	default: // a path without its slash, as clients have that put their base before it
	}
	s = strings.Trim(s, "/")
	if s == "" {
		return p
	}
	p.segs = strings.Split(s, "/")
	p.segs = slices.DeleteFunc(p.segs, func(s string) bool { return s == "" })
	for i, s := range p.segs {
		if s[0] == '{' && s[len(s)-1] == '}' { // as in OpenAPI: a generated client puts the identifier in
			p.segs[i] = string(wildSegment)
		}
	}
	if n := len(p.segs); n > 0 {
		if last := p.segs[n-1]; last[len(last)-1] == wildAny && len(last) > 1 {
			p.open = true
			p.segs[n-1] = strings.TrimRight(last, string(wildAny))
		}
	}
	return p
}

// fit is how well a pattern agrees with a path.
type fit struct {
	texts int // segments that are the same text
	loose int // segments of the path for which the pattern has something unknown
	base  int // segments that the unknown base must have
	extra int // segments that what follows must have
}

// penalty is how unlikely a fit makes it.
func (f fit) penalty() int {
	p := 2*f.loose + f.extra
	if f.base > 0 {
		p++
	}
	return p
}

// matchPath says how a pattern agrees with a path's segments, of which "*" is an identifier, if it can.
func matchPath(p pattern, path []string) (fit, bool) {
	var f fit
	segs := p.segs
	switch n := len(path) - len(segs); {
	case n < 0:
		return f, false
	case n > 0 && (p.open || endsWild(segs)):
		// Something may follow. With a base before it both ends are open, and a base without a path is the likelier one.
		if g, ok := matchSegments(segs, path[:len(segs)]); ok && (!p.base || g.texts > 0) {
			g.extra = n
			return g, true
		}
		if !p.base {
			return f, false
		}
		f.base = n
	case n > 0 && p.base:
		f.base = n
	case n > 0:
		return f, false
	}
	g, ok := matchSegments(segs, path[f.base:])
	g.base = f.base
	return g, ok
}

// says says whether a fit is more than that nothing speaks against it.
func (f fit) says(p pattern, path []string) bool { return f.texts > 0 || !p.base && allStars(path) }

func allStars(path []string) bool {
	return !slices.ContainsFunc(path, func(s string) bool { return s != "*" })
}

func endsWild(segs []string) bool {
	return len(segs) > 0 && segs[len(segs)-1] == string(wildAny)
}

func matchSegments(segs, path []string) (fit, bool) {
	var f fit
	for i, s := range segs {
		wild := strings.ContainsAny(s, string([]rune{wildAny, wildSegment}))
		switch q := path[i]; {
		case q == "*" && wild:
		case q == "*":
			// Text where the call had what looks like an identifier: it has to look like one too.
			if !strings.ContainsAny(s, "0123456789") {
				return f, false
			}
		case !wild:
			if unescaped(s) != unescaped(q) {
				return f, false
			}
			f.texts++
		case glob(s, q):
			f.loose++
			if strings.Trim(s, string([]rune{wildAny, wildSegment})) != "" {
				f.texts++ // a part of it is text
			}
		default:
			return f, false
		}
	}
	return f, true
}

func unescaped(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// glob says whether a segment with unknown parts may be s.
func glob(pattern, s string) bool {
	parts := strings.FieldsFunc(pattern, func(r rune) bool { return r == wildAny || r == wildSegment })
	for i, p := range parts {
		j := strings.Index(s, p)
		if j < 0 || i == 0 && pattern[0] > wildSegment && j > 0 {
			return false
		}
		s = s[j+len(p):]
	}
	return s == "" || pattern[len(pattern)-1] <= wildSegment
}

// hostVerdict compares a host that the source says with the callee.
type hostVerdict int

const (
	hostUnknown hostVerdict = iota
	hostCallee
	hostOther
)

func (q *Query) host(host string) hostVerdict {
	name := hostname(host)
	if name == "" {
		return hostUnknown
	}
	for _, a := range q.Addresses {
		if host == a || name == hostname(a) && !loopback(name) {
			return hostCallee
		}
	}
	if label, _, _ := strings.Cut(name, "."); label == q.Callee {
		return hostCallee
	}
	if loopback(name) {
		return hostUnknown // a default for work on one machine
	}
	return hostOther
}

func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

func loopback(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}

// names says whether a variable's, a field's or a parameter's name is made of the callee's: BILLING_URL, billingAddr.
func (q *Query) names(name string) bool {
	n, c := plain(name), plain(q.Callee)
	for _, suffix := range []string{"service", "server", "svc", "api"} {
		if stem, ok := strings.CutSuffix(c, suffix); ok && len(stem) >= 4 {
			c = stem
			break
		}
	}
	if len(c) >= 3 && strings.Contains(n, c) {
		return true
	}
	first, _, more := strings.Cut(q.Callee, "-")
	first = plain(first)
	return more && len(first) >= 4 && strings.Contains(n, first)
}

func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, s)
}
