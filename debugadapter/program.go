package debugadapter

import (
	"encoding/json"
	"time"

	"fairlead.dev/api"
)

// openProgram begins the session of one process. The request that asked for it is answered as the debugger answers.
func (s *session) openProgram() {
	be := s.newBackend(s.program.Conn, api.DebugStart{Fresh: true})
	s.be = be
	s.coming, s.absent = true, ""
	args := map[string]json.RawMessage{}
	for k, v := range s.config.Display {
		args[k] = v
	}
	if s.config.StopOnEntry {
		args["stopOnEntry"] = raw(true)
	}
	var own obj
	_ = json.Unmarshal(s.program.Launch, &own)
	for k, v := range own {
		args[k] = v
	}
	if s.core() { // nothing in it can run: Delve would answer with a failed continue
		args["stopOnEntry"] = raw(true)
	}
	noDebug := obj(args).is("noDebug")
	be.request("initialize", s.init, func(obj) {})
	be.request("launch", obj(args), func(m obj) {
		req := s.start
		s.start = nil
		switch {
		case wasCut(m):
			if req != nil {
				s.refuse(req, "the debugger ended before the program began: try again", true)
			}
		case m.is("success"):
			if req != nil {
				s.answer(req, nil)
			}
			if noDebug {
				be.ready = true
				s.settled(be)
			}
		case req != nil:
			m["request_seq"], m["command"] = req["seq"], req["command"]
			s.send(m)
			s.programEnds(be, nil)
		default: // of a restart
			s.console(reason(m))
			s.programEnds(be, nil)
		}
	})
	if s.configured && !noDebug {
		s.configure(be)
	}
}

// programEnds passes the program's end on. event is exited or terminated, nil where the debugger ended without.
func (s *session) programEnds(be *backend, event obj) {
	if s.busy {
		return // a restart's doing
	}
	be.exited = true
	if event.str("event") == "exited" {
		s.send(event)
		return
	}
	s.coming, s.absent = false, "the program has ended"
	s.stopped = false
	if event == nil {
		s.cut()
	}
	s.flush(s.withoutProcess)
	s.tellTerminated()
}

// disconnectProgram lets the debugger end the program, and waits for it.
func (s *session) disconnectProgram(req obj, terminate bool) {
	be, done := s.be, false
	end := func() {
		if !done {
			done = true
			s.letGo(terminate, func() {
				s.answer(req, nil)
				s.finish(nil)
			})
		}
	}
	be.request("disconnect", map[string]any{"terminateDebuggee": terminate}, func(obj) { end() })
	s.timer(parting, end)
}

// restartProgram builds and starts the program anew, for the same session.
func (s *session) restartProgram(req obj) {
	old := s.program
	if old.Again == nil {
		s.refuse(req, "this cannot be restarted: end the session and start it again", true)
		return
	}
	s.busy = true
	s.coming, s.absent = true, ""
	s.epoch++
	s.cut()
	s.goesOn()
	s.answer(req, nil)
	s.spawn(func() {
		if old.Close != nil {
			old.Close()
		}
		again, err := old.Again(s.ctx)
		if !s.post(func() { s.restarted(again, err) }) && err == nil && again.Close != nil {
			again.Close()
		}
	})
}

func (s *session) restarted(again *Program, err error) {
	s.busy = false
	if err != nil {
		s.console(words(err))
		s.coming, s.absent = false, words(err)
		s.flush(s.withoutProcess)
		s.tellTerminated()
		return
	}
	s.program, s.terminated = again, false
	s.src.running.began = time.Now()
	clear(s.src.running.texts)
	s.openProgram()
}
