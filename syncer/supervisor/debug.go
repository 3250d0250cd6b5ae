package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.dev/api"
)

const (
	// awaitSession is how long a process that was started under the debugger waits for a session: the agent asks for it at
	// once, so that nobody has come after this means that nobody will, and a service that stands is worse than one
	// without breakpoints.
	awaitSession = 10 * time.Second
	// keepSession is how long breakpoints and a stop outlive a session whose stream broke off: as long as an agent's
	// front end may be away (server: a reloaded window, a laptop that changes its network) before it counts as gone.
	keepSession = time.Minute
	// loadLimit bounds how long Delve may take to read the symbols: half a second as a rule, a minute on a node under load.
	loadLimit = time.Minute
	// detachLimit bounds how long Delve may take to let go: 60 ms as a rule.
	detachLimit = 2 * time.Second
	// handLimit bounds how long Delve may take to end a session and begin the next.
	handLimit = 5 * time.Second
	// deathLimit bounds how long the end of a debugged process waits for its debugger's word, or for the debugger's end: either
	// comes within a moment, on a node under load within a second.
	deathLimit = 5 * time.Second
	// crashAgain is how soon after its start a debugger's death counts as one that would come again.
	crashAgain = 10 * time.Second
)

// turn is held by who changes what runs: a swap, an attachment of the debugger, a recovery from its death.
type turn chan struct{}

func (t turn) tryLock() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) unlock() { <-t }

// debugger is Delve in a process of its own, attached to one process of the service until it is told to let go. Its
// goroutines: one that reads what it says, one that waits for its end; they end with it.
type debugger struct {
	p     *process
	cmd   *exec.Cmd
	ctl   *net.UnixConn
	fresh bool // the process was started for it
	start time.Time
	load  time.Duration // from its start until it held the process with its symbols
	words *lastWords

	replies  chan string
	exited   chan struct{} // closed when it says that the process has ended
	detached chan struct{} // closed when the process has been let go
	done     chan struct{} // closed when Delve's process has been waited for
	clean    bool          // valid after done: it left no breakpoint behind

	hand sync.Mutex // one session begins at a time

	mu      sync.Mutex
	told    bool // to let go
	session net.Conn
	came    bool // a session has come
	timer   *time.Timer
}

// lastWords keeps the end of what a process writes to stderr: why it died.
type lastWords struct {
	mu sync.Mutex
	b  []byte
}

func (w *lastWords) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, b...)
	if n := len(w.b) - 2048; n > 0 {
		w.b = append(w.b[:0], w.b[n:]...)
	}
	return len(b), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(string(w.b))
}

// self is this executable, whatever has become of its file: the child opens it after the fork.
const self = "/proc/self/exe"

// runSelf prepares a command of fairlead-pod with a socket as its descriptor 3, in a process group of its own: what is
// sent to the service's group is not for it.
func (s *Supervisor) runSelf(sock *os.File, args ...string) *exec.Cmd {
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "fairlead-pod"
	cmd.Env = append(serviceEnv(os.Environ()), envMark+"="+s.opts.Dir)
	cmd.ExtraFiles = []*os.File{sock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// socketpair makes two connected unix sockets: a connection for here, a file for a child.
func socketpair(kind int) (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
	defer here.Close()
	c, err := net.FileConn(here)
	if err != nil {
		there.Close()
		return nil, nil, fmt.Errorf("use a socket: %w", err)
	}
	return c, there, nil
}

// attach starts Delve and waits until it holds the process and has its symbols. Its errors are *api.Problem.
func (s *Supervisor) attach(ctx context.Context, p *process, fresh bool) (*debugger, error) {
	problem := func(code, format string, args ...any) error {
		return &api.Problem{Code: code, Message: fmt.Sprintf(format, args...)}
	}
	c, there, err := socketpair(syscall.SOCK_SEQPACKET)
	if err != nil {
		return nil, problem(api.CodeNoDebugger, "start the debugger: %v", err)
	}
	defer there.Close()
	d := &debugger{p: p, ctl: c.(*net.UnixConn), fresh: fresh, start: time.Now(), words: &lastWords{}, replies: make(chan string, 1),
		exited: make(chan struct{}), detached: make(chan struct{}), done: make(chan struct{})}
	d.cmd = s.runSelf(there, "dap", "--attach", fmt.Sprint(p.pid))
	d.cmd.Stderr = d.words
	wait, err := s.startKnown(d.cmd, s.spawn.start, true)
	if err != nil {
		c.Close()
		return nil, problem(api.CodeNoDebugger, "start the debugger: %v", err)
	}
	heard := make(chan struct{})
	go func() { defer close(heard); d.listen() }()
	s.wg.Go(func() {
		err := wait()
		<-heard
		d.clean = err == nil
		close(d.done)
		s.debuggerEnded(d)
	})
	limit := time.NewTimer(loadLimit)
	defer limit.Stop()
	select {
	case r := <-d.replies:
		if r == "attached" {
			d.load = time.Since(d.start)
			return d, nil
		}
		d.end()
		code, words, _ := strings.Cut(strings.TrimPrefix(r, "failed "), " ")
		err = problem(code, "the debugger cannot hold the process: %s", words)
		if code == api.CodeNoPtrace {
			err.(*api.Problem).Hint = s.ptraceHint()
		}
	case <-d.done:
		err = problem(api.CodeNoDebugger, "the debugger ended at its start: %s", d.why())
	case <-limit.C:
		d.end()
		err = problem(api.CodeNoDebugger, "the debugger has not read the symbols within %v", loadLimit)
	case <-s.stop:
		d.end()
		err = problem(api.CodeLost, "the environment is being stopped")
	case <-ctx.Done():
		d.end()
		err = ctx.Err()
	}
	return nil, err
}

func (s *Supervisor) ptraceHint() string {
	if n := s.scope(); n > 0 {
		return fmt.Sprintf("kernel.yama.ptrace_scope is %d on this node: set it to 0, or start the service anew", n)
	}
	return "the kernel says that this user may not trace it: a security profile (seccomp, AppArmor) forbids ptrace, or the process has made itself undumpable"
}

// why is how Delve ended, valid after done.
func (d *debugger) why() string {
	why := d.cmd.ProcessState.String()
	if w := d.words.String(); w != "" {
		why += ": " + w
	}
	return why
}

// listen reads what Delve says until it ends.
func (d *debugger) listen() {
	defer d.ctl.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := d.ctl.Read(buf)
		if err != nil || n == 0 {
			return
		}
		switch m := string(buf[:n]); m {
		case "exited":
			close(d.exited)
		case "detached":
			close(d.detached)
		default:
			select {
			case d.replies <- m:
			default: // nobody asked, or does not wait any more
			}
		}
	}
}

// end makes Delve take its breakpoints away and let the process go, and waits for that; one that does not is killed.
// It says whether the process is as it was before: one whose debugger was killed has breakpoints in its code, and cannot
// go on.
func (d *debugger) end() bool {
	d.mu.Lock()
	if !d.told {
		d.told = true
		d.ctl.CloseWrite()
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
	limit := time.NewTimer(detachLimit)
	defer limit.Stop()
	select {
	case <-d.detached:
		return true
	case <-d.done:
	case <-limit.C:
		d.cmd.Process.Kill()
		<-d.done
	}
	return d.clean
}

// died says whether Delve ended before it was told to, leaving its breakpoints: it was killed, ran out of memory, crashed.
func (d *debugger) died() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.done:
		return !d.told && !d.clean
	default:
		return false
	}
}

// arm lets f run after a while in which no session comes.
func (d *debugger) arm(after time.Duration, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	if !d.told && d.session == nil {
		d.timer = time.AfterFunc(after, f)
	}
}

// begin hands Delve the socket of a new session; one that is there ends. over is told when the session's stream has ended
// and no other has come.
func (d *debugger) begin(over func()) (net.Conn, api.DebugStart, error) {
	d.hand.Lock()
	defer d.hand.Unlock()
	start := api.DebugStart{Generation: d.p.gen, PID: d.p.pid}
	lost := func(why string) (net.Conn, api.DebugStart, error) {
		return nil, start, &api.Problem{Code: api.CodeNoDebugger, Message: "the debugger does not answer: " + why, Hint: "start the debug session again"}
	}
	c, there, err := socketpair(syscall.SOCK_STREAM)
	if err != nil {
		return lost(err.Error())
	}
	defer there.Close()
	conn := &sessionConn{Conn: c, d: d, over: over}
	d.mu.Lock()
	if d.told {
		d.mu.Unlock()
		c.Close()
		return lost("it is being ended")
	}
	old := d.session
	d.session, d.came = conn, true
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
	if old != nil {
		old.Close()
	}
	select {
	case <-d.replies: // an answer that came too late for its session
	default:
	}
	if _, _, err := d.ctl.WriteMsgUnix([]byte("session"), unix.UnixRights(int(there.Fd())), nil); err != nil {
		conn.Close()
		return lost(err.Error())
	}
	limit := time.NewTimer(handLimit)
	defer limit.Stop()
	select {
	case r := <-d.replies:
		start.Fresh = d.fresh && r == "begun"
		start.Stopped = r == "stopped"
		return conn, start, nil
	case <-d.done:
		conn.Close()
		return lost(d.why())
	case <-limit.C:
		conn.Close()
		return lost("it is busy")
	}
}

// sessionConn is the supervisor's end of one session.
type sessionConn struct {
	net.Conn
	d    *debugger
	over func()
}

// Close ends the session. What it has set stays for a while.
func (c *sessionConn) Close() error {
	err := c.Conn.Close()
	c.d.mu.Lock()
	last := c.d.session == net.Conn(c)
	if last {
		c.d.session = nil
	}
	c.d.mu.Unlock()
	if last {
		c.over()
	}
	return err
}

// CloseWrite tells Delve that nothing more comes.
func (c *sessionConn) CloseWrite() error { return c.Conn.(*net.UnixConn).CloseWrite() }

var _ io.ReadWriteCloser = (*sessionConn)(nil)

// startHeld starts a process that stands before its first instruction, held by a debugger that has its symbols.
func (s *Supervisor) startHeld(ctx context.Context, m *api.Manifest, exe string) (*process, *debugger, error) {
	p, err := s.startProcess(m, exe, true)
	if err != nil {
		return nil, nil, debugProblem(err)
	}
	d, err := s.attach(ctx, p, true)
	if err != nil {
		// Delve sets breakpoints of its own as it attaches: what it did not let go of in order cannot be used.
		syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
		return nil, nil, debugProblem(err)
	}
	return p, d, nil
}

func debugProblem(err error) error {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	p = &api.Problem{Code: api.CodeNoDebugger, Message: "start the service under the debugger: " + err.Error()}
	if errors.Is(err, syscall.EPERM) {
		p.Code = api.CodeNoPtrace
		p.Hint = "a security profile of the container (seccomp, AppArmor) forbids ptrace"
	}
	return p
}

func (s *Supervisor) scope() int {
	if s.opts.PtraceScope != nil {
		return *s.opts.PtraceScope
	}
	return ptraceScope()
}

// mayDebug says why an executable cannot be debugged here, nil where it can.
func (s *Supervisor) mayDebug(path string) error {
	if err := symbolProblem(path); err != nil {
		return err
	}
	return scopeProblem(s.scope())
}

// roomFor says whether the memory limit leaves room for one more debugger of an executable.
func (s *Supervisor) roomFor(size int64) bool {
	left := roomLeft
	if s.opts.MemoryLeft != nil {
		left = s.opts.MemoryLeft
	}
	room, limited := left()
	return !limited || room >= debuggerNeeds(size)
}

func noMemory(size int64) error {
	return &api.Problem{Code: api.CodeNoMemory, Message: fmt.Sprintf("the environment's memory limit leaves no room for a debugger, which needs about %d MB", debuggerNeeds(size)>>20),
		Hint: "raise the container's memory limit in the staging Deployment, then start the debug session again"}
}

// tellNoDebugger says that the service runs without the debugger that was asked for.
func (s *Supervisor) tellNoDebugger(g api.Generation, err error) {
	e := &api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: g, Time: time.Now()}}
	var p *api.Problem
	if errors.As(err, &p) {
		e.Problem = *p
	} else {
		e.Problem = api.Problem{Code: api.CodeNoDebugger, Message: err.Error()}
	}
	e.Owner, e.Severity = "debug", api.SeverityWarning
	s.ring.addState(e)
}

// held says that a debugger has the service's process.
func (s *Supervisor) held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heldLocked()
}

func (s *Supervisor) heldLocked() bool {
	return s.proc != nil && s.proc.dbg != nil && s.state != api.StateExited && s.state != api.StateFailed
}

// changedLocked wakes who waits for a process or its debugger; mu is held.
func (s *Supervisor) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Debug opens a stream of the Debug Adapter Protocol with the debugger of the process of a generation: it waits until
// that runs, and attaches to it as it runs where no debugger has it. 0 is whatever runs. Of the streams of one process the
// newest counts; one that ends leaves breakpoints and a stop as they are for a minute. Its errors are *api.Problem with
// CodeNoProcess, CodeNoSymbols, CodeNoPtrace, CodeNoMemory or CodeNoDebugger, or ctx's.
func (s *Supervisor) Debug(ctx context.Context, g api.Generation) (net.Conn, api.DebugStart, error) {
	s.used()
	for {
		d, wait, err := s.debuggerFor(ctx, g)
		if err != nil {
			return nil, api.DebugStart{}, err
		}
		if d != nil {
			return d.begin(func() { s.sessionOver(d) })
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, api.DebugStart{}, ctx.Err()
		case <-s.stop:
			return nil, api.DebugStart{}, &api.Problem{Code: api.CodeLost, Message: "the environment is being stopped"}
		}
	}
}

// debuggerFor finds the debugger of a generation's process, or attaches one; where that process is not there yet it
// returns what to wait for.
func (s *Supervisor) debuggerFor(ctx context.Context, g api.Generation) (*debugger, <-chan struct{}, error) {
	d, p, wait, err := s.findDebugger(g)
	if d != nil || p == nil || err != nil {
		return d, wait, err
	}
	select {
	case s.turn <- struct{}{}:
		defer s.turn.unlock()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-s.stop:
		return nil, wait, nil
	}
	if d, p, wait, err = s.findDebugger(g); d != nil || p == nil || err != nil {
		return d, wait, err
	}
	if err := s.mayDebug(s.store.path(p.digest)); err != nil {
		return nil, nil, debugProblem(err)
	}
	if !s.roomFor(p.size) {
		return nil, nil, noMemory(p.size)
	}
	d, err = s.attach(ctx, p, false)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	p.dbg = d
	s.changedLocked()
	s.mu.Unlock()
	d.arm(s.await, func() { s.nobodyCame(d) })
	return d, nil, nil
}

// findDebugger looks: a debugger, or a process without one, or what to wait for.
func (s *Supervisor) findDebugger(g api.Generation) (*debugger, *process, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var now api.Generation
	if s.manifest != nil {
		now = s.manifest.Generation
	}
	switch {
	case g != 0 && g < now:
		return nil, nil, nil, &api.Problem{Code: api.CodeNoProcess, Message: fmt.Sprintf("generation %d does not run any more; the environment runs %d", g, now)}
	case g > now, s.manifest == nil, s.state == api.StateStopping, s.proc == nil && s.state != api.StateFailed:
		return nil, nil, s.changed, nil
	case s.proc == nil || s.state == api.StateExited || s.state == api.StateFailed:
		return nil, nil, nil, &api.Problem{Code: api.CodeNoProcess, Message: "the service does not run: " + s.reason, Hint: "it starts again with the next save"}
	}
	if d := s.proc.dbg; d != nil {
		select {
		case <-d.done: // it has just died; the service is about to be started again
			return nil, nil, s.changed, nil
		default:
			return d, nil, nil, nil
		}
	}
	return nil, s.proc, s.changed, nil
}

// sessionOver keeps what a session has set for a while.
func (s *Supervisor) sessionOver(d *debugger) {
	d.arm(s.keep, func() { s.release(d) })
}

// nobodyCame lets a process go that nobody debugs.
func (s *Supervisor) nobodyCame(d *debugger) {
	if s.release(d) {
		s.tellNoDebugger(d.p.gen, &api.Problem{Code: api.CodeDebugAway, Message: fmt.Sprintf("no debug session came within %v; the service goes on without the debugger", s.await),
			Hint: "start the debug session again; it attaches to the process as it runs"})
	}
}

// ReleaseDebug takes the debugger off the service: its breakpoints go, the process goes on.
func (s *Supervisor) ReleaseDebug(context.Context) error {
	s.used()
	s.mu.Lock()
	var d *debugger
	if s.proc != nil {
		d = s.proc.dbg
	}
	s.mu.Unlock()
	if d != nil {
		s.release(d)
	}
	return nil
}

// release takes one debugger off its process, and says whether it had one. A process that its debugger left with
// breakpoints is started again.
func (s *Supervisor) release(d *debugger) bool {
	s.mu.Lock()
	mine := d.p.dbg == d
	s.mu.Unlock()
	if !mine {
		return false
	}
	clean := d.end()
	s.mu.Lock()
	if mine = d.p.dbg == d; mine && clean {
		d.p.dbg = nil
		s.changedLocked()
	}
	s.mu.Unlock()
	if !clean && mine {
		s.again(d, "the debugger did not let go of it", false)
	}
	return mine
}

// debuggerEnded looks whether Delve died with its breakpoints in the service's code.
func (s *Supervisor) debuggerEnded(d *debugger) {
	if d.died() {
		s.again(d, "the debugger died: "+d.why(), true)
	}
}

// again starts the generation that runs anew, because its debugger is gone and has left breakpoints in its code: the
// first thread to reach one would be the end of it.
func (s *Supervisor) again(d *debugger, why string, debug bool) {
	select {
	case s.turn <- struct{}{}:
		defer s.turn.unlock()
	case <-s.stop:
		return
	}
	s.mu.Lock()
	p := d.p
	mine := s.proc == p && p.dbg == d
	var m api.Manifest
	if s.manifest != nil {
		m = *s.manifest
	}
	s.mu.Unlock()
	if !mine {
		return
	}
	d.mu.Lock()
	came := d.came
	d.mu.Unlock()
	m.Process.Debug = debug && came && time.Since(d.start) > crashAgain
	s.gate.shut()
	s.setState(api.StateStopping, p, nil, why)
	syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.done
	s.killDescendants()
	s.mu.Lock()
	s.proc = nil // there is nothing left to stop
	s.mu.Unlock()
	s.tellNoDebugger(m.Generation, &api.Problem{Code: api.CodeNoDebugger, Message: why + "; the service was started again",
		Hint: "if the container's memory limit is low, raise it: the debugger needs about " + fmt.Sprint(debuggerNeeds(m.Executable.Size)>>20) + " MB"})
	s.replace(context.Background(), &m, filepath.Join(s.opts.Dir, "bin", m.Executable.Path), nil, why)
}
