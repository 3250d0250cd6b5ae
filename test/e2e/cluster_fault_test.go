package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"fairlead.dev/api"
)

// The pod is deleted: its replacement gets the last good build without being asked.
func TestPodDeleted(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	s.edit(t, "v2")
	a.live(t, "v2")
	a.skipAll()
	old := p.c.pod(t, p.ns)
	if err := p.c.kube.CoreV1().Pods(p.ns).Delete(context.Background(), old.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	lost := a.wait(t, "lost", isEnv("lost")).(*api.EnvironmentEvent)
	if lost.Reason == "" {
		t.Error("no reason is told")
	}
	a.wait(t, "connected", isEnv("connected"))
	a.live(t, "v2")
	a.running(t, "v2")
	if now := p.c.pod(t, p.ns); now.UID == old.UID {
		t.Error("it is the same pod")
	} else if st := p.m.status(t); st[0].Environment.Pod != now.Name {
		t.Errorf("status names pod %s, it is %s", st[0].Environment.Pod, now.Name)
	}
	s.edit(t, "v3")
	a.live(t, "v3")
	a.running(t, "v3")
}

// The API server is away for 20 s; what is saved meanwhile arrives when it is back.
func TestAPIServerStopped(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	before := a.running(t, "v1")
	a.skipAll()
	p.c.part(t, "stop", "apiserver")
	started := sync.OnceFunc(func() { p.c.part(t, "start", "apiserver") })
	defer started()
	lost := a.wait(t, "lost", isEnv("lost")).(*api.EnvironmentEvent)
	if lost.Reason == "" {
		t.Error("no reason is told")
	}
	s.edit(t, "v2")
	a.wait(t, "a build during the outage", isBuild(true))
	after(20 * time.Second)
	started()
	a.wait(t, "connected", isEnv("connected"))
	a.live(t, "v2")
	st := a.running(t, "v2")
	if st.Epoch != before.Epoch {
		t.Error("the supervisor was started anew")
	}
	p.wantRestarts(t, 0)
}

// The credentials expire in the middle: the next connection is refused, which says what to do, and once somebody has logged in
// again the session goes on with what was saved meanwhile.
func TestCredentialsExpire(t *testing.T) {
	t.Parallel()
	p := newKube(t)
	p.as(t, nil)
	config := p.args[slices.Index(p.args, "--kubeconfig")+1]
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	a.skipAll()
	if err := p.c.kube.CoreV1().ServiceAccounts(p.ns).Delete(t.Context(), "dev", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", config)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the API server has forgotten the token", func() error {
		if _, err := dev.CoreV1().Pods(p.ns).List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	if err := p.c.kube.CoreV1().Pods(p.ns).Delete(t.Context(), p.c.pod(t, p.ns).Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.wait(t, "the refusal", func(e api.Event) bool {
		x, ok := e.(*api.EnvironmentEvent)
		return ok && x.State == "lost" && strings.Contains(x.Reason, "does not accept the credentials") && strings.Contains(x.Reason, "log in to the cluster again")
	})
	s.edit(t, "v2")
	a.wait(t, "a build meanwhile", isBuild(true))
	b, err := os.ReadFile(p.c.serviceAccount(t, p.ns, "dev"))
	if err == nil {
		err = os.WriteFile(config, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.wait(t, "connected", isEnv("connected"))
	a.live(t, "v2")
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d\n%s", code, a.stderr())
	}
	p.wantNothing(t)
}

// The connection is cut in mid-transfer, at offset after offset of what the agent sends.
func TestConnectionCut(t *testing.T) {
	t.Parallel()
	p := newKube(t)
	cut := newCutter(t, p.c)
	for i, s := range p.args {
		if s == p.c.kubeconfig {
			p.args[i] = cut.kubeconfig
		}
	}
	s := newShop(t, "v0")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v0")
	// A difference of one edit is tens of kilobytes: these offsets lie before, in and behind it.
	for i, after := range []int64{200, 1000, 5000, 10_000, 20_000, 50_000, 100_000} {
		v := fmt.Sprintf("v%d%s", i+1, strings.Repeat("+", i))
		cut.arm(after)
		s.edit(t, v)
		a.live(t, v)
		if i%3 == 0 {
			a.running(t, v)
		}
	}
	a.running(t, "v7"+strings.Repeat("+", 6))
	if n := cut.count(); n < 4 {
		t.Errorf("only %d connections were cut", n)
	}
	p.wantRestarts(t, 0)
}

// The first transfer, of the whole executable, is cut.
func TestFirstTransferCut(t *testing.T) {
	p := newKube(t)
	cut := newCutter(t, p.c)
	for i, s := range p.args {
		if s == p.c.kubeconfig {
			p.args[i] = cut.kubeconfig
		}
	}
	s := newShop(t, "v1")
	cut.arm(3 << 20)
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	a.running(t, "v1")
	if n := cut.count(); n != 1 {
		t.Errorf("%d connections were cut", n)
	}
}

// cutter is a proxy in front of the API server that resets the connection over which it has passed a number of bytes.
type cutter struct {
	kubeconfig string

	mu    sync.Mutex
	after int64 // bytes from the agent until the cut; negative for none
	cuts  int
	conns map[net.Conn]bool
}

func newCutter(t testing.TB, c *cluster) *cutter {
	t.Helper()
	k := &cutter{after: -1, conns: map[net.Conn]bool{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var server string
	k.kubeconfig = c.rewrite(t, func(cfg *clientcmdapi.Config) {
		for _, cl := range cfg.Clusters {
			u, err := url.Parse(cl.Server)
			if err != nil {
				t.Fatal(err)
			}
			server = u.Host
			cl.TLSServerName = u.Hostname()
			u.Host = ln.Addr().String()
			cl.Server = u.String()
		}
	})
	var wg sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		k.mu.Lock()
		for c := range k.conns {
			c.Close()
		}
		k.mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { k.pass(c, server) })
		}
	})
	return k
}

// arm cuts the connection that carries the agent's so-manieth byte from now on.
func (k *cutter) arm(after int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.after = after
}

func (k *cutter) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cuts
}

func (k *cutter) keep(c net.Conn, add bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if add {
		k.conns[c] = true
	} else {
		delete(k.conns, c)
	}
}

func (k *cutter) pass(c net.Conn, server string) {
	defer c.Close()
	far, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer far.Close()
	for _, x := range []net.Conn{c, far} {
		k.keep(x, true)
		defer k.keep(x, false)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(c, far)
		c.Close()
	}()
	io.Copy(far, &counted{c, k})
	far.Close()
	c.Close()
	<-done
}

// counted is the agent's side of a connection: what is read of it is counted, and at the offset it is reset.
type counted struct {
	net.Conn
	k *cutter
}

func (r *counted) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	if r.k.after < 0 || n == 0 {
		return n, err
	}
	if int64(n) < r.k.after {
		r.k.after -= int64(n)
		return n, err
	}
	n = int(r.k.after)
	r.k.after = -1
	r.k.cuts++
	r.Conn.(*net.TCPConn).SetLinger(0)
	r.Conn.Close()
	return n, io.ErrUnexpectedEOF
}
