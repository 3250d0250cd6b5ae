package podtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-dap"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
)

// Debuggee is a service to be debugged: it answers / with VERSION and counts its answers.
const Debuggee = `package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const version = "VERSION"

var begun = begin()

func begin() string {
	return "begun" // break: init
}

var count int

func main() {
	fmt.Println(begun, version) // break: main
	for _, a := range os.Args[1:] {
		switch a {
		case "panic":
			panic("at start")
		case "exit":
			os.Exit(7)
		case "ignore-term":
			signal.Ignore(syscall.SIGTERM)
		case "last-words":
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			go func() { <-c; fmt.Println("last words"); os.Exit(0) }()
		case "fork":
			cmd := exec.Command("/proc/self/exe", "child")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			fmt.Println("child", cmd.Process.Pid)
		case "child":
			time.Sleep(time.Hour)
		case "forks":
			go func() {
				for {
					exec.Command("/proc/self/exe", "nothing").Run()
				}
			}()
		case "nothing":
			return
		case "fixed":
			serve("127.0.0.1:" + os.Getenv("FIXED_PORT"))
		}
	}
	serve("127.0.0.1:0")
}

func serve(addr string) {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		count++
		answer := version + " " + strconv.Itoa(count) // break: handler
		fmt.Fprint(w, answer)
	})
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("slow begins")
		ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Fprint(w, version)
	})
	http.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) { os.Exit(7) })
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		panic(err)
	}
	fmt.Println("listening", version)
	http.Serve(ln, nil)
}
`

// BuildDebug builds the debuggee with a version, for the debugger, and returns its executable and its source's path. flags
// are added to the build's. The executables of one version and flags are shared by the tests of one process.
func BuildDebug(t testing.TB, version string, flags ...string) (syncer.Executable, string) {
	t.Helper()
	return BuildProgram(t, "debuggee", strings.Replace(Debuggee, "VERSION", version, 1), "CGO_ENABLED=0", append([]string{"-gcflags=-N -l", "-ldflags=-compressdwarf=false"}, flags...)...)
}

// BuildProgram builds a program of one file.
func BuildProgram(t testing.TB, name, source, env string, flags ...string) (syncer.Executable, string) {
	t.Helper()
	buildMu.Lock()
	defer buildMu.Unlock()
	makeDir(t)
	key := string(DigestOf([]byte(name + source + env + strings.Join(flags, " "))))[7:19]
	src := filepath.Join(dir, name)
	main := filepath.Join(src, "main.go")
	if e, ok := buildID[key]; ok {
		return e, main
	}
	write(t, filepath.Join(src, "go.mod"), "module example.com/"+name+"\n\ngo 1.26\n")
	write(t, main, source)
	out := filepath.Join(dir, name+"-"+key)
	for try := 1; ; try++ {
		cmd := exec.Command("go", append(append([]string{"build", "-buildvcs=false", "-o", out}, flags...), ".")...)
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", env)
		b, err := cmd.CombinedOutput()
		if tookChild(err) && try < 10 {
			continue
		}
		if err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, b)
		}
		break
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	e := syncer.Executable{Path: out, Digest: DigestOf(data), Size: int64(len(data)), Data: data}
	buildID[key] = e
	return e, main
}

// Held makes a manifest for an executable that is to be started under the debugger.
func Held(g api.Generation, e syncer.Executable, args ...string) api.Manifest {
	m := Manifest(g, e, args...)
	m.Process.Debug = true
	return m
}

// Debug opens a session with a generation's debugger.
func Debug(t testing.TB, s Subject, g api.Generation) (*Session, api.DebugStart) {
	t.Helper()
	conn, start, err := s.Debug(t.Context(), g)
	if err != nil {
		t.Fatalf("debug generation %d: %v", g, err)
	}
	return NewSession(t, conn), start
}

// DebugPod is how a test reaches the debugger of its subject.
type DebugPod struct {
	Debug   func(ctx context.Context, g api.Generation) (net.Conn, api.DebugStart, error)
	Release func(ctx context.Context) error
	Start   func(ctx context.Context, t api.Task) (api.TaskStarted, error)
	Task    func(ctx context.Context, id string) (net.Conn, error)
	Core    func(ctx context.Context, path string) (net.Conn, api.DebugStart, error)
}

// program is what a task runs: it reads a file beside it and leaves a child in a session of its own.
const program = `package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 1 {
		time.Sleep(time.Hour)
	}
	b, err := os.ReadFile("testdata/golden")
	fmt.Println(string(b), err, os.Getenv("OF_SERVICE"), os.Getenv("OF_TASK"))
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	fmt.Println("child", cmd.Process.Pid, err) // break: child
	time.Sleep(time.Hour)
}
`

// stageAll stages contents as they are.
func stageAll(t testing.TB, s Subject, contents ...[]byte) {
	t.Helper()
	for _, c := range contents {
		if err := s.Pod.Stage(t.Context(), api.Blob{Digest: DigestOf(c), Size: int64(len(c)), Encoding: api.EncodingRaw}, bytes.NewReader(c)); err != nil {
			t.Fatal(err)
		}
	}
}

func runTasks(t *testing.T, subject func(t *testing.T) Subject) {
	s := subject(t)
	svc := Build(t, "one")
	m := Manifest(1, svc)
	m.Process.Env = []string{"OF_SERVICE=service"}
	Ship(t, s, m, svc)
	s.Events.Listening(t, 1)
	before := must(s.Pod.Status(t.Context()))
	exe, src := BuildProgram(t, "task", program, "CGO_ENABLED=0", "-gcflags=-N -l", "-ldflags=-compressdwarf=false")
	golden := []byte("golden")
	task := api.Task{Executable: api.File{Path: "pkg.test", Mode: 0o755, Size: exe.Size, Digest: exe.Digest}, Folder: "pkg", Env: []string{"OF_TASK=task"},
		Files: []api.File{{Path: "pkg/testdata/golden", Mode: 0o644, Size: int64(len(golden)), Digest: DigestOf(golden)}, {Path: "go.mod", Link: "pkg/testdata/golden"}}}
	var p *api.Problem
	if _, err := s.Start(t.Context(), task); !errors.As(err, &p) || p.Code != api.CodeBlobMissing || len(p.Missing) != 2 {
		t.Fatalf("before its files are there: %v", err)
	}
	stageAll(t, s, exe.Data, golden)
	for name, c := range map[string]func(t *api.Task){
		"folder outside": func(t *api.Task) { t.Folder = "../.." }, "file outside": func(t *api.Task) { t.Files = []api.File{{Path: "../x", Link: "y"}} },
		"program outside": func(t *api.Task) { t.Executable.Path = "../x" }, "another's folder": func(t *api.Task) { t.Dir = "etc" },
	} {
		bad := task
		c(&bad)
		if _, err := s.Start(t.Context(), bad); problemCode(err) != api.CodeBadManifest {
			t.Errorf("%s: %v", name, err)
		}
	}
	stripped := task
	stripped.Executable = api.File{Path: "pkg.test", Mode: 0o755, Size: svc.Size, Digest: svc.Digest}
	if _, err := s.Start(t.Context(), stripped); problemCode(err) != api.CodeNoSymbols {
		t.Errorf("without symbols: %v", err)
	}
	for round := range 2 {
		started, err := s.Start(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := s.Task(t.Context(), started.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Task(t.Context(), started.ID); problemCode(err) != api.CodeNoProcess {
			t.Errorf("opened twice: %v", err)
		}
		d := NewSession(t, conn)
		d.Ask("initialize", dap.InitializeRequestArguments{AdapterID: "go", LinesStartAt1: true, ColumnsStartAt1: true, PathFormat: "path"})
		d.Ask("launch", map[string]any{"mode": "exec", "program": started.Program, "cwd": started.Dir, "args": []string{"-x"}, "outputMode": "remote"})
		d.Event("initialized")
		d.Break(src, Line(t, program, "// break: child"))
		d.Go()
		f := d.Stopped(Line(t, program, "// break: child"))
		child := d.Value(f, "cmd.Process.Pid")
		if v := d.Value(f, "err"); !strings.Contains(v, "nil") {
			t.Errorf("err = %s", v)
		}
		if out := d.Output("golden"); out != "golden <nil> service task" {
			t.Errorf("it says %q", out)
		}
		// A swap of the service is none of the task's business.
		next := variant(t, svc, api.Generation(round))
		m := Manifest(api.Generation(2+round), next)
		m.Process.Env = []string{"OF_SERVICE=service"}
		Ship(t, s, m, next)
		s.Events.Listening(t, api.Generation(2+round))
		if v := d.Value(f, "len(os.Args)"); v != "2" {
			t.Errorf("len(os.Args) = %s", v)
		}
		if round == 0 {
			d.Ask("disconnect", dap.DisconnectArguments{TerminateDebuggee: true})
		} else {
			d.Close()
		}
		if s.Store != "" { // a pod that can be looked into
			eventually(t, "the child "+child+" to end", func() bool { return gone(child) })
			eventually(t, "the task's folder to go", func() bool { _, err := os.Stat(filepath.Dir(started.Program)); return err != nil })
		}
		stageAll(t, s, exe.Data, golden)
	}
	if st := must(s.Pod.Status(t.Context())); st.State != api.StateRunning || st.PID == before.PID {
		t.Errorf("%+v", st)
	}
	// Too many at a time.
	var err error
	for range 20 {
		if _, err = s.Start(t.Context(), task); err != nil {
			break
		}
	}
	if problemCode(err) != api.CodeTaskLimit {
		t.Errorf("twenty tasks: %v", err)
	}
}

func gone(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	return err != nil || strings.Contains(string(b), ") Z")
}

// eventually waits for what no event tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("waited for %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// RunDebug runs the suite of debugging; subject makes a fresh, empty pod.
func RunDebug(t *testing.T, subject func(t *testing.T) Subject) {
	t.Run("fresh", func(t *testing.T) {
		s := subject(t)
		exe, src := BuildDebug(t, "one")
		Ship(t, s, Held(1, exe), exe)
		d, start := Debug(t, s, 1)
		if !start.Fresh || start.Stopped || start.Generation != 1 || start.PID == 0 {
			t.Fatalf("%+v", start)
		}
		d.Attach()
		at := func(mark string) int { return Line(t, Debuggee, mark) }
		d.Break(src, at("// break: init"), at("// break: main"), at("// break: handler"))
		d.Go()
		d.Stopped(at("// break: init"))
		d.Continue()
		d.Stopped(at("// break: main"))
		if st := must(s.Pod.Status(t.Context())); !st.Debugger || st.State != api.StateStarting || st.PID != start.PID {
			t.Fatalf("%+v", st)
		}
		d.Continue()
		s.Events.Listening(t, 1)
		answer := make(chan string, 1)
		go func() { b, _, err := get(t.Context(), s, "/"); answer <- fmt.Sprint(b, err) }()
		f := d.Stopped(at("// break: handler"))
		if v := d.Value(f, "count"); v != "1" {
			t.Fatalf("count = %s", v)
		}
		d.Continue()
		if a := <-answer; a != "one 1<nil>" {
			t.Fatalf("answer %q", a)
		}
	})
	t.Run("swaps", func(t *testing.T) {
		s := subject(t)
		one, src := BuildDebug(t, "one")
		two, _ := BuildDebug(t, "two")
		handler := Line(t, Debuggee, "// break: handler")
		for i := range 10 {
			g, exe, name := api.Generation(i+1), one, "one"
			if i%2 == 1 {
				exe, name = two, "two"
			}
			Ship(t, s, Held(g, exe), exe)
			d, start := Debug(t, s, g)
			if !start.Fresh {
				t.Fatalf("%+v", start)
			}
			d.Attach()
			d.Break(src, handler)
			d.Go()
			answer := make(chan string, 1)
			go func() { b, _, err := get(t.Context(), s, "/"); answer <- fmt.Sprint(b, err) }()
			d.Stopped(handler)
			d.Continue()
			if a := <-answer; a != name+" 1<nil>" {
				t.Fatalf("answer %q", a)
			}
		}
	})
	t.Run("as it runs", func(t *testing.T) {
		s := subject(t)
		exe, src := BuildDebug(t, "one")
		Ship(t, s, Manifest(1, exe), exe)
		s.Events.Listening(t, 1)
		before := must(s.Pod.Status(t.Context()))
		handler := Line(t, Debuggee, "// break: handler")
		d, start := Debug(t, s, 1)
		if start.Fresh || start.Stopped || start.PID != before.PID {
			t.Fatalf("%+v, the process was %d", start, before.PID)
		}
		d.Attach()
		d.Break(src, handler)
		d.Go()
		answer := make(chan string, 1)
		go func() { b, _, err := get(t.Context(), s, "/"); answer <- fmt.Sprint(b, err) }()
		d.Stopped(handler)
		// The stream breaks off while the process stands: the next finds it so.
		d.Close()
		d, start = Debug(t, s, 1)
		if !start.Stopped || start.Fresh {
			t.Fatalf("%+v", start)
		}
		d.Attach()
		d.Go()
		if a := <-answer; a != "one 1<nil>" {
			t.Fatalf("answer %q", a)
		}
		go func() { b, _, err := get(t.Context(), s, "/"); answer <- fmt.Sprint(b, err) }()
		d.Stopped(handler)
		// Let go of where it stands: it goes on, and the line is as it was.
		if err := s.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a := <-answer; a != "one 2<nil>" {
			t.Fatalf("answer %q", a)
		}
		for i := 3; i < 20; i++ {
			if got := Get(t, s, "/"); got != fmt.Sprint("one ", i) {
				t.Fatalf("answer %q", got)
			}
		}
		d.End()
		if st := must(s.Pod.Status(t.Context())); st.PID != before.PID || st.Debugger {
			t.Fatalf("%+v, the process was %d", st, before.PID)
		}
	})
	t.Run("tasks", func(t *testing.T) { runTasks(t, subject) })
	t.Run("no symbols", func(t *testing.T) {
		s := subject(t)
		one := Build(t, "one")
		Ship(t, s, Manifest(1, one), one)
		s.Events.Listening(t, 1)
		before := must(s.Pod.Status(t.Context()))
		if _, _, err := s.Debug(t.Context(), 1); problemCode(err) != api.CodeNoSymbols {
			t.Fatalf("a stripped executable: %v", err)
		}
		if got := Get(t, s, "/"); got != "one" {
			t.Fatalf("answer %q", got)
		}
		if st := must(s.Pod.Status(t.Context())); st.PID != before.PID || st.Debugger {
			t.Fatalf("%+v, it was %+v", st, before)
		}
		// Asked to start it under the debugger the pod starts it without, and says so.
		two := Build(t, "two")
		Ship(t, s, Held(2, two), two)
		s.Events.Listening(t, 2)
		s.Events.Wait(t, "no symbols", func(e api.Event) bool {
			p, ok := e.(*api.ProblemEvent)
			return ok && p.Generation == 2 && p.Code == api.CodeNoSymbols && p.Owner == "debug" && p.Severity == api.SeverityWarning && p.Hint != ""
		})
		if got := Get(t, s, "/"); got != "two" {
			t.Fatalf("answer %q", got)
		}
		if _, _, err := s.Debug(t.Context(), 1); problemCode(err) != api.CodeNoProcess {
			t.Fatalf("an old generation: %v", err)
		}
	})
}
