package review

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"fairlead.dev/api"
)

// git runs the installed git in a work tree, as its user would: with their configuration, hooks, signing and credential helpers.
type git struct {
	dir string
	env []string
	// alone: there is no terminal on which ssh, gpg or a hook could ask anything.
	alone bool
}

// failure is a git command that failed.
type failure struct {
	verb   string
	output string // stdout and stderr of what speaks to people, else stderr
	err    error
}

func (f *failure) Error() string {
	said := strings.TrimSpace(strings.ToValidUTF8(f.output, "?"))
	if i := strings.LastIndexByte(said, '\n'); i >= 0 {
		said = said[i+1:]
	}
	if said == "" {
		said = f.err.Error()
	}
	return "git " + f.verb + ": " + strings.TrimPrefix(strings.TrimPrefix(said, "fatal: "), "error: ")
}

func (f *failure) Unwrap() error { return f.err }

func (g git) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.dir
	// In English, since what a push says is read; never a question on a terminal that nobody sees.
	cmd.Env = append(append([]string{}, g.env...), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_EDITOR=true")
	cmd.Cancel = func() error { return stop(cmd) }
	cmd.WaitDelay = 10 * time.Second
	if g.alone {
		detach(cmd)
	}
	return cmd
}

// read is the output of a command that changes nothing.
func (g git) read(ctx context.Context, args ...string) (string, error) {
	cmd := g.command(ctx, args...)
	cmd.Env = append(cmd.Env, "GIT_OPTIONAL_LOCKS=0")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := g.result(ctx, cmd, args[0], &errs)
	return out.String(), err
}

// line is the one line that a command says; without an error it may be empty.
func (g git) line(ctx context.Context, args ...string) (string, error) {
	s, err := g.read(ctx, args...)
	return strings.TrimSuffix(s, "\n"), err
}

// change runs a command that changes something, and returns all that it and its hooks say.
func (g git) change(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := g.command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &out
	err := g.result(ctx, cmd, args[0], &out)
	return out.String(), err
}

func (g git) result(ctx context.Context, cmd *exec.Cmd, verb string, errs *bytes.Buffer) error {
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return &api.Problem{Code: "no-git", Message: "git is not there: " + err.Error(), Hint: "install git 2.31 or newer"}
	}
	return &failure{verb, errs.String(), err}
}

// yes says whether a command that answers by its exit code says yes.
func (g git) yes(ctx context.Context, args ...string) bool {
	_, err := g.read(ctx, args...)
	return err == nil
}

// gitProblem is what a person is told of a git command that failed, with what they can do.
func gitProblem(act string, err error, hint string) error {
	var p *api.Problem
	if errors.As(err, &p) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &api.Problem{Code: "review-git", Message: fmt.Sprintf("%s: %s", act, err), Hint: hint}
}
