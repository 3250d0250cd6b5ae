package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"fairlead.dev/api"
	"fairlead.dev/bridge"

	"github.com/google/go-cmp/cmp"
)

// copiedEnv is an environment that has dependencies, in a pod.
type copiedEnv struct {
	bridge.Environment
	pod string
}

func (e *copiedEnv) Info() api.Environment { return api.Environment{Name: "x", Pod: e.pod} }
func (e *copiedEnv) Target() api.Target    { return api.Target{} }
func (e *copiedEnv) Close() error          { return nil }
func (e *copiedEnv) Dial(context.Context) (io.ReadWriteCloser, error) {
	return nil, errors.New("dialled " + e.pod)
}
func (e *copiedEnv) Dependencies(context.Context) ([]api.Dependency, error) { return nil, nil }

// switching is a session whose Open notes what it is asked for, takes as long as the test wants, and cannot make "bad" fresh.
type switching struct {
	*Session
	opened []map[string]api.DependencyWish
	told   []string
	wishes map[string]api.DependencyWish // as the agent was told
	turn   chan struct{}
}

func newSwitching(t *testing.T, ctx context.Context) *switching {
	w := &switching{turn: make(chan struct{}, 100)}
	w.Session = &Session{keep: &keeper{recs: Records{Dir: t.TempDir()}, rec: Record{Environment: api.Environment{Name: "x"}}}, debug: newDebugging(nil), envReady: make(chan struct{}),
		conn:     bridge.New(bridge.Options{}),
		switches: switches{asked: make(chan switchRequest, 1), over: make(chan struct{}), news: make(chan struct{}, 1)}}
	w.cfg.Spec.Name = "x"
	w.cfg.Spec.Dependencies = map[string]api.DependencyWish{"db": {Mode: api.DependencyFresh, Seed: "load"}}
	w.cfg.Open = func(ctx context.Context, s bridge.Spec, _ bridge.Progress) (bridge.Environment, error) {
		w.opened = append(w.opened, s.Dependencies)
		select {
		case <-w.turn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if s.Dependencies["bad"].Mode == api.DependencyFresh {
			return nil, &api.Problem{Code: "image-pull", Message: "no such image", Hint: "push it"}
		}
		return &copiedEnv{pod: fmt.Sprint("pod", len(w.opened))}, nil
	}
	w.cfg.Emit = func(e api.Event) {
		switch e := e.(type) {
		case *api.EnvironmentEvent:
			w.told = append(w.told, e.State)
		case *api.ProblemEvent:
			w.told = append(w.told, e.Code)
		}
	}
	w.cfg.note = func(step any) {
		if s, ok := step.(switched); ok {
			w.wishes = s.wishes
		}
	}
	var env bridge.Environment = &copiedEnv{pod: "pod0"}
	w.env.Store(&env)
	close(w.envReady)
	go w.followSwitches(ctx)
	return w
}

// A switch opens the environment with the changed wish and remembers it; meanwhile nobody connects, and no other switch
// begins. The pod's other wishes stay.
func TestSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newSwitching(t, ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.switchDependency(ctx, api.DependencyRequest{Name: "redis", Mode: api.DependencyFresh}); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		var dialled error
		wg.Go(func() { _, dialled = w.dial(ctx) })
		synctest.Wait()
		if dialled != nil {
			t.Errorf("during the switch: %v", dialled)
		}
		var p *api.Problem
		if err := w.switchDependency(ctx, api.DependencyRequest{Name: "db", Mode: api.DependencyShared}); !errors.As(err, &p) || p.Code != "environment-switching" || p.Hint == "" {
			t.Errorf("a second one: %v", err)
		}
		w.turn <- struct{}{}
		wg.Wait()
		if dialled == nil || dialled.Error() != "dialled pod1" {
			t.Errorf("after the switch: %v", dialled)
		}
		want := map[string]api.DependencyWish{"db": {Mode: api.DependencyFresh, Seed: "load"}, "redis": {Mode: api.DependencyFresh}}
		if d := cmp.Diff(want, w.opened[0]) + cmp.Diff(want, w.wishes) + cmp.Diff(want, w.cfg.Spec.Dependencies); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(map[string]api.DependencyMode{"redis": api.DependencyFresh}, w.keep.get().Switched); d != "" {
			t.Error(d)
		}
		if w.keep.get().Environment.Pod != "pod1" {
			t.Errorf("%+v", w.keep.get().Environment)
		}
		cancel()
		synctest.Wait()
		if err := w.switchDependency(context.Background(), api.DependencyRequest{Name: "db", Mode: api.DependencyShared}); !errors.As(err, &p) || p.Code != CodeNoService {
			t.Errorf("after the end: %v", err)
		}
	})
}

// One that cannot be had is gone back on, and told; it is not remembered.
func TestSwitchGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSwitching(t, t.Context())
		before := w.cfg.Spec.Dependencies
		w.turn <- struct{}{}
		w.turn <- struct{}{}
		err := w.switchDependency(t.Context(), api.DependencyRequest{Name: "bad", Mode: api.DependencyFresh})
		var p *api.Problem
		if !errors.As(err, &p) || p.Code != "image-pull" || p.Message != "bad is not fresh: no such image" || p.Hint != "push it" {
			t.Errorf("%v", err)
		}
		if len(w.opened) != 2 || cmp.Diff(before, w.opened[1]) != "" || cmp.Diff(before, w.cfg.Spec.Dependencies) != "" || w.wishes != nil || len(w.keep.get().Switched) != 0 {
			t.Errorf("opened with %v, then has %v, remembers %v", w.opened, w.cfg.Spec.Dependencies, w.keep.get().Switched)
		}
		if d := cmp.Diff([]string{"connecting", "connecting", "image-pull"}, w.told); d != "" {
			t.Error(d)
		}
		// The environment cannot be had as it was either: both are told.
		w.cfg.Spec.Dependencies = map[string]api.DependencyWish{"bad": {Mode: api.DependencyFresh}}
		w.turn <- struct{}{}
		w.turn <- struct{}{}
		err = w.switchDependency(t.Context(), api.DependencyRequest{Name: "redis", Mode: api.DependencyFresh})
		if ps := api.Problems(err, ""); len(ps) != 2 || ps[0].Code != "image-pull" || ps[1].Code != "not-restored" || ps[1].Hint == "" {
			t.Errorf("%v", err)
		}
	})
}

// What is asked for is checked where it comes in.
func TestSwitchRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := fakeAgent()
		at, err := a.attach("a", "a", false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.run(t.Context(), api.RunRequest{Client: "a", Dir: "/x"}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			r    api.DependencyRequest
			code string
		}{
			{"x", api.DependencyRequest{Name: "db", Mode: api.DependencyFresh}, ""},
			{"x", api.DependencyRequest{Name: "db", Mode: api.DependencyOff}, CodeBadRequest},
			{"x", api.DependencyRequest{Mode: api.DependencyFresh}, CodeBadRequest},
			{"y", api.DependencyRequest{Name: "db", Mode: api.DependencyFresh}, CodeNoService},
		} {
			err := a.switchDependency(t.Context(), c.name, c.r)
			got := ""
			if err != nil {
				got = api.Problems(err, "")[0].Code
			}
			if got != c.code {
				t.Errorf("%+v: %v", c, err)
			}
		}
		// A run that asks for other ones than it has by now is told so.
		a.step(a.sessions["x"], switched{map[string]api.DependencyWish{"db": {Mode: api.DependencyFresh}}})
		ans, err := a.run(t.Context(), api.RunRequest{Client: "a", Dir: "/x"})
		if err != nil || ans.Why != "so; it runs with another list of dependencies already; stop it first to change that" {
			t.Errorf("%+v %v", ans, err)
		}
		a.detach(at, true)
		synctest.Wait()
		a.sessions["x"].cancel()
		a.wg.Wait()
	})
}
