package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

var (
	// ErrFormat is returned for a patch that is damaged, cut short or larger than allowed.
	ErrFormat = errors.New("damaged patch")
	// ErrBase is returned for a patch that was made against other content.
	ErrBase = errors.New("patch is against other content")
)

// A patch is a header and one segment for each segmentSize bytes of the new content, all numbers little-endian:
//
//	header:  magic [4]byte, version uint32, base length uint64, new length uint64, base CRC-32C uint32, segment size uint32,
//	         CRC-32C of the header so far uint32
//	segment: payload length uint32, CRC-32C of the new content uint32, payload
//	payload: for each stream: raw length uvarint, packed length uvarint (0: not packed); then the streams' bytes
//
// The streams of a segment, each packed with zstd by itself:
//
//	ops     uvarint n<<1|literal; unless literal, a varint: shift minus the shift of the copy before
//	gaps    uvarint: bytes between the end of one field and the start of the next
//	syms    one byte a field: where its difference is found (see model)
//	diffs   varint: differences that are found nowhere
//	lits    bytes of literal ops
//
// A copy takes n bytes of old at the new position plus shift; literals fill the rest; then the fields, 32-bit words at any
// byte, have their differences added.
const (
	magic         = "fldl"
	version       = 1
	headerSize    = 36
	segmentHeader = 8

	// segmentSize balances: smaller starts the pod earlier and spreads better over cores, larger learns more before it
	// has to forget.
	segmentSize = 1 << 20
	// maxSegmentSize bounds what a patch can make Apply allocate.
	maxSegmentSize = segmentSize
	// slack is how much longer than its content a segment's streams may be together: one literal op and its length.
	slack = 64
)

const (
	streamOps = iota
	streamGaps
	streamSyms
	streamDiffs
	streamLits
	streamCount
)

type header struct {
	base, size int64
	baseSum    uint32
	segment    int
}

func (h header) append(b []byte) []byte {
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.base))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.size))
	b = binary.LittleEndian.AppendUint32(b, h.baseSum)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.segment))
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

func readHeader(r io.Reader) (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, readError(err)
	}
	h := header{
		base:    int64(binary.LittleEndian.Uint64(b[8:])),
		size:    int64(binary.LittleEndian.Uint64(b[16:])),
		baseSum: binary.LittleEndian.Uint32(b[24:]),
		segment: int(binary.LittleEndian.Uint32(b[28:])),
	}
	switch {
	case string(b[:4]) != magic:
		return header{}, fmt.Errorf("%w: not a patch", ErrFormat)
	case binary.LittleEndian.Uint32(b[4:]) != version:
		return header{}, fmt.Errorf("%w: version %d, want %d", ErrFormat, binary.LittleEndian.Uint32(b[4:]), version)
	case binary.LittleEndian.Uint32(b[32:]) != checksum(b[:32]), h.base < 0 || h.size < 0 ||
		h.segment <= 0 || h.segment > maxSegmentSize:
		return header{}, fmt.Errorf("%w: header", ErrFormat)
	}
	return h, nil
}

// readError tells a patch that was cut short from a reader that failed.
func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut short", ErrFormat)
	}
	return fmt.Errorf("read patch: %w", err)
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) }
func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }
