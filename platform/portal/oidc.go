package portal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

// OIDC is the provider that says who signs in, by OpenID Connect Core's authorization code flow with PKCE.
type OIDC struct {
	Issuer       string
	ClientID     string
	ClientSecret string   // empty for a public client
	Scopes       []string // besides openid, email and profile
	// TrustEmail takes an address that the provider does not say is verified. Only for a provider where nobody can enter somebody
	// else's: members of a team are known by their addresses.
	TrustEmail bool
	Client     *http.Client // nil: one with time limits
}

// provider is asked for its endpoints and keys when it is first needed: the portal starts without it.
type provider struct {
	o        OIDC
	redirect string

	mu  sync.Mutex
	got *oidc.Provider
}

func newProvider(o OIDC, portal string) (*provider, error) {
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, &api.Problem{Code: "bad-issuer", Message: fmt.Sprintf("%q is no OIDC issuer", o.Issuer), Hint: "give the https address that serves /.well-known/openid-configuration"}
	}
	if o.ClientID == "" {
		return nil, &api.Problem{Code: "bad-issuer", Message: "the OIDC client's ID is missing", Hint: "register the portal at the provider with the redirect address " + portal + "/sign-in/callback"}
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: 10 * time.Second}
	}
	return &provider{o: o, redirect: portal + "/sign-in/callback"}, nil
}

// discover keeps what it has found; a provider that is away is asked again the next time.
func (v *provider) discover(ctx context.Context) (*oidc.Provider, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.got != nil {
		return v.got, nil
	}
	// The keys are fetched later by this context's client; the context's end must not count then.
	got, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), v.o.Client), v.o.Issuer)
	if err != nil {
		return nil, &api.Problem{Code: "provider-away", Message: "the sign-in's provider does not answer: " + err.Error(), Hint: "try again; if it stays so, look at " + v.o.Issuer + "/.well-known/openid-configuration"}
	}
	v.got = got
	return got, nil
}

func (v *provider) config(p *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{ClientID: v.o.ClientID, ClientSecret: v.o.ClientSecret, Endpoint: p.Endpoint(), RedirectURL: v.redirect,
		Scopes: append([]string{oidc.ScopeOpenID, "email", "profile"}, v.o.Scopes...)}
}

// identify says whose an ID token is. Its signature, issuer, audience and time are the library's to verify.
func (v *provider) identify(ctx context.Context, raw, nonce string) (registry.Author, error) {
	p, err := v.discover(ctx)
	if err != nil {
		return registry.Author{}, err
	}
	token, err := p.VerifierContext(oidc.ClientContext(ctx, v.o.Client), &oidc.Config{ClientID: v.o.ClientID}).Verify(ctx, raw)
	if err != nil {
		return registry.Author{}, err
	}
	if nonce != "" && !equal(token.Nonce, nonce) {
		return registry.Author{}, errors.New("the token is of another sign-in")
	}
	var claims struct {
		Email    string `json:"email"`
		Verified bool   `json:"email_verified"`
		Name     string `json:"name"`
	}
	if err := token.Claims(&claims); err != nil {
		return registry.Author{}, fmt.Errorf("read the token: %w", err)
	}
	a := registry.Author{Name: printable(claims.Name), Email: printable(claims.Email)}
	switch {
	case a.Email == "":
		return registry.Author{}, &api.Problem{Code: "no-email", Message: "the provider did not tell an e-mail address", Hint: "let the portal's client have the scope email"}
	case !claims.Verified && !v.o.TrustEmail:
		return registry.Author{}, &api.Problem{Code: "no-email", Message: "the provider does not say that " + a.Email + " is verified", Hint: "verify the address there, or start the portal with --oidc-trust-email if nobody can enter another one's there"}
	}
	if a.Name == "" {
		a.Name = a.Email
	}
	return a, nil
}

const (
	loginFor  = 10 * time.Minute
	maxLogins = 1000
)

// login is a sign-in that is under way at the provider.
type login struct {
	nonce, verifier, to string
	browser             string // what the browser that began it has
	expires             time.Time
}

// logins are kept under their state.
type logins struct {
	mu sync.Mutex
	m  map[string]login
}

func (l *logins) add(one login, now time.Time) string {
	state := rand.Text()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[string]login{}
	}
	for k, v := range l.m {
		if !now.Before(v.expires) || len(l.m) >= maxLogins {
			delete(l.m, k)
		}
	}
	l.m[state] = one
	return state
}

// take uses a state up.
func (l *logins) take(state string, now time.Time) (login, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, ok := l.m[state]
	delete(l.m, state)
	return one, ok && now.Before(one.expires)
}

// loginCookie binds a sign-in to the browser that began it, so that nobody can have somebody else finish his. It comes back from
// another site, so it is lax.
func (p *Portal) loginCookie(value string, age int) *http.Cookie {
	name := "fairlead-login"
	if p.url.Scheme == "https" {
		name = "__Host-" + name
	}
	return &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, Secure: p.url.Scheme == "https", SameSite: http.SameSiteLaxMode, MaxAge: age}
}

func (p *Portal) startLogin(w http.ResponseWriter, r *http.Request) {
	got, err := p.provider.discover(r.Context())
	if err != nil {
		p.fail(w, r, err, http.StatusBadGateway)
		return
	}
	one := login{nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), to: localPath(r.URL.Query().Get("to")), browser: rand.Text(), expires: p.now().Add(loginFor)}
	// A second tab's sign-in must not end the first one's.
	if c, err := r.Cookie(p.loginCookie("", 0).Name); err == nil && noncePattern.MatchString(c.Value) {
		one.browser = c.Value
	}
	state := p.logins.add(one, p.now())
	http.SetCookie(w, p.loginCookie(one.browser, int(loginFor/time.Second)))
	http.Redirect(w, r, p.provider.config(got).AuthCodeURL(state, oidc.Nonce(one.nonce), oauth2.S256ChallengeOption(one.verifier)), http.StatusSeeOther)
}

func (p *Portal) finishLogin(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, message string, err error) {
		p.log.Info("portal: a sign-in failed", "reason", message, "error", err)
		p.refuse(w, r, status, &api.Problem{Code: "sign-in-failed", Message: message, Hint: "sign in again: " + p.url.String() + "/sign-in"})
	}
	q := r.URL.Query()
	one, ok := p.logins.take(q.Get("state"), p.now())
	c, err := r.Cookie(p.loginCookie("", 0).Name)
	if !ok || err != nil || !equal(c.Value, one.browser) {
		refuse(http.StatusForbidden, "this sign-in was not begun here, or is too old", err)
		return
	}
	if e := q.Get("error"); e != "" {
		refuse(http.StatusForbidden, "the provider refused: "+printable(e+" "+q.Get("error_description")), nil)
		return
	}
	got, err := p.provider.discover(r.Context())
	if err != nil {
		p.fail(w, r, err, http.StatusBadGateway)
		return
	}
	ctx := oidc.ClientContext(r.Context(), p.provider.o.Client)
	token, err := p.provider.config(got).Exchange(ctx, q.Get("code"), oauth2.VerifierOption(one.verifier))
	if err != nil {
		refuse(http.StatusBadGateway, "the provider did not take the sign-in's code", err)
		return
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		refuse(http.StatusBadGateway, "the provider sent no ID token", nil)
		return
	}
	user, err := p.provider.identify(r.Context(), raw, one.nonce)
	if err != nil {
		var pr *api.Problem
		if errors.As(err, &pr) {
			p.fail(w, r, err, http.StatusForbidden)
			return
		}
		refuse(http.StatusForbidden, "the provider's token is not valid", err)
		return
	}
	key, _ := p.sessions.add(user, strings.ToLower(r.Host), p.now())
	p.setCookie(w, r, key)
	p.hop(w, r, one.to)
}
