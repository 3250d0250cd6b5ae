package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"fairlead.dev/api"
)

// process is a started engine.
type process struct {
	cmd  *exec.Cmd
	tail *tail
	done chan struct{} // closed when it has been waited for
}

// start starts an engine in a process group of its own: a SIGTERM for ours is for us alone, who know which signal it wants.
func (r *running) start(args []string) (*process, error) {
	p := &process{cmd: exec.Command(args[0], args[1:]...), tail: &tail{to: r.log}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = p.tail, p.tail, serverEnv()
	p.cmd.ExtraFiles = []*os.File{r.lock}
	p.cmd.WaitDelay = time.Second // a child of it that lives on has the pipe
	p.cmd.SysProcAttr = unprivileged()
	p.cmd.SysProcAttr.Pdeathsig = r.kind.end()
	if err := p.cmd.Start(); err != nil {
		return nil, cannotStart(args[0], err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	return p, nil
}

// stop ends it as it likes to be ended, and by force after a while: it has written what it promised to keep.
func (p *process) stop(sig syscall.Signal, limit time.Duration) error {
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
		return nil
	case <-time.After(limit):
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	return fmt.Errorf("%s did not end within %s of %s, and was killed", filepath.Base(p.cmd.Path), limit, sig)
}

// how and last are valid after done.
func (p *process) how() string  { return p.cmd.ProcessState.String() }
func (p *process) last() string { return p.tail.String() }

// within serves data that is being made on a socket that only we can enter, calls f once the engine answers, and ends it.
func (r *running) within(ctx context.Context, args []string, socket string, f func() error) error {
	p, err := r.start(args)
	if err != nil {
		return err
	}
	for answered := error(nil); ; {
		if answered = ask(ctx, r.kind, "unix", socket); answered == nil {
			break
		}
		select {
		case <-p.done:
			return &api.Problem{Code: "engine-failed", Message: fmt.Sprintf("%s ended (%s): %s", Title(r.spec.Kind), p.how(), p.last()), Hint: "see its log with fairlead logs"}
		case <-ctx.Done():
			p.stop(r.kind.end(), endLimit)
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	err = f()
	return errors.Join(err, p.stop(r.kind.end(), endLimit))
}

// tool runs a program to its end. Its error has the program's last lines.
func (r *running) tool(ctx context.Context, stdin io.Reader, dir string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = unprivileged()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.ExtraFiles = []*os.File{r.lock}
	return finish(cmd, stdin, dir, env)
}

// finish runs a program to its end; a client, which may run as whoever we are.
func finish(cmd *exec.Cmd, stdin io.Reader, dir string, env []string) error {
	var out tail
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = stdin, &out, &out, dir, append(serverEnv(), env...)
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return cannotStart(cmd.Path, err)
	}
	if err := cmd.Wait(); err != nil {
		return &toolError{filepath.Base(cmd.Path), err, out.String()}
	}
	return nil
}

// toolError is a program that did not do its work.
type toolError struct {
	name string
	err  error
	last string // its last lines
}

func (e *toolError) Error() string {
	if e.last == "" {
		return fmt.Sprintf("%s: %v", e.name, e.err)
	}
	return fmt.Sprintf("%s: %s", e.name, e.last)
}

func cannotStart(path string, err error) error {
	hint := "run it by hand to see what is wrong with it"
	if os.Geteuid() == 0 {
		hint = "databases do not run as root, and the kernel lets no user namespace be made here: run Fairlead as an ordinary user"
	}
	return &api.Problem{Code: "engine-failed", Message: fmt.Sprintf("start %s: %v", path, err), Hint: hint}
}

// unprivileged starts a program that is to have no privileges. PostgreSQL and MariaDB refuse root, and the folder of root's data
// can be entered by no other user. So root's engines run in a user namespace in which root is nobody, without capabilities
// outside of it; the files are root's.
func unprivileged() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return attr
	}
	uid, gid := 65534, 65534
	if u, err := user.Lookup("nobody"); err == nil { // a user that has a name: initdb asks for it
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
	}
	attr.Cloneflags = syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: 0, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: os.Getegid(), Size: 1}}
	return attr
}

// serverEnv is this process's environment without what steers the engines' programs: what holds here is in their arguments
// and files.
func serverEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "MYSQL") && !strings.HasPrefix(kv, "MARIADB") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			out = append(out, kv)
		}
	}
	return append(out, "LC_ALL=C.UTF-8")
}

// tail passes on what is written, and keeps the last lines of it.
type tail struct {
	mu  sync.Mutex
	to  io.Writer // may be nil
	end []byte
}

// A few lines say why a database does not start, or which statement of a seed was wrong.
const tailBytes, tailLines = 2 << 10, 5

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b...)
	if over := len(t.end) - tailBytes; over > 0 {
		t.end = append(t.end[:0], t.end[over:]...)
	}
	if t.to != nil {
		t.to.Write(b) // a reader that is gone does not stop the engine
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.end), []byte("\n"))
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return strings.ToValidUTF8(string(bytes.Join(lines, []byte("; "))), "?")
}
