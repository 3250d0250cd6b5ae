package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Apply reads a patch and writes the new content, of at most maxSize bytes. It reads to the end of the patch and not
// beyond. Whatever the patch is, Apply does not read outside old, and needs no more than 3 MB for each of up to four cores
// and 6 MB on top; half of it for what Diff makes. Errors are ErrFormat, ErrBase, the writer's, the reader's or the
// context's; some of the content may have been written by then. A context's end is seen between two reads: close the patch
// to end a read.
//
// Each segment has a checksum; whether the whole is what was meant is for the caller to verify.
func Apply(ctx context.Context, w io.Writer, patch io.Reader, old []byte, maxSize int64) error {
	h, err := readHeader(patch)
	if err != nil {
		return err
	}
	if h.base != int64(len(old)) {
		return fmt.Errorf("%w: of %d bytes, have %d", ErrBase, h.base, len(old))
	}
	if h.size > maxSize {
		return fmt.Errorf("%w: makes %d bytes, at most %d allowed", ErrFormat, h.size, maxSize)
	}
	var buffers sync.Pool
	pos := int64(0)
	next := func() (sealed, error) {
		if pos >= h.size {
			return sealed{}, io.EOF
		}
		s := sealed{start: pos, size: int(min(int64(h.segment), h.size-pos))}
		pos += int64(s.size)
		return s, s.read(patch)
	}
	open := func(d *decoder, s sealed) (*[]byte, error) {
		b, _ := buffers.Get().(*[]byte)
		if b == nil || cap(*b) < s.size {
			b = new([]byte)
			*b = make([]byte, s.size)
		}
		*b = (*b)[:s.size]
		if err := d.open(*b, s, old); err != nil {
			// The base's own sum is only worth its time when something is wrong.
			if checksum(old) != h.baseSum {
				return nil, fmt.Errorf("%w: same length, other bytes", ErrBase)
			}
			return nil, fmt.Errorf("%w: segment at %d: %v", ErrFormat, s.start, err)
		}
		return b, nil
	}
	emit := func(b *[]byte) error {
		defer buffers.Put(b)
		if _, err := w.Write(*b); err != nil {
			return fmt.Errorf("write content: %w", err)
		}
		return nil
	}
	return pipeline(ctx, next, newDecoder, (*decoder).close, open, emit)
}

// sealed is one segment as it came.
type sealed struct {
	start   int64
	size    int // of its new content
	sum     uint32
	payload []byte
}

// maxPayload bounds a payload by the content that it makes: streams that do not pack travel as they are.
func maxPayload(size int) int { return size + slack + streamCount*2*binary.MaxVarintLen64 }

func (s *sealed) read(r io.Reader) error {
	var b [segmentHeader]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return readError(err)
	}
	n := binary.LittleEndian.Uint32(b[:])
	s.sum = binary.LittleEndian.Uint32(b[4:])
	if int64(n) > int64(maxPayload(s.size)) {
		return fmt.Errorf("%w: segment at %d: %d bytes for %d", ErrFormat, s.start, n, s.size)
	}
	s.payload = make([]byte, n)
	if _, err := io.ReadFull(r, s.payload); err != nil {
		return readError(err)
	}
	return nil
}

// decoder opens segments, one at a time.
type decoder struct {
	model   model
	streams [streamCount][]byte
	buffers [streamCount][]byte
	zstd    *zstd.Decoder
}

func newDecoder() *decoder {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(2*maxSegmentSize))
	if err != nil {
		panic(err) // the options above contradict each other
	}
	return &decoder{zstd: z}
}

func (d *decoder) close() { d.zstd.Close() }

type malformed string

func (m malformed) Error() string { return string(m) }

// open makes out, the segment's new content.
func (d *decoder) open(out []byte, s sealed, old []byte) error {
	if err := d.unpack(s); err != nil {
		return err
	}
	if err := d.copy(out, s.start, old); err != nil {
		return err
	}
	if err := d.correct(out, s.start); err != nil {
		return err
	}
	if checksum(out) != s.sum {
		return malformed("checksum")
	}
	return nil
}

// unpack splits the payload into streams.
func (d *decoder) unpack(s sealed) error {
	b := s.payload
	var raw, packed [streamCount]int
	room := s.size + slack
	for i := range streamCount {
		for _, p := range [2]*int{&raw[i], &packed[i]} {
			v, n := binary.Uvarint(b)
			if n <= 0 || v > uint64(room) {
				return malformed("stream length")
			}
			*p, b = int(v), b[n:]
		}
		room -= raw[i] // all together are not longer than the content
	}
	for i := range streamCount {
		n := packed[i]
		if n == 0 {
			n = raw[i]
		}
		if n > len(b) {
			return malformed("stream is cut short")
		}
		d.streams[i] = b[:n]
		b = b[n:]
		if packed[i] == 0 {
			continue
		}
		if cap(d.buffers[i]) < raw[i] {
			d.buffers[i] = make([]byte, 0, raw[i])
		}
		u, err := d.zstd.DecodeAll(d.streams[i], d.buffers[i][:0:raw[i]])
		if err != nil {
			return err
		}
		if len(u) != raw[i] {
			return malformed("stream length")
		}
		d.streams[i] = u
	}
	if len(b) > 0 {
		return malformed("bytes after the streams")
	}
	return nil
}

// copy fills out from old and from literals.
func (d *decoder) copy(out []byte, start int64, old []byte) error {
	ops, lits := d.streams[streamOps], d.streams[streamLits]
	pos, shift := 0, int64(0)
	for len(ops) > 0 {
		v, n := binary.Uvarint(ops)
		if n <= 0 || v>>1 > uint64(len(out)-pos) {
			return malformed("op")
		}
		ops = ops[n:]
		size := int(v >> 1)
		to := out[pos : pos+size]
		if v&1 != 0 {
			if size > len(lits) {
				return malformed("too few literals")
			}
			copy(to, lits)
			lits = lits[size:]
		} else {
			more, n := binary.Varint(ops)
			if n <= 0 {
				return malformed("op")
			}
			ops = ops[n:]
			shift += more // may wrap around; what counts is where it leads
			from := start + int64(pos) + shift
			if from < 0 || from > int64(len(old)-size) {
				return malformed("copy from outside the base")
			}
			copy(to, old[from:])
		}
		pos += size
	}
	if pos != len(out) || len(lits) > 0 {
		return malformed("ops do not fit the content")
	}
	return nil
}

// correct adds the fields' differences.
func (d *decoder) correct(out []byte, start int64) error {
	gaps, diffs := d.streams[streamGaps], d.streams[streamDiffs]
	m := &d.model
	*m = model{}
	pos := 0
	for _, sym := range d.streams[streamSyms] {
		if len(gaps) == 0 {
			return malformed("too few gaps")
		}
		gap, n := uint64(gaps[0]), 1
		if gap >= 0x80 {
			if gap, n = binary.Uvarint(gaps); n <= 0 {
				return malformed("gap")
			}
		}
		gaps = gaps[n:]
		if gap > uint64(len(out)-pos) || len(out)-pos-int(gap) < 4 {
			return malformed("field outside the segment")
		}
		pos += int(gap)
		field := out[pos : pos+4]
		v := binary.LittleEndian.Uint32(field)
		r, a := keys(start+int64(pos), v)
		var diff uint32
		switch sym {
		case symRelative:
			diff = m.relative[r]
		case symAbsolute:
			diff = m.absolute[a]
		case symNew:
			u, n := binary.Varint(diffs)
			if n <= 0 {
				return malformed("difference")
			}
			diffs = diffs[n:]
			diff = uint32(u)
			m.keep(diff)
		default:
			diff = m.slots[sym-symSlot]
		}
		m.relative[r], m.absolute[a] = diff, diff
		binary.LittleEndian.PutUint32(field, v+diff)
		pos += 4
	}
	if len(gaps) > 0 || len(diffs) > 0 {
		return malformed("bytes after the last field")
	}
	return nil
}
