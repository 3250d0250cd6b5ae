package journal

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"fairlead.dev/api"
)

// encoder writes entries in JSON, one a line. Its memory is used again for the next message. It writes lines by hand: they
// are what comes by the hundred thousand. Everything else goes through encoding/json.
type encoder struct {
	buf  []byte
	line api.Line
	when time.Time // the last line's
	time []byte    // the same in JSON: lines that were read together have one time
}

// add appends an entry; journal is its member of that name.
func (e *encoder) add(t *taken, journal string) {
	b := append(e.buf, `{"seq":`...)
	b = strconv.AppendUint(b, t.seq, 10)
	b = append(b, `,"event":`...)
	if l, ok := t.event.(*api.LogEvent); ok {
		b = e.event(b, l)
		parse(l, &e.line)
		b = appendLine(b, &e.line)
	} else {
		j, err := json.Marshal(t.event)
		if err != nil { // every event is a plain struct
			panic("encode event: " + err.Error())
		}
		b = append(b, j...)
		if c, ok := t.event.(*api.CallEvent); ok {
			if l := call(c); l != nil {
				b = appendLine(b, l)
			}
		}
	}
	if t.dropped > 0 {
		b = append(b, `,"dropped":`...)
		b = strconv.AppendUint(b, t.dropped, 10)
	}
	if journal != "" {
		b = append(b, `,"journal":`...)
		b = appendString(b, journal)
	}
	if t.reset {
		b = append(b, `,"reset":true`...)
	}
	e.buf = append(b, '}', '\n')
}

func (e *encoder) event(b []byte, l *api.LogEvent) []byte {
	if e.time == nil || l.Time != e.when {
		e.when, e.time = l.Time, append(l.Time.AppendFormat(append(e.time[:0], '"'), time.RFC3339Nano), '"')
	}
	b = append(b, `{"type":"log","generation":`...)
	b = strconv.AppendUint(b, uint64(l.Generation), 10)
	b = append(b, `,"time":`...)
	b = append(b, e.time...)
	if l.Seq != 0 {
		b = append(b, `,"seq":`...)
		b = strconv.AppendUint(b, l.Seq, 10)
	}
	b = append(b, `,"stream":`...)
	b = appendString(b, l.Stream)
	b = append(b, `,"text":`...)
	b = appendString(b, l.Text)
	if l.Partial {
		b = append(b, `,"partial":true`...)
	}
	if l.Dropped > 0 {
		b = append(b, `,"dropped":`...)
		b = strconv.AppendUint(b, l.Dropped, 10)
	}
	if l.Process != "" {
		b = append(b, `,"process":`...)
		b = appendString(b, l.Process)
	}
	return append(b, '}')
}

// appendLine appends the member "line".
func appendLine(b []byte, l *api.Line) []byte {
	b = append(b, `,"line":{`...)
	start := len(b)
	member := func(name, value string) {
		if value == "" {
			return
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name...), `":`...)
		b = appendString(b, value)
	}
	member("level", l.Level)
	member("message", l.Message)
	if len(l.Attrs) > 0 {
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, `"attrs":[`...)
		for i, a := range l.Attrs {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(append(b, '['), a[0]), ',')
			b = append(appendString(b, a[1]), ']')
		}
		b = append(b, ']')
	}
	member("process", l.Process)
	if l.Refused != nil {
		j, err := json.Marshal(l.Refused)
		if err != nil { // strings only
			panic("encode call: " + err.Error())
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(append(b, `"refused":`...), j...)
	}
	return append(b, '}')
}

// appendString appends s as a JSON string, with U+FFFD for every byte that is not of a rune.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n != 1 {
				i += n
				continue
			}
		}
		b = append(b, s[start:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\t':
			b = append(b, '\\', 't')
		case c >= utf8.RuneSelf:
			b = append(b, "\ufffd"...)
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
