//go:build unix

package build

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// runGroup runs cmd in a process group of its own, so that cancelling its context ends the compilers and linkers that
// the go command started as well.
func runGroup(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	return cmd.Run()
}
