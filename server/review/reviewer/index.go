package reviewer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
)

// index is a history as it is kept in a file. It is the same whatever it was put together from: its tables are sorted, its
// commits stand in the order of their corrected dates.
type index struct {
	tip     string // the newest commit, its whole hash
	shallow string // what the clone lacks: the file of that name in the repository, or ""
	people  []identity
	paths   []string
	commits []commit
	moves   []moved
}

// commit is a record with numbers for people (in people) and files (in paths).
type commit struct {
	id id
	// order is git's corrected commit date: the commit's own or one more than its parents', so that no clock that was wrong puts a
	// commit before what it stands on.
	order, time int64
	// authors wrote it. Of a request's merge it is who wrote the last commit of the branch.
	authors  []int32
	reviewed []int32 // by trailers
	landed   int32   // who committed or merged it, or none
	merge    bool    // of a request: its branch's commits are there themselves
	files    []int32 // sorted
}

// moved is a file's move in the commit of that number.
type moved struct{ commit, from, to int32 }

const none = -1

// onStack is the order of a commit that waits for its parents'.
const onStack = -1

// extend puts records into an index, or into a new one (nil). Of the records' parents it must have all that there are.
func extend(old *index, records []record, tip, shallow string) *index {
	x := &index{tip: tip, shallow: shallow}
	people, paths := map[identity]int32{}, map[string]int32{}
	if old != nil {
		x.people, x.paths = slices.Clone(old.people), slices.Clone(old.paths)
		for i, p := range x.people {
			people[p] = int32(i)
		}
		for i, p := range x.paths {
			paths[p] = int32(i)
		}
	}
	who := func(i identity) int32 {
		n, ok := people[i]
		if !ok {
			n = int32(len(x.people))
			people[i] = n
			x.people = append(x.people, i)
		}
		return n
	}
	file := func(p string) int32 {
		n, ok := paths[p]
		if !ok {
			n = int32(len(x.paths))
			paths[p] = n
			x.paths = append(x.paths, p)
		}
		return n
	}

	known := 0
	if old != nil {
		known = len(old.commits)
	}
	type entry struct {
		commit
		moves []moved // their commit is not set
	}
	all := make([]entry, known, known+len(records))
	at := make(map[id]int32, known+len(records))
	for i := range all {
		all[i].commit = old.commits[i]
		at[all[i].id] = int32(i)
	}
	if old != nil {
		for _, m := range old.moves {
			all[m.commit].moves = append(all[m.commit].moves, m)
		}
	}
	parents := make([][]id, 0, len(records))
	for _, r := range records {
		if _, twice := at[r.hash]; twice {
			continue
		}
		e := entry{commit: commit{id: r.hash, time: r.time, merge: r.merge, landed: none}}
		if r.merge {
			e.landed = who(r.authors[0]) // the committer is the forge
		} else {
			for _, a := range r.authors {
				e.authors = appendNew(e.authors, who(a))
			}
			if l := who(r.landed); !slices.Contains(e.authors, l) {
				e.landed = l
			}
		}
		for _, p := range r.reviewed {
			e.reviewed = appendNew(e.reviewed, who(p))
		}
		for _, f := range r.files {
			e.files = append(e.files, file(f))
		}
		for _, m := range r.moved {
			e.moves = append(e.moves, moved{from: file(m.from), to: file(m.to)})
		}
		at[r.hash] = int32(len(all))
		all = append(all, e)
		parents = append(parents, r.parents)
	}
	// A commit's order needs its parents': the ones that have none yet wait on a stack.
	for start := known; start < len(all); start++ {
		for stack := []int32{int32(start)}; len(stack) > 0; {
			e := &all[stack[len(stack)-1]]
			order, waits := e.time, false
			if e.order <= 0 {
				e.order = onStack
				for _, p := range parents[int(stack[len(stack)-1])-known] {
					n, ok := at[p]
					switch {
					case !ok, all[n].order == onStack: // behind the end of a shallow clone; its own ancestor, which git has not
					case all[n].order == 0:
						stack, waits = append(stack, n), true
					default:
						order = max(order, all[n].order+1)
					}
				}
				if waits {
					continue
				}
				e.order = max(order, 1)
			}
			stack = stack[:len(stack)-1]
		}
	}
	// Whose a merged branch was: that of a branch that ends in a merge is known once that one's is.
	var merges []int
	for i := known; i < len(all); i++ {
		if all[i].merge {
			merges = append(merges, i)
		}
	}
	slices.SortFunc(merges, func(a, b int) int { return cmp.Compare(all[a].order, all[b].order) })
	for _, i := range merges {
		if n, ok := at[parents[i-known][1]]; ok {
			all[i].authors = all[n].authors
		}
	}

	slices.SortFunc(all, func(a, b entry) int { return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.id, b.id)) })
	newPerson := sortTable(x.people, func(a, b identity) int { return cmp.Or(cmp.Compare(a.email, b.email), cmp.Compare(a.name, b.name)) })
	newPath := sortTable(x.paths, cmp.Compare[string])
	x.commits = make([]commit, len(all))
	for i, e := range all {
		e.authors, e.reviewed, e.files = renumber(e.authors, newPerson), renumber(e.reviewed, newPerson), renumber(e.files, newPath)
		slices.Sort(e.files)
		if e.landed != none {
			e.landed = newPerson[e.landed]
		}
		x.commits[i] = e.commit
		for _, m := range e.moves {
			x.moves = append(x.moves, moved{int32(i), newPath[m.from], newPath[m.to]})
		}
	}
	slices.SortFunc(x.moves, func(a, b moved) int {
		return cmp.Or(cmp.Compare(a.commit, b.commit), cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	return x
}

func appendNew(to []int32, n int32) []int32 {
	if slices.Contains(to, n) {
		return to
	}
	return append(to, n)
}

// sortTable sorts a table and returns where each of its entries went.
func sortTable[T any](table []T, compare func(a, b T) int) []int32 {
	by := make([]int32, len(table))
	for i := range by {
		by[i] = int32(i)
	}
	was := slices.Clone(table)
	slices.SortFunc(by, func(a, b int32) int { return compare(was[a], was[b]) })
	now := make([]int32, len(table))
	for i, o := range by {
		table[i], now[o] = was[o], int32(i)
	}
	return now
}

func renumber(of, now []int32) []int32 {
	out := make([]int32, len(of))
	for i, n := range of {
		out[i] = now[n]
	}
	return out
}

// The file: magic with the format's version, tables and commits in varints, CRC-32C of all before it. A file of another
// version is one that cannot be read, and is made anew.
const magic = "fairlead reviewers 1\n"

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errDamaged = errors.New("the index is damaged, or of another version")
)

func (x *index) encode() []byte {
	b := []byte(magic)
	uint := func(n uint64) { b = binary.AppendUvarint(b, n) }
	text := func(s string) { uint(uint64(len(s))); b = append(b, s...) }
	list := func(of []int32) {
		uint(uint64(len(of)))
		last := int32(0)
		for _, n := range of {
			b = binary.AppendVarint(b, int64(n-last))
			last = n
		}
	}
	text(x.tip)
	text(x.shallow)
	uint(uint64(len(x.people)))
	for _, p := range x.people {
		text(p.name)
		text(p.email)
	}
	uint(uint64(len(x.paths)))
	last := ""
	for _, p := range x.paths { // each by what it shares with the one before
		same := 0
		for same < min(len(p), len(last)) && p[same] == last[same] {
			same++
		}
		uint(uint64(same))
		text(p[same:])
		last = p
	}
	uint(uint64(len(x.commits)))
	order := int64(0)
	for _, c := range x.commits {
		b = binary.BigEndian.AppendUint64(b, uint64(c.id))
		uint(uint64(c.order - order))
		order = c.order
		uint(uint64(c.order - c.time))
		flags := uint64(c.landed+1) << 1
		if c.merge {
			flags |= 1
		}
		uint(flags)
		list(c.authors)
		list(c.reviewed)
		list(c.files)
	}
	uint(uint64(len(x.moves)))
	for _, m := range x.moves {
		uint(uint64(m.commit))
		uint(uint64(m.from))
		uint(uint64(m.to))
	}
	return seal(b)
}

func seal(body []byte) []byte {
	return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
}

// decode reads what encode wrote. Everything in it is checked, since a file can be cut short, and be another program's.
func decode(data []byte) (*index, error) {
	if len(data) < len(magic)+4 || string(data[:len(magic)]) != magic {
		return nil, errDamaged
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, errDamaged
	}
	d := decoder{rest: body[len(magic):]}
	x := &index{tip: d.text(), shallow: d.text()}
	x.people = make([]identity, d.count(2))
	for i := range x.people {
		x.people[i] = identity{d.text(), d.text()}
	}
	x.paths = make([]string, d.count(2))
	last := ""
	for i := range x.paths {
		same := d.below(len(last) + 1)
		x.paths[i] = last[:same] + d.text()
		last = x.paths[i]
	}
	x.commits = make([]commit, d.count(14))
	order := int64(0)
	for i := range x.commits {
		c := &x.commits[i]
		c.id = d.id()
		order += int64(d.below(1 << 40))
		c.order = order
		c.time = order - int64(d.below(1<<40))
		flags := d.below((len(x.people) + 1) << 1)
		c.landed, c.merge = int32(flags>>1)-1, flags&1 == 1
		c.authors = d.list(len(x.people))
		c.reviewed = d.list(len(x.people))
		c.files = d.list(len(x.paths))
	}
	x.moves = make([]moved, d.count(3))
	for i := range x.moves {
		x.moves[i] = moved{int32(d.below(len(x.commits))), int32(d.below(len(x.paths))), int32(d.below(len(x.paths)))}
	}
	if d.bad || len(d.rest) > 0 {
		return nil, errDamaged
	}
	return x, nil
}

// decoder reads numbers within bounds. After one that is not, all are 0.
type decoder struct {
	rest  []byte
	bad   bool
	store []int32 // lists are parts of it: a slice of its own for each would be most of the time
}

func (d *decoder) fail() int { d.bad, d.rest = true, nil; return 0 }

func (d *decoder) below(limit int) int {
	n, used := binary.Uvarint(d.rest)
	if used <= 0 || n >= uint64(limit) {
		return d.fail()
	}
	d.rest = d.rest[used:]
	return int(n)
}

// count is how many follow, each of at least size bytes, so that a wrong number cannot ask for memory.
func (d *decoder) count(size int) int { return d.below(len(d.rest)/size + 1) }

func (d *decoder) text() string {
	n := d.below(len(d.rest) + 1)
	if n > len(d.rest) {
		d.fail()
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) id() id {
	if len(d.rest) < 8 {
		return id(d.fail())
	}
	i := binary.BigEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return id(i)
}

func (d *decoder) list(limit int) []int32 {
	n := d.below(len(d.rest) + 1)
	if n == 0 {
		return nil
	}
	if cap(d.store)-len(d.store) < n {
		d.store = make([]int32, 0, max(n, 1<<14))
	}
	from := len(d.store)
	last := int64(0)
	for range n {
		v, used := binary.Varint(d.rest)
		if last += v; used <= 0 || last < 0 || last >= int64(limit) {
			d.fail()
			return nil
		}
		d.rest = d.rest[used:]
		d.store = append(d.store, int32(last))
	}
	return d.store[from:len(d.store):len(d.store)]
}
