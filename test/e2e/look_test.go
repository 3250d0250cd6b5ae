package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// What looks at an environment beside its run: logs, open, status.
func TestLook(t *testing.T) {
	both(t, func(t *testing.T, p *place) {
		s := newTiny(t, "v1")
		a := p.run(t, s.dir, "--", "-port", p.port(t))
		r := a.live(t, "v1")
		st := a.running(t, "v1")
		if got := strings.TrimSpace(p.m.ok(t, s.dir, "open", "--print")); got != r.URL {
			t.Errorf("open prints %q, ready said %q", got, r.URL)
		}
		all := p.m.status(t)
		if len(all) != 1 || all[0].URL != r.URL || all[0].Dir != s.dir || all[0].Agent == "" || all[0].Provider != p.on || all[0].Service != "tiny" || all[0].Namespace != p.ns {
			t.Errorf("status: %+v", all)
		}
		if text := p.m.ok(t, s.dir, "status"); !strings.Contains(text, all[0].Name) || !strings.Contains(text, r.URL) || !strings.Contains(text, string(st.Digest)[7:19]) {
			t.Errorf("status: %s", text)
		}
		if v := p.m.ok(t, s.dir, "version"); strings.TrimSpace(v) != st.Version || strings.Count(v, "\n") != 1 {
			t.Errorf("version %q, the pod's is %q", v, st.Version)
		}

		// Lines by their age.
		say := func(text string) time.Time {
			t.Helper()
			if _, err := get(r.URL + "/say?text=" + url.QueryEscape(text)); err != nil {
				t.Fatal(err)
			}
			return a.wait(t, text, isLine(text)).Head().Time
		}
		say("the older line")
		after(10 * time.Second)
		at := say("the newer line")
		eventually(t, "lines by their age", func() error {
			// Eight seconds for the command to start in.
			out := p.m.ok(t, s.dir, "logs", "--since", (time.Since(at) + 8*time.Second).String())
			if !strings.Contains(out, "the newer line") || strings.Contains(out, "the older line") {
				return errors.New(out)
			}
			return nil
		})
		if out := p.m.ok(t, s.dir, "logs"); !strings.Contains(out, "starting v1") || strings.Index(out, "the older line") > strings.Index(out, "the newer line") {
			t.Errorf("logs: %s", out)
		}

		// Following goes on with the next generation, from its first line.
		f := follow(t, p.m, s.dir)
		f.wait(t, "the newer line")
		s.edit(t, "v2")
		f.wait(t, "starting v2")
		say("a line of v2")
		f.wait(t, "a line of v2")
		if n := strings.Count(f.text(), "starting v2"); n != 1 {
			t.Errorf("the line is there %d times:\n%s", n, f.text())
		}
		if code := f.interrupt(t); code != 0 {
			t.Errorf("logs -f ended with %d after an interrupt", code)
		}
		if holder := a.running(t, "v2").Holder; holder == "" || holder != all[0].Pod.Holder {
			t.Errorf("holder %q, was %q", holder, all[0].Pod.Holder)
		}
	})
}

// follower is one `fairlead logs -f`.
type follower struct {
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer
}

func follow(t testing.TB, m *machine, dir string) *follower {
	t.Helper()
	f := &follower{cmd: exec.Command(fairlead, "logs", "-f"), done: make(chan struct{})}
	f.cmd.Dir, f.cmd.Env = dir, m.env
	f.cmd.Stdout = &lockedWriter{w: &f.out, mu: &f.mu}
	f.cmd.Stderr = f.cmd.Stdout
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		f.cmd.Wait()
		close(f.done)
	}()
	t.Cleanup(func() {
		f.cmd.Process.Kill()
		<-f.done
	})
	return f
}

func (f *follower) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.String()
}

func (f *follower) wait(t testing.TB, text string) {
	t.Helper()
	eventually(t, "logs -f shows "+text, func() error {
		if s := f.text(); !strings.Contains(s, text) {
			return fmt.Errorf("it shows %q", s)
		}
		return nil
	})
}

func (f *follower) interrupt(t testing.TB) int {
	t.Helper()
	f.cmd.Process.Signal(os.Interrupt)
	select {
	case <-f.done:
	case <-time.After(patience):
		t.Fatalf("logs -f did not end within %s of an interrupt", patience)
	}
	return f.cmd.ProcessState.ExitCode()
}

func TestCompletion(t *testing.T) {
	p := newLocal(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := p.m.ok(t, p.m.root, "completion", shell); !strings.Contains(out, "fairlead") {
			t.Errorf("%s: %q", shell, out)
		}
	}
	if out := p.m.ok(t, p.m.root, "__complete", "run", "--on", ""); !strings.Contains(out, "kubernetes") || !strings.Contains(out, "local") {
		t.Errorf("what follows --on: %q", out)
	}
	p.wantNothing(t)
}
