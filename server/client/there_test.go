//go:build unix

package client

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fairlead.dev/api"
)

// An agent that is just dying is none: the next one is started, whatever the kernel says of the connection.
func TestDyingAgent(t *testing.T) {
	for _, c := range []struct {
		name string
		take func(ln *net.UnixListener)
	}{
		{"not taken", func(ln *net.UnixListener) {}},
		{"taken and closed", func(ln *net.UnixListener) { c, _ := ln.Accept(); c.Close() }},
		{"read and closed", func(ln *net.UnixListener) { c, _ := ln.Accept(); c.Read(make([]byte, 8)); c.Close() }},
		{"half an answer", func(ln *net.UnixListener) {
			c, _ := ln.Accept()
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{")
			c.Close()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "fl") // t.TempDir is too long for a socket
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			sock := filepath.Join(dir, "a.sock")
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			answered := make(chan error, 1)
			go func() {
				_, err := New(Options{Socket: sock, Version: "1"}).Agent(t.Context())
				answered <- err
			}()
			if c.name == "not taken" {
				raw, err := ln.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				raw.Control(func(fd uintptr) { // until the connection waits to be taken
					unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
				})
			} else {
				c.take(ln)
			}
			ln.Close()
			var p *api.Problem
			if err := <-answered; !errors.As(err, &p) || p.Code != CodeNoAgent {
				t.Errorf("%v, want no agent", err)
			}
		})
	}
}
