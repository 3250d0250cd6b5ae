// Command fairlead-pod is the pod's side of Fairlead: the first process of the container. It only wires.
//
//	fairlead-pod run      supervises the service and answers on a unix socket
//	fairlead-pod install  copies itself to a path (the init container's only act)
//	fairlead-pod connect  joins stdin and stdout to the socket (what an exec stream runs)
//	fairlead-pod probe    answers a kubelet's probe through the supervisor
//	fairlead-pod dap      serves debug sessions of Delve on descriptor 3 (syncer/supervisor starts it)
//	fairlead-pod exec     becomes the service, having allowed its debugger or having its connections led (syncer/supervisor starts it)
//	fairlead-pod version
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/syncer/supervisor"
	"fairlead.dev/syncer/supervisor/delve"
)

// version is set by the linker; agent and pod must have the same.
var version = "dev"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "fairlead-pod: error: no command\nfairlead-pod: hint: run, install, connect, probe, dap or version")
		os.Exit(2)
	}
	commands := map[string]func([]string) error{
		"run": run, "install": install, "connect": connect, "probe": probe,
		"dap": dap, "exec": supervisor.Become,
		"version": func([]string) error { _, err := fmt.Println(version); return err },
	}
	f, ok := commands[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "fairlead-pod: error: unknown command %q\n", os.Args[1])
		os.Exit(2)
	}
	if err := f(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "fairlead-pod: error:", err)
		os.Exit(1)
	}
}

// dap serves the session of its client's choice, or with --attach sessions of one process.
func dap(args []string) error {
	fs := flag.NewFlagSet("dap", flag.ExitOnError)
	pid := fs.Int("attach", 0, "the `process` that descriptor 3, a control socket, is about")
	fs.Parse(args)
	f := os.NewFile(3, "dap")
	if *pid == 0 {
		return delve.Serve(f)
	}
	return delve.Hold(f, *pid)
}

func run(args []string) error {
	fs := flag.NewFlagSet("run", flag.ExitOnError)
	opts := supervisor.Options{Version: version, Trees: map[string]string{}}
	fs.StringVar(&opts.Dir, "dir", "", "its own `folder`")
	socket := fs.String("socket", "", "`path` of the unix socket it answers on")
	tokenFile := fs.String("token-file", "", "`path` of the file that holds the environment's token")
	fs.BoolVar(&opts.SharesFiles, "shares-files", false, "the agent's files can be read here")
	fs.DurationVar(&opts.StopWhenAlone, "stop-when-alone", 0, "leave this long after the last agent; 0 never")
	echo := fs.Bool("echo", false, "write the service's output to stdout too")
	ready := fs.Bool("ready", false, "write a line to stdout once it answers")
	fs.Func("tree", "a synced folder, `NAME=/path`", func(v string) error {
		name, dir, ok := strings.Cut(v, "=")
		if !ok || name == "" || !filepath.IsAbs(dir) {
			return errors.New("want NAME=/absolute/path")
		}
		opts.Trees[name] = dir
		return nil
	})
	fs.Parse(args)
	if opts.Dir == "" || *socket == "" || *tokenFile == "" {
		return errors.New("run needs --dir, --socket and --token-file")
	}
	token, err := readToken(*tokenFile)
	if err != nil {
		return err
	}
	opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if *echo {
		opts.Echo = os.Stdout
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return fmt.Errorf("make the work folder: %w", err)
	}
	sup, err := supervisor.New(opts)
	if err != nil {
		return err
	}
	ln, err := listen(*socket)
	if err != nil {
		return err
	}
	// The end of the context is the supervisor's alone: signals go to it as a shutdown, so that the service is stopped
	// before the socket closes.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGTERM, syscall.SIGINT)
	pass := make(chan os.Signal, 4)
	signal.Notify(pass, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for {
			select {
			case <-sig:
				sup.Shutdown()
			case s := <-pass:
				sup.Signal(s.(syscall.Signal))
			case <-ctx.Done():
				return
			}
		}
	}()
	served := make(chan error, 1)
	go func() { served <- bridge.Serve(ctx, ln, token, sup) }()
	if *ready {
		fmt.Println("ready")
		os.Stdout.Close()
	}
	err = sup.Run(ctx)
	cancel()
	return errors.Join(err, <-served)
}

// listen makes the socket for its owner only. A socket file that a killed predecessor left is removed; a live one is
// somebody's.
func listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: another supervisor answers there", path)
	}
	os.Remove(path)
	old := syscall.Umask(0o177)
	ln, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return ln, nil
}

func readToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if len(t) < 32 {
		return "", fmt.Errorf("read the token: %s is too short to be one", path)
	}
	return t, nil
}

// install copies this executable to a path, whole or not at all.
func install(args []string) error {
	if len(args) != 1 {
		return errors.New("install needs one path")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find myself: %w", err)
	}
	src, err := os.Open(self)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	defer src.Close()
	if err := os.MkdirAll(filepath.Dir(args[0]), 0o755); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	dst, err := os.OpenFile(args[0]+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if err := dst.Close(); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return os.Rename(args[0]+".new", args[0])
}

// connect joins stdin and stdout to the supervisor's socket until either side ends.
func connect(args []string) error {
	fs := flag.NewFlagSet("connect", flag.ExitOnError)
	socket := fs.String("socket", "", "`path` of the supervisor's unix socket")
	tokenFile := fs.String("token-file", "", "write what this `path` holds first, in a line")
	fs.Parse(args)
	// Whoever may execute a command here may read it anyway; some images have nothing to read a file with.
	if *tokenFile != "" {
		token, err := readToken(*tokenFile)
		if err != nil {
			return err
		}
		os.Stdout.WriteString(token + "\n")
	}
	// The container's main process may be a moment behind the exec that starts this.
	var conn net.Conn
	var err error
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err = net.Dial("unix", *socket); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	done := make(chan struct{}, 2)
	go func() {
		io.Copy(conn, os.Stdin)
		conn.(*net.UnixConn).CloseWrite()
		done <- struct{}{}
	}()
	go func() {
		// Plain reads and writes: left to itself io.Copy splices, and to a pipe that blocks, as stdout does, that spins while
		// the other side is not as quick (nine of ten splices were for nothing, a quarter of a processor at 20 MB/s).
		io.CopyBuffer(struct{ io.Writer }{os.Stdout}, struct{ io.Reader }{conn}, make([]byte, 128<<10))
		done <- struct{}{}
	}()
	<-done
	return nil
}

func probe(args []string) error {
	fs := flag.NewFlagSet("probe", flag.ExitOnError)
	var p api.Probe
	socket := fs.String("socket", "", "`path` of the supervisor's unix socket")
	tokenFile := fs.String("token-file", "", "`path` of the file that holds the environment's token")
	fs.StringVar(&p.Kind, "kind", "readiness", "readiness, liveness or startup")
	fs.StringVar(&p.HTTP, "http", "", "`:PORT/PATH` to GET")
	fs.StringVar(&p.Scheme, "scheme", "http", "http or https")
	fs.StringVar(&p.Host, "host", "", "Host header")
	fs.StringVar(&p.TCP, "tcp", "", "`:PORT` to connect to")
	fs.StringVar(&p.GRPC, "grpc", "", "`:PORT[/SERVICE]` to ask for its health")
	fs.DurationVar(&p.Timeout, "timeout", time.Second, "at most this long")
	fs.Parse(args)
	p.Exec = fs.Args()
	token, err := readToken(*tokenFile)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.Timeout+5*time.Second)
	defer cancel()
	c := bridge.New(bridge.Options{Token: token, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", *socket)
	}})
	go c.Run(ctx)
	return c.Probe(ctx, p)
}
