// Package notify tells teams of changes: by a Slack incoming webhook, by e-mail, or by a signed webhook of their own. It knows
// neither forms nor git; it is told a change and where it is to go.
//
// # What is delivered how often
//
// A message is a file in the outbox. Its name is made of the change and of where it goes, so the same change told twice is one
// message, also after a restart. It is renamed from pending to sending before the first byte leaves, and to sent, failed or
// unknown after the last:
//
//	Slack, e-mail   at most once. What was surely not taken (no connection, a refusal, a busy server) is tried again, for a day. When the
//	                answer was lost, or the process was killed while it waited for one, nobody can know: the message is put into unknown and said
//	                in the log, and not sent twice. Neither offers a way to say "only if you do not have it yet"
//	webhook         at least once: what may have arrived is sent again too, under the same Fairlead-Id, by which the receiver knows it
//
// Several processes may share a folder: a rename is one's only.
//
// # The webhook
//
//	POST URL
//	Content-Type: application/json
//	Fairlead-Id: ID                 of the message; the same at every try
//	Fairlead-Timestamp: SECONDS     since 1970; refuse what is older than five minutes
//	Fairlead-Signature: v1=HEX      HMAC-SHA256 of "ID.SECONDS.BODY" with the secret; absent without one
//
//	{"id", "kind": "granted|review", "caller", "callee", "methods", "reason", "environments", "author": {"name", "email"}, "why",
//	 "revision", "review", "link", "time"}
//
// A 2xx answer has taken it. 408, 425, 429 and 5xx are tried again, any other is final.
package notify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

// Options are what a Box is made of.
type Options struct {
	Dir string // of the outbox; made where it is not there
	// Secret looks a secret up by its name; see Folder.
	Secret func(name string) (string, error)
	Mail   Mail
	Client *http.Client // nil: one with time limits that follows no redirect
	Logger *slog.Logger
}

// Mail is the server that sends e-mail. Without Address there is none.
type Mail struct {
	Address  string // host:port
	From     string
	User     string // empty: no login
	Password string // the name of the secret
	// TLS is "starttls" (also when empty), "tls" from the first byte on, or "none", which is for a server on this machine only.
	TLS string
	// Roots are for a server whose certificate no public authority has signed: a file of PEM.
	Roots string
}

// Target is where a message goes.
type Target struct {
	Kind   string `json:"kind"` // slack, email, webhook
	To     string `json:"to"`   // a secret's name, an address, a URL
	Secret string `json:"secret,omitempty"`
}

// Targets are where teams hear of changes: each place once.
func Targets(teams ...registry.Team) []Target {
	var out []Target
	for _, t := range teams {
		for _, n := range t.Notify {
			var g Target
			switch {
			case n.Slack != "":
				g = Target{Kind: "slack", To: n.Slack}
			case n.Email != "":
				g = Target{Kind: "email", To: n.Email}
			case n.Webhook != "":
				g = Target{Kind: "webhook", To: n.Webhook, Secret: n.Secret}
			default:
				continue
			}
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out
}

// message is a file of the outbox.
type message struct {
	ID     string    `json:"id"`
	Target Target    `json:"target"`
	Change Change    `json:"change"`
	Tries  int       `json:"tries"`
	Next   time.Time `json:"next"`
	Made   time.Time `json:"made"`
	Error  string    `json:"error,omitempty"` // of the last try
}

// Change is what is told.
type Change struct {
	ID           string    `json:"id"`
	Kind         string    `json:"kind"` // granted, review
	Caller       string    `json:"caller"`
	Callee       string    `json:"callee"`
	Methods      []string  `json:"methods"`
	Reason       string    `json:"reason,omitempty"`
	Environments string    `json:"environments"`
	Author       Author    `json:"author"`
	Why          string    `json:"why"`
	Revision     string    `json:"revision,omitempty"`
	Review       string    `json:"review,omitempty"`
	Link         string    `json:"link,omitempty"`
	Time         time.Time `json:"time"`
}

// Author is who made the change.
type Author struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Of is the change that a request became. Link is the page about it.
func Of(q registry.Request, r registry.Result, link string) Change {
	c := Change{ID: q.ID, Kind: "granted", Caller: q.Caller, Callee: q.Callee, Methods: r.Changed, Reason: q.Reason, Environments: cmp.Or(q.Environments, "shared"), Author: Author(q.Author),
		Why: r.Why, Revision: r.Revision, Review: r.Review, Link: link, Time: r.Time.UTC()}
	if len(c.Methods) == 0 { // how environments have it is all that is new
		c.Methods = q.Methods
	}
	if !r.Granted {
		c.Kind = "review"
	}
	return c
}

// The folders of an outbox.
const (
	pending = "pending"
	sending = "sending"
	sent    = "sent"
	failed  = "failed"
	unknown = "unknown"
)

var states = []string{pending, sending, sent, failed, unknown}

const (
	firstWait = 2 * time.Second
	longWait  = 10 * time.Minute
	giveUp    = 24 * time.Hour
	keepFor   = 30 * 24 * time.Hour // what was told, so that it is not told again
	maxWait   = 10_000              // messages that wait
)

// Box is the outbox. Its goroutines are Run's.
type Box struct {
	o     Options
	log   *slog.Logger
	ready chan struct{} // something was added

	mu   sync.Mutex // Tell looks before it writes
	now  func() time.Time
	wait func(tries int) time.Duration
}

// New opens the outbox.
func New(o Options) (*Box, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Client == nil {
		o.Client = newClient()
	}
	if o.Secret == nil {
		o.Secret = func(name string) (string, error) { return "", fmt.Errorf("there is no secret %q", name) }
	}
	if err := o.Mail.check(); err != nil {
		return nil, err
	}
	for _, s := range states {
		// Messages have names and reasons of people in them.
		if err := os.MkdirAll(filepath.Join(o.Dir, s), 0o700); err != nil {
			return nil, &api.Problem{Code: "outbox", Message: "make the outbox of messages: " + err.Error(), Hint: "make it possible to write there"}
		}
	}
	return &Box{o: o, log: o.Logger, ready: make(chan struct{}, 1), now: time.Now, wait: backoff}, nil
}

func backoff(tries int) time.Duration { return min(longWait, firstWait<<min(tries, 12)) }

// key names a message: the same change to the same place is the same one.
func key(change string, t Target) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{change, t.Kind, t.To}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Tell puts a change into the outbox, once for each target. When it returns without an error the messages outlive the process.
func (b *Box) Tell(c Change, targets ...Target) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, t := range targets {
		m := message{ID: key(c.ID, t), Target: t, Change: c, Made: b.now(), Next: b.now()}
		if b.has(m.ID) {
			continue
		}
		if waiting, err := os.ReadDir(filepath.Join(b.o.Dir, pending)); err == nil && len(waiting) >= maxWait {
			errs = append(errs, &api.Problem{Code: "outbox", Message: fmt.Sprintf("%d messages wait already", len(waiting)), Hint: "see the log for why they are not delivered"})
			continue
		}
		if err := b.write(m, pending); err != nil {
			errs = append(errs, &api.Problem{Code: "outbox", Message: "write a message: " + err.Error(), Hint: "make room, and make it possible to write in " + b.o.Dir})
		}
	}
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return errors.Join(errs...)
}

func (b *Box) path(state, id string) string { return filepath.Join(b.o.Dir, state, id+".json") }

func (b *Box) has(id string) bool {
	return slices.ContainsFunc(states, func(s string) bool {
		_, err := os.Stat(b.path(s, id))
		return err == nil
	})
}

// write makes a message's file whole or not at all.
func (b *Box) write(m message, state string) error {
	j, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(b.o.Dir, "new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename it is gone
	if _, err = f.Write(j); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), b.path(state, m.ID))
}

func (b *Box) read(state, id string) (m message, err error) {
	j, err := os.ReadFile(b.path(state, id))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(j, &m); err != nil || m.ID != id {
		return m, fmt.Errorf("%s is no message: %v", b.path(state, id), err)
	}
	return m, nil
}

// ids are the messages in a state, in order.
func (b *Box) ids(state string) []string {
	entries, err := os.ReadDir(filepath.Join(b.o.Dir, state))
	if err != nil {
		b.log.Error("notify: read the outbox", "error", err)
	}
	var out []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			out = append(out, id)
		}
	}
	return out
}

// Run delivers until the context ends. What another process was sending when it was killed is settled first.
func (b *Box) Run(ctx context.Context) {
	b.settle()
	for {
		next := b.round(ctx)
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-b.ready:
		case <-t.C:
		}
		t.Stop()
	}
}

// settle decides on what was being sent when a process ended.
func (b *Box) settle() {
	for _, id := range b.ids(sending) {
		m, err := b.read(sending, id)
		if err != nil {
			b.log.Error("notify: a message is lost", "error", err)
			continue
		}
		to := unknown
		if m.Target.Kind == "webhook" {
			to = pending // the receiver knows it by its ID
		} else {
			b.log.Warn("notify: it is not known whether a message arrived: the process ended while it was sent", "id", id, "kind", m.Target.Kind, "change", m.Change.ID)
		}
		b.move(id, sending, to)
	}
}

func (b *Box) move(id, from, to string) bool {
	err := os.Rename(b.path(from, id), b.path(to, id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // another process was first
		b.log.Error("notify: move a message", "id", id, "to", to, "error", err)
	}
	return err == nil
}

// round sends what is due, and says when the next one is.
func (b *Box) round(ctx context.Context) time.Duration {
	b.sweep()
	next := time.Hour
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8) // one slow server holds up few
	var mu sync.Mutex
	for _, id := range b.ids(pending) {
		m, err := b.read(pending, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			b.log.Error("notify: a message is lost", "error", err)
			b.move(id, pending, failed)
			continue
		}
		if due := m.Next.Sub(b.now()); due > 0 {
			mu.Lock()
			next = min(next, due)
			mu.Unlock()
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if again := b.deliver(ctx, m); again > 0 {
				mu.Lock()
				next = min(next, again)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return next
}

// sweep forgets what was told long ago.
func (b *Box) sweep() {
	for _, s := range []string{sent, failed, unknown} {
		for _, id := range b.ids(s) {
			if st, err := os.Stat(b.path(s, id)); err == nil && b.now().Sub(st.ModTime()) > keepFor {
				os.Remove(b.path(s, id))
			}
		}
	}
}

// notTaken is an error after which nobody has the message; final says that trying again is of no use.
type notTaken struct {
	err   error
	final bool
}

func (e *notTaken) Error() string { return e.err.Error() }
func (e *notTaken) Unwrap() error { return e.err }

// deliver tries once, and says after how long it should be tried again, if it should.
func (b *Box) deliver(ctx context.Context, m message) time.Duration {
	if ctx.Err() != nil || !b.move(m.ID, pending, sending) {
		return 0
	}
	var err error
	switch m.Target.Kind {
	case "slack":
		err = b.slack(ctx, m)
	case "email":
		err = b.mail(ctx, m)
	case "webhook":
		err = b.webhook(ctx, m)
	default:
		err = &notTaken{fmt.Errorf("%q is no kind of message", m.Target.Kind), true}
	}
	log := b.log.With("id", m.ID, "kind", m.Target.Kind, "change", m.Change.ID)
	if err == nil {
		log.Info("notify: delivered", "tries", m.Tries+1)
		b.move(m.ID, sending, sent)
		return 0
	}
	m.Tries++
	m.Error = err.Error()
	var not *notTaken
	to := pending
	switch surely := errors.As(err, &not); {
	case surely && not.final, b.now().Sub(m.Made) > giveUp:
		to = failed
		log.Error("notify: a message cannot be delivered", "tries", m.Tries, "error", err)
	case !surely && m.Target.Kind != "webhook":
		to = unknown
		log.Warn("notify: it is not known whether a message arrived", "error", err)
	default:
		m.Next = b.now().Add(b.wait(m.Tries))
		log.Warn("notify: a message is tried again", "tries", m.Tries, "next", m.Next, "error", err)
	}
	// It is in one folder at any time: were it in two, another process could send it while this one still removes it.
	if err := b.write(m, sending); err != nil {
		log.Error("notify: write a message", "error", err)
	}
	b.move(m.ID, sending, to)
	if to == pending {
		return max(m.Next.Sub(b.now()), time.Millisecond)
	}
	return 0
}
