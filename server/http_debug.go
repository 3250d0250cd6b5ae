package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"fairlead.dev/api"
)

// protoDebug is the upgrade of a debug stream, here as on the way to the pod.
const protoDebug = "fairlead-debug"

// checkOnSave refuses what is no value of on_save; empty is the default.
func checkOnSave(v string) (string, error) {
	if v == "" {
		return api.OnSaveContinue, nil
	}
	if !slices.Contains([]string{api.OnSaveContinue, api.OnSaveNow, api.OnSaveNever}, v) {
		return "", badRequest(fmt.Sprintf("on_save must be continue, now or never, and is %q", v))
	}
	return v, nil
}

// serveDebug is a front end's debug session: it lasts as long as the websocket.
func (a *Agent) serveDebug(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, by := q.Get("client"), q.Get("name")
	if !isClientID(id) || len(by) > maxName {
		refuse(w, badRequest("client must be an ID of at most 64 characters, name one of at most 200"))
		return
	}
	onSave, err := checkOnSave(q.Get("on_save"))
	if err != nil {
		refuse(w, err)
		return
	}
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		problems(w, http.StatusUpgradeRequired, badRequest("debug is a websocket"))
		return
	}
	a.mu.Lock()
	h, err := a.find(r.PathValue("name"))
	a.mu.Unlock()
	var c *Claim
	if err == nil {
		c, err = h.session.Debug(by, onSave)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	a.mu.Lock()
	h.claims[id] = c
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		if h.claims[id] == c {
			delete(h.claims, id)
		}
		a.mu.Unlock()
		c.Close()
	}()
	up := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 4 << 10}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer ws.Close()
	gone := make(chan struct{})
	go func() { // ends with the connection
		defer close(gone)
		ws.SetReadLimit(64 << 10)
		ws.SetReadDeadline(time.Now().Add(3 * pingEvery))
		ws.SetPongHandler(func(string) error { return ws.SetReadDeadline(time.Now().Add(3 * pingEvery)) })
		for {
			_, b, err := ws.ReadMessage()
			if err != nil {
				return
			}
			var cmd api.DebugCommand
			if err := json.Unmarshal(b, &cmd); err != nil {
				return
			}
			if _, err := checkOnSave(cmd.OnSave); err != nil {
				return
			}
			c.Do(cmd)
		}
	}()
	tellDebug(ws, c, gone)
	ws.Close()
	<-gone
}

// tellDebug sends what happens until the front end goes or the session is over.
func tellDebug(ws *websocket.Conn, c *Claim, gone <-chan struct{}) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case e, ok := <-c.Events():
			if !ok {
				ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "the environment is gone"), time.Now().Add(time.Second))
				return
			}
			ws.SetWriteDeadline(time.Now().Add(attachLimit))
			if err := ws.WriteJSON(e); err != nil {
				return
			}
		case <-ping.C:
			if err := ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(attachLimit)); err != nil {
				return
			}
		case <-gone:
			return
		}
	}
}

// serveDebugStream joins the front end with a debugger: that of the process, which it has claimed, or one of a test's or a
// core file's own.
func (a *Agent) serveDebugStream(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), protoDebug) {
		refuse(w, badRequest("the upgrade must be "+protoDebug))
		return
	}
	far, start, err := a.dialDebug(r)
	if err != nil {
		refuse(w, err)
		return
	}
	splice(w, far, start)
}

func (a *Agent) dialDebug(r *http.Request) (far net.Conn, start api.DebugStart, err error) {
	q := r.URL.Query()
	a.mu.Lock()
	h, err := a.find(r.PathValue("name"))
	var c *Claim
	if err == nil {
		c = h.claims[q.Get("client")]
	}
	a.mu.Unlock()
	switch {
	case err != nil:
		return nil, start, err
	case q.Has("task"):
		far, err = h.session.dialTask(r.Context(), q.Get("task"))
		return far, start, err
	case q.Has("core"):
		return h.session.dialCore(r.Context(), q.Get("core"))
	case c == nil:
		return nil, start, &api.Problem{Code: api.CodeDebugAway, Message: "this front end has no debug session of " + r.PathValue("name")}
	}
	g, err := strconv.ParseUint(q.Get("generation"), 10, 64)
	if err != nil {
		return nil, start, badRequest("generation must be a number")
	}
	return c.Dial(r.Context(), api.Generation(g))
}

// serveDebugTest readies a test.
func (a *Agent) serveDebugTest(w http.ResponseWriter, r *http.Request) {
	var req api.DebugTest
	if !decode(w, r, &req) {
		return
	}
	if !filepath.IsAbs(req.Dir) {
		refuse(w, badRequest(fmt.Sprintf("dir must be an absolute path, and is %q", req.Dir)))
		return
	}
	a.mu.Lock()
	h, err := a.find(r.PathValue("name"))
	a.mu.Unlock()
	if err == nil {
		var t api.TaskStarted
		if t, err = h.session.debugTest(r.Context(), req); err == nil {
			answer(w, http.StatusOK, t)
			return
		}
	}
	refuse(w, err)
}

// splice upgrades a request and joins it with the debugger until either side ends.
func splice(w http.ResponseWriter, far net.Conn, start api.DebugStart) {
	defer far.Close()
	near, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, err)
		return
	}
	defer near.Close()
	near.SetDeadline(time.Time{})
	b, err := json.Marshal(start)
	if err != nil {
		return
	}
	if _, err := fmt.Fprintf(near, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n", protoDebug, api.DebugHeader, b); err != nil {
		return
	}
	join(near, rw.Reader, far)
}

// join copies both ways; either side's end is the other's.
func join(near net.Conn, read *bufio.Reader, far net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(far, read)
		far.Close()
		near.Close() // a yamux stream's Close ends the sending side only
	}()
	io.Copy(near, far)
	near.Close()
	far.Close()
	<-done
}

// debugChoice says what a save does while the process stands.
func (a *Agent) debugChoice(name string, ch api.DebugChoice) error {
	if _, err := checkOnSave(ch.OnSave); err != nil {
		return err
	}
	a.mu.Lock()
	h, err := a.find(name)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return h.session.choose(ch)
}
