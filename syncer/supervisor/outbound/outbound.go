// Package outbound stands before the calls that a service makes: it listens at a loopback address for each port of a
// dependency, sees what is called, refuses what is not granted, and says what became of it. What it cannot read is passed on
// as it is. It knows no service and no registry; what is granted is told to it.
//
// HTTP/2 is forwarded frame by frame, one connection for one: flow control, deadlines, cancellation, trailers, pings and
// sizes are between the two ends, and only headers are read. HTTP/1 goes request by request through a reverse proxy.
package outbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer/supervisor/wire"
)

const (
	// quiet is how long a client may say nothing until the dependency is asked whether it speaks first, as MySQL and SMTP do.
	quiet = 20 * time.Millisecond
	// dialLimit bounds a connection to a dependency. The client's own deadline is mostly shorter.
	dialLimit = 30 * time.Second
	// maxRoutes and maxGrants bound what an agent may ask for.
	maxRoutes = 1000
	maxGrants = 10_000
)

// Gate is all of it. Its goroutines, one a listener and some for each connection, end with Close.
type Gate struct {
	report func(api.Seen)
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	seen   seen

	// redirects says where a connection to a dependency leads, of the routes that ask for that.
	redirects atomic.Pointer[map[netip.AddrPort]netip.AddrPort]

	mu     sync.Mutex
	routes map[string]*route // by key
	state  api.Outbound      // as it was asked for
}

// route is one port of a dependency.
type route struct {
	gate *Gate
	ln   net.Listener
	rule atomic.Pointer[rule]
	http *forwarder
}

// rule is what holds for a route now.
type rule struct {
	api.OutboundRoute
	caller, environment string
	mode                api.CallMode
}

// New makes a Gate that lets nothing through yet. report is told of each call that is new, or has another verdict than the last
// time; it must not block.
func New(report func(api.Seen)) *Gate {
	g := &Gate{report: report, routes: map[string]*route{}}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Set takes the place of what was asked for before. Routes that stay keep their listener and their connections; a grant holds
// from the next call on. The result is what was asked for with the ports that are listened on. On an error, a *api.Problem
// with api.CodeBadManifest where the fault is the caller's, nothing has changed.
func (g *Gate) Set(o api.Outbound) (api.Outbound, error) {
	if err := check(o); err != nil {
		return api.Outbound{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx.Err() != nil {
		return api.Outbound{}, &api.Problem{Code: api.CodeLost, Message: "the environment is being stopped"}
	}
	o.Routes = slices.Clone(o.Routes)
	asked := o
	asked.Routes = slices.Clone(o.Routes)
	next := map[string]*route{}
	var made []*route
	for i, r := range o.Routes {
		rt := g.findLocked(r)
		if rt == nil {
			ln, err := net.Listen("tcp", r.Listen)
			if err != nil {
				for _, m := range made {
					m.ln.Close()
				}
				return api.Outbound{}, &api.Problem{Code: api.CodeCallsUnseen, Message: fmt.Sprintf("calls of %s cannot be seen: %v", r.Callee, err),
					Hint: "calls: {mode: off} in fairlead.yaml does without"}
			}
			rt = &route{gate: g, ln: ln}
			rt.http = newForwarder(rt)
			made = append(made, rt)
		}
		next[key(r)] = rt
		o.Routes[i].Listen = rt.ln.Addr().String()
	}
	for i, r := range asked.Routes {
		next[key(r)].rule.Store(&rule{OutboundRoute: o.Routes[i], caller: o.Caller, environment: o.Environment, mode: o.Mode})
	}
	to := map[netip.AddrPort]netip.AddrPort{}
	for _, r := range asked.Routes {
		if r.Redirect {
			at, _ := netip.ParseAddrPort(r.Target)
			to[at] = next[key(r)].ln.Addr().(*net.TCPAddr).AddrPort()
		}
	}
	g.redirects.Store(&to)
	stays := map[*route]bool{}
	for _, rt := range next {
		stays[rt] = true
	}
	for _, rt := range g.routes {
		if !stays[rt] {
			rt.ln.Close()
			rt.http.close()
		}
	}
	for _, rt := range made {
		g.wg.Go(rt.listen)
	}
	g.routes, g.state = next, asked
	return o, nil
}

// key tells routes apart that were asked for together.
func key(r api.OutboundRoute) string {
	if r.Redirect {
		return r.Target
	}
	return r.Callee + " " + r.Listen + " " + port(r.Target)
}

// Redirect says where a connection of the service is to lead in place of an address, and false to leave it.
func (g *Gate) Redirect(to netip.AddrPort) (netip.AddrPort, bool) {
	m := g.redirects.Load()
	if m == nil {
		return netip.AddrPort{}, false
	}
	at, ok := (*m)[to]
	return at, ok
}

// Redirects says whether there is any connection to lead elsewhere.
func (g *Gate) Redirects() bool {
	m := g.redirects.Load()
	return m != nil && len(*m) > 0
}

// findLocked is the route that is there already: asked for in the same words, or by the address that it was given. Its target
// may have moved.
func (g *Gate) findLocked(r api.OutboundRoute) *route {
	if rt := g.routes[key(r)]; rt != nil {
		return rt
	}
	for _, rt := range g.routes {
		if rt.rule.Load().Callee == r.Callee && !r.Redirect && rt.ln.Addr().String() == r.Listen {
			return rt
		}
	}
	return nil
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// check validates what an agent asks for.
func check(o api.Outbound) error {
	bad := func(format string, args ...any) error {
		return &api.Problem{Code: api.CodeBadManifest, Message: "outbound calls: " + fmt.Sprintf(format, args...)}
	}
	switch o.Mode {
	case api.CallsEnforce, api.CallsWarn, api.CallsOff:
	default:
		return bad("%q is no mode", o.Mode)
	}
	if len(o.Routes) > maxRoutes {
		return bad("%d routes are more than %d", len(o.Routes), maxRoutes)
	}
	have := map[string]bool{}
	for _, r := range o.Routes {
		if r.Callee == "" || len(r.Callee) > 253 {
			return bad("a route has no callee")
		}
		a, err := netip.ParseAddrPort(r.Listen)
		if err != nil || !a.Addr().IsLoopback() {
			return bad("%q is no loopback address with a port", r.Listen)
		}
		host, p, err := net.SplitHostPort(r.Target)
		if err != nil || host == "" || p == "" || p == "0" {
			return bad("%q is no address of %s", r.Target, r.Callee)
		}
		if t, err := netip.ParseAddrPort(r.Target); r.Redirect && (err != nil || t.Addr() != t.Addr().Unmap() || !a.Addr().Is4()) {
			return bad("connections to %q cannot be led to %q", r.Target, r.Listen)
		}
		if have[key(r)] {
			return bad("two routes are %s", key(r))
		}
		have[key(r)] = true
		if len(r.Grants) > maxGrants {
			return bad("%s has %d grants, more than %d", r.Callee, len(r.Grants), maxGrants)
		}
	}
	return nil
}

// State is what was asked for last.
func (g *Gate) State() api.Outbound {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

// Calls is what has been called so far, in a stable order.
func (g *Gate) Calls() []api.Seen { return g.seen.list() }

// Close ends all of it.
func (g *Gate) Close() {
	g.mu.Lock()
	g.cancel()
	for _, rt := range g.routes {
		rt.ln.Close()
		rt.http.close()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

func (rt *route) listen() {
	for {
		conn, err := rt.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no file descriptors: what is open goes on
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-rt.gate.ctx.Done():
				return
			}
		}
		rt.gate.wg.Go(func() { rt.serve(conn) })
	}
}

func (rt *route) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialLimit}
	return d.DialContext(ctx, "tcp", rt.rule.Load().Target)
}

// serve passes one connection of the service on.
func (rt *route) serve(conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(rt.gate.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := wire.New(conn)
	proto, spoken := wire.Other, true
	if rt.rule.Load().mode != api.CallsOff {
		conn.SetReadDeadline(time.Now().Add(quiet))
		proto, spoken = c.Sniff()
	}
	var up *wire.Conn
	dial := func() bool {
		u, err := rt.dial(ctx)
		if err != nil {
			return false
		}
		up = wire.New(u)
		context.AfterFunc(ctx, func() { u.Close() })
		return true
	}
	if !spoken {
		if !dial() {
			return
		}
		var first bool
		if proto, first = race(c, up); first {
			proto = wire.Other
		}
	}
	conn.SetReadDeadline(time.Time{})
	switch proto {
	case wire.HTTP1:
		if up != nil {
			up.Close() // the proxy has connections of its own, which live longer than one of the client's
		}
		wire.Serve(c, rt.http, func(ctx context.Context) context.Context { return ctx }, false)
	case wire.HTTP2:
		if up != nil || dial() {
			serveHTTP2(rt, c, up)
		}
	default:
		if up != nil || dial() {
			rt.pass(c, up)
		}
	}
}

// race waits until one of the two speaks, and says what the client's bytes begin, or that the other was first.
func race(c, up *wire.Conn) (p wire.Protocol, upFirst bool) {
	said := make(chan bool, 1)
	c.SetReadDeadline(time.Time{})
	go func() {
		_, err := up.R.Peek(1)
		if !errors.Is(err, os.ErrDeadlineExceeded) { // it spoke, or has ended: the client says nothing before it has heard that
			c.SetReadDeadline(time.Now())
		}
		said <- err == nil
	}()
	p, _ = c.Sniff()
	up.SetReadDeadline(time.Now())
	upFirst = <-said
	up.SetReadDeadline(time.Time{})
	return p, upFirst
}

// pass passes bytes on. What they say is not seen, and so not refused.
func (rt *route) pass(c, up *wire.Conn) {
	if r := rt.rule.Load(); r.mode != api.CallsOff {
		rt.gate.note(api.Seen{Call: api.Call{Callee: r.Callee, Protocol: api.CallOpaque}, Verdict: api.CallAllowed})
	}
	wire.Splice(c, up)
}

// judge says what becomes of a call, before it is made.
func (r *rule) judge(method string) api.CallVerdict {
	switch {
	case r.mode == api.CallsOff, !r.Governed, api.Granted(r.Grants, method):
		return api.CallAllowed
	case r.mode == api.CallsWarn:
		return api.CallWarned
	}
	return api.CallDenied
}

// note counts a call, and reports it where there is something new.
func (g *Gate) note(s api.Seen) {
	if now, news := g.seen.add(s); news {
		g.report(now)
	}
}

const (
	// maxSeen bounds the calls that are told apart: a route that has more has parts that are no names.
	maxSeen = 2000
	// again is how soon a refusal that was told is told again: whoever looked away sees that it still is.
	again = 10 * time.Second
)

// seen counts calls.
type seen struct {
	mu    sync.Mutex
	calls map[api.Call]*counted
}

type counted struct {
	api.Seen
	told time.Time
}

func (s *seen) add(v api.Seen) (now api.Seen, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[api.Call]*counted{}
	}
	c := s.calls[v.Call]
	if c == nil && len(s.calls) >= maxSeen {
		v.Method = coarse(v.Method)
		c = s.calls[v.Call]
	}
	if c == nil {
		c = &counted{}
		c.Call = v.Call
		s.calls[v.Call] = c
	}
	c.Count++
	t := time.Now()
	news = c.Verdict != v.Verdict || c.By != v.By || v.Verdict != api.CallAllowed && t.Sub(c.told) >= again
	c.Verdict, c.By = v.Verdict, v.By
	if news {
		c.told = t
	}
	return c.Seen, news
}

func (s *seen) list() []api.Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]api.Seen, 0, len(s.calls))
	for _, c := range s.calls {
		out = append(out, c.Seen)
	}
	slices.SortFunc(out, func(a, b api.Seen) int {
		return cmp.Or(strings.Compare(a.Callee, b.Callee), strings.Compare(a.Method, b.Method), strings.Compare(string(a.Protocol), string(b.Protocol)))
	})
	return out
}
