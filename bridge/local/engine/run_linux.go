package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"fairlead.dev/api"
)

// kind is what differs between engines. Paths are relative to the engine's folder, which is the working directory.
type kind interface {
	// make fills the data folder below to, with an administrator and what the spec's login and seed say.
	make(ctx context.Context, r *running, to string) error
	// check says whether the data can be used by the installed binaries.
	check(r *running, data string) error
	// command serves data on the spec's port.
	command(r *running, data string) []string
	// clean removes, before a start, what a killed engine left that would stop the next.
	clean(data string)
	// end is the signal on which the engine closes its data and its connections, without waiting for clients to leave.
	end() syscall.Signal
	// answers says nil once the engine talks to clients.
	answers(conn net.Conn) error
	// admit lets a login in, on an engine that serves; dir is its folder. Doing it again changes nothing.
	admit(ctx context.Context, b Binaries, dir, addr string, l Login) error
}

var kinds = map[string]kind{PostgreSQL: postgreSQL{}, MySQL: mariaDB{}, Redis: redis{}}

// running is one Run.
type running struct {
	spec Spec
	bin  Binaries
	kind kind
	lock *os.File
	log  io.Writer
}

const (
	// lockLimit is how long a predecessor may take to end that was told to.
	lockLimit = endLimit + 5*time.Second
	// steady is how long an engine must have run for its end to be an accident, after which it is started again.
	steady = 10 * time.Second
	// restarts is how often one that was not steady is started again.
	restarts = 3
)

// codeKilled: it did not end in order.
const codeKilled = "engine-killed"

// Run makes the engine of a folder if need be, serves it, and starts it again when it dies. It ends with ctx, by the engine's
// own orderly end; or with a problem, which Trouble tells as well. The process's working directory becomes the folder. What
// the engine writes goes to log.
func Run(ctx context.Context, dir string, log io.Writer) error {
	spec, err := read(dir)
	if err != nil {
		return fmt.Errorf("read what the engine is to be: %w", err)
	}
	os.Remove(filepath.Join(dir, "problem.json"))
	err = run(ctx, dir, spec, log)
	var p *api.Problem
	if is := errors.As(err, &p); err == nil || ctx.Err() != nil && !(is && p.Code == codeKilled) {
		return nil
	} else if !is {
		p = &api.Problem{Code: "engine-failed", Message: err.Error(), Hint: "see its log with fairlead logs"}
	}
	return errors.Join(p, writeJSON(filepath.Join(dir, "problem.json"), p))
}

func run(ctx context.Context, dir string, spec Spec, log io.Writer) error {
	r := &running{spec: spec, kind: kinds[spec.Kind], log: log}
	// The engine ends in order when this process is killed: the kernel signals it at the end of the thread that started it.
	runtime.LockOSThread()
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("enter the engine's folder: %w", err)
	}
	var err error
	if r.lock, err = waitLock(ctx, "lock", lockLimit); err != nil {
		return err
	}
	defer r.lock.Close()
	if r.bin, err = Installed(spec.Kind, os.Environ()); err != nil {
		return err
	}
	data := filepath.Join("db", "data")
	if HasData(".") {
		if r.bin, err = matching(r.bin, filepath.Join(data, "PG_VERSION")); err != nil {
			return err
		}
		if err := r.kind.check(r, data); err != nil {
			return err
		}
	} else if err := r.prepare(ctx); err != nil {
		return err
	}
	return r.serve(ctx, data)
}

// prepare makes the data under another name, so that what is there under its own is whole.
func (r *running) prepare(ctx context.Context) error {
	if err := os.RemoveAll("db.new"); err != nil { // of one that was killed: we have the lock
		return fmt.Errorf("remove what was left of the data: %w", err)
	}
	if r.spec.Seed != "" {
		if st, err := os.Stat(r.spec.Seed); err != nil || !st.Mode().IsRegular() {
			return &api.Problem{Code: "seed-failed", Message: "there is no file " + r.spec.Seed, Hint: "make it, or correct seed: under dependencies: " + r.spec.Name + ":"}
		}
	}
	if msg, hint := r.spec.Login.wrong(r.spec.Kind); msg != "" && r.spec.Kind != Redis {
		return &api.Problem{Code: "no-login", Message: msg, Hint: hint}
	}
	if err := os.Mkdir("db.new", 0o700); err != nil {
		return fmt.Errorf("make the data's folder: %w", err)
	}
	fmt.Fprintf(r.log, "fairlead: making the data of %s with %s\n", r.spec.Name, r.bin)
	if err := r.kind.make(ctx, r, "db.new"); err != nil {
		return err
	}
	if err := os.Rename("db.new", "db"); err != nil {
		return fmt.Errorf("put the data into its place: %w", err)
	}
	return nil
}

// serve keeps the engine running until ctx ends.
func (r *running) serve(ctx context.Context, data string) error {
	for failed := 0; ; {
		if err := r.portFree(); err != nil {
			return err
		}
		r.kind.clean(data)
		p, err := r.start(r.kind.command(r, data))
		if err != nil {
			return err
		}
		began := time.Now()
		select {
		case <-ctx.Done():
			if err := p.stop(r.kind.end(), endLimit); err != nil {
				return &api.Problem{Code: codeKilled, Message: err.Error(), Hint: "its next start repairs the data; see its log with fairlead logs"}
			}
			return nil
		case <-p.done:
		}
		if ctx.Err() != nil {
			return nil
		}
		if failed++; time.Since(began) > steady {
			failed = 0
		}
		if failed > restarts {
			return &api.Problem{Code: "engine-failed", Message: fmt.Sprintf("%s ended (%s): %s", Title(r.spec.Kind), p.how(), p.last()), Hint: "see its log with fairlead logs"}
		}
		fmt.Fprintf(r.log, "fairlead: %s ended (%s); it is started again\n", Title(r.spec.Kind), p.how())
	}
}

// portFree says plainly what the engine would say in its own words, and keeps a stranger on the port from being taken for it.
// It waits for what a killed engine left: children that have its socket until they see that it is gone.
func (r *running) portFree() error {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(r.spec.Port))
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return l.Close()
		}
	}
	return &api.Problem{Code: "port-in-use", Message: fmt.Sprintf("port %d is not free: %v", r.spec.Port, err),
		Hint: "end what listens there, or write another port: under dependencies: " + r.spec.Name + ": in fairlead.yaml"}
}

// waitLock takes the lock of an engine's folder. The engine inherits it, so that it is held until the last process of it is
// gone, whoever was killed.
func waitLock(ctx context.Context, name string, limit time.Duration) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the engine's folder: %w", err)
	}
	for end := time.Now().Add(limit); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, &api.Problem{Code: "engine-runs", Message: "another engine runs on the same data, and does not end", Hint: "fairlead status lists what runs"}
			}
			return nil, fmt.Errorf("lock the engine's folder: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tryLock takes a folder's lock until unlock is called; nil where somebody has it.
func tryLock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the engine's folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("lock the engine's folder: %w", err)
	}
	return func() { f.Close() }, nil
}

// Runs says whether a folder's engine runs, or is just being made or removed.
func Runs(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "lock")); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	unlock, err := tryLock(dir)
	if unlock != nil {
		unlock()
	}
	return err == nil && unlock == nil
}

// Ready says nil once the engine of a folder answers at addr and lets each of the logins in; else why it does not yet. env is
// where the installed clients are looked for.
func Ready(ctx context.Context, dir string, env []string, addr string, logins []Login) error {
	spec, err := read(dir)
	if err != nil {
		return errors.New("it is being made")
	}
	k := kinds[spec.Kind]
	if !HasData(dir) {
		return errors.New("its data is being made")
	}
	if err := ask(ctx, k, "tcp", addr); err != nil {
		return fmt.Errorf("it does not answer yet: %w", err)
	}
	b, err := Installed(spec.Kind, env)
	if err != nil {
		return err
	}
	for _, l := range logins {
		l = l.WithDefaults(spec.Kind)
		if msg, hint := l.wrong(spec.Kind); msg != "" {
			return &api.Problem{Code: "no-login", Message: msg, Hint: hint}
		}
		if err := k.admit(ctx, b, dir, addr, l); err != nil {
			return err
		}
	}
	return nil
}

// ask is answers on a connection of its own.
func ask(ctx context.Context, k kind, network, addr string) error {
	d := net.Dialer{Timeout: 2 * time.Second}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	return k.answers(c)
}
