package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
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

// addLines appends lines and numbers them; their texts are kept, not copied.
func (r *ring) addLines(lines []entry) {
	if len(lines) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range lines {
		r.seq++
		lines[i].seq = r.seq
		r.bytes += len(lines[i].text) + lineCost
	}
	r.logs = append(r.logs, lines...)
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

// next puts into f what came after the given sequence number, up to about batchBytes, and returns the number of the last.
// When nothing has come yet it returns a channel that is closed when something does.
func (r *ring) next(f *api.Frame, after uint64) (uint64, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if after >= r.seq {
		r.waits = true
		return after, r.wake
	}
	logs := r.logs[r.head:]
	// Sequence numbers grow along both queues: find the first newer than after by binary search.
	li := search(logs, after)
	si := search(r.states, after)
	var lost uint64 // before state events; told with the next line, which there is: the newest is never lost
	for (f.Len() < batchBytes || lost > 0) && (li < len(logs) || si < len(r.states)) {
		if si < len(r.states) && (li == len(logs) || r.states[si].seq < logs[li].seq) {
			lost += lostBetween(after, r.states[si].seq)
			f.AddEvent(r.states[si].state)
			after = r.states[si].seq
			si++
			continue
		}
		e := &logs[li]
		f.AddLine(e.seq, e.gen, e.time, e.stderr, e.partial, lost+lostBetween(after, e.seq), e.text)
		lost = 0
		after = e.seq
		li++
	}
	return after, nil
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

// The pace of batches while lines come fast: after one of n lines the next waits paceLine times n, at most paceMax, so that
// it has company. A line alone is followed at once by the next, so nothing waits at a thousand lines a second; at a
// hundred thousand a batch holds some hundreds, and the dozen processes between here and the agent wake for each batch
// instead of for each line.
const (
	paceLine = 20 * time.Microsecond
	paceMax  = 4 * time.Millisecond
)

// follow hands frames of events after the given number to emit until ctx ends or emit fails.
func (r *ring) follow(ctx context.Context, after uint64, emit func([]byte) error) error {
	var f api.Frame
	for {
		f.Reset()
		var wait <-chan struct{}
		if after, wait = r.next(&f, after); wait != nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := emit(f.Bytes()); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n := f.Lines(); n > 1 && f.Len() < batchBytes {
			t := time.NewTimer(min(time.Duration(n)*paceLine, paceMax))
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
	}
}

const (
	// readBytes is how much is read of a stream at once.
	readBytes = 128 << 10
	// After readsFast reads within readRest, the next waits for readRest: a service that writes line by line would
	// otherwise wake the supervisor for each. The pipe holds what comes meanwhile.
	readsFast = 4
	readRest  = time.Millisecond
)

// capture reads a stream of the service until it ends and adds its lines to the ring. It never makes the service wait
// for a reader of the logs.
func (r *ring) capture(src io.Reader, gen api.Generation, stderr bool) {
	buf := make([]byte, 0, readBytes)
	var lines []entry
	var since time.Time
	reads := 0
	for {
		if len(buf) == cap(buf) { // cannot happen: flushed below at maxLine
			buf = buf[:0]
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		now := time.Now()
		end := bytes.LastIndexByte(buf, '\n') + 1
		if end < len(buf)-maxLine || err != nil {
			end = len(buf)
		}
		// One copy and one allocation for all lines of a read. The ring drops the oldest first, so the copy goes when the
		// last line of it does, a read later at most.
		chunk := bytes.Clone(buf[:end])
		lines, chunk = split(lines[:0], chunk, err != nil)
		for i := range lines {
			e := &lines[i]
			e.time, e.gen, e.stderr = now, gen, stderr
		}
		r.addLines(lines)
		buf = buf[:copy(buf, buf[end-len(chunk):])]
		if err != nil {
			return
		}
		if now.Sub(since) >= readRest {
			since, reads = now, 0
		}
		if reads++; reads > readsFast && n < readBytes/4 {
			time.Sleep(readRest)
		}
	}
}

// split cuts b into lines, of maxLine at most, and returns the rest that is not a line yet; at the end all is.
func split(lines []entry, b []byte, end bool) ([]entry, []byte) {
	for len(b) > 0 {
		i := bytes.IndexByte(b[:min(len(b), maxLine+1)], '\n')
		var e entry
		switch {
		case i >= 0:
			e.text, b = b[:i:i], b[i+1:]
		case len(b) > maxLine:
			cut := maxLine
			for cut > maxLine-utf8.UTFMax && !utf8.RuneStart(b[cut-1]) {
				cut--
			}
			if cut > 1 && b[cut-1] >= utf8.RuneSelf {
				cut-- // the rune that starts here may go on behind the cut
			}
			e.text, e.partial, b = b[:cut:cut], true, b[cut:]
		case end:
			e.text, b = b[:len(b):len(b)], nil
		default:
			return lines, b
		}
		if !e.partial {
			e.text = bytes.TrimSuffix(e.text, []byte{'\r'})
		}
		lines = append(lines, e)
	}
	return lines, nil
}
