package lsp

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.lsp.dev/jsonrpc2"
	"go.lsp.dev/protocol"
	"go.lsp.dev/uri"

	"fairlead.dev/api"
)

// Reviews makes draft reviews; tell is told what is done, in a few words.
type Reviews interface {
	Plan(ctx context.Context, r api.ReviewRequest, tell func(string)) (api.ReviewPlan, error)
	Create(ctx context.Context, r api.ReviewRequest, tell func(string)) (api.ReviewResult, error)
}

// reviewArgs says of which work tree.
type reviewArgs struct {
	URI  string `json:"uri,omitempty"` // a document in it, or a folder
	Dir  string `json:"dir,omitempty"`
	Base string `json:"base,omitempty"`
}

// reviewDir is the folder that is meant: without any the only one that is open, or the one that is picked.
func (s *Server) reviewDir(ctx context.Context, a reviewArgs) (string, error) {
	s.mu.Lock()
	trusted, folders := s.set.Trusted, slices.Clone(s.folders)
	s.mu.Unlock()
	if s.opts.Reviews == nil {
		return "", &api.Problem{Code: "no-reviews", Message: "this server makes no reviews", Hint: "fairlead review does"}
	}
	if !trusted { // git runs what the repository's configuration says
		return "", &api.Problem{Code: "untrusted", Message: "this workspace is not trusted, so nothing in it is run", Hint: "trust the workspace in the editor first"}
	}
	dir := a.Dir
	if dir == "" && a.URI != "" {
		if u, err := uri.Parse(a.URI); err == nil {
			if p := filePath(u); p != "" {
				dir = folderOf(realPath(p))
			}
		}
	}
	if dir == "" {
		return s.chooseFolder(ctx, folders)
	}
	if !filepath.IsAbs(dir) {
		return "", &api.Problem{Code: "no-folder", Message: dir + " is not an absolute path", Hint: "give the folder's whole path"}
	}
	return dir, nil
}

// reviewPlan is what an editor that can draw it shows; nothing is changed.
func (s *Server) reviewPlan(ctx context.Context, a reviewArgs) (any, error) {
	p, err := s.planReview(ctx, a)
	if err != nil {
		return nil, err
	}
	return raw(p), nil
}

func (s *Server) planReview(ctx context.Context, a reviewArgs) (p api.ReviewPlan, err error) {
	dir, err := s.reviewDir(ctx, a)
	if err != nil {
		return p, err
	}
	err = s.work(ctx, "Fairlead: draft review", func(ctx context.Context, tell func(string)) (err error) {
		p, err = s.opts.Reviews.Plan(ctx, api.ReviewRequest{Dir: dir, Base: a.Base}, tell)
		return err
	})
	return p, shown(err)
}

// reviewCreate makes what a person has agreed to, and opens its page.
func (s *Server) reviewCreate(ctx context.Context, r api.ReviewRequest) (any, error) {
	if r.State == "" {
		return nil, jsonrpc2.NewError(jsonrpc2.InvalidParams, "state is missing: it is the plan's")
	}
	if _, err := s.reviewDir(ctx, reviewArgs{Dir: r.Dir}); err != nil {
		return nil, err
	}
	var res api.ReviewResult
	err := s.work(ctx, "Fairlead: draft review", func(ctx context.Context, tell func(string)) (err error) {
		res, err = s.opts.Reviews.Create(ctx, r, tell)
		return err
	})
	if err != nil {
		return nil, shown(err)
	}
	s.showReview(ctx, res)
	return raw(res), nil
}

// shown is an error as an editor shows it: with its next step, and in data the first one's code, for who has more to offer.
func shown(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	problems := api.Problems(err, "review")
	all := make([]string, len(problems))
	for i, p := range problems {
		all[i] = withHint(p)
	}
	e := jsonrpc2.NewError(codeRequestFailed, strings.Join(all, "; "))
	e.Data = jsonrpc2.RawMessage(raw(map[string]string{"code": problems[0].Code}))
	return e
}

func (s *Server) showReview(ctx context.Context, r api.ReviewResult) {
	text := "Fairlead: draft review " + r.URL
	switch {
	case r.URL == "":
		text = "Fairlead: " + r.Branch + " is pushed"
	case r.Compare:
		text = "Fairlead: " + r.Branch + " is pushed; its review is opened at " + r.URL
	case !r.Made:
		text = "Fairlead: updated " + r.URL
	}
	if len(r.Asked) > 0 {
		text += ", asked " + strings.Join(r.Asked, ", ")
	}
	if len(r.Notes) > 0 {
		s.show(messageWarning, text+". "+strings.Join(r.Notes, ". "))
	}
	if r.URL == "" || !s.showDocument(ctx, r.URL, true) {
		s.show(messageInfo, text)
	}
}

// review asks what there is to agree to by the messages that every editor has, and makes it.
func (s *Server) review(ctx context.Context, a reviewArgs) (any, error) {
	p, err := s.planReview(ctx, a)
	if err != nil {
		return nil, err
	}
	r := api.ReviewRequest{Dir: p.Dir, State: p.State, Base: p.Base, Message: p.Message}
	const cancel = "Cancel"
	var picked, all []string
	for _, c := range p.Changes {
		if c.Kind == "submodule" {
			continue
		}
		if all = append(all, c.Path); c.Picked {
			picked = append(picked, c.Path)
		}
	}
	if len(all) > 0 {
		few := "Commit " + count(len(picked), "file") + " as \"" + p.Message + "\""
		everything := "Commit all " + fmt.Sprint(len(all))
		leave := "Leave them"
		var actions []string
		if len(picked) > 0 {
			actions = append(actions, few)
		}
		if len(picked) < len(all) {
			actions = append(actions, everything)
		}
		if len(p.Commits) > 0 {
			actions = append(actions, leave)
		}
		switch s.ask(ctx, messageInfo, "Fairlead: not committed: "+strings.Join(all[:min(8, len(all))], ", "), append(actions, cancel)...) {
		case few:
			r.Files = picked
		case everything:
			r.Files = all
		case leave:
		default:
			return nil, context.Canceled
		}
	}
	var who, logins []string
	for _, q := range p.Reviewers {
		if q.Login != "" && !q.Asked && len(logins) < 3 {
			logins = append(logins, q.Login)
			who = append(who, q.Name+" ("+q.Why+")")
		}
	}
	what := "Fairlead: a draft review of " + p.Branch + " for " + p.Base + ": \"" + p.Title + "\""
	if p.Existing != nil {
		what = "Fairlead: update " + p.Existing.URL
	}
	var actions []string
	const nobody = "Ask nobody yet"
	if len(logins) > 0 {
		what += ". Reviewers: " + strings.Join(who, "; ")
		for n := 1; n <= len(logins); n++ {
			actions = append(actions, "Ask "+strings.Join(logins[:n], ", "))
		}
	}
	answer := s.ask(ctx, messageInfo, what, append(actions, nobody, cancel)...)
	switch i := slices.Index(actions, answer); {
	case i >= 0:
		r.Reviewers = logins[:i+1]
	case answer != nobody:
		return nil, context.Canceled
	}
	return s.reviewCreate(ctx, r)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// work shows a progress that can be cancelled while f lasts, if it lasts.
func (s *Server) work(ctx context.Context, title string, f func(ctx context.Context, tell func(string)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	can := s.caps.progress
	s.number++
	token := fmt.Sprintf("fairlead-%d", s.number)
	s.works[token] = cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.works, token)
		s.mu.Unlock()
	}()
	if !can {
		return f(ctx, func(string) {})
	}
	said, over := make(chan string, 1), make(chan struct{})
	drawn := make(chan struct{})
	s.spawn(func(ctx context.Context) {
		defer close(drawn)
		s.drawWork(ctx, title, token, said, over)
	})
	defer func() {
		close(over)
		select {
		case <-drawn:
		case <-s.ctx.Done(): // it was not begun
		}
	}()
	return f(ctx, func(text string) {
		for {
			select {
			case said <- text:
				return
			default:
			}
			select {
			case <-said: // what is newer is what counts
			default:
			}
		}
	})
}

func (s *Server) drawWork(ctx context.Context, title, token string, said <-chan string, over <-chan struct{}) {
	t := time.NewTimer(progressAfterRun)
	defer t.Stop()
	select {
	case <-t.C:
	case <-over:
		return
	case <-ctx.Done():
		return
	}
	send := s.beginProgress(ctx, token)
	if send == nil {
		return
	}
	send(&protocol.WorkDoneProgressBegin{Kind: "begin", Title: title, Cancellable: ptr(true)})
	for {
		select {
		case text := <-said:
			send(&protocol.WorkDoneProgressReport{Kind: "report", Cancellable: ptr(true), Message: &text})
		case <-over:
			send(&protocol.WorkDoneProgressEnd{Kind: "end"})
			return
		case <-ctx.Done():
			return
		}
	}
}
