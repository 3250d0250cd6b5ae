package lsp

import (
	"slices"
	"strings"
	"unicode/utf8"

	"go.lsp.dev/protocol"
)

// encoding is the unit that positions within a line are counted in.
type encoding int

const (
	utf16 encoding = iota // what every client knows
	utf8Bytes
	utf32
)

var encodings = map[string]encoding{"utf-8": utf8Bytes, "utf-16": utf16, "utf-32": utf32}

func (e encoding) kind() protocol.PositionEncodingKind {
	for name, is := range encodings {
		if is == e {
			return protocol.PositionEncodingKind(name)
		}
	}
	return "utf-16"
}

// width is how many units a character takes. Invalid UTF-8 counts as the one replacement character per byte that an
// editor shows for it.
func (e encoding) width(r rune, size int) int {
	switch {
	case e == utf8Bytes:
		return size
	case e == utf16 && r >= 0x10000:
		return 2
	}
	return 1
}

// text is a document's content with the places where its lines begin. It is never changed.
type text struct {
	s     string
	lines []int // where each line begins; the first is 0
}

func newText(s string) text { return text{s, lineStarts(nil, s, 0)} }

// lineStarts appends where lines begin in s, after the first. An end of line is \n, \r\n or \r, as in the protocol.
func lineStarts(to []int, s string, at int) []int {
	if to == nil {
		to = []int{at}
	}
	for i := 0; i < len(s); i++ {
		j := strings.IndexAny(s[i:], "\r\n")
		if j < 0 {
			break
		}
		i += j
		if s[i] == '\r' && i+1 < len(s) && s[i+1] == '\n' {
			i++
		}
		to = append(to, at+i+1)
	}
	return to
}

// line returns where line n (from 0) begins and where its characters end. A line beyond the last is the text's end.
func (t text) line(n int) (start, end int) {
	if n >= len(t.lines) {
		return len(t.s), len(t.s)
	}
	start, end = t.lines[n], len(t.s)
	if n+1 < len(t.lines) {
		end = t.lines[n+1]
	}
	for end > start && (t.s[end-1] == '\n' || t.s[end-1] == '\r') {
		end--
	}
	return start, end
}

// offset finds a position's place in bytes. What is beyond a line's end is its end, as the protocol says; what is in the
// middle of a character is its beginning.
func (t text) offset(p protocol.Position, e encoding) int {
	if uint64(p.Line) >= uint64(len(t.lines)) {
		return len(t.s)
	}
	start, end := t.line(int(p.Line))
	left := int(min(p.Character, 1<<30))
	for at := start; at < end; {
		r, size := utf8.DecodeRuneInString(t.s[at:end])
		if left -= e.width(r, size); left < 0 {
			return at
		}
		at += size
		if left == 0 {
			return at
		}
	}
	if left == int(min(p.Character, 1<<30)) {
		return start
	}
	return end
}

// position is the way back. An offset between \r and \n is the line's end.
func (t text) position(offset int, e encoding) protocol.Position {
	offset = min(max(offset, 0), len(t.s))
	n, found := slices.BinarySearch(t.lines, offset)
	if !found {
		n--
	}
	start, end := t.line(n)
	end = min(end, offset)
	chars := 0
	for at := start; at < end; {
		r, size := utf8.DecodeRuneInString(t.s[at:])
		if at+size > end {
			break
		}
		chars += e.width(r, size)
		at += size
	}
	return protocol.Position{Line: uint32(n), Character: uint32(chars)}
}

func (t text) span(r span, e encoding) protocol.Range {
	return protocol.Range{Start: t.position(r.start, e), End: t.position(r.end, e)}
}

// replace returns the text with a part of it replaced. Only the lines around the change are looked at again.
func (t text) replace(r span, with string) text {
	s := t.s[:r.start] + with + t.s[r.end:]
	first, found := slices.BinarySearch(t.lines, r.start)
	if !found {
		first--
	}
	first = max(0, first-1) // a \r before the change may be joined by a \n, or lose it
	last, found := slices.BinarySearch(t.lines, r.end)
	if !found {
		last--
	}
	last++ // the first line that the change does not touch
	grown := len(with) - (r.end - r.start)
	lines := make([]int, 0, len(t.lines)+strings.Count(with, "\n")+1)
	lines = append(lines, t.lines[:first+1]...)
	end := len(s)
	if last < len(t.lines) {
		end = t.lines[last] + grown
	}
	from := t.lines[first]
	lines = lineStarts(lines, s[from:end], from)
	if last < len(t.lines) && lines[len(lines)-1] == end {
		last++ // the end of the part is that line's beginning
	}
	for _, at := range t.lines[min(last, len(t.lines)):] {
		lines = append(lines, at+grown)
	}
	return text{s, lines}
}

// span is a part of a text, in bytes.
type span struct{ start, end int }

// edit is one change of a text: what was at span has now n bytes.
type edit struct {
	span
	n int
}

// move says where a part of a text is after an edit, and whether it is still there: text that is deleted takes what was
// said of it along.
func (r span) move(e edit) (span, bool) {
	shift := e.n - (e.end - e.start)
	switch {
	case e.end <= r.start:
		return span{r.start + shift, r.end + shift}, true
	case e.start >= r.end:
		return r, true
	case e.start <= r.start && e.end >= r.end:
		return span{}, false
	case e.start >= r.start && e.end <= r.end:
		return span{r.start, r.end + shift}, true
	case e.start < r.start:
		return span{e.start + e.n, r.end + shift}, true
	}
	return span{r.start, e.start}, true
}
