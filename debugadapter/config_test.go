package debugadapter

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"fairlead.dev/api"
	"github.com/google/go-cmp/cmp"
)

func TestParseConfig(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		attach     bool
		want       Config
		bad        string // in the problem's message
		hint       string
	}{
		{name: "a folder is enough", args: `{"program": "/src"}`, want: Config{Program: "/src"}},
		{name: "nothing, to attach", args: `{}`, attach: true},
		{name: "no arguments, to attach", attach: true},
		{name: "what editors add", args: `{"program":"/src","name":"n","type":"fairlead","request":"launch","__sessionId":"1","__configurationTarget":6,"__restart":{},"presentation":{},"preLaunchTask":"x","linux":{},"restart":true}`, want: Config{Program: "/src"}},
		{name: "everything", args: `{"program":"/src","mode":"debug","args":["a"],"env":{"K":"V"},"on":"local","main":"./cmd","onSave":"never","noDebug":true,"stopOnEntry":true,"stackTraceDepth":3,"substitutePath":[{"from":"a","to":"b"}]}`,
			want: Config{Program: "/src", Mode: "debug", Args: []string{"a"}, Env: map[string]string{"K": "V"}, On: "local", Main: "./cmd", OnSave: "never", NoDebug: true, StopOnEntry: true,
				Display: map[string]json.RawMessage{"stackTraceDepth": json.RawMessage("3"), "substitutePath": json.RawMessage(`[{"from":"a","to":"b"}]`)}}},
		{name: "a core", args: `{"mode":"core","coreFilePath":"/core","exe":"/exe"}`, want: Config{Mode: "core", CoreFilePath: "/core", Exe: "/exe"}},
		{name: "remote is the service", args: `{"mode":"remote","service":"cart"}`, attach: true, want: Config{Name: "cart"}},

		{name: "misspelt", args: `{"progam":"/src"}`, bad: `there is no "progam"`, hint: `did you mean "program"?`},
		{name: "another case", args: `{"Program":"/src"}`, bad: `there is no "Program"`, hint: `did you mean "program"?`},
		{name: "nothing like it", args: `{"program":"/src","dlvToolPath":"x"}`, bad: `there is no "dlvToolPath"`, hint: "remove it"},
		{name: "wrong type", args: `{"program":7}`, bad: `"program" must be a string`},
		{name: "null", args: `{"program":null}`, bad: `"program" must be a string, not null`},
		{name: "args of numbers", args: `{"program":"/src","args":[1]}`, bad: `"args" must be a list of strings`},
		{name: "env null", args: `{"program":"/src","env":{"A":null}}`, bad: `"A" is null`},
		{name: "display of a wrong type", args: `{"program":"/src","stackTraceDepth":"3"}`, bad: `"stackTraceDepth" must be a number`},
		{name: "half a path", args: `{"program":"/src","substitutePath":[{"from":"a"}]}`, bad: `"substitutePath" must be a list of`},
		{name: "bad mode", args: `{"program":"/src","mode":"exec"}`, bad: `"mode" must be one of`},
		{name: "bad onSave", args: `{"program":"/src","onSave":"later"}`, bad: `"onSave" must be one of`},
		{name: "launch remote", args: `{"program":"/src","mode":"remote"}`, bad: `use the request "attach"`},
		{name: "attach test", args: `{"mode":"test"}`, attach: true, bad: `cannot be "test" to attach`},
		{name: "no program", args: `{}`, bad: `"program" must name`},
		{name: "core without a file", args: `{"mode":"core","exe":"/exe"}`, bad: `"coreFilePath" must name`},
		{name: "core without an executable", args: `{"mode":"core","coreFilePath":"/c"}`, bad: `"exe" must name`},
		{name: "no object", args: `[]`, bad: "not an object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseConfig(json.RawMessage(tt.args), tt.attach)
			if tt.bad != "" {
				var p *api.Problem
				if !errors.As(err, &p) || !strings.Contains(p.Message, tt.bad) || !strings.Contains(p.Hint, tt.hint) || p.Hint == "" {
					t.Fatalf("the error is %+v, not %q, %q", p, tt.bad, tt.hint)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
		})
	}
}
