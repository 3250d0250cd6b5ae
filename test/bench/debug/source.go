package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// source is a copy of the service that is edited.
type source struct{ dir string }

func (s source) main() string { return filepath.Join(s.dir, "cmd", "shop") }

// breakpoint is the first statement of main.
func (s source) breakpoint() (file string, line int, err error) {
	file = filepath.Join(s.main(), "main.go")
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

// edit changes a constant in one package and adds lines to main.
func (s source) edit(v string) error {
	p := filepath.Join(s.dir, "internal", "version", "version.go")
	text, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	i := bytes.Index(text, []byte(`Version = "`))
	if i < 0 {
		return fmt.Errorf("%s has no Version", p)
	}
	i += len(`Version = "`)
	j := i + bytes.IndexByte(text[i:], '"')
	m := filepath.Join(s.main(), "edit.go")
	lines, err := os.ReadFile(m)
	if errors.Is(err, os.ErrNotExist) {
		lines = []byte("package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n")
	} else if err != nil {
		return err
	}
	lines = fmt.Appendf(lines, "\nfunc init() {\n\tif len(os.Args) > 100000 {\n\t\tfmt.Fprintf(os.Stderr, \"%s: %%d arguments, %%q\\n\", len(os.Args), os.Args[0])\n\t}\n}\n", v)
	if err := os.WriteFile(m, lines, 0o644); err != nil {
		return err
	}
	return os.WriteFile(p, slices.Concat(text[:i], []byte(v), text[j:]), 0o644)
}

// build builds with the flags of Fairlead's builds under the debugger, and returns the executable's size.
func (s source) build(out string, native bool) (int64, error) {
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath=false", "-gcflags=example.com/shop/...=-N -l", "-ldflags=-compressdwarf=false", "-o", out, "./cmd/shop")
	cmd.Dir, cmd.Env = s.dir, os.Environ()
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "0"
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
