package kube

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// fakePayload is no executable; the API server does not look.
func fakePayload(arch string) ([]byte, error) { return []byte("an executable for " + arch), nil }

// testRegistry is a registry of the test's own, and the number of blobs that were pushed to it.
func testRegistry(t *testing.T) (address string, pushed *atomic.Int32) {
	t.Helper()
	pushed = new(atomic.Int32)
	h := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/blobs/uploads") {
			pushed.Add(1)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), pushed
}

func TestImage(t *testing.T) {
	address, pushed := testRegistry(t)
	o := Options{Registry: address + "/team/", Payload: fakePayload, CABundle: []byte("certificates")}
	ensure := func() (string, bool) {
		t.Helper()
		s := &survey{}
		var err error
		if s.payload, err = readPayload(o); err != nil {
			t.Fatal(err)
		}
		if err := s.findImage(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if s.unpushed == nil {
			return s.image, false
		}
		if pushed.Load() != 0 {
			t.Error("something was pushed before it was allowed to be")
		}
		ref, err := s.registry.write(t.Context(), s.payload, s.unpushed)
		if err != nil {
			t.Fatal(err)
		}
		if ref != s.image {
			t.Errorf("announced %s, pushed %s", s.image, ref)
		}
		return ref, true
	}
	ref, wasPushed := ensure()
	if !wasPushed || !strings.HasPrefix(ref, address+"/team/fairlead-pod@sha256:") {
		t.Errorf("%s, %v", ref, wasPushed)
	}
	n := pushed.Load()
	if again, twice := ensure(); again != ref || twice || pushed.Load() != n {
		t.Errorf("the second time: %s, pushed %v", again, twice)
	}

	r, err := name.NewDigest(ref)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, d := range m.Manifests {
		platforms = append(platforms, d.Platform.String())
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		cf, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if cf.Config.User != "65532:65532" || cf.OS+"/"+cf.Architecture != d.Platform.String() || !cf.Created.IsZero() {
			t.Errorf("config: %+v", cf)
		}
		want := []string{"-rwxr-xr-x fairlead-pod an executable for " + cf.Architecture,
			"drwxr-xr-x etc/ ", "drwxr-xr-x etc/ssl/ ", "drwxr-xr-x etc/ssl/certs/ ", "-rw-r--r-- etc/ssl/certs/ca-certificates.crt certificates"}
		if d := cmp.Diff(want, contents(t, img)); d != "" {
			t.Error(d)
		}
	}
	if d := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); d != "" {
		t.Error(d)
	}
}

func contents(t *testing.T, img v1.Image) (out []string) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		u, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		r := tar.NewReader(u)
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Uname != "" {
				t.Errorf("%s: %v, owner %d %q", h.Name, h.ModTime, h.Uid, h.Uname)
			}
			out = append(out, fmt.Sprintf("%s %s %s", h.FileInfo().Mode(), h.Name, b))
		}
	}
	return out
}

func TestPayload(t *testing.T) {
	digest := func(o Options) string {
		p, err := readPayload(o)
		if err != nil {
			t.Fatal(err)
		}
		return p.digest
	}
	a := digest(Options{Payload: fakePayload})
	if digest(Options{Payload: fakePayload}) != a {
		t.Error("the same is not the same")
	}
	if digest(Options{Payload: fakePayload, CABundle: []byte("x")}) == a {
		t.Error("a certificate changes nothing")
	}
	amd := Options{Payload: func(arch string) ([]byte, error) {
		if arch != "amd64" {
			return nil, errors.ErrUnsupported
		}
		return fakePayload(arch)
	}}
	if digest(amd) == a {
		t.Error("one architecture is as good as two")
	}
	p, err := readPayload(amd)
	if err != nil {
		t.Fatal(err)
	}
	index, err := p.image()
	if err != nil {
		t.Fatal(err)
	}
	if m, err := index.IndexManifest(); err != nil || len(m.Manifests) != 1 {
		t.Errorf("%v, %v", m, err)
	}
	if _, err := readPayload(Options{Payload: func(string) ([]byte, error) { return nil, errors.New("broken") }}); err == nil {
		t.Error("a broken payload is taken")
	}
	if _, err := readPayload(Options{}); err == nil {
		t.Error("no payload is taken")
	}
}

func TestRegistryProblems(t *testing.T) {
	denies := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer denies.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, c := range map[string]struct{ registry, code string }{
		"none":        {"", "no-registry"},
		"scheme":      {"http://registry.test", "bad-registry"},
		"capitals":    {"registry.test/Team", "bad-registry"},
		"unreachable": {strings.TrimPrefix(gone.URL, "http://"), "registry-unreachable"},
		"denied":      {strings.TrimPrefix(denies.URL, "http://"), "registry-denied"},
	} {
		o := Options{Registry: c.registry, Payload: fakePayload}
		s := &survey{}
		var err error
		if s.payload, err = readPayload(o); err != nil {
			t.Fatal(err)
		}
		err = s.findImage(t.Context(), o)
		if err == nil && s.unpushed != nil {
			_, err = s.registry.write(t.Context(), s.payload, s.unpushed)
		}
		wantCode(t, name, err, c.code)
	}
}

func BenchmarkImage(b *testing.B) {
	self, err := os.Executable() // of the supervisor's kind and size, more or less
	if err != nil {
		b.Fatal(err)
	}
	exe, err := os.ReadFile(self)
	if err != nil {
		b.Fatal(err)
	}
	exe = exe[:min(len(exe), 13<<20)]
	p := &payload{exe: map[string][]byte{"amd64": exe, "arm64": exe}}
	for b.Loop() {
		if _, err := p.image(); err != nil {
			b.Fatal(err)
		}
	}
}
