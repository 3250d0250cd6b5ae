package supervisor

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
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

// listeners finds what the given processes listen on: /proc/net/tcp{,6} lines in state LISTEN whose socket inode is
// among their descriptors, in the order in which the sockets were made.
func listeners(pids []int) []listener {
	socks := map[uint64]bool{}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		ents, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range ents {
			to, err := os.Readlink(dir + "/" + e.Name())
			if err != nil {
				continue
			}
			if s, ok := strings.CutPrefix(to, "socket:["); ok {
				if n, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64); err == nil {
					socks[n] = true
				}
			}
		}
	}
	if len(socks) == 0 {
		return nil
	}
	var out []listener
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		out = append(out, parseListeners(b, socks)...)
	}
	slices.SortFunc(out, func(a, b listener) int { return int(a.inode) - int(b.inode) })
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
