package crash

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
)

// dying is a program that dies in every way that there is, and writes a line at each place that is looked for.
const dying = `package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	"example.com/dying/inner"
)

type T struct{ p *int }

func (t *T) deref() int { return *t.p } // nil

func again() {
	defer func() {
		recover()
		panic("the second") // nested
	}()
	panic("the first")
}

func repanic() {
	defer func() { panic(fmt.Sprint("again: ", recover())) }() // repanic
	panic("once")
}

func deep(n int) int { return deep(n+1) + 1 } // overflow

func main() {
	switch os.Args[1] {
	case "string":
		inner.Fail("two\nlines")
	case "error":
		panic(errors.New("an error")) // error
	case "nil":
		(&T{}).deref()
	case "goroutine":
		go func() { inner.Fail("elsewhere") }() // goroutine
		time.Sleep(time.Hour)
	case "nested":
		again()
	case "repanic":
		repanic()
	case "unlock":
		var mu sync.Mutex
		mu.Unlock() // unlock
	case "overflow":
		deep(0)
	case "http":
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			inner.Fail("in a handler")
		}))
		http.Get(s.URL)
		fmt.Fprintln(os.Stderr, "goes on")
	case "harmless":
		fmt.Fprintln(os.Stderr, "panic: said the log, and nothing came of it")
	}
}
`

const inner = `package inner

func Fail(s string) {
	panic(s) // inner
}
`

// The real runtime's words, of a real program, with and without -trimpath.
func TestRealCrashes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dying")
	for name, text := range map[string]string{"go.mod": "module example.com/dying\n\ngo 1.26\n", "main.go": dying, "inner/inner.go": inner} {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, flags := range [][]string{nil, {"-trimpath"}} {
		exe := filepath.Join(t.TempDir(), "dying")
		cmd := exec.Command("go", append(append([]string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", exe}, flags...), ".")...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, tt := range []struct {
			how, code, file, mark, message string
			related                        int
		}{
			{"string", "panic", "inner/inner.go", "// inner", "panic: two\nlines", 1},
			{"error", "panic", "main.go", "// error", "panic: an error", 0},
			{"nil", "panic", "main.go", "// nil", "panic: runtime error: invalid memory address or nil pointer dereference", 1},
			{"goroutine", "panic", "inner/inner.go", "// inner", "panic: elsewhere", 2},
			{"nested", "panic", "main.go", "// nested", "panic: the first [recovered]\nthe second", -1},
			{"repanic", "panic", "main.go", "// repanic", "panic: once [recovered]\nagain: once", -1},
			{"unlock", "fatal", "main.go", "// unlock", "fatal error: sync: unlock of unlocked mutex", 0},
			{"overflow", "fatal", "main.go", "// overflow", "fatal error: stack overflow", -1},
			{"http", "panic", "inner/inner.go", "// inner", "panic in a request: in a handler", -1},
			{"harmless", "", "", "", "", 0},
		} {
			t.Run(tt.how+strings.Join(flags, ""), func(t *testing.T) {
				var stderr bytes.Buffer
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, exe, tt.how)
				cmd.Stderr, cmd.Env = &stderr, []string{"HOME=/"}
				cmd.Run()
				crashes := parse(stderr.String())
				if tt.code == "" {
					if len(crashes) > 0 {
						t.Fatalf("%+v", crashes)
					}
					return
				}
				if len(crashes) != 1 {
					t.Fatalf("%d crashes in\n%s", len(crashes), stderr.String())
				}
				p := crashes[0].Problem(Source{Modules: map[string]string{"example.com/dying": dir}})
				if p.Code != tt.code || p.Owner != "process" || p.Severity != api.SeverityError || !strings.HasPrefix(p.Message, tt.message) {
					t.Errorf("%+v of\n%s", p, stderr.String())
				}
				if want := filepath.Join(dir, tt.file); p.File != want || line(t, p.File, p.Line) != tt.mark {
					t.Errorf("at %s:%d, want %s in %s; of\n%s", p.File, p.Line, tt.mark, want, stderr.String())
				}
				if tt.related >= 0 && len(p.Related) != tt.related {
					t.Errorf("related: %+v; of\n%s", p.Related, stderr.String())
				}
			})
		}
	}
}

func parse(text string) []*Crash {
	var p Parser
	var out []*Crash
	for l := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if c := p.Line(l); c != nil {
			out = append(out, c)
		}
	}
	if c := p.End(); c != nil {
		out = append(out, c)
	}
	return out
}

// line returns the comment at the end of a line of a file.
func line(t *testing.T, file string, n int) string {
	b, err := os.ReadFile(file)
	lines := strings.Split(string(b), "\n")
	if err != nil || n < 1 || n > len(lines) {
		t.Errorf("%s:%d: %v", file, n, err)
		return ""
	}
	if i := strings.Index(lines[n-1], "// "); i >= 0 {
		return lines[n-1][i:]
	}
	return lines[n-1]
}

// Frames of others are nobody's to mend.
func TestWhoseFrames(t *testing.T) {
	src := Source{Modules: map[string]string{"example.com/m": "/src/m"}}
	for file, want := range map[string]string{
		"/src/m/a.go": "/src/m/a.go", "/src/m/vendor/x/a.go": "", "/src/mm/a.go": "", "/usr/local/go/src/net/http/server.go": "",
		"/root/go/pkg/mod/example.com/x@v1.2.3/a.go": "", "example.com/m/b/c.go": "/src/m/b/c.go", "example.com/mm/a.go": "", "net/http/server.go": "",
		"example.com/x@v1.2.3/a.go": "", "_cgo_gotypes.go": "", "": "", "/src/m/../n/a.go": "",
	} {
		if got, _ := src.find(file); got != want {
			t.Errorf("%q: %q, want %q", file, got, want)
		}
	}
}

// Whatever a process writes, the parser's memory is bounded and it does not panic.
func FuzzParser(f *testing.F) {
	f.Add("panic: x\n\ngoroutine 1 [running]:\nmain.f(0x1)\n\t/src/main.go:3 +0x1d\ncreated by main.main in goroutine 1\n\t/src/main.go:9\n")
	f.Add("2026/01/02 http: panic serving 127.0.0.1:1: boom\ngoroutine 7 [running]:\nmain.f()\n\t/a.go:1\n")
	f.Add("fatal error: x\n\nruntime stack:\nruntime.throw({0x1, 0x2})\n\t/panic.go:1\n\ngoroutine 1 gp=0x1 m=0 mp=0x2 [running]:\nmain.f(...)\n\t/a.go:99999999999999999999\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range parse(text) {
			if len(c.Frames) == 0 || len(c.Frames) > maxFrames || len(c.Message) > maxMessage+1 {
				t.Errorf("%d frames, a message of %d bytes", len(c.Frames), len(c.Message))
			}
			c.Problem(Source{Modules: map[string]string{"example.com/m": "/src"}})
		}
	})
}
