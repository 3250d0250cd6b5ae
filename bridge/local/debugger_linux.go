package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"

	"fairlead.dev/api"
)

// Debugger starts a debugger on this machine for one session, without an environment: a core file's. It ends with the
// connection.
func Debugger(ctx context.Context, o Options) (io.ReadWriteCloser, error) {
	exe, err := install(o)
	if err != nil {
		return nil, err
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start the debugger: %w", err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "debugger"), os.NewFile(uintptr(fds[1]), "client")
	defer here.Close()
	defer there.Close()
	cmd := exec.Command(exe, "dap")
	cmd.ExtraFiles = []*os.File{there} // descriptor 3
	if err := cmd.Start(); err != nil {
		return nil, &api.Problem{Code: api.CodeNoDebugger, Message: "start the debugger: " + err.Error(), Hint: "make " + o.CacheDir + " a folder that programs can be run from"}
	}
	go cmd.Wait() // it ends with the connection
	conn, err := net.FileConn(here)
	if err != nil {
		return nil, fmt.Errorf("start the debugger: %w", err)
	}
	return conn, nil
}
