package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
)

const (
	// refuseLimit bounds what is done for a connection that has nowhere to go.
	refuseLimit = 5 * time.Second
	// refuseSniff is how long its first bytes are waited for.
	refuseSniff = 150 * time.Millisecond
)

// httpStarts are how a connection begins whose client takes an HTTP answer; "PRI " is HTTP/2's.
var httpStarts = [][]byte{[]byte("GET "), []byte("HEAD"), []byte("POST"), []byte("PUT "), []byte("PATC"), []byte("DELE"), []byte("OPTI"), []byte("PRI ")}

// refuseConn answers a request on a connection that cannot be passed on with why, as HTTP or gRPC has it. Who speaks
// something else sees the connection closed, as before.
func refuseConn(c net.Conn, why error) {
	r := bufio.NewReader(c)
	c.SetReadDeadline(time.Now().Add(refuseSniff))
	head, _ := r.Peek(4)
	if !slices.ContainsFunc(httpStarts, func(s []byte) bool { return bytes.Equal(s, head) }) {
		return
	}
	c.SetDeadline(time.Now().Add(refuseLimit))
	answered := make(chan struct{})
	var once sync.Once
	srv := &http.Server{ReadHeaderTimeout: refuseLimit, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			defer once.Do(func() { close(answered) })
			refuseRequest(w, q, why)
		})}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	l := &oneConn{conn: &peeked{c, r}, closed: make(chan struct{})}
	served := make(chan struct{})
	go func() { // ends with Shutdown below
		defer close(served)
		srv.Serve(l)
	}()
	t := time.NewTimer(refuseLimit)
	defer t.Stop()
	select {
	case <-answered:
	case <-t.C:
	}
	ctx, cancel := context.WithTimeout(context.Background(), refuseLimit)
	defer cancel()
	srv.Shutdown(ctx) // lets the answer out
	srv.Close()
	<-served
}

func refuseRequest(w http.ResponseWriter, q *http.Request, why error) {
	text := "fairlead: the service cannot be reached"
	if loopbackHost(q.Host) { // a page that a name was rebound to is told nothing
		text = "fairlead: " + why.Error()
		var p *api.Problem
		if errors.As(why, &p) && p.Hint != "" {
			text += " (" + p.Hint + ")"
		}
	}
	w.Header().Set("Connection", "close")
	if strings.HasPrefix(q.Header.Get("Content-Type"), "application/grpc") {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "14") // unavailable
		w.Header().Set("Grpc-Message", strings.NewReplacer("%", "%25", "\n", " ").Replace(text))
		w.WriteHeader(http.StatusOK)
		return
	}
	w.Header().Set("Retry-After", "5")
	http.Error(w, text, http.StatusServiceUnavailable)
}

// loopbackHost says whether a Host header names this machine.
func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	a, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && a.IsLoopback()
}

// peeked is a connection of which something was read already.
type peeked struct {
	net.Conn
	r io.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// oneConn is a listener of one connection.
type oneConn struct {
	mu     sync.Mutex
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
