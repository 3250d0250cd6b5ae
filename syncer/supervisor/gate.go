package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/syncer/supervisor/wire"
)

const (
	// holdLimit bounds how long a request waits for a service that is being swapped and that no debugger holds.
	holdLimit = 30 * time.Second
	// drainLimit bounds how long a swap waits for a request that has no answer yet.
	drainLimit = 10 * time.Second
	// streamAfter is how long an answer may flow before it counts as a stream (server-sent events, a watch, a
	// download): a swap does not wait for its end.
	streamAfter = time.Second
	// sniffLimit is how long the first bytes of a connection are waited for. A protocol in which the server speaks
	// first (SMTP, MySQL) is passed through after it.
	sniffLimit = 150 * time.Millisecond
)

// gate stands between the tunnel and the service. HTTP/1 and h2c (so gRPC) go through a reverse proxy, request by
// request: while the gate is shut a request waits, so that a client with a kept-alive connection never sees the swap.
// Everything else is passed through as bytes; a new connection waits, an open one ends with the process.
type gate struct {
	mu       sync.Mutex
	opened   chan struct{} // closed while the gate is open
	down     func() string // non-nil: the service is not there and will not come by itself; says why
	ports    []listener    // what the service listens on now
	main     int
	hosts    []string
	inflight map[*flight]struct{}
	changed  chan struct{} // closed and replaced when a flight ends or answers
	used     func()        // told of each request
	held     func() bool   // a debugger has the service: it takes as long as the developer does

	proxy *httputil.ReverseProxy
	h1    *http.Transport
	h2    *http.Transport
}

// flight is one request in the service's hands.
type flight struct {
	started  time.Time
	answered time.Time // zero until the header came
	stream   bool      // upgraded or an event stream: never waited for
}

type portKey struct{}

func newGate(used func(), held func() bool) *gate {
	g := &gate{opened: make(chan struct{}), inflight: map[*flight]struct{}{}, changed: make(chan struct{}), used: used, held: held}
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return g.dialService(ctx, port)
	}
	// Compression is the client's and the service's affair; idle connections are closed at each swap.
	g.h1 = &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
	g.h2 = &http.Transport{DialContext: dial, DisableCompression: true, IdleConnTimeout: time.Minute, Protocols: new(http.Protocols)}
	g.h2.Protocols.SetUnencryptedHTTP2(true)
	g.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			r.Out.URL.Host = r.In.Context().Value(portKey{}).(string)
			r.Out.Host = r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // Rewrite also drops what it finds odd, as "a;b"
			// Transparent: Rewrite drops forwarding headers, which here the client itself has set.
			for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := r.In.Header[h]; ok {
					r.Out.Header[h] = v
				}
			}
		},
		Transport: roundTripper(g.roundTrip),
		// Nothing is kept back: ReverseProxy flushes at once what has no known length. With a FlushInterval it would at times flush
		// headers that are all of the answer too, and a gRPC status that comes with the headers (PROTOCOL-HTTP2.md,
		// "Trailers-Only") is none unless the stream ends with them.
		ModifyResponse: func(resp *http.Response) error {
			if resp.ContentLength > 0 {
				resp.ContentLength = -1 // the header stays
			}
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0), // the ErrorHandler tells the client
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return
			}
			g.refuse(w, http.StatusBadGateway, "the service did not answer: "+err.Error())
		},
	}
	return g
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (g *gate) roundTrip(r *http.Request) (*http.Response, error) {
	t := g.h1
	if r.ProtoMajor == 2 {
		t = g.h2
	}
	resp, err := t.RoundTrip(r)
	if f, ok := r.Context().Value(flightKey{}).(*flight); ok && err == nil {
		g.mu.Lock()
		f.answered = time.Now()
		f.stream = resp.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
		g.notifyLocked()
		g.mu.Unlock()
	}
	return resp, err
}

type flightKey struct{}

func (g *gate) notifyLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// shut makes new requests wait.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.opened:
		g.opened = make(chan struct{})
	default:
	}
	g.down = nil
}

// open lets requests through to what the service listens on; main is the port that a tunnel without one leads to.
func (g *gate) open(ports []listener, main int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ports, g.main, g.down = ports, main, nil
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

// fail answers requests with the reason: the service has ended and nothing new is on its way.
func (g *gate) fail(why func() string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ports, g.down = nil, why
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

func (g *gate) setHosts(hosts []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hosts = hosts
}

// drain waits, with the gate shut, for the requests in the service's hands, then drops idle connections to it.
func (g *gate) drain(ctx context.Context) {
	limit := time.After(drainLimit)
	for {
		g.mu.Lock()
		wait, changed := g.waitLocked(time.Now()), g.changed
		g.mu.Unlock()
		if wait == 0 {
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-limit:
			timer.Stop()
			g.dropIdle()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
	g.dropIdle()
}

func (g *gate) dropIdle() {
	g.h1.CloseIdleConnections()
	g.h2.CloseIdleConnections()
}

// waitLocked is how long it may take until no flight is waited for any more; 0 when none is.
func (g *gate) waitLocked(now time.Time) time.Duration {
	var wait time.Duration
	for f := range g.inflight {
		switch {
		case f.stream:
		case f.answered.IsZero():
			wait = max(wait, f.started.Add(drainLimit).Sub(now))
		default:
			wait = max(wait, f.answered.Add(streamAfter).Sub(now))
		}
	}
	return max(wait, 0)
}

// enter waits until the gate is open and says why there is no service behind it, if so. A flight is registered under
// the same lock that saw the gate open: a swap that shuts it a moment later waits for the flight.
func (g *gate) enter(ctx context.Context, f *flight) (down func() string, err error) {
	var limit <-chan time.Time
	for {
		g.mu.Lock()
		opened := g.opened
		select {
		case <-opened:
			if g.down == nil && f != nil {
				f.started = time.Now()
				g.inflight[f] = struct{}{}
			}
			down = g.down
			g.mu.Unlock()
			return down, nil
		default:
		}
		g.mu.Unlock()
		if limit == nil {
			timer := time.NewTimer(holdLimit)
			defer timer.Stop()
			limit = timer.C
		}
		select {
		case <-opened: // it may have been shut again: look anew
		case <-limit:
			if g.held() {
				limit = time.After(holdLimit)
				continue
			}
			return nil, errors.New("the service has not come up within " + holdLimit.String())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ServeHTTP passes one request of the tunnel to the service.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.used()
	if !g.allowed(r.Host) {
		http.Error(w, fmt.Sprintf("fairlead: the Host %q is not this service's local address.\n"+
			"A page of another site may be behind this request (DNS rebinding). If the name is yours, add it to `hosts:` in fairlead.yaml.", r.Host), http.StatusMisdirectedRequest)
		return
	}
	f := &flight{}
	down, err := g.enter(r.Context(), f)
	if err != nil {
		if r.Context().Err() == nil {
			w.Header().Set("Retry-After", "1")
			g.refuse(w, http.StatusServiceUnavailable, err.Error())
		}
		return
	}
	if down != nil {
		g.refuse(w, http.StatusBadGateway, down())
		return
	}
	defer func() {
		g.mu.Lock()
		delete(g.inflight, f)
		g.notifyLocked()
		g.mu.Unlock()
	}()
	wire.FullDuplex(w)
	g.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), flightKey{}, f)))
}

func (g *gate) refuse(w http.ResponseWriter, code int, why string) {
	http.Error(w, "fairlead: "+why, code)
}

// allowed checks the Host against DNS rebinding: the tunnel's end is a loopback port that any page in the developer's
// browser can name.
func (g *gate) allowed(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761 section 6.3
		return true
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// dialService connects to the service; port "0" is its main port.
func (g *gate) dialService(ctx context.Context, port string) (net.Conn, error) {
	g.mu.Lock()
	if port == "0" {
		port = fmt.Sprint(g.main)
	}
	addrs := []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
	for _, l := range g.ports {
		if fmt.Sprint(l.addr.Port()) == port {
			addrs = slices.Insert(addrs, 0, l.dialAddr())
			break
		}
	}
	g.mu.Unlock()
	if port == "0" {
		return nil, errors.New("it listens on no port")
	}
	var d net.Dialer
	var first error
	for _, a := range slices.Compact(addrs) {
		c, err := d.DialContext(ctx, "tcp", a)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// serve passes one connection of the tunnel to a port of the service (0: its main port) and returns when it has ended.
func (g *gate) serve(ctx context.Context, conn net.Conn, port int) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := wire.New(conn)
	conn.SetReadDeadline(time.Now().Add(sniffLimit))
	proto, _ := c.Sniff()
	conn.SetReadDeadline(time.Time{})
	if proto == wire.Other {
		g.splice(ctx, c, port)
		return
	}
	wire.Serve(c, g, func(ctx context.Context) context.Context {
		return context.WithValue(ctx, portKey{}, fmt.Sprintf("service:%d", port))
	}, true)
}

func (g *gate) splice(ctx context.Context, conn net.Conn, port int) {
	g.used()
	if down, err := g.enter(ctx, nil); err != nil || down != nil {
		return
	}
	up, err := g.dialService(ctx, fmt.Sprint(port))
	if err != nil {
		return
	}
	wire.Splice(conn, up)
}
