package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"fairlead.dev/test/bench/measure"
	"fairlead.dev/test/freeport"
)

// source is a service that is edited and debugged.
type source struct{ measure.Shop }

// breakpoint is the first statement of main.
func (s source) breakpoint() (file string, line int, err error) {
	file = filepath.Join(s.Main(), "main.go")
	b, err := os.ReadFile(file)
	if err != nil {
		return "", 0, err
	}
	i := bytes.Index(b, []byte("\nfunc main() {"))
	if i < 0 {
		return "", 0, fmt.Errorf("%s has no func main", file)
	}
	return file, bytes.Count(b[:i+1], []byte("\n")) + 2, nil
}

// build builds with the flags of Fairlead's builds under the debugger, and returns the executable's size.
func (s source) build(out string, native bool) (int64, error) {
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath=false", "-gcflags=example.com/shop/...=-N -l", "-ldflags=-compressdwarf=false", "-o", out, "./cmd/shop")
	cmd.Dir, cmd.Env = s.Dir, os.Environ()
	if !native {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if b, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, b)
	}
	fi, err := os.Stat(out)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func freePort() string {
	n, err := freeport.Find()
	if err != nil {
		return "0"
	}
	return strconv.Itoa(n)
}
