package portal

import (
	"bufio"
	"context"
	"encoding/json"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fairlead.dev/platform/registry"
)

// A link has no authority: following it, also by POST with all that it has, changes nothing without a session and its token.
func TestLinkHasNoAuthority(t *testing.T) {
	s := newSite(t, shop(), nil)
	f := fields(s.send("GET", link, nil, nil).body)
	for _, path := range []string{link, link + "&all=yes&submit=1&csrf=" + f.Get("csrf") + "&nonce=" + f.Get("nonce")} {
		if a := s.send("GET", path, nil, nil); a.status != http.StatusOK {
			t.Errorf("GET %s: %d", path, a.status)
		}
	}
	signedOut := *s
	signedOut.cookie = nil
	if a := signedOut.send("GET", link, nil, nil); a.status != http.StatusUnauthorized || strings.Contains(a.body, "takes money") {
		t.Errorf("who is not signed in sees: %d %s", a.status, a.body)
	}
	// What was typed is in the link to the form after the sign-in.
	f.Set("reason", "typed")
	a := signedOut.send("POST", "/request", f, nil)
	if a.status != http.StatusUnauthorized || !strings.Contains(a.body, "reason=typed") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := s.reg.changes(); n != 0 {
		t.Errorf("%d changes were made", n)
	}
}

func TestForgery(t *testing.T) {
	s := newSite(t, shop(), nil)
	f := fields(s.send("GET", link, nil, nil).body)
	with := func(k, v string) url.Values {
		g := url.Values{}
		for n, all := range f {
			g[n] = all
		}
		g.Set(k, v)
		return g
	}
	other := newSite(t, shop(), nil)
	for name, c := range map[string]struct {
		form   url.Values
		header http.Header
	}{
		"no token":                  {with("csrf", ""), nil},
		"another session's token":   {with("csrf", fields(other.send("GET", link, nil, nil).body).Get("csrf")), nil},
		"another site, new browser": {f, http.Header{"Sec-Fetch-Site": {"cross-site"}}},
		"a neighbour on this host":  {f, http.Header{"Sec-Fetch-Site": {"same-site"}}},
		"another site, old browser": {f, http.Header{"Origin": {"https://evil.example"}}},
		"a sandboxed frame":         {f, http.Header{"Origin": {"null"}}},
	} {
		if a := s.send("POST", "/request", c.form, c.header); a.status != http.StatusForbidden {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	if n := s.reg.changes(); n != 0 {
		t.Errorf("%d changes were made", n)
	}
	if a := s.send("POST", "/sign-out", url.Values{}, nil); a.status != http.StatusForbidden {
		t.Errorf("a sign-out without a token: %d", a.status)
	}
	if a := s.send("POST", "/request", f, http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {s.url}}); a.status != http.StatusSeeOther {
		t.Errorf("the portal's own form: %d %s", a.status, a.body)
	}
	// The session's end is its end.
	if a := s.send("POST", "/sign-out", url.Values{"csrf": {f.Get("csrf")}}, nil); a.status != http.StatusSeeOther {
		t.Errorf("sign out: %d", a.status)
	}
	if a := s.send("GET", "/", nil, nil); a.status != http.StatusUnauthorized {
		t.Errorf("after the sign-out: %d", a.status)
	}
}

func TestHost(t *testing.T) {
	s := newSite(t, shop(), nil)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"127.0.0.1:" + port: 200, "localhost:" + port: 200, "LOCALHOST:" + port: 200, "[::1]:" + port: 200,
		"evil.example:" + port: 421, "evil.example": 421, "127.0.0.1": 421, "127.0.0.1:1": 421, "127.0.0.1.evil.example:" + port: 421, "localhost.:" + port: 421,
	} {
		if a := s.send("GET", "/", nil, http.Header{"Host": {host}}); a.status != want {
			t.Errorf("%s: %d, want %d", host, a.status, want)
		}
		a := s.send("GET", "/v1/services", nil, http.Header{"Host": {host}, "Authorization": {"Bearer agent-token"}})
		if a.status != want {
			t.Errorf("%s, a program: %d, want %d", host, a.status, want)
		}
		if want == 421 && a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: a program is answered %s", host, a.header.Get("Content-Type"))
		}
	}
	if a := s.send("GET", "/healthz", nil, http.Header{"Host": {"10.0.0.7:8080"}}); a.status != 200 || a.body != "ok\n" {
		t.Errorf("a probe: %d %q", a.status, a.body)
	}
}

// An editor in a browser, or on another machine, shows the portal under a name of its own. What it was given signs in there; nothing
// else does, and the session is good there alone, beside the portal's own address.
func TestShownElsewhere(t *testing.T) {
	s := newSite(t, shop(), nil)
	s.cookie = nil
	at := func(host string) http.Header { return http.Header{"Host": {host}} }
	const here = "code.example.com"
	u, err := url.Parse(s.p.SignInURL("/services/billing"))
	if err != nil {
		t.Fatal(err)
	}
	page := s.send("GET", u.Path, nil, at(here))
	if page.status != http.StatusOK || !strings.Contains(page.body, `action="../../sign-in"`) || !strings.Contains(page.body, `href="../../static/portal.css"`) {
		t.Errorf("%d %s", page.status, page.body)
	}
	if a := s.send("GET", "/static/portal.css", nil, at(here)); a.status != http.StatusOK {
		t.Errorf("the style: %d", a.status)
	}
	// What is typed could be typed into another one's page.
	if a := s.send("POST", "/sign-in", url.Values{"code": {s.p.Code()}}, at(here)); a.status != http.StatusUnauthorized || len(a.cookies) != 0 {
		t.Errorf("a code that is typed: %d %v", a.status, a.cookies)
	}
	in := s.send("POST", "/sign-in", url.Values{"code": {u.Fragment}, "to": {"/services/billing"}}, at(here))
	if in.status != http.StatusOK || len(in.cookies) != 1 || in.header.Get("Refresh") != "0; url=./services/billing" {
		t.Fatalf("%d %v", in.status, in.header)
	}
	for _, path := range []string{"/", "/services/billing", "/sign-in", link} {
		if a := s.send("GET", path, nil, at(here)); a.status != http.StatusMisdirectedRequest || strings.Contains(a.body, "takes money") {
			t.Errorf("%s without a session: %d", path, a.status)
		}
	}
	s.cookie = in.cookies[0]
	form := s.send("GET", link, nil, at("Code.Example.com"))
	if form.status != http.StatusOK {
		t.Fatalf("%d %s", form.status, form.body)
	}
	for host, want := range map[string]int{"evil.example": http.StatusMisdirectedRequest, here + ":8443": http.StatusMisdirectedRequest, strings.TrimPrefix(s.url, "http://"): http.StatusOK} {
		if a := s.send("GET", "/services/billing", nil, at(host)); a.status != want {
			t.Errorf("the session at %s: %d, want %d", host, a.status, want)
		}
	}
	if a := s.send("GET", "/v1/services", nil, http.Header{"Host": {here}, "Authorization": {"Bearer agent-token"}}); a.status != http.StatusMisdirectedRequest {
		t.Errorf("a program: %d", a.status)
	}
	sent := s.send("POST", "/request", fields(form.body), http.Header{"Host": {here}, "Origin": {"https://" + here}})
	if sent.status != http.StatusSeeOther || !strings.HasPrefix(sent.header.Get("Location"), "./requests/") {
		t.Errorf("%d %v", sent.status, sent.header)
	}
}

// All of it works below a path that its proxy takes off, as code-server's /proxy/PORT/ is: no address leads out of it.
func TestBelowAPath(t *testing.T) {
	s := newSite(t, shop(), nil)
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	const below = "/proxy/8080"
	editor := httptest.NewServer(http.StripPrefix(below, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}}))
	defer editor.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar}
	do := func(method, at string, form url.Values) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, at, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", editor.URL)
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Request.URL.Path, below+"/") {
			t.Fatalf("%s %s: %d %v, at %s\n%s", method, at, res.StatusCode, err, res.Request.URL, b)
		}
		return res, string(b)
	}
	from := func(res *http.Response, to string) string {
		t.Helper()
		u, err := res.Request.URL.Parse(html.UnescapeString(to))
		if err != nil || !strings.HasPrefix(u.Path, below+"/") {
			t.Fatalf("%q leads to %v from %s (%v)", to, u, res.Request.URL, err)
		}
		return u.String()
	}
	u, err := url.Parse(s.p.SignInURL(link))
	if err != nil {
		t.Fatal(err)
	}
	res, page := do("GET", editor.URL+below+u.Path, nil)
	res, _ = do("POST", from(res, regexp.MustCompile(`action="([^"]*sign-in)"`).FindStringSubmatch(page)[1]), url.Values{"code": {u.Fragment}, "to": {link}})
	form, page := do("GET", from(res, strings.TrimPrefix(res.Header.Get("Refresh"), "0; url=")), nil)
	f := fields(page)
	seen := map[string]bool{}
	for res, todo := form, []string{page}; len(todo) > 0; todo = todo[1:] {
		for _, m := range regexp.MustCompile(`(?:href|src)="([^"#][^"]*)"`).FindAllStringSubmatch(todo[0], -1) {
			if at := from(res, m[1]); !seen[at] {
				seen[at] = true
				if _, text := do("GET", at, nil); at == from(res, "./") {
					todo = append(todo, text)
				}
			}
		}
	}
	if len(seen) < 6 {
		t.Errorf("only %d addresses were looked at: %v", len(seen), seen)
	}
	if _, page = do("POST", from(form, regexp.MustCompile(`action="([^"]*)" id="request"`).FindStringSubmatch(page)[1]), f); !strings.Contains(page, "<h1>Granted</h1>") {
		t.Errorf("it is not granted:\n%s", page)
	}
}

// A default port may be said, or not.
func TestDefaultPort(t *testing.T) {
	for address, want := range map[string]string{"https://Portal.example.com": "portal.example.com:443", "https://portal.example.com:443": "portal.example.com", "https://portal.example.com:8443": "portal.example.com:8443"} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		hosts := hostsOf(u)
		if !hosts[want] || !hosts[strings.ToLower(u.Host)] || hosts["portal.example.com:80"] || len(hosts) > 2 {
			t.Errorf("%s is reached as %v", address, hosts)
		}
	}
}

func TestFraming(t *testing.T) {
	for _, c := range []struct {
		name     string
		with     func(*Options)
		csp, old string
	}{
		{"by nobody", nil, "frame-ancestors 'none'", "DENY"},
		{"by an editor", func(o *Options) { o.Frames = true }, "frame-ancestors vscode-webview: vscode-file:", ""},
		{"by an editor in a browser", func(o *Options) { o.FrameAncestors = []string{"https://code.example.com"} }, "frame-ancestors https://code.example.com", ""},
	} {
		s := newSite(t, shop(), c.with)
		for _, path := range []string{"/", link, "/sign-in", "/nowhere", "/static/portal.js"} {
			h := s.send("GET", path, nil, nil).header
			if csp := h.Get("Content-Security-Policy"); !strings.HasSuffix(csp, c.csp) || strings.Contains(csp, "unsafe") {
				t.Errorf("%s, %s: %s", c.name, path, csp)
			}
			if h.Get("X-Frame-Options") != c.old || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
				t.Errorf("%s, %s: %v", c.name, path, h)
			}
		}
		// Only where frames are allowed is there a cookie that goes into one.
		a := s.send("POST", "/sign-in", url.Values{"code": {s.p.Code()}}, http.Header{"Sec-Fetch-Dest": {"iframe"}})
		if len(a.cookies) != 1 || a.cookies[0].Partitioned != (c.old == "") || !a.cookies[0].HttpOnly {
			t.Errorf("%s: %v", c.name, a.cookies)
		}
	}
}

// Nothing that the registry, a link or a form says becomes markup, and no page has script or style of its own in it.
func TestMarkup(t *testing.T) {
	const evil = `<script>alert(1)</script>`
	reg := newMemory([]registry.Service{
		{Name: "checkout", Team: evil, Description: evil, Repository: "javascript:alert(1)", Calls: []registry.Grant{{Service: evil, Methods: []string{evil}, Reason: evil}}},
		{Name: "billing", Team: evil, Description: `"><img src=x onerror=alert(1)>`, Endpoints: []registry.Endpoint{{Method: "GET /a", Description: evil}, {Method: "GET /" + evil}}},
		{Name: evil, Team: evil},
	}, registry.Team{Name: evil, Members: []string{evil}, Changes: registry.ChangesReview})
	s := newSite(t, reg, nil)
	f := fields(s.send("GET", link, nil, nil).body)
	f.Set("reason", evil)
	sent := s.send("POST", "/request", f, nil)
	if sent.status != http.StatusSeeOther {
		t.Fatalf("%d %s", sent.status, sent.body)
	}
	bad := f
	bad.Set("other", `"><script>alert(1)</script>`)
	q := url.QueryEscape(evil)
	own := regexp.MustCompile(`<script src="(\.{1,2}/)+static/portal.js" defer></script>`)
	for name, a := range map[string]answer{
		"services": s.send("GET", "/", nil, nil), "checkout": s.send("GET", "/services/checkout", nil, nil), "billing": s.send("GET", "/services/billing", nil, nil),
		"hostile": s.send("GET", "/services/"+url.PathEscape(evil), nil, nil), "none": s.send("GET", "/services/"+url.PathEscape(evil+"2"), nil, nil),
		"form": s.send("GET", link+"&reason="+q+"&method="+q+"&environment="+q, nil, nil), "choose": s.send("GET", "/request?callee="+q, nil, nil),
		"result": s.send("GET", sent.header.Get("Location"), nil, nil), "faults": s.send("POST", "/request", bad, nil),
		"sign-in": s.send("GET", "/sign-in?to=/"+q, nil, nil), "host": s.send("GET", "/", nil, http.Header{"Host": {evil}}), "path": s.send("GET", "/"+q, nil, nil),
	} {
		rest := own.ReplaceAllString(a.body, "")
		if strings.Contains(rest, "<script") || strings.Contains(rest, "<img") || strings.Contains(rest, `href="javascript:`) || strings.Contains(rest, "<style") || strings.Contains(rest, " style=") || strings.Contains(rest, " onclick=") {
			t.Errorf("%s: %s", name, a.body)
		}
	}
}

func TestLocalPath(t *testing.T) {
	for to, want := range map[string]string{
		"/": "/", "/request?caller=a&callee=b": "/request?caller=a&callee=b", "/services/a%20b": "/services/a%20b",
		"": "/", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example": "/", "evil.example": "/", "javascript:alert(1)": "/", "/%09/evil.example": "/%09/evil.example",
		"/\t/evil.example": "/", "///evil.example": "/", "/%2f/evil.example": "/", "/sign-out": "/", "/sign-in?to=/": "/", "/a\nSet-Cookie: b": "/", "/" + strings.Repeat("a", maxLink): "/",
	} {
		if got := localPath(to); got != want {
			t.Errorf("%q leads to %q, want %q", to, got, want)
		}
	}
	s := newSite(t, shop(), nil)
	for _, to := range []string{"//evil.example/", "https://evil.example/"} {
		a := s.send("POST", "/sign-in", url.Values{"code": {s.p.Code()}, "to": {to}}, nil)
		if a.status != http.StatusOK || a.header.Get("Refresh") != "0; url=./" || strings.Contains(a.body, "evil") {
			t.Errorf("%s: %d %v", to, a.status, a.header)
		}
	}
}

// A code signs in once, and not after ten minutes; what a browser gets for it no script and no other site can use.
func TestCode(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	s := newSite(t, shop(), func(o *Options) { o.Now = func() time.Time { return now } })
	s.cookie = nil
	code := s.p.Code()
	// From the opening file, which is no site.
	first := s.send("POST", "/sign-in", url.Values{"code": {" " + strings.ToLower(code) + "\n"}, "to": {"/services/billing"}}, http.Header{"Origin": {"null"}, "Sec-Fetch-Site": {"cross-site"}})
	if first.status != http.StatusOK || len(first.cookies) != 1 || first.header.Get("Refresh") != "0; url=./services/billing" {
		t.Fatalf("%d %v", first.status, first.header)
	}
	c := first.cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || strings.Contains(c.Value, code) {
		t.Errorf("the cookie is %v", c)
	}
	for name, code := range map[string]string{"twice": code, "none": "", "guessed": "AAAAAAAAAAAAAAAAAAAAAAAAAA", "long": strings.Repeat("A", 100)} {
		if a := s.send("POST", "/sign-in", url.Values{"code": {code}}, nil); a.status != http.StatusUnauthorized || len(a.cookies) != 0 || !strings.Contains(a.body, "That code is not valid") {
			t.Errorf("%s: %d %v", name, a.status, a.cookies)
		}
	}
	old := s.p.Code()
	now = now.Add(codeFor)
	if a := s.send("POST", "/sign-in", url.Values{"code": {old}}, nil); a.status != http.StatusUnauthorized {
		t.Errorf("an old code: %d", a.status)
	}
	// A code in the query is none.
	if a := s.send("GET", "/sign-in?code="+s.p.Code(), nil, nil); len(a.cookies) != 0 {
		t.Error("a code in a query signs in")
	}
	s.cookie = c
	if a := s.send("GET", "/", nil, nil); a.status != http.StatusOK {
		t.Errorf("the session: %d", a.status)
	}
	now = now.Add(sessionFor)
	if a := s.send("GET", "/", nil, nil); a.status != http.StatusUnauthorized {
		t.Errorf("an old session: %d", a.status)
	}
}

func TestOpening(t *testing.T) {
	s := newSite(t, shop(), nil)
	dir := t.TempDir()
	name, err := s.p.OpeningFile(dir, link)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(name)
	if err != nil || st.Mode() != 0o600 || filepath.Dir(name) != dir {
		t.Fatalf("%v %v", st, err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`action="([^"]+)".*name="code" value="([A-Z2-7]+)".*name="to" value="([^"]+)"`).FindSubmatch(b)
	if m == nil || string(m[1]) != s.url+"/sign-in" || strings.ReplaceAll(string(m[3]), "&amp;", "&") != link || strings.Contains(name, string(m[2])) {
		t.Fatalf("%s", b)
	}
	if a := s.send("POST", "/sign-in", url.Values{"code": {string(m[2])}}, nil); a.status != http.StatusOK {
		t.Errorf("its code: %d", a.status)
	}
	u, err := url.Parse(s.p.SignInURL(link))
	if err != nil || u.RawQuery != "" || u.Fragment == "" || strings.Contains(u.Path, u.Fragment) {
		t.Fatalf("%v %v", u, err)
	}
	if a := s.send("GET", u.Path, nil, nil); a.status != http.StatusOK || !strings.Contains(strings.ReplaceAll(a.body, "&amp;", "&"), `name="to" value="`+link+`"`) {
		t.Errorf("its page: %d %s", a.status, a.body)
	}
	if a := s.send("GET", "/sign-in/to/@", nil, nil); a.status != http.StatusNotFound {
		t.Errorf("a word that is none: %d", a.status)
	}
	if a := s.send("POST", "/sign-in", url.Values{"code": {u.Fragment}}, nil); a.status != http.StatusOK {
		t.Errorf("the address's code: %d", a.status)
	}
}

// Followed from another site's page, a strict cookie is not there at first.
func TestFollowedFromElsewhere(t *testing.T) {
	s := newSite(t, shop(), nil)
	s.cookie = nil
	a := s.send("GET", link, nil, http.Header{"Sec-Fetch-Site": {"cross-site"}})
	if a.status != http.StatusOK || a.header.Get("Refresh") != "0; url=."+link || strings.Contains(a.body, "takes money") {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := s.send("GET", link, nil, http.Header{"Sec-Fetch-Site": {"same-origin"}}); a.status != http.StatusUnauthorized {
		t.Errorf("from the page in between: %d", a.status)
	}
}

// A stream too many is refused, and pages are there all the same.
func TestBusy(t *testing.T) {
	s := newSite(t, shop(), nil)
	for range maxStreams {
		s.p.streams <- struct{}{}
	}
	read := http.Header{"Authorization": {"Bearer read-token"}, "Accept": {"text/event-stream"}}
	if a := s.send("GET", "/v1/grants?caller=checkout", nil, read); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "1" || !strings.Contains(a.body, `"code":"busy"`) {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a := s.send("GET", link, nil, nil); a.status != http.StatusOK {
		t.Errorf("a page: %d", a.status)
	}
}

func TestLimits(t *testing.T) {
	s := newSite(t, shop(), nil)
	f := fields(s.send("GET", link, nil, nil).body)
	f.Set("reason", strings.Repeat("a", maxBody))
	if a := s.send("POST", "/request", f, nil); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a big form: %d", a.status)
	}
	if a := s.send("GET", "/request?caller="+strings.Repeat("a", maxLink), nil, nil); a.status != http.StatusRequestURITooLong {
		t.Errorf("a long link: %d", a.status)
	}
	f.Del("reason")
	f["method"] = nil
	for i := range maxMethods + 1 {
		f.Add("method", "GET /"+strings.Repeat("a", i+1))
	}
	if a := s.send("POST", "/request", f, nil); a.status != http.StatusUnprocessableEntity {
		t.Errorf("many methods: %d", a.status)
	}
	for range maxResults + 10 {
		s.p.do(context.Background(), s.reg.now(), ask{Caller: "checkout", Callee: "billing", Methods: []string{"*"}, Nonce: s.p.Code()}.request(user))
	}
	if len(s.p.results) != maxResults || len(s.p.order) != maxResults {
		t.Errorf("%d results are kept", len(s.p.results))
	}
	if len(s.p.codes.m) > maxCodes {
		t.Errorf("%d codes are kept", len(s.p.codes.m))
	}
}

func TestOptions(t *testing.T) {
	oidc := &OIDC{Issuer: "https://id.example.com", ClientID: "portal"}
	for name, o := range map[string]Options{
		"others by http":        {URL: "http://portal.example.com", OIDC: oidc, Registry: shop()},
		"a path":                {URL: "https://portal.example.com/portal", OIDC: oidc, Registry: shop()},
		"no scheme":             {URL: "portal.example.com", OIDC: oidc, Registry: shop()},
		"a local user, afar":    {URL: "https://portal.example.com", Local: &user, Registry: shop()},
		"nobody":                {URL: "http://127.0.0.1:1", Registry: shop()},
		"both":                  {URL: "http://127.0.0.1:1", Local: &user, OIDC: oidc, Registry: shop()},
		"any page's frame":      {URL: "http://127.0.0.1:1", Local: &user, Registry: shop(), FrameAncestors: []string{"https://*"}},
		"a header's word":       {URL: "http://127.0.0.1:1", Local: &user, Registry: shop(), FrameAncestors: []string{"https://a.example; script-src *"}},
		"no registry":           {URL: "http://127.0.0.1:1", Local: &user},
		"an issuer by http":     {URL: "https://portal.example.com", OIDC: &OIDC{Issuer: "http://id.example.com", ClientID: "portal"}, Registry: shop()},
		"a provider, no client": {URL: "https://portal.example.com", OIDC: &OIDC{Issuer: "https://id.example.com"}, Registry: shop()},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPrograms(t *testing.T) {
	s := newSite(t, shop(), nil)
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	for name, c := range map[string]struct {
		method, path string
		header       http.Header
		status       int
		code         string
	}{
		"no token":            {"GET", "/v1/services", nil, 401, "unauthorized"}, // and the cookie does not count
		"a wrong token":       {"GET", "/v1/services", bearer("agent-tokem"), 401, "unauthorized"},
		"an empty token":      {"GET", "/v1/grants?caller=checkout", bearer(""), 401, "unauthorized"},
		"another scheme":      {"GET", "/v1/services", http.Header{"Authorization": {"Basic agent-token"}}, 401, "unauthorized"},
		"a reader writes":     {"POST", "/v1/requests", bearer("read-token"), 403, "read-only"},
		"no caller":           {"GET", "/v1/grants", bearer("read-token"), 400, "bad-name"},
		"no JSON":             {"POST", "/v1/requests", bearer("agent-token"), 415, "bad-request"},
		"no such request":     {"GET", "/v1/requests/none", bearer("read-token"), 404, "no-such-request"},
		"no such page":        {"GET", "/v1/none", bearer("read-token"), 404, "no-such-page"},
		"a page of elsewhere": {"POST", "/v1/requests", http.Header{"Authorization": {"Bearer agent-token"}, "Origin": {"https://evil.example"}}, 403, "cross-origin"},
	} {
		a := s.send(c.method, c.path, nil, c.header)
		var p problemJSON
		if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != c.status || p.Code != c.code || p.Status != c.status || p.Title == "" || p.Detail == "" || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s %v", name, a.status, a.body, err)
		}
	}
	post := func(body string) answer {
		r, err := http.NewRequest("POST", s.url+"/v1/requests", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer agent-token")
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer{status: res.StatusCode, body: string(b), header: res.Header}
	}
	for body, want := range map[string]int{
		`{"caller":"checkout","callee":"billing"}`:                             422,
		`{"caller":"checkout","callee":"weather","methods":["*"]}`:             409,
		`{"caller":"checkout","callee":"billing","methods":["*"],"author":{}}`: 400,
		`{`: 400,
	} {
		if a := post(body); a.status != want {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	const ok = `{"id":"request-1","caller":"checkout","callee":"billing","methods":["GET /v1/invoices/*"],"reason":"why"}`
	var first, second resultJSON
	a := post(ok)
	if err := json.Unmarshal([]byte(a.body), &first); err != nil || a.status != 201 || !first.Granted || !first.InForce || first.Environments != "shared" || first.Link != s.url+"/requests/"+first.ID {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if err := json.Unmarshal([]byte(post(ok).body), &second); err != nil || second.ID != first.ID || s.reg.changes() != 1 {
		t.Errorf("the same again: %+v", second)
	}
	if a := s.send("GET", a.header.Get("Location"), nil, bearer("read-token")); a.status != 200 || !strings.Contains(a.body, `"in_force":true`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.send("GET", "/v1/services", nil, bearer("read-token")); a.status != 200 || !strings.Contains(a.body, `"name":"ledger","team":"payments","access":"review"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.send("GET", "/v1/grants?caller=checkout", nil, bearer("read-token")); a.status != 200 || !strings.Contains(a.body, `{"service":"billing","governed":true,"methods":["GET /v1/invoices/*"],"reason":"why","environments":"shared"}`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// grants opens a stream, and returns what reads its next event.
func (s *site) grants(ctx context.Context, caller string) func() grantsJSON {
	s.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/v1/grants?caller="+caller, nil)
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer read-token")
	r.Header.Set("Accept", "text/event-stream")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { res.Body.Close() })
	if res.Header.Get("Content-Type") != "text/event-stream" {
		s.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	lines := bufio.NewScanner(res.Body)
	return func() grantsJSON {
		s.Helper()
		for lines.Scan() {
			if d, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var g grantsJSON
				if err := json.Unmarshal([]byte(d), &g); err != nil {
					s.Fatal(err)
				}
				return g
			}
		}
		s.Fatalf("the stream ended: %v", lines.Err())
		return grantsJSON{}
	}
}

// The stream has what is granted now, and what is granted from then on.
func TestStream(t *testing.T) {
	s := newSite(t, shop(), nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); s.p.Run(ctx) }()
	defer func() { cancel(); <-done }()
	next := s.grants(ctx, "checkout")
	if g := next(); len(g.Grants) != 2 || len(g.Grants[0].Methods) != 0 {
		t.Fatalf("%+v", g)
	}
	s.send("POST", "/request", fields(s.send("GET", link, nil, nil).body), nil)
	if g := next(); g.Grants[0].Service != "billing" || len(g.Grants[0].Methods) != 1 {
		t.Fatalf("%+v", g)
	}
}
