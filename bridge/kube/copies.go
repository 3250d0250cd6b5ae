package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// object is one of the kinds that copies are made of.
type object interface {
	metav1.Object
	runtime.Object
}

// kind is one of them in one namespace.
type kind struct {
	name   string
	get    func(context.Context, string) (object, error)
	create func(context.Context, object) (object, error)
	update func(context.Context, object) (object, error) // nil for what cannot be changed
	delete func(context.Context, string, metav1.DeleteOptions) error
	list   func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch  func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// store is what client-go's typed clients have in common.
type store[T object, L runtime.Object] interface {
	Get(context.Context, string, metav1.GetOptions) (T, error)
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
	Delete(context.Context, string, metav1.DeleteOptions) error
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func kindOf[T object, L runtime.Object](name string, s store[T, L], changes bool) kind {
	k := kind{
		name:   name,
		get:    func(ctx context.Context, n string) (object, error) { return s.Get(ctx, n, metav1.GetOptions{}) },
		delete: s.Delete,
		watch:  s.Watch,
		list:   func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return s.List(ctx, o) },
		create: func(ctx context.Context, o object) (object, error) {
			return s.Create(ctx, o.(T), metav1.CreateOptions{FieldManager: fieldManager})
		},
	}
	if changes {
		k.update = func(ctx context.Context, o object) (object, error) {
			return s.Update(ctx, o.(T), metav1.UpdateOptions{FieldManager: fieldManager})
		}
	}
	return k
}

func (c *client) services(ns string) kind {
	return kindOf[*corev1.Service, *corev1.ServiceList]("Service", c.kube.CoreV1().Services(ns), true)
}

func (c *client) claims(ns string) kind {
	return kindOf[*corev1.PersistentVolumeClaim, *corev1.PersistentVolumeClaimList]("PersistentVolumeClaim", c.kube.CoreV1().PersistentVolumeClaims(ns), false)
}

func (c *client) deploymentKind(ns string) kind {
	return kindOf[*appsv1.Deployment, *appsv1.DeploymentList]("Deployment", c.kube.AppsV1().Deployments(ns), true)
}

func (c *client) statefulSets(ns string) kind {
	return kindOf[*appsv1.StatefulSet, *appsv1.StatefulSetList]("StatefulSet", c.kube.AppsV1().StatefulSets(ns), true)
}

func (c *client) jobs(ns string) kind {
	return kindOf[*batchv1.Job, *batchv1.JobList]("Job", c.kube.BatchV1().Jobs(ns), false)
}

// copyKinds are all of them, in the order of their deletion: the Services, by which copies are known, go last.
func (c *client) copyKinds(ns string) []kind {
	return []kind{c.jobs(ns), c.deploymentKind(ns), c.statefulSets(ns), c.claims(ns), c.services(ns)}
}

// ensureTries bounds how often an object may be in somebody's way.
const ensureTries = 5

// ensure makes an object or brings ours up to date. What has its name and is not ours is left as it is.
func (op *opening) ensure(ctx context.Context, env dependency.Environment, k kind, want object) (object, error) {
	act := "make " + k.name + " " + want.GetName()
	for try := range ensureTries {
		// An environment that has just been made has nothing yet. Each question less is a round trip before its copies start.
		unasked := op.anchor != nil && try == 0
		var have object
		var err error
		if !unasked {
			have, err = k.get(ctx, want.GetName())
		}
		switch {
		case unasked || isNotFound(err):
			made, err := k.create(ctx, want)
			if apierrors.IsAlreadyExists(err) {
				continue
			}
			if err != nil {
				return nil, op.c.explain(act, err)
			}
			op.undoLater(func(ctx context.Context) error { return remove(ctx, k, made.GetName(), made.GetUID()) })
			return made, nil
		case err != nil:
			return nil, op.c.explain(act, err)
		case have.GetDeletionTimestamp() != nil && env.Owns(have), formerly(env, have):
			op.o.Progress(fmt.Sprintf("waiting for the former %s %s to be gone", k.name, want.GetName()))
			if err := op.c.objectGone(ctx, k, have.GetName(), have.GetUID()); err != nil {
				return nil, err
			}
		case !env.Owns(have):
			return nil, &api.Problem{Code: codeNameTaken, Message: fmt.Sprintf("%s %s in namespace %s was not made for this environment, and a fresh copy would have that name", k.name, want.GetName(), env.Namespace),
				Hint: "rename or remove it, or leave the dependency shared under dependencies: in fairlead.yaml"}
		case have.GetAnnotations()[dependency.AnnShape] == want.GetAnnotations()[dependency.AnnShape], k.update == nil:
			return have, nil
		default:
			now := want.DeepCopyObject().(object)
			now.SetUID(have.GetUID())
			now.SetResourceVersion(have.GetResourceVersion())
			if s, ok := now.(*corev1.Service); ok { // its address stays
				s.Spec.ClusterIP, s.Spec.ClusterIPs = have.(*corev1.Service).Spec.ClusterIP, have.(*corev1.Service).Spec.ClusterIPs
			}
			made, err := k.update(ctx, now)
			if apierrors.IsConflict(err) {
				continue
			}
			if apierrors.IsInvalid(err) {
				return nil, &api.Problem{Code: "copy-outdated", Message: act + ": the original has changed in a way that a copy cannot follow: " + oneLine(err.Error()),
					Hint: "make it shared once, with --shared, which removes the copy and its data; then fresh again"}
			}
			return made, op.c.explain(act, err)
		}
	}
	return nil, &api.Problem{Code: codeNameTaken, Message: act + ": something else makes and removes it at the same time", Hint: "does another run make this environment? Then wait for it, and repeat the command"}
}

// formerly says whether an object is of an environment of the same name that is gone. The cluster's garbage collector is
// about to delete it.
func formerly(env dependency.Environment, o metav1.Object) bool {
	return o.GetLabels()[dependency.LabelOf] == env.Name && slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool {
		return r.Kind == "Deployment" && r.Name == env.Name && r.UID != env.UID
	})
}

// remove deletes one object and no other of its name.
func remove(ctx context.Context, k kind, name string, uid types.UID) error {
	policy := metav1.DeletePropagationBackground // a Job's pods would stay otherwise
	err := k.delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}})
	if isNotFound(err) || apierrors.IsConflict(err) { // another of its name by now
		return nil
	}
	return err
}

func (c *client) objectGone(ctx context.Context, k kind, name string, uid types.UID) error {
	return c.gone(ctx, fmt.Sprintf("wait for %s %s to be gone", k.name, name), name, uid,
		func(o metav1.ListOptions) (runtime.Object, error) { return k.list(ctx, o) },
		func(o metav1.ListOptions) (watch.Interface, error) { return k.watch(ctx, o) }, nil)
}

// undoLater notes how to take back what was done.
func (op *opening) undoLater(f func(context.Context) error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.undo = append(op.undo, f)
}

// copying is the making of an environment's fresh copies.
type copying struct {
	op      *opening
	env     dependency.Environment
	fresh   []*dependency.Found
	aliases []dependency.Alias
	seeds   map[string]batchv1.JobSpec          // by dependency
	wanted  map[string]bool                     // "Kind/name" of everything that is to be there
	images  func() map[string]map[string]string // by dependency and container: digests
	// finished: they were waited for already.
	finished bool

	mu   sync.Mutex
	uids map[string]types.UID // of workloads, by dependency
}

// startCopies makes the Services of all fresh copies. They come first, so that every pod can be told all addresses: with
// that two copies can depend on each other.
func (op *opening) startCopies(ctx context.Context, owner *appsv1.Deployment, images func() map[string]map[string]string) (*copying, error) {
	cp := &copying{op: op, env: dependency.Environment{Name: owner.Name, Namespace: owner.Namespace, UID: owner.UID, Own: op.isolated, Adapt: op.adapt()}, fresh: op.around.fresh(),
		wanted: map[string]bool{}, uids: map[string]types.UID{}, seeds: map[string]batchv1.JobSpec{}, images: images}
	var mu sync.Mutex
	err := each(cp.fresh, func(d *dependency.Found) error {
		if d.Seed != "" {
			spec, err := op.c.seed(ctx, op.staging, d)
			if err != nil {
				return err
			}
			mu.Lock()
			cp.seeds[d.Name] = spec
			mu.Unlock()
		}
		for i, want := range d.ServiceCopies(cp.env) {
			made, err := op.ensure(ctx, cp.env, op.c.services(cp.env.Namespace), want)
			if err != nil {
				return err
			}
			mu.Lock()
			cp.wanted["Service/"+want.Name] = true
			cp.aliases = append(cp.aliases, d.AliasOf(d.Services[i], made.(*corev1.Service).Spec.ClusterIP))
			mu.Unlock()
		}
		return nil
	})
	slices.SortFunc(cp.aliases, func(a, b dependency.Alias) int { return strings.Compare(a.Service.Name, b.Service.Name) })
	return cp, err
}

// names are those of the copies.
func (cp *copying) names() []string {
	var out []string
	for _, d := range cp.fresh {
		out = append(out, d.Name)
	}
	slices.Sort(out)
	return out
}

// each calls f for all at once, and returns the first error.
func each[T any](list []T, f func(T) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(list))
	for i, v := range list {
		wg.Go(func() { errs[i] = f(v) })
	}
	wg.Wait()
	return first(errs...)
}

// workloads makes claims and workloads.
func (cp *copying) workloads(ctx context.Context) error {
	op, ns := cp.op, cp.env.Namespace
	images := cp.images()
	return each(cp.fresh, func(d *dependency.Found) error {
		claims := map[string]*corev1.PersistentVolumeClaim{}
		for _, name := range d.Claims() {
			p, err := op.c.kube.CoreV1().PersistentVolumeClaims(op.staging).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return op.c.explain("read PersistentVolumeClaim "+name+" of "+d.Workload, err)
			}
			claims[name] = p
		}
		c, err := d.WorkloadCopy(cp.env, claims, images[d.Name], cp.aliases)
		if err != nil {
			return err
		}
		for _, p := range c.Claims {
			cp.want("PersistentVolumeClaim", p.Name)
			if _, err := op.ensure(ctx, cp.env, op.c.claims(ns), p); err != nil {
				return err
			}
		}
		var made object
		if c.StatefulSet != nil {
			cp.want("StatefulSet", c.StatefulSet.Name)
			made, err = op.ensure(ctx, cp.env, op.c.statefulSets(ns), c.StatefulSet)
		} else {
			cp.want("Deployment", c.Deployment.Name)
			made, err = op.ensure(ctx, cp.env, op.c.deploymentKind(ns), c.Deployment)
		}
		if err != nil {
			return err
		}
		cp.mu.Lock()
		defer cp.mu.Unlock()
		cp.uids[d.Name] = made.GetUID()
		if d.Seed != "" {
			cp.wanted["Job/"+cp.env.CopyName("seed-"+d.Name)] = true
		}
		for _, n := range c.Notes {
			op.o.Progress(n)
		}
		return nil
	})
}

func (cp *copying) want(kind, name string) {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.wanted[kind+"/"+name] = true
}

// digests asks for the images of all that is to be copied. It goes on beside what is made meanwhile; the answer waits for it.
func (op *opening) digests(ctx context.Context) func() map[string]map[string]string {
	fresh := op.around.fresh()
	out := map[string]map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, d := range fresh {
		wg.Go(func() {
			if d.Behind == nil {
				return
			}
			i := op.images(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			out[d.Name] = i
		})
	}
	return func() map[string]map[string]string { wg.Wait(); return out }
}

// images are the digests that staging runs, where a pod of it can be seen.
func (op *opening) images(ctx context.Context, d *dependency.Found) map[string]string {
	t := d.Behind.Template()
	pods, err := op.c.kube.CoreV1().Pods(op.staging).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: t.Labels})})
	if err != nil {
		return nil // then the copy runs what the tags say by now, as a new pod of staging would
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.DeletionTimestamp == nil && isReady(p) {
			return dependency.Images(t, p)
		}
	}
	return nil
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}

// owned lists the copies of an environment, in the order of their deletion. A kind that may not be listed has none.
func (c *client) owned(ctx context.Context, env dependency.Environment) (out []ownedObject, err error) {
	kinds := c.copyKinds(env.Namespace)
	lists := make([][]ownedObject, len(kinds))
	err = each(kinds, func(k kind) error {
		l, err := k.list(ctx, metav1.ListOptions{LabelSelector: dependency.LabelOf + "=" + env.Name})
		if apierrors.IsForbidden(err) {
			return nil
		}
		if err != nil {
			return c.explain("list the copies of dependencies", err)
		}
		at := slices.IndexFunc(kinds, func(o kind) bool { return o.name == k.name })
		return eachItem(l, func(o metav1.Object) {
			if env.Owns(o) {
				lists[at] = append(lists[at], ownedObject{k, o.GetName(), o.GetUID()})
			}
		})
	})
	return slices.Concat(lists...), err
}

type ownedObject struct {
	kind kind
	name string
	uid  types.UID
}

// discard deletes copies that are no longer wanted, and waits until they are gone.
func (c *client) discard(ctx context.Context, env dependency.Environment, wanted map[string]bool, tell func(string)) error {
	all, err := c.owned(ctx, env)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(o ownedObject) bool { return wanted[o.kind.name+"/"+o.name] })
	return c.removeOwned(ctx, all, tell)
}

func (c *client) removeOwned(ctx context.Context, all []ownedObject, tell func(string)) error {
	// Services last: while one is there, what is left is found by the next Open.
	services := func(o ownedObject) bool { return o.kind.name == "Service" }
	for _, part := range [][]ownedObject{slices.DeleteFunc(slices.Clone(all), services), slices.DeleteFunc(slices.Clone(all), func(o ownedObject) bool { return !services(o) })} {
		for _, o := range part {
			tell(fmt.Sprintf("deleting %s %s", o.kind.name, o.name))
			if err := remove(ctx, o.kind, o.name, o.uid); err != nil {
				return c.explain("delete "+o.kind.name+" "+o.name, err)
			}
		}
		if err := each(part, func(o ownedObject) error { return c.objectGone(ctx, o.kind, o.name, o.uid) }); err != nil {
			return err
		}
	}
	return nil
}

// wake wakes the copies of an environment that is awake; see client.wakeCopies.
func (cp *copying) wake(ctx context.Context, d *appsv1.Deployment, touch bool) error {
	if len(cp.fresh) == 0 {
		return nil
	}
	_, err := cp.op.c.wakeCopies(ctx, d, touch)
	return err
}

// finish waits until the copies are ready, and fills them. What is not ready then is told and goes on by itself; only what
// can never start is an error.
func (cp *copying) finish(ctx context.Context) error {
	if len(cp.fresh) == 0 || cp.finished {
		return nil
	}
	states, err := cp.op.c.copiesReady(ctx, cp.env, cp.names(), cp.op.o.Progress)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var seeded []*dependency.Found
	for _, d := range cp.fresh {
		if _, ok := cp.seeds[d.Name]; ok && states[d.Name].health == api.HealthReady {
			seeded = append(seeded, d)
		}
	}
	err = each(seeded, func(d *dependency.Found) error {
		s, err := cp.fill(ctx, d)
		mu.Lock()
		defer mu.Unlock()
		if s.health == api.HealthFailed {
			states[d.Name] = s
		}
		return err
	})
	tellUnready(states, cp.op.o.Progress)
	cp.finished = err == nil
	return err
}

// checkWishes refuses, before anything is made, what cannot be had.
func (op *opening) checkWishes(ctx context.Context) error {
	l := op.around
	fresh := false
	var names []string
	for name, w := range op.spec.Dependencies {
		if fresh = fresh || w.Mode == api.DependencyFresh; w.Mode == api.DependencyFresh {
			names = append(names, name)
		}
	}
	if !fresh && l.err == nil && len(l.Problems) == 0 {
		return nil
	}
	slices.Sort(names)
	if fresh {
		seed := slices.ContainsFunc(slices.Collect(maps.Values(op.spec.Dependencies)), func(w api.DependencyWish) bool { return w.Seed != "" })
		if missing := op.c.missingFor(ctx, op.namespace, copyGrants(seed)); len(missing) > 0 {
			p := together(missing)
			p.Message = fmt.Sprintf("a fresh copy of %s takes rights that are missing: %s", strings.Join(names, ", "), p.Message)
			return p
		}
		if l.err != nil {
			return l.err
		}
	}
	// Without the right to look, what the settings say of shared ones cannot be checked, and need not.
	if len(l.Problems) > 0 && len(l.in.Services) > 0 {
		errs := make([]error, len(l.Problems))
		for i, p := range l.Problems {
			errs[i] = p
		}
		return errors.Join(errs...)
	}
	return nil
}
