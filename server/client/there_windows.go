package client

import (
	"errors"
	"io/fs"
	"syscall"
)

// notThere says whether nobody listens: there is no socket, or one that a killed agent left, or one of an agent that was
// killed before it took the connection.
func notThere(err error) bool {
	const refused, reset = syscall.Errno(10061), syscall.Errno(10054) // WSAECONNREFUSED, WSAECONNRESET
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, refused) || errors.Is(err, reset)
}
