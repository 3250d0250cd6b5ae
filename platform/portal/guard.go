package portal

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"fairlead.dev/api"
)

// loopback says whether a host is this machine's own.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// hostsOf are the Host headers that mean the portal. A page of another name that was made to resolve to this machine (DNS
// rebinding) sends its own name.
func hostsOf(u *url.URL) map[string]bool {
	hosts := map[string]bool{strings.ToLower(u.Host): true}
	if port := map[string]string{"https": "443", "http": "80"}[u.Scheme]; u.Port() == "" {
		hosts[strings.ToLower(net.JoinHostPort(u.Hostname(), port))] = true // some clients say it
	} else if u.Port() == port {
		hosts[strings.ToLower(u.Hostname())] = true // browsers do not
	}
	if loopback(u.Hostname()) {
		for _, h := range []string{"127.0.0.1", "localhost", "::1"} {
			if u.Port() == "" {
				hosts[strings.Trim(net.JoinHostPort(h, ""), ":")] = true
			} else {
				hosts[net.JoinHostPort(h, u.Port())] = true
			}
		}
	}
	return hosts
}

// frames are the pages that VS Code's Simple Browser is in. Both schemes are the editor's own.
var frames = []string{"vscode-webview:", "vscode-file:"}

// guard is before everything: the right host, no other site's request, limits, and headers that keep an answer harmless.
func (p *Portal) guard(next http.Handler) http.Handler {
	ancestors := p.o.FrameAncestors
	if p.o.Frames {
		ancestors = append(append([]string{}, frames...), ancestors...)
	}
	framing := "'none'"
	if len(ancestors) > 0 {
		framing = strings.Join(ancestors, " ")
	}
	csp := "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors " + framing
	cross := http.NewCrossOriginProtection()
	slots := make(chan struct{}, maxInFlight)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		if len(ancestors) == 0 {
			h.Set("X-Frame-Options", "DENY")
		}
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin") // with no-referrer a form's Origin is null
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if p.url.Scheme == "https" {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if r.URL.Path == "/healthz" { // a probe knows the address only
			h.Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write([]byte("ok\n"))
			return
		}
		if !p.hosts[strings.ToLower(r.Host)] && !p.shownElsewhere(r) {
			hint := "open " + p.url.String()
			if p.o.Local != nil {
				hint += ", or a form from the editor (Request access)"
			}
			p.refuse(w, r, http.StatusMisdirectedRequest, &api.Problem{Code: "wrong-host", Message: "this is not the portal of " + printable(r.Host), Hint: hint})
			return
		}
		// A sign-in comes from the opening file, which is no site. Its code is all that it needs, and nobody else has it.
		if r.URL.Path != "/sign-in" || p.o.Local == nil {
			if err := cross.Check(r); err != nil {
				p.refuse(w, r, http.StatusForbidden, &api.Problem{Code: "cross-origin", Message: "another site's page may not do this", Hint: "open the portal itself: " + p.url.String()})
				return
			}
		}
		// Streams last, and have slots of their own: they must not keep pages out.
		if r.URL.Path != "/v1/grants" {
			if !enter(slots) {
				p.busy(w, r)
				return
			}
			defer leave(slots)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(30 * time.Second)) // a recorder in a test has none
		next.ServeHTTP(w, r)
	})
}

// shownElsewhere lets in a request with another Host than the portal's: where an editor runs in a browser or on another machine, it
// forwards the port under a name that only it knows. The sign-in that SignInURL leads to is open to all names, and its code is
// nobody's who was not given the address; all else takes a session that was begun under the same name. So a site whose name was made
// to resolve to this machine gets a form in which it has nothing to fill in.
func (p *Portal) shownElsewhere(r *http.Request) bool {
	if p.o.Local == nil {
		return false
	}
	if strings.HasPrefix(r.URL.Path, "/static/") || r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/sign-in/to/") || r.Method == http.MethodPost && r.URL.Path == "/sign-in" {
		return true
	}
	_, _, ok := p.session(r)
	return ok && !strings.HasPrefix(r.URL.Path, "/v1/")
}

func enter(slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func leave(slots chan struct{}) { <-slots }

func (p *Portal) busy(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "1")
	p.refuse(w, r, http.StatusServiceUnavailable, &api.Problem{Code: "busy", Message: "too many requests at once", Hint: "try again in a moment"})
}

// equal compares secrets in a time that does not tell where they differ. Nothing equals an empty one.
func equal(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// localPath is where to go after a sign-in: a path of the portal, or its first page. What a browser could take for
// another host is none.
func localPath(to string) string {
	if len(to) > maxLink || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\") {
		return "/"
	}
	for _, c := range to {
		if c <= ' ' || c == 0x7f {
			return "/"
		}
	}
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || strings.HasPrefix(u.Path, "//") || strings.HasPrefix(u.Path, "/sign-") {
		return "/"
	}
	return u.RequestURI()
}

// printable is a text from outside as a message may have it.
func printable(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0xfffd || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
}
