package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

// The janitor as its manifest puts it into a cluster: it runs, two of them, does what is due, and when the pod of the one
// that leads is killed the other goes on.
func TestJanitorInCluster(t *testing.T) {
	c := realCluster(t)
	ctx := context.Background()
	ns := c.namespace(t)
	bin := filepath.Join(t.TempDir(), "fairlead-platform")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", bin, "./cmd/fairlead-platform")
	cmd.Dir, cmd.Env = moduleDir(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	image := c.pushFile(t, bin, "e2e/fairlead-platform")
	manifest, err := exec.Command(bin, "manifest", "--namespace", ns, "--image", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	rbac, ds := c.kube.RbacV1(), c.kube.AppsV1().Deployments(ns)
	for _, doc := range bytes.Split(manifest, []byte("\n---\n")) {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		switch o := o.(type) {
		case *corev1.Namespace: // the test's own, of the same Pod Security
		case *corev1.ServiceAccount:
			_, err = c.kube.CoreV1().ServiceAccounts(ns).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRole:
			o.Name = ns
			_, err = rbac.ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
			t.Cleanup(func() { rbac.ClusterRoles().Delete(ctx, ns, metav1.DeleteOptions{}) })
		case *rbacv1.ClusterRoleBinding:
			o.Name, o.RoleRef.Name = ns, ns
			_, err = rbac.ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
			t.Cleanup(func() { rbac.ClusterRoleBindings().Delete(ctx, ns, metav1.DeleteOptions{}) })
		case *rbacv1.Role:
			_, err = rbac.Roles(ns).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			_, err = rbac.RoleBindings(ns).Create(ctx, o, metav1.CreateOptions{})
		case *appsv1.Deployment:
			// Other tests' environments are not its business.
			o.Spec.Template.Spec.Containers[0].Args = append(o.Spec.Template.Spec.Containers[0].Args, "--namespace="+ns)
			_, err = ds.Create(ctx, o, metav1.CreateOptions{})
		default:
			t.Errorf("the manifest has a %T", o)
		}
		if err != nil {
			t.Fatalf("%T: %v", o, err)
		}
	}
	forgotten := func(name string) {
		t.Helper()
		l := map[string]string{"fairlead.dev/environment": name}
		d, err := ds.Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: l, Annotations: map[string]string{"fairlead.dev/shape": "00"}},
			Spec: appsv1.DeploymentSpec{Paused: true, Selector: &metav1.LabelSelector{MatchLabels: l}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}}}}}, metav1.CreateOptions{})
		if err == nil {
			_, err = lease.Record(ctx, ds, d, &lease.Policy{Sleep: time.Second, Delete: time.Second})
		}
		if err != nil {
			t.Fatal(err)
		}
		within(t, 2*time.Minute, name+" to be deleted", func() error {
			_, err := ds.Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			pods, perr := c.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
			if perr != nil {
				return perr
			}
			text := "it is still there;"
			for _, p := range pods.Items {
				text += fmt.Sprintf(" %s %s", p.Name, p.Status.Phase)
				for _, s := range p.Status.ContainerStatuses {
					text += fmt.Sprintf(" %+v", s.State)
				}
			}
			return errors.Join(err, errors.New(text))
		})
	}
	leader := func() string {
		t.Helper()
		l, err := c.kube.CoordinationV1().Leases(ns).Get(ctx, "fairlead-janitor", metav1.GetOptions{})
		if err != nil || l.Spec.HolderIdentity == nil {
			t.Fatalf("%+v, %v", l, err)
		}
		return *l.Spec.HolderIdentity
	}
	forgotten("first")
	first := leader()
	pod := first[:len(first)-len("-12345678")]
	if err := c.kube.CoreV1().Pods(ns).Delete(ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
	forgotten("second")
	if now := leader(); now == first {
		t.Errorf("%s leads, whose pod was killed", now)
	}
	if cm, err := c.kube.CoreV1().ConfigMaps(ns).Get(ctx, "fairlead-gone", metav1.GetOptions{}); err != nil || len(cm.Data) != 2 {
		t.Errorf("why they went: %+v, %v", cm.Data, err)
	}
}
