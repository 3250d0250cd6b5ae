//go:build linux

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/podtest"
	"fairlead.dev/syncer/supervisor/delve"
)

func TestMain(m *testing.M) {
	if done, err := asPod(os.Args[1:]); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	podtest.Clean()
	os.Exit(code)
}

// asPod makes this test's executable what a supervisor in it starts: fairlead-pod.
func asPod(args []string) (bool, error) {
	switch {
	case len(args) > 0 && args[0] == "exec":
		if os.Getenv("WANDER") != "" {
			wander()
		}
		return true, Become(args[1:])
	case len(args) == 3 && args[0] == "dap":
		pid, err := strconv.Atoi(args[2])
		return true, errors.Join(err, delve.Hold(os.NewFile(3, "dap"), pid))
	case len(args) == 1 && args[0] == "dap":
		return true, delve.Serve(os.NewFile(3, "dap"))
	}
	return false, nil
}

// start runs a supervisor until the test ends.
func start(t *testing.T, opts Options) (*Supervisor, *podtest.Recorder) {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	rec := &podtest.Recorder{}
	go s.Events(ctx, "", 0, func(b []byte) error { record(rec, b); return nil })
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, rec
}

func record(rec *podtest.Recorder, b []byte) {
	if err := api.DecodeFrame(b, func(e api.Event) error { rec.Add(e); return nil }); err != nil {
		panic(err)
	}
}

func TestConformance(t *testing.T) { conformance(t, false) }

// The same for a supervisor that reads the agent's files, as a local environment's does.
func TestConformanceSharing(t *testing.T) { conformance(t, true) }

func conformance(t *testing.T, shares bool) {
	podtest.Run(t, func(t *testing.T) podtest.Subject { s, _ := subject(t, Options{SharesFiles: shares}); return s })
}

func TestConformanceDebug(t *testing.T) {
	podtest.RunDebug(t, func(t *testing.T) podtest.Subject { s, _ := subject(t, Options{}); return s })
}

// subject is a supervisor in a folder of its own, as a suite has it.
func subject(t *testing.T, opts Options) (podtest.Subject, *Supervisor) {
	dir := t.TempDir()
	opts.Dir, opts.Trees = filepath.Join(dir, "work"), map[string]string{"files": filepath.Join(dir, "files")}
	s, rec := start(t, opts)
	return podtest.Subject{Pod: s, Store: filepath.Join(dir, "work", "store"), Tree: filepath.Join(dir, "files"), Events: rec,
		Dial: func(ctx context.Context, port int) (io.ReadWriteCloser, error) {
			here, there := net.Pipe()
			go s.Tunnel(ctx, there, port)
			return here, nil
		}, DebugPod: podtest.DebugPod{Debug: s.Debug, Release: s.ReleaseDebug, Start: s.StartTask, Core: s.DebugCore,
			Task: func(ctx context.Context, id string) (net.Conn, error) {
				c, _, err := s.DebugTask(ctx, id)
				return c, err
			}}}, s
}

// A supervisor that is started anew in the same folder runs what the last one ran, unless the file is damaged.
func TestRestore(t *testing.T) {
	dir := t.TempDir()
	one := podtest.Build(t, "one")
	t.Run("first", func(t *testing.T) {
		s, rec := start(t, Options{Dir: dir})
		podtest.Ship(t, podtest.Subject{Pod: s}, podtest.Manifest(7, one), one)
		rec.Listening(t, 7)
	})
	t.Run("again", func(t *testing.T) {
		s, rec := start(t, Options{Dir: dir})
		rec.Listening(t, 7)
		if st, _ := s.Status(t.Context()); st.Generation != 7 || st.Digest != one.Digest {
			t.Fatalf("%+v", st)
		}
	})
	blob := filepath.Join(dir, "store", string(one.Digest[len("sha256:"):]))
	b, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	os.Remove(blob)
	if err := os.WriteFile(blob, b, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Run("damaged", func(t *testing.T) {
		s, _ := start(t, Options{Dir: dir})
		if st, _ := s.Status(t.Context()); st.Generation != 0 || len(st.Blobs) != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

// What was sent for a generation that never came does not stay: with one for every save the disk would be full for good.
func TestFailedSwapLeavesNothing(t *testing.T) {
	s, rec := start(t, Options{Dir: t.TempDir()})
	one := podtest.Build(t, "one")
	podtest.Ship(t, podtest.Subject{Pod: s}, podtest.Manifest(1, one), one)
	rec.Listening(t, 1)
	for g := api.Generation(2); g < 5; g++ {
		text := fmt.Appendf(nil, "no executable %d", g)
		bad := syncer.Executable{Path: filepath.Join(t.TempDir(), "bad"), Digest: podtest.DigestOf(text), Size: int64(len(text)), Data: text}
		if err := os.WriteFile(bad.Path, text, 0o755); err != nil {
			t.Fatal(err)
		}
		var p *api.Problem
		if _, _, err := podtest.NewShipper(t).Ship(t.Context(), s, podtest.Manifest(g, bad), bad, nil); !errors.As(err, &p) || p.Code != api.CodeBadManifest {
			t.Fatalf("generation %d: %v", g, err)
		}
	}
	if st, _ := s.Status(t.Context()); !slices.Equal(st.Blobs, []api.Digest{one.Digest}) {
		t.Fatalf("the store has %v, what runs is %s", st.Blobs, one.Digest)
	}
}

var r0 = time.Unix(1_700_000_000, 5)

func (r *ring) addLine(now time.Time, gen api.Generation, stderr, partial bool, text []byte) {
	r.addLines([]entry{{time: now, gen: gen, stderr: stderr, partial: partial, text: text}})
}

// A reader that is slower than the service is told how much it lost, and the buffer stays within its bound.
func TestRing(t *testing.T) {
	r := newRing(1000)
	for i := range 100 {
		r.addLine(r0, 1, false, false, []byte{'a' + byte(i%26)})
	}
	r.addState(&api.ProcessEvent{Header: api.Header{Type: api.KindProcess}, State: api.StateRunning})
	r.addLine(r0, 1, true, true, []byte("last \"quoted\" \xff"))
	if r.bytes > 1000 {
		t.Fatalf("%d bytes kept", r.bytes)
	}
	var f api.Frame
	after, _ := r.next(&f, 0)
	var lines, lost, total uint64
	if err := api.DecodeFrame(f.Bytes(), func(ev api.Event) error {
		total++
		e, ok := ev.(*api.LogEvent)
		if !ok {
			return nil
		}
		lines++
		lost += e.Dropped
		if e.Stream == "stderr" && (e.Text != "last \"quoted\" \ufffd" || !e.Partial || !e.Time.Equal(r0)) {
			t.Fatalf("%+v", e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if lines+lost != 101 || after != 102 || total != lines+1 {
		t.Fatalf("%d lines and %d lost of 101, last %d", lines, lost, after)
	}
}

// An agent that attaches before the supervisor has begun to wait for one is not missed.
func TestAttachedBeforeRun(t *testing.T) {
	s, err := New(Options{Dir: t.TempDir(), StopWhenAlone: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, detach, err := s.Attach("ada", "1", false, false)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	select {
	case <-done:
		t.Fatal("it left while an agent was attached")
	case <-time.After(200 * time.Millisecond):
	}
	detach()
	if err := <-done; err != nil { // and leaves soon after the last one
		t.Fatal(err)
	}
}

// parts is a stream that comes in pieces.
type parts struct {
	pieces [][]byte
}

func (p *parts) Read(b []byte) (int, error) {
	if len(p.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.pieces[0])
	if p.pieces[0] = p.pieces[0][n:]; len(p.pieces[0]) == 0 {
		p.pieces = p.pieces[1:]
	}
	return n, nil
}

// captured is the lines of a stream that comes in pieces of a size.
func captured(t *testing.T, text string, size int) (lines []string) {
	t.Helper()
	r := newRing(64 << 20)
	var p parts
	for b := []byte(text); len(b) > 0; {
		n := min(size, len(b))
		p.pieces, b = append(p.pieces, b[:n]), b[n:]
	}
	r.capture(&p, 1, false)
	for _, e := range r.logs[r.head:] {
		l := string(e.text)
		if len(l) > maxLine {
			t.Fatalf("a line of %d bytes", len(l))
		}
		if e.partial {
			l += "+"
		}
		lines = append(lines, l)
	}
	return lines
}

func TestCapture(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	rune3 := strings.Repeat("x", maxLine-1) + "\u20ac"
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"a\nb\r\n\nc", []string{"a", "b", "", "c"}},
		{long + "\nb\n", []string{long, "b"}},
		{long + "y\nb\n", []string{long + "+", "y", "b"}},
		{long + long + long + "\nb\n", []string{long + "+", long + "+", long, "b"}},
		{rune3 + "z\n", []string{long[1:] + "+", "\u20acz"}},
		{strings.Repeat("line\n", 100_000), slices.Repeat([]string{"line"}, 100_000)},
	} {
		for _, size := range []int{1, 7, 4096, readBytes, 1 << 20} {
			if size < 4096 && len(c.in) > 100_000 {
				continue // each read after the first few rests for a millisecond
			}
			if size == 1 && len(c.in) > 100 || size == 7 && len(c.in) > 1000 {
				continue
			}
			if d := cmp.Diff(c.want, captured(t, c.in, size)); d != "" {
				t.Errorf("%.20q in pieces of %d: %.500s", c.in, size, d)
			}
		}
	}
}

// Whatever a service writes, and however it is cut: its lines together are what it wrote.
func FuzzCapture(f *testing.F) {
	f.Add("a\nb\r\n\nc", 2)
	f.Add(strings.Repeat("\u20ac", 9000)+"\n", 4000)
	f.Fuzz(func(t *testing.T, text string, size int) {
		if size <= 0 || len(text)/size > 50 {
			size = len(text)/50 + 1
		}
		want := strings.ReplaceAll(strings.ReplaceAll(text, "\r", "r"), "+", "p")
		var b strings.Builder
		var lines []string
		synctest.Test(t, func(t *testing.T) { lines = captured(t, want, size) }) // its rests take no time
		for _, l := range lines {
			if s, ok := strings.CutSuffix(l, "+"); ok {
				b.WriteString(s)
			} else {
				b.WriteString(l + "\n")
			}
		}
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if b.String() != want {
			t.Fatalf("%.100q, want %.100q", b.String(), want)
		}
	})
}

// While lines come fast they go in batches; a line alone goes at once.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(ringBytes)
		ctx, cancel := context.WithCancel(t.Context())
		type batch struct {
			lines int
			at    time.Duration
		}
		var got []batch
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.follow(ctx, 0, func(b []byte) error {
				n := 0
				api.DecodeFrame(b, func(api.Event) error { n++; return nil })
				got = append(got, batch{n, time.Since(start)})
				return nil
			})
		}()
		for range 1000 { // a thousand a second: each at once
			time.Sleep(time.Millisecond)
			r.addLine(time.Now(), 1, false, false, []byte("slow"))
		}
		synctest.Wait()
		for i, b := range got {
			if b.lines != 1 || b.at != time.Duration(i+1)*time.Millisecond {
				t.Fatalf("batch %d: %+v", i, b)
			}
		}
		if len(got) != 1000 {
			t.Fatalf("%d batches", len(got))
		}
		got = nil
		for range 1000 { // a hundred thousand a second, as they are read: in a few hundred batches
			time.Sleep(time.Millisecond)
			r.addLines(slices.Repeat([]entry{{time: time.Now(), gen: 1, text: []byte("fast")}}, 100))
		}
		time.Sleep(paceMax)
		synctest.Wait()
		if len(got) < 200 || len(got) > 600 {
			t.Fatalf("%d batches of 100,000 lines", len(got))
		}
		n := 0
		for _, b := range got {
			n += b.lines
		}
		if n != 100_000 {
			t.Fatalf("%d lines", n)
		}
		cancel()
		<-done
	})
}
