package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

// idleLimit is how long a client waits for more before it says what it has.
const idleLimit = 15 * time.Second

// readAsClient is the process that reads: args are the run's name, the number of its lines, and where they come from.
func readAsClient(mode string, args []string) error {
	total, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c := &counter{run: args[0], seen: make([]bool, total)}
	switch mode {
	case "journal":
		err = c.journal(args[2], args[3])
	case "pod":
		err = c.pod(args[2], args[3], args[4])
	}
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(c.result()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin) // until its CPU time has been read
	return err
}

// counter counts the lines of a run.
type counter struct {
	run   string
	seen  []bool
	late  []float64 // ms
	first int64     // when the first was written
	last  time.Time // when the last came
	n     counted
	over  bool
	key   struct{ run, n, at, dropped []byte }
}

// quotes says how a quote looks in what is read: as it is, or escaped within a JSON string.
func (c *counter) quotes(q string) {
	c.key.run = []byte(q + "run" + q + ":" + q + c.run + q)
	c.key.n = []byte(q + "n" + q + ":")
	c.key.at = []byte(q + "at" + q + ":")
	c.key.dropped = []byte(`"dropped":`)
}

// line counts one line. It looks for what it needs and decodes nothing: the client is not what is measured.
func (c *counter) line(b []byte, now time.Time) {
	i := bytes.Index(b, c.key.run)
	if i < 0 {
		return
	}
	n, at := number(b[i:], c.key.n), number(b[i:], c.key.at)
	c.last = now
	if bytes.Contains(b[:i], []byte("run over")) {
		c.over = true
		return
	}
	if n < 0 || n >= int64(len(c.seen)) {
		return
	}
	if c.seen[n] {
		c.n.Twice++
		return
	}
	c.seen[n] = true
	c.n.Lines++
	c.late = append(c.late, float64(now.UnixNano()-at)/1e6)
	if c.first == 0 || at < c.first {
		c.first = at
	}
}

func number(b, key []byte) int64 {
	i := bytes.Index(b, key)
	if i < 0 {
		return -1
	}
	n := int64(0)
	for _, d := range b[i+len(key):] {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + int64(d-'0')
	}
	return n
}

func (c *counter) result() counted {
	r := c.n
	r.Missing = len(c.seen) - r.Lines
	if len(c.late) > 0 {
		slices.Sort(c.late)
		at := func(q float64) float64 { return float64(int(1000*c.late[int(q*float64(len(c.late)-1))])) / 1000 }
		r.P50, r.P99, r.Max = at(0.5), at(0.99), at(1)
		r.Rate = float64(int(float64(r.Lines) / c.last.Sub(time.Unix(0, c.first)).Seconds()))
	}
	return r
}

func (c *counter) journal(url, token string) error {
	c.quotes(`\"`)
	d := websocket.Dialer{ReadBufferSize: 64 << 10}
	ws, resp, err := d.Dial(url, http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		if resp != nil {
			b, _ := io.ReadAll(resp.Body)
			return fmt.Errorf("%w: %s", err, b)
		}
		return err
	}
	defer ws.Close()
	fmt.Println("ready")
	var buf bytes.Buffer
	for !c.over {
		ws.SetReadDeadline(time.Now().Add(idleLimit))
		_, r, err := ws.NextReader()
		if err == nil {
			buf.Reset()
			_, err = buf.ReadFrom(r)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "logs: the journal's reader ends:", err)
			return nil
		}
		now := time.Now()
		c.n.Bytes += int64(buf.Len())
		for line := range bytes.Lines(buf.Bytes()) {
			c.line(line, now)
			if n := number(line, c.key.dropped); n > 0 { // of the entry or of its event: either is a loss that was told
				c.n.Dropped += int(n)
			}
		}
	}
	return nil
}

func (c *counter) pod(kubeconfig, namespace, pod string) error {
	c.quotes(`"`)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := podLog(ctx, kubeconfig, namespace, pod)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println("ready")
	idle := time.AfterFunc(time.Hour, cancel)
	r := bufio.NewReaderSize(s, 64<<10)
	for !c.over {
		idle.Reset(idleLimit)
		b, err := r.ReadSlice('\n')
		if err != nil {
			fmt.Fprintln(os.Stderr, "logs: the log stream ends:", err)
			return nil
		}
		c.n.Bytes += int64(len(b))
		c.line(b, time.Now())
		for !c.over && r.Buffered() > 0 { // one look at the clock for what came together
			now := time.Now()
			buf, _ := r.Peek(r.Buffered())
			end := bytes.LastIndexByte(buf, '\n')
			if end < 0 {
				break
			}
			for line := range bytes.Lines(buf[:end+1]) {
				c.line(line, now)
			}
			c.n.Bytes += int64(end + 1)
			r.Discard(end + 1)
		}
	}
	return nil
}
