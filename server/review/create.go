package review

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/forge"
)

// undoLimit bounds how long a branch that was begun for nothing is taken back, also when who asked has gone.
const undoLimit = 10 * time.Second

// Create does what a person has agreed to: the branch, the commit, the push, the draft, the requests for a review. Called again it
// updates the same review. Its errors are *api.Problem; what was done until then stays, and the next call goes on from there, but for a
// branch whose commit failed: that is taken back.
func Create(ctx context.Context, o Options, req api.ReviewRequest) (api.ReviewResult, error) {
	defer o.Memory.begin()()
	o.Base, o.Template, o.Ticket = cmp.Or(req.Base, o.Base), cmp.Or(req.Template, o.Template), cmp.Or(req.Ticket, o.Ticket)
	p, err := o.Memory.recall(ctx, o, req)
	if err == nil && p == nil {
		p, err = prepare(ctx, o, false)
	}
	if err != nil {
		return api.ReviewResult{}, err
	}
	if req.State != "" && req.State != p.State {
		return api.ReviewResult{}, &api.Problem{Code: "review-changed", Message: "something has changed in the work tree since you looked", Hint: "look again: nothing has been done"}
	}
	res := api.ReviewResult{}
	if len(p.Commits) == 0 && len(req.Files) == 0 {
		return res, &api.Problem{Code: "review-nothing", Message: "nothing is committed that " + p.places.ref + " lacks", Hint: "agree to have the changes committed, or commit them yourself"}
	}
	if res.Commit, err = p.prepareBranch(ctx, o, req); err != nil {
		return res, err
	}
	res.Branch, res.Pushed = p.Branch, p.Unpushed
	if res.Commit != "" {
		res.Pushed++
	}
	made := res.Commit != "" || p.New // what was found out before is not all of it
	if p.forge.Kind == forge.Gerrit {
		if made {
			if err := p.again(ctx, o); err != nil {
				return res, err
			}
		}
		return p.pushForReview(ctx, o, req, res)
	}
	o.progress("pushing %s to %s", p.Branch, p.places.push)
	// What the review says is found out beside the push, which is waited for longest.
	pushed := make(chan error, 1)
	go func(t tree, branch, remote string) { pushed <- t.push(ctx, remote, branch) }(*p.tree, p.Branch, p.places.push)
	if made {
		err = p.again(ctx, o)
	}
	if err == nil && p.can {
		p.existing, err = p.forge.Find(ctx, p.head, p.Base) // the branch may have got one since the plan was made
	}
	if err := <-pushed; err != nil {
		return res, err
	}
	if err != nil {
		return res, err
	}
	if !p.can {
		res.URL, res.Compare, res.Title = p.forge.Compare(p.head, p.Base), true, cmp.Or(req.Title, p.Title)
		res.Notes = append(res.Notes, p.Notes...)
		return res, nil
	}
	o.progress("opening the review on %s", p.Forge)
	r, err := p.open(ctx, req, &res)
	if err != nil {
		var pr *api.Problem
		if errors.As(err, &pr) {
			q := *pr
			q.Message = "the branch is pushed, but its review could not be opened: " + q.Message
			return res, &q
		}
		return res, err
	}
	res.ReviewRef = api.ReviewRef{Number: r.Number, URL: r.URL, Title: r.Title, Draft: r.Draft}
	if len(req.Reviewers)+len(req.Teams) > 0 {
		o.progress("asking for reviews")
		got, err := p.forge.RequestReviewers(ctx, r.Number, forge.Reviewers{People: req.Reviewers, Teams: req.Teams})
		if err != nil { // the draft is there
			res.Notes = append(res.Notes, "nobody was asked for a review: "+said(err))
		}
		res.Asked = got.Taken
		for _, f := range got.Refused {
			res.Notes = append(res.Notes, f.Who+" was not asked: "+f.Why)
		}
	}
	return res, nil
}

// prepareBranch begins the branch where that is new, and commits what was agreed to. commit is what was made.
func (p *prepared) prepareBranch(ctx context.Context, o Options, req api.ReviewRequest) (commit string, err error) {
	files, err := p.agreed(req)
	if err != nil {
		return "", err
	}
	if !p.New && len(files) == 0 {
		return "", nil
	}
	t, was := p.tree, p.tree.branch
	if p.New {
		name := cmp.Or(req.Branch, p.Branch)
		if subject, _, _ := strings.Cut(strings.TrimSpace(req.Message), "\n"); req.Branch == "" && len(files) > 0 && p.Title == p.Message && subject != p.Message {
			name = t.newBranch(ctx, p.places.push, subject, p.ticket) // the plan's is made of the message that was proposed
		}
		if !t.yes(ctx, "check-ref-format", "--branch", name) || strings.HasPrefix(name, "-") {
			return "", &api.Problem{Code: "review-branch", Message: fmt.Sprintf("%q cannot be the name of a branch", name), Hint: "use letters, digits, - and /"}
		}
		if t.taken(ctx, p.places.push, name) {
			return "", &api.Problem{Code: "review-branch", Message: "there is a branch " + name + " already", Hint: "choose another name"}
		}
		o.progress("making branch %s", name)
		// From HEAD, so that no file changes; main stays where it is.
		if out, err := t.change(ctx, nil, "switch", "--no-track", "--create", name); err != nil {
			return "", gitProblem("make branch "+name, err, tail(out))
		}
		defer func() {
			if err == nil {
				return
			}
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
			defer cancel()
			back := []string{"switch", was}
			if was == "" {
				back = []string{"switch", "--detach", p.Commit}
			}
			if now, _ := t.line(undo, "rev-parse", "HEAD"); now != p.Commit {
				return
			}
			if _, bad := t.change(undo, nil, back...); bad == nil {
				t.change(undo, nil, "branch", "--delete", "--force", name) // it is at the commit that HEAD is at
			}
		}()
		p.Branch, p.head.Branch = name, name
	}
	if len(files) > 0 {
		o.progress("committing %s", count(len(files), "file"))
		if commit, err = p.commit(ctx, files, req.Message); err != nil {
			return "", err
		}
	}
	return commit, nil
}

// again looks once more, after a branch or a commit was made. The branch is pushed meanwhile.
func (p *prepared) again(ctx context.Context, o Options) error {
	t, err := look(ctx, p.tree.top, p.tree.env, p.tree.alone)
	if err != nil {
		return err
	}
	p.tree, p.Changes, p.Commit, p.New = t, t.changes, t.head, false
	if err := p.compare(ctx); err != nil {
		return err
	}
	return p.describe(ctx, o)
}

// agreed are the changes to be committed: files of the plan, once each.
func (p *prepared) agreed(req api.ReviewRequest) ([]api.ReviewChange, error) {
	var out []api.ReviewChange
	for _, f := range req.Files {
		i := slices.IndexFunc(p.Changes, func(c api.ReviewChange) bool { return c.Path == f && c.Kind != "submodule" })
		if i < 0 {
			return nil, &api.Problem{Code: "review-files", Message: f + " has no change that could be committed here", Hint: "look again: nothing has been done"}
		}
		if !slices.Contains(out, p.Changes[i]) {
			out = append(out, p.Changes[i])
		}
	}
	if len(out) > 0 && strings.TrimSpace(req.Message) == "" {
		return nil, &api.Problem{Code: "review-message", Message: "a commit needs a message", Hint: "say in a line what changes and why"}
	}
	return out, nil
}

// commit commits files as they are, and nothing else, with the user's hooks and signing. What is staged of other files stays staged.
func (p *prepared) commit(ctx context.Context, files []api.ReviewChange, message string) (string, error) {
	t := p.tree
	args := []string{"commit", "--quiet", "--file=-", "--cleanup=strip"}
	staged := 0
	for _, c := range p.Changes {
		if c.Staged {
			staged++
		}
	}
	all := staged == len(files) && !slices.ContainsFunc(files, func(c api.ReviewChange) bool { return !c.Staged })
	if !all {
		// By path a file is committed as it is in the work tree, so what is staged of it alone is not what would be seen.
		for _, c := range files {
			if slices.Contains(t.partly, c.Path) {
				return "", &api.Problem{Code: "review-partial", Message: c.Path + " is staged in part, and is to be committed beside files that are not staged", Hint: "stage the rest of it with git add, or take only what is staged"}
			}
		}
		list, err := os.CreateTemp("", "fairlead-review-")
		if err != nil {
			return "", fmt.Errorf("write the list of files: %w", err)
		}
		defer os.Remove(list.Name())
		var fresh []string
		for _, c := range files {
			fmt.Fprint(list, c.Path, "\x00")
			if c.Kind == "untracked" {
				fresh = append(fresh, c.Path)
			}
		}
		if err := list.Close(); err != nil {
			return "", fmt.Errorf("write the list of files: %w", err)
		}
		if len(fresh) > 0 { // so that git knows them; their contents are taken by the commit
			if out, err := t.change(ctx, strings.NewReader(strings.Join(fresh, "\x00")), "--literal-pathspecs", "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul"); err != nil {
				return "", gitProblem("add new files", err, tail(out))
			}
		}
		args = append([]string{"--literal-pathspecs"}, append(args, "--only", "--pathspec-from-file="+list.Name(), "--pathspec-file-nul")...)
		if out, err := t.change(ctx, strings.NewReader(message), args...); err != nil {
			if len(fresh) > 0 {
				undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
				defer cancel()
				t.change(undo, strings.NewReader(strings.Join(fresh, "\x00")), "--literal-pathspecs", "reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul")
			}
			return "", commitProblem(err, out)
		}
	} else if out, err := t.change(ctx, strings.NewReader(message), args...); err != nil {
		return "", commitProblem(err, out)
	}
	head, err := t.line(ctx, "rev-parse", "HEAD")
	if err != nil {
		return "", gitProblem("look for the commit", err, "see what git log says")
	}
	return head, nil
}

func commitProblem(err error, out string) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	low := strings.ToLower(out)
	p := &api.Problem{Code: "review-commit", Message: "nothing was committed: " + cmp.Or(tail(out), err.Error()), Hint: "a hook of the repository may have refused it: do as it says, and try again"}
	switch {
	case strings.Contains(low, "gpg failed to sign"), strings.Contains(low, "failed to sign"), strings.Contains(low, "ssh-keygen"), strings.Contains(low, "load public key"):
		p.Hint = "git could not sign: unlock the key in a terminal (git commit --amend --no-edit asks for it), and try again"
	case strings.Contains(low, "please tell me who you are"), strings.Contains(low, "unable to auto-detect email"):
		p.Hint = "git config --global user.name and user.email say who you are"
	case strings.Contains(low, "index.lock"):
		p.Hint = "another git command runs in this repository: wait for it, or see whether one was killed"
	}
	return p
}

// tail are the last lines of what a command said, for a person.
func tail(out string) string {
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(out, "?")), "\n")
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-6):], "\n"))
}

// push adds the branch's commits to the remote's branch.
func (t *tree) push(ctx context.Context, remote, branch string) error {
	args := []string{"push"}
	if _, err := os.Lstat(filepath.Join(t.top, ".gitmodules")); err == nil && t.config("push.recursesubmodules") == "" && t.config("submodule.recurse") == "" {
		args = append(args, "--recurse-submodules=check") // a review whose submodule nobody else has is none
	}
	if t.config("branch."+branch+".merge") == "" {
		args = append(args, "--set-upstream")
	}
	args = append(args, remote, "refs/heads/"+branch+":refs/heads/"+branch)
	out, err := t.change(ctx, nil, args...)
	return pushProblem(branch+" to "+remote, err, out)
}

func pushProblem(what string, err error, out string) error {
	if err == nil {
		return nil
	}
	if pr := forge.PushProblem(out); pr != nil {
		return pr
	}
	if strings.Contains(out, "submodule paths contain changes that can") {
		return &api.Problem{Code: "review-submodule", Message: "a submodule's commit is not pushed: " + tail(out), Hint: "push it from the submodule first"}
	}
	return gitProblem("push "+what, err, cmp.Or(tail(out), "see what git push says"))
}

// open opens the draft, or updates the one that is there: parts of its text that its author has edited stay.
func (p *prepared) open(ctx context.Context, req api.ReviewRequest, res *api.ReviewResult) (*forge.Review, error) {
	r := p.existing
	if r == nil {
		d := forge.Draft{Head: p.head, Base: p.Base, Title: cut(cmp.Or(strings.TrimSpace(req.Title), p.Title), 250), Body: p.Body}
		if req.Body != nil {
			d.Body = *req.Body
		}
		r, err := p.forge.Create(ctx, d)
		if err != nil {
			return nil, err
		}
		res.Made = true
		return r, nil
	}
	body := refresh(r.Body, p.sections)
	if body == strings.ReplaceAll(r.Body, "\r\n", "\n") {
		return r, nil
	}
	updated, err := p.forge.Update(ctx, r.Number, forge.Change{Body: &body})
	if err != nil { // what was there is right still
		res.Notes = append(res.Notes, "its text was not brought up to date: "+said(err))
		return r, nil
	}
	return updated, nil
}

// pushForReview is a push to Gerrit, where that is the review: each commit is a change.
func (p *prepared) pushForReview(ctx context.Context, o Options, req api.ReviewRequest, res api.ReviewResult) (api.ReviewResult, error) {
	messages, err := p.messages(ctx)
	if err != nil {
		return res, err
	}
	for i, m := range messages {
		if !forge.HasChangeID(m) {
			subject := ""
			if i < len(p.Commits) {
				subject = p.Commits[i].Subject
			}
			return res, &api.Problem{Code: "forge-change-id", Message: fmt.Sprintf("the commit %q has no Change-Id, by which Gerrit knows it", subject),
				Hint: "install Gerrit's commit-msg hook, then git commit --amend --no-edit (for older commits, git rebase --exec); Fairlead changes no commit of yours"}
		}
	}
	g := forge.GerritPush{Base: p.Base, Reviewers: slices.Concat(req.Reviewers, req.Teams)}
	if p.Ticket != nil {
		g.Topic = strings.TrimPrefix(p.Ticket.Key, "#")
	} else if p.Branch != p.Base {
		g.Topic = p.Branch
	}
	spec, err := g.Refspec()
	if err != nil {
		return res, err
	}
	o.progress("pushing for review to %s", p.places.push)
	out, err := p.tree.change(ctx, nil, "push", p.places.push, spec)
	if err := pushProblem(p.Branch+" for review to "+p.places.push, err, out); err != nil {
		return res, err
	}
	changes := forge.GerritChanges(out)
	if len(changes) == 0 {
		res.Notes = append(res.Notes, "Gerrit took the push, and told of no change: "+tail(out))
		return res, nil
	}
	last := changes[len(changes)-1]
	res.ReviewRef = api.ReviewRef{Number: last.Number, URL: last.URL, Title: last.Subject, Draft: last.Draft}
	res.Made, res.Asked = last.New, g.Reviewers
	return res, nil
}
