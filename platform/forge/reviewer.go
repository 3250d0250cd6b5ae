package forge

import (
	"context"
	"errors"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

// FromEnvironment opens reviews of the registry on its remote's forge, with the token of the environment. Without a token it is nil: a review
// is a branch then.
func FromEnvironment(ctx context.Context, address string, getenv func(string) string) (registry.Reviewer, error) {
	if !meant(getenv, address) {
		return nil, nil
	}
	// A token that is no token is told before anything is asked.
	if t, err := ownToken(getenv); err != nil || t.value == "" {
		return nil, err
	}
	f, err := Open(ctx, address, FromEnv(getenv, address))
	switch {
	case err != nil:
		return nil, err
	case f.driver == nil:
		p := &api.Problem{Code: "forge-none", Message: "a review of the registry cannot be opened on " + f.remote.String(), Hint: "a review is a branch there: unset " + TokenVariable + " and " + TokenFileVariable}
		if f.Why != nil {
			p.Code, p.Message, p.Hint = f.Why.Code, p.Message+": "+f.Why.Message, f.Why.Hint+"; without a token a review is a branch"
		}
		return nil, p
	}
	return reviews{f}, nil
}

// reviews is a registry.Reviewer.
type reviews struct{ *Forge }

// Pending says whether a review of the branch is open.
func (f reviews) Pending(ctx context.Context, branch string) (bool, error) {
	r, err := f.Find(ctx, Head{Branch: branch}, "")
	return r != nil, err
}

// Draft opens a draft review, or returns the one that there is: an open one of the branch, or a closed one of this very commit.
func (f reviews) Draft(ctx context.Context, r registry.Review) (string, error) {
	head := Head{Branch: r.Branch}
	is, err := f.Find(ctx, head, "")
	if is != nil || err != nil {
		return address(is), err
	}
	// One page: who submits again what was closed does so soon after.
	closed, err := f.list(ctx, head, "", false)
	if err != nil {
		return "", err
	}
	for _, c := range closed {
		if c.Commit == r.Head {
			return c.URL, nil
		}
	}
	made, err := f.Create(ctx, Draft{Head: head, Base: r.Base, Title: r.Title, Body: r.Body})
	var p *api.Problem
	if errors.As(err, &p) && p.Code == "forge-exists" { // another was faster
		return p.Link, nil
	}
	return address(made), err
}

func address(r *Review) string {
	if r == nil {
		return ""
	}
	return r.URL
}
