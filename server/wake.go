package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"fairlead.dev/api"
)

// sleeper is a bridge.Environment that somebody else may put to sleep (on Kubernetes, a janitor).
type sleeper interface {
	// Wake wakes it if it is asleep, and says whether it did. What was put to sleep by hand is woken only if asked. why is
	// told as the use that it is.
	Wake(ctx context.Context, asked bool, why string) (woken bool, err error)
}

const (
	// wakeLimit bounds the act of waking, which is a few small writes.
	wakeLimit = 20 * time.Second
	// wakeWait is how long a request waits for an environment that is being woken: a fresh copy of a dependency alone may
	// take a minute and a half to get ready, and then the service is shipped and started.
	wakeWait = 3 * time.Minute
)

// waking is what is known of an environment that is away.
type waking struct {
	mu   sync.Mutex
	call *wakeCall // under way
	// woken: it was woken, and is not connected yet. why is why the connection was lost last.
	woken bool
	why   string
}

// wakeCall is one attempt, which everybody who comes meanwhile takes part in.
type wakeCall struct {
	asked, woken bool
	done         chan struct{}
}

// wake wakes the environment if it is asleep, and tells it. It says whether it did.
func (s *Session) wake(asked bool, why string) bool {
	select {
	case <-s.envReady:
	default:
		return false // it is just being opened, which wakes it
	}
	env, ok := s.opened().(sleeper)
	if !ok {
		return false
	}
	w := &s.waking
	w.mu.Lock()
	if c := w.call; c != nil && (c.asked || !asked) {
		w.mu.Unlock()
		<-c.done
		return c.woken
	}
	c := &wakeCall{asked: asked, done: make(chan struct{})}
	w.call = c
	w.mu.Unlock()

	ctx, cancel := context.WithTimeout(s.life, wakeLimit)
	defer cancel()
	var err error
	c.woken, err = env.Wake(ctx, asked, why)
	if c.woken {
		s.tell("waking", why)
		s.uses.note(why)
	}
	w.mu.Lock()
	w.woken = w.woken || c.woken
	if err != nil {
		w.why = err.Error()
	}
	if w.call == c {
		w.call = nil
	}
	w.mu.Unlock()
	close(c.done)
	if err != nil && s.life.Err() == nil {
		s.cfg.Logger.Warn("the environment was not woken", "err", err)
		var p *api.Problem
		if errors.As(err, &p) && p.Code != api.CodeGone { // which the connection tells
			q := *p
			q.Owner, q.Severity = keyEnvironment, api.SeverityWarning
			q.Message = "wake the environment: " + q.Message
			s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.keep.get().Generation}, Problem: q})
		}
	}
	if c.woken {
		s.conn.Retry()
	}
	return c.woken
}

// Wanted tells that a front end asks for the environment, which wakes it.
func (s *Session) Wanted(why string) {
	if !s.conn.Up() {
		s.wake(true, why)
	}
}

// away notes why the environment cannot be reached; nil: it can.
func (s *Session) away(err error) {
	w := &s.waking
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.woken, w.why = false, ""
		return
	}
	w.why = err.Error()
}

// broken says whether a connection ended while a stream was opened on it.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// dialPort opens a connection to a port of the service for a request. An environment that is asleep is woken for it.
func (s *Session) dialPort(ctx context.Context, port int) (net.Conn, error) {
	s.uses.note("a request")
	limit := tunnelWait
	if !s.conn.Up() {
		s.wake(true, "a request")
		s.waking.mu.Lock()
		if s.waking.woken {
			limit = wakeWait
		}
		s.waking.mu.Unlock()
	}
	dctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := s.conn.DialPort(dctx, port)
	for broken(err) && dctx.Err() == nil { // it was lost under our hands, and nothing of the request was sent
		if pause(dctx, 50*time.Millisecond) != nil {
			break
		}
		c, err = s.conn.DialPort(dctx, port)
	}
	if err != nil && ctx.Err() == nil && errors.Is(dctx.Err(), context.DeadlineExceeded) {
		s.waking.mu.Lock()
		why := s.waking.why
		s.waking.mu.Unlock()
		if why == "" {
			why = "its pod is not there yet"
		}
		err = &api.Problem{Code: api.CodeLost, Message: fmt.Sprintf("the environment could not be reached within %v: %s", limit, why), Hint: "fairlead status says how it is"}
	}
	return c, err
}
