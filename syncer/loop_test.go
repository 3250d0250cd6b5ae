package syncer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.dev/api"
)

// fakePod keeps what it is told; it can lose its connection and its memory.
type fakePod struct {
	mu    sync.Mutex
	st    api.Status
	lost  int // this many calls fail as a lost connection does
	full  int // this many blobs find no space
	swaps []api.Manifest

	offers, stages int
	deaf           bool          // it takes no file that is not named
	slow           time.Duration // that staging takes
}

func (p *fakePod) fail() error {
	if p.lost > 0 {
		p.lost--
		return &api.Problem{Code: api.CodeLost, Message: "lost"}
	}
	return nil
}

func (p *fakePod) Status(context.Context) (api.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.st, p.fail()
}

func (p *fakePod) Stage(ctx context.Context, b api.Blob, r io.Reader) error {
	io.Copy(io.Discard, r)
	p.mu.Lock()
	slow := p.slow
	p.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.fail(); err != nil {
		return err
	}
	if b.Digest == "" {
		p.offers++
		if p.deaf || p.full > 0 {
			return &api.Problem{Code: api.CodeBlobCorrupt}
		}
		b.Digest = api.Digest(filepath.Base(b.Path)) // as Build below names it
	} else {
		p.stages++
		if p.full > 0 {
			p.full--
			return &api.Problem{Code: api.CodeDiskFull, Message: "full"}
		}
	}
	p.st.Blobs = append(p.st.Blobs, b.Digest)
	return nil
}

func (p *fakePod) Swap(_ context.Context, m api.Manifest) (api.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.fail(); err != nil {
		return api.Status{}, err
	}
	p.st.Generation, p.st.Digest = m.Generation, m.Executable.Digest
	p.swaps = append(p.swaps, m)
	return p.st, nil
}

// bench is a loop in a bubble of virtual time.
type bench struct {
	pod    *fakePod
	loop   *Loop
	mu     sync.Mutex
	events []api.Event
	builds int
	saved  []time.Time // of each generation that was shipped, the edit that led to it
	broken bool
	dir    string
}

func inBubble(t *testing.T, f func(t *testing.T, b *bench)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{pod: &fakePod{st: api.Status{SharesFiles: true}}, dir: dir}
		b.loop = New(Config{Pod: b.pod, Name: "x", Dir: dir, Process: func() api.Process { return api.Process{} },
			Emit: func(e api.Event) { b.mu.Lock(); b.events = append(b.events, e); b.mu.Unlock() },
			Build: func(ctx context.Context, linked func(string, int64)) (Built, []*api.Problem, error) {
				b.mu.Lock()
				b.builds++
				n, broken := b.builds, b.broken
				b.mu.Unlock()
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return Built{}, nil, ctx.Err()
				}
				if broken { // with an executable that is not to be looked at
					return Built{Executable: Executable{Path: dir, Digest: "stale"}}, []*api.Problem{{Code: "build-failed", Message: "no"}}, nil
				}
				path := filepath.Join(dir, fmt.Sprint("built-", n))
				if err := os.WriteFile(path, nil, 0o700); err != nil {
					return Built{}, nil, err
				}
				if linked != nil {
					linked(path, 0)
					time.Sleep(time.Second) // so long it takes to make the digest
				}
				return Built{Executable: Executable{Path: path, Digest: api.Digest(filepath.Base(path))}, Temporary: true}, nil, nil
			}, Shipping: func(g api.Generation, saved time.Time) { b.mu.Lock(); b.saved = append(b.saved, saved); b.mu.Unlock() }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.loop.Run(ctx) }()
		f(t, b)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if left := b.built(t); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func (b *bench) settle() { time.Sleep(30 * time.Second); synctest.Wait() }

// built are the executables that have not been removed.
func (b *bench) built(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(b.dir, "built-*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range paths {
		paths[i] = filepath.Base(paths[i])
	}
	return paths
}

func (b *bench) generations() (out []api.Generation) {
	b.pod.mu.Lock()
	defer b.pod.mu.Unlock()
	for _, m := range b.pod.swaps {
		out = append(out, m.Generation)
	}
	return out
}

func TestLoopSupersedes(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.settle()
		var last time.Time
		for range 5 { // each save comes before the build of the last one ends
			last = time.Now()
			b.loop.Changed(Change{Build: true, Saved: last})
			time.Sleep(300 * time.Millisecond)
		}
		b.settle()
		if len(b.saved) != 2 || !b.saved[1].Equal(last) {
			t.Errorf("saved at %v, want the last save's %v", b.saved, last)
		}
		if left := b.built(t); !slices.Equal(left, []string{"built-6"}) {
			t.Errorf("executables: %v, want only the one that the pod has", left)
		}
		if g := b.generations(); len(g) != 2 {
			t.Fatalf("shipped %v: want the first build and the last", g)
		}
		canceled := 0
		for _, e := range b.events {
			if be, ok := e.(*api.BuildEvent); ok && be.Canceled {
				canceled++
			}
		}
		if canceled != 4 {
			t.Fatalf("%d builds were told as cancelled", canceled)
		}
	})
}

func TestLoopFailedBuildShipsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.settle()
		b.broken = true
		b.loop.Changed(Change{Build: true, Saved: time.Now()})
		b.settle()
		if g := b.generations(); len(g) != 1 {
			t.Fatalf("shipped %v", g)
		}
		b.broken = false
		b.loop.Changed(Change{Build: true, Saved: time.Now()})
		b.settle()
		if g := b.generations(); len(g) != 2 {
			t.Fatalf("after it was mended: %v", g)
		}
	})
}

func TestLoopLostAndReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.pod.mu.Lock()
		b.pod.lost = 3
		b.pod.mu.Unlock()
		b.settle()
		if g := b.generations(); len(g) != 1 {
			t.Fatalf("after three losses: %v", g)
		}
		b.pod.mu.Lock() // another pod: empty
		b.pod.st = api.Status{SharesFiles: true}
		b.pod.mu.Unlock()
		b.loop.Resync()
		b.settle()
		if g := b.generations(); len(g) != 2 || g[1] != g[0] {
			t.Fatalf("the new pod got %v", g)
		}
		b.loop.Resync() // it has it: nothing more
		b.settle()
		if g := b.generations(); len(g) != 2 {
			t.Fatalf("shipped again: %v", g)
		}
		b.pod.mu.Lock() // another agent was here
		b.pod.st.Generation, b.pod.st.Digest = 40, "other"
		b.pod.mu.Unlock()
		b.loop.Resync()
		b.settle()
		if g := b.generations(); len(g) != 3 || g[2] != 41 {
			t.Fatalf("over a stranger's generation 40: %v", g)
		}
	})
}

// A pod on this machine takes the executable in while the digest is made; what it did not take in it is sent.
func TestLoopOffers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.settle()
		for i, tt := range []struct {
			name           string
			prepare        func()
			offers, stages int
		}{
			{"the first build: nothing is known of the pod", func() {}, 0, 1},
			{"taken in meanwhile", func() {}, 1, 1},
			{"slower than the agent", func() { b.pod.slow = 5 * time.Second }, 2, 1},
			{"refused", func() { b.pod.deaf = true }, 3, 2},
			{"lost", func() { b.pod.lost = 1 }, 3, 3},
		} {
			tt.prepare()
			if i > 0 {
				b.loop.Changed(Change{Build: true, Saved: time.Now()})
				b.settle()
			}
			if b.pod.offers != tt.offers || b.pod.stages != tt.stages || len(b.generations()) != i+1 {
				t.Fatalf("%s: %d offers, %d stages, shipped %v", tt.name, b.pod.offers, b.pod.stages, b.generations())
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, e := range b.events { // the user is told the same of each
			if te, ok := e.(*api.TransferEvent); ok && (!te.Full || te.Files != 1) {
				t.Errorf("%+v", te)
			}
		}
	})
}

func TestLoopFilesOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.settle()
		b.loop.Changed(Change{Files: true, Saved: time.Now()})
		b.settle()
		if b.builds != 1 || len(b.generations()) != 2 {
			t.Fatalf("%d builds, shipped %v", b.builds, b.generations())
		}
	})
}

// A pod that was full may have made space by refusing: it is asked once more. After that it is the user's to mend.
func TestLoopDiskFull(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		save := func(full int) (shipped int) {
			b.pod.mu.Lock()
			b.pod.full = full
			b.pod.mu.Unlock()
			b.loop.Changed(Change{Build: true, Saved: time.Now()})
			b.settle()
			return len(b.generations())
		}
		b.settle()
		if n := save(1); n != 2 {
			t.Fatalf("%d generations after space was made", n)
		}
		if n := save(2); n != 2 {
			t.Fatalf("%d generations in a full pod", n)
		}
		told := 0
		for _, e := range b.events {
			if p, ok := e.(*api.ProblemEvent); ok && p.Code == api.CodeDiskFull {
				told++
			}
		}
		if told != 1 {
			t.Fatalf("told %d times, want once", told)
		}
		if n := save(0); n != 3 {
			t.Fatalf("%d generations with space again", n)
		}
	})
}

// A canceled build is not begun again until the next change, and what ran goes on running.
func TestLoopCancelBuild(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.settle()
		b.loop.Changed(Change{Build: true, Saved: time.Now()})
		time.Sleep(300 * time.Millisecond)
		b.loop.CancelBuild()
		b.settle()
		if b.builds != 2 || len(b.generations()) != 1 {
			t.Fatalf("%d builds, generations %v", b.builds, b.generations())
		}
		b.mu.Lock()
		last, ok := b.events[len(b.events)-1].(*api.BuildEvent)
		b.mu.Unlock()
		if !ok || !last.Canceled {
			t.Fatalf("%+v", last)
		}
		b.loop.CancelBuild() // of nothing
		b.settle()
		b.loop.Changed(Change{Build: true, Saved: time.Now()})
		b.settle()
		if b.builds != 3 || len(b.generations()) != 2 {
			t.Fatalf("%d builds, generations %v", b.builds, b.generations())
		}
	})
}

// A canceled transfer is not tried again, not after a reconnect either; the next change's is.
func TestLoopCancelTransfer(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.pod.mu.Lock()
		b.pod.slow = time.Minute
		b.pod.mu.Unlock()
		time.Sleep(10 * time.Second)
		b.loop.CancelTransfer()
		synctest.Wait()
		b.loop.Resync()
		time.Sleep(5 * time.Minute)
		if g := b.generations(); len(g) != 0 {
			t.Fatalf("generations %v", g)
		}
		b.mu.Lock()
		last, ok := b.events[len(b.events)-1].(*api.ProblemEvent)
		b.mu.Unlock()
		if !ok || last.Code != CodeTransferCanceled {
			t.Fatalf("%+v", last)
		}
		b.loop.Changed(Change{Build: true, Saved: time.Now()})
		time.Sleep(5 * time.Minute)
		if g := b.generations(); len(g) != 1 {
			t.Fatalf("generations %v", g)
		}
	})
}
