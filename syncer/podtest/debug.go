package podtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
