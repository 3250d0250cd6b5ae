package kube

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/isolation"
	"fairlead.dev/test/image"

	"github.com/google/go-cmp/cmp"
	authv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// withOwn are options of a service account that has what `fairlead rbac --own-namespace` prints.
func (r *real) withOwn(t *testing.T, ns string) Options {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if _, err := r.kube.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "lead"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	name := "fairlead-" + ns // what is of the whole cluster must not meet another test's
	for _, doc := range bytes.Split(Role(RoleOptions{Namespace: ns, ServiceAccount: ns + "/lead", OwnNamespace: true}), []byte("\n---\n")) {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		rbac := r.kube.RbacV1()
		switch o := o.(type) {
		case *rbacv1.Role:
			o.Name = "lead"
			_, err = rbac.Roles(ns).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			o.Name, o.RoleRef.Name = "lead", "lead"
			_, err = rbac.RoleBindings(ns).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRole:
			o.Name = name
			_, err = rbac.ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
			t.Cleanup(func() { rbac.ClusterRoles().Delete(ctx, name, metav1.DeleteOptions{}) })
		case *rbacv1.ClusterRoleBinding:
			o.Name, o.RoleRef.Name = name, name
			_, err = rbac.ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
			t.Cleanup(func() { rbac.ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{}) })
		default:
			t.Fatalf("the Role comes with %T", o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tok, err := r.kube.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "lead", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := r.options
	o.Kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) {
		for _, u := range c.AuthInfos {
			*u = clientcmdapi.AuthInfo{Token: tok.Status.Token}
		}
	})
	c, err := connect(o.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rights of the service account", func() bool {
		return len(c.missingRights(ctx, "anywhere", true)) == 0
	})
	return o
}

// An environment in a namespace of its own: staging's names, its ConfigMaps and Secrets, no rights, limits; fresh copies
// under their own names; found from staging; gone with all that it had. Without the rights it is beside staging.
func TestClusterIsolated(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "baseline")
	r.volumes(t, ns, 2)
	r.apply(t, ns, stagingYAML, "BACKEND_IMAGE", r.backendImage(t), "REDIS_IMAGE", r.pushed(t, image.Redis), "POSTGRES_IMAGE", r.pushed(t, image.Postgres), "MARIADB_IMAGE", r.pushed(t, image.MariaDB))
	r.ready(t, ns, 6)

	spec := randomSpec()
	admin, dev := r.options, r.as(t, ns, nil)
	r.options = r.withOwn(t, ns)
	r.options.Isolation = IsolationAuto
	before := r.atRest(t, ns)
	start := time.Now()
	e := r.open(t, spec)
	t.Logf("in a namespace of its own: %v", time.Since(start).Round(time.Millisecond))
	own := ownNamespace(ns, spec.Name)
	if i := e.Info(); i.Namespace != own || i.Template != ns+"/svc" {
		t.Fatalf("%+v\n%s", i, r.progress())
	}
	n, err := r.kube.CoreV1().Namespaces().Get(t.Context(), own, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n.Labels["pod-security.kubernetes.io/enforce"] != "baseline" || !madeByUs(n) {
		t.Errorf("%+v", n.ObjectMeta)
	}

	// Its names are staging's, whatever form they have, and so is its configuration.
	db := "postgres db." + ns + ".svc.cluster.local:5432 "
	wantAnswer(t, e, "redis redis:6379 SET who staging", "+OK")
	wantAnswer(t, e, "redis redis."+ns+":6379 GET who", "staging")
	wantAnswer(t, e, db+"CREATE TABLE t AS SELECT 'staging' AS who", "")
	wantAnswer(t, e, "postgres db-0.db:5432 SELECT who FROM t", "staging")
	redis, err := r.kube.CoreV1().Services(ns).Get(t.Context(), "redis", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	env := ask(t, e, "env")
	for _, want := range []string{"REDIS_ADDR=redis:6379", "PGPASSWORD=s3cret", "REDIS_SERVICE_HOST=" + redis.Spec.ClusterIP, "REDIS_PORT_6379_TCP_PORT=6379"} {
		if !strings.Contains(env, want) {
			t.Errorf("%s is not in the service's environment:\n%s", want, env)
		}
	}

	// Limits, and no rights.
	pod, err := r.kube.CoreV1().Pods(own).Get(t.Context(), e.Info().Pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := r.kube.CoreV1().ResourceQuotas(own).Get(t.Context(), isolation.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the quota counts the pod", func() bool {
		q, err = r.kube.CoreV1().ResourceQuotas(own).Get(t.Context(), isolation.Name, metav1.GetOptions{})
		used := q.Status.Used[corev1.ResourcePods]
		return err == nil && used.Value() == 1
	})
	if _, err := r.kube.CoreV1().Services(own).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "lb"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "exceeded quota") {
		t.Errorf("a load balancer in the environment's namespace: %v", err)
	}
	for _, ask := range []authzv1.ResourceAttributes{
		{Namespace: own, Verb: "list", Resource: "pods"}, {Namespace: own, Verb: "get", Resource: "secrets"}, {Namespace: ns, Verb: "list", Resource: "pods"}} {
		got, err := r.kube.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authzv1.SubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + own + ":" + pod.Spec.ServiceAccountName, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + own, "system:authenticated"}, ResourceAttributes: &ask}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Status.Allowed {
			t.Errorf("the service may %s %s in %s", ask.Verb, ask.Resource, ask.Namespace)
		}
	}
	policy, err := r.kube.NetworkingV1().NetworkPolicies(own).Get(t.Context(), isolation.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var reach []string
	for _, rule := range policy.Spec.Egress {
		for _, to := range rule.To {
			if to.NamespaceSelector != nil {
				reach = append(reach, to.NamespaceSelector.MatchLabels[corev1.LabelMetadataName]+"/"+to.PodSelector.MatchLabels["app"])
			}
		}
	}
	if d := cmp.Diff([]string{ns + "/billing", ns + "/db", ns + "/orders-db", ns + "/redis"}, reach); d != "" {
		t.Errorf("what it may reach (-want +got):\n%s", d)
	}

	// Again: nothing changes, but for what has changed in staging.
	if err := r.kube.CoreV1().ConfigMaps(ns).Delete(t.Context(), "svc", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.apply(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: svc}\ndata: {REDIS_ADDR: 'redis:6379', MORE: 'new'}")
	now := r.atRest(t, own)
	again := r.open(t, spec)
	if again.Info().Pod != e.Info().Pod {
		t.Errorf("a second Open replaced the pod:\n%s", r.progress())
	}
	then := r.everything(t, own)
	for k := range now {
		if changed := now[k] != then[k]; changed != (k == "ConfigMap/svc") && !strings.HasPrefix(k, "Namespace/") {
			t.Errorf("%s: changed %v by a second Open", k, changed)
		}
	}

	// Fresh copies have their originals' names, and the Secret that they name.
	spec.Dependencies = fresh("redis", "db")
	e = r.open(t, spec)
	wantAnswer(t, e, "redis redis:6379 GET who", "$-1")
	wantAnswer(t, e, db+"SELECT count(*) FROM pg_tables WHERE tablename='t'", "0")
	wantAnswer(t, e, "redis redis."+own+".svc.cluster.local:6379 GET who", "$-1")
	wantAnswer(t, e, "http billing:8080 staging", "staging")
	deps, err := e.Dependencies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := found(t, deps, "db"); d.Mode != api.DependencyFresh || d.Health != api.HealthReady {
		t.Errorf("%+v", d)
	}
	rep, err := FindDependencies(t.Context(), spec, r.options)
	if err != nil {
		t.Fatal(err)
	}
	if d := found(t, rep.Dependencies, "redis"); d.Mode != api.DependencyFresh || d.Health != api.HealthReady {
		t.Errorf("%+v", d)
	}
	if all, err := Find(t.Context(), r.options, Filter{}); err != nil || len(all) != 1 || all[0].Namespace != own || all[0].Pod != e.Info().Pod {
		t.Errorf("found from staging: %+v, %v", all, err)
	}

	// It stays where it is until it ends.
	r.options.Isolation = IsolationNone
	_, err = Open(t.Context(), spec, r.options)
	wantCode(t, "moved", err, "isolation-changed")
	r.options.Isolation = IsolationAuto
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.kube.CoreV1().Namespaces().Get(t.Context(), own, metav1.GetOptions{}); !isNotFound(err) {
		t.Errorf("the namespace after the deletion: %v", err)
	}
	after := r.everything(t, ns)
	delete(before, "ConfigMap/svc")
	delete(after, "ConfigMap/svc")
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("staging before and after (-before +after):\n%s", d)
	}

	// A quota that leaves no room is told as what it is.
	r.options.Quota = map[string]string{"pods": "0"}
	tight := randomSpec()
	_, err = Open(t.Context(), tight, r.options)
	wantCode(t, "no room", err, "pod-refused")
	if p := asProblem(err); !strings.Contains(p.Hint, "kubernetes.quota") {
		t.Errorf("%+v", p)
	}
	eventually(t, "what the refused start made is gone", func() bool {
		_, err := r.kube.CoreV1().Namespaces().Get(t.Context(), ownNamespace(ns, tight.Name), metav1.GetOptions{})
		return isNotFound(err)
	})

	// Without the rights it is beside staging, and that is said; or refused, where it must not be.
	dev.Isolation = IsolationAuto
	dev.Progress = admin.Progress
	r.options = dev
	spec.Dependencies = nil
	e = r.open(t, spec)
	if i := e.Info(); i.Namespace != ns || !strings.Contains(r.progress(), "no quota, network policy and service account of its own: you may not") {
		t.Errorf("%+v\n%s", i, r.progress())
	}
	wantAnswer(t, e, "redis redis:6379 GET who", "staging")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.options.Isolation = IsolationNamespace
	_, err = Open(t.Context(), spec, r.options)
	wantCode(t, "without the rights", err, codeForbidden)
}

// An agent that is killed after any of its changes leaves a namespace that the next Open completes, and that goes whole.
func TestClusterKilledWhileIsolating(t *testing.T) {
	r := realCluster(t)
	ns, before := r.small(t)
	r.options.Isolation = IsolationNamespace
	var ending sync.WaitGroup
	for n, done := 0, false; !done; n++ {
		spec := randomSpec()
		_, err := r.dying(t, n).open(t.Context(), spec, r.options.withDefaults())
		if done = err == nil; done {
			t.Logf("%d changes", n)
		}
		e := r.open(t, spec)
		if got := e.Info().Namespace; got != ownNamespace(ns, spec.Name) {
			t.Errorf("killed after %d changes, the next Open is in %s", n, got)
		}
		wantAnswer(t, e, "http billing:8080 get", "empty")
		ending.Go(func() { // the cluster takes five seconds and more for each namespace
			if err := e.Delete(t.Context()); err != nil {
				t.Errorf("killed after %d changes: %v", n, err)
			}
			if _, err := r.kube.CoreV1().Namespaces().Get(t.Context(), e.Info().Namespace, metav1.GetOptions{}); !isNotFound(err) {
				t.Errorf("killed after %d changes, the namespace is left: %v", n, err)
			}
		})
	}
	ending.Wait()
	r.wantAsBefore(t, ns, before)
}
