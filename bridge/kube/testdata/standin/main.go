// Command standin is what fairlead-pod is to this package's tests: it copies itself, listens, and joins a stream to the
// listener. What arrives is sent back, so that a test can tell what the way there and back does to it; a stream that
// begins with a command word is answered otherwise. The tests of the real one are elsewhere.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	socket := fs.String("socket", "", "")
	token := fs.String("token-file", "", "")
	dir := fs.String("dir", "", "")
	fs.Func("tree", "", func(v string) error {
		_, d, _ := strings.Cut(v, "=")
		return os.WriteFile(filepath.Join(d, "can-be-written"), nil, 0o600)
	})
	for _, f := range []string{"kind", "timeout", "http", "tcp", "grpc", "scheme", "host"} {
		fs.String(f, "", "")
	}
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "install":
		return install(fs.Arg(0))
	case "run":
		if err := os.MkdirAll(*dir, 0o700); err != nil {
			return err
		}
		t, err := os.ReadFile(*token)
		if err != nil {
			return err
		}
		os.Remove(*socket)
		ln, err := net.Listen("unix", *socket)
		if err != nil {
			return err
		}
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			go serve(c, string(t))
		}
	case "connect":
		return connect(*socket)
	case "probe":
		if _, err := os.ReadFile(*token); err != nil {
			return err
		}
		c, err := net.Dial("unix", *socket)
		if err == nil {
			c.Close()
		}
		return err
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func install(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

func serve(c net.Conn, token string) {
	defer c.Close()
	r := bufio.NewReader(c)
	word, err := r.ReadString('\n')
	if err != nil {
		return
	}
	verb, _, _ := strings.Cut(strings.TrimSpace(word), " ")
	switch verb {
	case "echo":
		io.Copy(c, r)
	case "token":
		fmt.Fprintln(c, token)
	case "env":
		fmt.Fprintln(c, strings.Join(os.Environ(), "\x00"))
	case "args":
		fmt.Fprintln(c, strings.Join(os.Args, "\x00"))
	case "uid":
		fmt.Fprintln(c, strconv.Itoa(os.Getuid()))
	case "http", "redis", "postgres", "mysql": // speak to a dependency, and say what it answered: "redis ADDRESS COMMAND"
		fields := strings.SplitN(strings.TrimSpace(word), " ", 3)
		answer, err := backend(fields[0], fields[1], fields[2])
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Fprintln(c, answer)
	case "die":
		os.Exit(3)
	}
}

func connect(socket string) error {
	var c net.Conn
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if c, err = net.Dial("unix", socket); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	done := make(chan struct{}, 2)
	go func() {
		io.Copy(c, os.Stdin)
		c.(*net.UnixConn).CloseWrite()
		done <- struct{}{}
	}()
	go func() {
		io.Copy(os.Stdout, c)
		done <- struct{}{}
	}()
	<-done
	return nil
}
