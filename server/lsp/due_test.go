package lsp

import (
	"testing"
	"time"

	"fairlead.dev/api"
)

// An environment that is due is asked about once, and what is answered is done.
func TestDueIsAskedAbout(t *testing.T) {
	a := newFakeAgent(t)
	e := startEditor(t, a)
	e.initialize(t.TempDir(), nil)
	<-a.attached
	for i, c := range []struct{ answer, want string }{{answerKeep, "due id-0: keep"}, {answerStop, "due id-1: stop"}, {answerLeave, ""}} {
		e.mu.Lock()
		e.replies["window/showMessageRequest"] = map[string]any{"title": c.answer}
		e.mu.Unlock()
		id := "id-" + string(rune('0'+i))
		a.handle(Update{Update: api.Update{Due: &api.Due{ID: id, Environment: api.Environment{Name: "old-1", Service: "old", Namespace: "shop"}, Then: "delete", At: time.Now().Add(time.Hour)}}})
		e.eventually(c.answer, func() bool { return e.count("window/showMessageRequest") == i+1 && (c.want == "" || a.said(c.want)) })
	}
	a.sync() // attached anew, as after a reload
	if n := e.count("window/showMessageRequest"); n != 3 {
		t.Errorf("asked %d times", n)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		if c == "due id-2: keep" || c == "due id-2: stop" {
			t.Errorf("what was to be left was not: %s", c)
		}
	}
}
