// Package podtest is the conformance suite of syncer.Pod: the supervisor itself and the connection to it must behave the
// same. It builds real services with the Go toolchain and runs them.
package podtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/delta"
)

// Subject is one pod under test, with what a test needs to look behind it.
type Subject struct {
	Pod syncer.Pod
	// Dial connects to a port of the service (0: its main port) as the tunnel does.
	Dial func(ctx context.Context, port int) (io.ReadWriteCloser, error)
	// Store is the folder of the pod's blobs; Tree the folder of the tree named "files".
	Store, Tree string
	// Events are the pod's, from the first.
	Events *Recorder
	DebugPod
}

// Recorder keeps events and lets a test wait for one.
type Recorder struct {
	mu   sync.Mutex
	all  []api.Event
	wake chan struct{}
}

// Add appends an event.
func (r *Recorder) Add(e api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, e)
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

// All is what has come.
func (r *Recorder) All() []api.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// Wait returns the first event that ok accepts, or fails the test after a minute: the machine may be busy.
func (r *Recorder) Wait(t testing.TB, what string, ok func(api.Event) bool) api.Event {
	t.Helper()
	limit := time.After(time.Minute)
	for seen := 0; ; {
		r.mu.Lock()
		for ; seen < len(r.all); seen++ {
			if ok(r.all[seen]) {
				defer r.mu.Unlock()
				return r.all[seen]
			}
		}
		if r.wake == nil {
			r.wake = make(chan struct{})
		}
		wake := r.wake
		r.mu.Unlock()
		select {
		case <-wake:
		case <-limit:
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range r.all {
				t.Logf("%+v", e)
			}
			t.Fatalf("no event: %s", what)
		}
	}
}

// Listening waits until a generation listens.
func (r *Recorder) Listening(t testing.TB, g api.Generation) *api.ListeningEvent {
	t.Helper()
	return r.Wait(t, fmt.Sprintf("generation %d listens", g), func(e api.Event) bool {
		l, ok := e.(*api.ListeningEvent)
		return ok && l.Generation == g && len(l.Ports) > 0
	}).(*api.ListeningEvent)
}

// Service is a service's source: it answers / with VERSION, and behaves as its arguments say.
const Service = `package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const version = "VERSION"

func main() {
	for _, a := range os.Args[1:] {
		switch a {
		case "exit":
			fmt.Println("about to exit")
			os.Exit(3)
		case "ignore-term":
			signal.Ignore(syscall.SIGTERM)
		case "drain":
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			go func() { <-c; time.Sleep(3 * time.Second); os.Exit(0) }()
		case "last-words":
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			go func() { <-c; time.Sleep(300 * time.Millisecond); fmt.Println("last words"); os.Exit(0) }()
		case "raw":
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil { panic(err) }
			for {
				c, err := ln.Accept()
				if err != nil { panic(err) }
				go func() { fmt.Fprint(c, "hello "); io.Copy(c, c); c.Close() }()
			}
		case "fork":
			cmd := exec.Command("/proc/self/exe", "child")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil { panic(err) }
			fmt.Println("child", cmd.Process.Pid)
		case "child":
			signal.Ignore(syscall.SIGTERM)
			time.Sleep(time.Hour)
		case "idle":
			time.Sleep(time.Hour)
		case "flood":
			go func() { b := make([]byte, 1<<16); for i := range b { b[i] = 'x'; if i%100 == 99 { b[i] = '\n' } }; for { os.Stdout.Write(b) } }()
		}
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, version) })
	var slow atomic.Int32
	http.HandleFunc("/flights", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, slow.Load()) })
	http.HandleFunc("/head", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", r.Host, " ", r.Header.Get("X-Forwarded-For")) })
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		slow.Add(1) // so many have ever begun: a test that comes late must not miss it
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Fprint(w, version)
	})
	http.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.URL.Query().Get("k"))) })
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	http.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for { fmt.Fprint(w, "data: x\n\n"); w.(http.Flusher).Flush(); time.Sleep(50 * time.Millisecond) }
	})
	http.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) { os.Exit(7) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { panic(err) }
	fmt.Println("listening", version)
	srv := &http.Server{Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.Serve(ln)
}
`

var (
	buildMu sync.Mutex
	buildID = map[string]syncer.Executable{}
	dirOnce sync.Once
	dir     string
)

// Build builds the service with a version and returns its executable. Builds are shared by the tests of one process.
func Build(t testing.TB, version string) syncer.Executable {
	t.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	if e, ok := buildID[version]; ok {
		return e
	}
	makeDir(t)
	src := filepath.Join(dir, "src")
	if err := os.MkdirAll(src, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(src, "go.mod"), "module example.com/podtest\n\ngo 1.26\n")
	write(t, filepath.Join(src, "main.go"), strings.Replace(Service, "VERSION", version, 1))
	out := filepath.Join(dir, "service-"+version)
	for try := 1; ; try++ {
		cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", out, ".")
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		b, err := cmd.CombinedOutput()
		if tookChild(err) && try < 10 {
			continue
		}
		if err != nil {
			t.Fatalf("build the service: %v\n%s", err, b)
		}
		break
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	e := syncer.Executable{Path: out, Digest: DigestOf(data), Size: int64(len(data)), Data: data}
	buildID[version] = e
	return e
}

func makeDir(t testing.TB) {
	dirOnce.Do(func() {
		var err error
		if dir, err = os.MkdirTemp("", "podtest-"); err != nil {
			t.Fatal(err)
		}
	})
}

// tookChild says that a supervisor under test in this process waited for a child: it takes every child for an orphan.
func tookChild(err error) bool { return errors.Is(err, syscall.ECHILD) }

// variant is a service of the same behaviour and another digest: bytes behind an ELF file's end mean nothing.
func variant(t testing.TB, e syncer.Executable, n api.Generation) syncer.Executable {
	t.Helper()
	data := fmt.Appendf(bytes.Clone(e.Data), "variant %d", n)
	v := syncer.Executable{Path: filepath.Join(t.TempDir(), "service"), Digest: DigestOf(data), Size: int64(len(data)), Data: data}
	if err := os.WriteFile(v.Path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return v
}

// Clean removes what Build made; a TestMain calls it.
func Clean() { os.RemoveAll(dir) }

// DigestOf names content.
func DigestOf(b []byte) api.Digest {
	s := sha256.Sum256(b)
	return api.Digest("sha256:" + hex.EncodeToString(s[:]))
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Manifest makes one for an executable.
func Manifest(g api.Generation, e syncer.Executable, args ...string) api.Manifest {
	return api.Manifest{Generation: g, Executable: api.File{Path: "service", Mode: 0o755, Size: e.Size, Digest: e.Digest}, Process: api.Process{Args: args}}
}

// NewShipper makes a Shipper whose folder goes with the test.
func NewShipper(t testing.TB) *syncer.Shipper {
	sh := &syncer.Shipper{Dir: t.TempDir()}
	t.Cleanup(sh.Wait) // before the folder is removed
	return sh
}

// Ship brings a manifest into the pod with a Shipper of its own.
func Ship(t testing.TB, s Subject, m api.Manifest, e syncer.Executable) api.TransferEvent {
	t.Helper()
	sh := NewShipper(t)
	ev, _, err := sh.Ship(t.Context(), s.Pod, m, e, nil)
	if err != nil {
		t.Fatalf("ship generation %d: %v", m.Generation, err)
	}
	return ev
}

// Get asks the service through the tunnel.
func Get(t testing.TB, s Subject, path string) string {
	t.Helper()
	b, code, err := get(t.Context(), s, path)
	if err != nil || code != 200 {
		t.Fatalf("GET %s: %d %v %s", path, code, err, b)
	}
	return b
}

func get(ctx context.Context, s Subject, path string) (string, int, error) {
	c := Client(s)
	r, err := http.NewRequestWithContext(ctx, "GET", "http://localhost"+path, nil)
	if err != nil {
		return "", 0, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), resp.StatusCode, err
}

func problemCode(err error) string {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return fmt.Sprintf("not a problem: %v", err)
}

// Run runs the suite; subject makes a fresh, empty pod whose tree "files" is a folder.
func Run(t *testing.T, subject func(t *testing.T) Subject) {
	t.Run("swap", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		if got := Get(t, s, "/"); got != "one" {
			t.Fatalf("answer %q, want one", got)
		}
		Ship(t, s, Manifest(2, two), two)
		if got := Get(t, s, "/"); got != "two" { // at once: the gate holds it
			t.Fatalf("answer %q, want two", got)
		}
		st, err := s.Pod.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Generation != 2 || st.Digest != two.Digest || st.State != api.StateRunning {
			t.Fatalf("status %+v", st)
		}
		if exe := DigestOf(must(os.ReadFile(fmt.Sprintf("/proc/%d/exe", st.PID)))); exe != two.Digest {
			t.Fatalf("the process runs %s, its pod says %s", exe, two.Digest)
		}
	})
	t.Run("delta", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		sh := NewShipper(t)
		ev, st, err := sh.Ship(t.Context(), s.Pod, Manifest(1, one), one, nil)
		if err != nil || !ev.Full {
			t.Fatalf("first: %+v %v", ev, err)
		}
		if st.SharesFiles {
			return // it gets no differences; the other subjects do
		}
		ev, _, err = sh.Ship(t.Context(), s.Pod, Manifest(2, two), two, nil)
		if err != nil || ev.Full || ev.Bytes == 0 || ev.Bytes > two.Size/20 {
			t.Fatalf("second: %+v %v (size %d)", ev, err, two.Size)
		}
		if got := Get(t, s, "/"); got != "two" {
			t.Fatalf("answer %q", got)
		}
		// The pod loses its files: whole, once, and said.
		for _, f := range must(os.ReadDir(s.Store)) {
			os.Remove(filepath.Join(s.Store, f.Name()))
		}
		three := Build(t, "three")
		ev, _, err = sh.Ship(t.Context(), s.Pod, Manifest(3, three), three, nil)
		if err != nil || !ev.Full || ev.Reason == "" {
			t.Fatalf("after the loss: %+v %v", ev, err)
		}
		if got := Get(t, s, "/"); got != "three" {
			t.Fatalf("answer %q", got)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		var patch bytes.Buffer
		if err := delta.Diff(t.Context(), &patch, delta.NewIndex(one.Data), two.Data); err != nil {
			t.Fatal(err)
		}
		blob := api.Blob{Digest: two.Digest, Size: two.Size, Encoding: api.EncodingDelta, Base: one.Digest}
		for i := 0; i < 24; i++ {
			bad := bytes.Clone(patch.Bytes())
			bad[i*(len(bad)-1)/23] ^= 1 << (i % 8)
			if err := s.Pod.Stage(t.Context(), blob, bytes.NewReader(bad)); err == nil {
				// The bit was of what only tells one refusal from another. What counts is the content.
				kept := filepath.Join(s.Store, strings.TrimPrefix(string(two.Digest), "sha256:"))
				if got := DigestOf(must(os.ReadFile(kept))); got != two.Digest {
					t.Fatalf("a patch with a flipped bit at %d left %s as %s", i, got, two.Digest)
				}
				os.Remove(kept)
			} else if c := problemCode(err); c != api.CodeBlobCorrupt && c != api.CodeBaseMissing {
				t.Fatalf("flipped bit: %s (%v)", c, err)
			}
			cut := patch.Bytes()[:i*patch.Len()/24]
			if err := s.Pod.Stage(t.Context(), blob, bytes.NewReader(cut)); problemCode(err) != api.CodeBlobCorrupt {
				t.Fatalf("cut at %d: %v", len(cut), err)
			}
		}
		blob.Base = two.Digest
		if err := s.Pod.Stage(t.Context(), blob, bytes.NewReader(patch.Bytes())); problemCode(err) != api.CodeBaseMissing {
			t.Fatalf("wrong base: %v", err)
		}
		other := variant(t, one, 1) // there, and not what the patch was made against
		if err := s.Pod.Stage(t.Context(), api.Blob{Digest: other.Digest, Size: other.Size, Encoding: api.EncodingRaw}, bytes.NewReader(other.Data)); err != nil {
			t.Fatal(err)
		}
		blob.Base = other.Digest
		if err := s.Pod.Stage(t.Context(), blob, bytes.NewReader(patch.Bytes())); problemCode(err) != api.CodeBaseMissing {
			t.Fatalf("another base: %v", err)
		}
		if _, err := s.Pod.Swap(t.Context(), Manifest(2, two)); problemCode(err) != api.CodeBlobMissing {
			t.Fatalf("swap without its executable: %v", err)
		}
		if got := Get(t, s, "/"); got != "one" {
			t.Fatalf("after all that the pod answers %q", got)
		}
		if left, _ := filepath.Glob(filepath.Join(s.Store, "tmp-*")); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
	})
	t.Run("unnamed", func(t *testing.T) {
		s := subject(t)
		one, two, three := Build(t, "one"), Build(t, "two"), Build(t, "three")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		if err := s.Pod.Stage(t.Context(), api.Blob{Size: two.Size, Encoding: api.EncodingRaw}, bytes.NewReader(two.Data)); problemCode(err) != api.CodeBadManifest {
			t.Fatalf("bytes without a digest: %v", err)
		}
		offer := func(path string, size int64) error {
			return s.Pod.Stage(t.Context(), api.Blob{Size: size, Encoding: api.EncodingPath, Path: path}, bytes.NewReader(nil))
		}
		if !must(s.Pod.Status(t.Context())).SharesFiles {
			if err := offer(two.Path, two.Size); problemCode(err) != api.CodeBadManifest {
				t.Fatalf("a path for a pod that takes none: %v", err)
			}
			return
		}
		if err := offer(two.Path, two.Size-1); problemCode(err) != api.CodeBlobCorrupt {
			t.Fatalf("another size: %v", err)
		}
		// The pod names what it is given by what it finds in it, whether it links or copies the file.
		bad := bytes.Clone(three.Data)
		bad[len(bad)/2] ^= 1
		for _, mode := range []os.FileMode{0o700, 0o600} {
			path := filepath.Join(t.TempDir(), "bad")
			if err := os.WriteFile(path, bad, mode); err != nil {
				t.Fatal(err)
			}
			if err := offer(path, three.Size); err != nil {
				t.Fatal(err)
			}
			st := must(s.Pod.Status(t.Context()))
			if !slices.Contains(st.Blobs, DigestOf(bad)) || slices.Contains(st.Blobs, three.Digest) {
				t.Fatalf("of a damaged file the pod made %v", st.Blobs)
			}
			os.Remove(filepath.Join(s.Store, strings.TrimPrefix(string(DigestOf(bad)), "sha256:")))
		}
		if _, err := s.Pod.Swap(t.Context(), Manifest(2, three)); problemCode(err) != api.CodeBlobMissing {
			t.Fatalf("swap to what it does not have: %v", err)
		}
		if got := Get(t, s, "/"); got != "one" {
			t.Fatalf("after all that the pod answers %q", got)
		}
		if err := offer(two.Path, two.Size); err != nil {
			t.Fatal(err)
		}
		if st, err := s.Pod.Swap(t.Context(), Manifest(2, two)); err != nil || st.Digest != two.Digest {
			t.Fatalf("swap to what it took in: %+v %v", st, err)
		}
		if got := Get(t, s, "/"); got != "two" {
			t.Fatalf("answer %q", got)
		}
		if left, _ := filepath.Glob(filepath.Join(s.Store, "tmp-*")); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
	})
	t.Run("held", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		// Kept-alive clients that never stop asking see no refusal while generations come and go.
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		errs := make(chan error, 64)
		asked := make(chan struct{}, 1<<16)
		for range 4 {
			wg.Go(func() {
				c := Client(s)
				for ctx.Err() == nil {
					resp, err := c.Get("http://localhost/slow?ms=3")
					if err == nil {
						b, _ := io.ReadAll(resp.Body)
						resp.Body.Close()
						if resp.StatusCode != 200 || string(b) != "one" && string(b) != "two" {
							err = fmt.Errorf("%d %q", resp.StatusCode, b)
						}
					}
					if err != nil && ctx.Err() == nil {
						errs <- err
						return
					}
					asked <- struct{}{}
				}
			})
		}
		for g := api.Generation(2); g < 12; g++ {
			<-asked
			e := one
			if g%2 == 0 {
				e = two
			}
			Ship(t, s, Manifest(g, e), e)
			s.Events.Listening(t, g)
		}
		cancel()
		go func() {
			for range asked {
			}
		}()
		wg.Wait()
		close(asked)
		select {
		case err := <-errs:
			t.Fatalf("a request failed during a swap: %v", err)
		default:
		}
	})
	t.Run("in flight", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		got := make(chan string, 1)
		go func() {
			b, _, err := get(context.WithoutCancel(t.Context()), s, "/slow?ms=1500")
			got <- fmt.Sprint(b, err)
		}()
		s.waitFlight(t)
		Ship(t, s, Manifest(2, two), two)
		if g := <-got; g != "one<nil>" {
			t.Fatalf("the request in flight got %q", g)
		}
	})
	t.Run("stream does not delay", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		resp, err := Client(s).Get("http://localhost/events")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		io.ReadFull(resp.Body, make([]byte, 9))
		start := time.Now()
		Ship(t, s, Manifest(2, two), two)
		if d := time.Since(start); d > 8*time.Second { // the bound of a request without an answer is 10 s
			t.Fatalf("the swap waited %v for an event stream", d)
		}
		if got := Get(t, s, "/"); got != "two" {
			t.Fatal(got)
		}
	})
	for _, how := range []string{"ignore-term", "drain", "fork", "flood"} {
		t.Run(how, func(t *testing.T) {
			s := subject(t)
			one, two := Build(t, "one"), Build(t, "two")
			Ship(t, s, Manifest(1, one, how), one)
			s.Events.Listening(t, 1)
			child := 0
			if how == "fork" {
				e := s.Events.Wait(t, "the child's number", func(e api.Event) bool {
					l, ok := e.(*api.LogEvent)
					return ok && strings.HasPrefix(l.Text, "child ")
				}).(*api.LogEvent)
				fmt.Sscanf(e.Text, "child %d", &child)
			}
			Ship(t, s, Manifest(2, two), two)
			if got := Get(t, s, "/"); got != "two" {
				t.Fatalf("answer %q", got)
			}
			if child != 0 {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child)); err == nil && strings.Contains(string(b), "child") {
					t.Fatalf("the child %d is still there", child)
				}
				for end := time.Now().Add(20 * time.Second); ; { // and not as a zombie either
					if _, err := os.Stat(fmt.Sprintf("/proc/%d", child)); err != nil {
						break
					}
					if time.Now().After(end) {
						t.Fatalf("nobody has reaped the child %d", child)
					}
					Get(t, s, "/slow?ms=20")
				}
			}
		})
	}
	t.Run("grace", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		m := Manifest(1, one, "last-words")
		m.Process.Grace = 30 * time.Second
		Ship(t, s, m, one)
		s.Events.Listening(t, 1)
		Ship(t, s, Manifest(2, two), two)
		s.Events.Listening(t, 2)
		s.Events.Wait(t, "what it wrote after SIGTERM", func(e api.Event) bool {
			l, ok := e.(*api.LogEvent)
			return ok && l.Text == "last words" && l.Generation == 1
		})
	})
	t.Run("environment", func(t *testing.T) {
		t.Setenv("FAIRLEAD_SECRET", "the supervisor's")
		t.Setenv("PODTEST_KEPT", "the container's")
		s := subject(t)
		one := Build(t, "one")
		m := Manifest(1, one)
		m.Process.Env = []string{"PODTEST_SET=the manifest's"}
		Ship(t, s, m, one)
		s.Events.Listening(t, 1)
		for k, want := range map[string]string{"FAIRLEAD_SECRET": "", "PODTEST_KEPT": "the container's", "PODTEST_SET": "the manifest's"} {
			if got := Get(t, s, "/env?k="+k); got != want {
				t.Errorf("%s is %q, want %q", k, got, want)
			}
		}
	})
	t.Run("other protocols", func(t *testing.T) {
		s := subject(t)
		one := Build(t, "one")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		c := Client(s)
		h2 := c.Transport.(*http.Transport)
		h2.Protocols = new(http.Protocols)
		h2.Protocols.SetUnencryptedHTTP2(true)
		resp, err := c.Get("http://localhost/head")
		if err != nil {
			t.Fatalf("h2c: %v", err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.HasPrefix(string(b), "HTTP/2.0 ") {
			t.Errorf("h2c: the service sees %q", b)
		}
		h2.CloseIdleConnections()

		Ship(t, s, Manifest(2, one, "raw"), one)
		s.Events.Listening(t, 2)
		conn, err := s.Dial(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		got := make(chan string, 1)
		go func() {
			b := make([]byte, len("hello there"))
			n, err := io.ReadFull(conn, b[:6]) // it speaks first
			if err == nil {
				io.WriteString(conn, "there")
				n, err = io.ReadFull(conn, b[6:])
				n += 6
			}
			got <- fmt.Sprint(string(b[:n]), err)
		}()
		select {
		case g := <-got:
			if g != "hello there<nil>" {
				t.Errorf("a protocol in which the server speaks first: %q", g)
			}
		case <-time.After(20 * time.Second):
			t.Error("a protocol in which the server speaks first: nothing came")
		}
	})
	t.Run("verified", func(t *testing.T) {
		s := subject(t)
		st, err := s.Pod.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		right, wrong, long := []byte("what was announced"), []byte("what wasn't really"), []byte("what was announced and more")
		compressed := func(b []byte) []byte {
			var z bytes.Buffer
			if err := delta.Compress(t.Context(), &z, bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
			return z.Bytes()
		}
		path := filepath.Join(t.TempDir(), "file")
		write(t, path, string(wrong))
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
		blob := api.Blob{Digest: DigestOf(right), Size: int64(len(right))}
		for name, c := range map[string]struct {
			enc  api.Encoding
			path string
			body []byte
			size int64
			code string
		}{
			"raw, other content":        {api.EncodingRaw, "", wrong, blob.Size, api.CodeBlobCorrupt},
			"raw, too long":             {api.EncodingRaw, "", long, blob.Size, api.CodeBlobCorrupt},
			"raw, too short":            {api.EncodingRaw, "", right[:5], blob.Size, api.CodeBlobCorrupt},
			"raw, nothing":              {api.EncodingRaw, "", nil, blob.Size, api.CodeBlobCorrupt},
			"raw, another size":         {api.EncodingRaw, "", right, blob.Size + 1, api.CodeBlobCorrupt},
			"compressed, other content": {api.EncodingZstd, "", compressed(wrong), blob.Size, api.CodeBlobCorrupt},
			"compressed, too long":      {api.EncodingZstd, "", compressed(long), blob.Size, api.CodeBlobCorrupt},
			"not compressed":            {api.EncodingZstd, "", right, blob.Size, api.CodeBlobCorrupt},
			"negative size":             {api.EncodingRaw, "", right, -1, api.CodeBadManifest},
			"too large":                 {api.EncodingRaw, "", right, 1 << 40, api.CodeBadManifest},
			"unknown encoding":          {"gzip", "", right, blob.Size, api.CodeBadManifest},
			"a file with other content": {api.EncodingPath, path, nil, blob.Size, map[bool]string{true: api.CodeBlobCorrupt, false: api.CodeBadManifest}[st.SharesFiles]},
			"a relative path":           {api.EncodingPath, "file", nil, blob.Size, api.CodeBadManifest},
		} {
			b := blob
			b.Encoding, b.Path, b.Size = c.enc, c.path, c.size
			if err := s.Pod.Stage(t.Context(), b, bytes.NewReader(c.body)); problemCode(err) != c.code {
				t.Errorf("%s: %v, want %s", name, err, c.code)
			}
			if left := must(os.ReadDir(s.Store)); len(left) > 0 {
				t.Fatalf("%s: left behind: %v", name, left)
			}
		}
		for _, bad := range []api.Digest{"", "sha256:", "sha256:../../../../etc/passwd", "md5:" + blob.Digest[7:], api.Digest(strings.ToUpper(string(blob.Digest)))} {
			b := blob
			b.Encoding, b.Digest = api.EncodingRaw, bad
			if err := s.Pod.Stage(t.Context(), b, bytes.NewReader(right)); problemCode(err) != api.CodeBadManifest {
				t.Errorf("digest %q: %v", bad, err)
			}
		}
		for _, enc := range []api.Encoding{api.EncodingRaw, api.EncodingZstd} {
			b, body := blob, right
			if b.Encoding = enc; enc == api.EncodingZstd {
				body = compressed(right)
			}
			if err := s.Pod.Stage(t.Context(), b, bytes.NewReader(body)); err != nil {
				t.Errorf("%s: %v", enc, err)
			}
			kept := filepath.Join(s.Store, strings.TrimPrefix(string(b.Digest), "sha256:"))
			if got := must(os.ReadFile(kept)); !bytes.Equal(got, right) {
				t.Errorf("%s: %q is kept", enc, got)
			}
			os.Remove(kept)
		}
	})
	t.Run("store", func(t *testing.T) {
		s := subject(t)
		one := Build(t, "one")
		var all []api.Digest
		for g := api.Generation(1); g < 5; g++ {
			e := variant(t, one, g)
			all = append(all, e.Digest)
			Ship(t, s, Manifest(g, e), e)
		}
		st, err := s.Pod.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// What runs, as the base of the next difference, and what ran before.
		want := slices.Sorted(slices.Values(all[2:]))
		if got := slices.Sorted(slices.Values(st.Blobs)); !slices.Equal(got, want) {
			t.Errorf("the pod keeps %v, want %v", got, want)
		}
	})
	t.Run("crash", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		Ship(t, s, Manifest(1, one, "exit"), one)
		e := s.Events.Wait(t, "exit", func(e api.Event) bool {
			p, ok := e.(*api.ProcessEvent)
			return ok && p.State == api.StateExited
		}).(*api.ProcessEvent)
		if e.ExitCode == nil || *e.ExitCode != 3 || e.Digest != one.Digest {
			t.Fatalf("exit event %+v", e)
		}
		b, code, err := get(t.Context(), s, "/")
		if err != nil || code != http.StatusBadGateway || !strings.Contains(b, "exited with code 3") || !strings.Contains(b, "about to exit") {
			t.Fatalf("asked after the crash: %d %v %q", code, err, b)
		}
		for g := api.Generation(2); g < 6; g++ { // crash after crash, then a good one, at once
			Ship(t, s, Manifest(g, two, "exit"), two)
		}
		Ship(t, s, Manifest(6, one), one)
		if got := Get(t, s, "/"); got != "one" {
			t.Fatal(got)
		}
	})
	t.Run("idle", func(t *testing.T) {
		s := subject(t)
		one := Build(t, "one")
		Ship(t, s, Manifest(1, one, "idle"), one)
		s.Events.Wait(t, "running", func(e api.Event) bool {
			p, ok := e.(*api.ProcessEvent)
			return ok && p.State == api.StateRunning
		})
	})
	t.Run("stale and repeated", func(t *testing.T) {
		s := subject(t)
		one, two := Build(t, "one"), Build(t, "two")
		Ship(t, s, Manifest(5, one), one)
		s.Events.Listening(t, 5)
		before, _ := s.Pod.Status(t.Context())
		if st, err := s.Pod.Swap(t.Context(), Manifest(5, one)); err != nil || st.PID != before.PID {
			t.Fatalf("the same manifest again: %+v %v", st, err)
		}
		if _, err := s.Pod.Swap(t.Context(), Manifest(4, two)); problemCode(err) != api.CodeStale {
			t.Fatalf("an older generation: %v", err)
		}
	})
	t.Run("host", func(t *testing.T) {
		s := subject(t)
		one := Build(t, "one")
		m := Manifest(1, one)
		m.Process.Hosts = []string{"shop.example"}
		Ship(t, s, m, one)
		s.Events.Listening(t, 1)
		for host, want := range map[string]int{"localhost:99": 200, "127.0.0.1": 200, "[::1]:8": 200, "shop.localhost": 200, "shop.example": 200,
			"evil.example": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, "evillocalhost": 421, "192.0.2.1": 421, "0.0.0.0": 421} {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://localhost/", nil)
			r.Host = host
			resp, err := Client(s).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("Host %q: %d, want %d", host, resp.StatusCode, want)
			}
		}
		// The service sees what the client sent.
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://localhost/head", nil)
		r.Host = "shop.example"
		r.Header.Set("X-Forwarded-For", "192.0.2.7")
		resp, err := Client(s).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b := must(io.ReadAll(resp.Body)); string(b) != "HTTP/1.1 shop.example 192.0.2.7" {
			t.Errorf("the service sees %q", b)
		}
	})
	t.Run("trees", func(t *testing.T) { runTrees(t, subject(t)) })
	t.Run("bad manifests", func(t *testing.T) {
		s := subject(t)
		one := Build(t, "one")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		good := api.File{Path: "a", Mode: 0o644, Size: one.Size, Digest: one.Digest}
		with := func(f func(*api.File)) api.File { g := good; f(&g); return g }
		for name, files := range map[string][]api.File{
			"absolute":      {with(func(f *api.File) { f.Path = "/etc/passwd" })},
			"parent":        {with(func(f *api.File) { f.Path = "../x" })},
			"inner parent":  {with(func(f *api.File) { f.Path = "a/../../x" })},
			"dot":           {with(func(f *api.File) { f.Path = "." })},
			"backslash":     {with(func(f *api.File) { f.Path = `..\x` })},
			"nul":           {with(func(f *api.File) { f.Path = "a\x00b" })},
			"setuid":        {with(func(f *api.File) { f.Mode = 0o4755 })},
			"case":          {good, with(func(f *api.File) { f.Path = "A" })},
			"file and dir":  {good, with(func(f *api.File) { f.Path = "a/b" })},
			"link out":      {{Path: "l", Mode: 0o777, Link: "../../etc"}},
			"link absolute": {{Path: "l", Mode: 0o777, Link: "/etc"}},
			"no digest":     {{Path: "x", Mode: 0o644}},
			"reserved name": {with(func(f *api.File) { f.Path = "d/.fairlead-new-x" })},
			"link to above": {{Path: "d/l", Mode: 0o777, Link: "../.."}},
			"link past it":  {{Path: "d/l", Mode: 0o777, Link: "../../x"}},
		} {
			m := Manifest(2, one)
			m.Trees = []api.Tree{{Name: "files", Files: files}}
			if _, err := s.Pod.Swap(t.Context(), m); problemCode(err) != api.CodeBadManifest {
				t.Errorf("%s: %v", name, err)
			}
		}
		m := Manifest(2, one)
		m.Trees = []api.Tree{{Name: "other"}}
		if _, err := s.Pod.Swap(t.Context(), m); problemCode(err) != api.CodeBadManifest {
			t.Errorf("unknown tree: %v", err)
		}
		m = Manifest(2, one)
		m.Executable.Path = "../service"
		if _, err := s.Pod.Swap(t.Context(), m); problemCode(err) != api.CodeBadManifest {
			t.Errorf("executable outside: %v", err)
		}
		text := syncer.Executable{Path: filepath.Join(t.TempDir(), "text"), Digest: DigestOf([]byte("no program")), Size: 10}
		write(t, text.Path, "no program")
		sh := NewShipper(t)
		if _, _, err := sh.Ship(t.Context(), s.Pod, Manifest(2, text), text, nil); problemCode(err) != api.CodeBadManifest {
			t.Errorf("not an executable: %v", err)
		}
		if got := Get(t, s, "/"); got != "one" {
			t.Fatal(got)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
