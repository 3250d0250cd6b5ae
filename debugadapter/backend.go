package debugadapter

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"

	"fairlead.dev/api"
)

// backend is one DAP connection to a debugger. It belongs to the session's goroutine.
//
// Goroutines: a reader, which posts what comes to the session, and the writer of its outbox. Both end with close.
type backend struct {
	s     *session
	conn  io.ReadWriteCloser
	out   *outbox
	start api.DebugStart // of a service's process

	seq     int
	pending map[int]func(obj)
	ids     map[int]*mark // by the debugger's ids

	entry    bool // stopOnEntry was asked for, by the user or to keep the process where it stands
	replayed bool // the breakpoints were sent
	ready    bool // configured: requests may be forwarded
	tries    int
	held     []obj // events before that
	stepping bool
	exited   bool // its process ended, as it said
}

func (s *session) newBackend(conn io.ReadWriteCloser, start api.DebugStart) *backend {
	be := &backend{s: s, conn: conn, out: newOutbox(), start: start, pending: map[int]func(obj){}, ids: map[int]*mark{}}
	s.spawn(func() {
		be.out.run(conn)
		conn.Close()
	})
	s.spawn(func() {
		r := bufio.NewReader(conn)
		for {
			m, err := readMessage(r)
			if !s.post(func() { s.fromBackend(be, m, err) }) || err != nil {
				return
			}
		}
	})
	return be
}

// close ends the connection. What was asked for is answered as cancelled, in order.
func (be *backend) close() {
	be.out.close()
	be.conn.Close()
	for _, seq := range slices.Sorted(maps.Keys(be.pending)) {
		f := be.pending[seq]
		delete(be.pending, seq)
		f(obj{"success": raw(false), "message": raw("cancelled")})
	}
}

// send asks the debugger. done gets the response, on the session's goroutine; a response whose message is "cancelled" and
// which has no seq is the end of the connection.
func (be *backend) send(m obj, done func(obj)) {
	be.seq++
	m = clone(m)
	m["seq"], m["type"] = raw(be.seq), raw("request")
	be.pending[be.seq] = done
	if err := be.out.put(m); err != nil {
		be.s.log.Debug("write to the debugger", "error", err) // its reader will see the end
	}
}

func (be *backend) request(command string, args any, done func(obj)) {
	m := obj{"command": raw(command)}
	if args != nil {
		m["arguments"] = raw(args)
	}
	be.send(m, done)
}

// wasCut says whether a response stands for the connection's end.
func wasCut(m obj) bool { return m["seq"] == nil }

// fromBackend handles one message of a debugger's, or the end of them.
func (s *session) fromBackend(be *backend, m obj, err error) {
	if s.be != be {
		return // an older one's
	}
	if err != nil {
		s.log.Debug("the debugger's connection ended", "error", err)
		s.lost(be)
		return
	}
	switch m.str("type") {
	case "response":
		seq := m.num("request_seq")
		f := be.pending[seq]
		delete(be.pending, seq)
		if f != nil {
			f(m)
		}
	case "event":
		if !be.ready && s.hold(be, m) {
			be.held = append(be.held, m)
			return
		}
		s.onEvent(be, m)
	case "request": // runInTerminal and what may come
		seq := m["seq"]
		s.send(m)
		s.reverse[s.seq] = func(r obj) {
			if s.be == be {
				r["request_seq"] = seq
				be.seq++
				r["seq"] = raw(be.seq)
				_ = be.out.put(r)
			}
		}
	default:
		s.log.Debug("a message of no known type from the debugger", "type", m.str("type"))
	}
}

// hold says whether an event waits until the client knows of the new process. What ends it does not.
func (s *session) hold(be *backend, m obj) bool {
	switch m.str("event") {
	case "initialized", "capabilities", "exited", "terminated":
		return false
	}
	return true
}

// onEvent passes an event on, or keeps it from the client.
func (s *session) onEvent(be *backend, m obj) {
	switch name := m.str("event"); name {
	case "initialized": // the client's came at the beginning
		return
	case "capabilities": // the client was told more
		return
	case "exited", "terminated":
		if s.service != nil {
			s.exited(be)
			return
		}
		s.programEnds(be, m)
		return
	case "stopped":
		body := m.sub("body")
		if hit := body["hitBreakpointIds"]; hit != nil {
			body["hitBreakpointIds"] = raw(be.clientIDs(hit))
			m["body"] = raw(body)
		}
		be.stepping = false
		s.stopped, s.lastStop = true, body
		s.stand(true)
	case "continued":
		s.stopped = false
		if !be.stepping {
			s.stand(false)
		}
	case "breakpoint":
		body := m.sub("body")
		b := body.sub("breakpoint")
		if id := b.num("id"); id > 0 {
			k := be.ids[id]
			if k == nil {
				return
			}
			b["id"] = raw(k.id)
			s.showLine(b)
			k.told, k.said = b, b
			body["breakpoint"] = raw(b)
			m["body"] = raw(body)
		}
	case "output": // a log point says its place
		if body := m.sub("body"); body["line"] != nil && s.showLine(body) {
			m["body"] = raw(body)
		}
	}
	s.send(m)
}

// clientIDs gives the ids of breakpoints that were hit. Delve's own, of panics, are negative and stay.
func (be *backend) clientIDs(hit []byte) []int {
	out := []int{}
	for _, id := range (obj{"hit": hit}).ints("hit") {
		if id <= 0 {
			out = append(out, id)
		} else if k := be.ids[id]; k != nil {
			out = append(out, k.id)
		}
	}
	return out
}

// forward sends a request of the client's to the debugger, and the answer back.
func (s *session) forward(be *backend, req obj) {
	command := req.str("command")
	switch command {
	case "next", "stepIn", "stepOut", "stepBack":
		be.stepping = true
	}
	be.send(req, func(m obj) {
		if wasCut(m) {
			switch command {
			case "continue", "reverseContinue", "next", "stepIn", "stepOut", "stepBack": // it went on, to its end
				s.withoutProcess(req)
			default:
				s.cancelled(req)
			}
			return
		}
		ok := m.is("success")
		switch command {
		case "continue", "reverseContinue":
			if ok {
				s.stopped = false
				s.stand(false)
			}
		case "next", "stepIn", "stepOut", "stepBack":
			if ok {
				s.stopped = false
			} else {
				be.stepping = false
			}
		case "stackTrace":
			if ok {
				s.showFrames(m)
			}
		}
		m["request_seq"] = req["seq"]
		if m["command"] == nil || m.str("command") == "" { // Delve's internal errors have none
			m["command"] = req["command"]
		}
		s.send(m)
	})
}

// showFrames puts the frames where their code is in the files as they are now.
func (s *session) showFrames(m obj) {
	body := m.sub("body")
	frames := body.list("stackFrames")
	moved := false
	for _, f := range frames {
		if s.showLine(f) {
			moved = true
		}
	}
	if moved {
		body["stackFrames"] = raw(frames)
		m["body"] = raw(body)
	}
}

func (be *backend) String() string {
	return fmt.Sprintf("generation %d, pid %d", be.start.Generation, be.start.PID)
}
