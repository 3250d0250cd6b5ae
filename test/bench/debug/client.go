package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"fairlead.dev/test/bench/measure"

	"github.com/google/go-dap"
)

// client speaks DAP, one request at a time.
type client struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	came chan message
	seq  int
	kept []message // events that came while an answer was waited for
}

type message struct {
	Type       string          `json:"type"`
	Event      string          `json:"event"`
	RequestSeq int             `json:"request_seq"`
	Success    bool            `json:"success"`
	Message    string          `json:"message"`
	Body       json.RawMessage `json:"body"`
}

// patience bounds every wait.
const patience = 3 * time.Minute

func newClient(cmd *exec.Cmd, in io.WriteCloser, out io.Reader) *client {
	c := &client{cmd: cmd, in: in, came: make(chan message, 1024)}
	go func() { // ends with the connection
		defer close(c.came)
		for r := bufio.NewReader(out); ; {
			b, err := dap.ReadBaseMessage(r)
			if err != nil {
				return
			}
			var m message
			if json.Unmarshal(b, &m) == nil {
				c.came <- m
			}
		}
	}()
	return c
}

// startFairlead starts `fairlead dap`.
func startFairlead() (*client, error) {
	cmd := exec.Command(*fairlead, "dap")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return newClient(cmd, in, out), nil
}

// stoppedDirectly starts Delve on an executable and waits until it stands at the breakpoint.
func stoppedDirectly(exe string, s source) (*client, int, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	here, there := os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
	defer here.Close()
	cmd := exec.Command(*pod, "dap")
	cmd.ExtraFiles = []*os.File{there} // descriptor 3
	err = cmd.Start()
	there.Close()
	if err != nil {
		return nil, 0, err
	}
	conn, err := net.FileConn(here)
	if err != nil {
		return nil, 0, err
	}
	c := newClient(cmd, conn, conn)
	if err := c.begin("launch", map[string]any{"mode": "exec", "program": exe, "args": []string{"-port", freePort()}}, s); err != nil {
		return nil, 0, err
	}
	thread, err := c.stopped()
	return c, thread, err
}

func (c *client) send(command string, args any) (int, error) {
	c.seq++
	b, err := json.Marshal(map[string]any{"seq": c.seq, "type": "request", "command": command, "arguments": args})
	if err != nil {
		return 0, err
	}
	return c.seq, dap.WriteBaseMessage(c.in, b)
}

func (c *client) call(command string, args, into any) error {
	seq, err := c.send(command, args)
	if err != nil {
		return err
	}
	return c.answer(command, seq, into)
}

func (c *client) answer(command string, seq int, into any) error {
	m, err := c.until(command, func(m message) bool { return m.Type == "response" && m.RequestSeq == seq })
	if err != nil {
		return err
	}
	if !m.Success {
		return fmt.Errorf("%s: %s %s", command, m.Message, m.Body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(m.Body, into)
}

func (c *client) until(what string, is func(message) bool) (message, error) {
	for i, m := range c.kept {
		if is(m) {
			c.kept = append(c.kept[:i:i], c.kept[i+1:]...)
			return m, nil
		}
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case m, ok := <-c.came:
			switch {
			case !ok:
				return message{}, fmt.Errorf("%s: the debugger has ended", what)
			case is(m):
				return m, nil
			case m.Event == "terminated":
				return message{}, errors.New(what + ": the session was terminated")
			}
			c.kept = append(c.kept, m)
		case <-limit.C:
			return message{}, fmt.Errorf("%s did not come within %s", what, patience)
		}
	}
}

func (c *client) event(name string, into any) error {
	m, err := c.until(name, func(m message) bool { return m.Event == name })
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(m.Body, into)
}

// begin opens the session with the breakpoint set.
func (c *client) begin(request string, args map[string]any, s source) error {
	if err := c.call("initialize", map[string]any{"clientID": "bench", "adapterID": "go", "pathFormat": "path", "linesStartAt1": true, "columnsStartAt1": true}, nil); err != nil {
		return err
	}
	seq, err := c.send(request, args)
	if err != nil {
		return err
	}
	if err := c.event("initialized", nil); err != nil {
		return err
	}
	file, line, err := s.breakpoint()
	if err != nil {
		return err
	}
	if err := c.call("setBreakpoints", map[string]any{"source": map[string]any{"path": file}, "breakpoints": []any{map[string]any{"line": line}}}, nil); err != nil {
		return err
	}
	if err := c.call("configurationDone", nil, nil); err != nil {
		return err
	}
	return c.answer(request, seq, nil)
}

// stopped waits for a stop, and returns where.
func (c *client) stopped() (thread int, err error) {
	var b dap.StoppedEventBody
	err = c.event("stopped", &b)
	return b.ThreadId, err
}

// settled is how long after a stop the steps begin: a person looks first, and both sides have work left of the beginning
// that is no part of a step (the agent indexes the executable, the kernel frees the old process).
const settled = time.Second

// step measures steps over until the stack is there.
func (c *client) step(thread, n int, figures []float64) ([]float64, error) {
	time.Sleep(settled)
	for range min(n, 6) { // main has some statements before it serves
		start := time.Now()
		if err := c.call("next", map[string]any{"threadId": thread}, nil); err != nil {
			return figures, err
		}
		var err error
		if thread, err = c.stopped(); err != nil {
			return figures, err
		}
		if err := c.call("stackTrace", map[string]any{"threadId": thread, "levels": 20}, nil); err != nil {
			return figures, err
		}
		figures = append(figures, measure.MS(time.Since(start)))
	}
	return figures, nil
}

func (c *client) close() {
	c.send("disconnect", map[string]any{"terminateDebuggee": true})
	c.in.Close()
	done := make(chan struct{})
	go func() { c.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		c.cmd.Process.Kill()
	}
}
