//go:build linux && (amd64 || arm64)

package debugadapter

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"fairlead.dev/debugadapter/daptest"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-dap"
)

type m = daptest.M

// An exchange is a part of a conversation with a debugger. Each runs once with Delve itself and once through the proxy,
// and everything that the client got must be the same, but for what normal takes out and allowed lists.
type exchange struct {
	name string
	run  func(r *rec)
}

// A script is a conversation: one process, stopped first at the line that ends with "// " + at.
type script struct {
	name      string
	arg       string // of the program
	at        string // empty: the exception that it dies of; "-": it is not stopped
	display   m
	exchanges []exchange
}

// rec is a conversation that is recorded.
type rec struct {
	*daptest.Client
	t        testing.TB
	path     string
	lines    map[string]int
	direct   bool
	thread   int
	frame    int
	bps      map[int]int // normal's breakpoint ids
	pristine int         // messages before this exchange
}

// stop waits for a stop and looks at where it is.
func (r *rec) stop() daptest.Stop {
	r.t.Helper()
	s := r.Stopped()
	r.look(s.ThreadID)
	return s
}

func (r *rec) look(thread int) {
	r.t.Helper()
	r.thread = thread
	f := r.Frames(thread)
	if len(f) > 0 {
		r.frame = f[0].Id
	}
}

// step does one step and waits for its end.
func (r *rec) step(command string, more m) {
	r.t.Helper()
	args := m{"threadId": r.thread}
	maps.Copy(args, more)
	r.Must(command, args)
	r.stop()
}

func (r *rec) eval(expr, context string) daptest.Message {
	r.t.Helper()
	return r.Call("evaluate", m{"expression": expr, "frameId": r.frame, "context": context})
}

// vars are the variables of a reference, with whatever else the request says.
func (r *rec) vars(ref int, more m) []dap.Variable {
	r.t.Helper()
	args := m{"variablesReference": ref}
	maps.Copy(args, more)
	var b struct{ Variables []dap.Variable }
	r.Must("variables", args).Into(r.t, &b)
	return b.Variables
}

func (r *rec) locals() int {
	r.t.Helper()
	var b struct{ Scopes []dap.Scope }
	r.Must("scopes", m{"frameId": r.frame}).Into(r.t, &b)
	return b.Scopes[0].VariablesReference
}

func (r *rec) local(name string) dap.Variable {
	r.t.Helper()
	for _, v := range r.vars(r.locals(), nil) {
		if v.Name == name {
			return v
		}
	}
	r.t.Fatalf("there is no local %s", name)
	return dap.Variable{}
}

// at sets breakpoints at marks, each with more members.
func (r *rec) at(bps ...m) []dap.Breakpoint {
	r.t.Helper()
	list := []m{}
	for _, b := range bps {
		b = maps.Clone(b)
		b["line"] = r.lines[b["at"].(string)]
		delete(b, "at")
		list = append(list, b)
	}
	return r.Must("setBreakpoints", m{"source": m{"path": r.path}, "breakpoints": list}).Breakpoints(r.t)
}

func (r *rec) pc() string {
	r.t.Helper()
	return r.Frames(r.thread)[0].InstructionPointerReference
}

// goOn continues to the next stop.
func (r *rec) goOn() daptest.Stop {
	r.t.Helper()
	r.Must("continue", m{"threadId": r.thread})
	return r.stop()
}

// output waits for a line of output that contains text.
func (r *rec) output(text string) {
	r.t.Helper()
	r.EventWhere("output with "+text, func(e daptest.Message) bool { return e.Event == "output" && strings.Contains(string(e.Body), text) })
}

func simple(command string, args m) exchange {
	return exchange{command, func(r *rec) { r.Call(command, args) }}
}

func scripts() []script {
	return []script{
		{name: "values", arg: "values", at: "values", exchanges: []exchange{
			{"stackTrace", func(r *rec) { r.Must("stackTrace", m{"threadId": r.thread}) }},
			{"stackTrace of one level", func(r *rec) { r.Must("stackTrace", m{"threadId": r.thread, "levels": 1}) }},
			{"scopes", func(r *rec) { r.locals() }},
			{"locals", func(r *rec) { r.vars(r.locals(), nil) }},
			{"a slice's first page", func(r *rec) {
				r.vars(r.local("big").VariablesReference, m{"filter": "indexed", "start": 0, "count": 20})
			}},
			{"a slice's last page", func(r *rec) {
				r.vars(r.local("big").VariablesReference, m{"filter": "indexed", "start": 990, "count": 10})
			}},
			{"a slice past its end", func(r *rec) {
				r.Call("variables", m{"variablesReference": r.local("big").VariablesReference, "filter": "indexed", "start": 999, "count": 50})
			}},
			{"a slice without a filter", func(r *rec) { r.vars(r.local("big").VariablesReference, nil) }},
			{"a slice's named", func(r *rec) { r.vars(r.local("bytes").VariablesReference, m{"filter": "named"}) }},
			{"a map", func(r *rec) { // its order is the map's
				if got := r.vars(r.local("table").VariablesReference, nil); len(got) != 3 {
					r.t.Errorf("%d members", len(got))
				}
			}},
			{"a map's page", func(r *rec) {
				r.vars(r.local("wide").VariablesReference, m{"filter": "indexed", "start": 10, "count": 5})
			}},
			{"a map with struct keys", func(r *rec) { r.vars(r.local("keys").VariablesReference, nil) }},
			{"an array", func(r *rec) { r.vars(r.local("array").VariablesReference, nil) }},
			{"a pointer to a struct, two deep", func(r *rec) {
				s := r.vars(r.local("list").VariablesReference, nil)
				for _, v := range r.vars(s[0].VariablesReference, nil) {
					if v.VariablesReference > 0 {
						r.vars(v.VariablesReference, nil)
					}
				}
			}},
			{"an interface", func(r *rec) { r.vars(r.local("any").VariablesReference, nil) }},
			{"a complex number", func(r *rec) { r.vars(r.local("c").VariablesReference, nil) }},
			{"an error", func(r *rec) { r.vars(r.local("err").VariablesReference, nil) }},
			{"variables of a bad reference", func(r *rec) { r.Call("variables", m{"variablesReference": 987654}) }},
			{"scopes of a bad frame", func(r *rec) { r.Call("scopes", m{"frameId": 987654}) }},
			{"stackTrace of a bad thread", func(r *rec) { r.Call("stackTrace", m{"threadId": 987654}) }},
			{"evaluate, watch", func(r *rec) { r.eval("n + 1", "watch") }},
			{"evaluate, hover", func(r *rec) { r.eval("list.Where", "hover") }},
			{"evaluate, repl", func(r *rec) { r.eval("table[\"two\"]", "repl") }},
			{"evaluate, clipboard", func(r *rec) { r.eval("text", "clipboard") }},
			{"evaluate, variables", func(r *rec) { r.eval("big[10:12]", "variables") }},
			{"evaluate without a frame", func(r *rec) { r.Call("evaluate", m{"expression": "total"}) }},
			{"evaluate what is not there", func(r *rec) { r.eval("nothing", "repl") }},
			{"evaluate what is no expression", func(r *rec) { r.eval("a +", "watch") }},
			{"evaluate a bad expression, shown", func(r *rec) { r.eval("nothing", "variables") }},
			{"a call", func(r *rec) { r.eval("call add(2, 3)", "repl") }},
			{"a call that is wrong", func(r *rec) { r.eval("call add(2)", "repl") }},
			{"dlv help", func(r *rec) { r.eval("dlv help", "repl") }},
			{"dlv config -list", func(r *rec) { r.eval("dlv config -list", "repl") }},
			{"dlv config", func(r *rec) { r.eval("dlv config stackTraceDepth 3", "repl") }},
			{"dlv config, unknown", func(r *rec) { r.eval("dlv config nothing 3", "repl") }},
			{"dlv sources", func(r *rec) { r.eval("dlv sources show/main", "repl") }},
			{"dlv types", func(r *rec) { r.eval("dlv types main[.]", "repl") }},
			{"dlv, unknown", func(r *rec) { r.eval("dlv restart", "repl") }},
			{"setVariable of a number", func(r *rec) {
				r.Must("setVariable", m{"variablesReference": r.locals(), "name": "n", "value": "99"})
				r.Event("invalidated")
			}},
			{"setVariable is seen", func(r *rec) { r.look(r.thread); r.eval("n", "watch") }},
			{"setVariable of a wrong type", func(r *rec) {
				r.Call("setVariable", m{"variablesReference": r.locals(), "name": "n", "value": `"x"`})
			}},
			{"setVariable of what is not there", func(r *rec) {
				r.Call("setVariable", m{"variablesReference": r.locals(), "name": "nothing", "value": "1"})
			}},
			{"readMemory", func(r *rec) {
				r.Call("readMemory", m{"memoryReference": r.local("bytes").MemoryReference, "count": 5})
			}},
			{"readMemory past the end", func(r *rec) {
				r.Call("readMemory", m{"memoryReference": r.local("bytes").MemoryReference, "offset": 2, "count": 50})
			}},
			{"readMemory of nothing", func(r *rec) { r.Call("readMemory", m{"memoryReference": "0x1", "count": 5}) }},
			{"writeMemory", func(r *rec) {
				r.Must("writeMemory", m{"memoryReference": r.local("bytes").MemoryReference, "data": "QllURVM="})
				r.Event("invalidated")
			}},
			{"writeMemory is seen", func(r *rec) { r.look(r.thread); r.eval("string(bytes)", "watch") }},
			{"disassemble", func(r *rec) {
				r.Must("disassemble", m{"memoryReference": r.pc(), "instructionOffset": -4, "instructionCount": 10})
			}},
			{"disassemble nothing", func(r *rec) { r.Call("disassemble", m{"memoryReference": "0x0", "instructionCount": 3}) }},
			{"disassemble what is no address", func(r *rec) { r.Call("disassemble", m{"memoryReference": "here", "instructionCount": 3}) }},
			{"dataBreakpointInfo", func(r *rec) { r.Call("dataBreakpointInfo", m{"name": "n", "frameId": r.frame}) }},
			{"a data breakpoint is hit", func(r *rec) {
				var info struct{ DataID string }
				r.Must("dataBreakpointInfo", m{"name": "n", "frameId": r.frame}).Into(r.t, &info)
				r.Must("setDataBreakpoints", m{"breakpoints": []m{{"dataId": info.DataID, "accessType": "write"}}})
				r.goOn()
				r.Must("setDataBreakpoints", m{"breakpoints": []m{}})
			}},
			{"exceptionInfo without one", func(r *rec) { r.Call("exceptionInfo", m{"threadId": r.thread}) }},
			{"pause while it stands", func(r *rec) { r.Must("pause", m{"threadId": r.thread}) }},
			simple("source", m{"sourceReference": 1}),
			simple("modules", nil),
			simple("loadedSources", nil),
			simple("setExpression", m{"expression": "n", "value": "1"}),
			simple("goto", m{"threadId": 1, "targetId": 1}),
			simple("gotoTargets", m{"source": m{"path": "x"}, "line": 1}),
			simple("stepInTargets", m{"frameId": 1}),
			simple("completions", m{"text": "x", "column": 1}),
			simple("breakpointLocations", m{"source": m{"path": "x"}, "line": 1}),
			simple("restartFrame", m{"frameId": 1}),
			simple("terminateThreads", m{"threadIds": []int{1}}),
			simple("noSuchRequest", m{"a": 1}),
		}},
		{name: "steps", arg: "values", at: "step", exchanges: []exchange{
			{"stepIn", func(r *rec) { r.step("stepIn", nil) }},
			{"next", func(r *rec) { r.step("next", nil) }},
			{"stepIn again", func(r *rec) { r.step("stepIn", nil) }},
			{"stepOut", func(r *rec) { r.step("stepOut", nil) }},
			{"next with single thread", func(r *rec) { r.step("next", m{"singleThread": true}) }},
			{"next by line", func(r *rec) { r.step("next", m{"granularity": "line"}) }},
			{"next by instruction", func(r *rec) { r.step("next", m{"granularity": "instruction"}) }},
			{"stepIn by instruction", func(r *rec) { r.step("stepIn", m{"granularity": "instruction"}) }},
			{"stepBack", func(r *rec) { r.step("stepBack", nil) }},
			{"an instruction breakpoint is hit", func(r *rec) {
				var b struct{ Instructions []dap.DisassembledInstruction }
				r.Must("disassemble", m{"memoryReference": r.pc(), "instructionOffset": 0, "instructionCount": 4}).Into(r.t, &b)
				r.Must("setInstructionBreakpoints", m{"breakpoints": []m{{"instructionReference": b.Instructions[2].Address}}})
				r.goOn()
				r.Must("setInstructionBreakpoints", m{"breakpoints": []m{}})
			}},
			{"an instruction breakpoint nowhere", func(r *rec) {
				r.Call("setInstructionBreakpoints", m{"breakpoints": []m{{"instructionReference": "0x1"}}})
				r.Call("setInstructionBreakpoints", m{"breakpoints": []m{}})
			}},
			{"a step on a bad thread", func(r *rec) {
				r.Must("next", m{"threadId": 987654})
				s := r.Stopped()
				r.look(s.ThreadID)
			}},
		}},
		{name: "interrupted", arg: "values", at: "step", exchanges: []exchange{
			{"a step over a breakpoint", func(r *rec) {
				r.at(m{"at": "add"})
				r.Must("next", m{"threadId": r.thread})
				r.stop()
			}},
			{"a step while a step is interrupted", func(r *rec) {
				r.Must("next", m{"threadId": r.thread})
				r.stop()
			}},
			{"continue finishes the step", func(r *rec) { r.goOn() }},
		}},
		{name: "breakpoints", arg: "loop", at: "loop", exchanges: []exchange{
			{"the same again", func(r *rec) { r.at(m{"at": "loop"}) }},
			{"hit again", func(r *rec) { r.goOn() }},
			{"a condition", func(r *rec) { r.at(m{"at": "loop", "condition": "i == 25"}); r.goOn(); r.eval("i", "watch") }},
			{"a hit condition", func(r *rec) { r.at(m{"at": "loop", "hitCondition": "% 4"}); r.goOn() }},
			{"a bad condition", func(r *rec) { r.at(m{"at": "loop", "condition": "i +"}) }},
			{"a bad hit condition", func(r *rec) { r.at(m{"at": "loop", "hitCondition": "x"}) }},
			{"a log point", func(r *rec) {
				r.at(m{"at": "loop", "logMessage": "square of {i > 0} and {{braces}}", "condition": "i == 60"})
				r.Must("continue", m{"threadId": r.thread})
				r.output("square of true")
				r.Must("pause", m{"threadId": r.thread})
				r.Stopped()
			}},
			{"a bad log point", func(r *rec) { r.at(m{"at": "loop", "logMessage": "{"}) }},
			{"two at one line", func(r *rec) { r.at(m{"at": "loop"}, m{"at": "loop"}) }},
			{"two columns", func(r *rec) { r.at(m{"at": "loop"}, m{"at": "loop", "column": 3}) }},
			{"none", func(r *rec) { r.at() }},
			{"no code at the line", func(r *rec) { r.Must("setBreakpoints", daptest.Lines(r.path, 1)) }},
			{"a line past the end", func(r *rec) { r.Must("setBreakpoints", daptest.Lines(r.path, 100000)) }},
			{"a file that is not in the program", func(r *rec) { r.Must("setBreakpoints", daptest.Lines("/no/such.go", 1)) }},
			{"a function", func(r *rec) {
				r.Must("setBreakpoints", daptest.Lines(r.path))
				r.Must("setFunctionBreakpoints", m{"breakpoints": []m{{"name": "time.Sleep"}}})
				r.goOn()
			}},
			{"a function with a condition", func(r *rec) {
				r.Must("setFunctionBreakpoints", m{"breakpoints": []m{{"name": "time.Sleep", "condition": "ns > 10"}}})
				r.goOn()
			}},
			{"a function that is not there", func(r *rec) {
				r.Must("setFunctionBreakpoints", m{"breakpoints": []m{{"name": "main.nothing"}}})
			}},
			{"a function by a pattern", func(r *rec) {
				r.Must("setFunctionBreakpoints", m{"breakpoints": []m{{"name": "/main/"}}})
			}},
			{"no function", func(r *rec) { r.Must("setFunctionBreakpoints", m{"breakpoints": []m{}}) }},
			{"no exceptions", func(r *rec) { r.Must("setExceptionBreakpoints", m{"filters": []string{}}) }},
			{"exceptions", func(r *rec) {
				r.Must("setExceptionBreakpoints", m{"filters": []string{"unrecovered-panic", "runtime-fatal-throw"}})
			}},
			{"running: threads", func(r *rec) {
				r.Must("continue", m{"threadId": r.thread})
				r.Must("threads", nil)
			}},
			{"running: evaluate", func(r *rec) { r.eval("total", "repl") }},
			{"running: stackTrace", func(r *rec) { r.Call("stackTrace", m{"threadId": 1}) }},
			{"running: continue", func(r *rec) { r.Call("continue", m{"threadId": 1}) }},
			{"running: next", func(r *rec) { r.Call("next", m{"threadId": 1}) }},
			{"running: variables", func(r *rec) { r.Call("variables", m{"variablesReference": 1000}) }},
			{"running: data breakpoints", func(r *rec) { r.Call("setDataBreakpoints", m{"breakpoints": []m{}}) }},
			{"running: a breakpoint is set and hit", func(r *rec) { r.at(m{"at": "loop"}); r.stop() }},
			{"pause", func(r *rec) {
				r.at()
				r.Must("continue", m{"threadId": r.thread})
				r.Must("pause", m{"threadId": r.thread})
				r.Stopped()
			}},
		}},
		{name: "deep", arg: "deep", at: "bottom", exchanges: []exchange{
			{"the first frames", func(r *rec) { r.Must("stackTrace", m{"threadId": r.thread, "startFrame": 0, "levels": 20}) }},
			{"the next frames", func(r *rec) { r.Must("stackTrace", m{"threadId": r.thread, "startFrame": 20, "levels": 20}) }},
			{"the last frames", func(r *rec) { r.Must("stackTrace", m{"threadId": r.thread, "startFrame": 110, "levels": 50}) }},
			{"frames past the end", func(r *rec) { r.Must("stackTrace", m{"threadId": r.thread, "startFrame": 500, "levels": 5}) }},
			{"scopes of a frame further up", func(r *rec) {
				f := r.Frames(r.thread)
				r.Must("scopes", m{"frameId": f[5].Id})
				r.Call("evaluate", m{"expression": "n", "frameId": f[5].Id, "context": "watch"})
			}},
		}},
		{name: "threads", arg: "threads", at: "threads", display: m{"hideSystemGoroutines": true}, exchanges: []exchange{
			{"threads", func(r *rec) { r.Must("threads", nil) }},
			{"stackTrace of another goroutine", func(r *rec) {
				var b struct{ Threads []dap.Thread }
				r.Must("threads", nil).Into(r.t, &b)
				r.Must("stackTrace", m{"threadId": b.Threads[len(b.Threads)-1].Id, "levels": 30})
			}},
		}},
		{name: "globals", arg: "values", at: "add", display: m{"showGlobalVariables": true, "stackTraceDepth": 2, "maxStringLen": 3}, exchanges: []exchange{
			{"scopes with globals", func(r *rec) { r.locals() }},
			{"stackTrace of the configured depth", func(r *rec) { r.Must("stackTrace", m{"threadId": r.thread}) }},
			{"a string of the configured length", func(r *rec) {
				f := r.Frames(r.thread)
				_ = f
				r.Must("continue", m{"threadId": r.thread})
				r.stop()
				r.Call("evaluate", m{"expression": `"abc" + "def"`, "frameId": r.frame})
			}},
		}},
		{name: "registers", arg: "values", at: "add", display: m{"showRegisters": true}, exchanges: []exchange{
			{"scopes with registers", func(r *rec) { r.locals() }},
		}},
		{name: "panic", arg: "panic", exchanges: []exchange{
			{"exceptionInfo", func(r *rec) { r.Must("exceptionInfo", m{"threadId": r.thread}) }},
			{"exceptionInfo of a bad thread", func(r *rec) { r.Call("exceptionInfo", m{"threadId": 987654}) }},
		}},
		{name: "fatal", arg: "fatal", exchanges: []exchange{
			{"exceptionInfo of a throw", func(r *rec) { r.Must("exceptionInfo", m{"threadId": r.thread}) }},
		}},
		{name: "nil", arg: "nil", exchanges: []exchange{
			{"exceptionInfo of a nil pointer", func(r *rec) { r.Must("exceptionInfo", m{"threadId": r.thread}) }},
			{"stackTrace in a panic", func(r *rec) { r.Must("stackTrace", m{"threadId": r.thread}) }},
		}},
	}
}

// allowed are the differences between Delve and the proxy, each with its reason.
//
//   - ids of breakpoints are the proxy's, and unverified breakpoints have them too: they may be verified in the next process.
//   - configurationDone and the events of attaching (initialized, capabilities) are answered by the proxy: not recorded here.
//   - "cancel" is the proxy's, and "restart", "terminate", "disconnect" mean the session, not the process (their own tests).
//   - an internal error of Delve's has no command; the proxy fills it in.
func allowed(b map[string]any) {
	if b["message"] == "Internal Error" {
		delete(b, "command")
	}
	if v, ok := b["verified"].(bool); ok && !v {
		delete(b, "id")
	}
}

var (
	address = regexp.MustCompile(`0x[0-9a-f]+`)
	threads = regexp.MustCompile(`\(Thread \d+\)`)
	goid    = regexp.MustCompile(`\[Go \d+\]`)
	goids   = regexp.MustCompile(`goroutine \d+`)
)

// normal is a message without what differs from run to run: numbers, addresses, ids of goroutines and threads.
func (r *rec) normal(msg daptest.Message) string {
	var v map[string]any
	if err := json.Unmarshal(msg.Raw, &v); err != nil {
		r.t.Fatal(err)
	}
	delete(v, "seq")
	delete(v, "request_seq")
	if b, ok := v["body"].(map[string]any); ok && v["event"] == "stopped" && b["reason"] == "pause" {
		delete(b, "threadId") // where it is paused in no goroutine Delve names none
	}
	var walk func(parent, key string, v any) any
	walk = func(parent, key string, v any) any {
		switch v := v.(type) {
		case map[string]any:
			allowed(v)
			if e, _ := v["evaluateName"].(string); strings.HasPrefix(e, "wide[") || strings.HasPrefix(e, "table[") {
				return "an element of a map, whose order is the run's"
			}
			for k := range v {
				v[k] = walk(key, k, v[k])
			}
		case []any:
			if key == "breakpoints" { // Delve tells its own, of panics, in the order of a map
				slices.SortStableFunc(v, func(a, b any) int {
					x, _ := a.(map[string]any)["id"].(float64)
					y, _ := b.(map[string]any)["id"].(float64)
					return int(min(x, 0) - min(y, 0))
				})
			}
			for i := range v {
				v[i] = walk(parent, key, v[i])
			}
		case float64:
			switch {
			case key == "hitBreakpointIds", key == "id" && (parent == "breakpoints" || parent == "breakpoint"):
				if v <= 0 {
					return v
				}
				if r.bps[int(v)] == 0 {
					r.bps[int(v)] = len(r.bps) + 1
				}
				return fmt.Sprintf("breakpoint %d", r.bps[int(v)])
			case key == "threadId", key == "id" && parent != "error", key == "variablesReference" && v > 0:
				return key
			}
		case string:
			if strings.HasPrefix(v, "map[") && key == "value" {
				v, _, _ = strings.Cut(v, " ")
			}
			v = address.ReplaceAllString(v, "0x…")
			v = threads.ReplaceAllString(v, "(Thread …)")
			v = goid.ReplaceAllString(v, "[Go …]")
			v = goids.ReplaceAllString(v, "goroutine …")
			return v
		}
		return v
	}
	walk("", "", v)
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *rec) transcript() []string {
	all := r.All()
	var out []string
	for _, msg := range all[r.pristine:] {
		out = append(out, r.normal(msg))
	}
	r.pristine = len(all)
	// Delve answers pause while another of its goroutines tells the stop: either may be first.
	if slices.ContainsFunc(out, func(s string) bool { return strings.Contains(s, `"command": "pause"`) }) {
		slices.SortStableFunc(out, func(a, b string) int {
			return boolInt(strings.Contains(a, `"event":`)) - boolInt(strings.Contains(b, `"event":`))
		})
	}
	return out
}

func TestConformance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "show", "main.go")
	mkdir(t, filepath.Dir(path))
	v := compile(t, path, fixture(t, "show"))
	lines := map[string]int{}
	for i, l := range strings.Split(v.source, "\n") {
		if _, mark, ok := strings.Cut(l, "// "); ok && strings.HasPrefix(l, "\t") {
			lines[mark] = i + 1
		}
	}
	n := 0
	for _, sc := range scripts() {
		n += len(sc.exchanges)
		t.Run(sc.name, func(t *testing.T) {
			direct := converse(t, sc, v, path, lines, true)
			proxied := converse(t, sc, v, path, lines, false)
			for i, x := range sc.exchanges {
				t.Run(x.name, func(t *testing.T) {
					if i >= len(direct) || i >= len(proxied) {
						t.Fatal("the conversation did not come this far")
					}
					if len(direct[i]) == 0 {
						t.Fatal("nothing was recorded")
					}
					if d := cmp.Diff(direct[i], proxied[i]); d != "" {
						t.Errorf("Delve -, through the proxy +:\n%s", d)
					}
				})
			}
		})
	}
	if n < 60 {
		t.Errorf("%d exchanges are not enough", n)
	}
}

// converse goes through a script with Delve or with the proxy.
func converse(t *testing.T, sc script, v version, path string, lines map[string]int, direct bool) [][]string {
	t.Helper()
	r := &rec{t: t, path: path, lines: lines, direct: direct, bps: map[int]int{}}
	attach := m{}
	maps.Copy(attach, sc.display)
	if direct {
		d := startDelve(t, v.exe, sc.arg)
		conn, _, err := d.dial()
		if err != nil {
			t.Fatal(err)
		}
		r.Client = daptest.New(t, net.Conn(conn))
		attach["mode"] = "remote"
	} else {
		p := newPod(t)
		p.args = []string{sc.arg}
		p.deploy(path, v)
		r.Client, _ = serve(t, p)
	}
	r.Must("initialize", daptest.Initialize())
	start := r.Send("attach", attach)
	r.Event("initialized")
	if sc.at != "" {
		r.Must("setBreakpoints", daptest.Lines(path, lines[sc.at]))
	}
	r.Must("configurationDone", nil)
	if !start.Wait().Success {
		t.Fatal("attach failed")
	}
	r.stop()
	r.pristine = len(r.All())
	var out [][]string
	for _, x := range sc.exchanges {
		x.run(r)
		out = append(out, r.transcript())
	}
	r.Close()
	return slices.Clip(out)
}
