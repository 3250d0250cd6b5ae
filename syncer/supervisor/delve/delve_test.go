//go:build linux && (amd64 || arm64)

package delve

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-dap"
)

const program = `package main

import "fmt"

func main() {
	x := 41
	x++
	fmt.Println(x) // line 8
}
`

func TestMain(m *testing.M) {
	if pid, err := strconv.Atoi(os.Getenv("DELVE_TEST_HOLD")); err == nil {
		if err := Hold(os.NewFile(3, "dap"), pid); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("DELVE_TEST_CHILD") == "1" { // the session's own process
		if err := Serve(os.NewFile(3, "dap")); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A real session over an inherited socket, without any capability: breakpoint, stop, variable, end.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	src, exe := filepath.Join(dir, "main.go"), filepath.Join(dir, "prog")
	if err := os.WriteFile(src, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-gcflags=-N -l", "-o", exe, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "DELVE_TEST_CHILD=1")
	child.ExtraFiles = []*os.File{there}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	there.Close()
	conn, err := net.FileConn(here)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	c := &client{t: t, conn: conn, r: bufio.NewReader(conn)}
	c.send(&dap.InitializeRequest{Request: c.req("initialize"), Arguments: dap.InitializeRequestArguments{AdapterID: "go", LinesStartAt1: true, ColumnsStartAt1: true, PathFormat: "path"}})
	c.until("initialize")
	c.send(&dap.LaunchRequest{Request: c.req("launch"), Arguments: []byte(`{"mode":"exec","program":"` + exe + `"}`)})
	c.until("initialized")
	c.send(&dap.SetBreakpointsRequest{Request: c.req("setBreakpoints"), Arguments: dap.SetBreakpointsArguments{Source: dap.Source{Path: src}, Breakpoints: []dap.SourceBreakpoint{{Line: 8}}}})
	if b := c.until("setBreakpoints").(*dap.SetBreakpointsResponse); !b.Body.Breakpoints[0].Verified {
		t.Fatalf("the breakpoint: %+v", b.Body.Breakpoints)
	}
	c.send(&dap.ConfigurationDoneRequest{Request: c.req("configurationDone")})
	stop := c.until("stopped").(*dap.StoppedEvent)
	if stop.Body.Reason != "breakpoint" {
		t.Fatalf("stopped: %+v", stop.Body)
	}
	c.send(&dap.StackTraceRequest{Request: c.req("stackTrace"), Arguments: dap.StackTraceArguments{ThreadId: stop.Body.ThreadId}})
	frame := c.until("stackTrace").(*dap.StackTraceResponse).Body.StackFrames[0]
	if frame.Line != 8 {
		t.Fatalf("stopped at %+v", frame)
	}
	c.send(&dap.EvaluateRequest{Request: c.req("evaluate"), Arguments: dap.EvaluateArguments{Expression: "x", FrameId: frame.Id}})
	if e := c.until("evaluate").(*dap.EvaluateResponse); e.Body.Result != "42" {
		t.Fatalf("x = %s", e.Body.Result)
	}
	c.send(&dap.DisconnectRequest{Request: c.req("disconnect"), Arguments: &dap.DisconnectArguments{TerminateDebuggee: true}})
	c.until("disconnect")
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
}

type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	seq  int
}

func (c *client) req(command string) dap.Request {
	c.seq++
	return dap.Request{ProtocolMessage: dap.ProtocolMessage{Seq: c.seq, Type: "request"}, Command: command}
}

func (c *client) send(m dap.Message) {
	c.t.Helper()
	if err := dap.WriteProtocolMessage(c.conn, m); err != nil {
		c.t.Fatal(err)
	}
}

// until reads to the response of a command, or to an event of that name.
func (c *client) until(name string) dap.Message {
	c.t.Helper()
	for {
		m, err := dap.ReadProtocolMessage(c.r)
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", name, err)
		}
		switch m := m.(type) {
		case *dap.ErrorResponse:
			c.t.Fatalf("%s: %s: %v", m.Command, m.Message, m.Body.Error)
		case dap.ResponseMessage:
			if m.GetResponse().Command == name {
				return m
			}
		case dap.EventMessage:
			if m.GetEvent().Event == name {
				return m
			}
		}
	}
}
