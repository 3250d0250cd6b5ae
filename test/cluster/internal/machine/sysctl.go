package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// changedSysctls are the kernel settings that Kubernetes changes as it starts:
// the kubelet the first six, the network plugin the last.
var changedSysctls = [...]string{
	"vm/overcommit_memory",
	"vm/panic_on_oom",
	"kernel/panic",
	"kernel/panic_on_oops",
	"kernel/keys/root_maxkeys",
	"kernel/keys/root_maxbytes",
	"net/ipv4/ip_forward",
}

// Sysctls are kernel settings by their path below /proc/sys.
type Sysctls map[string]string

// ReadSysctls returns the settings that a cluster will change.
func ReadSysctls() (Sysctls, error) {
	s := Sysctls{}
	for _, name := range changedSysctls {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read kernel settings: %w", err)
		}
		s[name] = strings.TrimSpace(string(value))
	}
	return s, nil
}

// Restore puts the settings back that have changed since they were read.
func (s Sysctls) Restore() error {
	now, err := ReadSysctls()
	if err != nil {
		return err
	}
	for name, value := range s {
		if now[name] == value {
			continue
		}
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			return fmt.Errorf("restore kernel setting: %w", err)
		}
	}
	return nil
}

// RemoveTraces removes the files that programs of the cluster leave in places
// which cannot be configured: links to the logs of containers whose target is
// below dir, and the network library's cache of results for network.
func RemoveTraces(dir, network string) error {
	const links = "/var/log/containers"
	entries, err := os.ReadDir(links)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove links to logs: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(links, e.Name())
		target, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(target, dir+string(filepath.Separator)) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove links to logs: %w", err)
		}
	}
	results, err := filepath.Glob(filepath.Join("/var/lib/cni/results", network+"-*"))
	if err != nil {
		return fmt.Errorf("remove network results: %w", err)
	}
	for _, path := range results {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove network results: %w", err)
		}
	}
	return nil
}
