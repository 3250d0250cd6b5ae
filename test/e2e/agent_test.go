package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/api"
)

// agent is one `fairlead run --json`, and the agent behind it.
type agent struct {
	p    *place
	cmd  *exec.Cmd
	dir  string
	done chan struct{} // closed when it has ended and all it said is in events

	mu     sync.Mutex
	news   chan struct{} // closed and replaced at each event
	events []api.Event
	times  []time.Time // when each was read here
	bad    []string    // lines that are no events
	errs   bytes.Buffer

	seen int // wait goes on from here
	env  api.Environment
}

// run starts an agent on the service in dir.
func (p *place) run(t testing.TB, dir string, args ...string) *agent {
	t.Helper()
	return p.runEnv(t, nil, dir, args...)
}

// elsewhere is the environment of a front end with an agent of its own, as one in another container would have.
func (p *place) elsewhere() []string {
	return []string{"FAIRLEAD_AGENT=" + filepath.Join(p.m.root, "run", "agent.elsewhere.sock")}
}

func (p *place) runEnv(t testing.TB, env []string, dir string, args ...string) *agent {
	t.Helper()
	var service []string
	for i, s := range args {
		if s == "--" {
			args, service = args[:i], args[i:]
			break
		}
	}
	all := append([]string{"run", "--json"}, p.args...)
	return p.start(t, env, dir, append(append(append(all, args...), dir), service...))
}

// start starts a front end that tells what happens as JSON.
func (p *place) start(t testing.TB, env []string, dir string, all []string) *agent {
	t.Helper()
	cmd := exec.Command(fairlead, all...)
	cmd.Dir, cmd.Env = p.m.root, append(append([]string{}, p.m.env...), env...)
	a := &agent{p: p, cmd: cmd, dir: dir, done: make(chan struct{}), news: make(chan struct{})}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &lockedWriter{w: &a.errs, mu: &a.mu}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r := bufio.NewReaderSize(out, 1<<20)
		for {
			line, err := r.ReadBytes('\n')
			if len(line) > 0 {
				a.take(line)
			}
			if err != nil {
				break
			}
		}
		cmd.Wait()
		close(a.done)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-a.done:
		case <-time.After(patience):
			t.Errorf("the agent did not end within %s of an interrupt", patience)
			cmd.Process.Kill()
			<-a.done
		}
		if t.Failed() || testing.Verbose() {
			t.Logf("agent %d:\n%s", cmd.Process.Pid, a.tail(60))
		}
	})
	return a
}

type lockedWriter struct {
	w  io.Writer
	mu *sync.Mutex
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (a *agent) take(line []byte) {
	e, err := api.DecodeEvent(line)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch l, isLog := e.(*api.LogEvent); {
	case err != nil:
		a.bad = append(a.bad, string(line))
		return
	case isLog:
		if l.Dropped == 0 && strings.HasPrefix(l.Text, "xxxx") { // a flood's; what is kept of it is that there were drops
			return
		}
	}
	a.events, a.times = append(a.events, e), append(a.times, time.Now())
	close(a.news)
	a.news = make(chan struct{})
}

// tail is the end of what the agent said.
func (a *agent) tail(n int) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	from := max(0, len(a.events)-n)
	if from > 0 {
		fmt.Fprintf(&b, "... %d events before\n", from)
	}
	for i, e := range a.events[from:] {
		line, _ := json.Marshal(e)
		if len(line) > 400 {
			line = append(line[:400], "..."...)
		}
		fmt.Fprintf(&b, "%s %s\n", a.times[from+i].Format("05.000"), line)
	}
	for _, l := range a.bad {
		fmt.Fprintf(&b, "no event: %s", l)
	}
	return b.String() + a.errs.String()
}

func (a *agent) stderr() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.errs.String()
}

// wait returns the first event after the last one waited for that f wants.
func (a *agent) wait(t testing.TB, what string, f func(api.Event) bool) api.Event {
	t.Helper()
	return a.waitFor(t, patience, what, f)
}

func (a *agent) waitFor(t testing.TB, limit time.Duration, what string, f func(api.Event) bool) api.Event {
	t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	for i := a.seen; ; {
		a.mu.Lock()
		for ; i < len(a.events); i++ {
			if e := a.events[i]; f(e) {
				a.seen = i + 1
				a.mu.Unlock()
				return e
			}
		}
		news := a.news
		a.mu.Unlock()
		select {
		case <-news:
		case <-a.done:
			a.mu.Lock()
			all := i == len(a.events)
			a.mu.Unlock()
			if all {
				t.Fatalf("wait for %s: the agent ended with %d", what, a.cmd.ProcessState.ExitCode())
			}
		case <-end.C:
			t.Fatalf("wait for %s: not within %s", what, limit)
		}
	}
}

// skipAll makes wait look only at what comes from now on.
func (a *agent) skipAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = len(a.events)
}

// all returns what has been said so far.
func (a *agent) all() []api.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.events[:len(a.events):len(a.events)]
}

// lastGood is the last build that succeeded.
func (a *agent) lastGood() *api.BuildEvent {
	var b *api.BuildEvent
	for _, e := range a.all() {
		if x, ok := e.(*api.BuildEvent); ok && x.OK {
			b = x
		}
	}
	return b
}

func isEnv(state string) func(api.Event) bool {
	return func(e api.Event) bool { x, ok := e.(*api.EnvironmentEvent); return ok && x.State == state }
}

func isProcess(state api.State) func(api.Event) bool {
	return func(e api.Event) bool { x, ok := e.(*api.ProcessEvent); return ok && x.State == state }
}

func isProblem(code string) func(api.Event) bool {
	return func(e api.Event) bool { x, ok := e.(*api.ProblemEvent); return ok && x.Code == code }
}

func isBuild(ok bool) func(api.Event) bool {
	return func(e api.Event) bool { x, is := e.(*api.BuildEvent); return is && x.OK == ok && !x.Canceled }
}

func isLine(text string) func(api.Event) bool {
	return func(e api.Event) bool { x, ok := e.(*api.LogEvent); return ok && strings.Contains(x.Text, text) }
}

// live waits until a version answers at the local address.
func (a *agent) live(t testing.TB, version string) *api.ReadyEvent {
	t.Helper()
	for {
		r := a.wait(t, "ready with "+version, func(e api.Event) bool { _, ok := e.(*api.ReadyEvent); return ok }).(*api.ReadyEvent)
		if r.URL == "" {
			continue
		}
		// A ready of an earlier save may be the first to come.
		if got, err := get(r.URL + "/version"); err == nil && got == version {
			return r
		}
		if g := a.lastGood(); g != nil && r.Generation > g.Generation {
			continue
		}
	}
}

// url is the local address of the service.
func (a *agent) url(t testing.TB) string {
	t.Helper()
	u := ""
	for _, e := range a.all() {
		if r, ok := e.(*api.ReadyEvent); ok && r.URL != "" {
			u = r.URL
		}
	}
	if u == "" {
		t.Fatal("there is no address yet")
	}
	return u
}

var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return strings.TrimSpace(string(b)), err
}

// status is a line of `fairlead status --json`.
type status struct {
	api.Environment
	Dir    string      `json:"dir"`
	URL    string      `json:"url"`
	Agent  string      `json:"agent"`
	Pod    *api.Status `json:"status"`
	Reason string      `json:"reason"`
}

func (m *machine) status(t testing.TB) []status {
	t.Helper()
	var out []status
	for line := range strings.Lines(m.ok(t, m.root, "status", "--json")) {
		var s status
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, s)
	}
	return out
}

// running is what must be true after every fault: the pod runs exactly the last good build and says its digest, there is
// one of everything, and the service answers.
func (a *agent) running(t testing.TB, version string) api.Status {
	t.Helper()
	var st api.Status
	eventually(t, "run exactly the last good build ("+version+")", func() error {
		good := a.lastGood()
		if good == nil {
			return fmt.Errorf("nothing has been built")
		}
		all := a.p.m.status(t)
		if len(all) != 1 || all[0].Pod == nil {
			return fmt.Errorf("status says %+v", all)
		}
		st = *all[0].Pod
		if st.Digest != good.Digest || st.State != api.StateRunning {
			return fmt.Errorf("the pod says that %s with %s, the last good build is %s", st.State, st.Digest, good.Digest)
		}
		sup, svc := a.p.supervisors(t), a.p.services(t)
		if len(sup) != 1 || len(svc) != 1 {
			return fmt.Errorf("supervisors %v, services %v", sup, svc)
		}
		if d, err := executableDigest(svc[0]); err != nil || d != string(good.Digest) {
			return fmt.Errorf("process %d runs %s (%v), the last good build is %s", svc[0], d, err, good.Digest)
		}
		got, err := get(a.url(t) + "/version")
		if err != nil || got != version {
			return fmt.Errorf("%q answers (%v), want %q", got, err, version)
		}
		return nil
	})
	return st
}

// kill ends the agent and its front end as the kernel does when memory is short.
func (a *agent) kill(t testing.TB) {
	t.Helper()
	pid := a.pid(t)
	a.cmd.Process.Kill()
	<-a.done
	killWait(t, pid)
}

// killWait kills a process and waits until it is gone.
func killWait(t testing.TB, pid int) {
	t.Helper()
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, "die", func() error {
		if s := processState(pid); s != 0 && s != 'Z' {
			return fmt.Errorf("process %d is %c", pid, s)
		}
		return nil
	})
}

// pid is the agent's: the process that builds and ships for this front end.
func (a *agent) pid(t testing.TB) int {
	t.Helper()
	return one(t, "agents", a.agents())
}

// agents are the agents with this front end's socket.
func (a *agent) agents() []int {
	var out []int
	for _, pid := range a.p.m.agents() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if variable(strings.Split(string(b), "\x00"), "FAIRLEAD_AGENT") == variable(a.cmd.Env, "FAIRLEAD_AGENT") {
			out = append(out, pid)
		}
	}
	return out
}

func variable(env []string, name string) string {
	v := ""
	for _, kv := range env {
		if s, ok := strings.CutPrefix(kv, name+"="); ok {
			v = s
		}
	}
	return v
}

// interrupt ends the agent as Ctrl-C does, and returns its exit code.
func (a *agent) interrupt(t testing.TB) int {
	t.Helper()
	a.cmd.Process.Signal(os.Interrupt)
	return a.ended(t)
}

// ended waits for the agent's end and returns its exit code.
func (a *agent) ended(t testing.TB) int {
	t.Helper()
	select {
	case <-a.done:
	case <-time.After(patience):
		t.Fatalf("the agent did not end within %s", patience)
	}
	if ws := a.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return a.cmd.ProcessState.ExitCode()
}
