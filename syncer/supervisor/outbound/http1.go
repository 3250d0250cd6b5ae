package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer/supervisor/wire"
)

// forwarder passes HTTP/1 on, request by request; websockets by their upgrade.
type forwarder struct {
	route     *route
	transport *http.Transport
	proxy     *httputil.ReverseProxy
}

type callKey struct{}

// hidden are what a reverse proxy would take away or add; here it is to be as if there were none.
var hidden = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

func newForwarder(rt *route) *forwarder {
	f := &forwarder{route: rt, transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return rt.dial(ctx) },
		DisableCompression: true, MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second, // below what servers usually allow
	}}
	f.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "dependency", r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // without its own parsing, which drops what it finds odd
			for _, h := range hidden {
				if v, ok := r.In.Header[h]; ok {
					r.Out.Header[h] = v
				}
			}
			if _, ok := r.In.Header["User-Agent"]; !ok {
				r.Out.Header["User-Agent"] = nil // net/http would name itself
			}
		},
		Transport:      f.transport,
		FlushInterval:  -1,
		ErrorLog:       log.New(io.Discard, "", 0), // the ErrorHandler tells the client
		ModifyResponse: f.look,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler)
			}
			var op *net.OpError
			if !errors.As(err, &op) || op.Op != "dial" {
				panic(http.ErrAbortHandler) // it broke off, and so does this
			}
			http.Error(w, fmt.Sprintf("fairlead: %s does not answer: %v", rt.rule.Load().Callee, err), http.StatusBadGateway)
		},
	}
	return f
}

func (f *forwarder) close() { f.transport.CloseIdleConnections() }

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rule := f.route.rule.Load()
	call := identify(rule.Callee, r.Method, r.URL.EscapedPath(), r.Header.Get("Content-Type"))
	switch v := rule.judge(call.Method); v {
	case api.CallDenied:
		f.route.gate.note(api.Seen{Call: call, Verdict: v})
		b := denial{rule, call}.problem()
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.WriteHeader(http.StatusForbidden)
		w.Write(b)
	default:
		wire.FullDuplex(w)
		f.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, api.Seen{Call: call, Verdict: v})))
	}
}

// look sees who has refused a call. The answer is passed on as it is.
func (f *forwarder) look(resp *http.Response) error {
	s, _ := resp.Request.Context().Value(callKey{}).(api.Seen)
	if resp.StatusCode == http.StatusForbidden {
		a := answer{status: "403", server: resp.Header.Get("Server"), linkerd: resp.Header.Get("L5d-Proxy-Error"), length: resp.Header.Get("Content-Length")}
		if resp.ContentLength == int64(len(rbacBody)) {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(b), failing{err}))
			a.rbac = string(b) == rbacBody
		}
		s.Verdict, s.By = api.CallRefused, a.refusedBy(s.Callee)
	}
	f.route.gate.note(s)
	return nil
}

// failing is the end of a body that broke off, if it did.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}
