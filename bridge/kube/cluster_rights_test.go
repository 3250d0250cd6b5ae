package kube

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// as makes a service account with the rights that Role prints, less what edit takes away, and a kubeconfig of it.
func (r *real) as(t *testing.T, ns string, edit func(*rbacv1.Role)) Options {
	t.Helper()
	ctx := t.Context()
	if _, err := r.kube.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "dev"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, doc := range bytes.Split(Role(RoleOptions{Namespace: ns, ServiceAccount: ns + "/dev"}), []byte("\n---\n")) {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		switch o := o.(type) {
		case *rbacv1.Role:
			if edit != nil {
				edit(o)
			}
			_, err = r.kube.RbacV1().Roles(ns).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			_, err = r.kube.RbacV1().RoleBindings(ns).Create(ctx, o, metav1.CreateOptions{})
		default:
			t.Fatalf("the Role comes with %T", o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tok, err := r.kube.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "dev", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := r.options
	o.Kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) {
		for _, u := range c.AuthInfos {
			*u = clientcmdapi.AuthInfo{Token: tok.Status.Token}
		}
	})
	o.Namespace = ns
	// RBAC works from a cache: wait until the rights are there, or one of them is.
	c, err := connect(o.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rights of the service account", func() bool {
		_, err := c.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		return err == nil
	})
	return o
}

// eventually waits for what Kubernetes has no watch for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// kubeconfig writes a copy of the cluster's with a change.
func (r *real) kubeconfig(t *testing.T, edit func(*clientcmdapi.Config)) string {
	t.Helper()
	c, err := clientcmd.LoadFromFile(r.options.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if err := clientcmdapi.FlattenConfig(c); err != nil {
		t.Fatal(err)
	}
	edit(c)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestClusterPrintedRoleIsEnough(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	r.options = r.as(t, ns, nil)
	for _, p := range Check(t.Context(), r.options) {
		t.Errorf("missing: %v", p)
	}
	spec := randomSpec()
	e := r.open(t, spec)
	if got := ask(t, e, "uid"); got != imageUser {
		t.Errorf("uid %q", got)
	}
	if found, err := Find(t.Context(), r.options, Filter{}); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantNothing(t, ns, spec.Name)
}

// Each right by itself: without it Open refuses before anything is made, and says which.
func TestClusterMissingRight(t *testing.T) {
	r := realCluster(t)
	for _, g := range grants() {
		if g.optional {
			continue
		}
		t.Run(g.resource, func(t *testing.T) {
			ns := r.newNamespace(t, "restricted")
			o := r.as(t, ns, func(role *rbacv1.Role) {
				for i := range role.Rules {
					if role.Rules[i].Resources[0] == g.resource {
						role.Rules[i].Verbs = role.Rules[i].Verbs[:len(role.Rules[i].Verbs)-1]
					}
				}
				role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return len(r.Verbs) == 0 })
				if g.resource == "pods" { // what as waits for
					role.Rules = append(role.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}})
				}
			})
			verb := g.verbs[len(g.verbs)-1]
			spec := randomSpec()
			_, err := Open(t.Context(), spec, o)
			wantCode(t, "open", err, "forbidden")
			want := denial{verb: verb, group: g.group, resource: g.resource, namespace: ns}
			if err != nil && (!strings.Contains(err.Error(), want.String()) || !strings.Contains(asProblem(err).Hint, want.rule())) {
				t.Errorf("%v\n%s", err, asProblem(err).Hint)
			}
			if ps := Check(t.Context(), o); len(ps) != 1 || ps[0].Code != "forbidden" {
				t.Errorf("Check: %v", ps)
			}
			r.wantNothing(t, ns, spec.Name)
		})
	}
}

func TestClusterExecForbiddenLater(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	r.options = r.as(t, ns, nil)
	e := r.open(t, randomSpec())
	role, err := r.kube.RbacV1().Roles(ns).Get(t.Context(), "fairlead", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range role.Rules {
		if role.Rules[i].Resources[0] == "pods/exec" {
			role.Rules[i].Verbs = []string{"watch"}
		}
	}
	if _, err := r.kube.RbacV1().Roles(ns).Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal", func() bool {
		s, derr := e.Dial(t.Context())
		if derr == nil {
			s.Close()
		}
		err = derr
		return derr != nil
	})
	wantCode(t, "dial", err, "forbidden")
	if !strings.Contains(err.Error(), "create pods/exec in namespace "+ns) {
		t.Error(err)
	}
}

func TestClusterNoRightToMakeNamespace(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	o := r.as(t, ns, nil)
	o.Namespace = ns + "-other"
	_, err := Open(t.Context(), randomSpec(), o)
	wantCode(t, "open", err, "forbidden")
}

func TestClusterAccess(t *testing.T) {
	r := realCluster(t)
	good := r.options
	for name, c := range map[string]struct {
		edit func(*Options)
		code string
		says string
	}{
		"no such context":    {func(o *Options) { o.Context = "nowhere" }, "no-context", `no context "nowhere"`},
		"no such kubeconfig": {func(o *Options) { o.Kubeconfig = filepath.Join(t.TempDir(), "missing") }, "bad-kubeconfig", "no such file"},
		"broken kubeconfig": {func(o *Options) {
			o.Kubeconfig = filepath.Join(t.TempDir(), "broken")
			if err := os.WriteFile(o.Kubeconfig, []byte("a: [\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "bad-kubeconfig", "kubeconfig"},
		"empty kubeconfig": {func(o *Options) {
			o.Kubeconfig = filepath.Join(t.TempDir(), "empty")
			if err := os.WriteFile(o.Kubeconfig, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "no-context", "no contexts"},
		"no current context": {func(o *Options) {
			o.Kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) { c.CurrentContext = "" })
		}, "no-context", "no current context"},
		"expired credentials": {func(o *Options) {
			o.Kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) {
				for _, u := range c.AuthInfos {
					*u = clientcmdapi.AuthInfo{Token: "eyJhbGciOiJub25lIn0.e30."}
				}
			})
		}, codeCredentials, "does not accept the credentials"},
		"missing plugin": {func(o *Options) {
			o.Kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) {
				for _, u := range c.AuthInfos {
					*u = clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{Command: "fairlead-no-such-plugin", APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode}}
				}
			})
		}, codeCredentials, "fairlead-no-such-plugin"},
		"unreachable cluster": {func(o *Options) {
			o.Kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) {
				for _, u := range c.Clusters {
					u.Server = "https://127.0.0.1:1"
				}
			})
		}, "cluster-unreachable", "https://127.0.0.1:1"},
		"another's certificate": {func(o *Options) {
			o.Kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) {
				for _, u := range c.Clusters {
					u.CertificateAuthorityData = nil
				}
			})
		}, "cluster-unreachable", "certificate"},
		"unreachable registry": {func(o *Options) { o.Registry = "127.0.0.1:1" }, "registry-unreachable", "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			o.Namespace = "fairlead-test-is-never-made"
			c.edit(&o)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err := Open(ctx, randomSpec(), o)
			wantCode(t, name, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %q in it", err, c.says)
			}
			ps := Check(ctx, o)
			if len(ps) == 0 || ps[0].Code != c.code {
				t.Errorf("Check: %v", ps)
			}
		})
	}
	if _, err := r.kube.CoreV1().Namespaces().Get(t.Context(), "fairlead-test-is-never-made", metav1.GetOptions{}); !isNotFound(err) {
		t.Errorf("something was left behind: %v", err)
	}
}
