package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
	"fairlead.dev/syncer/podtest"
)

// A supervisor that is started anew in the same folder has the dependencies' addresses that its service was started with, and what
// was granted; a call of the service is an event.
func TestOutboundStays(t *testing.T) {
	dep := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	defer dep.Close()
	dir := t.TempDir()
	begin := func() (*Supervisor, func()) {
		s, err := New(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		<-s.began
		return s, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	status := func(addr, path string) int {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	s, end := begin()
	o, err := s.Outbound(t.Context(), api.Outbound{Caller: "orders", Environment: "e", Mode: api.CallsEnforce,
		Routes: []api.OutboundRoute{{Callee: "billing", Listen: "127.0.0.1:0", Target: dep.Listener.Addr().String(), Governed: true, Grants: []string{"GET /ok"}}}})
	if err != nil {
		t.Fatal(err)
	}
	addr := o.Routes[0].Listen
	if a, b := status(addr, "/ok"), status(addr, "/no"); a != http.StatusOK || b != http.StatusForbidden {
		t.Errorf("granted %d, not granted %d", a, b)
	}
	var told []string
	var f api.Frame
	for after := uint64(0); ; {
		f.Reset()
		last, wait := s.ring.next(&f, after)
		if wait != nil {
			break
		}
		after = last
		if err := api.DecodeFrame(f.Bytes(), func(e api.Event) error {
			if c, ok := e.(*api.CallEvent); ok {
				told = append(told, fmt.Sprint(c.Callee, " ", c.Method, " ", c.Verdict))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"billing GET /ok allowed", "billing GET /no denied"}, told); diff != "" {
		t.Error(diff)
	}
	end()
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("it listens after its end")
	}
	s, end = begin()
	defer end()
	if a, b := status(addr, "/ok"), status(addr, "/no"); a != http.StatusOK || b != http.StatusForbidden {
		t.Errorf("after a start anew: granted %d, not granted %d", a, b)
	}
	if _, err := s.Outbound(t.Context(), api.Outbound{Mode: "perhaps"}); err == nil {
		t.Error("a mode that is none was taken")
	}
	var kept api.Outbound
	if b, err := os.ReadFile(filepath.Join(dir, "outbound.json")); err != nil || json.Unmarshal(b, &kept) != nil || kept.Mode != api.CallsEnforce {
		t.Errorf("what is kept: %+v, %v", kept, err)
	}
}

// What comes through the local address is what was sent: also megabytes that are answered while they come, and an odd query.
func TestGatePassesAsItIs(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Query", r.URL.RawQuery)
		w.Write(b)
	}))
	defer srv.Close()
	addr := gateTo(t, srv)
	body := bytes.Repeat([]byte("z"), 3<<20)
	for range 40 { // it broke off once in twenty
		resp, err := http.Post("http://"+addr+"/?a=1;b=2", "text/plain", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, body) || resp.Header.Get("Query") != "a=1;b=2" {
			t.Fatalf("%d bytes came back, %v; the query was %q", len(got), err, resp.Header.Get("Query"))
		}
	}
}

// caller asks an address twice a second, and says what it hears.
const caller = `package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	fmt.Println("pid", os.Getpid())
	for range 1000 {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		resp, err := http.Get(os.Args[1]) // break: call
		if err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println("status:", resp.StatusCode)
			resp.Body.Close()
		}
		time.Sleep(500 * time.Millisecond)
	}
}
`

// A service that connects to its dependency's own address is led to the gate, whether it is held for a debugger or not; a grant
// holds for the process that runs.
func TestRedirected(t *testing.T) {
	dep := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer dep.Close()
	exe, src := podtest.BuildProgram(t, "caller", caller, "CGO_ENABLED=0", "-gcflags=-N -l", "-ldflags=-compressdwarf=false")
	scope := 1 // with what yama wants of it, too
	sub, s := subject(t, Options{PtraceScope: &scope})
	say := func(grants ...string) {
		t.Helper()
		if _, err := s.Outbound(t.Context(), api.Outbound{Caller: "orders", Environment: "e", Mode: api.CallsEnforce, Routes: []api.OutboundRoute{
			{Callee: "billing", Listen: "127.0.0.1:0", Target: dep.Listener.Addr().String(), Redirect: true, Governed: true, Grants: grants}}}); err != nil {
			t.Fatal(err)
		}
	}
	say()
	m := podtest.Manifest(1, exe, dep.URL+"/charge")
	podtest.Ship(t, sub, m, exe)
	line(t, sub.Events, 1, "status: 403")
	say("GET /charge")
	line(t, sub.Events, 1, "status: 200")
	if seen, _ := s.Calls(t.Context()); len(seen) != 1 || seen[0].Method != "GET /charge" || seen[0].Verdict != api.CallAllowed {
		t.Errorf("seen: %+v", seen)
	}

	say()
	held := podtest.Held(2, exe, dep.URL+"/charge")
	podtest.Ship(t, sub, held, exe)
	c, _ := podtest.Debug(t, sub, 2)
	c.Attach()
	at := podtest.Line(t, caller, "// break: call")
	c.Break(src, at)
	c.Go()
	c.Stopped(at)
	c.Continue()
	line(t, sub.Events, 2, "status: 403")
}

// Where nothing is to be led elsewhere, the kernel asks nothing; an address to lead away from is one of IP.
func TestNotRedirected(t *testing.T) {
	_, s := subject(t, Options{})
	if asked, _, err := s.before(exec.Command("x")); err != nil || asked != nil {
		t.Errorf("%v %v", asked, err)
	}
	_, err := s.Outbound(t.Context(), api.Outbound{Mode: api.CallsEnforce, Routes: []api.OutboundRoute{{Callee: "b", Listen: "127.0.0.1:0", Target: "billing:80", Redirect: true}}})
	wantCode(t, err, api.CodeBadManifest)
}

// An answer that is headers alone is not begun before it ends, however long its end takes to be read: gRPC's "Trailers-Only" has to
// end with its headers. One that has a length goes on as it comes.
func TestGateFlushes(t *testing.T) {
	g := newGate(func() {}, func() bool { return false })
	synctest.Test(t, func(t *testing.T) {
		for length, flushed := range map[int64]bool{0: false, -1: true, 2: true} {
			g.proxy.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Length": {"as it is"}}, ContentLength: length, Body: io.NopCloser(late{}), Request: r}, nil
			})
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			g.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), portKey{}, "80")))
			if w.Flushed != flushed || w.Result().Header.Get("Content-Length") != "as it is" {
				t.Errorf("of the length %d: flushed %v, headers %v", length, w.Flushed, w.Result().Header)
			}
		}
	})
}

// late is a body whose end takes a second.
type late struct{}

func (late) Read([]byte) (int, error) {
	time.Sleep(time.Second)
	return 0, io.EOF
}

// gateTo is the address of a gate before a server.
func gateTo(t *testing.T, srv *httptest.Server) string {
	t.Helper()
	g := newGate(func() {}, func() bool { return false })
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	g.open([]listener{{addr: srv.Listener.Addr().(*net.TCPAddr).AddrPort()}}, port)
	t.Cleanup(g.dropIdle)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			go g.serve(t.Context(), c, port)
		}
	}()
	return ln.Addr().String()
}
