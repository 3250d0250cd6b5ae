package portal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

// memory is a registry without git, for what git would refuse or be slow at: hostile names, a registry that is away.
type memory struct {
	mu       sync.Mutex
	snap     *registry.Snapshot
	done     map[string]registry.Result
	away     error
	revision int
	watchers []func(*registry.Snapshot, error)
}

func newMemory(services []registry.Service, teams ...registry.Team) *memory {
	m := &memory{snap: &registry.Snapshot{Revision: strings.Repeat("0", 40), Services: map[string]*registry.Service{}, Teams: map[string]*registry.Team{}}, done: map[string]registry.Result{}}
	for _, s := range services {
		m.snap.Services[s.Name] = &s
	}
	for _, t := range teams {
		m.snap.Teams[t.Name] = &t
	}
	return m
}

func (m *memory) Snapshot(context.Context) (*registry.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away != nil {
		return nil, m.away
	}
	return m.snap, nil
}

func (m *memory) Watch(ctx context.Context, notify func(*registry.Snapshot, error)) {
	m.mu.Lock()
	m.watchers = append(m.watchers, notify)
	s := m.snap
	m.mu.Unlock()
	notify(s, nil)
	<-ctx.Done()
}

// edit makes the next revision.
func (m *memory) edit(f func(*registry.Snapshot)) {
	m.mu.Lock()
	m.revision++
	next := &registry.Snapshot{Revision: fmt.Sprintf("%040d", m.revision), Services: maps.Clone(m.snap.Services), Teams: maps.Clone(m.snap.Teams)}
	f(next)
	m.snap = next
	watchers := slices.Clone(m.watchers)
	m.mu.Unlock()
	for _, w := range watchers {
		w(next, nil)
	}
}

func (m *memory) Submit(_ context.Context, q registry.Request) (registry.Result, error) {
	m.mu.Lock()
	if r, ok := m.done[q.ID]; ok {
		r.Repeated = true
		m.mu.Unlock()
		return r, nil
	}
	d := registry.Decide(m.snap, q.Caller, q.Callee, q.Author.Email)
	sum := sha256.Sum256([]byte(q.ID))
	r := registry.Result{Granted: !d.Review, Why: d.Why, Changed: q.Methods, Revision: hex.EncodeToString(sum[:])}
	if d.Review {
		r.Branch = "fairlead/checkout-ledger"
		r.Review = "https://git.example.com/registry/pulls/7"
	}
	m.done[q.ID] = r
	m.mu.Unlock()
	if r.Granted {
		m.edit(func(s *registry.Snapshot) {
			c := registry.Service{Version: 1, Name: q.Caller}
			if old := s.Services[q.Caller]; old != nil {
				c = *old
			}
			c.Calls = append(slices.Clone(c.Calls), registry.Grant{Service: q.Callee, Methods: q.Methods, Reason: q.Reason, Environments: q.Environments})
			s.Services[q.Caller] = &c
		})
	}
	return r, nil
}

func (m *memory) now() *registry.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snap
}

func (m *memory) changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.done)
}

var user = registry.Author{Name: "Mira", Email: "mira@example.com"}

func shop() *memory {
	return newMemory([]registry.Service{
		{Version: 1, Name: "checkout", Team: "checkout", Description: "takes orders"},
		{Version: 1, Name: "billing", Team: "payments", Endpoints: []registry.Endpoint{
			{Method: "/billing.v1.Billing/Charge", Description: "takes money"}, {Method: "/billing.v1.Billing/Refund"}, {Method: "GET /v1/invoices/*"}}},
		{Version: 1, Name: "ledger", Team: "payments", Access: registry.AccessReview},
	}, registry.Team{Version: 1, Name: "checkout"}, registry.Team{Version: 1, Name: "payments"})
}

// site is a portal that listens, and a browser that is signed in to it.
type site struct {
	*testing.T
	p      *Portal
	reg    *memory
	url    string
	cookie *http.Cookie
	told   func() []Change
}

func newSite(t *testing.T, reg *memory, with func(*Options)) *site {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	var mu sync.Mutex
	var told []Change
	o := Options{URL: "http://" + ts.Listener.Addr().String(), Registry: reg, Local: &user, Token: "agent-token", ReadToken: "read-token",
		Changed: func(_ context.Context, c Change) error {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, c)
			return nil
		}}
	if with != nil {
		with(&o)
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.beat = time.Hour // or it would wake a stream that nothing else wakes
	ts.Config.Handler = p.Handler()
	ts.Start()
	t.Cleanup(ts.Close)
	s := &site{T: t, p: p, reg: reg, url: p.URL(), told: func() []Change {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}}
	if o.Local != nil {
		r := s.send("POST", "/sign-in", url.Values{"code": {p.Code()}, "to": {"/"}}, nil)
		if r.status != http.StatusOK || len(r.cookies) != 1 {
			t.Fatalf("sign in: %d, %v", r.status, r.cookies)
		}
		s.cookie = r.cookies[0]
	}
	return s
}

type answer struct {
	status  int
	body    string
	header  http.Header
	cookies []*http.Cookie
}

// send sends as this site's browser does. Headers override.
func (s *site) send(method, path string, form url.Values, header http.Header) answer {
	s.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, s.url+strings.TrimPrefix(path, "."), body) // a Location is relative
	if err != nil {
		s.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if s.cookie != nil {
		r.AddCookie(&http.Cookie{Name: s.cookie.Name, Value: s.cookie.Value})
	}
	for k, v := range header {
		if k == "Host" {
			r.Host = v[0]
			continue
		}
		r.Header[k] = v
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: time.Minute}
	res, err := c.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return answer{res.StatusCode, string(b), res.Header, res.Cookies()}
}

var (
	inputs  = regexp.MustCompile(`<input type="(hidden|checkbox|radio)"[^>]*>`)
	attr    = regexp.MustCompile(`\b(name|value|type)="([^"]*)"`)
	checked = regexp.MustCompile(`\schecked(\s|>)`)
)

// fields are what a browser would send of the form that is on a page.
func fields(page string) url.Values {
	i := strings.Index(page, `id="request"`)
	if i < 0 {
		return nil
	}
	f := url.Values{}
	for _, in := range inputs.FindAllString(page[i:], -1) {
		a := map[string]string{}
		for _, m := range attr.FindAllStringSubmatch(in, -1) {
			a[m[1]] = strings.ReplaceAll(strings.ReplaceAll(m[2], "&#43;", "+"), "&amp;", "&")
		}
		if a["type"] == "hidden" || checked.MatchString(in) {
			f.Add(a["name"], a["value"])
		}
	}
	return f
}

const link = "/request?caller=checkout&callee=billing&method=%2Fbilling.v1.Billing%2FCharge&environment=mira-checkout"

func TestFormToGrant(t *testing.T) {
	s := newSite(t, shop(), func(o *Options) {
		o.Observed = func(_ context.Context, caller, callee, environment string) []api.Seen {
			if caller != "checkout" || callee != "billing" || environment != "mira-checkout" {
				t.Errorf("asked for %s and %s in %s", caller, callee, environment)
			}
			return []api.Seen{{Call: api.Call{Callee: "billing", Method: "POST /v1/holds/*"}, Verdict: api.CallDenied, Count: 12},
				{Call: api.Call{Callee: "billing", Method: "/billing.v1.Billing/Charge"}, Verdict: api.CallDenied, Count: 1}}
		}
	})
	page := s.send("GET", link, nil, nil)
	for _, want := range []string{"Granted at once", "billing is open to everyone; team checkout changes its files directly", "mira-checkout", "takes money", "12 times", ", once", "Other endpoints of billing"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the form does not say %q", want)
		}
	}
	f := fields(page.body)
	if got, want := f["method"], []string{"/billing.v1.Billing/Charge", "POST /v1/holds/*"}; !slices.Equal(got, want) {
		t.Fatalf("ticked are %q, want %q", got, want)
	}
	// Who chose one asks for that one; the other is in sight.
	if only := s.send("GET", link+"&only=1", nil, nil); !slices.Equal(fields(only.body)["method"], []string{"/billing.v1.Billing/Charge"}) || !strings.Contains(only.body, "12 times") {
		t.Errorf("asked for one, ticked are %q", fields(only.body)["method"])
	}
	f.Add("method", "GET /v1/invoices/*")
	f.Set("reason", "orders are charged\r\nat once")
	f.Set("environments", "fresh")
	sent := s.send("POST", "/request", f, nil)
	if sent.status != http.StatusSeeOther {
		t.Fatalf("%d: %s", sent.status, sent.body)
	}
	result := s.send("GET", sent.header.Get("Location"), nil, nil)
	for _, want := range []string{"<h1>Granted</h1>", "GET /v1/invoices/*", "a fresh copy of billing", "orders are charged\nat once", "the next call goes through"} {
		if !strings.Contains(result.body, want) {
			t.Errorf("the result does not say %q", want)
		}
	}
	g := s.reg.now().Grant("checkout", "billing")
	if g == nil || len(g.Methods) != 3 || g.Environments != "fresh" {
		t.Errorf("granted is %+v", g)
	}
	if len(s.told()) != 1 || len(s.told()[0].Teams) != 2 || s.told()[0].Request.Author != user {
		t.Errorf("told was %+v", s.told())
	}
	// What is granted is not there to tick again.
	if f := fields(s.send("GET", link, nil, nil).body); slices.Contains(f["method"], "/billing.v1.Billing/Charge") {
		t.Error("what is granted already is ticked")
	}
	// And the way back is on the callee's page.
	if p := s.send("GET", "/services/billing", nil, nil).body; !strings.Contains(p, `<a href="../services/checkout">`) || !strings.Contains(p, "GET /v1/invoices/*") {
		t.Error("billing's page does not say that checkout calls it")
	}
}

func TestSaysWhatBecomesOfIt(t *testing.T) {
	for _, c := range []struct {
		name, link, want, button string
		change                   func(*registry.Snapshot)
	}{
		{"the callee is reviewed", "/request?caller=checkout&callee=ledger", "ledger is reviewed by its owners, team payments", "Send for review", nil},
		{"the caller's team reviews", "/request?caller=checkout&callee=billing", "team checkout reviews changes of its files", "Send for review",
			func(s *registry.Snapshot) {
				s.Teams["checkout"] = &registry.Team{Name: "checkout", Changes: registry.ChangesReview}
			}},
		{"somebody who is no member", "/request?caller=checkout&callee=billing", "mira@example.com is not a member of team checkout", "Send for review",
			func(s *registry.Snapshot) {
				s.Teams["checkout"] = &registry.Team{Name: "checkout", Members: []string{"jo@example.com"}}
			}},
		{"a member", "/request?caller=checkout&callee=billing", "Granted at once", "Grant access",
			func(s *registry.Snapshot) {
				s.Teams["checkout"] = &registry.Team{Name: "checkout", Members: []string{"mira@example.com"}}
			}},
		{"a caller without a file", "/request?caller=basket&callee=billing", "not in the registry yet: its file is made", "Grant access", nil},
		{"a callee without a file", "/request?caller=checkout&callee=weather", "nothing needs to be granted", "", nil},
		{"no services", "/request", "Which service calls", "", nil},
		{"itself", "/request?caller=billing&callee=billing", "may call itself", "", nil},
		{"methods that are none", link + "&method=rm%20-rf", "1 of the link's methods are none", "Grant access", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, shop(), nil)
			if c.change != nil {
				s.reg.edit(c.change)
			}
			a := s.send("GET", c.link, nil, nil)
			if a.status != http.StatusOK || !strings.Contains(a.body, c.want) {
				t.Errorf("%d, and no %q in\n%s", a.status, c.want, a.body)
			}
			if has := strings.Contains(a.body, `<button id="send"`); has != (c.button != "") || !strings.Contains(a.body, c.button) {
				t.Errorf("the button is not %q", c.button)
			}
		})
	}
}

func TestReview(t *testing.T) {
	s := newSite(t, shop(), nil)
	f := fields(s.send("GET", "/request?caller=checkout&callee=ledger&method=GET+/v1/entries", nil, nil).body)
	sent := s.send("POST", "/request", f, nil)
	page := s.send("GET", sent.header.Get("Location"), nil, nil).body
	for _, want := range []string{"Sent for review", `href="https://git.example.com/registry/pulls/7"`, "Until then the call is refused as before"} {
		if !strings.Contains(page, want) {
			t.Errorf("the result does not say %q", want)
		}
	}
	if s.reg.now().Grant("checkout", "ledger") != nil {
		t.Error("what is reviewed is in force")
	}
	s.reg.edit(func(snap *registry.Snapshot) {
		snap.Services["checkout"] = &registry.Service{Name: "checkout", Team: "checkout", Calls: []registry.Grant{{Service: "ledger", Methods: []string{"GET /v1/entries"}}}}
	})
	if page := s.send("GET", sent.header.Get("Location"), nil, nil).body; !strings.Contains(page, "The review was merged") {
		t.Error("the result does not say that it is in force now")
	}
}

// A form that is wrong comes back as it was filled, and says what is wrong where a screen reader begins.
func TestFaults(t *testing.T) {
	s := newSite(t, shop(), nil)
	blank := fields(s.send("GET", "/request?caller=checkout&callee=billing", nil, nil).body)
	for _, c := range []struct {
		name string
		set  url.Values
		want string
	}{
		{"nothing ticked", url.Values{"reason": {"why not"}}, "Tick at least one method."},
		{"no method", url.Values{"other": {"Charge"}, "reason": {"why not"}}, "&#34;Charge&#34; is not a method"},
		{"another treatment", url.Values{"all": {"yes"}, "environments": {"both"}, "reason": {"why not"}}, "Choose the shared copy or a fresh one."},
		{"no number", url.Values{"all": {"yes"}, "nonce": {""}, "reason": {"why not"}}, "number is missing"},
	} {
		f := maps.Clone(blank)
		maps.Copy(f, c.set)
		a := s.send("POST", "/request", f, nil)
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, c.want) || !strings.Contains(a.body, "why not") || !strings.Contains(a.body, "<title>Error: ") || !strings.Contains(a.body, `role="alert"`) {
			t.Errorf("%s: %d, %s", c.name, a.status, a.body)
		}
	}
	if n := s.reg.changes(); n != 0 {
		t.Errorf("%d changes were made", n)
	}
	// What was called stays in sight when its tick is taken away.
	f := fields(s.send("GET", link, nil, nil).body)
	f.Del("method")
	if a := s.send("POST", "/request", f, nil); !strings.Contains(a.body, "<h2>What it called</h2>") || len(fields(a.body)["method"]) != 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// The same form twice is one change; another content, or another form, is another one.
func TestDoubleSubmit(t *testing.T) {
	s := newSite(t, shop(), nil)
	f := fields(s.send("GET", link, nil, nil).body)
	var wg sync.WaitGroup
	places := make([]string, 8)
	for i := range places {
		wg.Go(func() { places[i] = s.send("POST", "/request", f, nil).header.Get("Location") })
	}
	wg.Wait()
	if slices.Sort(places); places[0] == "" || places[0] != places[7] {
		t.Errorf("the same form led to %q", places)
	}
	if n := s.reg.changes(); n != 1 {
		t.Errorf("the same form eight times was %d changes", n)
	}
	f.Add("method", "/billing.v1.Billing/Refund")
	if l := s.send("POST", "/request", f, nil).header.Get("Location"); l == "" || l == places[0] {
		t.Errorf("what was changed and sent again led to %q", l)
	}
	if g := s.reg.now().Grant("checkout", "billing"); s.reg.changes() != 2 || g == nil {
		t.Error("what was changed and sent again is lost")
	}
}

// Somebody else's form of the same number is not mine, and neither is another content.
func TestRequestID(t *testing.T) {
	a := ask{Caller: "checkout", Callee: "billing", Methods: []string{"GET /b", "GET /a"}, Environments: shared, Nonce: "the-form-1"}
	ids := map[string]string{a.request(user).ID: "the form"}
	again := a
	again.Methods, again.Base = []string{"GET /a", "GET /b"}, base{Revision: "another"}
	if ids[again.request(user).ID] == "" {
		t.Error("the same in another order is another request")
	}
	for name, b := range map[string]ask{
		"number":    {Caller: "checkout", Callee: "billing", Methods: a.Methods, Environments: shared, Nonce: "the-form-2"},
		"caller":    {Caller: "basket", Callee: "billing", Methods: a.Methods, Environments: shared, Nonce: a.Nonce},
		"callee":    {Caller: "checkout", Callee: "ledger", Methods: a.Methods, Environments: shared, Nonce: a.Nonce},
		"methods":   {Caller: "checkout", Callee: "billing", Methods: []string{"GET /a"}, Environments: shared, Nonce: a.Nonce},
		"treatment": {Caller: "checkout", Callee: "billing", Methods: a.Methods, Environments: fresh, Nonce: a.Nonce},
		"reason":    {Caller: "checkout", Callee: "billing", Methods: a.Methods, Environments: shared, Nonce: a.Nonce, Reason: "why"},
	} {
		id := b.request(user).ID
		if ids[id] != "" {
			t.Errorf("another %s has the ID of another %s", name, ids[id])
		}
		ids[id] = name
	}
	if ids[a.request(registry.Author{Name: "Jo", Email: "jo@example.com"}).ID] != "" {
		t.Error("another author has the same ID")
	}
}

// A form that was open for an hour is sent, unless what it promised is not so any more.
func TestOldForm(t *testing.T) {
	s := newSite(t, shop(), nil)
	f := fields(s.send("GET", link, nil, nil).body)
	s.reg.edit(func(snap *registry.Snapshot) { snap.Services["ledger"] = &registry.Service{Name: "ledger"} })
	s.reg.edit(func(snap *registry.Snapshot) {
		b := *snap.Services["billing"]
		b.Description = "another word"
		snap.Services["billing"] = &b
	})
	if a := s.send("POST", "/request", f, nil); a.status != http.StatusSeeOther {
		t.Fatalf("changes that do not matter: %d %s", a.status, a.body)
	}

	f = fields(s.send("GET", "/request?caller=checkout&callee=billing&method=GET+/v1/invoices/*", nil, nil).body)
	f.Set("reason", "typed for long")
	s.reg.edit(func(snap *registry.Snapshot) {
		b := *snap.Services["billing"]
		b.Access = registry.AccessReview
		snap.Services["billing"] = &b
	})
	a := s.send("POST", "/request", f, nil)
	if a.status != http.StatusConflict || !strings.Contains(a.body, "It would have been granted at once") || !strings.Contains(a.body, "billing is reviewed by its owners, team payments") || !strings.Contains(a.body, "typed for long") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if s.reg.changes() != 1 {
		t.Error("it was sent all the same")
	}
	if a = s.send("POST", "/request", fields(a.body), nil); a.status != http.StatusSeeOther {
		t.Errorf("the form that says what changed is not sent: %d", a.status)
	}

	f = fields(s.send("GET", link, nil, nil).body)
	f.Set("all", "yes")
	s.reg.edit(func(snap *registry.Snapshot) { delete(snap.Services, "billing") })
	if a := s.send("POST", "/request", f, nil); a.status != http.StatusConflict || !strings.Contains(a.body, "nothing needs to be granted") {
		t.Errorf("a callee that is gone: %d", a.status)
	}
}

// A registry that is away is said, on pages too; what was known last is shown, and nothing is granted on it.
func TestRegistryAway(t *testing.T) {
	reg := shop()
	s := newSite(t, reg, nil)
	f := fields(s.send("GET", link, nil, nil).body)
	reg.mu.Lock()
	reg.away = &api.Problem{Code: "registry-away", Message: "git.example.com does not answer", Hint: "look whether it is up"}
	reg.mu.Unlock()
	for path, form := range map[string]url.Values{"/": nil, "/services/billing": nil, link: nil, "/request": f} {
		method := "GET"
		if form != nil {
			method = "POST"
		}
		if a := s.send(method, path, form, nil); a.status != http.StatusBadGateway || !strings.Contains(a.body, "git.example.com does not answer") || !strings.Contains(a.body, "look whether it is up") {
			t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
	}
	s.p.latest, s.p.stale = reg.snap, reg.away
	if a := s.send("GET", "/", nil, nil); a.status != http.StatusOK || !strings.Contains(a.body, "this is what was known last: git.example.com does not answer") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := s.send("POST", "/request", f, nil); a.status != http.StatusBadGateway {
		t.Errorf("a form was taken on what was known last: %d", a.status)
	}
}

// The change stands when nobody can be told, and the page says so.
func TestUntold(t *testing.T) {
	s := newSite(t, shop(), func(o *Options) {
		o.Changed = func(context.Context, Change) error { return fmt.Errorf("write the outbox: disk full") }
	})
	sent := s.send("POST", "/request", fields(s.send("GET", link, nil, nil).body), nil)
	if a := s.send("GET", sent.header.Get("Location"), nil, nil); !strings.Contains(a.body, "<h1>Granted</h1>") || !strings.Contains(a.body, "nobody was told of it: write the outbox: disk full") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
