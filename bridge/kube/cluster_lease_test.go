package kube

import (
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// sleep puts an environment to sleep, as a janitor does, and waits until its pod is gone.
func (r *real) sleep(t *testing.T, ns, name string) {
	t.Helper()
	eventually(t, "the environment to sleep", func() bool {
		d := r.deployment(t, ns, name)
		err := lease.PutToSleep(t.Context(), r.kube.AppsV1().Deployments(ns), d, time.Now())
		if err != nil && !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	if err := r.c.podsGone(t.Context(), ns, labelEnvironment+"="+name, func(string) {}); err != nil {
		t.Fatal(err)
	}
}

func (r *real) deployment(t *testing.T, ns, name string) *appsv1.Deployment {
	t.Helper()
	d, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestClusterLease(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	r.options = r.as(t, ns, nil) // a lease takes no right that an environment does not
	r.options.Lease = &lease.Policy{Sleep: time.Hour, Delete: 0}
	spec := randomSpec()
	e := r.open(t, spec)
	d := r.deployment(t, ns, spec.Name)
	if s := lease.Read(d, lease.DefaultPolicy); s.Unrecorded || len(s.Bad) > 0 || s.Policy != *r.options.Lease {
		t.Errorf("as it was made: %+v", s)
	}
	if err := e.Renew(t.Context(), "a save"); err != nil {
		t.Fatal(err)
	}
	if s := lease.Read(r.deployment(t, ns, spec.Name), lease.DefaultPolicy); s.LastUseWhy != "a save" {
		t.Errorf("%+v", s)
	}

	// Another policy changes the lease and not the pod.
	r.options.Lease = &lease.Policy{Sleep: 2 * time.Hour, Delete: 24 * time.Hour}
	again := r.open(t, spec)
	if s := lease.Read(r.deployment(t, ns, spec.Name), lease.DefaultPolicy); s.Policy != *r.options.Lease {
		t.Errorf("%+v", s)
	}
	if again.Info().Pod != e.Info().Pod {
		t.Error("another policy replaced the pod")
	}

	until, err := e.KeepFor(t.Context(), 3*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := e.Kept(t.Context()); err != nil || !kept.Equal(until.Truncate(time.Second)) {
		t.Errorf("kept until %v, %v; want %v", kept, err, until)
	}
	if err := e.KeepUntil(t.Context(), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if kept, err := e.Kept(t.Context()); err != nil || !kept.IsZero() {
		t.Errorf("kept until %v, %v", kept, err)
	}

	// Asleep: a Dial does not wake it; who holds it does, and so does the next Open.
	r.sleep(t, ns, spec.Name)
	looked, err := Lookup(t.Context(), r.options, ns, spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = looked.Dial(t.Context())
	wantCode(t, "dial what is asleep", err, api.CodeAsleep)
	if woken, err := e.Wake(t.Context(), false, "it came back"); err != nil || !woken {
		t.Errorf("%v, %v", woken, err)
	}
	if got := ask(t, e, "uid"); got != imageUser {
		t.Errorf("uid %q", got)
	}
	if p := r.progress(); !strings.Contains(p, "waking the environment") {
		t.Errorf("nobody was told:\n%s", p)
	}
	r.sleep(t, ns, spec.Name)
	e = r.open(t, spec)
	if got := ask(t, e, "uid"); got != imageUser {
		t.Errorf("uid %q", got)
	}
	if s := lease.Read(r.deployment(t, ns, spec.Name), lease.DefaultPolicy); s.Asleep || !s.AsleepSince.IsZero() {
		t.Errorf("%+v", s)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "renew what is gone", e.Renew(t.Context(), "a save"), "gone")
	r.wantNothing(t, ns, spec.Name)
}

// A copy of an environment, with every label and annotation, is nobody's environment.
func TestClusterCopyIsLeftAlone(t *testing.T) {
	r := realCluster(t)
	from := r.newNamespace(t, "restricted")
	spec := randomSpec()
	e := r.open(t, spec)
	original := r.deployment(t, from, spec.Name)
	ns := r.newNamespace(t, "restricted")
	duplicate, err := r.kube.AppsV1().Deployments(ns).Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Name: spec.Name, Labels: original.Labels, Annotations: original.Annotations}, Spec: original.Spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if IsEnvironment(duplicate) || !IsEnvironment(original) {
		t.Error("the copy is taken for the environment")
	}
	_, err = Open(t.Context(), spec, r.options)
	wantCode(t, "open over a copy", err, "name-taken")
	_, err = Lookup(t.Context(), r.options, ns, spec.Name)
	wantCode(t, "look at a copy", err, "gone")
	if found, err := Find(t.Context(), r.options, Filter{}); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
	is := r.deployment(t, ns, spec.Name)
	if is.UID != duplicate.UID || is.Generation != duplicate.Generation || len(is.Annotations) < len(duplicate.Annotations) {
		t.Errorf("the copy was changed: %+v", is.ObjectMeta)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is found and then deleted, before it is written to, is made anew.
func TestClusterOpenWhileItGoes(t *testing.T) {
	r := realCluster(t)
	spec := randomSpec()
	e := r.open(t, spec) // in a namespace of its own
	ns := e.namespace
	t.Cleanup(func() {
		if e, err := Lookup(t.Context(), r.options, ns, spec.Name); err == nil {
			e.Delete(t.Context())
		}
	})
	o := r.options.withDefaults()
	other := spec
	other.Trees = map[string]string{"static": "/srv/other"} // another shape, so that it is written to
	s, err := r.c.survey(t.Context(), other, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	op := &opening{survey: s, c: r.c, o: o, spec: other}
	made, err := op.run(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, r.progress())
	}
	if got := ask(t, made, "uid"); got != imageUser {
		t.Errorf("uid %q", got)
	}
	if err := made.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.kube.CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{}); !isNotFound(err) {
		t.Errorf("the namespace: %v", err)
	}
}
