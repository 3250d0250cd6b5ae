package bridge

import (
	"bufio"
	"context"
	"net/http"
)

// RawRequest sends one request over a session of its own, with just these headers.
func RawRequest(ctx context.Context, dial Dial, method, path string, h http.Header) (*http.Response, error) {
	raw, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	sess, err := clientSession(raw)
	if err != nil {
		return nil, err
	}
	defer sess.Close()
	conn, err := sess.Open()
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://pod/v1/"+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header = h
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(conn), r)
}
