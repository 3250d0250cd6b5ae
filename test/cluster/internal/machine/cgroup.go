package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cgroup is a control group that holds every process of the cluster: its
// programs, the shims, and the pods, which the kubelet places below it.
//
// It is the second record of what the cluster started, beside the pidfiles,
// and the one that cannot be lost: a process cannot leave it, and it is there
// when the state folder was removed or a command was killed between starting a
// program and noting it.
type Cgroup struct {
	Name string
	// mounts are the hierarchies to make it in: one with cgroup v2, one per
	// controller with v1. The first is the one that members are read from.
	mounts  []string
	unified bool
}

// daemons is the child for the programs: with cgroup v2 a group that has
// children with controllers cannot hold processes itself.
const daemons = "daemons"

// FindCgroup returns the control group of that name; it need not exist.
func FindCgroup(name string) (*Cgroup, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	mounts, err := parseMounts(string(content))
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	g, err := cgroupIn(name, mounts)
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	return g, nil
}

func cgroupIn(name string, mounts []mount) (*Cgroup, error) {
	const root = "/sys/fs/cgroup"
	g := &Cgroup{Name: name}
	for _, m := range mounts {
		switch {
		case m.fsType == "cgroup2" && m.point == root:
			return &Cgroup{Name: name, mounts: []string{root}, unified: true}, nil
		// Where v1 and v2 are mixed, runc makes its groups in the v2 hierarchy
		// too, though it has no controllers: they have to go in the end.
		case strings.HasPrefix(m.fsType, "cgroup") && strings.HasPrefix(m.point, root+"/") && !slices.Contains(g.mounts, m.point):
			// The pids controller exists for counting processes, so members
			// are read there; the kubelet requires it anyway.
			if slices.Contains(strings.Split(m.superOptions, ","), "pids") {
				g.mounts = slices.Insert(g.mounts, 0, m.point)
			} else {
				g.mounts = append(g.mounts, m.point)
			}
		}
	}
	if len(g.mounts) == 0 {
		return nil, errors.New("none mounted below " + root)
	}
	return g, nil
}

// Create makes the group, ready for the kubelet to make groups below it.
func (g *Cgroup) Create() error {
	for _, m := range g.mounts {
		path := filepath.Join(m, g.Name)
		if g.unified {
			if err := delegate(m); err != nil {
				return fmt.Errorf("make control group: %w", err)
			}
		}
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
		// A new v1 cpuset is empty, and nothing can run in an empty one.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if !g.unified {
				if err := inherit(m, path, file); err != nil {
					return fmt.Errorf("make control group: %w", err)
				}
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(g.mounts[0], g.Name, daemons), 0o755); err != nil {
		return fmt.Errorf("make control group: %w", err)
	}
	return nil
}

// delegate lets children of a v2 group have the controllers that the kubelet
// looks for.
func delegate(path string) error {
	have, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(have)) {
		switch c {
		case "cpu", "cpuset", "memory", "pids", "hugetlb", "io":
			if err := os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func inherit(from, to, file string) error {
	value, err := os.ReadFile(filepath.Join(from, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another controller's hierarchy
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, file), value, 0)
}

// Adopt moves a process, and what it will start, into the group.
func (g *Cgroup) Adopt(pid int) error {
	path := filepath.Join(g.mounts[0], g.Name, daemons, "cgroup.procs")
	if err := os.WriteFile(path, []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("adopt process %d: %w", pid, err)
	}
	return nil
}

// Members returns the processes in the group and below it.
func (g *Cgroup) Members() ([]int, error) {
	return g.members(g.Name)
}

func (g *Cgroup) members(name string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(filepath.Join(g.mounts[0], name), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a pod's group went away, or there is no group at all
		}
		if err != nil {
			return err
		}
		if e.Name() != "cgroup.procs" {
			return nil
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(content)) {
			// 0 stands for a process of another pid namespace.
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read control group: %w", err)
	}
	return pids, nil
}

// KillPods ends all that the kubelet placed in the group.
func (g *Cgroup) KillPods(ctx context.Context) error {
	return g.kill(ctx, filepath.Join(g.Name, "kubepods"))
}

// KillAll ends every process in the group.
func (g *Cgroup) KillAll(ctx context.Context) error {
	return g.kill(ctx, g.Name)
}

func (g *Cgroup) kill(ctx context.Context, name string) error {
	const most = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// Again and again, as a member may fork between the list and the kill.
		pids, err := g.members(name)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			// ESRCH: it ended since. The pid cannot have gone to a stranger in
			// the microseconds between, as pids are handed out in a circle.
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill the processes in control group %s: %d are left: %w", name, len(pids), ctx.Err())
		case <-tick.C:
		}
	}
}

// Remove removes the group, which must have no members.
func (g *Cgroup) Remove() error {
	for _, m := range g.mounts {
		var groups []string
		err := filepath.WalkDir(filepath.Join(m, g.Name), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && e.IsDir() {
				groups = append(groups, path)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("remove control group: %w", err)
		}
		for _, path := range slices.Backward(groups) { // children first
			// A group stays busy for a moment after its last process is gone.
			if err := retryBusy(func() error { return syscall.Rmdir(path) }); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove control group %s: %w", path, err)
			}
		}
	}
	return nil
}

func retryBusy(act func() error) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := act()
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		<-time.After(10 * time.Millisecond)
	}
}
