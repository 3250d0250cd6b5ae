package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// cluster is the real Kubernetes, as its administrator.
type cluster struct {
	kube                 kubernetes.Interface
	kubeconfig, registry string
}

func realCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{kubeconfig: os.Getenv("FAIRLEAD_TEST_KUBECONFIG"), registry: os.Getenv("FAIRLEAD_TEST_REGISTRY")}
	if c.kubeconfig == "" || c.registry == "" {
		skip(t, "FAIRLEAD_TEST_KUBECONFIG and FAIRLEAD_TEST_REGISTRY do not name a cluster (test/cluster makes one)")
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	if c.kube, err = kubernetes.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	return c
}

// namespace makes one that goes with the test.
func (c *cluster) namespace(t testing.TB) string {
	t.Helper()
	n, err := c.kube.CoreV1().Namespaces().Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.deleteNamespace(t, n.Name) })
	return n.Name
}

func (c *cluster) deleteNamespace(t testing.TB, name string) {
	err := c.kube.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// objects lists what Fairlead makes, by kind and name.
func (c *cluster) objects(t testing.TB, ns string) []string {
	t.Helper()
	ctx := context.Background()
	o := metav1.ListOptions{LabelSelector: "fairlead.dev/environment"}
	var out []string
	ds, err := c.kube.AppsV1().Deployments(ns).List(ctx, o)
	if err != nil {
		return []string{err.Error()}
	}
	for _, d := range ds.Items {
		out = append(out, "Deployment "+d.Name)
	}
	ps, err := c.kube.CoreV1().Pods(ns).List(ctx, o)
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range ps.Items {
		out = append(out, "Pod "+p.Name)
	}
	ss, err := c.kube.CoreV1().Secrets(ns).List(ctx, o)
	if err != nil {
		return []string{err.Error()}
	}
	for _, s := range ss.Items {
		out = append(out, "Secret "+s.Name)
	}
	return out
}

// pod is the environment's only pod.
func (c *cluster) pod(t testing.TB, ns string) *corev1.Pod {
	t.Helper()
	l, err := c.kube.CoreV1().Pods(ns).List(context.Background(), metav1.ListOptions{LabelSelector: "fairlead.dev/environment"})
	if err != nil {
		t.Fatal(err)
	}
	l.Items = slices.DeleteFunc(l.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if len(l.Items) != 1 {
		t.Fatalf("%d pods, want one", len(l.Items))
	}
	return &l.Items[0]
}

// rewrite writes a kubeconfig like the cluster's with a change.
func (c *cluster) rewrite(t testing.TB, change func(*clientcmdapi.Config)) string {
	t.Helper()
	cfg, err := clientcmd.LoadFromFile(c.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	change(cfg)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// serviceAccount makes one without any rights, and returns a kubeconfig that speaks for it.
func (c *cluster) serviceAccount(t testing.TB, ns, name string) string {
	t.Helper()
	ctx := context.Background()
	if _, err := c.kube.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := c.kube.CoreV1().ServiceAccounts(ns).CreateToken(ctx, name, &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c.rewrite(t, func(cfg *clientcmdapi.Config) {
		for n := range cfg.AuthInfos {
			cfg.AuthInfos[n] = &clientcmdapi.AuthInfo{Token: r.Status.Token}
		}
	})
}

// part stops or starts a part of the test cluster. Its cleanup starts what a failed test left stopped.
func (c *cluster) part(t testing.TB, verb, name string) {
	t.Helper()
	cmd := exec.Command("go", "run", "./cmd/cluster", verb, name, "--dir", filepath.Dir(c.kubeconfig))
	cmd.Dir = filepath.Join(moduleDir(), "test", "cluster")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", verb, name, err, out)
	}
}

// after is a wait that is itself what is tested: an outage of a known length.
func after(d time.Duration) { <-time.After(d) }
