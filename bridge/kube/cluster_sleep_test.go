package kube

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"
	"fairlead.dev/bridge/kube/lease"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// through is a client whose requests go through a transport of the test's.
func (r *real) through(t testing.TB, wrap func(http.RoundTripper) http.RoundTripper) *client {
	t.Helper()
	c := *r.c
	c.config = rest.CopyConfig(r.c.config)
	c.config.Wrap(wrap)
	set, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		t.Fatal(err)
	}
	c.kube = set
	return &c
}

// before calls f once, before the first change of an object whose path ends so.
type before struct {
	http.RoundTripper
	suffix string
	once   sync.Once
	f      func()
}

func (b *before) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.Method == http.MethodPatch && strings.HasSuffix(q.URL.Path, b.suffix) {
		b.once.Do(b.f)
	}
	return b.RoundTripper.RoundTrip(q)
}

// settle makes the copies of an environment follow it, as a janitor does.
func (c *client) settle(ctx context.Context, ns, name string) (Settled, error) {
	have, err := c.copiesOf(ctx, ns, name)
	if err != nil {
		return Settled{}, err
	}
	d, err := c.deployment(ctx, ns, name)
	if err != nil {
		return Settled{}, err
	}
	return (&Cluster{c: c}).SettleCopies(ctx, d, have)
}

// follow makes copies follow their environment.
func (r *real) follow(t *testing.T, ns, name string) {
	t.Helper()
	eventually(t, "its copies to follow it", func() bool {
		if _, err := r.c.settle(t.Context(), ns, name); err != nil {
			t.Fatal(err)
		}
		have, err := r.c.copiesOf(t.Context(), ns, name)
		if err != nil {
			t.Fatal(err)
		}
		return !have.Differ(r.deployment(t, ns, name))
	})
}

// sleepAll puts an environment and its copies to sleep.
func (r *real) sleepAll(t *testing.T, ns, name string) {
	t.Helper()
	r.sleep(t, ns, name)
	r.follow(t, ns, name)
}

// asleep does, and waits until their pods are gone.
func (r *real) asleep(t *testing.T, ns, name string) {
	t.Helper()
	r.sleepAll(t, ns, name)
	for _, sel := range []string{labelEnvironment, dependency.LabelOf} {
		if err := r.c.podsGone(t.Context(), ns, sel+"="+name, func(string) {}); err != nil {
			t.Fatal(err)
		}
	}
}

// Fresh copies have no pod while their environment sleeps, and are there again when it is woken, however that is done and
// wherever it is killed. A switch to a copy that can never start costs an environment nothing.
func TestClusterCopiesFollow(t *testing.T) {
	r := realCluster(t)
	ns, _ := r.small(t)
	spec := randomSpec()
	spec.Dependencies = fresh("billing", "queue")
	e := r.open(t, spec)
	wantAnswer(t, e, "http billing:8080 mine", "mine")
	r.asleep(t, ns, spec.Name)
	all, err := e.Dependencies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"billing", "queue"} {
		if d := found(t, all, name); d.Health != api.HealthUnknown || d.Detail != "asleep with its environment" {
			t.Errorf("%+v", d)
		}
	}
	_, err = e.Dial(t.Context())
	wantCode(t, "dial what is asleep", err, api.CodeAsleep)

	wake := func(asked bool) {
		t.Helper()
		if woken, err := e.Wake(t.Context(), asked, "a request"); err != nil || !woken {
			t.Errorf("%v, %v", woken, err)
		}
	}
	wake(false)
	wantAnswer(t, e, "http billing:8080 get", "empty")

	// Its owner wakes it just as a janitor is about to put its copies to sleep.
	follow := func(what string) {
		t.Helper()
		if have, err := r.c.copiesOf(t.Context(), ns, spec.Name); err != nil || have.Differ(r.deployment(t, ns, spec.Name)) {
			t.Errorf("%s: its copies are not as it is (%v)", what, err)
		}
	}
	r.sleep(t, ns, spec.Name)
	raced := false
	racing := r.through(t, func(rt http.RoundTripper) http.RoundTripper {
		return &before{RoundTripper: rt, suffix: "/" + spec.Name + "-billing", f: func() { raced = true; wake(true) }}
	})
	if _, err := racing.settle(t.Context(), ns, spec.Name); err != nil || !raced {
		t.Fatalf("%v; raced %v", err, raced)
	}
	follow("a use while a janitor acts")

	// Killed after any change while it wakes: a janitor ends it, and so does the next Open.
	changes := 0
	for done := false; !done; changes++ {
		r.sleepAll(t, ns, spec.Name)
		killed := newEnvironment(r.through(t, func(rt http.RoundTripper) http.RoundTripper { return &dying{RoundTripper: rt, left: changes} }), r.options.withDefaults(), r.deployment(t, ns, spec.Name))
		_, err := killed.Wake(t.Context(), true, "a request")
		if done = err == nil; changes == 1 {
			e = r.open(t, spec)
		} else {
			r.follow(t, ns, spec.Name)
		}
		follow("killed while it woke")
	}
	if changes < 4 { // the environment, two copies, and none
		t.Errorf("%d changes", changes-1)
	}

	// The switch. Staging's ledger gets an image that is not there.
	ledger, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), "ledger", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ledger.Spec.Replicas = new(int32(0)) // so that staging has no trouble of its own
	ledger.Spec.Template.Spec.Containers[0].Image = r.options.Registry + "/nothing:here"
	if _, err := r.kube.AppsV1().Deployments(ns).Update(t.Context(), ledger, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	ask(t, e, "uid")
	was, pod := r.deployment(t, ns, spec.Name), e.Info().Pod
	bad := spec
	bad.Dependencies = fresh("billing", "queue", "ledger")
	fails := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := Open(ctx, bad, r.options)
		wantCode(t, what, err, "image-pull")
		now := r.deployment(t, ns, spec.Name)
		if now.Annotations[annShape] != was.Annotations[annShape] || now.Annotations[annFresh] != was.Annotations[annFresh] || len(now.Spec.Template.Spec.HostAliases) != len(was.Spec.Template.Spec.HostAliases) {
			t.Errorf("%s: its shape is another: %v, %v", what, now.Annotations, now.Spec.Template.Spec.HostAliases)
		}
		eventually(t, what+": nothing of the copy is left", func() bool {
			for k := range r.everything(t, ns) {
				if strings.Contains(k, spec.Name+"-ledger") {
					return false
				}
			}
			return true
		})
	}
	fails("switch what runs")
	if now := r.deployment(t, ns, spec.Name); now.Generation != was.Generation {
		t.Error("what runs was changed")
	}
	if got := ask(t, e, "uid"); got == "" || e.Info().Pod != pod {
		t.Errorf("its pod was replaced: %s, was %s", e.Info().Pod, pod)
	}
	r.sleepAll(t, ns, spec.Name)
	fails("switch what sleeps")
	if now := r.deployment(t, ns, spec.Name); !lease.WasPutToSleep(now) {
		t.Errorf("it does not sleep again: %d replicas, %v", *now.Spec.Replicas, now.Annotations)
	}
	follow("switch what sleeps")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k := range r.everything(t, ns) {
		if strings.Contains(k, spec.Name) {
			t.Errorf("left: %s", k)
		}
	}
}
