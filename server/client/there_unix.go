//go:build unix

package client

import (
	"errors"
	"io/fs"
	"syscall"
)

// notThere says whether a dial failed because nobody listens: there is no socket, or one that a killed agent left.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}
