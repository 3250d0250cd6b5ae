package repo

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A repository has what was asked for, and the same size is the same repository: figures of two days can be compared.
func TestMake(t *testing.T) {
	git := func(dir string, args ...string) []string {
		t.Helper()
		out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return strings.Fields(string(out))
	}
	size := Size{Commits: 50, Files: 230, People: 9, Seed: 3}
	var tips []string
	for _, name := range []string{"a", "b"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := Make(t.Context(), dir, size); err != nil {
			t.Fatal(err)
		}
		if n := len(git(dir, "rev-list", "main")); n != size.Commits {
			t.Errorf("%d commits", n)
		}
		if n := len(git(dir, "ls-tree", "-r", "--name-only", "main")); n != size.Files {
			t.Errorf("%d files", n)
		}
		tips = append(tips, git(dir, "rev-parse", "main")[0])
	}
	if tips[0] != tips[1] {
		t.Errorf("twice the same is %v", tips)
	}
	if err := Make(t.Context(), filepath.Join(t.TempDir(), "no\x00name"), size); err == nil {
		t.Error("a folder that cannot be was made")
	}
}
