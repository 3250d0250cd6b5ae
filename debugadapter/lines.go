package debugadapter

import "strings"

const (
	// Beyond so many edits the trace of the search takes tens of megabytes. Such a file is another file: lines that are
	// unique in both still find each other.
	maxEdits = 1000
	// A hunk is aligned line by line up to so many comparisons.
	maxHunk = 20_000
	// Two lines are one line edited when so much of them is the same. `x := 1` and `x := 2` have 0.83.
	alike = 0.6
)

// mapLines tells for each line of a where it is in b (both from 0), or -1. It is strictly increasing over what is mapped.
// A line that was edited in place, or indented anew, is where its edited form is. With loose, so is one that was replaced
// by something else, if the lines around it say which.
func mapLines(a, b []string, loose bool) []int {
	to := make([]int, len(a))
	for i := range to {
		to[i] = -1
	}
	lo := 0
	for lo < len(a) && lo < len(b) && a[lo] == b[lo] {
		to[lo] = lo
		lo++
	}
	ha, hb := len(a), len(b)
	for ha > lo && hb > lo && a[ha-1] == b[hb-1] {
		ha--
		hb--
		to[ha] = hb
	}
	if lo == ha || lo == hb { // lines were only added, or only removed
		return to
	}
	for _, p := range common(a[lo:ha], b[lo:hb]) {
		to[lo+p[0]] = lo + p[1]
	}
	// Between two lines that are the same, what is left of a was edited into what is left of b.
	prev := lo
	for i := lo; i <= ha; {
		if i < ha && to[i] < 0 {
			i++
			continue
		}
		start := i
		for start > lo && to[start-1] < 0 {
			start--
		}
		end := hb
		if i < ha {
			end = to[i]
		}
		hunk(a[start:i], b[prev:end], to[start:i], prev, loose)
		if i < ha {
			prev = to[i] + 1
		}
		i++
	}
	return to
}

// common are the pairs of a longest common subsequence (Myers' greedy search), or of a good one where that is too far.
func common(a, b []string) [][2]int {
	n, m := len(a), len(b)
	limit := min(n+m, maxEdits)
	v := make([]int32, 2*limit+3)
	at := func(k int) *int32 { return &v[k+limit+1] }
	var trace [][]int32
	for d := 0; d <= limit; d++ {
		// What the step back from d needs: the ends of d-1 edits.
		trace = append(trace, append([]int32(nil), v[limit+1-d:limit+2+d]...))
		for k := -d; k <= d; k += 2 {
			var x int
			if k == -d || k != d && *at(k - 1) < *at(k + 1) {
				x = int(*at(k + 1))
			} else {
				x = int(*at(k - 1)) + 1
			}
			y := x - k
			for x < n && y < m && y >= 0 && a[x] == b[y] {
				x++
				y++
			}
			*at(k) = int32(x)
			if x >= n && y >= m {
				return back(trace, a, b, d)
			}
		}
	}
	return unique(a, b)
}

// back walks the trace from the end.
func back(trace [][]int32, a, b []string, d int) [][2]int {
	x, y := len(a), len(b)
	var pairs [][2]int
	for ; d > 0; d-- {
		v := trace[d] // the ends before step d, diagonals -d..d
		at := func(k int) int { return int(v[k+d]) }
		k := x - y
		var pk int
		if k == -d || k != d && at(k-1) < at(k+1) {
			pk = k + 1
		} else {
			pk = k - 1
		}
		px := at(pk)
		py := px - pk
		for x > px && y > py && x > 0 && y > 0 && a[x-1] == b[y-1] {
			if x == px+boolInt(pk < k) && y == py+boolInt(pk > k) {
				break // the edit itself comes next
			}
			x--
			y--
			pairs = append(pairs, [2]int{x, y})
		}
		x, y = px, py
	}
	for x > 0 && y > 0 {
		x--
		y--
		pairs = append(pairs, [2]int{x, y})
	}
	for i, j := 0, len(pairs)-1; i < j; i, j = i+1, j-1 {
		pairs[i], pairs[j] = pairs[j], pairs[i]
	}
	return pairs
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// unique pairs the lines that are there once in both, as far as they are in the same order.
func unique(a, b []string) [][2]int {
	type seen struct{ na, nb, ia, ib int }
	lines := map[string]*seen{}
	for i, l := range a {
		s := lines[l]
		if s == nil {
			s = &seen{}
			lines[l] = s
		}
		s.na++
		s.ia = i
	}
	for i, l := range b {
		if s := lines[l]; s != nil {
			s.nb++
			s.ib = i
		}
	}
	// The longest increasing run of positions in b, in the order of a.
	type link struct{ pair, prev int }
	var pairs [][2]int
	var links []link
	var tails []int // per length less one: the link with the smallest end
	for i, l := range a {
		s := lines[l]
		if s.na != 1 || s.nb != 1 {
			continue
		}
		pairs = append(pairs, [2]int{i, s.ib})
		lo, hi := 0, len(tails)
		for lo < hi {
			mid := (lo + hi) / 2
			if pairs[links[tails[mid]].pair][1] < s.ib {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		prev := -1
		if lo > 0 {
			prev = tails[lo-1]
		}
		links = append(links, link{len(pairs) - 1, prev})
		if lo == len(tails) {
			tails = append(tails, len(links)-1)
		} else {
			tails[lo] = len(links) - 1
		}
	}
	if len(tails) == 0 {
		return nil
	}
	out := make([][2]int, len(tails))
	for i, l := len(tails)-1, tails[len(tails)-1]; i >= 0; i, l = i-1, links[l].prev {
		out[i] = pairs[links[l].pair]
	}
	return out
}

// hunk aligns lines that were edited. to gets positions in b, which begins at line base.
func hunk(a, b []string, to []int, base int, loose bool) {
	if len(a) == 0 || len(b) == 0 {
		return
	}
	if len(a)*len(b) <= maxHunk {
		align(a, b, to, base)
	}
	if !loose {
		return
	}
	for i, prev := 0, base; i < len(a); {
		if to[i] >= 0 {
			prev = to[i] + 1
			i++
			continue
		}
		end := i
		for end < len(a) && to[end] < 0 {
			end++
		}
		next := base + len(b)
		if end < len(a) {
			next = to[end]
		}
		if next-prev == end-i { // as many as before: each is where it was
			for ; i < end; i++ {
				to[i] = prev
				prev++
			}
		}
		i = end
	}
}

// align finds the pairs of lines in order that are alike, with the greatest likeness together.
func align(a, b []string, to []int, base int) {
	w := len(b) + 1
	best := make([]float64, (len(a)+1)*w)
	sim := make([]float64, len(a)*len(b))
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			s := likeness(a[i], b[j])
			sim[i*len(b)+j] = s
			v := max(best[(i+1)*w+j], best[i*w+j+1])
			if s >= alike {
				v = max(v, s+best[(i+1)*w+j+1])
			}
			best[i*w+j] = v
		}
	}
	for i, j := 0, 0; i < len(a) && j < len(b); {
		s := sim[i*len(b)+j]
		switch v := best[i*w+j]; {
		case s >= alike && v == s+best[(i+1)*w+j+1]:
			to[i] = base + j
			i++
			j++
		case v == best[(i+1)*w+j]:
			i++
		default:
			j++
		}
	}
}

// likeness is the share of two lines that begins or ends the same, without indentation.
func likeness(a, b string) float64 {
	a, b = strings.TrimSpace(a), strings.TrimSpace(b)
	if a == b {
		return 1
	}
	n := min(len(a), len(b))
	p := 0
	for p < n && a[p] == b[p] {
		p++
	}
	s := 0
	for s < n-p && a[len(a)-1-s] == b[len(b)-1-s] {
		s++
	}
	return 2 * float64(p+s) / float64(len(a)+len(b))
}
