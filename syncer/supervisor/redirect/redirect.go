// Package redirect leads connections of a process elsewhere on their way, without its knowledge and without rights: a seccomp
// filter has the kernel ask before each connect(2), and the answer may be another address. It knows no calls and no service.
//
// seccomp_unotify(2) is its source. The kernel reads the address again after the answer, so this is no means to keep anybody
// from connecting: a process that means to can change it meanwhile. Here it is to be seen what an honest one calls.
package redirect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The program's offsets in struct seccomp_data (linux/seccomp.h), and the sizes of struct sockaddr_in and sockaddr_in6.
const (
	atNumber, atArch, atLength = 0, 4, 16 + 2*8
	sizeInet4, sizeInet6       = 16, 28
)

var arches = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// Install has the kernel ask about connect(2) of this thread and of all that it becomes and starts, and sends the descriptor that
// is asked, or why there is none, over a socket to Take. The caller stays on its thread and calls execve(2) next.
func Install(sock int) error {
	l, err := filter()
	var oob []byte
	text := []byte{0}
	if err != nil {
		text = append(text, err.Error()...)
	} else {
		oob = unix.UnixRights(l)
	}
	if err := unix.Sendmsg(sock, text, oob, nil, 0); err != nil {
		return fmt.Errorf("hand on the filter's descriptor: %w", err)
	}
	return unix.Close(sock)
}

func filter() (listener int, err error) {
	arch, ok := arches[runtime.GOARCH]
	if !ok {
		return -1, fmt.Errorf("no filter is known for %s", runtime.GOARCH)
	}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	// The next, if the value is k; else the one after as many as miss.
	equal := func(k uint32, hit, miss uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: hit, Jf: miss}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	// The length tells most unix sockets apart, whose connections need not wait for an answer. It is an int: both machines are
	// little-endian, so its word is the first of its argument.
	prog := []unix.SockFilter{
		load(atArch), equal(arch, 0, 6),
		load(atNumber), equal(unix.SYS_CONNECT, 0, 4),
		load(atLength), equal(sizeInet4, 1, 0), equal(sizeInet6, 0, 1),
		end(unix.SECCOMP_RET_USER_NOTIF),
		end(unix.SECCOMP_RET_ALLOW),
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // or CAP_SYS_ADMIN would be wanted
		return -1, fmt.Errorf("give up new privileges: %w", err)
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return -1, fmt.Errorf("install a seccomp filter: %w", errno)
	}
	return int(fd), nil
}

// Listener is asked about the connections of a process and of what it starts.
type Listener struct{ f *os.File }

// Take receives what Install sends. It waits for that; the caller ends it by closing the connection.
func Take(c *net.UnixConn) (*Listener, error) {
	text, oob := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := c.ReadMsgUnix(text, oob)
	if err != nil {
		return nil, fmt.Errorf("receive the filter's descriptor: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil || len(msgs) == 0 {
		if n > 1 {
			return nil, errors.New(string(text[1:n]))
		}
		return nil, io.ErrUnexpectedEOF
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, fmt.Errorf("receive the filter's descriptor: %w", err)
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return &Listener{os.NewFile(uintptr(fds[0]), "seccomp")}, nil
}

// notification is struct seccomp_notif, answer is struct seccomp_notif_resp (linux/seccomp.h).
type (
	notification struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	answer struct {
		id    uint64
		val   int64
		error int32
		flags uint32
	}
)

// Run answers until ctx ends or the last process of the filter has ended; until then they wait for it in connect(2), and
// afterwards their connect(2) fails with ENOSYS. lookup says where a connection is to lead in place of an address: an IPv4
// address, and false to leave it. unseen is called once if the processes' memory cannot be read.
func (l *Listener) Run(ctx context.Context, lookup func(netip.AddrPort) (netip.AddrPort, bool), unseen func(error)) {
	defer l.f.Close()
	defer context.AfterFunc(ctx, func() { l.f.Close() })()
	raw, err := l.f.SyscallConn()
	if err != nil {
		return
	}
	told := false
	for {
		var n notification
		over := true
		if err := raw.Read(func(fd uintptr) bool { return receive(int(fd), &n, &over) }); err != nil || over {
			return
		}
		if n.id == 0 {
			continue
		}
		if err := lead(raw.Control, &n, lookup); err != nil && !told {
			told = true
			unseen(err)
		}
		// CONTINUE: the connection is the process's own affair, with all that it may come to.
		a := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		raw.Control(func(fd uintptr) { ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)) }) // who has been killed needs none
	}
}

// receive takes one notification, and says whether there is anything to go on with. The ioctl would wait: it is asked for first.
func receive(fd int, n *notification, over *bool) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if k, err := unix.Poll(p, 0); err == unix.EINTR || k == 0 {
		return false
	}
	if p[0].Revents&unix.POLLIN == 0 {
		return true // POLLHUP: nobody is left
	}
	*over = false
	*n = notification{}
	if errno := ioctl(uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n)); errno != 0 {
		n.id = 0 // it was killed meanwhile
	}
	return true
}

func ioctl(fd uintptr, request uint, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(arg))
	return errno
}

// lead puts another address in the place of the one that a thread has given. Its error says that its memory is closed to us.
func lead(control func(func(uintptr)) error, n *notification, lookup func(netip.AddrPort) (netip.AddrPort, bool)) error {
	b := make([]byte, min(uint32(n.args[2]), sizeInet6))
	at := []unix.RemoteIovec{{Base: uintptr(n.args[1]), Len: len(b)}}
	here := []unix.Iovec{{Base: &b[0]}}
	here[0].SetLen(len(b))
	if k, err := unix.ProcessVMReadv(int(n.pid), here, at, 0); err != nil || k != len(b) {
		if err == unix.EFAULT || err == unix.ESRCH || err == nil {
			return nil // a bad pointer is for the kernel to say, and who is gone needs nothing
		}
		return fmt.Errorf("read what it connects to: %w", err)
	}
	to, ok := decode(b)
	if !ok {
		return nil
	}
	if to, ok = lookup(to); !ok || !to.Addr().Is4() {
		return nil
	}
	encode(b, to)
	// Until here the thread has waited, or another one has its number by now.
	valid := false
	control(func(fd uintptr) { valid = ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&n.id)) == 0 })
	if !valid {
		return nil
	}
	if _, err := unix.ProcessVMWritev(int(n.pid), here, at, 0); err != nil {
		return fmt.Errorf("change what it connects to: %w", err)
	}
	return nil
}

// decode reads a struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)). An IPv4 address in IPv6's form is one of IPv4.
func decode(b []byte) (netip.AddrPort, bool) {
	if len(b) < sizeInet4 {
		return netip.AddrPort{}, false
	}
	port := uint16(b[2])<<8 | uint16(b[3])
	switch *(*uint16)(unsafe.Pointer(&b[0])) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), true
	case unix.AF_INET6:
		if len(b) >= sizeInet6 {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port), true
		}
	}
	return netip.AddrPort{}, false
}

// encode writes an IPv4 address over one, in the form that the socket is for.
func encode(b []byte, to netip.AddrPort) {
	b[2], b[3] = byte(to.Port()>>8), byte(to.Port())
	if *(*uint16)(unsafe.Pointer(&b[0])) == unix.AF_INET {
		a := to.Addr().As4()
		copy(b[4:8], a[:])
		return
	}
	a := to.Addr().As16() // ::ffff:a.b.c.d, which a socket of IPv6 connects to unless it is of IPv6 alone
	copy(b[8:24], a[:])
}
