package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	agentclient "fairlead.dev/server/client"
)

func (p *place) client(version string) *agentclient.Client {
	return agentclient.New(agentclient.Options{Socket: filepath.Join(p.m.run, "fairlead", "agent.sock"), Version: version, Name: "test"})
}

// A save that the editor tells and the watcher sees is one build.
func TestSavedOnce(t *testing.T) {
	p := newLocal(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	c := p.client("")
	for _, v := range []string{"v2", "v3", "v4"} {
		s.edit(t, v)
		if err := c.Saved(context.Background(), s.version); err != nil {
			t.Fatal(err)
		}
		a.live(t, v)
	}
	after(2 * time.Second)
	builds := 0
	for _, e := range a.all() {
		if _, ok := e.(*api.BuildEvent); ok {
			builds++
		}
	}
	if builds != 4 {
		t.Errorf("%d builds for the first run and three saves", builds)
	}
	a.interrupt(t)
	p.wantNothing(t)
}

// A front end of another version is refused while the agent holds something, and replaces it otherwise.
func TestOtherVersion(t *testing.T) {
	p := newLocal(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	start := func(context.Context) error { return &api.Problem{Code: "started", Message: "started"} }
	other := agentclient.New(agentclient.Options{Socket: filepath.Join(p.m.run, "fairlead", "agent.sock"), Version: "other", Name: "test", Start: start})
	_, err := other.Run(context.Background(), api.RunRequest{Dir: s.dir})
	if err == nil || !strings.Contains(err.Error(), "version other") && !strings.Contains(err.Error(), "this is other") {
		t.Fatalf("%v", err)
	}
	a.running(t, "v1")
	a.interrupt(t)
	if _, err := other.Run(context.Background(), api.RunRequest{Dir: s.dir}); err == nil || err.Error() != "started" {
		t.Fatalf("an agent that holds nothing was not replaced: %v", err)
	}
	p.wantNothing(t)
}
