package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/dependency"
	"fairlead.dev/test/image"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// stagingYAML is a service, svc, with four dependencies: a real Redis, a real PostgreSQL with a volume and a headless
// Service, a real MariaDB without either, and one that speaks HTTP and calls back.
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
            - {name: ORDERS_DSN, value: "shop:$(PGPASSWORD)@tcp(orders-db:3306)/orders"}
            - {name: BILLING_URL, value: "http://billing:8080/"}
---
apiVersion: v1
kind: Service
metadata: {name: orders-db}
spec: {selector: {app: orders-db}, ports: [{port: 3306}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders-db}
spec:
  selector: {matchLabels: {app: orders-db}}
  template:
    metadata: {labels: {app: orders-db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: mariadb
          image: MARIADB_IMAGE
          env:
            - {name: MARIADB_USER, value: shop}
            - {name: MARIADB_DATABASE, value: orders}
            - {name: MARIADB_PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
          readinessProbe: {tcpSocket: {port: 3306}, periodSeconds: 1}
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

// everything is each object of a namespace with its UID and its version; of a pod, whose status the kubelet writes again
// when it likes, what is counted of changes by others.
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
				version := o.GetResourceVersion()
				if res.Kind == "Pod" {
					version = strconv.FormatInt(o.GetGeneration(), 10)
				}
				out[res.Kind+"/"+o.GetName()] = string(o.GetUID()) + "@" + version
			}
		}
	}
	return out
}

// atRest is everything, once it has not changed for a moment: controllers count what became ready a little later.
func (r *real) atRest(t testing.TB, ns string) map[string]string {
	t.Helper()
	last, since := r.everything(t, ns), time.Now()
	eventually(t, "staging is at rest", func() bool {
		now := r.everything(t, ns)
		if !cmp.Equal(last, now) {
			last, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
	return last
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
	got := ""
	// kube-proxy follows the EndpointSlice, which follows the pod: a Service refuses for a moment after its pod is ready.
	eventually(t, "an answer to "+word, func() bool {
		got = ask(t, e, word)
		return got == want || !strings.Contains(got, "connection refused")
	})
	if got != want {
		t.Errorf("%s: %q, want %q", word, got, want)
	}
}

// Found with reasons; shared until asked otherwise; fresh ones empty and by the same names; shared again; gone.
func TestClusterDependencies(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "baseline")
	r.volumes(t, ns, 2)
	backend := r.backendImage(t)
	r.apply(t, ns, stagingYAML, "BACKEND_IMAGE", backend, "REDIS_IMAGE", r.pushed(t, image.Redis), "POSTGRES_IMAGE", r.pushed(t, image.Postgres), "MARIADB_IMAGE", r.pushed(t, image.MariaDB))
	r.ready(t, ns, 6)
	before := r.atRest(t, ns)
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
		"orders-db shared mysql Deployment/orders-db ready [3306] ORDERS_DSN of Deployment svc",
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
	wantAnswer(t, e, "mysql orders-db:3306 CREATE TABLE t AS SELECT 'staging' AS who", "")
	wantAnswer(t, e, "http billing:8080 staging", "staging")

	// Switched to fresh: the pod is replaced and says why, and the same names lead to empty copies.
	spec.Dependencies = fresh("redis", "db", "orders-db")
	start = time.Now()
	e = r.open(t, spec)
	t.Logf("redis and both databases fresh: %v", time.Since(start).Round(time.Millisecond))
	if p := r.progress(); !strings.Contains(p, "replacing the pod: its fresh dependencies are now db, orders-db, redis") {
		t.Errorf("nobody was told:\n%s", p)
	}
	wantAnswer(t, e, "redis redis:6379 GET who", "$-1")
	wantAnswer(t, e, db+"SELECT count(*) FROM pg_tables WHERE tablename='t'", "0")
	wantAnswer(t, e, "postgres db-0.db:5432 CREATE TABLE t AS SELECT 'fresh' AS who", "")
	wantAnswer(t, e, db+"SELECT who FROM t", "fresh")
	wantAnswer(t, e, "mysql orders-db:3306 SELECT count(*) FROM information_schema.tables WHERE table_name='t'", "0")
	wantAnswer(t, e, "mysql orders-db."+ns+":3306 CREATE TABLE t AS SELECT 'fresh' AS who", "")
	wantAnswer(t, e, "mysql orders-db:3306 SELECT who FROM t", "fresh")
	wantAnswer(t, e, "redis redis."+ns+":6379 SET who fresh", "+OK")
	wantAnswer(t, e, "http billing:8080 get", "staging")
	// Asleep nothing of it runs; woken, the database is there with its data.
	r.asleep(t, ns, spec.Name)
	if woken, err := e.Wake(t.Context(), true, "a request"); err != nil || !woken {
		t.Fatalf("%v, %v", woken, err)
	}
	wantAnswer(t, e, db+"SELECT who FROM t", "fresh")
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
	wantAnswer(t, e, "mysql orders-db:3306 SELECT who FROM t", "staging")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// smallYAML is a service with two dependencies that call each other, and Jobs to fill one.
const smallYAML = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: svc}
spec:
  selector: {matchLabels: {app: svc}}
  template:
    metadata: {labels: {app: svc}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: svc, image: BACKEND_IMAGE, env: [{name: BILLING_URL, value: "http://billing:8080/"}]}]
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
      terminationGracePeriodSeconds: 1
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
      terminationGracePeriodSeconds: 1
      containers: [{name: ledger, image: BACKEND_IMAGE, env: [{name: PEER_URL, value: "http://billing:8080/"}], readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Service
metadata: {name: queue}
spec: {selector: {app: queue}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: queue}
spec:
  serviceName: queue
  selector: {matchLabels: {app: queue}}
  template:
    metadata: {labels: {app: queue}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: queue, image: BACKEND_IMAGE, resources: {requests: {cpu: 1m}}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: fill}
spec:
  schedule: "0 0 1 1 *"
  suspend: true
  jobTemplate:
    spec:
      backoffLimit: 3 # kube-proxy follows a pod that is ready a moment later
      template:
        spec:
          restartPolicy: Never
          containers: [{name: fill, image: BACKEND_IMAGE, args: ["-post", "billing:8080"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: fails}
spec:
  schedule: "0 0 1 1 *"
  suspend: true
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          containers: [{name: fill, image: BACKEND_IMAGE, args: ["-crash"]}]
`

// small makes a namespace with smallYAML, and returns what is in it.
func (r *real) small(t testing.TB) (ns string, before map[string]string) {
	t.Helper()
	ns = r.newNamespace(t, "baseline")
	r.apply(t, ns, smallYAML, "BACKEND_IMAGE", r.backendImage(t))
	r.ready(t, ns, 4)
	return ns, r.atRest(t, ns)
}

// wantAsBefore checks that the namespace is as it was. A ReplicaSet that a controller made of a Deployment which was deleted a moment later goes
// by the garbage collector, and is waited for.
func (r *real) wantAsBefore(t testing.TB, ns string, before map[string]string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(100 * time.Millisecond) {
		now := r.everything(t, ns)
		d := cmp.Diff(before, now)
		if d == "" {
			return
		}
		maps.DeleteFunc(now, func(k, _ string) bool { return strings.HasPrefix(k, "ReplicaSet/") && before[k] == "" })
		if !maps.Equal(before, now) || time.Now().After(end) {
			t.Errorf("the namespace before and after (-before +after):\n%s", d)
			return
		}
	}
}

// Two fresh dependencies that call each other have each other, and not staging's. One of them is found only by the other.
func TestClusterDependencyLoop(t *testing.T) {
	r := realCluster(t)
	ns, before := r.small(t)
	spec := randomSpec()
	staging := r.open(t, spec)
	wantAnswer(t, staging, "http billing:8080 of-staging", "of-staging")
	wantAnswer(t, staging, "http ledger:8080 of-staging", "of-staging")
	spec.Dependencies = fresh("billing", "ledger")
	e := r.open(t, spec)
	wantAnswer(t, e, "http billing:8080 fresh-billing", "fresh-billing")
	wantAnswer(t, e, "http billing:8080 peer", "empty")
	wantAnswer(t, e, "http ledger:8080 peer", "fresh-billing")
	deps, err := e.Dependencies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := found(t, deps, "ledger"); !slices.Contains(d.Why, "PEER_URL of Deployment billing") || d.Mode != api.DependencyFresh {
		t.Errorf("%+v", d)
	}
	// Fresh alone, billing calls staging's ledger.
	spec.Dependencies = fresh("billing")
	e = r.open(t, spec)
	wantAnswer(t, e, "http billing:8080 peer", "of-staging")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantAsBefore(t, ns, before)
}

// A seed is run once, after the copy is ready and before the service starts; one that fails is told with its last lines.
func TestClusterSeed(t *testing.T) {
	r := realCluster(t)
	ns, before := r.small(t)
	spec := randomSpec()
	spec.Dependencies = map[string]api.DependencyWish{"billing": {Mode: api.DependencyFresh, Seed: "missing"}}
	_, err := Open(t.Context(), spec, r.options)
	wantCode(t, "a seed that is not there", err, "no-seed")
	r.wantAsBefore(t, ns, before)

	spec.Dependencies = map[string]api.DependencyWish{"billing": {Mode: api.DependencyFresh, Seed: "fill"}}
	e := r.open(t, spec)
	wantAnswer(t, e, "http billing:8080 get", "seeded")
	wantAnswer(t, e, "http billing:8080 changed", "changed")
	r.open(t, spec)
	e = r.open(t, spec)
	wantAnswer(t, e, "http billing:8080 get", "changed")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantAsBefore(t, ns, before)

	spec = randomSpec()
	spec.Dependencies = map[string]api.DependencyWish{"billing": {Mode: api.DependencyFresh, Seed: "fails"}}
	e = r.open(t, spec)
	if p := r.progress(); !strings.Contains(p, "its seed fails failed") || !strings.Contains(p, "no such table: accounts") {
		t.Errorf("the seed's failure is not told:\n%s", p)
	}
	wantAnswer(t, e, "http billing:8080 get", "empty")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantAsBefore(t, ns, before)
}

// What can never start ends the start, and leaves nothing; what crashes is told, and the service starts all the same.
func TestClusterDependencyFaults(t *testing.T) {
	r := realCluster(t)
	ns, before := r.small(t)
	backend := r.backendImage(t)
	change := func(name string, edit func(*appsv1.Deployment)) {
		t.Helper()
		d, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d.Spec.Replicas = new(int32(0)) // so that staging has no trouble of its own
		edit(d)
		if _, err := r.kube.AppsV1().Deployments(ns).Update(t.Context(), d, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	fails := func(what, bad, code string, words ...string) {
		t.Helper()
		spec := randomSpec()
		spec.Dependencies = fresh("billing", bad)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := Open(ctx, spec, r.options)
		wantCode(t, what, err, code)
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q in it", what, err, w)
			}
		}
		eventually(t, what+": nothing is left", func() bool {
			for k := range r.everything(t, ns) {
				if strings.Contains(k, spec.Name) {
					return false
				}
			}
			return true
		})
	}

	// Somebody else has the name of a copy: it is left as it is. Labels that look like ours do not change that.
	spec := randomSpec()
	foreign := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: spec.Name + "-billing", Labels: map[string]string{dependency.LabelOf: spec.Name, dependency.LabelName: "billing"}},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}}}
	foreign, err := r.kube.CoreV1().Services(ns).Create(t.Context(), foreign, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec.Dependencies = fresh("billing")
	_, err = Open(t.Context(), spec, r.options)
	wantCode(t, "name clash", err, "name-taken")
	if now, err := r.kube.CoreV1().Services(ns).Get(t.Context(), foreign.Name, metav1.GetOptions{}); err != nil || now.UID != foreign.UID || now.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("somebody else's Service: %v, %v", now, err)
	}
	spec.Dependencies = nil
	e := r.open(t, spec)
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := r.kube.CoreV1().Services(ns).Get(t.Context(), foreign.Name, metav1.GetOptions{}); err != nil || now.UID != foreign.UID {
		t.Errorf("somebody else's Service after the deletion: %v, %v", now, err)
	}
	if err := r.kube.CoreV1().Services(ns).Delete(t.Context(), foreign.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing but staging", func() bool { return cmp.Equal(before, r.everything(t, ns)) })

	change("ledger", func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image = r.options.Registry + "/nothing:here"
	})
	fails("image missing", "ledger", "image-pull", "dependency ledger", "nothing:here")

	change("ledger", func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image = backend
		d.Spec.Template.Spec.Containers[0].Args = []string{"-crash"}
	})
	spec = randomSpec()
	spec.Dependencies = fresh("ledger")
	start := time.Now()
	e = r.open(t, spec)
	t.Logf("told of the crashes after %v", time.Since(start).Round(time.Millisecond))
	if p := r.progress(); !strings.Contains(p, "dependency ledger is not ready, and the service starts all the same") || !strings.Contains(p, "no such table: accounts") {
		t.Errorf("the crash is not told:\n%s", p)
	}
	deps, err := e.Dependencies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := found(t, deps, "ledger"); d.Health == api.HealthReady || !strings.Contains(d.Detail, "no such table: accounts") {
		t.Errorf("%+v", d)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Neither crashes nor gets ready: after the limit the service starts without it.
	change("ledger", func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Args = []string{"-never"}
		d.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")}
	})
	spec = randomSpec()
	spec.Dependencies = fresh("ledger")
	hasty := *r.c
	hasty.copyLimit = 4 * time.Second
	if e, err = hasty.open(t.Context(), spec, r.options.withDefaults()); err != nil {
		t.Fatal(err)
	}
	if p := r.progress(); !strings.Contains(p, "dependency ledger is not ready, and the service starts all the same: pod "+spec.Name+"-ledger-") || !strings.Contains(p, "runs and is not ready yet (Readiness probe failed") {
		t.Errorf("what is not ready is not told:\n%s", p)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}

	// A quota that leaves room for the environment's pod, and none for the copies'.
	r.apply(t, ns, "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: small}\nspec: {scopes: [NotBestEffort], hard: {pods: \"1\"}}\n")
	eventually(t, "the quota is counted", func() bool {
		q, err := r.kube.CoreV1().ResourceQuotas(ns).Get(t.Context(), "small", metav1.GetOptions{})
		return err == nil && len(q.Status.Used) > 0
	})
	fails("quota exceeded", "ledger", "pod-refused", "dependency ledger", "exceeded quota")
	fails("quota exceeded, of a StatefulSet", "queue", "pod-refused", "dependency queue", "exceeded quota")
}

// dying is an API server's client whose process is killed after some changes: nothing that it sends then arrives.
type dying struct {
	http.RoundTripper
	mu   sync.Mutex
	left int
}

func (d *dying) RoundTrip(q *http.Request) (*http.Response, error) {
	d.mu.Lock()
	change := q.Method != http.MethodGet && !strings.Contains(q.URL.Path, "selfsubjectaccessreviews")
	dead := d.left <= 0
	if change {
		d.left--
	}
	d.mu.Unlock()
	if dead {
		return nil, errors.New("killed")
	}
	return d.RoundTripper.RoundTrip(q)
}

// dying is the client of an agent that is killed after some changes.
func (r *real) dying(t testing.TB, changes int) *client {
	t.Helper()
	c := *r.c
	c.config = rest.CopyConfig(r.c.config)
	c.config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return &dying{RoundTripper: rt, left: changes} })
	set, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		t.Fatal(err)
	}
	c.kube = set
	return &c
}

// An agent that is killed after any of its changes leaves what the next Open completes, and what a deletion takes whole:
// they take turns, since each takes seconds.
func TestClusterKilledWhileCopying(t *testing.T) {
	r := realCluster(t)
	ns, before := r.small(t)
	for n, done := 0, false; !done; n++ {
		for _, next := range []string{"open", "delete"}[n%2:][:1] {
			spec := randomSpec()
			spec.Dependencies = map[string]api.DependencyWish{"billing": {Mode: api.DependencyFresh, Seed: "fill"}}
			_, err := r.dying(t, n).open(t.Context(), spec, r.options.withDefaults())
			if done = err == nil; done {
				t.Logf("%d changes", n)
			}
			var e *Environment
			if next == "open" {
				e = r.open(t, spec)
				wantAnswer(t, e, "http billing:8080 get", "seeded")
			} else if e, err = Lookup(t.Context(), r.options, ns, spec.Name); err != nil {
				if n == 0 { // nothing was made
					continue
				}
				t.Fatalf("after %d changes: %v", n, err)
			}
			if err := e.Delete(t.Context()); err != nil {
				t.Fatalf("after %d changes, %s: %v", n, next, err)
			}
			r.wantAsBefore(t, ns, before)
		}
	}
}

// The printed Role is enough for fresh copies. Without the rights for dependencies a service runs as ever, which is said,
// and a fresh one is refused before anything is made.
func TestClusterDependencyRights(t *testing.T) {
	r := realCluster(t)
	ns, before := r.small(t)
	all := r.options
	r.options = r.as(t, ns, nil)
	spec := randomSpec()
	spec.Dependencies = map[string]api.DependencyWish{"billing": {Mode: api.DependencyFresh, Seed: "fill"}}
	e := r.open(t, spec)
	wantAnswer(t, e, "http billing:8080 get", "seeded")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}

	role, err := r.kube.RbacV1().Roles(ns).Get(t.Context(), "fairlead", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	role.Rules = slices.DeleteFunc(role.Rules, func(p rbacv1.PolicyRule) bool { return p.Resources[0] == "services" })
	if _, err := r.kube.RbacV1().Roles(ns).Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	dev, err := connect(r.options.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the right is gone", func() bool {
		_, err := dev.kube.CoreV1().Services(ns).List(t.Context(), metav1.ListOptions{})
		return apierrors.IsForbidden(err)
	})
	spec = randomSpec()
	spec.Dependencies = fresh("billing")
	_, err = Open(t.Context(), spec, r.options)
	wantCode(t, "fresh without the rights", err, codeForbidden)
	spec.Dependencies = nil
	r.mu.Lock()
	r.said = nil
	r.mu.Unlock()
	e = r.open(t, spec)
	if p := r.progress(); strings.Count(p, "dependencies are not found: you may not list Services") != 1 {
		t.Errorf("it is not said once:\n%s", p)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.options = all
	now := r.everything(t, ns)
	for k := range now {
		if strings.HasPrefix(k, "Role") || strings.HasPrefix(k, "ServiceAccount/dev") {
			delete(now, k)
		}
	}
	if d := cmp.Diff(before, now); d != "" {
		t.Errorf("the namespace before and after (-before +after):\n%s", d)
	}
}

// BenchmarkClusterOpenDependencies is what dependencies cost a start: the same service with none, with ten that are shared,
// with five fresh copies; and, as the measure of those, with none while five Deployments like the copies start beside it,
// until all are ready. Deletion is outside of the time that is taken.
func BenchmarkClusterOpenDependencies(b *testing.B) {
	const one = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: a, image: BACKEND_IMAGE, readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}}]
`
	const service = `
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{port: 8080}]}
---
`
	for _, c := range []struct {
		name                 string
		shared, fresh, plain int
	}{{"none", 0, 0, 0}, {"10 shared", 10, 0, 0}, {"5 fresh", 0, 5, 0}, {"5 Deployments beside", 0, 0, 5}} {
		b.Run(c.name, func(b *testing.B) {
			r := realCluster(b)
			ns := r.newNamespace(b, "baseline")
			image := r.backendImage(b)
			objects := strings.SplitN(smallYAML, "\n---\n", 2)[0]
			spec := randomSpec()
			spec.Dependencies = map[string]api.DependencyWish{}
			for i := range c.shared + c.fresh {
				name := fmt.Sprint("dep", i)
				objects += strings.ReplaceAll(service+strings.TrimSpace(one)+"\n", "NAME", name)
				spec.Dependencies[name] = api.DependencyWish{Mode: api.DependencyShared}
				if i < c.fresh {
					spec.Dependencies[name] = api.DependencyWish{Mode: api.DependencyFresh}
				}
			}
			r.apply(b, ns, objects, "BACKEND_IMAGE", image)
			staging := 1 + c.shared + c.fresh
			r.ready(b, ns, staging)
			for b.Loop() {
				for i := range c.plain {
					r.apply(b, ns, one, "BACKEND_IMAGE", image, "NAME", fmt.Sprint("plain", i))
				}
				e := r.open(b, spec)
				r.ready(b, ns, staging+c.fresh+c.plain)
				b.StopTimer()
				for i := range c.plain {
					if err := r.kube.AppsV1().Deployments(ns).Delete(b.Context(), fmt.Sprint("plain", i), metav1.DeleteOptions{}); err != nil {
						b.Fatal(err)
					}
				}
				if err := e.Delete(b.Context()); err != nil {
					b.Fatal(err)
				}
				for i := range c.plain {
					if err := r.c.podsGone(b.Context(), ns, fmt.Sprint("app=plain", i), func(string) {}); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
		})
	}
}
