// Package machine is what the test cluster needs from, and changes on, the
// machine outside its state folder: packages, control groups, mounts, the
// network and kernel settings. Whatever it changes it can take back, also for
// a cluster whose command was killed halfway.
//
// It must not know which programs the cluster is made of.
package machine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// SearchPath is the PATH of the cluster's programs and of the tools used here:
// a caller's own may lack the sbin folders where runc and nft live.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Find returns the path of a tool in SearchPath, or "".
func Find(tool string) string {
	for _, dir := range strings.Split(SearchPath, ":") {
		path := filepath.Join(dir, tool)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// run runs a tool and returns its output; its complaint is part of the error.
func run(ctx context.Context, tool string, args ...string) (string, error) {
	path := Find(tool)
	if path == "" {
		return "", fmt.Errorf("run %s: not found in %s", tool, SearchPath)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=" + SearchPath, "LC_ALL=C"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", tool, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
