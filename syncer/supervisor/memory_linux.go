package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Delve's memory at its peak, by the executable's size: 46 MB with one of 11.3 MB, 121 with one of 53 (services built with
// -N -l, symbols not compressed; BenchmarkDebugSwap), so about twice the size and 24 MB. A kernel that
// runs out of memory ends the whole container, so rather a little too much.
func debuggerNeeds(executable int64) int64 { return 24<<20 + 2*executable }

// roomLeft is how much memory the cgroup still gives, and whether there is a limit at all. What the page cache could
// give back counts as free, as the kubelet reckons (memory.current less inactive_file).
func roomLeft() (int64, bool) {
	dir := "/sys/fs/cgroup"
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(b)) {
			if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				dir = filepath.Join(dir, p)
			}
		}
	}
	return roomIn(dir)
}

// roomIn is roomLeft for a cgroup's folder: the smallest room of it and those above.
func roomIn(dir string) (room int64, limited bool) {
	for ; strings.HasPrefix(dir, "/sys/fs/cgroup") || limited; dir = filepath.Dir(dir) {
		if n, ok := roomOf(dir); ok && (!limited || n < room) {
			room, limited = n, true
		}
		if dir == "/sys/fs/cgroup" || dir == "/" {
			break
		}
	}
	return room, limited
}

func roomOf(dir string) (int64, bool) {
	read := func(name string) (int64, bool) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max" is no number
		return n, err == nil
	}
	most, ok := read("memory.max")
	if !ok {
		return 0, false
	}
	now, ok := read("memory.current")
	if !ok {
		return 0, false
	}
	b, _ := os.ReadFile(filepath.Join(dir, "memory.stat"))
	for line := range strings.Lines(string(b)) {
		var n int64
		if _, err := fmt.Sscanf(line, "inactive_file %d", &n); err == nil {
			now -= n
		}
	}
	return most - max(now, 0), true
}
