package machine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const (
	mixed = `20 1 0:19 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
21 20 0:20 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
22 20 0:21 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
23 20 0:22 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
24 20 0:23 / /mnt/with\040space rw - ext4 /dev/vda rw
`
	unified = `20 1 0:19 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
`
)

func TestCgroupIn(t *testing.T) {
	for _, test := range []struct {
		name, mounts string
		want         []string
		unified      bool
	}{
		{"mixed", mixed, []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu,cpuacct"}, false},
		{"unified", unified, []string{"/sys/fs/cgroup"}, true},
	} {
		mounts, err := parseMounts(test.mounts)
		if err != nil {
			t.Fatal(err)
		}
		g, err := cgroupIn("x", mounts)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(g.mounts, test.want) || g.unified != test.unified {
			t.Errorf("%s: %v, unified %v", test.name, g.mounts, g.unified)
		}
	}
	if _, err := cgroupIn("x", nil); err == nil {
		t.Error("no error without control groups")
	}
}

func TestParseMounts(t *testing.T) {
	mounts, err := parseMounts(mixed)
	if err != nil {
		t.Fatal(err)
	}
	if got := mounts[len(mounts)-1].point; got != "/mnt/with space" {
		t.Errorf("mount point %q", got)
	}
	if _, err := parseMounts("nonsense\n"); err == nil {
		t.Error("no error for nonsense")
	}
}

// On a plain folder, to see what a v2 hierarchy gets; a real one takes root.
func TestCgroupTree(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{"cgroup.controllers": "cpu memory pids misc\n", "cgroup.subtree_control": ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g := &Cgroup{Name: "x", mounts: []string{root}, unified: true}
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	// A real file takes one controller a write; here each write replaces the
	// last, so this is the last that was asked for. "misc" was not.
	got, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
	if err != nil || string(got) != "+pids" {
		t.Errorf("subtree_control %q, %v", got, err)
	}
	procs := filepath.Join(root, "x", daemons, "cgroup.procs")
	if err := os.WriteFile(procs, []byte("0\n1\n4000001\n4000002\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pids, err := g.Members()
	if err != nil || !slices.Equal(pids, []int{4000001, 4000002}) {
		t.Errorf("members %v, %v", pids, err)
	}
	if err := os.Remove(procs); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "x")); err == nil {
		t.Error("the group is still there")
	}
	if pids, err := g.Members(); err != nil || len(pids) != 0 {
		t.Errorf("members of no group: %v, %v", pids, err)
	}
}

func TestRestoreLeavesAloneWhatIsSame(t *testing.T) {
	s, err := ReadSysctls()
	if err != nil {
		t.Fatal(err)
	}
	if len(s) == 0 {
		t.Fatal("no settings read")
	}
	// Nothing differs, so nothing is written, which takes no rights.
	if err := s.Restore(); err != nil {
		t.Error(err)
	}
}
