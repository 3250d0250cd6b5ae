package dap

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"fairlead.dev/api"
	"fairlead.dev/server/client"
)

// front is one attachment to the agent. Its goroutine is the attachment's, ended by leave or abandon.
type front struct {
	c      *client.Client
	log    *slog.Logger
	ctx    context.Context // of the attachment: it lives as long as the debug session
	cancel context.CancelFunc
	ended  chan struct{} // closed when the attachment is over

	mu     sync.Mutex
	known  map[string]api.Service // those that ended too, as they were last
	synced bool
	err    error         // why the attachment is over, or could not be made
	news   chan struct{} // closed and replaced at each change
}

func newFront(c *client.Client, log *slog.Logger) *front {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &front{c: c, log: log, ctx: ctx, cancel: cancel, ended: make(chan struct{}), known: map[string]api.Service{}, news: make(chan struct{})}
}

// attach attaches to the agent and waits until it has said what there is.
func (f *front) attach(ctx context.Context) error {
	go func() {
		defer close(f.ended)
		err := f.c.Attach(f.ctx, f.update)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.err = err
		f.changed()
	}()
	return f.wait(ctx, func() bool { return f.synced })
}

func (f *front) update(u client.Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case u.Lost != nil:
		f.log.Info("the agent is lost", "err", u.Lost)
		f.synced = false
	case u.Agent != nil:
		clear(f.known)
	case u.Service != nil:
		f.known[u.Service.Name] = *u.Service
	case u.Synced:
		f.synced = true
	default:
		return
	}
	f.changed()
}

func (f *front) changed() {
	close(f.news)
	f.news = make(chan struct{})
}

// wait waits until is holds, under the lock; for the attachment's end, which is an error; or for ctx's.
func (f *front) wait(ctx context.Context, is func() bool) error {
	for {
		f.mu.Lock()
		ok, err, news := is(), f.err, f.news
		f.mu.Unlock()
		switch {
		case ok:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *front) service(name string) (api.Service, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.known[name]
	return s, ok
}

func (f *front) services() []api.Service {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []api.Service
	for _, s := range f.known {
		if s.Phase != api.PhaseEnded {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b api.Service) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// leave lets go of what was launched, at once, and returns when the agent knows.
func (f *front) leave() {
	f.cancel()
	<-f.ended
}
