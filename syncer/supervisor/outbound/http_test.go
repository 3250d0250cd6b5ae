package outbound

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"golang.org/x/net/http2"

	"fairlead.dev/api"
)

// website is a callee that speaks HTTP/1 and h2c, and says what it got.
func website(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s %s %s host=%s ua=%q xff=%q te=%q ", r.Proto, r.Method, r.URL, r.Host, r.Header["User-Agent"], r.Header["X-Forwarded-For"], r.Header["Accept-Encoding"])
		w.Write(b)
		w.Header().Set("X-Sum", fmt.Sprint(len(b)))
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "one")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/forbidden", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	mux.HandleFunc("/mesh", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "istio-envoy")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, rbacBody)
	})
	mux.HandleFunc("/linkerd", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("L5d-Proxy-Error", "unauthorized request on route")
		w.WriteHeader(http.StatusForbidden)
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, b, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, b) != nil {
				return
			}
		}
	})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/echo/") { // a mux would redirect an odd path
			echo(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func client(h2c bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!h2c)
	tr.Protocols.SetUnencryptedHTTP2(h2c)
	return &http.Client{Transport: tr}
}

// A request through the gate is the one that was made, by HTTP/1 and by h2c; so is the answer.
func TestHTTPPasses(t *testing.T) {
	target := website(t)
	b := newBed(t, target, api.CallsEnforce, "*")
	for _, h2c := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2c=%v", h2c), func(t *testing.T) {
			c := client(h2c)
			defer c.CloseIdleConnections()
			ask := func(addr, method string, body []byte) string {
				req, err := http.NewRequest(method, "http://"+addr+"/echo/a%2Fb//c?q=%20;x=1", bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				req.Host, req.Header["X-Forwarded-For"] = "billing:8080", []string{"10.0.0.1"}
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatalf("%s with %d bytes, through the gate %v: %v after %d", method, len(body), addr == b.addr, err, len(got))
				}
				return fmt.Sprint(resp.Proto, resp.Status, resp.Trailer, len(got), string(got[:min(len(got), 300)]))
			}
			for _, method := range []string{"GET", "POST", "PROPFIND"} {
				for _, body := range [][]byte{nil, []byte("hello"), bytes.Repeat([]byte("z"), 3<<20)} {
					if diff := cmp.Diff(ask(target, method, body), ask(b.addr, method, body)); diff != "" {
						t.Errorf("%s with %d bytes: %s", method, len(body), diff)
					}
				}
			}
			resp, err := c.Get("http://" + b.addr + "/events")
			if err != nil {
				t.Fatal(err)
			}
			one := make([]byte, 3)
			if _, err := io.ReadFull(resp.Body, one); err != nil || string(one) != "one" {
				t.Errorf("the first event: %q, %v", one, err)
			}
			resp.Body.Close()
		})
	}
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+b.addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.WriteMessage(websocket.BinaryMessage, []byte("ping"))
	if _, m, err := ws.ReadMessage(); err != nil || string(m) != "ping" {
		t.Errorf("a websocket: %q, %v", m, err)
	}
}

// A refusal by HTTP is an RFC 9457 problem, which curl shows whole; what the callee or a mesh refuses is passed on and told.
func TestHTTPDenied(t *testing.T) {
	target := website(t)
	b := newBed(t, target, api.CallsEnforce, "GET /forbidden", "GET /mesh", "GET /linkerd")
	for _, h2c := range []bool{false, true} {
		c := client(h2c)
		resp, err := c.Post("http://"+b.addr+"/echo/81723/lines", "text/plain", strings.NewReader(strings.Repeat("b", 200_000)))
		if err != nil {
			t.Fatal(err)
		}
		var p map[string]any
		err = json.NewDecoder(resp.Body).Decode(&p)
		resp.Body.Close()
		want := map[string]any{"type": "https://fairlead.dev/problems/rpc-not-authorized", "title": "The call is not authorized", "status": 403.0,
			"caller": "orders", "callee": "billing", "method": "POST /echo/*/lines", "environment": "orders-main",
			"link":   "http://127.0.0.1:7/request?caller=orders&callee=billing&method=POST+%2Fecho%2F%2A%2Flines",
			"detail": "orders may not call POST /echo/*/lines of billing yet (environment orders-main): request access at http://127.0.0.1:7/request?caller=orders&callee=billing&method=POST+%2Fecho%2F%2A%2Flines"}
		if diff := cmp.Diff(want, p); err != nil || diff != "" || resp.StatusCode != 403 || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("h2c %v: %v %v %s", h2c, resp.Status, err, diff)
		}
		for path, by := range map[string]string{"/forbidden": "billing", "/mesh": "istio", "/linkerd": "linkerd"} {
			resp, err := c.Get("http://" + b.addr + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			i := slices.IndexFunc(b.Calls(), func(s api.Seen) bool { return s.Method == "GET "+path })
			if s := b.Calls()[i]; s.Verdict != api.CallRefused || s.By != by || resp.StatusCode != 403 || err != nil || path == "/mesh" && string(body) != rbacBody {
				t.Errorf("h2c %v %s: %+v, %s %q %v", h2c, path, s, resp.Status, body, err)
			}
		}
		c.CloseIdleConnections()
	}
	if curl, err := exec.LookPath("curl"); err == nil {
		out, err := exec.Command(curl, "-s", "-S", "--fail-with-body", "-X", "DELETE", "http://"+b.addr+"/echo/x").CombinedOutput()
		for _, part := range []string{"orders", "billing", "DELETE /echo/x", "orders-main", "http://127.0.0.1:7/request?"} {
			if err == nil || !strings.Contains(string(out), part) {
				t.Errorf("curl does not say %q: %v\n%s", part, err, out)
			}
		}
	} else if os.Getenv("CI") == "true" {
		t.Error(err)
	}
}

// What is no HTTP goes through untouched, whoever speaks first, half closed too; and it is said that it was not seen.
func TestOpaque(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	greet := make(chan bool, 2)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if <-greet {
				fmt.Fprintf(c, "220 hello\r\n")
			}
			b, _ := io.ReadAll(c)
			fmt.Fprintf(c, "%d bytes, %x", len(b), b[:min(len(b), 3)])
			c.Close()
		}
	}()
	b := newBed(t, ln.Addr().String(), api.CallsEnforce) // nothing is granted
	for _, first := range []bool{true, false} {
		greet <- first
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		if first {
			if line, err := r.ReadString('\n'); line != "220 hello\r\n" {
				t.Errorf("%q, %v", line, err)
			}
		}
		c.Write(append([]byte{0x16, 3, 1}, bytes.Repeat([]byte{9}, 1<<20)...)) // as TLS begins
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(r); string(got) != "1048579 bytes, 160301" {
			t.Errorf("%q, %v", got, err)
		}
		c.Close()
	}
	if got := b.Calls(); len(got) != 1 || got[0].Protocol != api.CallOpaque || got[0].Verdict != api.CallAllowed || got[0].Count != 2 {
		t.Errorf("%+v", got)
	}
}

// A dependency that is away is told as what it is.
func TestAway(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := ln.Addr().String()
	ln.Close()
	b := newBed(t, target, api.CallsEnforce, "*")
	resp, err := client(false).Get("http://" + b.addr + "/x")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadGateway || !strings.Contains(string(body), "billing does not answer") || !strings.Contains(string(body), "refused") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if _, err := client(true).Get("http://" + b.addr + "/x"); err == nil {
		t.Error("h2c was answered")
	}
}

// What an agent asks for is validated; a refused change changes nothing.
func TestSetRefuses(t *testing.T) {
	b := newBed(t, "127.0.0.1:9", api.CallsEnforce)
	was := b.State()
	ok := api.OutboundRoute{Callee: "a", Listen: "127.0.0.1:0", Target: "a:80"}
	for name, o := range map[string]api.Outbound{
		"mode":         {Mode: "perhaps"},
		"no callee":    {Mode: api.CallsWarn, Routes: []api.OutboundRoute{{Listen: ok.Listen, Target: ok.Target}}},
		"open to all":  {Mode: api.CallsWarn, Routes: []api.OutboundRoute{{Callee: "a", Listen: "0.0.0.0:0", Target: ok.Target}}},
		"no target":    {Mode: api.CallsWarn, Routes: []api.OutboundRoute{{Callee: "a", Listen: ok.Listen}}},
		"twice":        {Mode: api.CallsWarn, Routes: []api.OutboundRoute{ok, ok}},
		"many grants":  {Mode: api.CallsWarn, Routes: []api.OutboundRoute{{Callee: "a", Listen: ok.Listen, Target: ok.Target, Grants: make([]string, maxGrants+1)}}},
		"many routes":  {Mode: api.CallsWarn, Routes: make([]api.OutboundRoute, maxRoutes+1)},
		"port in use":  {Mode: api.CallsWarn, Routes: []api.OutboundRoute{ok, {Callee: "b", Listen: b.addr, Target: ok.Target}}},
		"name as host": {Mode: api.CallsWarn, Routes: []api.OutboundRoute{{Callee: "a", Listen: "localhost:0", Target: ok.Target}}},
	} {
		_, err := b.Set(o)
		var p *api.Problem
		if !errors.As(err, &p) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(was, b.State()); diff != "" {
		t.Error(diff)
	}
	// A route that is taken away is closed; one that stays is not.
	if _, err := b.Set(api.Outbound{Mode: api.CallsEnforce}); err != nil {
		t.Fatal(err)
	}
	if c, err := net.DialTimeout("tcp", b.addr, time.Second); err == nil {
		c.Close()
		t.Error("a route that was taken away listens")
	}
}

func TestPattern(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "": "/", "/v1/orders": "/v1/orders", "/v1/orders/42": "/v1/orders/*", "/v1/orders/42/lines/7": "/v1/orders/*/lines/*",
		"/u/6f9619ff-8b86-d011-b42d-00cf4fc964ff": "/u/*", "/c/deadbeef": "/c/deadbeef", "/c/deadbeef01": "/c/*", "/oauth2/token": "/oauth2/token",
		"/o/ord_81723": "/o/*", "/m/ann@example.com": "/m/*", "/a%20b/c": "/*/c", "/x?token=secret": "/x", "/api/v1beta1/pods": "/api/v1beta1/pods",
		"/a/b/c/d/e/f/g/h/i/j/k/l/m/n": "/a/b/c/d/e/f/g/h/i/j/k/l/**", "/" + strings.Repeat("w", 65): "/*", "/d/2026-11-26": "/d/*",
	} {
		if got := pattern(path); got != want {
			t.Errorf("pattern(%q) = %q, want %q", path, got, want)
		}
		if !api.Granted([]string{"GET " + want}, "GET "+pattern(path)) {
			t.Errorf("a grant of %q does not hold for itself", want)
		}
	}
	for p, want := range map[string]bool{"/a.B/C": true, "/a/b/c": false, "/a.B/": false, "//C": false, "/a-b/C": false} {
		if isProcedure(p) != want {
			t.Errorf("isProcedure(%q) is %v", p, !want)
		}
	}
}

// A server that does not begin with its settings is none.
func TestNoServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		}
	}()
	b := newBed(t, ln.Addr().String(), api.CallsEnforce)
	if _, err := client(true).Get("http://" + b.addr + "/x"); err == nil {
		t.Error("it was answered")
	}
}

// What has come goes on, while the frame behind it is still on its way.
func TestHTTP2HoldsUpNothing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	whole := []byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0, 0, 0, 8, 6, 0, 0, 0, 0, 0, 'p', 'i', 'n', 'g', 'p', 'o', 'n', 'g'}
	for name, part := range map[string][]byte{
		"a part of a frame":        {0, 0, 9, frameData, 0, 0, 0, 0, 1, 'x'},
		"a part of a large one":    {1, 0, 1, frameData, 0, 0, 0, 0, 1, 'x'},
		"a part of a header":       {0, 0, 9},
		"headers to be continued":  {0, 0, 1, frameHeaders, 0, 0, 0, 0, 1, 0x88},
		"a part of a continuation": {0, 0, 1, frameHeaders, 0, 0, 0, 0, 1, 0x88, 0, 0, 9, frameContinuation},
	} {
		t.Run(name, func(t *testing.T) {
			go func() {
				if c, err := ln.Accept(); err == nil {
					c.Write(append(slices.Clone(whole), part...))
					io.Copy(io.Discard, c)
					c.Close()
				}
			}()
			b := newBed(t, ln.Addr().String(), api.CallsEnforce)
			c, err := net.Dial("tcp", b.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, preface)
			c.Write([]byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0})
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			got := make([]byte, len(whole))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, whole) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// A frame larger than what is kept goes on as smaller ones, as it comes, and counts for as many bytes.
func TestHTTP2LargeFrames(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, n := range []int{wholeFrame - 9, wholeFrame + 1, 1 << 20} {
		for _, pad := range [][]byte{nil, {}, make([]byte, 255)} {
			data := make([]byte, n)
			for i := range data {
				data[i] = byte(i * 7 / 3)
			}
			go func() {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				fr := http2.NewFramer(c, c)
				fr.AllowIllegalWrites = true // a stream that nobody asked for
				fr.WriteSettings()
				if pad == nil {
					fr.WriteData(1, true, data)
				} else {
					fr.WriteDataPadded(1, true, data, pad)
				}
				fr.WritePing(false, [8]byte{})
				io.Copy(io.Discard, c)
			}()
			b := newBed(t, ln.Addr().String(), api.CallsEnforce)
			c, err := net.Dial("tcp", b.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, preface)
			fr := http2.NewFramer(c, c)
			fr.SetMaxReadFrameSize(1 << 20)
			fr.WriteSettings()
			var got []byte
			counted, ends := 0, 0
			for {
				f, err := fr.ReadFrame()
				if err != nil {
					t.Fatalf("%d bytes, padded by %d: %v", n, len(pad), err)
				}
				if d, ok := f.(*http2.DataFrame); ok {
					got = append(got, d.Data()...)
					counted += int(d.Length)
					if d.StreamEnded() {
						ends++
					}
				}
				if _, ok := f.(*http2.PingFrame); ok {
					break
				}
			}
			want := n + len(pad)
			if pad != nil {
				want++
			}
			if !bytes.Equal(got, data) || counted != want || ends != 1 {
				t.Errorf("%d bytes, padded by %d: %d came, counted as %d, ended %d times", n, len(pad), len(got), counted, ends)
			}
		}
	}
}

// FuzzHTTP2 gives the forwarder what no client or server would say: it ends, and keeps to what was said of frames.
func FuzzHTTP2(f *testing.F) {
	f.Add([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}, []byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}, []byte{0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88})
	f.Add([]byte{0, 0, 2, 1, 0x8, 0, 0, 0, 1, 9, 9}, []byte{0, 0, 0, 9, 4, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 1, 1, 1, 0, 0, 0, 1, 0x83, 0, 0, 1, 9, 4, 0, 0, 0, 1, 0x84, 0, 0, 3, 0, 1, 0, 0, 0, 1, 1, 2, 3}, []byte{1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, fromClient, fromServer []byte) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Write(append([]byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0}, fromServer...))
			io.Copy(io.Discard, c)
			c.Close()
		}()
		g := New(func(api.Seen) {})
		defer g.Close()
		o, err := g.Set(api.Outbound{Mode: api.CallsEnforce, Routes: []api.OutboundRoute{{Callee: "b", Listen: "127.0.0.1:0", Target: ln.Addr().String(), Governed: true}}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", o.Routes[0].Listen)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, preface)
		c.Write(fromClient)
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("it did not end")
		}
	})
}
