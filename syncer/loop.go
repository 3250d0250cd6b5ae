package syncer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"fairlead.dev/api"
)

// Built is what one build gave.
type Built struct {
	Executable Executable
	Duration   time.Duration
	// Temporary: the file is the loop's, to be removed when it is superseded.
	Temporary bool
}

// Config is what a Loop is made of.
type Config struct {
	Pod Pod
	// Build builds the service as it is now. The user's failure is []*api.Problem (the build stops being wanted); a
	// cancelled context is its error. It tells linked, unless that is nil, of the file as soon as that is complete, while it
	// makes the digest: a pod on this machine does the same meanwhile.
	Build func(ctx context.Context, linked func(path string, size int64)) (Built, []*api.Problem, error)
	// Folders are the plain files that travel along; may be nil.
	Folders []Folder
	// Process says how the service is started; asked at each generation.
	Process func() api.Process
	// Name is the executable's base name in the pod.
	Name string
	// Dir keeps the base of differences; see Shipper.
	Dir string
	// Emit is told what happens, in order: BuildEvent, ProblemEvent, TransferEvent. It is called from one goroutine at
	// a time and must not block for long.
	Emit func(api.Event)
	// Shipping is told, before a generation goes to the pod, when the edit was saved that led to it; may be nil.
	Shipping func(g api.Generation, saved time.Time)
	// Building is told that a build begins; may be nil. A BuildEvent of the same generation ends it.
	Building func(g api.Generation)
	// Hold is asked before the pod swaps a generation in that it has been sent: it waits for as long as the process that
	// runs must be left alone. Its context ends when a newer generation is wanted instead. May be nil.
	Hold func(ctx context.Context, g api.Generation) error
}

// CodeTransferCanceled is of the Problem that says that a transfer was broken off as CancelTransfer wanted.
const CodeTransferCanceled = "transfer-canceled"

// Change is what happened to the files.
type Change struct {
	Build bool      // what the build reads has changed
	Files bool      // a synced folder has changed
	Saved time.Time // when
}

// Loop is the engine. Run's goroutines: the one of Run, which decides; one build at a time, and one that offers its file;
// one that ships.
type Loop struct {
	cfg     Config
	shipper Shipper
	trees   Trees

	changes chan Change
	resync  chan struct{}
	cancels chan struct{} // of builds

	emitMu sync.Mutex

	mu      sync.Mutex
	gen     api.Generation // the last number given out
	want    *wanted
	wake    chan struct{}
	sending *wanted            // what is being shipped; nil while nothing is
	staging context.CancelFunc // ends that
	holding bool               // it waits for Config.Hold
	shares  bool               // the pod reads this machine's files, as far as is known
}

// wanted is the generation that the pod should run.
type wanted struct {
	gen   api.Generation
	built Built
	saved time.Time
	told  bool // its transfer has been told; a repeat is only for a pod that lost it
	off   bool // its transfer was canceled: the next save's comes
	// offered is closed when the pod has taken the file in, or has not; nil if it was not asked.
	offered <-chan struct{}
}

// New makes a Loop.
func New(cfg Config) *Loop {
	return &Loop{cfg: cfg, shipper: Shipper{Dir: cfg.Dir}, changes: make(chan Change, 1), resync: make(chan struct{}, 1), cancels: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

// Changed tells the loop of a change. It never blocks: what is not taken yet is united with it.
func (l *Loop) Changed(c Change) {
	for {
		select {
		case l.changes <- c:
			return
		case old := <-l.changes:
			c = unite(old, c)
		}
	}
}

func unite(a, b Change) Change {
	u := Change{Build: a.Build || b.Build, Files: a.Files || b.Files, Saved: a.Saved}
	if u.Saved.IsZero() {
		u.Saved = b.Saved
	}
	return u
}

// Resync makes the loop compare what the pod runs with what is wanted: after a connection came (back) up.
func (l *Loop) Resync() {
	select {
	case l.resync <- struct{}{}:
	default:
	}
}

// CancelBuild breaks off the build that is under way, if any. What ran goes on running; the next change builds again.
func (l *Loop) CancelBuild() {
	select {
	case l.cancels <- struct{}{}:
	default:
	}
}

// CancelTransfer breaks off the transfer that is under way, if it still can be: once the pod has everything, it swaps.
// What is wanted then is not sent again; the next change's is.
func (l *Loop) CancelTransfer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sending != nil {
		l.sending.off = true
		l.staging()
	}
}

// Number tells the loop that generations up to g have been used, by a former agent.
func (l *Loop) Number(g api.Generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gen = max(l.gen, g)
}

func (l *Loop) next() api.Generation {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gen++
	return l.gen
}

func (l *Loop) emit(e api.Event) {
	l.emitMu.Lock()
	defer l.emitMu.Unlock()
	if e.Head().Time.IsZero() {
		e.Head().Time = time.Now()
	}
	l.cfg.Emit(e)
}

// Run builds at once and then follows changes until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer l.shipper.Wait()
	defer wg.Wait()
	ctx, cancelAll := context.WithCancel(ctx)
	defer cancelAll()
	wg.Go(func() { l.shipAll(ctx) })

	type outcome struct {
		gen      api.Generation
		built    Built
		problems []*api.Problem
		err      error
		offered  <-chan struct{}
	}
	done := make(chan outcome, 1)
	var cancel context.CancelFunc
	var running *Change
	var owed *Change // what a canceled build left undone
	broken := false  // the running build is being canceled as the user wants
	start := func(c Change) {
		if owed != nil {
			saved := c.Saved
			c, owed = unite(*owed, c), nil
			c.Saved = saved
		}
		broken = false
		var bctx context.Context
		bctx, cancel = context.WithCancel(ctx)
		running = &c
		gen := l.next()
		if l.cfg.Building != nil {
			l.cfg.Building(gen)
		}
		l.mu.Lock()
		shares := l.shares
		l.mu.Unlock()
		wg.Go(func() {
			o := outcome{gen: gen}
			var linked func(string, int64)
			if shares {
				linked = func(path string, size int64) { o.offered = l.offer(ctx, &wg, path, size) }
			}
			o.built, o.problems, o.err = l.cfg.Build(bctx, linked)
			done <- o
		})
	}
	start(Change{Build: true, Files: true, Saved: time.Now()})
	var waiting *Change // came while a cancelled build is still ending
	for {
		select {
		case <-ctx.Done():
			if running != nil {
				cancel()
				if o := <-done; o.err == nil && o.built.Temporary {
					os.Remove(o.built.Executable.Path)
				}
			}
			return ctx.Err()
		case c := <-l.changes:
			switch {
			case running != nil && c.Build:
				cancel()
				u := unite(*running, c)
				u.Saved = c.Saved // the wait that the user sees began with the last save
				if waiting != nil {
					u = unite(*waiting, u)
				}
				waiting = &u
			case running != nil: // plain files only: the build under way takes them along
			case c.Build:
				start(c)
			case c.Files:
				l.again(c)
			}
		case o := <-done:
			cancel()
			change := *running
			running = nil
			switch {
			case broken && o.err != nil && ctx.Err() == nil && waiting == nil:
				owed = &change
				l.emit(&api.BuildEvent{Header: api.Header{Type: api.KindBuild, Generation: o.gen}, MS: o.built.Duration.Milliseconds(), Canceled: true})
			case waiting != nil && (o.err != nil || len(o.problems) > 0):
				l.emit(&api.BuildEvent{Header: api.Header{Type: api.KindBuild, Generation: o.gen}, MS: o.built.Duration.Milliseconds(), Canceled: true})
			case o.err != nil && ctx.Err() != nil:
				return ctx.Err()
			default:
				l.finish(o.gen, change, o.built, o.offered, o.problems, o.err)
			}
			if waiting != nil {
				start(*waiting)
				waiting = nil
			}
		case <-l.resync:
			l.poke()
		case <-l.cancels:
			if running == nil {
				continue
			}
			cancel()
			broken = true
			if waiting != nil { // it was saved before this was wanted
				u := unite(*running, *waiting)
				*running, waiting = u, nil
			}
		}
	}
}

func (l *Loop) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// finish tells of a build's end, and wants its result.
func (l *Loop) finish(gen api.Generation, c Change, b Built, offered <-chan struct{}, problems []*api.Problem, err error) {
	if err != nil {
		problems = append(problems, asProblem(err, "build"))
	}
	for _, p := range problems {
		l.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: gen}, Problem: *owned(p, "build")})
	}
	ok := true
	for _, p := range problems {
		if p.Severity == "" || p.Severity == api.SeverityError {
			ok = false
		}
	}
	l.emit(&api.BuildEvent{Header: api.Header{Type: api.KindBuild, Generation: gen}, OK: ok, MS: b.Duration.Milliseconds(),
		Digest: b.Executable.Digest, Size: b.Executable.Size})
	if !ok {
		return
	}
	l.setWant(&wanted{gen: gen, built: b, saved: c.Saved, offered: offered})
}

// offer lets a pod on this machine take a new executable in while its digest is still being made here: both ends make it
// at the same time, on a core each, and neither takes the other's word. What goes wrong with it shows in the pod's
// status: it does not have the executable, and is sent it.
func (l *Loop) offer(ctx context.Context, wg *sync.WaitGroup, path string, size int64) <-chan struct{} {
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		l.cfg.Pod.Stage(ctx, api.Blob{Encoding: api.EncodingPath, Path: path, Size: size}, bytes.NewReader(nil))
	})
	return done
}

// again ships the same executable with other plain files, as a generation of its own.
func (l *Loop) again(c Change) {
	l.mu.Lock()
	w := l.want
	l.mu.Unlock()
	if w == nil {
		return // nothing has been built yet; the first good build takes them along
	}
	l.setWant(&wanted{gen: l.next(), built: w.built, saved: c.Saved})
}

func (l *Loop) setWant(w *wanted) {
	l.mu.Lock()
	old := l.want
	l.want = w
	if l.holding {
		l.staging()
	}
	l.mu.Unlock()
	if old != nil && old.built.Temporary && old.built.Executable.Path != w.built.Executable.Path {
		// The file may be being read; an open file outlives its name, and a failed open is tried again with the new one.
		os.Remove(old.built.Executable.Path)
	}
	l.poke()
}

// shipAll brings the wanted generation into the pod, again and again until the pod has it.
func (l *Loop) shipAll(ctx context.Context) {
	var retry <-chan time.Time
	wait := 100 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			l.mu.Lock()
			if l.want != nil && l.want.built.Temporary {
				os.Remove(l.want.built.Executable.Path)
			}
			l.mu.Unlock()
			return
		case <-l.wake:
		case <-retry:
		}
		retry = nil
		l.mu.Lock()
		w := l.want
		l.mu.Unlock()
		if w == nil || l.isOff(w) {
			continue
		}
		err := l.ship(ctx, w)
		switch {
		case err == nil:
			wait = 100 * time.Millisecond
		case ctx.Err() != nil:
		case l.superseded(w):
			l.poke()
		case transient(err):
			// Status waits for the connection; the pause is for one that comes and goes at once.
			retry = time.After(wait)
			wait = min(2*wait, 5*time.Second)
		}
	}
}

func (l *Loop) isOff(w *wanted) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return w.off
}

func (l *Loop) superseded(w *wanted) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.want != w
}

// transient: a lost connection comes back, and what it interrupted is done again.
func transient(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Code == api.CodeLost
}

// ship makes the pod run w, if it does not already.
func (l *Loop) ship(ctx context.Context, w *wanted) error {
	if w.offered != nil {
		select {
		case <-w.offered:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	st, err := l.cfg.Pod.Status(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.shares = st.SharesFiles
	l.mu.Unlock()
	if w.told && st.Generation == w.gen && st.Digest == w.built.Executable.Digest {
		return nil
	}
	if st.Generation >= w.gen && !(st.Generation == w.gen && st.Digest == w.built.Executable.Digest) {
		l.Number(st.Generation)
		w.gen = l.next()
	}
	m := api.Manifest{Generation: w.gen, Process: l.cfg.Process(),
		Executable: api.File{Path: l.cfg.Name, Mode: 0o755, Size: w.built.Executable.Size, Digest: w.built.Executable.Digest}}
	var sources map[api.Digest]string
	if len(l.cfg.Folders) > 0 {
		trees, src, problems, err := l.trees.Read(l.cfg.Folders)
		for _, p := range problems {
			l.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: w.gen}, Problem: *owned(p, "sync")})
		}
		if err != nil {
			l.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: w.gen}, Problem: *owned(asProblem(err, "sync"), "sync")})
			return err
		}
		m.Trees, sources = trees, src
	}
	if l.cfg.Shipping != nil {
		l.cfg.Shipping(w.gen, w.saved)
	}
	staging, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.sending, l.staging = w, cancel
	l.mu.Unlock()
	var held time.Duration
	ev, st, err := l.shipper.Ship(ctx, stagingPod{l.cfg.Pod, staging, l.hold, &held}, m, w.built.Executable, sources)
	ev.MS -= held.Milliseconds()
	l.mu.Lock()
	l.sending = nil
	off := w.off
	l.mu.Unlock()
	if err != nil && off && ctx.Err() == nil {
		l.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: w.gen}, Problem: api.Problem{Code: CodeTransferCanceled,
			Severity: api.SeverityInfo, Message: fmt.Sprintf("the transfer of generation %d was canceled; what ran goes on running", w.gen), Hint: "the next save is shipped", Owner: "sync"}})
		return err
	}
	if err != nil {
		if ctx.Err() == nil && !transient(err) && !l.superseded(w) {
			l.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: w.gen}, Problem: *owned(asProblem(err, "ship"), "sync")})
		}
		return err
	}
	w.told = true
	l.emit(&ev)
	return nil
}

// hold waits until a manifest may be swapped in, and brings up to date how its process is started: who debugs may have
// come or gone meanwhile.
func (l *Loop) hold(ctx context.Context, m *api.Manifest) error {
	if l.cfg.Hold == nil {
		return nil
	}
	l.mu.Lock()
	l.holding = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.holding = false
		l.mu.Unlock()
	}()
	if w := l.sending; l.superseded(w) { // just before it could be told so
		return context.Canceled
	}
	if err := l.cfg.Hold(ctx, m.Generation); err != nil {
		return err
	}
	m.Process = l.cfg.Process()
	return nil
}

// stagingPod is a Pod to which nothing is sent any more once its context has ended, and which swaps when it may. A swap
// that has begun is the pod's: breaking off the request would leave open what it runs.
type stagingPod struct {
	Pod
	ctx  context.Context
	hold func(context.Context, *api.Manifest) error
	held *time.Duration // how long the swap has waited
}

func (p stagingPod) Stage(ctx context.Context, b api.Blob, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	return p.Pod.Stage(ctx, b, r)
}

func (p stagingPod) Swap(ctx context.Context, m api.Manifest) (api.Status, error) {
	start := time.Now()
	err := p.hold(p.ctx, &m)
	*p.held += time.Since(start)
	if err == nil {
		err = p.ctx.Err()
	}
	if err != nil {
		return api.Status{}, err
	}
	return p.Pod.Swap(ctx, m)
}

func asProblem(err error, code string) *api.Problem {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	return &api.Problem{Code: code + "-failed", Message: err.Error()}
}

// owned returns a problem with its owner, who clears it too: "build" at the next build's end, "sync" with the next
// transfer.
func owned(p *api.Problem, owner string) *api.Problem {
	q := *p
	q.Owner = owner
	return &q
}
