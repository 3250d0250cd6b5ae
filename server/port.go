package server

import (
	"math/rand/v2"
	"net"
	"strconv"

	"fairlead.dev/api"
)

// FreePort is a port that nothing listens on. It is none that the kernel gives to outgoing connections, which begin at
// 32768 (Linux, ip_local_port_range): one of them could take it before whoever it is for listens.
func FreePort() (int, error) {
	for range 100 {
		if port := 12000 + rand.IntN(18000); PortIsFree(port) {
			return port, nil
		}
	}
	return 0, &api.Problem{Code: "no-local-port", Message: "no port of this machine is free", Hint: "close what uses up this machine's ports"}
}

// PortIsFree says whether nothing listens on a port, at any address.
func PortIsFree(port int) bool {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err == nil {
		l.Close()
	}
	return err == nil
}
