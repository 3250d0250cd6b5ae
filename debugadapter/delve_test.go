//go:build linux && (amd64 || arm64)

package debugadapter

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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter/daptest"
	"github.com/go-delve/delve/service"
	delveapi "github.com/go-delve/delve/service/api"
	"github.com/go-delve/delve/service/dap"
	"github.com/go-delve/delve/service/debugger"
)

// The tests' debugger is a process of this test binary: Delve with a process that it started, and one DAP session after
// the other on a unix socket. Each connection begins with a line: the api.DebugStart.
func TestMain(m *testing.M) {
	if sock := os.Getenv("DEBUGADAPTER_TEST_DELVE"); sock != "" {
		if err := delveMain(sock, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "delve:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if core := os.Getenv("DEBUGADAPTER_TEST_CORE"); core != "" {
		if err := coreMain(core, os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "core:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// coreMain runs a program to its function main.loop, and writes a core file. The kernel's own go where the machine says.
func coreMain(core, function string, args []string) error {
	dbg, err := debugger.New(&debugger.Config{Backend: "default", WorkingDir: filepath.Dir(args[0])}, args)
	if err != nil {
		return err
	}
	defer dbg.Detach(true)
	if _, err := dbg.CreateBreakpoint(&delveapi.Breakpoint{FunctionName: function}, "", nil, false); err != nil {
		return err
	}
	if _, err := dbg.Command(&delveapi.DebuggerCommand{Name: delveapi.Continue}, nil, nil, nil); err != nil {
		return err
	}
	if err := dbg.DumpStart(core); err != nil {
		return err
	}
	for {
		if s := dbg.DumpWait(time.Second); !s.Dumping {
			return s.Err
		}
	}
}

func delveMain(sock string, args []string) error {
	if err := syscall.Dup3(2, 1, 0); err != nil { // what the debuggee prints is no test's output
		return err
	}
	ln, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	if len(args) == 0 { // nothing is held: a session launches what it likes
		fmt.Fprintln(os.NewFile(3, "ready"), 0)
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		gone := make(chan struct{})
		s := dap.NewServer(&service.Config{DisconnectChan: gone, Debugger: debugger.Config{Backend: "default"}})
		s.RunWithClient(conn)
		<-gone
		s.Stop()
		return nil
	}
	dbg, err := debugger.New(&debugger.Config{Backend: "default", WorkingDir: filepath.Dir(args[0])}, args)
	if err != nil {
		return err
	}
	start := api.DebugStart{PID: dbg.ProcessPid(), Fresh: true}
	fmt.Fprintln(os.NewFile(3, "ready"), start.PID)
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		start.Stopped = !start.Fresh && !dbg.IsRunning()
		fmt.Fprintf(conn, "%s\n", raw(start))
		s := dap.NewSession(conn, &dap.Config{
			Config:        &service.Config{AcceptMulti: true, Listener: ln, Debugger: debugger.Config{Backend: "default"}},
			StopTriggered: make(chan struct{}),
		}, dbg)
		s.ServeDAPCodec()
		start.Fresh = false
	}
}

// delve is such a process.
type delve struct {
	cmd  *exec.Cmd
	sock string
	pid  int // the debuggee's
	once sync.Once
}

var sockets atomic.Int64

func startDelve(t testing.TB, args ...string) *delve {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d := &delve{sock: filepath.Join(os.TempDir(), fmt.Sprintf("dap%d-%d", os.Getpid(), sockets.Add(1)))}
	d.cmd = exec.Command(os.Args[0], args...)
	d.cmd.Env = append(os.Environ(), "DEBUGADAPTER_TEST_DELVE="+d.sock)
	d.cmd.ExtraFiles = []*os.File{w}
	if testing.Verbose() && os.Getenv("DEBUGADAPTER_TEST_OUTPUT") != "" {
		d.cmd.Stderr = os.Stderr
	}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer r.Close()
	if _, err := fmt.Fscanln(r, &d.pid); err != nil {
		d.kill()
		t.Fatalf("the debugger did not start: %v", err)
	}
	t.Cleanup(d.kill)
	return d
}

// exit ends what is debugged, and Delve says so. Of SIGKILL it says nothing where it is about to let the process go on.
func (d *delve) exit() { syscall.Kill(d.pid, syscall.SIGTERM) }

// kill ends the debugger and what it debugs.
func (d *delve) kill() {
	d.once.Do(func() {
		if d.pid != 0 { // Delve's end does not end it
			syscall.Kill(d.pid, syscall.SIGKILL)
		}
		d.cmd.Process.Kill()
		d.cmd.Wait()
		os.Remove(d.sock)
	})
}

// dial opens a session. Delve serves one after the other, so it may wait for the one before to end.
func (d *delve) dial() (net.Conn, api.DebugStart, error) {
	var start api.DebugStart
	conn, err := net.Dial("unix", d.sock)
	if err != nil {
		return nil, start, err
	}
	line, err := bufio.NewReaderSize(io.LimitReader(oneByte{conn}, 4096), 16).ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &start)
	}
	if err != nil {
		conn.Close()
		return nil, start, err
	}
	return conn, start, nil
}

// oneByte reads no byte more than the line.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:1]) }

// version is a program as it was built, and its source.
type version struct {
	source, exe string
	here        int // the line with "// here"
}

var builds struct {
	sync.Mutex
	n int
}

// compile builds the one file at path with this content.
func compile(t testing.TB, path, source string) version {
	t.Helper()
	v := version{source: source}
	for i, l := range strings.Split(source, "\n") {
		if strings.HasSuffix(l, "// here") {
			v.here = i + 1
		}
	}
	builds.Lock()
	defer builds.Unlock()
	builds.n++
	write(t, path, source)
	v.exe = filepath.Join(filepath.Dir(path), fmt.Sprintf("exe%d", builds.n))
	cmd := exec.Command("go", "build", "-gcflags=-N -l", "-ldflags=-compressdwarf=false", "-buildvcs=false", "-o", v.exe, path)
	cmd.Dir = filepath.Dir(path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return v
}

func write(t testing.TB, path, source string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
}

func fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pod is a Host and the Service it finds: processes under real debuggers, one generation after the other.
type pod struct {
	t      testing.TB
	events chan Event

	mu       sync.Mutex
	gen      api.Generation
	current  *delve
	conns    []net.Conn
	standing []bool // as Stopped was told
	ended    []bool // as End was told
	requests []Request
	restarts int
	err      error // of Events' end
	args     []string

	begin  func(context.Context, Request, func(string)) error // before Begin returns
	dialed func() error                                       // before Dial does its work
	closed int                                                // how often the session closed one of its streams
	told   chan struct{}                                      // a token whenever something was told
}

func newPod(t testing.TB) *pod {
	p := &pod{t: t, events: make(chan Event, 100), told: make(chan struct{}, 1000)}
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.current != nil {
			p.current.kill()
		}
	})
	return p
}

func (p *pod) Begin(ctx context.Context, r Request, progress func(string)) (Begun, error) {
	p.mu.Lock()
	p.requests = append(p.requests, r)
	begin := p.begin
	p.mu.Unlock()
	if begin != nil {
		if err := begin(ctx, r, progress); err != nil {
			return Begun{}, err
		}
	}
	return Begun{Service: p}, nil
}

func (p *pod) Events() <-chan Event { return p.events }
func (p *pod) Err() error           { return p.err }

func (p *pod) Dial(ctx context.Context, g api.Generation) (io.ReadWriteCloser, api.DebugStart, error) {
	p.mu.Lock()
	d, gen, before := p.current, p.gen, p.dialed
	p.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return nil, api.DebugStart{}, err
		}
	}
	if d == nil || g != gen {
		return nil, api.DebugStart{}, &api.Problem{Code: api.CodeNoProcess, Message: "it does not run"}
	}
	conn, start, err := d.dial()
	if err != nil {
		return nil, start, err
	}
	start.Generation = g
	p.mu.Lock()
	p.conns = append(p.conns, conn)
	p.mu.Unlock()
	return closing{conn, func() {
		p.mu.Lock()
		p.closed++
		p.mu.Unlock()
		p.told <- struct{}{}
	}}, start, nil
}

// closing tells when it is closed.
type closing struct {
	net.Conn
	tell func()
}

func (c closing) Close() error {
	defer c.tell()
	return c.Conn.Close()
}

func (p *pod) Stopped(stopped bool) {
	p.mu.Lock()
	p.standing = append(p.standing, stopped)
	p.mu.Unlock()
	p.told <- struct{}{}
}

func (p *pod) Restart(ctx context.Context) error {
	p.mu.Lock()
	p.restarts++
	d := p.current
	p.mu.Unlock()
	if d == nil {
		return errors.New("nothing runs")
	}
	p.run(d.cmd.Args[1], true)
	return nil
}

func (p *pod) End(terminate bool) error {
	p.mu.Lock()
	p.ended = append(p.ended, terminate)
	p.mu.Unlock()
	p.told <- struct{}{}
	return nil
}

// await waits until ok holds, whenever something was told.
func (p *pod) await(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.After(daptest.Timeout)
	for {
		p.mu.Lock()
		done := ok()
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-p.told:
		case <-deadline:
			p.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// stop ends the process that runs, and its debugger.
func (p *pod) stop() {
	p.mu.Lock()
	d := p.current
	p.current = nil
	p.mu.Unlock()
	if d != nil {
		d.kill()
	}
}

// deploy builds nothing: it says that a build of v begins, with its source in place, and puts it into the old one's place.
func (p *pod) deploy(path string, v version) {
	p.t.Helper()
	write(p.t, path, v.source)
	p.events <- Event{Kind: Building, Generation: p.generation() + 1}
	p.run(v.exe, false)
}

func (p *pod) generation() api.Generation {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gen
}

// run puts a process of exe in the old one's place.
func (p *pod) run(exe string, same bool) {
	p.t.Helper()
	p.stop()
	d := startDelve(p.t, append([]string{exe}, p.args...)...)
	p.mu.Lock()
	if !same {
		p.gen++
	}
	p.current = d
	g := p.gen
	p.mu.Unlock()
	p.events <- Event{Kind: Process, Generation: g}
}

// cut breaks the streams off that are open.
func (p *pod) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// serve begins a session with the host, and returns its client and, once it has ended, its error.
func serve(t testing.TB, host Host) (*daptest.Client, <-chan error) {
	t.Helper()
	here, there := net.Pipe()
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- Serve(ctx, there, host, Options{}) }()
	c := daptest.New(t, here)
	t.Cleanup(func() {
		here.Close()
		cancel()
	})
	return c, ended
}

// launch goes through the handshake, with breakpoints on these lines of path, and returns their ids.
func launch(t testing.TB, c *daptest.Client, path string, lines ...int) (ids []int) {
	t.Helper()
	c.Must("initialize", daptest.Initialize())
	start := c.Send("launch", daptest.M{"program": filepath.Dir(path)})
	c.Event("initialized")
	// Some ids are used up, so that the client's and Delve's are not the same by chance.
	c.Must("setBreakpoints", daptest.Lines("/no/such.go", 1, 2, 3))
	c.Must("setBreakpoints", daptest.Lines("/no/such.go"))
	if path != "" && len(lines) > 0 {
		for _, b := range c.Must("setBreakpoints", daptest.Lines(path, lines...)).Breakpoints(t) {
			ids = append(ids, b.Id)
		}
	}
	c.Must("configurationDone", nil)
	if m := start.Wait(); !m.Success {
		t.Fatalf("launch: %s", m.ErrorText())
	}
	return ids
}

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// dialRaw opens the session of a debugger that holds nothing: no line comes first.
func dialRaw(d *delve) (net.Conn, error) { return net.Dial("unix", d.sock) }

func makeCore(t testing.TB, exe, core string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "main.loop", exe, "loop")
	cmd.Env = append(os.Environ(), "DEBUGADAPTER_TEST_CORE="+core)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
