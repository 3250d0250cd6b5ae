package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"fairlead.dev/api"
)

// saveState writes the manifest that is about to run, so that a supervisor that is started anew in the same folder (the
// container restarted, the process was killed) runs the same.
func (s *Supervisor) saveState(m *api.Manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	p := filepath.Join(s.opts.Dir, "manifest.json")
	if err := os.WriteFile(p+".new", b, 0o600); err != nil {
		os.Remove(p + ".new")
		return writeProblem("save state", err)
	}
	if err := os.Rename(p+".new", p); err != nil {
		return writeProblem("save state", err)
	}
	return nil
}

// saved reads what the folder says was running: nil unless its executable is there and has its digest. Trees in volumes
// of their own may have been lost with the pod: their files are then missing from the next manifest's point of view, and
// are asked for.
func (s *Supervisor) saved() *api.Manifest {
	b, err := os.ReadFile(filepath.Join(s.opts.Dir, "manifest.json"))
	if err != nil {
		return nil
	}
	var m api.Manifest
	if err := json.Unmarshal(b, &m); err != nil || checkFiles([]api.File{m.Executable}) != nil {
		s.opts.Logger.Warn("the saved manifest cannot be read; waiting for an agent", "err", err)
		return nil
	}
	if !s.store.verify(m.Executable.Digest) {
		s.opts.Logger.Warn("the saved executable is not what it was; waiting for an agent", "digest", m.Executable.Digest)
		return nil
	}
	return &m
}

// verify reads a blob again; one that is not what its name says is removed.
func (s *store) verify(d api.Digest) bool {
	if !validDigest(d) {
		return false
	}
	if got, err := digestOf(s.path(d)); err != nil || got != d {
		os.Remove(s.path(d))
		return false
	}
	return true
}
