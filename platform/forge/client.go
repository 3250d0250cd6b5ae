package forge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
)

const (
	requestTimeout = 30 * time.Second
	maxAnswer      = 8 << 20
	maxRedirects   = 3
	maxTries       = 3               // of a request that only reads
	maxSilentWait  = 3 * time.Second // longer than that a person is told, and asks again
	maxPages       = 40
)

// client makes one forge's requests. The token goes to that forge alone, and only once it has said what it is.
type client struct {
	kind    Kind
	base    string // of the API, without a slash at the end
	graph   string // GitHub's GraphQL
	name    string // of the forge, for people
	host    string
	scheme  string
	remote  remote
	sources []Source
	http    *http.Client
	wait    func(context.Context, time.Duration) error
	now     func() time.Time
	tries   int

	mu    sync.Mutex
	asked bool
	token Token
}

// newClient is a client of a forge whose pages are at web.
func newClient(kind Kind, web string, r remote, o Options) *client {
	c := &client{kind: kind, remote: r, sources: o.Sources, wait: sleep, now: time.Now, tries: maxTries}
	// The time limit is each request's. A redirect is followed by do, or not at all.
	c.http = &http.Client{Timeout: requestTimeout, Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if u, err := url.Parse(web); err == nil {
		c.host, c.scheme = u.Host, u.Scheme
	}
	c.name = cmp.Or(c.host, web)
	switch kind {
	case GitHub: // docs.github.com/rest/using-the-rest-api/getting-started-with-the-rest-api, and for the others its GHES and data-residency editions
		switch {
		case web == "https://github.com":
			c.base, c.graph = "https://api.github.com", "https://api.github.com/graphql"
		case strings.HasSuffix(c.host, ".ghe.com"):
			c.base, c.graph = "https://api."+c.host, "https://api."+c.host+"/graphql"
		default:
			c.base, c.graph = web+"/api/v3", web+"/api/graphql"
		}
	case GitLab:
		c.base = web + "/api/v4"
	case Gitea:
		c.base = web + "/api/v1"
	default:
		c.base = web
	}
	return c
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// credential is the token of the first source that has one.
func (c *client) credential(ctx context.Context) (Token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.asked && len(c.sources) > 0 {
		t, err := c.sources[0](ctx, c.target())
		if err != nil {
			return Token{}, err
		}
		if t.value != "" {
			c.token, c.asked = t, true
			break
		}
		c.sources = c.sources[1:]
	}
	c.asked = true
	return c.token, nil
}

func (c *client) target() Target {
	return Target{Kind: c.kind, Host: c.host, Remote: c.remote.String(), path: c.remote.path, scheme: c.scheme}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// refusal is an answer that is not good.
type refusal struct {
	status  int
	message string // what the forge said, cleaned
	header  http.Header
}

func (r *refusal) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%d %s: %s", r.status, http.StatusText(r.status), r.message), ": ")
}

func is(err error, status ...int) bool {
	var r *refusal
	if errors.As(err, &r) {
		for _, s := range status {
			if r.status == s {
				return true
			}
		}
	}
	return false
}

func says(err error, words ...string) bool {
	var r *refusal
	if errors.As(err, &r) {
		m := strings.ToLower(r.message)
		for _, w := range words {
			if strings.Contains(m, w) {
				return true
			}
		}
	}
	return false
}

// exists says that a review was refused because there is one.
func exists(err error) bool {
	return is(err, http.StatusConflict) || is(err, http.StatusUnprocessableEntity) && says(err, "already exists")
}

// get reads path, which begins with a slash, into v.
func (c *client) get(ctx context.Context, path string, q url.Values, v any) (*answer, error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.send(ctx, http.MethodGet, c.base+path, nil, v)
}

// send makes a request that takes a token.
func (c *client) send(ctx context.Context, method, address string, body, v any) (*answer, error) {
	t, err := c.credential(ctx)
	if err != nil {
		return nil, err
	}
	if t.value == "" {
		return nil, c.noToken()
	}
	a, err := c.do(ctx, method, address, t.value, body)
	if err != nil {
		return nil, err
	}
	if a.status/100 != 2 {
		return nil, &refusal{status: a.status, message: errorText(a.body), header: a.header}
	}
	if v == nil || a.status == http.StatusNoContent {
		return a, nil
	}
	if err := c.decode(a, v); err != nil {
		return nil, err
	}
	return a, nil
}

func (c *client) decode(a *answer, v any) error {
	if t, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); t == "text/html" || bytes.HasPrefix(bytes.TrimSpace(a.body), []byte("<")) {
		return c.answerProblem("a web page, as the sign-in of a proxy is")
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return c.answerProblem("what is not its API's: " + err.Error())
	}
	return nil
}

func (c *client) answerProblem(what string) *api.Problem {
	return &api.Problem{Code: "forge-answer", Message: c.name + " answered with " + clean(short(what)), Hint: "open " + c.base + " in a browser: it has to be " + names[c.kind] + "'s API, reached without a sign-in of a proxy"}
}

// do makes a request, again where that is right, and reads the answer.
func (c *client) do(ctx context.Context, method, address, token string, body any) (*answer, error) {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	waited, redirects := time.Duration(0), 0
	for try := 1; ; {
		a, err := c.once(ctx, method, address, token, b)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// What only reads is asked again; what writes may have been done.
		if err != nil || a.status == http.StatusBadGateway || a.status == http.StatusServiceUnavailable || a.status == http.StatusGatewayTimeout {
			var p *api.Problem
			if errors.As(err, &p) {
				return nil, p
			}
			pause := time.Duration(try*try) * 200 * time.Millisecond
			if err == nil {
				if s, ok := retryAfter(a.header, c.date(a.header)); ok {
					pause = s
				}
			}
			if method == http.MethodGet && try < c.tries && waited+pause <= maxSilentWait {
				if err := c.wait(ctx, pause); err != nil {
					return nil, err
				}
				waited += pause
				try++
				continue
			}
			if err != nil {
				return nil, c.away("cannot be reached: " + withoutAddress(err))
			}
			return nil, c.away(fmt.Sprintf("answers %d %s", a.status, http.StatusText(a.status)))
		}
		if pause, ok := c.limited(a); ok {
			// It was not done, whatever it is.
			if waited+pause > maxSilentWait {
				return nil, c.limit(pause)
			}
			if err := c.wait(ctx, pause); err != nil {
				return nil, err
			}
			waited += max(pause, 100*time.Millisecond)
			continue
		}
		switch a.status {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			to, err := c.follow(address, a.header.Get("Location"))
			if err != nil {
				return nil, err
			}
			if redirects++; redirects > maxRedirects {
				return nil, c.answerProblem("redirects without an end")
			}
			address = to
			continue
		}
		return a, nil
	}
}

// follow is where a redirect leads: within the API of this forge, and nowhere else, since the token goes along. That is how a renamed
// repository is told. The method stays, as docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api asks for.
func (c *client) follow(from, location string) (string, error) {
	f, err := url.Parse(from)
	if err == nil {
		var to *url.URL
		if to, err = f.Parse(location); err == nil && strings.HasPrefix(to.String(), c.base+"/") {
			return to.String(), nil
		}
		if to != nil && to.Host != "" && err == nil {
			location = to.Scheme + "://" + to.Host
		}
	}
	return "", &api.Problem{Code: "forge-moved", Message: c.name + " sends its API's requests to " + clean(short(location)) + ", which is given no token", Hint: "name the forge's new address in the remote (git remote set-url) or in " + URLVariable}
}

func (c *client) once(ctx context.Context, method, address, token string, body []byte) (*answer, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "fairlead") // GitHub refuses who has none
	req.Header.Set("Accept", "application/json")
	if c.kind == GitHub {
		req.Header.Set("Accept", "application/vnd.github+json")
		req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		// GitLab takes personal tokens and OAuth's this way (docs.gitlab.com/api/rest/authentication), Gitea since 1.0 with its own word.
		scheme := "Bearer "
		if c.kind == Gitea {
			scheme = "token "
		}
		req.Header.Set("Authorization", scheme+token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxAnswer {
		return nil, c.answerProblem(fmt.Sprintf("more than %d MiB", maxAnswer>>20))
	}
	return &answer{status: res.StatusCode, header: res.Header, body: b}, nil
}

// date is the forge's own clock, by which it says when a limit ends.
func (c *client) date(h http.Header) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return c.now()
}

func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s >= 0 && s < 1<<30 {
		return time.Duration(s) * time.Second, true
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now)), true
	}
	return 0, false
}

// limited says whether a request was refused for being one too many, and how long it lasts. GitHub: docs.github.com/rest/using-the-rest-api/
// rate-limits-for-the-rest-api, 403 or 429, Retry-After or X-RateLimit-Reset, else a minute. GitLab: docs.gitlab.com/administration/settings/
// user_and_ip_rate_limits, 429 with Retry-After and RateLimit-Reset.
func (c *client) limited(a *answer) (time.Duration, bool) {
	if a.status != http.StatusTooManyRequests && a.status != http.StatusForbidden {
		return 0, false
	}
	now := c.date(a.header)
	after, has := retryAfter(a.header, now)
	used := a.header.Get("X-RateLimit-Remaining") == "0" || a.header.Get("RateLimit-Remaining") == "0"
	secondary := strings.Contains(strings.ToLower(errorText(a.body)), "secondary rate limit")
	if a.status == http.StatusForbidden && !has && !used && !secondary {
		return 0, false // a right that is missing
	}
	if has {
		return after, true
	}
	if s, err := strconv.ParseInt(cmp.Or(a.header.Get("X-RateLimit-Reset"), a.header.Get("RateLimit-Reset")), 10, 64); err == nil && used {
		return max(0, time.Unix(s, 0).Sub(now)), true
	}
	return time.Minute, true
}

func (c *client) limit(d time.Duration) *api.Problem {
	return &api.Problem{Code: "forge-limit", Message: c.name + " takes no more requests " + c.owner() + " for " + d.Round(time.Second).String(), Hint: "try again at " + c.now().Add(d).Format("15:04:05") + "; nothing was changed by the request that it refused"}
}

func (c *client) owner() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token.value == "" {
		return "without a token"
	}
	return "with the token " + c.token.From
}

func (c *client) away(why string) *api.Problem {
	return &api.Problem{Code: "forge-away", Message: "the forge " + c.name + " " + clean(why), Hint: "see that " + c.base + " is reached from here; then do it again, nothing is made twice"}
}

// withoutAddress leaves out what net/http says around an error.
func withoutAddress(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// pages reads a list page by page, until each says that it is enough or there are no more. Of the address of the next page only its query is
// taken: the rest is what the forge believes its address to be.
func (c *client) pages(ctx context.Context, path string, q url.Values, limit int, each func(*answer) (enough bool, err error)) error {
	query := q.Encode()
	for range min(limit, maxPages) {
		a, err := c.send(ctx, http.MethodGet, c.base+path+"?"+query, nil, nil)
		if err != nil {
			return err
		}
		enough, err := each(a)
		if enough || err != nil {
			return err
		}
		next := nextPage(a.header, q)
		if next == "" || next == query {
			return nil
		}
		query = next
	}
	return nil
}

// nextPage is the query of the next page: Link with rel="next" (RFC 8288; GitHub, GitLab and Gitea send it), or GitLab's X-Next-Page.
func nextPage(h http.Header, q url.Values) string {
	for _, l := range h.Values("Link") {
		for part := range strings.SplitSeq(l, ",") {
			address, params, ok := strings.Cut(strings.TrimSpace(part), ">")
			if !ok || !strings.HasPrefix(address, "<") {
				continue
			}
			for p := range strings.SplitSeq(params, ";") {
				k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
				if strings.EqualFold(k, "rel") && strings.EqualFold(strings.Trim(v, `"`), "next") {
					if u, err := url.Parse(address[1:]); err == nil {
						return u.RawQuery
					}
				}
			}
		}
	}
	if n, err := strconv.Atoi(h.Get("X-Next-Page")); err == nil && n > 0 {
		next := url.Values{}
		for k, v := range q {
			next[k] = v
		}
		next.Set("page", strconv.Itoa(n))
		return next.Encode()
	}
	return ""
}

// errorText is what a forge says of an error: GitHub's message and errors, GitLab's message (a text, a list or an object) or error,
// Gitea's message.
func errorText(b []byte) string {
	var e struct {
		Message json.RawMessage
		Error   json.RawMessage
		Errors  json.RawMessage
		Detail  json.RawMessage `json:"error_description"`
	}
	if json.Unmarshal(b, &e) != nil {
		return ""
	}
	var words []string
	for _, m := range []json.RawMessage{e.Message, e.Error, e.Detail, e.Errors} {
		var v any
		if json.Unmarshal(m, &v) == nil {
			words = gather(words, v)
		}
	}
	return clean(short(strings.Join(words, ": ")))
}

func gather(words []string, v any) []string {
	switch v := v.(type) {
	case string:
		if s := strings.TrimSpace(v); s != "" {
			words = append(words, s)
		}
	case []any:
		for _, e := range v {
			words = gather(words, e)
		}
	case map[string]any:
		if m, ok := v["message"].(string); ok {
			return gather(words, m)
		}
		for _, k := range []string{"field", "code"} { // GitHub's errors without a message
			if s, ok := v[k].(string); ok {
				words = append(words, s)
			}
		}
		if v["code"] == nil { // GitLab's, by field
			for k, e := range v {
				for _, w := range gather(nil, e) {
					words = append(words, k+" "+w)
				}
			}
		}
	}
	return words
}

// is asks whether the base is a forge of the kind, without a token.
func (c *client) is(ctx context.Context) (bool, error) {
	path := map[Kind]string{
		Gitea:  "/version",               // docs.gitea.com/api: GET /version
		GitLab: "/version",               // docs.gitlab.com/api/version: it takes a token, and says so
		GitHub: "/meta",                  // docs.github.com/enterprise-server/rest/meta/meta
		Gerrit: "/config/server/version", // gerrit-review.googlesource.com/Documentation/rest-api-config.html
	}[c.kind]
	a, err := c.do(ctx, http.MethodGet, c.base+path, "", nil)
	if err != nil {
		return false, err
	}
	var v struct {
		Version, Message string
		Installed        string `json:"installed_version"`
		Verifiable       *bool  `json:"verifiable_password_authentication"`
	}
	if c.kind == Gerrit {
		s, ok := strings.CutPrefix(string(a.body), ")]}'") // before every JSON of Gerrit's, against inclusion by other sites
		var version string
		return a.status == http.StatusOK && ok && json.Unmarshal([]byte(s), &version) == nil && version != "", nil
	}
	if json.Unmarshal(a.body, &v) != nil {
		return false, nil
	}
	switch c.kind {
	case Gitea:
		return a.status == http.StatusOK && v.Version != "" || a.status == http.StatusForbidden && strings.HasPrefix(v.Message, "Only signed in user"), nil
	case GitLab:
		return a.status == http.StatusOK && v.Version != "" || a.status == http.StatusUnauthorized && v.Message == "401 Unauthorized", nil
	default:
		// A private one wants a sign-in, and says who it is in a header.
		return a.status == http.StatusOK && (v.Installed != "" || v.Verifiable != nil) || a.status == http.StatusUnauthorized && a.header.Get("X-GitHub-Request-Id") != "", nil
	}
}

// problem is an error as it is told.
func (f *Forge) problem(act string, err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	c := f.client
	p := &api.Problem{Code: "forge-refused", Message: fmt.Sprintf("%s does not let Fairlead %s in %s: %s", c.name, act, f.Path, r.Error())}
	switch {
	case r.status == http.StatusUnauthorized:
		p.Code, p.Message = "forge-token", c.name+" does not take the token "+c.token.From+": it has expired, was revoked, or is another forge's"
		p.Hint = renewal(f.Kind, c.token, c.host)
	case r.header.Get("X-GitHub-SSO") != "":
		p.Hint = "authorize the token " + c.token.From + " for the organisation's single sign-on, in GitHub's settings of tokens"
	case says(err, "archived"):
		return f.archived()
	case r.status == http.StatusMethodNotAllowed && says(err, "moved"):
		p.Code, p.Hint = "forge-renamed", "give the remote the new name: git remote set-url"
	case r.status == http.StatusForbidden && says(err, "protected"):
		p.Code, p.Hint = "forge-protected", "choose another branch to push to; the protected one changes by its review only"
	case r.status == http.StatusForbidden:
		p.Hint = "give the token " + c.token.From + " the right to do that: " + scopes[f.Kind]
		if need := r.header.Get("X-Accepted-GitHub-Permissions"); need != "" {
			p.Hint += "; it takes " + clean(short(need))
		}
	case r.status == http.StatusNotFound:
		p.Code, p.Message = "forge-missing", c.name+" has no "+f.Path+" that the token "+c.token.From+" may see"
		p.Hint = "see that the remote's name is right, that the token's owner may read the repository and that it has reviews; the token needs " + scopes[f.Kind]
	case f.Kind == GitHub && says(err, "draft pull requests are not supported"):
		p.Code, p.Message = "forge-no-draft", "GitHub has no draft pull requests in "+f.Path+": they take a public repository or a paid plan"
		p.Hint = "open it by hand, as one that is ready"
	case says(err, "no commits between", "no changes between"):
		p.Code, p.Hint = "forge-nothing", "commit and push something that the base does not have"
	case r.status == http.StatusUnprocessableEntity || r.status == http.StatusBadRequest || r.status == http.StatusConflict:
		p.Hint = "see that both branches are pushed and have a common history"
	case r.status/100 == 5:
		p.Code, p.Hint = "forge-away", "try again later; nothing is made twice"
	default:
		p.Hint = "open the review by hand"
	}
	return p
}

// scopes is what a token needs, in each forge's own words.
var scopes = map[Kind]string{
	GitHub: "pull requests read and write, contents read (fine-grained), or repo (classic)",
	GitLab: "api, and its owner the role Developer",
	Gitea:  "write:repository",
}
