package lsp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
)

// editor is a plain client: it knows nothing but the protocol's text.
type editor struct {
	t    testing.TB
	in   io.WriteCloser
	done chan int

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew with every message
	next     int
	answers  map[string]chan message
	got      []message // notifications and requests of the server, in order
	replies  map[string]any
	dead     bool
	messages int
}

type message struct {
	ID     json.RawMessage `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *wireError      `json:"error,omitempty"`
}

type wireError struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}

const patience = 20 * time.Second // for what should take milliseconds, on a busy machine

// startEditor starts a server on pipes with this editor at the other end.
func startEditor(t testing.TB, agent Agent) *editor {
	t.Helper()
	return startReviewing(t, agent, nil)
}

func startReviewing(t testing.TB, agent Agent, reviews Reviews) *editor {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	e := &editor{t: t, in: inW, done: make(chan int, 1), changed: make(chan struct{}), answers: map[string]chan message{}, replies: map[string]any{}}
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	state := t.TempDir()
	go func() {
		defer inR.Close()
		e.done <- Serve(context.Background(), inR, outW, Options{Agent: func(string) Agent { return agent }, Version: "test", Environ: []string{"FROM=editor"}, StateDir: state, UserSettings: "-", Reviews: reviews, Logger: log})
	}()
	read := make(chan struct{})
	go func() {
		defer close(read)
		e.read(outR)
	}()
	t.Cleanup(func() {
		inW.Close()
		select {
		case code := <-e.done:
			e.done <- code
		case <-time.After(patience):
			t.Error("the server did not end when the editor had gone")
		}
		outR.Close()
		<-read
	})
	return e
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	defer func() { recover() }() // the test may be over
	w.t.Logf("server: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (e *editor) read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		h, err := textproto.NewReader(in).ReadMIMEHeader()
		if err != nil {
			e.mu.Lock()
			e.dead = true
			close(e.changed)
			e.changed = make(chan struct{})
			e.mu.Unlock()
			return
		}
		n, _ := strconv.Atoi(h.Get("Content-Length"))
		body := make([]byte, n)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(body, &m); err != nil {
			e.t.Errorf("the server wrote %q: %v", body, err)
			return
		}
		e.mu.Lock()
		e.messages++
		switch {
		case m.Method == "" && string(m.ID) != "null" && m.ID != nil:
			if c := e.answers[string(m.ID)]; c != nil {
				c <- m
				delete(e.answers, string(m.ID))
			}
		default:
			e.got = append(e.got, m)
			if m.ID != nil && m.Method != "" {
				reply, ok := e.replies[m.Method]
				if f, is := reply.(func(json.RawMessage) any); is {
					reply = f(m.Params)
				}
				if !ok {
					go e.send(map[string]any{"jsonrpc": "2.0", "id": m.ID, "error": wireError{Code: -32601, Message: "no " + m.Method}})
				} else {
					go e.send(map[string]any{"jsonrpc": "2.0", "id": m.ID, "result": reply})
				}
			}
		}
		close(e.changed)
		e.changed = make(chan struct{})
		e.mu.Unlock()
	}
}

func (e *editor) send(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		e.t.Fatal(err)
	}
	e.raw(fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(b), b))
}

var sending sync.Mutex

func (e *editor) raw(s string) {
	sending.Lock()
	defer sending.Unlock()
	io.WriteString(e.in, s)
}

func (e *editor) notify(method string, params any) {
	e.send(map[string]any{"jsonrpc": "2.0", "method": method, "params": params})
}

// begin sends a request and returns its id and where its answer comes.
func (e *editor) begin(method string, params any) (int, chan message) {
	e.mu.Lock()
	e.next++
	id := e.next
	c := make(chan message, 1)
	e.answers[strconv.Itoa(id)] = c
	e.mu.Unlock()
	m := map[string]any{"jsonrpc": "2.0", "id": id, "method": method}
	if params != nil {
		m["params"] = params
	}
	e.send(m)
	return id, c
}

func (e *editor) call(method string, params any, result any) *wireError {
	e.t.Helper()
	_, c := e.begin(method, params)
	select {
	case m := <-c:
		if m.Error != nil {
			return m.Error
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				e.t.Fatalf("%s: %v in %s", method, err, m.Result)
			}
		}
		return nil
	case <-time.After(patience):
		e.t.Fatalf("%s was not answered", method)
	}
	return nil
}

// must is call for what must work.
func (e *editor) must(method string, params any, result any) {
	e.t.Helper()
	if err := e.call(method, params, result); err != nil {
		e.t.Fatalf("%s: %+v", method, *err)
	}
}

// await waits until a condition on what has come holds.
func (e *editor) await(what string, cond func(got []message) bool) {
	e.t.Helper()
	deadline := time.After(patience)
	for {
		e.mu.Lock()
		ok, changed, dead := cond(e.got), e.changed, e.dead
		e.mu.Unlock()
		if ok {
			return
		}
		if dead {
			e.t.Fatalf("%s: the server has ended", what)
		}
		select {
		case <-changed:
		case <-deadline:
			e.mu.Lock()
			for _, m := range e.got {
				e.t.Logf("got %s %s", m.Method, m.Params)
			}
			e.mu.Unlock()
			e.t.Fatalf("%s: did not come", what)
		}
	}
}

// eventually asks again after each message until a condition holds.
func (e *editor) eventually(what string, cond func() bool) {
	e.t.Helper()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			e.t.Fatalf("%s: did not come", what)
		}
	}
}

func (e *editor) count(method string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, m := range e.got {
		if m.Method == method {
			n++
		}
	}
	return n
}

// everything is what a capable client says of itself, but experimental.fairlead.
func everything() map[string]any {
	return map[string]any{
		"general":   map[string]any{"positionEncodings": []string{"utf-16"}},
		"window":    map[string]any{"workDoneProgress": true, "showDocument": map[string]any{"support": true}},
		"workspace": map[string]any{"codeLens": map[string]any{"refreshSupport": true}, "workspaceFolders": true},
		"textDocument": map[string]any{
			"codeAction": map[string]any{"codeActionLiteralSupport": map[string]any{"codeActionKind": map[string]any{"valueSet": []string{"quickfix"}}}},
			"hover":      map[string]any{"contentFormat": []string{"markdown"}},
		},
	}
}

func (e *editor) initialize(dir string, more map[string]any) json.RawMessage {
	e.t.Helper()
	for m, reply := range map[string]any{"workspace/codeLens/refresh": nil, "window/workDoneProgress/create": nil, "window/showDocument": map[string]any{"success": true}} {
		e.mu.Lock()
		if _, ok := e.replies[m]; !ok {
			e.replies[m] = reply
		}
		e.mu.Unlock()
	}
	p := map[string]any{"processId": nil, "rootUri": nil, "capabilities": everything(), "workspaceFolders": []any{map[string]any{"uri": fileURI(dir), "name": "ws"}}}
	for k, v := range more {
		p[k] = v
	}
	var result json.RawMessage
	e.must("initialize", p, &result)
	e.notify("initialized", map[string]any{})
	return result
}

func fileURI(path string) string { return "file://" + filepath.ToSlash(path) }

func (e *editor) open(path, text string) string {
	u := fileURI(path)
	e.notify("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": u, "languageId": "go", "version": 1, "text": text}})
	return u
}

type change struct {
	Range *lspRange `json:"range,omitempty"`
	Text  string    `json:"text"`
}

type lspRange struct {
	Start lspPos `json:"start"`
	End   lspPos `json:"end"`
}

type lspPos struct {
	Line      int `json:"line"`
	Character int `json:"character"`
}

func rng(l1, c1, l2, c2 int) *lspRange { return &lspRange{lspPos{l1, c1}, lspPos{l2, c2}} }

func (e *editor) change(u string, version int, changes ...change) {
	e.notify("textDocument/didChange", map[string]any{"textDocument": map[string]any{"uri": u, "version": version}, "contentChanges": changes})
}

type lens struct {
	Range   lspRange `json:"range"`
	Command struct {
		Title     string            `json:"title"`
		Command   string            `json:"command"`
		Arguments []json.RawMessage `json:"arguments"`
	} `json:"command"`
}

func (e *editor) lenses(u string) []lens {
	e.t.Helper()
	var out []lens
	e.must("textDocument/codeLens", map[string]any{"textDocument": map[string]any{"uri": u}}, &out)
	return out
}

func titles(ls []lens) []string {
	out := []string{}
	for _, l := range ls {
		out = append(out, l.Command.Title)
	}
	return out
}

func (e *editor) execute(command string, arg any) *wireError {
	e.t.Helper()
	p := map[string]any{"command": command}
	if arg != nil {
		p["arguments"] = []any{arg}
	}
	return e.call("workspace/executeCommand", p, nil)
}

type diag struct {
	Range    lspRange `json:"range"`
	Severity int      `json:"severity"`
	Code     string   `json:"code"`
	Source   string   `json:"source"`
	Message  string   `json:"message"`
	Data     struct{ Owner, Service string }

	CodeDescription struct {
		Href string `json:"href"`
	} `json:"codeDescription"`
	Related []struct {
		Location struct {
			URI   string   `json:"uri"`
			Range lspRange `json:"range"`
		} `json:"location"`
		Message string `json:"message"`
	} `json:"relatedInformation"`
}

type published struct {
	URI         string `json:"uri"`
	Version     *int   `json:"version"`
	Diagnostics []diag `json:"diagnostics"`
}

// diagnostics waits until the last that was published for a document satisfies a condition.
func (e *editor) diagnostics(u, what string, cond func(published) bool) published {
	e.t.Helper()
	var last published
	e.await("diagnostics: "+what, func(got []message) bool {
		for _, m := range slices.Backward(got) {
			if m.Method != "textDocument/publishDiagnostics" {
				continue
			}
			var p published
			if err := json.Unmarshal(m.Params, &p); err != nil {
				e.t.Fatal(err)
			}
			if p.URI == u {
				last = p
				return cond(p)
			}
		}
		return false
	})
	return last
}

// fakeAgent is an agent without anything behind it.
type fakeAgent struct {
	mu       sync.Mutex
	handle   func(Update)
	attached chan struct{}
	info     api.Agent
	services map[string]*api.Service
	calls    []string
	runs     []api.RunRequest
	saves    [][]string
	runErr   error
	answer   api.RunAnswer
	block    chan struct{} // Run waits for it or the request's end
	entries  []api.Entry
	ended    chan struct{}
}

func newFakeAgent(t testing.TB) *fakeAgent {
	a := &fakeAgent{attached: make(chan struct{}), info: api.Agent{Version: "test", PID: 100, Started: time.Unix(1, 0)}, services: map[string]*api.Service{}, ended: make(chan struct{})}
	t.Cleanup(func() { close(a.ended) })
	return a
}

func (a *fakeAgent) note(format string, args ...any) {
	a.mu.Lock()
	a.calls = append(a.calls, fmt.Sprintf(format, args...))
	a.mu.Unlock()
}

func (a *fakeAgent) said(call string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.calls, call)
}

func (a *fakeAgent) Attach(ctx context.Context, handle func(Update)) {
	a.mu.Lock()
	a.handle = handle
	a.mu.Unlock()
	a.sync()
	close(a.attached)
	<-a.ended
}

// sync tells what an attachment begins with.
func (a *fakeAgent) sync() {
	a.mu.Lock()
	info := a.info
	var all []api.Service
	for _, s := range a.services {
		all = append(all, *s)
	}
	a.mu.Unlock()
	a.handle(Update{Update: api.Update{Agent: &info}})
	for i := range all {
		a.handle(Update{Update: api.Update{Service: &all[i]}})
	}
	a.handle(Update{Update: api.Update{Synced: true}})
}

// set tells a service's new state.
func (a *fakeAgent) set(s api.Service) {
	<-a.attached
	a.mu.Lock()
	a.services[s.Name] = &s
	a.mu.Unlock()
	a.handle(Update{Update: api.Update{Service: &s}})
}

func (a *fakeAgent) DebugChoice(_ context.Context, name string, ch api.DebugChoice) error {
	a.note("choose %s %+v", name, ch)
	return nil
}

func (a *fakeAgent) KeepUntil(_ context.Context, name string, until time.Time) error {
	if until.IsZero() {
		a.note("keep %s no longer", name)
		return nil
	}
	a.note("keep %s for %s", name, time.Until(until).Round(time.Hour))
	return nil
}

func (a *fakeAgent) Join(_ context.Context, r api.JoinRequest) (api.RunAnswer, error) {
	a.note("join %s/%s in %q", r.Namespace, r.Environment, r.Context)
	return api.RunAnswer{Name: r.Environment}, nil
}

func (a *fakeAgent) Form(_ context.Context, name string, r api.FormRequest) (string, error) {
	return "http://127.0.0.1:7/sign-in/" + strings.Join([]string{name, r.Callee, strings.Join(r.Methods, ","), r.Page}, "~"), nil
}

func (a *fakeAgent) SwitchDependency(_ context.Context, name string, r api.DependencyRequest) error {
	a.note("switch %s of %s to %s", r.Name, name, r.Mode)
	return nil
}

func (a *fakeAgent) AnswerDue(_ context.Context, id, do string) error {
	a.note("due %s: %s", id, do)
	return nil
}

func (a *fakeAgent) Run(ctx context.Context, r api.RunRequest) (api.RunAnswer, error) {
	dir := r.Dir
	if r.Path != "" {
		dir = folderOf(r.Path)
	}
	a.note("run %s %s", dir, r.Main)
	a.mu.Lock()
	a.runs = append(a.runs, r)
	block, answer, err := a.block, a.answer, a.runErr
	a.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return api.RunAnswer{}, ctx.Err()
		}
	}
	return answer, err
}

func (a *fakeAgent) Stop(_ context.Context, name string) error { a.note("stop %s", name); return nil }
func (a *fakeAgent) Cancel(_ context.Context, name, what string) error {
	a.note("cancel %s %s", name, what)
	return nil
}
func (a *fakeAgent) Saved(_ context.Context, paths ...string) error {
	a.mu.Lock()
	a.saves = append(a.saves, paths)
	a.mu.Unlock()
	return nil
}
func (a *fakeAgent) Access(_ context.Context, name string) (api.JournalAccess, error) {
	return api.JournalAccess{URL: "http://127.0.0.1:1/" + name, Token: "t"}, nil
}
func (a *fakeAgent) Journal(ctx context.Context, name string, after uint64, logs bool, handle func(api.Entry) error) error {
	for _, e := range a.entries {
		if err := handle(e); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}
func (a *fakeAgent) Restart(context.Context) error { a.note("restart"); return nil }

var errTest = errors.New("test")

// workspace writes files and returns their folder, without symbolic links in its name.
func workspace(t testing.TB, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const mainGo = "package main\n\nfunc main() {\n\tprintln(1)\n}\n"

// orders is a service that runs in a folder.
func orders(dir string, phase api.Phase) api.Service {
	return api.Service{Environment: api.Environment{Name: "orders-1", Service: "orders", Provider: "local"}, Dir: dir, Package: dir, Module: dir, Phase: phase, Since: time.Unix(10, 0)}
}
