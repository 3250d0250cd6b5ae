package janitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
)

// workers is how many deletions are waited for at once. Decisions take microseconds.
const workers = 8

// byEnvironment indexes copies by the environment that their label names.
const byEnvironment = "environment"

// item is what is to be looked at: a Deployment, or with an empty name a namespace.
type item struct{ namespace, name string }

// running is a Run at work.
type running struct {
	*Janitor
	queue       workqueue.TypedRateLimitingInterface[item]
	deployments appslisters.DeploymentLister
	namespaces  corelisters.NamespaceLister
	copied      struct{ deployments, statefulSets cache.Indexer }
}

// Run looks after environments until ctx ends. It watches them; it lists them when it starts, and never again unless a
// watch breaks off. Its goroutines, all ended when it returns: the informers' and the workers.
func (j *Janitor) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kc := j.o.Cluster.Kube()
	if _, err := kc.AppsV1().Deployments(j.o.Namespace).List(ctx, metav1.ListOptions{LabelSelector: kube.EnvironmentSelector, Limit: 1}); err != nil {
		return j.o.Cluster.Explain("look for environments", err) // an informer would only try again, in silence
	}
	if _, err := kc.AppsV1().StatefulSets(j.o.Namespace).List(ctx, metav1.ListOptions{LabelSelector: kube.CopySelector, Limit: 1}); err != nil {
		return j.o.Cluster.Explain("look for fresh copies of dependencies", err)
	}
	r := &running{Janitor: j, queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[item]())}
	selected := informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = kube.EnvironmentSelector })
	f := informers.NewSharedInformerFactoryWithOptions(kc, 0, informers.WithNamespace(j.o.Namespace), selected)
	ds := f.Apps().V1().Deployments()
	if err := ds.Informer().SetWatchErrorHandlerWithContext(r.lost); err != nil {
		return fmt.Errorf("watch environments: %w", err)
	}
	r.deployments = ds.Lister()
	if _, err := ds.Informer().AddEventHandler(r.handler(func(o metav1.Object, deleted bool) {
		r.queue.Add(item{o.GetNamespace(), o.GetName()})
		if deleted {
			r.queue.Add(item{o.GetNamespace(), ""})
		}
	})); err != nil {
		return fmt.Errorf("watch environments: %w", err)
	}
	synced := []cache.InformerSynced{ds.Informer().HasSynced}
	if j.o.Namespace == "" { // one namespace alone is not the janitor's to delete
		ns := f.Core().V1().Namespaces()
		r.namespaces = ns.Lister()
		if err := ns.Informer().SetWatchErrorHandlerWithContext(r.lost); err != nil {
			return fmt.Errorf("watch namespaces: %w", err)
		}
		if _, err := ns.Informer().AddEventHandler(r.handler(func(o metav1.Object, deleted bool) {
			if !deleted {
				r.queue.Add(item{o.GetName(), ""})
			}
		})); err != nil {
			return fmt.Errorf("watch namespaces: %w", err)
		}
		synced = append(synced, ns.Informer().HasSynced)
	}
	fc := informers.NewSharedInformerFactoryWithOptions(kc, 0, informers.WithNamespace(j.o.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = kube.CopySelector }))
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		into     *cache.Indexer
	}{{fc.Apps().V1().Deployments().Informer(), &r.copied.deployments}, {fc.Apps().V1().StatefulSets().Informer(), &r.copied.statefulSets}} {
		if err := r.watchCopies(w.informer); err != nil {
			return fmt.Errorf("watch fresh copies: %w", err)
		}
		*w.into = w.informer.GetIndexer()
		synced = append(synced, w.informer.HasSynced)
	}
	f.StartWithContext(ctx)
	fc.StartWithContext(ctx)
	defer f.Shutdown()
	defer fc.Shutdown()
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	all, err := r.deployments.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list what is watched: %w", err)
	}
	j.o.started(r)
	j.o.Logger.Info("janitor: at work", "environments", len(all), "namespace", j.o.Namespace)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for r.one(ctx) {
			}
		})
	}
	<-ctx.Done()
	r.queue.ShutDown()
	wg.Wait()
	j.o.Logger.Info("janitor: leaves")
	return nil
}

// watchCopies makes a change of a copy one that its environment is looked at for.
func (r *running) watchCopies(i cache.SharedIndexInformer) error {
	if err := i.SetWatchErrorHandlerWithContext(r.lost); err != nil {
		return err
	}
	if err := i.AddIndexers(cache.Indexers{byEnvironment: func(o any) ([]string, error) {
		m, ok := o.(metav1.Object)
		if !ok {
			return nil, nil
		}
		return []string{m.GetNamespace() + "/" + m.GetLabels()[kube.CopySelector]}, nil
	}}); err != nil {
		return err
	}
	_, err := i.AddEventHandler(r.handler(func(o metav1.Object, deleted bool) {
		if !deleted {
			r.queue.Add(item{o.GetNamespace(), o.GetLabels()[kube.CopySelector]})
		}
	}))
	return err
}

// copiesOf are those of an environment, as the watch has them.
func (r *running) copiesOf(d *appsv1.Deployment) (out kube.Copies, err error) {
	key := d.Namespace + "/" + d.Name
	ds, err := r.copied.deployments.ByIndex(byEnvironment, key)
	if err != nil {
		return out, fmt.Errorf("look for copies: %w", err)
	}
	for _, o := range ds {
		if d, ok := o.(*appsv1.Deployment); ok {
			out.Deployments = append(out.Deployments, d)
		}
	}
	ss, err := r.copied.statefulSets.ByIndex(byEnvironment, key)
	if err != nil {
		return out, fmt.Errorf("look for copies: %w", err)
	}
	for _, o := range ss {
		if s, ok := o.(*appsv1.StatefulSet); ok {
			out.StatefulSets = append(out.StatefulSets, s)
		}
	}
	return out, nil
}

// lost tells of a watch or a list that failed. The informer tries again; without this it would in silence.
func (r *running) lost(ctx context.Context, _ *cache.Reflector, err error) {
	if ctx.Err() == nil && !apierrors.IsResourceExpired(err) && !errors.Is(err, io.EOF) { // these end a watch every now and then
		r.o.Logger.Warn("janitor: a watch broke off, and is begun again", "error", r.o.Cluster.Explain("watch environments", err))
	}
}

// handler calls f for each object that is new, changed or gone.
func (r *running) handler(f func(o metav1.Object, deleted bool)) cache.ResourceEventHandler {
	tell := func(o any, deleted bool) {
		if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = t.Obj
		}
		if m, ok := o.(metav1.Object); ok {
			f(m, deleted)
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: func(o any) { tell(o, false) }, UpdateFunc: func(_, o any) { tell(o, false) }, DeleteFunc: func(o any) { tell(o, true) }}
}

// one takes one item from the queue; false when the queue is shut.
func (r *running) one(ctx context.Context) bool {
	it, shut := r.queue.Get()
	if shut {
		return false
	}
	defer r.queue.Done(it)
	wait, err := r.look(ctx, it)
	switch {
	case err != nil && ctx.Err() == nil:
		r.o.Logger.Warn("janitor: tried again later", "namespace", it.namespace, "environment", it.name, "error", err)
		r.queue.AddRateLimited(it)
	default:
		r.queue.Forget(it)
		if wait > 0 {
			r.queue.AddAfter(it, wait)
		}
	}
	return true
}

// look decides on an item as the watch has it, and does what is due. An object that is not there any more needs nothing.
func (r *running) look(ctx context.Context, it item) (wait time.Duration, err error) {
	if !r.o.only(it.namespace) {
		return 0, nil
	}
	if it.name == "" {
		return r.lookAtNamespace(ctx, it.namespace)
	}
	d, err := r.deployments.Deployments(it.namespace).Get(it.name)
	if err != nil {
		return 0, nil
	}
	f, err := r.deployment(ctx, d)
	if f == nil || err != nil {
		return 0, err
	}
	// What was just put to sleep or woken comes by the watch once more, and its copies then.
	have, err := r.copiesOf(d)
	if err != nil {
		return 0, err
	}
	if have.Differ(d) && !r.o.DryRun {
		if err := r.copies(ctx, d, have, f); err != nil {
			return 0, err
		}
	}
	now, err := r.o.now()
	if err != nil {
		return 0, err
	}
	return f.next(now), nil
}

func (r *running) lookAtNamespace(ctx context.Context, name string) (time.Duration, error) {
	if r.namespaces == nil {
		return 0, nil
	}
	n, err := r.namespaces.Get(name)
	if err != nil {
		return 0, nil
	}
	ds, err := r.deployments.Deployments(name).List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list what is watched: %w", err)
	}
	_, wait, err := r.namespace(ctx, n, len(ds))
	return wait, err
}

// Election says how one of several janitors becomes the one that works.
type Election struct {
	Namespace, Name string // of the coordination Lease
	Identity        string // this one's: unique
	// TTL is how long a leader that was lost is waited for.
	TTL time.Duration
}

// Elect runs a janitor whenever it leads, until ctx ends. It returns an error when the lead was lost: then the process is
// to end, and start anew. Two that believe to lead at once, as after a long pause of one, do no harm: see the package.
func Elect(ctx context.Context, j *Janitor, e Election, log *slog.Logger) error {
	if e.TTL <= 0 {
		e.TTL = 15 * time.Second
	}
	kc := j.o.Cluster.Kube()
	if _, err := kc.CoordinationV1().Leases(e.Namespace).Get(ctx, e.Name, metav1.GetOptions{}); apierrors.IsForbidden(err) {
		return j.o.Cluster.Explain("look at the janitors' Lease", err) // an election would only try again, in silence
	}
	lctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	worked := make(chan struct{})
	lock := &watchedLock{Interface: &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name}, Client: kc.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: e.Identity}}}
	el, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: e.Name, Lock: lock, LeaseDuration: e.TTL, RenewDeadline: e.TTL * 2 / 3, RetryPeriod: e.TTL / 8, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				defer close(worked)
				defer cancel()
				log.Info("janitor: leads", "identity", e.Identity)
				failed = j.Run(ctx)
			},
			OnStoppedLeading: func() {},
			OnNewLeader:      func(id string) { log.Info("janitor: the leader is known", "identity", id) },
		},
	})
	if err != nil {
		return fmt.Errorf("take part in the election: %w", err)
	}
	el.Run(lctx)
	if lock.led.Load() {
		<-worked
	}
	if failed != nil || ctx.Err() != nil {
		return failed
	}
	return &api.Problem{Code: "lead-lost", Message: "another janitor took the lead, or the API server could not be reached for too long", Hint: "it is to be started again; the log names the leader"}
}

// watchedLock tells whether the election was ever won: the elector starts what the leader does in a goroutine of its own,
// and may return before that has begun.
type watchedLock struct {
	resourcelock.Interface
	led atomic.Bool
}

// RecordEvent is called when the election was won, and when the lead ends.
func (l *watchedLock) RecordEvent(string) { l.led.Store(true) }
