// Package daptest is a client of the Debug Adapter Protocol for tests. Messages stay JSON, so that a test sees what was
// sent and not what a library has names for.
package daptest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-dap"
)

// Timeout is how long a client waits for an answer or an event before it fails its test. It is an end for a test that hangs,
// on a machine that is busy, and no measure of anything.
const Timeout = 60 * time.Second

// M is a JSON object to be sent.
type M = map[string]any

// Message is one message that came.
type Message struct {
	Seq        int             `json:"seq"`
	Type       string          `json:"type"`
	Command    string          `json:"command"`
	Event      string          `json:"event"`
	RequestSeq int             `json:"request_seq"`
	Success    bool            `json:"success"`
	Text       string          `json:"message"`
	Body       json.RawMessage `json:"body"`
	Raw        json.RawMessage `json:"-"` // all of it
}

// Into decodes the body, and fails the test where that cannot be.
func (m Message) Into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(m.Body, v); err != nil {
		t.Fatalf("the body of %s: %v\n%s", m, err, m.Body)
	}
}

// ErrorText is what an error answer says, its format where it has one.
func (m Message) ErrorText() string {
	var b struct {
		Error struct {
			Format string `json:"format"`
		} `json:"error"`
	}
	_ = json.Unmarshal(m.Body, &b)
	if b.Error.Format != "" {
		return b.Error.Format
	}
	return m.Text
}

// String is a line for a test's log.
func (m Message) String() string {
	name := m.Event
	if m.Type == "response" {
		name = fmt.Sprintf("%s (%v %s)", m.Command, m.Success, m.Text)
	}
	return strings.TrimSpace(m.Type + " " + name)
}

// Client is an editor. Its methods may be called by several goroutines, but events have one reader.
//
// Goroutines: a reader, which ends with the connection.
type Client struct {
	t    testing.TB
	conn io.ReadWriteCloser
	w    sync.Mutex

	mu      sync.Mutex
	seq     int
	pending map[int]chan Message
	unread  []Message // events
	all     []Message
	err     error
	more    chan struct{} // closed and replaced when something came
}

// New begins to read. The connection is closed when the test ends.
func New(t testing.TB, conn io.ReadWriteCloser) *Client {
	c := &Client{t: t, conn: conn, pending: map[int]chan Message{}, more: make(chan struct{})}
	go c.read()
	t.Cleanup(func() { conn.Close() })
	return c
}

func (c *Client) read() {
	r := bufio.NewReader(c.conn)
	for {
		b, err := dap.ReadBaseMessage(r)
		var m Message
		if err == nil {
			err = json.Unmarshal(b, &m)
		}
		c.mu.Lock()
		if err != nil {
			c.err = err
			for _, ch := range c.pending {
				close(ch)
			}
			c.pending = map[int]chan Message{}
		} else {
			m.Raw = b
			c.all = append(c.all, m)
			switch m.Type {
			case "response":
				if ch := c.pending[m.RequestSeq]; ch != nil {
					delete(c.pending, m.RequestSeq)
					ch <- m
				}
			case "event":
				c.unread = append(c.unread, m)
			}
		}
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Pending is a request that was sent.
type Pending struct {
	c       *Client
	command string
	ch      chan Message
	Seq     int
}

// Send sends a request. args may be nil.
func (c *Client) Send(command string, args any) *Pending {
	c.t.Helper()
	c.mu.Lock()
	c.seq++
	p := &Pending{c: c, command: command, ch: make(chan Message, 1), Seq: c.seq}
	if c.err == nil {
		c.pending[p.Seq] = p.ch
	} else {
		close(p.ch)
	}
	c.mu.Unlock()
	m := M{"seq": p.Seq, "type": "request", "command": command}
	if args != nil {
		m["arguments"] = args
	}
	b, err := json.Marshal(m)
	if err != nil {
		c.t.Fatalf("encode %s: %v", command, err)
	}
	c.Write(b)
	return p
}

// Write sends the bytes as one message, whatever they are.
func (c *Client) Write(b []byte) {
	c.t.Helper()
	c.w.Lock()
	defer c.w.Unlock()
	if err := dap.WriteBaseMessage(c.conn, b); err != nil {
		c.t.Logf("write: %v", err)
	}
}

// Wait returns the answer, success or not.
func (p *Pending) Wait() Message {
	p.c.t.Helper()
	select {
	case m, ok := <-p.ch:
		if !ok {
			p.c.t.Fatalf("the connection ended before %s was answered: %v\n%s", p.command, p.c.Err(), p.c.Log())
		}
		return m
	case <-time.After(Timeout):
		p.c.t.Fatalf("%s was not answered\n%s", p.command, p.c.Log())
	}
	return Message{}
}

// Answered says whether the answer is there, without waiting.
func (p *Pending) Answered() bool { return len(p.ch) > 0 }

// Call sends a request and returns its answer, success or not.
func (c *Client) Call(command string, args any) Message {
	c.t.Helper()
	return c.Send(command, args).Wait()
}

// Must sends a request that must succeed.
func (c *Client) Must(command string, args any) Message {
	c.t.Helper()
	m := c.Call(command, args)
	if !m.Success {
		c.t.Fatalf("%s failed: %s\n%s", command, m.ErrorText(), c.Log())
	}
	return m
}

// Event returns the next event of one of these names. Others that came before it are passed over.
func (c *Client) Event(names ...string) Message {
	c.t.Helper()
	return c.EventWhere(strings.Join(names, ", "), func(m Message) bool { return slices.Contains(names, m.Event) })
}

// EventWhere returns the next event that ok takes. Others that came before it are passed over.
func (c *Client) EventWhere(what string, ok func(Message) bool) Message {
	c.t.Helper()
	deadline := time.After(Timeout)
	for {
		c.mu.Lock()
		i := slices.IndexFunc(c.unread, ok)
		var m Message
		if i >= 0 {
			m = c.unread[i]
			c.unread = c.unread[i+1:]
		}
		err, more := c.err, c.more
		c.mu.Unlock()
		if i >= 0 {
			return m
		}
		if err != nil {
			c.t.Fatalf("the connection ended before the event %s: %v\n%s", what, err, c.Log())
		}
		select {
		case <-more:
		case <-deadline:
			c.t.Fatalf("the event %s did not come\n%s", what, c.Log())
		}
	}
}

// Ended waits until the other side has closed the connection.
func (c *Client) Ended() error {
	c.t.Helper()
	deadline := time.After(Timeout)
	for {
		c.mu.Lock()
		err, more := c.err, c.more
		c.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-more:
		case <-deadline:
			c.t.Fatalf("the connection did not end\n%s", c.Log())
		}
	}
}

// Seen is how many events of that name came, read or not.
func (c *Client) Seen(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, m := range c.all {
		if m.Event == name {
			n++
		}
	}
	return n
}

// All is everything that came, in order.
func (c *Client) All() []Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// Err is why the connection ended, nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection without a word, as an editor that vanishes does.
func (c *Client) Close() { c.conn.Close() }

// Log is the last messages, for a test that fails.
func (c *Client) Log() string {
	all := c.All()
	if len(all) > 40 {
		all = all[len(all)-40:]
	}
	var b strings.Builder
	b.WriteString("the last messages:\n")
	for _, m := range all {
		fmt.Fprintf(&b, "  %.400s\n", m.Raw)
	}
	return b.String()
}

// Initialize is what an editor that can everything sends.
func Initialize() M {
	return M{
		"clientID": "daptest", "clientName": "daptest", "adapterID": "go", "pathFormat": "path",
		"linesStartAt1": true, "columnsStartAt1": true, "supportsVariableType": true, "supportsVariablePaging": true,
		"supportsMemoryReferences": true, "supportsProgressReporting": true, "supportsInvalidatedEvent": true, "supportsMemoryEvent": true,
	}
}

// Lines are the arguments of setBreakpoints for lines of a file.
func Lines(path string, lines ...int) M {
	bps := []M{}
	for _, l := range lines {
		bps = append(bps, M{"line": l})
	}
	return M{"source": M{"path": path}, "breakpoints": bps}
}

// Breakpoints are the breakpoints of an answer.
func (m Message) Breakpoints(t testing.TB) []dap.Breakpoint {
	t.Helper()
	var b struct{ Breakpoints []dap.Breakpoint }
	m.Into(t, &b)
	return b.Breakpoints
}

// Stop is the body of a stopped event.
type Stop struct {
	Reason, Description, Text string
	ThreadID                  int   `json:"threadId"`
	HitBreakpointIDs          []int `json:"hitBreakpointIds"`
}

// Stopped waits for the next stop.
func (c *Client) Stopped() Stop {
	c.t.Helper()
	var s Stop
	c.Event("stopped").Into(c.t, &s)
	return s
}

// Frames asks for the stack of a thread.
func (c *Client) Frames(thread int) []dap.StackFrame {
	c.t.Helper()
	var b struct{ StackFrames []dap.StackFrame }
	c.Must("stackTrace", M{"threadId": thread}).Into(c.t, &b)
	return b.StackFrames
}
