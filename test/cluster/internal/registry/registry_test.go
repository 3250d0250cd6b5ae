package registry

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func serve(t *testing.T, dir string) *httptest.Server {
	t.Helper()
	h, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func image(t *testing.T, content string) v1.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	img, err := Image(path, "program", "65532:65532")
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t *testing.T, s *httptest.Server, ref string) (string, error) {
	t.Helper()
	r, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://")+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Get(r)
	if err != nil {
		return "", err
	}
	return d.Digest.String(), nil
}

func TestContentSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	host := strings.TrimPrefix(s.URL, "http://")
	old, img := image(t, "one"), image(t, "two")
	for _, i := range []v1.Image{old, img} { // the tag moves
		if err := Push(i, host+"/a/b:latest"); err != nil {
			t.Fatal(err)
		}
	}
	if err := Push(old, host+"/a/gone:1"); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, s.URL+"/v2/a/gone/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("delete: status %d", resp.StatusCode)
	}
	// An index is put after its children, and must be on the way back too.
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})
	ref, err := name.ParseReference(host+"/a/b:index", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	s.Close()

	s = serve(t, dir)
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := digest(t, s, "a/b:latest"); err != nil || got != want.String() {
		t.Errorf("latest: %s, %v, want %s", got, err, want)
	}
	if _, err := digest(t, s, "a/b:index"); err != nil {
		t.Errorf("index: %v", err)
	}
	if got, err := digest(t, s, "a/gone:1"); err == nil {
		t.Errorf("deleted, but there: %s", got)
	}
}

func TestARefusedManifestIsNotKept(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL+"/v2/a/manifests/1", strings.NewReader("{"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		t.Fatalf("put of nonsense: status %d", resp.StatusCode)
	}
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
}

func TestImageIsTheSameForTheSameProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock moves on
		a, err := image(t, "x").Digest()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		b, err := image(t, "x").Digest()
		if err != nil {
			t.Fatal(err)
		}
		if a != b {
			t.Errorf("digests %s and %s", a, b)
		}
	})
}
