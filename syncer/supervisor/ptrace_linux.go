package supervisor

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fairlead.dev/api"
	"fairlead.dev/syncer/supervisor/redirect"
)

// startStopped starts a process that then stands before its first instruction, untraced: it is traced up to its exec,
// where the kernel stops it, and let go with a SIGSTOP. ptrace(2) belongs to a thread, so all of it is done on the
// spawner's. execs is how many programs it is on its way: one, or two where the first only prepares for the second.
func (s *spawner) startStopped(cmd *exec.Cmd, execs int) error {
	res := make(chan error, 1)
	s.reqs <- func() { res <- startStopped(cmd, execs) }
	return <-res
}

func startStopped(cmd *exec.Cmd, execs int) error {
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	fail := func(act string, err error) error {
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("%s: %w", act, err)
	}
	for seen := 0; ; {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fail("wait for its start", err)
		}
		if !ws.Stopped() {
			return fmt.Errorf("it ended before it had started (%#x)", uint32(ws))
		}
		sig := int(ws.StopSignal())
		if ws.StopSignal() == unix.SIGTRAP {
			if seen++; seen == execs {
				break
			}
			sig = 0
		}
		if err := unix.PtraceCont(pid, sig); err != nil { // a signal to the program before, the Go runtime's own for one
			return fail("start it", err)
		}
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(pid), 0, uintptr(unix.SIGSTOP), 0, 0); errno != 0 {
		return fail("let go of it", errno)
	}
	return nil
}

// ptraceScope reads how yama restricts debuggers (the kernel's documentation, admin-guide/LSM/Yama.rst): 0 not beyond
// what the kernel does anyway, 1 to ancestors and whom a process has named, 2 to CAP_SYS_PTRACE, 3 altogether.
func ptraceScope() int {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return 0
	}
	n := 0
	fmt.Sscan(string(b), &n)
	return n
}

// scopeProblem says that yama refuses a debugger, nil where it does not.
func scopeProblem(scope int) error {
	if scope < 2 {
		return nil
	}
	p := noPtrace(fmt.Sprintf("the kernel refuses debuggers: kernel.yama.ptrace_scope is %d", scope))
	if scope == 2 {
		if capable(unix.CAP_SYS_PTRACE) {
			return nil
		}
		p.Hint = "set kernel.yama.ptrace_scope to 1 on the node, or give the container the capability SYS_PTRACE"
	}
	return p
}

func noPtrace(message string) *api.Problem {
	return &api.Problem{Code: api.CodeNoPtrace, Message: message,
		Hint: "a value of 3 stays until the node is started anew: have kernel.yama.ptrace_scope set to 1 or less at its start"}
}

// capable says whether this process has a capability in effect.
func capable(c uint) bool {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var mask uint64
			fmt.Sscanf(strings.TrimSpace(v), "%x", &mask)
			return mask&(1<<c) != 0
		}
	}
	return false
}

// becomeService is what a service is started through where something is to be done before in its own process: a command of
// fairlead-pod, whose first argument is what, of the letters below.
const (
	becomeService = "exec"
	letTrace      = "t" // let it be debugged: yama may take only ancestors and named processes, and Delve is its sibling
	askConnect    = "c" // have the kernel ask where it connects to, over descriptor 3
)

// init keeps main on the process's first thread where that is to become a service. Only an init function can: before main the runtime lets
// go of the thread, and on a busy machine main goes on on another one, once in a thousand starts.
func init() {
	if len(os.Args) > 1 && os.Args[1] == becomeService {
		runtime.LockOSThread()
	}
}

// Become does what the first argument says, and becomes the program of the others; it returns only what went wrong. It must be
// called by main: who traces the start sees the process's first thread only.
func Become(args []string) error {
	if unix.Gettid() != unix.Getpid() {
		return errors.New("not on the first thread")
	}
	if len(args) < 2 {
		return errors.New("no program")
	}
	what, args := args[0], args[1:]
	if strings.Contains(what, askConnect) {
		if err := redirect.Install(3); err != nil {
			return err
		}
	}
	if strings.Contains(what, letTrace) {
		if err := allowTracer(); err != nil {
			return err
		}
	}
	return fmt.Errorf("start %s: %w", args[0], syscall.Exec(args[0], args, os.Environ()))
}

// allowTracer lets any process of the same user debug this one (prctl(2), PR_SET_PTRACER, which outlives execve(2)).
func allowTracer() error {
	const anyone = ^uintptr(0) // PR_SET_PTRACER_ANY
	// Without yama there is nothing to allow: EINVAL.
	if err := unix.Prctl(unix.PR_SET_PTRACER, anyone, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("allow a debugger: %w", err)
	}
	return nil
}

// symbolProblem says that an executable cannot be debugged, nil where it can.
func symbolProblem(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("look for symbols: %w", err)
	}
	defer f.Close()
	for _, name := range []string{".debug_info", ".zdebug_info"} {
		if f.Section(name) != nil {
			return nil
		}
	}
	return &api.Problem{Code: api.CodeNoSymbols, Message: "the executable was built without symbols",
		Hint: "build it without -ldflags=-s -w; a debug session does so by itself at the next build"}
}

// standing says whether every thread that matters stands: 't' is where a tracer has stopped it, 'T' where a signal has.
func standing(pid int) bool {
	st, _, ok := statOf(pid)
	return ok && (st == 't' || st == 'T')
}

// allDead says whether a process is dead and yet not over: its threads wait for their tracer, and its parent hears
// nothing until that has looked or has gone.
func allDead(pid int) bool {
	ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false
	}
	for _, e := range ents {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, e.Name()))
		if err != nil {
			continue
		}
		i := strings.LastIndexByte(string(b), ')')
		if i < 0 || len(b) < i+3 || b[i+2] != 'Z' && b[i+2] != 'X' {
			return false
		}
	}
	return true
}
