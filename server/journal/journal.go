package journal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"sync"

	"fairlead.dev/api"
)

// The defaults of Options. A log view is to scroll smoothly over 100,000 lines, so twice that many are kept if they are
// of the usual length; and at 100,000 lines a second of 150 bytes both bounds give a reader two seconds to come back.
const (
	defaultLogBytes = 64 << 20
	defaultLogLines = 200_000
	// defaultEvents is far more than a day of saves makes: about ten events a save.
	defaultEvents = 16 << 10
	// lineCost is what a line costs beside its text: its api.LogEvent and its place in the queue.
	lineCost = 120 + 24
	// defaultRead is how many entries Read returns at most if not told.
	defaultRead = 1024
)

// Options bound what a Journal keeps; zero is the default.
type Options struct {
	LogBytes int // of log lines, their cost in memory included
	LogLines int
	Events   int // other than log lines
}

// Journal keeps the newest events of a session under one sequence, which starts at 1. Log lines and other events have
// room of their own: a flood of lines pushes no event out. Appending never waits for a reader.
type Journal struct {
	id   string
	opts Options

	mu     sync.Mutex
	seq    uint64
	lines  queue
	bytes  int
	events queue
	closed bool
	// Readers wait for any entry, or for an event that is no line; a channel is closed and forgotten at what it waits for.
	any, event chan struct{}
}

// item is one entry of a queue. The event is shared with whoever appended it and with every reader: nobody changes it.
type item struct {
	seq   uint64
	event api.Event
}

// New makes an empty journal.
func New(o Options) *Journal {
	if o.LogBytes <= 0 {
		o.LogBytes = defaultLogBytes
	}
	if o.LogLines <= 0 {
		o.LogLines = defaultLogLines
	}
	if o.Events <= 0 {
		o.Events = defaultEvents
	}
	var id [8]byte
	rand.Read(id[:])
	return &Journal{id: hex.EncodeToString(id[:]), opts: o}
}

// Append adds an event and returns its sequence number; 0 if the journal is closed. The event must not be changed
// afterwards.
func (j *Journal) Append(e api.Event) uint64 {
	if l, ok := e.(*api.LogEvent); ok {
		return j.appendLine(l)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return 0
	}
	j.seq++
	if j.events.n == j.opts.Events {
		j.events.pop()
	}
	j.events.push(item{seq: j.seq, event: e})
	wake(&j.any)
	wake(&j.event)
	return j.seq
}

func (j *Journal) appendLine(e *api.LogEvent) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return 0
	}
	j.seq++
	j.lines.push(item{seq: j.seq, event: e})
	j.bytes += len(e.Text) + lineCost
	for j.lines.n > 1 && (j.bytes > j.opts.LogBytes || j.lines.n > j.opts.LogLines) {
		j.bytes -= len(j.lines.pop().event.(*api.LogEvent).Text) + lineCost
	}
	wake(&j.any)
	return j.seq
}

func wake(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}

// Last is the newest entry's sequence number; 0 if there is none.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq
}

// Close ends the journal: readers get what is left and then io.EOF.
func (j *Journal) Close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	wake(&j.any)
	wake(&j.event)
}

// Read returns up to max entries (0: a default) that came after a sequence number, oldest first, and waits until there
// is at least one. logs says whether log lines are wanted. After the last entry of a closed journal it returns io.EOF. A
// number beyond the end is another journal's: Read starts from the oldest entry, which has Reset set.
//
// The entries' events are the journal's own: they must not be changed.
func (j *Journal) Read(ctx context.Context, after uint64, logs bool, max int) ([]api.Entry, error) {
	if max <= 0 {
		max = defaultRead
	}
	batch, err := j.take(ctx, make([]taken, 0, min(max, 256)), after, logs, max)
	if err != nil {
		return nil, err
	}
	out := make([]api.Entry, len(batch))
	for i, t := range batch {
		out[i] = t.entry()
		switch ev := t.event.(type) {
		case *api.LogEvent:
			out[i].Line = new(api.Line)
			parse(ev, out[i].Line)
		case *api.CallEvent:
			out[i].Line = call(ev)
		}
	}
	return out, nil
}

// taken is an item on its way to one reader.
type taken struct {
	item
	dropped uint64
	reset   bool
}

func (t *taken) entry() api.Entry {
	return api.Entry{Seq: t.seq, Event: t.event, Dropped: t.dropped, Reset: t.reset}
}

// parse understands the line; what line's Attrs had room for is used again.
func parse(e *api.LogEvent, line *api.Line) {
	parseLine(e.Text, line)
	line.Process, line.Refused = e.Process, refusal(e.Text)
}

// take is Read before lines are understood; it appends to dst.
func (j *Journal) take(ctx context.Context, dst []taken, after uint64, logs bool, max int) ([]taken, error) {
	reset := false
	for {
		j.mu.Lock()
		if after > j.seq {
			after, reset = 0, true
		}
		dst = j.takeLocked(dst, after, logs, max)
		if len(dst) > 0 {
			j.mu.Unlock()
			dst[0].reset = reset
			return dst, nil
		}
		if j.closed {
			j.mu.Unlock()
			return nil, io.EOF
		}
		ch := &j.any
		if !logs {
			ch = &j.event
		}
		if *ch == nil {
			*ch = make(chan struct{})
		}
		wait := *ch
		j.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (j *Journal) takeLocked(dst []taken, after uint64, logs bool, max int) []taken {
	ei := j.events.search(after)
	li := j.lines.n
	if logs {
		li = j.lines.search(after)
	}
	for len(dst) < max && (ei < j.events.n || li < j.lines.n) {
		if ei < j.events.n && (li == j.lines.n || j.events.at(ei).seq < j.lines.at(li).seq) {
			dst = append(dst, taken{item: *j.events.at(ei)})
			ei++
		} else {
			dst = append(dst, taken{item: *j.lines.at(li)})
			li++
		}
		if logs {
			// What is missing between two numbers is lines that were overwritten; events between them were taken just now.
			// (An event pushed out after thousands of newer ones would count as a line, and be lost aloud.)
			t := &dst[len(dst)-1]
			t.dropped = t.seq - after - 1
			after = t.seq
		}
	}
	return dst
}

// queue is a ring of items that grows as it needs to.
type queue struct {
	buf  []item // its length is a power of two
	head int
	n    int
}

func (q *queue) at(i int) *item { return &q.buf[(q.head+i)&(len(q.buf)-1)] }

func (q *queue) push(it item) {
	if q.n == len(q.buf) {
		bigger := make([]item, max(64, 2*len(q.buf)))
		for i := range q.n {
			bigger[i] = *q.at(i)
		}
		q.buf, q.head = bigger, 0
	}
	q.n++
	*q.at(q.n - 1) = it
}

func (q *queue) pop() item {
	p := q.at(0)
	it := *p
	*p = item{}
	q.head = (q.head + 1) & (len(q.buf) - 1)
	q.n--
	return it
}

// search returns the place of the first item after a sequence number.
func (q *queue) search(after uint64) int {
	lo, hi := 0, q.n
	for lo < hi {
		if m := (lo + hi) / 2; q.at(m).seq > after {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}
