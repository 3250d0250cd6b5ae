package watch

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// record is what a file contained when it was last reported, or at the start.
type record struct {
	size int64
	// sum is of the content; of the time of modification for a file larger than maxHash. Its seed is the process's own:
	// that is faster than a digest for the world, and nobody else needs it.
	sum  uint64
	exec bool
}

const (
	// maxHash is what is read to learn whether a file has changed: 16 MiB take some 3 ms from the page cache.
	maxHash = 16 << 20
	// maxLearn bounds what is read at the start, in files and in each one's size: 20,000 files take some 0.2 s of one
	// core, beside everything else. A file that was not read is reported at its first event whether it changed or not.
	maxLearn     = 20_000
	maxLearnSize = 1 << 20
)

// hasher reads files. It is not safe for concurrent use.
type hasher struct {
	sum maphash.Hash
	buf []byte
}

var seed = maphash.MakeSeed()

var errNotFile = errors.New("not a regular file")

// read reads the record of the file at path. A link's is that of the file it leads to.
func (h *hasher) read(path string, limit int64) (*record, fs.FileInfo, error) {
	// Not by way of the open file: opening a named pipe would wait for its other end.
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, errNotFile
	}
	rec := &record{size: st.Size(), exec: st.Mode()&0o111 != 0}
	h.sum.SetSeed(seed)
	if st.Size() > limit {
		if limit < maxHash {
			return nil, nil, errors.New("too large to be read ahead")
		}
		maphash.WriteComparable(&h.sum, st.ModTime().UnixNano())
		rec.sum = h.sum.Sum64()
		return rec, st, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if h.buf == nil {
		h.buf = make([]byte, 64<<10)
	}
	rec.size = 0
	for {
		n, err := f.Read(h.buf)
		h.sum.Write(h.buf[:n])
		rec.size += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
	}
	rec.sum = h.sum.Sum64()
	st, err = f.Stat()
	return rec, st, err
}

type outcome int

const (
	fileSame outcome = iota
	fileChanged
	fileRemoved
)

// compare looks at a file of the burst and notes what it finds.
func (l *loop) compare(path string, s span) outcome {
	old, known := l.lookup(path)
	if !l.isRelevant(path) { // an ignore file that is nobody's business but ours, or the filter has been replaced
		if _, err := os.Lstat(path); err != nil {
			l.store(path, nil, false)
		}
		delete(l.loose, path)
		return fileSame
	}
	rec, _, err := l.hasher.read(path, maxHash)
	if st, lerr := os.Lstat(path); err != nil && old == nil && lerr == nil && st.Mode()&fs.ModeSymlink != 0 {
		return fileSame // a link that leads to no file, as it did before
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNotFile), errors.Is(err, errNotDir):
		l.store(path, nil, false)
		if known {
			return fileRemoved
		}
		return fileSame // made and removed at once
	case err != nil:
		l.log.Debug("read changed file", "err", err)
		l.store(path, nil, true)
		return fileChanged
	}
	l.store(path, rec, true)
	if old == nil || *old != *rec {
		return fileChanged
	}
	// It is as it was when last reported. But if it was otherwise for a while, just after a report, then whoever
	// received that may have read what lay between ("git stash; git stash pop" during a build).
	if s.last.Sub(s.first) > passing && !l.sent.IsZero() && s.first.Sub(l.sent) < reading {
		return fileChanged
	}
	return fileSame
}

const (
	passing = 50 * time.Millisecond // longer than a file is empty or gone while it is being replaced (see defaultRest)
	reading = 10 * time.Second      // how long a report's receiver may go on reading files
)

// content is what a file contained at the start.
type content struct {
	path string
	rec  *record
}

// learn reads in the background what the relevant files contain, so that the first event of a file that keeps its
// content is no change either.
func (l *loop) learn() {
	var paths []string
	for dir, n := range l.nodes {
		for name, rec := range n.files {
			if path := filepath.Join(dir, name); rec == nil && len(paths) < maxLearn && l.isRelevant(path) {
				paths = append(paths, path)
			}
		}
	}
	if len(paths) == 0 {
		return
	}
	l.wg.Go(func() { learn(l.ctx, &l.mail, paths, l.epoch) })
}

func learn(ctx context.Context, box *mailbox, paths []string, epoch time.Time) {
	var h hasher
	var found []content
	flush := func() {
		if len(found) > 0 {
			cs := found
			box.put(func(m *mail) { m.contents = append(m.contents, cs...) })
			found = nil
		}
	}
	for _, path := range paths {
		if ctx.Err() != nil {
			return
		}
		rec, st, err := h.read(path, maxLearnSize)
		// What was touched since the watcher began may have been read by others before or after that.
		if err == nil && touched(st).Before(epoch) {
			if found = append(found, content{path, rec}); len(found) == 1000 {
				flush()
			}
		}
	}
	flush()
}

// learned notes what a file contained, unless it has been looked at since.
func (l *loop) learned(c content) {
	if rec, known := l.lookup(c.path); known && rec == nil {
		l.store(c.path, c.rec, true)
	}
}

// refilter adapts to another Options.Relevant.
func (l *loop) refilter() {
	for dir, n := range l.nodes {
		for name, rec := range n.files {
			// What is known of a file goes stale while its events are not looked at.
			if rec != nil && !l.isRelevant(filepath.Join(dir, name)) {
				n.files[name] = nil
			}
		}
	}
	l.learn()
}
