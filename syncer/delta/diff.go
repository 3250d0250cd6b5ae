package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Diff writes a patch that makes content out of x's content. Segments are written as they are ready, each in one Write, so
// that the far side applies the first ones while the last are still computed.
func Diff(ctx context.Context, w io.Writer, x *Index, content []byte) error {
	h := header{base: int64(len(x.old)), size: int64(len(content)), baseSum: x.sum, segment: segmentSize}
	if _, err := w.Write(h.append(nil)); err != nil {
		return fmt.Errorf("write patch: %w", err)
	}
	start := 0
	next := func() (int, error) {
		if start >= len(content) {
			return 0, io.EOF
		}
		start += segmentSize
		return start - segmentSize, nil
	}
	segment := func(e *encoder, start int) ([]byte, error) {
		return e.segment(x, content, start, min(start+segmentSize, len(content))), nil
	}
	emit := func(b []byte) error {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write patch: %w", err)
		}
		return nil
	}
	return pipeline(ctx, next, x.encoder, x.release, segment, emit)
}

// encoder makes segments, one at a time. It is kept for its memory.
type encoder struct {
	aligner
	model   model
	slot    [1 << 10]uint8 // by hash of a difference: the slot that it was last put into
	streams [streamCount][]byte
	zstd    *zstd.Encoder
}

func newEncoder() *encoder {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // the options above contradict each other
	}
	z.EncodeAll(make([]byte, 1024), nil) // its tables are made at the first use
	return &encoder{zstd: z}
}

func (e *encoder) segment(x *Index, next []byte, start, end int) []byte {
	e.run(x, next, start, end)
	e.encode()
	raw := 0
	for _, s := range e.streams {
		raw += len(s)
	}
	if raw > end-start+slack { // Apply insists; and this is how large it gets without the base
		e.ops, e.fields = append(e.ops[:0], op{n: end - start, literal: true}), e.fields[:0]
		e.encode()
	}
	b := make([]byte, segmentHeader, raw/2+1024)
	binary.LittleEndian.PutUint32(b[4:], checksum(next[start:end]))
	var packed [streamCount][]byte
	for i, s := range e.streams {
		packed[i] = s
		n := 0
		if len(s) >= minPacked {
			if p := e.zstd.EncodeAll(s, make([]byte, 0, len(s))); len(p) < len(s) {
				packed[i], n = p, len(p)
			}
		}
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = binary.AppendUvarint(b, uint64(n))
	}
	for _, p := range packed {
		b = append(b, p...)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-segmentHeader))
	return b
}

// minPacked: shorter streams do not get any shorter.
const minPacked = 32

// encode turns ops and fields into streams.
func (e *encoder) encode() {
	var s [streamCount][]byte
	for i := range s {
		s[i] = e.streams[i][:0]
	}
	m := &e.model
	*m = model{}
	last := uint8(symNew)
	pos, end, k, before := e.start, e.start, 0, 0
	for _, o := range e.ops {
		if o.literal {
			s[streamOps] = binary.AppendUvarint(s[streamOps], uint64(o.n)<<1|1)
			s[streamLits] = append(s[streamLits], e.next[pos:pos+o.n]...)
			pos += o.n
			continue
		}
		s[streamOps] = binary.AppendUvarint(s[streamOps], uint64(o.n)<<1)
		s[streamOps] = binary.AppendVarint(s[streamOps], int64(o.shift-before))
		before = o.shift
		pos += o.n
		for ; k < len(e.fields) && e.fields[k].pos < pos; k++ {
			f := e.fields[k]
			s[streamGaps] = binary.AppendUvarint(s[streamGaps], uint64(f.pos-end))
			end = f.pos + 4
			r, a := keys(int64(f.pos), load32(e.x.old, f.pos+o.shift))
			slot := &e.slot[f.diff*0x9E3779B1>>22]
			// What was right for the field before goes first where several are right: long runs of one symbol pack best.
			var sym uint8
			switch relative, absolute, kept := m.relative[r] == f.diff, m.absolute[a] == f.diff, m.slots[*slot] == f.diff; {
			case relative && last == symRelative, absolute && last == symAbsolute, kept && last == *slot+symSlot:
				sym = last
			case relative:
				sym = symRelative
			case absolute:
				sym = symAbsolute
			case kept:
				sym = *slot + symSlot
			default:
				sym = symNew
				s[streamDiffs] = binary.AppendVarint(s[streamDiffs], int64(int32(f.diff)))
				*slot = m.keep(f.diff)
			}
			m.relative[r], m.absolute[a] = f.diff, f.diff
			s[streamSyms] = append(s[streamSyms], sym)
			last = sym
		}
	}
	e.streams = s
}
