package lsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"go.lsp.dev/jsonrpc2"
	"go.lsp.dev/protocol"
	"go.lsp.dev/uri"

	"fairlead.dev/api"
)

// Options are what the server is made of.
type Options struct {
	// Agent makes the way to the agent, for an editor of that name.
	Agent   func(editor string) Agent
	Version string
	// Environ is what builds and local services see.
	Environ []string
	// StateDir is where fairlead.logs writes its files.
	StateDir string
	// Reviews makes draft reviews; nil: none are made.
	Reviews Reviews
	// UserSettings is the user's own settings file, as settings.Options has it.
	UserSettings string
	Logger       *slog.Logger
}

// Server serves one editor.
type Server struct {
	opts   Options
	agent  Agent
	log    *slog.Logger
	ctx    context.Context // ends with Serve
	cancel context.CancelFunc
	conn   jsonrpc2.Conn
	client protocol.Client
	exit   chan int

	cancels sync.Map // jsonrpc2.ID to context.CancelFunc, of the requests under way

	spawning sync.Mutex // guards done, and spawns against a late Add
	done     bool
	spawns   sync.WaitGroup

	lenses, status, publish *pulse
	saving                  chan struct{} // a save waits to be told

	mu        sync.Mutex // guards all below; nothing is sent while it is held
	state     state
	caps      capabilities
	set       editorSettings
	encoding  encoding
	folders   []folder
	docs      map[uri.URI]*document
	services  map[string]*service
	endedWith map[string]*api.Problem // by package: why the last session ended
	link      link
	held      map[string]*held
	saved     []string
	refused   map[string][]*api.Problem // by package: what a run was refused for
	published map[uri.URI]string
	tokens    map[string]*progress
	works     map[string]context.CancelFunc // by token: what work shows

	restarting   bool
	runAfterSync chan struct{}
	refreshing   bool
	refreshes    int // how often it was asked to
	number       int // of progress tokens
}

type state int

const (
	stateNew state = iota
	stateInitialized
	stateRunning
	stateShutdown
)

// Serve speaks with the editor until it says exit or is gone, and returns the process's exit code: 0 after shutdown and
// exit, as the protocol has it, else 1.
//
// It lets go of nothing that it holds at the agent. Editors send shutdown also when a window is reloaded, and one that
// crashed comes back: the agent keeps what is held for a minute after its attachment is lost, which is when this process
// ends.
func Serve(ctx context.Context, in io.Reader, out io.WriteCloser, o Options) int {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{opts: o, log: o.Logger, exit: make(chan int, 1), saving: make(chan struct{}, 1),
		set: editorSettings{OpenBrowser: "always", CodeLens: true, Trusted: true, BuildDiagnostics: "auto"}, docs: map[uri.URI]*document{}, services: map[string]*service{}, endedWith: map[string]*api.Problem{},
		held: map[string]*held{}, refused: map[string][]*api.Problem{}, published: map[uri.URI]string{}, tokens: map[string]*progress{}, works: map[string]context.CancelFunc{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.lenses = newPulse(100*time.Millisecond, s.refreshLenses)
	s.status = newPulse(30*time.Millisecond, s.sendServices)
	s.publish = newPulse(50*time.Millisecond, s.publishDiagnostics)

	b := newBorder(in, out, o.Logger)
	s.conn = jsonrpc2.NewConn(jsonrpc2.NewStream(b), jsonrpc2.WithCodec(codec{}))
	s.client = protocol.ClientDispatcher(s.conn)
	s.conn.Go(s.ctx, s.dispatch)
	s.spawn(s.saveLoop)

	code := 1
	select {
	case code = <-s.exit:
	case <-b.gone:
		// What exit said goes before: the two come together.
		select {
		case code = <-s.exit:
		default:
			s.log.Info("the editor is gone")
		}
	case <-s.conn.Done():
	case <-ctx.Done():
	}
	s.cancel()
	s.spawning.Lock()
	s.done = true
	s.spawning.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, p := range []*pulse{s.lenses, s.status, s.publish} {
			p.end()
		}
		s.spawns.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(2 * time.Second): // an editor that does not read its pipe holds up a writer; the process ends all the same
	}
	out.Close()
	return code
}

// spawn runs f beside the connection. Its context ends with Serve, which waits for it.
func (s *Server) spawn(f func(ctx context.Context)) {
	s.spawning.Lock()
	defer s.spawning.Unlock()
	if s.done {
		return // the agent may still tell something
	}
	s.spawns.Add(1)
	go func() {
		defer s.spawns.Done()
		defer s.recover("a goroutine")
		f(s.ctx)
	}()
}

// after runs f after a while, unless the server ends before.
func (s *Server) after(d time.Duration, f func()) {
	s.spawn(func(ctx context.Context) {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			f()
		case <-ctx.Done():
		}
	})
}

func (s *Server) recover(what string) {
	if p := recover(); p != nil {
		s.log.Error("a bug in "+what, "panic", p, "stack", string(debug.Stack()))
	}
}

// dispatch answers one message. It keeps the connection alive whatever happens: in jsonrpc2 a notification's error and
// a panic would end it.
//
// A request's context is made of the connection's, not of the one that comes with it: that one is used again for another
// request as soon as this one is answered, and what package context still has to do with it then panics (as it does with
// jsonrpc2.CancelHandler, v1.0.1, when a request is answered before Async).
func (s *Server) dispatch(requestCtx context.Context, r *jsonrpc2.Request) (result any, err error) {
	method, call := r.Method(), r.IsCall()
	ctx := jsonrpc2.DetachContext(requestCtx)
	if call {
		id := r.ID()
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		s.cancels.Store(id, cancel)
		defer func() {
			s.cancels.Delete(id)
			cancel()
		}()
	}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a bug in the handling of "+method, "panic", p, "stack", string(debug.Stack()))
			result, err = nil, jsonrpc2.Errorf(jsonrpc2.InternalError, "a bug in Fairlead's %s: %v", method, p)
		}
		if !call {
			if err != nil {
				s.log.Warn("a notification was left out", "method", method, "err", err)
			}
			result, err = nil, nil
			return
		}
		var wire *jsonrpc2.Error
		switch {
		case err == nil, errors.As(err, &wire):
		case ctx.Err() != nil, errors.Is(err, context.Canceled):
			err = protocol.ErrRequestCancelled
		default:
			err = jsonrpc2.NewError(codeRequestFailed, errorText(err))
		}
	}()
	method = string(append([]byte(nil), method...)) // borrowed until Async
	if err := s.allowed(method, call); err != nil {
		return nil, err
	}
	if !call {
		return nil, s.notification(method, r.Params())
	}
	run, err := s.request(method, r.Params())
	if err != nil {
		return nil, err
	}
	jsonrpc2.Async(requestCtx)
	if ctx.Err() != nil {
		return nil, context.Canceled
	}
	return run(ctx)
}

// codeRequestFailed is LSP's RequestFailed: understood, and it did not work out. Editors show its message.
const codeRequestFailed jsonrpc2.Code = -32803

// allowed keeps the protocol's order.
func (s *Server) allowed(method string, call bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case method == "exit":
	case method == "initialize":
		if s.state != stateNew {
			return jsonrpc2.NewError(jsonrpc2.InvalidRequest, "initialize was sent twice")
		}
	case s.state == stateNew:
		return jsonrpc2.NewError(jsonrpc2.ServerNotInitialized, "initialize comes first")
	case s.state == stateShutdown:
		return jsonrpc2.NewError(jsonrpc2.InvalidRequest, "the server is shut down")
	}
	return nil
}

func (s *Server) notification(method string, params []byte) error {
	switch method {
	case "initialized":
		s.initialized()
	case "exit":
		s.mu.Lock()
		code := 1
		if s.state == stateShutdown {
			code = 0
		}
		s.mu.Unlock()
		select {
		case s.exit <- code:
		default:
		}
	case "textDocument/didOpen":
		return with(params, s.didOpen)
	case "textDocument/didChange":
		return s.didChange(params)
	case "textDocument/didSave":
		return with(params, s.didSave)
	case "textDocument/didClose":
		return with(params, s.didClose)
	case "workspace/didChangeWorkspaceFolders":
		return with(params, s.didChangeWorkspaceFolders)
	case "workspace/didChangeConfiguration":
		return s.didChangeConfiguration(params)
	case "$/cancelRequest":
		if id, ok := cancelled(params); ok {
			if cancel, ok := s.cancels.Load(id); ok {
				cancel.(context.CancelFunc)()
			}
		}
	case "window/workDoneProgress/cancel":
		return with(params, s.workDoneProgressCancel)
	default:
		s.log.Debug("a notification that is not known", "method", method)
	}
	return nil
}

// request prepares an answer: what the returned function needs of the documents has been taken.
func (s *Server) request(method string, params []byte) (func(context.Context) (any, error), error) {
	switch method {
	case "initialize":
		// It is answered at once and in order: what follows needs it.
		result, err := s.initialize(params)
		return func(context.Context) (any, error) { return result, err }, nil
	case "shutdown":
		s.mu.Lock()
		s.state = stateShutdown
		s.mu.Unlock()
		return func(context.Context) (any, error) { return nil, nil }, nil
	case "textDocument/codeLens":
		return prepare(params, s.codeLens)
	case "textDocument/codeAction":
		return prepare(params, s.codeAction)
	case "textDocument/completion":
		return prepare(params, s.completion)
	case "textDocument/hover":
		return prepare(params, s.hover)
	case "workspace/executeCommand":
		return prepare(params, s.executeCommand)
	case "fairlead/access":
		return prepare(params, s.access)
	}
	return nil, jsonrpc2.NewError(jsonrpc2.MethodNotFound, "there is no method "+method)
}

func with[P any](params []byte, f func(*P)) error {
	var p P
	if err := decode(params, &p); err != nil {
		return err
	}
	f(&p)
	return nil
}

func prepare[P any](params []byte, f func(*P) func(context.Context) (any, error)) (func(context.Context) (any, error), error) {
	var p P
	if err := decode(params, &p); err != nil {
		return nil, jsonrpc2.NewError(jsonrpc2.InvalidParams, err.Error())
	}
	return f(&p), nil
}

// decode reads an editor's value. Package protocol is strict where editors are not: a null for what is optional is an
// error to it. Members that are null are the same as none to all that is used here.
func decode(raw []byte, into any) error {
	err := protocol.Unmarshal(raw, into)
	if err == nil {
		return nil
	}
	var any any
	if json.Unmarshal(raw, &any) != nil {
		return err
	}
	clean, merr := json.Marshal(withoutNull(any))
	if merr != nil {
		return err
	}
	if again := protocol.Unmarshal(clean, into); again != nil {
		return again
	}
	return nil
}

func withoutNull(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if e == nil {
				delete(v, k)
			} else {
				v[k] = withoutNull(e)
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutNull(v[i])
		}
	}
	return v
}

// cancelled reads the id of a cancel notification.
func cancelled(raw []byte) (jsonrpc2.ID, bool) {
	var p struct{ ID json.RawMessage }
	if json.Unmarshal(raw, &p) != nil {
		return jsonrpc2.ID{}, false
	}
	var n int64
	if json.Unmarshal(p.ID, &n) == nil {
		return jsonrpc2.NewNumberID(n), true
	}
	var id string
	if json.Unmarshal(p.ID, &id) == nil {
		return jsonrpc2.NewStringID(id), true
	}
	return jsonrpc2.ID{}, false
}

// codec is package protocol's own for jsonrpc2, which it does not export. Our own values are written by encoding/json, so
// that their tags mean what they mean everywhere else.
type codec struct{}

func (codec) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case json.RawMessage:
		return v, nil
	case jsonrpc2.RawMessage:
		return v, nil
	}
	return protocol.Marshal(v)
}

func (codec) Unmarshal(data []byte, v any) error {
	switch v := v.(type) {
	case *json.RawMessage:
		*v = append((*v)[:0], data...)
		return nil
	case *jsonrpc2.RawMessage:
		*v = append((*v)[:0], data...)
		return nil
	}
	return protocol.Unmarshal(data, v)
}

// raw encodes one of our own values.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("lsp: encode %T: %v", v, err))
	}
	return b
}

func ptr[T any](v T) *T { return &v }
