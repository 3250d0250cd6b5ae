//go:build linux

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/podtest"
	"fairlead.dev/test/freeport"
)

// debuggee is a supervisor that runs the debuggee.
type debuggee struct {
	podtest.Subject
	s       *Supervisor
	exe     syncer.Executable
	src     string
	handler int
}

func newDebuggee(t *testing.T, opts Options) *debuggee {
	t.Helper()
	d := &debuggee{}
	d.exe, d.src = podtest.BuildDebug(t, "one")
	d.Subject, d.s = subject(t, opts)
	d.handler = podtest.Line(t, podtest.Debuggee, "// break: handler")
	return d
}

// ship swaps a generation in, held for a debug session.
func (d *debuggee) ship(t *testing.T, g api.Generation, args ...string) {
	t.Helper()
	podtest.Ship(t, d.Subject, podtest.Held(g, d.exe, args...), d.exe)
}

// session begins a session and sets breakpoints.
func (d *debuggee) session(t *testing.T, g api.Generation, lines ...int) *podtest.Session {
	t.Helper()
	c, _ := podtest.Debug(t, d.Subject, g)
	c.Attach()
	c.Break(d.src, lines...)
	return c
}

func (d *debuggee) status(t *testing.T) api.Status {
	t.Helper()
	st, err := d.s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// ask asks the service beside the test.
func (d *debuggee) ask(t *testing.T, path string) <-chan string {
	answer := make(chan string, 1)
	ctx := t.Context()
	c := podtest.Client(d.Subject)
	c.Timeout = time.Minute
	go func() {
		r, err := http.NewRequestWithContext(ctx, "GET", "http://localhost"+path, nil)
		if err != nil {
			answer <- err.Error()
			return
		}
		resp, err := c.Do(r)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		answer <- fmt.Sprint(resp.StatusCode, " ", string(b), err)
	}()
	return answer
}

// exited waits for a generation's end.
func exited(t *testing.T, r *podtest.Recorder, g api.Generation) *api.ProcessEvent {
	t.Helper()
	return r.Wait(t, "the process ends", func(e api.Event) bool {
		p, ok := e.(*api.ProcessEvent)
		return ok && p.Generation == g && p.State == api.StateExited
	}).(*api.ProcessEvent)
}

func problem(t *testing.T, r *podtest.Recorder, g api.Generation, code string) *api.ProblemEvent {
	t.Helper()
	return r.Wait(t, code, func(e api.Event) bool {
		p, ok := e.(*api.ProblemEvent)
		return ok && p.Generation == g && p.Code == code && p.Owner == "debug" && p.Severity == api.SeverityWarning
	}).(*api.ProblemEvent)
}

func line(t *testing.T, r *podtest.Recorder, g api.Generation, begin string) string {
	t.Helper()
	return r.Wait(t, begin, func(e api.Event) bool {
		l, ok := e.(*api.LogEvent)
		return ok && l.Generation == g && strings.HasPrefix(l.Text, begin)
	}).(*api.LogEvent).Text
}

func wantCode(t *testing.T, err error, code string) *api.Problem {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != code {
		t.Fatalf("%v, want %s", err, code)
	}
	return p
}

// While the next process is made ready the old one serves; it answers what is in its hands, is told to end and speaks its
// last words; the next one takes its port over.
func TestDebugSwapServes(t *testing.T) {
	d := newDebuggee(t, Options{})
	port := freeport.Get(t)
	m := podtest.Held(1, d.exe, "last-words", "fixed")
	m.Process.Env = []string{"FIXED_PORT=" + port}
	m.Process.Grace = 5 * time.Second
	podtest.Ship(t, d.Subject, m, d.exe)
	c := d.session(t, 1, d.handler)
	c.Go()
	d.Events.Listening(t, 1)
	slow := d.ask(t, "/slow?ms=1500")
	line(t, d.Events, 1, "slow begins")
	standing := d.ask(t, "/") // in the old process's hands, at a breakpoint
	c.Stopped(d.handler)
	m.Generation = 2
	podtest.Ship(t, d.Subject, m, d.exe)
	c.End()
	for _, a := range []<-chan string{slow, standing} {
		if got := <-a; !strings.HasPrefix(got, "200 one") {
			t.Errorf("in flight: %s", got)
		}
	}
	line(t, d.Events, 1, "last words")
	next := d.ask(t, "/")
	c = d.session(t, 2, d.handler)
	c.Go()
	c.Stopped(d.handler)
	c.Continue()
	if got := <-next; got != "200 one 1<nil>" {
		t.Errorf("after the swap: %s", got)
	}
	if got := d.Events.Listening(t, 2); fmt.Sprint(got.Ports[0].Port) != port {
		t.Errorf("it listens on %+v, want %s", got.Ports, port)
	}
}

// A service without handler for SIGTERM, one that ignores it, and one that forks without end are all replaced, and leave
// nothing.
func TestDebugSwapStubborn(t *testing.T) {
	d := newDebuggee(t, Options{})
	var kids []string
	for i, args := range [][]string{{"ignore-term", "fork"}, {"forks"}, {"fork"}, nil} {
		g := api.Generation(i + 1)
		d.ship(t, g, args...)
		c := d.session(t, g, d.handler)
		c.Go()
		a := d.ask(t, "/")
		c.Stopped(d.handler)
		c.Continue()
		if got := <-a; got != "200 one 1<nil>" {
			t.Fatalf("generation %d: %s", g, got)
		}
		if len(args) > 0 && args[len(args)-1] == "fork" {
			kids = append(kids, strings.TrimPrefix(line(t, d.Events, g, "child "), "child "))
		}
	}
	for _, k := range kids {
		if _, err := os.Stat("/proc/" + k); err == nil {
			t.Errorf("child %s is still there", k)
		}
	}
	if ds := descendants(d.status(t).PID, nil); len(ds) > 0 {
		t.Errorf("the last one has children: %v", ds)
	}
}

// Nobody comes: the service runs all the same.
func TestDebugNobodyComes(t *testing.T) {
	d := newDebuggee(t, Options{})
	d.s.await = 300 * time.Millisecond
	d.ship(t, 1)
	if st := d.status(t); !st.Debugger || st.State != api.StateStarting {
		t.Fatalf("%+v", st)
	}
	problem(t, d.Events, 1, api.CodeDebugAway)
	d.Events.Listening(t, 1)
	if got := podtest.Get(t, d.Subject, "/"); got != "one 1" {
		t.Fatal(got)
	}
	if st := d.status(t); st.Debugger {
		t.Fatalf("%+v", st)
	}
}

// A session whose stream broke off is let go of after a while, and the process goes on from where it stood.
func TestDebugStreamLost(t *testing.T) {
	d := newDebuggee(t, Options{})
	d.s.keep = 300 * time.Millisecond
	d.ship(t, 1)
	c := d.session(t, 1, d.handler)
	c.Go()
	a := d.ask(t, "/")
	c.Stopped(d.handler)
	c.Close()
	if got := <-a; got != "200 one 1<nil>" {
		t.Fatal(got)
	}
	if got := podtest.Get(t, d.Subject, "/"); got != "one 2" {
		t.Fatal(got)
	}
}

// A stream that breaks off before its session has said a word, or before it is configured, leaves a fresh process fresh and
// a running one running.
func TestDebugStreamCutEarly(t *testing.T) {
	d := newDebuggee(t, Options{})
	d.ship(t, 1)
	for range 3 {
		c, start := podtest.Debug(t, d.Subject, 1)
		if !start.Fresh || start.Stopped {
			t.Fatalf("%+v", start)
		}
		c.Attach()
		c.Close()
	}
	c := d.session(t, 1, d.handler)
	c.Go()
	d.Events.Listening(t, 1)
	for range 3 {
		c, start := podtest.Debug(t, d.Subject, 1)
		if start.Fresh || start.Stopped {
			t.Fatalf("%+v", start)
		}
		c.Attach()
		c.Break(d.src) // none
		c.Close()
	}
	if _, start := podtest.Debug(t, d.Subject, 1); start.Fresh || start.Stopped {
		t.Fatalf("%+v", start)
	}
	if got := podtest.Get(t, d.Subject, "/"); got != "one 1" {
		t.Fatal(got)
	}
}

// Delve's death leaves breakpoints behind that would kill the service: it is started again and the reason told.
func TestDebuggerKilled(t *testing.T) {
	for _, stands := range []bool{true, false} {
		t.Run(fmt.Sprintf("stands %v", stands), func(t *testing.T) {
			d := newDebuggee(t, Options{})
			d.ship(t, 1)
			c := d.session(t, 1, d.handler)
			c.Go()
			d.Events.Listening(t, 1)
			before := d.status(t)
			if stands {
				d.ask(t, "/")
				c.Stopped(d.handler)
			}
			d.s.mu.Lock()
			dbg := d.s.proc.dbg
			d.s.mu.Unlock()
			dbg.start = time.Now().Add(-crashAgain) // it has been there for long
			syscall.Kill(dbg.cmd.Process.Pid, syscall.SIGKILL)
			c.End()
			if p := problem(t, d.Events, 1, api.CodeNoDebugger); !strings.Contains(p.Message, "killed") || p.Hint == "" {
				t.Errorf("%+v", p)
			}
			d.Events.Wait(t, "the new start", func(e api.Event) bool {
				p, ok := e.(*api.ProcessEvent)
				return ok && p.State == api.StateStarting && p.PID != before.PID && p.Debugger && strings.Contains(p.Reason, "the debugger died")
			})
			c = d.session(t, 1, d.handler)
			c.Go()
			a := d.ask(t, "/")
			c.Stopped(d.handler)
			c.Continue()
			if got := <-a; got != "200 one 1<nil>" {
				t.Fatal(got)
			}
			if st := d.status(t); st.State == api.StateExited {
				t.Errorf("%+v", st)
			}
		})
	}
}

// One that dies at once is not tried again and again.
func TestDebuggerDiesSoon(t *testing.T) {
	d := newDebuggee(t, Options{})
	d.ship(t, 1)
	c := d.session(t, 1, d.handler)
	c.Go()
	d.Events.Listening(t, 1)
	d.s.mu.Lock()
	dbg := d.s.proc.dbg
	d.s.mu.Unlock()
	syscall.Kill(dbg.cmd.Process.Pid, syscall.SIGKILL)
	problem(t, d.Events, 1, api.CodeNoDebugger)
	d.Events.Wait(t, "the new start", func(e api.Event) bool {
		p, ok := e.(*api.ProcessEvent)
		return ok && p.State == api.StateStarting && strings.Contains(p.Reason, "the debugger died") && !p.Debugger
	})
	if got := podtest.Get(t, d.Subject, "/"); got != "one 1" {
		t.Fatal(got)
	}
}

// A service's own end is told as ever, its session hears of it, and no debugger is left.
func TestDebuggedEnds(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		do   func(t *testing.T, d *debuggee, c *podtest.Session)
		code int
	}{
		"exits":  {[]string{"exit"}, nil, 7},
		"panics": {[]string{"panic"}, func(t *testing.T, d *debuggee, c *podtest.Session) { c.Event("stopped"); c.Continue() }, 2},
		"exits late": {nil, func(t *testing.T, d *debuggee, c *podtest.Session) {
			d.Events.Listening(t, 1)
			d.ask(t, "/exit")
		}, 7},
		"killed": {nil, func(t *testing.T, d *debuggee, c *podtest.Session) {
			d.Events.Listening(t, 1)
			syscall.Kill(d.status(t).PID, syscall.SIGKILL)
		}, 137},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDebuggee(t, Options{})
			d.ship(t, 1, c.args...)
			s := d.session(t, 1, d.handler)
			s.Go()
			if c.do != nil {
				c.do(t, d, s)
			}
			s.Event("terminated")
			s.End()
			if e := exited(t, d.Events, 1); *e.ExitCode != c.code || strings.Contains(e.Reason, "debugger") {
				t.Errorf("exit code %d (%s), want %d", *e.ExitCode, e.Reason, c.code)
			}
			if st := d.status(t); st.Debugger || st.State != api.StateExited {
				t.Errorf("%+v", st)
			}
			_, _, err := d.s.Debug(t.Context(), 1)
			wantCode(t, err, api.CodeNoProcess)
			noDelve(t)
			d.ship(t, 2)
			d.session(t, 2, d.handler).Go()
			d.Events.Listening(t, 2)
		})
	}
}

// A process that is killed while it stands is dead for its parent only when its tracer has looked.
func TestDebuggedKilledStanding(t *testing.T) {
	d := newDebuggee(t, Options{})
	d.ship(t, 1)
	c := d.session(t, 1, d.handler)
	c.Go()
	d.ask(t, "/")
	c.Stopped(d.handler)
	syscall.Kill(d.status(t).PID, syscall.SIGKILL)
	if e := exited(t, d.Events, 1); *e.ExitCode != 137 {
		t.Errorf("%+v", e)
	}
	c.End()
	noDelve(t)
}

// noDelve waits until no debugger of this process's is left.
func noDelve(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		left := 0
		for _, pid := range descendants(os.Getpid(), nil) {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(b), "\x00dap") {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d debuggers are left", left)
		}
		syscall.Nanosleep(&syscall.Timespec{Nsec: 5e6}, nil)
	}
}

// A program with a dynamic linker, and one that is placed at random, stand before the linker's first instruction.
func TestDebugDynamic(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		t.Fatal("a C compiler is needed")
	}
	const cgo = "import \"C\"\n\nimport (\n\t\"fmt\"\n"
	source := strings.Replace(strings.Replace(podtest.Debuggee, "VERSION", "dynamic", 1), "import (\n\t\"fmt\"\n", cgo, 1)
	main := podtest.Line(t, source, "// break: main")
	for name, flags := range map[string][]string{"cgo": nil, "pie": {"-buildmode=pie"}} {
		t.Run(name, func(t *testing.T) {
			exe, src := podtest.BuildProgram(t, "dynamic", source, "CGO_ENABLED=1", append(flags, "-gcflags=-N -l", "-ldflags=-compressdwarf=false")...)
			s, _ := subject(t, Options{})
			podtest.Ship(t, s, podtest.Held(1, exe), exe)
			c, start := podtest.Debug(t, s, 1)
			if !start.Fresh {
				t.Fatalf("%+v", start)
			}
			c.Attach()
			c.Break(src, main)
			c.Go()
			c.Stopped(main)
			c.Continue()
			s.Events.Listening(t, 1)
			if err := s.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := podtest.Get(t, s, "/"); got != "dynamic 1" {
				t.Fatal(got)
			}
			// And as it runs.
			c, _ = podtest.Debug(t, s, 1)
			c.Attach()
			c.Break(src, podtest.Line(t, source, "// break: handler"))
			c.Go()
			go podtest.Client(s).Get("http://localhost/")
			c.Stopped(podtest.Line(t, source, "// break: handler"))
		})
	}
}

// Where yama takes only whom a process has named, the service names its debugger before it is itself.
func TestDebugAllowed(t *testing.T) {
	d := newDebuggee(t, Options{PtraceScope: new(1)})
	d.ship(t, 1, "fork")
	main := podtest.Line(t, podtest.Debuggee, "// break: main")
	c := d.session(t, 1, main, d.handler)
	c.Go()
	f := c.Stopped(main)
	if v := c.Value(f, "len(os.Args)"); v != "2" {
		t.Errorf("it has %s arguments", v)
	}
	c.Continue()
	d.Events.Listening(t, 1)
	if to, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.status(t).PID)); err != nil || filepath.Base(to) != "service" {
		t.Errorf("it is %s (%v)", to, err)
	}
	// Without a debugger too, so that one can be attached.
	podtest.Ship(t, d.Subject, podtest.Manifest(2, d.exe), d.exe)
	d.Events.Listening(t, 2)
	c = d.session(t, 2, d.handler)
	c.Go()
	d.ask(t, "/")
	c.Stopped(d.handler)
}

func TestDebugForbidden(t *testing.T) {
	d := newDebuggee(t, Options{PtraceScope: new(3)})
	d.ship(t, 1)
	if p := problem(t, d.Events, 1, api.CodeNoPtrace); !strings.Contains(p.Message, "ptrace_scope is 3") || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	d.Events.Listening(t, 1)
	_, _, err := d.s.Debug(t.Context(), 1)
	wantCode(t, err, api.CodeNoPtrace)
	if got := podtest.Get(t, d.Subject, "/"); got != "one 1" {
		t.Fatal(got)
	}
}

// Where memory is short the old process ends before the next one's debugger begins; where there is none, the service
// runs without.
func TestDebugMemory(t *testing.T) {
	room := make(chan int64, 100)
	d := newDebuggee(t, Options{MemoryLeft: func() (int64, bool) { return <-room, true }})
	need := debuggerNeeds(d.exe.Size)
	room <- need
	d.ship(t, 1)
	c := d.session(t, 1, d.handler)
	c.Go()
	d.Events.Listening(t, 1)
	one := d.status(t).PID
	room <- need - 1 // beside the old one
	room <- need     // once that is gone
	d.ship(t, 2)
	c = d.session(t, 2, d.handler)
	c.Go()
	d.Events.Listening(t, 2)
	if two := d.status(t); two.PID == one || !two.Debugger {
		t.Errorf("%+v", two)
	}
	room <- need - 1
	room <- need - 1
	d.ship(t, 3)
	d.Events.Listening(t, 3)
	problem(t, d.Events, 3, api.CodeNoMemory)
	room <- need - 1
	_, _, err := d.s.Debug(t.Context(), 3)
	wantCode(t, err, api.CodeNoMemory)
}

// A session waits for a generation that is still to come, and hears that one has been passed over.
func TestDebugWaits(t *testing.T) {
	d := newDebuggee(t, Options{})
	type answer struct {
		conn  net.Conn
		start api.DebugStart
		err   error
	}
	wait := func(ctx context.Context, g api.Generation) <-chan answer {
		c := make(chan answer, 1)
		go func() { var a answer; a.conn, a.start, a.err = d.s.Debug(ctx, g); c <- a }()
		return c
	}
	ctx, cancel := context.WithCancel(t.Context())
	two, three, never := wait(t.Context(), 2), wait(t.Context(), 3), wait(ctx, 99)
	d.ship(t, 3)
	wantCode(t, (<-two).err, api.CodeNoProcess)
	a := <-three
	if a.err != nil || !a.start.Fresh || a.start.Generation != 3 {
		t.Fatalf("%+v", a)
	}
	a.conn.Close()
	cancel()
	if err := (<-never).err; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// A supervisor that comes after one that was killed starts the service without the debugger: nobody waits for it.
func TestDebugRestored(t *testing.T) {
	dir := t.TempDir()
	exe, _ := podtest.BuildDebug(t, "one")
	t.Run("first", func(t *testing.T) {
		s, _ := start(t, Options{Dir: dir})
		podtest.Ship(t, podtest.Subject{Pod: s}, podtest.Held(7, exe), exe)
	})
	s, rec := start(t, Options{Dir: dir})
	rec.Listening(t, 7)
	if st, _ := s.Status(t.Context()); st.Debugger || st.Generation != 7 {
		t.Fatalf("%+v", st)
	}
	for _, e := range rec.All() {
		if p, ok := e.(*api.ProcessEvent); ok && p.Debugger {
			t.Fatalf("it waited for a session: %+v", p)
		}
	}
	conn, start, err := s.Debug(t.Context(), 7)
	if err != nil || start.Fresh {
		t.Fatalf("%+v %v", start, err)
	}
	conn.Close()
}

// While the service stands, probes say yes and it does not come of age.
func TestDebugProbe(t *testing.T) {
	d := newDebuggee(t, Options{})
	d.ship(t, 1)
	main := podtest.Line(t, podtest.Debuggee, "// break: main")
	c := d.session(t, 1, main)
	c.Go()
	c.Stopped(main)
	time.AfterFunc(settle+300*time.Millisecond, c.Continue)
	d.Events.Listening(t, 1)
	for _, e := range d.Events.All() {
		if l, ok := e.(*api.ListeningEvent); ok && len(l.Ports) == 0 {
			t.Error("it came of age while it stood")
		}
	}
	c.Break(d.src, d.handler)
	d.ask(t, "/")
	c.Stopped(d.handler)
	if err := d.s.Probe(t.Context(), api.Probe{Kind: "readiness", HTTP: ":1/healthz"}); err != nil {
		t.Error(err)
	}
	if err := d.s.ReleaseDebug(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.s.Probe(t.Context(), api.Probe{Kind: "readiness", HTTP: ":1/healthz"}); err == nil {
		t.Error("ready, and nothing listens there")
	}
}
