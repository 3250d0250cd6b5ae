package dap

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"fairlead.dev/api"
	"fairlead.dev/server/client"
)

// ServeRPC serves a client of Delve's own JSON-RPC, which GoLand's Go Remote is, until it leaves: the debugger of the only
// service that runs. This protocol names processes and breakpoints by what Delve gives them, so that it ends
// with the process: the client connects again to the next one. Its error, which the client has been told where it came
// before the debugger, is for a person.
//
// Its goroutines: one that follows what the agent tells, and one a direction of the bytes; all end with it.
func (h *Host) ServeRPC(ctx context.Context, conn io.ReadWriteCloser) error {
	r := bufio.NewReader(conn)
	err := h.serveRPC(ctx, conn, r)
	var p *refusal
	if !errors.As(err, &p) {
		return err
	}
	// JSON-RPC has no message of the server's own: the first request's answer says why.
	var q struct {
		ID json.RawMessage `json:"id"`
	}
	if json.NewDecoder(io.LimitReader(r, requestLimit)).Decode(&q) == nil {
		b, _ := json.Marshal(map[string]any{"id": q.ID, "result": nil, "error": p.Error()})
		conn.Write(append(b, '\n'))
	}
	return p.error
}

// requestLimit bounds a client's first request in bytes, which is a version or a question.
const requestLimit = 64 << 10

// refusal is an error of the time before the debugger.
type refusal struct{ error }

func (r *refusal) Error() string {
	var p *api.Problem
	if errors.As(r.error, &p) && p.Hint != "" {
		return p.Message + ": " + p.Hint
	}
	return r.error.Error()
}

func (h *Host) serveRPC(ctx context.Context, conn io.ReadWriteCloser, r *bufio.Reader) error {
	c, err := h.New("the debugger of a JSON-RPC client")
	if err != nil {
		return &refusal{err}
	}
	f := newFront(c, h.Logger)
	defer f.leave()
	if err := f.attach(ctx); err != nil {
		return &refusal{err}
	}
	svc, err := f.find("", "")
	if err != nil {
		return &refusal{err}
	}
	sess, err := c.Debug(ctx, svc.Name, "")
	if err != nil {
		return &refusal{err}
	}
	defer sess.Close()
	stop := context.AfterFunc(ctx, func() { sess.Close() })
	defer stop()
	g, err := firstProcess(sess)
	if err != nil {
		return &refusal{cmp.Or(ctx.Err(), err)}
	}
	stream, _, err := c.DialDebug(ctx, svc.Name, g)
	if err != nil {
		return &refusal{err}
	}
	var ends sync.Once
	end := func() { ends.Do(func() { stream.Close(); conn.Close() }) }
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { // what comes next is another process, none, or no agent
		defer end()
		for {
			if e, err := sess.Next(); err != nil || e.Process != 0 || e.Gone != "" {
				return
			}
		}
	})
	w := rpcWatch{tell: func(stopped bool) { sess.Do(api.DebugCommand{Stopped: &stopped}) }}
	wg.Go(func() {
		defer end()
		relay(stream, r, w.request)
	})
	relay(conn, stream, w.response)
	end()
	sess.Close() // which ends the first
	return nil
}

// relay hands JSON on as it is, a value at a time, and shows it. What is no JSON is the other side's to refuse.
func relay(to io.Writer, from io.Reader, show func([]byte)) {
	dec := json.NewDecoder(from)
	for {
		var m json.RawMessage
		if err := dec.Decode(&m); err != nil {
			io.Copy(to, io.MultiReader(dec.Buffered(), from))
			return
		}
		show(m)
		if _, err := to.Write(append(m, '\n')); err != nil {
			return
		}
	}
}

// rpcWatch sees whether the process stands, which is what a save has to know. Delve answers with a state what makes the
// process go on, once it stands again, and whoever asks.
type rpcWatch struct {
	mu      sync.Mutex
	stopped bool
	tell    func(stopped bool)
}

func (w *rpcWatch) request(b []byte) {
	var q struct {
		Method string
		Params []struct{ Name string }
	}
	if json.Unmarshal(b, &q) != nil || q.Method != "RPCServer.Command" || len(q.Params) == 0 {
		return
	}
	switch q.Params[0].Name {
	case "halt", "switchThread", "switchGoroutine":
	default:
		w.set(false)
	}
}

func (w *rpcWatch) response(b []byte) {
	var a struct {
		Result struct {
			State *struct{ Running, Exited bool }
		}
	}
	if json.Unmarshal(b, &a) == nil && a.Result.State != nil {
		w.set(!a.Result.State.Running && !a.Result.State.Exited)
	}
}

func (w *rpcWatch) set(stopped bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped != stopped {
		w.stopped = stopped
		w.tell(stopped)
	}
}

// firstProcess waits for the process that can be debugged, which may have to be built with symbols first.
func firstProcess(sess *client.DebugSession) (api.Generation, error) {
	for {
		e, err := sess.Next()
		switch {
		case err != nil:
			return 0, err
		case e.Process != 0:
			return e.Process, nil
		case e.Gone != "":
			return 0, fmt.Errorf("there is no process: %s", e.Gone)
		}
	}
}
