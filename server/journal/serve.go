package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// Protocol is the websocket subprotocol; a reader need not ask for it.
	Protocol = "fairlead.journal.v1"
	// messageBytes is when a message is sent though there is more: enough that its frame costs nothing, little enough
	// that a reader draws while the next one comes.
	messageBytes = 64 << 10
	// takeLines bounds what one reader holds beside the journal.
	takeLines = 512
	// writeLimit is how long a reader may take nothing before it is cut off.
	writeLimit = 30 * time.Second
	// closeLimit is how long a reader may take to answer the close, and so to have read what came before it.
	closeLimit = 5 * time.Second
	// maxQuery bounds the request's query; the longest that makes sense is below 100 bytes.
	maxQuery = 1024
)

// The pace of messages while lines come fast: after a message with n lines the next waits paceLine times n, at most
// paceMax. A single line is followed at once by the next; at 100,000 lines a second a message holds some hundreds.
const (
	paceLine = 20 * time.Microsecond
	paceMax  = 4 * time.Millisecond
)

type query struct {
	after   uint64
	logs    bool
	journal string
}

func parseQuery(raw string) (query, error) {
	q := query{logs: true}
	if len(raw) > maxQuery {
		return q, errors.New("the query is too long")
	}
	v, err := url.ParseQuery(raw)
	if err != nil {
		return q, errors.New("the query is not well formed")
	}
	for _, name := range []string{"after", "logs", "journal"} {
		if len(v[name]) > 1 {
			return q, fmt.Errorf("%s is there more than once", name)
		}
	}
	if s := v.Get("after"); s != "" {
		if q.after, err = strconv.ParseUint(s, 10, 64); err != nil {
			return q, errors.New("after must be a sequence number: that of the last entry you have, or 0")
		}
	}
	switch v.Get("logs") {
	case "", "1":
	case "0":
		q.logs = false
	default:
		return q, errors.New("logs must be 0 or 1")
	}
	q.journal = v.Get("journal")
	return q, nil
}

// Serve upgrades the request to a websocket and streams the journal to it, as the package comment says, until the reader
// goes, the request's context ends or the journal does. The caller has made sure that the reader may have it.
func Serve(w http.ResponseWriter, r *http.Request, j *Journal) { serve(w, r, j, writeLimit) }

func serve(w http.ResponseWriter, r *http.Request, j *Journal, limit time.Duration) {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "a journal is read by websocket", http.StatusUpgradeRequired)
		return
	}
	up := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 4096, Subprotocols: []string{Protocol},
		CheckOrigin: func(*http.Request) bool { return true }} // the caller's business
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer ws.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ws.Close() })
	defer stop()
	gone := make(chan struct{})
	go func() { // ends with the connection; what the reader says is not for us, its end is
		defer close(gone)
		defer cancel()
		ws.SetReadLimit(64 << 10)
		for {
			if _, _, err := ws.NextReader(); err != nil {
				return
			}
		}
	}()
	if err := stream(ctx, ws, j, q, limit); errors.Is(err, io.EOF) {
		end := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "the session is over")
		ws.WriteControl(websocket.CloseMessage, end, time.Now().Add(closeLimit))
		t := time.NewTimer(closeLimit)
		defer t.Stop()
		select {
		case <-gone:
		case <-t.C:
		}
	}
	stop()
	ws.Close()
	<-gone
}

// stream sends entries until the journal or the connection ends.
func stream(ctx context.Context, ws *websocket.Conn, j *Journal, q query, limit time.Duration) error {
	var (
		e     encoder
		batch []taken
		err   error
		first = true
	)
	reset := q.journal != "" && q.journal != j.id
	if reset {
		q.after = 0
	}
	for {
		if batch, err = j.take(ctx, batch[:0], q.after, q.logs, takeLines); err != nil {
			return err
		}
		n := len(batch)
		for i := range batch {
			t := &batch[i]
			t.reset = t.reset || reset
			name := ""
			if first {
				name = j.id
			}
			e.add(t, name)
			first, reset = false, false
			q.after = t.seq
			if len(e.buf) >= messageBytes || i == n-1 {
				ws.SetWriteDeadline(time.Now().Add(limit))
				if err := ws.WriteMessage(websocket.TextMessage, e.buf); err != nil {
					return err
				}
				e.buf = e.buf[:0]
			}
		}
		clear(batch) // the journal's bound is the bound: nothing is held for a reader that waits
		if n > 1 && n < takeLines {
			t := time.NewTimer(min(time.Duration(n)*paceLine, paceMax))
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
	}
}
