package kube

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// imageUser is who the image's processes run as where nothing else is said: the "nonroot" of distroless images.
const imageUser = "65532"

// payload is what the supervisor's image is made of.
type payload struct {
	exe    map[string][]byte // by architecture
	ca     []byte
	digest string // of all of it
}

func readPayload(o Options) (*payload, error) {
	if o.Payload == nil {
		return nil, errors.New("read fairlead-pod: there is none in this build")
	}
	p := &payload{exe: map[string][]byte{}, ca: o.CABundle}
	archs := [...]string{"amd64", "arm64"}
	var exes [len(archs)][]byte
	var errs [len(archs)]error
	var sums [len(archs)][sha256.Size]byte
	var wg sync.WaitGroup
	for i, a := range archs {
		wg.Go(func() {
			exes[i], errs[i] = o.Payload(a)
			sums[i] = sha256.Sum256(exes[i])
		})
	}
	wg.Wait()
	h := sha256.New()
	io.WriteString(h, "image 1\n") // a change of how the image is built counts this up
	for i, a := range archs {
		switch {
		case errors.Is(errs[i], errors.ErrUnsupported):
			continue
		case errs[i] != nil:
			return nil, fmt.Errorf("read fairlead-pod for linux/%s: %w", a, errs[i])
		}
		p.exe[a] = exes[i]
		fmt.Fprintf(h, "%s %x\n", a, sums[i])
	}
	if len(p.exe) == 0 {
		return nil, errors.New("read fairlead-pod: there is none in this build")
	}
	fmt.Fprintf(h, "ca %x\n", sha256.Sum256(p.ca))
	p.digest = hex.EncodeToString(h.Sum(nil))
	return p, nil
}

// image builds the multi-platform image. The same payload gives the same digest, on any machine.
func (p *payload) image() (v1.ImageIndex, error) {
	var ca *layer
	var err error
	if len(p.ca) > 0 {
		if ca, err = newLayer("etc/ssl/certs/ca-certificates.crt", 0o644, p.ca); err != nil {
			return nil, err
		}
	}
	archs := [...]string{"amd64", "arm64"}
	var layers [len(archs)]*layer
	var errs [len(archs)]error
	var wg sync.WaitGroup
	for i, a := range archs {
		if exe, ok := p.exe[a]; ok {
			wg.Go(func() { layers[i], errs[i] = newLayer("fairlead-pod", 0o755, exe) })
		}
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, a := range archs {
		if layers[i] == nil {
			continue
		}
		var add []v1.Layer
		add = append(add, layers[i])
		if ca != nil {
			add = append(add, ca)
		}
		img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
		if img, err = mutate.AppendLayers(img, add...); err != nil {
			return nil, err
		}
		cf, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		cf = cf.DeepCopy()
		cf.OS, cf.Architecture = "linux", a
		cf.Config = v1.Config{Entrypoint: []string{"/fairlead-pod"}, User: imageUser + ":" + imageUser, WorkingDir: "/"}
		if img, err = mutate.ConfigFile(img, cf); err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: a}}})
	}
	return index, nil
}

// layer is one file, as a layer that is compressed once and kept: go-containerregistry's own would compress it for
// the digest and again for the upload.
type layer struct {
	tar, gz        []byte
	diffID, digest v1.Hash
}

// newLayer puts a file and the folders above it in a layer, with no time and no owner.
func newLayer(file string, mode int64, content []byte) (*layer, error) {
	var t bytes.Buffer
	t.Grow(len(content) + 8<<10)
	w := tar.NewWriter(&t)
	var err error
	for i, c := range file {
		if c == '/' && err == nil {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: file[:i+1], Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
		}
	}
	if err == nil {
		err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	}
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	var z bytes.Buffer
	if err == nil {
		// The fastest level: an image is pushed once per version of Fairlead, and somebody waits for it.
		g, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
		if _, err = g.Write(t.Bytes()); err == nil {
			err = g.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make image layer %s: %w", path.Base(file), err)
	}
	l := &layer{tar: t.Bytes(), gz: z.Bytes()}
	l.diffID, _, _ = v1.SHA256(bytes.NewReader(l.tar))
	l.digest, _, _ = v1.SHA256(bytes.NewReader(l.gz))
	return l, nil
}

func (l *layer) Digest() (v1.Hash, error) { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error) { return l.diffID, nil }
func (l *layer) Size() (int64, error)     { return int64(len(l.gz)), nil }
func (l *layer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.gz)), nil
}
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.tar)), nil
}
func (l *layer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

// registry is where the supervisor's image goes.
type registry struct {
	repo    name.Repository
	address string
	pull    *remote.Puller
	push    *remote.Pusher
}

// openRegistry parses the address; it sends nothing yet.
func openRegistry(o Options) (*registry, error) {
	if o.Registry == "" {
		return nil, &api.Problem{Code: "no-registry", Message: "there is no image registry to bring the supervisor to the cluster with",
			Hint: "name one that this machine can push to and the cluster can pull from: --registry HOST[:PORT][/PATH], or kubernetes: registry: in fairlead.yaml"}
	}
	address := strings.TrimSuffix(o.Registry, "/")
	repo, err := name.NewRepository(address + "/fairlead-pod")
	if err != nil || strings.Contains(address, "://") {
		why := "it is HOST[:PORT][/PATH] without a scheme"
		if err != nil {
			why = oneLine(err.Error())
		}
		return nil, &api.Problem{Code: "bad-registry", Message: fmt.Sprintf("registry %q: %s", o.Registry, why),
			Hint: "write it as HOST[:PORT][/PATH], with --registry or kubernetes: registry: in fairlead.yaml"}
	}
	opts := registryOptions(o)
	r := &registry{repo: repo, address: address}
	if r.pull, err = remote.NewPuller(opts...); err != nil {
		return nil, fmt.Errorf("open registry %s: %w", address, err)
	}
	if r.push, err = remote.NewPusher(opts...); err != nil {
		return nil, fmt.Errorf("open registry %s: %w", address, err)
	}
	return r, nil
}

func registryOptions(o Options) []remote.Option {
	return []remote.Option{
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("fairlead/" + o.Version),
		// A second try is for a hiccup; who waits here would rather be told.
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Steps: 2}),
	}
}

// tag names the image of a payload.
func (r *registry) tag(p *payload) name.Tag { return r.repo.Tag(p.digest[:12]) }

// find looks for the image of a payload, and returns its reference by digest, or "".
func (r *registry) find(ctx context.Context, p *payload) (string, error) {
	d, err := r.pull.Head(ctx, r.tag(p))
	if err == nil {
		return r.repo.Digest(d.Digest.String()).String(), nil
	}
	var te *transport.Error
	// Some registries answer 401 or 403 for a repository that does not exist yet; the push will tell.
	if errors.As(err, &te) && (te.StatusCode == http.StatusNotFound || te.StatusCode == http.StatusUnauthorized || te.StatusCode == http.StatusForbidden) {
		return "", nil
	}
	return "", r.explain("look for the supervisor's image", err)
}

// write pushes an image and returns its reference by digest.
func (r *registry) write(ctx context.Context, p *payload, img v1.ImageIndex) (string, error) {
	if err := r.push.Push(ctx, r.tag(p), img); err != nil {
		return "", r.explain("push the supervisor's image", err)
	}
	d, err := img.Digest()
	if err != nil {
		return "", fmt.Errorf("push the supervisor's image: %w", err)
	}
	return r.repo.Digest(d.String()).String(), nil
}

func (r *registry) explain(act string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var te *transport.Error
	if errors.As(err, &te) && (te.StatusCode == http.StatusUnauthorized || te.StatusCode == http.StatusForbidden) {
		return &api.Problem{Code: "registry-denied", Message: fmt.Sprintf("%s: registry %s does not let you: %s", act, r.address, oneLine(err.Error())),
			Hint: "log in to it (docker login " + r.repo.RegistryStr() + "), or name another with --registry"}
	}
	return &api.Problem{Code: "registry-unreachable", Message: fmt.Sprintf("%s: registry %s: %s", act, r.address, oneLine(err.Error())),
		Hint: "is it running, and is its address right? It is set with --registry or kubernetes: registry: in fairlead.yaml"}
}

// pingRegistry tells whether the registry answers.
func pingRegistry(ctx context.Context, o Options) error {
	r, err := openRegistry(o)
	if err != nil {
		return err
	}
	_, err = r.find(ctx, &payload{digest: "000000000000"})
	return err
}

// imageConfig is what an image says of how its process is started.
func imageConfig(ctx context.Context, o Options, image, arch string) (*v1.Config, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image, err)
	}
	opts := append(registryOptions(o), remote.WithContext(ctx), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
	img, err := remote.Image(ref, opts...)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image, err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image, err)
	}
	return &cf.Config, nil
}
