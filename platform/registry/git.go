package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"

	"fairlead.dev/api"
)

// git runs the installed git on one bare repository. The library go-git was rejected: it knows none of the credential helpers,
// proxies, ssh configurations and certificates that make a user's git reach the team's server.
type git struct {
	dir    string // of the clone
	remote string
}

// kept are the variables of git's that reach it: how the user's git gets to servers. The others would lead it to other
// repositories, or trace what it sends.
var kept = []string{"GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_ASKPASS", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_CERT",
	"GIT_SSL_KEY", "GIT_PROXY_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"}

func environ(extra ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "GIT_") || slices.Contains(kept, name) {
			env = append(env, kv)
		}
	}
	// Nobody sits here to answer; ext:: and other helpers would run what a URL says; messages are read by us.
	env = append(env, "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=file:http:https:ssh", "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0")
	return append(env, extra...)
}

// settings go before the user's: no hook of a template's, no daemon, no background process, no signing key's passphrase.
var settings = []string{"-c", "core.hooksPath=" + os.DevNull, "-c", "core.fsmonitor=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
	"-c", "commit.gpgSign=false", "-c", "push.gpgSign=false", "-c", "push.followTags=false", "-c", "fetch.fsckObjects=true", "-c", "credential.interactive=false",
	"-c", "core.logAllRefUpdates=false", "-c", "fetch.writeCommitGraph=false"}

// failure is git's own words for why it failed.
type failure struct {
	args   []string
	stderr string
	err    error
}

func (f *failure) Error() string { return "git " + f.args[0] + ": " + words(f.stderr, f.err) }

// words makes one line of what git said: the last lines that say something.
func words(stderr string, err error) string {
	var lines []string
	for l := range strings.Lines(stderr) {
		l = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, l))
		if l != "" && !strings.HasPrefix(l, "hint:") {
			lines = append(lines, strings.TrimPrefix(strings.TrimPrefix(l, "fatal: "), "error: "))
		}
	}
	if len(lines) == 0 {
		return err.Error()
	}
	out := strings.Join(lines[max(0, len(lines)-4):], "; ")
	if len(out) > 600 {
		out = out[:600] + "..."
	}
	return out
}

// run runs git with an argument list, never by a shell.
func (g git) run(ctx context.Context, stdin []byte, env []string, args ...string) ([]byte, error) {
	full := append(slices.Clone(settings), args...)
	if g.dir != "" {
		full = append([]string{"--git-dir=" + g.dir}, full...)
	}
	cmd := exec.CommandContext(ctx, "git", full...)
	cmd.Env = environ(env...)
	cmd.Dir = os.TempDir() // not a repository of the caller's
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &limited{b: &stderr, most: 64 << 10}
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return stdout.Bytes(), &failure{args, stderr.String(), err}
	}
	return stdout.Bytes(), nil
}

// limited keeps a remote from filling memory with what it says on stderr.
type limited struct {
	b    *bytes.Buffer
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), max(0, l.most-l.b.Len()))])
	return len(p), nil
}

func (g git) line(ctx context.Context, stdin []byte, env []string, args ...string) (string, error) {
	out, err := g.run(ctx, stdin, env, args...)
	return strings.TrimSpace(string(out)), err
}

// networkLimit is how long the remote may take for one exchange, a first fetch included.
const networkLimit = 2 * time.Minute

// network runs git against the remote, and makes a problem of a remote that is away.
func (g git) network(ctx context.Context, args ...string) ([]byte, error) {
	within, cancel := context.WithTimeout(ctx, networkLimit)
	defer cancel()
	out, err := g.run(within, nil, nil, args...)
	if err != nil && ctx.Err() == nil {
		return out, g.away(err)
	}
	return out, err
}

func (g git) away(err error) *api.Problem {
	var f *failure
	p := &api.Problem{Code: "registry-away"}
	why, hint := "it did not answer within "+networkLimit.String(), "check the network, and that `git ls-remote "+g.remote+"` answers"
	if errors.As(err, &f) {
		why = words(f.stderr, f.err)
		switch low := strings.ToLower(f.stderr); {
		case strings.Contains(low, "could not read username"), strings.Contains(low, "authentication failed"), strings.Contains(low, "permission denied"), strings.Contains(low, "terminal prompts disabled"):
			p.Code, hint = "registry-login", "log in with git's own means, a credential helper or an ssh key, until `git ls-remote "+g.remote+"` answers without asking"
		case strings.Contains(low, "does not exist"), strings.Contains(low, "not found"), strings.Contains(low, "does not appear to be a git repository"):
			p.Code, hint = "registry-missing", "make the repository, or correct registry: in fairlead.yaml"
		case strings.Contains(low, "dubious ownership"):
			p.Code, hint = "registry-owner", "the folder is another user's: `git config --global --add safe.directory "+g.remote+"` trusts it"
		}
	}
	p.Message, p.Hint = "the registry "+g.remote+" cannot be reached: "+why, hint
	return p
}

func noGit(err error) *api.Problem {
	return &api.Problem{Code: "registry-git", Message: "the registry needs git: " + err.Error(), Hint: "install git 2.30 or newer"}
}

var (
	schemePattern = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9+.]*://`)
	scpPattern    = regexp.MustCompile(`^([-A-Za-z0-9_.]+@)?[A-Za-z0-9][-A-Za-z0-9.]*:[^\\:]`)
)

// CheckRemote says what is wrong with a remote, or nil: a URL (https, http, ssh, file), host:path of ssh, or an absolute path.
func CheckRemote(remote string) *api.Problem {
	problem := func(message, hint string) *api.Problem {
		return &api.Problem{Code: "registry-remote", Message: message, Hint: hint}
	}
	const form = "write https://git.example.com/team/registry.git, git@git.example.com:team/registry.git or an absolute path"
	switch {
	case strings.ContainsFunc(remote, unicode.IsControl) || strings.HasPrefix(remote, "-") || len(remote) > maxText:
		return problem("the registry's address is none", form)
	case filepath.IsAbs(remote):
		return nil
	case schemePattern.MatchString(remote):
		u, err := url.Parse(remote)
		switch {
		case err != nil:
			return problem("the registry's address cannot be read", form) // the parser's words repeat it, with what may be a password
		case !slices.Contains([]string{"https", "http", "ssh", "file"}, u.Scheme):
			return problem("the registry's address has the scheme "+u.Scheme+", which is not used", form)
		case strings.HasPrefix(u.Host, "-") || strings.HasPrefix(u.User.Username(), "-"):
			return problem("the registry's address is none", form)
		case u.User != nil && (u.Scheme != "ssh" || hasPassword(u)):
			return problem("the registry's address has credentials in it", "remove them, and give them to git by a credential helper (git help credentials)")
		}
		return nil
	case strings.Contains(remote, "::"), !scpPattern.MatchString(remote), runtime.GOOS == "windows" && len(remote) > 1 && remote[1] == ':':
		return problem(fmt.Sprintf("%q is not where a registry can be", short(remote)), form)
	}
	return nil
}

func hasPassword(u *url.URL) bool {
	_, has := u.User.Password()
	return has
}

// localDir is the folder of a remote on this machine, or "".
func localDir(remote string) string {
	if u, err := url.Parse(remote); err == nil && u.Scheme == "file" && (u.Host == "" || u.Host == "localhost") {
		return filepath.FromSlash(u.Path)
	}
	if filepath.IsAbs(remote) {
		return remote
	}
	return ""
}
