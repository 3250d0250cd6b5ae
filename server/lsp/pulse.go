package lsp

import (
	"sync"
	"time"
)

// pulse runs a function soon after poke, at most once in a while: at once after a rest, else when the rest is over. What
// happens in between is done in one go. The function runs on a goroutine of its own, never twice at a time.
type pulse struct {
	every time.Duration
	do    func()

	mu      sync.Mutex
	pending *time.Timer
	last    time.Time
	ended   bool
	running sync.WaitGroup
	turn    sync.Mutex
}

func newPulse(every time.Duration, do func()) *pulse { return &pulse{every: every, do: do} }

func (p *pulse) poke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending != nil || p.ended {
		return
	}
	p.running.Add(1)
	p.pending = time.AfterFunc(max(0, p.every-time.Since(p.last)), func() {
		defer p.running.Done()
		p.turn.Lock() // one that takes longer than the rest delays the next
		defer p.turn.Unlock()
		p.mu.Lock()
		p.pending, p.last = nil, time.Now()
		p.mu.Unlock()
		p.do()
	})
}

// end waits for a run under way; none begins afterwards.
func (p *pulse) end() {
	p.mu.Lock()
	p.ended = true
	if p.pending != nil && p.pending.Stop() {
		p.running.Done()
	}
	p.mu.Unlock()
	p.running.Wait()
}
