package debugadapter

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/google/go-dap"
)

// describedThreads is how many other goroutines are described, each by one line.
const describedThreads = 30

// Describe writes what a person wants to know first of a program that stands, such as a core file: why, the stack of the
// goroutine that it stands in with the values of its innermost function that is not Go's own, and where the others are.
// config is a launch request's arguments. It is a session of its own, of an editor without a screen.
func Describe(ctx context.Context, w io.Writer, host Host, config map[string]any, opts Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	here, there := net.Pipe()
	defer here.Close()
	kept := &keeper{Host: host}
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, there, kept, opts) }() // ends with here
	defer func() { here.Close(); <-served }()
	stop := context.AfterFunc(ctx, func() { here.Close() })
	defer stop()
	d := &describer{conn: here, r: bufio.NewReader(here)}
	if err := d.call("initialize", map[string]any{"clientID": "fairlead", "clientName": "fairlead debug", "adapterID": "fairlead", "pathFormat": "path", "linesStartAt1": true, "columnsStartAt1": true}, nil); err != nil {
		return err
	}
	launched, err := d.send("launch", config)
	if err == nil {
		err = d.event("initialized", nil)
	}
	if err == nil {
		err = d.call("configurationDone", nil, nil)
	}
	if err == nil {
		err = d.answer(launched, nil)
	}
	if err != nil {
		return cmp.Or(kept.failed(), err) // with its hint apart
	}
	var stopped dap.StoppedEventBody
	if err := d.event("stopped", &stopped); err != nil {
		return err
	}
	if err := d.describe(w, stopped); err != nil {
		return err
	}
	return d.call("disconnect", map[string]any{"terminateDebuggee": true}, nil)
}

// keeper keeps why nothing began.
type keeper struct {
	Host
	mu  sync.Mutex
	err error
}

func (k *keeper) Begin(ctx context.Context, r Request, progress func(string)) (Begun, error) {
	b, err := k.Host.Begin(ctx, r, progress)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
	return b, err
}

func (k *keeper) failed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// describer is the client's side: one request at a time.
type describer struct {
	conn net.Conn
	r    *bufio.Reader
	seq  int
	kept []message // that came while another one was waited for
}

type message struct {
	Type       string          `json:"type"`
	Event      string          `json:"event"`
	RequestSeq int             `json:"request_seq"`
	Success    bool            `json:"success"`
	Message    string          `json:"message"`
	Body       json.RawMessage `json:"body"`
}

func (d *describer) send(command string, args any) (int, error) {
	d.seq++
	b, err := json.Marshal(map[string]any{"seq": d.seq, "type": "request", "command": command, "arguments": args})
	if err != nil {
		return 0, err
	}
	return d.seq, dap.WriteBaseMessage(d.conn, b)
}

func (d *describer) call(command string, args, into any) error {
	seq, err := d.send(command, args)
	if err != nil {
		return err
	}
	return d.answer(seq, into)
}

func (d *describer) answer(seq int, into any) error {
	m, err := d.until(func(m message) bool { return m.Type == "response" && m.RequestSeq == seq })
	if err != nil {
		return err
	}
	if !m.Success {
		var b dap.ErrorResponseBody
		if json.Unmarshal(m.Body, &b) == nil && b.Error != nil && b.Error.Format != "" {
			return errors.New(b.Error.Format)
		}
		return errors.New(m.Message)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(m.Body, into)
}

func (d *describer) event(name string, into any) error {
	m, err := d.until(func(m message) bool { return m.Type == "event" && (m.Event == name || m.Event == "terminated") })
	switch {
	case err != nil:
		return err
	case m.Event != name:
		return errors.New("the debugger has ended")
	case into == nil:
		return nil
	}
	return json.Unmarshal(m.Body, into)
}

func (d *describer) until(is func(message) bool) (message, error) {
	for i, m := range d.kept {
		if is(m) {
			d.kept = append(d.kept[:i], d.kept[i+1:]...)
			return m, nil
		}
	}
	for {
		b, err := dap.ReadBaseMessage(d.r)
		if err != nil {
			return message{}, fmt.Errorf("the debugger has ended: %w", err)
		}
		var m message
		if err := json.Unmarshal(b, &m); err != nil {
			return message{}, fmt.Errorf("understand the debugger: %w", err)
		}
		if is(m) {
			return m, nil
		}
		d.kept = append(d.kept, m)
	}
}

func (d *describer) describe(w io.Writer, stopped dap.StoppedEventBody) error {
	var threads dap.ThreadsResponseBody
	if err := d.call("threads", nil, &threads); err != nil {
		return err
	}
	current := stopped.ThreadId
	for _, t := range threads.Threads {
		if strings.HasPrefix(t.Name, "* ") { // Delve's mark of the selected goroutine
			current = t.Id
		}
	}
	if stopped.Text != "" {
		fmt.Fprintf(w, "%s\n\n", stopped.Text)
	}
	others := 0
	for _, t := range threads.Threads {
		if t.Id == current {
			fmt.Fprintln(w, strings.TrimPrefix(t.Name, "* "))
			if err := d.stack(w, t.Id); err != nil {
				return err
			}
		}
	}
	for _, t := range threads.Threads {
		if t.Id == current {
			continue
		}
		if others++; others == 1 {
			fmt.Fprintln(w, "\nother goroutines:")
		}
		if others > describedThreads {
			fmt.Fprintf(w, "  and %d more\n", len(threads.Threads)-1-describedThreads)
			break
		}
		fmt.Fprintf(w, "  %s\n", t.Name)
	}
	return nil
}

// stack writes a goroutine's frames, and the values of the innermost that is not the runtime's.
func (d *describer) stack(w io.Writer, thread int) error {
	var frames dap.StackTraceResponseBody
	if err := d.call("stackTrace", map[string]any{"threadId": thread, "levels": 50}, &frames); err != nil {
		return err
	}
	valued := false
	for _, f := range frames.StackFrames {
		at := "?"
		if f.Source != nil {
			at = f.Source.Path
		}
		fmt.Fprintf(w, "  %s\n      %s:%d\n", f.Name, at, f.Line)
		if valued || strings.HasPrefix(f.Name, "runtime.") || strings.HasPrefix(f.Name, "panic") {
			continue
		}
		valued = true
		if err := d.values(w, f.Id); err != nil {
			return err
		}
	}
	return nil
}

func (d *describer) values(w io.Writer, frame int) error {
	var scopes dap.ScopesResponseBody
	if err := d.call("scopes", map[string]any{"frameId": frame}, &scopes); err != nil {
		return err
	}
	for _, s := range scopes.Scopes {
		var vars dap.VariablesResponseBody
		if err := d.call("variables", map[string]any{"variablesReference": s.VariablesReference}, &vars); err != nil {
			return err
		}
		for _, v := range vars.Variables {
			fmt.Fprintf(w, "        %s = %s\n", v.Name, v.Value)
		}
	}
	return nil
}
