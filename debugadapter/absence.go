package debugadapter

import (
	"fmt"
	"slices"
	"time"
)

// toProcess forwards a request that needs a process, lets it wait for one that is on its way, or answers without.
func (s *session) toProcess(req obj) {
	switch {
	case s.be != nil && s.be.ready:
		s.forward(s.be, req)
	case s.coming && !s.config.NoDebug:
		w := &waiter{m: req}
		w.timer = time.AfterFunc(patience, func() {
			s.post(func() {
				if slices.Contains(s.waiting, w) { // nobody waits for longer; a process may come all the same
					s.coming, s.absent = false, "no process came within 30 seconds"
					s.flush(s.withoutProcess)
				}
			})
		})
		s.waiting = append(s.waiting, w)
	default:
		s.withoutProcess(req)
	}
}

// flush gives the requests that wait to f, in order.
func (s *session) flush(f func(obj)) {
	waiting := s.waiting
	s.waiting = nil
	for _, w := range waiting {
		w.timer.Stop()
		f(w.m)
	}
}

// why there is no process, in words that end a sentence.
func (s *session) why() string {
	switch {
	case s.config.NoDebug:
		return "it runs without the debugger"
	case s.absent != "":
		return s.absent
	case s.be != nil || s.coming:
		return "waiting for the process"
	}
	return "there is no process"
}

// withoutProcess answers a request that needs a process when there is none, so that the editor is content: as little as
// possible is an error, since editors show errors in windows.
func (s *session) withoutProcess(req obj) {
	why := s.why()
	switch req.str("command") {
	case "threads": // the protocol wants one at least, and there is room for the reason in its name
		s.answer(req, map[string]any{"threads": []map[string]any{{"id": 1, "name": why}}})
	case "stackTrace":
		s.answer(req, map[string]any{"stackFrames": []any{}, "totalFrames": 0})
	case "scopes":
		s.answer(req, map[string]any{"scopes": []any{}})
	case "variables":
		s.answer(req, map[string]any{"variables": []any{}})
	case "continue":
		s.answer(req, map[string]any{"allThreadsContinued": true})
	case "next", "stepIn", "stepOut", "stepBack", "reverseContinue":
		s.answer(req, nil)
	default:
		s.refuse(req, why, false)
	}
}

// timer runs f on the session's goroutine after d, unless the session is over by then.
func (s *session) timer(d time.Duration, f func()) {
	time.AfterFunc(d, func() { s.post(f) })
}

// gone notes that there is no process and that none is on its way.
func (s *session) gone(why string) {
	s.epoch++
	s.cut()
	s.goesOn()
	s.coming, s.absent = false, why
	s.started()
	s.console(why)
	for _, l := range s.lists {
		l.waiting(why)
		s.tellChanges(l)
	}
	s.flush(s.withoutProcess)
}

// tellChanges tells the client of the breakpoints that are not what it was told before.
func (s *session) tellChanges(l *list) {
	for _, m := range l.marks {
		if changed(m.said, m.told) {
			m.said = m.told
			s.event("breakpoint", map[string]any{"reason": "changed", "breakpoint": m.told})
		}
	}
}

// cut closes the connection to the debugger, if there is one. What waits for its answers is told that it was cancelled.
func (s *session) cut() {
	if be := s.be; be != nil {
		s.be = nil
		be.close()
	}
}

// goesOn tells a client that has a process stopped that it is not any more: it goes on, or is gone.
func (s *session) goesOn() {
	if s.stopped {
		s.stopped = false
		s.event("continued", map[string]any{"threadId": s.lastStop.num("threadId"), "allThreadsContinued": true})
	}
	s.lastStop = nil
	s.stand(false)
}

// exited: the service's process ended under the debugger. The client hears of it only if no other comes.
func (s *session) exited(be *backend) {
	if be.exited {
		return
	}
	be.exited = true
	s.epoch++
	s.coming = true
	s.cut()
	s.goesOn()
}

func (s *session) serviceOver() {
	if s.terminated || s.ended != nil {
		return
	}
	text := "the service is over"
	if err := s.service.Err(); err != nil {
		text = words(err)
	}
	s.gone(text)
	s.tellTerminated()
}

func (s *session) onServiceEvent(e Event) {
	if s.ended != nil {
		return
	}
	switch e.Kind {
	case Building:
		var paths []string
		for _, l := range s.lists {
			if l.path != "" {
				paths = append(paths, l.path)
			}
		}
		s.src.building(e.Generation, paths)
	case Process:
		s.process(e)
	case Gone:
		s.gone(e.Text)
	case Note:
		s.console(e.Text)
	default:
		s.log.Debug("an event of an unknown kind", "event", fmt.Sprintf("%+v", e))
	}
}
