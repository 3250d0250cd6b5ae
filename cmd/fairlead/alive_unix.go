//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"
)

func processAlive(p *os.Process) bool {
	err := p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, syscall.EPERM)
}
