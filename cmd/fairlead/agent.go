package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/server"
	"fairlead.dev/server/client"
)

// agentVariable names the agent's socket, for whoever wants an agent of their own.
const agentVariable = "FAIRLEAD_AGENT"

// agentSocket is where the agent of this user and state folder is found.
func agentSocket(f folders) (string, error) {
	s := os.Getenv(agentVariable)
	if s == "" {
		return filepath.Join(f.run, "agent.sock"), nil
	}
	if !filepath.IsAbs(s) {
		return "", &usageError{fmt.Errorf("%s=%s is no absolute path", agentVariable, s)}
	}
	return s, nil
}

// newClient makes a front end's side of the agent. start says whether an agent is started where there is none.
func newClient(f folders, name string, start bool) (*client.Client, error) {
	return makeClient(f, client.Options{Name: name}, start)
}

// newAskingClient is that of a front end that can ask its user. It starts an agent where there is none.
func newAskingClient(f folders, name string) (*client.Client, error) {
	return makeClient(f, client.Options{Name: name, Asks: true}, true)
}

func makeClient(f folders, o client.Options, start bool) (*client.Client, error) {
	sock, err := agentSocket(f)
	if err != nil {
		return nil, err
	}
	if fi, err := os.Lstat(filepath.Dir(sock)); err == nil { // what is said there is believed
		if err := checkPrivate(filepath.Dir(sock), fi); err != nil {
			return nil, err
		}
	}
	o.Socket, o.Version = sock, version
	if start {
		o.Start = func(ctx context.Context) error { return startAgent(ctx, f) }
	}
	return client.New(o), nil
}

func newAgent(stdout, stderr io.Writer) *cobra.Command {
	var detached bool
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run the background process that front ends share",
		Long: `Agent is the process that builds, ships and follows saves for every front end of this user: terminals
(fairlead run) and editors. They start it in the background where there is none, and it leaves a minute
after the last of them. Run by hand it stays in the foreground and logs to stderr.

FAIRLEAD_AGENT names another socket than the usual one.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := runAgent(c.Context(), stdout, stderr, detached)
			if err != nil && detached {
				b, _ := json.Marshal(api.Problems(err, "agent")[0])
				fmt.Fprintf(stdout, "%s\n", b) // for the front end that waits
				return &saidError{err}
			}
			return err
		},
	}
	c.Flags().BoolVar(&detached, "detached", false, "started by a front end")
	c.Flags().MarkHidden("detached")
	c.AddCommand(newAgentStatus(stdout), newAgentStop(stdout))
	return c
}

// ready is what a detached agent says on its stdout when its socket answers; anything else is a Problem in JSON.
const ready = "ready"

// runAgent is the agent, from its socket to its end.
func runAgent(ctx context.Context, stdout, stderr io.Writer, detached bool) error {
	f, err := findFolders()
	if err != nil {
		return err
	}
	sock, err := agentSocket(f)
	if err != nil {
		return err
	}
	if err := privateFolder(filepath.Dir(sock)); err != nil {
		return err
	}
	logTo := stderr
	if detached {
		l, err := openLog(filepath.Join(f.state, agentLog))
		if err != nil {
			return err
		}
		defer l.Close()
		logTo = l
	}
	logger := slog.New(slog.NewTextHandler(logTo, nil))
	lock, err := lockAgent(ctx, sock)
	var runs *runsError
	if errors.As(err, &runs) && detached { // another front end was quicker
		fmt.Fprintln(stdout, ready)
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	os.Remove(sock) // of one that was killed: ours is the lock
	unix, err := net.Listen("unix", sock)
	if err != nil {
		return &api.Problem{Code: "agent-start", Message: "open the agent's socket: " + err.Error(), Hint: "set " + agentVariable + " to a shorter path in a folder of your own"}
	}
	os.Chmod(sock, 0o600)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { // front ends on the unix socket have journals all the same
		logger.Warn("no journals by TCP", "err", err)
		tcp = nil
	}
	debug := strings.TrimSuffix(sock, ".sock") + ".dap.sock"
	dapLn, err := listenPrivate(debug)
	if err != nil { // fairlead dap does without
		logger.Warn("no debug adapter on a socket", "err", err)
		debug = ""
	}
	if detached {
		fmt.Fprintln(stdout, ready)
		closeStdout()
	}
	if dapLn != nil {
		dctx, cancel := context.WithCancel(ctx)
		served := make(chan error, 1)
		go func() { served <- acceptDAP(dctx, onlyUser{dapLn}, f, logger) }()
		defer func() { cancel(); <-served }()
	}
	fctx, endForms := context.WithCancel(context.WithoutCancel(ctx)) // a session that is being ended still has its registry
	fs := newForms(fctx, f, logger)
	defer fs.wait()
	defer endForms()
	a := server.NewAgent(server.AgentConfig{Version: version, DAP: debug, Idle: testDuration("FAIRLEAD_TEST_IDLE"), Grace: testDuration("FAIRLEAD_TEST_GRACE"), Logger: logger,
		Others: &others{f: f}, DueFile: filepath.Join(f.state, "due.json"),
		Prepare: func(ctx context.Context, r api.RunRequest) (server.Plan, error) { return prepare(ctx, f, fs, r) },
		Join:    func(ctx context.Context, r api.JoinRequest) (server.Plan, error) { return join(ctx, f, r) }})
	fs.a = a
	return a.Run(ctx, onlyUser{unix}, tcp)
}

// testDuration lets the end-to-end tests wait for less than a minute.
func testDuration(name string) time.Duration {
	d, _ := time.ParseDuration(os.Getenv(name))
	return d
}

// closeStdout lets go of the pipe to the front end, with the null device in its place.
func closeStdout() {
	os.Stdout.Close()
	if n, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		os.Stdout = n
	}
}

// onlyUser refuses connections of other users: the folder is private, and this is the second lock.
type onlyUser struct{ net.Listener }

func (l onlyUser) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || samePeer(c) {
			return c, err
		}
		c.Close()
	}
}

// runsError says that there is an agent already.
type runsError struct{ a api.Agent }

func (e *runsError) Error() string { return fmt.Sprintf("an agent runs already (pid %d)", e.a.PID) }

// lockLimit is how long an agent that is just leaving may take: its environments are removed.
const lockLimit = 90 * time.Second

// lockAgent takes the lock that every agent of this socket holds while it lives; the kernel lets go of it for one that is
// killed. It waits for one that is leaving, and returns a runsError for one that answers.
func lockAgent(ctx context.Context, sock string) (*os.File, error) {
	file, err := os.OpenFile(sock+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &api.Problem{Code: "agent-start", Message: "open the agent's lock: " + err.Error(), Hint: "make " + filepath.Dir(sock) + " a folder of your own"}
	}
	c := client.New(client.Options{Socket: sock})
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	for {
		err := tryLock(file)
		if err == nil {
			return file, nil
		}
		if a, aerr := c.Agent(ctx); aerr == nil {
			file.Close()
			return nil, &runsError{a}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			file.Close()
			return nil, &api.Problem{Code: "agent-start", Message: "an agent that does not answer holds " + file.Name() + ": " + err.Error(), Hint: "end the fairlead agent process that hangs"}
		}
	}
}

// privateFolder makes a folder that nobody else can enter, or makes sure that one is.
func privateFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &api.Problem{Code: "unsafe-folder", Message: "make the socket's folder: " + err.Error(), Hint: "set XDG_RUNTIME_DIR to a folder of your own"}
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	return checkPrivate(dir, fi)
}

func checkPrivate(dir string, fi os.FileInfo) error {
	if !fi.IsDir() || !private(fi) {
		return &api.Problem{Code: "unsafe-folder", Message: "others can enter " + dir, Hint: "remove it, or set XDG_RUNTIME_DIR to a folder of your own"}
	}
	return nil
}

func newAgentStatus(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say whether the agent runs, and what it holds",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := findFolders()
			if err != nil {
				return err
			}
			cl, err := newClient(f, "fairlead agent status", false)
			if err != nil {
				return err
			}
			a, err := cl.Agent(c.Context())
			if err != nil {
				return err
			}
			all, err := cl.Services(c.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(stdout, "agent %s, pid %d, since %s\n", a.Version, a.PID, a.Started.Format(time.DateTime))
			if a.DAP != "" {
				fmt.Fprintf(stdout, "debug adapter on unix:%s\n", a.DAP)
			}
			for _, s := range all {
				fmt.Fprintf(stdout, "%s  %s  generation %d  held by %v\n", s.Name, s.Phase, s.Generation, s.Clients)
			}
			return nil
		},
	}
}

func newAgentStop(stdout io.Writer) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "stop",
		Short: "End the agent",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := findFolders()
			if err != nil {
				return err
			}
			cl, err := newClient(f, "fairlead agent stop", false)
			if err != nil {
				return err
			}
			a, err := cl.Agent(c.Context())
			var p *api.Problem
			if errors.As(err, &p) && p.Code == client.CodeNoAgent {
				fmt.Fprintln(stdout, "no agent runs")
				return nil
			}
			if err == nil {
				err = cl.Shutdown(c.Context(), force)
			}
			if err != nil {
				return err
			}
			end := time.Now().Add(lockLimit)
			for alive(a.PID) && time.Now().Before(end) {
				select {
				case <-time.After(10 * time.Millisecond):
				case <-c.Context().Done():
					return c.Context().Err()
				}
			}
			_, err = fmt.Fprintf(stdout, "the agent (pid %d) has ended\n", a.PID)
			return err
		},
	}
	c.Flags().BoolVar(&force, "force", false, "end what it holds too")
	return c
}
