//go:build linux

package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/podtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	podtest.Clean()
	os.Exit(code)
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
	for line := range bytes.Lines(b) {
		if e, err := api.DecodeEvent(line); err == nil {
			rec.Add(e)
		} else {
			panic(err.Error() + string(line))
		}
	}
}

func TestConformance(t *testing.T) { conformance(t, false) }

// The same for a supervisor that reads the agent's files, as a local environment's does.
func TestConformanceSharing(t *testing.T) { conformance(t, true) }

func conformance(t *testing.T, shares bool) {
	podtest.Run(t, func(t *testing.T) podtest.Subject {
		dir := t.TempDir()
		s, rec := start(t, Options{Dir: filepath.Join(dir, "work"), Trees: map[string]string{"files": filepath.Join(dir, "files")}, SharesFiles: shares})
		return podtest.Subject{Pod: s, Store: filepath.Join(dir, "work", "store"), Tree: filepath.Join(dir, "files"), Events: rec,
			Dial: func(ctx context.Context, port int) (io.ReadWriteCloser, error) {
				here, there := net.Pipe()
				go s.Tunnel(ctx, there, port)
				return here, nil
			}}
	})
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

var r0 time.Time

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
	b, after, _ := r.next(nil, 0)
	var lines, lost, total uint64
	for line := range bytes.Lines(b) {
		var e api.LogEvent
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		total++
		if e.Type == api.KindLog {
			lines++
			lost += e.Dropped
		}
		if e.Text != "" && e.Stream == "stderr" && (e.Text != "last \"quoted\" \ufffd" || !e.Partial) {
			t.Fatalf("%q", e.Text)
		}
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
