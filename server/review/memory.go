package review

import (
	"context"
	"sync"
	"time"

	"fairlead.dev/api"
)

// Memory has the last plan, so that what is agreed to a moment later needs no look at everything again: only at whether the work tree is
// as it was. It has who people are on a forge too.
//
// It has a goroutine for what is read of a history meanwhile, which ends with Close. The zero value is ready.
type Memory struct {
	// Brief: whoever has it ends soon, so that nothing is left for later.
	Brief bool

	mu   sync.Mutex
	last *prepared
	of   Options
	// logins are those of addresses on forges, by both; who was not found has an empty one.
	logins map[[2]string]login

	cancel context.CancelFunc // of what is done meanwhile; nil: nothing is
	busy   int                // who waits for a draft
	closed bool
	wg     sync.WaitGroup
}

type login struct {
	name string
	at   time.Time
}

// loginStays is for how long it is believed who somebody is on a forge, or that they are not there.
const loginStays = 15 * time.Minute

// login is what was learned of an address.
func (m *Memory) login(forge, email string) (name string, ok bool) {
	if m == nil {
		return "", false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.logins[[2]string{forge, email}]
	return l.name, ok && time.Since(l.at) < loginStays
}

func (m *Memory) learn(forge, email, name string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.logins == nil {
		m.logins = map[[2]string]login{}
	}
	m.logins[[2]string{forge, email}] = login{name, time.Now()}
}

// begin says that somebody waits for a draft, until end.
func (m *Memory) begin() (end func()) {
	if m == nil {
		return func() {}
	}
	add := func(n int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.busy += n
	}
	add(1)
	return func() { add(-1) }
}

// meanwhile does something that nobody waits for, one at a time, and begins it while nobody waits for something else.
func (m *Memory) meanwhile(f func(context.Context)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.wg.Go(func() {
		defer cancel()
		for busy := true; busy; {
			select {
			case <-time.After(meanwhileAfter):
			case <-ctx.Done():
				return
			}
			m.mu.Lock()
			busy = m.busy > 0
			m.mu.Unlock()
		}
		f(ctx)
		m.mu.Lock()
		m.cancel = nil
		m.mu.Unlock()
	})
}

// Close ends what is done meanwhile, and waits for that.
func (m *Memory) Close() {
	m.mu.Lock()
	m.closed = true
	if m.cancel != nil {
		m.cancel()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *Memory) keep(p *prepared, o Options) {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.last, m.of = p, o
	}
}

// recall takes the plan that a request is about, with the work tree as it is now; nil where there is none that still holds.
func (m *Memory) recall(ctx context.Context, o Options, req api.ReviewRequest) (*prepared, error) {
	if m == nil || req.State == "" {
		return nil, nil
	}
	m.mu.Lock()
	p, of := m.last, m.of
	m.last = nil // what it is used for changes it
	m.mu.Unlock()
	if p == nil || p.State != req.State || o.Base != of.Base && o.Base != p.Base || o.Template != of.Template || o.Ticket != of.Ticket || o.TicketURL != of.TicketURL {
		return nil, nil
	}
	o.progress("looking at the work tree")
	t, err := look(ctx, o.Dir, o.Env, o.Alone)
	if err != nil || t.doing != "" || len(t.clash) > 0 {
		return nil, err
	}
	if now, err := t.state(ctx); err != nil || now != p.State {
		return nil, err
	}
	p.tree = t
	return p, nil
}
