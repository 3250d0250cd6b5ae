package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// scanMode says what a scan does with the files that it finds.
type scanMode int

const (
	scanQuiet   scanMode = iota // they are as they were: at the start, or in a folder that is newly of interest
	scanReport                  // those not known are new
	scanRecheck                 // and those known may have changed; the folders' watches may be others' by now
)

// place is how a folder is to be watched.
type place struct {
	path            string
	rules           *rules // without those of the folder itself
	free, recursive bool
}

// setTops makes the folders to be watched those.
func (l *loop) setTops(extra []string) {
	tops := map[string]top{l.root: {recursive: true}}
	for _, s := range extra {
		dir, recursive := parseExtra(l.root, s)
		t := tops[dir]
		tops[dir] = top{free: true, recursive: recursive || t.recursive}
	}
	old := l.tops
	l.tops = tops
	changed := false
	for path, t := range old {
		if tops[path] == t {
			continue
		}
		changed = true
		if _, ok := l.placeOf(path); !ok {
			l.drop(path, false)
		} else if l.watched(path) { // a top of another kind, or no more than a part of what is around it
			l.adapt(path)
		}
	}
	for path := range tops {
		if _, ok := old[path]; !ok {
			changed = true
			if l.watched(path) {
				l.adapt(path)
			}
		}
	}
	l.resolve(scanQuiet)
	if changed && len(old) > 0 {
		l.learn()
	}
}

// adapt watches a folder in another way, without a moment in which it is not watched.
func (l *loop) adapt(path string) {
	p, ok := l.placeOf(path)
	if !ok {
		return
	}
	if n := l.nodes[path]; n.recursive == p.recursive && n.above == p.rules {
		// Only the folder itself: hundreds of packages may become tops at once.
		l.gen++
		l.scanOne(p, scanQuiet, time.Now())
		return
	}
	l.scan(p, scanQuiet)
}

// resolve watches the tops that are not watched yet. For one that does not exist, the nearest folder above it that does
// is watched until it appears.
func (l *loop) resolve(mode scanMode) {
	var missing []string
	for path := range l.tops {
		if !l.watched(path) {
			missing = append(missing, path)
		}
	}
	if len(missing) == 0 && l.anchors == 0 {
		return
	}
	slices.Sort(missing) // what is above comes first
	needed := map[string]bool{}
	for _, path := range missing {
		for !l.watched(path) {
			if st, err := os.Stat(path); err == nil && st.IsDir() {
				if p, ok := l.placeOf(path); ok {
					l.scan(p, mode)
				}
				if l.watched(path) {
					break
				}
			}
			above := existing(filepath.Dir(path))
			needed[above] = true
			if l.nodes[above] != nil {
				break
			}
			// Once more then: it may have appeared before the watch was there.
			n := &node{anchor: true, rules: &rules{base: above}}
			l.nodes[above] = n
			l.anchors++
			l.watch(above, n)
			if n.polled {
				if entries, err := readDir(above); err == nil {
					l.poll.put(above, takeSnapshot(above, entries, l.isRelevant))
				}
			}
		}
	}
	for path, n := range l.nodes {
		if n.anchor && !needed[path] {
			l.dropNode(path, n, false)
		}
	}
}

// watched says whether a folder is watched for what is in it.
func (l *loop) watched(path string) bool {
	n := l.nodes[path]
	return n != nil && !n.anchor
}

// existing returns the nearest folder at or above path that exists.
func existing(path string) string {
	for {
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			return path
		}
		parent := filepath.Dir(path)
		if parent == path {
			return path
		}
		path = parent
	}
}

// enter scans a folder, if it is one to be watched, or if one is waited for below it.
func (l *loop) enter(path string, mode scanMode) {
	if p, ok := l.placeOf(path); ok {
		l.scan(p, mode)
	}
	if l.anchors > 0 {
		l.resolve(max(mode, scanReport))
		return
	}
	prefix := path + string(filepath.Separator)
	for t := range l.tops {
		if strings.HasPrefix(t, prefix) && !l.watched(t) {
			l.resolve(max(mode, scanReport))
			return
		}
	}
}

func (l *loop) placeOf(path string) (place, bool) {
	if t, ok := l.tops[path]; ok {
		p := place{path: path, free: t.free, recursive: t.recursive}
		switch inherited, ok := l.placeBelow(path); {
		case path == l.root:
			p.rules = l.rulesAbove(path)
		case !t.recursive && ok:
			p.rules, p.recursive = inherited.rules, true
		default:
			p.rules = &rules{base: path, repo: l.findRepo(path)}
		}
		return p, true
	}
	return l.placeBelow(path)
}

// placeBelow returns how a folder is to be watched because the one that it is in is watched recursively.
func (l *loop) placeBelow(path string) (place, bool) {
	parent := l.nodes[filepath.Dir(path)]
	if parent == nil || !parent.recursive || parent.anchor || filepath.Dir(path) == path ||
		isStore(filepath.Base(path)) || parent.rules.ignored(path, true) {
		return place{}, false
	}
	return place{path: path, rules: parent.rules, recursive: true}, true
}

// scan watches a folder and those below it, and notes their files. Links are not followed, so that there are no cycles.
func (l *loop) scan(from place, mode scanMode) {
	l.gen++
	now := time.Now()
	_, existed := l.nodes[from.path]
	todo := []place{from}
	for len(todo) > 0 && l.ctx.Err() == nil {
		p := todo[len(todo)-1]
		todo = append(todo[:len(todo)-1], l.scanOne(p, mode, now)...)
	}
	if existed {
		l.sweep(from.path)
	}
}

// sweep drops the folders below path that the last scan has not come to.
func (l *loop) sweep(path string) {
	prefix := path + string(filepath.Separator)
	for p, n := range l.nodes {
		if p != path && !strings.HasPrefix(p, prefix) || n.gen == l.gen || n.anchor || l.belowTop(p, path) {
			continue
		}
		_, err := os.Lstat(p)
		l.dropNode(p, n, err != nil) // still there means ignored from now on
	}
}

// belowTop says whether the folder p is a top, or in one, that is itself below path.
func (l *loop) belowTop(p, path string) bool {
	for ; len(p) > len(path); p = filepath.Dir(p) {
		if _, ok := l.tops[p]; ok {
			return true
		}
	}
	return false
}

// scanOne does it for one folder, and returns those in it.
func (l *loop) scanOne(p place, mode scanMode, now time.Time) (below []place) {
	n := l.nodes[p.path]
	fresh := n == nil || n.anchor || n.unreadable
	if n == nil {
		n = &node{}
	}
	if n.anchor {
		l.anchors--
	}
	if n.files == nil {
		n.files = map[string]*record{}
	}
	n.anchor, n.free, n.recursive, n.above, n.gen = false, p.free, p.recursive, p.rules, l.gen
	l.nodes[p.path] = n
	if fresh || mode == scanRecheck {
		// Before the folder is read: what is made after that gives an event.
		if gone := l.watch(p.path, n); gone {
			l.drop(p.path, true)
			return nil
		}
	}
	entries, err := readDir(p.path)
	n.unreadable = err != nil
	if err != nil {
		n.rules = p.rules
		if errors.Is(err, fs.ErrNotExist) {
			l.drop(p.path, true)
		} else {
			l.log.Warn("read folder", "path", p.path, "err", err)
		}
		return nil
	}
	n.rules = p.rules
	for _, e := range entries {
		if e.Name() == ".git" {
			if r := l.openRepo(p.path); r != nil && !p.free && (p.rules.repo == nil || p.rules.repo.top != r.top) {
				n.rules = r.rules(l.global) // the rules of the repository around it do not hold in it
			}
		}
	}
	if p.recursive {
		for _, e := range entries {
			if e.Name() == ".gitignore" {
				n.rules = n.rules.with(p.path)
			}
		}
	}
	var names map[string]bool
	if !fresh && mode == scanRecheck {
		names = make(map[string]bool, len(entries))
	}
	for _, e := range entries {
		name := e.Name()
		path := p.path + string(filepath.Separator) + name
		if strings.HasSuffix(p.path, string(filepath.Separator)) {
			path = p.path + name
		}
		if e.IsDir() {
			if !p.recursive || isStore(name) {
				continue
			}
			if _, ok := l.tops[path]; ok {
				child, _ := l.placeOf(path)
				if n := l.nodes[path]; l.watched(path) && mode != scanRecheck && n.recursive == child.recursive && n.above == child.rules {
					n.gen = l.gen
				} else {
					below = append(below, child)
				}
				continue
			}
			if !n.rules.ignored(path, true) {
				below = append(below, place{path: path, rules: n.rules, recursive: true})
			}
			continue
		}
		if isScratch(name) {
			continue
		}
		if !p.free && n.rules.ignored(path, false) {
			delete(n.files, name)
			continue
		}
		if names != nil {
			names[name] = true
		}
		_, known := n.files[name]
		if rec, ok := l.loose[path]; !known && ok {
			n.files[name], known = rec, true
			delete(l.loose, path)
			if mode == scanReport && l.isRelevant(path) {
				l.touch(path, n, now) // nobody watched it meanwhile
			}
		}
		switch {
		case !known && mode != scanQuiet && l.isRelevant(path):
			l.touch(path, n, now) // not in files yet: if it goes before it is looked at, it never was
		case !known:
			n.files[name] = nil
		case mode == scanRecheck && (n.files[name] != nil || !l.lost) && l.isRelevant(path):
			l.touch(path, n, now)
		}
	}
	for name := range n.files {
		if names != nil && !names[name] {
			if path := filepath.Join(p.path, name); l.isRelevant(path) {
				l.touch(path, n, now)
			} else {
				delete(n.files, name)
			}
		}
	}
	if n.polled {
		l.poll.put(p.path, takeSnapshot(p.path, entries, l.isRelevant))
	}
	return below
}

// readDir is os.ReadDir without the sorting.
func readDir(path string) ([]fs.DirEntry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// watch asks the operating system for a folder's events, or marks it to be polled. It says whether the folder is gone.
func (l *loop) watch(path string, n *node) (gone bool) {
	err := errNoSource
	if l.src != nil {
		err = l.src.Add(path)
	}
	switch {
	case err == nil:
		if n.polled {
			n.polled = false
			l.poll.remove(path)
		}
		return false
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNotDir):
		return true
	case errors.Is(err, fs.ErrPermission):
		l.log.Warn("watch folder", "path", path, "err", err) // polling would not be allowed either
		return false
	}
	if !errors.Is(err, errNoSource) {
		l.limitErr = err
	}
	n.polled = true
	return false
}

var errNoSource = errors.New("no source of events")

func (l *loop) unwatch(path string) {
	l.poll.remove(path)
	if l.src != nil {
		_ = l.src.Remove(path) // it is gone already if the folder is
	}
}

// drop stops watching a folder and those below it. report says that they are gone, so that their files are; otherwise
// they are only of no interest any more.
func (l *loop) drop(path string, report bool) {
	prefix := path + string(filepath.Separator)
	for p, n := range l.nodes {
		if p != path && !strings.HasPrefix(p, prefix) {
			continue
		}
		if !report && (n.anchor || l.belowTop(p, path)) {
			continue
		}
		l.dropNode(p, n, report)
	}
}

func (l *loop) dropNode(path string, n *node, report bool) {
	l.unwatch(path)
	delete(l.nodes, path)
	if n.anchor {
		l.anchors--
	}
	if !report {
		return
	}
	l.poll.forget(filepath.Dir(path), filepath.Base(path))
	now := time.Now()
	for name, rec := range n.files {
		p := filepath.Join(path, name)
		if l.isRelevant(p) {
			l.loose[p] = rec
			l.touch(p, n, now)
		}
	}
}

// lookup returns what is known of a file's content, and whether it is known to exist.
func (l *loop) lookup(path string) (rec *record, known bool) {
	if rec, known = l.loose[path]; known {
		return rec, true
	}
	dir, name := filepath.Split(path)
	if n := l.nodes[filepath.Clean(dir)]; n != nil {
		rec, known = n.files[name]
	}
	return rec, known
}

// store makes rec what is known of a file. A file that is gone is forgotten.
func (l *loop) store(path string, rec *record, exists bool) {
	delete(l.loose, path)
	dir, name := filepath.Split(path)
	n := l.nodes[filepath.Clean(dir)]
	switch {
	case !exists && n != nil:
		delete(n.files, name)
	case !exists:
	case n != nil && n.files != nil:
		n.files[name] = rec
		if n.polled {
			l.poll.expect(filepath.Clean(dir), name)
		}
	default:
		l.loose[path] = rec
		l.strays[filepath.Clean(dir)] = true
	}
}

// takeIn watches the folders in which files were found before the folders themselves were: polling may come to them late, or
// never, if they are gone by then.
func (l *loop) takeIn() {
	for dir := range l.strays {
		for child := dir; l.nodes[child] == nil && child != filepath.Dir(child); child = filepath.Dir(child) {
			if l.nodes[filepath.Dir(child)] == nil {
				continue
			}
			if _, ok := l.placeOf(child); ok { // else it is of no interest
				l.enter(child, scanReport)
			}
			break
		}
	}
	clear(l.strays)
}

// retryWatches tries to watch what is polled, now that the limit may have been raised.
func (l *loop) retryWatches() {
	if l.src == nil {
		if src, err := l.opt.open(); err == nil {
			_ = src.Close()
			l.reset()
		}
		return
	}
	for _, path := range l.poll.folders() {
		n := l.nodes[path]
		if n == nil {
			l.poll.remove(path)
			continue
		}
		if gone := l.watch(path, n); !gone && n.polled {
			return
		}
		if p, ok := l.placeOf(path); ok && !n.anchor {
			l.gen++
			// The folders in it are watched or polled already, but for one that has come since it was polled last.
			for _, below := range l.scanOne(p, scanRecheck, time.Now()) {
				if !l.watched(below.path) {
					l.scan(below, scanReport)
				}
			}
		}
	}
	l.limitErr = nil
}
