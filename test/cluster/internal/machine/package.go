package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// cniDirs are where distributions and upstream put the network plugins.
var cniDirs = [...]string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

// cniPlugins are those that the cluster's network is made with.
var cniPlugins = [...]string{"ptp", "host-local", "loopback"}

// CNIDir returns the folder with the network plugins, or "".
func CNIDir() string {
dirs:
	for _, dir := range cniDirs {
		for _, plugin := range cniPlugins {
			if _, err := os.Stat(filepath.Join(dir, plugin)); err != nil {
				continue dirs
			}
		}
		return dir
	}
	return ""
}

// MissingPackages returns the Debian packages whose programs are not there.
// It looks for the programs, not for the packages: a machine with Docker has a
// runc from elsewhere, and Debian's package would evict Docker.
func MissingPackages() []string {
	var missing []string
	for _, need := range []struct{ tool, pkg string }{
		{"runc", "runc"},
		{"nft", "nftables"},
		{"ip", "iproute2"},
		{"mount", "mount"},
	} {
		if Find(need.tool) == "" {
			missing = append(missing, need.pkg)
		}
	}
	if CNIDir() == "" {
		missing = append(missing, "containernetworking-plugins")
	}
	return missing
}

// InstallPackages installs what is missing with apt-get. Its output goes to
// stderr, as stdout belongs to the command's result.
func InstallPackages(ctx context.Context, missing []string) error {
	apt := Find("apt-get")
	if apt == "" {
		return errors.New("install packages: no apt-get on this machine; it takes runc, nft, ip, mount and the CNI plugins from any source")
	}
	for _, args := range [][]string{
		{"update"},
		append([]string{"install", "-y", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("install packages: apt-get %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}
