package kube

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
)

// real is the test cluster as an administrator, and what is told during one test.
type real struct {
	kube    kubernetes.Interface
	c       *client
	options Options

	mu   sync.Mutex
	said []string
}

// buildStandin builds testdata/standin once for all tests.
var buildStandin = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "standin")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "standin")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", exe, "./testdata/standin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(exe)
})

func realCluster(t testing.TB) *real {
	t.Helper()
	kubeconfig, registry := os.Getenv("FAIRLEAD_TEST_KUBECONFIG"), os.Getenv("FAIRLEAD_TEST_REGISTRY")
	if kubeconfig == "" || registry == "" {
		const why = "FAIRLEAD_TEST_KUBECONFIG and FAIRLEAD_TEST_REGISTRY do not name a cluster (test/cluster makes one)"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	// Tests on the cluster wait most of their time, and each has namespaces of its own.
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	r := &real{}
	r.options = Options{Kubeconfig: kubeconfig, Registry: registry, Version: "test", Progress: func(m string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.said = append(r.said, m)
	}, Payload: func(arch string) ([]byte, error) {
		if arch != runtime.GOARCH {
			return nil, errors.ErrUnsupported
		}
		return buildStandin()
	}}
	c, err := connect(r.options.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	r.c, r.kube = c, c.kube
	t.Cleanup(func() {
		if p := r.progress(); t.Failed() && p != "" {
			t.Logf("what was told:\n%s", p)
		}
	})
	return r
}

func (r *real) progress() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.said, "\n")
}

// newNamespace makes one for a test, with Pod Security at a level. It goes with the test.
func (r *real) newNamespace(t testing.TB, level string) string {
	t.Helper()
	n, err := r.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "kube-test-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": level}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now := int64(0)
		if err := r.kube.CoreV1().Namespaces().Delete(context.Background(), n.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Error(err)
		}
	})
	r.options.Namespace = n.Name
	return n.Name
}

// randomSpec is of an environment of the test's own.
func randomSpec() bridge.Spec {
	var b [40]byte
	rand.Read(b[:])
	return bridge.Spec{Name: "svc-" + hex.EncodeToString(b[:3]), Service: "svc", Owner: "ann@desk", Dir: "/src/svc", Branch: "main",
		Token: hex.EncodeToString(b[8:]), Version: "test", Trees: map[string]string{"static": "/srv/static"}}
}

func (r *real) open(t testing.TB, spec bridge.Spec) *Environment {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	e, err := Open(ctx, spec, r.options)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.progress())
	}
	return e
}

// ask sends the stand-in one word and returns its answer.
func ask(t testing.TB, e bridge.Environment, word string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // the tests beside it start pods too
	defer cancel()
	for {
		s, err := e.Dial(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, werr := io.WriteString(s, word+"\n")
		b, err := io.ReadAll(s)
		s.Close()
		if isPodGone(err) {
			continue // the container ended under the dial; whoever dials dials again
		}
		if err := first(err, werr); err != nil && word != "die" {
			t.Fatalf("%s: %v", word, err)
		}
		return strings.TrimSuffix(string(b), "\n")
	}
}

// wantNothing checks that nothing of an environment is left.
func (r *real) wantNothing(t testing.TB, ns, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	sel := metav1.ListOptions{LabelSelector: labelEnvironment + "=" + name}
	var left []string
	add := func(kind string, n []string, err error) {
		if err != nil {
			t.Error(err)
		}
		for _, n := range n {
			left = append(left, kind+" "+n)
		}
	}
	d, err := r.kube.AppsV1().Deployments(ns).List(ctx, sel)
	n, err := names(d, err)
	add("Deployment", n, err)
	rs, err := r.kube.AppsV1().ReplicaSets(ns).List(ctx, sel)
	n, err = names(rs, err)
	add("ReplicaSet", n, err)
	p, err := r.kube.CoreV1().Pods(ns).List(ctx, sel)
	n, err = names(p, err)
	add("Pod", n, err)
	s, err := r.kube.CoreV1().Secrets(ns).List(ctx, metav1.ListOptions{})
	n, err = names(s, err)
	add("Secret", n, err)
	if left != nil {
		t.Errorf("left: %v", left)
	}
}

func TestClusterWithoutTemplate(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	spec := randomSpec()
	e := r.open(t, spec)
	if i := e.Info(); i.Resumed || i.Template != "" || i.Namespace != ns || i.Pod == "" {
		t.Errorf("%+v", i)
	}
	if e.Target().Arch != runtime.GOARCH {
		t.Errorf("%+v", e.Target())
	}
	if got := ask(t, e, "token"); got != spec.Token {
		t.Errorf("token %q", got)
	}
	if got := ask(t, e, "uid"); got != imageUser {
		t.Errorf("uid %q", got)
	}
	if got := ask(t, e, "env") + ask(t, e, "args"); strings.Contains(got, spec.Token) {
		t.Error("the token is in the environment or the arguments")
	}
	before, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), spec.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	again := r.open(t, spec)
	if !again.Info().Resumed || again.Info().Pod != e.Info().Pod {
		t.Errorf("%+v", again.Info())
	}
	after, err := r.kube.AppsV1().Deployments(ns).Get(t.Context(), spec.Name, metav1.GetOptions{})
	if err != nil || after.ResourceVersion != before.ResourceVersion {
		t.Errorf("a second Open changed the Deployment: %v", err)
	}
	found, err := Find(t.Context(), r.options, Filter{Name: spec.Name})
	if err != nil || len(found) != 1 || found[0].Owner != spec.Owner || found[0].Pod != e.Info().Pod {
		t.Errorf("%+v, %v", found, err)
	}
	other, err := Lookup(t.Context(), r.options, ns, spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, other, "uid"); got != imageUser {
		t.Errorf("uid %q", got)
	}
	if err := other.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantNothing(t, ns, spec.Name)
	if _, err := r.kube.CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{}); err != nil {
		t.Errorf("a namespace that was there before: %v", err)
	}
	_, err = e.Dial(t.Context())
	wantCode(t, "dial what is deleted", err, "gone")
}

func TestClusterOwnNamespace(t *testing.T) {
	r := realCluster(t)
	spec := randomSpec()
	e := r.open(t, spec)
	ns := e.Info().Namespace
	if ns != "fairlead-"+spec.Name {
		t.Errorf("namespace %s", ns)
	}
	if got := ask(t, e, "uid"); got != imageUser {
		t.Errorf("uid %q", got)
	}
	// Deleted by someone else, and wanted again at once.
	policy := metav1.DeletePropagationForeground
	if err := r.kube.AppsV1().Deployments(ns).Delete(t.Context(), spec.Name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
	e = r.open(t, spec)
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.kube.CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{}); !isNotFound(err) {
		t.Errorf("the namespace: %v", err)
	}
}

func TestClusterTransfer(t *testing.T) {
	r := realCluster(t)
	r.newNamespace(t, "restricted")
	spec := randomSpec()
	e := r.open(t, spec)
	spdy := *e.c
	spdy.config = rest.CopyConfig(e.c.config)
	spdy.config.Wrap(func(rt http.RoundTripper) http.RoundTripper { return noWebsocket{rt} })
	for name, c := range map[string]*client{"websocket": e.c, "SPDY": &spdy} {
		t.Run(name, func(t *testing.T) {
			s, err := c.exec(t.Context(), e.namespace, e.Info().Pod, e.container, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			const size = 64 << 20
			sent, got := sha256.New(), sha256.New()
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := io.WriteString(s, "echo\n"); err != nil {
					t.Error(err)
				}
				if _, err := io.Copy(io.MultiWriter(s, sent), io.LimitReader(rand.Reader, size)); err != nil {
					t.Error(err)
				}
			})
			start := time.Now()
			if n, err := io.CopyN(got, s, size); err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
			wg.Wait()
			if d := cmp.Diff(sent.Sum(nil), got.Sum(nil)); d != "" {
				t.Error("what came back is not what was sent")
			}
			t.Logf("64 MiB there and back: %v", time.Since(start).Round(time.Millisecond))
		})
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// noWebsocket is an API server, or a proxy before it, that knows no websocket.
type noWebsocket struct{ http.RoundTripper }

func (n noWebsocket) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet {
		return nil, &httpstream.UpgradeFailureError{Cause: errors.New("websocket: bad handshake")}
	}
	return n.RoundTripper.RoundTrip(r)
}

func TestClusterLostPod(t *testing.T) {
	r := realCluster(t)
	ns := r.newNamespace(t, "restricted")
	spec := randomSpec()
	e := r.open(t, spec)
	s, err := e.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := r.kube.CoreV1().Pods(ns).Delete(t.Context(), e.Info().Pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(s)
	t.Logf("the stream of a deleted pod ends with: %v", err)
	was := e.Info().Pod
	if got := ask(t, e, "uid"); got != imageUser || e.Info().Pod == was {
		t.Errorf("uid %q of pod %s, which was %s", got, e.Info().Pod, was)
	}
	if p := r.progress(); !strings.Contains(p, "waiting for") {
		t.Errorf("nobody was told:\n%s", p)
	}

	// The supervisor itself ends: the container starts again in the same pod.
	was = e.Info().Pod
	ask(t, e, "die")
	if got := ask(t, e, "uid"); got != imageUser || e.Info().Pod != was {
		t.Errorf("uid %q of pod %s, which was %s", got, e.Info().Pod, was)
	}
	t.Log(r.progress())

	// Scaled to zero: it will not come back by itself; a new Open brings it.
	scale, err := r.kube.AppsV1().Deployments(ns).GetScale(t.Context(), spec.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scale.Spec.Replicas = 0
	if _, err := r.kube.AppsV1().Deployments(ns).UpdateScale(t.Context(), spec.Name, scale, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := r.c.podsGone(t.Context(), ns, labelEnvironment+"="+spec.Name, func(string) {}); err != nil {
		t.Fatal(err)
	}
	_, err = e.Dial(t.Context())
	wantCode(t, "dial what is scaled to zero", err, api.CodeAsleep)
	e = r.open(t, spec)
	if got := ask(t, e, "uid"); got != imageUser {
		t.Errorf("uid %q", got)
	}
}

func TestClusterCloseEndsReads(t *testing.T) {
	r := realCluster(t)
	r.newNamespace(t, "restricted")
	e := r.open(t, randomSpec())
	s, err := e.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Read(make([]byte, 1))
		done <- err
	}()
	start := time.Now()
	s.Close()
	if err := <-done; err == nil {
		t.Error("a read after Close has no error")
	}
	if d := time.Since(start); d > 10*time.Second { // at once, but for a busy machine; what it must not wait for takes longer
		t.Errorf("Close took %v", d)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("a write after Close has no error")
	}
}

// The benchmarks are the figures of the package: what a run waits for.

func BenchmarkClusterOpenCold(b *testing.B) {
	r := realCluster(b)
	r.newNamespace(b, "restricted")
	var start time.Time
	var before time.Duration // the Deployment is applied: what is ours, and not the pod's start
	say := r.options.Progress
	r.options.Progress = func(m string) {
		if strings.HasPrefix(m, "making environment") {
			before += time.Since(start)
		}
		say(m)
	}
	for b.Loop() {
		start = time.Now()
		e := r.open(b, randomSpec())
		b.StopTimer()
		if err := e.Delete(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(before.Microseconds())/1000/float64(b.N), "ms-before-apply/op")
}

func BenchmarkClusterOpenWarm(b *testing.B) {
	r := realCluster(b)
	r.newNamespace(b, "restricted")
	spec := randomSpec()
	r.open(b, spec)
	for b.Loop() {
		r.open(b, spec)
	}
}

func BenchmarkClusterDial(b *testing.B) {
	r := realCluster(b)
	r.newNamespace(b, "restricted")
	e := r.open(b, randomSpec())
	for b.Loop() {
		s, err := e.Dial(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(s, "echo\nx"); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
