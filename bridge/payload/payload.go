// Package payload carries the pod's executable, fairlead-pod, for each architecture a pod can have, so that the agent
// needs nothing beside it. `make build` puts the files in (see files/README); without them Executable says so.
package payload

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"fairlead.dev/api"
)

//go:embed all:files
var files embed.FS

// Environment variable that names a folder with fairlead-pod-linux-ARCH to use in place of what is embedded: for tests
// and for developing Fairlead itself.
const override = "FAIRLEAD_PAYLOAD"

// Archs lists the architectures that an agent with a full payload serves.
var Archs = []string{"amd64", "arm64"}

// Executable returns fairlead-pod for linux on an architecture.
func Executable(arch string) ([]byte, error) {
	name := "fairlead-pod-linux-" + arch
	if dir := os.Getenv(override); dir != "" {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("read the pod's executable: %w", err)
		}
		return b, nil
	}
	b, err := files.ReadFile("files/" + name + ".zst")
	if err != nil {
		known := false
		for _, a := range Archs {
			known = known || a == arch
		}
		if !known {
			return nil, &api.Problem{Code: "unsupported-arch", Message: fmt.Sprintf("there is no pod's side of Fairlead for linux/%s", arch),
				Hint: "use a node of amd64 or arm64 (node selectors in the staging Deployment are kept)"}
		}
		return nil, &api.Problem{Code: "no-payload", Message: "this fairlead was built without the pod's side for linux/" + arch, Hint: "build it with make build"}
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		return nil, fmt.Errorf("unpack the pod's executable: %w", err)
	}
	defer dec.Close()
	out, err := dec.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack the pod's executable: %w", err)
	}
	return out, nil
}

// Digest names a payload in file names and image tags: the first 12 hexadecimal digits of its SHA-256.
func Digest(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:6])
}
