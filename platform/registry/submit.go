package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"fairlead.dev/api"
)

// maxTries is how often an edit is made again because somebody else was faster. Each failure is another's success.
const maxTries = 200

// Submit makes a change by the policy: Decide. It returns when the change is in force, or its review is open. Broken off anywhere,
// by a lost network or a kill, the same request again goes on from there, and is one change.
func (r *Registry) Submit(ctx context.Context, q Request) (Result, error) {
	q, p := check(q)
	if p != nil {
		return Result{}, p
	}
	select {
	case r.submitting <- struct{}{}:
		defer func() { <-r.submitting }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	for try := range maxTries {
		res, err := r.attempt(ctx, q)
		if !errors.Is(err, errMoved) {
			return res, err
		}
		// A loser who comes back at once makes the next one lose.
		if err := pause(ctx, try); err != nil {
			return Result{}, err
		}
	}
	return Result{}, &api.Problem{Code: "registry-busy", Message: fmt.Sprintf("others changed the registry %d times while this was written", maxTries), Hint: "submit it again; it will not be made twice"}
}

// errMoved says that the branch has another tip than the edit was made on.
var errMoved = errors.New("the branch has moved")

// check is the border: what a form or a script sent.
func check(q Request) (Request, *api.Problem) {
	problem := func(wrong, hint string) *api.Problem {
		return &api.Problem{Code: "registry-request", Message: wrong, Hint: hint}
	}
	if !idPattern.MatchString(q.ID) {
		return q, problem("the request has no usable ID", "make one of 8 to 64 letters, digits, - and _, at random for each form")
	}
	for _, name := range []string{q.Caller, q.Callee} {
		if wrong, hint := CheckName(name); wrong != "" {
			return q, problem(wrong, hint)
		}
	}
	if q.Caller == q.Callee {
		return q, problem(q.Caller+" calls itself", "nobody has to grant that")
	}
	var methods []string
	for _, m := range q.Methods {
		if wrong, hint := CheckPattern(m); wrong != "" {
			return q, problem(wrong, hint)
		}
		if !slices.Contains(methods, m) {
			methods = append(methods, m)
		}
	}
	q.Methods = methods
	switch {
	case len(methods) == 0:
		return q, problem("no method is asked for", "choose at least one")
	case len(methods) > maxMethods:
		return q, problem(fmt.Sprintf("more than %d methods are asked for", maxMethods), "use patterns, such as /package.Service/*")
	}
	if q.Environments != "" {
		if wrong, hint := checks["environments"](q.Environments); wrong != "" {
			return q, problem(wrong, hint)
		}
	}
	if q.Base != "" && !isObject(q.Base) {
		return q, problem("the form's revision is none", "load the form again")
	}
	// One line: so no text of a person's can be read as a trailer of the commit, or begin another document of the file.
	q.Reason = strings.Join(strings.Fields(q.Reason), " ")
	if wrong, hint := checkText(q.Reason); wrong != "" {
		return q, problem("reason: "+wrong, hint)
	}
	return q, checkAuthor(q.Author)
}

func checkAuthor(a Author) *api.Problem {
	if wrong, hint := checkEmail(a.Email); wrong != "" {
		return &api.Problem{Code: "registry-author", Message: wrong, Hint: hint}
	}
	if len(a.Name) > 200 || strings.ContainsFunc(a.Name, func(c rune) bool { return unicode.IsControl(c) || c == '<' || c == '>' }) {
		return &api.Problem{Code: "registry-author", Message: strconv.Quote(short(a.Name)) + " cannot be an author's name", Hint: "leave out <, > and control characters"}
	}
	return nil
}

// attempt makes the change on the tip that the remote has now.
func (r *Registry) attempt(ctx context.Context, q Request) (Result, error) {
	branch := reviewBranch(q.Caller, q.Callee)
	t, err := r.tip(ctx, branch)
	if err != nil {
		return Result{}, err
	}
	s, err := r.at(ctx, t)
	if err != nil {
		return Result{}, err
	}
	if t.rev != "" {
		done, err := r.find(ctx, q.ID, t.rev)
		if err != nil || done != nil {
			if done != nil {
				done.Granted = true
			}
			return deref(done), err
		}
	}
	file := servicePath(q.Caller)
	if s.broken[file] {
		return Result{}, &api.Problem{Code: "registry-broken", File: file, Message: "the file cannot be read, so it cannot be changed", Hint: "mend it first; fairlead registry says what is wrong with it"}
	}
	if p := r.outdated(ctx, s, q); p != nil {
		return Result{}, p
	}
	was := s.Services[q.Caller]
	if was == nil {
		was = &Service{Version: 1, Name: q.Caller}
	}
	want, added := withGrant(was, q)
	if len(added) == 0 && sameGrants(was, want) {
		return Result{Granted: true, Revision: s.Revision, Time: s.Time, Why: "all of it was granted before"}, nil
	}
	d := Decide(s, q.Caller, q.Callee, q.Author.Email)
	if d.Review {
		return r.review(ctx, t, s, q, d)
	}
	text, err := render(file, s.files[file].text, was, want)
	if err != nil {
		return Result{}, err
	}
	res, err := r.commit(ctx, q, d, t.rev, file, text, added)
	if err != nil {
		return Result{}, err
	}
	if err := r.push(ctx, t.branch, t.rev, res.Revision); err != nil {
		return Result{}, err
	}
	res.Granted = true
	// It is in force; a failure to read it again is the next Snapshot's to tell.
	_, _ = r.at(ctx, tips{branch: t.branch, rev: res.Revision})
	return res, nil
}

func deref(r *Result) Result {
	if r == nil {
		return Result{}
	}
	return *r
}

func sameGrants(a, b *Service) bool {
	return slices.EqualFunc(a.Calls, b.Calls, func(x, y Grant) bool {
		return x.Service == y.Service && slices.Equal(x.Methods, y.Methods) && x.Environments == y.Environments // a reason alone is no change
	})
}

// outdated says that the form was made of something that is no more.
func (r *Registry) outdated(ctx context.Context, s *Snapshot, q Request) *api.Problem {
	if q.Base == "" || q.Base == s.Revision {
		return nil
	}
	then, err := r.load(ctx, q.Base, nil)
	if err != nil {
		return nil // a revision that is not here: everything is decided on what holds now anyway
	}
	problem := func(message string) *api.Problem {
		return &api.Problem{Code: "registry-changed", Message: message, Hint: "load the form again"}
	}
	had, has := then.Services[q.Callee], s.Services[q.Callee]
	if had == nil {
		return nil
	}
	if has == nil && !s.broken[servicePath(q.Callee)] {
		return problem(q.Callee + " has left the registry since the form was made")
	}
	for _, m := range q.Methods {
		is := func(e Endpoint) bool { return e.Method == m }
		if has != nil && slices.ContainsFunc(had.Endpoints, is) && !slices.ContainsFunc(has.Endpoints, is) {
			return problem(q.Callee + " no longer has " + m + ", which it had when the form was made")
		}
	}
	return nil
}

// trailers are how a commit says what it is. %x00 ends a field, %x1e an entry.
const trailers = "%H%x00%ct%x00%(trailers:key=Request-Id,valueonly,separator=%x2C)%x00%(trailers:key=Policy,valueonly,unfold)%x00%(trailers:key=Method,valueonly,unfold)%x1e"

// find looks for the commit of a request in what a range of commits has.
func (r *Registry) find(ctx context.Context, id string, revs ...string) (*Result, error) {
	args := append([]string{"log", "--no-show-signature", "--format=" + trailers, "--extended-regexp", "--grep=^Request-Id: " + id + "$"}, revs...)
	out, err := r.git.run(ctx, nil, nil, append(args, "--")...)
	if err != nil {
		return nil, readProblem(err)
	}
	for e := range strings.SplitSeq(string(out), "\x1e") {
		f := strings.Split(strings.TrimSpace(e), "\x00")
		if len(f) != 5 || f[2] != id { // words of a message's text are no trailer
			continue
		}
		secs, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return nil, readProblem(err)
		}
		return &Result{Revision: f[0], Time: time.Unix(secs, 0), Why: strings.TrimSpace(f[3]), Changed: slices.DeleteFunc(strings.Split(f[4], "\n"), func(s string) bool { return s == "" }), Repeated: true}, nil
	}
	return nil, nil
}

// commit makes the objects of a commit that changes one file. Nothing refers to them yet.
func (r *Registry) commit(ctx context.Context, q Request, d Decision, parent, file string, text []byte, added []string) (Result, error) {
	fail := func(err error) (Result, error) {
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		return Result{}, &api.Problem{Code: "registry-clone", Message: "write a commit: " + err.Error(), Hint: "see that there is room in " + r.opts.Dir}
	}
	temp, err := os.MkdirTemp(r.opts.Dir, "index-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(temp)
	index := []string{"GIT_INDEX_FILE=" + filepath.Join(temp, "index")}
	blob, err := r.git.line(ctx, text, nil, "hash-object", "-w", "--stdin")
	if err != nil {
		return fail(err)
	}
	if parent != "" {
		if _, err := r.git.run(ctx, nil, index, "read-tree", parent); err != nil {
			return fail(err)
		}
	}
	if _, err := r.git.run(ctx, nil, index, "update-index", "--add", "--cacheinfo", "100644,"+blob+","+file); err != nil {
		return fail(err)
	}
	tree, err := r.git.line(ctx, nil, index, "write-tree")
	if err != nil {
		return fail(err)
	}
	now := time.Now().Truncate(time.Second)
	stamp := fmt.Sprintf("%d +0000", now.Unix())
	who := []string{
		"GIT_AUTHOR_NAME=" + cmp.Or(strings.TrimSpace(q.Author.Name), q.Author.Email), "GIT_AUTHOR_EMAIL=" + q.Author.Email, "GIT_AUTHOR_DATE=" + stamp,
		"GIT_COMMITTER_NAME=" + r.committer.Name, "GIT_COMMITTER_EMAIL=" + r.committer.Email, "GIT_COMMITTER_DATE=" + stamp,
	}
	args := []string{"commit-tree", tree}
	if parent != "" {
		args = append(args, "-p", parent)
	}
	rev, err := r.git.line(ctx, []byte(message(q, d, added)), who, args...)
	if err != nil {
		return fail(err)
	}
	return Result{Revision: rev, Time: now, Why: d.Why, Changed: added}, nil
}

func title(q Request) string { return q.Caller + ": call " + q.Callee }

// message is a commit's: the reason, and for programs what it is.
func message(q Request, d Decision, added []string) string {
	var b strings.Builder
	b.WriteString(title(q) + "\n\n")
	if q.Reason != "" {
		b.WriteString(q.Reason + "\n\n")
	}
	for _, m := range added {
		b.WriteString("Method: " + m + "\n")
	}
	fmt.Fprintf(&b, "Policy: %s\nRequest-Id: %s\n", d.Why, q.ID)
	return b.String()
}

// push makes a commit a branch's, if the branch is still what it was.
func (r *Registry) push(ctx context.Context, branch, old, rev string) error {
	if r.beforePush != nil {
		r.beforePush()
	}
	ref := "refs/heads/" + branch
	out, err := r.git.network(ctx, "push", "--porcelain", "--no-verify", "--recurse-submodules=no", "--force-with-lease="+ref+":"+old, "--", r.git.remote, rev+":"+ref)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	refused := ""
	for l := range strings.Lines(string(out)) {
		if l, ok := strings.CutPrefix(l, "!\t"); ok {
			_, refused, _ = strings.Cut(strings.TrimSpace(l), "\t")
		}
	}
	if refused == "" {
		return err // the remote is away
	}
	// What a lost race is called differs between the client, the server and their releases. That the branch has moved does not.
	if t, again := r.tip(ctx, branch); again == nil && (t.branch == branch && t.rev != old || t.branch != branch && t.review != old) || strings.Contains(refused, "cannot lock ref") {
		return errMoved
	}
	return &api.Problem{Code: "registry-refused", Message: "the registry " + r.git.remote + " refused the change: " + short(refused),
		Hint: "see that whoever Fairlead pushes as may push to " + branch + "; where changes of that branch are reviewed, write `changes: review` in the team's file"}
}

// reviewBranch is the branch on which a pair's requests are reviewed. Both names may have dashes, so a digest ends it.
func reviewBranch(caller, callee string) string {
	sum := sha256.Sum256([]byte(caller + "\x00" + callee))
	return "fairlead/" + caller + "-" + callee + "-" + hex.EncodeToString(sum[:4])
}

// review puts the change on the pair's branch, on what is asked for there already, and opens its review.
func (r *Registry) review(ctx context.Context, t tips, s *Snapshot, q Request, d Decision) (Result, error) {
	if t.rev == "" {
		return Result{}, &api.Problem{Code: "registry-empty", Message: "the registry has no commit yet that a review could be compared with", Hint: "push a first one, such as a README.md"}
	}
	file, branch := servicePath(q.Caller), reviewBranch(q.Caller, q.Callee)
	parent, base := t.rev, s
	if t.review != "" {
		if err := r.have(ctx, t.review, branch, "refs/fairlead/"+branch); err != nil {
			return Result{}, err
		}
		// Also where it is not pending: what was asked for with this ID was refused or merged, and is not asked for again.
		done, err := r.find(ctx, q.ID, t.review, "^"+t.rev)
		if err != nil {
			return Result{}, err
		}
		if done != nil {
			return r.draft(ctx, t, *done, branch, t.review, q)
		}
		b, pending, err := r.pending(ctx, t, s, branch, q)
		if err != nil {
			return Result{}, err
		}
		if pending {
			parent, base = t.review, b
		}
	}
	if base.broken[file] {
		return Result{}, &api.Problem{Code: "registry-broken", File: file, Message: "the file cannot be read on the branch " + branch + ", which is being reviewed", Hint: "mend it there, or delete the branch"}
	}
	was := base.Services[q.Caller]
	if was == nil {
		was = &Service{Version: 1, Name: q.Caller}
	}
	want, added := withGrant(was, q)
	if len(added) == 0 && sameGrants(was, want) {
		return r.draft(ctx, t, Result{Revision: parent, Time: base.Time, Why: d.Why}, branch, parent, q)
	}
	text, err := render(file, base.files[file].text, was, want)
	if err != nil {
		return Result{}, err
	}
	res, err := r.commit(ctx, q, d, parent, file, text, added)
	if err != nil {
		return Result{}, err
	}
	if err := r.push(ctx, branch, t.review, res.Revision); err != nil {
		return Result{}, err
	}
	return r.draft(ctx, t, res, branch, res.Revision, q)
}

// pending says whether what the pair's branch has still waits for a review: it does not where it was merged, as it is or as
// another commit, or where the forge says that its review is closed. The branch begins anew then.
func (r *Registry) pending(ctx context.Context, t tips, s *Snapshot, branch string, q Request) (*Snapshot, bool, error) {
	if _, err := r.git.run(ctx, nil, nil, "merge-base", "--is-ancestor", t.review, t.rev); err == nil {
		return nil, false, nil
	}
	b, err := r.load(ctx, t.review, s)
	if err != nil {
		return nil, false, err
	}
	if g := b.Grant(q.Caller, q.Callee); g != nil {
		_, missing := withGrant(&Service{Name: q.Caller, Calls: calls(s.Services[q.Caller])}, Request{Callee: q.Callee, Methods: g.Methods})
		if len(missing) == 0 {
			return nil, false, nil
		}
	}
	if r.opts.Reviewer == nil {
		return b, true, nil
	}
	pending, err := r.opts.Reviewer.Pending(ctx, branch)
	return b, pending, err
}

func calls(s *Service) []Grant {
	if s == nil {
		return nil
	}
	return s.Calls
}

// draft opens the review of a branch that is pushed, or finds it.
func (r *Registry) draft(ctx context.Context, t tips, res Result, branch, head string, q Request) (Result, error) {
	res.Branch = branch
	if r.opts.Reviewer == nil {
		return res, nil
	}
	body := cmp.Or(q.Reason, "No reason was given.") + "\n\nAsked for by " + cmp.Or(q.Author.Name, q.Author.Email) + ". It is in force when it is merged.\n\n"
	for _, m := range q.Methods {
		body += "* `" + m + "`\n"
	}
	u, err := r.opts.Reviewer.Draft(ctx, Review{Branch: branch, Base: t.branch, Head: head, Title: title(q), Body: body + "\n" + res.Why + ".\n"})
	if err != nil {
		return Result{}, err
	}
	res.Review = u
	return res, nil
}
