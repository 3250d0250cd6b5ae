// Package image makes container images of what is installed on this machine and pushes them to the test cluster's registry:
// there is no other place that the tests could take them from.
package image

import (
	"archive/tar"
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

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Config says how an image is started.
type Config = v1.Config

// Files is what an image has in it: absolute paths to content. All of it can be executed.
type Files map[string][]byte

// Add takes a file of this machine, its links followed, under the same path.
func (f Files) Add(path string) error {
	b, err := os.ReadFile(path)
	f[path] = b
	return err
}

// AddProgram takes an executable with the shared libraries that it needs.
func (f Files) AddProgram(path string) error {
	if err := f.Add(path); err != nil {
		return err
	}
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ldd %s: %w: %s", path, err, out)
	}
	for field := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(field, "/") {
			if err := f.Add(field); err != nil {
				return err
			}
		}
	}
	return nil
}

// AddFolder takes the files of a folder.
func (f Files) AddFolder(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() && d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() {
			return err
		}
		return f.Add(p)
	})
}

// Push makes an image of the files, with /tmp and /data that anybody may write to, and pushes it, unless the registry has
// the same already. It returns the image's name, whose tag is a digest of all that is in it.
func (f Files) Push(ctx context.Context, registry, repository string, cfg Config) (string, error) {
	paths := []string{}
	h := sha256.New()
	for p := range f {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		sum := sha256.Sum256(f[p])
		io.WriteString(h, p+hex.EncodeToString(sum[:]))
	}
	io.WriteString(h, strings.Join(slices.Concat(cfg.Entrypoint, cfg.Env), "\x00")+cfg.User)
	tag := registry + "/" + repository + ":" + hex.EncodeToString(h.Sum(nil))[:16]
	ref, err := name.ParseReference(tag, name.Insecure)
	if err != nil {
		return "", err
	}
	if _, err := remote.Head(ref, remote.WithContext(ctx)); err == nil {
		return tag, nil
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, d := range []string{"tmp/", "data/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o1777}); err != nil {
			return "", err
		}
	}
	for _, p := range paths {
		if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(p, "/"), Mode: 0o755, Size: int64(len(f[p]))}); err != nil {
			return "", err
		}
		if _, err := w.Write(f[p]); err != nil {
			return "", err
		}
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return "", err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, cfg
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return "", err
	}
	return tag, remote.Write(ref, img, remote.WithContext(ctx))
}

// Program pushes an image of one static executable of this machine, which is its entry point.
func Program(ctx context.Context, registry, repository, exe string) (string, error) {
	b, err := os.ReadFile(exe)
	if err != nil {
		return "", err
	}
	path := "/" + filepath.Base(exe)
	return Files{path: b}.Push(ctx, registry, repository, Config{Entrypoint: []string{path}, User: "65532"})
}

// ErrNotInstalled says that this machine lacks what is to be put into an image.
var ErrNotInstalled = errors.New("it is not installed (go run ./test/run -install installs it)")
