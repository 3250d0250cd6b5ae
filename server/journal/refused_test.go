package journal

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// What the gate's words in a service's own line are about, by Read and by websocket alike; what only looks like them is nothing.
func TestRefused(t *testing.T) {
	billing := func(method string) *api.Call { return &api.Call{Callee: "billing", Method: method} }
	denied := api.Call{Callee: "billing", Protocol: api.CallGRPC, Method: "/b.v1.B/Charge"}
	event := func(v api.CallVerdict) api.Event {
		return &api.CallEvent{Header: api.Header{Type: api.KindCall}, Seen: api.Seen{Call: denied, Verdict: v, Count: 1, By: "istio"}}
	}
	line := func(text string) api.Event {
		return &api.LogEvent{Header: api.Header{Type: api.KindLog}, Stream: "stderr", Text: text}
	}
	for _, c := range []struct {
		event   api.Event
		level   string
		says    string
		refused *api.Call
	}{
		{line("main.go:7: rpc error: code = PermissionDenied desc = orders may not call /b.v1.B/Charge of billing yet (environment e): request access at http://127.0.0.1:1/"), "", "", billing("/b.v1.B/Charge")},
		{line(`{"level":"error","msg":"charge","body":"{\"detail\":\"orders may not call POST /v1/charges/* of billing yet (environment e)"}`), "error", "charge", billing("POST /v1/charges/*")},
		{line("you may not call me of all people yet"), "", "", nil},
		{line("you may not call it a day"), "", "", nil},
		{line("x may not call " + strings.Repeat("y", 5000) + " of billing yet"), "", "", nil},
		{event(api.CallDenied), "error", "/b.v1.B/Charge of billing is not granted: the call was refused", &denied},
		{event(api.CallWarned), "warn", "/b.v1.B/Charge of billing is not granted; the call was let through", &denied},
		{event(api.CallRefused), "warn", "istio refused the call of /b.v1.B/Charge of billing", nil},
		{event(api.CallAllowed), "none", "", nil},
	} {
		j := New(Options{})
		j.Append(c.event)
		got, err := j.Read(t.Context(), 0, true, 0)
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		l := got[0].Line
		switch {
		case c.level == "none":
			if l != nil {
				t.Errorf("%+v", l)
			}
		case l == nil || l.Level != c.level || c.says != "" && l.Message != c.says || cmp.Diff(c.refused, l.Refused) != "":
			t.Errorf("%+v is understood as %+v", c.event, l)
		}
		var enc encoder
		enc.add(&taken{item: item{seq: 1, event: c.event}}, "")
		var back api.Entry
		if err := json.Unmarshal(enc.buf, &back); err != nil || cmp.Diff(got[0], back) != "" {
			t.Errorf("by websocket: %v\n%s", err, cmp.Diff(got[0], back))
		}
	}
}
