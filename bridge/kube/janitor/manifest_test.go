package janitor

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/lease"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

var update = flag.Bool("update", false, "write deploy/janitor/janitor.yaml anew")

// The kustomize base is what fairlead-platform manifest prints.
func TestBaseIsTheManifest(t *testing.T) {
	b, err := Manifest(ManifestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "..", "deploy", "janitor", "janitor.yaml")
	if *update {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(b), string(have)); d != "" {
		t.Errorf("deploy/janitor/janitor.yaml is stale (go test ./bridge/kube/janitor -run Manifest -update): %s", d)
	}
}

func decode(t *testing.T, b []byte) (all []runtime.Object) {
	t.Helper()
	for _, doc := range bytes.Split(b, []byte("\n---\n")) {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		all = append(all, o)
	}
	return all
}

// The API server takes all of it, its pod passes Pod Security "restricted", and the rights that it gives are enough for
// all that a janitor does.
func TestClusterManifest(t *testing.T) {
	r := realCluster(t)
	ctx := t.Context()
	b, err := Manifest(ManifestOptions{Namespace: r.ns, Image: "registry.example.com/fairlead-platform:1.0"})
	if err != nil {
		t.Fatal(err)
	}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict}
	seen := map[string]int{}
	for _, o := range decode(t, b) {
		var err error
		switch o := o.(type) {
		case *corev1.Namespace:
			seen["Namespace"]++
			is, gerr := r.kc.CoreV1().Namespaces().Get(ctx, o.Name, metav1.GetOptions{})
			if gerr != nil {
				t.Fatal(gerr)
			}
			is.Labels["pod-security.kubernetes.io/enforce"] = o.Labels["pod-security.kubernetes.io/enforce"]
			_, err = r.kc.CoreV1().Namespaces().Update(ctx, is, metav1.UpdateOptions{})
		case *corev1.ServiceAccount:
			seen["ServiceAccount"]++
			_, err = r.kc.CoreV1().ServiceAccounts(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRole:
			seen["ClusterRole"]++
			if _, err = r.kc.RbacV1().ClusterRoles().Create(ctx, o, dry); apierrors.IsAlreadyExists(err) {
				err = nil
			}
			o.Name = r.ns
			if err == nil {
				_, err = r.kc.RbacV1().ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
			}
			t.Cleanup(func() { r.kc.RbacV1().ClusterRoles().Delete(context.Background(), r.ns, metav1.DeleteOptions{}) })
		case *rbacv1.ClusterRoleBinding:
			seen["ClusterRoleBinding"]++
			o.Name, o.RoleRef.Name = r.ns, r.ns
			_, err = r.kc.RbacV1().ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
			t.Cleanup(func() { r.kc.RbacV1().ClusterRoleBindings().Delete(context.Background(), r.ns, metav1.DeleteOptions{}) })
		case *rbacv1.Role:
			seen["Role"]++
			_, err = r.kc.RbacV1().Roles(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			seen["RoleBinding"]++
			_, err = r.kc.RbacV1().RoleBindings(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		case *appsv1.Deployment:
			seen["Deployment"]++
			if _, err = r.kc.AppsV1().Deployments(o.Namespace).Create(ctx, o, dry); err != nil {
				break
			}
			// Pod Security only warns of a Deployment; its pod is refused.
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: o.Spec.Template.Spec}
			_, err = r.kc.CoreV1().Pods(o.Namespace).Create(ctx, pod, dry)
			if !*pod.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem {
				t.Error("its root can be written to")
			}
		default:
			t.Errorf("it has a %T", o)
		}
		if err != nil {
			t.Fatalf("%T: %v", o, err)
		}
	}
	for _, k := range []string{"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Deployment"} {
		if seen[k] != 1 {
			t.Errorf("%d %ss", seen[k], k)
		}
	}

	// As that service account, over the whole cluster.
	tok, err := r.kc.CoreV1().ServiceAccounts(r.ns).CreateToken(ctx, "fairlead-janitor", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.LoadFromFile(kubeconfig(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := clientcmdapi.FlattenConfig(cfg); err != nil {
		t.Fatal(err)
	}
	for _, u := range cfg.AuthInfos {
		*u = clientcmdapi.AuthInfo{Token: tok.Status.Token}
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	n := r.ownNamespace(t, "x")
	r.environment(t, n.Name, "x", lease.Policy{Sleep: time.Hour, Delete: time.Hour})
	cl, err := kube.Connect(kube.Options{Kubeconfig: file, Namespace: n.Name})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rights of the service account", func() bool {
		_, err := cl.Kube().CoreV1().Namespaces().Get(ctx, n.Name, metav1.GetOptions{})
		_, lerr := cl.Kube().CoordinationV1().Leases(r.ns).Get(ctx, LeaseName, metav1.GetOptions{})
		return err == nil && (lerr == nil || apierrors.IsNotFound(lerr))
	})
	for _, d := range []time.Duration{2 * time.Hour, 4 * time.Hour} {
		j := New(Options{Cluster: cl, Namespace: n.Name, RecordNamespace: r.ns, now: ahead(cl, d)})
		found, err := j.Pass(ctx, kube.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Note != "" {
				t.Errorf("%+v", f)
			}
		}
	}
	if _, err := r.kc.CoreV1().Namespaces().Get(ctx, n.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace that the environment had to itself: %v", err)
	}
	if gone, err := New(Options{Cluster: r.Cluster}).Gone(ctx, r.ns); err != nil || len(gone) != 1 || gone[0].Name != "x" {
		t.Errorf("%+v, %v", gone, err)
	}
	// The election, and watching the whole cluster (with a clock that makes nothing due).
	ectx, cancel := context.WithCancel(ctx)
	defer cancel()
	all, err := kube.Connect(kube.Options{Kubeconfig: file})
	if err != nil {
		t.Fatal(err)
	}
	leads := make(chan struct{})
	j := New(Options{Cluster: all, DryRun: true, Logger: logTo(func(line string) {
		if line == "janitor: at work" {
			close(leads)
		}
	})})
	done := make(chan error, 1)
	go func() {
		done <- Elect(ectx, j, Election{Namespace: r.ns, Name: LeaseName, Identity: "me", TTL: 4 * time.Second}, logTo(func(string) {}))
	}()
	select {
	case <-leads:
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("it never leads")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// What it has no business with.
	if _, err := cl.Kube().CoreV1().Secrets(r.ns).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("it may list Secrets: %v", err)
	}
}
