package main

import (
	"bytes"
	"testing"

	"fairlead.dev/api"
)

// Lines of other containers say whose they are, and do not come within a line of the service's.
func TestRenderLines(t *testing.T) {
	var out bytes.Buffer
	r := &textRenderer{out: &out, err: &out}
	for _, l := range []api.LogEvent{
		{Text: "of the service"}, {Text: "ready", Process: "shop-1-a/proxy"},
		{Text: "long ", Partial: true}, {Text: "line"}, {Text: "long ", Partial: true}, {Text: "between", Process: "shop-1-a/proxy"}, {Text: "rest"},
		{Text: "in ", Partial: true, Process: "shop-1-a/proxy"}, {Text: "parts", Process: "shop-1-a/proxy"},
	} {
		r.show(&l)
	}
	want := "of the service\n[proxy] ready\nlong line\nlong \n[proxy] between\nrest\n[proxy] in parts\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
