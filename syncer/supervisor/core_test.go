//go:build linux

package supervisor

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-dap"
	"golang.org/x/sys/unix"

	"fairlead.dev/api"
	"fairlead.dev/syncer/podtest"
)

// A service that dies with a core file: the file is told, and can be looked at with the executable that left it, as long
// as it is there and whatever runs by then.
func TestCore(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: was.Max, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &was)
	d := newDebuggee(t, Options{})
	m := podtest.Manifest(1, d.exe, "panic")
	m.Process.Dir, m.Process.Env = t.TempDir(), []string{"GOTRACEBACK=crash"}
	podtest.Ship(t, d.Subject, m, d.exe)
	e := exited(t, d.Events, 1)
	if pattern[0] == '|' || was.Max == 0 {
		if e.Core != "" {
			t.Errorf("a core file %s, with the pattern %s and the limit %d", e.Core, pattern, was.Max)
		}
		t.Logf("not tested here: the kernel gives core files to %s, limit %d", pattern, was.Max)
		return
	}
	if filepath.Dir(e.Core) != m.Process.Dir || *e.ExitCode != 128+int(syscall.SIGABRT) {
		t.Fatalf("%+v", e)
	}
	_, _, err = d.s.DebugCore(t.Context(), "/etc/passwd")
	wantCode(t, err, api.CodeNoProcess)
	other, _ := podtest.BuildDebug(t, "two")
	for g := api.Generation(2); g < 5; g++ { // its executable stays
		exe := d.exe
		if g%2 == 0 {
			exe = other
		}
		exe.Data = append(append([]byte{}, exe.Data...), byte(g)) // bytes behind its end mean nothing
		exe.Digest, exe.Size = podtest.DigestOf(exe.Data), int64(len(exe.Data))
		exe.Path = filepath.Join(t.TempDir(), "service")
		if err := os.WriteFile(exe.Path, exe.Data, 0o755); err != nil {
			t.Fatal(err)
		}
		podtest.Ship(t, d.Subject, podtest.Manifest(g, exe), exe)
		d.Events.Listening(t, g)
	}
	conn, start, err := d.s.DebugCore(t.Context(), e.Core)
	if err != nil || start.Generation != 1 || start.Program == "" {
		t.Fatalf("%+v %v", start, err)
	}
	c := podtest.NewSession(t, conn)
	c.Ask("initialize", dap.InitializeRequestArguments{AdapterID: "go", LinesStartAt1: true, ColumnsStartAt1: true, PathFormat: "path"})
	c.Ask("launch", map[string]any{"mode": "core", "program": start.Program, "coreFilePath": e.Core})
	c.Event("initialized")
	threads := c.Ask("threads", nil).(*dap.ThreadsResponse).Body.Threads
	panicked := podtest.Line(t, podtest.Debuggee, `panic("at start")`)
	found := false
	for _, th := range threads {
		r := c.Ask("stackTrace", dap.StackTraceArguments{ThreadId: th.Id}).(*dap.StackTraceResponse)
		for _, f := range r.Body.StackFrames {
			found = found || f.Name == "main.main" && f.Line == panicked
		}
	}
	if !found {
		t.Error("no goroutine stands where it panicked")
	}
	c.Close()
	if err := os.Remove(e.Core); err != nil {
		t.Fatal(err)
	}
	_, _, err = d.s.DebugCore(t.Context(), e.Core)
	wantCode(t, err, api.CodeNoProcess)
	noDelve(t)
}

func TestCorePattern(t *testing.T) {
	p := &process{pid: 42, exe: "/w/bin/a[very]long*service"}
	host, _ := os.Hostname()
	for pattern, want := range map[string]string{
		"core":              "/cwd/core",
		"core.%p":           "/cwd/core.42",
		"/c/%e-%s-%t.%h%%%": `/c/a\[very]long\*ser-6-*.` + host + "%",
		"/c/%E.%P.%i":       `/c/!w!bin!a\[very]long\*service.*.*`,
	} {
		if diff := cmp.Diff(want, corePattern(pattern, "/cwd", p, syscall.SIGABRT)); diff != "" {
			t.Errorf("%s: %s", pattern, diff)
		}
	}
}

// Of what the pattern fits only a core file counts that was written since the process was started.
func TestNewestCore(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	if err := os.WriteFile(filepath.Join(dir, "core.1"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := newestCore(filepath.Join(dir, "core*"), begin); got != "" {
		t.Error(got)
	}
	if err := os.Symlink("core.1", filepath.Join(dir, "core.2")); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	self[16] = 4 // ET_CORE
	for name, age := range map[string]time.Duration{"core.3": time.Hour, "core.4": 0} {
		n := filepath.Join(dir, name)
		if err := os.WriteFile(n, self, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(n, time.Time{}, begin.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if got := newestCore(filepath.Join(dir, "core*"), begin); got != filepath.Join(dir, "core.4") {
		t.Error(got)
	}
}

// What a supervisor's own end leaves to be seen: nothing, with a session, a task's program and its child alive.
func TestDebugShutdown(t *testing.T) {
	var pids []int
	t.Run("run", func(t *testing.T) {
		d := newDebuggee(t, Options{})
		d.ship(t, 1, "fork")
		c := d.session(t, 1, d.handler)
		c.Go()
		line(t, d.Events, 1, "child ")
		started, err := d.s.StartTask(t.Context(), api.Task{Executable: api.File{Path: "x", Mode: 0o755, Size: d.exe.Size, Digest: d.exe.Digest}})
		if err != nil {
			t.Fatal(err)
		}
		conn, _, err := d.s.DebugTask(t.Context(), started.ID)
		if err != nil {
			t.Fatal(err)
		}
		s := podtest.NewSession(t, conn)
		s.Ask("initialize", dap.InitializeRequestArguments{AdapterID: "go", LinesStartAt1: true, ColumnsStartAt1: true, PathFormat: "path"})
		s.Ask("launch", map[string]any{"mode": "exec", "program": started.Program, "cwd": started.Dir, "outputMode": "remote"})
		d.ask(t, "/")
		c.Stopped(d.handler)
		pids = descendants(os.Getpid(), nil)
		if len(pids) < 5 { // two services, two debuggers, a task
			t.Fatalf("%v", pids)
		}
	})
	for _, pid := range pids {
		if st, _, ok := statOf(pid); ok && st != 'Z' {
			t.Errorf("process %d is left", pid)
		}
	}
}

// A task that nobody opens goes.
func TestTaskUnopened(t *testing.T) {
	d := newDebuggee(t, Options{})
	d.s.awaitTask = 50 * time.Millisecond
	d.ship(t, 1)
	started, err := d.s.StartTask(t.Context(), api.Task{Executable: api.File{Path: "x", Mode: 0o755, Size: d.exe.Size, Digest: d.exe.Digest}})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; syscall.Nanosleep(&syscall.Timespec{Nsec: 5e6}, nil) {
		if _, err := os.Stat(started.Program); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it stays")
		}
	}
	_, _, err = d.s.DebugTask(t.Context(), started.ID)
	if p := wantCode(t, err, api.CodeNoProcess); !strings.Contains(p.Hint, "again") {
		t.Errorf("%+v", p)
	}
}

// What Delve says last, its answer to disconnect, is there for a reader that is slower than Delve's end.
func TestTaskLastWord(t *testing.T) {
	d := newDebuggee(t, Options{})
	d.ship(t, 1)
	started, err := d.s.StartTask(t.Context(), api.Task{Executable: api.File{Path: "x", Mode: 0o755, Size: d.exe.Size, Digest: d.exe.Digest}})
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := d.s.DebugTask(t.Context(), started.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := dap.WriteProtocolMessage(conn, &dap.DisconnectRequest{Request: dap.Request{ProtocolMessage: dap.ProtocolMessage{Seq: 1, Type: "request"}, Command: "disconnect"}}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; syscall.Nanosleep(&syscall.Timespec{Nsec: 5e6}, nil) {
		d.s.mu.Lock()
		n := len(d.s.sessions)
		d.s.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("Delve stays")
		}
	}
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(conn)
	for {
		m, err := dap.ReadProtocolMessage(r)
		if err != nil {
			t.Fatalf("before the answer: %v", err)
		}
		if m, ok := m.(dap.ResponseMessage); ok && m.GetResponse().Command == "disconnect" {
			break
		}
	}
}
