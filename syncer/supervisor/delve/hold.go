package delve

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-delve/delve/pkg/proc"
	"github.com/go-delve/delve/service"
	"github.com/go-delve/delve/service/api"
	"github.com/go-delve/delve/service/dap"
	"github.com/go-delve/delve/service/debugger"
	"golang.org/x/sys/unix"
)

const (
	// stopLimit bounds how long a process may take to stop before the attachment; one that waits for a disk stops later.
	stopLimit = time.Second
	// flushLimit bounds how long the end of a process is told to the session before this process leaves.
	flushLimit = time.Second
	// closeLimit bounds how long a session's request in hand may go on once its connection has been closed.
	closeLimit = 500 * time.Millisecond
)

// Hold attaches to a process and serves debug sessions of it, one after another, until the control socket ends; then it
// takes its breakpoints away and lets the process go on. Between two sessions the process runs or stands as it did.
//
// The control socket keeps messages apart (SOCK_SEQPACKET). Hold says, a word first:
//
//	attached                  the process stands, its symbols are loaded
//	failed CODE WORDS         it could not be attached to, and goes on; Hold returns
//	running|stopped|begun     the answer to a session, before it is served: what the process does; begun is stopped where
//	                          the attachment found it
//	exited                    the process has ended
//	detached                  the process has been let go; what is left to do here takes a moment
//
// It is told nothing but "session", with the descriptor of a connected socket beside it (unix(7), SCM_RIGHTS).
func Hold(f *os.File, pid int) error {
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("use the control socket: %w", err)
	}
	ctl, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("the control socket is none")
	}
	h := &holder{ctl: ctl, pid: pid, stop: make(chan struct{})}
	if h.dbg, err = attach(pid); err != nil {
		h.say("failed " + codeOf(err) + " " + err.Error())
		return err
	}
	h.say("attached")
	go h.watch()
	for {
		conn, err := h.receive()
		if err != nil {
			break
		}
		h.endSession()
		h.say(h.state())
		h.cur = h.serve(conn)
	}
	return h.letGo()
}

// holder is one attachment. Its goroutines: one that waits for the process's end, and one a session, which Delve
// multiplies.
type holder struct {
	ctl    *net.UnixConn
	dbg    *debugger.Debugger
	pid    int
	stop   chan struct{}
	cur    *session
	exited atomic.Bool
}

func (h *holder) say(s string) { h.ctl.Write([]byte(s)) }

// attach attaches to a process that it has stopped by a signal before: Delve looks for an attached process's stop every
// 200 ms (pkg/proc/native, wait), and finds that of one that stands already at the first look.
func attach(pid int) (*debugger.Debugger, error) {
	if st := statOf(pid); st != 'T' {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return nil, fmt.Errorf("stop process %d: %w", pid, err)
		}
	}
	for end := time.Now().Add(stopLimit); statOf(pid) != 'T' && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	dbg, err := debugger.New(&debugger.Config{AttachPid: pid, Backend: "default", CheckGoVersion: false}, nil)
	// Also takes back the SIGSTOP that attaching sends and that a process that stands already has not seen: it would stop
	// again at its detachment. A traced process stays where it is.
	syscall.Kill(pid, syscall.SIGCONT)
	return dbg, err
}

// statOf reads a process's state letter, proc_pid_stat(5); 0 where there is none.
func statOf(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndexByte(b, ')'); err == nil && i >= 0 && len(b) > i+2 {
		return b[i+2]
	}
	return 0
}

// codeOf sorts Delve's words, which are all that it gives.
func codeOf(err error) string {
	s := strings.ToLower(err.Error())
	switch {
	case errors.Is(err, syscall.EPERM), strings.Contains(s, "not permitted"), strings.Contains(s, "ptrace_scope"), strings.Contains(s, "does not own"):
		return "no-ptrace"
	case strings.Contains(s, "debug info"), strings.Contains(s, "dwarf"):
		return "no-symbols"
	}
	return "no-debugger"
}

// watch tells the end of the process. A thread that stands is a zombie until it is waited for, and the process with it:
// a process that is killed while it stands is the supervisor's to notice.
func (h *holder) watch() {
	fd, err := unix.PidfdOpen(h.pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n > 0 || err != nil && err != unix.EINTR {
			break
		}
	}
	h.exited.Store(true)
	h.say("exited")
}

// receive waits for the next session's socket.
func (h *holder) receive() (net.Conn, error) {
	buf, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := h.ctl.ReadMsgUnix(buf, oob)
	if err == nil && n == 0 {
		err = errors.New("the supervisor lets go")
	}
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil || len(msgs) != 1 {
		return nil, errors.New("a session without its socket")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("a session without its socket")
	}
	unix.CloseOnExec(fds[0])
	f := os.NewFile(uintptr(fds[0]), "session")
	defer f.Close()
	return net.FileConn(f)
}

// state is what the process does. While a session's command is under way the debugger is locked, so that is asked first.
func (h *holder) state() string {
	if h.dbg.IsRunning() {
		return "running"
	}
	if h.dbg.StopReason() == proc.StopAttached {
		return "begun"
	}
	return "stopped"
}

// session is one front end's time with the process.
type session struct {
	net.Conn
	r          *bufio.Reader
	was        string
	done       chan struct{}
	configured atomic.Bool   // it has been told to go on from where it was found
	terminated chan struct{} // gets a value when the end of the process has been told
}

func (s *session) Read(b []byte) (int, error) { return s.r.Read(b) }

// Write looks at what goes by.
func (s *session) Write(b []byte) (int, error) {
	if len(b) < 4096 { // the two messages that count are short, and these words are in no other's head
		if bytes.Contains(b, []byte(`"command":"configurationDone"`)) {
			s.configured.Store(true)
		}
	}
	n, err := s.Conn.Write(b)
	if len(b) < 4096 && bytes.Contains(b, []byte(`"event":"terminated"`)) {
		select {
		case s.terminated <- struct{}{}:
		default:
		}
	}
	return n, err
}

// serve speaks, beside this, what the first byte on a connection is of: the Debug Adapter Protocol, whose messages begin
// with "Content-Length", or Delve's JSON-RPC.
func (h *holder) serve(conn net.Conn) *session {
	s := &session{Conn: conn, r: bufio.NewReader(conn), was: h.state(), done: make(chan struct{}), terminated: make(chan struct{}, 1)}
	go func() {
		defer close(s.done)
		first, err := s.r.Peek(1)
		if err != nil {
			conn.Close()
			return
		}
		if first[0] == '{' {
			s.serveRPC(h.dbg, h.pid)
			return
		}
		dap.NewSession(s, &dap.Config{StopTriggered: h.stop, Config: &service.Config{
			AcceptMulti: true, // the end of a session is not the end of the debugger
			Listener:    nowhere{},
			Debugger:    debugger.Config{AttachPid: h.pid, Backend: "default"},
		}}, h.dbg).ServeDAPCodec()
	}()
	return s
}

// endSession closes the session that is there. One that broke off between its attachment, which stops the process, and
// its configuration leaves the process as it found it.
func (h *holder) endSession() {
	s := h.cur
	if s == nil {
		return
	}
	h.cur = nil
	s.Close()
	select {
	case <-s.done:
	case <-time.After(closeLimit):
	}
	if s.was == "running" && !s.configured.Load() && !h.dbg.IsRunning() && !h.exited.Load() {
		resumed := make(chan struct{})
		go h.dbg.Command(&api.DebuggerCommand{Name: api.Continue}, resumed, nil, nil)
		select {
		case <-resumed:
		case <-time.After(closeLimit):
		}
	}
}

// letGo takes the breakpoints away and detaches.
func (h *holder) letGo() error {
	if h.exited.Load() {
		if h.cur != nil {
			select {
			case <-h.cur.terminated:
			case <-h.cur.done:
			case <-time.After(flushLimit):
			}
		}
		return nil
	}
	close(h.stop)
	if s := h.cur; s != nil {
		s.Close()
		select {
		case <-s.done:
		case <-time.After(closeLimit):
		}
	}
	if h.dbg.IsRunning() {
		if _, err := h.dbg.Command(&api.DebuggerCommand{Name: api.Halt}, nil, nil, nil); err != nil {
			return h.gone(err)
		}
	}
	for _, b := range h.dbg.Breakpoints(false) {
		h.dbg.ClearBreakpoint(b)
	}
	// Delve halts a process by SIGTRAP. Where the process stopped by itself at the same time, that signal still waits for
	// it, and without a debugger it would be its end.
	for range 20 {
		if !trapPending(h.pid) {
			break
		}
		resumed, back := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := h.dbg.Command(&api.DebuggerCommand{Name: api.Continue}, resumed, nil, nil)
			back <- err
		}()
		select {
		case <-resumed:
			h.dbg.Command(&api.DebuggerCommand{Name: api.Halt}, nil, nil, nil)
		case err := <-back:
			back <- err
		}
		if err := <-back; err != nil {
			return h.gone(err)
		}
	}
	told := make(chan struct{})
	go func() { // Delve rests for 50 ms after it has let go, and who waits need not
		defer close(told)
		for end := time.Now().Add(time.Second); tracerOf(h.pid) != 0 && statOf(h.pid) != 'Z' && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		h.say("detached")
	}()
	err := h.dbg.Detach(false)
	<-told
	// A thread that hit a breakpoint while the others were being stopped has a SIGSTOP waiting for it.
	syscall.Kill(h.pid, syscall.SIGCONT)
	if err != nil {
		return h.gone(err)
	}
	return nil
}

// gone turns an error into nil where the process has ended meanwhile: then nothing of it is left to be spoiled.
func (h *holder) gone(err error) error {
	var exited proc.ErrProcessExited
	st := statOf(h.pid)
	if errors.As(err, &exited) || errors.Is(err, proc.ErrProcessDetached) || st == 0 || st == 'Z' {
		return nil
	}
	return err
}

// trapPending says whether a SIGTRAP waits for the process or its first thread (proc_pid_status(5)).
func trapPending(pid int) bool {
	for _, name := range []string{"SigPnd", "ShdPnd"} {
		var mask uint64
		if v := statusField(pid, name); v != "" {
			fmt.Sscanf(v, "%x", &mask)
		}
		if mask&(1<<(syscall.SIGTRAP-1)) != 0 {
			return true
		}
	}
	return false
}

// tracerOf is the process that traces pid, or 0.
func tracerOf(pid int) int {
	var n int
	fmt.Sscanf(statusField(pid, "TracerPid"), "%d", &n)
	return n
}

func statusField(pid int, name string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// nowhere is the listener that Delve names when a client leaves; nothing listens.
type nowhere struct{}

func (nowhere) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (nowhere) Close() error              { return nil }
func (nowhere) Addr() net.Addr            { return &net.UnixAddr{Name: "fairlead", Net: "unix"} }
