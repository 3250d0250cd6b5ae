//go:build unix

package review

import (
	"os/exec"
	"syscall"
)

// stop asks git to end: it removes its lock files.
func stop(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGTERM) }

// detach takes the terminal away: ssh and gpg ask there, whatever their input is.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
