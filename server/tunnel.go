package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// tunnelWait bounds how long a connection waits for a pod that is away.
const tunnelWait = 30 * time.Second

// tunnels are the service's ports on this machine: one loopback listener for each, kept for as long as the session
// lives, so that a URL stays what it was while pods come and go. Host headers are checked at the far end, where the
// requests are read anyway.
type tunnels struct {
	dial func(ctx context.Context, port int) (net.Conn, error)
	// prefer maps a port of the service to the one it had here before.
	prefer map[int]int

	mu    sync.Mutex
	local map[int]int // the service's port to ours
	wg    sync.WaitGroup
}

func newTunnels(prefer map[int]int, dial func(ctx context.Context, port int) (net.Conn, error)) *tunnels {
	return &tunnels{dial: dial, prefer: prefer, local: map[int]int{}}
}

// open makes the tunnel to a port of the service, or finds it, and returns its port here. It is closed when ctx ends.
func (t *tunnels) open(ctx context.Context, port int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.local[port]; ok {
		return n, nil
	}
	// The port it had before, then the service's own number, then any.
	var ln net.Listener
	var err error
	for i, try := range []int{t.prefer[port], port, 0} {
		if i < 2 && try < 1024 { // unknown, or not ours to open
			continue
		}
		if ln, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(try))); err == nil {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("open a local port for the service's port %d: %w", port, err)
	}
	n := ln.Addr().(*net.TCPAddr).Port
	t.local[port] = n
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	t.wg.Go(func() {
		defer stop()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.wg.Go(func() { t.join(ctx, c, port) })
		}
	})
	return n, nil
}

// known returns the ports that are open: the service's to ours.
func (t *tunnels) known() map[int]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[int]int, len(t.local))
	for k, v := range t.local {
		m[k] = v
	}
	return m
}

func (t *tunnels) join(ctx context.Context, c net.Conn, port int) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	dctx, cancel := context.WithTimeout(ctx, tunnelWait)
	far, err := t.dial(dctx, port)
	cancel()
	if err != nil {
		return
	}
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(far, c)
		far.Close() // a yamux stream's Close ends the sending side only: the answer still comes
	}()
	io.Copy(c, far)
	c.Close()
	far.Close()
	<-done
}

// wait returns when every connection has ended; ctx of open must have ended before.
func (t *tunnels) wait() { t.wg.Wait() }
