package kube

import (
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// wantHint checks that a Problem ends in what to do.
func wantHint(t *testing.T, what string, err error, code, hint string) {
	t.Helper()
	wantCode(t, what, err, code)
	if err == nil {
		return
	}
	if p := asProblem(err); !strings.Contains(p.Hint, hint) {
		t.Errorf("%s: hint %q, want %q in it", what, p.Hint, hint)
	}
}

// The staging Deployment is deleted under an environment: that goes on as it is, says what it has lost, and is not made anew
// as something else.
func TestClusterStagingDeleted(t *testing.T) {
	r := realCluster(t)
	ns, _ := r.small(t)
	spec := randomSpec()
	spec.Dependencies = fresh("billing")
	e := r.open(t, spec)
	wantAnswer(t, e, "http billing:8080 kept", "kept")
	if err := r.kube.AppsV1().Deployments(ns).Delete(t.Context(), "svc", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := e.Dependencies(t.Context())
	wantHint(t, "the dependencies of the environment", err, "no-template", "bring the Deployment back")
	_, err = FindDependencies(t.Context(), spec, r.options)
	wantHint(t, "the dependencies of the service", err, "no-template", "--namespace")
	_, err = Open(t.Context(), spec, r.options)
	wantHint(t, "a second Open", err, "no-template", "bring it back; or remove the environment with fairlead stop")
	wantAnswer(t, e, "http billing:8080 get", "kept")
	if now, err := r.kube.CoreV1().Pods(ns).Get(t.Context(), e.Info().Pod, metav1.GetOptions{}); err != nil || now.DeletionTimestamp != nil {
		t.Errorf("the pod: %v", err)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k := range r.everything(t, ns) {
		if strings.Contains(k, spec.Name) {
			t.Errorf("left: %s", k)
		}
	}
}

// An API server that is away while copies are made is told with what to do; what was made by then is completed by the next
// Open, and goes whole.
func TestClusterAwayWhileCopying(t *testing.T) {
	r := realCluster(t)
	ns, before := r.small(t)
	g := newGate(t, r)
	spec := randomSpec()
	spec.Dependencies = fresh("billing", "ledger")
	o := r.options
	o.Kubeconfig = g.kubeconfig
	say := o.Progress
	o.Progress = func(m string) {
		if strings.HasPrefix(m, "dependency ") {
			g.shut(true)
		}
		say(m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := Open(ctx, spec, o)
	wantHint(t, "an API server that is away", err, codeUnreachable, "is the cluster of context")
	if p := r.progress(); !strings.Contains(p, "the next fairlead run completes it, fairlead stop removes it") {
		t.Errorf("what is left is not told:\n%s", p)
	}
	_, err = Open(ctx, spec, o)
	wantHint(t, "it is still away", err, codeUnreachable, "is the cluster of context")
	g.shut(false)
	o.Progress = say
	e, err := Open(t.Context(), spec, o)
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, e, "http billing:8080 peer", "empty")
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantAsBefore(t, ns, before)
}

// gate is a way to the API server that can be shut.
type gate struct {
	kubeconfig string

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool
}

func newGate(t *testing.T, r *real) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{conns: map[net.Conn]bool{}}
	var server string
	g.kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) {
		for _, cl := range c.Clusters {
			u, err := url.Parse(cl.Server)
			if err != nil {
				t.Fatal(err)
			}
			server, cl.TLSServerName, u.Host = u.Host, u.Hostname(), l.Addr().String()
			cl.Server = u.String()
		}
	})
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		g.shut(true)
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil || !g.take(c, far) {
				c.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{c, far}, {far, c}} {
				wg.Go(func() {
					io.Copy(way[0], way[1])
					c.Close()
					far.Close()
				})
			}
		}
	})
	return g
}

// take keeps a pair of connections, or refuses it.
func (g *gate) take(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		if g.closed {
			c.Close()
		} else {
			g.conns[c] = true
		}
	}
	return !g.closed
}

// shut ends all connections and takes no other, or takes them again.
func (g *gate) shut(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed = closed; closed {
		for c := range g.conns {
			c.Close()
		}
		clear(g.conns)
	}
}

// A token that the API server no longer accepts is told with what to do, at the start and in the middle; once its owner has
// logged in again, an environment that is open goes on.
func TestClusterExpiredCredentials(t *testing.T) {
	r := realCluster(t)
	ns, _ := r.small(t)
	ctx := t.Context()
	if _, err := r.kube.RbacV1().RoleBindings(ns).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "ann"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "ann", Namespace: ns}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// login makes ann, whom the API server has forgotten, and a token of hers.
	login := func() string {
		t.Helper()
		if _, err := r.kube.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "ann"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		tr, err := r.kube.CoreV1().ServiceAccounts(ns).CreateToken(ctx, "ann", &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return tr.Status.Token
	}
	token := login()
	o := r.options
	o.Kubeconfig = r.kubeconfig(t, func(c *clientcmdapi.Config) {
		for n := range c.AuthInfos {
			c.AuthInfos[n] = &clientcmdapi.AuthInfo{Token: token}
		}
	})
	spec := randomSpec()
	var e *Environment
	eventually(t, "the rights of the service account", func() (ok bool) {
		var err error
		e, err = Open(ctx, spec, o)
		return err == nil
	})
	wantAnswer(t, e, "http billing:8080 get", "empty")
	if err := r.kube.CoreV1().ServiceAccounts(ns).Delete(ctx, "ann", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var err error
	eventually(t, "the token is refused", func() bool { // the API server remembers it for some seconds
		_, err = e.Dependencies(ctx)
		return err != nil
	})
	wantHint(t, "the dependencies", err, codeCredentials, "log in to the cluster again")
	_, err = e.Dial(ctx)
	wantHint(t, "a dial", err, codeCredentials, "log in to the cluster again")
	_, err = Open(ctx, spec, o)
	wantHint(t, "a start", err, codeCredentials, "log in to the cluster again")

	cfg, err := clientcmd.LoadFromFile(o.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range cfg.AuthInfos {
		a.Token = login()
	}
	if err := clientcmd.WriteToFile(*cfg, o.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new token is used", func() bool {
		_, err = e.Dependencies(ctx)
		return err == nil
	})
	wantAnswer(t, e, "http billing:8080 get", "empty") // by an exec stream
	if err := e.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}
