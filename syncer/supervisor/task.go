package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"fairlead.dev/api"
)

const (
	// maxTasks bounds how many tests are debugged at a time: each is a Delve, and somebody looks at it.
	maxTasks = 4
	// awaitTask is how long a task waits for its debug stream: its agent asks for it at once.
	awaitTask = time.Minute
	// taskMark is set in the environment of a task and so of all that it starts, with its id.
	taskMark = "FAIRLEAD_TASK"
)

// task is a program that is debugged beside the service, with a folder of its own.
type task struct {
	api.TaskStarted
	root  string // its folder; all of it goes with the task
	env   []string
	size  int64
	timer *time.Timer // removes it where nobody opens it; nil once somebody has
}

// StartTask readies a program and the files of its working directory. It is started by its debug stream's client
// (launch, mode "exec"), and goes with that. Its errors are *api.Problem with CodeBadManifest, CodeBlobMissing,
// CodeDiskFull, CodeNoMemory or CodeTaskLimit, or the file system's.
func (s *Supervisor) StartTask(ctx context.Context, t api.Task) (api.TaskStarted, error) {
	s.used()
	select {
	case <-s.began: // the former supervisor's tasks have been removed
	case <-ctx.Done():
		return api.TaskStarted{}, ctx.Err()
	}
	if err := s.checkTask(&t); err != nil {
		return api.TaskStarted{}, err
	}
	var id [8]byte
	rand.Read(id[:])
	k := &task{TaskStarted: api.TaskStarted{ID: hex.EncodeToString(id[:])}, size: t.Executable.Size}
	k.root = filepath.Join(s.opts.Dir, "tasks", k.ID)
	k.Program = filepath.Join(k.root, "bin", t.Executable.Path)
	s.mu.Lock()
	if s.manifest != nil {
		k.env = append(k.env, s.manifest.Process.Env...)
	}
	k.env = append(append(k.env, t.Env...), taskMark+"="+k.ID)
	if len(s.tasks) >= maxTasks {
		s.mu.Unlock()
		return api.TaskStarted{}, &api.Problem{Code: api.CodeTaskLimit, Message: fmt.Sprintf("%d tests are being debugged in the environment", maxTasks),
			Hint: "end one of their debug sessions"}
	}
	s.tasks[k.ID] = k
	s.mu.Unlock()
	if err := s.fillTask(k, &t); err != nil {
		s.dropTask(k)
		return api.TaskStarted{}, err
	}
	s.mu.Lock()
	k.timer = time.AfterFunc(s.awaitTask, func() {
		s.mu.Lock()
		unopened := k.timer != nil
		s.mu.Unlock()
		if unopened {
			s.dropTask(k)
		}
	})
	s.mu.Unlock()
	return k.TaskStarted, nil
}

func (s *Supervisor) checkTask(t *api.Task) error {
	bad := func(format string, args ...any) error {
		return &api.Problem{Code: api.CodeBadManifest, Message: "task: " + fmt.Sprintf(format, args...)}
	}
	x := t.Executable
	if x.Path != filepath.Base(x.Path) || x.Link != "" {
		return bad("%q cannot be the executable", x.Path)
	}
	if err := checkFiles([]api.File{x}); err != nil {
		return err
	}
	if err := checkFiles(t.Files); err != nil {
		return err
	}
	switch {
	case t.Folder != "" && !fs.ValidPath(t.Folder):
		return bad("the folder %q is not a clean relative path", t.Folder)
	case t.Dir != "" && (!s.opts.SharesFiles || !filepath.IsAbs(t.Dir)):
		return bad("this pod takes no folder %q", t.Dir)
	case t.Dir != "" && len(t.Files) > 0:
		return bad("both a folder and files")
	}
	var missing []api.Digest
	for _, f := range append([]api.File{x}, t.Files...) {
		if f.Link == "" && !s.store.has(f.Digest, f.Size) {
			missing = append(missing, f.Digest)
		}
	}
	if len(missing) > 0 {
		return &api.Problem{Code: api.CodeBlobMissing, Message: fmt.Sprintf("%d of the task's files are not in the pod", len(missing)), Missing: missing}
	}
	if err := checkExecutable(s.store.path(x.Digest)); err != nil {
		return err
	}
	if err := s.mayDebug(s.store.path(x.Digest)); err != nil {
		return err
	}
	if !s.roomFor(x.Size) {
		return noMemory(x.Size)
	}
	return nil
}

// fillTask makes the task's folder.
func (s *Supervisor) fillTask(k *task, t *api.Task) error {
	if err := os.MkdirAll(filepath.Dir(k.Program), 0o700); err != nil {
		return writeProblem("make the task's folder", err)
	}
	if err := os.Link(s.store.path(t.Executable.Digest), k.Program); err != nil {
		return writeProblem("place the task's program", err)
	}
	if k.Dir = t.Dir; t.Dir != "" {
		return nil
	}
	files := filepath.Join(k.root, "files")
	tr, err := openTree("task", files)
	if err != nil {
		return writeProblem("make the task's folder", err)
	}
	defer tr.root.Close()
	if t.Folder != "" {
		if err := tr.root.MkdirAll(t.Folder, 0o755); err != nil {
			return writeProblem("make the task's folder", err)
		}
	}
	c, err := tr.prepare(t.Files, nil, s.store)
	if err != nil {
		return err
	}
	k.Dir = filepath.Join(files, filepath.FromSlash(t.Folder))
	return c.commit()
}

// dropTask ends what a task has started and removes its folder.
func (s *Supervisor) dropTask(k *task) {
	s.mu.Lock()
	if k.timer != nil {
		k.timer.Stop()
	}
	delete(s.tasks, k.ID)
	s.mu.Unlock()
	killMarked(taskMark + "=" + k.ID)
	os.RemoveAll(k.root)
}

// DebugTask opens the debug stream of a task: one session of Delve, whose client launches the program. Its end is the
// task's. Its error is an *api.Problem with CodeNoProcess or CodeNoDebugger.
func (s *Supervisor) DebugTask(_ context.Context, id string) (net.Conn, api.DebugStart, error) {
	s.mu.Lock()
	k := s.tasks[id]
	if k == nil || k.timer == nil {
		s.mu.Unlock()
		return nil, api.DebugStart{}, &api.Problem{Code: api.CodeNoProcess, Message: "the task is not there, or is debugged already", Hint: "start the test again"}
	}
	k.timer.Stop()
	k.timer = nil
	s.mu.Unlock()
	conn, err := s.oneSession(k.Dir, k.env, func() { s.dropTask(k) })
	if err != nil {
		s.dropTask(k)
		return nil, api.DebugStart{}, err
	}
	return conn, api.DebugStart{Program: k.Program}, nil
}

// oneSession starts a Delve of one session, whose client says what is debugged; over is called when all of it has ended.
func (s *Supervisor) oneSession(dir string, env []string, over func()) (net.Conn, error) {
	fail := func(err error) error {
		return &api.Problem{Code: api.CodeNoDebugger, Message: "start the debugger: " + err.Error()}
	}
	select {
	case <-s.stop:
		return nil, &api.Problem{Code: api.CodeLost, Message: "the environment is being stopped"}
	default:
	}
	c, there, err := socketpair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, fail(err)
	}
	defer there.Close()
	cmd := s.runSelf(there, "dap")
	cmd.Dir, cmd.Env = dir, append(cmd.Env, env...)
	wait, err := s.startKnown(cmd, s.spawn.start, true)
	if err != nil {
		c.Close()
		return nil, fail(err)
	}
	conn := &oneConn{Conn: c}
	ended := make(chan struct{})
	conn.end = func() {
		s.killBelow(cmd, ended)
		<-ended
	}
	s.mu.Lock()
	s.sessions[conn] = true
	s.mu.Unlock()
	s.wg.Go(func() {
		wait()
		close(ended)
		// The stream is its reader's to close: what Delve said last, its answer to disconnect, may still be in it.
		over()
		s.mu.Lock()
		delete(s.sessions, conn)
		s.mu.Unlock()
	})
	return conn, nil
}

// killBelow ends a Delve of one session and all that is below it: Delve keeps what its program leaves behind below itself
// (delve.Serve becomes a subreaper), so that each round finds it.
func (s *Supervisor) killBelow(cmd *exec.Cmd, ended <-chan struct{}) {
	pid := cmd.Process.Pid
	for range 50 {
		select {
		case <-ended: // the pid may be another's by now
			return
		default:
		}
		ds := descendants(pid, nil)
		for _, d := range ds {
			syscall.Kill(d, syscall.SIGKILL)
		}
		if len(ds) == 0 {
			break
		}
		select {
		case <-ended:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
	select {
	case <-ended:
	default:
		cmd.Process.Kill()
	}
}

// oneConn is the supervisor's end of a session that ends with its stream.
type oneConn struct {
	net.Conn
	end  func()
	once sync.Once
}

// Close ends the session, and Delve with what it has started.
func (c *oneConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.end)
	return err
}

// endTasks ends what is debugged beside the service.
func (s *Supervisor) endTasks() {
	s.mu.Lock()
	var conns []*oneConn
	for c := range s.sessions {
		conns = append(conns, c)
	}
	var tasks []*task
	for _, k := range s.tasks {
		tasks = append(tasks, k)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	for _, k := range tasks {
		s.dropTask(k)
	}
}

// killMarked ends every process in whose environment a mark stands, as KEY=VALUE.
func killMarked(mark string) {
	ents, _ := os.ReadDir("/proc")
	for _, e := range ents {
		pid, ok := pidOf(e.Name())
		if !ok || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil {
			continue
		}
		for kv := range strings.SplitSeq(string(env), "\x00") {
			if kv == mark {
				syscall.Kill(pid, syscall.SIGKILL)
				waitGone(pid, 2*time.Second)
			}
		}
	}
}
