package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/platform/registry"
)

var change = Change{ID: "0123456789ab", Kind: "granted", Caller: "checkout", Callee: "billing", Methods: []string{"/billing.v1.Billing/Charge", "GET /v1/invoices/*"}, Reason: "orders are charged at once",
	Environments: "shared", Author: Author{"Mira", "mira@example.com"}, Why: "billing is open to everyone", Revision: "6b1f", Link: "https://portal.example.com/requests/0123456789ab",
	Time: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}

func newBox(t *testing.T, dir string, with func(*Options)) *Box {
	t.Helper()
	o := Options{Dir: dir, Secret: func(name string) (string, error) { return "", errors.New("no secret " + name) }}
	if with != nil {
		with(&o)
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	b.wait = func(int) time.Duration { return 0 }
	return b
}

// receiver is a server that messages are sent to; each answer is taken from a list, the last one stays.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	got     []*http.Request
	bodies  []string
	answers []int // -1: the connection is closed without one
}

func newReceiver(t *testing.T, answers ...int) *receiver {
	r := &receiver{answers: answers}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.got, r.bodies = append(r.got, req), append(r.bodies, string(body))
		status := r.answers[min(len(r.got), len(r.answers))-1]
		r.mu.Unlock()
		if status < 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

// seen is what came so far.
func (r *receiver) seen() ([]*http.Request, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got), slices.Clone(r.bodies)
}

// inStates is how many messages are in each folder.
func inStates(b *Box) map[string]int {
	n := map[string]int{}
	for _, s := range states {
		if c := len(b.ids(s)); c > 0 {
			n[s] = c
		}
	}
	return n
}

// How often a message is sent, by what the receiver does.
func TestDelivery(t *testing.T) {
	slack, hook := Target{Kind: "slack", To: "slack-checkout"}, Target{Kind: "webhook", To: "", Secret: "hook"}
	for _, c := range []struct {
		name    string
		target  Target
		answers []int
		rounds  int
		got     int
		in      string
	}{
		{"Slack takes it", slack, []int{200}, 3, 1, sent},
		{"Slack is busy twice", slack, []int{429, 503, 200}, 5, 3, sent},
		{"Slack refuses", slack, []int{404, 200}, 3, 1, failed},
		{"Slack's answer is lost", slack, []int{-1, 200}, 3, 1, unknown},
		{"a webhook takes it", hook, []int{204}, 3, 1, sent},
		{"a webhook's answer is lost", hook, []int{-1, 200}, 3, 2, sent},
		{"a webhook redirects", hook, []int{302, 200}, 3, 1, failed},
		{"a webhook has gone", hook, []int{410, 200}, 3, 1, failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReceiver(t, c.answers...)
			b := newBox(t, t.TempDir(), func(o *Options) {
				o.Secret = func(name string) (string, error) {
					return map[string]string{"slack-checkout": r.URL + "/services/T0/B0/secret\n", "hook": "s3cret"}[name], nil
				}
			})
			if c.target.Kind == "webhook" {
				c.target.To = r.URL
			}
			for range 2 { // told twice is one message
				if err := b.Tell(change, c.target); err != nil {
					t.Fatal(err)
				}
			}
			for range c.rounds {
				b.round(t.Context())
			}
			if err := b.Tell(change, c.target); err != nil { // and so is told again afterwards
				t.Fatal(err)
			}
			b.round(t.Context())
			got, bodies := r.seen()
			if len(got) != c.got || !cmp.Equal(inStates(b), map[string]int{c.in: 1}) {
				t.Errorf("%d came, and the outbox has %v; want %d in %s", len(got), inStates(b), c.got, c.in)
			}
			ids := map[string]bool{}
			for i, q := range got {
				if c.target.Kind == "webhook" {
					ids[q.Header.Get("Fairlead-Id")] = true
					if want := Sign("s3cret", q.Header.Get("Fairlead-Id"), q.Header.Get("Fairlead-Timestamp"), []byte(bodies[i])); q.Header.Get("Fairlead-Signature") != want {
						t.Errorf("signed %q, want %q", q.Header.Get("Fairlead-Signature"), want)
					}
				}
			}
			if c.target.Kind == "webhook" && len(ids) != 1 {
				t.Errorf("the message had %d IDs", len(ids))
			}
		})
	}
}

// A receiver that nobody can connect to is tried again, and not for ever.
func TestAway(t *testing.T) {
	r := newReceiver(t, 200)
	away := r.URL
	r.Close()
	b := newBox(t, t.TempDir(), func(o *Options) { o.Secret = func(string) (string, error) { return away, nil } })
	if err := b.Tell(change, Target{Kind: "slack", To: "a"}, Target{Kind: "slack", To: "b"}); err != nil {
		t.Fatal(err)
	}
	b.round(t.Context())
	m, err := b.read(pending, key(change.ID, Target{Kind: "slack", To: "a"}))
	if err != nil || m.Tries != 1 || !strings.Contains(m.Error, "127.0.0.1") || strings.Contains(m.Error, "/services/") {
		t.Fatalf("%+v %v", m, err)
	}
	now := time.Now().Add(giveUp + time.Minute)
	b.now = func() time.Time { return now }
	b.round(t.Context())
	if got := inStates(b); !cmp.Equal(got, map[string]int{failed: 2}) {
		t.Errorf("after a day: %v", got)
	}
	now = time.Now().Add(keepFor + time.Hour)
	b.round(t.Context())
	if got := inStates(b); len(got) != 0 {
		t.Errorf("after a month: %v", got)
	}
}

// TestMain is also the process that is killed: it delivers, with the outbox and the receiver of its arguments.
func TestMain(m *testing.M) {
	if dir := os.Getenv("NOTIFY_TEST_DIR"); dir != "" {
		b, err := New(Options{Dir: dir, Secret: func(string) (string, error) { return os.Getenv("NOTIFY_TEST_URL"), nil }})
		if err != nil {
			panic(err)
		}
		if err := b.Tell(change, Target{Kind: "slack", To: "a"}, Target{Kind: "webhook", To: os.Getenv("NOTIFY_TEST_URL") + "/hook"}); err != nil {
			panic(err)
		}
		b.Run(context.Background())
	}
	os.Exit(m.Run())
}

// Killed in the middle of sending, and started again: Slack's message is not sent twice, the webhook's is, under the same ID.
func TestKilled(t *testing.T) {
	var mu sync.Mutex
	got, ids := map[string]int{}, map[string]bool{}
	arrived, release := make(chan string, 8), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got[r.URL.Path]++
		if id := r.Header.Get("Fairlead-Id"); id != "" {
			ids[id] = true
		}
		mu.Unlock()
		arrived <- r.URL.Path
		<-release
	}))
	defer s.Close()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "NOTIFY_TEST_DIR="+dir, "NOTIFY_TEST_URL="+s.URL)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case <-arrived:
		case <-time.After(time.Minute):
			t.Fatal("nothing arrived")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	close(release)

	b := newBox(t, dir, func(o *Options) { o.Secret = func(string) (string, error) { return s.URL, nil } })
	if got := inStates(b); !cmp.Equal(got, map[string]int{sending: 2}) {
		t.Fatalf("the killed process left %v", got)
	}
	b.settle()
	if err := b.Tell(change, Target{Kind: "slack", To: "a"}, Target{Kind: "webhook", To: s.URL + "/hook"}); err != nil {
		t.Fatal(err)
	}
	b.round(t.Context())
	if states := inStates(b); !cmp.Equal(states, map[string]int{unknown: 1, sent: 1}) {
		t.Errorf("afterwards: %v", states)
	}
	mu.Lock()
	defer mu.Unlock()
	if got["/"] != 1 || got["/hook"] != 2 || len(ids) != 1 {
		t.Errorf("came: %v under %d IDs", got, len(ids))
	}
}

// Two processes with one outbox send each message once.
func TestShared(t *testing.T) {
	r, dir := newReceiver(t, 200), t.TempDir()
	boxes := []*Box{newBox(t, dir, nil), newBox(t, dir, nil)}
	for i := range 20 {
		c := change
		c.ID += string(rune('a' + i))
		if err := boxes[i%2].Tell(c, Target{Kind: "webhook", To: r.URL}); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for _, b := range boxes {
		wg.Go(func() { b.round(t.Context()) })
	}
	wg.Wait()
	if got, _ := r.seen(); len(got) != 20 || !cmp.Equal(inStates(boxes[0]), map[string]int{sent: 20}) {
		t.Errorf("%d came, and the outbox has %v", len(got), inStates(boxes[0]))
	}
}

// Run delivers what is told while it runs.
func TestRun(t *testing.T) {
	arrived := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { arrived <- r.Header.Get("Fairlead-Id") }))
	defer s.Close()
	b := newBox(t, t.TempDir(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	target := Target{Kind: "webhook", To: s.URL}
	if err := b.Tell(change, target); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-arrived:
		if id != key(change.ID, target) {
			t.Errorf("%s arrived", id)
		}
	case <-time.After(time.Minute):
		t.Error("nothing arrived")
	}
	cancel()
	<-done
}

// What Slack documents: https://docs.slack.dev/reference/block-kit/blocks and the formatting of mrkdwn.
func TestSlackFormat(t *testing.T) {
	c := change
	c.Reason = "see <https://evil.example|the docs> & <!channel> *now*"
	j, err := json.MarshalIndent(slackMessage(c), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(j, &got); err != nil {
		t.Fatal(err)
	}
	text := func(kind, s string) map[string]any { return map[string]any{"type": kind, "text": s} }
	want := map[string]any{
		"text": "checkout may call billing",
		"blocks": []any{
			map[string]any{"type": "header", "text": text("plain_text", "checkout may call billing")},
			map[string]any{"type": "section", "text": text("mrkdwn", "`checkout` may call these methods of `billing`:\n• `/billing.v1.Billing/Charge`\n• `GET /v1/invoices/*`\n\n>see &lt;https://evil.example|the docs&gt; &amp; &lt;!channel&gt; *\u200bnow*\u200b\n")},
			map[string]any{"type": "context", "elements": []any{text("mrkdwn", "Mira · billing is open to everyone · environments: shared copy")}},
			map[string]any{"type": "actions", "elements": []any{map[string]any{"type": "button", "text": text("plain_text", "Details"), "url": change.Link}}},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// The limits, with as much as a registry takes.
	long := strings.Repeat("ü<&", 1000)
	c = Change{ID: "x", Kind: "review", Caller: long, Callee: long, Reason: long, Why: long, Author: Author{Name: long}, Review: "javascript:alert(1)"}
	for range 500 {
		c.Methods = append(c.Methods, "GET /"+strings.Repeat("a", 500))
	}
	m := slackMessage(c)
	if n := utf8.RuneCountInString(m.Blocks[0].Text.Text); n > 150 {
		t.Errorf("the header has %d characters", n)
	}
	if n := utf8.RuneCountInString(m.Blocks[1].Text.Text); n > 3000 {
		t.Errorf("the section has %d characters", n)
	}
	if n := utf8.RuneCountInString(m.Blocks[2].Elements.([]slackObject)[0].Text); n > 3000 || len(m.Blocks) != 3 {
		t.Errorf("the context has %d characters, and there are %d blocks", n, len(m.Blocks))
	}
}

func TestWebhookFormat(t *testing.T) {
	r := newReceiver(t, 200)
	b := newBox(t, t.TempDir(), nil)
	if err := b.Tell(change, Target{Kind: "webhook", To: r.URL}); err != nil {
		t.Fatal(err)
	}
	b.round(t.Context())
	const want = `{"id":"0123456789ab","kind":"granted","caller":"checkout","callee":"billing","methods":["/billing.v1.Billing/Charge","GET /v1/invoices/*"],"reason":"orders are charged at once","environments":"shared","author":{"name":"Mira","email":"mira@example.com"},"why":"billing is open to everyone","revision":"6b1f","link":"https://portal.example.com/requests/0123456789ab","time":"2026-11-26T12:00:00Z"}`
	got, bodies := r.seen()
	if len(bodies) != 1 || bodies[0] != want {
		t.Fatalf("%q", bodies)
	}
	if h := got[0].Header; h.Get("Fairlead-Signature") != "" || h.Get("Fairlead-Timestamp") == "" || h.Get("Content-Type") != "application/json" {
		t.Errorf("%v", h)
	}
	// openssl's, of the same bytes: printf '%s' ID.SECONDS.BODY | openssl dgst -sha256 -hmac s3cret
	if sig := Sign("s3cret", "id", "1700000000", []byte(`{"a":1}`)); sig != opensslSignature {
		t.Errorf("%s", sig)
	}
	// A cloud's metadata.
	m := newBox(t, t.TempDir(), nil)
	if err := m.post(t.Context(), "http://169.254.169.254/latest/meta-data", nil, nil); err == nil || !strings.Contains(err.Error(), "no place for messages") {
		t.Errorf("a link's address: %v", err)
	}
}

func TestTargets(t *testing.T) {
	got := Targets(registry.Team{Notify: []registry.Notify{{Slack: "slack-a"}, {Email: "a@example.com"}, {}}}, registry.Team{Notify: []registry.Notify{{Slack: "slack-a"}, {Webhook: "https://a.example/hook", Secret: "hook"}}})
	want := []Target{{"slack", "slack-a", ""}, {"email", "a@example.com", ""}, {"webhook", "https://a.example/hook", "hook"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	c := Of(registry.Request{ID: "i", Caller: "a", Callee: "b", Author: registry.Author{Name: "M", Email: "m@example.com"}}, registry.Result{Review: "https://git/1", Changed: []string{"*"}}, "l")
	if env := Of(registry.Request{Methods: []string{"GET /a"}, Environments: "fresh"}, registry.Result{Granted: true}, ""); len(env.Methods) != 1 || env.Environments != "fresh" {
		t.Errorf("%+v", env)
	}
	if c.Kind != "review" || c.Environments != "shared" || c.Author.Email != "m@example.com" || len(c.Methods) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"slack-checkout": "https://hooks.example/1\n", "empty": "\n"} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("FAIRLEAD_SECRET_SMTP_PASSWORD", "pw")
	get := Folder(dir)
	for name, want := range map[string]string{"slack-checkout": "https://hooks.example/1", "smtp-password": "pw", "empty": "", "none": "", "../notify.go": "", "": ""} {
		got, err := get(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
}

const opensslSignature = "v1=abdacb26800341a3ab57791b29be75e747425b647b98a9b66aa9ceb051746f52"
