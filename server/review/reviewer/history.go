package reviewer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.dev/api"
)

// Source is where a history is.
type Source struct {
	// Dir is a folder of the repository, its work tree or its git directory.
	Dir string
	// Rev names the branch that the change goes to (origin/main). Its history is what counts: what is on other branches was not
	// reviewed yet. Empty is HEAD.
	Rev string
	// Cache is the folder of the index files. One is a few megabytes for a large repository; any can be deleted at any time.
	Cache string
	// Recent, unless 0, is how many of the newest commits are enough where there is no index yet: then no more are read, and nothing is
	// kept. Read whole at leisure, the next time has all.
	Recent int
	// Progress, unless nil, is told how many commits of how many are read, from several goroutines.
	Progress func(done, total int)
}

// History is what a repository tells about who knows what. It is not changed after Open.
type History struct {
	Tip     string // the newest commit's hash
	Shallow bool   // the clone lacks its beginnings: what was before is not known
	Partial bool   // only Source.Recent commits were read
	// Unsaved is why the index was not kept, so that the next Open reads all again; nil where it was.
	Unsaved error

	git     git
	index   *index
	people  []Person
	who     []int32 // an identity's person
	byEmail map[string]int32
	byName  map[string]int32
	prefix  int // how many of the commits count, see Before
}

// Commits is how many commits the history has.
func (h *History) Commits() int { return h.prefix }

// Past is one commit of the history as a change that was reviewed: what Rank could have been asked, and what came of it.
// People are as String of a Suggestion gives them.
type Past struct {
	Change
	Hash       string // the first 16 digits
	WroteBy    []string
	ReviewedBy []string // by trailers, without who wrote it and without programs
	Merge      bool     // of a request: its branch's commits are in the history themselves
}

// At is the n-th commit, from the oldest. A commit's ancestors are before it.
func (h *History) At(n int) Past {
	c := &h.index.commits[n]
	p := Past{Hash: fmt.Sprintf("%016x", uint64(c.id)), Change: Change{Time: time.Unix(c.time, 0)}, Merge: c.merge}
	for i, a := range c.authors {
		who := h.people[h.who[a]]
		if p.WroteBy = append(p.WroteBy, who.String()); i == 0 {
			p.Author = who.String()
		} else {
			p.With = append(p.With, who.String())
		}
	}
	for _, f := range c.files {
		p.Files = append(p.Files, File{Path: h.index.paths[f]})
	}
	for _, r := range c.reviewed {
		who := h.people[h.who[r]]
		if !who.bot && !h.wrote(c, h.who[r]) && !slices.Contains(p.ReviewedBy, who.String()) {
			p.ReviewedBy = append(p.ReviewedBy, who.String())
		}
	}
	return p
}

// Before is the history without the n-th commit and what came after it.
func (h *History) Before(n int) *History {
	b := *h
	b.prefix = n
	return &b
}

// Open reads the history of a repository: from the index, what is newer from git. The first time takes some seconds for
// 50,000 commits.
func Open(ctx context.Context, src Source) (*History, error) {
	g := git{src.Dir}
	rev := src.Rev
	if rev == "" {
		rev = "HEAD"
	}
	tip, err := g.lines(ctx, nil, "rev-parse", "--verify", "--end-of-options", rev+"^{commit}")
	if err != nil {
		return nil, g.unreadable(rev, err)
	}
	where, err := g.lines(ctx, nil, "rev-parse", "--path-format=absolute", "--git-common-dir", "--git-path", "shallow")
	if err != nil || len(where) != 2 {
		return nil, g.unreadable(rev, errors.Join(err, errLog))
	}
	shallow, err := digest(where[1])
	if err != nil {
		return nil, g.unreadable(rev, err)
	}
	if filter, err := g.output(ctx, nil, "config", "--get-regexp", `^remote\..*\.partialclonefilter$`, `^tree:`); err == nil && len(filter) > 0 {
		return nil, &api.Problem{Code: "history-treeless", Message: "the clone of " + src.Dir + " has no trees of older commits, so which commit changed which file is not there",
			Hint: "`git fetch --refetch --filter=blob:none` brings them, without the files' contents"}
	}

	x, partial, unsaved := load(ctx, g, src, where[0], tip[0], shallow, rev)
	if x == nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, unsaved
	}
	identities, err := mailmap(ctx, g, x.people)
	if err != nil {
		return nil, g.unreadable(rev, err)
	}
	h := newHistory(x, identities)
	h.git, h.Unsaved, h.Partial = g, unsaved, partial
	return h, nil
}

// newHistory finds out who the people of an index are, by the names that mailmap gives them.
func newHistory(x *index, identities []identity) *History {
	h := &History{Tip: x.tip, Shallow: x.shallow != "", index: x, prefix: len(x.commits), byEmail: map[string]int32{}, byName: map[string]int32{}}
	used := make([]int64, len(identities))
	for i := range x.commits {
		c := &x.commits[i]
		for _, p := range c.authors {
			used[p] = max(used[p], c.time)
		}
		for _, p := range c.reviewed {
			used[p] = max(used[p], c.time)
		}
	}
	h.people, h.who = unite(identities, used)
	for i, p := range h.who {
		for _, who := range []identity{x.people[i], identities[i]} { // also under the names that mailmap replaces
			if email := strings.ToLower(who.email); !nobodys(email) {
				h.byEmail[email] = p
			}
			if full := fullName(who.name); full != "" {
				h.byName[full] = p
			}
		}
	}
	return h
}

// load gets the index as of tip, or a partial one. The error beside an index is why it was not saved.
func load(ctx context.Context, g git, src Source, common, tip, shallow, rev string) (x *index, partial bool, err error) {
	if err := os.MkdirAll(src.Cache, 0o700); err != nil {
		return nil, false, &api.Problem{Code: "history-cache", Message: "the index of the history has no folder: " + err.Error(), Hint: "make " + src.Cache + " writable"}
	}
	name := sha256.Sum256([]byte(common + "\x00" + rev))
	file := filepath.Join(src.Cache, "reviewers-"+hex.EncodeToString(name[:12]))
	var old *index
	if data, err := os.ReadFile(file); err == nil {
		// A damaged one and one of another version are no fault: they are made anew, which costs seconds.
		if old, err = decode(data); err == nil && old.tip == tip && old.shallow == shallow {
			return old, false, nil
		}
	}
	if old != nil && (old.shallow != shallow || !isAncestor(ctx, g, old.tip, tip)) {
		old = nil
	}
	most := 0
	if old == nil {
		most = src.Recent
	}
	records, err := read(ctx, g, src.Progress, tip, old, most)
	if err != nil {
		return nil, false, g.unreadable(rev, err)
	}
	if x = extend(old, records, tip, shallow); most > 0 && len(records) >= most {
		return x, true, nil
	}
	return x, false, save(file, x.encode())
}

// isAncestor is false as well where the commit is not there any more.
func isAncestor(ctx context.Context, g git, old, tip string) bool {
	_, err := g.output(ctx, nil, "merge-base", "--is-ancestor", "--end-of-options", old, tip)
	return err == nil
}

func digest(shallow string) (string, error) {
	data, err := os.ReadFile(shallow)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(data) == 0 {
		return "", nil
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), err
}

// save writes a file that is there whole or not at all. It is not synced: after a power cut its checksum is wrong, and it is
// made anew.
func save(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".reviewers-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// read has git tell the commits of tip that old lacks, in one process for each processor, each with a part that is one piece
// of history, since git finds trees that are alike faster than others.
func read(ctx context.Context, g git, progress func(done, total int), tip string, old *index, most int) ([]record, error) {
	args := []string{"rev-list"}
	if most > 0 {
		args = append(args, "-n", strconv.Itoa(most))
	}
	args = append(args, "--end-of-options", tip)
	if old != nil {
		args = append(args, "^"+old.tip)
	}
	list, err := g.output(ctx, nil, args...)
	if err != nil {
		return nil, err
	}
	total := bytes.Count(list, []byte("\n"))
	parts := min(runtime.GOMAXPROCS(0), 4, total/500+1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Int64
	out := make([][]record, parts)
	var wg sync.WaitGroup
	for i := range parts {
		part := list
		if i < parts-1 {
			cut := len(list) / (parts - i)
			cut += bytes.IndexByte(list[cut:], '\n') + 1
			part, list = list[:cut], list[cut:]
		}
		wg.Go(func() {
			err := g.run(ctx, bytes.NewReader(part), func(r io.Reader) error {
				return readLog(r, func(c record) error {
					out[i] = append(out[i], c)
					if n := done.Add(1); progress != nil && (n%500 == 0 || int(n) == total) {
						progress(int(n), total)
					}
					return nil
				})
			}, logArgs...)
			if err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	records := slices.Concat(out...)
	if len(records) != total {
		return nil, fmt.Errorf("%w: %d commits of %d", errLog, len(records), total)
	}
	return ends(ctx, g, records)
}

// ends removes the files of the commits at which a shallow clone ends: git shows them as if they had added everything.
func ends(ctx context.Context, g git, records []record) ([]record, error) {
	path, err := g.lines(ctx, nil, "rev-parse", "--path-format=absolute", "--git-path", "shallow")
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path[0])
	if errors.Is(err, os.ErrNotExist) {
		return records, nil
	} else if err != nil {
		return nil, err
	}
	end := map[id]bool{}
	for hash := range strings.FieldsSeq(string(data)) {
		i, err := parseID(hash)
		if err != nil {
			return nil, err
		}
		end[i] = true
	}
	for i := range records {
		if end[records[i].hash] {
			records[i].files, records[i].moved = nil, nil
		}
	}
	return records, nil
}
