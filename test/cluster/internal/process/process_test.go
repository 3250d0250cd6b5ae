package process

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " 1 2 2 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3"
	for _, test := range []struct {
		line  string
		state byte
		start uint64
		bad   bool
	}{
		{line: "12 (sleep) S" + rest, state: 'S', start: 98765},
		{line: "12 (a) b (c) Z" + rest, state: 'Z', start: 98765},
		{line: "12 (:) R 9) R" + rest, state: 'R', start: 98765},
		{line: "12 (sleep) S 1 2", bad: true},
		{line: "12 sleep", bad: true},
		{line: "", bad: true},
	} {
		state, start, err := parseStat(test.line)
		if (err != nil) != test.bad || !test.bad && (state != test.state || start != test.start) {
			t.Errorf("%q: %c %d %v", test.line, state, start, err)
		}
	}
}

// sleeper starts a process that outlasts the test.
func sleeper(t *testing.T, script string) (ID, <-chan struct{}, Spec) {
	t.Helper()
	dir := t.TempDir()
	s := Spec{
		Name:    "sleeper",
		Path:    "/bin/sh",
		Args:    []string{"-c", script},
		Log:     filepath.Join(dir, "log"),
		PIDFile: filepath.Join(dir, "pid"),
	}
	ended, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	id, err := Load(s.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = id.Signal(syscall.SIGKILL)
		<-ended
	})
	return id, ended, s
}

func TestStartAndStop(t *testing.T) {
	id, ended, _ := sleeper(t, "exec sleep 1000")
	if !id.Alive() {
		t.Fatal("it does not run")
	}
	if sid, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(id.PID), 0, 0); errno != 0 || int(sid) != id.PID {
		t.Errorf("session %d, want its own", sid)
	}
	if err := id.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	<-ended
	if id.Alive() {
		t.Error("it still runs")
	}
	if err := id.Stop(t.Context(), time.Minute); err != nil {
		t.Errorf("stop again: %v", err)
	}
}

func TestStopKillsWhatIgnoresIt(t *testing.T) {
	id, ended, s := sleeper(t, "trap '' TERM; echo ready; while :; do sleep 1000; done")
	for b, _ := os.ReadFile(s.Log); !strings.Contains(string(b), "ready"); b, _ = os.ReadFile(s.Log) {
		// Until the trap is set, SIGTERM would end it.
	}
	if err := id.Stop(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestStrangersAreLeftAlone(t *testing.T) {
	id, _, _ := sleeper(t, "exec sleep 1000")
	for name, stranger := range map[string]ID{
		"started at another time": {id.PID, id.Start + 1, id.Boot},
		"of another boot":         {id.PID, id.Start, "00000000-0000-0000-0000-000000000000"},
	} {
		if stranger.Alive() {
			t.Errorf("%s: taken for alive", name)
		}
		if err := stranger.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: signal: %v, want os.ErrProcessDone", name, err)
		}
		if err := stranger.Stop(t.Context(), time.Minute); err != nil {
			t.Errorf("%s: stop: %v", name, err)
		}
	}
	if !id.Alive() {
		t.Error("the process was killed in a stranger's name")
	}
}

func TestZombieIsNotAlive(t *testing.T) {
	// A parent that never waits: the child's end leaves a zombie.
	p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wait()
	for {
		_, err := Identify(p.Pid)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestStartOfWhatEndsAtOnce(t *testing.T) {
	_, err := Start(Spec{Name: "gone", Path: "/nonexistent", Log: filepath.Join(t.TempDir(), "log")})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
	dir := t.TempDir()
	ended, err := Start(Spec{Name: "short", Path: "/bin/true", Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid")})
	if err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestStartUndoesWhatCannotBeAdopted(t *testing.T) {
	dir := t.TempDir()
	refused := errors.New("refused")
	var pid int
	_, err := Start(Spec{
		Name: "orphan", Path: "/bin/sleep", Args: []string{"1000"},
		Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid"),
		Adopt: func(p int) error { pid = p; return refused },
	})
	if !errors.Is(err, refused) {
		t.Fatalf("got %v", err)
	}
	if _, err := Identify(pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was left running: %v", err)
	}
}

func TestLoadRefusesNonsense(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	for _, content := range []string{"", "123", "{}", `{"pid":0}`, `{"pid":1}`, `{"pid":-1}`, `{"pid":`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := Load(path); err == nil {
			t.Errorf("%q: loaded as %+v", content, id)
		}
	}
	if _, err := Load(path + "-absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}
