// Command relay passes TCP connections from one address to another.
//
// The API server listens on loopback, so that nothing outside the machine
// reaches it. Pods cannot reach loopback; for them the relay listens on the
// cluster's own address, which is the endpoint of the kubernetes service.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: relay LISTEN TARGET")
		os.Exit(2)
	}
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay: error:", err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "relay: error:", err)
			os.Exit(1)
		}
		go pass(c.(*net.TCPConn), os.Args[2])
	}
}

func pass(client *net.TCPConn, target string) {
	defer client.Close()
	c, err := net.Dial("tcp", target)
	if err != nil {
		return // the server is down: the client sees its connection closed
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(way[1], way[0]) // either end may go at any time
			_ = way[1].CloseWrite()
		})
	}
	both.Wait()
}
