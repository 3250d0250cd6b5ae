package kube

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"fairlead.dev/test/image"
)

// backendImage holds testdata/backend.
func (r *real) backendImage(t testing.TB) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "backend")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, "./testdata/backend")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r.pushed(t, func(ctx context.Context, registry string) (string, error) {
		return image.Program(ctx, registry, "test/backend", exe)
	})
}

// pushed pushes an image. A test is left out for a program that is not here to be put into it. In CI everything is there.
func (r *real) pushed(t testing.TB, push func(ctx context.Context, registry string) (string, error)) string {
	t.Helper()
	name, err := push(t.Context(), r.options.Registry)
	if errors.Is(err, image.ErrNotInstalled) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}
