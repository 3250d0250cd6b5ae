package bridge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"

	"fairlead.dev/api"
)

// Dial opens one byte stream to a pod; see Environment.Dial.
type Dial func(ctx context.Context) (io.ReadWriteCloser, error)

// Bearer is a stream that brings the environment's token along, which goes before Options.Token: of a pod that told it to who
// may execute a command there.
type Bearer interface{ Token() string }

// Options say how a Conn connects.
type Options struct {
	Dial Dial
	// Token may be empty where the streams are Bearers.
	Token string
	// Name is who connects, for people: "user@host". Empty does not attach: status and logs only look.
	Name string
	// TakeOver puts another agent out that is attached.
	TakeOver bool
	// Keep leaves a local environment running when this agent goes.
	Keep bool
	// OnState is told of each change, in order, from the goroutine of Run. err is nil when connected.
	OnState func(connected bool, err error)
}

// Conn is the agent's side of the connection. Run keeps it up; the other methods wait for it, within their context.
type Conn struct {
	opts     Options
	instance string
	http     *http.Client
	retry    chan struct{} // see Retry

	mu    sync.Mutex
	keep  bool   // Options.Keep, as SetKeep changed it
	token string // Options.Token, or the last stream's
	sess  *yamux.Session
	up    chan struct{} // closed while sess is there
	end   error         // set when Run has given up
}

// The waits between attempts. The first is short: a pod that was replaced is often back at once.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 5 * time.Second
	// dialLimit bounds one attempt, a pod that is pulled anew included: the provider says meanwhile what it waits for.
	dialLimit = 5 * time.Minute
)

// maxMessage bounds one websocket message of the pod; it sends runs of about 128 KiB.
const maxMessage = 4 << 20

// New makes a Conn; nothing is dialled before Run.
func New(opts Options) *Conn {
	var id [8]byte
	rand.Read(id[:])
	c := &Conn{opts: opts, keep: opts.Keep, token: opts.Token, instance: hex.EncodeToString(id[:]), up: make(chan struct{}), retry: make(chan struct{}, 1)}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.open(ctx) },
		DisableKeepAlives:  true, // a stream costs nothing, and a stale one would fail a request after a reconnect
		DisableCompression: true,
	}}
	return c
}

// Run connects and reconnects until ctx ends, or until the pod refuses for good (wrong token, held or taken over by
// another agent): that Problem is returned.
func (c *Conn) Run(ctx context.Context) error {
	wait := backoffFirst
	for {
		err := c.once(ctx, func() { wait = backoffFirst })
		if ctx.Err() != nil {
			c.giveUp(ctx.Err())
			return ctx.Err()
		}
		var p *api.Problem
		if errors.As(err, &p) {
			switch p.Code {
			case api.CodeUnauthorized, api.CodeHeld, api.CodeTakenOver, api.CodeGone:
				c.giveUp(err)
				return err
			}
		}
		c.state(false, err)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-c.retry:
			t.Stop()
			wait = backoffFirst
		case <-ctx.Done():
			t.Stop()
			c.giveUp(ctx.Err())
			return ctx.Err()
		}
		wait = min(wait*2, backoffMax)
	}
}

func (c *Conn) state(connected bool, err error) {
	if c.opts.OnState != nil {
		c.opts.OnState(connected, err)
	}
}

func (c *Conn) giveUp(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = err
	select {
	case <-c.up:
	default:
		close(c.up)
	}
}

// once connects, holds the connection until it ends, and says why it ended.
func (c *Conn) once(ctx context.Context, connected func()) error {
	dctx, cancel := context.WithTimeout(ctx, dialLimit)
	raw, err := c.opts.Dial(dctx)
	cancel()
	if err != nil {
		return err
	}
	if b, ok := raw.(Bearer); ok {
		c.mu.Lock()
		c.token = b.Token()
		c.mu.Unlock()
	}
	first := &firstError{ReadWriteCloser: raw}
	sess, err := clientSession(first)
	if err != nil {
		raw.Close()
		return fmt.Errorf("connect: %w", err)
	}
	defer sess.Close()
	stop := context.AfterFunc(ctx, func() { sess.Close() })
	defer stop()
	var held io.ReadCloser
	if c.opts.Name != "" {
		held, err = c.attach(ctx, sess)
	} else {
		err = c.hello(ctx, sess)
	}
	if err != nil {
		var p *api.Problem
		if why := first.why(); why != nil && !errors.As(err, &p) {
			err = why
		}
		return err
	}
	c.mu.Lock()
	c.sess = sess
	close(c.up)
	c.mu.Unlock()
	connected()
	c.state(true, nil)

	var why error
	if held != nil {
		var p api.Problem
		if json.NewDecoder(held).Decode(&p) == nil && p.Code != "" {
			why = &p
		}
		held.Close()
		if why == nil && !sess.IsClosed() {
			why = errors.New("the pod let go of the agent")
		}
	} else {
		<-sess.CloseChan()
	}
	c.mu.Lock()
	c.sess, c.up = nil, make(chan struct{})
	c.mu.Unlock()
	if why == nil {
		if why = first.why(); why == nil {
			why = errors.New("the other end is gone: the pod is being replaced, or its supervisor has ended")
		}
	}
	return why
}

func clientSession(rw io.ReadWriteCloser) (*yamux.Session, error) {
	return yamux.Client(&joined{ReadWriteCloser: rw}, muxConfig())
}

// SetKeep changes Options.Keep. The pod is told by attaching anew, which costs a reconnect and interrupts nothing for long.
func (c *Conn) SetKeep(keep bool) {
	c.mu.Lock()
	was := c.keep
	c.keep = keep
	c.mu.Unlock()
	if was != keep {
		c.Reconnect()
	}
}

// Reconnect ends the connection, if it is up; Run makes it anew at once.
func (c *Conn) Reconnect() {
	c.mu.Lock()
	sess := c.sess
	c.mu.Unlock()
	if sess != nil {
		sess.Close()
	}
}

// Up says whether the connection is up.
func (c *Conn) Up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sess != nil
}

// Retry makes Run connect at once if it waits for the next attempt: something has changed.
func (c *Conn) Retry() {
	select {
	case c.retry <- struct{}{}:
	default:
	}
}

// firstError remembers why the stream under a session ended; yamux says only that it did.
type firstError struct {
	io.ReadWriteCloser
	mu  sync.Mutex
	err error
}

func (f *firstError) Read(b []byte) (int, error) {
	n, err := f.ReadWriteCloser.Read(b)
	f.note(err)
	return n, err
}

func (f *firstError) Write(b []byte) (int, error) {
	n, err := f.ReadWriteCloser.Write(b)
	f.note(err)
	return n, err
}

func (f *firstError) note(err error) {
	// These say that it ended, not why; a unix socket is reset when its listener's process dies.
	for _, quiet := range []error{io.EOF, net.ErrClosed, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, quiet) {
			return
		}
	}
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) why() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// open opens one stream, waiting for the connection.
func (c *Conn) open(ctx context.Context) (net.Conn, error) {
	for {
		c.mu.Lock()
		sess, up, end := c.sess, c.up, c.end
		c.mu.Unlock()
		if end != nil {
			return nil, end
		}
		if sess != nil {
			conn, err := sess.Open()
			if err == nil {
				return conn, nil
			}
			if !sess.IsClosed() {
				return nil, fmt.Errorf("open stream: %w", err)
			}
			// Run will notice in a moment and make up anew.
			t := time.NewTimer(5 * time.Millisecond)
			select {
			case <-t.C:
				continue
			case <-ctx.Done():
				t.Stop()
				return nil, ctx.Err()
			}
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// WaitUp waits until the connection is up, or for good not coming.
func (c *Conn) WaitUp(ctx context.Context) error {
	conn, err := c.open(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (c *Conn) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://pod/v1/"+path, body)
	if err != nil {
		return nil, err
	}
	token, err := c.bearer(ctx)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return r, nil
}

// bearer is the token, waiting for a stream that brings it where none was given.
func (c *Conn) bearer(ctx context.Context) (string, error) {
	for {
		c.mu.Lock()
		token, up, end := c.token, c.up, c.end
		c.mu.Unlock()
		switch {
		case end != nil:
			return "", end
		case token != "":
			return token, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// do sends a request and decodes its answer into out. A lost connection is a Problem with CodeLost.
func (c *Conn) do(r *http.Request, out any) error {
	resp, err := c.http.Do(r)
	if err != nil {
		return lost(r.Context(), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return problemOf(resp)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxManifest)).Decode(out); err != nil {
		return lost(r.Context(), err)
	}
	return nil
}

func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	return &api.Problem{Code: api.CodeLost, Message: "the connection to the pod was lost: " + err.Error()}
}

func problemOf(resp *http.Response) error {
	var p api.Problem
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxManifest))
	if json.Unmarshal(b, &p) != nil || p.Message == "" {
		return fmt.Errorf("the pod answered %s", resp.Status)
	}
	return &p
}

// Status asks the pod what it runs.
func (c *Conn) Status(ctx context.Context) (st api.Status, err error) {
	r, err := c.request(ctx, http.MethodGet, "status", nil)
	if err == nil {
		err = c.do(r, &st)
	}
	return st, err
}

// Stage sends one blob; body carries its bytes as b.Encoding says.
func (c *Conn) Stage(ctx context.Context, b api.Blob, body io.Reader) error {
	// NopCloser: an *os.File or pipe is the caller's, who may send it again
	r, err := c.request(ctx, http.MethodPost, "stage", io.NopCloser(body))
	if err != nil {
		return err
	}
	h, err := json.Marshal(b)
	if err != nil {
		return err
	}
	r.Header.Set(blobHeader, string(h))
	return c.do(r, nil)
}

// Swap makes m what the pod runs.
func (c *Conn) Swap(ctx context.Context, m api.Manifest) (st api.Status, err error) {
	b, err := json.Marshal(m)
	if err != nil {
		return st, err
	}
	r, err := c.request(ctx, http.MethodPost, "swap", bytes.NewReader(b))
	if err == nil {
		err = c.do(r, &st)
	}
	return st, err
}

// Outbound says what is to become of the service's calls, in the place of what was said before, and returns it with the ports
// that are listened on.
func (c *Conn) Outbound(ctx context.Context, o api.Outbound) (now api.Outbound, err error) {
	b, err := json.Marshal(o)
	if err != nil {
		return now, err
	}
	r, err := c.request(ctx, http.MethodPost, "outbound", bytes.NewReader(b))
	if err == nil {
		err = c.do(r, &now)
	}
	return now, err
}

// Calls is what the service has called so far.
func (c *Conn) Calls(ctx context.Context) (calls []api.Seen, err error) {
	r, err := c.request(ctx, http.MethodGet, "calls", nil)
	if err == nil {
		err = c.do(r, &calls)
	}
	return calls, err
}

// Shutdown makes the supervisor stop the service and leave.
func (c *Conn) Shutdown(ctx context.Context) error {
	r, err := c.request(ctx, http.MethodPost, "shutdown", nil)
	if err != nil {
		return err
	}
	return c.do(r, nil)
}

// Probe asks the supervisor to answer a kubelet's probe.
func (c *Conn) Probe(ctx context.Context, p api.Probe) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	r, err := c.request(ctx, http.MethodPost, "probe", bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return errors.New(string(bytes.TrimSpace(b)))
	}
	return nil
}

// DialPort opens a connection to a port of the service, 0 being its main port.
func (c *Conn) DialPort(ctx context.Context, port int) (net.Conn, error) {
	conn, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	return c.upgrade(ctx, conn, "tunnel?port="+strconv.Itoa(port), protoTunnel)
}

func (c *Conn) hello(ctx context.Context, sess *yamux.Session) error {
	conn, err := sess.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := c.exchange(ctx, conn, bufio.NewReader(conn), "status", "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return problemOf(resp)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func (c *Conn) attach(ctx context.Context, sess *yamux.Session) (io.ReadCloser, error) {
	conn, err := sess.Open()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	keep := c.keep
	c.mu.Unlock()
	return c.upgrade(ctx, conn, "attach?"+query("name", c.opts.Name, "instance", c.instance,
		"take_over", strconv.FormatBool(c.opts.TakeOver), "keep", strconv.FormatBool(keep)), protoAttach)
}

// exchange writes one request on a stream and reads its answer's header.
func (c *Conn) exchange(ctx context.Context, conn net.Conn, br *bufio.Reader, path, upgrade string) (*http.Response, error) {
	r, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if upgrade != "" {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", upgrade)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(br, r)
}

func (c *Conn) upgrade(ctx context.Context, conn net.Conn, path, proto string) (net.Conn, error) {
	br := bufio.NewReader(conn)
	resp, err := c.exchange(ctx, conn, br, path, proto)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = problemOf(resp)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &peeked{conn, br}, nil
}

// Events hands the pod's events after a sequence number to emit, in order, until ctx ends, emit fails or the connection
// is lost. To go on after a loss, call it again with the last event's Seq and the pod's epoch.
func (c *Conn) Events(ctx context.Context, epoch string, after uint64, emit func(api.Event) error) error {
	d := websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.open(ctx) }, ReadBufferSize: 64 << 10}
	token, err := c.bearer(ctx)
	if err != nil {
		return lost(ctx, err)
	}
	h := http.Header{"Authorization": {"Bearer " + token}}
	ws, resp, err := d.DialContext(ctx, "ws://pod/v1/events?"+query("epoch", epoch, "after", strconv.FormatUint(after, 10), "frames", "1"), h)
	if err != nil {
		if resp != nil && resp.StatusCode >= 400 {
			return problemOf(resp)
		}
		return lost(ctx, err)
	}
	defer ws.Close()
	ws.SetReadLimit(maxMessage)
	stop := context.AfterFunc(ctx, func() { ws.Close() })
	defer stop()
	var buf bytes.Buffer
	for {
		kind, r, err := ws.NextReader()
		if err == nil {
			buf.Reset()
			_, err = buf.ReadFrom(r)
		}
		if err != nil {
			return lost(ctx, err)
		}
		if kind == websocket.BinaryMessage {
			if err := api.DecodeFrame(buf.Bytes(), emit); err != nil {
				return err
			}
			continue
		}
		for line := range bytes.Lines(buf.Bytes()) { // of a pod that knows no frames
			e, err := api.DecodeEvent(line)
			if err != nil {
				continue // a newer pod's kind of event
			}
			if err := emit(e); err != nil {
				return err
			}
		}
	}
}
