package portal

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/platform/registry"
)

// gitSite is a site on the real registry, with the same services, and somebody else's work tree of it.
func gitSite(t *testing.T) (*site, *registry.Registry, func(edit map[string]string)) {
	t.Helper()
	dir := t.TempDir()
	reg, err := registry.Open(t.Context(), registry.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(t.TempDir(), "work")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=Jo", "-c", "user.email=jo@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	git("init", "--quiet", "--initial-branch=main", work)
	push := func(edit map[string]string) {
		t.Helper()
		if strings.Contains(git("ls-remote", reg.Where()), "refs/heads/main") {
			git("-C", work, "pull", "--quiet", "--rebase", reg.Where(), "main")
		}
		for name, text := range edit {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(work, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		git("-C", work, "add", "-A")
		git("-C", work, "commit", "--quiet", "-m", "by hand")
		git("-C", work, "push", "--quiet", reg.Where(), "HEAD:main")
	}
	push(map[string]string{
		"services/checkout.yaml": "version: 1\nname: checkout\nteam: checkout # the fast one\n",
		"services/billing.yaml":  "version: 1\nname: billing\nteam: payments\nendpoints:\n  - method: /billing.v1.Billing/Charge\n    description: takes money\n  - method: GET /v1/invoices/*\n",
		"services/ledger.yaml":   "version: 1\nname: ledger\nteam: payments\naccess: review\n",
		"teams/checkout.yaml":    "version: 1\nname: checkout\nmembers: [mira@example.com]\n",
		"teams/payments.yaml":    "version: 1\nname: payments\n",
	})
	s := newSite(t, nil, func(o *Options) { o.Registry = reg })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, reg, push
}

// From the link to a commit, by the registry itself.
func TestCommit(t *testing.T) {
	s, reg, push := gitSite(t)
	log := func() string {
		t.Helper()
		out, err := exec.Command("git", "-C", reg.Where(), "log", "--format=%an <%ae>%n%B", "main").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	f := fields(s.send("GET", link, nil, nil).body)
	f.Set("reason", "orders are charged")
	// The same form at once from eight windows is one commit.
	var wg sync.WaitGroup
	places := make([]string, 8)
	for i := range places {
		wg.Go(func() { places[i] = s.send("POST", "/request", f, nil).header.Get("Location") })
	}
	wg.Wait()
	for _, p := range places {
		if p == "" || p != places[0] {
			t.Fatalf("the same form led to %q", places)
		}
	}
	words := log()
	if strings.Count(words, "Mira <mira@example.com>") != 1 || !strings.Contains(words, "orders are charged") || strings.Count(words, "Request-Id: ") != 1 {
		t.Errorf("the log is\n%s", words)
	}
	page := s.send("GET", places[0], nil, nil).body
	for _, want := range []string{"<h1>Granted</h1>", "billing is open to everyone; team checkout changes its files directly"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	snap, err := reg.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, granted := snap.Grants("checkout", "billing"); len(granted) != 1 {
		t.Errorf("granted is %q", granted)
	}

	// Another treatment alone is a change.
	f = fields(s.send("GET", link, nil, nil).body)
	f.Add("method", "/billing.v1.Billing/Charge")
	f.Set("environments", "fresh")
	told := len(s.told())
	if page := s.send("GET", s.send("POST", "/request", f, nil).header.Get("Location"), nil, nil).body; !strings.Contains(page, "<h1>Granted</h1>") || len(s.told()) != told+1 {
		t.Errorf("another treatment: %s", page)
	}
	f.Set("nonce", "another-form")
	if page := s.send("GET", s.send("POST", "/request", f, nil).header.Get("Location"), nil, nil).body; !strings.Contains(page, "<h1>Granted already</h1>") || len(s.told()) != told+1 {
		t.Errorf("the same again: %s", page)
	}

	// Reviewed: a branch, and nothing in force.
	f = fields(s.send("GET", "/request?caller=checkout&callee=ledger&method=GET+/v1/entries", nil, nil).body)
	page = s.send("GET", s.send("POST", "/request", f, nil).header.Get("Location"), nil, nil).body
	if !strings.Contains(page, "<h1>Sent for review</h1>") || !strings.Contains(page, "fairlead/checkout-ledger-") || strings.Contains(log(), "ledger") {
		t.Errorf("a review: %s", page)
	}

	// What the form had is gone.
	f = fields(s.send("GET", "/request?caller=checkout&callee=billing&method=GET+/v1/invoices/*", nil, nil).body)
	push(map[string]string{"services/billing.yaml": "version: 1\nname: billing\nteam: payments\nendpoints:\n  - method: /billing.v1.Billing/Charge\n"})
	if a := s.send("POST", "/request", f, nil); a.status != http.StatusConflict || !strings.Contains(a.body, "billing no longer has GET /v1/invoices/*") || fields(a.body) == nil {
		t.Errorf("an endpoint that is gone: %d %s", a.status, a.body)
	}
}

// What others push is seen by those who wait.
func TestOthersPush(t *testing.T) {
	s, _, push := gitSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := s.grants(ctx, "checkout")
	if g := events(); len(g.Grants) != 2 || len(g.Grants[0].Methods) != 0 {
		t.Fatalf("%+v", g)
	}
	push(map[string]string{"services/checkout.yaml": "version: 1\nname: checkout\nteam: checkout\ncalls:\n  - service: billing\n    methods: ['*']\n"})
	if g := events(); len(g.Grants[0].Methods) != 1 {
		t.Fatalf("%+v", g)
	}
	if a := s.send("GET", "/services/billing", nil, nil); !strings.Contains(a.body, `<a href="../services/checkout">`) {
		t.Error("the page does not say it")
	}
}
