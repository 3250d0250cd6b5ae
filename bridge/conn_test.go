//go:build linux

package bridge_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
)

// slowPod's swap takes until it is let go.
type slowPod struct {
	bridge.Pod
	began, letGo chan struct{}
	ended        chan error // the swap's context when it was let go
}

func (p *slowPod) Status(context.Context) (api.Status, error) { return api.Status{}, nil }

func (p *slowPod) Swap(ctx context.Context, m api.Manifest) (api.Status, error) {
	close(p.began)
	<-p.letGo
	p.ended <- ctx.Err()
	return api.Status{}, nil
}

// A swap that has begun is finished, though the agent has gone meanwhile: half a swap is no state to be in.
func TestSwapOutlivesItsRequest(t *testing.T) {
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p := &slowPod{began: make(chan struct{}), letGo: make(chan struct{}), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := bridge.Serve(ctx, ln, token, p); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	c, _ := connect(t, bridge.Options{Dial: (&pod{socket: socket}).dial})

	sctx, give := context.WithCancel(t.Context())
	told := make(chan error, 1)
	go func() {
		_, err := c.Swap(sctx, api.Manifest{Generation: 1})
		told <- err
	}()
	<-p.began
	give()
	if err := <-told; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller was told %v", err)
	}
	c.Reconnect() // the pod's side of the request is over for certain when its connection is
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(p.letGo)
	if err := <-p.ended; err != nil {
		t.Errorf("the swap was interrupted: %v", err)
	}
}

// An agent that goes leaves the environment free.
func TestHolderLeaves(t *testing.T) {
	p := startPod(t)
	looker, _ := connect(t, bridge.Options{Dial: p.dial})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	c := bridge.New(bridge.Options{Dial: p.dial, Token: token, Name: "ada@one (pid 1)"})
	go func() { defer close(done); c.Run(ctx) }()
	waitHolder(t, looker, "ada@one (pid 1)")
	cancel()
	<-done
	waitHolder(t, looker, "")
}

// failing is a connection that can be made to end with an error of its own.
type failing struct {
	io.ReadWriteCloser
	once sync.Once
	why  chan error
}

func (f *failing) Read(b []byte) (int, error) {
	n, err := f.ReadWriteCloser.Read(b)
	if err != nil {
		select {
		case why := <-f.why:
			return n, why
		default:
		}
	}
	return n, err
}

func (f *failing) end(why error) {
	f.once.Do(func() { f.why <- why; f.ReadWriteCloser.Close() })
}

// Each change of the connection is told, a loss with the reason that the stream gave.
func TestStateTold(t *testing.T) {
	p := startPod(t)
	type state struct {
		up  bool
		err error
	}
	states := make(chan state, 100)
	conns := make(chan *failing, 100)
	dial := func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := p.dial(ctx)
		if err != nil {
			return nil, err
		}
		f := &failing{ReadWriteCloser: conn, why: make(chan error, 1)}
		conns <- f
		return f, nil
	}
	next := func() state {
		t.Helper()
		select {
		case s := <-states:
			return s
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is told")
			return state{}
		}
	}
	connect(t, bridge.Options{Dial: dial, Name: "ada", OnState: func(up bool, err error) { states <- state{up, err} }})
	for i := range 3 {
		if s := next(); !s.up || s.err != nil {
			t.Fatalf("connection %d: told %+v", i, s)
		}
		(<-conns).end(errors.New("container fairlead was killed"))
		if s := next(); s.up || s.err == nil || !strings.Contains(s.err.Error(), "was killed") {
			t.Fatalf("loss %d: told %+v", i, s)
		}
	}
}

// An environment that is gone for good is not dialled for ever.
func TestGoneForGood(t *testing.T) {
	_, end := connect(t, bridge.Options{Name: "ada", Dial: func(context.Context) (io.ReadWriteCloser, error) {
		return nil, &api.Problem{Code: api.CodeGone, Message: "deleted"}
	}})
	if err := ended(t, end); code(err) != api.CodeGone {
		t.Errorf("it ended with %v", err)
	}
}
