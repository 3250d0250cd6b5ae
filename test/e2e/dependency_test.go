package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"fairlead.dev/api"
)

// A dependency is found in the staging Deployment, told with its reason, and reached under its own name: staging's at
// first, a copy where it is fresh, and staging's again. It goes with the environment, which is in a namespace of its own, and
// staging stays as it was.
func TestDependencies(t *testing.T) {
	t.Parallel()
	p := newIsolated(t)
	s := newTiny(t, "v1")
	p.stage(t, p.c.push(t, s, "e2e/tiny"))
	peer := p.stagePeer(t)

	var report struct{ Dependencies []api.Dependency }
	deps := func(name string) api.Dependency {
		t.Helper()
		out := p.m.ok(t, s.dir, slices.Concat([]string{"deps", "--json"}, p.args)...)
		report.Dependencies = nil
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		for _, d := range report.Dependencies {
			if d.Name == name {
				return d
			}
		}
		t.Fatalf("%s was not found: %s", name, out)
		return api.Dependency{}
	}
	if d := deps("peer"); d.Mode != api.DependencyShared || d.Workload != "Deployment/peer" || d.Health != api.HealthReady || strings.Join(d.Why, "") != "PEER_URL of ConfigMap tiny" {
		t.Errorf("%+v", d)
	}
	if out := p.m.ok(t, s.dir, slices.Concat([]string{"deps"}, p.args)...); !strings.Contains(out, "PEER_URL of ConfigMap tiny") || !strings.Contains(out, "dependencies:\n    peer: fresh") {
		t.Errorf("deps says:\n%s", out)
	}

	who := func(a *agent) string {
		t.Helper()
		got, err := get(a.url(t) + "/fetch?url=" + url.QueryEscape("http://peer:8090/env?name=HOSTNAME"))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	a := p.run(t, s.dir)
	a.live(t, "v1")
	if got := who(a); got != peer.Name {
		t.Errorf("shared: %q answers, want %q", got, peer.Name)
	}
	own := a.wait2(t).Namespace
	if own == p.ns {
		t.Error("the environment is in staging's namespace")
	}
	at := []string{"--kubeconfig", p.c.kubeconfig, "--namespace", p.ns}
	if all := p.envs(t, at...); len(all) != 1 || all[0].Namespace != own || all[0].State != "used" {
		t.Errorf("env list of staging's namespace: %+v", all)
	}
	// What another may have left of a namespace is not this one's, whatever its labels say.
	foreign := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: own + "-x", Labels: map[string]string{"fairlead.dev/environment": "x", "fairlead.dev/staging": p.ns}}}
	if _, err := p.c.kube.CoreV1().Namespaces().Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.c.kube.CoreV1().Namespaces().Delete(context.Background(), foreign.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	if out := p.m.ok(t, s.dir, append([]string{"env", "gc"}, at...)...); !strings.Contains(out, "nothing to do: 1 environments stay") {
		t.Errorf("env gc says:\n%s", out)
	}
	gone := func() {
		t.Helper()
		p.wantNothing(t)
		if n, err := p.c.kube.CoreV1().Namespaces().Get(t.Context(), own, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the environment's namespace is left: %+v, %v", n, err)
		}
	}
	// copied tells whether a pod of the copy in the environment's namespace is named.
	copied := func(name string) bool {
		t.Helper()
		l, err := p.c.kube.CoreV1().Pods(own).List(t.Context(), metav1.ListOptions{LabelSelector: "fairlead.dev/dependency=peer"})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(l.Items, func(o corev1.Pod) bool { return o.Name == name })
	}

	// Switched while it runs: the pod is another, the session the same. It holds under the next agent too.
	toSwitch := func(args ...string) []string { return slices.Concat([]string{"deps"}, p.args, args) }
	pod := p.c.pod(t, own).Name
	p.m.ok(t, s.dir, toSwitch("--fresh", "peer")...)
	a.live(t, "v1")
	if got := who(a); !copied(got) {
		t.Errorf("switched to fresh: %q answers, want a pod of the copy", got)
	}
	if now := p.c.pod(t, own).Name; now == pod {
		t.Errorf("the pod is still %s", pod)
	}
	if n := a.count(0, isEnv("lost")); n > 0 {
		t.Errorf("a switch was told as %d losses", n)
	}
	a.kill(t)
	a = p.run(t, s.dir)
	a.live(t, "v1")
	if got := who(a); !copied(got) {
		t.Errorf("under the next agent %q answers, want a pod of the copy", got)
	}
	// What cannot be had leaves everything as it is, whether that is seen at once or while the copy starts.
	p.stageBroken(t)
	for dep, want := range map[string]string{"nothing": "there is no Service nothing", "broken": "cannot be pulled"} {
		r := p.m.fairlead(t, s.dir, toSwitch("--fresh", dep)...)
		if r.code != 1 || !strings.Contains(r.stderr, dep+" is not fresh: ") || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("fresh %s: %+v", dep, r)
		}
	}
	eventually(t, "the service to run as before", func() error {
		got, err := get(a.url(t) + "/fetch?url=" + url.QueryEscape("http://peer:8090/env?name=HOSTNAME"))
		if err != nil || !copied(got) {
			return fmt.Errorf("%q answers (%v), want a pod of the copy", got, err)
		}
		return nil
	})
	p.m.ok(t, s.dir, toSwitch("--shared", "peer")...)
	a.live(t, "v1")
	if got := who(a); got != peer.Name {
		t.Errorf("shared again: %q answers, want %q", got, peer.Name)
	}
	if left := p.c.copies(t, own); len(left) > 0 {
		t.Errorf("left of the copies: %v", left)
	}
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	gone()

	write(t, filepath.Join(s.dir, "fairlead.yaml"), "version: 1\ndependencies: {peer: fresh}\n")
	a = p.run(t, s.dir)
	a.live(t, "v1")
	got := who(a)
	if !copied(got) {
		t.Errorf("fresh: %q answers, want a pod of the copy", got)
	}
	if d := deps("peer"); d.Mode != api.DependencyFresh || d.Health != api.HealthReady {
		t.Errorf("%+v", d)
	}
	s.edit(t, "v2")
	a.live(t, "v2")
	if now := who(a); now != got {
		t.Errorf("after a save %q answers, it was %q", now, got)
	}
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	gone()

	// A flag goes before the file.
	a = p.run(t, s.dir, "--shared", "peer")
	a.live(t, "v2")
	if got := who(a); got != peer.Name {
		t.Errorf("shared again: %q answers, want %q", got, peer.Name)
	}
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	now, err := p.c.kube.CoreV1().Pods(p.ns).Get(t.Context(), peer.Name, metav1.GetOptions{})
	if err != nil || now.UID != peer.UID || now.Generation != peer.Generation {
		t.Errorf("staging's pod is %+v (%v)", now, err)
	}
}

// What cannot be had is refused with what to do, before anything is made.
func TestDependencyRefusals(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	p.stage(t, p.c.push(t, s, "e2e/tiny"))
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"--fresh", "nothing"}, []string{"there is no Service nothing", "fairlead deps"}},
		{[]string{"--fresh", "tiny"}, []string{"the service itself"}},
		{[]string{"--fresh", "A B"}, []string{"--fresh", "not a Service's name"}},
		{[]string{"--fresh", "tiny", "--shared", "tiny"}, []string{"both --fresh and --shared"}},
	} {
		r := p.m.fairlead(t, s.dir, slices.Concat([]string{"run"}, p.args, tt.args)...)
		for _, w := range tt.want {
			if r.code == 0 || !strings.Contains(r.stderr, w) {
				t.Errorf("%v: exit %d, want %q in\n%s", tt.args, r.code, w, r.stderr)
			}
		}
	}
	p.wantNothing(t)
}

// stageBroken makes a service of staging whose image is not there.
func (p *place) stageBroken(t testing.TB) {
	t.Helper()
	ctx, kube, labels := t.Context(), p.c.kube, map[string]string{"app": "broken"}
	d, err := kube.AppsV1().Deployments(p.ns).Get(ctx, "peer", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := *d.Spec.Template.Spec.DeepCopy()
	spec.Containers[0].Image = p.c.registry + "/not-there:v1"
	if _, err := kube.AppsV1().Deployments(p.ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := kube.CoreV1().Services(p.ns).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Spec: corev1.ServiceSpec{
		Selector: labels, Ports: []corev1.ServicePort{{Port: 8090, TargetPort: intstr.FromString("http")}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// copies are the Deployments and Services that environments have of their dependencies.
func (c *cluster) copies(t testing.TB, ns string) (out []string) {
	t.Helper()
	o := metav1.ListOptions{LabelSelector: "fairlead.dev/dependency-of"}
	ds, err := c.kube.AppsV1().Deployments(ns).List(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ss, err := c.kube.CoreV1().Services(ns).List(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ds.Items {
		out = append(out, "Deployment "+d.Name)
	}
	for _, s := range ss.Items {
		out = append(out, "Service "+s.Name)
	}
	return out
}

// stagePeer makes a second service of staging's image, which the first one's ConfigMap names, and returns its pod.
func (p *place) stagePeer(t testing.TB) *corev1.Pod {
	t.Helper()
	ctx, kube := t.Context(), p.c.kube
	d, err := kube.AppsV1().Deployments(p.ns).Get(ctx, "tiny", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "peer"}
	spec := *d.Spec.Template.Spec.DeepCopy()
	spec.Containers = spec.Containers[:1]
	if _, err = kube.AppsV1().Deployments(p.ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "peer"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err = kube.CoreV1().Services(p.ns).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "peer"}, Spec: corev1.ServiceSpec{
		Selector: labels, Ports: []corev1.ServicePort{{Port: 8090, TargetPort: intstr.FromString("http")}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m, err := kube.CoreV1().ConfigMaps(p.ns).Get(ctx, "tiny", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.Data["PEER_URL"] = "http://peer:8090/"
	if _, err := kube.CoreV1().ConfigMaps(p.ns).Update(ctx, m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	var pod *corev1.Pod
	eventually(t, "the peer is ready", func() error {
		// The Deployment's own count comes later than the pod's condition, and it is what is told.
		if d, err := kube.AppsV1().Deployments(p.ns).Get(ctx, "peer", metav1.GetOptions{}); err != nil || d.Status.ReadyReplicas != 1 {
			return fmt.Errorf("the Deployment: %v", err)
		}
		l, err := kube.CoreV1().Pods(p.ns).List(ctx, metav1.ListOptions{LabelSelector: "app=peer"})
		if err != nil {
			return err
		}
		for i := range l.Items {
			for _, c := range l.Items[i].Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					pod = &l.Items[i]
					return nil
				}
			}
		}
		return fmt.Errorf("%d pods", len(l.Items))
	})
	return pod
}
