package delta

import (
	"bytes"
	"math/bits"
)

// op covers n bytes of the new content: a copy of old at the same position plus shift, or literally.
type op struct {
	n       int
	shift   int
	literal bool
}

// field is a 32-bit word inside a copy that differs from old.
type field struct {
	pos  int // in the new content
	diff uint32
}

// Costs in bits, as they come out after zstd, to weigh one alignment against another.
const (
	costField   = 7  // a field whose difference was met before
	costUnknown = 24 // what a difference costs the first time, on top
	costAnyway  = 1 << 30

	nowhere = 1 << 30 // a shift out of all content, on 32-bit machines too
)

const (
	// blockSize is how much is looked at before it is decided whether the alignment still holds.
	blockSize = 256
	// A block that costs more than this is worth a search for a better alignment.
	searchCost, searchUnknown = 120, 2
	// A block that costs more than this share of its own bits travels literally.
	literalShare = 0.6
	// The first shift of a segment is the best of so many that anchors suggest, in so many bytes.
	firstTries, firstSpan = 16, 64 << 10
	// goodCost ends a search early.
	goodCost = 200
	// bearable is the most that a block may cost at a place that an anchor suggests.
	bearable = 900
	// Where there is no anchor, as in tables where every word changes, the shifts of the last ops are tried: where the
	// present one is wrong, one of them may have been right.
	recent = 16
	// Then those around the last one that lasted: all up to nearFine bytes away, and every fourth up to near bytes away
	// plus as many as have been passed since, for what was put in there, but not more than far.
	nearFine, near, far = 64, 1024, 4 << 10
	// So many in a segment: enough to find every shift in what is alike, and 3 ms where nothing is.
	maxTries = 32 << 10
	// maxRest bounds how many lost blocks in a row go without such a search after it failed again and again.
	maxRest = 63
	// After eagerBlocks lost blocks in a row only the first probes bytes of a block are looked up: what is new is often
	// long, and what follows it is found a block later and extended backwards.
	eagerBlocks, probes = 8, 24
	// So many good blocks in a row end a time of failures: searches near by are free again.
	settled = 8
)

// aligner finds for one segment which parts of old its parts come from, and which words in them differ.
type aligner struct {
	x          *Index
	next       []byte // the whole new content
	start, end int

	ops    []op
	fields []field
	known  diffSet

	lost           int // blocks in a row that were searched for in vain
	failures, rest int // searches near by in a row without a quiet stretch between; blocks to go without one
	good           int // blocks in a row that needed no search
	tries          int // near by, that are left
	home, left     int // the last shift that lasted, and up to where
}

// run fills ops and fields.
//
// It walks the segment in blocks under one shift for as long as what differs is cheap to say: words whose difference
// was met before. It is a change of alignment that makes unknown differences; then an anchor or a shift near by is tried.
func (a *aligner) run(x *Index, next []byte, start, end int) {
	a.x, a.next, a.start, a.end = x, next, start, end
	a.ops, a.fields = a.ops[:0], a.fields[:0]
	a.known.clear()
	a.lost, a.good, a.failures, a.rest = 0, 0, 0, 0

	shift, similar := a.firstShift()
	a.home, a.left, a.tries = shift, start, maxTries
	for i := start; i < end; {
		j := min(i+blockSize, end)
		inside := a.inside(i, j, shift)
		if inside && bytes.Equal(next[i:j], x.old[i+shift:j+shift]) {
			a.copy(j-i, shift)
			i = j
			a.holds(i, shift)
			continue
		}
		before, stop := len(a.fields), i
		cost, unknown, first := costAnyway, searchUnknown, i
		if inside {
			stop, unknown, first = a.scan(i, j, shift)
			cost = (len(a.fields)-before)*costField + unknown*costUnknown
		}
		if cost > searchCost && unknown >= searchUnknown && similar {
			if at, sure, better, ok := a.search(max(i, first-anchor), j, shift); ok {
				a.fields = a.fields[:before]
				cut := a.cut(a.giveBack(i), at, shift, better)
				if cut >= i {
					a.piece(i, cut, shift)
				} else {
					a.takeBack(i - cut)
				}
				shift = better
				i = cut
				if sure = min(sure, end); sure > i { // so that every turn gets on
					a.piece(i, sure, shift)
					i = sure
				}
				a.lost = 0
				continue
			}
			a.lost++
		} else {
			a.lost = 0
			a.holds(j, shift)
		}
		switch {
		case !inside || float64(cost) > literalShare*8*float64(j-i), constant(next[i:j]):
			a.fields = a.fields[:before]
			a.literal(j - i)
			i = j
		case stop < j || stop > end:
			a.fields = a.fields[:before]
			a.piece(i, j, shift)
			i = j
		default:
			if unknown > 0 {
				a.learn(before)
			}
			a.copy(stop-i, shift)
			i = stop // up to three bytes into the next block
		}
	}
}

// holds notes that up to i the shift needed no search.
func (a *aligner) holds(i, shift int) {
	if a.good++; a.good >= settled {
		a.home, a.left = shift, i
		a.failures, a.rest = 0, 0
	}
}

func (a *aligner) inside(i, j, shift int) bool { return i+shift >= 0 && j+shift <= len(a.x.old) }

func (a *aligner) copy(n, shift int) {
	if n == 0 {
		return
	}
	if l := len(a.ops) - 1; l >= 0 && !a.ops[l].literal && a.ops[l].shift == shift {
		a.ops[l].n += n
		return
	}
	a.ops = append(a.ops, op{n: n, shift: shift})
}

func (a *aligner) literal(n int) {
	if n == 0 {
		return
	}
	if l := len(a.ops) - 1; l >= 0 && a.ops[l].literal {
		a.ops[l].n += n
		return
	}
	a.ops = append(a.ops, op{n: n, literal: true})
}

func (a *aligner) learn(from int) {
	for _, f := range a.fields[from:] {
		if !a.known.has(f.diff) {
			a.known.add(f.diff)
		}
	}
}

// scan appends the fields of next[i:j] under a shift. stop is j, or up to three bytes more where the last field ends
// behind it, or less where there is no room for a field.
func (a *aligner) scan(i, j, shift int) (stop, unknown, first int) {
	old, next := a.x.old, a.next
	var seen [8]uint32
	floor := i
	first = i
	for i < j {
		if i+8 <= j {
			x := load64(next, i) ^ load64(old, i+shift)
			if x == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(x) >> 3
		} else if next[i] == old[i+shift] {
			i++
			continue
		}
		if i+4 > len(next) || i+shift+4 > len(old) {
			return i, unknown, first
		}
		diff := load32(next, i) - load32(old, i+shift)
		if !a.known.has(diff) {
			// In a table of words, a difference that is a multiple of 256 begins at the word and not here.
			if w := i &^ 3; w < i && w >= floor {
				if d := load32(next, w) - load32(old, w+shift); a.known.has(d) {
					a.fields = append(a.fields, field{w, d})
					i = w + 4
					floor = i
					continue
				}
			}
			if !contains(&seen, diff) {
				if unknown == 0 {
					first = i
				}
				seen[unknown%len(seen)] = diff
				unknown++
			}
		}
		a.fields = append(a.fields, field{i, diff})
		i += 4
		floor = i
	}
	return i, unknown, first
}

// piece commits to next[i:j] under a shift. A field never reaches beyond j.
func (a *aligner) piece(i, j, shift int) {
	if i >= j {
		return
	}
	if !a.inside(i, j, shift) {
		a.literal(j - i)
		return
	}
	before := len(a.fields)
	stop, _, _ := a.scan(i, j, shift)
	if stop > j {
		last := len(a.fields) - 1
		at, floor := a.fields[last].pos, i
		a.fields = a.fields[:last]
		if last > before {
			floor = a.fields[last-1].pos + 4
		}
		if w := j - 4; w >= floor && w <= at {
			a.fields = append(a.fields, field{w, load32(a.next, w) - load32(a.x.old, w+shift)})
			stop = j
		} else {
			stop = at
		}
	}
	a.learn(before)
	a.copy(stop-i, shift)
	a.literal(j - stop)
}

// margin is how far behind a range cost reads: up to seven bytes to a difference, and a word there.
const margin = 12

// cost estimates next[i:j] under a shift in bits; it gives up above limit.
func (a *aligner) cost(i, j, shift, limit int) (cost int) {
	old, next := a.x.old, a.next
	if i+shift < 0 || j+shift+margin > len(old) || j+margin > len(next) {
		return costAnyway
	}
	var seen [8]uint32
	n := 0
	for i < j {
		x := load64(next, i) ^ load64(old, i+shift)
		if x == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(x) >> 3
		cost += costField
		if diff := load32(next, i) - load32(old, i+shift); !contains(&seen, diff) && !a.known.has(diff) {
			if w := i &^ 3; w < i && w+shift >= 0 && a.known.has(load32(next, w)-load32(old, w+shift)) {
				i = w
			} else {
				seen[n%len(seen)] = diff
				n++
				cost += costUnknown
			}
		}
		if cost > limit {
			return cost
		}
		i += 4
	}
	return cost
}

// firstShift looks for an anchor at the start of the segment, and ever further around it. Where there is none within
// 1.2 MB, nothing more is searched for: in what has nothing in common with old, that would take longer than all the rest.
func (a *aligner) firstShift() (shift int, ok bool) {
	best, tried, seen := costAnyway, 0, 0
	for k := 0; k < 200 && tried < firstTries; k++ {
		for _, p := range [2]int{a.start + k*k*32, a.start - k*k*32} {
			if p < 0 || p+anchor > len(a.next) {
				continue
			}
			_, s, found := a.anchors(p, p+64, nowhere)
			if !found {
				continue
			}
			if ok && s == shift {
				if seen++; seen == 2 {
					return shift, true
				}
				continue
			}
			ok = true
			tried++
			// What recurs, recurs by chance too: the shift must fit elsewhere as well.
			cost, points := 0, 0
			for q := 0; q < firstSpan && a.start+q+blockSize < a.end; q += firstSpan / 16 {
				cost += min(a.cost(a.start+q, a.start+q+blockSize, s, 8*blockSize), 8*blockSize)
				points++
			}
			if cost < best {
				best, shift, seen = cost, s, 0
			}
			if cost <= points*goodCost {
				return shift, true
			}
		}
	}
	return shift, ok
}

// search looks for a shift that is better than the present one from somewhere in next[i:j] on, and surely up to sure.
func (a *aligner) search(i, j, shift int) (at, sure, better int, ok bool) {
	a.good = 0
	probed := j
	if a.lost >= eagerBlocks {
		probed = min(i+probes, j)
	}
	if at, better, ok = a.anchors(i, probed, shift); ok {
		return at, at + anchor, better, true
	}
	end := min(i+blockSize, len(a.next)-margin)
	taste := min(i+blockSize/4, end)
	best := min(a.cost(i, end, shift, costAnyway), 8*blockSize*3/4) * 3 / 4
	try := func(s int) {
		if a.cost(i, taste, s, best/2) > best/2 {
			return
		}
		if c := a.cost(i, end, s, best); c < best {
			best, better, ok = c, s, true
		}
	}
	for k := len(a.ops) - 1; k >= 0 && k >= len(a.ops)-recent; k-- {
		if o := a.ops[k]; !o.literal && o.shift != shift {
			try(o.shift)
		}
	}
	if ok {
		return i, end, better, true
	}
	if a.rest > 0 {
		a.rest--
		return 0, 0, 0, false
	}
	reach := min(near+i-a.left, far)
	for k := 0; k <= reach && i < end && a.tries > 0; k++ {
		a.tries--
		if k > nearFine {
			k += 3
		}
		try(a.home + k)
		try(a.home - k)
	}
	a.failures++
	a.rest = min(1<<min(a.failures, 16)-2, maxRest)
	return i, end, better, ok
}

// giveBack returns how far back the literal bytes just before i reach.
func (a *aligner) giveBack(i int) int {
	if l := len(a.ops) - 1; l >= 0 && a.ops[l].literal {
		return i - a.ops[l].n
	}
	return i
}

// takeBack shortens the literal op that is the last.
func (a *aligner) takeBack(n int) {
	l := len(a.ops) - 1
	if a.ops[l].n -= n; a.ops[l].n == 0 {
		a.ops = a.ops[:l]
	}
}

// anchors looks for pieces of old that begin in next[i:j].
func (a *aligner) anchors(i, j, shift int) (at, better int, ok bool) {
	best, end := bearable, 0
	for ; i < j && i+anchor <= len(a.next); i++ {
		p, found := a.x.find(a.next[i:])
		if !found || p-i == shift {
			continue
		}
		end = min(i+blockSize, len(a.next)-margin)
		c := a.cost(i, end, p-i, best)
		if c >= best || c*2 >= a.cost(i, end, shift, 2*c) {
			continue
		}
		at, better, best, ok = i, p-i, c, true
		if c < goodCost {
			break
		}
	}
	return at, better, ok
}

// cut returns where in next[i:at] to change from one shift to another, so that most bytes are equal.
func (a *aligner) cut(i, at, shift, better int) int {
	old, next := a.x.old, a.next
	cut, gain, most := at, 0, 0
	for k := at - 1; k >= i && k+better >= 0 && k+better < len(old); k-- {
		if next[k] == old[k+better] {
			gain++
		}
		if p := k + shift; p >= 0 && p < len(old) && next[k] == old[p] {
			gain--
		}
		if gain > most {
			most, cut = gain, k
		}
	}
	return cut
}

// constant tells whether b is one word again and again: it packs to nothing, where a copy of something else would not.
func constant(b []byte) bool { return len(b) > 8 && bytes.Equal(b[8:], b[:len(b)-8]) }

func contains(s *[8]uint32, v uint32) bool {
	return s[0] == v || s[1] == v || s[2] == v || s[3] == v || s[4] == v || s[5] == v || s[6] == v || s[7] == v
}

// diffSet holds the differences that were met more than once: under a wrong shift, most are met only once. 0 is never one.
type diffSet struct {
	table [1 << 12]uint64 // a difference, and again where it was met more than once; 0 is a free slot
	n     int
}

const again = 1 << 32

func (s *diffSet) clear() { *s = diffSet{} }

func (s *diffSet) has(d uint32) bool {
	for k := d * 0x9E3779B1 >> 20; ; k = (k + 1) & (1<<12 - 1) {
		if v := s.table[k]; uint32(v) == d || v == 0 {
			return v >= again
		}
	}
}

func (s *diffSet) add(d uint32) {
	if s.n > len(s.table)*5/8 {
		s.clear()
	}
	k := d * 0x9E3779B1 >> 20
	for s.table[k] != 0 && uint32(s.table[k]) != d {
		k = (k + 1) & (1<<12 - 1)
	}
	if s.table[k] == 0 {
		s.table[k] = uint64(d)
		s.n++
		return
	}
	s.table[k] |= again
}
