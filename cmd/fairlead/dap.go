package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/debugadapter"
	"fairlead.dev/server/client"
	"fairlead.dev/server/dap"
)

func newDAP(stdout, stderr io.Writer) *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use:   "dap",
		Short: "Serve an editor's debugger (Debug Adapter Protocol)",
		Long: `Dap speaks the Debug Adapter Protocol on stdin and stdout, for any editor with a DAP client. A debug session
belongs to the developer and not to the process: it joins the service's environment, or makes one, and every save
restarts the service under it, with its breakpoints set. docs/debugging.md has the set-up for each editor.

With --listen it serves one session after another on a socket: unix:/path, or an address of this machine that only this
user's processes are answered on. There Delve's JSON-RPC is spoken too, with who begins in it: GoLand's Go Remote, which
debugs the only service that runs. The running agent does the same on a socket of its own; fairlead agent status names it.`,
		Example: `  fairlead dap
  fairlead dap --listen unix:/run/user/1000/fairlead-dap.sock
  fairlead dap --listen 127.0.0.1:2345`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := findFolders()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
			if listen == "" {
				return serveDAP(c.Context(), stdio{os.Stdin, stdout}, f, log)
			}
			ln, err := listenDAP(listen)
			if err != nil {
				return err
			}
			// These words are Delve's, which editors' settings wait for.
			fmt.Fprintf(stdout, "DAP server listening at: %s\n", ln.Addr())
			return acceptDAP(c.Context(), ln, f, log)
		},
	}
	c.Flags().StringVar(&listen, "listen", "", "`address` to serve on in place of stdin and stdout: unix:/path or 127.0.0.1:port")
	return c
}

// stdio is the editor's side of the process.
type stdio struct {
	io.Reader
	io.Writer
}

// Close ends reading, which the protocol's end does anyway: the process ends then.
func (stdio) Close() error { return os.Stdin.Close() }

// serveDAP is one debug session.
func serveDAP(ctx context.Context, rw io.ReadWriteCloser, f folders, log *slog.Logger) error {
	h, err := dapHost(f, log)
	if err != nil {
		return err
	}
	return debugadapter.Serve(ctx, rw, h, debugadapter.Options{Version: version, Logger: log})
}

func dapHost(f folders, log *slog.Logger) (*dap.Host, error) {
	dir, err := workingDir()
	if err != nil {
		return nil, err
	}
	return &dap.Host{New: func(name string) (*client.Client, error) { return newClient(f, name, true) }, Env: environment(), Dir: dir, Core: coreDebugger(f), Logger: log}, nil
}

// acceptDAP serves debug sessions until ctx ends.
func acceptDAP(ctx context.Context, ln net.Listener, f folders, log *slog.Logger) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		wg.Go(func() {
			defer conn.Close()
			if err := serveDebugger(ctx, conn, f, log); err != nil && ctx.Err() == nil {
				log.Warn("a debug session ended", "err", err)
			}
		})
	}
}

// serveDebugger is one debug session in the protocol that its first byte is of: '{' is Delve's JSON-RPC, and "Content-Length"
// begins the Debug Adapter Protocol.
func serveDebugger(ctx context.Context, conn net.Conn, f folders, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	r := bufio.NewReader(conn)
	first, err := r.Peek(1)
	if err != nil {
		return nil // a client that only looked whether somebody is there
	}
	p := peeked{conn, r}
	if first[0] != '{' {
		return serveDAP(ctx, p, f, log)
	}
	h, err := dapHost(f, log)
	if err != nil {
		return err
	}
	return h.ServeRPC(ctx, p)
}

// peeked is a connection whose first bytes have been looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// listenDAP opens a socket that only this user's processes are answered on: who speaks to a debugger runs what they like.
func listenDAP(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		ln, err := listenPrivate(path)
		if err != nil {
			return nil, &api.Problem{Code: "dap-listen", Message: "listen: " + err.Error(), Hint: "name a path in a folder of your own"}
		}
		return onlyUser{ln}, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--listen %s: want unix:/path or 127.0.0.1:port", addr)}
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, &api.Problem{Code: "dap-listen", Message: fmt.Sprintf("listen on %s: a debugger is served on this machine only", addr), Hint: "use 127.0.0.1:port, and ssh -L from elsewhere"}
	}
	if !knowsTCPPeer {
		return nil, &api.Problem{Code: "dap-listen", Message: "on this system it cannot be told which user connects by TCP", Hint: "use --listen unix:/path, or stdin and stdout"}
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, &api.Problem{Code: "dap-listen", Message: err.Error(), Hint: "choose another port; 0 is any"}
	}
	return onlyUserTCP{ln}, nil
}

// listenPrivate opens a unix socket for this user alone. What a killed process left at its path is removed; a socket that
// answers is somebody's.
func listenPrivate(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s is in use", path)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSocket != 0 {
		os.Remove(path)
	}
	ln, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	return ln, err
}

// onlyUserTCP refuses connections of other users' processes.
type onlyUserTCP struct{ net.Listener }

func (l onlyUserTCP) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || sameTCPPeer(c) {
			return c, err
		}
		c.Close()
	}
}
