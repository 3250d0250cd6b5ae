package forge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"fairlead.dev/api"
)

// The variables that say which forge it is and have its token. A token stands in a file or in the variable; the file goes before it. URLVariable
// says for which forge all of them are: a remote is written by whoever wrote the repository, and must not be enough to be sent a token.
const (
	TokenFileVariable = "FAIRLEAD_FORGE_TOKEN_FILE"
	TokenVariable     = "FAIRLEAD_FORGE_TOKEN"
	KindVariable      = "FAIRLEAD_FORGE"
	URLVariable       = "FAIRLEAD_FORGE_URL"
)

// Token is a credential with where it came from. Only the request to its forge has the value: printing one prints the source.
type Token struct {
	From  string // as "of gh auth token"; for people
	value string
}

// String says where the token came from.
func (t Token) String() string { return "token " + t.From }

// GoString is for %#v.
func (t Token) GoString() string { return t.String() }

// Target is the forge that a token is wanted for.
type Target struct {
	Kind   Kind
	Host   string // of its pages, with a port where it has one
	Remote string // the git remote, without a credential

	path, scheme string // http is to this machine only: Open sees to that
}

// Source looks for a token, and returns the zero Token where it has none for that forge.
type Source func(context.Context, Target) (Token, error)

// FromEnv is what the variables say: the options to open a remote with, their token included. The forge's own command's variables are not read.
func FromEnv(getenv func(string) string, address string) Options {
	if !meant(getenv, address) {
		return Options{}
	}
	return Options{Kind: Kind(strings.ToLower(getenv(KindVariable))), URL: getenv(URLVariable), Sources: []Source{func(context.Context, Target) (Token, error) { return ownToken(getenv) }}}
}

// User is who works on this machine: the environment of what they started, as os.Environ has it, and two folders.
type User struct {
	Env  []string
	Home string
	Dir  string // the repository's, whose git configuration may name a credential helper
}

// Options are FromEnv's, and then what the user has set up already: variables and configuration of gh, glab and tea, git's credential helpers.
// None of them asks anybody anything.
func (u User) Options(address string) Options {
	getenv := func(key string) string {
		for _, e := range slices.Backward(u.Env) {
			if v, ok := strings.CutPrefix(e, key+"="); ok {
				return v
			}
		}
		return ""
	}
	o := FromEnv(getenv, address)
	e := environment{getenv: getenv, home: u.Home, run: u.run}
	o.Sources = append(o.Sources, e.variables, e.configuration, e.helpers)
	return o
}

// meant says whether the variables are about the forge of a remote.
func meant(getenv func(string) string, address string) bool {
	u, err := url.Parse(getenv(URLVariable))
	if err != nil || u.Host == "" {
		return true // nothing is said, or Open says what is wrong with it
	}
	r, p := parseRemote(address)
	host := strings.ToLower(u.Hostname())
	_, pages := known(r.host) // ssh.github.com is github.com's
	return p == nil && (r.host == host || pages == "https://"+host)
}

// ownToken is the token of our own variables, or none where none is set.
func ownToken(getenv func(string) string) (Token, error) {
	t, err := readOwn(getenv)
	if t.value != "" && getenv(URLVariable) == "" {
		return Token{}, &api.Problem{Code: "forge-token", Message: "the token " + t.From + " does not say for which forge it is", Hint: "set " + URLVariable + " to the address of the forge's pages, as https://git.example.com"}
	}
	return t, err
}

func readOwn(getenv func(string) string) (Token, error) {
	name := getenv(TokenFileVariable)
	if name == "" {
		return newToken(getenv(TokenVariable), "of "+TokenVariable)
	}
	fail := func(err error) (Token, error) {
		return Token{}, &api.Problem{Code: "forge-token", Message: "read the forge's token: " + err.Error(), Hint: "correct " + TokenFileVariable}
	}
	f, err := os.Open(name)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return fail(err)
	}
	t, err := newToken(strings.TrimSpace(string(b)), "in "+name)
	if err == nil && t.value == "" {
		err = &api.Problem{Code: "forge-token", Message: name + " is empty", Hint: "write the forge's token into it"}
	}
	return t, err
}

// What RFC 9110 lets a credential have; a line's end in it would be a header of its own. The length is looked at beside it: {1,1000} takes
// 5 ms to compile, at every start.
var tokenPattern = regexp.MustCompile(`^[-A-Za-z0-9._~+/=]+$`)

const maxToken = 1000

func isToken(s string) bool { return len(s) <= maxToken && tokenPattern.MatchString(s) }

func newToken(value, from string) (Token, error) {
	if value == "" {
		return Token{}, nil
	}
	if !isToken(value) {
		return Token{}, &api.Problem{Code: "forge-token", Message: "the token " + from + " is none: it has characters that no token has", Hint: "make a new one in the forge's settings"}
	}
	return Token{From: from, value: value}, nil
}

func (c *client) noToken() *api.Problem {
	return &api.Problem{Code: "forge-no-token", Message: "there is no token for " + c.name, Hint: login(c.kind, c.host) + ", or write one into a file, name that in " + TokenFileVariable + " and set " + URLVariable + "=" + c.scheme + "://" + c.host + "; it needs " + scopes[c.kind]}
}

// login is how a user signs in.
func login(k Kind, host string) string {
	switch k {
	case GitHub:
		return "sign in with: gh auth login --hostname " + host
	case GitLab:
		return "sign in with: glab auth login --hostname " + host
	}
	return "sign in with: tea login add --url https://" + host
}

// renewal is the next step where a token is not taken.
func renewal(k Kind, t Token, host string) string {
	if strings.HasPrefix(t.From, "of git") {
		return "what git's credential helper has may be a password, which the API does not take: " + login(k, host)
	}
	if strings.HasPrefix(t.From, "in ") || strings.Contains(t.From, "_TOKEN") {
		return "put a new one there, with the rights " + scopes[k]
	}
	return login(k, host)
}

// environment is where a user's tokens are looked for.
type environment struct {
	getenv func(string) string
	home   string
	run    func(ctx context.Context, env []string, stdin, name string, args ...string) (string, error)
}

// variables are those that the forges' own commands document. Those that name no host belong to the public forge, or to the host that stands
// beside them: otherwise a repository somewhere else would be enough to be sent the token.
//
// gh: cli.github.com/manual/gh_help_environment. glab: docs.gitlab.com/cli/#environment-variables. tea: its login command and context.
func (e environment) variables(_ context.Context, t Target) (Token, error) {
	first := func(keys ...string) (Token, error) {
		for _, k := range keys {
			if v := strings.TrimSpace(e.getenv(k)); v != "" {
				return newToken(v, "of "+k)
			}
		}
		return Token{}, nil
	}
	names := func(keys ...string) bool {
		for _, k := range keys {
			v := e.getenv(k)
			if u, err := url.Parse(v); err == nil && u.Host != "" {
				v = u.Host
			}
			if v != "" && strings.EqualFold(v, t.Host) {
				return true
			}
		}
		return false
	}
	switch t.Kind {
	case GitHub:
		if t.Host == "github.com" || strings.HasSuffix(t.Host, ".ghe.com") {
			return first("GH_TOKEN", "GITHUB_TOKEN")
		}
		if names("GH_HOST") {
			return first("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
		}
	case GitLab:
		hosts := []string{"GITLAB_HOST", "GL_HOST", "GITLAB_URI"}
		unset := true
		for _, h := range hosts {
			unset = unset && e.getenv(h) == ""
		}
		if names(hosts...) || unset && t.Host == "gitlab.com" {
			return first("GITLAB_TOKEN", "GITLAB_ACCESS_TOKEN", "OAUTH_TOKEN")
		}
	case Gitea:
		if names("GITEA_INSTANCE_URL") {
			if t, err := first("GITEA_TOKEN"); t.value != "" || err != nil {
				return t, err
			}
		}
		if names("GITEA_SERVER_URL") {
			return first("GITEA_SERVER_TOKEN")
		}
	}
	return Token{}, nil
}

// configuration is what the forge's own command keeps: in its file, or in the system's keyring, where only the command itself gets it.
func (e environment) configuration(ctx context.Context, t Target) (Token, error) {
	xdg := e.getenv("XDG_CONFIG_HOME")
	if xdg == "" {
		xdg = filepath.Join(e.home, ".config")
	}
	switch t.Kind {
	case GitHub:
		dir := e.getenv("GH_CONFIG_DIR")
		switch {
		case dir != "":
		case e.getenv("XDG_CONFIG_HOME") != "" || runtime.GOOS != "windows" || e.getenv("AppData") == "":
			dir = filepath.Join(xdg, "gh")
		default:
			dir = filepath.Join(e.getenv("AppData"), "GitHub CLI")
		}
		name := filepath.Join(dir, "hosts.yml")
		var hosts map[string]struct {
			Token yaml.Node `yaml:"oauth_token"`
		}
		if there, err := readYAML(name, &hosts); err != nil || !there {
			return Token{}, err
		}
		h, ok := hosts[t.Host]
		if !ok {
			return Token{}, nil
		}
		if h.Token.Value != "" {
			return newToken(h.Token.Value, "in "+name)
		}
		return e.ask(ctx, "gh", "auth", "token", "--hostname", t.Host)
	case GitLab:
		names := e.places(xdg, filepath.Join("glab-cli", "config.yml"))
		if dir := e.getenv("GLAB_CONFIG_DIR"); dir != "" {
			names = []string{filepath.Join(dir, "config.yml")}
		}
		for _, name := range names {
			var c struct {
				Hosts map[string]struct {
					Token   yaml.Node `yaml:"token"`
					Keyring yaml.Node `yaml:"use_keyring"`
				}
			}
			if there, err := readYAML(name, &c); err != nil || !there {
				if err != nil {
					return Token{}, err
				}
				continue
			}
			h, ok := c.Hosts[t.Host]
			if !ok {
				continue
			}
			if h.Token.Value != "" { // glab writes it as `!!null glpat-...`, so it is not read as a string
				return newToken(h.Token.Value, "in "+name)
			}
			if h.Keyring.Value == "true" {
				return e.ask(ctx, "glab", "config", "get", "token", "--host", t.Host)
			}
		}
	case Gitea:
		for _, name := range append(e.places(xdg, filepath.Join("tea", "config.yml")), filepath.Join(e.home, ".tea", "tea.yml")) {
			var c struct {
				Logins []struct {
					URL     string
					Token   yaml.Node
					Default bool
				}
			}
			if there, err := readYAML(name, &c); err != nil || !there {
				if err != nil {
					return Token{}, err
				}
				continue
			}
			found := ""
			for _, l := range c.Logins {
				u, err := url.Parse(l.URL)
				if err == nil && strings.EqualFold(u.Host, t.Host) && l.Token.Value != "" && (found == "" || l.Default) {
					found = l.Token.Value
				}
			}
			if found != "" {
				return newToken(found, "in "+name)
			}
		}
	}
	return Token{}, nil
}

// places are where a command that follows the XDG folders of its system keeps a file.
func (e environment) places(xdg, name string) []string {
	at := []string{filepath.Join(xdg, name)}
	if runtime.GOOS == "darwin" {
		at = append(at, filepath.Join(e.home, "Library", "Application Support", name))
	}
	return at
}

// ask runs a forge's command for the token that it keeps in the keyring.
func (e environment) ask(ctx context.Context, name string, args ...string) (Token, error) {
	out, err := e.run(ctx, nil, "", name, args...)
	if err != nil {
		if ctx.Err() != nil {
			return Token{}, ctx.Err()
		}
		return Token{}, nil // it is not installed, not signed in, or its keyring is locked: others may have one
	}
	return newToken(strings.TrimSpace(out), "of "+name+" "+strings.Join(args[:2], " "))
}

// helpers asks git's credential helpers, as git-credential(1) documents, and sees that none of them asks the user.
func (e environment) helpers(ctx context.Context, t Target) (Token, error) {
	out, err := e.run(ctx, []string{"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "GCM_INTERACTIVE=never", "LC_ALL=C"},
		fmt.Sprintf("protocol=%s\nhost=%s\npath=%s.git\n\n", t.scheme, t.Host, t.path), "git", "-c", "credential.interactive=false", "credential", "fill")
	if err != nil {
		if ctx.Err() != nil {
			return Token{}, ctx.Err()
		}
		return Token{}, nil // no helper knows it
	}
	for l := range strings.Lines(out) {
		if v, ok := strings.CutPrefix(strings.TrimRight(l, "\r\n"), "password="); ok {
			if !isToken(v) {
				return Token{}, nil // a password with other characters than a token's
			}
			return newToken(v, "of git credential fill")
		}
	}
	return Token{}, nil
}

func (u User) run(ctx context.Context, env []string, stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = u.Dir, append(slices.Clone(u.Env), env...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Second // a helper's child may hold the pipe
	var out bytes.Buffer
	cmd.Stdout = &out // stderr is dropped: a helper may print what it has
	err := cmd.Run()
	return out.String(), err
}

// readYAML reads another command's file. That it is not there is no error; that it cannot be read is told, since its token would be missed.
func readYAML(name string, v any) (bool, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	problem := func(why string) error {
		return &api.Problem{Code: "forge-token", Message: "read " + name + ": " + why, Hint: "mend the file, or set " + TokenFileVariable}
	}
	if err != nil {
		return false, problem(withoutPath(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return false, problem(withoutPath(err))
	}
	if yaml.Unmarshal(b, v) != nil {
		return false, problem("it is not the YAML that its command writes") // the error may quote a token
	}
	return true, nil
}

func withoutPath(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
