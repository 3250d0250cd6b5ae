package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
)

// Builder builds one service in one way. It is immutable; builds may run at the same time, although the go command
// then shares out the machine between them.
type Builder struct {
	svc  Service
	tool *tool
}

// New makes a Builder. It asks the go command for its settings once: what `go env -w` changes later is not seen.
func New(ctx context.Context, svc Service, cfg Config) (*Builder, error) {
	t, err := newTool(ctx, svc.ModuleDir, cfg)
	if err != nil {
		return nil, err
	}
	return &Builder{svc: svc, tool: t}, nil
}

// Service returns what the Builder was made for.
func (b *Builder) Service() Service { return b.svc }

// Target returns what the executables run on.
func (b *Builder) Target() api.Target { return b.tool.cfg.Target }

// GoVersion returns the version of the go command, such as "go1.26.8".
func (b *Builder) GoVersion() string { return b.tool.vars.GOVERSION }

// Request is one build.
type Request struct {
	// OutDir is where the executable goes, under a name that was not there before. The build's temporary files lie there
	// too while it runs: on one file system the linker's output is renamed and not copied. It must exist.
	OutDir string
	// Debug keeps the symbols and leaves out the optimisation of the user's own packages.
	Debug bool
	// Previous is an earlier Result whose file still exists unchanged, or nil. With it, a build of unchanged code links
	// nothing. Path and Digest are enough; a file that has another digest than it says is not used.
	Previous *Result
	// Linked, unless it is nil, is told of a new executable as soon as it is complete and has its name, so that others
	// may read it while its digest is made (20 ms for 27 MB). It must not block. The file goes again if the build is
	// cancelled after all. Result.Data stays nil then: to fill that memory takes a processor another 13 ms.
	Linked func(path string, size int64)
}

// Result is an executable.
type Result struct {
	Path     string
	Size     int64
	Digest   api.Digest
	Data     []byte // the file's content; the same slice as Previous.Data where nothing was linked. Not to be changed
	Same     bool   // the content is Previous's
	Duration time.Duration
}

// Build builds the executable. Where the source is to blame the error is a *Failure; a cancelled build returns ctx's
// error, at once and with nothing left behind. The caller removes Result.Path when it is no longer wanted.
func (b *Builder) Build(ctx context.Context, req Request) (Result, error) {
	start := time.Now()
	res, err := b.build(ctx, req)
	var damaged *damagedError
	if errors.As(err, &damaged) {
		req.Previous = nil
		res, err = b.build(ctx, req)
	}
	res.Duration = time.Since(start)
	return res, err
}

// damagedError says that the previous executable is not what it was.
type damagedError struct{ path string }

func (e *damagedError) Error() string { return e.path + " is not what was built" }

func (b *Builder) build(ctx context.Context, req Request) (_ Result, err error) {
	dir, err := os.MkdirTemp(req.OutDir, ".build-")
	if err != nil {
		return Result{}, fmt.Errorf("make a folder for the build: %w", err)
	}
	defer func() {
		if rerr := os.RemoveAll(dir); rerr != nil && err == nil {
			err = fmt.Errorf("clean up after the build: %w", rerr)
		}
	}()
	if dir, err = filepath.Abs(dir); err != nil {
		return Result{}, fmt.Errorf("make a folder for the build: %w", err)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return Result{}, fmt.Errorf("make a folder for the build: %w", err)
	}
	suffix := ""
	if b.tool.cfg.Target.OS == "windows" {
		suffix = ".exe"
	}
	out := filepath.Join(dir, b.svc.Name+suffix)
	if req.Previous != nil && req.Previous.Digest != "" {
		// The go command does not link again where -o is up to date. When it does link, it replaces the file and does
		// not write into it. Where hard links are not to be had, linking again costs only time.
		os.Link(req.Previous.Path, out)
	}

	args := append([]string{"build", "-o", out}, b.tool.flags.build(req.Debug, b.svc.Modules)...)
	// Killed compilers leave their files in these folders, which go with dir.
	env := []string{"GOTMPDIR=" + tmp, "TMPDIR=" + tmp, "TMP=" + tmp, "TEMP=" + tmp}
	if err := b.tool.run(ctx, b.svc.ModuleDir, env, nil, append(args, "--", b.svc.ImportPath)...); err != nil {
		var exit *exitError
		if req.Previous != nil && errors.As(err, &exit) && strings.Contains(exit.output, "is not an object file") {
			return Result{}, &damagedError{req.Previous.Path}
		}
		return Result{}, b.failure(ctx, err)
	}

	path := filepath.Join(filepath.Dir(dir), b.svc.Name+strings.TrimPrefix(filepath.Base(dir), ".build")+suffix)
	if err := os.Rename(out, path); err != nil {
		return Result{}, fmt.Errorf("keep the executable: %w", err)
	}
	res, err := b.read(path, req)
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("build %s: %w", b.svc.Name, ctx.Err())
	}
	if err != nil {
		os.Remove(path)
		return Result{}, err
	}
	return res, nil
}

// read reads the executable and makes its digest.
func (b *Builder) read(path string, req Request) (Result, error) {
	prev := req.Previous
	f, err := os.Open(path)
	if err != nil {
		return Result{}, fmt.Errorf("read the executable: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Result{}, fmt.Errorf("read the executable: %w", err)
	}
	linked := true
	if prev != nil && prev.Digest != "" {
		if old, err := os.Stat(prev.Path); err == nil && os.SameFile(old, st) {
			linked = false
			if prev.Data != nil && int64(len(prev.Data)) == st.Size() {
				return Result{Path: path, Size: st.Size(), Digest: prev.Digest, Data: prev.Data, Same: true}, nil
			}
		}
	}
	if linked && req.Linked != nil {
		req.Linked(path, st.Size())
	}
	var data []byte
	var digest api.Digest
	if req.Linked != nil {
		digest, err = digestOf(f)
	} else {
		data, digest, err = readDigest(f, st.Size())
	}
	if err != nil {
		return Result{}, fmt.Errorf("read the executable: %w", err)
	}
	if !linked && digest != prev.Digest {
		return Result{}, &damagedError{prev.Path}
	}
	return Result{Path: path, Size: st.Size(), Digest: digest, Data: data, Same: prev != nil && digest == prev.Digest}, nil
}

// digestOf makes the digest without keeping the content.
func digestOf(f *os.File) (api.Digest, error) {
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return api.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}

// readDigest reads size bytes and makes their digest on the way: one goroutine reads while this one hashes, which takes
// three times as long.
func readDigest(r io.Reader, size int64) ([]byte, api.Digest, error) {
	const chunk = 1 << 20
	data := make([]byte, size)
	type step struct {
		end int
		err error
	}
	steps := make(chan step, len(data)/chunk+1)
	go func() {
		defer close(steps)
		for at := 0; at < len(data); at += chunk {
			end := min(at+chunk, len(data))
			_, err := io.ReadFull(r, data[at:end])
			steps <- step{end, err}
			if err != nil {
				return
			}
		}
	}()
	h := sha256.New()
	at := 0
	var err error
	for s := range steps {
		if s.err != nil {
			err = s.err
			continue
		}
		h.Write(data[at:s.end])
		at = s.end
	}
	if err != nil {
		return nil, "", err
	}
	return data, api.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}

// failure turns the go command's exit into problems.
func (b *Builder) failure(ctx context.Context, err error) error {
	var exit *exitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("build %s: %w", b.svc.Name, err)
	}
	ms := parseOutput(b.svc.ModuleDir, dirOf(b.svc.Modules), exit.output)
	for _, m := range ms {
		if m.imports != "" {
			placeImport(m)
		}
		if m.File != "" {
			if _, err := os.Stat(m.File); err != nil { // a file that cgo wrote, or one beside another module's source
				m.Message = fmt.Sprintf("%s:%d: %s", filepath.Base(m.File), m.Line, m.Message)
				m.File, m.Line, m.Column = "", 0, 0
			}
		}
	}
	list := b.explainCgo(ctx, ms)
	if !slices.ContainsFunc(list, func(p *api.Problem) bool { return p.Severity == api.SeverityError }) {
		text := lastLines(exit.output)
		if text == "" {
			text = exit.err.Error()
		}
		list = append(list, &api.Problem{
			Code: codeFailed, Severity: api.SeverityError, Message: "go build failed: " + text,
			Hint: "run `go build " + b.svc.ImportPath + "` to see the same by hand",
		})
	}
	return &Failure{Problems: list, Output: exit.output}
}

// placeImport gives an import cycle the line of the import that closes it.
func placeImport(m message) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, m.File, nil, parser.ImportsOnly|parser.SkipObjectResolution)
	if err != nil {
		return
	}
	for _, spec := range f.Imports {
		if strings.Trim(spec.Path.Value, "\"`") == m.imports {
			pos := fset.Position(spec.Path.Pos())
			m.Line, m.Column = pos.Line, pos.Column
			return
		}
	}
}
