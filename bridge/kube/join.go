package kube

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"

	"fairlead.dev/api"
	"fairlead.dev/bridge"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// codeOtherVersion is that of an environment whose supervisor is of another version than this agent.
const codeOtherVersion = "other-version"

// Join finds an environment that somebody else made, to follow it, and says whose it is. It makes, changes and wakes nothing.
// The pod tells its token to who may execute a command in it, so a right to Secrets is not needed.
func Join(ctx context.Context, opts Options, namespace, name string) (*Environment, bridge.Stored, error) {
	o := opts.withDefaults()
	c, err := connect(o)
	if err != nil {
		return nil, bridge.Stored{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, contactLimit)
	defer cancel()
	d, err := c.joinable(ctx, o, namespace, name, "")
	if err != nil {
		return nil, bridge.Stored{}, err
	}
	e := newEnvironment(c, o, d)
	e.joined = true
	return e, c.stored(d), nil
}

// joinable gets the Deployment of an environment that can be followed now. uid is that of the one that is meant; empty takes
// any of that name.
func (c *client) joinable(ctx context.Context, o Options, namespace, name string, uid types.UID) (*appsv1.Deployment, error) {
	d, err := c.kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil && !isNotFound(err) {
		return nil, c.explain("look for environment "+name, err)
	}
	if err != nil || !isOurs(d) || d.DeletionTimestamp != nil || uid != "" && d.UID != uid {
		at := fmt.Sprintf("namespace %s of context %s", namespace, cmp.Or(c.context, "(none)"))
		if uid != "" {
			return nil, &api.Problem{Code: codeGone, Message: fmt.Sprintf("environment %s in %s was removed", name, at), Hint: "fairlead env list lists those that there are"}
		}
		return nil, &api.Problem{Code: codeNoEnvironment, Message: fmt.Sprintf("there is no environment %s in %s", name, at),
			Hint: "it may be gone (fairlead env list lists those that there are), or in another cluster: name yours with --context"}
	}
	owner := cmp.Or(d.Annotations[annOwner], "its owner")
	switch {
	case d.Spec.Replicas != nil && *d.Spec.Replicas == 0:
		return nil, &api.Problem{Code: api.CodeAsleep, Message: fmt.Sprintf("environment %s sleeps, or is just being made", name), Hint: "it is there again once " + owner + " runs it"}
	case d.Annotations[annVersion] != o.Version:
		return nil, &api.Problem{Code: codeOtherVersion, Message: fmt.Sprintf("environment %s is of Fairlead %s, and this is %s", name, cmp.Or(d.Annotations[annVersion], "(unknown)"), o.Version),
			Hint: "have the same version as " + owner}
	}
	return d, nil
}

// codeNoEnvironment is that of a name that no environment has.
const codeNoEnvironment = "no-environment"

// connectArgs are those of the command that joins the supervisor's socket.
func (e *Environment) connectArgs() []string {
	if e.joined {
		return []string{"--token-file", tokenFile}
	}
	return nil
}

// bearer is a stream that began with the environment's token.
type bearer struct {
	*stream
	token string
}

var _ bridge.Bearer = (*bearer)(nil)

// Token is the environment's.
func (b *bearer) Token() string { return b.token }

// token is 32 bytes in hexadecimal digits and the end of the line. The pod is another's, and what it says goes into a header.
var tokenLine = regexp.MustCompile(`^[0-9a-f]{64}\n$`)

// readBearer reads the token that a stream begins with.
func readBearer(ctx context.Context, s *stream) (*bearer, error) {
	ctx, cancel := context.WithTimeout(ctx, contactLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	line := make([]byte, 65)
	if _, err := io.ReadFull(s, line); err != nil {
		s.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("read the token in pod %s: %w", s.pod, err)
	}
	if !tokenLine.Match(line) {
		s.Close()
		return nil, &api.Problem{Code: "no-token", Message: "pod " + s.pod + " does not tell its token", Hint: "was the environment made by this version of Fairlead?"}
	}
	return &bearer{s, string(line[:64])}, nil
}
