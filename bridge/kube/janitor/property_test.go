package janitor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/lease"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

var (
	seedFlag = flag.Uint64("seed", 0, "of TestClusterSchedules; 0 is a new one")
	longFlag = flag.Duration("schedules", 20*time.Second, "how long TestClusterSchedules goes on")
)

// The policy of the random schedules. tolerance is how far apart two events may come on the watch from how far apart they
// were: an act right after a use, which a missing check would let through, is off by the whole policy.
var shortPolicy = lease.Policy{Sleep: 3 * time.Second, Delete: 3 * time.Second}

const tolerance = 1500 * time.Millisecond

// chaos is a random schedule at work.
type chaos struct {
	*real
	t      *testing.T
	copied *copyCheck
	counts struct{ uses, keeps, sleeps, wakes, deletes, crashes, unrecorded, lastMoment atomic.Int64 }
}

// wait waits for a random time, or until ctx ends.
func wait(ctx context.Context, rnd *rand.Rand, most time.Duration) bool {
	t := time.NewTimer(time.Duration(rnd.Int64N(int64(most))))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// agent is a laptop with one environment: it makes it, uses it, keeps it, forgets it, dies at any moment, and its clock
// is anywhere. At the end it completes what it had begun, as the next run would.
func (c *chaos) agent(ctx context.Context, rnd *rand.Rand, name string) {
	ds := c.kc.AppsV1().Deployments(c.ns)
	bg := context.WithoutCancel(ctx)
	gone := func(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }
	check := func(what string, err error) {
		if err != nil && !gone(err) {
			c.t.Errorf("%s: %s: %v", name, what, err)
		}
	}
	record := func(d *appsv1.Deployment) { _, err := lease.Record(bg, ds, d, &shortPolicy); check("record", err) }
	for {
		d, err := ds.Get(bg, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			if ctx.Err() != nil {
				return
			}
			drawn := draw(name)
			// A clock that jumps: nothing may rest on what it says.
			drawn.Annotations[annFresh] = "db,web"
			drawn.Annotations["fairlead.dev/created"] = time.Now().Add(time.Duration(rnd.Int64N(int64(10000*time.Hour))) - 5000*time.Hour).Format(time.RFC3339)
			if d, err = ds.Create(bg, drawn, metav1.CreateOptions{FieldManager: "fairlead"}); err != nil {
				check("create", err)
				continue
			}
			if rnd.IntN(5) == 0 { // killed before it was recorded
				c.counts.unrecorded.Add(1)
			} else {
				record(d)
			}
		case err != nil:
			c.t.Errorf("%s: %v", name, err)
			return
		case d.DeletionTimestamp != nil:
		case !kube.IsEnvironment(d):
			c.t.Errorf("%s is no environment any more", name)
			return
		case d.Annotations[lease.MadeUID] == "":
			record(d) // the next run
		case ctx.Err() != nil:
			return
		default:
			c.ensureCopies(bg, d)
			switch n := rnd.IntN(10); {
			case n < 5: // work: some uses, close together
				for range rnd.IntN(6) {
					err := lease.Renew(bg, ds, name, d.UID, "a save")
					check("renew", err)
					if err == nil {
						c.counts.uses.Add(1)
					}
					if !wait(ctx, rnd, time.Second) {
						break
					}
				}
			case n < 6:
				now, err := c.Clock().Now()
				if err != nil {
					c.t.Error(err)
					return
				}
				check("keep", lease.SetKeep(bg, ds, name, d.UID, now.Add(time.Duration(rnd.Int64N(int64(6*time.Second))))))
				c.counts.keeps.Add(1)
			case n < 9 && lease.WasPutToSleep(d):
				if rnd.IntN(2) == 0 { // killed before it came to the copies
					err := lease.Wake(bg, ds, d, "asked for")
					check("wake", err)
					if err == nil {
						c.counts.wakes.Add(1)
					}
					break
				}
				e, err := kube.Lookup(bg, kube.Options{Kubeconfig: kubeconfig(c.t)}, c.ns, name)
				var woken bool
				if err == nil {
					woken, err = e.Wake(bg, true, "asked for")
				}
				if p := (*api.Problem)(nil); err != nil && !(errors.As(err, &p) && p.Code == "gone") {
					c.t.Errorf("%s: wake: %v", name, err)
				}
				if woken {
					c.counts.wakes.Add(1)
				}
			default: // the laptop is shut for a while
				wait(ctx, rnd, 8*time.Second)
			}
		}
		wait(ctx, rnd, 300*time.Millisecond)
	}
}

// janitors runs janitors one after the other, each until it is killed at some step. every: by the watch, or pass by pass.
// While work lasts, owners often use what is just about to go.
func (c *chaos) janitors(ctx, work context.Context, seed uint64, passes bool) {
	rnd := rand.New(rand.NewPCG(seed, 99))
	var mu sync.Mutex
	for ctx.Err() == nil {
		jctx, kill := context.WithCancel(ctx)
		j := New(Options{Cluster: c.Cluster, Namespace: c.ns, step: func(step string, d *appsv1.Deployment) {
			mu.Lock()
			defer mu.Unlock()
			switch n := rnd.IntN(8); {
			case n == 0: // from here on it does nothing any more
				c.counts.crashes.Add(1)
				kill()
			case n < 4 && step != "removed" && work.Err() == nil:
				err := lease.Renew(context.WithoutCancel(ctx), c.kc.AppsV1().Deployments(c.ns), d.Name, d.UID, "at the last moment")
				if err == nil {
					c.counts.lastMoment.Add(1)
				} else if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
					c.t.Errorf("renew %s: %v", d.Name, err)
				}
			case n < 6: // slow, so that others come between
				wait(jctx, rnd, 400*time.Millisecond)
			}
		}})
		var err error
		if passes {
			_, err = j.Pass(jctx, kube.Filter{})
			mu.Lock()
			wait(jctx, rnd, 500*time.Millisecond)
			mu.Unlock()
		} else {
			err = j.Run(jctx)
		}
		if err != nil && jctx.Err() == nil && !errors.Is(err, context.Canceled) {
			c.t.Errorf("a janitor: %v", err)
		}
		kill()
	}
}

// seen is what the checker knows of one environment.
type seen struct {
	d            *appsv1.Deployment
	used, asleep time.Time // when that came by the watch
}

// check follows the namespace and sees that nothing is put to sleep or deleted that was used or is kept. It knows of uses
// by when they come, not by the stamps that the janitors decide on.
func (c *chaos) check(ctx context.Context, w watch.Interface) {
	defer w.Stop()
	all := map[types.UID]*seen{}
	for {
		var e watch.Event
		var ok bool
		select {
		case e, ok = <-w.ResultChan():
		case <-ctx.Done():
			return
		}
		d, isDeployment := e.Object.(*appsv1.Deployment)
		if !ok || !isDeployment {
			c.t.Errorf("the watch broke off: %+v", e)
			return
		}
		now := time.Now()
		c.copied.environment(d, d.DeletionTimestamp != nil || e.Type == watch.Deleted, now)
		s := all[d.UID]
		if s == nil {
			all[d.UID] = &seen{d: d, used: now}
			continue
		}
		was := s.d
		s.d = d
		used := d.Annotations["fairlead.dev/used"] != was.Annotations["fairlead.dev/used"] || d.Annotations[lease.MadeUID] != was.Annotations[lease.MadeUID]
		zero, wasZero := *d.Spec.Replicas == 0, *was.Spec.Replicas == 0
		going, wasGoing := d.DeletionTimestamp != nil || e.Type == watch.Deleted, was.DeletionTimestamp != nil
		// What is decided on is what was there before: of one event only the act is new.
		kept, _ := time.Parse(time.RFC3339, was.Annotations["fairlead.dev/keep-until"])
		server, err := c.Clock().Now()
		if err != nil {
			c.t.Error(err)
			return
		}
		fail := func(what string) {
			c.t.Errorf("%s was %s: used %v ago, asleep for %v, kept for %v more; recorded %v", d.Name, what, now.Sub(s.used), now.Sub(s.asleep), kept.Sub(server), was.Annotations[lease.MadeUID] != "")
		}
		if zero && !wasZero {
			c.counts.sleeps.Add(1)
			if now.Sub(s.used) < shortPolicy.Sleep-tolerance || kept.Sub(server) > tolerance || was.Annotations[lease.MadeUID] == "" {
				fail("put to sleep")
			}
			s.asleep = now
		}
		if going && !wasGoing {
			c.counts.deletes.Add(1)
			if !wasZero || now.Sub(s.used) < shortPolicy.Delete-tolerance || now.Sub(s.asleep) < shortPolicy.Delete-tolerance || kept.Sub(server) > tolerance || was.Annotations[lease.MadeUID] == "" {
				fail("deleted")
			}
		}
		if used {
			s.used = now
		}
	}
}

// Whatever agents, laptops and two janitors do, and wherever they are killed: nothing goes while it is used or kept,
// nothing of others is touched, and in the end nothing is left.
func TestClusterSchedules(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	r := realCluster(t)
	c := &chaos{real: r, t: t, copied: newCopyCheck()}
	strangers := r.strangers(t)
	before := strangers()
	mine := "fairlead.dev/environment notin (original,copied,unrecorded)"
	l, err := r.kc.AppsV1().Deployments(r.ns).List(t.Context(), metav1.ListOptions{LabelSelector: mine})
	if err != nil {
		t.Fatal(err)
	}
	w, err := r.kc.AppsV1().Deployments(r.ns).Watch(t.Context(), metav1.ListOptions{LabelSelector: mine + ",fairlead.dev/environment", ResourceVersion: l.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var others, agents sync.WaitGroup
	others.Go(func() { c.check(ctx, w) })
	ofCopies := metav1.ListOptions{LabelSelector: kube.CopySelector}
	dw, err := r.kc.AppsV1().Deployments(r.ns).Watch(t.Context(), ofCopies)
	if err != nil {
		t.Fatal(err)
	}
	sw, err := r.kc.AppsV1().StatefulSets(r.ns).Watch(t.Context(), ofCopies)
	if err != nil {
		t.Fatal(err)
	}
	others.Go(func() { c.copied.follow(ctx, t, dw) })
	others.Go(func() { c.copied.follow(ctx, t, sw) })
	work, stop := context.WithTimeout(ctx, *longFlag)
	defer stop()
	others.Go(func() { c.janitors(ctx, work, seed, false) })
	others.Go(func() { c.janitors(ctx, work, seed+1, true) })
	const count = 8
	for i := range count {
		agents.Go(func() { c.agent(work, rand.New(rand.NewPCG(seed, uint64(i))), fmt.Sprint("env-", i)) })
	}
	agents.Wait()
	eventually(t, "all to be gone that nobody uses any more", func() bool {
		l, err := r.kc.AppsV1().Deployments(r.ns).List(t.Context(), metav1.ListOptions{LabelSelector: mine + ",fairlead.dev/environment"})
		if err != nil {
			t.Fatal(err)
		}
		return len(l.Items) == 0
	})
	eventually(t, "no copy to be left", func() bool {
		left, err := r.Copies(t.Context(), r.ns, "")
		if err != nil {
			t.Fatal(err)
		}
		return len(left.Deployments)+len(left.StatefulSets) == 0
	})
	cancel()
	others.Wait()
	c.copied.verify(t)
	if d := cmp.Diff(before, strangers()); d != "" {
		t.Errorf("strangers were changed: %s", d)
	}
	n := &c.counts
	t.Logf("%d uses, %d of them at the last moment, %d keeps, %d put to sleep, %d woken, %d deleted, %d killed before recorded, janitors killed %d times", n.uses.Load()+n.lastMoment.Load(), n.lastMoment.Load(), n.keeps.Load(), n.sleeps.Load(), n.wakes.Load(), n.deletes.Load(), n.unrecorded.Load(), n.crashes.Load())
	t.Logf("copies: %d, put to sleep %d times, woken %d times", len(c.copied.copies), c.copied.slept, c.copied.resumed)
	if n.uses.Load() == 0 || c.copied.slept < count || c.copied.resumed == 0 || n.sleeps.Load() < count || n.deletes.Load() < count || n.lastMoment.Load() == 0 || n.crashes.Load() == 0 {
		t.Error("the schedule was too tame to say anything")
	}
}

// BenchmarkJanitor is one pass over 1,000 environments, 250 of which have a fresh copy, as the watch has them: deciding on
// each, with nothing due.
func BenchmarkJanitor(b *testing.B) {
	if os.Getenv("FAIRLEAD_TEST_PROCESS") != "" {
		return
	}
	r := realCluster(b)
	const count = 1000
	names := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range names {
				d := draw(fmt.Sprintf("env-%04d", i))
				d, err := r.kc.AppsV1().Deployments(r.ns).Create(b.Context(), d, metav1.CreateOptions{})
				if err == nil {
					_, err = lease.Record(b.Context(), r.kc.AppsV1().Deployments(r.ns), d, &lease.DefaultPolicy)
				}
				if err == nil && i%4 == 0 {
					web, _ := drawCopies(d.Name, d.UID, 1)
					_, err = r.kc.AppsV1().Deployments(r.ns).Create(b.Context(), web, metav1.CreateOptions{})
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range count {
		names <- i
	}
	close(names)
	wg.Wait()
	if b.Failed() {
		return
	}
	var acts atomic.Int64
	var list []string
	var mu sync.Mutex
	start := time.Now()
	at := make(chan struct{})
	ctx, cancel := context.WithCancel(b.Context())
	j := New(Options{Cluster: r.Cluster, Namespace: r.ns, step: func(step string, d *appsv1.Deployment) {
		acts.Add(1)
		mu.Lock()
		list = append(list, step+" "+d.Name)
		mu.Unlock()
	}, Logger: logTo(func(m string) {
		if m == "janitor: at work" {
			close(at)
		}
	})})
	started := make(chan *running, 1)
	j.o.started = func(r *running) { started <- r }
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	<-at
	run := <-started
	toWatch := time.Since(start)
	for b.Loop() {
		all, err := run.deployments.List(labels.Everything())
		if err != nil || len(all) != count {
			b.Fatalf("%d environments, %v", len(all), err)
		}
		for _, d := range all {
			if _, err := run.look(ctx, item{d.Namespace, d.Name}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/pass")
	b.ReportMetric(float64(toWatch.Microseconds())/1000, "ms-to-watch")
	b.ReportMetric(float64(acts.Load()), "writes")
	if len(list) > 0 {
		b.Logf("writes: %v", list)
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
