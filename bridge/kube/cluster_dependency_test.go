package kube

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/dependency"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
)

// stagingYAML is a service, svc, with three dependencies: a real Redis, a real PostgreSQL with a volume and a headless
// Service, and one that speaks HTTP and calls back.
const stagingYAML = `
apiVersion: v1
kind: ConfigMap
metadata: {name: svc}
data: {REDIS_ADDR: "redis:6379"}
---
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: s3cret}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: svc}
spec:
  selector: {matchLabels: {app: svc}}
  template:
    metadata: {labels: {app: svc}}
    spec:
      containers:
        - name: svc
          image: BACKEND_IMAGE
          envFrom: [{configMapRef: {name: svc}}]
          env:
            - {name: PGUSER, value: shop}
            - {name: PGDATABASE, value: shop}
            - {name: PGPASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
            - {name: DATABASE_URL, value: "postgres://shop:$(PGPASSWORD)@db.NAMESPACE.svc.cluster.local:5432/shop"}
            - {name: BILLING_URL, value: "http://billing:8080/"}
---
apiVersion: v1
kind: Service
metadata: {name: redis}
spec: {selector: {app: redis}, ports: [{port: 6379}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis}
spec:
  replicas: 1
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec:
      containers: [{name: redis, image: REDIS_IMAGE, ports: [{containerPort: 6379}], readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: db
          image: POSTGRES_IMAGE
          env:
            - {name: POSTGRES_USER, value: shop}
            - {name: POSTGRES_DB, value: shop}
            - {name: POSTGRES_PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
          ports: [{containerPort: 5432}]
          readinessProbe: {tcpSocket: {port: 5432}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], storageClassName: NAMESPACE, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: billing}
spec: {selector: {app: billing}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: billing}
spec:
  selector: {matchLabels: {app: billing}}
  template:
    metadata: {labels: {app: billing}}
    spec:
      containers: [{name: billing, image: BACKEND_IMAGE, env: [{name: PEER_URL, value: "http://ledger:8080/"}], readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Service
metadata: {name: ledger}
spec: {selector: {app: ledger}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ledger}
spec:
  selector: {matchLabels: {app: ledger}}
  template:
    metadata: {labels: {app: ledger}}
    spec:
      containers: [{name: ledger, image: BACKEND_IMAGE, env: [{name: PEER_URL, value: "http://billing:8080/"}], readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}}]
`

// apply makes the objects of a YAML text in a namespace, with the names in capitals replaced.
func (r *real) apply(t testing.TB, ns, text string, replace ...string) {
	t.Helper()
	ctx := t.Context()
	text = strings.NewReplacer(append([]string{"NAMESPACE", ns}, replace...)...).Replace(text)
	for doc := range strings.SplitSeq(text, "\n---\n") {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(doc), nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		switch o := o.(type) {
		case *corev1.ConfigMap:
			_, err = r.kube.CoreV1().ConfigMaps(ns).Create(ctx, o, metav1.CreateOptions{})
		case *corev1.Secret:
			_, err = r.kube.CoreV1().Secrets(ns).Create(ctx, o, metav1.CreateOptions{})
		case *corev1.Service:
			_, err = r.kube.CoreV1().Services(ns).Create(ctx, o, metav1.CreateOptions{})
		case *corev1.ResourceQuota:
			_, err = r.kube.CoreV1().ResourceQuotas(ns).Create(ctx, o, metav1.CreateOptions{})
		case *appsv1.Deployment:
			_, err = r.kube.AppsV1().Deployments(ns).Create(ctx, o, metav1.CreateOptions{})
		case *appsv1.StatefulSet:
			_, err = r.kube.AppsV1().StatefulSets(ns).Create(ctx, o, metav1.CreateOptions{})
		case *batchv1.CronJob:
			_, err = r.kube.BatchV1().CronJobs(ns).Create(ctx, o, metav1.CreateOptions{})
		default:
			t.Fatalf("no way to make a %T", o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// volumes makes some on this machine, which is the cluster's node: it has no provisioner.
func (r *real) volumes(t testing.TB, class string, n int) {
	t.Helper()
	for i := range n {
		dir, err := os.MkdirTemp("", "volume")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%s-%d", class, i)
		_, err = r.kube.CoreV1().PersistentVolumes().Create(t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: class, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.kube.CoreV1().PersistentVolumes().Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
	}
}

// ready waits for the pods of staging.
func (r *real) ready(t testing.TB, ns string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		l, err := r.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for i := range l.Items {
			if isReady(&l.Items[i]) {
				count++
			}
		}
		if count >= n {
			return
		}
		w, err := r.kube.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{ResourceVersion: l.ResourceVersion})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.ResultChan():
		case <-ctx.Done():
			t.Fatalf("%d of %d pods of staging are ready", count, n)
		}
		w.Stop()
	}
}

// everything is each object of a namespace with its UID and, but for those whose status is never at rest, its version.
func (r *real) everything(t testing.TB, ns string) map[string]string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	lists, err := r.kube.Discovery().ServerPreferredNamespacedResources()
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(r.c.config)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, l := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "get"}}, lists) {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, res := range l.APIResources {
			if res.Kind == "Event" {
				continue
			}
			items, err := dyn.Resource(gv.WithResource(res.Name)).Namespace(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range items.Items {
				out[res.Kind+"/"+o.GetName()] = string(o.GetUID()) + "@" + o.GetResourceVersion()
			}
		}
	}
	return out
}

func found(t testing.TB, all []api.Dependency, name string) api.Dependency {
	t.Helper()
	i := slices.IndexFunc(all, func(d api.Dependency) bool { return d.Name == name })
	if i < 0 {
		t.Fatalf("%s is not among %+v", name, all)
	}
	return all[i]
}

func fresh(names ...string) map[string]api.DependencyWish {
	out := map[string]api.DependencyWish{}
	for _, n := range names {
		out[n] = api.DependencyWish{Mode: api.DependencyFresh}
	}
	return out
}

func wantAnswer(t testing.TB, e bridge.Environment, word, want string) {
	t.Helper()
	if got := ask(t, e, word); got != want {
		t.Errorf("%s: %q, want %q", word, got, want)
	}
}

// Found with reasons; shared until asked otherwise; fresh ones empty and by the same names; shared again; gone.
func TestClusterDependencies(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "baseline")
	r.volumes(t, ns, 2)
	backend := r.backendImage(t)
	r.apply(t, ns, stagingYAML, "BACKEND_IMAGE", backend, "REDIS_IMAGE", r.redisImage(t), "POSTGRES_IMAGE", r.postgresImage(t))
	r.ready(t, ns, 5)
	before := r.everything(t, ns)
	spec := randomSpec()

	rep, err := FindDependencies(t.Context(), spec, r.options)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range rep.Dependencies {
		got = append(got, fmt.Sprintf("%s %s %s %s %s %v %s", d.Name, d.Mode, d.Engine, d.Workload, d.Health, d.Ports, strings.Join(d.Why, "; ")))
	}
	want := []string{
		"billing shared  Deployment/billing ready [8080] BILLING_URL of Deployment svc",
		"db shared postgresql StatefulSet/db ready [5432] DATABASE_URL of Deployment svc",
		"redis shared redis Deployment/redis ready [6379] REDIS_ADDR of ConfigMap svc",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s\n%q", d, rep.Notes)
	}

	db := "postgres db." + ns + ".svc.cluster.local:5432 "
	start := time.Now()
	e := r.open(t, spec)
	t.Logf("shared: %v", time.Since(start).Round(time.Millisecond))
	wantAnswer(t, e, "redis redis:6379 SET who staging", "+OK")
	wantAnswer(t, e, db+"CREATE TABLE t AS SELECT 'staging' AS who", "")
	wantAnswer(t, e, "http billing:8080 staging", "staging")

	// Switched to fresh: the pod is replaced and says why, and the same names lead to empty copies.
	spec.Dependencies = fresh("redis", "db")
	start = time.Now()
	e = r.open(t, spec)
	t.Logf("redis and db fresh: %v", time.Since(start).Round(time.Millisecond))
	if p := r.progress(); !strings.Contains(p, "replacing the pod: its fresh dependencies are now db, redis") {
		t.Errorf("nobody was told:\n%s", p)
	}
	wantAnswer(t, e, "redis redis:6379 GET who", "$-1")
	wantAnswer(t, e, db+"SELECT count(*) FROM pg_tables WHERE tablename='t'", "0")
	wantAnswer(t, e, "postgres db-0.db:5432 CREATE TABLE t AS SELECT 'fresh' AS who", "")
	wantAnswer(t, e, db+"SELECT who FROM t", "fresh")
	wantAnswer(t, e, "redis redis."+ns+":6379 SET who fresh", "+OK")
	wantAnswer(t, e, "http billing:8080 get", "staging")
	deps, err := e.Dependencies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := found(t, deps, "db"); d.Mode != api.DependencyFresh || d.Health != api.HealthReady {
		t.Errorf("%+v", d)
	}
	copied, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), spec.Name+"-redis", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if img := copied.Spec.Template.Spec.Containers[0].Image; !strings.Contains(img, "@sha256:") {
		t.Errorf("the copy's image is not by digest: %s", img)
	}
	now := r.everything(t, ns)
	again := r.open(t, spec)
	if again.Info().Pod != e.Info().Pod {
		t.Error("a second Open replaced the pod")
	}
	if d := cmp.Diff(now, r.everything(t, ns)); d != "" {
		t.Errorf("a second Open changed something:\n%s", d)
	}

	// One is shared again: its copy goes, and only it.
	spec.Dependencies = fresh("db")
	e = r.open(t, spec)
	wantAnswer(t, e, "redis redis:6379 GET who", "staging")
	wantAnswer(t, e, db+"SELECT who FROM t", "fresh")
	for k := range r.everything(t, ns) {
		if strings.Contains(k, spec.Name+"-redis") && !strings.HasPrefix(k, "Pod/") { // which may still be ending
			t.Errorf("left of the copy: %s", k)
		}
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := r.everything(t, ns)
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("staging before and after (-before +after):\n%s", d)
	}
	spec = randomSpec()
	e = r.open(t, spec)
	wantAnswer(t, e, db+"SELECT who FROM t", "staging")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = dependency.LabelOf
}
