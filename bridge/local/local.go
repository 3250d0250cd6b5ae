// Package local is the embedded default: an environment without a cluster and without root. The same supervisor that
// runs in a pod runs here as a child process, in a folder of its own, and is reached over its unix socket. It goes when
// the agent goes, unless it is told to stay.
//
// It must not know what is built or how it is sent.
package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/payload"
)

// alone is how long a local environment outlives an agent that went without a word: long enough for the next run to
// find it, short enough that nothing is left behind.
const alone = 10 * time.Second

// Options say where environments live.
type Options struct {
	// StateDir holds one folder an environment; CacheDir holds the unpacked pod's executables; SocketDir the sockets
	// (their paths may have 107 bytes at most, unix(7)).
	StateDir, CacheDir, SocketDir string
	// Payload returns fairlead-pod for an architecture.
	Payload func(arch string) ([]byte, error)
	// Env is the environment of the supervisor, and so of the service, as KEY=VALUE; nil is this process's.
	Env []string
}

// Environment is one local environment; it implements bridge.Environment.
type Environment struct {
	spec bridge.Spec
	opts Options
	info api.Environment
	exe  string
	// attached: it is only looked at; a supervisor that is not there is not started
	attached bool
	started  chan error // the supervisor that this agent started has ended; nil where it found one
}

// Open finds the environment of the spec or starts it.
func Open(ctx context.Context, spec bridge.Spec, opts Options) (*Environment, error) {
	if runtime.GOOS != "linux" {
		return nil, &api.Problem{Code: "no-local", Message: "a local environment needs Linux, and this is " + runtime.GOOS,
			Hint: "use --on kubernetes, or run Fairlead inside WSL or a Linux virtual machine"}
	}
	e := &Environment{spec: spec, opts: opts, info: api.Environment{Name: spec.Name, Service: spec.Service, Provider: "local"}}
	if err := os.MkdirAll(e.dir(), 0o700); err != nil {
		return nil, fmt.Errorf("make the environment's folder: %w", err)
	}
	if err := os.MkdirAll(opts.SocketDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	if fi, err := os.Lstat(opts.SocketDir); err != nil || !fi.IsDir() || fi.Mode().Perm()&0o077 != 0 || !ownedByUs(fi) {
		return nil, &api.Problem{Code: "unsafe-folder", Message: "others can enter " + opts.SocketDir, Hint: "remove it, or set XDG_RUNTIME_DIR to a folder of your own"}
	}
	if err := e.install(); err != nil {
		return nil, err
	}
	if e.usable(ctx) {
		e.info.Resumed = true
		return e, nil
	}
	return e, e.start(ctx)
}

func (e *Environment) dir() string    { return filepath.Join(e.opts.StateDir, e.spec.Name) }
func (e *Environment) socket() string { return socketPath(e.opts, e.spec.Name) }

// metaFile says that the environment is wanted: one that was removed by another command is not started again.
func (e *Environment) metaFile() string { return filepath.Join(e.dir(), "environment.json") }

func socketPath(o Options, name string) string { return filepath.Join(o.SocketDir, name+".sock") }

// install unpacks the pod's executable once, under its digest.
func (e *Environment) install() (err error) {
	e.exe, err = install(e.opts)
	return err
}

func install(o Options) (exe string, err error) {
	b, err := o.Payload(runtime.GOARCH)
	if err != nil {
		return "", err
	}
	exe = filepath.Join(o.CacheDir, "fairlead-pod-"+payload.Digest(b))
	if old, err := os.ReadFile(exe); err == nil && string(old) == string(b) {
		return exe, nil
	}
	if err := os.MkdirAll(o.CacheDir, 0o700); err != nil {
		return "", fmt.Errorf("unpack the pod's executable: %w", err)
	}
	name, err := writeExecutable(o.CacheDir, b)
	if err == nil {
		err = os.Rename(name, exe)
	}
	if err != nil {
		os.Remove(name)
		return "", fmt.Errorf("unpack the pod's executable: %w", err)
	}
	return exe, nil
}

// writeExecutable makes a file and fills it. Meanwhile nothing is started: a child has the open file until it is a
// program of its own, and a file that somebody can write to cannot be run (ETXTBSY).
func writeExecutable(dir string, b []byte) (name string, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := os.CreateTemp(dir, "tmp-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	return f.Name(), errors.Join(err, f.Chmod(0o700), f.Close())
}

// usable says whether a supervisor of this version answers there with this token. One of another version is asked to
// leave.
func (e *Environment) usable(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := net.Dial("unix", e.socket())
	if err != nil {
		return false
	}
	c.Close()
	conn := e.look()
	go conn.Run(ctx)
	st, err := conn.Status(ctx)
	if err != nil {
		return false
	}
	if st.Version != e.spec.Version {
		shutdown(ctx, conn, e.socket())
		return false
	}
	return true
}

// look connects without attaching.
func (e *Environment) look() *bridge.Conn {
	return bridge.New(bridge.Options{Dial: dialSocket(e.socket()), Token: e.spec.Token})
}

func dialSocket(path string) bridge.Dial {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// start runs a supervisor in a session of its own, so that the terminal's signals are the agent's alone.
func (e *Environment) start(ctx context.Context) error {
	token := filepath.Join(e.dir(), "token")
	if err := os.WriteFile(token, []byte(e.spec.Token+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the environment's token: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(e.dir(), "pod.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the pod's log: %w", err)
	}
	defer log.Close()
	args := []string{"run", "--ready", "--shares-files", "--dir", filepath.Join(e.dir(), "work"), "--socket", e.socket(), "--token-file", token}
	if !e.spec.Keep {
		args = append(args, "--stop-when-alone", alone.String())
	}
	for name, dir := range e.spec.Trees {
		args = append(args, "--tree", name+"="+dir)
	}
	cmd := exec.Command(e.exe, args...)
	cmd.Stderr = log
	cmd.Env = e.opts.Env
	detach(cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the environment: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the environment: %w", err)
	}
	ready := make(chan error, 1)
	go func() {
		if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			ready <- errors.New("it ended before it was ready")
			return
		}
		ready <- nil
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(10 * time.Second):
		err = errors.New("it did not answer within 10 s")
	}
	e.started = make(chan error, 1)
	go func() { e.started <- cmd.Wait() }()
	if err != nil {
		cmd.Process.Kill()
		<-e.started
		b, _ := os.ReadFile(log.Name())
		return &api.Problem{Code: "local-start", Message: fmt.Sprintf("start the environment: %v: %s", err, strings.TrimSpace(string(b))),
			Hint: "see " + log.Name()}
	}
	meta, err := json.Marshal(bridge.Stored{Environment: e.info, Owner: e.spec.Owner, Branch: e.spec.Branch, Dir: e.spec.Dir, Created: time.Now()})
	if err != nil {
		return err
	}
	return os.WriteFile(e.metaFile(), meta, 0o600)
}

// Info names the environment.
func (e *Environment) Info() api.Environment { return e.info }

// Target is this machine.
func (e *Environment) Target() api.Target { return api.Target{OS: runtime.GOOS, Arch: runtime.GOARCH} }

// Process knows nothing: there is no staging here to ask.
func (e *Environment) Process() api.Process { return api.Process{} }

// Dial connects to the supervisor; one that has ended is started again.
func (e *Environment) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	c, err := dialSocket(e.socket())(ctx)
	if err == nil {
		return c, nil
	}
	if e.attached {
		return nil, &api.Problem{Code: api.CodeGone, Message: "the environment does not run", Hint: "start it with fairlead run, or forget it with fairlead stop"}
	}
	if _, err := os.Stat(e.metaFile()); err != nil {
		return nil, &api.Problem{Code: api.CodeGone, Message: "the environment was removed", Hint: "fairlead run makes a new one"}
	}
	if err := e.start(ctx); err != nil {
		return nil, err
	}
	return dialSocket(e.socket())(ctx)
}

// Close lets go: the supervisor leaves by itself soon after the agent, or stays where Spec.Keep says so.
func (e *Environment) Close() error { return nil }

// Delete ends the supervisor with all it started and removes the folder.
func (e *Environment) Delete(ctx context.Context) error {
	return remove(ctx, e.opts, e.spec.Name, e.spec.Token)
}

func remove(ctx context.Context, opts Options, name, token string) error {
	sock := socketPath(opts, name)
	os.Remove(filepath.Join(opts.StateDir, name, "environment.json")) // first: its agent must not start it again
	if c, err := net.Dial("unix", sock); err == nil {
		c.Close()
		cctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		conn := bridge.New(bridge.Options{Dial: dialSocket(sock), Token: token})
		go conn.Run(cctx)
		if err := shutdown(cctx, conn, sock); err != nil {
			return err
		}
	}
	os.Remove(sock)
	// The supervisor removes nothing itself and closes its socket last but one: a file that it still writes would make
	// one attempt fail.
	var err error
	for range 50 {
		if err = os.RemoveAll(filepath.Join(opts.StateDir, name)); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("remove the environment's folder: %w", err)
}

// shutdown asks the supervisor to leave and waits until its socket is gone.
func shutdown(ctx context.Context, conn *bridge.Conn, sock string) error {
	if err := conn.Shutdown(ctx); err != nil {
		return fmt.Errorf("stop the environment: %w", err)
	}
	for {
		c, err := net.Dial("unix", sock)
		if err != nil {
			return nil
		}
		c.Close()
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop the environment: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Find lists the environments that have a folder here.
func Find(opts Options) ([]bridge.Stored, error) {
	files, err := filepath.Glob(filepath.Join(opts.StateDir, "*", "environment.json"))
	if err != nil {
		return nil, err
	}
	var out []bridge.Stored
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		var s bridge.Stored
		if json.Unmarshal(b, &s) == nil && s.Name == filepath.Base(filepath.Dir(f)) {
			out = append(out, s)
		}
	}
	return out, nil
}

// Attach returns the environment of the spec without starting it: for commands that look at it or remove it.
func Attach(spec bridge.Spec, opts Options) *Environment {
	return &Environment{spec: spec, opts: opts, attached: true, info: api.Environment{Name: spec.Name, Service: spec.Service, Provider: "local", Resumed: true}}
}
