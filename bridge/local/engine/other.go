//go:build !linux

package engine

import (
	"context"
	"io"
	"runtime"

	"fairlead.dev/api"
)

func notHere() error {
	return &api.Problem{Code: "no-local", Message: "a local environment needs Linux, and this is " + runtime.GOOS,
		Hint: "use --on kubernetes, or run Fairlead inside WSL or a Linux virtual machine"}
}

// Installed refuses: local environments need Linux.
func Installed(string, []string) (Binaries, error) { return Binaries{}, notHere() }

// Run refuses.
func Run(context.Context, string, io.Writer) error { return notHere() }

// Ready refuses.
func Ready(context.Context, string, []string, string, []Login) error { return notHere() }

// Runs is always false: nothing runs here.
func Runs(string) bool { return false }

func tryLock(string) (func(), error) { return nil, notHere() }
