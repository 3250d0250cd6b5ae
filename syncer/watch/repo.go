package watch

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// repo is a git work tree that watched folders are in.
type repo struct {
	top    string // of the work tree
	gitDir string // of this work tree
	common string // shared by all work trees of the repository

	// waited is the index.lock, by its time, that was waited for in vain: one left behind by a git that was killed.
	waited time.Time
}

// findRepo finds the work tree that dir is in; nil if it is in none.
func (l *loop) findRepo(dir string) *repo {
	for {
		if r := l.openRepo(dir); r != nil {
			return r
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

// openRepo is the function of that name; it returns the same repo for the same work tree.
func (l *loop) openRepo(dir string) *repo {
	r := openRepo(dir)
	if r == nil {
		return nil
	}
	if old := l.known[dir]; old != nil && old.gitDir == r.gitDir && old.common == r.common {
		return old
	}
	l.known[dir] = r
	return r
}

// openRepo returns the work tree whose top is dir, nil if dir is no work tree's top.
func openRepo(dir string) *repo {
	git := filepath.Join(dir, ".git")
	st, err := os.Stat(git)
	switch {
	case err != nil:
		return nil
	case st.IsDir():
		return &repo{top: dir, gitDir: git, common: git}
	}
	// A work tree of its own, or a submodule.
	gitDir := resolveGitFile(dir, readSmall(git))
	if gitDir == "" {
		return nil
	}
	r := &repo{top: dir, gitDir: gitDir, common: gitDir}
	if s := strings.TrimSpace(readSmall(filepath.Join(gitDir, "commondir"))); s != "" {
		r.common = absIn(gitDir, s)
	}
	return r
}

// resolveGitFile returns the folder that a file .git in dir, with that text, names; empty if it names none.
func resolveGitFile(dir, text string) string {
	s, ok := strings.CutPrefix(text, "gitdir:")
	if s = strings.TrimSpace(s); !ok || s == "" || strings.ContainsAny(s, "\x00\n") {
		return ""
	}
	return absIn(dir, s)
}

func absIn(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// locked says whether git is in the middle of an operation that may have caused a burst which began at first.
//
// A lock that is younger than the burst is not its cause: many tools run "git status" whenever a file changes, which
// may hold the lock for as long as it looks at the work tree, and a save is not to wait for that. One that is much older
// was left behind, or belongs to a "git commit -a" whose message is being written.
func (r *repo) locked(first time.Time) bool {
	st, err := os.Lstat(filepath.Join(r.gitDir, "index.lock"))
	if err != nil {
		return false
	}
	t := st.ModTime()
	return !t.After(first) && first.Sub(t) < 2*lockCap && !t.Equal(r.waited)
}

// giveUp makes the lock that there is now one that is not waited for again.
func (r *repo) giveUp() {
	if st, err := os.Lstat(filepath.Join(r.gitDir, "index.lock")); err == nil {
		r.waited = st.ModTime()
	}
}

// rules returns the rules that hold for the whole repository: the user's and those of info/exclude.
func (r *repo) rules(global []pattern) *rules {
	return &rules{
		base: r.top, repo: r,
		patterns: parsePatterns(readSmall(filepath.Join(r.common, "info", "exclude"))),
		outer:    &rules{base: r.top, repo: r, patterns: global},
	}
}

// rulesAbove returns the rules that apply to what lies in dir, without those of dir's own .gitignore.
func (l *loop) rulesAbove(dir string) *rules {
	r := l.findRepo(dir)
	if r == nil {
		return &rules{base: dir}
	}
	rs := r.rules(l.global)
	rel, err := filepath.Rel(r.top, dir)
	if err != nil || rel == "." {
		return rs
	}
	above := r.top
	for name := range strings.SplitSeq(rel, string(filepath.Separator)) {
		rs = rs.with(above)
		above = filepath.Join(above, name)
	}
	return rs
}

// with returns the rules with those of dir's .gitignore on top.
func (r *rules) with(dir string) *rules {
	path := filepath.Join(dir, ".gitignore")
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return r // git does not follow a link here either
	}
	ps := parsePatterns(readSmall(path))
	if len(ps) == 0 {
		return r
	}
	return &rules{outer: r, base: dir, patterns: ps, repo: r.repo}
}

// globalPatterns reads the user's own ignore file. git is asked where it is, for it may be set in any of half a dozen
// files that include each other; without git it can only be where git looks by default.
func globalPatterns(ctx context.Context, root string) []pattern {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "git", "-C", root, "config", "--type=path", "--get", "core.excludesFile").Output()
	path := strings.TrimSpace(string(out))
	if path == "" {
		config := os.Getenv("XDG_CONFIG_HOME")
		if config == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil
			}
			config = filepath.Join(home, ".config")
		}
		path = filepath.Join(config, "git", "ignore")
	}
	return parsePatterns(readSmall(absIn(root, path)))
}

// readSmall reads a file that is small if it is what it should be; empty if it cannot be read.
func readSmall(path string) string {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return ""
	}
	return string(b)
}
