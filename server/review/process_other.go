//go:build !unix

package review

import "os/exec"

func stop(cmd *exec.Cmd) error { return cmd.Process.Kill() }

func detach(*exec.Cmd) {}
