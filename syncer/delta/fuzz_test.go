package delta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// FuzzApply: whatever the patch, Apply ends, with ErrFormat or ErrBase or with as many bytes as the header says.
func FuzzApply(f *testing.F) {
	old := program(40, nil)
	for _, content := range [][]byte{nil, old, program(40, map[int]bool{20: true}), random(500, 1)} {
		f.Add(patchOf(f, old, content), false)
	}
	f.Fuzz(func(t *testing.T, patch []byte, seal bool) {
		if seal && len(patch) >= headerSize { // the mutator cannot guess checksums
			patch = bytes.Clone(patch)
			copy(patch, magic)
			binary.LittleEndian.PutUint32(patch[4:], version)
			binary.LittleEndian.PutUint64(patch[8:], uint64(len(old)))
			binary.LittleEndian.PutUint32(patch[32:], checksum(patch[:32]))
		}
		const most = 1 << 20
		var out bytes.Buffer
		switch err := Apply(t.Context(), &out, bytes.NewReader(patch), old, most); {
		case out.Len() > most:
			t.Fatalf("%d bytes", out.Len())
		case err == nil:
			if h, err := readHeader(bytes.NewReader(patch)); err != nil || h.size != int64(out.Len()) {
				t.Fatalf("%d bytes, header %+v %v", out.Len(), h, err)
			}
		case !errors.Is(err, ErrFormat) && !errors.Is(err, ErrBase):
			t.Fatal(err)
		}
	})
}

// FuzzOpen goes below the checksums, straight to the streams.
func FuzzOpen(f *testing.F) {
	old := program(40, nil)
	e := newEncoder()
	x := NewIndex(old)
	for _, content := range [][]byte{old, program(40, map[int]bool{20: true}), random(500, 1)} {
		e.run(x, content, 0, len(content))
		e.encode()
		f.Add(len(content), e.streams[streamOps], e.streams[streamGaps], e.streams[streamSyms], e.streams[streamDiffs], e.streams[streamLits])
	}
	d := newDecoder()
	f.Fuzz(func(t *testing.T, size int, ops, gaps, syms, diffs, lits []byte) {
		if size < 0 || size > 1<<16 {
			return
		}
		var payload []byte
		streams := [streamCount][]byte{ops, gaps, syms, diffs, lits}
		for _, s := range streams {
			payload = binary.AppendUvarint(payload, uint64(len(s)))
			payload = binary.AppendUvarint(payload, 0)
		}
		for _, s := range streams {
			payload = append(payload, s...)
		}
		_ = d.open(make([]byte, size), sealed{size: size, payload: payload}, old)
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte(nil), []byte(nil))
	f.Add([]byte("abc"), []byte("abd"))
	f.Add(program(20, nil), program(20, map[int]bool{10: true}))
	f.Add(program(20, map[int]bool{3: true}), program(20, nil))
	f.Add(make([]byte, 1000), random(1000, 1))
	f.Fuzz(func(t *testing.T, old, content []byte) {
		check(t, old, content)
		check(t, content, old)
		check(t, append(old, content...), append(content, old...))
	})
}

func check(t *testing.T, old, content []byte) {
	t.Helper()
	patch := patchOf(t, old, content)
	if most := len(content) + headerSize + segmentHeader + slack + streamCount*6; len(patch) > most {
		t.Fatalf("the patch has %d bytes for %d", len(patch), len(content))
	}
	var out bytes.Buffer
	if err := Apply(t.Context(), &out, bytes.NewReader(patch), old, int64(len(content))); err != nil || !bytes.Equal(out.Bytes(), content) {
		t.Fatalf("apply: %v", err)
	}
}

func FuzzDecompress(f *testing.F) {
	var packed bytes.Buffer
	if err := Compress(f.Context(), &packed, bytes.NewReader(program(20, nil))); err != nil {
		f.Fatal(err)
	}
	f.Add(packed.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := Decompress(t.Context(), io.Discard, bytes.NewReader(b), 1<<20); err != nil && !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
	})
}
