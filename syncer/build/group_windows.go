package build

import (
	"os/exec"
	"sync"
	"syscall"
)

// The job functions are not in package syscall, and three calls are no reason to depend on another module.
const (
	createNoWindow   = 0x08000000
	processTerminate = 0x0001
	processSetQuota  = 0x0100
)

// runGroup runs cmd in a job object of its own, so that cancelling its context ends the compilers and linkers that the
// go command started as well. What it starts in the instant before it is put into the job would escape; the go command
// needs some milliseconds before it starts anything.
func runGroup(cmd *exec.Cmd) error {
	kernel := syscall.NewLazyDLL("kernel32.dll")
	create, assign, terminate := kernel.NewProc("CreateJobObjectW"), kernel.NewProc("AssignProcessToJobObject"), kernel.NewProc("TerminateJobObject")
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: createNoWindow}
	job, _, _ := create.Call(0, 0)
	if job != 0 {
		defer syscall.CloseHandle(syscall.Handle(job))
	}
	var mu sync.Mutex
	inJob, cancelled := false, false
	cmd.Cancel = func() error {
		mu.Lock()
		defer mu.Unlock()
		cancelled = true
		if inJob {
			if ok, _, _ := terminate.Call(job, 1); ok != 0 {
				return nil
			}
		}
		return cmd.Process.Kill()
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if job != 0 {
		mu.Lock()
		if h, err := syscall.OpenProcess(processSetQuota|processTerminate, false, uint32(cmd.Process.Pid)); err == nil {
			ok, _, _ := assign.Call(job, uintptr(h))
			inJob = ok != 0
			syscall.CloseHandle(h)
		}
		if inJob && cancelled {
			terminate.Call(job, 1)
		}
		mu.Unlock()
	}
	return cmd.Wait()
}
