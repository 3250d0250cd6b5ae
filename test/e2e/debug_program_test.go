package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter/daptest"
	agentclient "fairlead.dev/server/client"
)

func goBuild(t testing.TB, dir, out string, flags ...string) {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"build", "-buildvcs=false", "-o", out}, flags...), ".")...)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
}

// A test runs in the environment under the debugger: with its testdata and the service's neighbours, what it writes in the
// debug console, its end the session's; restarted, it is built anew.
func TestDebugTest(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.debuggee(t, "v1")
		file := filepath.Join(s.dir, "sum", "sum_test.go")
		test := "package sum\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestSum(t *testing.T) {\n\tb, err := os.ReadFile(\"testdata/in.txt\")\n\tif err != nil {\n\t\tt.Fatal(err)\n\t}\n\tgot := string(b)\n\tt.Log(\"read\", got)\n}\n\nfunc TestOther(t *testing.T) { t.Fatal(\"not asked for\") }\n"
		write(t, file, test)
		write(t, filepath.Join(s.dir, "sum", "testdata", "in.txt"), "first")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		a.wait(t, "ready", func(e api.Event) bool { _, ok := e.(*api.ReadyEvent); return ok })
		d := p.dap(t)
		answer := d.Send("launch", daptest.M{"mode": "test", "program": filepath.Dir(file), "args": []string{"-test.run=^TestSum$", "-test.v"}})
		d.Event("initialized")
		d.Must("setBreakpoints", daptest.Lines(file, 14))
		d.Must("configurationDone", nil)
		if m := answer.Wait(); !m.Success {
			t.Fatal(m)
		}
		got := func() string {
			t.Helper()
			stop := d.Stopped()
			var e struct{ Result string }
			d.Must("evaluate", daptest.M{"expression": "got", "frameId": d.Frames(stop.ThreadID)[0].Id}).Into(t, &e)
			return e.Result
		}
		if v := got(); v != `"first"` {
			t.Errorf("got = %s", v)
		}
		write(t, filepath.Join(s.dir, "sum", "testdata", "in.txt"), "second")
		d.Must("restart", nil)
		if v := got(); v != `"second"` {
			t.Errorf("restarted, got = %s", v)
		}
		d.Must("continue", daptest.M{"threadId": 1})
		d.EventWhere("the test's words", func(m daptest.Message) bool {
			return m.Event == "output" && strings.Contains(string(m.Raw), "--- PASS: TestSum")
		})
		d.Event("terminated")
		d.Must("disconnect", nil)
		if got, err := get(a.url(t) + "/version"); err == nil && got != "v1" {
			t.Errorf("the service answers %q", got)
		}
		a.interrupt(t)
		p.wantNothing(t)
	})
}

// dumps makes a program leave a core file, and returns both. The machine must write core files into the working folder.
func dumps(t testing.TB, flags ...string) (exe, core, source string) {
	t.Helper()
	if b, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || strings.HasPrefix(string(b), "|") || strings.HasPrefix(string(b), "/") {
		skip(t, "core files go elsewhere on this machine ("+strings.TrimSpace(string(b))+")")
	}
	dir := filepath.Join(t.TempDir(), "dies")
	source = filepath.Join(dir, "main.go")
	write(t, filepath.Join(dir, "go.mod"), "module example.com/dies\n\ngo 1.26\n")
	write(t, source, "package main\n\nfunc main() {\n\tanswer := 42\n\tdie(answer)\n}\n\n//go:noinline\nfunc die(n int) {\n\tpanic(n) // dies\n}\n")
	exe = filepath.Join(dir, "dies")
	goBuild(t, dir, exe, append([]string{"-gcflags=-N -l"}, flags...)...)
	work := t.TempDir()
	cmd := exec.Command("sh", "-c", `ulimit -c unlimited && exec "$0"`, exe)
	cmd.Dir, cmd.Env = work, []string{"GOTRACEBACK=crash"}
	cmd.Run()
	found, _ := filepath.Glob(filepath.Join(work, "core*"))
	if len(found) != 1 {
		t.Fatalf("core files %v after %v", found, cmd.ProcessState)
	}
	return exe, found[0], source
}

// A core file opens with its executable under the same adapter, its sources where they are here, also of an executable
// that was built with trimmed paths; another executable's is refused.
func TestDebugCore(t *testing.T) {
	if runtime.GOOS != "linux" {
		skip(t, "core files are opened on Linux")
	}
	p := newLocal(t)
	for _, flags := range [][]string{nil, {"-trimpath"}} {
		exe, core, source := dumps(t, flags...)
		d := p.dapIn(t, filepath.Dir(source))
		answer := d.Send("launch", daptest.M{"mode": "core", "exe": exe, "coreFilePath": core})
		d.Event("initialized")
		d.Must("configurationDone", nil)
		if m := answer.Wait(); !m.Success {
			t.Fatal(m)
		}
		stop := d.Stopped()
		found := false
		for _, f := range d.Frames(stop.ThreadID) {
			if f.Name == "main.die" && f.Source != nil && f.Source.Path == source && f.Line == 10 {
				var e struct{ Result string }
				d.Must("evaluate", daptest.M{"expression": "n", "frameId": f.Id}).Into(t, &e)
				found = e.Result == "42"
			}
		}
		if !found {
			t.Errorf("%v: main.die at %s:10 with n = 42 is not in the stack: %+v", flags, source, d.Frames(stop.ThreadID))
		}
		d.Must("disconnect", nil)
		out := p.m.ok(t, filepath.Dir(source), "debug", "--core", core, "--exe", exe)
		for _, want := range []string{"main.die", "main.go:10", "main.main"} {
			if !strings.Contains(out, want) {
				t.Errorf("fairlead debug does not say %q:\n%s", want, out)
			}
		}
		stripped := filepath.Join(t.TempDir(), "stripped")
		goBuild(t, filepath.Dir(source), stripped, "-ldflags=-s -w")
		if s := p.m.fairlead(t, p.m.root, "debug", "--core", core, "--exe", stripped); s.code != 1 || !strings.Contains(s.stderr, "has no symbols") || !strings.Contains(s.stderr, "fairlead: hint:") {
			t.Errorf("without symbols: exit %d\n%s", s.code, s.stderr)
		}
		other := filepath.Join(t.TempDir(), "other")
		goBuild(t, filepath.Dir(source), other, "-gcflags=-N -l", "-tags=other", "-ldflags=-X main.x=y")
		if s := p.m.fairlead(t, p.m.root, "debug", "--core", core, "--exe", other); s.code != 1 || !strings.Contains(s.stderr, "not of this executable") || !strings.Contains(s.stderr, "fairlead: hint:") {
			t.Errorf("another build: exit %d\n%s", s.code, s.stderr)
		}
	}
}

// A service that dies with a core file in its environment offers to open it.
func TestDebugCoreInEnvironment(t *testing.T) {
	if b, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); strings.HasPrefix(string(b), "|") {
		skip(t, "core files go to a program on this machine")
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: was.Max, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_CORE, &was)
	p := newLocal(t)
	s := p.debuggee(t, "v1")
	write(t, filepath.Join(s.dir, "boom.go"), "package main\n\nimport \"net/http\"\n\nfunc init() {\n\thttp.HandleFunc(\"/boom\", func(http.ResponseWriter, *http.Request) { go boom(7) })\n}\n\nfunc boom(n int) {\n\tpanic(n)\n}\n")
	write(t, filepath.Join(s.dir, "fairlead.yaml"), "version: 1\nenv: {GOTRACEBACK: crash}\n")
	d := p.dap(t)
	begun := d.Send("launch", daptest.M{"program": s.dir, "args": []string{"-port", p.port(t)}}) // with symbols
	d.Event("initialized")
	d.Must("setExceptionBreakpoints", daptest.M{"filters": []string{}})
	d.Must("configurationDone", nil)
	if m := begun.Wait(); !m.Success {
		t.Fatal(m)
	}
	url := p.live(t, s)
	get(url + "/boom")
	var core string
	eventually(t, "a core file is told", func() error {
		var err error
		core, err = p.m.core(t)
		return err
	})
	defer os.Remove(core)
	c := p.dap(t)
	answer := c.Send("launch", daptest.M{"mode": "core", "service": "tiny", "coreFilePath": core})
	c.Event("initialized")
	c.Must("configurationDone", nil)
	if m := answer.Wait(); !m.Success {
		t.Fatal(m)
	}
	stop := c.Stopped()
	names := ""
	for _, f := range c.Frames(stop.ThreadID) {
		names += f.Name + " "
	}
	if !strings.Contains(names, "main.boom") {
		t.Errorf("the stack is %s", names)
	}
	c.Must("disconnect", nil)
}

// core is what the agent says of the core file of its only service.
func (m *machine) core(t testing.TB) (string, error) {
	t.Helper()
	c := agentclient.New(agentclient.Options{Socket: filepath.Join(m.run, "fairlead", "agent.sock"), Version: "e2e"})
	all, err := c.Services(t.Context())
	if err != nil {
		return "", err
	}
	if len(all) != 1 || all[0].Core == "" {
		return "", fmt.Errorf("services %+v", all)
	}
	return all[0].Core, nil
}
