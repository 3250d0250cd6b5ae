package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"fairlead.dev/api"
	"fairlead.dev/test/image"
)

// A team's application is staging: HTTP, gRPC, a real PostgreSQL, a real Redis, one that is slow to start and one that
// crashes. A service of it runs unmodified: first among staging's, then among copies of its own down to the databases.
func TestMarket(t *testing.T) {
	p := newKube(t)
	s := p.stageMarket(t)
	staging := "http://" + p.serviceAddress(t, "storefront") + ":8080"

	a := p.run(t, s.dir)
	a.live(t, "v1")
	found := p.dependencies(t, s)
	for _, name := range []string{"cart", "catalog", "pricing", "reviews"} {
		if d := found[name]; d.Mode != api.DependencyShared || d.Health != api.HealthReady || d.Workload != "Deployment/"+name {
			t.Errorf("shared: %+v", d)
		}
	}
	send(t, http.MethodPut, a.url(t)+"/products/anchor", "Anchor")
	send(t, http.MethodPost, a.url(t)+"/carts/ann/anchor", "")
	products, cart := send(t, http.MethodGet, staging+"/products", ""), send(t, http.MethodGet, staging+"/carts/ann", "")
	if !strings.Contains(products, `"name":"Anchor"`) || !strings.Contains(products, `"stars":4.5`) || cart != `{"anchor":1}` {
		t.Errorf("what was written through a shared dependency is not staging's: %s %s", products, cart)
	}
	if got := send(t, http.MethodGet, a.url(t)+"/products", ""); got != products {
		t.Errorf("%s here, %s in staging", got, products)
	}
	s.edit(t, "v2")
	a.live(t, "v2")
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	p.wantNothing(t)

	fresh := []string{"cart", "catalog", "postgres", "pricing", "redis", "reviews"}
	a = p.run(t, s.dir, "--fresh", strings.Join(fresh, ","))
	a.live(t, "v2")
	env := a.wait2(t).Name
	for _, says := range []string{
		"dependency pricing: pod " + env + "-pricing-", "container pricing runs and is not ready yet",
		"dependency reviews: pod " + env + "-reviews-", "container reviews ended with exit code 1; it is started again",
	} {
		if !slices.ContainsFunc(a.all(), func(e api.Event) bool {
			x, ok := e.(*api.EnvironmentEvent)
			return ok && strings.Contains(x.Reason, says)
		}) {
			t.Errorf("nobody was told %q", says)
		}
	}
	found = p.dependencies(t, s)
	for _, name := range fresh {
		if d := found[name]; d.Mode != api.DependencyFresh || d.Health != api.HealthReady {
			t.Errorf("fresh: %+v", d)
		}
	}
	if got := send(t, http.MethodGet, a.url(t)+"/products", ""); got != "[]" {
		t.Errorf("the fresh database has %s", got)
	}
	if got := send(t, http.MethodGet, a.url(t)+"/carts/ann", ""); got != "{}" {
		t.Errorf("the fresh Redis has %s", got)
	}
	send(t, http.MethodPut, a.url(t)+"/products/buoy", "Buoy")
	send(t, http.MethodPost, a.url(t)+"/carts/ann/buoy", "")
	if got := send(t, http.MethodGet, a.url(t)+"/products", ""); !strings.Contains(got, `"name":"Buoy"`) || strings.Contains(got, "Anchor") {
		t.Errorf("the fresh database has %s", got)
	}
	if got := send(t, http.MethodGet, a.url(t)+"/carts/ann", ""); got != `{"buoy":1}` {
		t.Errorf("the fresh Redis has %s", got)
	}
	if p, c := send(t, http.MethodGet, staging+"/products", ""), send(t, http.MethodGet, staging+"/carts/ann", ""); p != products || c != cart {
		t.Errorf("staging has now %s %s", p, c)
	}

	send(t, http.MethodPost, a.url(t)+"/reviews/crash", "")
	eventually(t, "the crash is told", func() error {
		if d := p.dependencies(t, s)["reviews"]; d.Health == api.HealthReady || !strings.Contains(d.Detail, "ended with exit code 7") || !strings.Contains(d.Detail, "crashing as told") {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	p.wantNothing(t)
	l, err := p.c.kube.CoreV1().PersistentVolumeClaims(p.ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(l.Items) != 1 {
		t.Errorf("%d claims are left, want staging's (%v)", len(l.Items), err)
	}
	if p, c := send(t, http.MethodGet, staging+"/products", ""), send(t, http.MethodGet, staging+"/carts/ann", ""); p != products || c != cart {
		t.Errorf("staging has now %s %s", p, c)
	}
}

// send returns the answer to a request, which must be a good one.
func send(t testing.TB, method, url, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s (%v)", method, url, res.Status, b, err)
	}
	return strings.TrimSpace(string(b))
}

// dependencies are what `fairlead deps` tells, by name.
func (p *place) dependencies(t testing.TB, s *service) map[string]api.Dependency {
	t.Helper()
	out := p.m.ok(t, s.dir, slices.Concat([]string{"deps", "--json"}, p.args)...)
	var r api.DependencyReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	by := map[string]api.Dependency{}
	for _, d := range r.Dependencies {
		by[d.Name] = d
	}
	return by
}

func (p *place) serviceAddress(t testing.TB, name string) string {
	t.Helper()
	svc, err := p.c.kube.CoreV1().Services(p.ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return svc.Spec.ClusterIP
}

// stageMarket deploys test/fixture/market from its own manifests, waits until all of it is ready, and returns its storefront.
func (p *place) stageMarket(t testing.TB) *service {
	t.Helper()
	root := filepath.Join(t.TempDir(), "market")
	if err := os.CopyFS(root, os.DirFS(filepath.Join(moduleDir(), "test", "fixture", "market"))); err != nil {
		t.Fatal(err)
	}
	s := &service{dir: filepath.Join(root, "cmd", "storefront"), version: filepath.Join(root, "cmd", "storefront", "version.go")}
	s.edit(t, "v1")
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", bin+"/", "./cmd/...")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	images := map[string]string{}
	push := func(name string, f func(context.Context, string) (string, error)) {
		t.Helper()
		ref, err := f(t.Context(), p.c.registry)
		if err != nil {
			skip(t, err.Error())
		}
		images["registry.example.com/"+name] = ref
	}
	push("postgres", image.Postgres)
	push("redis", image.Redis)
	for _, name := range []string{"storefront", "catalog", "cart", "pricing", "reviews"} {
		images["registry.example.com/market/"+name] = p.c.pushFile(t, filepath.Join(bin, name), "e2e/market-"+name)
	}
	p.volumes(t, 2)
	files, err := filepath.Glob(filepath.Join(root, "deploy", "*.yaml"))
	if err != nil || len(files) != 7 {
		t.Fatalf("%d manifests (%v)", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(text), "\n---\n") {
			p.applyDoc(t, doc, images)
		}
	}
	eventually(t, "staging is ready", func() error {
		ds, err := p.c.kube.AppsV1().Deployments(p.ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		ready := map[string]bool{}
		for _, d := range ds.Items {
			ready[d.Name] = d.Status.ReadyReplicas == 1
		}
		ss, err := p.c.kube.AppsV1().StatefulSets(p.ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, d := range ss.Items {
			ready[d.Name] = d.Status.ReadyReplicas == 1
		}
		for _, name := range slices.Sorted(maps.Keys(ready)) {
			if !ready[name] {
				return fmt.Errorf("%s is not", name)
			}
		}
		if len(ready) != 7 {
			return fmt.Errorf("%d workloads", len(ready))
		}
		return nil
	})
	return s
}

// applyDoc makes one object of a manifest, with images that the cluster has and a volume of the test's own.
func (p *place) applyDoc(t testing.TB, doc string, images map[string]string) {
	t.Helper()
	o, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(doc), nil, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
	pull := func(s *corev1.PodSpec) {
		t.Helper()
		for i := range s.Containers {
			c := &s.Containers[i]
			if images[c.Image] == "" {
				t.Fatalf("there is no image %s", c.Image)
			}
			c.Image = images[c.Image]
		}
	}
	ctx, core := t.Context(), p.c.kube.CoreV1()
	switch o := o.(type) {
	case *corev1.ConfigMap:
		_, err = core.ConfigMaps(p.ns).Create(ctx, o, metav1.CreateOptions{})
	case *corev1.Secret:
		_, err = core.Secrets(p.ns).Create(ctx, o, metav1.CreateOptions{})
	case *corev1.Service:
		_, err = core.Services(p.ns).Create(ctx, o, metav1.CreateOptions{})
	case *appsv1.Deployment:
		pull(&o.Spec.Template.Spec)
		_, err = p.c.kube.AppsV1().Deployments(p.ns).Create(ctx, o, metav1.CreateOptions{})
	case *appsv1.StatefulSet:
		pull(&o.Spec.Template.Spec)
		for i := range o.Spec.VolumeClaimTemplates {
			o.Spec.VolumeClaimTemplates[i].Spec.StorageClassName = &p.ns
		}
		_, err = p.c.kube.AppsV1().StatefulSets(p.ns).Create(ctx, o, metav1.CreateOptions{})
	default:
		t.Fatalf("no way to make a %T", o)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// volumes makes some on this machine, which is the cluster's node: it has no provisioner. Their class is the namespace's name.
func (p *place) volumes(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		dir, err := os.MkdirTemp("", "volume")
		if err == nil {
			err = os.Chmod(dir, 0o777)
		}
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%s-%d", p.ns, i)
		pvs := p.c.kube.CoreV1().PersistentVolumes()
		if _, err = pvs.Create(t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: p.ns, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := pvs.Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			os.RemoveAll(dir)
		})
	}
}
