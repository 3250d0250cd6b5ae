package lease

import (
	"context"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// realCluster is the test cluster with a namespace of the test's own, and its clock.
func realCluster(t *testing.T) (appsclient.DeploymentInterface, *Clock) {
	t.Helper()
	file := os.Getenv("FAIRLEAD_TEST_KUBECONFIG")
	if file == "" {
		const why = "FAIRLEAD_TEST_KUBECONFIG does not name a cluster (test/cluster makes one)"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	clock := &Clock{}
	cfg.Wrap(clock.Wrap)
	kc, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n, err := kc.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "lease-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kc.CoreV1().Namespaces().Delete(context.Background(), n.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return kc.AppsV1().Deployments(n.Name), clock
}

// create makes a Deployment that is paused, so that it never has a pod, and records it.
func create(t *testing.T, ds appsclient.DeploymentInterface, name string) *appsv1.Deployment {
	t.Helper()
	l := map[string]string{"app": name}
	_, err := ds.Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{Paused: true, Selector: &metav1.LabelSelector{MatchLabels: l},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}}}}}, metav1.CreateOptions{FieldManager: "test"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Record(t.Context(), ds, settled(t, ds, name), &Policy{Sleep: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// settled waits until the Deployment's controller has seen its last change: its status would be a change meanwhile.
func settled(t *testing.T, ds appsclient.DeploymentInterface, name string) *appsv1.Deployment {
	t.Helper()
	w, err := ds.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name, TimeoutSeconds: new(int64(30))})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if d, ok := e.Object.(*appsv1.Deployment); ok && d.Status.ObservedGeneration == d.Generation && len(d.Status.Conditions) > 0 {
			return d
		}
	}
	t.Fatal("the Deployment's controller does not come")
	return nil
}

// onNewest does something with the newest object, again where the Deployment's controller was quicker.
func onNewest(t *testing.T, ds appsclient.DeploymentInterface, name string, do func(*appsv1.Deployment) error) {
	t.Helper()
	for range 20 {
		err := do(get(t, ds, name))
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
	t.Fatal("the Deployment is never left alone")
}

func get(t *testing.T, ds appsclient.DeploymentInterface, name string) *appsv1.Deployment {
	t.Helper()
	d, err := ds.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// nextSecond waits until the API server's clock shows another second than it did.
func nextSecond(t *testing.T, ds appsclient.DeploymentInterface, clock *Clock) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	var was time.Time
	for {
		if _, err := ds.List(t.Context(), metav1.ListOptions{Limit: 1}); err != nil {
			t.Fatal(err)
		}
		clock.mu.Lock()
		is := clock.date
		clock.mu.Unlock()
		if !was.IsZero() && !is.Equal(was) {
			return
		}
		was = is
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("the API server's clock stands still")
		}
	}
}

// What all of this rests on: the API server stamps each use, by itself, and nothing but a use.
func TestClusterStampsEachUse(t *testing.T) {
	ds, clock := realCluster(t)
	d := create(t, ds, "x")
	made := Read(d, DefaultPolicy).LastUse
	nextSecond(t, ds, clock)
	if err := Renew(t.Context(), ds, "x", d.UID, "a save"); err != nil {
		t.Fatal(err)
	}
	now, err := clock.Now()
	if err != nil {
		t.Fatal(err)
	}
	first := Read(get(t, ds, "x"), DefaultPolicy)
	if !first.LastUse.After(made) || first.LastUseWhy != "a save" || len(first.Bad) > 0 || first.Unrecorded || first.Sleep != time.Hour || first.Delete != 0 {
		t.Fatalf("made %v; %+v", made, first)
	}
	// Stamp and clock are of one server: they are as far apart as the request took, and each is up to a second late.
	if off := now.Sub(first.LastUse); off < -precision || off > 10*time.Second {
		t.Errorf("the clock is %v off the stamp", off)
	}
	// Others' writes do not count, nor does a keep, nor a look.
	nextSecond(t, ds, clock)
	if err := SetKeep(t.Context(), ds, "x", d.UID, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	onNewest(t, ds, "x", func(d *appsv1.Deployment) error {
		d.Annotations["example.test/by"] = "somebody"
		_, err := ds.Update(t.Context(), d, metav1.UpdateOptions{FieldManager: "somebody"})
		return err
	})
	if s := Read(get(t, ds, "x"), DefaultPolicy); !s.LastUse.Equal(first.LastUse) || s.KeepUntil.IsZero() {
		t.Errorf("others' writes count as a use: %+v", s)
	}
	onNewest(t, ds, "x", func(d *appsv1.Deployment) error { return PutToSleep(t.Context(), ds, d, now) })
	slept := get(t, ds, "x")
	if s := Read(slept, DefaultPolicy); !s.LastUse.Equal(first.LastUse) || !s.Asleep || !s.AsleepSince.Equal(now.UTC().Truncate(time.Second)) {
		t.Errorf("%+v", s)
	}
	// The same use in the same words is a new stamp.
	if err := Renew(t.Context(), ds, "x", d.UID, "a save"); err != nil {
		t.Fatal(err)
	}
	second := Read(get(t, ds, "x"), DefaultPolicy)
	if !second.LastUse.After(first.LastUse) {
		t.Errorf("a second use left the stamp at %v", second.LastUse)
	}
	onNewest(t, ds, "x", func(d *appsv1.Deployment) error { return Wake(t.Context(), ds, d, "asked for") })
	if s := Read(get(t, ds, "x"), DefaultPolicy); s.Asleep || !s.AsleepSince.IsZero() || s.LastUseWhy != "asked for" {
		t.Errorf("%+v", s)
	}
	if err := SetKeep(t.Context(), ds, "x", d.UID, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if s := Read(get(t, ds, "x"), DefaultPolicy); !s.KeepUntil.IsZero() {
		t.Errorf("%+v", s)
	}
	before := settled(t, ds, "x")
	if again, err := Record(t.Context(), ds, before, &Policy{Sleep: time.Hour}); err != nil || again.ResourceVersion != before.ResourceVersion {
		t.Errorf("what stands there already was written again: %v", err)
	}
	// Scaled down by a janitor, and up by somebody: the API server gives that no stamp, so it is written down.
	onNewest(t, ds, "x", func(d *appsv1.Deployment) error { return PutToSleep(t.Context(), ds, d, now) })
	nextSecond(t, ds, clock)
	onNewest(t, ds, "x", func(*appsv1.Deployment) error {
		scale, err := ds.GetScale(t.Context(), "x", metav1.GetOptions{})
		if err != nil {
			return err
		}
		scale.Spec.Replicas = 1
		_, err = ds.UpdateScale(t.Context(), "x", scale, metav1.UpdateOptions{FieldManager: "kubectl"})
		return err
	})
	if d := Decide(Read(get(t, ds, "x"), DefaultPolicy), now); d.Action != Woken {
		t.Errorf("scaled up: %+v", d)
	}
	onNewest(t, ds, "x", func(d *appsv1.Deployment) error { return NoteWoken(t.Context(), ds, d) })
	if s := Read(get(t, ds, "x"), DefaultPolicy); !s.LastUse.After(Read(before, DefaultPolicy).LastUse) || !s.AsleepSince.IsZero() {
		t.Errorf("scaling is no use: %+v", s)
	}
}

// A write is of the very object that it was decided on, or is none.
func TestClusterWritesAreOfOneObject(t *testing.T) {
	ds, clock := realCluster(t)
	d := create(t, ds, "x")
	now, err := clock.Now()
	if err != nil {
		t.Fatal(err)
	}
	stale := settled(t, ds, "x")
	if err := Renew(t.Context(), ds, "x", d.UID, "a save"); err != nil {
		t.Fatal(err)
	}
	if err := PutToSleep(t.Context(), ds, stale, now); !apierrors.IsConflict(err) {
		t.Errorf("put to sleep what was used meanwhile: %v", err)
	}
	if err := ds.Delete(t.Context(), "x", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := Renew(t.Context(), ds, "x", d.UID, "a save"); !apierrors.IsNotFound(err) {
		t.Errorf("renewed what is gone: %v", err)
	}
	other := create(t, ds, "x")
	for what, err := range map[string]error{
		"Renew":      Renew(t.Context(), ds, "x", d.UID, "a save"),
		"SetKeep":    SetKeep(t.Context(), ds, "x", d.UID, now),
		"PutToSleep": PutToSleep(t.Context(), ds, stale, now),
		"Wake":       Wake(t.Context(), ds, stale, "it"),
	} {
		if !apierrors.IsConflict(err) {
			t.Errorf("%s of another Deployment of the name: %v", what, err)
		}
	}
	if _, err := Record(t.Context(), ds, stale, &Policy{Sleep: time.Minute}); !apierrors.IsConflict(err) {
		t.Errorf("Record of another: %v", err)
	}
	if d := cmp.Diff(other.Annotations, get(t, ds, "x").Annotations); d != "" {
		t.Errorf("another Deployment of the name was changed: %s", d)
	}
}

type answer struct{ date string }

func (a answer) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{Header: http.Header{"Date": {a.date}}}, nil
}

func TestClock(t *testing.T) {
	c := &Clock{}
	if _, err := c.Now(); err == nil {
		t.Error("a clock that knows nothing tells the time")
	}
	for _, a := range []string{"", "yesterday"} {
		if _, err := c.Wrap(answer{a}).RoundTrip(nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Now(); err == nil {
		t.Error("a clock that was told nothing tells the time")
	}
	if _, err := c.Wrap(answer{t0.Format(http.TimeFormat)}).RoundTrip(nil); err != nil {
		t.Fatal(err)
	}
	if now, err := c.Now(); err != nil || now.Before(t0) || now.Sub(t0) > time.Minute {
		t.Errorf("%v, %v", now, err)
	}
}
