package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"fairlead.dev/api"
)

// reader is a client over a real socket, which can be cut.
type reader struct {
	ws      *websocket.Conn
	pending []api.Entry
}

func dial(t testing.TB, addr, query string, wrap func(net.Conn) net.Conn) *reader {
	t.Helper()
	d := websocket.Dialer{NetDialContext: func(ctx context.Context, network, a string) (net.Conn, error) {
		var nd net.Dialer
		c, err := nd.DialContext(ctx, network, a)
		if err == nil && wrap != nil {
			c = wrap(c)
		}
		return c, err
	}}
	ws, _, err := d.Dial("ws://"+addr+"/v1/services/shop/journal"+query, http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	return &reader{ws: ws}
}

func (r *reader) next() (api.Entry, error) {
	for len(r.pending) == 0 {
		kind, b, err := r.ws.ReadMessage()
		if err != nil {
			return api.Entry{}, err
		}
		if kind != websocket.TextMessage || len(b) == 0 || b[len(b)-1] != '\n' {
			return api.Entry{}, fmt.Errorf("message of kind %d: %.100q", kind, b)
		}
		for l := range bytes.Lines(b) {
			var e api.Entry
			if err := json.Unmarshal(l, &e); err != nil {
				return api.Entry{}, err
			}
			r.pending = append(r.pending, e)
		}
	}
	e := r.pending[0]
	r.pending = r.pending[1:]
	return e, nil
}

func TestServe(t *testing.T) {
	j := New(Options{})
	addr := loopback(t, j)
	j.Append(line(1))
	j.Append(ready(3))
	j.Append(of("db-0/db", &api.LogEvent{Header: api.Header{Type: api.KindLog}, Text: `{"level":"info","msg":"m","k":"v"}`}))
	all, events := dial(t, addr, "", nil), dial(t, addr, "?logs=0", nil)
	var got []api.Entry
	for range 3 {
		e, err := all.next()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if show(got) != "L1 E2 Ldb-0/db3" || got[0].Journal != j.id || got[1].Journal != "" {
		t.Errorf("%s %+v", show(got), got)
	}
	if l := got[2].Line; l.Level != "info" || l.Message != "m" || len(l.Attrs) != 1 {
		t.Errorf("%+v", l)
	}
	j.Append(line(4))
	j.Close()
	for r, want := range map[*reader]string{all: "L4", events: "E2"} {
		e, err := r.next()
		if err != nil || show([]api.Entry{e}) != want {
			t.Errorf("%v %v, want %s", e, err, want)
		}
		var ce *websocket.CloseError
		if _, err := r.next(); !errors.As(err, &ce) || ce.Code != websocket.CloseNormalClosure {
			t.Errorf("the end: %v", err)
		}
	}
	// A reader that comes after the end gets what is left, and the end.
	late := dial(t, addr, "?after=3", nil)
	if e, err := late.next(); err != nil || e.Seq != 4 {
		t.Errorf("%v %v", e, err)
	}
	if _, err := late.next(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the end: %v", err)
	}
}

func TestReset(t *testing.T) {
	j := New(Options{})
	addr := loopback(t, j)
	for i := range 5 {
		j.Append(line(i))
	}
	for query, want := range map[string]string{
		"?after=3&journal=" + j.id:    "L4",
		"?after=3":                    "L4",
		"?after=9&journal=" + j.id:    "reset L1",
		"?after=3&journal=0123456789": "reset L1",
		"?after=0&journal=0123456789": "reset L1",
	} {
		if e, err := dial(t, addr, query, nil).next(); err != nil || show([]api.Entry{e}) != want {
			t.Errorf("%s: %s %v, want %s", query, show([]api.Entry{e}), err, want)
		}
	}
}

// cut is a connection that breaks after some bytes, wherever that is.
type cut struct {
	net.Conn
	left int
}

func (c *cut) Read(b []byte) (int, error) {
	if c.left <= 0 {
		c.Conn.Close()
		return 0, errors.New("cut")
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// Connections that break at random points while lines flow: the reader that comes back each time has every entry once, in
// order.
func TestResume(t *testing.T) {
	const total = 60_000
	j := New(Options{})
	addr := loopback(t, j)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const step = 500
	read := make(chan struct{}, total/step) // one for every step entries that were read
	wg.Go(func() {
		for i := range total {
			if i%step == 0 && i > step { // lines flow while connections break: they are never far ahead of the reader
				select {
				case <-read:
				case <-ctx.Done():
					return
				}
			}
			switch {
			case i%100 == 99:
				j.Append(ready(i))
			case i%7 == 0:
				j.Append(of("db-0/db", line(i)))
			default:
				j.Append(line(i))
			}
		}
		j.Close()
	})
	rnd := rand.New(rand.NewPCG(1, 2))
	var after uint64
	connections := 0
	for id := ""; ; {
		connections++
		r := dial(t, addr, fmt.Sprintf("?after=%d&journal=%s", after, id), func(c net.Conn) net.Conn {
			return &cut{c, 2000 + int(rnd.ExpFloat64()*100_000)}
		})
		var err error
		for first := true; ; first = false {
			var e api.Entry
			if e, err = r.next(); err != nil {
				break
			}
			if first {
				if e.Journal == "" || id != "" && e.Journal != id {
					t.Fatalf("journal %q, was %q", e.Journal, id)
				}
				id = e.Journal
			}
			if e.Seq != after+1 || e.Dropped != 0 || e.Reset {
				t.Fatalf("seq %d after %d, dropped %d", e.Seq, after, e.Dropped)
			}
			if l, ok := e.Event.(*api.LogEvent); ok && l.Text != fmt.Sprintf("line %d", after) {
				t.Fatalf("seq %d is %q", e.Seq, l.Text)
			}
			if after = e.Seq; after%step == 0 {
				read <- struct{}{}
			}
		}
		r.ws.Close()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			break
		}
	}
	if after != total || connections < 20 {
		t.Fatalf("%d entries over %d connections", after, connections)
	}
}

// A reader that takes its time is told how much it lost, exactly, and the journal stays within its bounds.
func TestSlowReader(t *testing.T) {
	const total = 300_000
	j := New(Options{LogLines: 1000})
	addr := loopback(t, j)
	r := dial(t, addr, "", nil)
	j.Append(line(0))
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < total; i++ { // the socket's buffers hold a few thousand; the rest is overwritten
		j.Append(line(i))
	}
	j.mu.Lock()
	if n, room, bytes := j.lines.n, len(j.lines.buf), j.bytes; n != 1000 || room > 1024 || bytes > 1000*(lineCost+len("line 999999")) {
		t.Errorf("%d lines in room for %d, %d bytes", n, room, bytes)
	}
	j.mu.Unlock()
	j.Append(ready(1))
	j.Close()
	lines, lost := uint64(1), uint64(0)
	for after := uint64(1); ; {
		e, err := r.next()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != after+1+e.Dropped {
			t.Fatalf("seq %d after %d with %d dropped", e.Seq, after, e.Dropped)
		}
		after = e.Seq
		lost += e.Dropped
		if e.Line != nil {
			lines++
		}
	}
	if lines+lost != total || lost == 0 {
		t.Fatalf("%d lines and %d lost of %d", lines, lost, total)
	}
}

// A reader that hangs for ever is ended, and nothing of it is left.
func TestHangingReader(t *testing.T) {
	j := New(Options{})
	ended := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, j, 100*time.Millisecond)
		close(ended)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(ln)
	defer srv.Close()
	dial(t, ln.Addr().String(), "", nil) // and reads nothing
	big := strings.Repeat("x", 10_000)
	for range 2000 { // 40 MB with what is understood of it: more than the sockets' buffers
		j.Append(&api.LogEvent{Header: api.Header{Type: api.KindLog}, Text: big})
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it is still served")
	}
}

// A reader that goes is noticed although nothing is written.
func TestReaderGoes(t *testing.T) {
	j := New(Options{})
	ended := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Serve(w, r, j)
		close(ended)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(ln)
	defer srv.Close()
	r := dial(t, ln.Addr().String(), "", nil)
	r.ws.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it is still served")
	}
}

// Messages are about 64 KiB while much is there, and every line of them is JSON whatever a service wrote.
func TestMessages(t *testing.T) {
	j := New(Options{})
	addr := loopback(t, j)
	texts := []string{"\x00\x01\xff\xfe", "\r\n\n", "</script>\u2028", strings.Repeat("\x00", 16<<10), strings.Repeat("é", 8<<10), `{"msg":"\n\u0000"}`}
	for range 200 {
		for _, s := range texts {
			j.Append(&api.LogEvent{Header: api.Header{Type: api.KindLog}, Text: s})
		}
	}
	j.Close()
	r := dial(t, addr, "", nil)
	n := 0
	for {
		_, b, err := r.ws.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > messageBytes+6*(16<<10)+1000 {
			t.Errorf("a message of %d bytes", len(b))
		}
		for l := range bytes.Lines(b) {
			var e api.Entry
			if err := json.Unmarshal(l, &e); err != nil {
				t.Fatalf("%v: %.200q", err, l)
			}
			want := strings.ToValidUTF8(texts[n%len(texts)], "")
			if got := strings.ReplaceAll(e.Event.(*api.LogEvent).Text, "\ufffd", ""); got != want {
				t.Fatalf("%.50q, want %.50q", got, want)
			}
			n++
		}
	}
	if n != 200*len(texts) {
		t.Errorf("%d entries", n)
	}
}
