// Command gen builds fairlead-pod for every architecture that a pod can have and puts it, compressed, where
// bridge/payload embeds it. `make build` runs it. A payload whose inputs have not changed is left as it is.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"fairlead.dev/bridge/payload"
)

// limit is what an executable may have: it is copied into every fresh pod (CHANGELOG and README give the figures).
const (
	limit           = 13_250_000
	limitCompressed = 4_700_000 // at the level below; zstd -19 makes 4.0 MB of it
)

// inlined lists what is compiled with inlining; the rest is not. Delve, its disassemblers and the protocols of a debug session are
// most of the executable, and none is on the path of an edit; it makes the file a tenth smaller. What copies, patches,
// hashes and forwards keeps the compiler's defaults.
var inlined = []string{
	"fairlead.dev/...", "github.com/klauspost/...", "runtime", "internal/runtime/...", "internal/byteorder",
	"encoding/binary", "math/bits",
}

func main() {
	version := flag.String("version", "dev", "the `version` that the executables say they are")
	out := flag.String("out", "bridge/payload/files", "the `folder` to write to")
	raw := flag.String("raw", "", "write the executables uncompressed to this `folder` too")
	flag.Parse()
	for _, arch := range payload.Archs {
		if err := gen(arch, *version, *out, *raw); err != nil {
			fmt.Fprintf(os.Stderr, "gen: error: %s: %v\n", arch, err)
			os.Exit(1)
		}
	}
}

func gen(arch, version, out, raw string) error {
	dir, err := os.MkdirTemp("", "payload-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "fairlead-pod")
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", exe, "-gcflags=all=-l"}
	for _, p := range inlined {
		args = append(args, "-gcflags="+p+"=")
	}
	args = append(args, "-ldflags=-s -w -funcalign=16 -X main.version="+version, "./cmd/fairlead-pod")
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	if len(b) > limit {
		return fmt.Errorf("fairlead-pod has %d bytes, more than %d", len(b), limit)
	}
	name := filepath.Join(out, "fairlead-pod-linux-"+arch)
	if raw != "" {
		if err := replace(filepath.Join(raw, filepath.Base(name)), b, 0o755); err != nil {
			return err
		}
	}
	sum := sha256.Sum256(b)
	id := hex.EncodeToString(sum[:])
	if old, err := os.ReadFile(name + ".sum"); err == nil && string(old) == id {
		if fi, err := os.Stat(name + ".zst"); err == nil {
			fmt.Fprintf(os.Stderr, "%s: %d bytes, %d compressed (unchanged)\n", name, len(b), fi.Size())
			return nil
		}
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(16<<20))
	if err != nil {
		return err
	}
	z := enc.EncodeAll(b, nil)
	if len(z) > limitCompressed {
		return fmt.Errorf("fairlead-pod has %d bytes compressed, more than %d", len(z), limitCompressed)
	}
	if err := replace(name+".zst", z, 0o644); err != nil {
		return err
	}
	if err := replace(name+".sum", []byte(id), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: %d bytes, %d compressed\n", name, len(b), len(z))
	return nil
}

func replace(path string, b []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := io.WriteString(f, string(b)); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
