//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/syncer/podtest"
)

const token = "0123456789abcdef0123456789abcdef"

// TestMain makes this test's executable fairlead-pod itself where it is called as that.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"run", "dap", "exec"}, os.Args[1]) {
		main()
		os.Exit(0)
	}
	code := m.Run()
	podtest.Clean()
	os.Exit(code)
}

// pod is a real fairlead-pod of a user without any right beyond its own.
type pod struct {
	podtest.Subject
	cmd *exec.Cmd
	dir string
}

// nobody is a user of nothing.
const nobody = 65534

func newPod(t *testing.T, dir string) *pod {
	t.Helper()
	p := &pod{dir: dir}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o644); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	p.cmd = exec.Command(filepath.Join(dir, "fairlead-pod"), "run", "--dir", filepath.Join(dir, "work"), "--socket", sock, "--token-file", filepath.Join(dir, "token"), "--ready")
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: what is given up below is given up by the thread
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			started <- err
			return
		}
		if os.Getuid() == 0 {
			for c := range uintptr(41) { // CAP_LAST_CAP is 40
				unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
			}
		}
		started <- p.cmd.Start()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "ready\n" {
		t.Fatalf("it says %q (%v)", l, err)
	}
	c := bridge.New(bridge.Options{Token: token, Name: "tester", Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", sock)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	rec := &podtest.Recorder{}
	go func() { defer close(done); c.Run(ctx) }()
	go c.Events(ctx, "", 0, func(e api.Event) error { rec.Add(e); return nil })
	t.Cleanup(func() { cancel(); <-done })
	p.Subject = podtest.Subject{Pod: c, Events: rec, Store: filepath.Join(dir, "work", "store"),
		Dial:     func(ctx context.Context, port int) (io.ReadWriteCloser, error) { return c.DialPort(ctx, port) },
		DebugPod: podtest.DebugPod{Debug: c.DialDebug, Release: c.ReleaseDebug, Start: c.StartTask, Task: c.DialTask, Core: c.DialCore}}
	return p
}

// folder is one that the pod's user may write to, with this executable in it.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fl") // short: a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "fairlead-pod"), b, 0o755)
	}
	if err == nil && os.Getuid() == 0 {
		err = os.Chown(dir, nobody, nobody)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The whole suite without a capability, with no_new_privs, as a user of nothing: what Pod Security "restricted" leaves.
func TestDebugUnprivileged(t *testing.T) {
	podtest.RunDebug(t, func(t *testing.T) podtest.Subject {
		p := newPod(t, folder(t))
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			switch f := strings.Fields(l); f[0] {
			case "CapEff:", "CapPrm:", "CapInh:", "CapAmb:":
				if f[1] != "0000000000000000" {
					t.Fatalf("it has capabilities: %s", l)
				}
			case "NoNewPrivs:":
				if f[1] != "1" {
					t.Fatal(l)
				}
			}
		}
		return p.Subject
	})
}

// A supervisor that is killed takes service and debugger with it; the next one runs the service, and it can be debugged.
func TestDebugSupervisorKilled(t *testing.T) {
	dir := folder(t)
	exe, src := podtest.BuildDebug(t, "one")
	handler := podtest.Line(t, podtest.Debuggee, "// break: handler")
	p := newPod(t, dir)
	podtest.Ship(t, p.Subject, podtest.Held(1, exe), exe)
	d, _ := podtest.Debug(t, p.Subject, 1)
	d.Attach()
	d.Break(src, handler)
	d.Go()
	p.Events.Listening(t, 1)
	go podtest.Client(p.Subject).Get("http://localhost/")
	d.Stopped(handler)
	var below []int
	for _, pid := range pidsOf(t) {
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil && strings.Contains(string(env), "FAIRLEAD_WORK="+filepath.Join(dir, "work")) {
			below = append(below, pid)
		}
	}
	if len(below) != 2 {
		t.Fatalf("service and debugger: %v", below)
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	for _, pid := range below {
		for end := time.Now().Add(10 * time.Second); ; syscall.Nanosleep(&syscall.Timespec{Nsec: 5e6}, nil) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(b), ") Z") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("process %d outlives it: %s", pid, b)
			}
		}
	}
	d.End()
	p = newPod(t, dir)
	p.Events.Listening(t, 1)
	d, start := podtest.Debug(t, p.Subject, 1)
	if start.Fresh || start.Stopped {
		t.Fatalf("%+v", start)
	}
	d.Attach()
	d.Break(src, handler)
	d.Go()
	go podtest.Client(p.Subject).Get("http://localhost/")
	d.Stopped(handler)
}

func pidsOf(t *testing.T) (pids []int) {
	t.Helper()
	ents, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}
