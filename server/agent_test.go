package server

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/syncer/build"
)

// fakeSession runs until it is ended.
type fakeSession struct {
	seen      []api.Seen
	mu        sync.Mutex
	ended     bool
	discarded bool
	saves     []string
	wanted    []string
	canceled  []string
	until     time.Time
}

func (f *fakeSession) Run(ctx context.Context) error {
	<-ctx.Done()
	time.Sleep(3 * time.Second) // its environment is removed
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	return nil
}
func (f *fakeSession) Keep(bool) {}
func (f *fakeSession) keepUntil(_ context.Context, t time.Time) (bool, error) {
	f.until = t
	return true, nil
}
func (f *fakeSession) keptUntil() time.Time                         { return f.until }
func (f *fakeSession) Discard()                                     { f.discarded = true }
func (f *fakeSession) callAddress(_, addr string) string            { return addr }
func (f *fakeSession) dependencyMoved(string, string) bool          { return true }
func (f *fakeSession) reviewed(api.ReviewRef) error                 { return nil }
func (f *fakeSession) lastReview() *api.ReviewRef                   { return nil }
func (f *fakeSession) observed(context.Context) ([]api.Seen, error) { return f.seen, nil }
func (f *fakeSession) form(api.FormRequest) (string, error)         { return "", nil }
func (f *fakeSession) Saved(p []string)                             { f.saves = append(f.saves, p...) }
func (f *fakeSession) Wanted(why string)                            { f.wanted = append(f.wanted, why) }
func (f *fakeSession) CancelBuild()                                 { f.canceled = append(f.canceled, "build") }
func (f *fakeSession) CancelTransfer()                              { f.canceled = append(f.canceled, "transfer") }
func (f *fakeSession) Restart()                                     { f.canceled = append(f.canceled, "restart") }
func (f *fakeSession) Debug(string, string) (*Claim, error) {
	return nil, &api.Problem{Code: api.CodeDebugHeld, Message: "somebody debugs it"}
}
func (f *fakeSession) switchDependency(context.Context, api.DependencyRequest) error { return nil }
func (f *fakeSession) choose(api.DebugChoice) error                                  { return nil }
func (f *fakeSession) debugTest(context.Context, api.DebugTest) (api.TaskStarted, error) {
	return api.TaskStarted{ID: "t"}, nil
}
func (f *fakeSession) dialTask(context.Context, string) (net.Conn, error) { return nil, net.ErrClosed }
func (f *fakeSession) dialCore(context.Context, string) (net.Conn, api.DebugStart, error) {
	return nil, api.DebugStart{}, net.ErrClosed
}
func (f *fakeSession) over() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.ended }

func fakeAgent() (*Agent, *[]*fakeSession) {
	var all []*fakeSession
	a := NewAgent(AgentConfig{Version: "v",
		Prepare: func(_ context.Context, r api.RunRequest) (Plan, error) {
			time.Sleep(100 * time.Millisecond)
			return Plan{Config: Config{Spec: bridge.Spec{Name: filepath.Base(r.Dir), Service: "s"}, Record: Record{Environment: api.Environment{Name: filepath.Base(r.Dir)}}}, Why: "so",
				Shape: map[string]string{"list of arguments": strings.Join(r.Args, " ")}}, nil
		},
		newSession: func(Config) (runner, error) { f := &fakeSession{}; all = append(all, f); return f, nil }})
	return a, &all
}

// Two requests for one service at the same time are one session; the last one's leaving ends it, and a request meanwhile
// waits for its end.
func TestAgentHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, all := fakeAgent()
		var wg sync.WaitGroup
		joined := make([]bool, 2)
		at := make([]*attachment, 2)
		for i, id := range []string{"a", "b"} {
			at[i], _ = a.attach(id, id, false)
			wg.Go(func() {
				ans, err := a.run(t.Context(), api.RunRequest{Client: id, Dir: "/x", Args: []string{id}})
				if err != nil {
					t.Error(err)
				}
				joined[i] = ans.Joined
				if ans.Joined && !strings.Contains(ans.Why, "another list of arguments") {
					t.Errorf("why: %s", ans.Why)
				}
			})
		}
		wg.Wait()
		if len(*all) != 1 || joined[0] == joined[1] {
			t.Fatalf("%d sessions, joined %v", len(*all), joined)
		}
		a.detach(at[0], true)
		synctest.Wait()
		if s := a.services(); len(s) != 1 || s[0].Phase == api.PhaseStopping {
			t.Fatalf("%+v", s)
		}
		a.detach(at[1], true)
		if s := a.services(); len(s) != 1 || s[0].Phase != api.PhaseStopping {
			t.Fatalf("%+v", s)
		}
		at[0], _ = a.attach("c", "c", false)
		if ans, err := a.run(t.Context(), api.RunRequest{Client: "c", Dir: "/x"}); err != nil || ans.Joined || !(*all)[0].over() || len(*all) != 2 {
			t.Fatalf("%+v %v: the next one began before the first had ended", ans, err)
		}
		a.detach(at[0], true)
		time.Sleep(5 * time.Minute)
		a.wg.Wait()
	})
}

// A client that went without a word has a minute to come back; then what it held ends, and a minute later the agent.
func TestAgentGraceAndIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, all := fakeAgent()
		at, _ := a.attach("a", "a", false)
		if _, err := a.run(t.Context(), api.RunRequest{Client: "a", Dir: "/x"}); err != nil {
			t.Fatal(err)
		}
		a.detach(at, false)
		time.Sleep(59 * time.Second)
		at, _ = a.attach("a", "a", false)
		time.Sleep(10 * time.Minute)
		if len(a.services()) != 1 {
			t.Fatal("what a client held that came back is gone")
		}
		a.detach(at, false)
		time.Sleep(59 * time.Second)
		if len(a.services()) != 1 {
			t.Fatal("what was held is gone within the minute")
		}
		time.Sleep(5 * time.Second)
		if len(a.services()) != 0 || !(*all)[0].over() {
			t.Fatal("what nobody holds is still there")
		}
		select {
		case <-a.leaving:
			t.Fatal("it left at once")
		default:
		}
		time.Sleep(61 * time.Second)
		select {
		case <-a.leaving:
		default:
			t.Fatal("it is still there with nothing to do")
		}
		a.wg.Wait()
	})
}

// What no front end means is refused with a problem, and no request makes the agent panic.
func TestAgentBorder(t *testing.T) {
	a, _ := fakeAgent()
	h := a.handler()
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/run", "{", 400},
		{"POST", "/v1/run", `{"client":"a","dir":"relative"}`, 400},
		{"POST", "/v1/run", `{"dir":"/x"}`, 400},
		{"POST", "/v1/run", `{"client":"` + strings.Repeat("x", 65) + `","dir":"/x"}`, 400},
		{"POST", "/v1/run", `{"client":"` + strings.Repeat("x", maxBody) + `"}`, 413},
		{"GET", "/v1/run", "", 405},
		{"GET", "/v1/attach?client=a", "", 426},
		{"GET", "/v1/attach", "", 400},
		{"POST", "/v1/services/x/stop", "", 404},
		{"POST", "/v1/services/x/leave?client=a", "", 404},
		{"POST", "/v1/services/x/cancel", `{"what":"build"}`, 404},
		{"GET", "/v1/services/x/access", "", 404},
		{"GET", "/v1/services/x/journal", "", 404},
		{"POST", "/v1/saved", `{"paths":["a.go"]}`, 400},
		{"POST", "/v1/saved", `{"paths":["/a.go"]}`, 204},
		{"GET", "/v1/agent", "", 200},
		{"GET", "/", "", 404},
		{"POST", "/v1/shutdown", "", 202},
		{"POST", "/v1/run", `{"client":"a","dir":"/x"}`, 409},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.status {
			t.Errorf("%s %s %.60s: %d, want %d: %s", tt.method, tt.path, tt.body, w.Code, tt.status, w.Body)
		}
	}
}

func FuzzAgentRequest(f *testing.F) {
	f.Add("/v1/run", `{"client":"a","dir":"/x"}`)
	f.Add("/v1/services/x/cancel", `{"what":"build"}`)
	f.Add("/v1/saved", `{"paths":["/x"]}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		a, _ := fakeAgent()
		r, err := http.NewRequest("POST", "http://agent/", strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.Path = path
		w := httptest.NewRecorder()
		a.handler().ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	})
}

// The phases of a first run, a failing build, a crash and a loss, and who clears what.
func TestState(t *testing.T) {
	head := func(k api.Kind, g api.Generation) api.Header { return api.Header{Type: k, Generation: g} }
	env := func(s string) *api.EnvironmentEvent {
		return &api.EnvironmentEvent{Header: head(api.KindEnvironment, 0), State: s, Reason: s}
	}
	s := newState(api.Service{}, time.Unix(1, 0))
	for i, tt := range []struct {
		step     any
		phase    api.Phase
		problems string
	}{
		{env("finding"), api.PhaseOpening, ""},
		{building{1}, api.PhaseOpening, ""},
		{env("connected"), api.PhaseBuilding, ""},
		{&api.BuildEvent{Header: head(api.KindBuild, 1), OK: true}, api.PhaseStarting, ""},
		{shipping{1}, api.PhaseShipping, ""},
		{&api.TransferEvent{Header: head(api.KindTransfer, 1)}, api.PhaseStarting, ""},
		{&api.ProcessEvent{Header: head(api.KindProcess, 1), State: api.StateRunning, PID: 7}, api.PhaseStarting, ""},
		{&api.ReadyEvent{Header: head(api.KindReady, 1), URL: "u"}, api.PhaseLive, ""},
		{building{2}, api.PhaseBuilding, ""},
		{&api.ProblemEvent{Header: head(api.KindProblem, 2), Problem: api.Problem{Code: "e", Owner: "build"}}, api.PhaseBuilding, ""},
		{&api.BuildEvent{Header: head(api.KindBuild, 2)}, api.PhaseFailed, "e"},
		{building{3}, api.PhaseBuilding, "e"},
		{&api.BuildEvent{Header: head(api.KindBuild, 3), Canceled: true}, api.PhaseFailed, "e"},
		{building{4}, api.PhaseBuilding, "e"},
		{&api.BuildEvent{Header: head(api.KindBuild, 4), OK: true}, api.PhaseLive, ""},
		{crashed{&api.Problem{Code: "panic"}}, api.PhaseLive, "panic"},
		{&api.ProcessEvent{Header: head(api.KindProcess, 1), State: api.StateExited}, api.PhaseDown, "panic"},
		{env("lost"), api.PhaseLost, "connection-lost panic"},
		{env("connecting"), api.PhaseLost, "connection-lost panic"}, // a pod is waited for: it is lost until it is back
		{env("connected"), api.PhaseDown, "panic"},
		{&api.ReadyEvent{Header: head(api.KindReady, 4), URL: "u"}, api.PhaseDown, ""},
		{settingsRead{[]*api.Problem{{Code: "key"}}}, api.PhaseDown, "key"},
		{settingsRead{}, api.PhaseDown, ""},
		{leaving{"left"}, api.PhaseStopping, ""},
		{over{&api.Problem{Code: "held"}}, api.PhaseEnded, "held"},
	} {
		s.apply(tt.step, time.Unix(int64(i), 0))
		if e, ok := tt.step.(*api.EnvironmentEvent); ok && e.State == "connecting" && s.svc.Detail != "lost; connecting" {
			t.Errorf("step %d: detail %q", i, s.svc.Detail)
		}
		var codes []string
		for _, p := range s.svc.Problems {
			codes = append(codes, p.Code)
		}
		if got := strings.Join(codes, " "); s.svc.Phase != tt.phase || got != tt.problems {
			t.Errorf("step %d %T: %s with %q, want %s with %q", i, tt.step, s.svc.Phase, got, tt.phase, tt.problems)
		}
	}
}

// A path means the main package's folder in its module's root, or where the package runs from already.
func TestAgentPlace(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"m/cmd/x", "m/cmd/y", "loose"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"m/go.mod", "m/cmd/x/main.go", "m/main.go", "loose/main.go", "m/cmd/y/main.go"} {
		if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := fakeAgent()
	y := filepath.Join(root, "m/cmd/y")
	a.sessions["y"] = &held{plan: Plan{Config: Config{Service: build.Service{Dir: y}, Record: Record{Dir: filepath.Join(root, "m/cmd")}}}}
	for path, want := range map[string]string{
		"m/cmd/x/main.go": "m ./cmd/x", "m/cmd/x": "m ./cmd/x", "m/main.go": "m ", "m": "m ", "loose/main.go": "loose ",
		"m/cmd/y/main.go": "m/cmd ./y",
	} {
		r := api.RunRequest{Path: filepath.Join(root, path)}
		a.place(&r)
		rel, _ := filepath.Rel(root, r.Dir)
		if got := filepath.ToSlash(rel) + " " + r.Main; got != want || r.Path != "" {
			t.Errorf("%s means %q, want %q", path, got, want)
		}
	}
}
