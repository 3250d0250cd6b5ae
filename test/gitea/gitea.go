// Package gitea is a real Gitea for tests: Build makes its program once and keeps it, Start runs one with a database of its own.
package gitea

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Variable names the folder that Build made, for Start.
const Variable = "FAIRLEAD_TEST_GITEA"

const (
	moduleName = "code.gitea.io/gitea"
	tags       = "sqlite sqlite_unlock_notify"
	recipe     = "1" // whoever changes what Build does changes it
)

// source is the folder of the server's module, looked for from the current folder upwards.
func source() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		s := filepath.Join(dir, "test", "gitea", "server")
		if _, err := os.Stat(filepath.Join(s, "go.mod")); err == nil {
			return s, nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return "", fmt.Errorf("find test/gitea/server: not in this folder or above it: %w", err)
}

// folder is where the program of these sources is or belongs. Gitea refuses to be root, so root keeps it where another user may
// read it.
func folder(source string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s/%s %s\n", recipe, runtime.Version(), runtime.GOOS, runtime.GOARCH, tags)
	for _, f := range []string{"go.mod", "go.sum", "main.go"} {
		b, err := os.ReadFile(filepath.Join(source, f))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x\n", f, sha256.Sum256(b))
	}
	cache := "/var/cache"
	if os.Geteuid() != 0 {
		var err error
		if cache, err = os.UserCacheDir(); err != nil {
			return "", err
		}
	}
	return filepath.Join(cache, "fairlead-test", "gitea", hex.EncodeToString(h.Sum(nil))[:16]), nil
}

func whole(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "done"))
	return err == nil
}

// Build makes the program, if it is not there, and returns its folder. It takes some four minutes on two processors, once.
func Build(ctx context.Context) (string, error) {
	src, err := source()
	if err != nil {
		return "", err
	}
	dir, err := folder(src)
	if err != nil || whole(dir) {
		return dir, err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(parent, "tmp-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp) // after the rename there is nothing to remove
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = src, append(os.Environ(), "CGO_ENABLED=1", "GOWORK=off", "GOFLAGS=") // SQLite is C
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", args[0], err, tail(stderr.Bytes()))
		}
		return strings.TrimSpace(string(out)), nil
	}
	if _, err := run("build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-tags", tags, "-o", filepath.Join(temp, "gitea"), "."); err != nil {
		return "", err
	}
	module, err := run("list", "-mod=readonly", "-m", "-f", "{{.Dir}}", moduleName)
	if err != nil {
		return "", err
	}
	for _, sub := range []string{"templates", "options", "public"} {
		if err := os.CopyFS(filepath.Join(temp, "static", sub), os.DirFS(filepath.Join(module, sub))); err != nil {
			return "", err
		}
	}
	// The module cache is read-only, and copies are: folders have to be left to be removed, and all to be read.
	if out, err := exec.CommandContext(ctx, "chmod", "-R", "u+w,go+rX", temp).CombinedOutput(); err != nil {
		return "", fmt.Errorf("chmod: %w\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(temp, "done"), nil, 0o644); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil && !whole(dir) {
		return "", err
	}
	return dir, nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-4096):] }
