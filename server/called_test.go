package server

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
)

// What a form is filled with: what one environment saw, or all of a caller, and where the callee is; never what another caller saw.
func TestObservedAndCalled(t *testing.T) {
	a, _ := fakeAgent()
	seen := func(callee, method string, v api.CallVerdict, n uint64) api.Seen {
		return api.Seen{Call: api.Call{Callee: callee, Method: method}, Verdict: v, Count: n}
	}
	add := func(name, service string, ending bool, seen ...api.Seen) *held {
		h := &held{name: name, ending: ending, session: &fakeSession{seen: seen}, plan: Plan{Config: Config{Spec: bridge.Spec{Name: name, Service: service}}}}
		a.sessions[name] = h
		return h
	}
	one := add("orders-1", "orders", false, seen("billing", "GET /b", api.CallAllowed, 1), seen("billing", "GET /a", api.CallAllowed, 2), seen("rates", "GET /r", api.CallDenied, 3), seen("billing", "", api.CallAllowed, 4))
	add("orders-2", "orders", false, seen("billing", "GET /a", api.CallDenied, 5))
	add("orders-3", "orders", true, seen("billing", "GET /ending", api.CallDenied, 1))
	add("basket-1", "basket", false, seen("billing", "GET /basket", api.CallDenied, 1))
	for environment, want := range map[string][]api.Seen{
		"":         {seen("billing", "GET /a", api.CallDenied, 7), seen("billing", "GET /b", api.CallAllowed, 1)},
		"orders-1": {seen("billing", "GET /a", api.CallAllowed, 2), seen("billing", "GET /b", api.CallAllowed, 1)},
		"basket-1": nil, // it is not the caller's
	} {
		if d := cmp.Diff(want, a.Observed(t.Context(), "orders", "billing", environment)); d != "" {
			t.Errorf("%q: %s", environment, d)
		}
	}
	one.plan.Config.Calls.Folder = func(callee string) string { return "/src/" + callee }
	one.needs = newNeeds("orders-1", []Dependency{{Dependency: api.Dependency{Name: "billing"}},
		{Dependency: api.Dependency{Name: "db"}, Check: func(context.Context, string) error { return nil }}})
	one.needs.set(0, api.HealthReady, "", "127.0.0.1:1")
	one.needs.set(1, api.HealthReady, "", "127.0.0.1:2")
	for callee, want := range map[string][2]string{"billing": {"/src/billing", "127.0.0.1:1"}, "db": {"/src/db", ""}, "other": {"/src/other", ""}} {
		if folder, addr := a.Called(callee); folder != want[0] || addr != want[1] {
			t.Errorf("%s is at %q and %q", callee, folder, addr)
		}
	}
}
