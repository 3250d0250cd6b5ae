package portal

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// idp is an OpenID provider as its specifications have it: discovery, authorization code flow, PKCE (RFC 7636), RS256. It
// refuses what a real one refuses, and can be made to lie.
type idp struct {
	*httptest.Server
	t    *testing.T
	keys [2]*rsa.PrivateKey // the published one, and one that nobody knows

	mu     sync.Mutex
	codes  map[string]url.Values // what was asked for, by code
	claims map[string]any        // besides what the protocol decides
	lie    func(header, claims map[string]any) (key int)
	deny   string // an error in place of a code
	away   bool
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// idpKeys takes a second, so all providers have the same.
var idpKeys = sync.OnceValues(func() (keys [2]*rsa.PrivateKey, err error) {
	for i := range keys {
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

func newIDP(t *testing.T) *idp {
	p := &idp{t: t, codes: map[string]url.Values{}, claims: map[string]any{"email": "jo@example.com", "email_verified": true, "name": "Jo"}}
	keys, err := idpKeys()
	if err != nil {
		t.Fatal(err)
	}
	p.keys = keys
	mux := http.NewServeMux()
	write := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.away {
			http.Error(w, "maintenance", http.StatusServiceUnavailable)
			return
		}
		write(w, map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		k := p.keys[0].PublicKey
		write(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}}})
	})
	mux.HandleFunc("GET /auth", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("response_type") != "code" || q.Get("client_id") != "portal" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("nonce") == "" || q.Get("state") == "" ||
			!slices.Contains(strings.Fields(q.Get("scope")), "openid") || !strings.HasSuffix(q.Get("redirect_uri"), "/sign-in/callback") {
			http.Error(w, "invalid_request", http.StatusBadRequest)
			return
		}
		back := url.Values{"state": {q.Get("state")}}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.deny != "" {
			back.Set("error", p.deny)
		} else {
			code := rand.Text()
			p.codes[code] = q
			back.Set("code", code)
		}
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		q, known := p.codes[r.PostForm.Get("code")]
		delete(p.codes, r.PostForm.Get("code"))
		p.mu.Unlock()
		id, secret, basic := r.BasicAuth()
		if !basic {
			id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
		}
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if !known || id != "portal" || secret != "client-secret" || b64(sum[:]) != q.Get("code_challenge") || r.PostForm.Get("redirect_uri") != q.Get("redirect_uri") {
			w.WriteHeader(http.StatusBadRequest)
			write(w, map[string]any{"error": "invalid_grant"})
			return
		}
		write(w, map[string]any{"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": p.token(q.Get("nonce"))})
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *idp) token(nonce string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	header := map[string]any{"alg": "RS256", "kid": "1", "typ": "JWT"}
	now := time.Now()
	claims := map[string]any{"iss": p.URL, "sub": "1", "aud": "portal", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "nonce": nonce}
	maps.Copy(claims, p.claims)
	key := 0
	if p.lie != nil {
		key = p.lie(header, claims)
	}
	enc := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			p.t.Error(err)
		}
		return b64(b)
	}
	signed := enc(header) + "." + enc(claims)
	if header["alg"] == "none" {
		return signed + "."
	}
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(nil, p.keys[key], crypto.SHA256, sum[:])
	if err != nil {
		p.t.Error(err)
	}
	return signed + "." + b64(sig)
}

func oidcSite(t *testing.T, p *idp, with func(*OIDC)) *site {
	return newSite(t, shop(), func(o *Options) {
		o.Local, o.Token = nil, ""
		o.OIDC = &OIDC{Issuer: p.URL, ClientID: "portal", ClientSecret: "client-secret"}
		if with != nil {
			with(o.OIDC)
		}
	})
}

// begin goes to the provider and returns the way back, and the cookie that binds the sign-in.
func (s *site) begin(to string) (callback string, bound *http.Cookie) {
	s.Helper()
	start := s.send("GET", "/sign-in/start?"+url.Values{"to": {to}}.Encode(), nil, nil)
	if start.status != http.StatusSeeOther || len(start.cookies) != 1 {
		s.Fatalf("start: %d %s", start.status, start.body)
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Get(start.header.Get("Location"))
	if err != nil {
		s.Fatal(err)
	}
	res.Body.Close()
	back, ok := strings.CutPrefix(res.Header.Get("Location"), s.url)
	if !ok {
		s.Fatalf("the provider answered %d, %q", res.StatusCode, res.Header.Get("Location"))
	}
	return back, start.cookies[0]
}

func (s *site) finish(callback string, bound *http.Cookie) answer {
	s.Helper()
	h := http.Header{"Sec-Fetch-Site": {"cross-site"}}
	if bound != nil {
		h.Set("Cookie", bound.Name+"="+bound.Value)
	}
	return s.send("GET", callback, nil, h)
}

func TestOIDC(t *testing.T) {
	p := newIDP(t)
	s := oidcSite(t, p, nil)
	asked := s.send("GET", link, nil, nil)
	if asked.status != http.StatusUnauthorized || !strings.Contains(asked.body, `href="./sign-in/start?to=%2Frequest%3Fcaller%3Dcheckout`) {
		t.Fatalf("%d %s", asked.status, asked.body)
	}
	back, bound := s.begin(link)
	if !bound.HttpOnly || bound.SameSite != http.SameSiteLaxMode {
		t.Errorf("the sign-in's cookie is %v", bound)
	}
	done := s.finish(back, bound)
	if done.status != http.StatusOK || len(done.cookies) != 1 || done.header.Get("Refresh") != "0; url=.."+link {
		t.Fatalf("%d %v %s", done.status, done.header, done.body)
	}
	if c := done.cookies[0]; c.SameSite != http.SameSiteStrictMode || !c.HttpOnly {
		t.Errorf("the session's cookie is %v", c)
	}
	s.cookie = done.cookies[0]
	sent := s.send("POST", "/request", fields(s.send("GET", link, nil, nil).body), nil)
	if page := s.send("GET", sent.header.Get("Location"), nil, nil).body; !strings.Contains(page, "Jo &lt;jo@example.com&gt;") || len(s.told()) != 1 || s.told()[0].Request.Author.Email != "jo@example.com" {
		t.Errorf("the author is not who signed in: %s", page)
	}
	// A code of the local user, or the local agent's token, is nothing here.
	if a := s.send("POST", "/sign-in", url.Values{"code": {s.p.Code()}}, nil); a.status != http.StatusMethodNotAllowed && a.status != http.StatusNotFound {
		t.Errorf("a code: %d", a.status)
	}
	// A program has the provider's token.
	for token, want := range map[string]int{p.token(""): 200, "agent-token": 401, "x.y.z": 401} {
		if a := s.send("GET", "/v1/services", nil, http.Header{"Authorization": {"Bearer " + token}}); a.status != want {
			t.Errorf("%s: %d, want %d", token, a.status, want)
		}
	}
}

func TestOIDCRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		idp    func(*idp)
		option func(*OIDC)
		back   func(string) string
		bound  func(*http.Cookie) *http.Cookie
		status int
		want   string
	}{
		{name: "another state", back: func(b string) string { return strings.Replace(b, "state=", "state=A", 1) }, status: 403, want: "was not begun here"},
		{name: "no browser that began it", bound: func(*http.Cookie) *http.Cookie { return nil }, status: 403, want: "was not begun here"},
		{name: "another browser", bound: func(c *http.Cookie) *http.Cookie { c.Value = "AAAAAAAAAAAAAAAAAAAAAAAAAA"; return c }, status: 403, want: "was not begun here"},
		{name: "another code", back: func(b string) string { return strings.Replace(b, "code=", "code=A", 1) }, status: 502, want: "did not take"},
		{name: "a wrong secret", option: func(o *OIDC) { o.ClientSecret = "other" }, status: 502, want: "did not take"},
		{name: "a refusal", idp: func(p *idp) { p.deny = "access_denied" }, status: 403, want: "the provider refused: access_denied"},
		{name: "another nonce", idp: func(p *idp) { p.lie = func(_, c map[string]any) int { c["nonce"] = "x"; return 0 } }, status: 403, want: "not valid"},
		{name: "no nonce", idp: func(p *idp) { p.lie = func(_, c map[string]any) int { delete(c, "nonce"); return 0 } }, status: 403, want: "not valid"},
		{name: "another audience", idp: func(p *idp) { p.lie = func(_, c map[string]any) int { c["aud"] = "mail"; return 0 } }, status: 403, want: "not valid"},
		{name: "another issuer", idp: func(p *idp) { p.lie = func(_, c map[string]any) int { c["iss"] = "https://evil.example"; return 0 } }, status: 403, want: "not valid"},
		{name: "an old token", idp: func(p *idp) { p.lie = func(_, c map[string]any) int { c["exp"] = 1; return 0 } }, status: 403, want: "not valid"},
		{name: "another key", idp: func(p *idp) { p.lie = func(_, _ map[string]any) int { return 1 } }, status: 403, want: "not valid"},
		{name: "no signature", idp: func(p *idp) { p.lie = func(h, _ map[string]any) int { h["alg"] = "none"; return 0 } }, status: 403, want: "not valid"},
		{name: "an unverified address", idp: func(p *idp) { p.claims["email_verified"] = false }, status: 403, want: "does not say that jo@example.com is verified"},
		{name: "an address of which nothing is said", idp: func(p *idp) { delete(p.claims, "email_verified") }, status: 403, want: "does not say that"},
		{name: "an unverified address that is trusted", idp: func(p *idp) { delete(p.claims, "email_verified") }, option: func(o *OIDC) { o.TrustEmail = true }, status: 200, want: "One moment"},
		{name: "no address", idp: func(p *idp) { delete(p.claims, "email") }, status: 403, want: "did not tell an e-mail address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newIDP(t)
			if c.idp != nil {
				c.idp(p)
			}
			s := oidcSite(t, p, c.option)
			back, bound := s.begin("/")
			if c.back != nil {
				back = c.back(back)
			}
			if c.bound != nil {
				bound = c.bound(bound)
			}
			a := s.finish(back, bound)
			if a.status != c.status || !strings.Contains(a.body, c.want) || (a.status != 200) != (len(a.cookies) == 0) {
				t.Errorf("%d %v, want %d %q in %s", a.status, a.cookies, c.status, c.want, a.body)
			}
			// Once, whatever it was.
			if a := s.finish(back, bound); a.status != 403 || len(a.cookies) != 0 {
				t.Errorf("the same answer again: %d", a.status)
			}
		})
	}
}

// A provider that is away when the portal starts is asked again.
func TestProviderAway(t *testing.T) {
	p := newIDP(t)
	p.away = true
	s := oidcSite(t, p, nil)
	if a := s.send("GET", "/sign-in/start", nil, nil); a.status != http.StatusBadGateway || !strings.Contains(a.body, p.URL+"/.well-known/openid-configuration") {
		t.Errorf("%d %s", a.status, a.body)
	}
	p.mu.Lock()
	p.away = false
	p.mu.Unlock()
	if back, bound := s.begin("/"); s.finish(back, bound).status != http.StatusOK {
		t.Error("it does not sign in when the provider is back")
	}
}

// By https, cookies are the host's alone and never go unencrypted.
func TestCookiesByHTTPS(t *testing.T) {
	p := newIDP(t)
	reg := shop()
	portal, err := New(Options{URL: "https://portal.example.com", Registry: reg, OIDC: &OIDC{Issuer: p.URL, ClientID: "portal"}})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "https://portal.example.com/sign-in/start", nil)
	w := httptest.NewRecorder()
	portal.Handler().ServeHTTP(w, r)
	all := w.Result().Cookies()
	key, _ := portal.sessions.add(user, "", time.Now())
	portal.setCookie(w, r, key)
	all = append(all, w.Result().Cookies()...)
	for _, line := range w.Header()["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") {
			t.Errorf("%s %v", line, err)
		}
	}
	if len(w.Header()["Set-Cookie"]) != 2 || len(all) == 0 || w.Header().Get("Strict-Transport-Security") == "" {
		t.Errorf("%v", w.Header())
	}
	if u := w.Header().Get("Location"); !strings.Contains(u, url.QueryEscape("https://portal.example.com/sign-in/callback")) {
		t.Errorf("the way back is in %s", u)
	}
}
