package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"fairlead.dev/api"
	"fairlead.dev/server/journal"
)

// The bounds of what front ends send.
const (
	maxBody = 4 << 20 // a request's environment variables may have megabytes; an editor saves thousands of files at once
	maxID   = 64
	maxName = 200
	// pingEvery keeps an attachment's other end sure that the agent lives; attachLimit is how long a message may take.
	pingEvery   = 10 * time.Second
	attachLimit = 30 * time.Second
)

// handler serves the private socket; doc.go lists the endpoints.
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/agent", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, a.info) })
	mux.HandleFunc("GET /v1/attach", a.serveAttach)
	mux.HandleFunc("POST /v1/run", func(w http.ResponseWriter, r *http.Request) {
		var req api.RunRequest
		if !decode(w, r, &req) {
			return
		}
		if err := checkRun(req); err != nil {
			refuse(w, err)
			return
		}
		ans, err := a.run(r.Context(), req)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, ans)
	})
	mux.HandleFunc("POST /v1/join", func(w http.ResponseWriter, r *http.Request) {
		var req api.JoinRequest
		if !decode(w, r, &req) {
			return
		}
		if err := checkJoin(req); err != nil {
			refuse(w, err)
			return
		}
		ans, err := a.join(r.Context(), req)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, ans)
	})
	mux.HandleFunc("POST /v1/services/{name}/dependencies", func(w http.ResponseWriter, r *http.Request) {
		var req api.DependencyRequest
		if decode(w, r, &req) {
			finish(w, http.StatusNoContent, a.switchDependency(r.Context(), r.PathValue("name"), req))
		}
	})
	mux.HandleFunc("GET /v1/services/{name}/calls", a.serveCalls)
	mux.HandleFunc("POST /v1/services/{name}/form", a.serveForm)
	mux.HandleFunc("POST /v1/services/{name}/review", a.serveReview)
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, map[string]any{"services": a.services()})
	})
	mux.HandleFunc("POST /v1/services/{name}/stop", func(w http.ResponseWriter, r *http.Request) {
		why := "it was stopped"
		if by := r.FormValue("by"); by != "" {
			why = "it was stopped by " + by[:min(len(by), maxName)]
		}
		h, err := a.stop(r.PathValue("name"), why)
		if err != nil || !r.Form.Has("wait") {
			finish(w, http.StatusAccepted, err)
			return
		}
		select {
		case <-h.done:
			finish(w, http.StatusNoContent, h.err)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /v1/services/{name}/leave", func(w http.ResponseWriter, r *http.Request) {
		finish(w, http.StatusNoContent, a.leave(r.PathValue("name"), r.URL.Query().Get("client")))
	})
	mux.HandleFunc("POST /v1/services/{name}/keep", func(w http.ResponseWriter, r *http.Request) {
		var req api.KeepRequest
		if decode(w, r, &req) {
			finish(w, http.StatusNoContent, a.keepService(r.Context(), r.PathValue("name"), req.Until))
		}
	})
	mux.HandleFunc("POST /v1/services/{name}/cancel", func(w http.ResponseWriter, r *http.Request) {
		var req api.CancelRequest
		if decode(w, r, &req) {
			finish(w, http.StatusNoContent, a.cancelWhat(r.PathValue("name"), req.What))
		}
	})
	mux.HandleFunc("POST /v1/saved", func(w http.ResponseWriter, r *http.Request) {
		var req api.SavedRequest
		if decode(w, r, &req) {
			finish(w, http.StatusNoContent, a.saved(req.Paths))
		}
	})
	mux.HandleFunc("GET /v1/services/{name}/access", func(w http.ResponseWriter, r *http.Request) {
		acc, err := a.access(r.PathValue("name"))
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, acc)
	})
	mux.HandleFunc("GET /v1/services/{name}/journal", func(w http.ResponseWriter, r *http.Request) {
		j := a.journal(r.PathValue("name"))
		if j == nil {
			a.mu.Lock()
			_, err := a.find(r.PathValue("name"))
			a.mu.Unlock()
			refuse(w, err)
			return
		}
		journal.Serve(w, r, j)
	})
	mux.HandleFunc("GET /v1/services/{name}/debug", a.serveDebug)
	mux.HandleFunc("GET /v1/services/{name}/debug/stream", a.serveDebugStream)
	mux.HandleFunc("POST /v1/services/{name}/debug/test", a.serveDebugTest)
	mux.HandleFunc("POST /v1/services/{name}/debug/choice", func(w http.ResponseWriter, r *http.Request) {
		var req api.DebugChoice
		if decode(w, r, &req) {
			finish(w, http.StatusNoContent, a.debugChoice(r.PathValue("name"), req))
		}
	})
	mux.HandleFunc("POST /v1/due/{id}", func(w http.ResponseWriter, r *http.Request) {
		var req api.DueRequest
		if decode(w, r, &req) {
			finish(w, http.StatusNoContent, a.answerDue(r.Context(), r.PathValue("id"), req.Do))
		}
	})
	mux.HandleFunc("POST /v1/shutdown", func(w http.ResponseWriter, r *http.Request) {
		finish(w, http.StatusAccepted, a.shutdown(r.URL.Query().Has("force")))
	})
	return a.count(mux)
}

// count keeps the agent from leaving while a request is under way, and makes Run wait for it.
func (a *Agent) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.busy++
		a.wg.Add(1) // the server's own goroutine is counted too, so this is never the first
		a.touch()
		a.mu.Unlock()
		defer func() {
			a.mu.Lock()
			a.busy--
			a.touch()
			a.mu.Unlock()
			a.wg.Done()
		}()
		next.ServeHTTP(w, r)
	})
}

// checkRun refuses what no front end means.
func checkRun(r api.RunRequest) error {
	switch {
	case !isClientID(r.Client):
		return badRequest("client must be an attachment's ID")
	case r.Path != "" && (!filepath.IsAbs(r.Path) || r.Dir != "" || r.Main != ""):
		return badRequest(fmt.Sprintf("path must be an absolute path, without dir and main, and is %q", r.Path))
	case r.Path == "" && !filepath.IsAbs(r.Dir):
		return badRequest(fmt.Sprintf("dir must be an absolute path, and is %q", r.Dir))
	}
	return nil
}

// label1123 is a name that Kubernetes gives: RFC 1123. A namespace is one, an environment too.
var label1123 = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// checkJoin refuses what names no environment. Such names come by links, from anywhere.
func checkJoin(r api.JoinRequest) error {
	switch {
	case !isClientID(r.Client):
		return badRequest("client must be an attachment's ID")
	case !label1123.MatchString(r.Environment):
		return &api.Problem{Code: "bad-name", Message: fmt.Sprintf("%.70q is no environment's name", r.Environment), Hint: "fairlead env share, where the environment was made, prints it"}
	case r.Namespace != "" && !label1123.MatchString(r.Namespace):
		return &api.Problem{Code: "bad-name", Message: fmt.Sprintf("%.70q is no namespace's name", r.Namespace), Hint: "fairlead env share, where the environment was made, prints it"}
	}
	if u, err := url.Parse(r.Cluster); r.Cluster != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil) {
		return &api.Problem{Code: "bad-name", Message: fmt.Sprintf("%.70q is no API server's address", r.Cluster), Hint: "fairlead env share, where the environment was made, prints it"}
	}
	return nil
}

// isClientID says whether a front end may call itself so: not as an environment that holds others does.
func isClientID(id string) bool {
	return id != "" && len(id) <= maxID && !strings.HasPrefix(id, holderPrefix)
}

// serveAttach is a client's presence.
func (a *Agent) serveAttach(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, name := q.Get("client"), q.Get("name")
	if !isClientID(id) || len(name) > maxName {
		refuse(w, badRequest("client must be an ID of at most 64 characters, name one of at most 200"))
		return
	}
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		problems(w, http.StatusUpgradeRequired, badRequest("attach is a websocket"))
		return
	}
	at, err := a.attach(id, name, q.Has("asks"))
	if err != nil {
		refuse(w, err)
		return
	}
	onPurpose := false
	defer func() { a.detach(at, onPurpose) }()
	up := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 16 << 10}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer ws.Close()
	gone := make(chan struct{})
	left := false
	go func() { // ends with the connection
		defer close(gone)
		ws.SetReadLimit(64 << 10)
		ws.SetReadDeadline(time.Now().Add(3 * pingEvery))
		ws.SetPongHandler(func(string) error { return ws.SetReadDeadline(time.Now().Add(3 * pingEvery)) })
		for {
			if _, _, err := ws.NextReader(); err != nil {
				left = websocket.IsCloseError(err, websocket.CloseNormalClosure)
				return
			}
		}
	}()
	closing := a.tell(ws, at, gone)
	if closing != nil {
		ws.WriteControl(websocket.CloseMessage, closing, time.Now().Add(time.Second))
		t := time.NewTimer(2 * time.Second) // its answer says that it has read what came before
		select {
		case <-gone:
		case <-t.C:
		}
		t.Stop()
	}
	ws.Close()
	<-gone
	onPurpose = left && closing == nil
}

// tell sends updates until the client goes (nil) or is to be sent away.
func (a *Agent) tell(ws *websocket.Conn, at *attachment, gone <-chan struct{}) (closing []byte) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case u, ok := <-at.updates:
			if !ok {
				a.mu.Lock()
				why := a.why
				a.mu.Unlock()
				return websocket.FormatCloseMessage(websocket.CloseGoingAway, why)
			}
			ws.SetWriteDeadline(time.Now().Add(attachLimit))
			if err := ws.WriteJSON(u); err != nil {
				return nil
			}
		case <-at.slow:
			return websocket.FormatCloseMessage(websocket.CloseTryAgainLater, "what changed was not read")
		case <-ping.C:
			if err := ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(attachLimit)); err != nil {
				return nil
			}
		case <-gone:
			return nil
		}
	}
}

// decode reads a request's body, or refuses it.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		problems(w, http.StatusRequestEntityTooLarge, badRequest(fmt.Sprintf("the request has more than %d bytes", maxBody)))
		return false
	case err != nil:
		return false
	}
	if err := json.Unmarshal(b, into); err != nil {
		problems(w, http.StatusBadRequest, badRequest("the request is not well formed: "+err.Error()))
		return false
	}
	return true
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// finish answers a request that has no answer but that it is done.
func finish(w http.ResponseWriter, status int, err error) {
	if err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(status)
}

// refuse answers with the problems in an error, and the status of the first.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusUnprocessableEntity
	switch api.Problems(err, "failed")[0].Code {
	case CodeNoService:
		status = http.StatusNotFound
	case CodeBadRequest:
		status = http.StatusBadRequest
	case CodeInUse, CodeLeaving, api.CodeDebugHeld, api.CodeDebugAway, api.CodeNoProcess:
		status = http.StatusConflict
	}
	problems(w, status, err)
}

func problems(w http.ResponseWriter, status int, err error) {
	answer(w, status, map[string]any{"problems": api.Problems(err, "failed")})
}
