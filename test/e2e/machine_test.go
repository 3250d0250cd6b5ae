package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything is waited for. The machine may be busy; what is measured elsewhere is not measured here.
const patience = 90 * time.Second

// eventually asks until f has no objection.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	within(t, patience, what, f)
}

func within(t testing.TB, limit time.Duration, what string, f func() error) {
	t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-end.C:
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		case <-again.C:
		}
	}
}

// machine is this machine as one user of Fairlead has it: folders of the test's own, and real Go.
type machine struct {
	root, state, cache, run string
	env                     []string
}

var goEnv = sync.OnceValues(func() ([]string, error) {
	names := []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOSUMDB", "GOFLAGS", "GONOSUMDB"}
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(out), "\n")
	var env []string
	for i, n := range names {
		env = append(env, n+"="+lines[i])
	}
	return env, nil
})

func newMachine(t testing.TB) *machine {
	t.Helper()
	goes, err := goEnv()
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("", "fl") // short: a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{root: root, state: filepath.Join(root, "state"), cache: filepath.Join(root, "cache"), run: filepath.Join(root, "run")}
	home := filepath.Join(root, "home")
	for _, d := range []string{m.state, m.cache, m.run, home} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.env = append(m.env, "PATH="+os.Getenv("PATH"), "LANG=C", "HOME="+home, "XDG_STATE_HOME="+m.state, "XDG_CACHE_HOME="+m.cache,
		"XDG_RUNTIME_DIR="+m.run, "FAIRLEAD_PAYLOAD="+payload, "TMPDIR="+os.TempDir(), "GOTOOLCHAIN=local", "GOTELEMETRY=off")
	m.env = append(m.env, goes...)
	t.Cleanup(func() {
		for _, pid := range append(m.agents(), m.processes()...) {
			if t.Failed() {
				fmt.Printf("%s: killing what is left: %d\n", t.Name(), pid)
			}
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(m.state, "fairlead", "agent.log"))
			fmt.Printf("%s: the agent's log:\n%s", t.Name(), log)
		}
		os.RemoveAll(root)
	})
	return m
}

// agents are the background processes of this machine that front ends share.
func (m *machine) agents() []int {
	return m.having(func(pid int) bool { return isAgent(pid) })
}

func isAgent(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	f := strings.Split(string(b), "\x00")
	return executable(pid) == filepath.Base(fairlead) && len(f) > 1 && f[1] == "agent"
}

// processes are all that have to do with this machine's folders, but the agents: front ends, supervisors, services and
// what they started. An agent stays for a minute, and is nobody's environment.
func (m *machine) processes() []int {
	return m.having(func(pid int) bool { return !isAgent(pid) })
}

func (m *machine) having(f func(pid int) bool) []int {
	return processesWhere(func(pid int) bool {
		if pid == os.Getpid() || !f(pid) {
			return false
		}
		for _, f := range []string{"environ", "cmdline"} {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, f))
			if bytes.Contains(b, []byte(m.root+"/")) {
				return true
			}
		}
		return false
	})
}

func processesWhere(f func(pid int) bool) []int {
	var out []int
	ents, _ := os.ReadDir("/proc")
	for _, e := range ents {
		if pid, err := strconv.Atoi(e.Name()); err == nil && f(pid) && processState(pid) != 'Z' {
			out = append(out, pid)
		}
	}
	return out
}

// processState is the letter of proc_pid_stat(5), 0 for a process that is not there.
func processState(pid int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := bytes.LastIndexByte(b, ')')
	if err != nil || i < 0 || i+2 >= len(b) {
		return 0
	}
	return b[i+2]
}

// executable is the base name of what a process runs.
func executable(pid int) string {
	s, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return filepath.Base(strings.TrimSuffix(s, " (deleted)"))
}

// executableDigest is of the very bytes that a process runs.
func executableDigest(pid int) (string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// memory is a process's resident set in bytes.
func memory(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// parent is a process's parent.
func parent(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(v))
			return n
		}
	}
	return 0
}

// said is what a command that ended has said.
type said struct {
	code           int
	stdout, stderr string
}

// run runs fairlead to its end.
func (m *machine) fairlead(t testing.TB, dir string, args ...string) said {
	t.Helper()
	return m.fairleadEnv(t, dir, nil, args...)
}

func (m *machine) fairleadEnv(t testing.TB, dir string, env []string, args ...string) said {
	t.Helper()
	cmd := exec.Command(fairlead, args...)
	cmd.Dir, cmd.Env = dir, append(append([]string{}, m.env...), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !kill.Stop() {
		t.Errorf("fairlead %s did not end within %s", strings.Join(args, " "), patience)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// ok runs fairlead to its end, which must be a good one, and returns its stdout.
func (m *machine) ok(t testing.TB, dir string, args ...string) string {
	t.Helper()
	s := m.fairlead(t, dir, args...)
	if s.code != 0 {
		t.Fatalf("fairlead %s: exit %d\n%s%s", strings.Join(args, " "), s.code, s.stdout, s.stderr)
	}
	return s.stdout
}
