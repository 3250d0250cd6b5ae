package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// fairlead is the program under test, payload the folder of the pod's executables that it uses.
var fairlead, payload string

// skips counts why tests were skipped.
var skips struct {
	sync.Mutex
	by map[string]int
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		tmp, err := os.MkdirTemp("", "fairlead-e2e-")
		if err == nil {
			defer os.RemoveAll(tmp)
			err = build(tmp)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		code := m.Run()
		skips.Lock()
		defer skips.Unlock()
		for why, n := range skips.by {
			fmt.Printf("skipped %d: %s\n", n, why)
		}
		return code
	}())
}

// build makes fairlead and its payload, unless they are given.
func build(tmp string) error {
	fairlead, payload = os.Getenv("FAIRLEAD_TEST_BIN"), os.Getenv("FAIRLEAD_PAYLOAD")
	if fairlead != "" && payload != "" {
		return nil
	}
	fairlead, payload = filepath.Join(tmp, "fairlead"), filepath.Join(tmp, "payload")
	const version = "e2e-test"
	for _, args := range [][]string{
		{"run", "./bridge/payload/gen", "-version", version, "-out", filepath.Join(tmp, "embedded"), "-raw", payload},
		{"build", "-buildvcs=false", "-ldflags=-X main.version=" + version, "-o", fairlead, "./cmd/fairlead"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir = moduleDir()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

func moduleDir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// skip leaves a test out for a reason. In CI everything is there, so that it is an error.
func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	skips.Lock()
	defer skips.Unlock()
	if skips.by == nil {
		skips.by = map[string]int{}
	}
	skips.by[why]++
	t.Skip(why)
}
