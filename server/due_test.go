package server

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.dev/api"

	"github.com/google/go-cmp/cmp"
)

// fakeOthers has environments on no cluster.
type fakeOthers struct {
	due  []api.Due
	err  error
	asks int
	did  []string
}

func (o *fakeOthers) Due(context.Context) ([]api.Due, error) { o.asks++; return o.due, o.err }
func (o *fakeOthers) Keep(_ context.Context, d api.Due, span time.Duration) error {
	o.did = append(o.did, "keep "+d.Name+" "+span.String())
	return nil
}
func (o *fakeOthers) Stop(_ context.Context, d api.Due) error {
	o.did = append(o.did, "stop "+d.Name)
	return nil
}

// heard takes what an attachment was told to be due.
func heard(at *attachment) (ids []string) {
	for {
		select {
		case u := <-at.updates:
			if u.Due != nil {
				ids = append(ids, u.Due.ID)
			}
		default:
			return ids
		}
	}
}

// What is due is told once, to one of those that ask and to all that only show, whoever attaches later and whichever agent
// looks; it is looked for only while somebody is there to hear it.
func TestDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		due := func(id, name string) api.Due {
			return api.Due{ID: id, Environment: api.Environment{Name: name, Namespace: "ns"}, Then: "delete", At: start.Add(time.Hour)}
		}
		o := &fakeOthers{}
		file := filepath.Join(t.TempDir(), "due.json")
		agent := func() (*Agent, func()) {
			a, _ := fakeAgent()
			a.cfg.Others, a.due.file = o, file
			a.loadDue()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { a.watchDue(ctx); close(done) }()
			return a, func() { cancel(); <-done }
		}
		a, stop := agent()
		time.Sleep(time.Hour)
		if o.asks != 0 {
			t.Errorf("asked %d times with nobody there", o.asks)
		}
		shows, err := a.attach("run", "fairlead run", false)
		if err != nil {
			t.Fatal(err)
		}
		var asks [2]*attachment
		for i, id := range []string{"one", "two"} {
			if asks[i], err = a.attach(id, "editor", true); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if o.asks != 1 || len(heard(shows)) != 0 {
			t.Errorf("asked %d times", o.asks)
		}
		o.due = []api.Due{due("1", "old")}
		time.Sleep(11 * time.Minute)
		if d := cmp.Diff([]string{"1"}, heard(shows)); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"1"}, append(heard(asks[0]), heard(asks[1])...)); d != "" {
			t.Errorf("of two that ask: %s", d)
		}
		// A reload, and an agent that is started again.
		again, err := a.attach("one", "editor", true)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Minute)
		if got := heard(again); len(got) != 0 {
			t.Errorf("told again after a reload: %v", got)
		}
		if err := a.answerDue(t.Context(), "1", api.DueKeep); err != nil {
			t.Error(err)
		}
		if err := a.answerDue(t.Context(), "1", "rm"); err == nil {
			t.Error("anything can be asked for")
		}
		if err := a.answerDue(t.Context(), "2", api.DueStop); err == nil || len(o.did) != 1 || o.did[0] != "keep old 24h0m0s" {
			t.Errorf("%v, %q", err, o.did)
		}
		stop()
		a, stop = agent()
		at, err := a.attach("one", "editor", true)
		if err != nil {
			t.Fatal(err)
		}
		o.due = append(o.due, due("2", "x"), due("3", "y"))
		if _, err := a.run(t.Context(), api.RunRequest{Client: "one", Dir: "/x"}); err != nil { // in its session it is used
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		if d := cmp.Diff([]string{"3"}, heard(at)); d != "" {
			t.Errorf("the next agent: %s", d)
		}
		// A cluster that is away leaves what was known of the others.
		o.due, o.err = nil, errors.New("away")
		time.Sleep(6 * time.Minute)
		if err := a.answerDue(t.Context(), "3", api.DueStop); err != nil || !strings.Contains(strings.Join(o.did, ","), "stop y") {
			t.Errorf("%v, %q", err, o.did)
		}
		stop()
		a.end("the test ends")
		a.endSession(a.sessions["x"], "")
		a.wg.Wait()
	})
}
