package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"fairlead.dev/api"
)

const (
	// maxLine is where a line is cut; the rest follows as a line of its own. 16 KiB is what container runtimes cut
	// at (CRI's log format), so nothing reads worse here than in kubectl.
	maxLine = 16 << 10
	// ringBytes bounds what is kept of the service's output. At 50 MB/s it is a sixth of a second; at the
	// 100 lines a second of a chatty service it is many minutes.
	ringBytes = 8 << 20
	// ringStates is how many process, listening and problem events are kept; a log flood does not push them out.
	ringStates = 1024
	// batchBytes bounds one message to a reader.
	batchBytes = 128 << 10
	// lineCost is what an entry costs beside its text.
	lineCost = 96
)

// entry is one event of the ring: a line of output, or (when state is set) an event already encoded.
type entry struct {
	seq     uint64
	time    time.Time
	gen     api.Generation
	stderr  bool
	partial bool
	text    []byte
	state   []byte
}

// ring keeps the newest events under one sequence. Appending never waits for a reader: one that falls behind is told
// how many lines it lost.
type ring struct {
	mu     sync.Mutex
	seq    uint64
	logs   []entry // a queue: logs[head:] is live
	head   int
	bytes  int
	max    int
	states []entry
	wake   chan struct{} // closed and replaced at each append while somebody waits
	waits  bool
}

func newRing(maxBytes int) *ring { return &ring{max: maxBytes, wake: make(chan struct{})} }

func (r *ring) last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq
}

func (r *ring) notifyLocked() {
	if r.waits {
		close(r.wake)
		r.wake = make(chan struct{})
		r.waits = false
	}
}

// addLine appends one line; text is kept, not copied.
func (r *ring) addLine(now time.Time, gen api.Generation, stderr, partial bool, text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	r.logs = append(r.logs, entry{seq: r.seq, time: now, gen: gen, stderr: stderr, partial: partial, text: text})
	r.bytes += len(text) + lineCost
	for r.bytes > r.max && r.head < len(r.logs)-1 {
		r.bytes -= len(r.logs[r.head].text) + lineCost
		r.logs[r.head] = entry{}
		r.head++
	}
	if r.head > len(r.logs)/2 && r.head > 1024 {
		n := copy(r.logs, r.logs[r.head:])
		clear(r.logs[n:])
		r.logs, r.head = r.logs[:n], 0
	}
	r.notifyLocked()
}

// addState appends an event of the process itself and sets its sequence number.
func (r *ring) addState(e api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	e.Head().Seq = r.seq
	b, err := json.Marshal(e)
	if err != nil { // every event type is a plain struct
		panic("encode event: " + err.Error())
	}
	if len(r.states) == ringStates {
		r.states = append(r.states[:0], r.states[1:]...)
	}
	r.states = append(r.states, entry{seq: r.seq, state: b})
	r.notifyLocked()
}

// next appends to dst, one JSON object a line, what came after the given sequence number, up to about batchBytes, and
// returns the number of the last. When nothing has come yet it returns a channel that is closed when something does.
func (r *ring) next(dst []byte, after uint64) ([]byte, uint64, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if after >= r.seq {
		r.waits = true
		return dst, after, r.wake
	}
	logs := r.logs[r.head:]
	// Sequence numbers grow along both queues: find the first newer than after by binary search.
	li := search(logs, after)
	si := search(r.states, after)
	start := len(dst)
	var lost uint64 // before state events; told with the next line, which there is: the newest is never lost
	for (len(dst)-start < batchBytes || lost > 0) && (li < len(logs) || si < len(r.states)) {
		if si < len(r.states) && (li == len(logs) || r.states[si].seq < logs[li].seq) {
			lost += lostBetween(after, r.states[si].seq)
			dst = append(append(dst, r.states[si].state...), '\n')
			after = r.states[si].seq
			si++
			continue
		}
		dst = appendLine(dst, &logs[li], lost+lostBetween(after, logs[li].seq))
		lost = 0
		after = logs[li].seq
		li++
	}
	return dst, after, nil
}

// lostBetween counts the lines between two neighbours of those events that are still there. A state event that was pushed
// out by 1,024 newer ones counts as a line.
func lostBetween(after, seq uint64) uint64 { return seq - after - 1 }

func search(q []entry, after uint64) int {
	lo, hi := 0, len(q)
	for lo < hi {
		if m := (lo + hi) / 2; q[m].seq > after {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}

// tail returns the last n lines written by a generation, oldest first.
func (r *ring) tail(gen api.Generation, n int) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out [][]byte
	for i := len(r.logs) - 1; i >= r.head && len(out) < n; i-- {
		if r.logs[i].gen == gen {
			out = append(out, r.logs[i].text)
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// appendLine encodes a log event by hand: at 100,000 lines a second reflection would be what costs most.
func appendLine(dst []byte, e *entry, dropped uint64) []byte {
	dst = append(dst, `{"type":"log","generation":`...)
	dst = strconv.AppendUint(dst, uint64(e.gen), 10)
	dst = append(dst, `,"time":"`...)
	dst = e.time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","seq":`...)
	dst = strconv.AppendUint(dst, e.seq, 10)
	if e.stderr {
		dst = append(dst, `,"stream":"stderr","text":`...)
	} else {
		dst = append(dst, `,"stream":"stdout","text":`...)
	}
	dst = appendJSONString(dst, e.text)
	if e.partial {
		dst = append(dst, `,"partial":true`...)
	}
	if dropped > 0 {
		dst = append(dst, `,"dropped":`...)
		dst = strconv.AppendUint(dst, dropped, 10)
	}
	return append(dst, '}', '\n')
}

func appendJSONString(dst, s []byte) []byte {
	for _, c := range s {
		if c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			b, _ := json.Marshal(string(s)) // a string always encodes; invalid UTF-8 becomes U+FFFD
			return append(dst, b...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// follow hands batches of events after the given number to emit until ctx ends or emit fails.
func (r *ring) follow(ctx context.Context, after uint64, emit func([]byte) error) error {
	var buf []byte
	for {
		var wait <-chan struct{}
		buf, after, wait = r.next(buf[:0], after)
		if wait != nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := emit(buf); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// capture reads a stream of the service until it ends and adds its lines to the ring. It never makes the service wait
// for a reader of the logs.
func (r *ring) capture(src io.Reader, gen api.Generation, stderr bool) {
	buf := make([]byte, 0, 64<<10)
	for {
		if len(buf) == cap(buf) { // cannot happen: flushed below at maxLine
			buf = buf[:0]
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		now := time.Now()
		rest := buf
		for {
			i := bytes.IndexByte(rest, '\n')
			partial := false
			line := rest
			switch {
			case i >= 0 && i <= maxLine:
				line, rest = rest[:i], rest[i+1:]
			case len(rest) >= maxLine:
				cut := maxLine
				for cut > maxLine-utf8.UTFMax && !utf8.RuneStart(rest[cut-1]) {
					cut--
				}
				if cut > 1 && rest[cut-1] >= utf8.RuneSelf {
					cut-- // the rune that starts here may go on behind the cut
				}
				line, rest, partial = rest[:cut], rest[cut:], true
			case err != nil && len(rest) > 0:
				rest = nil
			default:
				line = nil
			}
			if line == nil {
				break
			}
			if !partial {
				line = bytes.TrimSuffix(line, []byte{'\r'})
			}
			r.addLine(now, gen, stderr, partial, bytes.Clone(line))
		}
		buf = buf[:copy(buf, rest)]
		if err != nil {
			return
		}
	}
}
