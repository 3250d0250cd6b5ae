package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// tunnelWait bounds how long a connection waits for a pod that is away.
const tunnelWait = 30 * time.Second

// tunnels are the service's ports on this machine: one loopback listener for each, kept for as long as the session
// lives, so that a URL stays what it was while pods come and go. Host headers are checked at the far end, where the
// requests are read anyway.
type tunnels struct {
	// dial has a limit of its own. Its error is what a request is answered with.
	dial func(ctx context.Context, port int) (net.Conn, error)
	// prefer maps a port of the service to the one it had here before.
	prefer map[int]int

	mu     sync.Mutex
	byPort map[int]*tunnel // by the service's port
	wg     sync.WaitGroup
}

// tunnel is a listener here and the service's port that it leads to.
type tunnel struct {
	local int
	port  atomic.Int32
}

func newTunnels(prefer map[int]int, dial func(ctx context.Context, port int) (net.Conn, error)) *tunnels {
	return &tunnels{dial: dial, prefer: prefer, byPort: map[int]*tunnel{}}
}

// open makes the tunnel to a port of the service, or finds it, and returns its port here. It is closed when ctx ends.
func (t *tunnels) open(ctx context.Context, port int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tn, ok := t.byPort[port]; ok {
		return tn.local, nil
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
	tn := &tunnel{local: ln.Addr().(*net.TCPAddr).Port}
	tn.port.Store(int32(port))
	t.byPort[port] = tn
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	t.wg.Go(func() {
		defer stop()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.wg.Go(func() { t.join(ctx, c, int(tn.port.Load())) })
		}
	})
	return tn.local, nil
}

// move makes the tunnel of one of the service's ports lead to another from now on, so that a service that is given
// another port at each start (":0") keeps its address here. It says whether it did: not where the other has one already, or had
// one under a former agent: then both are the service's own numbers.
func (t *tunnels) move(from, to int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byPort[to] != nil || t.prefer[to] != 0 {
		return false
	}
	n, preferred := t.prefer[from]
	tn := t.byPort[from]
	if tn == nil && !preferred {
		return false
	}
	if preferred { // it was opened by a former agent
		delete(t.prefer, from)
		t.prefer[to] = n
	}
	if tn != nil {
		delete(t.byPort, from)
		t.byPort[to] = tn
		tn.port.Store(int32(to))
	}
	return true
}

// known returns the ports that are open: the service's to ours.
func (t *tunnels) known() map[int]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[int]int, len(t.byPort))
	for port, tn := range t.byPort {
		m[port] = tn.local
	}
	return m
}

func (t *tunnels) join(ctx context.Context, c net.Conn, port int) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	far, err := t.dial(ctx, port)
	if err != nil {
		if ctx.Err() == nil {
			refuseConn(c, err)
		}
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
