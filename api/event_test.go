package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The names on the wire are a contract (docs/events.md). A change here breaks somebody's script.
func TestEventContract(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	h := func(k Kind) Header { return Header{Type: k, Generation: 3, Time: at} }
	code := 7
	for want, e := range map[string]Event{
		`{"type":"environment","generation":3,"time":"2026-01-02T03:04:05.000000006Z","name":"n","service":"s","provider":"local","state":"lost","reason":"r"}`: &EnvironmentEvent{Header: h(KindEnvironment), Environment: Environment{Name: "n", Service: "s", Provider: "local"}, State: "lost", Reason: "r"},
		`{"type":"build","generation":3,"time":"2026-01-02T03:04:05.000000006Z","ok":false,"ms":12}`:                                                            &BuildEvent{Header: h(KindBuild), MS: 12},
		`{"type":"transfer","generation":3,"time":"2026-01-02T03:04:05.000000006Z","bytes":0,"full":false,"ms":0}`:                                              &TransferEvent{Header: h(KindTransfer)},
		`{"type":"process","generation":3,"time":"2026-01-02T03:04:05.000000006Z","seq":9,"state":"exited","pid":4,"digest":"d","exit_code":7}`:                 &ProcessEvent{Header: Header{Type: KindProcess, Generation: 3, Time: at, Seq: 9}, State: StateExited, PID: 4, Digest: "d", ExitCode: &code},
		`{"type":"listening","generation":3,"time":"2026-01-02T03:04:05.000000006Z","ports":[{"port":80,"main":true}]}`:                                         &ListeningEvent{Header: h(KindListening), Ports: []Port{{Port: 80, Main: true}}},
		`{"type":"ready","generation":3,"time":"2026-01-02T03:04:05.000000006Z","url":"","ms":5}`:                                                               &ReadyEvent{Header: h(KindReady), MS: 5},
		`{"type":"log","generation":3,"time":"2026-01-02T03:04:05.000000006Z","stream":"stdout","text":"","dropped":2}`:                                         &LogEvent{Header: h(KindLog), Stream: "stdout", Dropped: 2},
		`{"type":"log","generation":3,"time":"2026-01-02T03:04:05.000000006Z","stream":"stdout","text":"t","process":"p/c"}`:                                    &LogEvent{Header: h(KindLog), Stream: "stdout", Text: "t", Process: "p/c"},
		`{"type":"problem","generation":3,"time":"2026-01-02T03:04:05.000000006Z","code":"c","message":"m","file":"f","line":1,"column":2}`:                     &ProblemEvent{Header: h(KindProblem), Problem: Problem{Code: "c", Message: "m", File: "f", Line: 1, Column: 2}},
	} {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, string(b)); d != "" {
			t.Error(d)
		}
		back, err := DecodeEvent(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, back); d != "" {
			t.Error(d)
		}
	}
}

// What this version does not know is an error, and so is what is no event: no line is taken for another.
func TestDecodeEventRefuses(t *testing.T) {
	for _, line := range []string{``, `{}`, `[]`, `{"type":"later","generation":1}`, `{"type":"LOG"}`, `{"type":"build","ok":"yes"}`, `{"type":"log"`} {
		if e, err := DecodeEvent([]byte(line)); err == nil {
			t.Errorf("%s became %+v", line, e)
		}
	}
}

// Every member that an event can have is on the page, below its type's heading.
func TestEventDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile("(?m)^## `(\\w+)`$").Split(string(page), -1)
	names := regexp.MustCompile("(?m)^## `(\\w+)`$").FindAllStringSubmatch(string(page), -1)
	types := map[string]any{"environment": EnvironmentEvent{}, "build": BuildEvent{}, "transfer": TransferEvent{}, "process": ProcessEvent{},
		"listening": ListeningEvent{}, "ready": ReadyEvent{}, "log": LogEvent{}, "problem": ProblemEvent{}, "call": CallEvent{}}
	if len(names) != len(types) {
		t.Fatalf("%d sections, %d types", len(names), len(types))
	}
	for i, n := range names {
		var check func(reflect.Type)
		check = func(typ reflect.Type) {
			for f := range typ.Fields() {
				if f.Type == reflect.TypeFor[Header]() {
					continue
				}
				if f.Anonymous {
					check(f.Type)
					continue
				}
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if name == "missing" { // between pod and agent only
					continue
				}
				if !strings.Contains(sections[i+1], "`"+name+"`") {
					t.Errorf("docs/events.md, %s: member %q is missing", n[1], name)
				}
			}
		}
		check(reflect.TypeOf(types[n[1]]))
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"type":"log","generation":1,"time":"2026-01-02T03:04:05Z","seq":1,"stream":"stdout","text":"x"}`))
	f.Add([]byte(`{"type":"problem"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEvent(b)
		if err != nil {
			return
		}
		if _, err := json.Marshal(e); err != nil && !strings.Contains(err.Error(), "year outside") {
			t.Fatal(err)
		}
	})
}

func TestProblems(t *testing.T) {
	one, two := &Problem{Code: "one"}, &Problem{Code: "two"}
	got := Problems(errors.Join(fmt.Errorf("wrapped: %w", one), errors.Join(two, errors.New("plain"))), "else")
	want := []*Problem{one, two, {Code: "else", Message: "plain"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
