//go:build linux

package bridge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/podtest"
	"fairlead.dev/syncer/supervisor"
	"fairlead.dev/syncer/supervisor/delve"
)

const token = "0123456789abcdef0123456789abcdef"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "dap" { // what the supervisor starts of fairlead-pod
		if err := delve.Serve(os.NewFile(3, "dap")); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "dap" {
		pid, err := strconv.Atoi(os.Args[3])
		if err = errors.Join(err, delve.Hold(os.NewFile(3, "dap"), pid)); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	podtest.Clean()
	os.Exit(code)
}

// pod is a real supervisor behind a real unix socket.
type pod struct {
	dir, socket string
	rec         *podtest.Recorder
}

func startPod(t *testing.T) *pod {
	t.Helper()
	dir := t.TempDir()
	// A socket's path may have 107 bytes; a test's folder may be longer.
	short, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	p := &pod{dir: dir, socket: filepath.Join(short, "s"), rec: &podtest.Recorder{}}
	s, err := supervisor.New(supervisor.Options{Dir: filepath.Join(dir, "work"), Trees: map[string]string{"files": filepath.Join(dir, "files")}, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := bridge.Serve(ctx, ln, token, s); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return p
}

func (p *pod) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", p.socket)
}

// connect runs a Conn until the test ends.
func connect(t *testing.T, o bridge.Options) (*bridge.Conn, <-chan error) {
	t.Helper()
	if o.Token == "" {
		o.Token = token
	}
	c := bridge.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done, end := make(chan struct{}), make(chan error, 1)
	go func() { defer close(done); end <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c, end
}

func TestConformance(t *testing.T) { podtest.Run(t, subject) }

func TestConformanceDebug(t *testing.T) { podtest.RunDebug(t, subject) }

// subject is a pod behind a connection, as a suite has it.
func subject(t *testing.T) podtest.Subject {
	p := startPod(t)
	c, _ := connect(t, bridge.Options{Dial: p.dial, Name: "tester"})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Events(ctx, "", 0, func(e api.Event) error { p.rec.Add(e); return nil })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return podtest.Subject{Pod: c, Store: filepath.Join(p.dir, "work", "store"), Tree: filepath.Join(p.dir, "files"), Events: p.rec,
		Dial:     func(ctx context.Context, port int) (io.ReadWriteCloser, error) { return c.DialPort(ctx, port) },
		DebugPod: podtest.DebugPod{Debug: c.DialDebug, Release: c.ReleaseDebug, Start: c.StartTask, Task: c.DialTask, Core: c.DialCore}}
}

// ended returns why a Conn gave up, which it must.
func ended(t *testing.T, end <-chan error) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
		return nil
	}
}

func code(err error) string {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return fmt.Sprint(err)
}

func TestToken(t *testing.T) {
	p := startPod(t)
	for _, tok := range []string{"wrong", token + "0", token[1:], token[:len(token)-1], strings.ToUpper(token)} {
		_, end := connect(t, bridge.Options{Dial: p.dial, Token: tok, Name: "x"})
		if err := ended(t, end); code(err) != api.CodeUnauthorized {
			t.Errorf("token %q: %v", tok, err)
		}
	}
}

// bearer is a stream that brings the token along.
type bearer struct{ io.ReadWriteCloser }

func (bearer) Token() string { return token }

// Who has no token is known by the one that his stream brings, also for what was asked before there was a stream.
func TestBearer(t *testing.T) {
	p := startPod(t)
	c := bridge.New(bridge.Options{Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		rw, err := p.dial(ctx)
		return bearer{rw}, err
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	asked := make(chan error, 1)
	go func() { _, err := c.Status(ctx); asked <- err }()
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := <-asked; err != nil {
		t.Error(err)
	}
}

// Every endpoint refuses a request without the token, and one that a browser sends.
func TestEndpointsGuarded(t *testing.T) {
	p := startPod(t)
	for _, e := range []string{"GET status", "POST stage", "POST swap", "GET attach", "GET events", "GET tunnel", "POST shutdown", "POST probe"} {
		method, path, _ := strings.Cut(e, " ")
		for name, h := range map[string]http.Header{"no token": {}, "browser": {"Authorization": {"Bearer " + token}, "Origin": {"http://evil.example"}}} {
			resp := raw(t, p, method, path, h)
			if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s, %s: %s", e, name, resp.Status)
			}
		}
	}
	c, _ := connect(t, bridge.Options{Dial: p.dial})
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatalf("after all that: %v", err)
	}
}

func TestHolder(t *testing.T) {
	p := startPod(t)
	_, first := connect(t, bridge.Options{Dial: p.dial, Name: "ada@one (pid 1)"})
	looker, _ := connect(t, bridge.Options{Dial: p.dial})
	waitHolder(t, looker, "ada@one (pid 1)")
	_, second := connect(t, bridge.Options{Dial: p.dial, Name: "bob@two (pid 2)"})
	if err := ended(t, second); code(err) != api.CodeHeld || !strings.Contains(err.Error(), "ada@one") {
		t.Fatalf("the second agent was told %v", err)
	}
	_, third := connect(t, bridge.Options{Dial: p.dial, Name: "bob@two (pid 3)", TakeOver: true})
	if err := ended(t, first); code(err) != api.CodeTakenOver || !strings.Contains(err.Error(), "bob@two") {
		t.Fatalf("the first agent was told %v", err)
	}
	waitHolder(t, looker, "bob@two (pid 3)")
	select {
	case err := <-third:
		t.Fatalf("the one that took over ended: %v", err)
	default:
	}
}

func waitHolder(t *testing.T, c *bridge.Conn, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		st, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Holder == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the holder is %q, want %q", st.Holder, want)
		}
	}
}

// cutter ends a connection after a number of bytes towards the pod; a new one is allowed the next number.
type cutter struct {
	dial  bridge.Dial
	after func() int64 // bytes until the next cut; <0: never
	cuts  atomic.Int64
}

func (c *cutter) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	cc := &cutConn{ReadWriteCloser: conn, c: c}
	cc.left.Store(c.after())
	return cc, nil
}

type cutConn struct {
	io.ReadWriteCloser
	c    *cutter
	left atomic.Int64
}

func (c *cutConn) Write(b []byte) (int, error) {
	left := c.left.Load()
	if left < 0 {
		return c.ReadWriteCloser.Write(b)
	}
	if int64(len(b)) < left {
		c.left.Add(-int64(len(b)))
		return c.ReadWriteCloser.Write(b)
	}
	n, _ := c.ReadWriteCloser.Write(b[:left]) // the tail is lost, as on an exec stream
	c.ReadWriteCloser.Close()
	c.c.cuts.Add(1)
	return n, io.ErrUnexpectedEOF
}

// A connection that is cut anywhere in a transfer costs a repetition and nothing else: the loop brings the pod to the
// wanted generation, with the right digest.
func TestCutInTransfer(t *testing.T) {
	p := startPod(t)
	one := podtest.Build(t, "one")
	var offsets []int64
	for i := range int64(20) {
		offsets = append(offsets, 200+i*i*i*700) // dense at the start, up to the whole transfer
	}
	var next atomic.Int64
	cut := &cutter{dial: p.dial, after: func() int64 {
		i := next.Add(1) - 1
		if i%2 == 1 || i/2 >= int64(len(offsets)) {
			return -1
		}
		return offsets[i/2]
	}}
	c, _ := connect(t, bridge.Options{Dial: cut.Dial, Name: "tester"})
	gen := api.Generation(0)
	for i := range offsets {
		// Bytes behind an ELF file's end change its digest and nothing else: each is new to the pod.
		data := append(bytes.Clone(one.Data), fmt.Sprint("variant ", i)...)
		e := syncer.Executable{Path: filepath.Join(t.TempDir(), "service"), Digest: podtest.DigestOf(data), Size: int64(len(data)), Data: data}
		if err := os.WriteFile(e.Path, data, 0o755); err != nil {
			t.Fatal(err)
		}
		gen++
		sh := podtest.NewShipper(t) // no base: a full transfer each time
		for {
			_, _, err := sh.Ship(t.Context(), c, podtest.Manifest(gen, e), e, nil)
			if err == nil {
				break
			}
			if code(err) != api.CodeLost {
				t.Fatalf("cut at %d: %v", offsets[i], err)
			}
		}
		st, err := c.Status(t.Context())
		if err != nil && code(err) != api.CodeLost {
			t.Fatal(err)
		}
		if err == nil && (st.Generation != gen || st.Digest != e.Digest) {
			t.Fatalf("cut at %d: the pod runs %d %s", offsets[i], st.Generation, st.Digest)
		}
		// The connection that carried it whole goes now, so that the next one begins with a cut.
		if next.Load()%2 == 0 {
			c.Reconnect()
		}
	}
	if cut.cuts.Load() < 5 {
		t.Fatalf("only %d cuts happened", cut.cuts.Load())
	}
}

// Events go on after a cut where they stopped: none lost, none twice.
func TestEventsResume(t *testing.T) {
	p := startPod(t)
	one := podtest.Build(t, "one")
	c, _ := connect(t, bridge.Options{Dial: p.dial, Name: "tester"})
	var seen []uint64
	var after uint64
	epoch := ""
	got := make(chan uint64, 1<<16)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			st, err := c.Status(ctx)
			if err != nil {
				continue
			}
			epoch = st.Epoch
			c.Events(ctx, epoch, after, func(e api.Event) error {
				after = e.Head().Seq
				got <- after
				return nil
			})
		}
	}()
	for g := api.Generation(1); g <= 8; g++ {
		podtest.Ship(t, podtest.Subject{Pod: c}, podtest.Manifest(g, one), one)
		c.Reconnect()
	}
	st, err := c.Status(t.Context())
	for err != nil {
		st, err = c.Status(t.Context())
	}
	for len(seen) == 0 || seen[len(seen)-1] < st.Seq {
		seen = append(seen, <-got)
	}
	cancel()
	<-done
	for i, n := range seen {
		if n != uint64(i+1) {
			t.Fatalf("event %d has number %d", i, n)
		}
	}
}

func raw(t *testing.T, p *pod, method, path string, h http.Header) *http.Response {
	t.Helper()
	resp, err := bridge.RawRequest(t.Context(), p.dial, method, path, h)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
