package lsp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

func TestLifecycle(t *testing.T) {
	t.Run("in order", func(t *testing.T) {
		e := startEditor(t, newFakeAgent(t))
		if err := e.call("textDocument/codeLens", map[string]any{"textDocument": map[string]any{"uri": "file:///x.go"}}, nil); err == nil || err.Code != -32002 {
			t.Errorf("before initialize: %+v", err)
		}
		e.initialize(t.TempDir(), nil)
		if err := e.call("initialize", map[string]any{}, nil); err == nil || err.Code != -32600 {
			t.Errorf("initialize twice: %+v", err)
		}
		e.must("shutdown", nil, nil)
		if err := e.call("textDocument/codeLens", map[string]any{"textDocument": map[string]any{"uri": "file:///x.go"}}, nil); err == nil || err.Code != -32600 {
			t.Errorf("after shutdown: %+v", err)
		}
		e.notify("exit", nil)
		if code := <-e.done; code != 0 {
			t.Errorf("exit code %d", code)
		} else {
			e.done <- code
		}
	})
	t.Run("exit without shutdown", func(t *testing.T) {
		e := startEditor(t, newFakeAgent(t))
		e.initialize(t.TempDir(), nil)
		e.notify("exit", nil)
		if code := <-e.done; code != 1 {
			t.Errorf("exit code %d", code)
		} else {
			e.done <- code
		}
	})
	t.Run("the editor vanishes", func(t *testing.T) {
		a := newFakeAgent(t)
		a.block = make(chan struct{}) // a request is under way, and never answered
		e := startEditor(t, a)
		dir := workspace(t, map[string]string{"go.mod": "module x\n", "main.go": mainGo})
		e.initialize(dir, nil)
		e.begin("workspace/executeCommand", map[string]any{"command": "fairlead.run", "arguments": []any{map[string]any{"uri": fileURI(dir + "/main.go")}}})
		e.eventually("run", func() bool { return a.said("run " + dir + " ") })
		began := time.Now()
		e.in.Close()
		if code := <-e.done; code != 1 {
			t.Errorf("exit code %d", code)
		} else {
			e.done <- code
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("it took %v", d)
		}
		if a.said("stop orders-1") {
			t.Error("what was held was released at once")
		}
	})
}

// What an editor may send wrongly must cost no more than that message.
func TestMalformed(t *testing.T) {
	e := startEditor(t, newFakeAgent(t))
	dir := workspace(t, map[string]string{"main.go": mainGo})
	e.initialize(dir, map[string]any{"workDoneToken": nil, "trace": nil, "locale": nil, "rootPath": nil, "capabilities": func() any {
		c := everything()
		c["textDocument"].(map[string]any)["completion"] = map[string]any{"completionItem": 7.5, "contextSupport": nil}
		return c
	}()})
	u := e.open(dir+"/main.go", mainGo)
	alive := func(after string) {
		t.Helper()
		if got := e.lenses(u); len(got) != 2 {
			t.Fatalf("after %s: %d lenses", after, len(got))
		}
	}
	frame := func(body string) { e.raw(fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)) }
	for name, send := range map[string]func(){
		"no JSON":                  func() { frame(`{"jsonrpc":`) },
		"an array":                 func() { frame(`[{"jsonrpc":"2.0","id":1,"method":"x"}]`) },
		"a number":                 func() { frame(`7`) },
		"null":                     func() { frame(`null`) },
		"no method":                func() { frame(`{"jsonrpc":"2.0"}`) },
		"a number for a method":    func() { frame(`{"jsonrpc":"2.0","method":7}`) },
		"params of a wrong kind":   func() { frame(`{"jsonrpc":"2.0","method":"textDocument/didOpen","params":[1]}`) },
		"no params":                func() { frame(`{"jsonrpc":"2.0","method":"textDocument/didOpen"}`) },
		"another jsonrpc":          func() { frame(`{"jsonrpc":"1.0","method":"textDocument/didOpen"}`) },
		"an unknown notification":  func() { e.notify("$/unheardOf", map[string]any{"a": 1}) },
		"an answer to no question": func() { frame(`{"jsonrpc":"2.0","id":999,"result":1}`) },
		"cancel of nothing":        func() { e.notify("$/cancelRequest", map[string]any{"id": "x"}) },
		"cancel of an object":      func() { e.notify("$/cancelRequest", map[string]any{"id": map[string]any{}}) },
		"no length":                func() { e.raw("Content-Type: x\r\n\r\n") },
		"a length that is none":    func() { e.raw("Content-Length: -5\r\n\r\n") },
		"a bomb's length":          func() { e.raw("Content-Length: 99999999999999999999\r\n\r\n") },
		"a header without end":     func() { e.raw(strings.Repeat("x", 100_000) + "\r\n\r\n") },
		"text":                     func() { e.raw("hello\n\n") },
		"a header of bad UTF-8":    func() { e.raw("\xff\xff\xff\xffContent-Length:\r\n\r\n") },
		"strings of bad UTF-8":     func() { frame("{\"jsonrpc\":\"2.0\",\"method\":\"a\xff\xfe\"}") },
		"deep nesting":             func() { frame(strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000)) },
	} {
		send()
		alive(name)
	}
	for _, method := range []string{"textDocument/unheardOf", "fairlead/unheardOf"} {
		if err := e.call(method, map[string]any{}, nil); err == nil || err.Code != -32601 {
			t.Errorf("%s: %+v", method, err)
		}
	}
	if err := e.call("textDocument/hover", []int{1}, nil); err == nil || err.Code != -32602 {
		t.Errorf("wrong params: %+v", err)
	}
	if err := e.execute("fairlead.unheardOf", nil); err == nil || err.Code != -32602 {
		t.Errorf("unknown command: %+v", err)
	}
	if err := e.execute("fairlead.run", 7); err == nil || err.Code != -32602 {
		t.Errorf("an argument of a wrong kind: %+v", err)
	}
	alive("all")
}

// A message that is too large is skipped, and the memory for it never taken.
func TestBomb(t *testing.T) {
	e := startEditor(t, newFakeAgent(t))
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", mainGo)
	e.lenses(u)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const size = maxMessage + 10
	e.raw(fmt.Sprintf("Content-Length: %d\r\n\r\n", size))
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	for left := size; left > 0; left -= len(chunk) {
		e.in.Write(chunk[:min(left, len(chunk))])
	}
	if got := e.lenses(u); len(got) != 2 {
		t.Errorf("%d lenses", len(got))
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("%d MB were taken", took>>20)
	}
}

func TestPanic(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, panicAgent{a})
	e.initialize(t.TempDir(), nil)
	if err := e.call("fairlead/access", map[string]any{"name": "x"}, nil); err == nil || err.Code != -32603 || !strings.Contains(err.Message, "bug") {
		t.Errorf("%+v", err)
	}
	e.must("textDocument/codeLens", map[string]any{"textDocument": map[string]any{"uri": "file:///x.go"}}, nil)
}

func TestCancel(t *testing.T) {
	a := newFakeAgent(t)
	a.block = make(chan struct{})
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"go.mod": "module x\n", "main.go": mainGo})
	e.initialize(dir, nil)
	id, answer := e.begin("workspace/executeCommand", map[string]any{"command": "fairlead.run", "arguments": []any{map[string]any{"dir": dir}}})
	e.eventually("run", func() bool { return a.said("run " + dir + " ") })
	e.must("textDocument/codeLens", map[string]any{"textDocument": map[string]any{"uri": "file:///x.go"}}, nil) // others overtake it
	e.notify("$/cancelRequest", map[string]any{"id": id})
	select {
	case m := <-answer:
		if m.Error == nil || m.Error.Code != -32800 {
			t.Errorf("%+v %s", m.Error, m.Result)
		}
	case <-time.After(patience):
		t.Fatal("the cancelled request was not answered")
	}
}

// A request sees every change that was sent before it.
func TestStaleReads(t *testing.T) {
	e := startEditor(t, newFakeAgent(t))
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", mainGo)
	stale := 0
	for i := range 2000 {
		e.change(u, i+2, change{Range: rng(1, 0, 1, 0), Text: "\n"})
		if got := e.lenses(u); len(got) != 2 || got[0].Range.Start.Line != i+3 {
			stale++
		}
	}
	if stale > 0 {
		t.Errorf("%d of 2000 reads were stale", stale)
	}
}

// The same without waiting for answers: each still sees its own change, and not the one after.
func TestSnapshots(t *testing.T) {
	e := startEditor(t, newFakeAgent(t))
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", mainGo)
	var answers []chan message
	for i := range 300 {
		e.change(u, i+2, change{Range: rng(1, 0, 1, 0), Text: "\n"})
		_, c := e.begin("textDocument/codeLens", map[string]any{"textDocument": map[string]any{"uri": u}})
		answers = append(answers, c)
	}
	for i, c := range answers {
		var ls []lens
		if m := <-c; json.Unmarshal(m.Result, &ls) != nil || len(ls) != 2 || ls[0].Range.Start.Line != i+3 {
			t.Fatalf("request %d sees %+v", i, ls)
		}
	}
}

type panicAgent struct{ *fakeAgent }

func (panicAgent) Access(context.Context, string) (api.JournalAccess, error) { panic("test") }

func TestEncodings(t *testing.T) {
	for _, c := range []struct {
		offered []string
		want    string
		at      int // of "x" after "/*a𐐀é*/" in units
	}{
		{nil, "utf-16", 8},
		{[]string{"utf-16"}, "utf-16", 8},
		{[]string{"utf-8", "utf-16"}, "utf-8", 11},
		{[]string{"utf-32", "utf-8"}, "utf-32", 7},
		{[]string{"utf-7", "utf-16"}, "utf-16", 8},
		{[]string{"utf-7"}, "utf-16", 8},
	} {
		a := newFakeAgent(t)
		e := startEditor(t, a)
		const text = "package main\n/*a𐐀é*/x\nfunc main() {}\n"
		dir := workspace(t, map[string]string{"main.go": text})
		caps := everything()
		caps["general"] = map[string]any{"positionEncodings": c.offered}
		var result struct {
			Capabilities struct {
				PositionEncoding string `json:"positionEncoding"`
			} `json:"capabilities"`
		}
		if err := json.Unmarshal(e.initialize(dir, map[string]any{"capabilities": caps}), &result); err != nil || result.Capabilities.PositionEncoding != c.want {
			t.Errorf("%v: %q %v", c.offered, result.Capabilities.PositionEncoding, err)
		}
		u := e.open(dir+"/main.go", text)
		s := orders(dir, api.PhaseFailed)
		s.Problems = []api.Problem{{Code: "compile", Owner: "build", Message: "undefined: x", File: dir + "/main.go", Line: 2, Column: 12}}
		a.set(s)
		p := e.diagnostics(u, "one", func(p published) bool { return len(p.Diagnostics) == 1 })
		if d := cmp.Diff(*rng(1, c.at, 1, c.at+1), p.Diagnostics[0].Range); d != "" {
			t.Errorf("%v: %s", c.offered, d)
		}
		// An edit before it, in the same units.
		e.change(u, 2, change{Range: rng(1, c.at, 1, c.at), Text: "𐐀"})
		p = e.diagnostics(u, "moved", func(p published) bool { return p.Version != nil && *p.Version == 2 })
		by := map[string]int{"utf-8": 4, "utf-16": 2, "utf-32": 1}[c.want]
		if d := cmp.Diff(*rng(1, c.at+by, 1, c.at+by+1), p.Diagnostics[0].Range); d != "" {
			t.Errorf("%v: %s", c.offered, d)
		}
	}
}

func TestForeignDocuments(t *testing.T) {
	e := startEditor(t, newFakeAgent(t))
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	for _, u := range []string{"untitled:Untitled-1", "git:/x/main.go?ref", "vscode-remote://ssh-remote+h/x/main.go", "file:///c%3A/Users/me/main.go", "file://server/share/main.go", "file://", "file:relative", "", "::", "file:///x%"} {
		e.notify("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": u, "languageId": "go", "version": 1, "text": mainGo}})
		e.change(u, 2, change{Text: mainGo})
		e.notify("textDocument/didSave", map[string]any{"textDocument": map[string]any{"uri": u}})
		var out []lens
		e.call("textDocument/codeLens", map[string]any{"textDocument": map[string]any{"uri": u}}, &out)
		if !strings.HasPrefix(u, "file:///") && len(out) > 0 && !strings.HasPrefix(u, "file://server") {
			t.Errorf("%s has lenses", u)
		}
		e.notify("textDocument/didClose", map[string]any{"textDocument": map[string]any{"uri": u}})
	}
	// A file outside of the workspace is a file.
	other := workspace(t, map[string]string{"main.go": mainGo})
	if got := titles(e.lenses(e.open(other+"/main.go", mainGo))); !slices.Equal(got, []string{"▶ Run in environment", "Debug"}) {
		t.Errorf("%q", got)
	}
	if err := e.execute("fairlead.run", map[string]any{"uri": "untitled:Untitled-1"}); err == nil || !strings.Contains(err.Message, "not a file") {
		t.Errorf("%+v", err)
	}
}

// A change that cannot be read makes our copy another than the editor's: it is not used any more.
func TestUnreadableChange(t *testing.T) {
	e := startEditor(t, newFakeAgent(t))
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	for i, c := range []any{
		map[string]any{"range": map[string]any{"start": map[string]any{"line": -1, "character": 0}, "end": map[string]any{"line": 0, "character": 0}}, "text": "x"},
		map[string]any{"range": map[string]any{"start": map[string]any{"line": 0}, "end": map[string]any{"line": 0, "character": 0}}, "text": "x"},
		map[string]any{"range": rng(0, 0, 0, 0)},
		map[string]any{"text": 7},
	} {
		u := e.open(fmt.Sprintf("%s/d%d/main.go", dir, i), mainGo)
		e.notify("textDocument/didChange", map[string]any{"textDocument": map[string]any{"uri": u, "version": 2}, "contentChanges": []any{c}})
		if got := e.lenses(u); len(got) != 0 {
			t.Errorf("change %d was taken: %+v", i, got)
		}
	}
}
