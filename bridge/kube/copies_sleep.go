package kube

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"fairlead.dev/bridge/kube/dependency"
	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// CopySelector is the label selector of fresh copies of dependencies. Whose they are, and whether they are, tells their
// owner reference.
const CopySelector = dependency.LabelOf

const (
	// annAsleep is how many replicas a copy had when it was put to sleep.
	annAsleep = "fairlead.dev/asleep-replicas"
	// annWoken is a random value, new each time that a copy is woken. See wakeCopies.
	annWoken = "fairlead.dev/woken"
	// managerSleep is the field manager of both.
	managerSleep = "fairlead-janitor"
)

// Copies are workloads of fresh copies, of whichever environment.
type Copies struct {
	Deployments  []*appsv1.Deployment
	StatefulSets []*appsv1.StatefulSet
	// Unseen says what may not be looked at; empty: everything was.
	Unseen string
}

// workload is one of them, as far as its sleep goes.
type workload struct {
	metav1.Object
	kind     string
	replicas int32
}

func (w workload) asleep() bool { _, ok := w.GetAnnotations()[annAsleep]; return ok }

// of are those that an environment's Deployment owns.
func (c Copies) of(d *appsv1.Deployment) (out []workload) {
	env := dependency.Environment{Name: d.Name, Namespace: d.Namespace, UID: d.UID}
	add := func(kind string, o metav1.Object, replicas *int32) {
		if o.GetNamespace() == d.Namespace && o.GetDeletionTimestamp() == nil && env.Owns(o) {
			w := workload{o, kind, 1} // what the API server takes nothing for
			if replicas != nil {
				w.replicas = *replicas
			}
			out = append(out, w)
		}
	}
	for _, o := range c.Deployments {
		add("Deployment", o, o.Spec.Replicas)
	}
	for _, o := range c.StatefulSets {
		add("StatefulSet", o, o.Spec.Replicas)
	}
	return out
}

// KeyOf names an environment's Deployment among all of a cluster.
func KeyOf(d *appsv1.Deployment) types.NamespacedName {
	return types.NamespacedName{Namespace: d.Namespace, Name: d.Name}
}

// ByEnvironment sorts them by the environment that their labels name.
func (c Copies) ByEnvironment() map[types.NamespacedName]Copies {
	out := map[types.NamespacedName]Copies{}
	for _, d := range c.Deployments {
		k := types.NamespacedName{Namespace: d.Namespace, Name: d.Labels[dependency.LabelOf]}
		of := out[k]
		of.Deployments = append(of.Deployments, d)
		out[k] = of
	}
	for _, s := range c.StatefulSets {
		k := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[dependency.LabelOf]}
		of := out[k]
		of.StatefulSets = append(of.StatefulSets, s)
		out[k] = of
	}
	return out
}

// Differ says whether some copies of an environment are awake while it is asleep, or the other way round. What somebody
// else scaled to zero is neither.
func (c Copies) Differ(d *appsv1.Deployment) bool {
	asleep, awake := rests(d)
	return slices.ContainsFunc(c.of(d), func(w workload) bool { return asleep && w.replicas > 0 || awake && w.asleep() })
}

// rests says whether an environment is asleep, or awake. One that is just being made, or is on its way out, is neither.
func rests(d *appsv1.Deployment) (asleep, awake bool) {
	if d.DeletionTimestamp != nil || !isOurs(d) || d.Spec.Replicas == nil {
		return false, false
	}
	return lease.WasPutToSleep(d), *d.Spec.Replicas > 0
}

// Copies lists the workloads of the fresh copies of one environment or, with an empty name, of all in a namespace; an
// empty namespace means all.
func (cl *Cluster) Copies(ctx context.Context, ns, environment string) (Copies, error) {
	return cl.c.copiesOf(ctx, ns, environment)
}

func (c *client) copiesOf(ctx context.Context, ns, environment string) (out Copies, err error) {
	sel := metav1.ListOptions{LabelSelector: dependency.LabelOf}
	if environment != "" {
		sel.LabelSelector += "=" + environment
	}
	ds, err := c.kube.AppsV1().Deployments(ns).List(ctx, sel)
	if err != nil {
		return out, c.explain("list the copies of dependencies", err)
	}
	for i := range ds.Items {
		out.Deployments = append(out.Deployments, &ds.Items[i])
	}
	ss, err := c.kube.AppsV1().StatefulSets(ns).List(ctx, sel)
	if apierrors.IsForbidden(err) { // who may not look at them has made none
		out.Unseen = "fresh copies that are StatefulSets are left as they are: you may not list them"
		return out, nil
	}
	if err != nil {
		return out, c.explain("list the copies of dependencies", err)
	}
	for i := range ss.Items {
		out.StatefulSets = append(out.StatefulSets, &ss.Items[i])
	}
	return out, nil
}

// Settled is how many fresh copies of dependencies were made to follow their environment.
type Settled struct{ Slept, Woken int }

// String is in words; of none it is "".
func (s Settled) String() string {
	var words []string
	if s.Slept > 0 {
		words = append(words, fmt.Sprintf("put to sleep with it: %d fresh copies of dependencies", s.Slept))
	}
	if s.Woken > 0 {
		words = append(words, fmt.Sprintf("woken with it: %d fresh copies of dependencies", s.Woken))
	}
	return strings.Join(words, "; ")
}

// SettleCopies makes the fresh copies of an environment sleep while it does, and be awake while it is. It returns what it
// did, also where it fails. have may be old: what has changed since is left alone, and decided on by itself.
//
// The environment's own Deployment says what is right, and is asked after have was read. A copy is changed only as it was
// in have, so one that was woken in between (wakeCopies writes to each) is not put to sleep. Whoever is killed between
// two copies leaves what the next one to come settles.
func (cl *Cluster) SettleCopies(ctx context.Context, d *appsv1.Deployment, have Copies) (did Settled, err error) {
	if !have.Differ(d) {
		return did, nil
	}
	c := cl.c
	now, err := c.kube.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
	if isNotFound(err) || err == nil && now.UID != d.UID {
		return did, nil
	}
	if err != nil {
		return did, c.explain("look at environment "+d.Name, err)
	}
	asleep, awake := rests(now)
	for _, w := range have.of(now) {
		switch {
		case asleep && w.replicas > 0:
			err = c.patchCopy(ctx, w, map[string]any{annAsleep: strconv.Itoa(int(w.replicas))}, new(int32(0)))
		case awake && w.asleep():
			err = c.patchCopy(ctx, w, wokenCopy(), w.wokenReplicas())
		default:
			continue
		}
		if err == nil {
			if asleep {
				did.Slept++
			} else {
				did.Woken++
			}
		}
		if err != nil && !isNotFound(err) && !apierrors.IsConflict(err) {
			return did, c.explain("put to sleep or wake "+w.kind+" "+w.GetName(), err)
		}
	}
	return did, nil
}

// follow is SettleCopies, tried again where copies were changed by others meanwhile, their controllers say.
func (c *client) follow(ctx context.Context, d *appsv1.Deployment) error {
	for range ensureTries {
		have, err := c.copiesOf(ctx, d.Namespace, d.Name)
		if err != nil || !have.Differ(d) {
			return err
		}
		if _, err := (&Cluster{c: c}).SettleCopies(ctx, d, have); err != nil {
			return err
		}
	}
	return nil
}

// wokenReplicas is how many a copy is to have; nil leaves what it has.
func (w workload) wokenReplicas() *int32 {
	if !w.asleep() || w.replicas > 0 {
		return nil
	}
	n, err := strconv.ParseInt(w.GetAnnotations()[annAsleep], 10, 32)
	if err != nil || n < 1 { // anyone may have written it
		n = 1
	}
	return new(int32(n))
}

func wokenCopy() map[string]any { return map[string]any{annAsleep: nil, annWoken: rand.Text()} }

// patchCopy changes a copy that is still the very object that was looked at, in that version.
func (c *client) patchCopy(ctx context.Context, w workload, annotations map[string]any, replicas *int32) error {
	spec := map[string]any{}
	if replicas != nil {
		spec["replicas"] = *replicas
		if w.kind == "StatefulSet" {
			// Its data stays: copies were once made so that their volumes go when they are scaled to zero.
			spec["persistentVolumeClaimRetentionPolicy"] = map[string]any{"whenScaled": appsv1.RetainPersistentVolumeClaimRetentionPolicyType}
		}
	}
	meta := map[string]any{"uid": w.GetUID(), "annotations": annotations}
	if v := w.GetResourceVersion(); v != "" {
		meta["resourceVersion"] = v
	}
	b, err := json.Marshal(map[string]any{"spec": spec, "metadata": meta})
	if err != nil {
		return fmt.Errorf("change %s %s: %w", w.kind, w.GetName(), err)
	}
	o := metav1.PatchOptions{FieldManager: managerSleep}
	if w.kind == "StatefulSet" {
		_, err = c.kube.AppsV1().StatefulSets(w.GetNamespace()).Patch(ctx, w.GetName(), types.MergePatchType, b, o)
	} else {
		_, err = c.kube.AppsV1().Deployments(w.GetNamespace()).Patch(ctx, w.GetName(), types.MergePatchType, b, o)
	}
	if apierrors.IsInvalid(err) && strings.Contains(err.Error(), "metadata.uid") { // another has the name by now
		err = apierrors.NewConflict(appsv1.Resource(strings.ToLower(w.kind)+"s"), w.GetName(), errors.New("it is another object of that name"))
	}
	return err
}

// wakeCopies wakes the fresh copies of an environment that is awake already, and returns the names of their dependencies.
// With touch it writes to those that are awake too: a janitor that took the environment for asleep a moment ago, and is
// about to put them to sleep, then finds that they have changed. One that it has put to sleep since they were read is woken
// by the same write, which says how many replicas there are to be and holds for any version of the copy.
func (c *client) wakeCopies(ctx context.Context, d *appsv1.Deployment, touch bool) (names []string, err error) {
	all, err := c.copiesOf(ctx, d.Namespace, d.Name)
	if err != nil {
		return nil, err
	}
	have := all.of(d)
	for _, w := range have {
		names = append(names, w.GetLabels()[dependency.LabelName])
	}
	slices.Sort(names)
	return names, each(have, func(w workload) error {
		if !touch && !w.asleep() {
			return nil
		}
		replicas := w.wokenReplicas()
		if replicas == nil {
			replicas = &w.replicas
		}
		w.Object = anyVersion{w.Object}
		err := c.patchCopy(ctx, w, wokenCopy(), replicas)
		if isNotFound(err) || apierrors.IsConflict(err) { // another of its name by now
			return nil
		}
		return c.explain("wake "+w.kind+" "+w.GetName(), err)
	})
}

// anyVersion is an object of which the UID alone counts.
type anyVersion struct{ metav1.Object }

// GetResourceVersion is that of whichever version there is.
func (anyVersion) GetResourceVersion() string { return "" }
