package portal

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"time"

	"fairlead.dev/platform/registry"
)

const (
	sessionFor  = 12 * time.Hour
	codeFor     = 10 * time.Minute
	maxSessions = 10_000
	maxCodes    = 100
)

// session is a browser that somebody has signed in with.
type session struct {
	user    registry.Author
	csrf    string
	host    string // whose Host the sign-in had
	expires time.Time
}

// sessions are kept under a digest of what the cookie has, so that reading memory gives nobody's cookie.
type sessions struct {
	mu sync.Mutex
	m  map[[32]byte]session
}

func (s *sessions) add(user registry.Author, host string, now time.Time) (string, session) {
	key, se := rand.Text()+rand.Text(), session{user: user, csrf: rand.Text(), host: host, expires: now.Add(sessionFor)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[[32]byte]session{}
	}
	for k, v := range s.m {
		if !now.Before(v.expires) || len(s.m) >= maxSessions {
			delete(s.m, k)
		}
	}
	s.m[sha256.Sum256([]byte(key))] = se
	return key, se
}

func (s *sessions) get(key string, now time.Time) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	se, ok := s.m[sha256.Sum256([]byte(key))]
	return se, ok && now.Before(se.expires)
}

func (s *sessions) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, sha256.Sum256([]byte(key)))
}

// codes are one-time codes of the local user.
type codes struct {
	mu sync.Mutex
	m  map[[32]byte]code
}

type code struct {
	until     time.Time
	elsewhere bool // it signs in under another Host too
}

func (c *codes) add(now time.Time, elsewhere bool) string {
	text := rand.Text()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[[32]byte]code{}
	}
	for k, v := range c.m {
		if !now.Before(v.until) || len(c.m) >= maxCodes {
			delete(c.m, k)
		}
	}
	c.m[sha256.Sum256([]byte(text))] = code{now.Add(codeFor), elsewhere}
	return text
}

// take uses a code up.
func (c *codes) take(text string, now time.Time, elsewhere bool) bool {
	k := sha256.Sum256([]byte(text))
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.m[k]
	delete(c.m, k)
	return ok && now.Before(v.until) && (v.elsewhere || !elsewhere)
}

// cookieName is that of the session's cookie. The prefix __Host- keeps a neighbour of the same domain from setting it.
func (p *Portal) cookieName(framed bool) string {
	name := "fairlead"
	if framed {
		name += "-framed"
	}
	if p.url.Scheme == "https" {
		return "__Host-" + name
	}
	return name
}

// setCookie hands out a session. Inside a frame of another site no browser sends a strict cookie; there it is one of its own,
// partitioned, which a browser gives to the portal inside of that one top page only.
func (p *Portal) setCookie(w http.ResponseWriter, r *http.Request, key string) {
	c := &http.Cookie{Name: p.cookieName(false), Value: key, Path: "/", HttpOnly: true, Secure: p.url.Scheme == "https", SameSite: http.SameSiteStrictMode, MaxAge: int(sessionFor / time.Second)}
	if framed(r) && (p.o.Frames || len(p.o.FrameAncestors) > 0) {
		c.Name, c.Secure, c.SameSite, c.Partitioned = p.cookieName(true), true, http.SameSiteNoneMode, true
	}
	http.SetCookie(w, c)
}

// framed says whether the page is shown inside of another. Browsers say so themselves, pages cannot.
func framed(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Dest") == "iframe" }

// session finds who sent the request. One that was begun under another Host than the portal's is good under that one.
func (p *Portal) session(r *http.Request) (session, string, bool) {
	host := strings.ToLower(r.Host)
	for _, name := range []string{p.cookieName(false), p.cookieName(true)} {
		for _, c := range r.CookiesNamed(name) {
			if s, ok := p.sessions.get(c.Value, p.now()); ok && (p.hosts[host] || s.host == host) {
				return s, c.Value, true
			}
		}
	}
	return session{}, "", false
}
