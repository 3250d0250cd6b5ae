package watch

import (
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func formatSource(src []byte) ([]byte, error) { return format.Source(src) }

// isolateGit keeps the developer's own git settings out of a test.
func isolateGit(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatal("git is not installed")
		}
		tb.Skip("git is not installed")
	}
	home := tb.TempDir()
	for k, v := range map[string]string{
		"HOME": home, "XDG_CONFIG_HOME": filepath.Join(home, ".config"), "GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com",
		"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
	} {
		tb.Setenv(k, v)
	}
}

func git(tb testing.TB, dir string, args ...string) string {
	tb.Helper()
	c := exec.Command("git", append([]string{"-c", "core.fsmonitor=false", "-c", "gc.auto=0"}, args...)...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		tb.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// checkoutRepo makes a repository with two branches, "one" and "two", that differ in n files of 20 folders: most are
// changed, every tenth exists in only one of them. "one" is checked out.
func checkoutRepo(tb testing.TB, n int) string {
	tb.Helper()
	isolateGit(tb)
	dir := tb.TempDir()
	git(tb, dir, "init", "-q", "-b", "one")
	write := func(branch string, skip int) {
		for i := range n {
			path := filepath.Join(dir, fmt.Sprintf("d%02d", i%20), fmt.Sprintf("f%04d.go", i))
			if i%20 == skip {
				os.Remove(path)
				continue
			}
			must(tb, os.MkdirAll(filepath.Dir(path), 0o755))
			must(tb, os.WriteFile(path, fmt.Appendf(nil, "package d\n\nconst branch%d = %q\n", i, branch), 0o644))
		}
		git(tb, dir, "add", "-A")
		git(tb, dir, "commit", "-q", "-m", branch)
	}
	write("one", 3)
	git(tb, dir, "checkout", "-q", "-b", "two")
	write("two", 7)
	git(tb, dir, "checkout", "-q", "one")
	return dir
}
