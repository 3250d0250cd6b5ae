package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.dev/api"
)

// envMark is set in the environment of what a supervisor starts, with its folder: a supervisor that comes after one
// that was killed finds by it what is left over.
const envMark = "FAIRLEAD_WORK"

// spawner starts processes from one thread that lives as long as the supervisor: PDEATHSIG fires when the THREAD that
// forked ends, not the process.
type spawner struct {
	reqs chan func()
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{make(chan func()), make(chan struct{})}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for {
			select {
			case f := <-s.reqs:
				f()
			case <-s.done:
				return
			}
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	err := make(chan error, 1)
	s.reqs <- func() { err <- cmd.Start() }
	return <-err
}

// process is one run of the service.
type process struct {
	gen    api.Generation
	digest api.Digest
	cmd    *exec.Cmd
	pid    int
	start  time.Time
	done   chan struct{} // closed when it has been waited for
	exit   int           // valid after done: 0-255, 128+n for signal n
	output sync.WaitGroup
	exe    string
	size   int64     // of the executable, in bytes
	core   string    // valid after done: the core file that it left
	dbg    *debugger // guarded by Supervisor.mu
}

// startProcess starts the executable in a process group of its own, its output going to the ring. A stopped one stands
// before its first instruction.
func (s *Supervisor) startProcess(m *api.Manifest, exe string, stopped bool) (p *process, err error) {
	cmd := exec.Command(exe, m.Process.Args...)
	asked, execs, err := s.before(cmd)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range cmd.ExtraFiles { // the child's
			f.Close()
		}
		if p == nil && asked != nil {
			asked.Close()
		}
	}()
	cmd.Dir = m.Process.Dir
	cmd.Env = append(serviceEnv(os.Environ()), m.Process.Env...)
	cmd.Env = append(cmd.Env, envMark+"="+s.opts.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	made := &process{gen: m.Generation, digest: m.Executable.Digest, cmd: cmd, start: time.Now(), done: make(chan struct{}), exe: exe, size: m.Executable.Size}
	start := s.spawn.start
	if stopped {
		start = func(cmd *exec.Cmd) error { return s.spawn.startStopped(cmd, execs) }
	}
	wait, err := s.startKnown(cmd, start, true)
	outW.Close()
	errW.Close()
	if err != nil {
		outR.Close()
		errR.Close()
		return nil, err
	}
	p = made
	p.pid = cmd.Process.Pid
	if asked != nil {
		s.wg.Go(func() { s.leadConnections(p.gen, asked) })
	}
	p.output.Go(func() { defer outR.Close(); s.ring.capture(outR, p.gen, false) })
	p.output.Go(func() { defer errR.Close(); s.ring.capture(errR, p.gen, true) })
	s.wg.Go(func() {
		wait()
		ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if p.exit = ws.ExitStatus(); ws.Signaled() {
			p.exit = 128 + int(ws.Signal())
		}
		if ws.CoreDump() {
			p.core = findCore(p, ws.Signal())
		}
		// What it wrote last is read before its end is told; a child that holds the pipe open does not delay that.
		read := make(chan struct{})
		go func() { p.output.Wait(); close(read) }()
		select {
		case <-read:
		case <-time.After(50 * time.Millisecond):
		}
		close(p.done)
	})
	return p, nil
}

// before has the service's process do first what it has to, and says how many programs it is on its way then. asked hears where it
// connects to; nil: nobody wants to know.
func (s *Supervisor) before(cmd *exec.Cmd) (asked net.Conn, execs int, err error) {
	what := ""
	if s.scope() == 1 {
		what += letTrace
	}
	if s.calls.Redirects() {
		here, there, err := socketpair(syscall.SOCK_STREAM)
		if err != nil {
			return nil, 0, err
		}
		asked, cmd.ExtraFiles = here, []*os.File{there}
		what += askConnect
	}
	if what == "" {
		return nil, 1, nil
	}
	cmd.Path, cmd.Args = self, append([]string{"fairlead-pod", becomeService, what}, cmd.Args...)
	return asked, 2, nil
}

// startKnown starts a child that the reaper leaves to the returned wait, and killDescendants to whoever ends it if it is
// spared.
func (s *Supervisor) startKnown(cmd *exec.Cmd, start func(*exec.Cmd) error, spared bool) (wait func() error, err error) {
	s.reaper.mu.Lock()
	defer s.reaper.mu.Unlock()
	if err := start(cmd); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	s.reaper.known[pid] = true
	if spared {
		s.reaper.spared[pid] = true
	}
	return func() error {
		err := cmd.Wait()
		s.reaper.mu.Lock()
		delete(s.reaper.known, pid)
		delete(s.reaper.spared, pid)
		s.reaper.mu.Unlock()
		s.reaper.reap() // it may have hidden orphans behind it
		return err
	}, nil
}

// serviceEnv is the supervisor's own environment without what belongs to it.
func serviceEnv(env []string) []string {
	out := env[:0:0]
	for _, kv := range env {
		if !strings.HasPrefix(kv, "FAIRLEAD_") {
			out = append(out, kv)
		}
	}
	return out
}

// stopProcess ends the process and all it started: SIGTERM, at most grace, then SIGKILL. It returns when all are gone. Its
// debugger goes first: a process that stands hears nothing, and one that is dead is not over before its tracer has looked.
func (s *Supervisor) stopProcess(p *process, grace time.Duration) {
	if d := s.takeDebugger(p); d != nil && !d.end() {
		grace = 0 // it has breakpoints in its code and nobody to step over them
	}
	syscall.Kill(-p.pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
	}
	syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.done
	s.killDescendants()
}

// killDescendants ends what the service left: children that moved to other process groups or sessions. What is spared
// stays with all below it: the next process that stands ready, debuggers, tasks.
func (s *Supervisor) killDescendants() {
	for range 50 { // each round finds what the former one orphaned; a fork bomb is not waited for
		if s.killRound() == 0 {
			return
		}
		s.reaper.reap()
		time.Sleep(2 * time.Millisecond)
	}
}

// killRound is one round of killDescendants. Nothing is started meanwhile: a child is spared from the moment that it is
// there.
func (s *Supervisor) killRound() int {
	s.reaper.mu.Lock()
	defer s.reaper.mu.Unlock()
	ds := descendants(os.Getpid(), s.reaper.spared)
	for _, pid := range ds {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	return len(ds)
}

// takeDebugger makes a process's debugger the caller's to end.
func (s *Supervisor) takeDebugger(p *process) *debugger {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := p.dbg
	p.dbg = nil
	return d
}

// killLeftovers ends what a killed supervisor of the same folder left running: it would hold the port.
func killLeftovers(dir string) {
	killMarked(envMark + "=" + dir)
}

// pidOf reads a folder's name of /proc.
func pidOf(name string) (int, bool) {
	pid, err := strconv.Atoi(name)
	return pid, err == nil
}

// waitGone waits until the process, not necessarily a child, has ended.
func waitGone(pid int, limit time.Duration) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if n, err := unix.Poll(fds, int(limit.Milliseconds())); n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

// descendants lists the processes below pid, zombies left out, and those of spared with all below them.
func descendants(pid int, spared map[int]bool) []int {
	kids := childrenOf
	if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", os.Getpid(), os.Getpid())); err != nil {
		kids = everyChild() // a kernel without CONFIG_PROC_CHILDREN
	}
	var out []int
	for q := kids(pid); len(q) > 0; q = q[1:] {
		if spared[q[0]] {
			continue
		}
		if state, _, ok := statOf(q[0]); ok && state != 'Z' && state != 'X' {
			out = append(out, q[0])
		}
		q = append(q, kids(q[0])...)
	}
	return out
}

// childrenOf reads the children of each of a process's threads (proc_pid_task(5)): a few files, where a walk over /proc
// is one for every process of the machine.
func childrenOf(pid int) []int {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []int
	for _, t := range threads {
		b, err := os.ReadFile(filepath.Join(dir, t.Name(), "children"))
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// everyChild looks at every process once.
func everyChild() func(int) []int {
	children := map[int][]int{}
	ents, err := os.ReadDir("/proc")
	if err != nil {
		return func(int) []int { return nil }
	}
	for _, e := range ents {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, ppid, ok := statOf(p); ok {
			children[ppid] = append(children[ppid], p)
		}
	}
	return func(pid int) []int { return children[pid] }
}

// statOf reads a process's state and parent from /proc/PID/stat (proc_pid_stat(5)); the name may contain anything.
func statOf(pid int) (state byte, ppid int, ok bool) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, 0, false
	}
	s := string(b)
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return 0, 0, false
	}
	f := strings.Fields(s[i+1:])
	if len(f) < 2 {
		return 0, 0, false
	}
	ppid, err = strconv.Atoi(f[1])
	return f[0][0], ppid, err == nil
}

// reaper collects orphans: as the pod's first process (or a subreaper) the supervisor inherits them.
type reaper struct {
	mu    sync.Mutex
	known map[int]bool // children that somebody waits for; started under mu, so that none is seen before it is known
	// spared are those that killDescendants leaves alone.
	spared map[int]bool
}

// becomeReaper makes orphans below this process its children, as they are anyway where it is process 1.
func becomeReaper() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

func (r *reaper) run(stop <-chan struct{}) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGCHLD)
	defer signal.Stop(ch)
	for {
		select {
		case <-ch:
			r.reap()
		case <-stop:
			return
		}
	}
}

// reap waits for every dead child that nobody else does. It only peeks at first: waiting for a known child here would
// steal its exit status. A known one at the front of the queue hides the others; whoever waits for it reaps again.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		pid := siginfoPID(&info)
		if err != nil || pid == 0 || r.known[pid] {
			return
		}
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, unix.WNOHANG, nil)
	}
}
