//go:build linux || darwin

package main

import (
	"net"
	"os"
)

// samePeer says whether a connection to a unix socket is of this user, or of root, who needs no leave.
func samePeer(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	err = raw.Control(func(fd uintptr) {
		uid, err := peerUID(int(fd))
		same = err == nil && (uid == os.Getuid() || uid == 0)
	})
	return err == nil && same
}
