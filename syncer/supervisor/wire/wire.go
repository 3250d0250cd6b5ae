// Package wire has what a connection needs whose protocol is not known beforehand: a look at its first bytes, HTTP served on it
// alone, and bytes passed on. It knows neither what is behind nor who asks.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Protocol is what a connection begins with.
type Protocol int

const (
	Other Protocol = iota // its own, or TLS
	HTTP1
	HTTP2 // with prior knowledge
)

// Conn is a connection of which the first bytes may be looked at.
type Conn struct {
	net.Conn
	R      *bufio.Reader
	closed func()
}

// New makes a Conn.
func New(c net.Conn) *Conn { return &Conn{Conn: c, R: bufio.NewReader(c)} }

func (c *Conn) Read(p []byte) (int, error) { return c.R.Read(p) }

// CloseWrite ends what is sent, where the connection can say that.
func (c *Conn) CloseWrite() error {
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return t.CloseWrite()
	}
	return nil
}

// Close closes the connection.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	if c.closed != nil {
		c.closed()
	}
	return err
}

// Sniff waits for the first bytes, until the connection's read deadline, and says what they begin. With none it is Other, and
// spoken is false.
func (c *Conn) Sniff() (p Protocol, spoken bool) {
	head, _ := c.R.Peek(4)
	if len(head) > 0 && isMethodPrefix(head) {
		head, _ = c.R.Peek(8)
	}
	switch {
	case bytes.HasPrefix(head, []byte("PRI * HT")):
		p = HTTP2
	case looksHTTP1(head):
		p = HTTP1
	}
	return p, len(head) > 0
}

func isMethodPrefix(b []byte) bool {
	for _, c := range b {
		if (c < 'A' || c > 'Z') && c != ' ' && c != '-' {
			return false
		}
	}
	return true
}

// looksHTTP1 says whether a connection that begins so is HTTP/1: a method and a space (RFC 9112 section 3). HTTP/2 with prior
// knowledge (RFC 9113 section 3.4) looks like it, and is asked for before.
func looksHTTP1(b []byte) bool {
	i := bytes.IndexByte(b, ' ')
	if i < 0 { // a method longer than 7 letters: OPTIONS and CONNECT have 7, PROPFIND 8
		return len(b) == 8 && isMethodPrefix(b)
	}
	return i >= 3 && isMethodPrefix(b[:i])
}

// Serve serves HTTP on one connection, with protocols, until its end. values gives each request's context.
func Serve(c *Conn, h http.Handler, values func(context.Context) context.Context, http2 bool) {
	ln := &oneListener{conn: c, done: make(chan struct{})}
	srv := &http.Server{
		Handler:           h,
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
		ConnContext:       func(ctx context.Context, _ net.Conn) context.Context { return values(ctx) },
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(http2)
	srv.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateClosed {
			ln.finish()
		}
	}
	c.closed = ln.finish // a hijacked (upgraded) connection is closed by the proxy
	srv.Serve(ln)
	<-ln.done
}

// FullDuplex lets a handler that proxies go on reading an HTTP/1 request while it answers. Otherwise net/http closes the body at
// the first byte of the answer, a transport that has sent all of it and looks for its end takes that for a failure, and
// breaks the answer off.
func FullDuplex(w http.ResponseWriter) {
	http.NewResponseController(w).EnableFullDuplex() // fails for HTTP/2, which needs none
}

// Splice passes bytes both ways until both have ended, and closes both. What is half closed on one side is on the other.
func Splice(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(b, a)
		if t, ok := b.(interface{ CloseWrite() error }); ok {
			t.CloseWrite()
		}
	}()
	io.Copy(a, b)
	a.Close()
	b.Close()
	<-done
}

// oneListener gives http.Server one connection and then waits for its end.
type oneListener struct {
	conn net.Conn
	once sync.Once
	fin  sync.Once
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	var c net.Conn
	l.once.Do(func() { c = l.conn })
	if c != nil {
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneListener) finish()        { l.fin.Do(func() { close(l.done) }) }
func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return l.conn.LocalAddr() }
