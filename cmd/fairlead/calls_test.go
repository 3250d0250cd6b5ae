package main

import (
	"bytes"
	"strings"
	"testing"

	"fairlead.dev/api"
)

// What is refused is told in a terminal, with the next step; what works is not.
func TestRenderCalls(t *testing.T) {
	var b bytes.Buffer
	r := &textRenderer{out: &b, err: &b}
	for _, v := range []api.CallVerdict{api.CallAllowed, api.CallDenied, api.CallWarned, api.CallRefused} {
		r.show(&api.CallEvent{Header: api.Header{Type: api.KindCall}, Seen: api.Seen{Call: api.Call{Callee: "billing", Protocol: api.CallHTTP, Method: "GET /x\x1b[2J"}, Verdict: v, By: "istio"}})
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "fairlead access") || !strings.Contains(lines[1], "let through") || !strings.Contains(lines[2], "istio refused") || strings.Contains(b.String(), "\x1b[2J") {
		t.Errorf("%q", lines)
	}
}
