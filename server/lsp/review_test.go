package lsp

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// fakeReviews has one plan, and notes what was agreed to.
type fakeReviews struct {
	plan  api.ReviewPlan
	hold  chan struct{} // Plan waits for it, or its context
	mu    sync.Mutex
	asked []api.ReviewRequest
	err   error
}

func (f *fakeReviews) Plan(ctx context.Context, r api.ReviewRequest, tell func(string)) (api.ReviewPlan, error) {
	tell("looking for reviewers")
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return api.ReviewPlan{}, ctx.Err()
		}
	}
	p := f.plan
	p.Dir = r.Dir
	return p, nil
}

func (f *fakeReviews) Create(_ context.Context, r api.ReviewRequest, _ func(string)) (api.ReviewResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r)
	return api.ReviewResult{ReviewRef: api.ReviewRef{Number: 7, URL: "http://127.0.0.1:7/team/shop/pulls/7", Draft: true}, Made: true, Asked: r.Reviewers}, f.err
}

func (f *fakeReviews) last() (api.ReviewRequest, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return api.ReviewRequest{}, 0
	}
	return f.asked[len(f.asked)-1], len(f.asked)
}

// An editor that has messages only is asked what is to be committed and who is to be asked; what it does not agree to is not done.
func TestReviewByMessages(t *testing.T) {
	f := &fakeReviews{plan: api.ReviewPlan{State: "s1", Branch: "fix-total", New: true, Base: "main", Title: "Fix total", Message: "Fix total", Commits: []api.ReviewCommit{{Hash: "x", Subject: "y"}},
		Changes:   []api.ReviewChange{{Path: "a.go", Kind: "modified", Picked: true}, {Path: "new.go", Kind: "untracked"}, {Path: "sub", Kind: "submodule"}},
		Reviewers: []api.ReviewPerson{{Name: "Jo", Login: "jo", Why: "wrote 80 % of a.go"}, {Name: "Al", Why: "no login"}, {Name: "Bo", Login: "bo", Why: "reviewed you"}, {Name: "Cy", Login: "cy", Asked: true}}}}
	a := newFakeAgent(t)
	e := startReviewing(t, a, f)
	dir := workspace(t, map[string]string{"a.go": "package a\n"})
	var asked []string
	answers := map[string]string{}
	e.replies["window/showMessageRequest"] = func(raw json.RawMessage) any {
		var p struct {
			Message string
			Actions []struct{ Title string }
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil
		}
		text := p.Message
		for _, x := range p.Actions {
			text += " [" + x.Title + "]"
		}
		asked = append(asked, text) // with e's lock held
		for begin, title := range answers {
			if strings.HasPrefix(p.Message, begin) {
				return map[string]any{"title": title}
			}
		}
		return nil
	}
	e.initialize(dir, nil)
	const commit, who = "Fairlead: not committed", "Fairlead: a draft review"
	answers[commit], answers[who] = `Commit 1 file as "Fix total"`, "Ask jo, bo"
	if err := e.execute("fairlead.review", map[string]any{"dir": dir}); err != nil {
		t.Fatal(err)
	}
	want := []string{`Fairlead: not committed: a.go, new.go [Commit 1 file as "Fix total"] [Commit all 2] [Leave them] [Cancel]`,
		`Fairlead: a draft review of fix-total for main: "Fix total". Reviewers: Jo (wrote 80 % of a.go); Bo (reviewed you) [Ask jo] [Ask jo, bo] [Ask nobody yet] [Cancel]`}
	if d := cmp.Diff(want, asked); d != "" {
		t.Error(d)
	}
	got, _ := f.last()
	if d := cmp.Diff(api.ReviewRequest{Dir: dir, State: "s1", Base: "main", Message: "Fix total", Files: []string{"a.go"}, Reviewers: []string{"jo", "bo"}}, got); d != "" {
		t.Error(d)
	}
	e.await("the review's page", func(all []message) bool {
		return slices.ContainsFunc(all, func(m message) bool {
			return m.Method == "window/showDocument" && strings.Contains(string(m.Params), "/team/shop/pulls/7") && strings.Contains(string(m.Params), `"external":true`)
		})
	})
	answers[commit], answers[who] = "Leave them", "Ask nobody yet"
	if err := e.execute("fairlead.review", map[string]any{"dir": dir}); err != nil {
		t.Fatal(err)
	}
	if got, n := f.last(); n != 2 || len(got.Files) > 0 || len(got.Reviewers) > 0 {
		t.Errorf("%d: %+v", n, got)
	}
	for q := range answers {
		was := answers[q]
		answers[q] = "Cancel"
		e.execute("fairlead.review", map[string]any{"dir": dir})
		if _, n := f.last(); n != 2 {
			t.Errorf("after Cancel of %q it was made", q)
		}
		answers[q] = was
	}
	// What another has not looked at is not made.
	if err := e.execute("fairlead.reviewCreate", map[string]any{"dir": dir}); err == nil || !strings.Contains(err.Message, "state") {
		t.Errorf("%v", err)
	}
	f.err = &api.Problem{Code: "review-changed", Message: "nothing was committed", Hint: "do as the hook says"}
	if err := e.execute("fairlead.reviewCreate", map[string]any{"dir": dir, "state": "s1"}); err == nil || !strings.Contains(err.Message, "nothing was committed (do as the hook says)") || string(err.Data) != `{"code":"review-changed"}` {
		t.Errorf("%v", err)
	}
}

// A plan that lasts is shown, and can be cancelled where it is.
func TestReviewCancelled(t *testing.T) {
	f := &fakeReviews{hold: make(chan struct{})}
	e := startReviewing(t, newFakeAgent(t), f)
	dir := workspace(t, map[string]string{"a.go": "package a\n"})
	e.replies["window/workDoneProgress/create"] = nil
	e.initialize(dir, nil)
	_, answer := e.begin("workspace/executeCommand", map[string]any{"command": "fairlead.reviewPlan", "arguments": []any{map[string]any{"dir": dir}}})
	var token string
	e.await("the progress", func(all []message) bool {
		for _, m := range all {
			if m.Method == "window/workDoneProgress/create" {
				var p struct{ Token string }
				json.Unmarshal(m.Params, &p)
				token = p.Token
			}
		}
		return token != "" && slices.ContainsFunc(all, func(m message) bool {
			return m.Method == "$/progress" && strings.Contains(string(m.Params), "looking for reviewers")
		})
	})
	e.notify("window/workDoneProgress/cancel", map[string]any{"token": token})
	if m := <-answer; m.Error == nil {
		t.Errorf("%+v", m)
	}
	e.await("the progress's end", func(all []message) bool {
		return slices.ContainsFunc(all, func(m message) bool { return m.Method == "$/progress" && strings.Contains(string(m.Params), `"end"`) })
	})
}
