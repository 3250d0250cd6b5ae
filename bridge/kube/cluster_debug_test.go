//go:build linux

package kube

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/syncer/podtest"
)

// buildPod builds fairlead-pod once for all tests.
var buildPod = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "fairlead-pod")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "fairlead-pod")
	cmd := exec.Command("go", "build", "-ldflags=-s -w -X main.version=test", "-o", exe, "fairlead.dev/cmd/fairlead-pod")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(exe)
})

// The suite of debugging in a pod that passes Pod Security "restricted", its root read-only: no capability, no shared
// process namespace, the node's own seccomp profile.
func TestClusterDebug(t *testing.T) {
	r := realCluster(t)
	r.newNamespace(t, "restricted")
	if _, err := buildPod(); err != nil { // before anything has a deadline
		t.Fatal(err)
	}
	r.options.Payload = func(arch string) ([]byte, error) {
		if arch != runtime.GOARCH {
			return nil, errors.ErrUnsupported
		}
		return buildPod()
	}
	podtest.RunDebug(t, func(t *testing.T) podtest.Subject {
		spec := randomSpec()
		e := r.open(t, spec)
		c := bridge.New(bridge.Options{Dial: e.Dial, Token: spec.Token, Name: "tester"})
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		rec := &podtest.Recorder{}
		wg.Go(func() { c.Run(ctx) })
		wg.Go(func() { c.Events(ctx, "", 0, func(e api.Event) error { rec.Add(e); return nil }) })
		t.Cleanup(func() {
			cancel()
			wg.Wait()
			if err := e.Delete(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return podtest.Subject{Pod: c, Events: rec,
			Dial:     func(ctx context.Context, port int) (io.ReadWriteCloser, error) { return c.DialPort(ctx, port) },
			DebugPod: podtest.DebugPod{Debug: c.DialDebug, Release: c.ReleaseDebug, Start: c.StartTask, Task: c.DialTask, Core: c.DialCore}}
	})
}
