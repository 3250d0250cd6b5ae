package debugadapter

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"fairlead.dev/api"
)

const (
	// A stream that broke off is asked for again at once, then with pauses up to the second of these.
	redialFirst, redialMost = 50 * time.Millisecond, 2 * time.Second
	// A debugger that does not come after so many dials is told of. The dialling goes on: the pod may come back.
	dialsUntold = 3
	// Delve now and then takes a held process for a running one, just after another session's end (seen 3 times in 15).
	replays = 5
	// A debugger that goes so often before it has taken the breakpoints is no debugger.
	failures = 5
)

// process: a process is there to be debugged, in the place of the one before.
func (s *session) process(e Event) {
	s.epoch++
	s.coming, s.absent = true, ""
	s.cut()
	s.goesOn()
	s.gen, s.failed = e.Generation, 0
	s.src.runs(e.Generation)
	if s.config.NoDebug {
		s.coming = false
		return
	}
	s.dial(s.epoch, e.Generation, 0)
}

// dial opens a stream to the debugger of a generation's process, until there is one, or another process, or none.
func (s *session) dial(epoch int, g api.Generation, after time.Duration) {
	svc := s.service
	s.spawn(func() {
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		if !s.pause(ctx, after) {
			return
		}
		for n, pause := 1, redialFirst; ; n, pause = n+1, min(2*pause, redialMost) {
			conn, start, err := svc.Dial(ctx, g)
			if err == nil {
				if !s.post(func() { s.dialled(epoch, conn, start) }) {
					conn.Close()
				}
				return
			}
			again := make(chan bool, 1)
			s.post(func() { again <- s.notDialled(epoch, n, err) })
			select {
			case yes := <-again:
				if !yes {
					return
				}
			case <-s.done:
				return
			}
			if !s.pause(ctx, pause) {
				return
			}
		}
	})
}

// pause waits. false: the session is over.
func (s *session) pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
	case <-s.done:
	}
	return false
}

// notDialled says whether to dial again.
func (s *session) notDialled(epoch, n int, err error) bool {
	if s.epoch != epoch || s.ended != nil {
		return false
	}
	var p *api.Problem
	code := ""
	if errors.As(err, &p) {
		code = p.Code
	}
	s.log.Debug("dial the debugger", "try", n, "error", err)
	switch code {
	case api.CodeNoProcess: // the next event says what is
		s.goesOn() // what stood is not there any more
		return false
	case api.CodeNoPtrace, api.CodeNoSymbols, api.CodeNoMemory, api.CodeDebugHeld, api.CodeDebugAway, api.CodeUnauthorized, api.CodeGone:
		s.gone(words(err))
		return false
	}
	if n == dialsUntold {
		s.console("the debugger cannot be reached, trying on: " + words(err))
	}
	return true
}

func (s *session) dialled(epoch int, conn io.ReadWriteCloser, start api.DebugStart) {
	if s.epoch != epoch || s.be != nil || s.ended != nil {
		conn.Close()
		return
	}
	be := s.newBackend(conn, start)
	s.be = be
	be.entry = start.Stopped || s.config.StopOnEntry && start.Fresh && !s.hadOne
	args := map[string]any{}
	for k, v := range s.config.Display {
		args[k] = v
	}
	args["mode"], args["stopOnEntry"] = "remote", be.entry
	be.request("initialize", s.init, func(obj) {})
	be.request("attach", args, func(m obj) {
		if !m.is("success") && !wasCut(m) {
			s.console("the debugger does not take the process: " + reason(m))
		}
	})
	if s.configured {
		s.configure(be)
	}
}

// configure replays what the client has set, all in one go: Delve answers in order, and a slow link costs one round trip.
func (s *session) configure(be *backend) {
	be.replayed = true
	same := s.hadOne && be.start.PID != 0 && be.start.PID == s.pid && !be.start.Fresh
	if !same {
		s.pid = be.start.PID
		s.goesOn()
	}
	for _, l := range s.lists {
		if !same && len(l.marks) > 0 {
			switch l.command {
			case "setInstructionBreakpoints":
				l.dropped = addressGone
			case "setDataBreakpoints":
				l.dropped = dataGone
			}
		}
		args, sent := s.request(l)
		if !same {
			s.settle(l)
		}
		if l.dropped != "" {
			continue
		}
		marks := l.marks
		be.request(l.command, args, func(m obj) {
			if !wasCut(m) && s.be == be && (len(marks) == 0 || len(l.marks) > 0 && l.marks[0] == marks[0]) {
				s.answered(be, l, sent, m)
			}
		})
	}
	if s.exceptions != nil {
		be.request("setExceptionBreakpoints", s.exceptions, func(obj) {})
	}
	be.request("configurationDone", nil, func(m obj) {
		switch {
		case wasCut(m):
		case !m.is("success") && be.tries < replays && isRunning(m):
			be.tries++
			s.log.Debug("the debugger takes the process for running", "try", be.tries)
			be.request("pause", map[string]any{"threadId": 1}, func(m obj) {
				if !wasCut(m) {
					s.configure(be)
				}
			})
		case !m.is("success"):
			s.console("the debugger does not let the process go on: " + reason(m))
			be.conn.Close() // to be dialled again
		default:
			s.live(be, same)
			for _, l := range s.lists {
				s.tellChanges(l)
			}
			s.settled(be)
		}
	})
}

// isRunning: Delve's refusal of a request for which the process must stand.
func isRunning(m obj) bool { return m.sub("body").sub("error").num("id") == 4000 }

// live: the process is configured, and the client's requests go to it.
func (s *session) live(be *backend, same bool) {
	be.ready = true
	s.coming, s.absent, s.failed = false, "", 0
	if same && s.stopped && !be.start.Stopped { // it stood when the stream broke off, and goes on now
		s.goesOn()
	}
}

// settled tells the client what there is to be told of the new process, then lets everything through.
func (s *session) settled(be *backend) {
	s.started()
	if s.hadOne && s.init.is("supportsInvalidatedEvent") {
		s.event("invalidated", map[string]any{"areas": []string{"all"}})
	}
	first := !s.hadOne
	s.hadOne = true
	held := be.held
	be.held = nil
	for _, m := range held {
		switch {
		case m.str("event") == "stopped" && be.start.Stopped: // Delve's "entry" on thread 1 is not where it stands
		case m.str("event") == "stopped" && s.core() && m.sub("body").str("reason") == "entry":
		case m.str("event") == "output" && !first && strings.Contains(string(m["body"]), "dlv help"): // once is enough
		default:
			s.onEvent(be, m)
		}
	}
	if be.start.Stopped || s.core() {
		s.findStopped(be)
	}
	s.flush(s.toProcess)
}

// core: a core file is what is looked at.
func (s *session) core() bool { return s.program != nil && s.config.Mode == "core" }

// findStopped tells the client where a process stands that stood before this connection.
func (s *session) findStopped(be *backend) {
	be.request("threads", nil, func(m obj) {
		if wasCut(m) || s.be != be {
			return
		}
		body := map[string]json.RawMessage{"reason": raw("pause"), "allThreadsStopped": raw(true), "threadId": raw(1)}
		if s.lastStop != nil {
			body = clone(s.lastStop)
		}
		for i, t := range m.sub("body").list("threads") {
			if i == 0 || strings.HasPrefix(t.str("name"), "* ") {
				body["threadId"] = raw(t.num("id"))
			}
		}
		s.stopped, s.lastStop = true, body
		s.stand(true)
		s.event("stopped", obj(body))
	})
}

// lost: the connection to a debugger ended, while its process may be there still.
func (s *session) lost(be *backend) {
	if s.program != nil {
		s.programEnds(be, nil)
		return
	}
	var after time.Duration
	if !be.ready {
		if s.failed++; s.failed == failures {
			s.gone("the debugger ended before it took the process, again and again: the next save starts a new process")
			return
		}
		after = redialFirst << s.failed
	}
	s.epoch++
	s.coming = true
	s.cut()
	s.dial(s.epoch, s.gen, after)
}
