package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Frame is a run of a pod's events, packed: at 100,000 lines a second, JSON would cost the pod and the agent more than all
// else. Its zero value is ready for use.
//
// A frame is a byte of version (1), the number of its log lines (4 bytes, little-endian), and records one after the other,
// each begun by a byte of flags:
//
//	0x80            an event other than a line: uvarint length, then it in JSON
//	else, a line:   if 0x01 it is of stderr, if 0x02 it is partial, and then, each only if its flag is set,
//	0x04            uvarint: its sequence number less that of the line before, less one (of 0 for the first)
//	0x08            uvarint: its generation; without it that of the line before
//	0x10            varint: its time in nanoseconds, less that of the line before (of 1970 for the first)
//	0x20            uvarint: its Dropped
//	                and always uvarint length and the text's bytes as they were written, valid UTF-8 or not
type Frame struct {
	buf  []byte
	n    uint32
	seq  uint64
	gen  Generation
	time int64
}

const (
	frameVersion = 1
	frameHeader  = 5

	flagStderr  = 0x01
	flagPartial = 0x02
	flagGap     = 0x04
	flagGen     = 0x08
	flagTime    = 0x10
	flagDropped = 0x20
	flagEvent   = 0x80
	flagsLine   = flagStderr | flagPartial | flagGap | flagGen | flagTime | flagDropped
)

// Reset empties the frame; its memory is used again.
func (f *Frame) Reset() { *f = Frame{buf: f.buf[:0]} }

// Len is the frame's size in bytes; 0 if nothing is in it.
func (f *Frame) Len() int { return len(f.buf) }

// Lines is how many log lines are in it.
func (f *Frame) Lines() int { return int(f.n) }

// Bytes is the frame, valid until Reset.
func (f *Frame) Bytes() []byte {
	if len(f.buf) > 0 {
		binary.LittleEndian.PutUint32(f.buf[1:], f.n)
	}
	return f.buf
}

func (f *Frame) begin() {
	if len(f.buf) == 0 {
		f.buf = append(f.buf, frameVersion, 0, 0, 0, 0)
	}
}

// AddEvent adds an event that is no line, as it is in JSON.
func (f *Frame) AddEvent(b []byte) {
	f.begin()
	f.buf = binary.AppendUvarint(append(f.buf, flagEvent), uint64(len(b)))
	f.buf = append(f.buf, b...)
}

// AddLine adds a log line.
func (f *Frame) AddLine(seq uint64, gen Generation, at time.Time, stderr, partial bool, dropped uint64, text []byte) {
	f.begin()
	i := len(f.buf)
	f.buf = append(f.buf, 0)
	var flags byte
	if stderr {
		flags |= flagStderr
	}
	if partial {
		flags |= flagPartial
	}
	if seq != f.seq+1 {
		flags |= flagGap
		f.buf = binary.AppendUvarint(f.buf, seq-f.seq-1)
	}
	if gen != f.gen {
		flags |= flagGen
		f.buf = binary.AppendUvarint(f.buf, uint64(gen))
	}
	if t := at.UnixNano(); t != f.time {
		flags |= flagTime
		f.buf = binary.AppendVarint(f.buf, t-f.time)
		f.time = t
	}
	if dropped > 0 {
		flags |= flagDropped
		f.buf = binary.AppendUvarint(f.buf, dropped)
	}
	f.seq, f.gen, f.n = seq, gen, f.n+1
	f.buf[i] = flags
	f.buf = binary.AppendUvarint(f.buf, uint64(len(text)))
	f.buf = append(f.buf, text...)
}

// slab is how many lines are allocated at once: a number in a damaged frame allocates no more than this beyond its bytes.
const slab = 512

var errFrame = errors.New("parse frame: it is damaged")

// DecodeFrame hands the events of a frame to emit, in order, until emit fails. Events of an unknown type are left out. The
// texts of a frame's lines share memory with each other, not with b.
func DecodeFrame(b []byte, emit func(Event) error) error {
	if len(b) < frameHeader {
		return errFrame
	}
	if b[0] != frameVersion {
		return fmt.Errorf("parse frame: unknown version %d", b[0])
	}
	s, n := string(b), uint64(binary.LittleEndian.Uint32(b[1:]))
	if n > uint64(len(b)-frameHeader)/2 { // a line takes two bytes at least
		return errFrame
	}
	var (
		lines []LogEvent // room for some, allocated at once
		seq   uint64
		gen   Generation
		at    int64
		when  time.Time
		i     = frameHeader
	)
	bad := false
	uvarint := func() uint64 {
		v, w := binary.Uvarint(b[i:])
		if w <= 0 {
			bad = true
			return 0
		}
		i += w
		return v
	}
	bytes := func() string {
		n := uvarint()
		if bad || n > uint64(len(b)-i) {
			bad = true
			return ""
		}
		i += int(n)
		return s[i-int(n) : i]
	}
	for i < len(b) {
		flags := b[i]
		i++
		if flags == flagEvent {
			text := bytes()
			if bad {
				return errFrame
			}
			e, err := DecodeEvent(b[i-len(text) : i])
			if err != nil {
				continue // a newer pod's kind of event
			}
			if err := emit(e); err != nil {
				return err
			}
			continue
		}
		if flags&^flagsLine != 0 || n == 0 {
			return errFrame
		}
		if len(lines) == 0 {
			lines = make([]LogEvent, min(n, slab))
		}
		e := &lines[0]
		lines, n = lines[1:], n-1
		e.Type, e.Stream, e.Partial = KindLog, "stdout", flags&flagPartial != 0
		if flags&flagStderr != 0 {
			e.Stream = "stderr"
		}
		seq++
		if flags&flagGap != 0 {
			seq += uvarint()
		}
		if flags&flagGen != 0 {
			gen = Generation(uvarint())
		}
		if flags&flagTime != 0 {
			v, w := binary.Varint(b[i:])
			if w <= 0 {
				return errFrame
			}
			i += w
			at += v
			when = time.Unix(0, at).UTC()
		}
		if flags&flagDropped != 0 {
			e.Dropped = uvarint()
		}
		e.Seq, e.Generation, e.Time = seq, gen, when
		e.Text = bytes()
		if bad {
			return errFrame
		}
		if !utf8.ValidString(e.Text) {
			e.Text = string([]rune(e.Text)) // U+FFFD for every byte that is none of a rune, as JSON has it
		}
		if err := emit(e); err != nil {
			return err
		}
	}
	if n != 0 {
		return errFrame
	}
	return nil
}
