package bridge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"

	"fairlead.dev/api"
)

// Pod is what the far side of the connection offers; supervisor.Supervisor is one.
type Pod interface {
	Status(ctx context.Context) (api.Status, error)
	Stage(ctx context.Context, b api.Blob, r io.Reader) error
	Swap(ctx context.Context, m api.Manifest) (api.Status, error)
	// Events hands frames (api.Frame) to emit.
	Events(ctx context.Context, epoch string, after uint64, emit func([]byte) error) error
	Tunnel(ctx context.Context, conn net.Conn, port int)
	Attach(name, instance string, takeOver, keep bool) (lost <-chan string, detach func(), err error)
	Probe(ctx context.Context, p api.Probe) error
	Shutdown()
	// Outbound says what is to become of the service's calls, and Calls what became of them.
	Outbound(ctx context.Context, o api.Outbound) (api.Outbound, error)
	Calls(ctx context.Context) ([]api.Seen, error)
	// Debug waits for the process of a generation and opens a stream with its debugger; ReleaseDebug takes that off.
	Debug(ctx context.Context, g api.Generation) (net.Conn, api.DebugStart, error)
	ReleaseDebug(ctx context.Context) error
	// StartTask readies a program beside the service; DebugTask opens its debug stream, which it ends with, and DebugCore one
	// for a core file that the service has left.
	StartTask(ctx context.Context, t api.Task) (api.TaskStarted, error)
	DebugTask(ctx context.Context, id string) (net.Conn, api.DebugStart, error)
	DebugCore(ctx context.Context, path string) (net.Conn, api.DebugStart, error)
}

const (
	// maxManifest bounds a manifest's JSON: 100,000 files with long names.
	maxManifest = 32 << 20
	blobHeader  = "Fairlead-Blob"
)

// muxConfig: 4 MiB windows, because with yamux's own 256 KiB an upload over a 30 ms link is held to 8 MB/s.
func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.MaxStreamWindowSize = 4 << 20
	c.KeepAliveInterval = 10 * time.Second
	c.ConnectionWriteTimeout = 15 * time.Second
	c.StreamOpenTimeout = 30 * time.Second
	c.LogOutput = io.Discard
	return c
}

// joined makes one write of a frame's header and its body, which yamux writes one after the other: each write is a message
// of its own all along the way, through the container runtime, the kubelet and the API server. It has one writer, yamux's
// sender.
type joined struct {
	io.ReadWriteCloser
	buf []byte // a header that waits for its body, or nothing
}

const (
	muxHeader = 12 // version, type, flags (2), stream (4), length (4)
	muxData   = 0  // the only type with a body
)

func (j *joined) Write(b []byte) (int, error) {
	if len(j.buf) == 0 {
		if len(b) == muxHeader && b[1] == muxData && binary.BigEndian.Uint32(b[8:]) > 0 {
			j.buf = append(j.buf, b...)
			return len(b), nil
		}
		return j.ReadWriteCloser.Write(b)
	}
	j.buf = append(j.buf, b...)
	_, err := j.ReadWriteCloser.Write(j.buf)
	if j.buf = j.buf[:0]; cap(j.buf) > 1<<20 {
		j.buf = nil
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// Serve answers connections on ln until ctx ends. The token is compared in constant time, request by request.
func Serve(ctx context.Context, ln net.Listener, token string, pod Pod) error {
	h := &handler{ctx: ctx, token: []byte(token), pod: pod, mux: http.NewServeMux()}
	h.routes()
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		wg.Go(func() { h.serveConn(conn) })
	}
}

type handler struct {
	ctx   context.Context
	token []byte
	pod   Pod
	mux   *http.ServeMux
}

// connKey is the context key of the connection's own context. A request's ends with the first read that fails, and the
// tunnel looks at a connection's first bytes under a deadline.
type connKey struct{}

// serveConn answers one connection until it ends.
func (h *handler) serveConn(conn net.Conn) {
	sess, err := yamux.Server(&joined{ReadWriteCloser: conn}, muxConfig())
	if err != nil {
		conn.Close()
		return
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { sess.Close() })
	defer stop()
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return context.WithValue(ctx, connKey{}, ctx) },
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	srv.Serve(sess)
	cancel()
	sess.Close()
	srv.Close()
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// No browser reaches this socket; what carries an Origin is not ours.
	if r.Header.Get("Origin") != "" {
		fail(w, http.StatusBadRequest, &api.Problem{Code: "bad-request", Message: "this endpoint is not for browsers"})
		return
	}
	got, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if subtle.ConstantTimeCompare([]byte(got), h.token) != 1 {
		fail(w, http.StatusUnauthorized, &api.Problem{Code: api.CodeUnauthorized, Message: "the pod does not know this token",
			Hint: "the environment was made by another workspace or machine; remove it with fairlead stop, or make one under another name"})
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *handler) routes() {
	h.mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		st, err := h.pod.Status(r.Context())
		answer(w, st, err)
	})
	h.mux.HandleFunc("POST /v1/stage", func(w http.ResponseWriter, r *http.Request) {
		var b api.Blob
		if err := json.Unmarshal([]byte(r.Header.Get(blobHeader)), &b); err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("parse %s: %w", blobHeader, err))
			return
		}
		if err := h.pod.Stage(r.Context(), b, r.Body); err != nil {
			fail(w, 0, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	h.mux.HandleFunc("POST /v1/swap", func(w http.ResponseWriter, r *http.Request) {
		var m api.Manifest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxManifest)).Decode(&m); err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("parse manifest: %w", err))
			return
		}
		// A swap that has begun is finished, whether or not the agent still listens.
		st, err := h.pod.Swap(context.WithoutCancel(r.Context()), m)
		answer(w, st, err)
	})
	h.mux.HandleFunc("POST /v1/outbound", func(w http.ResponseWriter, r *http.Request) {
		var o api.Outbound
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxManifest)).Decode(&o); err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("parse outbound calls: %w", err))
			return
		}
		o, err := h.pod.Outbound(r.Context(), o)
		answer(w, o, err)
	})
	h.mux.HandleFunc("GET /v1/calls", func(w http.ResponseWriter, r *http.Request) {
		calls, err := h.pod.Calls(r.Context())
		answer(w, calls, err)
	})
	h.mux.HandleFunc("GET /v1/attach", h.attach)
	h.mux.HandleFunc("GET /v1/events", h.events)
	h.mux.HandleFunc("GET /v1/tunnel", h.tunnel)
	h.mux.HandleFunc("GET /v1/debug", h.debug)
	h.mux.HandleFunc("POST /v1/tasks", func(w http.ResponseWriter, r *http.Request) {
		var t api.Task
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxManifest)).Decode(&t); err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("parse task: %w", err))
			return
		}
		started, err := h.pod.StartTask(r.Context(), t)
		answer(w, started, err)
	})
	h.mux.HandleFunc("POST /v1/debug/release", func(w http.ResponseWriter, r *http.Request) {
		if err := h.pod.ReleaseDebug(r.Context()); err != nil {
			fail(w, 0, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	h.mux.HandleFunc("POST /v1/shutdown", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		http.NewResponseController(w).Flush()
		h.pod.Shutdown()
	})
	h.mux.HandleFunc("POST /v1/probe", func(w http.ResponseWriter, r *http.Request) {
		var p api.Probe
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&p); err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("parse probe: %w", err))
			return
		}
		if err := h.pod.Probe(r.Context(), p); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		fail(w, 0, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// fail writes an error as a Problem; code 0 picks the status by its kind.
func fail(w http.ResponseWriter, code int, err error) {
	var p *api.Problem
	if !errors.As(err, &p) {
		if code == 0 {
			code = http.StatusInternalServerError
		}
		p = &api.Problem{Code: "pod-error", Message: err.Error()}
	}
	if code == 0 {
		code = http.StatusConflict
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(p)
}

// hijack upgrades a request, with further header lines, and returns its connection.
func hijack(w http.ResponseWriter, r *http.Request, proto string, header ...string) (net.Conn, *bufio.Reader, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), proto) {
		return nil, nil, errors.New("Upgrade: " + proto + " is missing")
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+proto+"\r\n"+strings.Join(append(header, "", ""), "\r\n")); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, rw.Reader, nil
}

const (
	protoTunnel = "fairlead-tunnel"
	protoAttach = "fairlead-attach"
)

func (h *handler) tunnel(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.Atoi(r.URL.Query().Get("port"))
	if err != nil || port < 0 || port > 65535 {
		fail(w, http.StatusBadRequest, errors.New("port must be a number from 0 to 65535"))
		return
	}
	ctx := r.Context().Value(connKey{}).(context.Context)
	conn, br, err := hijack(w, r, protoTunnel)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	h.pod.Tunnel(ctx, &peeked{conn, br}, port)
}

func (h *handler) attach(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	lost, detach, err := h.pod.Attach(q.Get("name"), q.Get("instance"), q.Get("take_over") == "true", q.Get("keep") == "true")
	if err != nil {
		fail(w, 0, err)
		return
	}
	defer detach()
	conn, _, err := hijack(w, r, protoAttach)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	defer conn.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, conn)
	}()
	select {
	case why := <-lost:
		json.NewEncoder(conn).Encode(&api.Problem{Code: api.CodeTakenOver, Message: why, Hint: "take it back with fairlead run --take-over"})
		conn.Close()
		<-gone
	case <-gone:
	}
}

func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	after, err := strconv.ParseUint(q.Get("after"), 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, errors.New("after must be a sequence number"))
		return
	}
	up := websocket.Upgrader{WriteBufferSize: 64 << 10}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer ws.Close()
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	go func() { // the reader's side says nothing; its end is what is waited for
		defer cancel()
		for {
			if _, _, err := ws.NextReader(); err != nil {
				return
			}
		}
	}()
	stop := context.AfterFunc(ctx, func() { ws.Close() })
	defer stop()
	frames := q.Get("frames") == "1"
	h.pod.Events(ctx, q.Get("epoch"), after, func(b []byte) error {
		if frames {
			return ws.WriteMessage(websocket.BinaryMessage, b)
		}
		var lines bytes.Buffer
		enc := json.NewEncoder(&lines)
		if err := api.DecodeFrame(b, func(e api.Event) error { return enc.Encode(e) }); err != nil {
			return err
		}
		return ws.WriteMessage(websocket.TextMessage, lines.Bytes())
	})
}

// peeked is a hijacked connection whose first bytes the HTTP server may have read already.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func query(kv ...string) string {
	v := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		v.Set(kv[i], kv[i+1])
	}
	return v.Encode()
}
