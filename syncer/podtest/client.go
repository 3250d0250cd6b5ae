package podtest

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Client asks the service through the tunnel with kept-alive connections.
func Client(s Subject) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := s.Dial(ctx, 0)
		if err != nil {
			return nil, err
		}
		if nc, ok := c.(net.Conn); ok {
			return nc, nil
		}
		return rwcConn{c}, nil
	}}, Timeout: 40 * time.Second}
}

// rwcConn makes a net.Conn of a stream, for an HTTP client that asks for no more.
type rwcConn struct{ io.ReadWriteCloser }

func (rwcConn) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (rwcConn) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (rwcConn) SetDeadline(time.Time) error      { return nil }
func (rwcConn) SetReadDeadline(time.Time) error  { return nil }
func (rwcConn) SetWriteDeadline(time.Time) error { return nil }

// waitFlight waits until a slow request is in the service's hands.
func (s Subject) waitFlight(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); Get(t, s, "/flights") == "0"; {
		if time.Now().After(end) {
			t.Fatal("the slow request has not come to the service")
		}
	}
}
