package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"fairlead.dev/api"
)

// BuildTest builds the test program of the package in a folder, with symbols and without optimisation of the user's own
// packages, for the service's target. Its errors are Build's; a package without tests is an *api.Problem. The caller
// removes Result.Path.
func (b *Builder) BuildTest(ctx context.Context, outDir, dir string) (Result, error) {
	out, err := os.MkdirTemp(outDir, ".test-")
	if err != nil {
		return Result{}, fmt.Errorf("make a folder for the build: %w", err)
	}
	defer os.RemoveAll(out)
	path := filepath.Join(out, "x")
	tmp := filepath.Join(out, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return Result{}, fmt.Errorf("make a folder for the build: %w", err)
	}
	args := append([]string{"test", "-c", "-vet=off", "-o", path}, b.tool.flags.build(true, b.svc.Modules)...)
	env := []string{"GOTMPDIR=" + tmp, "TMPDIR=" + tmp, "TMP=" + tmp, "TEMP=" + tmp}
	if err := b.tool.run(ctx, b.svc.ModuleDir, env, nil, append(args, dir)...); err != nil {
		return Result{}, b.failure(ctx, err)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) { // go test -c says so, and succeeds
		return Result{}, &api.Problem{Code: "no-tests", Message: dir + " has no tests", Hint: "name a folder with _test.go files"}
	}
	kept := filepath.Join(outDir, filepath.Base(out)[1:])
	if err := os.Rename(path, kept); err != nil {
		return Result{}, fmt.Errorf("keep the test program: %w", err)
	}
	res, err := b.read(kept, Request{})
	if err != nil {
		os.Remove(kept)
	}
	return res, err
}
