package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
)

const secret = "secret-0123456789"

func code(t *testing.T, err error) string {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) {
		t.Fatalf("not a problem: %v", err)
	}
	if p.Message == "" || p.Hint == "" {
		t.Errorf("a problem without words or next step: %+v", p)
	}
	if b, _ := json.Marshal(p); strings.Contains(string(b), secret) {
		t.Errorf("the token is in a problem: %s", b)
	}
	return p.Code
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// contract is a server that checks what it is asked against a forge's documentation: a request that is not in it fails the test.
type contract struct {
	*httptest.Server
	t     *testing.T
	check func(*http.Request) string // headers; what is wrong

	mu     sync.Mutex
	routes map[string]*route
	asked  []string // METHOD path
}

// route is one operation: the query's and the body's members that are documented, which of the body's are required, and the answer.
type route struct {
	query, body, required string
	answer                func(w http.ResponseWriter, r *http.Request, body map[string]any)
}

func newContract(t *testing.T, check func(*http.Request) string) *contract {
	c := &contract{t: t, check: check, routes: map[string]*route{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

// on registers operations as "METHOD /escaped/path".
func (c *contract) on(op string, r route) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routes[op] = &r
}

func (c *contract) log() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.asked
	c.asked = nil
	return l
}

func (c *contract) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op := r.Method + " " + r.URL.EscapedPath()
	c.mu.Lock()
	c.asked = append(c.asked, op)
	rt := c.routes[op]
	c.mu.Unlock()
	if rt == nil {
		if r.Header.Get("Authorization") != "" { // who only asks what this is has none
			c.t.Errorf("not documented, or not expected: %s", op)
		}
		http.NotFound(w, r)
		return
	}
	if wrong := c.check(r); wrong != "" {
		c.t.Errorf("%s: %s", op, wrong)
	}
	for k := range r.URL.Query() {
		if !slices.Contains(strings.Fields(rt.query), k) {
			c.t.Errorf("%s: the query's %s is not documented", op, k)
		}
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Error(err)
	}
	var body map[string]any
	if len(b) > 0 {
		if r.Header.Get("Content-Type") != "application/json" {
			c.t.Errorf("%s: Content-Type is %q", op, r.Header.Get("Content-Type"))
		}
		if err := json.NewDecoder(bytes.NewReader(b)).Decode(&body); err != nil {
			c.t.Errorf("%s: %v", op, err)
		}
	}
	for k := range body {
		if !slices.Contains(strings.Fields(rt.body), k) {
			c.t.Errorf("%s: the body's %s is not documented", op, k)
		}
	}
	for k := range strings.FieldsSeq(rt.required) {
		if _, ok := body[k]; !ok {
			c.t.Errorf("%s: the body has no %s", op, k)
		}
	}
	rt.answer(w, r, body)
}

// answers is a status and JSON.
func answers(status int, v string, headers ...string) func(http.ResponseWriter, *http.Request, map[string]any) {
	return func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { reply(w, status, v, headers...) }
}

func reply(w http.ResponseWriter, status int, v string, headers ...string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	for i := 0; i+1 < len(headers); i += 2 {
		w.Header().Set(headers[i], headers[i+1])
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, v) // the client may have gone
}

func given(context.Context, Target) (Token, error) { return newToken(secret, "of a test") }

// open opens a remote of the contract's server.
func (c *contract) open(path string, o Options) *Forge {
	c.t.Helper()
	if o.Sources == nil {
		o.Sources = []Source{given}
	}
	f, err := Open(c.t.Context(), c.URL+"/"+path, o)
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

// What every API does that is not well, seen through GitHub's.
func TestTrouble(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("another host was asked, with %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	now := time.Now()
	reset := fmt.Sprint(now.Add(20 * time.Minute).Unix())
	page := func(status int, typ, text string) func(http.ResponseWriter, *http.Request, map[string]any) {
		return func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
			w.Header().Set("Content-Type", typ)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	c := newContract(t, func(*http.Request) string { return "" })
	for name, k := range map[string]struct {
		answer     func(http.ResponseWriter, *http.Request, map[string]any)
		code, says string
		asked      int
	}{
		"expired":           {answers(401, `{"message":"Bad credentials","documentation_url":"https://docs.github.com/rest","status":"401"}`), "forge-token", "of a test", 1},
		"a missing right":   {answers(403, `{"message":"Resource not accessible by personal access token"}`, "X-Accepted-GitHub-Permissions", "pull_requests=write"), "forge-refused", "pull_requests=write", 1},
		"single sign-on":    {answers(403, `{"message":"Resource protected by organization SAML enforcement."}`, "X-GitHub-SSO", "required; url=https://github.com/orgs/x/sso"), "forge-refused", "single sign-on", 1},
		"protected":         {answers(403, `{"message":"Cannot update this protected branch"}`), "forge-protected", "another branch", 1},
		"private":           {answers(404, `{"message":"Not Found"}`), "forge-missing", "team/shop", 1},
		"the limit":         {answers(403, `{"message":"API rate limit exceeded for user ID 1."}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset, "Date", now.UTC().Format(http.TimeFormat)), "forge-limit", "20m0s", 1},
		"the other limit":   {answers(403, `{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}`), "forge-limit", "1m0s", 1},
		"too many":          {answers(429, `{"message":"slow down"}`, "Retry-After", "90"), "forge-limit", "1m30s", 1},
		"away":              {page(502, "text/html", "<html>bad gateway</html>"), "forge-away", "502", 3},
		"down for long":     {answers(503, ``, "Retry-After", "600"), "forge-away", "503", 1},
		"a proxy's sign-in": {page(200, "text/html; charset=utf-8", "<!DOCTYPE html><title>Sign in</title>"), "forge-answer", "web page", 1},
		"not JSON":          {page(200, "application/json", "{"), "forge-answer", "not its API's", 1},
		"no repository":     {answers(200, `{}`), "forge-answer", "without a name", 1},
		"a path upwards":    {answers(200, `{"full_name":"team/../../admin"}`), "forge-answer", "without a name", 1},
		"too large":         {page(200, "application/json", strings.Repeat(" ", maxAnswer+1)), "forge-answer", "8 MiB", 1},
		"elsewhere":         {answers(302, ``, "Location", elsewhere.URL+"/api/v3/repos/team/shop"), "forge-moved", "no token", 1},
		"out of the API":    {answers(302, ``, "Location", "/login"), "forge-moved", "no token", 1},
		"round and round":   {answers(301, ``, "Location", "/api/v3/repos/team/shop"), "forge-answer", "without an end", 4},
	} {
		c.on("GET /api/v3/repos/team/shop", route{answer: k.answer})
		f := c.open("team/shop.git", Options{Kind: GitHub})
		f.client.wait = func(context.Context, time.Duration) error { return nil }
		c.log()
		_, err := f.Repository(t.Context())
		if got := code(t, err); got != k.code || !strings.Contains(fmt.Sprintf("%+v", *told(err)), k.says) {
			t.Errorf("%s: %s: %v (%s)", name, got, err, told(err).Hint)
		}
		if n := len(c.log()); n != k.asked {
			t.Errorf("%s: asked %d times, want %d", name, n, k.asked)
		}
	}

	// A short limit is waited for, also by what writes, since it was not done.
	tries := 0
	c.on("GET /api/v3/repos/team/shop", route{answer: answers(200, `{"full_name":"team/shop"}`)})
	c.on("PATCH /api/v3/repos/team/shop/pulls/1", route{body: "title body", answer: func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
		if tries++; tries == 1 {
			reply(w, 429, `{}`, "Retry-After", "2")
			return
		}
		reply(w, 200, `{"number":1,"html_url":"https://github.example.com/team/shop/pull/1"}`)
	}})
	f := c.open("team/shop.git", Options{Kind: GitHub})
	var waited time.Duration
	f.client.wait = func(_ context.Context, d time.Duration) error { waited += d; return nil }
	text := "x"
	if _, err := f.Update(t.Context(), 1, Change{Body: &text}); err != nil || waited != 2*time.Second {
		t.Errorf("a short limit: %v, waited for %s", err, waited)
	}
	// What writes and is answered badly may have been done: it is not done again.
	c.on("PATCH /api/v3/repos/team/shop/pulls/1", route{body: "title body", answer: answers(502, ``)})
	c.log()
	if _, err := f.Update(t.Context(), 1, Change{Body: &text}); code(t, err) != "forge-away" || len(c.log()) != 1 {
		t.Errorf("a write that failed: %v", err)
	}
	// Nobody there, no token, and a context that is over.
	c.Close()
	if _, err := f.Find(t.Context(), Head{Branch: "b"}, ""); code(t, err) != "forge-away" {
		t.Errorf("gone: %v", err)
	}
	f, err := Open(t.Context(), "https://github.com/team/shop", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Repository(t.Context()); code(t, err) != "forge-no-token" || !strings.Contains(told(err).Hint, "gh auth login") {
		t.Errorf("without a token: %v", err)
	}
}

func told(err error) *api.Problem {
	var p *api.Problem
	errors.As(err, &p)
	return p
}

// What is not sent at all.
func TestBadDrafts(t *testing.T) {
	c := newContract(t, func(*http.Request) string { return "" })
	f := c.open("team/shop", Options{Kind: GitHub})
	good := Draft{Head: Head{Branch: "b"}, Base: "main", Title: "t"}
	for name, edit := range map[string]func(*Draft){
		"no branch":        func(d *Draft) { d.Head.Branch = "" },
		"an option":        func(d *Draft) { d.Head.Branch = "--force" },
		"a range":          func(d *Draft) { d.Head.Branch = "a..b" },
		"no base":          func(d *Draft) { d.Base = "" },
		"a strange owner":  func(d *Draft) { d.Head.Owner = "a b" },
		"no title":         func(d *Draft) { d.Title = " " },
		"two lines":        func(d *Draft) { d.Title = "a\nb" },
		"a long title":     func(d *Draft) { d.Title = strings.Repeat("ü", 256) },
		"a long body":      func(d *Draft) { d.Body = strings.Repeat("ü", maxBody+1) },
		"what is no UTF-8": func(d *Draft) { d.Body = "\xff" },
	} {
		d := good
		edit(&d)
		if _, err := f.Create(t.Context(), d); code(t, err) != "forge-draft" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.On("../x"); code(t, err) != "forge-remote" {
		t.Errorf("a path upwards: %v", err)
	}
	if l := c.log(); len(l) > 0 {
		t.Errorf("asked for %v", l)
	}
}
