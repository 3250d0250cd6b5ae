package redirect

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// child says what the test's executable is, in place of the tests: what installs the filter and becomes the next, or what connects.
const child = "REDIRECT_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(child) {
	case "filtered":
		runtime.LockOSThread()
		if err := Install(3); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Setenv(child, "dial")
		fmt.Println(syscall.Exec(os.Args[1], os.Args[1:], os.Environ()))
		os.Exit(1)
	case "dial":
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			fmt.Println(dial(in.Text()))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// dial says what it was greeted with at a "network address".
func dial(where string) string {
	network, addr, _ := strings.Cut(where, " ")
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		return "error: " + err.Error()
	}
	defer c.Close()
	if network == "udp" {
		return "udp to " + c.RemoteAddr().String()
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

// greeter is a server that says its name and closes.
func greeter(t *testing.T, network, addr, name string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, name)
			c.Close()
		}
	}()
	return ln
}

// start runs a program below the filter, and returns what it was handed.
func start(t *testing.T, args ...string) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Scanner, l *Listener) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
	defer here.Close()
	conn, err := net.FileConn(here)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd = exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), child+"=filtered")
	cmd.ExtraFiles = []*os.File{there}
	cmd.Stderr = os.Stderr
	in, _ = cmd.StdinPipe()
	r, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	there.Close()
	if l, err = Take(conn.(*net.UnixConn)); err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewScanner(r), l
}

// What is looked for elsewhere is found there, in both forms of an address, whatever its port; the rest is left alone. The
// listener ends with the process.
func TestRedirect(t *testing.T) {
	dir := t.TempDir()
	gate := greeter(t, "tcp4", "127.0.0.1:0", "gate")
	other := greeter(t, "tcp4", "127.0.0.1:0", "other")
	six := greeter(t, "tcp6", "[::1]:0", "six")
	// An address of as many bytes as one of IPv4 has.
	t.Chdir(dir)
	socket := strings.Repeat("s", sizeInet4-3)
	greeter(t, "unix", socket, "unix")
	cmd, in, out, l := start(t, os.Args[0])
	to := netip.MustParseAddrPort(gate.Addr().String())
	lookup := map[netip.AddrPort]netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.7:80"):        to,
		netip.MustParseAddrPort("[2001:db8::7]:50051"): to,
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(t.Context(), func(a netip.AddrPort) (netip.AddrPort, bool) { to, ok := lookup[a]; return to, ok }, func(err error) { t.Error(err) })
	}()
	var got []string
	for _, where := range []string{"tcp 192.0.2.7:80", "tcp 127.0.0.1:" + port(other), "tcp [2001:db8::7]:50051", "tcp [::ffff:192.0.2.7]:80", "tcp [::1]:" + port(six), "unix " + socket, "udp 127.0.0.1:9"} {
		fmt.Fprintln(in, where)
		if !out.Scan() {
			t.Fatalf("%s: no answer: %v", where, out.Err())
		}
		got = append(got, out.Text())
	}
	if d := cmp.Diff([]string{"gate", "other", "gate", "gate", "six", "unix", "udp to 127.0.0.1:9"}, got); d != "" {
		t.Error(d)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("it goes on after the process")
	}
}

// A program of another language, in a process that the first one has started.
func TestRedirectChild(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is needed: ", err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(c).ReadString('\n')
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngate")
			c.Close()
		}
	}()
	cmd, _, out, l := start(t, "/bin/sh", "-c", "sleep 0; "+curl+" -s --noproxy '*' http://192.0.2.7/; echo; echo done")
	go l.Run(t.Context(), func(a netip.AddrPort) (netip.AddrPort, bool) {
		return netip.MustParseAddrPort(ln.Addr().String()), a == netip.MustParseAddrPort("192.0.2.7:80")
	}, func(err error) { t.Error(err) })
	var got []string
	for out.Scan() {
		got = append(got, out.Text())
	}
	if d := cmp.Diff([]string{"gate", "done"}, got); d != "" {
		t.Error(d)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Whoever stops answering fails the connections in place of letting them wait for ever.
func TestRedirectEnds(t *testing.T) {
	_, in, out, l := start(t, os.Args[0])
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 16)
	go l.Run(ctx, func(a netip.AddrPort) (netip.AddrPort, bool) { asked <- struct{}{}; return a, false }, func(error) {})
	fmt.Fprintln(in, "tcp 127.0.0.1:1")
	if !out.Scan() || !strings.Contains(out.Text(), "refused") {
		t.Fatalf("before: %q", out.Text())
	}
	cancel()
	fmt.Fprintln(in, "tcp 127.0.0.1:1")
	// A call that is under way when it ends may still have its own answer.
	for out.Scan() && !strings.Contains(out.Text(), "not implemented") {
		fmt.Fprintln(in, "tcp 127.0.0.1:1")
	}
	if !strings.Contains(out.Text(), "not implemented") {
		t.Errorf("after: %q", out.Text())
	}
	in.Close()
}

// Of addresses that are none, nothing is made; what is written is what was read but for address and port.
func FuzzAddress(f *testing.F) {
	f.Add([]byte{2, 0, 0, 80, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{10, 0, 0, 80, 0, 0, 0, 0}, make([]byte, 20)...))
	f.Add([]byte{1, 0, '/', 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := decode(b); !ok {
			return
		}
		to := netip.MustParseAddrPort("127.0.0.1:4711")
		was := append([]byte(nil), b...)
		encode(b, to)
		got, ok := decode(b)
		if !ok || got != to || len(b) != len(was) || b[0] != was[0] || b[1] != was[1] {
			t.Fatalf("%x became %x: %v", was, b, got)
		}
	})
}

func port(ln net.Listener) string { return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port) }
