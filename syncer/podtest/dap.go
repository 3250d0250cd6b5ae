package podtest

import (
	"bufio"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-dap"
)

// Session is a front end's side of a debug session, as plain as it can be: one request after another.
type Session struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	seq  int
	late []dap.Message // events that came before they were waited for
}

// NewSession speaks on a connection; every answer must come within a minute.
func NewSession(t testing.TB, conn net.Conn) *Session {
	t.Cleanup(func() { conn.Close() })
	return &Session{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// Close breaks the stream off.
func (s *Session) Close() { s.conn.Close() }

func (s *Session) read() (dap.Message, error) {
	s.conn.SetReadDeadline(time.Now().Add(time.Minute))
	return dap.ReadProtocolMessage(s.r)
}

// Try sends a request and returns its answer, which may be a refusal.
func (s *Session) Try(command string, args any) (dap.Message, error) {
	s.seq++
	b, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	if args == nil {
		b = []byte("{}")
	}
	msg, err := json.Marshal(map[string]any{"seq": s.seq, "type": "request", "command": command, "arguments": json.RawMessage(b)})
	if err != nil {
		return nil, err
	}
	if err := dap.WriteBaseMessage(s.conn, msg); err != nil {
		return nil, err
	}
	for {
		m, err := s.read()
		if err != nil {
			return nil, err
		}
		if r, ok := m.(dap.ResponseMessage); ok && r.GetResponse().RequestSeq == s.seq {
			return m, nil
		}
		s.late = append(s.late, m)
	}
}

// Ask sends a request that must succeed.
func (s *Session) Ask(command string, args any) dap.Message {
	s.t.Helper()
	m, err := s.Try(command, args)
	if err != nil {
		s.t.Fatalf("%s: %v", command, err)
	}
	if e, ok := m.(*dap.ErrorResponse); ok {
		s.t.Fatalf("%s: %s: %+v", command, e.Message, e.Body.Error)
	}
	return m
}

// Event returns the next event of a name.
func (s *Session) Event(name string) dap.Message {
	s.t.Helper()
	for i, m := range s.late {
		if e, ok := m.(dap.EventMessage); ok && e.GetEvent().Event == name {
			s.late = append(s.late[:i:i], s.late[i+1:]...)
			return m
		}
	}
	for {
		m, err := s.read()
		if err != nil {
			s.t.Fatalf("waiting for the event %s: %v", name, err)
		}
		if e, ok := m.(dap.EventMessage); ok && e.GetEvent().Event == name {
			return m
		}
		s.late = append(s.late, m)
	}
}

// Output waits for a line of the program's that begins so.
func (s *Session) Output(begin string) string {
	s.t.Helper()
	var all string
	for {
		all += s.Event("output").(*dap.OutputEvent).Body.Output
		for l := range strings.Lines(all) {
			if strings.HasPrefix(l, begin) && strings.HasSuffix(l, "\n") {
				return strings.TrimRight(l, "\n")
			}
		}
	}
}

// End waits for the end of the stream.
func (s *Session) End() {
	s.t.Helper()
	for {
		if _, err := s.read(); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				s.t.Fatal("the stream does not end")
			}
			return
		}
	}
}

// Attach begins a session with a process that the debugger has.
func (s *Session) Attach() {
	s.t.Helper()
	s.Ask("initialize", dap.InitializeRequestArguments{AdapterID: "go", LinesStartAt1: true, ColumnsStartAt1: true, PathFormat: "path"})
	s.Ask("attach", map[string]any{"mode": "remote"})
	s.Event("initialized")
}

// Break sets the breakpoints of a file, which must all be found.
func (s *Session) Break(file string, lines ...int) {
	s.t.Helper()
	at := []dap.SourceBreakpoint{}
	for _, l := range lines {
		at = append(at, dap.SourceBreakpoint{Line: l})
	}
	r := s.Ask("setBreakpoints", dap.SetBreakpointsArguments{Source: dap.Source{Path: file}, Breakpoints: at}).(*dap.SetBreakpointsResponse)
	for i, b := range r.Body.Breakpoints {
		if !b.Verified {
			s.t.Fatalf("breakpoint at line %d: %+v", lines[i], b)
		}
	}
}

// Go lets the process go on from where it was found.
func (s *Session) Go() { s.t.Helper(); s.Ask("configurationDone", nil) }

// Continue lets it go on from a stop.
func (s *Session) Continue() { s.t.Helper(); s.Ask("continue", map[string]any{"threadId": 1}) }

// Stopped waits until the process stands at a line, and returns the frame that it stands in.
func (s *Session) Stopped(line int) dap.StackFrame {
	s.t.Helper()
	e := s.Event("stopped").(*dap.StoppedEvent)
	f := s.Top(e.Body.ThreadId)
	if f.Line != line {
		s.t.Fatalf("stopped (%s %s) at line %d (%s), want %d", e.Body.Reason, e.Body.Text, f.Line, f.Name, line)
	}
	return f
}

// Top is the innermost frame of a goroutine.
func (s *Session) Top(thread int) dap.StackFrame {
	s.t.Helper()
	r := s.Ask("stackTrace", dap.StackTraceArguments{ThreadId: thread}).(*dap.StackTraceResponse)
	if len(r.Body.StackFrames) == 0 {
		s.t.Fatal("no stack")
	}
	return r.Body.StackFrames[0]
}

// Value evaluates an expression in a frame.
func (s *Session) Value(frame dap.StackFrame, expr string) string {
	s.t.Helper()
	return s.Ask("evaluate", dap.EvaluateArguments{Expression: expr, FrameId: frame.Id}).(*dap.EvaluateResponse).Body.Result
}

// Line is the number of the line of a source that ends in a mark.
func Line(t testing.TB, source, mark string) int {
	t.Helper()
	for i, l := range strings.Split(source, "\n") {
		if strings.HasSuffix(strings.TrimSpace(l), mark) {
			return i + 1
		}
	}
	t.Fatalf("no line ends in %q", mark)
	return 0
}
