package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/server/callsite"
)

// A refusal stands until it is granted; a registry that is away stands as long as it is, beside it, and is told once; a line that
// was found before an edit is not shown after it.
func TestRefusedCallsStand(t *testing.T) {
	var shown []*api.Problem
	told := 0
	s := &Session{keep: &keeper{rec: Record{Environment: api.Environment{Name: "orders-1"}}}, cfg: Config{Spec: bridge.Spec{Service: "orders"},
		Emit: func(api.Event) { told++ }, note: func(step any) { shown = step.(callsSeen).problems }}, debug: newDebugging(nil)}
	tells := make(chan func())
	steps := make(chan bool)
	c, err := newCalls(s, Calls{Mode: api.CallsEnforce, Follow: func(ctx context.Context, tell func(Granted, error)) {
		s.calls.cfg.Follow = nil
		grant := func(patterns ...string) Granted {
			return func(string) (bool, []string, api.Place) {
				return true, patterns, api.Place{File: "/cache/services/billing.yaml", Line: 3, Message: "billing is open"}
			}
		}
		for _, f := range []func(){
			func() { tell(grant(), nil) },
			func() { tell(grant(), errors.New("the remote is away")) },
			func() { tell(grant(), errors.New("the remote is away")) },
			func() { tell(grant("GET /x"), nil) },
		} {
			tells <- f
			<-steps
		}
	}}, []string{"billing"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.calls = c
	go func() { c.followGrants(t.Context()); close(tells) }()
	next := func(want ...string) {
		t.Helper()
		(<-tells)()
		var got []string
		for _, p := range shown {
			got = append(got, p.Code)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v stand, want %v", got, want)
		}
		for _, p := range shown {
			if said := strings.HasSuffix(p.Message, "yet: billing is open") && len(p.Related) == 1 && p.Related[0].Line == 3; p.Code == api.CodeNotGranted && !said {
				t.Errorf("the policy is not said: %+v", p)
			}
		}
		steps <- true
	}
	next()
	call := api.Call{Callee: "billing", Protocol: api.CallHTTP, Method: "GET /x"}
	other := api.Call{Callee: "billing", Protocol: api.CallHTTP, Method: "GET /y"}
	c.event(&api.CallEvent{Seen: api.Seen{Call: call, Verdict: api.CallDenied, Count: 1}})
	c.places[other] = callsite.Result{Reason: "of before"}
	c.edited([]string{"/x/main.go"})
	if _, ok := c.places[other]; ok {
		t.Error("the line of before the edit is kept")
	}
	next(api.CodeNotGranted, api.CodeCallsUnseen)
	next(api.CodeNotGranted, api.CodeCallsUnseen)
	if told != 1 {
		t.Errorf("the registry's absence was told %d times", told)
	}
	next()
}
