package reviewer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
)

// kept are the variables of git's that say how the user's git is set up. The others would lead it to another repository, or
// trace what it does.
var kept = []string{"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"}

func environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "GIT_") || slices.Contains(kept, name) {
			env = append(env, kv)
		}
	}
	// Reading needs no lock, no question, and nothing from a server (git 2.45 and newer obey the last).
	return append(env, "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_NO_LAZY_FETCH=1", "LC_ALL=C")
}

// git runs the installed git in the repository that dir is in, a bare one included.
type git struct{ dir string }

// failure is git's own words for why it failed.
type failure struct {
	verb   string
	stderr string
	err    error
}

func (f *failure) Error() string {
	said := strings.TrimSpace(strings.ToValidUTF8(f.stderr, "?"))
	if line := strings.LastIndexByte(said, '\n'); line >= 0 {
		said = said[line+1:]
	}
	if said == "" {
		said = f.err.Error()
	}
	return "git " + f.verb + ": " + strings.TrimPrefix(said, "fatal: ")
}

func (f *failure) Unwrap() error { return f.err }

// run gives git's stdout to read, if that is not nil, and returns what read does. git is ended when read gives up.
func (g git) run(ctx context.Context, stdin io.Reader, read func(io.Reader) error, args ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.fsmonitor=false", "-C", g.dir}, args...)...)
	cmd.Env, cmd.Stdin, cmd.WaitDelay = environ(), stdin, 5*time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := read(stdout)
	if readErr != nil {
		cancel()
	}
	if err := cmd.Wait(); readErr == nil && err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &failure{args[0], stderr.String(), err}
	}
	return readErr
}

func (g git) output(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	var out []byte
	err := g.run(ctx, stdin, func(r io.Reader) (err error) {
		out, err = io.ReadAll(r)
		return err
	}, args...)
	return out, err
}

func (g git) lines(ctx context.Context, stdin io.Reader, args ...string) ([]string, error) {
	out, err := g.output(ctx, stdin, args...)
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"), err
}

// unreadable makes a problem of a history that git does not give.
func (g git) unreadable(rev string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	p := &api.Problem{Code: "history-unreadable", Message: "the history of " + g.dir + " cannot be read: " + err.Error(),
		Hint: "see what `git -C " + g.dir + " log " + rev + "` says"}
	var f *failure
	low := ""
	if errors.As(err, &f) {
		low = f.stderr
	}
	switch {
	case errors.Is(err, exec.ErrNotFound):
		p.Code, p.Message, p.Hint = "history-git", "reviewers are suggested from git's history, and git is not there: "+err.Error(), "install git 2.31 or newer"
	case strings.Contains(low, "not a git repository"), strings.Contains(low, "cannot change to"):
		p.Code, p.Message, p.Hint = "history-missing", g.dir+" is in no git repository", "make it one with `git init`, or name another folder"
	case strings.Contains(low, "dubious ownership"):
		p.Code, p.Hint = "history-owner", "the folder is another user's: `git config --global --add safe.directory "+g.dir+"` trusts it"
	case strings.Contains(low, "Needed a single revision"), strings.Contains(low, "unknown revision"), strings.Contains(low, "ambiguous argument"):
		p.Code, p.Message, p.Hint = "history-revision", "there is no commit "+rev+" in "+g.dir, "`git fetch` brings what is new on the server; a repository without commits has no history to judge from"
	}
	return p
}
