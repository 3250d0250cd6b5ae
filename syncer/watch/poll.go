package watch

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	pollEvery  = time.Second      // at least; see poller.run
	pollMost   = 10 * time.Second // at most
	retryEvery = 30 * time.Second
)

// poller looks at folders that could not be watched. It makes events like those of the operating system.
type poller struct {
	mail         *mailbox
	every, retry time.Duration
	wake         chan struct{}

	mu   sync.Mutex
	dirs map[string]*snapshot // another one at each change
}

// snapshot is what a folder contained: a zero stamp for folders and for files whose changes are of no interest.
type snapshot map[string]stamp

type stamp struct {
	size  int64
	mtime int64
	mode  fs.FileMode
}

// put adds a folder, or replaces what is known of it.
func (p *poller) put(path string, s snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dirs == nil {
		p.dirs = map[string]*snapshot{}
	}
	p.dirs[path] = &s
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *poller) remove(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.dirs, path)
}

// forget makes a name in a folder new to the next look: the folder of that name has gone, and another may be in its place
// before anyone looks.
func (p *poller) forget(dir, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.dirs[dir]
	if old == nil {
		return
	}
	s := maps.Clone(*old)
	delete(s, name)
	p.dirs[dir] = &s
}

// expect makes the next look tell of a file that was found by other means since the last one, whether it is still there by
// then or not.
func (p *poller) expect(dir, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.dirs[dir]
	if old == nil {
		return
	}
	if _, ok := (*old)[name]; ok {
		return
	}
	s := maps.Clone(*old)
	s[name] = stamp{}
	p.dirs[dir] = &s
}

func (p *poller) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirs = nil
}

// folders returns the folders, parents first.
func (p *poller) folders() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.dirs))
}

func (p *poller) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.dirs)
}

// run polls until ctx is done. It spends at most a twentieth of one core, where pollMost allows that. While there is
// nothing to poll it has no timer either.
func (p *poller) run(ctx context.Context, interesting func(string) bool) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	var retried time.Time
	wait := p.every
	for {
		if p.len() == 0 {
			select {
			case <-ctx.Done():
				return
			case <-p.wake:
				retried = time.Now()
				continue
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		for _, dir := range p.folders() {
			if ctx.Err() != nil {
				return
			}
			p.look(dir, interesting)
		}
		wait = min(max(p.every, 20*time.Since(start)), max(p.every, pollMost))
		if time.Since(retried) >= p.retry {
			retried = time.Now()
			p.mail.put(func(m *mail) { m.retry = true })
		}
	}
}

// look compares a folder with what it was.
func (p *poller) look(dir string, interesting func(string) bool) {
	p.mu.Lock()
	before := p.dirs[dir]
	p.mu.Unlock()
	if before == nil {
		return
	}
	old := *before
	now := time.Now()
	var es []event
	entries, err := readDir(dir)
	if err != nil {
		if _, err := os.Lstat(dir); err != nil {
			p.remove(dir)
			p.mail.putEvents(event{path: dir, op: opRemove, at: now})
		}
		return
	}
	cur := takeSnapshot(dir, entries, interesting)
	for name, s := range cur {
		if was, ok := old[name]; !ok {
			es = append(es, event{path: filepath.Join(dir, name), op: opCreate, at: now})
		} else if was.mode.IsDir() != s.mode.IsDir() {
			es = append(es, event{path: filepath.Join(dir, name), op: opRemove, at: now},
				event{path: filepath.Join(dir, name), op: opCreate, at: now})
		} else if was != s {
			es = append(es, event{path: filepath.Join(dir, name), op: opWrite, at: now})
		}
	}
	for name := range old {
		if _, ok := cur[name]; !ok {
			es = append(es, event{path: filepath.Join(dir, name), op: opRemove, at: now})
		}
	}
	if len(es) == 0 {
		return
	}
	p.mu.Lock()
	if p.dirs[dir] == before { // else somebody knows better, and the next look compares with that
		p.dirs[dir] = &cur
	}
	p.mu.Unlock()
	p.mail.putEvents(es...)
}

func takeSnapshot(dir string, entries []fs.DirEntry, interesting func(string) bool) snapshot {
	s := make(snapshot, len(entries))
	for _, e := range entries {
		st := stamp{mode: e.Type()}
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() && (e.Name() == ".gitignore" || interesting(path)) {
			if i, err := os.Stat(path); err == nil { // of the file that a link leads to, as read does
				st.size, st.mtime, st.mode = i.Size(), i.ModTime().UnixNano(), i.Mode()
			}
		}
		s[e.Name()] = st
	}
	return s
}
