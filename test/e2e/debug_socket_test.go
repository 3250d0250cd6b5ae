package e2e

import (
	"bufio"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

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
