package editor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"fairlead.dev/test/freeport"
)

const service = `package main

import (
	"fmt"
	"net/http"
)

func answer() string {
	return "one"
}

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answer()) })
	panic(http.ListenAndServe("127.0.0.1:PORT", nil))
}
`

func TestNeovim(t *testing.T) {
	loop(t, "nvim", "--headless", "-u", "NONE", "-i", "NONE", "-n", "-c", "luafile "+script("neovim.lua"), "main.go")
}

func TestEmacs(t *testing.T) {
	// Not -Q: that hides Debian's site-lisp, where eglot is.
	loop(t, "emacs", "-q", "--batch", "-l", script("emacs.el"))
}

func script(name string) string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), name)
}

// loop runs an editor with its script in a new service's folder.
func loop(t *testing.T, editor string, args ...string) {
	bin, err := exec.LookPath(editor)
	if err != nil {
		skip(t, editor+" is not installed (apt-get install neovim emacs-nox elpa-eglot curl)")
	}
	m := newMachine(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = m.dir, m.env, 5*time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	t.Logf("%s:\n%s", editor, out.String())
	if err != nil || !strings.Contains(out.String(), "PASS") {
		t.Fatal(fmt.Errorf("%s: %w", editor, err))
	}
}

// machine is one that nobody has used before, with a service in dir that listens on port.
type machine struct {
	program, dir, port string
	env                []string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	program := os.Getenv("FAIRLEAD_TEST_BIN")
	if program == "" {
		if program = filepath.Join(script("../.."), "bin", "fairlead"); !exists(program) {
			skip(t, "there is no program to test: make build, or set FAIRLEAD_TEST_BIN")
		}
	}
	// A short path: sockets are in it.
	home, err := os.MkdirTemp("", "fl-ed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	m := machine{program: program, dir: filepath.Join(home, "hello"), port: freeport.Get(t)}
	for name, text := range map[string]string{"hello/go.mod": "module example.com/hello\n\ngo 1.24\n", "hello/main.go": strings.Replace(service, "PORT", m.port, 1), "run/x": ""} {
		p := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+filepath.Join(home, "run"), "XDG_STATE_HOME="+filepath.Join(home, "state"), "XDG_CONFIG_HOME="+filepath.Join(home, "config"),
		"XDG_CACHE_HOME="+filepath.Join(home, "cache"), "FAIRLEAD="+program, "GOFLAGS=-mod=mod", "GOPROXY=off")
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} { // of the real home
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		m.env = append(m.env, name+"="+strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		if out, err := m.fairlead("agent", "stop", "--force"); err != nil {
			t.Logf("end the agent: %v %s", err, out)
		}
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(home, "state", "fairlead", "agent.log"))
			t.Logf("agent.log:\n%s", b)
		}
	})
	return m
}

func (m machine) fairlead(args ...string) (string, error) {
	cmd := exec.Command(m.program, args...)
	cmd.Dir, cmd.Env = m.dir, m.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// skip leaves a test out for a reason. In CI everything is there, so that it is an error.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}
