package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/kube/janitor"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestManifest(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"manifest", "--namespace", "tools", "--image", "registry.example.com/p:1"}, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	want, err := janitor.Manifest(janitor.ManifestOptions{Namespace: "tools", Image: "registry.example.com/p:1"})
	if err != nil || !bytes.Equal(out.Bytes(), want) || !strings.Contains(out.String(), "image: registry.example.com/p:1\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"what", 2, `unknown command "what"`},
		{"janitor x", 2, `unexpected argument "x"`},
		{"janitor --what", 2, "unknown flag"},
		{"janitor --sleep soon", 2, `--sleep: "soon" is no duration`},
		{"janitor --delete -1h", 2, `--delete: "-1h" is no duration`},
		{"manifest --image a\nb", 2, "is no image"},
		{"manifest --namespace A", 2, "is no namespace"},
		{"janitor --kubeconfig /nowhere/config", 1, "hint: name an existing file"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), strings.Split(c.args, " "), &out, &errs)
		if code != c.code || !strings.Contains(errs.String(), c.says) || out.Len() > 0 {
			t.Errorf("%q: exit %d\n%s%s", c.args, code, out.String(), errs.String())
		}
	}
}

// signals is what a test waits for in a log.
type signals struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wants string
	seen  chan struct{}
}

func (s *signals) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := strings.Contains(s.text.String(), s.wants)
	s.text.Write(b)
	if !had && strings.Contains(s.text.String(), s.wants) {
		close(s.seen)
	}
	return len(b), nil
}

// The janitor leads, works, and ends with its signal as one that did what it was asked to.
func TestClusterJanitorEndsClean(t *testing.T) {
	file := os.Getenv("FAIRLEAD_TEST_KUBECONFIG")
	if file == "" {
		const why = "FAIRLEAD_TEST_KUBECONFIG does not name a cluster (test/cluster makes one)"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	cl, err := kube.Connect(kube.Options{Kubeconfig: file})
	if err != nil {
		t.Fatal(err)
	}
	spaces := cl.Kube().CoreV1().Namespaces()
	n, err := spaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "platform-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := spaces.Delete(context.Background(), n.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	log := &signals{wants: "janitor: at work", seen: make(chan struct{})}
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"janitor", "--kubeconfig", file, "--namespace", n.Name, "--lease-namespace", n.Name}, log, log)
	}()
	select {
	case <-log.seen:
	case code := <-ended:
		t.Fatalf("exit %d\n%s", code, log.text.String())
	case <-time.After(time.Minute):
		t.Fatal("it does not begin")
	}
	signal()
	select {
	case code := <-ended:
		if code != 0 || !strings.Contains(log.text.String(), "janitor: leaves") {
			t.Errorf("exit %d\n%s", code, log.text.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}
