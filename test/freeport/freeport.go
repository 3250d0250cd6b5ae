// Package freeport finds ports for the services that tests run.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// What the kernel gives to outgoing connections begins at 32768 (Linux, ip_local_port_range) or 49152 (IANA), and
// NodePorts at 30000. A port from there that was free a moment ago may be taken by a client before the service listens.
const low, high = 12000, 30000

// Find is a port that nothing listens on and no outgoing connection is given.
func Find() (int, error) {
	for range 100 {
		n := low + rand.IntN(high-low)
		if l, err := net.Listen("tcp", ":"+strconv.Itoa(n)); err == nil {
			l.Close()
			return n, nil
		}
	}
	return 0, errors.New("no free port")
}

// Get is Find for a test.
func Get(t testing.TB) string {
	t.Helper()
	n, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(n)
}
