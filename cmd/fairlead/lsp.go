package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/server/client"
	"fairlead.dev/server/lsp"
	"fairlead.dev/server/review"
	"fairlead.dev/server/settings"
)

func newLSP(stderr io.Writer) *cobra.Command {
	var debug bool
	c := &cobra.Command{
		Use:   "lsp",
		Short: "Serve an editor by the Language Server Protocol, on stdin and stdout",
		Long: `Lsp is what editors start. It shows what the agent does above func main, as diagnostics and as progress,
and takes commands: fairlead.run, fairlead.stop, fairlead.open, fairlead.logs and others. docs/editors.md
says how to set up an editor.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := findFolders()
			if err != nil {
				return err
			}
			level := slog.LevelWarn
			if debug {
				level = slog.LevelDebug
			}
			memory := &review.Memory{}
			defer memory.Close()
			code := lsp.Serve(c.Context(), os.Stdin, os.Stdout, lsp.Options{
				Agent:   func(editor string) lsp.Agent { return newLSPAgent(f, editor) },
				Version: version, Environ: os.Environ(), StateDir: f.state,
				Reviews: lspReviews{f, memory},
				Logger:  slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
			})
			if code != 0 {
				return &saidError{errors.New("the editor left without saying so")}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&debug, "debug", false, "log more to stderr")
	c.Flags().Bool("stdio", true, "serve on stdin and stdout, which is the only way there is")
	c.Flags().MarkHidden("stdio") // some editors add it
	return c
}

func newSchema(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of fairlead.yaml, for editors that check YAML by one",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := stdout.Write(settings.Schema())
			return err
		},
	}
}

// lspAgent makes of the client what the language server needs: an attachment that never gives up.
type lspAgent struct {
	*client.Client
	again chan struct{} // the agent was told to end: the next attempt need not wait
}

func newLSPAgent(f folders, editor string) lsp.Agent {
	c, err := newAskingClient(f, editor)
	if err != nil {
		return noAgent{err}
	}
	return &lspAgent{Client: c, again: make(chan struct{}, 1)}
}

func (a *lspAgent) Attach(ctx context.Context, handle func(lsp.Update)) {
	const first, most = 500 * time.Millisecond, 10 * time.Second
	wait := first
	for ctx.Err() == nil {
		err := a.Client.Attach(ctx, func(u client.Update) {
			if u.Lost == nil {
				wait = first
			}
			handle(lsp.Update{Update: u.Update, Lost: u.Lost})
		})
		if ctx.Err() != nil {
			return
		}
		handle(lsp.Update{Lost: err})
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-a.again:
		case <-ctx.Done():
		}
		t.Stop()
		wait = min(2*wait, most)
	}
}

// Restart ends the agent, whatever it holds and of whatever version it is, and returns when it has gone. Attach starts
// the next.
func (a *lspAgent) Restart(ctx context.Context) error {
	before, err := a.Agent(ctx)
	if err == nil {
		err = a.Shutdown(ctx, true)
	}
	var p *api.Problem
	if errors.As(err, &p) && p.Code == client.CodeNoAgent {
		err = nil
	}
	if err != nil {
		return err
	}
	defer func() {
		select {
		case a.again <- struct{}{}:
		default:
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		now, err := a.Agent(ctx)
		if ctx.Err() != nil {
			return &api.Problem{Code: "agent-start", Message: "the agent does not end", Hint: "end the fairlead agent process by hand"}
		}
		if err != nil || now.PID != before.PID {
			return nil
		}
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// noAgent stands for an agent that cannot be reached at all, such as where others can enter its folder.
type noAgent struct{ err error }

func (a noAgent) Attach(ctx context.Context, handle func(lsp.Update)) {
	handle(lsp.Update{Lost: a.err})
	<-ctx.Done()
}
func (a noAgent) Run(context.Context, api.RunRequest) (api.RunAnswer, error) {
	return api.RunAnswer{}, a.err
}
func (a noAgent) Join(context.Context, api.JoinRequest) (api.RunAnswer, error) {
	return api.RunAnswer{}, a.err
}
func (a noAgent) Form(context.Context, string, api.FormRequest) (string, error) { return "", a.err }
func (a noAgent) SwitchDependency(context.Context, string, api.DependencyRequest) error {
	return a.err
}
func (a noAgent) Stop(context.Context, string) error           { return a.err }
func (a noAgent) Cancel(context.Context, string, string) error { return a.err }
func (a noAgent) Saved(context.Context, ...string) error       { return a.err }
func (a noAgent) Access(context.Context, string) (api.JournalAccess, error) {
	return api.JournalAccess{}, a.err
}
func (a noAgent) Journal(context.Context, string, uint64, bool, func(api.Entry) error) error {
	return a.err
}
func (a noAgent) DebugChoice(context.Context, string, api.DebugChoice) error { return a.err }
func (a noAgent) KeepUntil(context.Context, string, time.Time) error         { return a.err }
func (a noAgent) AnswerDue(context.Context, string, string) error            { return a.err }
func (a noAgent) Restart(context.Context) error                              { return a.err }
