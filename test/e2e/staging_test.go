package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"

	"fairlead.dev/api"
	"fairlead.dev/test/image"
)

// A service that runs in staging: the environment is made after it, beside it, and does it no harm.
func TestStagingTemplate(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	p.stage(t, p.c.push(t, s, "e2e/tiny"))
	staging := p.stagingPod(t)
	p.wantEndpoints(t, staging.Status.PodIP)

	a := p.run(t, s.dir)
	a.live(t, "v1")
	if e := a.wait2(t); e.Template != p.ns+"/tiny" {
		t.Errorf("template %q, want %s/tiny", e.Template, p.ns)
	}
	check := func() {
		t.Helper()
		for path, want := range map[string]string{
			"/args": "-port 8090 -drain 10ms", "/env?name=LITERAL": "of the Deployment", "/env?name=FROM_MAP": "of the ConfigMap", "/env?name=DRAIN": "10ms",
		} {
			if got, err := get(a.url(t) + path); err != nil || got != want {
				t.Errorf("%s: %q (%v), want %q", path, got, err, want)
			}
		}
		eventually(t, "the environment's pod is ready", func() error {
			for _, c := range p.c.pod(t, p.ns).Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					return nil
				}
			}
			return fmt.Errorf("%+v", p.c.pod(t, p.ns).Status.Conditions)
		})
	}
	check()
	for i := range 5 {
		v := fmt.Sprintf("v%d", i+2)
		s.edit(t, v)
		a.live(t, v)
	}
	st := a.running(t, "v6")
	if !slices.ContainsFunc(st.Ports, func(p api.Port) bool { return p.Port == 8090 && p.Main }) {
		t.Errorf("ports %+v", st.Ports)
	}
	check()
	p.wantRestarts(t, 0)
	ours := p.c.pod(t, p.ns)
	if ours.Spec.ServiceAccountName != "tiny" {
		t.Errorf("service account %q", ours.Spec.ServiceAccountName)
	}
	main := ours.Spec.Containers[0]
	if sc := main.SecurityContext; sc == nil || sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
		t.Errorf("security context %+v", sc)
	}
	if main.ReadinessProbe == nil || main.LivenessProbe == nil {
		t.Error("the probes are gone")
	}
	p.wantEndpoints(t, staging.Status.PodIP)

	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	p.wantNothing(t)
	now := p.stagingPod(t)
	if now.UID != staging.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the staging pod is %s with %d restarts, was %s", now.UID, now.Status.ContainerStatuses[0].RestartCount, staging.UID)
	}
	p.wantEndpoints(t, staging.Status.PodIP)
}

// The lines of the staging Deployment's other containers come beside the service's own: in order, once each, of a pod that
// took another's place too. Without the right to read them there is a warning. An init container that fails says why.
func TestOtherContainers(t *testing.T) {
	t.Parallel()
	p := newKube(t)
	s := newTiny(t, "v1")
	image := p.c.push(t, s, "e2e/tiny")
	p.stage(t, image, corev1.Container{Name: "beside", Args: []string{"-count"}})
	a := p.run(t, s.dir)
	a.live(t, "v1")
	// counted waits for lines of a pod's sidecar, and checks all that there are.
	counted := func(pod string, least int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d lines of %s", least, pod), func() error {
			n := 0
			for _, e := range a.all() {
				l, ok := e.(*api.LogEvent)
				if !ok || l.Process == "" {
					continue
				}
				if l.Process != pod+"/beside" {
					if !strings.HasSuffix(l.Process, "/beside") {
						t.Fatalf("a line of %s: %s", l.Process, l.Text)
					}
					continue
				}
				if l.Text != fmt.Sprintf("count %d", n) || time.Since(l.Time) > time.Hour {
					t.Fatalf("line %d of %s: %+v", n, l.Process, l)
				}
				n++
			}
			if n < least {
				return fmt.Errorf("%d lines", n)
			}
			return nil
		})
	}
	first := p.c.pod(t, p.ns).Name
	counted(first, 500)
	if err := p.c.kube.CoreV1().Pods(p.ns).Delete(t.Context(), first, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.wait(t, "lost", isEnv("lost"))
	a.wait(t, "connected", isEnv("connected"))
	a.running(t, "v1")
	second := p.c.pod(t, p.ns).Name
	if second == first {
		t.Fatal("it is the same pod")
	}
	counted(second, 500)
	counted(first, 500)
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}

	p.wantNothing(t)

	// Without the right.
	admin := slices.Clone(p.args)
	p.as(t, func(r *rbacv1.Role) {
		r.Rules = slices.DeleteFunc(r.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "pods/log") })
	})
	a = p.run(t, s.dir)
	w := a.wait(t, "a warning", isProblem(api.CodeNoLogs)).(*api.ProblemEvent)
	a.live(t, "v1")
	if w.Severity != api.SeverityWarning || !strings.Contains(w.Hint, "pods/log") {
		t.Errorf("%+v", w)
	}
	s.edit(t, "v2")
	a.live(t, "v2")
	for _, e := range a.all() {
		if x, ok := e.(*api.ProblemEvent); ok && x != w {
			t.Errorf("%+v", x)
		}
	}
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	p.wantNothing(t)

	p.args = admin
	d, err := p.c.kube.AppsV1().Deployments(p.ns).Get(t.Context(), "tiny", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := &d.Spec.Template.Spec
	spec.InitContainers = []corev1.Container{{Name: "migrate", Image: image, Args: []string{"-nonsense"}, SecurityContext: spec.Containers[0].SecurityContext}}
	if _, err := p.c.kube.AppsV1().Deployments(p.ns).Update(t.Context(), d, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	a = p.run(t, s.dir)
	l := a.wait(t, "the init container's words", isLine("flag provided but not defined: -nonsense")).(*api.LogEvent)
	if !strings.HasSuffix(l.Process, "/migrate") {
		t.Errorf("%+v", l)
	}
	if code := a.ended(t); code != 1 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
}

// push builds a service, and pushes an image of nothing else.
func (c *cluster) push(t testing.TB, s *service, as string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "tiny")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return c.pushFile(t, bin, as)
}

// pushFile pushes an image of nothing but an executable, which is its entry point.
func (c *cluster) pushFile(t testing.TB, bin, as string) string {
	t.Helper()
	name, err := image.Program(t.Context(), c.registry, as, bin)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// stage deploys the service as a staging environment has it, with sidecars, and waits until it is ready.
func (p *place) stage(t testing.TB, image string, sidecars ...corev1.Container) {
	t.Helper()
	ctx, kube := t.Context(), p.c.kube
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := kube.CoreV1().ServiceAccounts(p.ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "tiny"}}, metav1.CreateOptions{})
	must(err)
	_, err = kube.CoreV1().ConfigMaps(p.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "tiny"},
		Data: map[string]string{"FROM_MAP": "of the ConfigMap"}}, metav1.CreateOptions{})
	must(err)
	labels := map[string]string{"app": "tiny"}
	probe := func() *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3, ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/version", Port: intstr.FromString("http")}}}
	}
	restricted := &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	for i := range sidecars {
		sidecars[i].Image, sidecars[i].SecurityContext = image, restricted
	}
	_, err = kube.AppsV1().Deployments(p.ns).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "tiny", Labels: labels}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			ServiceAccountName: "tiny", TerminationGracePeriodSeconds: new(int64(1)),
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(1234)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: append([]corev1.Container{{
				Name: "tiny", Image: image, Args: []string{"-port", "8090", "-drain", "$(DRAIN)"},
				Ports:         []corev1.ContainerPort{{Name: "http", ContainerPort: 8090}},
				Env:           []corev1.EnvVar{{Name: "LITERAL", Value: "of the Deployment"}, {Name: "DRAIN", Value: "10ms"}},
				EnvFrom:       []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "tiny"}}}},
				LivenessProbe: probe(), ReadinessProbe: probe(), SecurityContext: restricted,
			}}, sidecars...),
		}},
	}}, metav1.CreateOptions{})
	must(err)
	_, err = kube.CoreV1().Services(p.ns).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "tiny"}, Spec: corev1.ServiceSpec{
		Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}}, metav1.CreateOptions{})
	must(err)
	eventually(t, "staging is ready", func() error {
		d, err := kube.AppsV1().Deployments(p.ns).Get(ctx, "tiny", metav1.GetOptions{})
		if err == nil && d.Status.ReadyReplicas != 1 {
			err = fmt.Errorf("%+v", d.Status)
		}
		return err
	})
}

// stagingPod is the only pod of the staging Deployment.
func (p *place) stagingPod(t testing.TB) *corev1.Pod {
	t.Helper()
	l, err := p.c.kube.CoreV1().Pods(p.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=tiny"})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Items) != 1 {
		t.Fatalf("%d staging pods, want one", len(l.Items))
	}
	return &l.Items[0]
}

// wantEndpoints checks whom the staging Service sends requests to.
func (p *place) wantEndpoints(t testing.TB, want ...string) {
	t.Helper()
	eventually(t, "endpoints", func() error {
		l, err := p.c.kube.DiscoveryV1().EndpointSlices(p.ns).List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=tiny"})
		if err != nil {
			return err
		}
		var got []string
		for _, s := range l.Items {
			for _, e := range s.Endpoints {
				got = append(got, e.Addresses...)
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
}

// The Role that `fairlead rbac` prints is enough for everything, and without a right of it a run is refused at once.
func TestPrintedRole(t *testing.T) {
	t.Run("enough", func(t *testing.T) {
		p := newKube(t)
		p.as(t, nil)
		s := newTiny(t, "v1")
		a := p.run(t, s.dir, "--keep", "--", "-port", "8080")
		a.live(t, "v1")
		s.edit(t, "v2")
		a.live(t, "v2")
		a.running(t, "v2")
		if err := p.c.kube.CoreV1().Pods(p.ns).Delete(context.Background(), p.c.pod(t, p.ns).Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		a.wait(t, "lost", isEnv("lost"))
		a.wait(t, "connected", isEnv("connected"))
		a.running(t, "v2")
		if out := p.m.ok(t, s.dir, "logs"); !strings.Contains(out, "starting v2") {
			t.Errorf("logs: %q", out)
		}
		if code := a.interrupt(t); code != 0 {
			t.Errorf("exit %d\n%s", code, a.stderr())
		}
		a = p.run(t, s.dir, "--", "-port", "8080")
		a.live(t, "v2")
		if e := a.wait2(t); !e.Resumed {
			t.Errorf("not resumed: %+v", e)
		}
		for _, e := range a.all() {
			if x, ok := e.(*api.ProblemEvent); ok {
				t.Errorf("problem: %+v", x.Problem)
			}
		}
		if code := a.interrupt(t); code != 0 {
			t.Errorf("exit %d\n%s", code, a.stderr())
		}
		p.wantNothing(t)
	})
	t.Run("without pods/exec", func(t *testing.T) {
		p := newKube(t)
		p.as(t, func(r *rbacv1.Role) {
			r.Rules = slices.DeleteFunc(r.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "pods/exec") })
		})
		s := newTiny(t, "v1")
		p.refused(t, 1, s.dir, nil, append([]string{"run", s.dir}, p.args...), "create pods/exec", "fairlead rbac")
	})
}

// as makes the place's user one who has the printed Role, less what edit takes away.
func (p *place) as(t testing.TB, edit func(*rbacv1.Role)) {
	t.Helper()
	ctx := t.Context()
	config := p.c.serviceAccount(t, p.ns, "dev")
	for doc := range strings.SplitSeq(p.m.ok(t, p.m.root, "rbac", "--namespace", p.ns, "--service-account", p.ns+"/dev"), "\n---\n") {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(doc), nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		switch o := o.(type) {
		case *rbacv1.Role:
			if edit != nil {
				edit(o)
			}
			_, err = p.c.kube.RbacV1().Roles(p.ns).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			_, err = p.c.kube.RbacV1().RoleBindings(p.ns).Create(ctx, o, metav1.CreateOptions{})
		default:
			t.Fatalf("rbac prints a %T", o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", config)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rights take effect", func() error {
		_, err := dev.CoreV1().Pods(p.ns).List(ctx, metav1.ListOptions{})
		return err
	})
	for i, s := range p.args {
		if s == p.c.kubeconfig {
			p.args[i] = config
		}
	}
}
