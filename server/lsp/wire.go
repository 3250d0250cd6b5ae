package lsp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.lsp.dev/jsonrpc2"
)

const (
	// No editor sends more: a didOpen of a generated file of some ten megabytes, with its quoting, is the largest message
	// that was seen.
	maxMessage = 64 << 20
	maxHeader  = 16 << 10
)

// border reads an editor's messages and lets only those through that package jsonrpc2 can go on after: a body that is no
// JSON, a length that would fill the memory, a header that says nothing would each end its connection. What can be
// skipped is skipped and told; after a header without a length there is no telling where the next message begins, so the
// next header is looked for.
type border struct {
	in   *bufio.Reader
	out  io.WriteCloser
	log  *slog.Logger
	left []byte // of the message that is being handed over
	gone chan struct{}
	once sync.Once

	mu sync.Mutex // one message at a time is written
}

func newBorder(in io.Reader, out io.WriteCloser, log *slog.Logger) *border {
	return &border{in: bufio.NewReaderSize(in, 64<<10), out: out, log: log, gone: make(chan struct{})}
}

// Read hands over whole messages, header and body.
func (b *border) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		body, err := b.next()
		if err != nil {
			b.once.Do(func() { close(b.gone) })
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF // in the middle of a message or between two: the editor is gone
			}
			return 0, err
		}
		if body != nil {
			b.left = append(fmt.Appendf(nil, "Content-Length: %d\r\n\r\n", len(body)), body...)
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// next reads one message. It returns nil for one that is left out.
func (b *border) next() ([]byte, error) {
	length, err := b.header()
	if err != nil {
		return nil, err
	}
	if length < 0 {
		return nil, nil
	}
	if length > maxMessage {
		b.refuse(-32600, fmt.Sprintf("a message of %d bytes is too large", length))
		_, err := io.CopyN(io.Discard, b.in, length)
		return nil, err
	}
	// The buffer grows with what arrives, not with what is announced.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, b.in, length); err != nil {
		return nil, err
	}
	if !json.Valid(body.Bytes()) {
		b.refuse(-32700, "a message is not valid JSON")
		return nil, nil
	}
	if first := bytes.TrimLeft(body.Bytes(), " \t\r\n"); first[0] != '{' {
		b.refuse(-32600, "a message is not an object (LSP has no batches)")
		return nil, nil
	}
	// What jsonrpc2 cannot take for a request, a notification or an answer ends its connection.
	if _, err := jsonrpc2.DecodeMessage(body.Bytes()); err != nil {
		b.refuse(-32600, "a message is no request, notification or answer")
		return nil, nil
	}
	return body.Bytes(), nil
}

var reLength = regexp.MustCompile(`(?i)content-length:`)

// header reads up to the blank line and returns the length, or -1 if there was none that can be used.
func (b *border) header() (int64, error) {
	length, size, bad := int64(-1), 0, false
	for {
		line, err := b.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			bad = true
			continue
		}
		if err != nil {
			return 0, err
		}
		size += len(line)
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			if size <= 2 {
				size = 0
				continue // blank lines between messages do no harm
			}
			break
		}
		if size > maxHeader {
			bad = true
		}
		// After text that was no header, the next header may follow on the same line.
		if m := reLength.FindStringIndex(text); m != nil {
			n, err := strconv.ParseInt(strings.TrimSpace(text[m[1]:]), 10, 64)
			if err != nil || n <= 0 {
				bad = true
				continue
			}
			length, bad = n, false
		}
	}
	if length < 0 || bad {
		b.refuse(-32700, "a message's header has no usable Content-Length")
		return -1, nil
	}
	return length, nil
}

// refuse answers what cannot be understood: with an error without an id, as JSON-RPC asks for.
func (b *border) refuse(code int, message string) {
	b.log.Warn("a message of the editor was left out", "why", message)
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":null,"error":{"code":%d,"message":%q}}`, code, message)
	fmt.Fprintf(b, "Content-Length: %d\r\n\r\n%s", len(body), body)
}

// Write writes one message. jsonrpc2 gives each in one call.
func (b *border) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *border) Close() error { return b.out.Close() }
