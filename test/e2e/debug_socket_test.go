package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	dlv "github.com/go-delve/delve/service/api"
	"github.com/go-delve/delve/service/rpc2"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter/daptest"
)

// The agent's own socket and `fairlead dap --listen` speak the same protocol, to this user alone.
func TestDebugSockets(t *testing.T) {
	p := newLocal(t)
	s := p.debuggee(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.wait(t, "ready", func(e api.Event) bool { _, ok := e.(*api.ReadyEvent); return ok })
	url := a.url(t)
	named := regexp.MustCompile(`debug adapter on unix:(\S+)`).FindStringSubmatch(p.m.ok(t, p.m.root, "agent", "status"))
	if named == nil {
		t.Fatal("the agent names no socket")
	}
	addresses := map[string]string{"unix": named[1], "tcp": p.listen(t, "127.0.0.1:0")}
	own := filepath.Join(p.m.root, "own.sock")
	p.listen(t, "unix:"+own)
	for network, addr := range map[string]string{"unix": addresses["unix"], "tcp": addresses["tcp"], "own": own} {
		if network == "own" {
			network = "unix"
		}
		conn, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		d := &debugger{Client: daptest.New(t, conn)}
		d.Must("initialize", daptest.Initialize())
		if m := p.attach(t, d, s).Wait(); !m.Success {
			t.Fatalf("%s: %s", addr, m.Raw)
		}
		answer := asks(url)
		d.hit(t, s)
		if got, err := answer(); got != "v1" || err != nil {
			t.Errorf("%s: answered %q %v", addr, got, err)
		}
		d.Must("disconnect", nil)
	}
	for addr, want := range map[string]string{"0.0.0.0:0": "this machine only", ":0": "this machine only", "localhost": "want unix:/path", "unix:/no/such/folder/x": "folder of your own"} {
		if s := p.m.fairlead(t, p.m.root, "dap", "--listen", addr); s.code == 0 || !strings.Contains(s.stderr, want) || !strings.Contains(s.stderr, "fairlead: hint:") {
			t.Errorf("--listen %s: exit %d\n%s", addr, s.code, s.stderr)
		}
	}
}

// A client of Delve's own JSON-RPC, as GoLand's Go Remote is, has the only service that runs by the same address; then a
// save's new process ends its connection, the next one debugs that, and a DAP client can have it after.
func TestDebugJSONRPC(t *testing.T) {
	p := newLocal(t)
	s := p.debuggee(t, "v1")
	addr := p.listen(t, "127.0.0.1:0")
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	// Nothing runs yet: the first answer says so.
	var version dlv.GetVersionOut
	err := rpc2.NewClientFromConn(dial()).CallAPI("GetVersion", dlv.GetVersionIn{}, &version)
	if err == nil {
		t.Error("a debugger of nothing")
	}
	none := dial()
	fmt.Fprintln(none, `{"method":"RPCServer.SetApiVersion","params":[{"APIVersion":2}],"id":0}`)
	if line, err := bufio.NewReader(none).ReadString('\n'); !strings.Contains(line, "no service runs") || !strings.Contains(line, "fairlead run") {
		t.Errorf("without a service: %q %v", line, err)
	}

	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.wait(t, "ready", func(e api.Event) bool { _, ok := e.(*api.ReadyEvent); return ok })
	url := a.url(t)
	conn := dial()
	c := rpc2.NewClientFromConn(conn)
	hit := func(c *rpc2.RPCClient) {
		t.Helper()
		stops := c.Continue()
		answer := asks(url)
		st := <-stops
		if st.Err != nil || st.CurrentThread == nil || st.CurrentThread.File != s.file || st.CurrentThread.Line != s.line {
			t.Fatalf("stopped: %+v", st)
		}
		v, err := c.EvalVariable(dlv.EvalScope{GoroutineID: -1}, "v", dlv.LoadConfig{MaxStringLen: 10})
		if err != nil || v.Value != s.version {
			t.Errorf("v: %+v %v", v, err)
		}
		c.Continue()
		if got, err := answer(); got != s.version || err != nil {
			t.Errorf("answered %q %v", got, err)
		}
	}
	breakpoint := func(c *rpc2.RPCClient) {
		t.Helper()
		if err := c.CallAPI("GetVersion", dlv.GetVersionIn{}, &version); err != nil || version.APIVersion != 2 {
			t.Fatalf("version: %+v %v", version, err)
		}
		if st, err := c.GetStateNonBlocking(); err != nil || st.Running {
			if st, err = c.Halt(); err != nil || st.Running {
				t.Fatalf("halt: %+v %v", st, err)
			}
		}
		if _, err := c.CreateBreakpoint(&dlv.Breakpoint{File: s.file, Line: s.line}); err != nil {
			t.Fatal(err)
		}
	}
	breakpoint(c)
	hit(c)
	if st, err := c.Halt(); err != nil || st.Running {
		t.Fatalf("halt: %+v %v", st, err)
	}
	s.edit(t, "v2", 3)
	p.phase(t, api.PhaseWaiting)
	if st, err := c.GetState(); err != nil || st.Running {
		t.Errorf("while the save waits: %+v %v", st, err)
	}
	c.Continue()
	eventually(t, "the end of the old process's session", func() error {
		if _, err := c.GetStateNonBlocking(); err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	})

	eventually(t, "a session of the new process", func() error { // the one before is let go of meanwhile
		c = rpc2.NewClientFromConn(dial())
		return c.CallAPI("GetVersion", dlv.GetVersionIn{}, &version)
	})
	breakpoint(c)
	hit(c)
	if err := c.Detach(false); err != nil {
		t.Fatal(err)
	}
	if got, err := asks(url)(); got != "v2" || err != nil {
		t.Errorf("answered %q %v", got, err)
	}

	var d *debugger
	eventually(t, "a DAP session", func() error {
		d = &debugger{Client: daptest.New(t, dial())}
		d.Must("initialize", daptest.Initialize())
		if m := p.attach(t, d, s).Wait(); !m.Success {
			return fmt.Errorf("%s", m.Raw)
		}
		return nil
	})
	answer := asks(url)
	d.hit(t, s)
	if got, err := answer(); got != "v2" || err != nil {
		t.Errorf("answered %q %v", got, err)
	}
}

// listen starts `fairlead dap --listen`, and returns where it does.
func (p *place) listen(t testing.TB, addr string) string {
	t.Helper()
	cmd := exec.Command(fairlead, "dap", "--listen", addr)
	cmd.Dir, cmd.Env = p.m.root, p.m.env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "DAP server listening at: "))
}
