package syncer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/syncer/delta"
)

// memPod is a pod with a store in memory. It can be told to refuse what comes.
type memPod struct {
	blobs  map[api.Digest][]byte
	st     api.Status
	refuse []string       // the codes with which the next blobs are refused; "" takes one
	came   []api.Encoding // of each blob
}

func digestOf(b []byte) api.Digest {
	s := sha256.Sum256(b)
	return api.Digest("sha256:" + hex.EncodeToString(s[:]))
}

func (p *memPod) Status(context.Context) (api.Status, error) {
	st := p.st
	for d := range p.blobs {
		st.Blobs = append(st.Blobs, d)
	}
	return st, nil
}

func (p *memPod) Stage(ctx context.Context, b api.Blob, r io.Reader) error {
	p.came = append(p.came, b.Encoding)
	if len(p.refuse) > 0 {
		code := p.refuse[0]
		p.refuse = p.refuse[1:]
		if code != "" {
			return &api.Problem{Code: code, Message: "refused"}
		}
	}
	var out bytes.Buffer
	var err error
	switch b.Encoding {
	case api.EncodingDelta:
		err = delta.Apply(ctx, &out, r, p.blobs[b.Base], b.Size)
	case api.EncodingZstd:
		err = delta.Decompress(ctx, &out, r, b.Size)
	}
	if err != nil || digestOf(out.Bytes()) != b.Digest {
		return &api.Problem{Code: api.CodeBlobCorrupt, Message: "corrupt"}
	}
	if p.blobs == nil {
		p.blobs = map[api.Digest][]byte{}
	}
	p.blobs[b.Digest] = out.Bytes()
	return nil
}

func (p *memPod) Swap(_ context.Context, m api.Manifest) (api.Status, error) {
	if p.blobs[m.Executable.Digest] == nil {
		return api.Status{}, &api.Problem{Code: api.CodeBlobMissing, Message: "missing", Missing: []api.Digest{m.Executable.Digest}}
	}
	p.st.Generation, p.st.Digest = m.Generation, m.Executable.Digest
	return p.st, nil
}

// program makes an executable of some 400 KB that differs a little from one generation to the next.
func program(t *testing.T, n byte) Executable {
	t.Helper()
	data := make([]byte, 400<<10)
	r := rand.NewChaCha8([32]byte{})
	r.Read(data)
	data[1000], data[200_000] = n, n
	e := Executable{Path: filepath.Join(t.TempDir(), "x"), Digest: digestOf(data), Size: int64(len(data)), Data: data}
	if err := os.WriteFile(e.Path, data, 0o700); err != nil {
		t.Fatal(err)
	}
	return e
}

func manifest(g api.Generation, e Executable) api.Manifest {
	return api.Manifest{Generation: g, Executable: api.File{Path: "x", Mode: 0o755, Size: e.Size, Digest: e.Digest}}
}

// What is refused is sent whole, once, and the reason is told; what is damaged on its way then is sent once more.
func TestShipRefused(t *testing.T) {
	const d, w = api.EncodingDelta, api.EncodingZstd
	for name, c := range map[string]struct {
		refuse []string
		came   []api.Encoding
		full   bool
		code   string
	}{
		"taken":                  {nil, []api.Encoding{d}, false, ""},
		"damaged difference":     {[]string{api.CodeBlobCorrupt}, []api.Encoding{d, w}, true, ""},
		"base gone":              {[]string{api.CodeBaseMissing}, []api.Encoding{d, w}, true, ""},
		"whole one damaged too":  {[]string{api.CodeBaseMissing, api.CodeBlobCorrupt}, []api.Encoding{d, w, w}, true, ""},
		"always damaged":         {[]string{api.CodeBlobCorrupt, api.CodeBlobCorrupt, api.CodeBlobCorrupt}, []api.Encoding{d, w, w}, true, api.CodeBlobCorrupt},
		"connection lost":        {[]string{api.CodeLost}, []api.Encoding{d}, false, api.CodeLost},
		"lost in the second one": {[]string{api.CodeBlobCorrupt, api.CodeLost}, []api.Encoding{d, w}, true, api.CodeLost},
	} {
		t.Run(name, func(t *testing.T) {
			pod, sh := &memPod{}, &Shipper{Dir: t.TempDir()}
			t.Cleanup(sh.Wait)
			one, two := program(t, 1), program(t, 2)
			ev, _, err := sh.Ship(t.Context(), pod, manifest(1, one), one, nil)
			if err != nil || !ev.Full || ev.Files != 1 || ev.Reason == "" || !slices.Equal(pod.came, []api.Encoding{w}) {
				t.Fatalf("first: %+v %v %v", ev, pod.came, err)
			}
			pod.refuse, pod.came = c.refuse, nil
			ev, st, err := sh.Ship(t.Context(), pod, manifest(2, two), two, nil)
			var p *api.Problem
			if errors.As(err, &p) && p.Code != c.code || (err == nil) != (c.code == "") {
				t.Fatalf("%v, want %q", err, c.code)
			}
			if !slices.Equal(pod.came, c.came) || ev.Full != c.full || c.full != (ev.Reason != "") {
				t.Errorf("%v came, %+v", pod.came, ev)
			}
			if err == nil && st.Digest != two.Digest {
				t.Errorf("the pod runs %s", st.Digest)
			}
			if err == nil && !c.full && ev.Bytes > two.Size/20 {
				t.Errorf("%d bytes travelled of %d", ev.Bytes, two.Size)
			}
		})
	}
}

// The base is kept for the next run of the agent, nothing older is, and one that is not what its name says costs a whole
// transfer and no more.
func TestShipKeepsItsBase(t *testing.T) {
	pod, dir := &memPod{}, t.TempDir()
	one, two, three := program(t, 1), program(t, 2), program(t, 3)
	ship := func(g api.Generation, e Executable) api.TransferEvent {
		t.Helper()
		sh := &Shipper{Dir: dir} // an agent of its own each time
		ev, st, err := sh.Ship(t.Context(), pod, manifest(g, e), e, nil)
		sh.Wait()
		if err != nil || st.Digest != e.Digest {
			t.Fatalf("generation %d: %+v %v", g, st, err)
		}
		ents, err := os.ReadDir(dir)
		if err != nil || len(ents) != 1 || "sha256:"+ents[0].Name() != string(e.Digest) {
			t.Fatalf("kept after generation %d: %v %v", g, ents, err)
		}
		return ev
	}
	if ev := ship(1, one); !ev.Full {
		t.Errorf("an empty pod: %+v", ev)
	}
	if ev := ship(2, two); ev.Full {
		t.Errorf("another agent on the same machine: %+v", ev)
	}
	kept := filepath.Join(dir, string(two.Digest[len("sha256:"):]))
	bad := bytes.Clone(two.Data)
	bad[300_000] ^= 1
	os.Remove(kept) // it shares its content with the executable
	if err := os.WriteFile(kept, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if ev := ship(3, three); !ev.Full || ev.Reason == "" {
		t.Errorf("over a damaged base: %+v", ev)
	}
}
