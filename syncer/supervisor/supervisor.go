package supervisor

import (
	"bufio"
	"context"
	"crypto/rand"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer/supervisor/outbound"
)

const (
	// defaultGrace is how long a process may go on after SIGTERM when no request is in its hands. Under debugging a
	// loop, 80 ms is what a service that only flushes needs; one that sleeps before it leaves (podinfo: 3 s) does so
	// for load balancers that this pod has not.
	defaultGrace = 80 * time.Millisecond
	// maxGrace bounds what a manifest may ask for.
	maxGrace = 10 * time.Minute
	// settle is how long a process that listens on nothing must live to count as running.
	settle = time.Second
)

// Options say where a Supervisor works.
type Options struct {
	Dir         string            // its own folder: store, executable, state
	Trees       map[string]string // the synced folders by name, absolute paths
	Version     string
	SharesFiles bool // it runs on the agent's machine: EncodingPath is allowed
	// StopWhenAlone ends Run this long after the last agent has left; 0 never.
	StopWhenAlone time.Duration
	// Echo gets the service's output, for `kubectl logs`; nil for nowhere.
	Echo   io.Writer
	Logger *slog.Logger
	// PtraceScope stands for the kernel's kernel.yama.ptrace_scope, MemoryLeft for what the cgroup still gives in bytes and
	// whether it has a limit; nil asks the kernel.
	PtraceScope *int
	MemoryLeft  func() (int64, bool)
}

// Supervisor is the pod's side. Its goroutines: the reaper, the echo, one that watches the current process's ports, one
// that waits for each process; for each debugger one that waits for it and one that listens to it; one for each task and core file; all end before Run
// returns.
type Supervisor struct {
	opts   Options
	store  *store
	trees  map[string]*tree
	ring   *ring
	gate   *gate
	calls  *outbound.Gate
	spawn  *spawner
	reaper reaper
	wg     sync.WaitGroup
	life   context.Context // Run's; ends after all that it has started
	epoch  string
	start  time.Time
	// await, keep and awaitTask are the constants of these names; a test has less time.
	await, keep time.Duration
	awaitTask   time.Duration
	began       chan struct{} // closed when Run has restored what ran and swaps may come
	stop        chan struct{}
	once        sync.Once

	last *api.Manifest // what the folder says was running when this supervisor came

	outbound sync.Mutex // one change of what is granted at a time

	turn turn // one swap, attachment or recovery at a time; guards nothing that mu does not

	mu       sync.Mutex
	manifest *api.Manifest // the last one swapped in
	proc     *process
	state    api.State
	reason   string
	exit     *int
	ports    []api.Port
	lastUse  time.Time
	holder   *holder
	alone    *time.Timer
	tasks    map[string]*task
	sessions map[*oneConn]bool
	core     *dump         // the core file that is offered
	changed  chan struct{} // closed and replaced when another process runs, or it has another debugger
}

// holder is the agent that is attached.
type holder struct {
	name, instance string
	keep           bool
	lost           chan string // gets the reason once, when it is put out
}

// New prepares a Supervisor in its folder, which it makes.
func New(opts Options) (*Supervisor, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	st, err := newStore(filepath.Join(opts.Dir, "store"), opts.SharesFiles)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(opts.Dir, "bin"), 0o700); err != nil {
		return nil, fmt.Errorf("open work folder: %w", err)
	}
	s := &Supervisor{opts: opts, store: st, trees: map[string]*tree{}, ring: newRing(ringBytes),
		state: api.StateEmpty, start: time.Now(), lastUse: time.Now(), began: make(chan struct{}), stop: make(chan struct{}),
		await: awaitSession, keep: keepSession, awaitTask: awaitTask, tasks: map[string]*task{}, sessions: map[*oneConn]bool{}, turn: make(turn, 1), changed: make(chan struct{})}
	var id [8]byte
	rand.Read(id[:])
	s.epoch = hex.EncodeToString(id[:])
	s.gate = newGate(s.used, s.held)
	s.calls = outbound.New(s.called)
	for name, dir := range opts.Trees {
		t, err := openTree(name, dir)
		if err != nil {
			return nil, err
		}
		s.trees[name] = t
	}
	s.last = s.saved()
	return s, nil
}

func (s *Supervisor) used() {
	s.mu.Lock()
	s.lastUse = time.Now()
	s.mu.Unlock()
}

// Run supervises until ctx ends or Shutdown is called, then stops the service and all it started.
func (s *Supervisor) Run(ctx context.Context) error {
	if err := becomeReaper(); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	killLeftovers(s.opts.Dir)
	os.RemoveAll(filepath.Join(s.opts.Dir, "tasks"))
	s.reaper.known, s.reaper.spared = map[int]bool{}, map[int]bool{}
	s.spawn = newSpawner()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.life = ctx
	s.wg.Go(func() { s.reaper.run(ctx.Done()) })
	if s.opts.Echo != nil {
		s.wg.Go(func() { s.echo(ctx) })
	}
	s.mu.Lock()
	if s.opts.StopWhenAlone > 0 && s.holder == nil { // an agent may have been quicker than this
		s.alone = time.AfterFunc(s.opts.StopWhenAlone, s.Shutdown)
	}
	s.mu.Unlock()
	defer s.calls.Close()
	s.restoreCalls()
	if m := s.last; m != nil {
		m.Process.Debug = false // nobody waits for it now; an agent attaches to it as it runs
		s.replace(ctx, m, filepath.Join(s.opts.Dir, "bin", m.Executable.Path), nil, "")
	}
	close(s.began)
	select {
	case <-ctx.Done():
	case <-s.stop:
	}
	s.turn <- struct{}{} // for good: no swap begins any more
	s.mu.Lock()
	p, grace, st := s.proc, s.graceLocked(), s.state
	s.mu.Unlock()
	s.gate.shut()
	if p != nil && st != api.StateExited {
		s.setState(api.StateStopping, p, nil, "")
		s.stopProcess(p, grace)
	}
	s.endTasks()
	s.reaper.mu.Lock()
	clear(s.reaper.spared)
	s.reaper.mu.Unlock()
	s.killDescendants()
	cancel()
	s.wg.Wait()
	close(s.spawn.done)
	return nil
}

// Shutdown makes Run return.
func (s *Supervisor) Shutdown() { s.once.Do(func() { close(s.stop) }) }

// echo writes the service's lines to the container's own log.
func (s *Supervisor) echo(ctx context.Context) {
	w := bufio.NewWriterSize(s.opts.Echo, 64<<10)
	s.ring.follow(ctx, 0, func(b []byte) error {
		err := api.DecodeFrame(b, func(e api.Event) error {
			l, ok := e.(*api.LogEvent)
			if !ok {
				return nil
			}
			if l.Dropped > 0 {
				fmt.Fprintf(w, "fairlead: %d lines were not kept\n", l.Dropped)
			}
			w.WriteString(l.Text)
			return w.WriteByte('\n')
		})
		return errors.Join(err, w.Flush())
	})
}

func (s *Supervisor) graceLocked() time.Duration {
	if s.manifest == nil || s.manifest.Process.Grace <= 0 {
		return defaultGrace
	}
	return min(s.manifest.Process.Grace, maxGrace)
}

// Status says what runs.
func (s *Supervisor) Status(context.Context) (api.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statusLocked(), nil
}

func (s *Supervisor) statusLocked() api.Status {
	st := api.Status{
		Version: s.opts.Version, Target: api.Target{OS: runtime.GOOS, Arch: runtime.GOARCH}, SharesFiles: s.opts.SharesFiles,
		State: s.state, ExitCode: s.exit, Ports: s.ports, Blobs: s.store.digests(), Seq: s.ring.last(), Epoch: s.epoch,
		Started: s.start, LastUse: s.lastUse,
	}
	if s.manifest != nil {
		st.Generation = s.manifest.Generation
	}
	if s.proc != nil {
		st.Digest = s.proc.digest
		if s.state != api.StateExited {
			st.PID = s.proc.pid
		}
		st.Debugger = s.heldLocked()
	}
	if s.holder != nil {
		st.Holder = s.holder.name
	}
	return st
}

// Stage stores one blob; see api.Blob. Its errors are *api.Problem with CodeBaseMissing, CodeBlobCorrupt, CodeDiskFull
// or CodeBadManifest, or the reader's own.
func (s *Supervisor) Stage(ctx context.Context, b api.Blob, r io.Reader) error {
	s.used()
	err := s.store.stage(ctx, b, r)
	var p *api.Problem
	if errors.As(err, &p) && p.Code == api.CodeDiskFull && s.turn.tryLock() { // a swap under way does the same at its end
		s.letGo()
		s.turn.unlock()
	}
	return err
}

// letGo removes every blob but the one that runs; the caller has the turn. The last generation's is kept for convenience only, and
// what was staged for a generation that never came would stand in the way of all later ones on a disk that is full.
func (s *Supervisor) letGo() {
	select {
	case <-s.began:
	default:
		return // what is to run is not the manifest yet
	}
	s.mu.Lock()
	m := s.manifest
	s.core = nil // its executable takes part of the space
	s.mu.Unlock()
	if m == nil {
		s.store.keep()
	} else {
		s.store.keep(m.Executable.Digest)
	}
}

// Events hands every event after the given number to emit, in frames (api.Frame), until ctx ends.
func (s *Supervisor) Events(ctx context.Context, epoch string, after uint64, emit func([]byte) error) error {
	if epoch != s.epoch {
		after = 0 // those numbers were another supervisor's
	}
	return s.ring.follow(ctx, after, emit)
}

// Tunnel passes a connection to a port of the service (0: its main port), until it ends.
func (s *Supervisor) Tunnel(ctx context.Context, conn net.Conn, port int) {
	s.gate.serve(ctx, conn, port)
}

// Attach makes the caller the agent of this environment until detach is called; lost gets a reason if another one takes
// over. An instance that attaches again replaces itself: its old connection may not have been missed yet.
func (s *Supervisor) Attach(name, instance string, takeOver, keep bool) (lost <-chan string, detach func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.holder; h != nil {
		if h.instance != instance && !takeOver {
			return nil, nil, &api.Problem{Code: api.CodeHeld, Message: fmt.Sprintf("the environment is in use by %s", h.name),
				Hint: "stop that one, or take over with --take-over"}
		}
		h.lost <- fmt.Sprintf("%s has taken the environment over", name)
	}
	h := &holder{name: name, instance: instance, keep: keep, lost: make(chan string, 1)}
	s.holder = h
	s.lastUse = time.Now()
	if s.alone != nil {
		s.alone.Stop()
	}
	return h.lost, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.holder != h {
			return
		}
		s.holder = nil
		s.lastUse = time.Now()
		if s.opts.StopWhenAlone > 0 && !h.keep {
			s.alone = time.AfterFunc(s.opts.StopWhenAlone, s.Shutdown)
		}
	}, nil
}

// Swap makes the manifest what the pod runs. It returns as soon as the new process is started; events tell the rest.
// Before the old process is told to stop, everything that can fail has been done; when Swap fails, what ran goes on.
// A manifest that is in already is answered with the status, so a caller that lost the answer may ask again.
func (s *Supervisor) Swap(ctx context.Context, m api.Manifest) (api.Status, error) {
	select {
	case <-s.began:
	case <-ctx.Done():
		return api.Status{}, ctx.Err()
	}
	select {
	case s.turn <- struct{}{}:
		defer s.turn.unlock()
	case <-s.stop:
	}
	select {
	case <-s.stop:
		return api.Status{}, &api.Problem{Code: api.CodeLost, Message: "the environment is being stopped"}
	default:
	}
	s.used()
	s.mu.Lock()
	cur := s.manifest
	s.mu.Unlock()
	if cur != nil && m.Generation <= cur.Generation {
		if m.Generation == cur.Generation && m.Executable.Digest == cur.Executable.Digest {
			return s.Status(ctx)
		}
		return api.Status{}, &api.Problem{Code: api.CodeStale, Message: fmt.Sprintf("generation %d is not newer than the pod's %d", m.Generation, cur.Generation)}
	}
	exe, changes, err := s.prepare(&m, cur)
	if err != nil {
		var p *api.Problem
		if !errors.As(err, &p) || p.Code != api.CodeBlobMissing { // those are sent now, and the rest is still wanted
			s.letGo()
		}
		return api.Status{}, err
	}
	if err := s.saveState(&m); err != nil {
		for _, c := range changes {
			c.abort()
		}
		s.letGo()
		return api.Status{}, err
	}
	s.replace(ctx, &m, exe, changes, "")
	keep := []api.Digest{m.Executable.Digest}
	if cur != nil {
		keep = append(keep, cur.Executable.Digest)
	}
	if d, ok := s.offered(); ok {
		keep = append(keep, d)
	}
	s.store.keep(keep...)
	st, _ := s.Status(ctx)
	if st.State == api.StateFailed {
		return st, &api.Problem{Code: api.CodeStartFailed, Message: s.reasonNow()}
	}
	return st, nil
}

func (s *Supervisor) reasonNow() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// prepare checks the manifest and does all that needs space: the executable beside its place, the trees' new files.
func (s *Supervisor) prepare(m, cur *api.Manifest) (exe string, changes []*treeChange, err error) {
	x := m.Executable
	if m.Generation == 0 || x.Path != filepath.Base(x.Path) || x.Link != "" {
		return "", nil, &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("manifest: %q cannot be the executable", x.Path)}
	}
	if err := checkFiles([]api.File{x}); err != nil {
		return "", nil, err
	}
	was := map[string]map[string]api.File{}
	if cur != nil {
		for _, t := range cur.Trees {
			was[t.Name] = map[string]api.File{}
			for _, f := range t.Files {
				was[t.Name][f.Path] = f
			}
		}
	}
	var missing []api.Digest
	if !s.store.has(x.Digest, x.Size) {
		missing = append(missing, x.Digest)
	}
	for _, t := range m.Trees {
		tr := s.trees[t.Name]
		if tr == nil {
			return "", nil, &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("manifest: the pod has no folder %q", t.Name)}
		}
		if err := checkFiles(t.Files); err != nil {
			return "", nil, err
		}
		for _, f := range t.Files {
			if f.Link == "" && !tr.holds(f, was[t.Name]) && !s.store.has(f.Digest, f.Size) {
				missing = append(missing, f.Digest)
			}
		}
	}
	if len(missing) > 0 {
		return "", nil, &api.Problem{Code: api.CodeBlobMissing, Message: fmt.Sprintf("%d of the manifest's files are not in the pod", len(missing)), Missing: missing}
	}
	if err := checkExecutable(s.store.path(x.Digest)); err != nil {
		return "", nil, err
	}
	for _, t := range m.Trees {
		c, err := s.trees[t.Name].prepare(t.Files, was[t.Name], s.store)
		if err != nil {
			for _, c := range changes {
				c.abort()
			}
			return "", nil, err
		}
		changes = append(changes, c)
	}
	return filepath.Join(s.opts.Dir, "bin", x.Path), changes, nil
}

// checkExecutable refuses what the kernel would: better now than with the old process gone.
func checkExecutable(path string) error {
	// A script, whose first line names its interpreter (execve(2)): a dependency that is a command.
	if line := firstLine(path); strings.HasPrefix(line, "#!") {
		interp, _, _ := strings.Cut(strings.TrimSpace(line[2:]), " ")
		if _, err := os.Stat(interp); err != nil {
			return &api.Problem{Code: api.CodeBadManifest, Message: "the script needs " + interp + ", which is not there"}
		}
		return nil
	}
	f, err := elf.Open(path)
	if err != nil {
		return &api.Problem{Code: api.CodeBadManifest, Message: "the executable is not an ELF file: " + err.Error(),
			Hint: "the service must be built for linux"}
	}
	defer f.Close()
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if f.Machine != want {
		return &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("the executable is for %v, the pod is %s", f.Machine, runtime.GOARCH)}
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, _ := io.ReadAll(io.LimitReader(p.Open(), 4096))
			interp := strings.TrimRight(string(b), "\x00")
			if _, err := os.Stat(interp); err != nil {
				return &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("the executable needs %s, which the pod's image does not have", interp),
					Hint: "build it with CGO_ENABLED=0 (build: {env: {CGO_ENABLED: \"0\"}} in fairlead.yaml), or use an image with a C library"}
			}
		}
	}
	return nil
}

// firstLine is what the kernel would read of a script's first line: at most 255 bytes (execve(2)); empty on errors.
func firstLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 255)
	n, _ := io.ReadFull(f, b)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	return line
}

// replace stops the old process, commits the files and starts the new one. One that is to be debugged is started first,
// and stands while its symbols are read and the old one still serves; where memory is short it is started after it.
// reason is told with the new process.
func (s *Supervisor) replace(ctx context.Context, m *api.Manifest, exe string, changes []*treeChange, reason string) {
	var p *process
	var d *debugger
	var refused error // why it runs without the debugger that was asked for
	if m.Process.Debug {
		if refused = s.mayDebug(s.store.path(m.Executable.Digest)); refused == nil && s.roomFor(m.Executable.Size) && s.link(m, exe) == nil {
			p, d, refused = s.startHeld(ctx, m, exe)
		}
	}
	s.mu.Lock()
	old, grace, oldState := s.proc, s.graceLocked(), s.state
	s.mu.Unlock()
	s.gate.shut()
	if old != nil && oldState != api.StateExited {
		if d := s.takeDebugger(old); d != nil && !d.end() { // what is in flight is answered by a process that runs
			syscall.Kill(-old.pid, syscall.SIGKILL)
		}
		s.gate.drain(ctx)
		s.setState(api.StateStopping, old, nil, "")
		s.stopProcess(old, grace)
	}
	s.gate.dropIdle()
	var errs []error
	for _, c := range changes {
		errs = append(errs, c.commit())
	}
	errs = append(errs, s.link(m, exe))
	s.mu.Lock()
	s.manifest, s.exit = m, nil
	s.proc = nil
	s.mu.Unlock()
	s.gate.setHosts(m.Process.Hosts)
	err := errors.Join(errs...)
	if err == nil && m.Process.Debug && p == nil && refused == nil {
		if s.roomFor(m.Executable.Size) {
			p, d, refused = s.startHeld(ctx, m, exe)
		} else {
			refused = noMemory(m.Executable.Size)
		}
	}
	if err == nil && p == nil {
		p, err = s.startProcess(m, exe, false)
	}
	if err != nil {
		if p != nil {
			syscall.Kill(-p.pid, syscall.SIGKILL)
			d.end()
		}
		why := fmt.Sprintf("start %s: %v", filepath.Base(exe), err)
		s.gate.fail(func() string { return why })
		s.setState(api.StateFailed, nil, nil, why)
		return
	}
	p.start = time.Now() // one that stood ready is as old as its turn
	s.mu.Lock()
	s.proc, p.dbg = p, d
	s.mu.Unlock()
	s.setState(api.StateStarting, p, nil, reason)
	s.wg.Go(func() { s.observe(p, m.Process.Port) })
	switch {
	case d != nil:
		d.arm(s.await, func() { s.nobodyCame(d) })
	case refused != nil:
		s.tellNoDebugger(m.Generation, refused)
	}
}

// link puts the executable in its place: a hard link to the verified blob, renamed over the old one.
func (s *Supervisor) link(m *api.Manifest, exe string) error {
	tmp := exe + ".new"
	os.Remove(tmp)
	if err := os.Link(s.store.path(m.Executable.Digest), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, exe); err != nil {
		return err
	}
	// rename(2) does nothing when both names are the same file already
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// setState records and tells the process's state.
func (s *Supervisor) setState(st api.State, p *process, exit *int, reason string) {
	s.mu.Lock()
	e := &api.ProcessEvent{Header: api.Header{Type: api.KindProcess, Time: time.Now()}, State: st, ExitCode: exit, Reason: reason}
	s.state, s.exit, s.reason = st, exit, reason
	if s.manifest != nil {
		e.Generation = s.manifest.Generation
	}
	if p != nil {
		e.Generation, e.PID, e.Digest = p.gen, p.pid, p.digest
		e.Debugger = st == api.StateStarting && p.dbg != nil
		if st == api.StateExited {
			e.Core = p.core
		}
	}
	if st != api.StateRunning && st != api.StateStarting {
		s.ports = nil
	}
	s.changedLocked()
	s.mu.Unlock()
	s.ring.addState(e)
}

// observe watches one process from its start to its end: what it listens on, and its exit.
func (s *Supervisor) observe(p *process, mainPort int) {
	var last []listener
	running := false
	poll := time.NewTimer(time.Millisecond)
	defer poll.Stop()
	var stood time.Duration // in the debugger's hands: that makes it no older
	look := p.start
	var dead time.Time // since when it waits for its tracer to look
	for {
		select {
		case <-p.done:
			s.ended(p)
			return
		case <-poll.C:
		}
		was := look
		look = time.Now()
		if s.held() {
			if !allDead(p.pid) {
				dead = time.Time{}
			} else if dead.IsZero() {
				dead = look
			} else if look.Sub(dead) > tracerLooks {
				if d := s.takeDebugger(p); d != nil {
					d.end()
				}
			}
			if standing(p.pid) || !dead.IsZero() { // whatever it listens on, it has listened on before
				stood += look.Sub(was)
				poll.Reset(standingEvery)
				continue
			}
		}
		age := look.Sub(p.start) - stood
		now := listeners(append([]int{p.pid}, descendants(p.pid, nil)...))
		inOrder(now, last)
		if !sameListeners(now, last) {
			last = now
			main := pickMain(now, mainPort)
			if len(now) > 0 && (mainPort == 0 || main == mainPort || age > settle) {
				s.listening(p, now, main, &running)
			}
		}
		if !running && age > settle && (len(now) == 0 || mainPort != 0) {
			s.listening(p, now, pickMain(now, mainPort), &running)
		}
		poll.Reset(pollEvery(age))
	}
}

const (
	// standingEvery is how often a process that stands in its debugger is looked at: a file of /proc, and the tunnel opens
	// so much later after a stop before it listens.
	standingEvery = 20 * time.Millisecond
	// tracerLooks is how long the debugger of a process that was killed may take to see that: one whose process ran sees it
	// at once, tells its session, and must not be disturbed; one whose process stood never does.
	tracerLooks = 500 * time.Millisecond
)

// pollEvery: a start is looked at closely, since requests wait for it; a service that has been up for a while changes
// its ports rarely.
func pollEvery(age time.Duration) time.Duration {
	switch {
	case age < 300*time.Millisecond:
		return 2 * time.Millisecond
	case age < 3*time.Second:
		return 10 * time.Millisecond
	case age < 30*time.Second:
		return 300 * time.Millisecond
	}
	return 3 * time.Second
}

func sameListeners(a, b []listener) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// pickMain chooses the port that a browser is opened on: the declared one where the service listens on it, else that of the
// first socket that is not bound to loopback only, else of the first.
func pickMain(ls []listener, declared int) int {
	first := 0
	for _, l := range ls {
		if int(l.addr.Port()) == declared {
			return declared
		}
		if first == 0 && !l.addr.Addr().IsLoopback() {
			first = int(l.addr.Port())
		}
	}
	if first == 0 && len(ls) > 0 {
		first = int(ls[0].addr.Port())
	}
	return first
}

func (s *Supervisor) listening(p *process, ls []listener, main int, running *bool) {
	ports := []api.Port{}
	seen := map[int]bool{}
	for _, l := range ls {
		n := int(l.addr.Port())
		if seen[n] {
			continue
		}
		seen[n] = true
		ports = append(ports, api.Port{Port: n, Loopback: l.addr.Addr().IsLoopback(), Main: n == main})
	}
	s.mu.Lock()
	if s.proc != p || s.state == api.StateStopping {
		s.mu.Unlock()
		return
	}
	s.ports = ports
	s.mu.Unlock()
	if !*running {
		*running = true
		s.setState(api.StateRunning, p, nil, "")
	}
	s.gate.open(ls, main) // last: whoever has an answer finds the state that goes with it
	s.ring.addState(&api.ListeningEvent{Header: api.Header{Type: api.KindListening, Generation: p.gen, Time: time.Now()}, Ports: ports})
}

// ended records that a process has ended by itself (a stopped one has been replaced by then).
func (s *Supervisor) ended(p *process) {
	s.mu.Lock()
	current := s.proc == p && s.state != api.StateStopping
	s.mu.Unlock()
	if !current {
		return
	}
	if d := s.debuggerOf(p); d != nil {
		// It may have been its debugger's death that ended it, by a breakpoint that nobody steps over; then it is started
		// again. One that is alive says that it has seen the end.
		select {
		case <-d.exited:
		case <-d.done:
		case <-time.After(deathLimit):
		}
		if d.died() {
			return
		}
		if s.takeDebugger(p) != nil {
			d.end()
		}
	}
	s.killDescendants()
	code := p.exit
	why := fmt.Sprintf("the service exited with code %d", code)
	if code > 128 {
		why = fmt.Sprintf("the service was ended by signal %d", code-128)
	}
	s.gate.fail(func() string {
		lines := []string{fmt.Sprintf("%s (generation %d). Its last lines:", why, p.gen)}
		for _, l := range s.ring.tail(p.gen, 20) {
			lines = append(lines, "  "+string(l))
		}
		return strings.Join(append(lines, "", "It starts again with the next save."), "\n")
	})
	s.offerCore(p)
	s.setState(api.StateExited, p, &code, why)
}

func (s *Supervisor) debuggerOf(p *process) *debugger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.dbg
}

// Signal passes a signal on to the service's process group.
func (s *Supervisor) Signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.state != api.StateExited {
		syscall.Kill(-s.proc.pid, sig)
	}
}
