//go:build linux && (amd64 || arm64)

package delve

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-delve/delve/pkg/proc"
	"github.com/go-delve/delve/service/api"
	"github.com/go-delve/delve/service/debugger"
	"github.com/go-delve/delve/service/rpc2"
	"github.com/google/go-dap"
	"golang.org/x/sys/unix"
)

// The program lets any process of its user debug it (PR_SET_PTRACER), as the supervisor's start of a service does.
const worker = `package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

func double(n int) int {
	v := 2 * n
	return v // line 13
}

func main() {
	syscall.RawSyscall(syscall.SYS_PRCTL, 0x59616d61, ^uintptr(0), 0)
	fmt.Println("ready")
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		n, _ := strconv.Atoi(s.Text())
		fmt.Println(double(n))
	}
}
`

const workerLine = 13

// held is a process that Hold has attached to.
type held struct {
	t   *testing.T
	src string
	pid int
	in  io.Writer
	out *bufio.Reader
	ctl *net.UnixConn
}

const patience = 2 * time.Minute

func hold(t *testing.T) *held {
	t.Helper()
	dir := t.TempDir()
	h := &held{t: t, src: filepath.Join(dir, "main.go")}
	exe := filepath.Join(dir, "prog")
	if err := os.WriteFile(h.src, []byte(worker), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-gcflags=-N -l", "-o", exe, h.src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	prog := exec.Command(exe)
	in, _ := prog.StdinPipe()
	out, _ := prog.StdoutPipe()
	if err := prog.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Process.Kill(); prog.Wait() })
	h.pid, h.in, h.out = prog.Process.Pid, in, bufio.NewReader(out)
	h.says("ready")

	here, there := pair(t, syscall.SOCK_SEQPACKET)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fmt.Sprintf("DELVE_TEST_HOLD=%d", h.pid))
	child.ExtraFiles = []*os.File{there}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	there.Close()
	c, err := net.FileConn(here)
	if err != nil {
		t.Fatal(err)
	}
	here.Close()
	h.ctl = c.(*net.UnixConn)
	h.ctl.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() {
		h.ctl.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("the debugger's process: %v", err)
		}
	})
	if s := h.word(); s != "attached" {
		t.Fatal(s)
	}
	return h
}

func pair(t *testing.T, kind int) (here, there *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
}

func (h *held) word() string {
	h.t.Helper()
	b := make([]byte, 1024)
	n, err := h.ctl.Read(b)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b[:n])
}

// session opens a session of a process that is in a state.
func (h *held) session(state string) net.Conn {
	h.t.Helper()
	here, there := pair(h.t, syscall.SOCK_STREAM)
	if _, _, err := h.ctl.WriteMsgUnix([]byte("session"), unix.UnixRights(int(there.Fd())), nil); err != nil {
		h.t.Fatal(err)
	}
	there.Close()
	if s := h.word(); s != state {
		h.t.Fatalf("the process is %s, want %s", s, state)
	}
	conn, err := net.FileConn(here)
	if err != nil {
		h.t.Fatal(err)
	}
	here.Close()
	conn.SetDeadline(time.Now().Add(patience))
	h.t.Cleanup(func() { conn.Close() })
	return conn
}

func (h *held) ask(n int) { fmt.Fprintln(h.in, n) }

func (h *held) says(want string) {
	h.t.Helper()
	if got, err := h.out.ReadString('\n'); strings.TrimSpace(got) != want {
		h.t.Fatalf("the program says %q, want %s: %v", got, want, err)
	}
}

// hit waits for a stop in double.
func (h *held) hit(stops <-chan *api.DebuggerState) *api.DebuggerState {
	h.t.Helper()
	select {
	case st := <-stops:
		if st.Err != nil || st.CurrentThread == nil || st.CurrentThread.Line != workerLine || st.CurrentThread.Breakpoint == nil {
			h.t.Fatalf("stopped: %+v", st)
		}
		return st
	case <-time.After(patience):
		h.t.Fatal("no stop")
	}
	return nil
}

// Delve's own client, in one session after another, and a DAP client after those.
func TestRPC(t *testing.T) {
	h := hold(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c := rpc2.NewClientFromConn(h.session("begun"))
	if v := c.GetVersion(); v.APIVersion != 2 || v.DelveVersion == "" || !strings.HasPrefix(v.TargetGoVersion, "Go cmd/compile go1.") {
		t.Errorf("version: %+v", v)
	}
	if !c.IsMulticlient() || !c.AttachedToExistingProcess() || c.ProcessPid() != h.pid {
		t.Errorf("it is of many clients %v, attached %v, process %d", c.IsMulticlient(), c.AttachedToExistingProcess(), c.ProcessPid())
	}
	b, err := c.CreateBreakpoint(&api.Breakpoint{File: h.src, Line: workerLine})
	must(err)
	c.SetReturnValuesLoadConfig(&api.LoadConfig{MaxStringLen: 10})
	stops := c.Continue()
	h.ask(20)
	st := h.hit(stops)
	frames, err := c.Stacktrace(-1, 10, 0, 0, nil)
	must(err)
	if len(frames) < 2 || frames[0].Line != workerLine || frames[1].Function.Name() != "main.main" || frames[0].Locals != nil {
		t.Errorf("frames: %+v", frames)
	}
	full, err := c.Stacktrace(st.SelectedGoroutine.ID, 10, 0, 0, &api.LoadConfig{})
	must(err)
	if len(full) != len(frames) || len(full[0].Locals) != 1 || len(full[0].Arguments) == 0 {
		t.Errorf("frames with variables: %+v", full)
	}
	here := api.EvalScope{GoroutineID: -1}
	vars, err := c.ListLocalVariables(here, api.LoadConfig{})
	must(err)
	if len(vars) != 1 || vars[0].Name != "v" || vars[0].Value != "40" {
		t.Errorf("locals: %+v", vars)
	}
	args, err := c.ListFunctionArgs(here, api.LoadConfig{})
	must(err)
	if len(args) == 0 || args[0].Name != "n" || args[0].Value != "20" {
		t.Errorf("arguments: %+v", args)
	}
	v, err := c.EvalVariable(here, "v+n", api.LoadConfig{})
	must(err)
	if v.Value != "60" {
		t.Errorf("v+n = %s", v.Value)
	}
	if _, err := c.EvalVariable(here, "nothing", api.LoadConfig{}); err == nil {
		t.Error("nothing is something")
	}
	must(c.SetVariable(here, "v", "41"))
	if v, err = c.EvalVariable(here, "v", api.LoadConfig{}); err != nil || v.Value != "41" {
		t.Errorf("v = %+v %v", v, err)
	}
	must(c.SetVariable(here, "v", "40"))
	bs, err := c.ListBreakpoints(false)
	if i := slices.IndexFunc(bs, func(o *api.Breakpoint) bool { return o.ID == b.ID }); err != nil || i < 0 || bs[i].TotalHitCount != 1 {
		t.Errorf("breakpoints: %+v %v", bs, err)
	}
	b.Cond = "n > 100"
	must(c.AmendBreakpoint(b))
	if got, err := c.GetBreakpoint(b.ID); err != nil || got.Cond != b.Cond {
		t.Errorf("breakpoint: %+v %v", got, err)
	}
	if got, err := c.ToggleBreakpoint(b.ID); err != nil || !got.Disabled {
		t.Errorf("breakpoint: %+v %v", got, err)
	}
	h.look(c, st)
	if st, err = c.Next(); err != nil || st.CurrentThread.Function.Name() != "main.main" {
		t.Errorf("next: %+v %v", st, err)
	}
	_, err = c.ClearBreakpoint(b.ID)
	must(err)
	must(c.Disconnect(true)) // which says continue, and waits for no answer
	h.says("40")

	c = rpc2.NewClientFromConn(h.session("running"))
	if st, err = c.GetStateNonBlocking(); err != nil || !st.Running {
		t.Fatalf("state: %+v %v", st, err)
	}
	stops = c.Continue() // as it runs already
	if _, err := c.Next(); err == nil || !strings.Contains(err.Error(), "halt it") {
		t.Errorf("next of a process that runs: %v", err)
	}
	created := make(chan error, 1)
	go func() { // waits until the process stands, and holds up no halt
		_, err := c.CreateBreakpoint(&api.Breakpoint{File: h.src, Line: workerLine})
		created <- err
	}()
	if st, err = c.Halt(); err != nil || st.Running {
		t.Fatalf("halt: %+v %v", st, err)
	}
	if st := <-stops; st.Err != nil || st.Running {
		t.Errorf("halted: %+v", st)
	}
	must(<-created)
	if st, err = c.Halt(); err != nil || st.Running { // it stands: no signal may wait for it
		t.Fatalf("halt: %+v %v", st, err)
	}
	stops = c.Continue()
	h.ask(21)
	h.hit(stops)
	if err := c.CallAPI("Detach", rpc2.DetachIn{Kill: true}, &rpc2.DetachOut{}); err == nil || !strings.Contains(err.Error(), "fairlead stop") {
		t.Errorf("killed: %v", err)
	}
	if _, err := c.Restart(false); err == nil || !strings.Contains(err.Error(), "save") {
		t.Errorf("restarted: %v", err)
	}
	must(c.Detach(false))
	h.says("42")
	h.ask(22) // its breakpoint is gone
	h.says("44")

	conn := h.session("running")
	d := &client{t: t, conn: conn, r: bufio.NewReader(conn)}
	d.send(&dap.InitializeRequest{Request: d.req("initialize"), Arguments: dap.InitializeRequestArguments{AdapterID: "go", LinesStartAt1: true, ColumnsStartAt1: true, PathFormat: "path"}})
	d.until("initialize")
	d.send(&dap.AttachRequest{Request: d.req("attach"), Arguments: []byte(`{"mode":"remote"}`)})
	d.until("initialized")
	d.send(&dap.SetBreakpointsRequest{Request: d.req("setBreakpoints"), Arguments: dap.SetBreakpointsArguments{Source: dap.Source{Path: h.src}, Breakpoints: []dap.SourceBreakpoint{{Line: workerLine}}}})
	d.until("setBreakpoints")
	d.send(&dap.ConfigurationDoneRequest{Request: d.req("configurationDone")})
	d.until("configurationDone")
	h.ask(23)
	if stop := d.until("stopped").(*dap.StoppedEvent); stop.Body.Reason != "breakpoint" {
		t.Errorf("stopped: %+v", stop.Body)
	}
}

// look asks for the rest of what can be asked of a process that stands in double.
func (h *held) look(c *rpc2.RPCClient, st *api.DebuggerState) {
	t := h.t
	t.Helper()
	here := api.EvalScope{GoroutineID: -1}
	threads, err := c.ListThreads()
	if err != nil || len(threads) == 0 {
		t.Errorf("threads: %+v %v", threads, err)
	}
	if th, err := c.GetThread(st.CurrentThread.ID); err != nil || th.ID != st.CurrentThread.ID {
		t.Errorf("thread: %+v %v", th, err)
	}
	if gs, next, err := c.ListGoroutines(0, 100); err != nil || len(gs) == 0 || next != -1 {
		t.Errorf("goroutines: %+v %d %v", gs, next, err)
	}
	if locs, _, err := c.FindLocation(here, "main.double", true, nil); err != nil || len(locs) != 1 || locs[0].File != h.src {
		t.Errorf("locations: %+v %v", locs, err)
	}
	if ins, err := c.DisassemblePC(here, st.CurrentThread.PC, api.IntelFlavour); err != nil || len(ins) == 0 || ins[0].Text == "" {
		t.Errorf("instructions: %+v %v", ins, err)
	}
	if l, err := c.ListSources("main.go$"); err != nil || len(l) == 0 {
		t.Errorf("sources: %v %v", l, err)
	}
	if l, err := c.ListFunctions(`^main\.`, 0); err != nil || len(l) < 2 {
		t.Errorf("functions: %v %v", l, err)
	}
	if l, err := c.ListTypes("^int$"); err != nil || len(l) != 1 {
		t.Errorf("types: %v %v", l, err)
	}
	if l, err := c.ListPackageVariables(`^os\.Args$`, api.LoadConfig{MaxArrayValues: 1, MaxStringLen: 10}); err != nil || len(l) != 1 {
		t.Errorf("package variables: %v %v", l, err)
	}
	if regs, err := c.ListThreadRegisters(0, false); err != nil || len(regs) == 0 {
		t.Errorf("registers: %v %v", regs, err)
	}
	if regs, err := c.ListScopeRegisters(here, false); err != nil || len(regs) == 0 {
		t.Errorf("registers of a scope: %v %v", regs, err)
	}
	if b, little, err := c.ExamineMemory(st.CurrentThread.PC, 8); err != nil || len(b) != 8 || !little {
		t.Errorf("memory: %v %v", b, err)
	}
	if _, _, err := c.ExamineMemory(st.CurrentThread.PC, -1); err == nil {
		t.Error("memory of less than nothing")
	}
	if _, _, err := c.ListDynamicLibraries(); err != nil {
		t.Error(err)
	}
	if l, err := c.ListTargets(); err != nil || len(l) != 1 || l[0].Pid != h.pid {
		t.Errorf("targets: %+v %v", l, err)
	}
	if l, err := c.FunctionReturnLocations("main.double"); err != nil || len(l) != 1 {
		t.Errorf("returns: %v %v", l, err)
	}
	w, err := c.CreateWatchpoint(here, "v", api.WatchWrite)
	if err != nil {
		t.Errorf("watch: %v", err)
	} else if _, err := c.ClearBreakpoint(w.ID); err != nil {
		t.Errorf("watch no more: %v", err)
	}
	if err := c.CancelNext(); err != nil {
		t.Errorf("cancel: %v", err)
	}
	if err := c.CallAPI("Nonsense", struct{}{}, nil); err == nil || !strings.Contains(err.Error(), "can't find method RPCServer.Nonsense") {
		t.Errorf("an unknown method: %v", err)
	}
}

// What a client sends that is none ends its session with a reason, and neither the process nor the next session.
func TestRPCMalformed(t *testing.T) {
	h := hold(t)
	for in, want := range map[string]string{
		`{"method": 3, "id": 1}`: "malformed request",
		`{]`:                     "malformed request",
		`{"method":"RPCServer.State","params":[3],"id":7}`:   "malformed request body",
		`{"method":"RPCServer.Command","params":[3],"id":7}`: "malformed request body",
		`{"method":"State","params":[],"id":7}`:              "can't find method State",
		`{"method":"` + strings.Repeat("x", rpcLimit) + `"}`: "malformed request",
		`{"method":"RPCServer.ListPackageVars","id":7}`:      "",
	} {
		conn := h.session("begun")
		go io.WriteString(conn, in)
		var a struct {
			Error *string
		}
		if err := json.NewDecoder(conn).Decode(&a); err != nil || (a.Error == nil) != (want == "") || want != "" && !strings.Contains(*a.Error, want) {
			t.Errorf("%.60s: %+v %v", in, a, err)
		}
		conn.Close()
	}
	if pid := rpc2.NewClientFromConn(h.session("begun")).ProcessPid(); pid != h.pid {
		t.Errorf("process %d", pid)
	}
}

// said is a client that has said all it will.
type said struct {
	io.Reader
	mu  sync.Mutex
	out bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(b)
}

func (s *said) Close() error { return nil }

// FuzzRPC has a debugger without a process, whose methods panic: neither that nor any request ends the server.
func FuzzRPC(f *testing.F) {
	f.Add([]byte(`{"method":"RPCServer.State","params":[{"NonBlocking":true}],"id":1}{"method":"RPCServer.Detach","params":[{}],"id":2}`))
	f.Add([]byte(`{"method":"RPCServer.Command","params":[{"name":"continue"}],"id":1}{"method":"RPCServer.Command","params":[{"name":"halt"}],"id":2}`))
	f.Add([]byte(`{"method":"RPCServer.CreateBreakpoint","params":[{"Breakpoint":{"file":"x.go","line":-1}}],"id":"a"}`))
	f.Add([]byte(`{"method":"RPCServer.Stacktrace","params":[{"Id":-1,"Skip":-5,"Cfg":null}],"id":null}`))
	f.Add([]byte(`{"method":"RPCServer.GetEvents"}{"method":"RPCServer.ExamineMemory","params":[{"Length":-1}]`))
	f.Add([]byte(`{"method":"RPCServer.Eval","params":[[]],"id":{"x":[1]}} {"id":`))
	f.Add([]byte("{\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		conn := &said{Reader: bytes.NewReader(in)}
		r := &rpcSession{dbg: &debugger.Debugger{}, conn: conn, queue: make(chan rpcRequest, rpcQueue), gone: make(chan struct{}), events: make(chan *proc.Event), resumed: func() {}, ended: func() {}}
		r.serve()
		conn.mu.Lock()
		defer conn.mu.Unlock()
		for line := range bytes.Lines(conn.out.Bytes()) {
			if !json.Valid(line) {
				t.Errorf("answered %q", line)
			}
		}
	})
}
