package main

import (
	"bufio"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// knowsTCPPeer: the kernel's table of sockets says whose they are.
const knowsTCPPeer = true

// sameTCPPeer says whether the other end of a loopback connection is a socket of this user's, or of root's.
func sameTCPPeer(c net.Conn) bool {
	us, err1 := netip.ParseAddrPort(c.LocalAddr().String())
	them, err2 := netip.ParseAddrPort(c.RemoteAddr().String())
	if err1 != nil || err2 != nil {
		return false
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		uid, ok := tcpOwner(bufio.NewScanner(f), them, us)
		f.Close()
		if ok {
			return uid == os.Getuid() || uid == 0
		}
	}
	return false
}

// tcpOwner finds the owner of the socket with these ends in a table as proc_net_tcp(5) has it: "sl local remote st
// queues timer retransmits uid ...", addresses in hexadecimal, each 32-bit word in the machine's order.
func tcpOwner(table *bufio.Scanner, local, remote netip.AddrPort) (uid int, ok bool) {
	for table.Scan() {
		f := strings.Fields(table.Text())
		if len(f) < 8 || tcpAddr(f[1]) != unmapped(local) || tcpAddr(f[2]) != unmapped(remote) {
			continue
		}
		uid, err := strconv.Atoi(f[7])
		return uid, err == nil
	}
	return 0, false
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// tcpAddr reads an address of the table; amd64 and arm64 are little-endian.
func tcpAddr(s string) netip.AddrPort {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	p, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(p))
}
