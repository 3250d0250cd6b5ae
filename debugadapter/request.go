package debugadapter

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// onRequest handles one request of the editor's.
func (s *session) onRequest(req obj) {
	command := req.str("command")
	if s.init == nil && command != "initialize" && command != "disconnect" {
		s.refuse(req, "the first request must be initialize", false)
		return
	}
	switch command {
	case "initialize":
		s.onInitialize(req)
		return
	case "launch", "attach":
		s.onLaunch(req, command == "attach")
		return
	case "disconnect":
		s.onDisconnect(req)
		return
	case "cancel":
		s.onCancel(req)
		return
	case "terminate": // VS Code sends it after a launch that was refused
		s.onTerminate(req)
		return
	}
	// After a launch that failed, what the editor was led to by initialized may still be on its way, and its refusal would be shown beside
	// the failure.
	late := s.refused && slices.Contains([]string{"setBreakpoints", "setFunctionBreakpoints", "setExceptionBreakpoints", "configurationDone"}, command)
	if !s.accepted && !late {
		s.refuse(req, "no debug session started: use launch or attach first", false)
		return
	}
	switch command {
	case "setBreakpoints", "setFunctionBreakpoints", "setInstructionBreakpoints", "setDataBreakpoints":
		s.onSetBreakpoints(req, command)
	case "setExceptionBreakpoints":
		s.exceptions = req.sub("arguments")
		if s.be != nil && s.be.replayed {
			s.forward(s.be, req)
		} else {
			s.answer(req, nil)
		}
	case "configurationDone":
		s.onConfigured(req)
	case "restart":
		s.onRestart(req)
	default:
		s.toProcess(req)
	}
}

func (s *session) onInitialize(req obj) {
	if s.init != nil {
		s.refuse(req, "initialize came before", false)
		return
	}
	args := req.sub("arguments")
	// As Delve has it. The members are optional, with these defaults; Delve's decoder takes an absent boolean for false.
	bad := ""
	switch {
	case args["pathFormat"] != nil && args.str("pathFormat") != "path":
		bad = fmt.Sprintf("unsupported pathFormat %q: only %q", args.str("pathFormat"), "path")
	case args["linesStartAt1"] != nil && !args.is("linesStartAt1"):
		bad = "only lines that start at 1 are supported"
	case args["columnsStartAt1"] != nil && !args.is("columnsStartAt1"):
		bad = "only columns that start at 1 are supported"
	}
	if bad != "" {
		s.refuse(req, bad, false)
		return
	}
	s.init = clone(args)
	s.init["pathFormat"], s.init["linesStartAt1"], s.init["columnsStartAt1"] = raw("path"), raw(true), raw(true)
	if s.init["adapterID"] == nil {
		s.init["adapterID"] = raw("go")
	}
	s.answer(req, capabilities())
}

func (s *session) onLaunch(req obj, attach bool) {
	if s.accepted {
		s.refuse(req, "this session has launched or attached already", true)
		return
	}
	config, err := parseConfig(req["arguments"], attach)
	if err != nil {
		s.refuse(req, words(err), true)
		return
	}
	s.accepted, s.refused, s.configured, s.attach, s.config, s.start = true, false, false, attach, config, req
	s.src = newSources(time.Now())
	s.absent = "nothing runs yet"
	client := s.init.str("clientName")
	if client == "" {
		client = s.init.str("clientID")
	}
	s.event("initialized", nil)
	s.begin(Request{Attach: attach, Config: config, Client: client})
}

// begin asks the host, and shows what it does.
func (s *session) begin(r Request) {
	ctx, cancel := context.WithCancel(s.ctx)
	s.beginning = cancel
	if s.init.is("supportsProgressReporting") {
		s.progress = "fairlead-begin"
		title := "Starting the debug session"
		if r.Attach {
			title = "Attaching"
		}
		s.event("progressStart", map[string]any{"progressId": s.progress, "title": title, "cancellable": true})
	}
	s.spawn(func() {
		defer cancel()
		begun, err := s.host.Begin(ctx, r, func(what string) { s.post(func() { s.progressed(what) }) })
		if !s.post(func() { s.begun(begun, err) }) && err == nil { // nobody is there any more
			switch {
			case begun.Service != nil:
				if err := begun.Service.End(s.terminate); err != nil {
					s.log.Warn("letting go of the service", "error", err)
				}
			case begun.Program != nil && begun.Program.Close != nil:
				begun.Program.Close()
			}
		}
	})
}

func (s *session) progressed(what string) {
	if s.beginning == nil {
		return
	}
	s.absent = what
	if s.progress != "" {
		s.event("progressUpdate", map[string]any{"progressId": s.progress, "message": what})
	} else {
		s.console(what)
	}
}

func (s *session) begun(begun Begun, err error) {
	if s.progress != "" {
		s.event("progressEnd", map[string]any{"progressId": s.progress})
		s.progress = ""
	}
	s.beginning = nil
	req := s.start
	if err == nil && (begun.Service == nil) == (begun.Program == nil) {
		err = fmt.Errorf("neither a service nor a program was found")
	}
	if err != nil {
		s.start, s.accepted, s.refused = nil, false, true
		s.refuse(req, words(err), true)
		return
	}
	if begun.Program != nil {
		s.program = begun.Program
		s.openProgram() // the request is answered when the debugger has
		return
	}
	s.service = begun.Service
	s.coming, s.absent = true, ""
	switch {
	case s.config.NoDebug:
		s.started()
	case !s.configured: // it is about to be, or the editor waits for the answer before
		s.timer(configureLimit, func() {
			if !s.configured {
				s.started()
			}
		})
	}
	s.timer(startLimit, s.started)
	svc := s.service
	s.spawn(func() {
		for {
			select {
			case e, ok := <-svc.Events():
				if !ok {
					s.post(s.serviceOver)
					return
				}
				s.post(func() { s.onServiceEvent(e) })
			case <-s.done:
				return
			}
		}
	})
}

const (
	// startLimit bounds how long the answer to launch or attach waits for the first process.
	startLimit = 10 * time.Second
	// configureLimit is how long it waits for an editor that has not sent its breakpoints yet.
	configureLimit = time.Second
)

// started answers launch or attach, once: when the first process has its breakpoints, so that who asks it next is sure to
// hit them, or when it is known that there is none yet.
func (s *session) started() {
	if req := s.start; req != nil && s.service != nil {
		s.start = nil
		s.answer(req, nil)
	}
}

// onSetBreakpoints keeps what the client wants, and tells it what is known.
func (s *session) onSetBreakpoints(req obj, command string) {
	args := req.sub("arguments")
	path := ""
	if command == "setBreakpoints" {
		if path = args.sub("source").str("path"); path == "" {
			s.refuse(req, "breakpoints need a source with a path", false)
			return
		}
	}
	if be := s.be; (command == "setInstructionBreakpoints" || command == "setDataBreakpoints") && (be == nil || !be.ready) && len(args.list("breakpoints")) > 0 {
		s.refuse(req, "there is no process to set this breakpoint in: "+s.why(), false)
		return
	}
	l := s.list(command, path)
	s.take(l, args)
	be := s.be
	if be == nil || !be.replayed {
		l.waiting(s.why())
		s.answer(req, body(l.marks))
		return
	}
	ask, sent := s.request(l)
	marks := l.marks
	be.send(obj{"command": req["command"], "arguments": raw(ask)}, func(m obj) {
		switch {
		case wasCut(m): // it is kept, and set in the next process
			for _, k := range sent {
				k.told = unset(k, l, s.why())
			}
		case !m.is("success") && len(sent) == len(marks):
			for _, k := range sent {
				k.told = unset(k, l, reason(m))
			}
			m["request_seq"], m["command"] = req["seq"], req["command"]
			s.send(m)
			return
		default:
			s.answered(be, l, sent, m)
		}
		s.answer(req, body(marks))
	})
}

func (s *session) onConfigured(req obj) {
	s.answer(req, nil)
	if s.configured {
		return
	}
	s.configured = true
	if s.be != nil {
		s.configure(s.be)
	}
}

func (s *session) onCancel(req obj) {
	args := req.sub("arguments")
	if id := args.str("progressId"); id != "" && id == s.progress && s.beginning != nil {
		s.beginning()
	}
	if seq := args["requestId"]; seq != nil {
		if i := slices.IndexFunc(s.waiting, func(w *waiter) bool { return string(w.m["seq"]) == string(seq) }); i >= 0 {
			w := s.waiting[i]
			w.timer.Stop()
			s.waiting = slices.Delete(s.waiting, i, i+1)
			s.cancelled(w.m)
		}
		if s.start != nil && string(s.start["seq"]) == string(seq) && s.beginning != nil {
			s.beginning()
		}
	}
	s.answer(req, nil) // what the debugger works at cannot be cancelled; the protocol allows that
}

func (s *session) onDisconnect(req obj) {
	terminate := req.sub("arguments").is("terminateDebuggee")
	if s.start != nil { // launch or attach waits for an answer
		s.cancelled(s.start)
		s.start = nil
	}
	if s.program != nil && s.be != nil && !s.be.exited {
		s.disconnectProgram(req, terminate)
		return
	}
	s.letGo(terminate, func() {
		s.answer(req, nil)
		s.finish(nil)
	})
}

func (s *session) onTerminate(req obj) {
	if s.program != nil && s.be != nil {
		be := s.be
		s.answer(req, nil)
		be.request("disconnect", map[string]any{"terminateDebuggee": true}, func(obj) {})
		return
	}
	s.letGo(true, func() {
		s.answer(req, nil)
		s.tellTerminated()
	})
}

// tellTerminated says that there is nothing more to debug, once.
func (s *session) tellTerminated() {
	if !s.terminated {
		s.terminated = true
		s.event("terminated", nil)
	}
}

func (s *session) onRestart(req obj) {
	switch {
	case s.beginning != nil || s.service == nil && s.program == nil:
		s.refuse(req, "there is nothing to restart yet: "+s.why(), true)
	case s.busy:
		s.refuse(req, "a restart is under way", true)
	case s.program != nil:
		s.restartProgram(req)
	default:
		s.busy = true
		svc := s.service
		s.spawn(func() {
			err := svc.Restart(s.ctx)
			s.post(func() {
				s.busy = false
				if err != nil {
					s.refuse(req, words(err), true)
					return
				}
				s.answer(req, nil)
			})
		})
	}
}
