package lsp

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// A debug session on the lens: debugged, stopped, a save that waits with the question what it is to do, and the choice.
func TestDebugLenses(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	e.replies["window/showMessageRequest"] = map[string]any{"title": answerNever}
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", mainGo)
	s := orders(dir, api.PhaseLive)
	want := func(titlesWanted ...string) {
		t.Helper()
		a.set(s)
		if d := cmp.Diff(titlesWanted, titles(e.lenses(u))); d != "" {
			t.Error(d)
		}
	}
	s.Debug = &api.Debug{By: "the debugger of nvim", Ready: true, OnSave: api.OnSaveContinue}
	want("live", "debugged", "Logs", "Stop")
	s.Debug = &api.Debug{By: "the debugger of nvim", Ready: true, Stopped: true, OnSave: api.OnSaveContinue}
	want("live", "stopped in the debugger", "Logs", "Stop")
	s.Phase, s.Debug = api.PhaseWaiting, &api.Debug{Ready: true, Stopped: true, OnSave: api.OnSaveContinue, Waiting: 5}
	want("built, waits: stopped in the debugger", "Swap now", "Logs", "Stop")
	e.eventually("the choice", func() bool { return a.said("choose orders-1 {OnSave:never Apply:false}") })
	var swap lens
	for _, l := range e.lenses(u) {
		if l.Command.Title == "Swap now" {
			swap = l
		}
	}
	if err := e.execute(swap.Command.Command, swap.Command.Arguments[0]); err != nil || !a.said("choose orders-1 {OnSave: Apply:true}") {
		t.Errorf("%v; the agent was asked %q", err, a.calls)
	}
	s.Debug = &api.Debug{Ready: true, Stopped: true, OnSave: api.OnSaveNever, Waiting: 6}
	want("built, waits until you restart or swap it in", "Swap now", "Logs", "Stop")
	if n := e.count("window/showMessageRequest"); n != 1 {
		t.Errorf("it was asked %d times in one debug session", n)
	}
	s.Phase, s.Debug, s.Core = api.PhaseDown, nil, "/work/core.7"
	s.Detail = "exit 2"
	want("ended: exit 2", "Debug", "Open core dump", "Logs", "Stop")
}

// Above each test there is a lens with what an editor's debugger needs, and nothing above what only looks like one.
func TestTestLenses(t *testing.T) {
	e := startEditor(t, newFakeAgent(t))
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	u := e.open(dir+"/x_test.go", `package x

import "testing"

func TestOne(t *testing.T) {}

func Test(t *testing.T) {}

func TestMain(m *testing.M) {}

func Testing(t *testing.T) {}

func TestTwo(t *testing.T, x int) {}

func TestThree(x int) {}

func (s S) TestFour(t *testing.T) {}

func Test_five(t *testing.T) {}

func BenchmarkSix(b *testing.B) {}
`)
	var got []string
	for _, l := range e.lenses(u) {
		var arg debugTestArgs
		if err := json.Unmarshal(l.Command.Arguments[0], &arg); err != nil || arg.URI != u || l.Command.Command != commandDebugTest {
			t.Errorf("%+v: %v", l, err)
		}
		got = append(got, arg.Test)
	}
	if d := cmp.Diff([]string{"TestOne", "Test", "Test_five"}, got); d != "" {
		t.Error(d)
	}
	if err := e.execute(commandDebugTest, map[string]any{"uri": u, "test": "TestOne"}); err == nil || !strings.Contains(err.Message, "debugger itself") {
		t.Errorf("an editor without a debugger is told %+v", err)
	}
}

// An editor whose debugger does not take the command gets the environment, and is told what to connect to.
func TestDebugCommand(t *testing.T) {
	a := newFakeAgent(t)
	a.info.DAP = "/run/user/1/fairlead/agent.dap.sock"
	e := startEditor(t, a)
	dir := workspace(t, nil)
	e.initialize(dir, nil)
	u := e.open(dir+"/main.go", mainGo)
	<-a.attached
	a.sync() // the agent's first message, which names the socket, has been taken
	if err := e.execute(commandDebug, map[string]any{"uri": u}); err != nil {
		t.Fatalf("%+v", err)
	}
	if !a.said("run " + dir + " ") {
		t.Errorf("the agent was asked %q", a.calls)
	}
	e.await("the message", func(got []message) bool {
		for _, m := range got {
			if m.Method == "window/showMessage" && strings.Contains(string(m.Params), a.info.DAP) {
				return true
			}
		}
		return false
	})
}
