package reviewer

import (
	"math"
	"path"
	"slices"
	"strings"
)

// evidence is what speaks for one person: sums of what decays, and when they were last seen.
type evidence struct {
	weights                  // the sums; score makes points of them, each source's own, from which the reason is made
	last, lastOfAuthor int64 // when they did anything, reviewed this author; 0 is never
	points             float64
}

// decay is what is left of one after a number of days.
type decay []float64

func halving(days float64) decay {
	d := make(decay, 12*int(days)) // then it is 1/4096
	for i := range d {
		d[i] = math.Exp2(-float64(i) / days)
	}
	return d
}

func (d decay) at(days int) float64 {
	if days >= len(d) {
		return 0
	}
	return d[days]
}

func (r *ranking) days(t int64) int { return int(max(0, r.now-t) / 86400) }

// near tells for each path of the history how near it is to the edited files: 1 is one of them, half that its folder, a
// quarter the one above, and less where few lines of a file are edited. exact has the edited files' paths, the older names
// included, and which file it is.
func (r *ranking) near() (near []float64, exact map[int32]int32) {
	x := r.history.index
	older := map[int32][]int32{}
	for _, m := range x.moves {
		if int(m.commit) < r.history.prefix {
			older[m.to] = append(older[m.to], m.from)
		}
	}
	weight := func(f File) float64 { return 1 + math.Log1p(float64(max(f.Lines, 0))) }
	most := 1.0
	for _, f := range r.change.Files {
		most = max(most, weight(f))
	}
	near, exact = make([]float64, len(x.paths)), map[int32]int32{}
	folders := map[string]float64{}
	above := func(name string, share float64) {
		for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
			if share /= 2; share <= folders[dir] {
				return // and those above it as well
			}
			folders[dir] = share
		}
	}
	for n, f := range r.change.Files {
		share := weight(f) / most
		above(f.Path, share) // a new file has a folder too
		i, ok := slices.BinarySearch(x.paths, f.Path)
		if !ok {
			continue
		}
		for names := []int32{int32(i)}; len(names) > 0; names = names[1:] {
			if _, known := exact[names[0]]; known {
				continue // of another edited file, or moved to and fro
			}
			exact[names[0]], near[names[0]] = int32(n), share
			above(x.paths[names[0]], share)
			names = append(names, older[names[0]]...)
		}
	}
	for i, p := range x.paths {
		if near[i] > 0 {
			continue
		}
		for slash := strings.LastIndexByte(p, '/'); slash > 0; slash = strings.LastIndexByte(p[:slash], '/') {
			if share, ok := folders[p[:slash]]; ok {
				near[i] = share
				break
			}
		}
	}
	return near, exact
}

// collect goes through the history once.
func (r *ranking) collect() {
	h := r.history
	near, exact := r.near()
	twoYears, halfYear, sixWeeks := halving(720), halving(180), halving(45)
	for n := range h.index.commits[:h.prefix] {
		c := &h.index.commits[n]
		days := r.days(c.time)
		same, beside := 0.0, 0.0 // the best of its files
		for _, f := range c.files {
			if near[f] == 0 {
				continue
			}
			beside = max(beside, near[f])
			if file, is := exact[f]; is {
				same = max(same, near[f])
				r.exact = append(r.exact, touch{int32(n), file})
			}
		}
		if len(c.files) > broad {
			beside *= broad / float64(len(c.files))
		}
		ofAuthor := len(c.authors) > 0 && r.author != none && h.who[c.authors[0]] == r.author
		for _, a := range c.authors {
			e := &r.evidence[h.who[a]]
			e.last = max(e.last, c.time)
			if !c.merge { // its branch's commits count themselves
				e.wrote += same * twoYears.at(days)
				e.wroteBeside += beside * twoYears.at(days)
			}
		}
		reviewed := func(p int32, much float64) {
			e := &r.evidence[p]
			e.last = max(e.last, c.time)
			e.reviewed += much * same * halfYear.at(days)
			e.reviewedBeside += much * beside * sixWeeks.at(days)
			e.busy += much * sixWeeks.at(days)
			if ofAuthor {
				e.familiar += much * halfYear.at(days)
				e.lastOfAuthor = max(e.lastOfAuthor, c.time)
			}
		}
		for _, p := range c.reviewed {
			if !h.wrote(c, h.who[p]) {
				reviewed(h.who[p], 1)
			}
		}
		if c.landed != none && len(c.reviewed) == 0 && !h.wrote(c, h.who[c.landed]) {
			reviewed(h.who[c.landed], byLanding)
		}
	}
	for _, l := range r.change.Lines {
		if p := h.find("<" + l.Email + ">"); p != none {
			r.evidence[p].lines += float64(l.Lines)
		}
	}
}

// wrote is whether a person is among a commit's authors, under any of their names.
func (h *History) wrote(c *commit, person int32) bool {
	for _, a := range c.authors {
		if h.who[a] == person {
			return true
		}
	}
	return false
}

// candidate is whether a person can be suggested by what they did.
func (r *ranking) candidate(p int32) bool {
	e := &r.evidence[p]
	return e.last > 0 && r.now-e.last <= int64(former.Seconds()) && !r.history.people[p].bot && !r.authors[p]
}

// score makes points of the sums. Shares are of what candidates have: what the author wrote alone speaks for nobody.
func (r *ranking) score(w weights) {
	var all weights
	for p := range r.evidence {
		if e := &r.evidence[p]; r.candidate(int32(p)) {
			all.add(e.weights)
		}
	}
	lately := halving(20)
	for p := range r.evidence {
		e := &r.evidence[p]
		points := e.weights.shares(all)
		points.active, points.lately, points.open = lately.at(r.days(e.last)), 0, math.Log2(1+float64(r.waiting(int32(p))))
		if e.lastOfAuthor > 0 {
			points.lately = lately.at(r.days(e.lastOfAuthor))
		}
		e.weights = points.times(w)
		e.points = e.weights.sum()
	}
}

func (w *weights) add(o weights) {
	w.wrote, w.reviewed, w.wroteBeside, w.reviewedBeside = w.wrote+o.wrote, w.reviewed+o.reviewed, w.wroteBeside+o.wroteBeside, w.reviewedBeside+o.reviewedBeside
	w.familiar, w.busy, w.lines = w.familiar+o.familiar, w.busy+o.busy, w.lines+o.lines
}

func (w weights) shares(of weights) weights {
	share := func(part, whole float64) float64 {
		if whole <= 0 {
			return 0
		}
		return part / whole
	}
	return weights{wrote: share(w.wrote, of.wrote), reviewed: share(w.reviewed, of.reviewed), wroteBeside: share(w.wroteBeside, of.wroteBeside),
		reviewedBeside: share(w.reviewedBeside, of.reviewedBeside), familiar: share(w.familiar, of.familiar), busy: share(w.busy, of.busy), lines: share(w.lines, of.lines)}
}

func (w weights) times(o weights) weights {
	return weights{w.wrote * o.wrote, w.reviewed * o.reviewed, w.wroteBeside * o.wroteBeside, w.reviewedBeside * o.reviewedBeside,
		w.familiar * o.familiar, w.lately * o.lately, w.active * o.active, w.busy * o.busy, w.lines * o.lines, w.open * o.open}
}

func (w weights) sum() float64 {
	return w.wrote + w.reviewed + w.wroteBeside + w.reviewedBeside + w.familiar + w.lately + w.active + w.busy + w.lines + w.open
}
