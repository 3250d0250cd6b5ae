package lsp

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

func TestLenses(t *testing.T) {
	a := newFakeAgent(t)
	a.answer = api.RunAnswer{Name: "orders-1"}
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"go.mod": "module x\n", "cmd/orders/main.go": mainGo})
	e.initialize(dir, map[string]any{"initializationOptions": map[string]any{"on": "local"}})
	pkg := filepath.Join(dir, "cmd/orders")
	u := e.open(pkg+"/main.go", mainGo)
	ls := e.lenses(u)
	if d := cmp.Diff([]string{"▶ Run in environment", "Debug"}, titles(ls)); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff(*rng(2, 0, 2, 9), ls[0].Range); d != "" {
		t.Error(d)
	}

	// The lens's own command runs the file's service, with the editor's environment.
	if err := e.execute(ls[0].Command.Command, ls[0].Command.Arguments[0]); err != nil {
		t.Fatalf("%+v", err)
	}
	if d := cmp.Diff(api.RunRequest{Path: pkg + "/main.go", On: "local", Env: []string{"FROM=editor"}}, a.runs[0]); d != "" {
		t.Error(d)
	}

	s := orders(dir, api.PhaseOpening)
	s.Package = pkg
	s.Detail = "waiting for the image"
	want := func(what string, titlesWanted ...string) {
		t.Helper()
		before := e.count("workspace/codeLens/refresh")
		a.set(s)
		if d := cmp.Diff(titlesWanted, titles(e.lenses(u))); d != "" {
			t.Errorf("%s: %s", what, d)
		}
		e.eventually("refresh: "+what, func() bool { return e.count("workspace/codeLens/refresh") > before })
	}
	want("opening", "opening the environment: waiting for the image", "Debug", "Logs", "Stop")
	s.Phase, s.Detail = api.PhaseBuilding, ""
	want("building", "building", "Debug", "Logs", "Stop")
	s.Phase, s.URL, s.MS = api.PhaseLive, "http://127.0.0.1:8080/", 312
	before := e.count("workspace/codeLens/refresh")
	want("live", "live in 312 ms", "Debug", "Open in browser", "Logs", "Stop")
	e.eventually("a second refresh", func() bool { return e.count("workspace/codeLens/refresh") > before+1 })
	e.await("the browser", func(got []message) bool {
		return slices.ContainsFunc(got, func(m message) bool {
			return m.Method == "window/showDocument" && strings.Contains(string(m.Params), `"uri":"http://127.0.0.1:8080/"`) && strings.Contains(string(m.Params), `"external":true`)
		})
	})
	s.MS = 200
	want("live again", "live in 200 ms", "Debug", "Open in browser", "Logs", "Stop")
	s.Phase, s.Problems = api.PhaseFailed, []api.Problem{{Code: "compile", Owner: "build", Message: "undefined: x", File: pkg + "/main.go", Line: 4, Column: 2}}
	want("failed", "failed: main.go:4: undefined: x", "Debug", "Open in browser", "Logs", "Stop")
	s.Phase, s.Problems, s.Detail = api.PhaseLost, nil, "the network is unreachable"
	want("lost", "disconnected: the network is unreachable", "Debug", "Open in browser", "Logs", "Stop")
	s.Phase, s.Detail = api.PhaseStopping, ""
	want("stopping", "stopping", "Open in browser", "Logs")
	s.Phase, s.Problems = api.PhaseEnded, []api.Problem{{Code: "gone", Message: "the environment was removed"}}
	want("ended", "▶ Run in environment", "Debug", "ended: the environment was removed")
	if n := e.count("window/showDocument"); n != 1 {
		t.Errorf("the browser was opened %d times", n)
	}

	// Lenses can be turned off.
	e.notify("workspace/didChangeConfiguration", map[string]any{"settings": map[string]any{"fairlead": map[string]any{"codeLens": false}}})
	if ls := e.lenses(u); len(ls) != 0 {
		t.Errorf("%q", titles(ls))
	}
}

func TestLensPlace(t *testing.T) {
	e := startEditor(t, newFakeAgent(t))
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	for i, c := range []struct {
		name, text string
		line       int // -1: no lens
	}{
		{"main.go", "package main\n\n// func main() {\nfunc main() {}\n", 3},
		{"crlf.go", "package main\r\n\r\nfunc main() {}\r\n", 2},
		{"lib.go", "package lib\n\nfunc main() {}\n", -1},
		{"main_test.go", "package main\n\nfunc main() {}\n", -1},
		{"method.go", "package main\n\ntype T int\n\nfunc (T) main() {}\n", -1},
		{"string.go", "package main\n\nvar s = `\nfunc main() {}\n`\n", -1},
		{"ignored.go", "//go:build ignore\n\npackage main\n\nfunc main() {}\n", -1},
		{"linux.go", "//go:build linux\n\npackage main\n\nfunc main() {}\n", 4},
		{"broken.go", "package main\n\nfunc f( {\n\nfunc main() {\n", 4},
		{"half.go", "package main\n\nfunc main() {\n\tif x {\n", 2},
		{"empty.go", "", -1},
		{"note.txt", "package main\n\nfunc main() {}\n", -1},
	} {
		u := e.open(fmt.Sprintf("%s/%d/%s", dir, i, c.name), c.text)
		line := -1
		if ls := e.lenses(u); len(ls) > 0 {
			line = ls[0].Range.Start.Line
		}
		if line != c.line {
			t.Errorf("%s: line %d, want %d", c.name, line, c.line)
		}
	}
	// What is being typed does not make the lens jump away.
	u := e.open(dir+"/k/main.go", mainGo)
	e.lenses(u)
	e.change(u, 2, change{Range: rng(2, 4, 2, 4), Text: "x /* "})
	if ls := e.lenses(u); len(ls) != 2 || ls[0].Range.Start.Line != 2 {
		t.Errorf("%+v", ls)
	}
}

func TestCodeActions(t *testing.T) {
	a := newFakeAgent(t)
	for _, literals := range []bool{true, false} {
		e := startEditor(t, a)
		dir := workspace(t, map[string]string{"go.mod": "module x\n", "main.go": mainGo})
		caps := everything()
		if !literals {
			delete(caps["textDocument"].(map[string]any), "codeAction")
		}
		a.attached = make(chan struct{})
		e.initialize(dir, map[string]any{"capabilities": caps})
		u := e.open(dir+"/main.go", mainGo)
		ask := func(line int, only ...string) []string {
			t.Helper()
			ctx := map[string]any{"diagnostics": []any{map[string]any{"range": rng(0, 0, 0, 1), "message": "of another server", "code": 4.5, "tags": nil}}}
			if only != nil {
				ctx["only"] = only
			}
			var got []struct {
				Title   string
				Kind    string
				Command json.RawMessage
			}
			e.must("textDocument/codeAction", map[string]any{"textDocument": map[string]any{"uri": u}, "range": rng(line, 0, line, 0), "context": ctx}, &got)
			out := []string{}
			for _, g := range got {
				out = append(out, strings.TrimSuffix(g.Title+"|"+g.Kind, "|"))
			}
			return out
		}
		if d := cmp.Diff([]string{"Fairlead: Run in environment", "Fairlead: Debug in environment"}, ask(2)); d != "" {
			t.Error(d)
		}
		if got := ask(0); len(got) != 0 {
			t.Errorf("on another line: %q", got)
		}
		if got := ask(2, "quickfix"); len(got) != 0 {
			t.Errorf("of another kind: %q", got)
		}
		want := []string{"Fairlead: Run in environment|source.fairlead.run", "Fairlead: Debug in environment|source.fairlead.debug"}
		if !literals {
			want = []string{"Fairlead: Run in environment", "Fairlead: Debug in environment"}
		}
		if d := cmp.Diff(want, ask(2, "source")); d != "" {
			t.Error(d)
		}
		s := orders(dir, api.PhaseLive)
		s.URL = "http://127.0.0.1:1/"
		a.set(s)
		if d := cmp.Diff([]string{"Fairlead: Details (live)", "Fairlead: Debug", "Fairlead: Open in browser", "Fairlead: Show logs", "Fairlead: Stop"}, ask(2)); d != "" {
			t.Error(d)
		}
		delete(a.services, s.Name)
	}
}

// Compiler errors are at their token, move with unsaved edits, go with their text, and are cleared by their owner.
func TestDiagnostics(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	const text = "package main\n\nfunc main() {\n\tundefinedName(1)\n\tvar unused = \"a b\"\n}\n"
	dir := workspace(t, map[string]string{"main.go": text, "other.go": "package main\n\nvar x = y\n"})
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", text)
	s := orders(dir, api.PhaseFailed)
	s.Problems = []api.Problem{
		{Code: "compile", Owner: "build", Message: "undefined: undefinedName", Hint: "declare it", File: dir + "/main.go", Line: 4, Column: 2},
		{Code: "compile", Owner: "build", Message: "declared and not used: unused", File: dir + "/main.go", Line: 5, Column: 6},
		{Code: "compile", Owner: "build", Message: "undefined: y", File: "other.go", Line: 3, Column: 9},
	}
	a.set(s)
	p := e.diagnostics(u, "two", func(p published) bool { return len(p.Diagnostics) == 2 })
	want := []diag{
		{Range: *rng(3, 1, 3, 14), Severity: 1, Code: "compile", Source: "fairlead", Message: "undefined: undefinedName\ndeclare it"},
		{Range: *rng(4, 5, 4, 11), Severity: 1, Code: "compile", Source: "fairlead", Message: "declared and not used: unused"},
	}
	for i := range want {
		want[i].Data.Owner, want[i].Data.Service = "build", "orders-1"
	}
	if d := cmp.Diff(want, p.Diagnostics); d != "" {
		t.Error(d)
	}
	e.diagnostics(fileURI(dir+"/other.go"), "of a file that is not open", func(p published) bool {
		return len(p.Diagnostics) == 1 && p.Diagnostics[0].Range == *rng(2, 8, 2, 9)
	})

	at := func(version int, ranges ...*lspRange) {
		t.Helper()
		got := e.diagnostics(u, fmt.Sprint("of version ", version), func(p published) bool { return p.Version != nil && *p.Version == version })
		var have []*lspRange
		for _, d := range got.Diagnostics {
			have = append(have, &d.Range)
		}
		if d := cmp.Diff(ranges, have); d != "" {
			t.Errorf("version %d: %s", version, d)
		}
	}
	e.change(u, 2, change{Range: rng(1, 0, 1, 0), Text: "// two\n// lines\n"})
	at(2, rng(5, 1, 5, 14), rng(6, 5, 6, 11))
	// The agent says the same again for another reason: nothing jumps back.
	s.Detail = "x"
	a.set(s)
	e.change(u, 3, change{Range: rng(5, 14, 5, 14), Text: "X"}) // behind the first
	at(3, rng(5, 1, 5, 14), rng(6, 5, 6, 11))
	e.change(u, 4, change{Range: rng(5, 0, 6, 0), Text: ""}) // the first's line is deleted
	at(4, rng(5, 5, 5, 11))
	// The whole text, as a formatter sends it, leaves the other where it is.
	const formatted = "package main\n\n\n// two\n// lines\nfunc main() {\n\tvar unused = \"a b\"\n}\n"
	e.change(u, 5, change{Text: formatted})
	at(5, rng(6, 5, 6, 11))

	// Saved and built again: the same words are now about the text as it is saved.
	if err := os.WriteFile(dir+"/main.go", []byte(formatted), 0o644); err != nil {
		t.Fatal(err)
	}
	e.notify("textDocument/didSave", map[string]any{"textDocument": map[string]any{"uri": u}})
	e.lenses(u) // it has been read
	s.Phase = api.PhaseBuilding
	a.set(s)
	s.Phase, s.Since = api.PhaseFailed, time.Unix(20, 0)
	s.Problems = []api.Problem{{Code: "compile", Owner: "build", Message: "declared and not used: unused", File: dir + "/main.go", Line: 7, Column: 6}}
	a.set(s)
	e.diagnostics(u, "of the second build", func(p published) bool { return len(p.Diagnostics) == 1 && p.Diagnostics[0].Range == *rng(6, 5, 6, 11) })
	e.diagnostics(fileURI(dir+"/other.go"), "cleared", func(p published) bool { return len(p.Diagnostics) == 0 })

	// An error whose text was deleted is back when the next build says it again.
	e.change(u, 6, change{Range: rng(6, 0, 7, 0), Text: ""})
	at(6)
	e.change(u, 7, change{Range: rng(6, 0, 6, 0), Text: "\tvar unused = \"a b\"\n"})
	e.notify("textDocument/didSave", map[string]any{"textDocument": map[string]any{"uri": u}})
	e.lenses(u)
	s.Since = time.Unix(30, 0)
	a.set(s)
	e.diagnostics(u, "of the third build", func(p published) bool { return len(p.Diagnostics) == 1 && p.Diagnostics[0].Range == *rng(6, 5, 6, 11) })

	// Problems that come after unsaved edits are about what was saved.
	e.change(u, 8, change{Range: rng(0, 0, 0, 0), Text: "// head\n"})
	e.lenses(u)
	s.Since = time.Unix(40, 0)
	a.set(s)
	at(8, rng(7, 5, 7, 11))

	// Closed without saving: what is on the disk counts.
	e.notify("textDocument/didClose", map[string]any{"textDocument": map[string]any{"uri": u}})
	e.diagnostics(u, "of the closed file", func(p published) bool { return p.Version == nil && len(p.Diagnostics) == 1 })

	s.Phase, s.Problems = api.PhaseLive, nil
	a.set(s)
	e.diagnostics(u, "mended", func(p published) bool { return len(p.Diagnostics) == 0 })
}

// The file watcher can be faster than the editor's word that it has saved: a build of a file that was just written can
// fail before didSave comes, and what was replaced by the save is no reason to leave its errors out.
func TestDiagnosticsBeforeDidSave(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	const text = "package main\n\nconst greeting = \"hello\"\n"
	const written = "package main\n\nconst greeting = 1 + \"x\"\n"
	dir := workspace(t, map[string]string{"main.go": text})
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", text)
	e.change(u, 2, change{Range: rng(2, 0, 2, 24), Text: "const greeting = 1 + \"x\""})
	e.lenses(u) // it has been read
	if err := os.WriteFile(dir+"/main.go", []byte(written), 0o644); err != nil {
		t.Fatal(err)
	}
	s := orders(dir, api.PhaseFailed)
	s.Problems = []api.Problem{{Code: "compile", Owner: "build", Message: "mismatched types", File: dir + "/main.go", Line: 3, Column: 18}}
	a.set(s)
	e.diagnostics(u, "of what was written", func(p published) bool { return len(p.Diagnostics) == 1 && p.Diagnostics[0].Range == *rng(2, 17, 2, 18) })

	// The same while typing goes on: the error moves with it.
	e.notify("textDocument/didSave", map[string]any{"textDocument": map[string]any{"uri": u}})
	e.change(u, 3, change{Range: rng(0, 0, 0, 0), Text: "// head\n"})
	e.diagnostics(u, "moved", func(p published) bool { return len(p.Diagnostics) == 1 && p.Diagnostics[0].Range == *rng(3, 17, 3, 18) })
}

func TestPanicDiagnostic(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"main.go": mainGo, "b.go": "package main\n\nfunc b() {\n\ta()\n}\n"})
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", mainGo)
	s := orders(dir, api.PhaseDown)
	s.Problems = []api.Problem{{Code: "panic", Owner: "process", Message: "panic: boom", File: dir + "/main.go", Line: 4,
		Related: []api.Place{{File: dir + "/b.go", Line: 4, Message: "called from main.b"}}}}
	a.set(s)
	p := e.diagnostics(u, "one", func(p published) bool { return len(p.Diagnostics) == 1 })
	if d := p.Diagnostics[0]; d.Range != *rng(3, 1, 3, 11) || len(d.Related) != 1 || d.Related[0].Location.URI != fileURI(dir+"/b.go") || d.Related[0].Location.Range != *rng(3, 1, 3, 4) {
		t.Errorf("%+v", d)
	}
	if d := cmp.Diff([]string{"ended: main.go:4: panic: boom", "Debug", "Logs", "Stop"}, titles(e.lenses(u))); d != "" {
		t.Error(d)
	}
}

// What has no place is said once in a message, and stands where it cannot be missed.
func TestProblemsWithoutPlace(t *testing.T) {
	for _, c := range []struct {
		name     string
		files    map[string]string
		provider string
		file     string
		line     int
	}{
		{"on func main", map[string]string{"main.go": mainGo}, "local", "main.go", 2},
		{"on the package clause", map[string]string{"main.go": "// x\npackage main\n"}, "local", "main.go", 1},
		{"on the settings", map[string]string{"main.go": mainGo, "fairlead.yaml": "version: 1\nname: orders\n"}, "local", "fairlead.yaml", 0},
		{"on the key", map[string]string{"main.go": mainGo, "fairlead.yaml": "version: 1\nkubernetes:\n  namespace: shop\n"}, "kubernetes", "fairlead.yaml", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newFakeAgent(t)
			e := startEditor(t, a)
			dir := workspace(t, c.files)
			e.initialize(dir, nil)
			s := orders(dir, api.PhaseLost)
			s.Provider = c.provider
			s.Problems = []api.Problem{{Code: "image-pull", Owner: "environment", Message: "the image is not there", Hint: "push it"}}
			a.set(s)
			e.diagnostics(fileURI(filepath.Join(dir, c.file)), "placed", func(p published) bool {
				return len(p.Diagnostics) == 1 && p.Diagnostics[0].Range.Start.Line == c.line
			})
			s.Detail = "again"
			a.set(s)
			e.eventually("message", func() bool { return e.count("window/showMessage") > 0 })
			s.Problems = nil
			a.set(s)
			e.diagnostics(fileURI(filepath.Join(dir, c.file)), "cleared", func(p published) bool { return len(p.Diagnostics) == 0 })
			if n := e.count("window/showMessage"); n != 1 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

func TestRunRefused(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"go.mod": "module x\n", "main.go": mainGo, "fairlead.yaml": "version: 1\nport: x\n"})
	e.initialize(dir, nil)
	a.runErr = errors.Join(
		&api.Problem{Code: "settings-type", Message: "port: expected a whole number", File: dir + "/fairlead.yaml", Line: 2, Column: 7},
		&api.Problem{Code: "no-cluster", Message: "no cluster answers", Hint: "start it"})
	err := e.execute("fairlead.run", map[string]any{"dir": dir})
	if err == nil || err.Code != -32803 || !strings.Contains(err.Message, "expected a whole number") || !strings.Contains(err.Message, "no cluster answers (start it)") {
		t.Errorf("%+v", err)
	}
	e.diagnostics(fileURI(dir+"/fairlead.yaml"), "its line", func(p published) bool { return len(p.Diagnostics) == 1 && p.Diagnostics[0].Range == *rng(1, 6, 1, 7) })
	e.diagnostics(fileURI(dir+"/main.go"), "func main", func(p published) bool { return len(p.Diagnostics) == 1 })
	a.mu.Lock()
	a.runErr = nil
	a.mu.Unlock()
	if err := e.execute("fairlead.run", map[string]any{"dir": dir}); err != nil {
		t.Errorf("%+v", err)
	}
	e.diagnostics(fileURI(dir+"/main.go"), "cleared", func(p published) bool { return len(p.Diagnostics) == 0 })
	// A terminal's run that goes through clears it too, and so does a save of the settings.
	for what, mend := range map[string]func(){
		"a terminal": func() { a.set(orders(dir, api.PhaseLive)) },
		"a save": func() {
			e.notify("textDocument/didSave", map[string]any{"textDocument": map[string]any{"uri": fileURI(dir + "/fairlead.yaml")}})
		},
	} {
		a.mu.Lock()
		a.runErr = &api.Problem{Code: "no-cluster", Message: "no cluster answers, " + what}
		a.mu.Unlock()
		e.execute("fairlead.run", map[string]any{"dir": dir})
		e.diagnostics(fileURI(dir+"/main.go"), "refused again", func(p published) bool {
			return len(p.Diagnostics) == 1 && strings.Contains(p.Diagnostics[0].Message, what)
		})
		mend()
		e.diagnostics(fileURI(dir+"/main.go"), "cleared by "+what, func(p published) bool { return len(p.Diagnostics) == 0 })
		end := orders(dir, api.PhaseEnded)
		a.set(end)
	}
	if n := e.count("window/showMessage"); n != 0 {
		t.Errorf("%d messages beside the answer's own", n)
	}
}

func TestUntrusted(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"main.go": mainGo})
	e.initialize(dir, map[string]any{"initializationOptions": map[string]any{"trusted": false}})
	if err := e.execute("fairlead.run", map[string]any{"dir": dir}); err == nil || !strings.Contains(err.Message, "not trusted") {
		t.Errorf("%+v", err)
	}
	if len(a.runs) != 0 {
		t.Error("it was run")
	}
	e.notify("workspace/didChangeConfiguration", map[string]any{"settings": map[string]any{"trusted": true}})
	if err := e.execute("fairlead.run", map[string]any{"dir": dir}); err != nil {
		t.Errorf("%+v", err)
	}
}

func TestCommands(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"main.go": mainGo})
	e.initialize(dir, nil)
	if err := e.execute("fairlead.stop", nil); err == nil || !strings.Contains(err.Message, "no service runs") {
		t.Errorf("%+v", err)
	}
	s := orders(dir, api.PhaseLive)
	a.set(s)
	if err := e.execute("fairlead.open", nil); err == nil || !strings.Contains(err.Message, "listens on no port") {
		t.Errorf("%+v", err)
	}
	if err := e.execute("fairlead.cancel", nil); err == nil || !strings.Contains(err.Message, "nothing to cancel") {
		t.Errorf("%+v", err)
	}
	s.URL, s.Ports = "http://127.0.0.1:1/", []api.Forward{{Port: 9000, URL: "http://127.0.0.1:2/"}}
	a.set(s)
	for _, arg := range []any{nil, map[string]any{"name": "orders"}, map[string]any{"port": 9000}} {
		if err := e.execute("fairlead.open", arg); err != nil {
			t.Errorf("%v: %+v", arg, err)
		}
	}
	if err := e.execute("fairlead.open", map[string]any{"port": 1}); err == nil {
		t.Error("a port that is none was opened")
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	a.entries = []api.Entry{
		{Seq: 1, Event: &api.ReadyEvent{Header: api.Header{Time: at, Generation: 1}, URL: "http://127.0.0.1:1/"}},
		{Seq: 2, Event: &api.LogEvent{Header: api.Header{Time: at}, Text: "hello"}, Dropped: 3},
	}
	if err := e.execute("fairlead.logs", nil); err != nil {
		t.Fatalf("%+v", err)
	}
	var shown struct{ URI string }
	e.await("the log", func(got []message) bool {
		for _, m := range got {
			if m.Method == "window/showDocument" && strings.Contains(string(m.Params), ".log") {
				return json.Unmarshal(m.Params, &shown) == nil
			}
		}
		return false
	})
	b, err := os.ReadFile(strings.TrimPrefix(shown.URI, "file://"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("03:04:05.000 -- generation 1 is live http://127.0.0.1:1/ --\n-- 3 lines were lost here --\n03:04:05.000 hello\n", string(b)); d != "" {
		t.Error(d)
	}
	if err := e.execute("fairlead.details", nil); err != nil {
		t.Errorf("%+v", err)
	}
	e.eventually("details", func() bool { return e.count("window/showMessage") == 1 })
	// With two services the user is asked.
	other := orders(dir, api.PhaseLive)
	other.Name, other.Environment.Service = "stock-1", "stock"
	a.set(other)
	e.mu.Lock()
	e.replies["window/showMessageRequest"] = map[string]any{"title": "stock-1"}
	e.mu.Unlock()
	if err := e.execute("fairlead.stop", nil); err != nil {
		t.Errorf("%+v", err)
	}
	if !a.said("stop stock-1") {
		t.Error("the other was stopped")
	}
	for arg, want := range map[string]string{`{"name": "orders-1", "hours": 24}`: "keep orders-1 for 24h0m0s", `{"name": "orders-1"}`: "keep orders-1 no longer"} {
		if err := e.execute("fairlead.keep", json.RawMessage(arg)); err != nil || !a.said(want) {
			t.Errorf("%s: %+v; the agent was asked %q", arg, err, a.calls)
		}
	}
	for _, hours := range []string{"-1", "1e9"} {
		if err := e.execute("fairlead.keep", json.RawMessage(`{"name": "orders-1", "hours": `+hours+`}`)); err == nil || !strings.Contains(err.Message, "hours must be") {
			t.Errorf("%s hours: %+v", hours, err)
		}
	}
	if err := e.execute("fairlead.dependency", json.RawMessage(`{"name": "orders-1", "dependency": "redis", "mode": "fresh"}`)); err != nil || !a.said("switch redis of orders-1 to fresh") {
		t.Errorf("%+v; the agent was asked %q", err, a.calls)
	}
	for _, arg := range []string{`{"name": "orders-1", "mode": "fresh"}`, `{"name": "orders-1", "dependency": "redis", "mode": "off"}`} {
		if err := e.execute("fairlead.dependency", json.RawMessage(arg)); err == nil || !strings.Contains(err.Message, "shared or fresh") {
			t.Errorf("%s: %+v", arg, err)
		}
	}
	if err := e.execute("fairlead.join", json.RawMessage(`{"environment": "orders-ann-1", "namespace": "shop"}`)); err != nil || !a.said(`join shop/orders-ann-1 in ""`) {
		t.Errorf("%+v; the agent was asked %q", err, a.calls)
	}
	if err := e.execute("fairlead.join", json.RawMessage(`{}`)); err == nil || !strings.Contains(err.Message, "environment is missing") {
		t.Errorf("%+v", err)
	}
	var access api.JournalAccess
	e.must("fairlead/access", map[string]any{"name": "orders-1"}, &access)
	if access.Token != "t" {
		t.Errorf("%+v", access)
	}
	if err := e.execute("fairlead.restartAgent", nil); err != nil || !a.said("restart") {
		t.Errorf("%+v", err)
	}
}

func TestProgress(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"main.go": mainGo})
	e.initialize(dir, nil)
	values := func() []string {
		e.mu.Lock()
		defer e.mu.Unlock()
		var out []string
		for _, m := range e.got {
			if m.Method == "$/progress" {
				var p struct {
					Value struct {
						Kind, Title, Message string
						Cancellable          *bool
					}
				}
				json.Unmarshal(m.Params, &p)
				can := p.Value.Cancellable != nil && *p.Value.Cancellable
				out = append(out, strings.Join(strings.Fields(fmt.Sprint(p.Value.Kind, " ", p.Value.Title, " ", p.Value.Message, " ", can)), " "))
			}
		}
		return out
	}
	s := orders(dir, api.PhaseOpening)
	a.set(s)
	e.eventually("begin", func() bool { return len(values()) == 1 })
	var token struct{ Token string }
	e.await("token", func(got []message) bool {
		for _, m := range got {
			if m.Method == "window/workDoneProgress/create" {
				return json.Unmarshal(m.Params, &token) == nil
			}
		}
		return false
	})
	e.notify("window/workDoneProgress/cancel", map[string]any{"token": token.Token})
	e.eventually("cancel", func() bool { return a.said("cancel orders-1 environment") })
	for i, p := range []api.Phase{api.PhaseBuilding, api.PhaseShipping, api.PhaseStarting} {
		s.Phase = p
		a.set(s)
		e.eventually(string(p), func() bool { return len(values()) == i+2 })
		if what := workOf(p); what != "" {
			e.notify("window/workDoneProgress/cancel", map[string]any{"token": token.Token})
			e.eventually("cancel", func() bool { return a.said("cancel orders-1 " + what) })
		}
	}
	s.Phase, s.MS, s.Generation = api.PhaseLive, 900, 1
	a.set(s)
	e.eventually("end", func() bool { return len(values()) == 5 })
	if d := cmp.Diff([]string{"begin Fairlead: orders opening the environment true", "report building true", "report shipping true", "report starting false", "end live in 900 ms false"}, values()); d != "" {
		t.Error(d)
	}
	// A quick build shows nothing.
	for range 3 {
		s.Phase = api.PhaseBuilding
		a.set(s)
		s.Phase = api.PhaseLive
		a.set(s)
	}
	s.Phase = api.PhaseBuilding
	a.set(s)
	e.eventually("the next begin", func() bool { return len(values()) == 6 })
	if n := e.count("window/workDoneProgress/create"); n != 2 {
		t.Errorf("%d were created", n)
	}
}

func TestSaved(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"main.go": mainGo, "early.go": mainGo})
	if err := os.Symlink(dir, dir+"-link"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir + "-link") })
	e.initialize(dir, nil)
	u := e.open(dir+"-link/main.go", mainGo)
	e.notify("textDocument/didSave", map[string]any{"textDocument": map[string]any{"uri": fileURI(dir + "/early.go")}}) // nothing runs: nobody is told
	e.lenses(u)
	a.set(orders(dir, api.PhaseLive))
	if d := cmp.Diff([]string{"live", "Debug", "Logs", "Stop"}, titles(e.lenses(u))); d != "" {
		t.Errorf("through a symbolic link: %s", d)
	}
	e.notify("textDocument/didSave", map[string]any{"textDocument": map[string]any{"uri": u}})
	e.eventually("saved", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.saves) == 1 })
	if d := cmp.Diff([][]string{{dir + "/main.go"}}, a.saves); d != "" {
		t.Error(d)
	}
	// Diagnostics come under the name that the editor knows.
	s := orders(dir, api.PhaseFailed)
	s.Problems = []api.Problem{{Code: "compile", Owner: "build", Message: "m", File: dir + "/main.go", Line: 4, Column: 2}}
	a.set(s)
	e.diagnostics(u, "under the link", func(p published) bool { return len(p.Diagnostics) == 1 })
}

func TestAgentLost(t *testing.T) {
	a := newFakeAgent(t)
	a.answer = api.RunAnswer{Name: "orders-1"}
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"main.go": mainGo})
	caps := everything()
	caps["experimental"] = map[string]any{"fairlead": true}
	e.initialize(dir, map[string]any{"capabilities": caps})
	u := e.open(dir+"/main.go", mainGo)
	state := func(what string, cond func(servicesParams) bool) {
		t.Helper()
		e.await(what, func(got []message) bool {
			for _, m := range slices.Backward(got) {
				if m.Method == "fairlead/services" {
					var p servicesParams
					return json.Unmarshal(m.Params, &p) == nil && cond(p)
				}
			}
			return false
		})
	}
	if err := e.execute("fairlead.run", map[string]any{"dir": dir}); err != nil {
		t.Fatalf("%+v", err)
	}
	<-a.attached
	a.sync() // the first list of an attachment that began before the run, and came after its answer
	a.set(orders(dir, api.PhaseLive))
	state("one service", func(p servicesParams) bool {
		return p.Agent.Connected && p.Agent.Version == "test" && len(p.Services) == 1
	})

	// The attachment breaks and comes back to the same agent: nothing is asked for again.
	a.handle(Update{Lost: errTest})
	state("lost", func(p servicesParams) bool {
		return !p.Agent.Connected && p.Agent.Problem != nil && p.Agent.Problem.Message == "test"
	})
	if d := cmp.Diff([]string{"the agent is gone: reconnecting", "Debug", "Logs", "Stop"}, titles(e.lenses(u))); d != "" {
		t.Error(d)
	}
	a.sync()
	state("back", func(p servicesParams) bool {
		return p.Agent.Connected && p.Agent.Problem == nil && len(p.Services) == 1
	})
	if n := len(a.runs); n != 1 {
		t.Errorf("%d runs", n)
	}

	// Another agent, without it: it is run again.
	a.handle(Update{Lost: errTest})
	a.mu.Lock()
	a.info.PID = 101
	a.services = map[string]*api.Service{}
	a.mu.Unlock()
	a.sync()
	e.eventually("run again", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.runs) == 2 })
	state("empty", func(p servicesParams) bool { return p.Agent.Connected && len(p.Services) == 0 })
	if d := cmp.Diff(a.runs[0], a.runs[1]); d != "" {
		t.Error(d)
	}

	// What was ended by somebody is not run again.
	a.set(orders(dir, api.PhaseLive))
	end := orders(dir, api.PhaseEnded)
	a.set(end)
	a.handle(Update{Lost: errTest})
	a.mu.Lock()
	a.info.PID = 102
	a.services = map[string]*api.Service{}
	a.mu.Unlock()
	a.sync()
	a.mu.Lock()
	a.answer.Name = "other-1"
	a.mu.Unlock()
	if err := e.execute("fairlead.run", map[string]any{"dir": "/other"}); err != nil {
		t.Fatalf("%+v", err)
	}
	e.must("fairlead/access", map[string]any{"name": "x"}, nil)
	if d := cmp.Diff([]string{"run " + dir + " ", "run " + dir + " ", "run /other "}, a.calls); d != "" {
		t.Error(d)
	}

	// Restarted from here: what the agent ends on its way out is wanted still.
	if err := e.execute("fairlead.restartAgent", nil); err != nil {
		t.Fatalf("%+v", err)
	}
	end = orders("/other", api.PhaseEnded)
	end.Name = "other-1"
	a.handle(Update{Update: api.Update{Service: &end}})
	a.handle(Update{Lost: errTest})
	a.mu.Lock()
	a.info.PID = 103
	a.calls = nil
	a.mu.Unlock()
	a.sync()
	e.eventually("run again after the restart", func() bool { return a.said("run /other ") })

	// Another version is said at once, with the way out.
	e.mu.Lock()
	e.replies["window/showMessageRequest"] = map[string]any{"title": "Restart agent"}
	e.mu.Unlock()
	a.handle(Update{Lost: &api.Problem{Code: "agent-version", Message: "the agent that runs is of version 1", Hint: "stop what it runs"}})
	e.eventually("restart", func() bool { return a.said("restart") })
}

// Folders come and go; what is below one that was reached by a symbolic link is named as the editor names it.
func TestWorkspaceFolders(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"main.go": mainGo})
	link := dir + "-link"
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(link) })
	e.initialize(t.TempDir(), map[string]any{"workspaceFolders": nil})
	if err := e.execute("fairlead.run", nil); err == nil || !strings.Contains(err.Message, "no folder is open") {
		t.Errorf("%+v", err)
	}
	s := orders(dir, api.PhaseFailed)
	s.Problems = []api.Problem{{Code: "compile", Owner: "build", Message: "m", File: dir + "/main.go", Line: 4, Column: 2}}
	a.set(s)
	e.diagnostics(fileURI(dir+"/main.go"), "by its own name", func(p published) bool { return len(p.Diagnostics) == 1 })
	folders := func(added, removed []string) {
		event := map[string]any{}
		for name, uris := range map[string][]string{"added": added, "removed": removed} {
			list := []any{}
			for _, u := range uris {
				list = append(list, map[string]any{"uri": u, "name": filepath.Base(u)})
			}
			event[name] = list
		}
		e.notify("workspace/didChangeWorkspaceFolders", map[string]any{"event": event})
	}
	folders([]string{fileURI(link), "untitled:x"}, nil)
	e.diagnostics(fileURI(link+"/main.go"), "by the folder's name", func(p published) bool { return len(p.Diagnostics) == 1 })
	e.diagnostics(fileURI(dir+"/main.go"), "not twice", func(p published) bool { return len(p.Diagnostics) == 0 })
	if err := e.execute("fairlead.run", nil); err != nil || !a.said("run "+dir+" ") {
		t.Errorf("%+v", err)
	}
	folders(nil, []string{fileURI(link)})
	e.diagnostics(fileURI(dir+"/main.go"), "by its own name again", func(p published) bool { return len(p.Diagnostics) == 1 })
}
