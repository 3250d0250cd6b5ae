package lsp

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// A refused call is marked as far as its expression goes, with the form's address as it is; its fixes open the form with what was
// refused; they go with it.
func TestRefusedCall(t *testing.T) {
	const src = "package main\n\nfunc main() {\n\tcharge(\"é\", 1)\n\trefund()\n}\n"
	a := newFakeAgent(t)
	e := startEditor(t, a)
	dir := workspace(t, map[string]string{"main.go": src})
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", src)
	link := "http://127.0.0.1:7/request?caller=orders&callee=billing"
	refused := func(method string, line, end int) api.Problem {
		return api.Problem{Code: api.CodeNotGranted, Owner: "calls", Message: "orders may not call " + method, File: dir + "/main.go", Line: line, Column: 2, EndColumn: end,
			Link: link, Call: &api.Call{Callee: "billing", Protocol: api.CallGRPC, Method: method}}
	}
	s := orders(dir, api.PhaseLive)
	s.Problems = []api.Problem{refused("/b.B/Charge", 4, 17), refused("/b.B/Refund", 5, 10)}
	a.set(s)
	p := e.diagnostics(u, "two", func(p published) bool { return len(p.Diagnostics) == 2 })
	if d := p.Diagnostics[0]; d.Range != *rng(3, 1, 3, 15) || d.Code != "rpc-not-authorized" || d.Severity != 1 || d.CodeDescription.Href != link {
		t.Errorf("%+v", d)
	}
	type action struct {
		Title       string `json:"title"`
		Kind        string `json:"kind"`
		IsPreferred bool   `json:"isPreferred"`
		Command     struct {
			Command   string `json:"command"`
			Arguments []any  `json:"arguments"`
		} `json:"command"`
		Diagnostics []diag `json:"diagnostics"`
	}
	fixes := func() []action {
		var got []action
		e.must("textDocument/codeAction", map[string]any{"textDocument": map[string]any{"uri": u}, "range": rng(3, 5, 3, 5), "context": map[string]any{"diagnostics": []any{}, "only": []string{"quickfix"}}}, &got)
		return got
	}
	got := fixes()
	var titles []string
	for _, x := range got {
		titles = append(titles, x.Title)
	}
	if d := cmp.Diff([]string{"Request access to /b.B/Charge of billing", "Request access to all methods of billing that were called", "Open billing in the service registry"}, titles); d != "" {
		t.Fatal(d)
	}
	if !got[0].IsPreferred || got[0].Kind != "quickfix" || len(got[0].Diagnostics) != 1 || got[1].IsPreferred {
		t.Errorf("%+v", got)
	}
	for i, want := range []string{s.Name + " billing /b.B/Charge ", s.Name + " billing /b.B/Charge,/b.B/Refund ", s.Name + " billing  service"} {
		if err := e.execute(got[i].Command.Command, got[i].Command.Arguments[0]); err != nil {
			t.Fatal(err)
		}
		e.await("the form", func(all []message) bool {
			return slices.ContainsFunc(all, func(m message) bool {
				return m.Method == "window/showDocument" && strings.Contains(string(m.Params), `"uri":"http://127.0.0.1:7/sign-in/`+strings.ReplaceAll(want, " ", "~")+`"`) && strings.Contains(string(m.Params), `"external":true`)
			})
		})
	}
	// Typing above it moves the mark, and the fix with it.
	e.change(u, 2, change{Range: rng(0, 0, 0, 0), Text: "// head\n"})
	e.diagnostics(u, "moved", func(p published) bool { return len(p.Diagnostics) == 2 && p.Diagnostics[0].Range == *rng(4, 1, 4, 15) })
	if got := fixes(); len(got) != 0 {
		t.Errorf("on the line where it was: %+v", got)
	}
	s.Problems = nil
	a.set(s)
	e.diagnostics(u, "none", func(p published) bool { return len(p.Diagnostics) == 0 })
	if err := e.execute("fairlead.requestAccess", map[string]any{}); err == nil || !strings.Contains(err.Message, "stands refused") {
		t.Errorf("with nothing refused: %v", err)
	}
}
