package delta

import (
	"bytes"
	"math"
	"runtime"
	"sync"
)

const (
	// anchor is the length of the pieces of old that Index can find again. Code that was moved has a changed address in
	// it every 30 bytes or so.
	anchor = 24
	// anchorStep is the distance of the pieces. At 8, patches are 3 % smaller than at 16.
	anchorStep = 8
)

// Index is what Diff needs to know of the old content: the content itself, a table of half its size (up to all of it where
// the size is just above a power of two: 16 MB for 16 to 33 MB), and some 2 MB for each core. It is meant to be made while
// nobody waits: it takes as long as two to five Diffs. It is safe for concurrent use.
type Index struct {
	old   []byte
	sum   uint32
	table []uint32 // by the top bits of hash: a position in old plus 1
	shift int

	mu   sync.Mutex
	free []*encoder
}

// NewIndex indexes old, which must not change any more.
func NewIndex(old []byte) *Index {
	bits := 8
	for len(old)/anchorStep > 1<<bits {
		bits++
	}
	x := &Index{old: old, sum: checksum(old), table: make([]uint32, 1<<bits), shift: 64 - bits}
	for i := 0; i+anchor <= len(old) && uint64(i) < math.MaxUint32; i += anchorStep {
		a, b, c := load64(old, i), load64(old, i+8), load64(old, i+16)
		if a == b && b == c {
			continue // padding: it is everywhere, and says nothing of where it is
		}
		x.table[hash(a, b, c)>>x.shift] = uint32(i + 1)
	}
	for range workers() {
		x.free = append(x.free, newEncoder())
	}
	return x
}

// Old returns the content that was indexed.
func (x *Index) Old() []byte { return x.old }

// find returns where b's first anchor bytes are in old.
func (x *Index) find(b []byte) (at int, ok bool) {
	at = int(x.table[hash(load64(b, 0), load64(b, 8), load64(b, 16))>>x.shift]) - 1
	return at, at >= 0 && bytes.Equal(x.old[at:at+anchor], b[:anchor])
}

func hash(a, b, c uint64) uint64 {
	h := (a ^ b*0x9E3779B97F4A7C15 ^ c*0xC2B2AE3D27D4EB4F) * 0xFF51AFD7ED558CCD
	return h ^ h>>29
}

func (x *Index) encoder() *encoder {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := len(x.free)
	if n == 0 {
		return newEncoder()
	}
	e := x.free[n-1]
	x.free = x.free[:n-1]
	return e
}

func (x *Index) release(e *encoder) {
	e.next = nil
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.free) < workers() {
		x.free = append(x.free, e)
	}
}

// workers is how many segments are worked on at once: more than four do not help, as memory is the limit then.
func workers() int { return min(runtime.GOMAXPROCS(0), 4) }
