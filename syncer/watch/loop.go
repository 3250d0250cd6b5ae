package watch

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"fairlead.dev/api"
)

// loop is the state of Run's goroutine, which alone touches it.
type loop struct {
	*Watcher
	ctx context.Context
	wg  *sync.WaitGroup

	src      source // nil if there is none: all is polled
	srcEnded chan struct{}
	openErr  error // why there is no source
	limitErr error // why some folders are polled
	poll     poller

	global []pattern
	tops   map[string]top
	nodes  map[string]*node
	// loose are known files whose folder is not in nodes: of folders that have just gone, until the burst is over, and
	// of those that only Notify named. A nil record stands for a file whose content is not known.
	loose   map[string]*record
	strays  map[string]bool  // folders of loose files that were found to exist since takeIn
	anchors int              // nodes that are only that
	known   map[string]*repo // by their tops
	gen     uint64           // of the scan
	epoch   time.Time        // a file that was last touched before has not changed since the watcher began

	settle settler
	repos  map[*repo]bool  // that the files of the burst are in
	unruly map[string]bool // folders whose ignore rules are to be read again when the burst is over
	lost   bool            // events were lost in the burst

	pending   map[string]bool // what is to be sent: the path, and whether it was removed
	pendFirst time.Time
	pendLost  bool
	next      Change    // made from these three
	sent      time.Time // when a change was last received

	hasher hasher
	told   []*api.Problem // what Options.Problems was given last,
	polled int            // and the number of polled folders that it spoke of
}

// top is a folder that is watched for its own sake.
type top struct {
	free      bool // an Extra folder: its files are never ignored
	recursive bool
}

// node is a watched or polled folder.
type node struct {
	rules *rules // for what is in it
	above *rules // the same without those of its own .gitignore
	// files are those that exist as far as is known, without ignored and scratch files. The record is nil if the content
	// is not known.
	files      map[string]*record
	gen        uint64
	free       bool
	recursive  bool
	anchor     bool // watched only for a folder to appear below it
	polled     bool
	unreadable bool
}

func (l *loop) run() {
	if l.epoch.IsZero() {
		// A file's time comes from a clock that lags by a tick of the kernel, at most 10 ms.
		l.epoch = time.Now().Add(-20 * time.Millisecond)
	}
	l.global = globalPatterns(l.ctx, l.root)
	m := l.mail.take()
	l.open()
	l.setTops(m.extra)
	for _, c := range m.waiting {
		close(c)
	}
	close(l.ready)
	l.report()
	l.wg.Go(func() { l.poll.run(l.ctx, l.isRelevant) })
	l.learn()
	l.handleNotes(m.notes)

	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		var out chan<- Change
		if l.pending != nil {
			out = l.changes
		}
		var fire <-chan time.Time
		if due := l.settle.due(); !due.IsZero() {
			timer.Reset(time.Until(due))
			fire = timer.C
		}
		select {
		case <-l.ctx.Done():
			return
		case out <- l.next:
			l.pending, l.pendLost, l.next = nil, false, Change{}
			l.sent = time.Now()
		case <-l.mail.wake:
			l.handle(l.mail.take())
		case <-fire:
			l.handle(l.mail.take()) // what has come meanwhile may belong to the burst
			l.tick(time.Now())
		}
		l.report()
	}
}

func (l *loop) handle(m mail) {
	if m.extraSet {
		l.setTops(m.extra)
	}
	for _, c := range m.waiting {
		close(c)
	}
	if m.relevant {
		l.refilter()
	}
	if m.overflow {
		l.log.Warn("file events were lost, reading the workspace anew")
		l.lost = true
		l.settle.add("", time.Now())
		l.reset()
	} else {
		for _, e := range m.events {
			l.event(e)
		}
	}
	l.handleNotes(m.notes)
	for _, c := range m.contents {
		l.learned(c)
	}
	if len(m.contents) > 0 && l.opt.learn != nil {
		l.opt.learn()
	}
	if m.retry {
		l.retryWatches()
	}
	for _, f := range m.look {
		f(l)
	}
}

// open opens a source and starts its reader.
func (l *loop) open() {
	l.src, l.openErr = l.opt.open()
	if l.openErr != nil {
		l.src = nil
		return
	}
	l.srcEnded = make(chan struct{})
	src, ended := l.src, l.srcEnded
	l.wg.Go(func() {
		defer close(ended)
		for {
			e, err, ok := src.Next()
			switch {
			case !ok:
				return
			case errors.Is(err, errOverflow):
				l.mail.put(func(m *mail) { m.overflow, m.events = true, nil })
			case err != nil:
				// Nothing is known to be lost: typically a file that went before kqueue could open it.
				l.log.Debug("watch for file events", "err", err)
			default:
				l.mail.putEvents(e)
			}
		}
	})
}

func (l *loop) close() {
	if l.src == nil {
		return
	}
	if err := l.src.Close(); err != nil {
		l.log.Debug("close the file watcher", "err", err)
	}
	<-l.srcEnded
	l.src = nil
}

// reset watches all anew with a new source: after lost events, the folders that the old one's watches lead to may have
// been renamed, and it would go on using their old names.
func (l *loop) reset() {
	l.close()
	l.mail.put(func(m *mail) { m.overflow, m.events = false, nil })
	l.open()
	l.poll.clear()
	l.limitErr = nil
	for path, n := range l.nodes {
		for name, r := range n.files {
			l.loose[filepath.Join(path, name)] = r
		}
	}
	gone := maps.Clone(l.loose)
	l.nodes, l.anchors = map[string]*node{}, 0
	l.resolve(scanRecheck)
	for path := range gone {
		if _, ok := l.loose[path]; !ok {
			continue
		}
		if l.isRelevant(path) {
			l.touch(path, nil, time.Now())
		} else {
			delete(l.loose, path)
		}
	}
	l.learn()
}

// event deals with one event. It does as little as possible: what a file contains is looked at when the burst is over.
func (l *loop) event(e event) {
	path := filepath.Clean(e.path)
	if n := l.nodes[path]; n != nil {
		switch {
		case e.op&opRemove != 0:
			l.drop(path, true)
			l.resolve(scanReport) // it may have been a top
		case e.op&opCreate != 0: // another folder is in its place
			l.enter(path, scanRecheck)
		case e.op&opChmod != 0 && n.unreadable:
			l.enter(path, scanReport)
		}
		return
	}
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	parent := l.nodes[dir]
	if parent == nil {
		if _, ok := l.loose[path]; ok {
			l.touch(path, nil, e.at)
		}
		return
	}
	if name == ".gitignore" || name == ".git" && e.op&(opCreate|opRemove) != 0 {
		l.unruly[dir] = true
		l.settle.add(path, e.at)
	}
	if isStore(name) {
		return
	}
	if e.op&opCreate != 0 {
		if st, err := os.Lstat(path); err == nil && st.IsDir() {
			l.enter(path, scanReport)
			return
		}
	}
	if parent.anchor || isScratch(name) {
		return
	}
	_, known := parent.files[name]
	if !known && e.op == opRemove {
		return // the end of a file that came and went, or was ignored
	}
	if !parent.free && parent.rules.ignored(path, false) {
		return
	}
	if !l.isRelevant(path) {
		if e.op&opRemove != 0 {
			delete(parent.files, name)
		} else if !known {
			parent.files[name] = nil
		}
		return
	}
	l.touch(path, parent, e.at)
}

// touch adds a relevant file to the burst.
func (l *loop) touch(path string, parent *node, at time.Time) {
	if parent != nil && parent.rules != nil && parent.rules.repo != nil {
		l.repos[parent.rules.repo] = true
	}
	l.settle.add(path, at)
}

func (l *loop) isRelevant(path string) bool { return (*l.relevant.Load())(path) }

// tick ends the burst if it is over.
func (l *loop) tick(now time.Time) {
	first := l.settle.first
	if !l.settle.check(now, l.locked, l.unfinished) {
		return
	}
	if now.Sub(first) >= lockCap {
		for r := range l.repos {
			r.giveUp() // nothing if there is no lock any more
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(l.unruly)) { // parents first
		if l.nodes[dir] != nil {
			l.enter(dir, scanReport) // adds to the burst
		}
	}
	paths, first := l.settle.take()
	clear(l.unruly)
	clear(l.repos)
	changed := map[string]bool{}
	for path, s := range paths {
		if path == "" {
			continue
		}
		switch l.compare(path, s) {
		case fileChanged:
			changed[path] = false
		case fileRemoved:
			changed[path] = true
		}
	}
	l.publish(changed, first, l.lost)
	l.lost = false
	l.takeIn()
}

func (l *loop) locked() bool {
	for r := range l.repos {
		if r.locked(l.settle.first) {
			return true
		}
	}
	return false
}

// unfinished says whether a file of the burst looks as if someone is in the middle of replacing it.
func (l *loop) unfinished() bool {
	for path := range l.settle.paths {
		rec, known := l.lookup(path)
		if !known || !l.isRelevant(path) {
			// A new file that is still empty is as unfinished as an old one.
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Size() == 0 && l.isRelevant(path) {
				return true
			}
			continue
		}
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) ||
			err == nil && st.Mode().IsRegular() && st.Size() == 0 && (rec == nil || rec.size > 0) {
			return true
		}
	}
	return false
}

// publish adds to what is to be sent.
func (l *loop) publish(changed map[string]bool, first time.Time, lost bool) {
	if len(changed) == 0 && !lost {
		return
	}
	if l.pending == nil {
		l.pending, l.pendFirst = map[string]bool{}, first
	}
	if first.Before(l.pendFirst) {
		l.pendFirst = first
	}
	l.pendLost = l.pendLost || lost
	maps.Copy(l.pending, changed)
	l.next = Change{Files: make([]File, 0, len(l.pending)), First: l.pendFirst, Overflow: l.pendLost}
	for _, path := range slices.Sorted(maps.Keys(l.pending)) {
		l.next.Files = append(l.next.Files, File{Path: path, Removed: l.pending[path]})
	}
}

// handleNotes looks at the files that Notify named.
func (l *loop) handleNotes(notes []note) {
	for _, n := range notes {
		if !l.isRelevant(n.path) {
			continue
		}
		rec, known := l.lookup(n.path)
		if st, err := os.Stat(n.path); err != nil || st.Size() == 0 && (rec == nil || rec.size > 0) {
			if err == nil || known {
				l.settle.add(n.path, n.at) // not there yet, or not all of it
			}
			continue
		}
		first := n.at
		span, burst := l.settle.paths[n.path]
		if burst && span.first.Before(first) {
			first = span.first
		}
		if filepath.Base(n.path) != ".gitignore" { // which has more to it than its content
			l.settle.remove(n.path)
		}
		// The span is not given: what was in the file before the save is of no interest.
		switch l.compare(n.path, spanOf(n.at)) {
		case fileChanged:
			l.publish(map[string]bool{n.path: false}, first, false)
		case fileRemoved:
			l.publish(map[string]bool{n.path: true}, first, false)
		}
	}
}

func spanOf(t time.Time) span { return span{first: t, last: t} }
