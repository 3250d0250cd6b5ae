package main

import (
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// FindProcess fails on Windows where there is none.
func processAlive(*os.Process) bool { return true }

// detach gives a command no console and a process group of its own: Ctrl-C is not for it.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP, HideWindow: true}
}

// tryLock takes a file's lock, which lasts until the file is closed or the process ends.
func tryLock(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
}

// private: the folders for temporary files and settings are the user's own on Windows.
func private(os.FileInfo) bool { return true }

func samePeer(net.Conn) bool { return true }
