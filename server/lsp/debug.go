package lsp

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.lsp.dev/protocol"

	"fairlead.dev/api"
)

// The commands of debugging. A debugger is a part of the editor that a language server cannot start: an editor that can
// (VS Code by its extension, Neovim by vim.lsp.commands) takes them itself; for others the server does what it can, and
// says how to go on.
const (
	commandDebug       = "fairlead.debug"
	commandDebugTest   = "fairlead.debugTest"
	commandDebugCore   = "fairlead.debugCore"
	commandDebugChoice = "fairlead.debugChoice"
)

// debugOffers lists what can be done with a running service's debugger.
func debugOffers(svc *api.Service, uri string) []offer {
	var out []offer
	d := svc.Debug
	switch {
	case d == nil && svc.Phase != api.PhaseStopping:
		out = append(out, offer{title: "Debug", action: "Fairlead: Debug", name: commandDebug, args: runArgs{URI: uri}, kind: kindSource + ".debug"})
	case d != nil && d.Waiting != 0:
		out = append(out, offer{title: "Swap now", action: fmt.Sprintf("Fairlead: Swap generation %d in now", d.Waiting), name: commandDebugChoice,
			args: debugChoiceArgs{Name: svc.Name, DebugChoice: api.DebugChoice{Apply: true}}, kind: kindSource + ".debugChoice"})
	case d != nil:
		text := "debugged"
		if d.Stopped {
			text = "stopped in the debugger"
		}
		out = append(out, offer{title: text, name: commandDetails, args: named{Name: svc.Name}})
	}
	if svc.Core != "" {
		out = append(out, offer{title: "Open core dump", action: "Fairlead: Open the core dump in the debugger", name: commandDebugCore,
			args: debugCoreArgs{Name: svc.Name, Core: svc.Core}, kind: kindSource + ".debugCore"})
	}
	return out
}

// debugChoiceArgs is the argument of fairlead.debugChoice.
type debugChoiceArgs struct {
	Name string `json:"name,omitempty"`
	api.DebugChoice
}

// debugCoreArgs is the argument of fairlead.debugCore: an editor's debugger launches {"mode": "core", "service": name,
// "coreFilePath": core} of it.
type debugCoreArgs struct {
	Name string `json:"name,omitempty"`
	Core string `json:"core,omitempty"`
}

// debugTestArgs is the argument of fairlead.debugTest: an editor's debugger launches {"mode": "test", "program": the
// file's folder, "args": ["-test.run=^Test$"]} of it.
type debugTestArgs struct {
	URI  string `json:"uri"`
	Test string `json:"test"`
}

// testLenses draws Debug test above the tests of a document.
func testLenses(d *document, enc encoding) []protocol.CodeLens {
	lenses := []protocol.CodeLens{}
	for _, t := range tests(d) {
		o := offer{title: "Debug test in environment", name: commandDebugTest, args: debugTestArgs{URI: string(d.uri), Test: t.name}}
		lenses = append(lenses, protocol.CodeLens{Range: d.text.span(t.at, enc), Command: o.command()})
	}
	return lenses
}

// testFunc is a test and where "func TestX" stands.
type testFunc struct {
	name string
	at   span
}

// tests finds what `go test` takes for tests: func TestX(t *testing.T), X not beginning with a small letter. What does
// not parse has those before the mistake.
func tests(d *document) []testFunc {
	if len(d.text.s) > maxParse {
		return nil
	}
	fset := token.NewFileSet()
	f, _ := parser.ParseFile(fset, d.path, d.text.s, parser.SkipObjectResolution)
	if f == nil {
		return nil
	}
	var out []testFunc
	for _, decl := range f.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || fn.Type.TypeParams != nil || !isTest(fn.Name.Name) || len(fn.Type.Params.List) != 1 || len(fn.Type.Params.List[0].Names) > 1 {
			continue
		}
		star, ok := fn.Type.Params.List[0].Type.(*ast.StarExpr)
		if !ok {
			continue
		}
		if sel, ok := star.X.(*ast.SelectorExpr); !ok || sel.Sel.Name != "T" {
			continue
		}
		out = append(out, testFunc{fn.Name.Name, span{fset.Position(fn.Pos()).Offset, fset.Position(fn.Name.End()).Offset}})
	}
	return out
}

func isTest(name string) bool {
	rest, ok := strings.CutPrefix(name, "Test")
	if !ok || name == "TestMain" {
		return false
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return rest == "" || !unicode.IsLower(r)
}

// debugCommand does for an editor without a debugger of ours what a server can: it runs the service, and says what to
// connect to.
func (s *Server) debugCommand(ctx context.Context, a runArgs) (any, error) {
	answer, err := s.runCommand(ctx, a)
	if err == nil {
		s.show(messageInfo, "Fairlead: start your editor's debugger now, with `fairlead dap` as its adapter"+s.dapSocket()+": it joins the environment")
	}
	return answer, err
}

func (s *Server) dapSocket() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link.agent == nil || s.link.agent.DAP == "" {
		return ""
	}
	return " (or the socket " + s.link.agent.DAP + ")"
}

// debuggerProblem says how a command is meant that only an editor's debugger can carry out.
func debuggerProblem(launch string) error {
	return &api.Problem{Code: "no-debugger", Message: "this editor has to start its debugger itself", Hint: "launch " + launch + " with `fairlead dap` as the adapter; docs/debugging.md has the set-up"}
}

// debugChoice carries out what a person wants of what waits for the debugger.
func (s *Server) debugChoice(ctx context.Context, a debugChoiceArgs) error {
	svc, err := s.choose(ctx, a.Name)
	if err != nil {
		return err
	}
	return s.agent.DebugChoice(ctx, svc.Name, a.DebugChoice)
}

// The answers to the question that a waiting save asks.
const (
	answerNow      = "Swap now"
	answerContinue = "When I continue"
	answerNever    = "Never while stopped"
)

// askWaiting asks, once in a debug session, what a save is to do while the process stands in the debugger. Until it is
// answered the save waits.
func (s *Server) askWaiting(svc *service, now *api.Service) {
	if now.Debug == nil {
		svc.asked = false
		return
	}
	if now.Debug.Waiting == 0 || svc.asked || now.Debug.OnSave != api.OnSaveContinue || s.state != stateRunning {
		return
	}
	svc.asked = true
	name, service, gen := now.Name, now.Environment.Service, now.Debug.Waiting
	s.spawn(func(ctx context.Context) {
		text := fmt.Sprintf("Fairlead: %s stands in the debugger, so what you saved (generation %d) is built and waits.", service, gen)
		var ch api.DebugChoice
		switch s.ask(ctx, messageInfo, text, answerNow, answerContinue, answerNever) {
		case answerNow:
			ch.Apply = true
		case answerNever:
			ch.OnSave = api.OnSaveNever
		default:
			return
		}
		if err := s.agent.DebugChoice(ctx, name, ch); err != nil {
			s.log.Info("what was chosen came too late", "err", err)
		}
	})
}

func (d *document) isTest() bool { return strings.HasSuffix(filepath.Base(d.path), "_test.go") }
