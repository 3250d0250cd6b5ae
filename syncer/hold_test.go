package syncer

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
)

// brake is a Config.Hold that a test lets go of.
type brake struct {
	mu   sync.Mutex
	on   bool
	free chan struct{}
}

func (b *brake) set(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on && !on {
		close(b.free)
	}
	if on {
		b.free = make(chan struct{})
	}
	b.on = on
}

func (b *brake) hold(ctx context.Context, _ api.Generation) error {
	b.mu.Lock()
	on, free := b.on, b.free
	b.mu.Unlock()
	if !on {
		return nil
	}
	select {
	case <-free:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// While the process must be left alone a generation is sent and not swapped in; a newer one takes its place; the process
// is started as it is wanted when it is let in.
func TestLoopHold(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		var br brake
		var mu sync.Mutex
		debug := false
		b.loop.cfg.Hold = br.hold
		b.loop.cfg.Process = func() api.Process { mu.Lock(); defer mu.Unlock(); return api.Process{Debug: debug} }
		b.settle()
		br.set(true)
		b.loop.Changed(Change{Build: true, Saved: time.Now()})
		b.settle()
		b.loop.Changed(Change{Build: true, Saved: time.Now()})
		b.settle()
		if g := b.generations(); len(g) != 1 {
			t.Fatalf("generations %v were swapped in against the hold", g)
		}
		mu.Lock()
		debug = true
		mu.Unlock()
		br.set(false)
		b.settle()
		if g := b.generations(); !slices.Equal(g, []api.Generation{1, 3}) {
			t.Fatalf("generations %v: want the first and the last", g)
		}
		if !b.pod.swaps[1].Process.Debug {
			t.Error("the process is started as it was wanted before the hold")
		}
		for _, e := range b.events {
			if tr, ok := e.(*api.TransferEvent); ok && tr.MS > 10_000 {
				t.Errorf("the transfer took %d ms: the hold is counted in", tr.MS)
			}
			if p, ok := e.(*api.ProblemEvent); ok {
				t.Errorf("a problem: %+v", p.Problem)
			}
		}
	})
}
