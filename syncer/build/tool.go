package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
)

// Config says how the go command is run. Finding, listing and building use the same one, so that they agree about
// which files count.
type Config struct {
	// Go is the path of the go command; empty looks for it, on the PATH first.
	Go string
	// Target is what the executable must run on. An empty OS is linux (this machine's for a Native build), an empty
	// Arch is this machine's.
	Target api.Target
	// Native says that the executable runs on this machine itself, so that a C library linked here is there too.
	Native bool
	// Flags are flags of `go build`, each as one element ("-race", "-ldflags=-X main.version=dev"), added to GOFLAGS.
	Flags []string
	// Tags are build tags, added to those of GOFLAGS and Flags.
	Tags []string
	// Environ is the environment of the go command, as KEY=VALUE; nil is this process's. Env is added to it.
	Environ []string
	Env     []string
}

// environ returns the environment that the configuration begins with.
func (c Config) environ() []string {
	if c.Environ == nil {
		return os.Environ()
	}
	return c.Environ
}

// getenv looks a variable up in it; of several the last counts, as for a process.
func (c Config) getenv(name string) string {
	if c.Environ == nil {
		return os.Getenv(name)
	}
	for _, kv := range slices.Backward(c.Environ) {
		k, v, _ := strings.Cut(kv, "=")
		if k == name || runtime.GOOS == "windows" && strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// goEnv is the part of `go env` that decides something here.
type goEnv struct {
	GOENV, GOFLAGS, GOHOSTARCH, GOHOSTOS, GOMOD, GOMODCACHE, GOROOT, GOVERSION, GOWORK string
}

// tool is the go command as one configuration runs it. It is immutable.
type tool struct {
	path   string
	cfg    Config
	vars   goEnv // as seen from the folder that it was made for
	flags  flags
	env    []string
	cgoOff bool // CGO_ENABLED=0 was our choice, not the user's
}

// newTool finds the go command and asks it for its settings in dir.
func newTool(ctx context.Context, dir string, cfg Config) (*tool, error) {
	path, err := findGo(cfg)
	if err != nil {
		return nil, err
	}
	t := &tool{path: path, cfg: cfg, env: slices.Concat(cfg.environ(), cfg.Env)}
	// GOOS and GOARCH are asked for by no name here: what a user has set for them speaks of other builds.
	out, err := t.output(ctx, dir, "env", "-json", "GOENV", "GOFLAGS", "GOHOSTARCH", "GOHOSTOS", "GOMOD", "GOMODCACHE", "GOROOT", "GOVERSION", "GOWORK")
	if err != nil {
		return nil, fmt.Errorf("read go env: %w", err)
	}
	if err := json.Unmarshal(out, &t.vars); err != nil {
		return nil, fmt.Errorf("read go env: %w", err)
	}
	if t.cfg.Target.OS == "" {
		t.cfg.Target.OS = "linux"
		if cfg.Native {
			t.cfg.Target.OS = t.vars.GOHOSTOS
		}
	}
	if t.cfg.Target.Arch == "" {
		t.cfg.Target.Arch = t.vars.GOHOSTARCH
	}
	if t.flags, err = parseFlags(t.vars.GOFLAGS, cfg.Flags, cfg.Tags); err != nil {
		return nil, err
	}
	t.env = append(t.env, "GOOS="+t.cfg.Target.OS, "GOARCH="+t.cfg.Target.Arch, "GOFLAGS="+t.flags.goflags)
	if !(cfg.Native && t.host()) && !t.cgoChosen() {
		// The image may have another C library than this machine, or none.
		t.cgoOff = true
		t.env = append(t.env, "CGO_ENABLED=0")
	}
	return t, nil
}

// host says whether the target is this machine's own system.
func (t *tool) host() bool {
	return t.cfg.Target.OS == t.vars.GOHOSTOS && t.cfg.Target.Arch == t.vars.GOHOSTARCH
}

// cgoChosen says whether the user has set CGO_ENABLED, in the environment, the configuration or with `go env -w`.
func (t *tool) cgoChosen() bool {
	for _, kv := range t.env {
		if v, ok := strings.CutPrefix(kv, "CGO_ENABLED="); ok && v != "" {
			return true
		}
	}
	if t.vars.GOENV == "" || t.vars.GOENV == "off" {
		return false
	}
	b, err := os.ReadFile(t.vars.GOENV)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "CGO_ENABLED=") {
			return true
		}
	}
	return false
}

// findGo finds the go command. An editor that was started from a desktop often has a PATH without it, so the places
// where its installers put it are tried after the PATH.
func findGo(cfg Config) (string, error) {
	if cfg.Go != "" {
		if _, err := os.Stat(cfg.Go); err != nil {
			return "", noToolchain("no go command at " + cfg.Go)
		}
		return cfg.Go, nil
	}
	if cfg.Environ == nil {
		if p, err := exec.LookPath("go"); err == nil {
			return filepath.Abs(p)
		}
	}
	for _, dir := range filepath.SplitList(cfg.getenv("PATH")) {
		if cfg.Environ == nil || !filepath.IsAbs(dir) { // relative to whose folder?
			continue
		}
		if p, err := exec.LookPath(filepath.Join(dir, "go")); err == nil {
			return p, nil
		}
	}
	name := "go"
	if runtime.GOOS == "windows" {
		name = "go.exe"
	}
	for _, root := range []string{cfg.getenv("GOROOT"), "/usr/local/go", "/usr/lib/go", "/opt/homebrew/opt/go/libexec", `C:\Program Files\Go`} {
		if root == "" || !filepath.IsAbs(root) {
			continue
		}
		p := filepath.Join(root, "bin", name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", noToolchain("no go command on the PATH")
}

func noToolchain(message string) *api.Problem {
	return &api.Problem{
		Code: "no-toolchain", Severity: api.SeverityError, Message: message,
		Hint: "install Go from https://go.dev/dl and put its bin folder on the PATH",
	}
}

// exitError is a go command that ended with another exit code than 0.
type exitError struct {
	args   []string
	output string // standard error, and what a build wrote to standard output
	err    error
}

func (e *exitError) Error() string {
	return "go " + strings.Join(e.args[:min(len(e.args), 2)], " ") + ": " + e.err.Error()
}
func (e *exitError) Unwrap() error { return e.err }

// output runs the go command in dir and returns its standard output.
func (t *tool) output(ctx context.Context, dir string, args ...string) ([]byte, error) {
	var stdout bytes.Buffer
	err := t.run(ctx, dir, nil, &stdout, args...)
	return stdout.Bytes(), err
}

// run runs the go command in dir. With a nil stdout both streams go into the error. Cancelling ctx kills the go command
// with all the compilers that it started, and the error is then ctx's.
func (t *tool) run(ctx context.Context, dir string, env []string, stdout *bytes.Buffer, args ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var both capped
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.Dir = dir
	// The go command reports folders below PWD as PWD spells them.
	cmd.Env = slices.Concat(t.env, env, []string{"PWD=" + dir})
	cmd.Stdout, cmd.Stderr = &both, &both
	if stdout != nil {
		cmd.Stdout = stdout
	}
	// Whoever holds the pipes open after the kill (nobody should) is not waited for.
	cmd.WaitDelay = 2 * time.Second
	err := runGroup(cmd)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		if _, serr := os.Stat(dir); serr != nil {
			return fmt.Errorf("run go in %s: %w", dir, serr)
		}
		return noToolchain("no go command at " + t.path)
	}
	return &exitError{args: args, output: both.String(), err: err}
}

// capped keeps the first megabyte written to it: more than a thousand errors help nobody.
type capped struct{ buf bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	c.buf.Write(p[:min(len(p), max(0, 1<<20-c.buf.Len()))])
	return len(p), nil
}

func (c *capped) String() string { return c.buf.String() }
