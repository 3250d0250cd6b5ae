package syncer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer/delta"
)

// Pod is what the loop needs of the far side.
type Pod interface {
	Status(ctx context.Context) (api.Status, error)
	Stage(ctx context.Context, b api.Blob, r io.Reader) error
	Swap(ctx context.Context, m api.Manifest) (api.Status, error)
}

// Executable is a built service on this machine.
type Executable struct {
	Path   string
	Digest api.Digest
	Size   int64
	// Data is its content; it may be nil, and is then read when it is needed.
	Data []byte
}

// Shipper brings manifests into a pod with as few bytes as it can. It keeps the last executable that the pod has
// acknowledged, indexed while nothing else is to do, as the base of the next difference.
type Shipper struct {
	// Dir keeps the base across runs of the agent, under its digest.
	Dir string

	mu    sync.Mutex
	base  *base
	ready chan struct{} // closed when base.index is there
	wg    sync.WaitGroup
}

// Wait returns when nothing is done in the background any more: Dir can be removed.
func (s *Shipper) Wait() { s.wg.Wait() }

type base struct {
	digest api.Digest
	index  *delta.Index
}

// shipment is one attempt's account.
type shipment struct {
	bytes  atomic.Int64
	full   bool
	files  int
	reason string
}

// Ship makes the pod run m, whose executable is exe and whose trees' files are read from sources (digest to path). The
// event tells what travelled, also when it returns an error. Errors are *api.Problem, or the context's.
func (s *Shipper) Ship(ctx context.Context, pod Pod, m api.Manifest, exe Executable, sources map[api.Digest]string) (api.TransferEvent, api.Status, error) {
	start := time.Now()
	var sh shipment
	st, err := s.ship(ctx, pod, m, exe, sources, &sh)
	var p *api.Problem
	if errors.As(err, &p) && p.Code == api.CodeDiskFull { // the pod has let go of what it can do without: that may be enough
		st, err = s.ship(ctx, pod, m, exe, sources, &sh)
	}
	ev := api.TransferEvent{Header: api.Header{Type: api.KindTransfer, Generation: m.Generation, Time: time.Now()},
		Bytes: sh.bytes.Load(), Full: sh.full, MS: time.Since(start).Milliseconds(), Files: sh.files, Reason: sh.reason}
	if err == nil {
		s.remember(exe, st.SharesFiles)
	}
	return ev, st, err
}

func (s *Shipper) ship(ctx context.Context, pod Pod, m api.Manifest, exe Executable, sources map[api.Digest]string, sh *shipment) (api.Status, error) {
	st, err := pod.Status(ctx)
	if err != nil {
		return st, err
	}
	if err := s.stageExecutable(ctx, pod, st, exe, sh); err != nil {
		return st, err
	}
	// The pod says which files it lacks: it alone knows. A second answer of the kind means that it loses what it is sent.
	for range 3 {
		var now api.Status
		now, err = pod.Swap(ctx, m)
		var p *api.Problem
		if !errors.As(err, &p) || p.Code != api.CodeBlobMissing {
			return now, err
		}
		for _, d := range p.Missing {
			if d == exe.Digest {
				sh.reason = "the pod lost the executable it had been sent"
				err = s.stageWhole(ctx, pod, st, exe, sh)
			} else {
				err = s.stageFile(ctx, pod, st, d, sources[d], sh)
			}
			if err != nil {
				return st, err
			}
		}
	}
	return st, err
}

// stageExecutable sends the executable as a difference where the pod has the base, else whole. What arrives damaged, or
// against a base that is gone, is sent whole once.
func (s *Shipper) stageExecutable(ctx context.Context, pod Pod, st api.Status, exe Executable, sh *shipment) error {
	for _, d := range st.Blobs {
		if d == exe.Digest {
			if st.SharesFiles && st.Digest != exe.Digest { // it has taken it in during the build
				sh.full, sh.files = true, 1
			}
			return nil
		}
	}
	if st.SharesFiles {
		return s.stageWhole(ctx, pod, st, exe, sh)
	}
	b := s.baseFor(ctx, st)
	if b == nil {
		if st.Generation > 0 {
			sh.reason = "this machine no longer has what the pod runs"
		} else {
			sh.reason = "the pod is empty"
		}
		return s.stageWhole(ctx, pod, st, exe, sh)
	}
	data, err := exe.data()
	if err != nil {
		return err
	}
	blob := api.Blob{Digest: exe.Digest, Size: exe.Size, Encoding: api.EncodingDelta, Base: b.digest}
	err = stageStream(ctx, pod, blob, sh, func(ctx context.Context, w io.Writer) error { return delta.Diff(ctx, w, b.index, data) })
	var p *api.Problem
	if errors.As(err, &p) && (p.Code == api.CodeBaseMissing || p.Code == api.CodeBlobCorrupt) {
		sh.reason = "the difference was refused: " + p.Message
		return s.stageWhole(ctx, pod, st, exe, sh)
	}
	return err
}

func (s *Shipper) stageWhole(ctx context.Context, pod Pod, st api.Status, exe Executable, sh *shipment) error {
	sh.full = true
	err := s.stageFile(ctx, pod, st, exe.Digest, exe.Path, sh)
	var p *api.Problem
	if errors.As(err, &p) && p.Code == api.CodeBlobCorrupt { // damaged on its way: once more
		err = s.stageFile(ctx, pod, st, exe.Digest, exe.Path, sh)
	}
	return err
}

func (s *Shipper) stageFile(ctx context.Context, pod Pod, st api.Status, d api.Digest, path string, sh *shipment) (err error) {
	if path == "" {
		return &api.Problem{Code: "pod-error", Message: fmt.Sprintf("the pod asks for %s, which the manifest does not have", d)}
	}
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("send %s: %w", filepath.Base(path), err)
	}
	defer func() {
		if err == nil {
			sh.files++
		}
	}()
	blob := api.Blob{Digest: d, Size: fi.Size()}
	if st.SharesFiles {
		blob.Encoding, blob.Path = api.EncodingPath, path
		return pod.Stage(ctx, blob, bytes.NewReader(nil))
	}
	blob.Encoding = api.EncodingZstd
	return stageStream(ctx, pod, blob, sh, func(ctx context.Context, w io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return delta.Compress(ctx, w, f)
	})
}

// stageStream sends what encode writes, as it writes it: the pod applies while this side still computes.
func stageStream(ctx context.Context, pod Pod, b api.Blob, sh *shipment, encode func(context.Context, io.Writer) error) error {
	pr, pw := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := encode(ctx, pw)
		pw.CloseWithError(err)
		done <- err
	}()
	err := pod.Stage(ctx, b, &countReader{pr, &sh.bytes})
	cancel()
	pr.CloseWithError(context.Canceled) // the pod refused early: encode need not go on
	encErr := <-done
	if err != nil && encErr != nil && !errors.Is(encErr, context.Canceled) && !errors.Is(encErr, io.ErrClosedPipe) {
		return encErr
	}
	return err
}

type countReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (e *Executable) data() ([]byte, error) {
	if e.Data != nil {
		return e.Data, nil
	}
	b, err := os.ReadFile(e.Path)
	if err != nil {
		return nil, fmt.Errorf("read the built executable: %w", err)
	}
	return b, nil
}

// baseFor returns an indexed executable that the pod has, from memory or from Dir; nil when there is none.
func (s *Shipper) baseFor(ctx context.Context, st api.Status) *base {
	s.mu.Lock()
	b, ready := s.base, s.ready
	s.mu.Unlock()
	has := map[api.Digest]bool{}
	for _, d := range st.Blobs {
		has[d] = true
	}
	if b != nil && has[b.digest] {
		select {
		case <-ready:
			return b
		case <-ctx.Done():
			return nil
		}
	}
	for _, d := range st.Blobs {
		data, err := os.ReadFile(s.path(d))
		if err != nil {
			continue
		}
		return &base{d, delta.NewIndex(data)} // a wrong content shows in the pod, and is then sent whole
	}
	return nil
}

func (s *Shipper) path(d api.Digest) string {
	return filepath.Join(s.Dir, strings.TrimPrefix(string(d), "sha256:"))
}

// remember makes exe the base of the next difference. Its index is made now, off the path of any edit.
func (s *Shipper) remember(exe Executable, shares bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if shares || s.base != nil && s.base.digest == exe.Digest {
		return
	}
	b := &base{digest: exe.Digest}
	ready := make(chan struct{})
	s.base, s.ready = b, ready
	s.wg.Go(func() { // ends by itself, in tens of milliseconds
		defer close(ready)
		data, err := exe.data()
		if err == nil {
			b.index = delta.NewIndex(data)
		} else {
			b.index = delta.NewIndex(nil)
		}
		s.keepFile(exe)
	})
}

// keepFile keeps the base for the next run of the agent, and nothing older.
func (s *Shipper) keepFile(exe Executable) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return // only the next run's first transfer is larger for it
	}
	p := s.path(exe.Digest)
	if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
		tmp := p + ".new"
		os.Remove(tmp)
		if os.Link(exe.Path, tmp) != nil {
			data, err := exe.data()
			if err != nil || os.WriteFile(tmp, data, 0o600) != nil {
				os.Remove(tmp)
				return
			}
		}
		os.Rename(tmp, p)
	}
	ents, _ := os.ReadDir(s.Dir)
	for _, e := range ents {
		if e.Name() != filepath.Base(p) {
			os.Remove(filepath.Join(s.Dir, e.Name()))
		}
	}
}
