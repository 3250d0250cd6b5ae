package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

type mount struct {
	point, fsType, superOptions string
}

// parseMounts reads /proc/self/mountinfo: fields, a lone dash, then type,
// source and options of the file system.
func parseMounts(content string) ([]mount, error) {
	var mounts []mount
	for line := range strings.Lines(content) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 3 {
			return nil, fmt.Errorf("parse mountinfo: bad line %q", line)
		}
		mounts = append(mounts, mount{point: unescape(fields[4]), fsType: rest[0], superOptions: rest[2]})
	}
	return mounts, nil
}

// unescape undoes the kernel's \040 for a space and its like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// UnmountBelow unmounts all that is mounted below dir, the latest first.
func UnmountBelow(dir string) error {
	// More than once: a mount point may have been mounted over.
	for range 10 {
		content, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return fmt.Errorf("unmount below %s: %w", dir, err)
		}
		mounts, err := parseMounts(string(content))
		if err != nil {
			return fmt.Errorf("unmount below %s: %w", dir, err)
		}
		found := false
		for _, m := range slices.Backward(mounts) {
			if !strings.HasPrefix(m.point, dir+string(filepath.Separator)) {
				continue
			}
			found = true
			// Detached, since a dying process may hold it a moment longer.
			// EINVAL: it went with the mount that it was made on.
			if err := syscall.Unmount(m.point, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("unmount %s: %w", m.point, err)
			}
		}
		if !found {
			return nil
		}
	}
	return fmt.Errorf("unmount below %s: mounts keep coming", dir)
}
