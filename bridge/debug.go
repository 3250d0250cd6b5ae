package bridge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"fairlead.dev/api"
)

const protoDebug = "fairlead-debug"

// debug upgrades to a stream with a debugger. What it waits for is waited for before the answer, so that a refusal has
// a status and a reason.
func (h *handler) debug(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != protoDebug {
		fail(w, http.StatusBadRequest, errors.New("Upgrade: "+protoDebug+" is missing"))
		return
	}
	g, err := strconv.ParseUint(r.URL.Query().Get("generation"), 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, errors.New("generation must be a number"))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	up, start, err := h.pod.Debug(ctx, api.Generation(g))
	if err != nil {
		fail(w, 0, err)
		return
	}
	h.debugStream(w, r, up, start)
}

// debugStream joins a debugger's connection to the request's until either ends.
func (h *handler) debugStream(w http.ResponseWriter, r *http.Request, up net.Conn, start any) {
	defer up.Close()
	b, err := json.Marshal(start)
	if err != nil {
		fail(w, 0, err)
		return
	}
	ctx := r.Context().Value(connKey{}).(context.Context)
	conn, br, err := hijack(w, r, protoDebug, api.DebugHeader+": "+string(b))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close(); up.Close() })
	defer stop()
	done := make(chan struct{})
	go func() { // the front end's side
		defer close(done)
		io.Copy(up, &peeked{conn, br})
		up.Close() // half of a debug session is none
	}()
	io.Copy(conn, up)
	conn.Close()
	up.Close()
	<-done
}

// DialDebug opens a stream of the Debug Adapter Protocol with the debugger of the service's process of a generation (0: of
// whatever runs). It waits until that process is there, ready to be debugged, and the one before has ended; a debugger is
// attached to it if it has none. The stream's end leaves breakpoints and a stop as they are for a minute: ReleaseDebug ends
// that. Its errors are *api.Problem with the codes of debugging, or CodeLost, or ctx's.
func (c *Conn) DialDebug(ctx context.Context, g api.Generation) (net.Conn, api.DebugStart, error) {
	var start api.DebugStart
	conn, err := c.dialDebug(ctx, "debug?generation="+strconv.FormatUint(uint64(g), 10), &start)
	return conn, start, err
}

// dialDebug opens a debug stream and decodes what its answer says of it.
func (c *Conn) dialDebug(ctx context.Context, path string, start any) (net.Conn, error) {
	conn, err := c.open(ctx)
	if err != nil {
		return nil, lost(ctx, err)
	}
	br := bufio.NewReader(conn)
	resp, err := c.exchange(ctx, conn, br, path, protoDebug)
	if err != nil {
		conn.Close()
		return nil, lost(ctx, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		err = problemOf(resp)
	} else if err = json.Unmarshal([]byte(resp.Header.Get(api.DebugHeader)), start); err != nil {
		err = fmt.Errorf("parse %s: %w", api.DebugHeader, err)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &peeked{conn, br}, nil
}

// ReleaseDebug takes the debugger off the service: its breakpoints go, the process goes on.
func (c *Conn) ReleaseDebug(ctx context.Context) error {
	r, err := c.request(ctx, http.MethodPost, "debug/release", nil)
	if err != nil {
		return err
	}
	return c.do(r, nil)
}
