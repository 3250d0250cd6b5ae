package kube

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// rootfs is what an image of the tests has in it: absolute paths to content.
type rootfs map[string][]byte

// addFile takes a file of this machine, its links followed, under the same path.
func (r rootfs) addFile(path string) error {
	b, err := os.ReadFile(path)
	r[path] = b
	return err
}

// addProgram takes an executable with the shared libraries that it needs.
func (r rootfs) addProgram(path string) error {
	if err := r.addFile(path); err != nil {
		return err
	}
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		return errors.New("ldd " + path + ": " + string(out))
	}
	for line := range strings.Lines(string(out)) {
		for _, f := range strings.Fields(line) {
			if strings.HasPrefix(f, "/") {
				if err := r.addFile(f); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r rootfs) addFolder(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() && d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() {
			return err
		}
		return r.addFile(p)
	})
}

// push makes an image of it and pushes it, unless the registry has the same already, and returns its name by tag.
func (r rootfs) push(t testing.TB, registry, repository string, cfg v1.Config) string {
	t.Helper()
	paths := []string{}
	h := sha256.New()
	for p := range r {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		sum := sha256.Sum256(r[p])
		io.WriteString(h, p+hex.EncodeToString(sum[:]))
	}
	io.WriteString(h, strings.Join(slices.Concat(cfg.Entrypoint, cfg.Env), "\x00")+cfg.User)
	tag := registry + "/" + repository + ":" + hex.EncodeToString(h.Sum(nil))[:16]
	ref, err := name.ParseReference(tag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(ref, remote.WithContext(t.Context())); err == nil {
		return tag
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, d := range []string{"tmp/", "data/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o1777}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range paths {
		if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(p, "/"), Mode: 0o755, Size: int64(len(r[p]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(r[p]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, cfg
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	return tag
}

// backendImage holds testdata/backend.
func (r *real) backendImage(t testing.TB) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "backend")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, "./testdata/backend")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	return rootfs{"/backend": b}.push(t, r.options.Registry, "kube-test-backend", v1.Config{Entrypoint: []string{"/backend"}, User: "65532"})
}

// redisImage holds the real Redis that is installed here. Debian has it as one program of several names.
func (r *real) redisImage(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-check-rdb")
	if err != nil {
		notInstalled(t, "Redis")
	}
	fs := rootfs{}
	if err := fs.addProgram(path); err != nil {
		t.Fatal(err)
	}
	fs["/bin/redis-server"] = fs[path]
	delete(fs, path)
	return fs.push(t, r.options.Registry, "kube-test/redis", v1.Config{Entrypoint: []string{"/bin/redis-server", "--protected-mode", "no", "--save", "", "--dir", "/tmp"}, User: "65532"})
}

// notInstalled leaves a test out for a program that it has to put into an image. In CI everything is there.
func notInstalled(t testing.TB, what string) {
	t.Helper()
	why := what + " is not installed (go run ./test/run -install installs it)"
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// postgresStart does what the usual image does: a new data folder gets the database of the environment's variables.
const postgresStart = `#!/bin/sh
set -e
B=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s /data/pg/PG_VERSION ]; then
  echo "$POSTGRES_PASSWORD" > /tmp/pw
  $B/initdb -D /data/pg -U "$POSTGRES_USER" --pwfile=/tmp/pw --auth=password --no-locale --no-sync
  echo "host all all all password" >> /data/pg/pg_hba.conf
  echo "CREATE DATABASE $POSTGRES_DB;" | $B/postgres --single -j -D /data/pg postgres
fi
exec $B/postgres -D /data/pg -h '*' -k /tmp -c fsync=off
`

// postgresImage holds the real PostgreSQL that is installed here.
func (r *real) postgresImage(t testing.TB) string {
	t.Helper()
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(bins) == 0 {
		notInstalled(t, "PostgreSQL")
	}
	dir := filepath.Dir(bins[len(bins)-1])
	version := filepath.Base(filepath.Dir(dir))
	fs := rootfs{"/start": []byte(postgresStart), "/etc/passwd": []byte("postgres:x:70:70::/tmp:/bin/sh\n")}
	for _, p := range []string{filepath.Join(dir, "postgres"), filepath.Join(dir, "initdb"), "/bin/dash"} {
		if err := fs.addProgram(p); err != nil {
			t.Fatal(err)
		}
	}
	fs["/bin/sh"] = fs["/bin/dash"]
	for _, l := range []string{"dict_snowball.so", "plpgsql.so"} {
		if err := fs.addFile(filepath.Join(filepath.Dir(dir), "lib", l)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"/usr/share/postgresql/" + version, "/usr/share/zoneinfo/Etc"} {
		if err := fs.addFolder(d); err != nil {
			t.Fatal(err)
		}
	}
	return fs.push(t, r.options.Registry, "kube-test/postgres", v1.Config{Entrypoint: []string{"/bin/sh", "/start"}, User: "70",
		Env: []string{"PATH=/bin"}})
}
