package forge

import (
	"context"
	"errors"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

// FromEnvironment opens reviews of the registry on its remote's forge, with the token of the environment. Without one, a review is a branch: on
// a host that is known it has the page on which a review of it is opened by hand, elsewhere it is nil.
func FromEnvironment(ctx context.Context, address string, getenv func(string) string) (registry.Reviewer, error) {
	if !meant(getenv, address) {
		return byHand(ctx, address), nil
	}
	// A token that is no token is told before anything is asked.
	if t, err := ownToken(getenv); err != nil {
		return nil, err
	} else if t.value == "" {
		return byHand(ctx, address), nil
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

// byHand asks no network: who has set up no token may be offline as well. What is wrong with the remote the registry says.
func byHand(ctx context.Context, address string) registry.Reviewer {
	r, p := parseRemote(address)
	if kind, _ := known(r.host); p != nil || kind == "" {
		return nil
	}
	f, err := Open(ctx, address, Options{})
	if err != nil || f.Compare(Head{Branch: "b"}, "b") == "" {
		return nil
	}
	return pages{f}
}

// pages is a registry.Reviewer that leaves the opening to a person.
type pages struct{ *Forge }

// Draft is the page on which the review is opened.
func (f pages) Draft(_ context.Context, r registry.Review) (string, error) {
	return f.Compare(Head{Branch: r.Branch}, r.Base), nil
}

// Pending cannot be known: what is not merged is waiting.
func (f pages) Pending(context.Context, string) (bool, error) { return true, nil }

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
