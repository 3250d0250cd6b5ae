// Package delve serves debug sessions in a process of their own: Delve keeps globals (working directory, environment,
// log flags) and a heap of debug information that the supervisor must not share. Hold is for a process that is there and
// outlives its sessions, Serve for one that a session brings: a test, a core file. It must not know the supervisor.
package delve

import (
	"fmt"
	"net"
	"os"

	"github.com/go-delve/delve/service"
	"github.com/go-delve/delve/service/dap"
	"github.com/go-delve/delve/service/debugger"
	"golang.org/x/sys/unix"
)

// Serve speaks the Debug Adapter Protocol on a connected socket until the client disconnects. The client's launch or
// attach request says what is debugged. The caller authenticates: nothing listens here, so that there is no port to
// reach and no token to pass.
func Serve(f *os.File) error {
	// What the program leaves behind stays below this process, where the supervisor finds it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("use descriptor %d: %w", f.Fd(), err)
	}
	f.Close()
	gone := make(chan struct{})
	s := dap.NewServer(&service.Config{
		DisconnectChan: gone,
		Debugger: debugger.Config{
			Backend:        "default",
			CheckGoVersion: false, // the agent builds Delve's side for the toolchain it finds; a newer one is its to report
		},
	})
	s.RunWithClient(conn)
	<-gone
	s.Stop()
	return nil
}
