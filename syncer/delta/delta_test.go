package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// program makes something like a linked program: functions of random code that call and load each other by addresses
// relative to themselves, tables of offsets, a table in which every word moves when a function is added, and strings.
// Functions in skip are left out, which moves all that follows.
func program(functions int, skip map[int]bool) []byte {
	const textStart = 4096
	type function struct {
		at, size int
		r        *rand.Rand
	}
	var all []function
	where := map[int]int{}
	at := textStart
	for i := range functions {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		size := 64 + r.IntN(24)*16
		if !skip[i] {
			where[i] = at
			all = append(all, function{at, size, r})
			at += size
		}
	}
	b := make([]byte, textStart, at+functions*24)
	for _, f := range all {
		for i := 0; i < f.size; i += 16 {
			var line [16]byte
			binary.LittleEndian.PutUint64(line[:], f.r.Uint64()&f.r.Uint64())
			binary.LittleEndian.PutUint64(line[8:], f.r.Uint64()&f.r.Uint64())
			if callee := f.r.IntN(functions); f.r.IntN(2) == 0 && !skip[callee] {
				line[4] = 0xE8
				binary.LittleEndian.PutUint32(line[5:], uint32(where[callee]-(f.at+i+9)))
			}
			b = append(b, line[:]...)
		}
	}
	for _, f := range all {
		b = binary.LittleEndian.AppendUint32(b, uint32(f.at-textStart))
		b = binary.LittleEndian.AppendUint32(b, uint32(at+len(b)))
	}
	for i := range all {
		b = append(b, "example.com/module/package.function"...)
		b = append(b, byte(i), byte(i>>8))
	}
	return b
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func patchOf(t testing.TB, old, content []byte) []byte {
	t.Helper()
	var patch bytes.Buffer
	if err := Diff(t.Context(), &patch, NewIndex(old), content); err != nil {
		t.Fatalf("diff: %v", err)
	}
	return patch.Bytes()
}

func TestRoundTrip(t *testing.T) {
	prog := program(9000, nil)
	if len(prog) < 2*segmentSize {
		t.Fatalf("the program has %d bytes: too few for several segments", len(prog))
	}
	noise := random(3*segmentSize/2, 1)
	text := bytes.Repeat([]byte("a line that comes again and again\n"), 50_000)
	sparse := bytes.Clone(prog)
	for i := 0; i < len(sparse); i += 40 {
		sparse[i]++
	}
	cases := []struct {
		name     string
		old, new []byte
		most     float64 // of the new content, in percent; 0: whatever is needed without the base
	}{
		{"both empty", nil, nil, 0},
		{"old empty", nil, prog, 0},
		{"new empty", prog, nil, 0},
		{"identical", prog, prog, 0.01},
		{"one byte", []byte{1}, []byte{1}, 0},
		{"one other byte", []byte{1}, []byte{2}, 0},
		{"three bytes", []byte("abc"), []byte("abd"), 0},
		{"tiny to large", []byte("abc"), prog, 0},
		{"large to tiny", prog, []byte("abc"), 0},
		{"one byte changed", prog, append(append(bytes.Clone(prog[:777_777]), prog[777_777]+1), prog[777_778:]...), 0.05},
		{"one byte more in front", noise, append([]byte{7}, noise...), 0.1},
		{"one byte less in front", noise, noise[1:], 0.1},
		{"one byte more at the end", noise, append(bytes.Clone(noise), 7), 0.1},
		{"one byte less at the end", noise, noise[:len(noise)-1], 0.1},
		{"halves exchanged", noise, append(bytes.Clone(noise[len(noise)/2:]), noise[:len(noise)/2]...), 0.1},
		{"every 40th byte", prog, sparse, 8},
		{"function added", program(9000, map[int]bool{4500: true}), prog, 1.2},
		{"functions removed", prog, program(9000, map[int]bool{100: true, 4500: true, 8999: true}), 2},
		{"other content", noise, prog, 0},
		{"from random to random", noise, random(len(noise)+5, 2), 0},
		{"to zeros", prog, make([]byte, len(prog)), 0.1},
		{"from zeros", make([]byte, len(prog)), prog, 0},
		{"zeros to fewer", make([]byte, 3*segmentSize+3), make([]byte, segmentSize+1), 0.1},
		{"words in a repeated text", text, bytes.ReplaceAll(text, []byte("again and"), []byte("again, and")), 0.5},
		{"exactly one segment", noise, noise[:segmentSize], 0.01},
		{"one segment and a byte", noise, noise[:segmentSize+1], 0.01},
		{"one segment and four bytes that change", noise, append(bytes.Clone(noise[:segmentSize]), 1, 2, 3, 4), 0.01},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			patch := patchOf(t, c.old, c.new)
			var out bytes.Buffer
			// One byte at a time, and more behind the patch that is not Apply's.
			in := io.MultiReader(bytes.NewReader(patch), strings.NewReader("next"))
			if err := Apply(t.Context(), &out, iotest.HalfReader(in), c.old, int64(len(c.new))); err != nil {
				t.Fatalf("apply: %v", err)
			}
			if !bytes.Equal(out.Bytes(), c.new) {
				t.Fatal("the content differs")
			}
			if rest, _ := io.ReadAll(in); string(rest) != "next" {
				t.Errorf("apply left %q of what follows the patch", rest)
			}
			most := int(c.most * float64(len(c.new)) / 100)
			if c.most == 0 {
				var whole bytes.Buffer
				if err := Compress(t.Context(), &whole, bytes.NewReader(c.new)); err != nil {
					t.Fatal(err)
				}
				most = whole.Len()*103/100 + 200
			}
			if len(patch) > most {
				t.Errorf("the patch has %d bytes, at most %d expected", len(patch), most)
			}
		})
	}
}

// TestSharedIndex: one index serves several diffs at once, and the patch does not depend on how many cores there are.
func TestSharedIndex(t *testing.T) {
	old, content := program(9000, map[int]bool{50: true}), program(9000, map[int]bool{8000: true})
	x := NewIndex(old)
	want := patchOf(t, old, content)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var patch bytes.Buffer
			if err := Diff(t.Context(), &patch, x, content); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(patch.Bytes(), want) {
				t.Error("the same diff made another patch")
			}
		})
	}
	wg.Wait()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if !bytes.Equal(patchOf(t, old, content), want) {
		t.Error("one core makes another patch")
	}
}

func TestApplyRefuses(t *testing.T) {
	old, content := program(3000, nil), program(3000, map[int]bool{1500: true})
	patch := patchOf(t, old, content)
	huge := bytes.Clone(patch)
	binary.LittleEndian.PutUint64(huge[16:], 1<<62)
	binary.LittleEndian.PutUint32(huge[32:], checksum(huge[:32]))
	other := bytes.Clone(old)
	for i := range other {
		other[i] ^= 0x55
	}
	failure := errors.New("the connection is gone")
	for _, c := range []struct {
		name  string
		patch io.Reader
		old   []byte
		max   int64
		want  error
	}{
		{"empty patch", strings.NewReader(""), old, 1 << 30, ErrFormat},
		{"something else", strings.NewReader(strings.Repeat("something else", 100)), old, 1 << 30, ErrFormat},
		{"too large for the caller", bytes.NewReader(patch), old, int64(len(content)) - 1, ErrFormat},
		{"too large for anybody", bytes.NewReader(huge), old, 1<<63 - 1, ErrFormat},
		{"base of another length", bytes.NewReader(patch), old[1:], 1 << 30, ErrBase},
		{"base of the same length", bytes.NewReader(patch), other, 1 << 30, ErrBase},
		{"reader fails", io.MultiReader(bytes.NewReader(patch[:len(patch)/2]), iotest.ErrReader(failure)), old, 1 << 30, failure},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := Apply(t.Context(), io.Discard, c.patch, c.old, c.max); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestDamage flips bits and cuts: Apply fails, or the content is right all the same.
func TestDamage(t *testing.T) {
	old, content := program(1200, nil), program(1200, map[int]bool{600: true})
	patch := patchOf(t, old, content)
	apply := func(p []byte) ([]byte, error) {
		var out bytes.Buffer
		err := Apply(t.Context(), &out, bytes.NewReader(p), old, int64(len(content)))
		return out.Bytes(), err
	}
	step := 1 + len(patch)/2000
	for i := 0; i < len(patch); i += step {
		if _, err := apply(patch[:i]); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut to %d of %d bytes: %v", i, len(patch), err)
		}
	}
	unnoticed := 0
	for i := 0; i < len(patch); i += step {
		damaged := bytes.Clone(patch)
		damaged[i] ^= 1 << (i % 8)
		got, err := apply(damaged)
		switch {
		case err == nil && !bytes.Equal(got, content):
			t.Fatalf("a bit in byte %d of %d made other content, and no error", i, len(patch))
		case err == nil:
			unnoticed++
		case !errors.Is(err, ErrFormat) && !errors.Is(err, ErrBase):
			t.Fatalf("a bit in byte %d of %d: %v", i, len(patch), err)
		}
	}
	t.Logf("%d bits did not matter", unnoticed)
}

// TestApplyMemory: what a patch says of its size does not decide how much memory it costs.
func TestApplyMemory(t *testing.T) {
	old := program(3000, nil)
	h := header{base: int64(len(old)), size: 1 << 40, baseSum: checksum(old), segment: maxSegmentSize}
	patch := h.append(nil)
	for range 50 { // segments that claim all that may be claimed, and then are wrong
		patch = binary.LittleEndian.AppendUint32(patch, 40)
		patch = binary.LittleEndian.AppendUint32(patch, 0)
		b := binary.AppendUvarint(nil, maxSegmentSize)
		b = binary.AppendUvarint(b, 20)
		patch = append(append(patch, b...), make([]byte, 40-len(b))...)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := Apply(t.Context(), io.Discard, bytes.NewReader(patch), old, 1<<50); !errors.Is(err, ErrFormat) {
		t.Fatalf("got %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
		t.Errorf("allocated %d MB", n>>20)
	}
}

func TestIndexMemory(t *testing.T) {
	old := random(8<<20, 3)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x := NewIndex(old)
	if err := Diff(t.Context(), io.Discard, x, old[1:]); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	all := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	if most := int64(len(old)) + int64(workers()*4<<20); all > most {
		t.Errorf("the index of %d bytes takes %d, at most %d expected", len(old), all, most)
	}
	t.Logf("%d bytes, of which %d are the table", all, 4*len(x.table))
	runtime.KeepAlive(x)
}

func TestCanceled(t *testing.T) {
	old, content := program(9000, nil), program(9000, map[int]bool{4500: true})
	reason := errors.New("a newer edit")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	if err := Diff(ctx, io.Discard, NewIndex(old), content); !errors.Is(err, reason) {
		t.Errorf("diff: %v", err)
	}
	if err := Apply(ctx, io.Discard, bytes.NewReader(patchOf(t, old, content)), old, 1<<30); !errors.Is(err, reason) {
		t.Errorf("apply: %v", err)
	}
	if err := Compress(ctx, io.Discard, bytes.NewReader(content)); !errors.Is(err, reason) {
		t.Errorf("compress: %v", err)
	}
}

type failingWriter struct {
	left int
	err  error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, w.err
	}
	return len(p), nil
}

func TestWriterFails(t *testing.T) {
	old, content := program(9000, nil), program(9000, map[int]bool{4500: true})
	patch := patchOf(t, old, content)
	full := errors.New("no space left")
	for _, n := range []int{0, 100, len(patch) / 2} {
		if err := Diff(t.Context(), &failingWriter{n, full}, NewIndex(old), content); !errors.Is(err, full) {
			t.Errorf("diff, after %d bytes: %v", n, err)
		}
		if err := Apply(t.Context(), &failingWriter{n, full}, bytes.NewReader(patch), old, 1<<30); !errors.Is(err, full) {
			t.Errorf("apply, after %d bytes: %v", n, err)
		}
	}
}

func TestWhole(t *testing.T) {
	failure := errors.New("the disk is gone")
	for _, content := range [][]byte{nil, []byte("x"), random(wholeChunk, 1), program(9000, nil), make([]byte, 5*wholeChunk/2)} {
		var packed, out bytes.Buffer
		if err := Compress(t.Context(), &packed, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		p := packed.Bytes()
		if err := Decompress(t.Context(), &out, bytes.NewReader(p), int64(len(content))); err != nil || !bytes.Equal(out.Bytes(), content) {
			t.Fatalf("%d bytes: %v, %d bytes came back", len(content), err, out.Len())
		}
		if len(content) == 0 {
			continue
		}
		if err := Decompress(t.Context(), io.Discard, bytes.NewReader(p), int64(len(content)-1)); !errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes where one less is allowed: %v", len(content), err)
		}
		if err := Decompress(t.Context(), io.Discard, bytes.NewReader(p[:len(p)-1]), 1<<30); !errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes, cut short: %v", len(content), err)
		}
		cut := io.MultiReader(bytes.NewReader(p[:len(p)-1]), iotest.ErrReader(failure))
		if err := Decompress(t.Context(), io.Discard, cut, 1<<30); !errors.Is(err, failure) {
			t.Errorf("%d bytes, reader fails: %v", len(content), err)
		}
	}
	if err := Decompress(t.Context(), io.Discard, strings.NewReader("something else"), 1<<30); !errors.Is(err, ErrFormat) {
		t.Errorf("something else: %v", err)
	}
	if err := Compress(t.Context(), io.Discard, iotest.ErrReader(failure)); !errors.Is(err, failure) {
		t.Errorf("compress, reader fails: %v", err)
	}
}
