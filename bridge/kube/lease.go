package kube

import (
	"context"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"
	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// record writes down which Deployment it is, and its lease's policy. Until that is done no janitor touches it.
func (op *opening) record(ctx context.Context, d *appsv1.Deployment) (*appsv1.Deployment, error) {
	made, err := lease.Record(ctx, op.c.kube.AppsV1().Deployments(d.Namespace), d, op.o.Lease)
	if err != nil && op.meanwhile(err) {
		return nil, op.again(ctx)
	}
	return made, op.c.explain("record environment "+d.Name, err)
}

// meanwhile tells whether a write failed because what was found has been deleted, or is being deleted, since: a janitor's
// work, or another command's.
func (op *opening) meanwhile(err error) bool {
	switch {
	case op.existing != nil && (apierrors.IsConflict(err) || isNotFound(err)):
		return true
	case op.ns != nil && madeByUs(op.ns) && (apierrors.IsConflict(err) || isNotFound(err)):
		return true
	}
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// again looks at what was found once more, and makes run begin anew.
func (op *opening) again(ctx context.Context) (err error) {
	op.anchor, op.furnished = nil, false
	if op.existing, err = op.c.deployment(ctx, op.namespace, op.spec.Name); err != nil {
		return op.c.explain("look for the environment", err)
	}
	if op.existing != nil && !isOurs(op.existing) {
		return &api.Problem{Code: codeNameTaken, Message: "Deployment " + op.spec.Name + " in namespace " + op.namespace + " was not made by Fairlead",
			Hint: "choose another namespace with --namespace, or another name with name: in fairlead.yaml"}
	}
	if op.ns == nil {
		return errGoing
	}
	op.ns, err = op.c.kube.CoreV1().Namespaces().Get(ctx, op.namespace, metav1.GetOptions{})
	if isNotFound(err) {
		op.ns, op.nsMissing = nil, true
		op.missing = op.c.missingRights(ctx, op.namespace, true)
		return errGoing
	}
	if err != nil {
		return op.c.explain("look at namespace "+op.namespace, err)
	}
	return errGoing
}

// Renew tells the cluster that the environment is used, and how in words, so that no janitor takes it for forgotten.
func (e *Environment) Renew(ctx context.Context, why string) error {
	err := lease.Renew(ctx, e.c.kube.AppsV1().Deployments(e.namespace), e.name, e.uid, why)
	return e.changed("renew the environment's lease", err)
}

// KeepFor keeps the environment for a time from now on, by the API server's clock, used or not. It returns until when.
func (e *Environment) KeepFor(ctx context.Context, d time.Duration) (time.Time, error) {
	now, err := e.serverTime(ctx)
	if err != nil {
		return time.Time{}, err
	}
	until := now.Add(d)
	return until, e.KeepUntil(ctx, until)
}

// KeepUntil keeps the environment until a time, used or not; the zero time keeps it no longer.
func (e *Environment) KeepUntil(ctx context.Context, until time.Time) error {
	err := lease.SetKeep(ctx, e.c.kube.AppsV1().Deployments(e.namespace), e.name, e.uid, until)
	return e.changed("keep the environment", err)
}

// SetLease says how long the environment stays unused, before it is put to sleep and then before it is deleted; zero is
// for ever. The pod is not replaced for it.
func (e *Environment) SetLease(ctx context.Context, sleep, remove time.Duration) error {
	err := lease.SetPolicy(ctx, e.c.kube.AppsV1().Deployments(e.namespace), e.name, e.uid, lease.Policy{Sleep: sleep, Delete: remove})
	return e.changed("change the environment's lease", err)
}

// Kept says until when the environment is kept, used or not; the zero time if it is not.
func (e *Environment) Kept(ctx context.Context) (time.Time, error) {
	d, err := e.c.kube.AppsV1().Deployments(e.namespace).Get(ctx, e.name, metav1.GetOptions{})
	if isNotFound(err) || err == nil && d.UID != e.uid {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, e.c.explain("look whether the environment is kept", err)
	}
	now, err := e.c.clock.Now()
	if err != nil {
		return time.Time{}, err
	}
	if s := lease.Read(d, lease.DefaultPolicy); s.KeepUntil.After(now) {
		return s.KeepUntil, nil
	}
	return time.Time{}, nil
}

// serverTime asks the API server for something small, so that its clock is known.
func (e *Environment) serverTime(ctx context.Context) (time.Time, error) {
	if _, err := e.c.kube.AppsV1().Deployments(e.namespace).Get(ctx, e.name, metav1.GetOptions{}); err != nil {
		return time.Time{}, e.changed("look for the environment", err)
	}
	return e.c.clock.Now()
}

// changed explains why the environment's own Deployment could not be written to.
func (e *Environment) changed(act string, err error) error {
	if isNotFound(err) || apierrors.IsConflict(err) {
		return &api.Problem{Code: codeGone, Message: "the environment " + e.name + " was deleted from the cluster", Hint: "start again with fairlead run, which makes a new one"}
	}
	return e.c.explain(act, err)
}

// Wake scales up an environment that is asleep, with its fresh copies, and says whether it did. What somebody else than a
// janitor scaled to zero may be meant: it is woken only if it is asked for. why is told as the use that this is.
func (e *Environment) Wake(ctx context.Context, asked bool, why string) (woken bool, err error) {
	if e.joined { // it is its owner's to wake
		return false, nil
	}
	ds := e.c.kube.AppsV1().Deployments(e.namespace)
	for range ensureTries {
		d, err := ds.Get(ctx, e.name, metav1.GetOptions{})
		if err == nil && d.UID != e.uid {
			err = apierrors.NewNotFound(appsv1.Resource("deployments"), e.name)
		}
		if err != nil {
			return false, e.changed("look whether the environment is asleep", err)
		}
		asleep := d.Spec.Replicas != nil && *d.Spec.Replicas == 0
		if asleep && !asked && !lease.WasPutToSleep(d) {
			return false, nil
		}
		if asleep {
			e.opts.Progress("waking the environment")
			err := lease.Wake(ctx, ds, d, why)
			if apierrors.IsConflict(err) { // somebody else's turn: looked at again
				continue
			}
			if err != nil {
				return false, e.changed("wake the environment", err)
			}
		}
		if d.Annotations[annFresh] == "" {
			return asleep, nil
		}
		// After the environment, which says what is right for its copies: see SettleCopies.
		names, err := e.c.wakeCopies(ctx, d, asleep)
		if asleep {
			e.mu.Lock()
			e.waking = names
			e.mu.Unlock()
		}
		return asleep, err
	}
	return false, &api.Problem{Code: "environment-busy", Message: "the environment " + e.name + " is changed by others all the time, and was not woken", Hint: "what else writes to that Deployment? Try again"}
}

// copiesUp waits for the copies that were just woken, as long as a new environment would.
func (e *Environment) copiesUp(ctx context.Context) {
	e.mu.Lock()
	names := e.waking
	e.mu.Unlock()
	if len(names) == 0 {
		return
	}
	states, err := e.c.copiesReady(ctx, dependency.Environment{Name: e.name, Namespace: e.namespace, UID: e.uid}, names, e.opts.Progress)
	if ctx.Err() != nil {
		return // they are waited for again
	}
	if err != nil {
		e.opts.Progress("the service starts all the same: " + oneLine(err.Error()))
	}
	if err == nil {
		tellUnready(states, e.opts.Progress)
	}
	e.mu.Lock()
	e.waking = nil
	e.mu.Unlock()
}
