package supervisor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"fairlead.dev/api"
	"fairlead.dev/syncer/delta"
)

// maxBlob bounds one blob: more than any executable, less than what would fill a node's disk unseen.
const maxBlob = 2 << 30

// store holds verified content under its digest. A file is there only under its true name: it is written under a
// temporary one, verified, and renamed.
type store struct {
	dir    string
	shares bool // EncodingPath is allowed
}

func newStore(dir string, shares bool) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// What a killed predecessor left half written.
	old, _ := filepath.Glob(filepath.Join(dir, "tmp-*"))
	for _, p := range old {
		os.Remove(p)
	}
	return &store{dir: dir, shares: shares}, nil
}

func validDigest(d api.Digest) bool {
	h, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok || len(h) != 64 {
		return false
	}
	for _, c := range h {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// path is where the blob is or would be; d must be valid.
func (s *store) path(d api.Digest) string {
	return filepath.Join(s.dir, strings.TrimPrefix(string(d), "sha256:"))
}

func (s *store) has(d api.Digest, size int64) bool {
	fi, err := os.Lstat(s.path(d))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == size
}

// digests lists what is there.
func (s *store) digests() []api.Digest {
	ents, _ := os.ReadDir(s.dir)
	var out []api.Digest
	for _, e := range ents {
		if d := api.Digest("sha256:" + e.Name()); validDigest(d) {
			out = append(out, d)
		}
	}
	return out
}

// stage writes the content that r carries as b says, verifies it and keeps it. Nothing that fails leaves a trace. A file
// that b does not name is kept under the digest that is found here, which says as much of it as a verified one does.
func (s *store) stage(ctx context.Context, b api.Blob, r io.Reader) (err error) {
	unnamed := b.Digest == "" && b.Encoding == api.EncodingPath
	switch {
	case !unnamed && !validDigest(b.Digest):
		return &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("stage: %q is not a digest", b.Digest)}
	case b.Size < 0 || b.Size > maxBlob:
		return &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("stage: %d bytes is not a size that a pod takes", b.Size)}
	}
	if !unnamed && s.has(b.Digest, b.Size) {
		_, err := io.Copy(io.Discard, io.LimitReader(r, maxBlob))
		return err
	}
	if b.Encoding == api.EncodingPath && s.shares && s.linkIn(b) {
		return nil
	}
	f, err := os.CreateTemp(s.dir, "tmp-")
	if err != nil {
		return writeProblem("stage", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	n, err := s.write(ctx, f, sum, b, r)
	if err != nil {
		return err
	}
	got := api.Digest("sha256:" + hex.EncodeToString(sum.Sum(nil)))
	if unnamed {
		b.Digest = got
	}
	if got != b.Digest || n != b.Size {
		return &api.Problem{Code: api.CodeBlobCorrupt, Message: fmt.Sprintf("stage: %d bytes of %s arrived, announced were %d of %s", n, got, b.Size, b.Digest)}
	}
	// 0700: it may be the executable, and a hard link shares the mode.
	if err := f.Chmod(0o700); err != nil {
		return writeProblem("stage", err)
	}
	if err := f.Close(); err != nil {
		return writeProblem("stage", err)
	}
	if err := os.Rename(f.Name(), s.path(b.Digest)); err != nil {
		return writeProblem("stage", err)
	}
	return nil
}

// linkIn takes a file of this file system over without copying it, if it is what b says. The agent gives each of its
// executables a name of its own and never writes to one again; nor does the go command, which replaces its output
// (syncer/build: TestBuildAgain).
func (s *store) linkIn(b api.Blob) bool {
	var id [8]byte
	rand.Read(id[:])
	tmp := filepath.Join(s.dir, "tmp-"+hex.EncodeToString(id[:]))
	if !filepath.IsAbs(b.Path) || os.Link(b.Path, tmp) != nil {
		return false
	}
	defer os.Remove(tmp)
	fi, err := os.Lstat(tmp)
	if err != nil || !fi.Mode().IsRegular() || fi.Mode().Perm()&0o100 == 0 || fi.Size() != b.Size {
		return false
	}
	got, err := digestOf(tmp)
	return err == nil && (b.Digest == "" || got == b.Digest) && os.Rename(tmp, s.path(got)) == nil
}

// digestOf reads a file; that is quicker than to map it, which costs a fault every few pages.
func digestOf(path string) (api.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return api.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}

// write decodes the blob to f and, on a second core, to sum.
func (s *store) write(ctx context.Context, f *os.File, sum io.Writer, b api.Blob, r io.Reader) (int64, error) {
	tee := newTee(f, sum)
	err := s.decode(ctx, tee, b, r)
	n, werr := tee.close()
	if werr != nil {
		return n, writeProblem("stage", werr)
	}
	return n, err
}

func (s *store) decode(ctx context.Context, w io.Writer, b api.Blob, r io.Reader) error {
	corrupt := func(err error) error {
		return &api.Problem{Code: api.CodeBlobCorrupt, Message: fmt.Sprintf("stage %s: %v", b.Encoding, err)}
	}
	switch b.Encoding {
	case api.EncodingRaw:
		// One byte more than announced shows a body that is too long.
		if _, err := io.Copy(w, io.LimitReader(ctxReader{ctx, r}, b.Size+1)); err != nil {
			return err
		}
		return nil
	case api.EncodingZstd:
		if err := delta.Decompress(ctx, w, r, b.Size); err != nil {
			return corrupt(err)
		}
		return nil
	case api.EncodingDelta:
		if !validDigest(b.Base) {
			return &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("stage: base %q is not a digest", b.Base)}
		}
		old, unmap, err := mapFile(s.path(b.Base))
		if err != nil {
			return &api.Problem{Code: api.CodeBaseMissing, Message: fmt.Sprintf("stage: the pod does not have %s", b.Base)}
		}
		defer unmap()
		err = delta.Apply(ctx, w, r, old, b.Size)
		if errors.Is(err, delta.ErrBase) {
			return &api.Problem{Code: api.CodeBaseMissing, Message: fmt.Sprintf("stage: the pod's %s is not what the patch was made against", b.Base)}
		}
		if err != nil {
			return corrupt(err)
		}
		return nil
	case api.EncodingPath:
		if !s.shares || !filepath.IsAbs(b.Path) {
			return &api.Problem{Code: api.CodeBadManifest, Message: "stage: this pod takes no paths"}
		}
		src, err := os.Open(b.Path)
		if err != nil {
			return corrupt(err)
		}
		defer src.Close()
		_, err = io.Copy(w, io.LimitReader(ctxReader{ctx, src}, b.Size+1))
		return err
	}
	return &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("stage: unknown encoding %q", b.Encoding)}
}

// keep removes every blob but those given.
func (s *store) keep(digests ...api.Digest) {
	want := map[string]bool{}
	for _, d := range digests {
		want[s.path(d)] = true
	}
	for _, d := range s.digests() {
		if p := s.path(d); !want[p] {
			os.Remove(p)
		}
	}
}

// writeProblem names a full disk, which is the user's to mend.
func writeProblem(act string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &api.Problem{Code: api.CodeDiskFull, Severity: api.SeverityError, Message: act + ": no space left in the environment; what ran goes on running",
			Hint: "free space on the disk that the environment's files are on (on Kubernetes its node's, or the volume's limit), then save again"}
	}
	return fmt.Errorf("%s: %w", act, err)
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// tee writes to a file and hashes at the same time, on two cores: the digest is what an edit would wait for most.
type tee struct {
	f    *os.File
	ch   chan []byte
	free chan []byte
	done chan struct{}
	cur  []byte
	n    int64
	err  error
}

const teeChunk = 256 << 10

func newTee(f *os.File, sum io.Writer) *tee {
	t := &tee{f: f, ch: make(chan []byte, 4), free: make(chan []byte, 6), done: make(chan struct{})}
	go func() {
		defer close(t.done)
		for b := range t.ch {
			sum.Write(b)
			select {
			case t.free <- b[:0]:
			default:
			}
		}
	}()
	return t
}

func (t *tee) Write(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	total := len(p)
	for len(p) > 0 {
		if t.cur == nil {
			select {
			case t.cur = <-t.free:
			default:
				t.cur = make([]byte, 0, teeChunk)
			}
		}
		n := copy(t.cur[len(t.cur):cap(t.cur)], p)
		t.cur, p = t.cur[:len(t.cur)+n], p[n:]
		if len(t.cur) == cap(t.cur) {
			t.flush()
		}
	}
	return total, t.err
}

func (t *tee) flush() {
	if t.err != nil || len(t.cur) == 0 {
		return
	}
	b := t.cur
	t.cur = nil
	t.ch <- b
	n, err := t.f.Write(b) // the hash reads b at the same time; neither changes it
	t.n += int64(n)
	t.err = err
}

func (t *tee) close() (int64, error) {
	t.flush()
	close(t.ch)
	<-t.done
	return t.n, t.err
}
