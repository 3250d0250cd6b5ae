package delve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/go-delve/delve/pkg/proc"
	"github.com/go-delve/delve/service/api"
	"github.com/go-delve/delve/service/debugger"
)

const (
	// rpcLimit bounds one request in bytes; a breakpoint with its expressions is some hundred.
	rpcLimit = 4 << 20
	// rpcQueue is how many requests may wait for those before them; more are refused.
	rpcQueue = 64
	// rpcEvents is how many events are kept for a client that asks for them late.
	rpcEvents = 100
	// runningPoll is how often a request that needs the process to stand looks whether it does.
	runningPoll = 10 * time.Millisecond
)

// rpcRequest is a request of Delve's JSON-RPC, API version 2: one argument in an array, and an id that comes back.
type rpcRequest struct {
	Method  string            `json:"method"`
	Params  []json.RawMessage `json:"params"`
	ID      json.RawMessage   `json:"id"`
	started chan struct{}     // of a command: closed when the process goes on, or the command is over
}

// rpcResponse is the answer; one of Result and Error is null.
type rpcResponse struct {
	ID     json.RawMessage `json:"id"`
	Result any             `json:"result"`
	Error  any             `json:"error"`
}

// rpcSession serves Delve's JSON-RPC. It is our own because Delve's needs net/rpc, 414 KB of what a pod is sent. Requests are
// done in order, each after the one before has been answered; a command, once it has made the process go on, is waited
// for beside that. What must be heard while the process runs (halt, state, events, detach), or does not mind (version),
// waits for nobody.
//
// Its goroutines: the reader, which serve is; one that does what is in the queue; one for each command and each request
// that waits for nobody. Delve cannot be called back from a command, so those may outlive the session, and their answers
// go nowhere.
type rpcSession struct {
	dbg     *debugger.Debugger
	pid     int
	resumed func() // the client has let the process go on
	ended   func() // the client has been told that the process is over
	queue   chan rpcRequest
	gone    chan struct{} // closed when the client is
	events  chan *proc.Event

	mu   sync.Mutex // of conn's writing
	conn io.ReadWriteCloser
}

// serveRPC speaks JSON-RPC until the client leaves.
func (s *session) serveRPC(dbg *debugger.Debugger, pid int) {
	r := &rpcSession{dbg: dbg, pid: pid, conn: s, queue: make(chan rpcRequest, rpcQueue), gone: make(chan struct{}), events: make(chan *proc.Event, rpcEvents)}
	r.resumed = func() { s.configured.Store(true) }
	r.ended = func() {
		select {
		case s.terminated <- struct{}{}:
		default:
		}
	}
	r.serve()
}

func (r *rpcSession) serve() {
	var worker sync.WaitGroup
	worker.Go(r.work)
	defer worker.Wait()
	defer close(r.queue) // a client that leaves may have sent a continue as its last words: that is done
	defer close(r.gone)
	defer r.conn.Close()
	limited := &io.LimitedReader{R: r.conn}
	dec := json.NewDecoder(limited)
	last := make(chan struct{}) // of the last command: closed when it has begun
	close(last)
	for {
		limited.N = rpcLimit
		var q rpcRequest
		if err := dec.Decode(&q); err != nil {
			// What follows is not to be told from the rest of this.
			if !errors.Is(err, io.EOF) {
				r.answer(q, nil, fmt.Errorf("malformed request: %w", err))
			}
			return
		}
		method, known := strings.CutPrefix(q.Method, "RPCServer.")
		if !known {
			r.answer(q, nil, fmt.Errorf("rpc: can't find method %s", q.Method))
			continue
		}
		q.Method = method
		now, err := waitsForNobody(q)
		if err != nil {
			r.answer(q, nil, err)
			continue
		}
		if now {
			go func(begun chan struct{}) {
				if !r.dbg.IsRunning() { // what is queued may be what it is about
					select {
					case <-begun:
					case <-r.gone:
						return
					}
				}
				r.do(q)
			}(last)
			continue
		}
		q.started = make(chan struct{})
		select {
		case r.queue <- q:
			if method == "Command" {
				last = q.started
			}
		default:
			r.answer(q, nil, errors.New("too many requests wait for the process to stand: halt it"))
		}
	}
}

func waitsForNobody(q rpcRequest) (bool, error) {
	switch q.Method {
	case "State", "GetEvents", "Detach", "SetApiVersion", "GetVersion", "ProcessPid", "IsMulticlient", "AttachedToExistingProcess", "Recorded", "Restart":
		return true, nil
	case "Command":
		var c api.DebuggerCommand
		err := q.into(&c)
		return c.Name == api.Halt, err
	}
	return false, nil
}

// into reads the request's argument; without one, into is as it was.
func (q rpcRequest) into(v any) error {
	if len(q.Params) == 0 {
		return nil
	}
	if err := json.Unmarshal(q.Params[0], v); err != nil {
		return fmt.Errorf("malformed request body: %w", err)
	}
	return nil
}

func (r *rpcSession) work() {
	for q := range r.queue {
		if q.Method == "Command" {
			r.command(q)
		} else if r.stands() {
			r.do(q)
		}
	}
}

// stands waits until the process stands. In Delve such a request would wait for a lock, and would still be done, when a
// later session halts the process.
func (r *rpcSession) stands() bool {
	for r.dbg.IsRunning() {
		select {
		case <-time.After(runningPoll):
		case <-r.gone:
			return false
		}
	}
	select {
	case <-r.gone:
		return false
	default:
		return true
	}
}

func (r *rpcSession) do(q rpcRequest) {
	var in rpcIn
	err := q.into(&in)
	var out any
	if err == nil {
		out, err = r.try(func() (any, error) { return r.call(q.Method, &in) })
	}
	r.answer(q, out, err)
	if q.Method == "Detach" && err == nil {
		r.conn.Close()
	}
}

// try turns a panic of Delve's, which reads the memory of a program that may be in any state, into an error.
func (r *rpcSession) try(f func() (any, error)) (out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("internal debugger error: %v", p)
		}
	}()
	return f()
}

// command lets the process go on, and returns when it does.
func (r *rpcSession) command(q rpcRequest) {
	defer close(q.started)
	var c api.DebuggerCommand
	q.into(&c) // it has been read before
	if r.dbg.IsRunning() {
		// A process that runs already is what continue asks for: its next stop is the answer.
		if c.Name != api.Continue {
			r.answer(q, nil, fmt.Errorf("the process runs: halt it before %s", c.Name))
			return
		}
		r.resumed()
		go func() {
			out, err := r.try(func() (any, error) { return r.state(false) })
			r.answer(q, out, err)
		}()
		return
	}
	if c.Name != api.SwitchGoroutine && c.Name != api.SwitchThread {
		r.resumed()
	}
	resumed, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var events func(*proc.Event)
		if c.WithEvents {
			events = r.event
		}
		out, err := r.try(func() (any, error) {
			st, err := r.dbg.Command(&c, resumed, nil, events)
			return result{"State": st}, err
		})
		r.answer(q, out, err)
		if st, ok := out.(result); ok && err == nil && st["State"].(*api.DebuggerState).Exited {
			r.ended()
		}
	}()
	select {
	case <-resumed:
	case <-done:
	}
}

// halt makes a process that runs stand. One that stands already must not be told: the signal would wait for it.
func (r *rpcSession) halt() (any, error) {
	if !r.dbg.IsRunning() {
		return r.state(false)
	}
	st, err := r.dbg.Command(&api.DebuggerCommand{Name: api.Halt}, nil, nil, nil)
	return result{"State": st}, err
}

func (r *rpcSession) state(now bool) (any, error) {
	st, err := r.dbg.State(now)
	return result{"State": st}, err
}

// detach lets the process go on without this client's breakpoints. The debugger stays with it until Fairlead takes it away.
func (r *rpcSession) detach() error {
	if r.dbg.IsRunning() {
		if _, err := r.halt(); err != nil {
			return err
		}
	}
	r.dbg.CancelNext()
	for _, b := range r.dbg.Breakpoints(false) {
		if b.ID > 0 { // the others are Delve's own, for panics
			r.dbg.ClearBreakpoint(b)
		}
	}
	r.resumed()
	resumed, back := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := r.try(func() (any, error) {
			return r.dbg.Command(&api.DebuggerCommand{Name: api.Continue}, resumed, nil, nil)
		})
		back <- err
	}()
	select {
	case <-resumed:
		return nil
	case err := <-back:
		return err
	}
}

func (r *rpcSession) event(e *proc.Event) {
	select {
	case r.events <- e:
	default:
	}
}

func (r *rpcSession) answer(q rpcRequest, out any, err error) {
	a := rpcResponse{ID: q.ID, Result: out}
	if err != nil {
		a.Result, a.Error = nil, err.Error()
	}
	b, err := json.Marshal(a)
	if err != nil {
		b, _ = json.Marshal(rpcResponse{ID: q.ID, Error: err.Error()})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn.Write(append(b, '\n'))
}
