package supervisor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPID reads si_pid: on 64-bit Linux the union that follows si_signo, si_errno and si_code is aligned to 8, so it
// begins at byte 16, and si_pid is its first member (include/uapi/asm-generic/siginfo.h).
func siginfoPID(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}
