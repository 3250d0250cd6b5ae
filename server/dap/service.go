package dap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter"
	"fairlead.dev/server/client"
)

// eventQueue is how many events may wait for the adapter, which takes them as they come.
const eventQueue = 1024

// The waits before a claim is tried again after a loss.
const (
	againFirst = 100 * time.Millisecond
	againMost  = 5 * time.Second
)

// service is a service under edit as the debug adapter sees it; see debugadapter.Service. Its goroutines: one that follows
// what the agent tells, through losses of it, one that tells it what the debugger does, and one that closes what both use.
type service struct {
	f       *front
	name    string
	req     api.RunRequest // what launch asked for; the zero value where it runs by others' wish
	onSave  string
	noDebug bool

	ctx      context.Context // of the debug session
	cancel   context.CancelFunc
	events   chan debugadapter.Event
	commands chan api.DebugCommand
	wg       sync.WaitGroup

	mu   sync.Mutex
	sess *client.DebugSession // nil while there is none
	err  error                // why the service is over
}

func (s *service) launched() bool { return s.req.Path != "" || s.req.Dir != "" }

// begin claims the debugger and waits until there is something to look at: the first process, or why there is none.
func (s *service) begin(ctx context.Context, progress func(string)) error {
	if s.noDebug {
		s.wg.Go(s.watch)
	} else {
		sess, err := s.f.c.Debug(ctx, s.name, s.onSave)
		if err != nil {
			return err
		}
		s.sess = sess
		s.wg.Go(func() { s.follow(sess) })
		s.wg.Go(s.tell)
	}
	go func() { // ends with the two
		s.wg.Wait()
		close(s.events)
	}()
	last := ""
	err := s.f.wait(ctx, func() bool {
		svc, ok := s.f.known[s.name]
		if !ok {
			return false
		}
		if text := phaseText(svc); text != last {
			last = text
			progress(text)
		}
		switch svc.Phase {
		case api.PhaseEnded, api.PhaseFailed, api.PhaseDown:
			return true
		case api.PhaseLive, api.PhaseStarting:
			return s.noDebug || svc.Debug != nil && svc.Debug.Ready
		}
		return false
	})
	svc, _ := s.f.service(s.name)
	switch {
	case err != nil:
	case svc.Phase == api.PhaseEnded:
		err = endedError(svc)
	case svc.Phase == api.PhaseFailed:
		s.events <- debugadapter.Event{Kind: debugadapter.Gone, Text: cmp.Or(svc.Detail, "it does not build") + ": the next save that builds starts it"}
	case svc.Phase == api.PhaseDown:
		s.events <- debugadapter.Event{Kind: debugadapter.Gone, Text: cmp.Or(svc.Detail, "the process ended") + ": the next save starts it again"}
	case svc.URL != "":
		s.events <- debugadapter.Event{Kind: debugadapter.Note, Text: "live at " + svc.URL}
	}
	if err != nil {
		s.close()
	}
	return err
}

// phaseText says what is being done, for a progress message.
func phaseText(svc api.Service) string {
	words := map[api.Phase]string{api.PhaseOpening: "opening the environment", api.PhaseBuilding: "building", api.PhaseShipping: "shipping",
		api.PhaseStarting: "starting", api.PhaseLost: "reconnecting", api.PhaseWaking: "waking the environment", api.PhaseStopping: "stopping"}
	text := cmp.Or(words[svc.Phase], string(svc.Phase))
	if svc.Detail != "" {
		text += ": " + svc.Detail
	}
	return text
}

func endedError(svc api.Service) error {
	for i := range svc.Problems {
		if p := &svc.Problems[i]; p.Severity == "" || p.Severity == api.SeverityError {
			return p
		}
	}
	return &api.Problem{Code: api.CodeGone, Message: "the environment is gone: " + cmp.Or(svc.Detail, "it was stopped"), Hint: "debug again to make a new one"}
}

// watch waits for the end of a service that is run without the debugger.
func (s *service) watch() {
	err := s.f.wait(s.ctx, func() bool {
		svc, ok := s.f.known[s.name]
		return ok && svc.Phase == api.PhaseEnded
	})
	if err == nil {
		svc, _ := s.f.service(s.name)
		err = endedError(svc)
	}
	s.over(err)
}

// follow hands on what the agent tells, and claims the debugger again when the agent was lost.
func (s *service) follow(sess *client.DebugSession) {
	defer s.cancel()
	for {
		err := s.read(sess)
		if s.ctx.Err() != nil {
			return
		}
		var p *api.Problem
		if errors.As(err, &p) && p.Code == api.CodeGone {
			if svc, ok := s.f.service(s.name); ok && svc.Phase == api.PhaseEnded {
				err = endedError(svc)
			}
			s.over(err)
			return
		}
		s.event(debugadapter.Event{Kind: debugadapter.Gone, Text: err.Error() + ": it is started again"})
		if sess, err = s.again(); err != nil {
			s.over(err)
			return
		}
	}
}

func (s *service) read(sess *client.DebugSession) error {
	defer sess.Close()
	for {
		e, err := sess.Next()
		if err != nil {
			return err
		}
		switch {
		case e.Building != 0:
			s.event(debugadapter.Event{Kind: debugadapter.Building, Generation: e.Building})
		case e.Process != 0:
			s.event(debugadapter.Event{Kind: debugadapter.Process, Generation: e.Process})
		case e.Gone != "":
			s.event(debugadapter.Event{Kind: debugadapter.Gone, Text: e.Gone})
		case e.Note != "":
			s.event(debugadapter.Event{Kind: debugadapter.Note, Text: e.Note})
		}
	}
}

func (s *service) event(e debugadapter.Event) {
	select {
	case s.events <- e:
	case <-s.ctx.Done():
	}
}

// again claims the debugger when the agent is there again. What was launched is asked for anew; what others run is waited
// for.
func (s *service) again() (*client.DebugSession, error) {
	s.mu.Lock()
	s.sess = nil
	s.mu.Unlock()
	for wait := againFirst; ; wait = min(2*wait, againMost) {
		err := s.f.wait(s.ctx, func() bool { return s.f.synced })
		if err == nil && s.launched() {
			_, err = s.f.c.Run(s.ctx, s.req)
		}
		var sess *client.DebugSession
		if err == nil {
			sess, err = s.f.c.Debug(s.ctx, s.name, s.onSave)
		}
		if err == nil {
			s.mu.Lock()
			s.sess = sess
			s.mu.Unlock()
			return sess, nil
		}
		var p *api.Problem
		if s.ctx.Err() != nil || errors.As(err, &p) && p.Code == api.CodeDebugHeld {
			return nil, err
		}
		s.f.log.Info("the debugger is claimed again", "err", err)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return nil, s.ctx.Err()
		}
	}
}

// tell tells the agent what the debugger does, in order. What cannot be told is of a session that is over.
func (s *service) tell() {
	for {
		select {
		case cmd := <-s.commands:
			s.mu.Lock()
			sess := s.sess
			s.mu.Unlock()
			if sess != nil {
				sess.Do(cmd)
			}
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *service) over(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

func (s *service) Events() <-chan debugadapter.Event { return s.events }

func (s *service) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *service) Dial(ctx context.Context, g api.Generation) (io.ReadWriteCloser, api.DebugStart, error) {
	return s.f.c.DialDebug(ctx, s.name, g)
}

func (s *service) Stopped(stopped bool) { s.command(api.DebugCommand{Stopped: &stopped}) }

func (s *service) command(cmd api.DebugCommand) {
	select {
	case s.commands <- cmd:
	default: // the agent is away for longer than it takes to stop a thousand times
	}
}

func (s *service) Restart(context.Context) error {
	s.mu.Lock()
	there := s.sess != nil
	s.mu.Unlock()
	if !there {
		return fmt.Errorf("the agent is not there: it is started again")
	}
	s.command(api.DebugCommand{Restart: true})
	return nil
}

// detachedFor is how long what launch made stays after its debugger has let go of it: as long as the agent keeps what a
// closed editor held.
const detachedFor = time.Minute

// End ends the debug session. What launch made goes with terminate, unless others hold it too; else it stays as what a
// closed editor held does.
func (s *service) End(terminate bool) error {
	s.close()
	if terminate || !s.launched() {
		s.f.leave()
	} else {
		time.AfterFunc(detachedFor, s.f.cancel) // unless this process ends before, which comes to the same
	}
	return nil
}

// close ends the debug session alone.
func (s *service) close() {
	s.cancel()
	s.mu.Lock()
	sess := s.sess
	s.mu.Unlock()
	if sess != nil {
		sess.Close()
	}
}
