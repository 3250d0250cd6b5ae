// Package watch reports settled bursts of edits below a workspace: which files have other content than when they were
// last reported, once for each burst, as early as the burst can be known to be over.
//
// It owns which folders are watched, the ignore rules, what counts as an edit, and when a burst has settled. It must not
// know what is done with an edit: nothing of builds (the caller says which paths are relevant), of pods, of editors'
// protocols. It alone imports fsnotify.
//
// Folders are watched, never files: an editor that saves by renaming would take a file's watch away with the old file.
// On Linux this costs one inotify watch for each folder. On macOS it is kqueue, which holds one file descriptor open for
// each folder and each file in it, and on Windows a buffer and a handle for each folder, so that a folder's parent
// cannot be renamed meanwhile: ignored folders are not watched, and should be many there.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.dev/api"
)

// Options say what is watched.
type Options struct {
	// Root is the workspace's folder. All below it is watched, except what .gitignore files, the repository's
	// info/exclude and the user's own excludes file name, and the folders of version control systems. Links are not
	// followed. All paths are to be spelled by way of the same links, if any: a folder that is named twice is reported
	// under one of its names.
	Root string
	// Extra lists folders that are watched although they are ignored or outside Root: generated code, replaced modules.
	// The files of such a folder are never ignored. "dir" stands for that folder alone, "dir/..." for all below it too,
	// where the .gitignore files of dir and below hold, and no others. A folder need not exist yet.
	Extra []string
	// Relevant says whether a change of the file at path is of interest; nil means that every file is. It is called often
	// and from more than one goroutine: it must be quick, safe for that, and must not call the Watcher.
	Relevant func(path string) bool
	// Problems is told what stands in the way of watching, all of it each time that something appears or goes. It is
	// called from Run's goroutine and must not call SetExtra. nil means that problems are only logged.
	Problems func([]*api.Problem)

	// Rest is how long after its last event a burst of a few paths is over, RestBurst the same for more paths, and Cap
	// how long a burst that does not end is collected before it is reported in parts. Zero means a measured default.
	Rest, RestBurst, Cap time.Duration

	Logger *slog.Logger

	// For tests.
	open  func() (source, error)
	poll  time.Duration
	retry time.Duration
	epoch time.Time
	learn func() // called when what was read at the start is known
}

// Change is what happened to a workspace since the last Change that was received.
type Change struct {
	// Files is sorted by path. What was made and removed again in between is not in it, and neither is a file that has
	// the content and the executable bits with which it was last reported, or which it had at the start.
	Files []File
	// First is when the first event of the burst came; of several bursts, the first one's.
	First time.Time
	// Overflow says that events were lost and everything was read anew: anything may have changed, for Files may lack
	// what was not known well enough to be compared.
	Overflow bool
}

// File is one changed file.
type File struct {
	Path    string // absolute, spelled by way of Root or the Extra folder that it was found in
	Removed bool
}

// Watcher reports changes. Its goroutines are Run's own, which owns all the state; one that takes events from the
// operating system as fast as they come; one that polls, idle unless folders could not be watched; one that reads what
// files contain at the start, which ends by itself. All end before Run returns.
type Watcher struct {
	opt      Options
	root     string
	log      *slog.Logger
	relevant atomic.Pointer[func(string) bool]
	changes  chan Change
	ready    chan struct{}
	started  atomic.Bool
	ended    chan struct{}
	mail     mailbox
}

// New checks the options. Nothing is watched until Run.
func New(opt Options) (*Watcher, error) {
	root, err := filepath.Abs(opt.Root)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", opt.Root, err)
	}
	st, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("watch workspace: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("watch workspace: %s is not a folder", root)
	}
	if opt.Rest <= 0 {
		opt.Rest = defaultRest
	}
	if opt.RestBurst <= 0 {
		opt.RestBurst = max(defaultRestBurst, opt.Rest)
	}
	if opt.Cap <= 0 {
		opt.Cap = max(defaultCap, opt.RestBurst)
	}
	if opt.open == nil {
		opt.open = openFsnotify
	}
	if opt.poll <= 0 {
		opt.poll = pollEvery
	}
	if opt.retry <= 0 {
		opt.retry = retryEvery
	}
	w := &Watcher{
		opt: opt, root: root, log: opt.Logger,
		changes: make(chan Change), ready: make(chan struct{}), ended: make(chan struct{}),
		mail: mailbox{wake: make(chan struct{}, 1)},
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.SetRelevant(opt.Relevant)
	w.SetExtra(opt.Extra)
	return w, nil
}

// Changes returns the channel on which changes are sent. While nobody receives, they are joined: what is received next
// is all that has happened since. It is never closed.
func (w *Watcher) Changes() <-chan Change { return w.changes }

// Ready returns a channel that is closed once all is watched: what is edited after that is reported. What was edited
// before is for the caller to read.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// SetRelevant replaces Options.Relevant. A file that becomes relevant is not reported for what happened to it before.
func (w *Watcher) SetRelevant(relevant func(path string) bool) {
	if relevant == nil {
		relevant = func(string) bool { return true }
	}
	w.relevant.Store(&relevant)
	w.mail.put(func(m *mail) { m.relevant = true })
}

// SetExtra replaces Options.Extra. While Run runs, it returns once the folders are watched: what is read after that is
// covered, and what is in new folders then is not reported as a change.
func (w *Watcher) SetExtra(folders []string) {
	folders = slices.Clone(folders)
	done := make(chan struct{})
	w.mail.put(func(m *mail) {
		m.extra, m.extraSet = folders, true
		m.waiting = append(m.waiting, done)
	})
	if !w.started.Load() {
		return // Run begins with them
	}
	select {
	case <-done:
	case <-w.ended:
	}
}

// Notify tells that someone who knows has just saved the files at paths: an editor. They are looked at now, without a
// rest, and reported if they differ; the events of the same save then find nothing new. It does not block.
func (w *Watcher) Notify(paths ...string) {
	now := time.Now()
	paths = slices.Clone(paths)
	w.mail.put(func(m *mail) {
		for _, p := range paths {
			m.notes = append(m.notes, note{path: absIn(w.root, p), at: now})
		}
	})
}

// Run watches until ctx is done, and then returns nil. It can be called once.
func (w *Watcher) Run(ctx context.Context) error {
	if w.started.Swap(true) {
		return errors.New("watch workspace: Run was called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	l := &loop{
		Watcher: w, ctx: ctx, wg: &wg,
		settle: settler{rest: w.opt.Rest, restBurst: w.opt.RestBurst, cap: w.opt.Cap},
		nodes:  map[string]*node{}, loose: map[string]*record{}, strays: map[string]bool{}, tops: map[string]top{},
		unruly: map[string]bool{}, repos: map[*repo]bool{}, known: map[string]*repo{},
		poll:  poller{mail: &w.mail, every: w.opt.poll, retry: w.opt.retry, wake: make(chan struct{}, 1)},
		epoch: w.opt.epoch,
	}
	defer func() {
		close(w.ended)
		l.close()
		cancel()
		wg.Wait()
	}()
	l.run()
	return nil
}

// mailbox takes what others have for Run's goroutine, without ever making them wait: the reader of the operating
// system's events must not fall behind (on Windows it also serves Add, so that waiting for it from here would be a
// deadlock), and neither may an editor.
type mailbox struct {
	mu   sync.Mutex
	mail mail
	wake chan struct{}
}

type mail struct {
	events   []event
	overflow bool
	notes    []note
	extra    []string
	extraSet bool
	waiting  []chan<- struct{} // for the above to be done
	relevant bool
	retry    bool
	contents []content
	look     []func(*loop) // for tests
}

type note struct {
	path string
	at   time.Time
}

// maxEvents bounds the memory that unread events take, to about 10 MiB. It is reached when Run's goroutine is held up
// for seconds, and then everything is read anew.
const maxEvents = 1 << 17

func (b *mailbox) put(f func(*mail)) {
	b.mu.Lock()
	f(&b.mail)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *mailbox) putEvents(es ...event) {
	b.put(func(m *mail) {
		if len(m.events)+len(es) > maxEvents {
			m.overflow, m.events = true, nil
			return
		}
		m.events = append(m.events, es...)
	})
}

func (b *mailbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mail
	b.mail = mail{}
	return m
}

// parseExtra splits an element of Options.Extra.
func parseExtra(root, s string) (dir string, recursive bool) {
	s = filepath.FromSlash(s)
	dir, recursive = strings.CutSuffix(s, string(filepath.Separator)+"...")
	if recursive && dir == "" {
		dir = string(filepath.Separator)
	}
	return absIn(root, dir), recursive
}
