package supervisor

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// listener is a TCP socket on which the service's process group listens.
type listener struct {
	addr  netip.AddrPort
	inode uint64
}

// dialAddr is the address on which the listener is reached from inside the pod.
func (l listener) dialAddr() string {
	a := l.addr.Addr()
	switch {
	case a == netip.IPv4Unspecified() || a == netip.IPv6Unspecified():
		// An IPv6 wildcard socket takes IPv4 too, unless the service asked otherwise (IPV6_V6ONLY); the gate tries
		// ::1 when this is refused.
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(a, l.addr.Port()).String()
}

// listeners finds what the given processes listen on: the network namespace's sockets in state LISTEN whose inode is among their descriptors.
// They come in the order of the processes and of the descriptors, which is mostly that in which they were made: open(2) gives the lowest
// descriptor that is free. (Inodes are given to each processor by the thousand, so they tell nothing where a process wanders.)
func listeners(pids []int) []listener {
	socks, rank := map[uint64]bool{}, map[uint64]int{}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		ents, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		fds := make([]int, 0, len(ents))
		for _, e := range ents {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				fds = append(fds, fd)
			}
		}
		slices.Sort(fds)
		for _, fd := range fds {
			to, err := os.Readlink(dir + "/" + strconv.Itoa(fd))
			if err != nil {
				continue
			}
			if s, ok := strings.CutPrefix(to, "socket:["); ok {
				if n, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64); err == nil && !socks[n] {
					socks[n], rank[n] = true, len(rank)
				}
			}
		}
	}
	if len(socks) == 0 {
		return nil
	}
	out, err := askListeners(socks)
	if err != nil {
		out = readListeners(socks)
	}
	slices.SortFunc(out, func(a, b listener) int { return cmp.Compare(rank[a.inode], rank[b.inode]) })
	return out
}

// inOrder puts those first that were there before, as they were.
func inOrder(now, before []listener) {
	rank := func(l listener) int {
		if i := slices.Index(before, l); i >= 0 {
			return i
		}
		return len(before)
	}
	slices.SortStableFunc(now, func(a, b listener) int { return cmp.Compare(rank(a), rank(b)) })
}

// askListeners asks the kernel by sock_diag(7) for its sockets in state LISTEN. It takes no capability. A sandbox may have no
// such family, or filter it.
func askListeners(socks map[uint64]bool) ([]listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	// The kernel answers at once; this is for a sandbox that does not.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
		return nil, err
	}
	var out []listener
	buf := make([]byte, 32<<10) // what the kernel puts into one datagram, at most
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, diagRequest(family), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, err
		}
		for done := false; !done; {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return nil, err
			}
			var ls []listener
			if ls, done, err = parseDiag(buf[:n], socks); err != nil {
				return nil, err
			}
			out = append(out, ls...)
		}
	}
	return out, nil
}

// The layout of linux/inet_diag.h.
const (
	diagRequestSize = unix.SizeofNlMsghdr + 56 // struct inet_diag_req_v2
	diagAnswerSize  = 72                       // struct inet_diag_msg
	tcpListen       = 10                       // TCP_LISTEN of net/tcp_states.h
)

func diagRequest(family byte) []byte {
	b := make([]byte, diagRequestSize)
	binary.NativeEndian.PutUint32(b[0:], diagRequestSize)
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<tcpListen)
	return b
}

// parseDiag reads one datagram of an answer, and says whether it is the last.
func parseDiag(b []byte, socks map[uint64]bool) (out []listener, done bool, err error) {
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, false, err
	}
	for _, m := range msgs {
		switch {
		case m.Header.Type == unix.NLMSG_DONE:
			return out, true, nil
		case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
			return nil, false, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < diagAnswerSize:
			return nil, false, fmt.Errorf("sock_diag: a message of type %d with %d bytes", m.Header.Type, len(m.Data))
		}
		d := m.Data
		inode := uint64(binary.NativeEndian.Uint32(d[68:]))
		if d[1] != tcpListen || !socks[inode] {
			continue
		}
		size := 16
		if d[0] == unix.AF_INET {
			size = 4
		}
		a, _ := netip.AddrFromSlice(d[8 : 8+size])
		out = append(out, listener{netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(d[4:])), inode})
	}
	return out, false, nil
}

// readListeners reads /proc/net/tcp{,6}, which walks the kernel's table of every connection: up to 20 ms of processor
// time on a large machine, in each network namespace.
func readListeners(socks map[uint64]bool) []listener {
	var out []listener
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		out = append(out, parseListeners(b, socks)...)
	}
	return out
}

// parseListeners reads the format of proc_net_tcp.rst in the kernel's documentation: "sl local rem st ... inode", the
// address in hexadecimal words of host byte order.
func parseListeners(b []byte, socks map[uint64]bool) []listener {
	var out []listener
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 10 || f[3] != "0A" { // TCP_LISTEN
			continue
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil || !socks[inode] {
			continue
		}
		host, port, ok := strings.Cut(f[1], ":")
		if !ok {
			continue
		}
		raw, err := hex.DecodeString(host)
		p, err2 := strconv.ParseUint(port, 16, 16)
		if err != nil || err2 != nil || len(raw)%4 != 0 {
			continue
		}
		for i := 0; i+4 <= len(raw); i += 4 { // little-endian words on amd64 and arm64, the pod's two architectures
			raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
		}
		a, ok := netip.AddrFromSlice(raw)
		if !ok {
			continue
		}
		out = append(out, listener{netip.AddrPortFrom(a.Unmap(), uint16(p)), inode})
	}
	return out
}
