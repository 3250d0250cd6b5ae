package watch

import (
	"io/fs"
	"syscall"
	"time"
)

// touched says when the file last changed in any way. A rename changes it too, which leaves the modification time.
func touched(st fs.FileInfo) time.Time {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return time.Unix(s.Ctim.Unix())
	}
	return st.ModTime()
}
