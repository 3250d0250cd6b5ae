package debugadapter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter/daptest"
)

// still is a Host and a Service without processes, unless conn gives one.
type still struct {
	events chan Event
	conn   func() io.ReadWriteCloser
	start  api.DebugStart
	ends   chan bool
}

func newStill() *still { return &still{events: make(chan Event, 10), ends: make(chan bool, 10)} }

func (s *still) Begin(context.Context, Request, func(string)) (Begun, error) {
	return Begun{Service: s}, nil
}
func (s *still) Events() <-chan Event { return s.events }
func (s *still) Err() error           { return nil }
func (s *still) Dial(context.Context, api.Generation) (io.ReadWriteCloser, api.DebugStart, error) {
	if s.conn == nil {
		return nil, api.DebugStart{}, &api.Problem{Code: api.CodeNoProcess, Message: "none"}
	}
	return s.conn(), s.start, nil
}
func (s *still) Stopped(bool)                  {}
func (s *still) Restart(context.Context) error { return nil }
func (s *still) End(terminate bool) error      { s.ends <- terminate; return nil }

// open begins a session with a host that is no real one.
func open(t testing.TB, host Host) (*daptest.Client, net.Conn, <-chan error) {
	t.Helper()
	here, there := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Serve(context.Background(), there, host, Options{}) }()
	return daptest.New(t, here), here, ended
}

func TestOutOfOrder(t *testing.T) {
	c, _, ended := open(t, newStill())
	for _, command := range []string{"launch", "threads", "setBreakpoints", "cancel", "nonsense"} {
		if m := c.Call(command, nil); m.Success || !strings.Contains(m.ErrorText(), "initialize") {
			t.Errorf("%s before initialize: %s", command, m.Raw)
		}
	}
	for _, args := range []daptest.M{{"pathFormat": "uri"}, {"linesStartAt1": false}, {"columnsStartAt1": false}} {
		if m := c.Call("initialize", args); m.Success {
			t.Errorf("initialize %v: %s", args, m.Raw)
		}
	}
	c.Must("initialize", nil)
	if m := c.Call("initialize", nil); m.Success {
		t.Errorf("initialize again: %s", m.Raw)
	}
	for _, command := range []string{"threads", "setBreakpoints", "configurationDone", "restart", "nonsense"} {
		if m := c.Call(command, nil); m.Success || !strings.Contains(m.ErrorText(), "launch or attach") {
			t.Errorf("%s before launch: %s", command, m.Raw)
		}
	}
	if m := c.Call("launch", daptest.M{"progam": "/x"}); m.Success {
		t.Errorf("launch with a misspelt member: %s", m.Raw)
	}
	c.Must("launch", daptest.M{"program": "/x"}) // the session is not lost with it
	if m := c.Call("attach", nil); m.Success {
		t.Errorf("attach after launch: %s", m.Raw)
	}
	if m := c.Call("setBreakpoints", nil); m.Success {
		t.Errorf("setBreakpoints without a source: %s", m.Raw)
	}
	if m := c.Call("setDataBreakpoints", daptest.M{"breakpoints": []daptest.M{{"dataId": "x"}}}); m.Success {
		t.Errorf("a data breakpoint without a process: %s", m.Raw)
	}
	c.Must("disconnect", nil)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What is no message ends the session plainly, and the service is let go.
func TestNoMessages(t *testing.T) {
	for name, what := range map[string]string{
		"no json":        "Content-Length: 5\r\n\r\nhello",
		"an array":       "Content-Length: 2\r\n\r\n[]",
		"null":           "Content-Length: 4\r\n\r\nnull",
		"no header":      "hello, world, this is no header\r\n\r\n",
		"no length":      "Content-Type: x\r\n\r\n{}",
		"too long":       "Content-Length: 999999999\r\n\r\n{}",
		"negative":       "Content-Length: -1\r\n\r\n{}",
		"a header only":  "Content-Length: 100\r\n\r\n",
		"a long header":  strings.Repeat("x", 10_000),
		"an empty line":  "\r\n\r\n",
		"a message less": "Content-Length: 30\r\n\r\n{\"type\":\"request\"}",
	} {
		t.Run(name, func(t *testing.T) {
			host := newStill()
			c, conn, ended := open(t, host)
			c.Must("initialize", nil)
			c.Must("launch", daptest.M{"program": "/x"})
			go func() {
				io.WriteString(conn, what)
				if strings.Contains(name, "only") || strings.Contains(name, "less") {
					conn.Close()
				}
			}()
			select {
			case err := <-ended:
				if !errors.Is(err, errFraming) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("Serve returned %v", err)
				}
			case <-time.After(daptest.Timeout):
				t.Fatal("the session goes on")
			}
			if <-host.ends {
				t.Error("End was told to terminate")
			}
		})
	}
}

// Other headers and other types of members are an editor's freedom.
func TestLenient(t *testing.T) {
	c, conn, _ := open(t, newStill())
	c.Must("initialize", nil)
	m := `{"seq":77,"type":"request","command":"threads","more":{"a":[1,2]}}`
	fmt.Fprintf(conn, "Content-Type: application/json\r\ncontent-length:%d\r\n\r\n%s", len(m), m)
	c.Must("disconnect", nil)
	if got := string(c.All()[1].Raw); !strings.Contains(got, `"request_seq":77`) {
		t.Errorf("answered %s", got)
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte("Content-Length: 2\r\n\r\n{}"))
	f.Add([]byte("Content-Length: 13\r\nX: y\r\n\r\n{\"a\":[1,\"b\"]}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			var again obj
			if err := json.Unmarshal(m.encode(), &again); err != nil {
				t.Fatalf("what was read is no JSON when it is written: %v\n%s", err, m.encode())
			}
			m.list("a")
			m.sub("a")
			m.ints("a")
		}
	})
}

// The editor's border: any messages, in any order, end in an answer each or in the session's end, never in a panic.
func FuzzClient(f *testing.F) {
	f.Add([]byte(`{"seq":1,"type":"request","command":"initialize","arguments":{}}`+"\n"+`{"seq":2,"type":"request","command":"launch","arguments":{"program":"/x"}}`+"\n"+`{"seq":3,"type":"request","command":"setBreakpoints","arguments":{"source":{"path":"/x"},"breakpoints":[{"line":1},7]}}`), false)
	f.Add([]byte(`{"seq":3,"type":"request","command":"setBreakpoints","arguments":{"source":{"path":"/dev/null"},"breakpoints":[{"line":-5},{"line":1e99}]}}`+"\n"+`{"type":"request","command":"cancel","arguments":{"requestId":{}}}`), true)
	f.Add([]byte(`{"seq":3,"type":"request","command":"restart"}`+"\n"+`{"type":"request","command":"terminate"}`), true)
	f.Fuzz(func(t *testing.T, lines []byte, begun bool) {
		fuzzed(t, newStill(), lines, begun)
	})
}

func fuzzed(t *testing.T, host *still, lines []byte, begun bool) {
	here, there := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Serve(context.Background(), there, host, Options{}) }()
	go io.Copy(io.Discard, here)
	say := func(b []byte) { fmt.Fprintf(here, "Content-Length: %d\r\n\r\n%s", len(b), b) }
	if begun {
		say([]byte(`{"seq":1,"type":"request","command":"initialize"}`))
		say([]byte(`{"seq":2,"type":"request","command":"launch","arguments":{"program":"/x"}}`))
		say([]byte(`{"seq":3,"type":"request","command":"configurationDone"}`))
	}
	for _, l := range bytes.Split(lines, []byte("\n")) {
		say(l)
	}
	here.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the session does not end")
	}
}

// The debugger's border: whatever it says, the session goes on or ends.
func FuzzBackend(f *testing.F) {
	f.Add([]byte(`{"type":"response","request_seq":1,"success":true}`+"\n"+`{"type":"response","request_seq":3,"success":true}`+"\n"+`{"type":"event","event":"stopped","body":{"hitBreakpointIds":["a"]}}`), true)
	f.Add([]byte(`{"type":"response","request_seq":3,"success":false,"body":{"error":{"id":4000}}}`), false)
	f.Add([]byte(`{"type":"event","event":"breakpoint","body":{"breakpoint":{"id":1e9}}}`+"\n"+`{"type":"request","command":"runInTerminal"}`+"\n"+`{"type":"event","event":"exited"}`), true)
	f.Fuzz(func(t *testing.T, lines []byte, fresh bool) {
		host := newStill()
		host.start = api.DebugStart{PID: 1, Fresh: fresh, Stopped: !fresh}
		dials := 0
		host.conn = func() io.ReadWriteCloser {
			here, there := net.Pipe()
			dials++
			go io.Copy(io.Discard, here)
			first := dials == 1
			go func() {
				if first {
					for _, l := range bytes.Split(lines, []byte("\n")) {
						fmt.Fprintf(here, "Content-Length: %d\r\n\r\n%s", len(l), l)
					}
				}
			}()
			return there
		}
		host.events <- Event{Kind: Process, Generation: 1}
		fuzzed(t, host, []byte(`{"seq":4,"type":"request","command":"threads"}`), true)
	})
}
