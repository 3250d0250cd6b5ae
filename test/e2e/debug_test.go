package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/debugadapter/daptest"
)

// debuggee is a service whose handler is debugged. Its lines move with each edit.
type debuggee struct {
	dir, file string
	line      int // of the handler's last statement, where v is known
	version   string
}

func (p *place) debuggee(t testing.TB, version string) *debuggee {
	t.Helper()
	d := &debuggee{dir: filepath.Join(t.TempDir(), "tiny")}
	d.file = filepath.Join(d.dir, "answer.go")
	write(t, filepath.Join(d.dir, "go.mod"), "module example.com/tiny\n\ngo 1.26\n")
	write(t, filepath.Join(d.dir, "main.go"), tiny)
	if p.c != nil { // a debug configuration does not say which cluster: the repository does
		write(t, filepath.Join(d.dir, "fairlead.yaml"), fmt.Sprintf("version: 1\non: kubernetes\nkubernetes: {kubeconfig: %s, namespace: %s, registry: %s}\n", p.c.kubeconfig, p.ns, p.c.registry))
	}
	d.edit(t, version, 0)
	return d
}

// edit makes the service answer another version, with some lines more above the handler.
func (d *debuggee) edit(t testing.TB, version string, shift int) {
	t.Helper()
	var b strings.Builder
	b.WriteString("package main\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n)\n\n")
	for i := range shift {
		fmt.Fprintf(&b, "var padding%d = %d\n", i, i)
	}
	fmt.Fprintf(&b, "const version = %q\n\nfunc init() { http.HandleFunc(\"/answer\", answer) }\n\nfunc answer(w http.ResponseWriter, r *http.Request) {\n\tv := version\n\tfmt.Fprint(w, v)\n}\n", version)
	d.line, d.version = strings.Count(b.String(), "\n")-1, version
	write(t, d.file, b.String())
}

// debugger is one `fairlead dap`, spoken to as an editor does.
type debugger struct {
	*daptest.Client
	cmd  *exec.Cmd
	in   io.WriteCloser
	errs *bytes.Buffer
}

type pipes struct {
	io.Reader
	io.WriteCloser
}

func (p *place) dap(t testing.TB) *debugger {
	t.Helper()
	return p.dapIn(t, p.m.root)
}

func (p *place) dapIn(t testing.TB, dir string) *debugger {
	t.Helper()
	cmd := exec.Command(fairlead, "dap")
	cmd.Dir, cmd.Env = dir, p.m.env
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d := &debugger{cmd: cmd, in: in, errs: &bytes.Buffer{}}
	cmd.Stderr = d.errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.Client = daptest.New(t, pipes{out, in})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the debug session:\n%s%s", d.Log(), d.errs)
		}
		in.Close()
		time.AfterFunc(patience, func() { cmd.Process.Kill() })
		cmd.Wait()
	})
	d.Must("initialize", daptest.Initialize())
	return d
}

// launch begins a session of a service with a breakpoint, and returns when it is configured. The answer to launch is to
// be waited for.
func (p *place) launch(t testing.TB, d *debugger, s *debuggee, more daptest.M) *daptest.Pending {
	t.Helper()
	args := daptest.M{"program": s.dir, "args": []string{"-port", p.port(t)}}
	for k, v := range more {
		args[k] = v
	}
	answer := d.Send("launch", args)
	d.Event("initialized")
	d.Must("setBreakpoints", daptest.Lines(s.file, s.line))
	d.Must("setExceptionBreakpoints", daptest.M{"filters": []string{"unrecovered-panic", "fatal-throw"}})
	d.Must("configurationDone", nil)
	return answer
}

// attach is launch for what runs.
func (p *place) attach(t testing.TB, d *debugger, s *debuggee) *daptest.Pending {
	t.Helper()
	answer := d.Send("attach", daptest.M{})
	d.Event("initialized")
	d.Must("setBreakpoints", daptest.Lines(s.file, s.line))
	d.Must("configurationDone", nil)
	return answer
}

// asks requests the answer in the background, which a breakpoint holds up.
func asks(url string) func() (string, error) {
	type said struct {
		text string
		err  error
	}
	c := make(chan said, 1)
	go func() {
		s, err := get(url + "/answer")
		c <- said{s, err}
	}()
	return func() (string, error) {
		select {
		case s := <-c:
			return s.text, s.err
		case <-time.After(patience):
			return "", fmt.Errorf("no answer within %s", patience)
		}
	}
}

// hit waits for the stop at the breakpoint, looks at it, goes on, and returns v.
func (d *debugger) hit(t testing.TB, s *debuggee) string {
	t.Helper()
	v := d.look(t, s)
	d.Must("continue", daptest.M{"threadId": 1})
	return v
}

func (d *debugger) look(t testing.TB, s *debuggee) string {
	t.Helper()
	stop := d.Stopped()
	if stop.Reason != "breakpoint" {
		t.Fatalf("stopped: %+v", stop)
	}
	top := d.Frames(stop.ThreadID)[0]
	if top.Line != s.line || top.Source == nil || top.Source.Path != s.file {
		t.Errorf("stopped at %+v, want %s:%d", top, s.file, s.line)
	}
	var e struct{ Result string }
	d.Must("evaluate", daptest.M{"expression": "v", "frameId": top.Id}).Into(t, &e)
	return strings.Trim(e.Result, `"`)
}

// unbroken makes sure that the editor was shown no end and no second beginning.
func (d *debugger) unbroken(t testing.TB) {
	t.Helper()
	for name, want := range map[string]int{"terminated": 0, "exited": 0, "initialized": 1} {
		if n := d.Seen(name); n != want {
			t.Errorf("%d %s events, want %d", n, name, want)
		}
	}
}

// url waits until the machine's only service is live with a version, and returns its address.
func (p *place) live(t testing.TB, s *debuggee) string {
	t.Helper()
	var url string
	eventually(t, "live with "+s.version, func() error {
		for _, st := range p.m.status(t) {
			if url = st.URL; url != "" {
				_, err := get(url + "/pid")
				return err
			}
		}
		return fmt.Errorf("no address")
	})
	return url
}

// The breakpoint is set once and hit in the new code after each of ten saves, whose lines move, in one session; Stop
// removes what launch made.
func TestDebugOutlivesRedeploys(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := p.debuggee(t, "v0")
		d := p.dap(t)
		if m := p.launch(t, d, s, nil).Wait(); !m.Success {
			t.Fatal(m)
		}
		url := p.live(t, s)
		saves := 10
		if p.c != nil {
			saves = 4
		}
		for i := range saves + 1 {
			saved := time.Now()
			if i > 0 {
				p.swapped(t, func() { s.edit(t, fmt.Sprintf("v%d", i), saves-i) })
			}
			answer := asks(url)
			if v := d.hit(t, s); v != s.version {
				t.Fatalf("save %d: v = %s, want %s", i, v, s.version)
			}
			if got, err := answer(); err != nil || got != s.version {
				t.Fatalf("save %d: answered %q %v", i, got, err)
			}
			t.Logf("save %d: hit and answered after %.1f s", i, time.Since(saved).Seconds())
		}
		d.unbroken(t)
		d.Must("disconnect", daptest.M{"terminateDebuggee": true})
		p.wantNothing(t)
	})
}

// swapped waits until the pod runs a newer generation than before an edit.
func (p *place) swapped(t testing.TB, edit func()) {
	t.Helper()
	generation := func() int {
		if st := p.m.status(t); len(st) == 1 && st[0].Pod != nil {
			return int(st[0].Pod.Generation)
		}
		return 0
	}
	before := generation()
	edit()
	eventually(t, "a newer generation", func() error {
		if now := generation(); now <= before {
			return fmt.Errorf("generation %d runs, as before", now)
		}
		return nil
	})
}
