package main

import (
	"bufio"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// The owner of a real connection is found in the kernel's table, whichever family the client's socket has.
func TestTCPOwner(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if !sameTCPPeer(s) {
			t.Errorf("%s: a connection of our own is taken for another user's", listen)
		}
	}
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1234        0 5 1 0 20 4 30 10 -1
   1: 0000000000000000FFFF00000100007F:9C41 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000    77        0 6`
	for local, want := range map[string]int{"127.0.0.1:40000": 1234, "127.0.0.1:40001": 77, "127.0.0.1:40002": -1} {
		uid, ok := tcpOwner(bufio.NewScanner(strings.NewReader(table)), netip.MustParseAddrPort(local), netip.MustParseAddrPort("127.0.0.1:8080"))
		if ok != (want >= 0) || ok && uid != want {
			t.Errorf("%s: %d %v, want %d", local, uid, ok, want)
		}
	}
}
