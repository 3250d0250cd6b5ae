package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/server"
	"fairlead.dev/server/client"
)

// lookLimit bounds how long status waits for a pod's answer.
const lookLimit = 5 * time.Second

// withPod connects to an environment without attaching and calls f; the connection ends with it.
func withPod(ctx context.Context, f folders, rec server.Record, use func(ctx context.Context, c *bridge.Conn) error) error {
	env, err := openRecorded(ctx, f, rec)
	if err != nil {
		return err
	}
	defer env.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	token := rec.Token
	if rec.Joined {
		token = "" // another's, which each stream brings along
	}
	conn := bridge.New(bridge.Options{Dial: env.Dial, Token: token, OnState: func(up bool, err error) {
		var p *api.Problem
		if !up && errors.As(err, &p) {
			cancel(err) // a problem that somebody must do something about; a mere loss is tried again
		}
	}})
	done := make(chan struct{})
	go func() { defer close(done); conn.Run(ctx) }()
	err = use(ctx, conn)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	<-done
	return err
}

// statusLine is one environment in `fairlead status --json`.
type statusLine struct {
	api.Environment
	Dir    string      `json:"dir"`
	URL    string      `json:"url,omitempty"`
	Agent  string      `json:"agent,omitempty"` // who follows the saves now
	Since  time.Time   `json:"since"`
	Pod    *api.Status `json:"status,omitempty"`
	Reason string      `json:"reason,omitempty"` // why the pod did not answer
}

func newStatus(stdout io.Writer) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "List the environments of this machine and what they run",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := findFolders()
			if err != nil {
				return err
			}
			lines := []statusLine{}
			for _, rec := range f.records().All() {
				l := statusLine{Environment: rec.Environment, Dir: rec.Dir, URL: rec.URL, Agent: rec.Agent, Since: rec.Since}
				ctx, cancel := context.WithTimeout(c.Context(), lookLimit)
				err := withPod(ctx, f, rec, func(ctx context.Context, conn *bridge.Conn) error {
					st, err := conn.Status(ctx)
					if err == nil {
						l.Pod = &st
					}
					return err
				})
				cancel()
				if err != nil {
					l.Reason = err.Error()
				}
				lines = append(lines, l)
			}
			if asJSON {
				for _, l := range lines {
					if err := json.NewEncoder(stdout).Encode(l); err != nil {
						return err
					}
				}
				return nil
			}
			return printStatus(stdout, lines)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object an environment and line")
	return c
}

func printStatus(w io.Writer, lines []statusLine) error {
	if len(lines) == 0 {
		_, err := fmt.Fprintln(w, "no environments; fairlead run, in a service's folder, makes one")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "ENVIRONMENT\tWHERE\tSTATE\tGENERATION\tDIGEST\tURL\tAGENT")
	for _, l := range lines {
		where := l.Provider
		if l.Namespace != "" {
			where += "/" + l.Namespace
		}
		state, gen, digest, agent := "unreachable: "+clean(l.Reason), "-", "-", "none"
		if l.Pod != nil {
			state, gen = string(l.Pod.State), fmt.Sprint(l.Pod.Generation)
			if d := string(l.Pod.Digest); len(d) > 19 {
				digest = d[7:19]
			}
			if l.Pod.Holder != "" {
				agent = l.Pod.Holder
			}
		}
		url := l.URL
		if url == "" {
			url = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, where, state, gen, digest, url, agent)
	}
	return t.Flush()
}

func newLogs(stdout, stderr io.Writer) *cobra.Command {
	var follow, asJSON bool
	var since time.Duration
	c := &cobra.Command{
		Use:   "logs [ENVIRONMENT]",
		Short: "Print what the service writes",
		RunE: func(c *cobra.Command, args []string) error {
			f, rec, err := pickArg(args)
			if err != nil {
				return err
			}
			var show renderer = &textRenderer{out: stdout, err: stderr, color: isTerminal(stderr)}
			if asJSON {
				show = newJSONRenderer(stdout)
			}
			var from time.Time
			if since > 0 {
				from = time.Now().Add(-since)
			}
			err = withPod(c.Context(), f, rec, func(ctx context.Context, conn *bridge.Conn) error {
				return readLogs(ctx, conn, show, from, follow)
			})
			if c.Context().Err() != nil {
				return nil // interrupted: what following ends with
			}
			return err
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines until interrupted")
	c.Flags().DurationVar(&since, "since", 0, "only lines younger than this, such as 5m")
	c.Flags().BoolVar(&asJSON, "json", false, "log events as JSON, one a line")
	return c
}

// errCaughtUp ends the reading of what is there.
var errCaughtUp = errors.New("caught up")

func readLogs(ctx context.Context, conn *bridge.Conn, show renderer, from time.Time, follow bool) error {
	var epoch string
	var after uint64
	for {
		st, err := conn.Status(ctx)
		if err != nil {
			return err
		}
		if epoch != st.Epoch {
			epoch, after = st.Epoch, 0
		}
		if !follow && after >= st.Seq {
			return nil
		}
		err = conn.Events(ctx, epoch, after, func(e api.Event) error {
			after = e.Head().Seq
			if l, ok := e.(*api.LogEvent); ok && !l.Time.Before(from) {
				show.show(l)
			}
			if !follow && after >= st.Seq {
				return errCaughtUp
			}
			return nil
		})
		var p *api.Problem
		switch {
		case errors.Is(err, errCaughtUp):
			return nil
		case errors.As(err, &p) && p.Code == api.CodeLost && follow:
			continue
		default:
			return err
		}
	}
}

// pickArg finds the environment that a command's only argument names.
func pickArg(args []string) (folders, server.Record, error) {
	if len(args) > 1 {
		return folders{}, server.Record{}, &usageError{fmt.Errorf("unexpected argument %q", args[1])}
	}
	f, err := findFolders()
	if err != nil {
		return f, server.Record{}, err
	}
	dir, err := workingDir()
	if err != nil {
		return f, server.Record{}, err
	}
	name := ""
	if len(args) == 1 {
		name = args[0]
	}
	rec, err := pick(f.records().All(), name, dir)
	return f, rec, err
}

func newOpen(stdout io.Writer) *cobra.Command {
	var print bool
	c := &cobra.Command{
		Use:   "open [ENVIRONMENT]",
		Short: "Open the service's local address in the browser",
		RunE: func(c *cobra.Command, args []string) error {
			_, rec, err := pickArg(args)
			if err != nil {
				return err
			}
			if rec.URL == "" || !alive(rec.PID) {
				return &api.Problem{Code: "no-url", Message: fmt.Sprintf("no agent serves %s here now", rec.Environment.Name), Hint: "start one with fairlead run"}
			}
			fmt.Fprintln(stdout, rec.URL)
			if print {
				return nil
			}
			return openBrowser(rec.URL)
		},
	}
	c.Flags().BoolVar(&print, "print", false, "only print the address")
	return c
}

func openBrowser(url string) error {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		return &api.Problem{Code: "no-browser", Message: "open the browser: " + err.Error(), Hint: "open the address above yourself"}
	}
	return cmd.Process.Release()
}

func newStop(stdout, stderr io.Writer) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "stop [ENVIRONMENT]",
		Short: "Stop an environment and remove all it made",
		RunE: func(c *cobra.Command, args []string) error {
			if !all {
				f, rec, err := pickArg(args)
				if err != nil {
					return err
				}
				return stopOne(c.Context(), stdout, f, rec)
			}
			f, err := findFolders()
			if err != nil {
				return err
			}
			failed := 0
			for _, rec := range f.records().All() {
				if err := stopOne(c.Context(), stdout, f, rec); err != nil {
					printError(stderr, err)
					failed++
				}
			}
			if failed > 0 {
				return &saidError{fmt.Errorf("%d environments were not stopped", failed)}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every environment of this machine")
	return c
}

func stopOne(ctx context.Context, stdout io.Writer, f folders, rec server.Record) error {
	if done, err := stopByAgent(ctx, f, rec.Environment.Name); err != nil {
		return err
	} else if done {
		_, err = fmt.Fprintf(stdout, "%s %s\n", stopped(rec), rec.Environment.Name)
		return err
	}
	if rec.Joined { // nobody follows it any more, and it is not ours to end
		if err := f.records().Remove(rec.Environment.Name); err != nil {
			return fmt.Errorf("forget %s: %w", rec.Environment.Name, err)
		}
		_, err := fmt.Fprintf(stdout, "%s %s\n", stopped(rec), rec.Environment.Name)
		return err
	}
	env, err := openRecorded(ctx, f, rec)
	if err != nil {
		return err
	}
	defer env.Close()
	if err := env.Delete(ctx); err != nil {
		return err
	}
	if err := f.records().Remove(rec.Environment.Name); err != nil {
		return fmt.Errorf("forget %s: %w", rec.Environment.Name, err)
	}
	_, err = fmt.Fprintf(stdout, "stopped %s\n", rec.Environment.Name)
	return err
}

// stopped is what stop has done to an environment.
func stopped(rec server.Record) string {
	if rec.Joined {
		return "left"
	}
	return "stopped"
}

// stopByAgent stops an environment that the agent of this machine holds; false says that it does not.
func stopByAgent(ctx context.Context, f folders, name string) (bool, error) {
	c, err := newClient(f, "fairlead stop", false)
	if err != nil {
		return false, err
	}
	err = c.StopAndWait(ctx, name)
	var p *api.Problem
	if errors.As(err, &p) && (p.Code == client.CodeNoAgent || p.Code == server.CodeNoService) {
		return false, nil
	}
	if errors.As(err, &p) && p.Code == api.CodeHeld || errors.As(err, &p) && p.Code == api.CodeTakenOver {
		return false, nil // it was about to end, as another agent has the environment
	}
	return true, err
}

// alive says whether a process runs.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil || pid <= 0 {
		return false
	}
	defer p.Release()
	return processAlive(p)
}
