package janitor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	labelName = "fairlead.dev/dependency"
	annFresh  = "fairlead.dev/fresh"
)

func copyMeta(environment string, owner types.UID, dependency string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: environment + "-" + dependency, Labels: map[string]string{kube.CopySelector: environment, labelName: dependency},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: environment, UID: owner}}}
}

// drawCopies are fresh copies as kube.Open makes them: a Deployment that never has a pod, and a StatefulSet whose pod no
// node takes, of those that were made to lose their volumes when they are scaled.
func drawCopies(environment string, owner types.UID, replicas int32) (*appsv1.Deployment, *appsv1.StatefulSet) {
	d := draw("")
	d.ObjectMeta = copyMeta(environment, owner, "web")
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: d.Labels}
	d.Spec.Template.Labels = d.Labels
	d.Spec.Replicas = &replicas
	m := copyMeta(environment, owner, "db")
	s := &appsv1.StatefulSet{ObjectMeta: m, Spec: appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: m.Labels}, ServiceName: "none",
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: m.Labels}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(0)),
			SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.test/never"}}, Containers: []corev1.Container{{Name: "c", Image: "none"}}}},
		PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}}}
	return d, s
}

// copies makes those of an environment.
func (r *real) copies(t testing.TB, environment string, owner types.UID, replicas int32) {
	t.Helper()
	d, s := drawCopies(environment, owner, replicas)
	r.create(t, r.ns, d)
	if _, err := r.kc.AppsV1().StatefulSets(r.ns).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// replicas are those of an environment and of its two copies.
func (r *real) replicas(t testing.TB, name string) string {
	t.Helper()
	s, err := r.kc.AppsV1().StatefulSets(r.ns).Get(t.Context(), name+"-db", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(*r.get(t, r.ns, name).Spec.Replicas, *r.get(t, r.ns, name+"-web").Spec.Replicas, *s.Spec.Replicas)
}

func (r *real) scale(t testing.TB, name string, n int) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, n)
	if _, err := r.kc.AppsV1().Deployments(r.ns).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "scale"); err != nil {
		t.Fatal(err)
	}
}

// copiedEnvironment is one that a laptop can wake.
func (r *real) copiedEnvironment(t testing.TB, name string, p lease.Policy) *appsv1.Deployment {
	t.Helper()
	drawn := draw(name)
	drawn.Annotations[annFresh] = "db,web"
	d, err := lease.Record(t.Context(), r.kc.AppsV1().Deployments(r.ns), r.create(t, r.ns, drawn), &p)
	if err != nil {
		t.Fatal(err)
	}
	r.copies(t, name, d.UID, 2)
	return d
}

// follow is a pass, and those after it that it takes until the environment and its copies have these replicas: a copy whose controller wrote to it
// between the look and the act is left to the next pass. It returns what the first one found, and how many copies were changed in all.
func (r *real) follow(t testing.TB, j *Janitor, name, verb, want string) (first Finding, changed int) {
	t.Helper()
	first = pass(t, j, name)
	end := time.Now().Add(time.Minute)
	for f := first; ; f = pass(t, j, name) {
		n := 0
		if _, err := fmt.Sscanf(f.Copies, verb+" with it: %d fresh copies of dependencies", &n); err != nil && f.Copies != "" {
			t.Fatalf("%+v", f)
		}
		changed += n
		is := r.replicas(t, name)
		if is == want {
			return first, changed
		}
		if time.Now().After(end) {
			t.Fatalf("%d copies were %s, and the replicas are %s, not %s", changed, verb, is, want)
		}
	}
}

// Fresh copies sleep and wake with their environment, with as many replicas as they had, whoever does it and wherever he
// is killed; those of others are left alone.
func TestClusterCopiesSleep(t *testing.T) {
	r := realCluster(t)
	policy := lease.Policy{Sleep: time.Hour, Delete: 240 * time.Hour}
	d := r.copiedEnvironment(t, "x", policy)
	// What has every label and is another's.
	stranger, _ := drawCopies("x", d.UID, 1)
	stranger.Name = "x-stranger"
	// Its owner is there, or the garbage collector would take it.
	stranger.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: "default", UID: r.defaultAccount(t)}}
	stranger = r.create(t, r.ns, stranger)
	// One is written to between the look and the act: it is looked at again, and told with the other.
	wrote := false
	asleep := r.later(62*time.Minute, func(o *Options) {
		o.step = func(step string, _ *appsv1.Deployment) {
			if step != "copies" || wrote {
				return
			}
			wrote = true
			if _, err := r.kc.AppsV1().Deployments(r.ns).Patch(t.Context(), "x-web", types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.test/by":"another"}}}`), metav1.PatchOptions{}); err != nil {
				t.Error(err)
			}
		}
	})

	if f, n := r.follow(t, asleep, "x", "put to sleep", "0 0 0"); !f.Done || f.Decision.Action != lease.Sleep || n != 2 {
		t.Fatalf("%d, %+v", n, f)
	}
	s, err := r.kc.AppsV1().StatefulSets(r.ns).Get(t.Context(), "x-db", metav1.GetOptions{})
	if err != nil || s.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled != appsv1.RetainPersistentVolumeClaimRetentionPolicyType {
		t.Errorf("its volumes go: %+v, %v", s.Spec.PersistentVolumeClaimRetentionPolicy, err)
	}

	// By kubectl, which knows nothing of copies.
	r.scale(t, "x", 1)
	if f, n := r.follow(t, asleep, "x", "woken", "1 2 1"); !f.Done || f.Decision.Action != lease.Woken || n != 2 {
		t.Fatalf("%d, %+v", n, f)
	}

	// Killed after the environment, and between two copies.
	ds := r.kc.AppsV1().Deployments(r.ns)
	if err := lease.PutToSleep(t.Context(), ds, r.get(t, r.ns, "x"), time.Now()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one of two to be put to sleep", func() bool {
		did, err := r.SettleCopies(t.Context(), r.get(t, r.ns, "x"), kube.Copies{Deployments: []*appsv1.Deployment{r.get(t, r.ns, "x-web")}})
		if err != nil {
			t.Fatal(err)
		}
		return did.Slept == 1
	})
	if n := r.replicas(t, "x"); n != "0 0 1" {
		t.Fatalf("half asleep: %s", n)
	}
	if f, n := r.follow(t, r.later(0, nil), "x", "put to sleep", "0 0 0"); f.Done || n != 1 {
		t.Errorf("%d, %+v", n, f)
	}

	// Woken by its owner between the look and the act: the copies stay awake.
	e, err := kube.Lookup(t.Context(), kube.Options{Kubeconfig: kubeconfig(t)}, r.ns, "x")
	if err != nil {
		t.Fatal(err)
	}
	if woken, err := e.Wake(t.Context(), true, "a request"); err != nil || !woken {
		t.Fatalf("%v, %v", woken, err)
	}
	if n := r.replicas(t, "x"); n != "1 2 1" {
		t.Fatalf("woken by its owner: %s", n)
	}
	if err := lease.PutToSleep(t.Context(), ds, r.get(t, r.ns, "x"), time.Now()); err != nil {
		t.Fatal(err)
	}
	raced := false
	race := r.later(0, func(o *Options) {
		o.step = func(step string, _ *appsv1.Deployment) {
			if step == "copies" && !raced {
				raced = true
				if woken, err := e.Wake(t.Context(), true, "a request"); err != nil || !woken {
					t.Errorf("%v, %v", woken, err)
				}
			}
		}
	})
	if f := pass(t, race, "x"); !raced || f.Copies != "" {
		t.Errorf("raced %v: %+v", raced, f)
	}
	if n := r.replicas(t, "x"); n != "1 2 1" {
		t.Errorf("a janitor won over a use: %s", n)
	}
	if woken, err := e.Wake(t.Context(), true, "a request"); err != nil || woken {
		t.Errorf("what is awake was woken: %v, %v", woken, err)
	}

	// Scaled to zero by somebody: it is not woken unasked, and its copies sleep once a janitor has seen it.
	r.scale(t, "x", 0)
	if woken, err := e.Wake(t.Context(), false, "it came back"); err != nil || woken {
		t.Errorf("%v, %v", woken, err)
	}

	// By the watch alone, from here on.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.later(0, nil).Run(ctx) }()
	eventually(t, "the copies to sleep", func() bool { return r.replicas(t, "x") == "0 0 0" })
	r.scale(t, "x", 1)
	eventually(t, "the copies to wake", func() bool { return r.replicas(t, "x") == "1 2 1" })
	r.scale(t, "x", 0)
	eventually(t, "the copies to sleep again", func() bool { return r.replicas(t, "x") == "0 0 0" })
	r.scale(t, "x-web", 1) // one alone, of an environment that sleeps
	eventually(t, "it to sleep again", func() bool { return r.replicas(t, "x") == "0 0 0" })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if now := r.get(t, r.ns, "x-stranger"); now == nil || now.Generation != stranger.Generation || *now.Spec.Replicas != 1 {
		t.Errorf("what is none of its copies was touched: %+v", now)
	}
	if is := r.get(t, r.ns, "x"); is == nil || is.UID != d.UID {
		t.Error("the environment went")
	}
}

func (r *real) defaultAccount(t testing.TB) (uid types.UID) {
	t.Helper()
	eventually(t, "the namespace's service account", func() bool {
		a, err := r.kc.CoreV1().ServiceAccounts(r.ns).Get(t.Context(), "default", metav1.GetOptions{})
		if err == nil {
			uid = a.UID
		}
		return err == nil
	})
	return uid
}

// The warning is an Event on the Deployment, one for each time that it is about, and none where there is no right to it.
func TestClusterWarning(t *testing.T) {
	r := realCluster(t)
	r.environment(t, r.ns, "x", lease.Policy{Sleep: time.Hour, Delete: time.Hour})
	due := 55 * time.Minute
	for range 2 {
		for range 2 { // two janitors, each twice
			if f := pass(t, r.later(due, nil), "x"); f.Decision.Action != lease.Warn || f.Note != "" {
				t.Fatalf("%+v", f)
			}
		}
	}
	events := func() []string {
		t.Helper()
		l, err := r.kc.CoreV1().Events(r.ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Deployment,involvedObject.name=x,reason=Unused"})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range l.Items {
			out = append(out, e.Type+" "+e.Message)
		}
		return out
	}
	if got := events(); len(got) != 1 || !strings.HasPrefix(got[0], "Warning unused since ") || !strings.Contains(got[0], "it is put to sleep at ") || !strings.Contains(got[0], "fairlead env keep x") {
		t.Errorf("%q", got)
	}
	if f := pass(t, r.later(2*time.Hour, nil), "x"); !f.Done {
		t.Fatalf("%+v", f)
	}
	if f := pass(t, r.later(2*time.Hour+due, nil), "x"); f.Decision.Action != lease.Warn || f.Note != "" {
		t.Fatalf("%+v", f)
	}
	if got := events(); len(got) != 2 || !strings.Contains(strings.Join(got, "\n"), "it is deleted at ") {
		t.Errorf("%q", got)
	}
}

// spans is how one environment or copy was over time: when it was asleep.
type spans struct {
	from time.Time // it is asleep since; zero: it is awake
	past [][2]time.Time
	born time.Time
	end  time.Time // it is gone; zero: it is there
}

func (s *spans) set(asleep bool, now time.Time) {
	switch {
	case asleep && s.from.IsZero():
		s.from = now
	case !asleep && !s.from.IsZero():
		s.past = append(s.past, [2]time.Time{s.from, now})
		s.from = time.Time{}
	}
}

// copyCheck knows, by the watch, when environments and copies were asleep.
type copyCheck struct {
	mu      sync.Mutex
	envs    map[types.UID]*spans // by the environment's UID
	copies  map[types.UID]*spans // by the copy's
	owner   map[types.UID]types.UID
	names   map[types.UID]string
	slept   int
	resumed int
}

func newCopyCheck() *copyCheck {
	return &copyCheck{envs: map[types.UID]*spans{}, copies: map[types.UID]*spans{}, owner: map[types.UID]types.UID{}, names: map[types.UID]string{}}
}

func see(all map[types.UID]*spans, uid types.UID, asleep, gone bool, now time.Time) *spans {
	s := all[uid]
	if s == nil {
		s = &spans{born: now}
		all[uid] = s
	}
	s.set(asleep, now)
	if gone && s.end.IsZero() {
		s.end = now
	}
	return s
}

// environment takes a change of an environment.
func (c *copyCheck) environment(d *appsv1.Deployment, gone bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	see(c.envs, d.UID, *d.Spec.Replicas == 0, gone, now)
}

// follow takes the changes of copies until ctx ends.
func (c *copyCheck) follow(ctx context.Context, t *testing.T, w watch.Interface) {
	defer w.Stop()
	for {
		var e watch.Event
		var ok bool
		select {
		case e, ok = <-w.ResultChan():
		case <-ctx.Done():
			return
		}
		var m metav1.Object
		var replicas int32
		switch o := e.Object.(type) {
		case *appsv1.Deployment:
			m, replicas = o, *o.Spec.Replicas
		case *appsv1.StatefulSet:
			m, replicas = o, *o.Spec.Replicas
		default:
			if ctx.Err() == nil {
				t.Errorf("the watch of copies broke off: %v %+v", ok, e)
			}
			return
		}
		c.mu.Lock()
		c.owner[m.GetUID()], c.names[m.GetUID()] = m.GetOwnerReferences()[0].UID, m.GetName()
		was := c.copies[m.GetUID()]
		slept := was != nil && !was.from.IsZero()
		see(c.copies, m.GetUID(), replicas == 0, e.Type == watch.Deleted || m.GetDeletionTimestamp() != nil, time.Now())
		switch {
		case !slept && replicas == 0:
			c.slept++
		case slept && replicas > 0:
			c.resumed++
		}
		c.mu.Unlock()
	}
}

// settleLimit is how long a copy may be otherwise than its environment: janitors are killed all the time meanwhile.
const settleLimit = 10 * time.Second

// verify sees that no copy was put to sleep while its environment was in use, and that none was otherwise than it for long.
func (c *copyCheck) verify(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, cp := range c.copies {
		env := c.envs[c.owner[uid]]
		if env == nil {
			t.Errorf("%s belongs to no environment that was seen", c.names[uid])
			continue
		}
		end := cp.end
		if end.IsZero() || !env.end.IsZero() && env.end.Before(end) {
			end = env.end
		}
		if end.IsZero() {
			end = time.Now()
		}
		all := func(s *spans) [][2]time.Time {
			if s.from.IsZero() {
				return s.past
			}
			return append(s.past[:len(s.past):len(s.past)], [2]time.Time{s.from, end})
		}
		// in says whether it was asleep at some time of an interval; how long, together, tells the second.
		in := func(s *spans, from, to time.Time) (some bool, total time.Duration) {
			for _, a := range all(s) {
				lo, hi := a[0], a[1]
				if lo.Before(from) {
					lo = from
				}
				if hi.After(to) {
					hi = to
				}
				if d := hi.Sub(lo); d > 0 {
					some, total = true, total+d
				}
			}
			return some, total
		}
		for _, a := range all(cp) {
			if a[0].After(end) {
				continue
			}
			if some, _ := in(env, a[0].Add(-tolerance), a[0].Add(tolerance)); !some {
				t.Errorf("%s was put to sleep while its environment was awake", c.names[uid])
			}
			to := a[1]
			if to.After(end) {
				to = end
			}
			if _, total := in(env, a[0], to); to.Sub(a[0])-total > settleLimit {
				t.Errorf("%s slept for %v while its environment was awake", c.names[uid], to.Sub(a[0])-total)
			}
		}
		for _, a := range all(env) {
			from, to := a[0], a[1]
			if from.Before(cp.born) {
				from = cp.born
			}
			if to.After(end) {
				to = end
			}
			if to.Before(from) {
				continue
			}
			if _, total := in(cp, from, to); to.Sub(from)-total > settleLimit {
				t.Errorf("%s was awake for %v while its environment slept", c.names[uid], to.Sub(from)-total)
			}
		}
	}
}

// ensureCopies makes the copies that an environment lacks, as Open does.
func (c *chaos) ensureCopies(ctx context.Context, d *appsv1.Deployment) {
	web, db := drawCopies(d.Name, d.UID, 1)
	_, err := c.kc.AppsV1().Deployments(c.ns).Create(ctx, web, metav1.CreateOptions{})
	_, serr := c.kc.AppsV1().StatefulSets(c.ns).Create(ctx, db, metav1.CreateOptions{})
	for _, err := range []error{err, serr} {
		// One of the former environment may still be there: the next turn makes it.
		if err != nil && !apierrors.IsAlreadyExists(err) {
			c.t.Errorf("copies of %s: %v", d.Name, err)
		}
	}
}
