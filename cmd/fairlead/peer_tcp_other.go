//go:build !linux

package main

import "net"

const knowsTCPPeer = false

func sameTCPPeer(net.Conn) bool { return false }
