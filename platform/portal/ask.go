package portal

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"fairlead.dev/api"
	"fairlead.dev/platform/endpoint"
	"fairlead.dev/platform/registry"
)

const (
	maxLink    = 16 << 10
	maxMethods = 200
	maxReason  = 2000 // bytes, as the registry takes
	maxBase    = 4 << 10
)

// How ephemeral environments have a dependency.
const (
	shared = "shared"
	fresh  = "fresh"
)

var (
	noncePattern    = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)
	revisionPattern = regexp.MustCompile(`^[0-9a-f]{40,64}$`)
)

func validName(s string) bool {
	wrong, _ := registry.CheckName(s)
	return wrong == ""
}

func validMethod(s string) bool {
	wrong, _ := registry.CheckPattern(s)
	return wrong == ""
}

// ask is what somebody asks for: a form as it was sent, or a link that fills one.
type ask struct {
	Caller, Callee string
	Methods        []string
	Reason         string
	Environments   string
	Environment    string   // where it was seen; told, and not decided by
	Nonce          string   // of this form
	Base           base     // what it was made from
	Hit            []string // methods that a link named: they stay in sight when they are not ticked
	Other          string   // what was typed in place of a tick
	Dropped        int      // methods of a link that are none
	Only           bool     // what a link names is all that is ticked, whatever else was refused
}

// fromLink reads a link. It gives no right, and what is wrong in it is left out and said.
func fromLink(q url.Values) (ask, error) {
	a := ask{Caller: q.Get("caller"), Callee: q.Get("callee"), Reason: cleanReason(q.Get("reason")), Environment: printable(q.Get("environment")), Environments: q.Get("environments"), Only: q.Get("only") != ""}
	for _, n := range []string{a.Caller, a.Callee} {
		if n != "" && !validName(n) {
			wrong, hint := registry.CheckName(printable(n))
			return a, &api.Problem{Code: "bad-name", Message: wrong, Hint: hint}
		}
	}
	if len(a.Environment) > 100 {
		a.Environment = ""
	}
	for _, m := range q["method"] {
		if !validMethod(m) || len(a.Methods) == maxMethods {
			a.Dropped++
		} else if !slices.Contains(a.Methods, m) {
			a.Methods = append(a.Methods, m)
		}
	}
	a.Hit = a.Methods
	if a.Environments != fresh {
		a.Environments = "" // what is granted already decides
	}
	return a, nil
}

// link is where the form is filled with the same again.
func (a ask) link() string {
	q := url.Values{"caller": {a.Caller}, "callee": {a.Callee}, "method": a.Methods, "only": {"1"}}
	for k, v := range map[string]string{"reason": a.Reason, "environment": a.Environment, "environments": a.Environments} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return "/request?" + q.Encode()
}

func cleanReason(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\r\n", "\n"), "")
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == ' ' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	s = strings.TrimSpace(s)
	for len(s) > maxReason {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// fault is what is wrong with one field of a form.
type fault struct{ Field, Message string }

// fromForm reads what was sent. A form of ours cannot send most of the faults: they are said all the same.
func fromForm(f url.Values) (ask, []fault) {
	a := ask{Caller: f.Get("caller"), Callee: f.Get("callee"), Reason: cleanReason(f.Get("reason")), Environments: f.Get("environments"),
		Environment: printable(f.Get("environment")), Nonce: f.Get("nonce"), Base: readBase(f.Get("base")), Other: f.Get("other")}
	var faults []fault
	if !validName(a.Caller) {
		faults = append(faults, fault{"caller", "Say which service calls."})
	}
	if !validName(a.Callee) {
		faults = append(faults, fault{"callee", "Say which service is called."})
	}
	if a.Caller == a.Callee && a.Caller != "" {
		faults = append(faults, fault{"callee", "A service may call itself: nothing needs to be asked."})
	}
	for _, m := range f["hit"] {
		if validMethod(m) && len(a.Hit) < maxMethods {
			a.Hit = append(a.Hit, m)
		}
	}
	methods := f["method"]
	for m := range strings.SplitSeq(f.Get("other"), "\n") {
		if m = strings.TrimSpace(m); m != "" {
			methods = append(methods, m)
		}
	}
	if f.Get("all") != "" {
		methods = append(methods, "*")
	}
	for _, m := range methods {
		switch {
		case !validMethod(m):
			wrong, hint := registry.CheckPattern(printable(m))
			faults = append(faults, fault{"other", cmp.Or(wrong, "that is no method") + ": " + hint + "."})
		case !slices.Contains(a.Methods, m):
			a.Methods = append(a.Methods, m)
		}
	}
	if len(a.Methods) > maxMethods {
		faults = append(faults, fault{"methods", fmt.Sprintf("Tick at most %d methods, or all of them.", maxMethods)})
	}
	if len(a.Methods) == 0 && len(faults) == 0 {
		faults = append(faults, fault{"methods", "Tick at least one method."})
	}
	if slices.Contains(a.Methods, "*") {
		a.Methods = []string{"*"}
	}
	if a.Environments == "" {
		a.Environments = shared
	}
	if a.Environments != shared && a.Environments != fresh {
		faults = append(faults, fault{"environments", "Choose the shared copy or a fresh one."})
		a.Environments = shared
	}
	if !noncePattern.MatchString(a.Nonce) {
		faults = append(faults, fault{"form", "The form's number is missing. Send it once more."})
	}
	return a, faults
}

// request is the ask as the registry takes it. Its ID is a digest of the form's number, of who sends it and of what is in it: the
// same form sent twice is one change, somebody else's or another content is another one, and nothing is kept for that.
func (a ask) request(by registry.Author) registry.Request {
	r := registry.Request{Caller: a.Caller, Callee: a.Callee, Methods: slices.Sorted(slices.Values(a.Methods)), Reason: a.Reason, Environments: a.Environments, Author: by, Base: a.Base.Revision}
	b, err := json.Marshal([]any{a.Nonce, r.Caller, r.Callee, r.Methods, r.Reason, r.Environments, by.Email, by.Name})
	if err != nil {
		panic(err) // strings only
	}
	sum := sha256.Sum256(b)
	r.ID = hex.EncodeToString(sum[:12])
	return r
}

// base is what a form said when it was made. It comes back with the form, so that what changed in between can be said; nothing is
// decided by it.
type base struct {
	Revision     string `json:"r,omitempty"`
	Direct       bool   `json:"d,omitempty"`
	Why          string `json:"w,omitempty"`
	Environments string `json:"e,omitempty"` // of the grant that was there
}

func (b base) String() string {
	j, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings only
	}
	return base64.RawURLEncoding.EncodeToString(j)
}

func readBase(s string) (b base) {
	if len(s) > maxBase {
		return base{}
	}
	j, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || json.Unmarshal(j, &b) != nil {
		return base{}
	}
	if !revisionPattern.MatchString(b.Revision) {
		return base{}
	}
	b.Why, b.Environments = printable(b.Why), printable(b.Environments)
	return b
}

// changes says what is different now in a way that the one who sent the form should know before it is sent.
func (b base) changes(now base, a ask) []string {
	if b.Revision == "" || b.Revision == now.Revision {
		return nil
	}
	var out []string
	if b.Direct && !now.Direct {
		out = append(out, fmt.Sprintf("It would have been granted at once (%s). Now it is reviewed: %s.", b.Why, now.Why))
	}
	if now.Environments != "" && b.Environments != now.Environments && a.Environments != now.Environments {
		out = append(out, fmt.Sprintf("Somebody decided that ephemeral environments have the %s copy of %s; you would change that to the %s one.", now.Environments, a.Callee, a.Environments))
	}
	return out
}

// grantOf is what a service may call of another; the zero Grant where it may call nothing.
func grantOf(snap *registry.Snapshot, caller, callee string) registry.Grant {
	if g := snap.Grant(caller, callee); g != nil {
		return *g
	}
	return registry.Grant{}
}

// serviceOf is a service as it is drawn: one without a file has a name only.
func serviceOf(snap *registry.Snapshot, name string) (registry.Service, bool) {
	if s := snap.Services[name]; s != nil {
		return *s, true
	}
	return registry.Service{Name: name}, false
}

// now is the base of a form that is made now.
func baseOf(snap *registry.Snapshot, a ask, by registry.Author) base {
	d := registry.Decide(snap, a.Caller, a.Callee, by.Email)
	b := base{Revision: snap.Revision, Direct: !d.Review, Why: d.Why}
	if g := grantOf(snap, a.Caller, a.Callee); g.Service != "" {
		b.Environments = cmp.Or(g.Environments, shared)
	}
	return b
}

// row is a method that can be ticked.
type row struct {
	Method, Description, Sources string
	Ticked                       bool
	Granted                      bool // already
	Count                        uint64
}

// rows are the callee's methods: those that were hit, and the others.
func (p *Portal) rows(ctx context.Context, callee registry.Service, a ask, granted []string) (hit, other []row) {
	var known []endpoint.Endpoint
	if p.o.Endpoints != nil {
		known = p.o.Endpoints(ctx, callee)
	} else {
		known = endpoint.OfFile(callee)
	}
	m := map[string]*row{}
	add := func(method, description, source string) *row {
		r := m[method]
		if r == nil {
			r = &row{Method: method, Granted: api.Granted(granted, method)}
			m[method] = r
		}
		r.Description = cmp.Or(r.Description, description)
		if source != "" && !slices.Contains(strings.Split(r.Sources, ", "), source) {
			r.Sources = strings.TrimPrefix(r.Sources+", "+source, ", ")
		}
		return r
	}
	for _, e := range known {
		if validMethod(e.Method) {
			for _, s := range e.Sources {
				add(e.Method, e.Description, string(s))
			}
		}
	}
	seen := map[string]bool{}
	if p.o.Observed != nil && a.Caller != "" {
		for _, s := range p.o.Observed(ctx, a.Caller, a.Callee, a.Environment) {
			if validMethod(s.Method) {
				r := add(s.Method, "", "seen")
				r.Count, seen[s.Method] = s.Count, true
				r.Ticked = r.Ticked || a.Nonce == "" && !a.Only && !r.Granted && (s.Verdict == api.CallDenied || s.Verdict == api.CallWarned)
			}
		}
	}
	for _, method := range a.Hit {
		if method != "*" {
			add(method, "", "")
			seen[method] = true
		}
	}
	for _, method := range a.Methods {
		if method != "*" {
			r := add(method, "", "")
			r.Ticked = !r.Granted
		}
	}
	for _, method := range slices.Sorted(maps.Keys(m)) {
		if seen[method] {
			hit = append(hit, *m[method])
		} else {
			other = append(other, *m[method])
		}
	}
	return hit, other
}
