//go:build linux

package supervisor

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer/podtest"
)

// lines reads a ring's lines from the first.
func lines(t *testing.T, r *ring) []*api.LogEvent {
	t.Helper()
	var out []*api.LogEvent
	var after uint64
	for {
		var f api.Frame
		last, wait := r.next(&f, after)
		if wait != nil {
			return out
		}
		after = last
		if err := api.DecodeFrame(f.Bytes(), func(e api.Event) error {
			if l, ok := e.(*api.LogEvent); ok {
				out = append(out, l)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// Lines come as they were written: cut where they are too long, never within a character, the last one without its end.
func TestCaptureLong(t *testing.T) {
	long := strings.Repeat("é", maxLine) // two bytes each
	r := newRing(1 << 20)
	r.capture(strings.NewReader("one\r\n\n"+long+"\nlast"), 3, true)
	got := lines(t, r)
	if len(got) < 6 || got[0].Text != "one" || got[1].Text != "" || got[len(got)-1].Text != "last" {
		t.Fatalf("%d lines, the first %+v", len(got), got[0])
	}
	whole := ""
	for i, l := range got[2 : len(got)-1] {
		if len(l.Text) > maxLine || strings.ContainsRune(l.Text, '\ufffd') {
			t.Errorf("part %d has %d bytes", i, len(l.Text))
		}
		if more := i < len(got)-4; l.Partial != more {
			t.Errorf("part %d: partial %v", i, l.Partial)
		}
		whole += l.Text
	}
	if whole != long {
		t.Errorf("the long line came as %d bytes of %d", len(whole), len(long))
	}
	for _, l := range got {
		if l.Stream != "stderr" || l.Generation != 3 || l.Dropped != 0 {
			t.Fatalf("%+v", l)
		}
	}
}

// A reader goes on behind the number that it has; of another supervisor's numbers nothing is known.
func TestEventsAfter(t *testing.T) {
	s, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		s.ring.addLine(r0, 1, false, false, fmt.Append(nil, i))
	}
	first := func(epoch string, after uint64) (seq uint64) {
		stop := errors.New("seen")
		err := s.Events(t.Context(), epoch, after, func(b []byte) error {
			return api.DecodeFrame(b, func(e api.Event) error {
				seq = e.Head().Seq
				return stop
			})
		})
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
		return seq
	}
	if n := first(s.epoch, 0); n != 1 {
		t.Errorf("from the start: %d", n)
	}
	if n := first(s.epoch, 3); n != 4 {
		t.Errorf("after 3: %d", n)
	}
	if n := first("another supervisor's", 3); n != 1 {
		t.Errorf("after another supervisor's 3: %d", n)
	}
}

// An agent that comes back takes its own place, and what its old connection does then is of no consequence.
func TestAttachAgain(t *testing.T) {
	s, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	holder := func() string { st, _ := s.Status(t.Context()); return st.Holder }
	lost, old, err := s.Attach("ada (old)", "1", false, false)
	if err != nil {
		t.Fatal(err)
	}
	_, detach, err := s.Attach("ada", "1", false, false)
	if err != nil {
		t.Fatalf("the same agent again: %v", err)
	}
	select {
	case why := <-lost:
		if !strings.Contains(why, "ada") {
			t.Errorf("the old connection was told %q", why)
		}
	default:
		t.Error("the old connection was told nothing")
	}
	old()
	if holder() != "ada" {
		t.Errorf("the late end of the old connection left %q", holder())
	}
	var p *api.Problem
	if _, _, err := s.Attach("bob", "2", false, false); !errors.As(err, &p) || p.Code != api.CodeHeld || !strings.Contains(p.Message, "ada") || p.Hint == "" {
		t.Errorf("another agent: %v", err)
	}
	detach()
	if holder() != "" {
		t.Errorf("%q is still the holder", holder())
	}
}

// An agent that asked for its environment to stay may leave.
func TestKept(t *testing.T) {
	s, err := New(Options{Dir: t.TempDir(), StopWhenAlone: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, detach, err := s.Attach("ada", "1", false, true)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	<-s.began
	detach()
	select {
	case <-done:
		t.Fatal("it left though it was to stay")
	case <-time.After(200 * time.Millisecond):
	}
	s.Shutdown()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What a killed supervisor of the same folder left, in its store and running, goes when the next one comes; what is
// another's stays.
func TestLeftovers(t *testing.T) {
	dir, one := t.TempDir(), podtest.Build(t, "one")
	leave := func(mark string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(one.Path, "idle")
		cmd.Env = append(os.Environ(), envMark+"="+mark)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}
	ours, others := leave(dir), leave(dir+"-other")
	if err := os.MkdirAll(filepath.Join(dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, "store", "tmp-1234")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("what was half written is still there")
	}
	killLeftovers(dir)
	gone := make(chan struct{})
	go func() { ours.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("the service of the killed supervisor is still there")
	}
	if err := others.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("another folder's service: %v", err)
	}
}

// A folder that cannot be brought about whole stays as it was.
func TestTreeAbort(t *testing.T) {
	dir := t.TempDir()
	st, err := newStore(filepath.Join(dir, "store"), false)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("there")
	b := api.Blob{Digest: podtest.DigestOf(text), Size: int64(len(text)), Encoding: api.EncodingRaw}
	if err := st.stage(t.Context(), b, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	tr, err := openTree("t", filepath.Join(dir, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tree", "before"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []api.File{{Path: "a", Mode: 0o644, Size: b.Size, Digest: b.Digest}, {Path: "b", Mode: 0o644, Size: 4, Digest: podtest.DigestOf([]byte("gone"))}}
	if _, err := tr.prepare(files, nil, st); err == nil {
		t.Fatal("a file without content was prepared")
	}
	ents, err := os.ReadDir(filepath.Join(dir, "tree"))
	if err != nil || len(ents) != 1 || ents[0].Name() != "before" {
		t.Errorf("the folder has %v (%v)", ents, err)
	}
}

func TestPickMain(t *testing.T) {
	at := func(s string) listener { return listener{addr: netip.MustParseAddrPort(s)} }
	loop, all, other := at("127.0.0.1:6060"), at("0.0.0.0:8080"), at("[::]:9090")
	for _, c := range []struct {
		ls       []listener
		declared int
		want     int
	}{
		{nil, 0, 0}, {nil, 8080, 0},
		{[]listener{loop, all, other}, 0, 8080},
		{[]listener{loop, all, other}, 9090, 9090},
		{[]listener{loop, all, other}, 6060, 6060},
		{[]listener{loop, all}, 1234, 8080},
		{[]listener{loop}, 0, 6060},
	} {
		if got := pickMain(c.ls, c.declared); got != c.want {
			t.Errorf("%v, declared %d: %d, want %d", c.ls, c.declared, got, c.want)
		}
	}
}

// What the kernel would refuse is refused while the old process still serves.
func TestCheckExecutable(t *testing.T) {
	one := podtest.Build(t, "one")
	f, err := elf.NewFile(bytes.NewReader(one.Data))
	if err != nil {
		t.Fatal(err)
	}
	notLoaded := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_NOTE && p.Filesz > 0 })
	if notLoaded < 0 {
		t.Fatal("no segment can be changed")
	}
	foreign := map[string]uint16{"amd64": uint16(elf.EM_AARCH64), "arm64": uint16(elf.EM_X86_64)}[runtime.GOARCH]
	for name, c := range map[string]struct {
		edit func([]byte)
		want string
	}{
		"as it is":        {func([]byte) {}, ""},
		"another machine": {func(b []byte) { binary.LittleEndian.PutUint16(b[18:], foreign) }, "the pod is " + runtime.GOARCH},
		"no ELF file":     {func(b []byte) { b[0] = '#' }, "not an ELF file"},
		"needs a linker that is not there": {func(b []byte) {
			head := binary.LittleEndian.Uint64(b[32:]) + uint64(notLoaded)*56 // e_phoff, and a header's size (elf(5))
			binary.LittleEndian.PutUint32(b[head:], uint32(elf.PT_INTERP))
			copy(b[f.Progs[notLoaded].Off:], "/lib/none.so\x00")
			binary.LittleEndian.PutUint64(b[head+32:], uint64(len("/lib/none.so\x00"))) // p_filesz
		}, "/lib/none.so"},
	} {
		b := bytes.Clone(one.Data)
		c.edit(b)
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, b, 0o700); err != nil {
			t.Fatal(err)
		}
		err := checkExecutable(path)
		var p *api.Problem
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &p) || p.Code != api.CodeBadManifest || !strings.Contains(p.Message, c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// No space is the user's to mend and says so; anything else is what it is.
func TestWriteProblem(t *testing.T) {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		var p *api.Problem
		if err := writeProblem("stage", &fs.PathError{Op: "write", Path: "x", Err: e}); !errors.As(err, &p) || p.Code != api.CodeDiskFull || p.Hint == "" {
			t.Errorf("%v: %v", e, err)
		}
	}
	var p *api.Problem
	if err := writeProblem("stage", syscall.EIO); errors.As(err, &p) || !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
}

// Only lines are counted as lost; what the process itself did in between is kept.
func TestRingCountsLines(t *testing.T) {
	r := newRing(10 * (lineCost + 1))
	for range 3 {
		for range 50 {
			r.addLine(r0, 1, false, false, []byte("x"))
		}
		r.addState(&api.ProcessEvent{Header: api.Header{Type: api.KindProcess}, State: api.StateRunning})
	}
	r.addLine(r0, 1, false, false, []byte("x"))
	var kept, lost uint64
	for _, l := range lines(t, r) {
		kept++
		lost += l.Dropped
	}
	if kept+lost != 151 || kept != 10 {
		t.Errorf("%d lines and %d lost of 151", kept, lost)
	}
}

// How long a swap waits for what is in the service's hands.
func TestWaitForFlights(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		f    flight
		want time.Duration
	}{
		"no answer yet":           {flight{started: ago(3 * time.Second)}, drainLimit - 3*time.Second},
		"no answer for long":      {flight{started: ago(time.Minute)}, 0},
		"an answer that begins":   {flight{started: ago(time.Minute), answered: ago(200 * time.Millisecond)}, streamAfter - 200*time.Millisecond},
		"an answer that flows on": {flight{started: ago(time.Minute), answered: ago(2 * time.Second)}, 0},
		"a stream":                {flight{started: now, answered: now, stream: true}, 0},
	} {
		g := newGate(func() {}, func() bool { return false })
		g.inflight[&c.f] = struct{}{}
		g.inflight[&flight{started: now, stream: true}] = struct{}{}
		if got := g.waitLocked(now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A stream is known by its answer.
func TestStreamsAreKnown(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		if r.URL.Query().Has("upgrade") {
			w.Header().Set("Upgrade", "x")
			w.WriteHeader(http.StatusSwitchingProtocols)
		}
	}))
	defer srv.Close()
	g := newGate(func() {}, func() bool { return false })
	g.open([]listener{{addr: srv.Listener.Addr().(*net.TCPAddr).AddrPort()}}, srv.Listener.Addr().(*net.TCPAddr).Port)
	defer g.dropIdle()
	for query, want := range map[string]bool{"type=text/plain": false, "type=text/event-stream": true, "type=text/event-stream%3Bcharset=utf-8": true, "upgrade=1": true} {
		f := &flight{}
		r, err := http.NewRequestWithContext(context.WithValue(t.Context(), flightKey{}, f), http.MethodGet, "http://service:0/?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.roundTrip(r)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		resp.Body.Close()
		if f.stream != want || f.answered.IsZero() {
			t.Errorf("%s: %+v", query, f)
		}
	}
}

// A request waits for a swap for half a minute, and longer while a debugger holds the service: that takes as long as the
// developer does.
func TestGateHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := true
		g := newGate(func() {}, func() bool { return held })
		begin := time.Now()
		time.AfterFunc(10*holdLimit+time.Second, func() { held = false })
		if _, err := g.enter(t.Context(), nil); err == nil || time.Since(begin) != 11*holdLimit {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		begin = time.Now()
		if _, err := g.enter(t.Context(), nil); err == nil || time.Since(begin) != holdLimit {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		held = true
		time.AfterFunc(time.Hour, func() { g.open(nil, 0) })
		if down, err := g.enter(t.Context(), nil); err != nil || down != nil {
			t.Error(err)
		}
	})
}

// A memory limit as a cgroup tells it: what the page cache could give back is free; no limit is none.
func TestRoomOf(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, limited := roomOf(dir); limited {
		t.Error("a limit out of nothing")
	}
	put("memory.current", "700\n")
	put("memory.stat", "anon 300\ninactive_file 150\nactive_file 50\n")
	put("memory.max", "max\n")
	if _, limited := roomOf(dir); limited {
		t.Error("max is no limit")
	}
	put("memory.max", "1000\n")
	if room, limited := roomOf(dir); !limited || room != 450 {
		t.Errorf("%d %v", room, limited)
	}
}
