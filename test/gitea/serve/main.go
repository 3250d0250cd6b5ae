//go:build unix

// Command serve starts a Gitea for tests that are not written in Go. It prints one line of JSON, where it is and the administrator
// with a token, and ends it with its own standard input. Without the program it says why, and ends with code 3.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"fairlead.dev/test/gitea"
)

const missing = 3

func main() {
	t := &process{}
	g := gitea.Start(t)
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"url": g.URL, "admin": gitea.Admin, "token": g.Token}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // the test's end
		t.Fatal(err)
	}
	t.end(0)
}

// process is the test that a Gitea of package gitea belongs to. What it does not have of testing.TB, Start does not call.
type process struct {
	testing.TB
	failed   bool
	cleanups []func()
}

func (p *process) Helper()                  {}
func (p *process) Context() context.Context { return context.Background() }
func (p *process) Failed() bool             { return p.failed }
func (p *process) Cleanup(f func())         { p.cleanups = append(p.cleanups, f) }

func (p *process) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (p *process) Error(args ...any) {
	p.failed = true
	fmt.Fprintln(os.Stderr, args...)
}

func (p *process) Fatal(args ...any) {
	p.Error(args...)
	p.end(1)
}

func (p *process) Fatalf(format string, args ...any) { p.Fatal(fmt.Sprintf(format, args...)) }

func (p *process) Skip(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	p.end(missing)
}

// end undoes what was done for the process, the last first.
func (p *process) end(code int) {
	for _, f := range slices.Backward(p.cleanups) {
		f()
	}
	if p.failed && code == 0 {
		code = 1
	}
	os.Exit(code)
}
