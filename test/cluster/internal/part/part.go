// Package part builds the programs of the test cluster and keeps them in a
// cache outside the checkout.
//
// A cache entry is named by a hash of everything that decides its content:
// go.mod, go.sum, the sources, the Go release, the target and the flags. It is
// written beside its place and renamed, and its files are compared with the
// digests recorded at build time each time they are used, so that neither a
// build cut short nor a damaged disk can give the tests a wrong binary.
//
// The package knows nothing of what the programs do.
package part

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"fairlead.dev/test/cluster/internal/lock"
)

// digestFile holds, within an entry, one "sha256  name" line per binary: the
// format of sha256sum, so that a person can check an entry without this code.
const digestFile = "sha256sums"

// unusedAfter is the age at which an entry that nobody used is removed. Each
// upgrade of a part leaves an old entry of up to 150 MB behind; a month keeps
// those of branches that people switch between.
const unusedAfter = 30 * 24 * time.Hour

// ErrNoSource says that the module of the test cluster was not found, so that
// nothing can be built or even looked up.
var ErrNoSource = errors.New("find the sources of the test cluster: not in this directory or above it")

// Part is a set of programs built together from one module.
type Part struct {
	Name string
	// Dir is the folder of the module, relative to the root of the sources.
	Dir string
	// Packages are what is given to go build; each becomes a binary named by
	// its last path element.
	Packages []string
}

// Parts are all programs of the cluster that are built from source, the
// slowest first: when a download fails, it should fail early.
func Parts() []Part {
	return []Part{
		{Name: "kube", Dir: "kube", Packages: []string{"fairlead.dev/test/cluster/kube"}},
		{Name: "containerd", Dir: "containerd", Packages: []string{
			"github.com/containerd/containerd/v2/cmd/containerd",
			"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		}},
		{Name: "coredns", Dir: "coredns", Packages: []string{"fairlead.dev/test/cluster/coredns"}},
		{Name: "etcd", Dir: "etcd", Packages: []string{"fairlead.dev/test/cluster/etcd"}},
		{Name: "edge", Dir: ".", Packages: []string{
			"fairlead.dev/test/cluster/cmd/pause",
			"fairlead.dev/test/cluster/cmd/registry",
			"fairlead.dev/test/cluster/cmd/relay",
		}},
	}
}

// FindSource returns the root of the test cluster's module, looked for in dir
// and above it, and in test/cluster of each of those.
func FindSource(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the sources of the test cluster: %w", err)
	}
	for {
		for _, candidate := range []string{dir, filepath.Join(dir, "test", "cluster")} {
			mod, err := os.ReadFile(filepath.Join(candidate, "go.mod"))
			if err == nil && bytes.HasPrefix(mod, []byte("module fairlead.dev/test/cluster\n")) {
				return candidate, nil
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", ErrNoSource
		}
		dir = parent
	}
}

// buildArgs are the flags of every build. The mode is given because a GOFLAGS
// of the caller's could otherwise let go build edit go.sum, and with it the key.
func buildArgs(out string, packages []string) []string {
	return append([]string{"build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", out}, packages...)
}

// Key returns the hash that names p's cache entry when built from source.
func (p Part) Key(source string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s/%s %q\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, buildArgs("", p.Packages))
	root := filepath.Join(source, p.Dir)
	// WalkDir goes in lexical order, which makes the hash reproducible.
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if path == root {
				return nil
			}
			if e.Name() == "testdata" {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return fs.SkipDir // another module: not part of this build
			}
			return nil
		}
		name := e.Name()
		isSource := strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
		if !isSource && name != "go.mod" && name != "go.sum" {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %x\n", filepath.ToSlash(rel), sha256.Sum256(content))
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("hash the sources of %s: %w", p.Name, err)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// Cache is the folder that holds the built parts.
type Cache struct {
	Dir string
	// Source is the root of the test cluster's module.
	Source string
	// Progress is told what is built and what was found damaged.
	Progress func(format string, args ...any)

	// build is replaced by tests; nil means the go command.
	build func(ctx context.Context, p Part, out string) error
}

// Ensure returns the folder with p's binaries, building them if the cache has
// no sound copy.
func (c *Cache) Ensure(ctx context.Context, p Part) (string, error) {
	key, err := p.Key(c.Source)
	if err != nil {
		return "", err
	}
	entry := filepath.Join(c.Dir, p.Name+"-"+key)
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache: %w", err)
	}
	// Two callers that find nothing would each spend ten minutes building it.
	unlock, err := lock.Take(ctx, filepath.Join(c.Dir, p.Name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	err = verify(entry)
	switch {
	case err == nil:
		now := time.Now()
		_ = os.Chtimes(entry, now, now) // only prune reads it
		return entry, nil
	case !errors.Is(err, fs.ErrNotExist):
		c.Progress("%s: %v; building it again", p.Name, err)
	}
	if err := os.RemoveAll(entry); err != nil {
		return "", fmt.Errorf("remove a damaged cache entry: %w", err)
	}
	c.prune(p)
	if err := c.make(ctx, p, entry); err != nil {
		return "", err
	}
	return entry, nil
}

func (c *Cache) make(ctx context.Context, p Part, entry string) error {
	temp, err := os.MkdirTemp(c.Dir, p.Name+".tmp-")
	if err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	defer os.RemoveAll(temp) // after the rename there is nothing to remove

	c.Progress("building %s (once; kept in %s)", p.Name, entry)
	start := time.Now()
	build := c.build
	if build == nil {
		build = c.goBuild
	}
	if err := build(ctx, p, temp); err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	if err := seal(temp); err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	if err := os.Rename(temp, entry); err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	c.Progress("built %s in %s", p.Name, time.Since(start).Round(time.Second))
	return nil
}

// goBuild runs one go build. Parts are built one after another: each build
// already keeps all processors busy.
func (c *Cache) goBuild(ctx context.Context, p Part, out string) error {
	cmd := exec.CommandContext(ctx, "go", buildArgs(out+string(filepath.Separator), p.Packages)...)
	cmd.Dir = filepath.Join(c.Source, p.Dir)
	// A go.work around the checkout would replace the versions that go.mod pins.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// prune removes what earlier versions and killed builds of p left behind. A
// failure is of no consequence: the next build tries again.
func (c *Cache) prune(p Part) {
	entries, _ := os.ReadDir(c.Dir)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.IsDir() {
			continue
		}
		// The caller holds the part's lock: nobody is at work in a temporary folder.
		unfinished := strings.HasPrefix(e.Name(), p.Name+".tmp-")
		unused := strings.HasPrefix(e.Name(), p.Name+"-") && time.Since(info.ModTime()) > unusedAfter
		if unfinished || unused {
			_ = os.RemoveAll(filepath.Join(c.Dir, e.Name()))
		}
	}
}

// seal writes the digests of dir's files, and sees all of them on disk.
func seal(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		sum, err := digest(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, e.Name())
		if err := syncFile(path); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, digestFile)
	if err := os.WriteFile(path, sums.Bytes(), 0o644); err != nil {
		return err
	}
	return syncFile(path)
}

// verify reports whether an entry holds exactly the files that were built.
// The error is fs.ErrNotExist when there is no entry at all.
func verify(entry string) error {
	if _, err := os.Stat(entry); err != nil {
		return fmt.Errorf("read a cache entry: %w", err)
	}
	list, err := os.Open(filepath.Join(entry, digestFile))
	if err != nil {
		// Not wrapped: an entry without digests exists, and is damaged.
		return fmt.Errorf("read a cache entry: %v", err)
	}
	defer list.Close()
	var names []string
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		want, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok || name != filepath.Base(name) {
			return fmt.Errorf("read %s: bad line %q", list.Name(), lines.Text())
		}
		got, err := digest(filepath.Join(entry, name))
		if err != nil {
			return fmt.Errorf("read a cache entry: %v", err)
		}
		if got != want {
			return fmt.Errorf("read %s: its content is not what was built", filepath.Join(entry, name))
		}
		names = append(names, name)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", list.Name(), err)
	}
	if len(names) == 0 {
		return fmt.Errorf("read %s: no digests", list.Name())
	}
	entries, err := os.ReadDir(entry)
	if err != nil {
		return fmt.Errorf("read a cache entry: %v", err)
	}
	for _, e := range entries {
		if e.Name() != digestFile && !slices.Contains(names, e.Name()) {
			return fmt.Errorf("read %s: not a file that was built", filepath.Join(entry, e.Name()))
		}
	}
	return nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
