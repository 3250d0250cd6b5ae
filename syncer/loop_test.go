package syncer

import (
	"context"
	"errors"
	"io"
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
	swaps []api.Manifest
	slow  time.Duration // that staging takes
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
	broken bool
	dir    string
}

func inBubble(t *testing.T, f func(t *testing.T, b *bench)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{pod: &fakePod{st: api.Status{SharesFiles: true}}, dir: dir}
		b.loop = New(Config{Pod: b.pod, Name: "x", Dir: dir, Process: func() api.Process { return api.Process{} },
			Emit: func(e api.Event) { b.mu.Lock(); b.events = append(b.events, e); b.mu.Unlock() },
			Build: func(ctx context.Context) (Built, []*api.Problem, error) {
				b.mu.Lock()
				b.builds++
				n, broken := b.builds, b.broken
				b.mu.Unlock()
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return Built{}, nil, ctx.Err()
				}
				if broken {
					return Built{}, []*api.Problem{{Code: "build-failed", Message: "no"}}, nil
				}
				return Built{Executable: Executable{Path: dir, Digest: api.Digest(rune('a' + n))}}, nil, nil
			}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.loop.Run(ctx) }()
		f(t, b)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func (b *bench) settle() { time.Sleep(30 * time.Second); synctest.Wait() }

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
		for range 5 { // each save comes before the build of the last one ends
			b.loop.Changed(Change{Build: true, Saved: time.Now()})
			time.Sleep(300 * time.Millisecond)
		}
		b.settle()
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
