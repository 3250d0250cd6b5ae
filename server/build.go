package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/build"
)

// builds makes the session's executables, for whichever target the environment turns out to have, and knows what they
// are made of.
type builds struct {
	svc build.Service
	cfg build.Config
	out string // folder of the executables
	// command is run in place of what would be built; empty without
	command string

	inputs atomic.Pointer[build.Inputs] // nil until they have been listed
	stale  atomic.Bool                  // they are being listed anew: what is new among them is not known yet
	debug  atomic.Bool                  // with symbols, and the user's own packages as they are written

	mu      sync.Mutex
	builder *build.Builder
	last    *build.Result
}

// builderFor returns the builder of a target.
func (b *builds) builderFor(ctx context.Context, t api.Target) (*build.Builder, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.builder != nil && b.builder.Target() == t {
		return b.builder, nil
	}
	cfg := b.cfg
	cfg.Target = t
	nb, err := build.New(ctx, b.svc, cfg)
	if err != nil {
		return nil, err
	}
	b.builder, b.last = nb, nil
	return nb, nil
}

// goVersion is that of the go command; empty until something has been built.
func (b *builds) goVersion() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.builder == nil {
		return ""
	}
	return b.builder.GoVersion()
}

// configure changes how builds are made from the next one on.
func (b *builds) configure(cfg build.Config) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg, b.builder = cfg, nil
}

// build builds for a target; linked is build.Request's. The user's failure is the problems.
func (b *builds) build(ctx context.Context, t api.Target, debug bool, linked func(path string, size int64)) (syncer.Built, []*api.Problem, error) {
	start := time.Now()
	fail := func(err error) (syncer.Built, []*api.Problem, error) {
		built := syncer.Built{Duration: time.Since(start)}
		var f *build.Failure
		if errors.As(err, &f) {
			return built, f.Problems, nil
		}
		return built, nil, err
	}
	if err := os.MkdirAll(b.out, 0o700); err != nil {
		return fail(err)
	}
	if b.command != "" {
		script := commandScript(b.command)
		path := filepath.Join(b.out, "command.sh")
		if err := os.WriteFile(path, script, 0o700); err != nil {
			return fail(err)
		}
		sum := sha256.Sum256(script)
		return syncer.Built{Executable: syncer.Executable{Path: path, Digest: api.Digest("sha256:" + hex.EncodeToString(sum[:])), Size: int64(len(script))}, Duration: time.Since(start)}, nil, nil
	}
	builder, err := b.builderFor(ctx, t)
	if err != nil {
		return fail(err)
	}
	b.mu.Lock()
	prev := b.last
	b.mu.Unlock()
	res, err := builder.Build(ctx, build.Request{OutDir: b.out, Debug: debug, Previous: prev, Linked: linked})
	if err != nil {
		return fail(err)
	}
	b.mu.Lock()
	if b.builder == builder {
		b.last = &res
	}
	b.mu.Unlock()
	return syncer.Built{Executable: syncer.Executable{Path: res.Path, Digest: res.Digest, Size: res.Size, Data: res.Data},
		Duration: res.Duration, Temporary: true}, nil, nil
}

// list asks anew what the executable is made of. It costs some 200 ms of the go command, so it is done beside the
// path of an edit: at the start, and after a change that may have altered it.
func (b *builds) list(ctx context.Context, t api.Target) error {
	builder, err := b.builderFor(ctx, t)
	if err != nil {
		return err
	}
	in, err := builder.Inputs(ctx)
	if err != nil {
		return err
	}
	b.inputs.Store(in)
	return nil
}

// relevant says whether a changed path may change the executable; before the first listing, and until a new one is there,
// whether it looks like source: a package that was imported a moment ago may be edited right after.
func (b *builds) relevant(path string) bool {
	if b.command != "" {
		return false
	}
	if in := b.inputs.Load(); in != nil {
		if in.Relevant(path) {
			return true
		}
		if !b.stale.Load() {
			return false
		}
	}
	switch filepath.Base(path) {
	case "go.mod", "go.sum", "go.work", "go.work.sum":
		return true
	}
	return filepath.Ext(path) == ".go"
}
