package server

import (
	"bytes"
	"log"
	"log/slog"
	"path/filepath"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/server/callsite"
	"fairlead.dev/server/crash"
)

// Where a service logs the refusal that it got is what decides between several lines that make the call; another call's, another
// text's, another container's, and that of a source that was edited since, is not.
func TestRefusalLogged(t *testing.T) {
	const says = `rpc error: code = PermissionDenied desc = orders may not call /b.v1.B/Charge of billing yet (environment e): request access at http://127.0.0.1:1/request?method=%2Fb.v1.B%2FCharge`
	var b bytes.Buffer
	line := func(write func()) string { b.Reset(); write(); return b.String() }
	real := func(l *slog.Logger) string { return line(func() { l.Error("charge", "err", says) }) }
	call := api.Call{Callee: "billing", Protocol: api.CallGRPC, Method: "/b.v1.B/Charge"}
	fresh := func() *calls {
		c := &calls{s: &Session{keep: &keeper{rec: Record{Generation: 4}}, cfg: Config{Spec: bridge.Spec{Service: "orders"}}}, look: make(chan struct{}, 1),
			seen: map[api.Call]api.Seen{call: {Call: call, Verdict: api.CallDenied}}, stacks: map[api.Call][]callsite.Frame{}, places: map[api.Call]callsite.Result{}}
		c.edited([]string{"main.go"})
		return c
	}
	for name, text := range map[string]string{
		"log, short":      line(func() { log.New(&b, "", log.LstdFlags|log.Lshortfile).Print(says) }),
		"log, long":       line(func() { log.New(&b, "", log.Llongfile).Print(says) }),
		"slog in JSON":    real(slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{AddSource: true}))),
		"slog in text":    real(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{AddSource: true}))),
		"zap":             `{"level":"error","ts":1,"caller":"server/refusal_test.go:40","msg":"charge","error":"` + says + `"}`,
		"zerolog console": `3:04PM ERR server/refusal_test.go:40 > charge error="` + says + `"`,
		"logrus":          `time="2026-11-26T12:00:00Z" level=error msg="` + says + `" func=main.charge file="/src/server/refusal_test.go:40"`,
	} {
		c := fresh()
		c.logged(&api.LogEvent{Header: api.Header{Generation: 5}, Text: text})
		at := c.stacks[call]
		if len(at) != 1 || filepath.Base(at[0].File) != "refusal_test.go" || at[0].Line < 20 || at[0].Line > 50 {
			t.Errorf("%s: %+v of %s", name, at, text)
		}
		if len(c.look) != 1 {
			t.Errorf("%s: nobody looks for the line", name)
		}
	}
	text := "main.go:7: " + says
	for name, e := range map[string]*api.LogEvent{
		"without a place":   {Header: api.Header{Generation: 5}, Text: says},
		"of before an edit": {Header: api.Header{Generation: 4}, Text: text},
		"of a sidecar":      {Header: api.Header{Generation: 5}, Text: text, Process: "p/proxy"},
		"of another method": {Header: api.Header{Generation: 5}, Text: "main.go:7: orders may not call /b.v1.B/Refund of billing yet"},
		"of another text":   {Header: api.Header{Generation: 5}, Text: "main.go:7: /b.v1.B/Charge of billing failed"},
	} {
		c := fresh()
		<-c.look // the edit's
		if c.logged(e); len(c.stacks) != 0 || len(c.look) != 0 {
			t.Errorf("%s: %+v", name, c.stacks)
		}
	}
	c := fresh()
	c.crashed(5, &crash.Crash{Message: says, Frames: []crash.Frame{{Func: "main.charge", File: "/src/main.go", Line: 12}, {Func: "main.main", File: "/src/main.go", Line: 3, Creator: true}}})
	if at := c.stacks[call]; len(at) != 2 || at[0] != (callsite.Frame{Func: "main.charge", File: "/src/main.go", Line: 12}) || at[1].Func != "" {
		t.Errorf("of a panic: %+v", at)
	}
	c.edited([]string{"main.go"})
	if len(c.stacks) != 0 {
		t.Errorf("the lines of before an edit are kept: %+v", c.stacks)
	}
}
