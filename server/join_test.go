package server

import (
	"errors"
	"strings"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
)

// A session that follows another's environment refuses what only its owner may do, and says what to do instead.
func TestNotYours(t *testing.T) {
	s := &Session{cfg: Config{Joined: true, Owner: "ann@laptop", Spec: bridge.Spec{Name: "x"}}}
	for what, act := range map[string]func() error{
		"debug":        func() error { _, err := s.Debug("me", ""); return err },
		"test":         func() error { _, err := s.debugTest(t.Context(), api.DebugTest{}); return err },
		"task":         func() error { _, err := s.dialTask(t.Context(), "t"); return err },
		"core file":    func() error { _, _, err := s.dialCore(t.Context(), "/core"); return err },
		"dependencies": func() error { return s.switchDependency(t.Context(), api.DependencyRequest{}) },
	} {
		var p *api.Problem
		if err := act(); !errors.As(err, &p) || p.Code != api.CodeNotYours || !strings.Contains(p.Message, "ann@laptop") || !strings.Contains(p.Hint, "fairlead run") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Names come by links from anywhere: what is none is refused before anybody is asked about it.
func TestCheckJoin(t *testing.T) {
	good := api.JoinRequest{Client: "c", Environment: "orders-ann-3f9c2a1b", Namespace: "shop", Cluster: "https://10.0.0.1:6443"}
	if err := checkJoin(good); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*api.JoinRequest){
		"no client":      func(r *api.JoinRequest) { r.Client = "" },
		"a session's":    func(r *api.JoinRequest) { r.Client = holderPrefix + "x" },
		"no environment": func(r *api.JoinRequest) { r.Environment = "" },
		"a path":         func(r *api.JoinRequest) { r.Environment = "../../orders" },
		"a flag":         func(r *api.JoinRequest) { r.Environment = "--kubeconfig" },
		"upper case":     func(r *api.JoinRequest) { r.Namespace = "Shop" },
		"a line":         func(r *api.JoinRequest) { r.Namespace = "shop\n" },
		"no address":     func(r *api.JoinRequest) { r.Cluster = "staging" },
		"a password":     func(r *api.JoinRequest) { r.Cluster = "https://u:p@host" },
		"a script":       func(r *api.JoinRequest) { r.Cluster = "javascript:alert(1)" },
		"too long":       func(r *api.JoinRequest) { r.Environment = strings.Repeat("x", 64) },
	} {
		r := good
		if change(&r); checkJoin(r) == nil {
			t.Errorf("%s was taken: %+v", what, r)
		}
	}
}
