// Package registry is the image registry of the test cluster: the one of
// go-containerregistry with its content on disk, so that stopping and starting
// it loses nothing and its memory stays small, and the making of images that
// hold one static program.
package registry

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Handler serves a registry whose blobs and manifests are kept in a folder.
//
// The library keeps manifests in memory only. They are written down here as
// they pass and put again, in their order, by Open.
type Handler struct {
	inner http.Handler
	dir   string // of the manifests

	mu sync.Mutex // keeps the file and the library's memory in the same order
}

// record is a manifest as it was put.
type record struct {
	Path        string `json:"path"`
	ContentType string `json:"contentType"`
	Body        []byte `json:"body"`
	// Time orders records: an index is refused before its children are there.
	Time time.Time `json:"time"`
}

// Open returns the registry kept in dir, which is made if need be.
func Open(dir string) (*Handler, error) {
	h := &Handler{dir: filepath.Join(dir, "manifests")}
	blobs := filepath.Join(dir, "blobs")
	for _, d := range []string{h.dir, blobs} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open registry: %w", err)
		}
	}
	h.inner = registry.New(
		registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)),
		registry.Logger(log.New(io.Discard, "", 0)), // a line per blob tells nothing
	)
	records, err := h.load()
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	for _, r := range records {
		req := &http.Request{
			Method: http.MethodPut,
			URL:    &url.URL{Path: r.Path},
			Header: http.Header{"Content-Type": {r.ContentType}},
			Body:   io.NopCloser(bytes.NewReader(r.Body)),
		}
		var answer status
		h.inner.ServeHTTP(&answer, req)
		if !answer.ok() {
			return nil, fmt.Errorf("open registry: put %s again: status %d", r.Path, answer.code)
		}
	}
	return h, nil
}

func (h *Handler) load() ([]record, error) {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return nil, err
	}
	var records []record
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" {
			continue // left by a write that was cut short
		}
		content, err := os.ReadFile(filepath.Join(h.dir, e.Name()))
		if err != nil {
			return nil, err
		}
		var r record
		if err := json.Unmarshal(content, &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", e.Name(), err)
		}
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b record) int { return a.Time.Compare(b.Time) })
	return records, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	change := req.Method == http.MethodPut || req.Method == http.MethodDelete
	if !change || !isManifest(req.URL.Path) {
		h.inner.ServeHTTP(w, req)
		return
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, 8<<20)) // manifests are a few KiB
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))

	h.mu.Lock()
	defer h.mu.Unlock()
	// First the library, which judges the manifest, into a buffer; then the
	// disk; then the answer, so that what was acknowledged is kept.
	answer := status{head: w.Header()}
	h.inner.ServeHTTP(&answer, req)
	if answer.ok() {
		if req.Method == http.MethodPut {
			err = h.save(record{req.URL.Path, req.Header.Get("Content-Type"), body, time.Now()})
		} else {
			err = os.Remove(h.file(req.URL.Path))
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	w.WriteHeader(answer.code)
	_, _ = w.Write(answer.body.Bytes()) // the client is gone: nothing to do
}

func isManifest(path string) bool {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	return len(parts) >= 4 && parts[0] == "v2" && parts[len(parts)-2] == "manifests"
}

func (h *Handler) file(path string) string {
	return filepath.Join(h.dir, fmt.Sprintf("%x.json", sha256.Sum256([]byte(path))))
}

func (h *Handler) save(r record) error {
	content, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	path := h.file(r.Path)
	if err := os.WriteFile(path+".tmp", content, 0o600); err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	return nil
}

// status is a ResponseWriter that holds the answer back.
type status struct {
	head http.Header
	code int
	body bytes.Buffer
}

func (s *status) Header() http.Header {
	if s.head == nil {
		s.head = http.Header{}
	}
	return s.head
}

func (s *status) WriteHeader(code int) {
	if s.code == 0 {
		s.code = code
	}
}

func (s *status) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return s.body.Write(p)
}

func (s *status) ok() bool { return s.code >= 200 && s.code < 300 }

// Image returns an image for this machine with nothing but the program at
// path, as /name, run by the given numeric user.
func Image(path, program, user string) (v1.Image, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	// The epoch as time keeps the digest the same for the same program.
	header := &tar.Header{Name: program, Mode: 0o755, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := errors.Join(tw.WriteHeader(header), write(tw, content), tw.Close()); err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	})
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: []string{"/" + program}, User: user}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	return img, nil
}

func write(w io.Writer, p []byte) error {
	_, err := w.Write(p)
	return err
}

// Push puts img into a registry that speaks plain HTTP.
func Push(img v1.Image, reference string) error {
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return fmt.Errorf("push image: %w", err)
	}
	if err := remote.Write(ref, img); err != nil {
		return fmt.Errorf("push image %s: %w", reference, err)
	}
	return nil
}
