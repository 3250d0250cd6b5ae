package kube

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// image is the stand-in's, pushed: what a staging Deployment of a test can run.
func (r *real) image(t *testing.T) string {
	t.Helper()
	s := &survey{}
	var err error
	if s.payload, err = readPayload(r.options); err != nil {
		t.Fatal(err)
	}
	if err := s.findImage(t.Context(), r.options); err != nil {
		t.Fatal(err)
	}
	if s.unpushed != nil {
		if _, err := s.registry.write(t.Context(), s.payload, s.unpushed); err != nil {
			t.Fatal(err)
		}
	}
	return s.image
}

// stage makes a staging Deployment that passes "restricted".
func (r *real) stage(t *testing.T, ns string, edit func(*appsv1.Deployment)) {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "svc", Namespace: ns}, Spec: appsv1.DeploymentSpec{
		Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "svc"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "svc"}}, Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(1234)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "svc", Image: r.image(t), Args: []string{"serve", "--level=$(LEVEL)"},
				Env:             []corev1.EnvVar{{Name: "LEVEL", Value: "debug"}},
				EnvFrom:         []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
				Ports:           []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				SecurityContext: restricted(),
				ReadinessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}, PeriodSeconds: 1},
				LivenessProbe:   &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")}}, PeriodSeconds: 1},
			}},
		}},
	}}
	if edit != nil {
		edit(d)
	}
	if _, err := r.kube.AppsV1().Deployments(ns).Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (r *real) settings(t *testing.T, ns string) {
	t.Helper()
	if _, err := r.kube.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"COLOR": "green"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestClusterLikeStaging(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	r.settings(t, ns)
	r.stage(t, ns, nil)
	spec := randomSpec()
	e := r.open(t, spec)
	if i := e.Info(); i.Template != ns+"/svc" {
		t.Errorf("%+v", i)
	}
	// The image's entrypoint is the stand-in itself, so the arguments are the Deployment's.
	if diff := cmp.Diff(api.Process{Args: []string{"serve", "--level=debug"}, Port: 8080}, e.Process()); diff != "" {
		t.Error(diff)
	}
	env := strings.Split(ask(t, e, "env"), "\x00")
	for _, want := range []string{"COLOR=green", "LEVEL=debug"} {
		if !strings.Contains(strings.Join(env, "\n")+"\n", want+"\n") {
			t.Errorf("no %s in %q", want, env)
		}
	}
	if got := ask(t, e, "uid"); got != "1234" {
		t.Errorf("uid %q", got)
	}
	// The probes go through the supervisor: the pod becomes ready though nothing listens on 8080.
	w, err := r.kube.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{LabelSelector: labelEnvironment + "=" + spec.Name})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	limit := time.After(30 * time.Second)
	for ready := false; !ready; {
		select {
		case ev := <-w.ResultChan():
			if p, ok := ev.Object.(*corev1.Pod); ok {
				for _, c := range p.Status.Conditions {
					ready = ready || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
				}
			}
		case <-limit:
			t.Fatal("the pod does not become ready")
		}
	}

	// Staging changes: the next Open replaces the pod and says so.
	was := e.Info().Pod
	change := `[{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "info"}]`
	if _, err := r.kube.AppsV1().Deployments(ns).Patch(t.Context(), "svc", types.JSONPatchType, []byte(change), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	e = r.open(t, spec)
	if e.Info().Pod == was || !strings.Contains(r.progress(), "replacing the pod: the staging Deployment or the settings have changed") {
		t.Errorf("%+v\n%s", e.Info(), r.progress())
	}
	if env := ask(t, e, "env"); !strings.Contains(env, "LEVEL=info") {
		t.Error(env)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantNothing(t, ns, spec.Name)
	if _, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), "svc", metav1.GetOptions{}); err != nil {
		t.Errorf("staging: %v", err)
	}
}

func TestClusterForeignDeployment(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	spec := randomSpec()
	r.stage(t, ns, func(d *appsv1.Deployment) { d.Name = spec.Name })
	before, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), spec.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), spec, r.options)
	wantCode(t, "open", err, "name-taken")
	_, err = Lookup(t.Context(), r.options, ns, spec.Name)
	wantCode(t, "lookup", err, "gone")
	after, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), spec.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.Spec, after.Spec); diff != "" || before.UID != after.UID || cmp.Diff(before.Labels, after.Labels) != "" {
		t.Errorf("it was touched: %s", diff)
	}
}

// What cannot become a running pod is told at once, in the cluster's words, and leaves nothing.
func TestClusterPodThatNeverRuns(t *testing.T) {
	r := realCluster(t)
	for name, c := range map[string]struct {
		edit  func(*appsv1.Deployment)
		quota bool
		opts  func(*Options)
		code  string
		says  string
	}{
		"pod security": {edit: func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.SecurityContext = nil
			d.Spec.Template.Spec.Containers[0].SecurityContext = nil
		}, code: "pod-refused", says: "violates PodSecurity"},
		"quota": {quota: true, code: "pod-refused", says: "quota"},
		"no image": {edit: func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Image = r.options.Registry + "/missing:1"
		}, code: "image-pull", says: "missing:1 cannot be pulled"},
		"bad image": {edit: func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "Not An Image" }, code: "image-pull", says: "Not An Image"},
		"no config map": {edit: func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].EnvFrom[0].ConfigMapRef.Name = "missing"
		}, code: "pod-start", says: `configmap "missing" not found`},
		"not executable": {opts: func(o *Options) {
			o.Payload = func(arch string) ([]byte, error) { return []byte("neither fish nor flesh for " + arch), nil }
		}, code: "unsupported-arch", says: "exec format error"},
		"no platform": {opts: func(o *Options) {
			o.Payload = func(arch string) ([]byte, error) {
				if arch == runtime.GOARCH {
					return nil, errors.ErrUnsupported
				}
				return []byte("for another machine"), nil
			}
		}, code: "unsupported-arch", says: "node1"},
		"install fails": {edit: func(d *appsv1.Deployment) {
			s := &d.Spec.Template.Spec
			s.InitContainers = []corev1.Container{{Name: "prepare", Image: s.Containers[0].Image, Args: []string{"no-such-command"}, SecurityContext: restricted()}}
		}, code: "init-failed", says: "init container prepare failed: exit code 1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &real{kube: r.kube, c: r.c, options: r.options}
			ns := r.newNamespace(t, "restricted")
			r.settings(t, ns)
			r.stage(t, ns, c.edit)
			if c.quota {
				if _, err := r.kube.CoreV1().ResourceQuotas(ns).Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"},
					Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}}}, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			o := r.options
			if c.opts != nil {
				c.opts(&o)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			spec := randomSpec()
			start := time.Now()
			_, err := Open(ctx, spec, o)
			t.Logf("after %v: %v", time.Since(start).Round(time.Millisecond), err)
			wantCode(t, name, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %q in it", err, c.says)
			}
			// The pod takes its time to end; that it is on its way is what counts.
			if err := r.c.podsGone(ctx, ns, labelEnvironment+"="+spec.Name, func(string) {}); err != nil {
				t.Error(err)
			}
			eventually(t, "the ReplicaSet to be collected", func() bool {
				l, err := r.kube.AppsV1().ReplicaSets(ns).List(ctx, metav1.ListOptions{LabelSelector: labelEnvironment})
				return err == nil && len(l.Items) == 0
			})
			r.wantNothing(t, ns, spec.Name)
		})
	}
}

// A volume that is not there is told in events only.
func TestClusterMissingVolume(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	r.settings(t, ns)
	r.stage(t, ns, func(d *appsv1.Deployment) {
		s := &d.Spec.Template.Spec
		s.Volumes = []corev1.Volume{{Name: "keys", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "missing-keys"}}}}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "keys", MountPath: "/keys"}}
	})
	// Long enough for a busy node to have tried to mount it, and all of it is waited for.
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	_, err := Open(ctx, randomSpec(), r.options)
	wantCode(t, "open", err, "pod-not-ready")
	if err != nil && !strings.Contains(err.Error(), `secret "missing-keys" not found`) {
		t.Error(err)
	}
}
