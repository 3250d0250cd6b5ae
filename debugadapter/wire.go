package debugadapter

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A message of 64 MiB is a page of variables at limits that somebody raised on purpose. The library's own reader stops
// at 4 MiB, which maxStringLen and maxArrayValues pass easily.
const maxMessage = 64 << 20

// An editor that has not read 64 MiB beyond that is not reading.
const maxBacklog = 64 << 20

// obj is one JSON object whose members are kept as they came.
type obj map[string]json.RawMessage

// raw encodes what the proxy itself says: strings, numbers and structs, which cannot fail.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("debugadapter: encode %T: %v", v, err))
	}
	return b
}

func (m obj) str(key string) string {
	var s string
	_ = json.Unmarshal(m[key], &s) // absent or of another type: empty
	return s
}

func (m obj) num(key string) int {
	var n int
	_ = json.Unmarshal(m[key], &n)
	return n
}

func (m obj) is(key string) bool { return string(m[key]) == "true" }

// sub is an object member, never nil.
func (m obj) sub(key string) obj {
	var o obj
	_ = json.Unmarshal(m[key], &o)
	if o == nil {
		o = obj{}
	}
	return o
}

// list is an array of objects. What is none is left out as nil.
func (m obj) list(key string) []obj {
	var parts []json.RawMessage
	_ = json.Unmarshal(m[key], &parts)
	out := make([]obj, len(parts))
	for i, p := range parts {
		_ = json.Unmarshal(p, &out[i])
		if out[i] == nil {
			out[i] = obj{}
		}
	}
	return out
}

// encode writes the members unchanged, seq first for those who read a trace.
func (m obj) encode() []byte {
	keys := make([]string, 0, len(m))
	size := 2
	for k, v := range m {
		keys = append(keys, k)
		size += len(k) + len(v) + 4
	}
	slices.SortFunc(keys, func(a, b string) int {
		if (a == "seq") != (b == "seq") {
			if a == "seq" {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	out := make([]byte, 0, size)
	out = append(out, '{')
	for i, k := range keys {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, raw(k)...)
		out = append(out, ':')
		if v := m[k]; len(v) > 0 {
			out = append(out, v...)
		} else {
			out = append(out, "null"...)
		}
	}
	return append(out, '}')
}

// MarshalJSON keeps the members as they came.
func (m obj) MarshalJSON() ([]byte, error) { return m.encode(), nil }

var errFraming = errors.New("not a message of the debug adapter protocol")

// readMessage reads one framed message. io.EOF means that the peer closed between messages.
func readMessage(r *bufio.Reader) (obj, error) {
	length := -1
	for first := true; ; first = false {
		line, err := readLine(r)
		if err != nil {
			if errors.Is(err, io.EOF) && !(first && line == "") {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if line == "" {
			if first {
				return nil, fmt.Errorf("%w: an empty header", errFraming)
			}
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%w: the header %.40q", errFraming, line)
		}
		if strings.EqualFold(strings.TrimSpace(name), "Content-Length") { // others, such as Content-Type, mean nothing here
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
			if err != nil {
				return nil, fmt.Errorf("%w: the header %.40q", errFraming, line)
			}
			length = int(n)
		}
	}
	if length < 0 {
		return nil, fmt.Errorf("%w: no Content-Length", errFraming)
	}
	if length > maxMessage {
		return nil, fmt.Errorf("%w: a message of %d bytes, more than %d", errFraming, length, maxMessage)
	}
	// A length is a claim: memory is taken as the bytes come.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(length)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	var m obj
	if err := json.Unmarshal(body.Bytes(), &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errFraming, err)
	}
	if m == nil {
		return nil, fmt.Errorf("%w: null", errFraming)
	}
	return m, nil
}

func readLine(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", fmt.Errorf("%w: a header without an end", errFraming)
	}
	return strings.TrimRight(string(b), "\r\n"), err
}

// outbox is a queue of messages to one peer, so that a peer that reads slowly stops nobody: an editor that writes to us
// while it does not read would otherwise hold the proxy, and the proxy it.
//
// One goroutine: the one that run is called in.
type outbox struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	closed  bool
	err     error
}

func newOutbox() *outbox {
	o := &outbox{}
	o.changed.L = &o.mu
	return o
}

// put queues a message. It fails when the peer cannot be written to or has not read for too long.
func (o *outbox) put(m obj) error {
	b := m.encode()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err != nil:
		return o.err
	case o.closed:
		return io.ErrClosedPipe
	case len(o.buf) > maxBacklog:
		return errors.New("the peer does not read what it is sent")
	}
	o.buf = append(o.buf, "Content-Length: "...)
	o.buf = strconv.AppendInt(o.buf, int64(len(b)), 10)
	o.buf = append(o.buf, "\r\n\r\n"...)
	o.buf = append(o.buf, b...)
	o.changed.Signal()
	return nil
}

// close lets run end once everything is written.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.changed.Signal()
}

// run writes until close, everything that waits in one write.
func (o *outbox) run(w io.Writer) {
	var spare []byte
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.buf) == 0 && !o.closed {
			o.changed.Wait()
		}
		if len(o.buf) == 0 {
			return
		}
		out := o.buf
		o.buf = spare[:0]
		o.mu.Unlock()
		_, err := w.Write(out)
		o.mu.Lock()
		if err != nil {
			o.err = err
			return
		}
		if spare = out; cap(spare) > 1<<20 {
			spare = nil
		}
	}
}

func (m obj) ints(key string) []int {
	var n []int
	_ = json.Unmarshal(m[key], &n)
	return n
}
