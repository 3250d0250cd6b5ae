// Package freeport finds ports for the services that tests run.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// What the kernel gives to outgoing connections begins at 32768 (Linux, ip_local_port_range) or 49152 (IANA), and
// NodePorts at 30000. A port from there that was free a moment ago may be taken by a client before the service listens.
const low, high = 12000, 30000

// Get is a port that nothing listens on and no outgoing connection is given.
func Get(t testing.TB) string {
	t.Helper()
	for range 100 {
		n := strconv.Itoa(low + rand.IntN(high-low))
		if l, err := net.Listen("tcp", ":"+n); err == nil {
			l.Close()
			return n
		}
	}
	t.Fatal("no free port")
	return ""
}
