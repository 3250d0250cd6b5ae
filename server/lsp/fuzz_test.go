package lsp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	units "unicode/utf16"

	"go.lsp.dev/protocol"
)

// Whatever an editor writes, the server neither panics nor hangs, and what it writes is well-formed.
func FuzzBorder(f *testing.F) {
	frame := func(bodies ...string) []byte {
		var b strings.Builder
		for _, body := range bodies {
			fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
		}
		return []byte(b.String())
	}
	const (
		initialize  = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{}}}`
		initialized = `{"jsonrpc":"2.0","method":"initialized","params":{}}`
		open        = `{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{"uri":"file:///x/main.go","languageId":"go","version":1,"text":"package main\nfunc main() {}\n"}}}`
		settings    = `{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{"uri":"file:///x/fairlead.yaml","languageId":"yaml","version":1,"text":"services:\n  a:\n    po"}}}`
	)
	f.Add(frame(initialize, initialized, open, `{"jsonrpc":"2.0","method":"textDocument/didChange","params":{"textDocument":{"uri":"file:///x/main.go","version":2},"contentChanges":[{"range":{"start":{"line":1,"character":0},"end":{"line":9,"character":9}},"text":"é"}]}}`,
		`{"jsonrpc":"2.0","id":2,"method":"textDocument/codeLens","params":{"textDocument":{"uri":"file:///x/main.go"}}}`))
	f.Add(frame(initialize, initialized, settings, `{"jsonrpc":"2.0","id":"a","method":"textDocument/completion","params":{"textDocument":{"uri":"file:///x/fairlead.yaml"},"position":{"line":2,"character":6}}}`,
		`{"jsonrpc":"2.0","id":3,"method":"textDocument/hover","params":{"textDocument":{"uri":"file:///x/fairlead.yaml"},"position":{"line":1,"character":3}}}`,
		`{"jsonrpc":"2.0","id":4,"method":"textDocument/codeAction","params":{"textDocument":{"uri":"file:///x/fairlead.yaml"},"range":{"start":{"line":0,"character":0},"end":{"line":2,"character":0}},"context":{"diagnostics":[]}}}`))
	f.Add(frame(initialize, initialized, `{"jsonrpc":"2.0","id":2,"method":"workspace/executeCommand","params":{"command":"fairlead.run","arguments":[{"dir":"/x"}]}}`, `{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":2}}`, `{"jsonrpc":"2.0","id":3,"method":"shutdown"}`, `{"jsonrpc":"2.0","method":"exit"}`))
	f.Add([]byte("Content-Length: 5\r\n\r\n{}\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("\r\n\r\nContent-Length:\r\n\r\nContent-Length: 00\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		outR, outW := io.Pipe()
		written := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(outR)
			written <- b
		}()
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			defer close(ended)
			Serve(ctx, bytes.NewReader(data), outW, Options{Agent: func(string) Agent { return silent{} }, Version: "fuzz", StateDir: t.TempDir(), UserSettings: "-"})
		}()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("it hangs")
		}
		var out bytes.Buffer
		out.Write(<-written)
		in := newBorder(&out, nopCloser{io.Discard}, discard)
		for {
			if _, err := in.next(); err != nil {
				break
			}
		}
		if out.Len() > 0 || in.in.Buffered() > 0 {
			t.Fatal("what it wrote is no run of messages")
		}
	})
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// decodeUnits is the reference for positions: the line's characters, one by one, in units.
func reference(s string, p protocol.Position, e encoding) int {
	var lines []string // with their ends
	rest := s
	for {
		i := strings.IndexAny(rest, "\r\n")
		if i < 0 {
			lines = append(lines, rest)
			break
		}
		n := i + 1
		if strings.HasPrefix(rest[i:], "\r\n") {
			n++
		}
		lines = append(lines, rest[:n])
		rest = rest[n:]
	}
	if int(p.Line) >= len(lines) {
		return len(s)
	}
	at := 0
	for _, l := range lines[:p.Line] {
		at += len(l)
	}
	line := strings.TrimRight(lines[p.Line], "\r\n")
	used := 0
	for i, r := range line {
		n := 1
		switch {
		case e == utf8Bytes:
			_, n = utf8.DecodeRuneInString(line[i:])
		case e == utf16:
			n = max(1, len(units.Encode([]rune{r})))
		}
		if used+n > int(p.Character) {
			return at + i
		}
		used += n
	}
	return at + len(line)
}

func FuzzPosition(f *testing.F) {
	f.Add("a𐐀b\r\nc\rd\n", uint32(0), uint32(2), byte(0))
	f.Add("\r\r\n\n", uint32(2), uint32(9), byte(1))
	f.Fuzz(func(t *testing.T, s string, line, char uint32, enc byte) {
		e := encoding(enc % 3)
		x := newText(s)
		p := protocol.Position{Line: line % 16, Character: char % 64}
		at := x.offset(p, e)
		if want := reference(s, p, e); at != want {
			t.Fatalf("offset of %v in %q (%d): %d, want %d", p, s, e, at, want)
		}
		if back := x.offset(x.position(at, e), e); back != at {
			t.Fatalf("%q: %d leads back to %d", s, at, back)
		}
		for i := range len(s) + 1 { // any offset is safe
			x.position(i, e)
			x.place(i, i, true)
		}
		x.offset(protocol.Position{Line: line, Character: char}, e)
		yamlPath(x, at)
	})
}

// Edits keep the same lines as reading the text anew, and what is marked stays on its text.
func FuzzEdit(f *testing.F) {
	f.Add("a\r\nb\n", uint16(1), uint16(2), "\n", uint16(3))
	f.Add("a\rb", uint16(2), uint16(2), "\n", uint16(0))
	f.Fuzz(func(t *testing.T, s string, from, to uint16, with string, mark uint16) {
		x := newText(s)
		a, b := int(from)%(len(s)+1), int(to)%(len(s)+1)
		if a > b {
			a, b = b, a
		}
		y := x.replace(span{a, b}, with)
		if want := s[:a] + with + s[b:]; y.s != want {
			t.Fatalf("%q, want %q", y.s, want)
		}
		if want := newText(y.s).lines; !slices.Equal(y.lines, want) {
			t.Fatalf("%q [%d,%d) %q: lines %v, want %v", s, a, b, with, y.lines, want)
		}
		if x.s != s || !slices.Equal(x.lines, newText(s).lines) {
			t.Fatal("the old text has changed")
		}
		m := int(mark) % (len(s) + 1)
		r := span{m, min(m+3, len(s))}
		if moved, there := r.move(edit{span{a, b}, len(with)}); there {
			if moved.start < 0 || moved.end > len(y.s) || moved.start > moved.end {
				t.Fatalf("%v moves to %v of %d", r, moved, len(y.s))
			}
			if (b <= r.start || a >= r.end) && y.s[moved.start:moved.end] != s[r.start:r.end] {
				t.Fatalf("%q is now %q", s[r.start:r.end], y.s[moved.start:moved.end])
			}
		}
		if utf8.ValidString(s) && utf8.ValidString(y.s) {
			e, piece := difference(s, y.s)
			if got := x.replace(e.span, piece); got.s != y.s || !utf8.ValidString(piece) {
				t.Fatalf("difference of %q and %q: %v %q", s, y.s, e, piece)
			}
		}
	})
}

func FuzzFind(f *testing.F) {
	f.Add(mainGo)
	f.Add("package main\nfunc main(")
	f.Fuzz(func(t *testing.T, s string) {
		d := &document{path: "/x/main.go", text: newText(s)}
		if at := d.find(); at.is && !strings.HasPrefix(s[at.at.start:at.at.end], "func") {
			t.Fatalf("%q", s[at.at.start:at.at.end])
		}
	})
}
