//go:build unix

package client

import (
	"errors"
	"io/fs"
	"syscall"
)

// notThere says whether nobody listens: there is no socket, or one that a killed agent left, or one of an agent that was
// killed before it took the connection.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
