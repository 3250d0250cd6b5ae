package bridge

import (
	"bufio"
	"bytes"
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
	q := r.URL.Query()
	var up net.Conn
	var start api.DebugStart
	var err error
	switch {
	case q.Has("task"):
		up, start, err = h.pod.DebugTask(r.Context(), q.Get("task"))
	case q.Has("core"):
		up, start, err = h.pod.DebugCore(r.Context(), q.Get("core"))
	default:
		var g uint64
		if g, err = strconv.ParseUint(q.Get("generation"), 10, 64); err != nil {
			fail(w, http.StatusBadRequest, errors.New("generation must be a number"))
			return
		}
		up, start, err = h.pod.Debug(r.Context(), api.Generation(g))
	}
	if err != nil {
		fail(w, 0, err)
		return
	}
	h.debugStream(w, r, up, start)
}

// debugStream joins a debugger's connection to the request's until either ends.
func (h *handler) debugStream(w http.ResponseWriter, r *http.Request, up net.Conn, start api.DebugStart) {
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
	return c.dialDebug(ctx, "debug?generation="+strconv.FormatUint(uint64(g), 10))
}

// StartTask readies a program beside the service, whose blobs are staged; DialTask debugs it.
func (c *Conn) StartTask(ctx context.Context, t api.Task) (started api.TaskStarted, err error) {
	b, err := json.Marshal(t)
	if err != nil {
		return started, err
	}
	r, err := c.request(ctx, http.MethodPost, "tasks", bytes.NewReader(b))
	if err == nil {
		err = c.do(r, &started)
	}
	return started, err
}

// DialTask opens the debug stream of a task: one session of Delve, in which the client launches the program (mode "exec").
// The program, all that it started and its folder go when the stream ends.
func (c *Conn) DialTask(ctx context.Context, id string) (net.Conn, error) {
	conn, _, err := c.dialDebug(ctx, "debug?"+query("task", id))
	return conn, err
}

// DialCore opens a debug stream for the core file that a ProcessEvent told: one session of Delve, in which the client
// launches with mode "core", that path and DebugStart.Program.
func (c *Conn) DialCore(ctx context.Context, path string) (net.Conn, api.DebugStart, error) {
	return c.dialDebug(ctx, "debug?"+query("core", path))
}

// dialDebug opens a debug stream and decodes what its answer says of it.
func (c *Conn) dialDebug(ctx context.Context, path string) (_ net.Conn, start api.DebugStart, _ error) {
	conn, err := c.open(ctx)
	if err != nil {
		return nil, start, lost(ctx, err)
	}
	br := bufio.NewReader(conn)
	resp, err := c.exchange(ctx, conn, br, path, protoDebug)
	if err != nil {
		conn.Close()
		return nil, start, lost(ctx, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		err = problemOf(resp)
	} else if err = json.Unmarshal([]byte(resp.Header.Get(api.DebugHeader)), &start); err != nil {
		err = fmt.Errorf("parse %s: %w", api.DebugHeader, err)
	}
	if err != nil {
		conn.Close()
		return nil, start, err
	}
	return &peeked{conn, br}, start, nil
}

// ReleaseDebug takes the debugger off the service: its breakpoints go, the process goes on.
func (c *Conn) ReleaseDebug(ctx context.Context) error {
	r, err := c.request(ctx, http.MethodPost, "debug/release", nil)
	if err != nil {
		return err
	}
	return c.do(r, nil)
}
