package client

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"fairlead.dev/api"
)

// Two editors of different versions do not put out each other's agents for ever: only who has not had one yet replaces
// one that holds nothing.
func TestNoWarOfVersions(t *testing.T) {
	dir, err := os.MkdirTemp("", "fl-") // a short path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sock := filepath.Join(dir, "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	var version atomic.Value
	version.Store("ours")
	var shutdowns atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/agent", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(api.Agent{Version: version.Load().(string), PID: 1})
	})
	mux.HandleFunc("POST /v1/shutdown", func(w http.ResponseWriter, _ *http.Request) {
		shutdowns.Add(1)
		w.WriteHeader(http.StatusConflict)
	})
	mux.HandleFunc("GET /v1/attach", func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		version.Store("newer") // the next one
		c.WriteJSON(api.Update{Agent: &api.Agent{Version: "ours", PID: 1}})
		c.Close()
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	defer srv.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	start := func(context.Context) error { return errors.New("there is one") }
	c := New(Options{Socket: sock, Version: "ours", Start: start})
	for range 2 {
		err := c.Attach(ctx, func(Update) {})
		var p *api.Problem
		if !errors.As(err, &p) || p.Code != CodeVersion {
			t.Fatalf("%v", err)
		}
	}
	if n := shutdowns.Load(); n != 0 {
		t.Errorf("it asked the newer agent to leave, %d times", n)
	}
	// One that is new asks once.
	New(Options{Socket: sock, Version: "newest", Start: start}).Attach(ctx, func(Update) {})
	if n := shutdowns.Load(); n != 1 {
		t.Errorf("a new front end asked %d times", n)
	}
}
