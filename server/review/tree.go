package review

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"fairlead.dev/api"
)

// tree is a work tree as it is found.
type tree struct {
	git
	top    string
	head   string // HEAD's commit
	branch string // empty: HEAD is detached
	doing  string // a rebase or the like that is under way
	// status is git's own of what is not committed, as porcelain v2 has it.
	status  string
	changes []api.ReviewChange
	clash   []string // paths with conflicts
	partly  []string // paths of which only a part is staged
	shallow bool
	remotes []string
	// settings are git's own that are asked for by config.
	settings map[string]string
}

// look reads a work tree.
func look(ctx context.Context, dir string, env []string, alone bool) (*tree, error) {
	t := &tree{git: git{dir: dir, env: env, alone: alone}}
	out, err := t.read(ctx, "rev-parse", "--path-format=absolute", "--show-toplevel", "--git-dir", "--is-shallow-repository")
	if err != nil {
		return nil, gitProblem("look for the repository of "+dir, err, "a review is of a folder in a git work tree; `git init` makes one")
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 3 || lines[0] == "" {
		return nil, &api.Problem{Code: "review-git", Message: dir + " is in no work tree", Hint: "name a folder with files that are checked out"}
	}
	t.top, t.dir, t.shallow = lines[0], lines[0], lines[2] == "true"
	t.doing = underWay(lines[1])
	// Untracked files one by one: what is agreed to is a list of files.
	status, err := t.read(ctx, "-c", "status.relativePaths=false", "status", "--porcelain=v2", "-z", "--branch", "--no-ahead-behind", "--untracked-files=all", "--ignore-submodules=none")
	if err != nil {
		return nil, gitProblem("look for changes", err, "see what git status says")
	}
	t.readHead(status)
	if t.head == "" {
		return nil, &api.Problem{Code: "review-nothing", Message: "the repository has no commit yet", Hint: "commit something, and push the branch that reviews are for"}
	}
	if t.branch == detached { // which could be a branch's name
		t.branch, _ = t.line(ctx, "symbolic-ref", "--quiet", "--short", "HEAD")
	}
	t.changes, t.clash, t.partly = readStatus(t.status)
	remotes, err := t.read(ctx, "remote")
	if err != nil {
		return nil, gitProblem("list the remotes", err, "see what git remote says")
	}
	t.remotes = strings.Fields(remotes)
	settings, err := t.read(ctx, "config", "--list", "-z")
	if err != nil {
		return nil, gitProblem("read git's configuration", err, "see what git config --list says")
	}
	t.settings = readConfig(settings)
	return t, nil
}

// readConfig reads git-config(1)'s --list -z: of several values the last counts, and one without any is true. Only what is asked for is
// kept, since others may be secrets, as a remote's address with a password.
func readConfig(out string) map[string]string {
	all := map[string]string{}
	for entry := range strings.SplitSeq(out, "\x00") {
		key, value, ok := strings.Cut(entry, "\n")
		if !ok {
			value = "true"
		}
		switch section, _, _ := strings.Cut(key, "."); {
		case section == "branch", section == "push", section == "submodule", key == "remote.pushdefault":
			all[key] = value
		}
	}
	return all
}

// config is a value of the user's or the repository's; empty where it is not set. Section and name are in lower case.
func (t *tree) config(key string) string { return t.settings[key] }

// detached is what git status says in place of a branch.
const detached = "(detached)"

// readHead takes what git status --branch says before the changes: HEAD's commit and branch. The upstream, which a fetch changes, is left
// out of the status.
func (t *tree) readHead(status string) {
	for strings.HasPrefix(status, "# ") {
		line, rest, _ := strings.Cut(status, "\x00")
		status = rest
		if oid, ok := strings.CutPrefix(line, "# branch.oid "); ok && oid != "(initial)" {
			t.head = oid
		} else if name, ok := strings.CutPrefix(line, "# branch.head "); ok {
			t.branch = name
		}
	}
	t.status = status
}

// underWay says what git is in the middle of (git-status(1) looks at the same files); empty: nothing.
func underWay(gitDir string) string {
	for _, s := range [][2]string{{"rebase-merge", "a rebase"}, {"rebase-apply", "a rebase"}, {"MERGE_HEAD", "a merge"}, {"CHERRY_PICK_HEAD", "a cherry-pick"},
		{"REVERT_HEAD", "a revert"}, {"BISECT_LOG", "a bisection"}} {
		if _, err := os.Lstat(filepath.Join(gitDir, s[0])); err == nil {
			return s[1]
		}
	}
	return ""
}

// readStatus reads git-status(1), "Porcelain Format Version 2", as -z writes it.
func readStatus(out string) (changes []api.ReviewChange, clash, partly []string) {
	parts := strings.Split(out, "\x00")
	for i := 0; i < len(parts); i++ {
		p := parts[i]
		if len(p) < 2 {
			continue
		}
		add := func(path, xy, sub string) {
			if path == "" || len(xy) != 2 {
				return
			}
			c := api.ReviewChange{Path: path, Staged: xy[0] != '.'}
			if c.Staged && xy[1] != '.' {
				partly = append(partly, path)
			}
			switch {
			case strings.HasPrefix(sub, "S") && sub[1] != 'C' && xy[0] == '.': // its commit is the same; its own files are not
				c.Kind = "submodule"
			case xy[0] == 'A' || xy[1] == 'A':
				c.Kind = "added"
			case xy[0] == 'D' || xy[1] == 'D':
				c.Kind = "deleted"
			case xy[0] == 'R' || xy[1] == 'R':
				c.Kind = "renamed"
			default:
				c.Kind = "modified"
			}
			changes = append(changes, c)
		}
		switch p[0] {
		case '1': // 1 XY sub mH mI mW hH hI path
			if f := strings.SplitN(p, " ", 9); len(f) == 9 && len(f[2]) == 4 {
				add(f[8], f[1], f[2])
			}
		case '2': // 2 XY sub mH mI mW hH hI Xscore path, and the path before as a part of its own
			if f := strings.SplitN(p, " ", 10); len(f) == 10 && len(f[2]) == 4 {
				add(f[9], f[1], f[2])
				if i+1 < len(parts) && parts[i+1] != "" && strings.HasPrefix(f[1], "R") { // the old name goes with the new one
					changes = append(changes, api.ReviewChange{Path: parts[i+1], Kind: "deleted", Staged: true})
				}
			}
			i++
		case 'u': // u XY sub m1 m2 m3 mW h1 h2 h3 path
			if f := strings.SplitN(p, " ", 11); len(f) == 11 {
				clash = append(clash, f[10])
			}
		case '?':
			if len(p) > 2 {
				changes = append(changes, api.ReviewChange{Path: p[2:], Kind: "untracked"})
			}
		}
	}
	staged := slices.ContainsFunc(changes, func(c api.ReviewChange) bool { return c.Staged })
	for i := range changes {
		c := &changes[i]
		c.Picked = c.Kind != "submodule" && (c.Staged || !staged && c.Kind != "untracked")
	}
	return changes, clash, partly
}

// state stands for what a person has seen: HEAD, the branch, and what is not committed, with the contents of it. git's status has the
// hashes of what is staged; the files of the work tree are read.
func (t *tree) state(ctx context.Context) (string, error) {
	h := sha256.New()
	for _, s := range []string{t.top, t.head, t.branch, t.status} {
		h.Write([]byte(s + "\x01"))
	}
	for _, c := range t.changes {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if err := t.stateOf(ctx, h, c); err != nil {
			return "", &api.Problem{Code: "review-file", Message: "read " + c.Path + ": " + err.Error(), Hint: "make it readable"}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// stateOf adds what the work tree has of a change. A file that git does not know may be as large as a disk: its size and time have to do.
func (t *tree) stateOf(ctx context.Context, h io.Writer, c api.ReviewChange) error {
	path := filepath.Join(t.top, c.Path)
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		io.WriteString(h, "removed\x01")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(h, "%v %d\x01", fi.Mode(), fi.Size())
	switch {
	case c.Kind == "untracked":
		io.WriteString(h, fi.ModTime().String())
	case fi.IsDir(): // a submodule: the status does not say at which commit
		sub := t.git
		sub.dir = path
		head, err := sub.line(ctx, "rev-parse", "HEAD") // it has one: git lists no submodule without a commit
		io.WriteString(h, head)
		return err
	case fi.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		io.WriteString(h, to)
		return err
	case fi.Mode().IsRegular():
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(h, f)
		return err
	}
	return nil
}

// places are where a branch is pushed to and what it is for.
type places struct {
	push, base string // remotes; the same but for forks
	branch     string // the base branch
	ref        string // that as it is known here: "origin/main"
}

// places finds them: what branch.NAME.pushRemote, remote.pushDefault and the upstream say, else origin, or the only remote. A fork has
// the convention's remotes: what it was forked from is upstream.
func (t *tree) places(ctx context.Context, base string) (places, error) {
	if len(t.remotes) == 0 {
		return places{}, &api.Problem{Code: "review-remote", Message: "the repository has no remote, so there is nowhere to push to", Hint: "git remote add origin URL"}
	}
	has := func(name string) string {
		if slices.Contains(t.remotes, name) {
			return name
		}
		return ""
	}
	usual := cmp.Or(has("origin"), t.remotes[0])
	var p places
	if t.branch != "" {
		p.push = cmp.Or(has(t.config("branch."+t.branch+".pushremote")), has(t.config("remote.pushdefault")))
		// A branch that follows another one, as one that was begun at origin/main does, says nothing of where it is pushed to.
		if t.config("branch."+t.branch+".merge") == "refs/heads/"+t.branch {
			p.push = cmp.Or(p.push, has(t.config("branch."+t.branch+".remote")))
		}
	}
	p.push = cmp.Or(p.push, has(t.config("remote.pushdefault")), usual)
	p.base = cmp.Or(has("upstream"), usual)
	if t.onlyThere(ctx, p.base) {
		p.base = p.push
	}
	p.branch = base
	if p.branch == "" {
		p.branch = t.defaultBranch(ctx, p.base)
	}
	if p.branch == "" {
		return p, nil // the forge knows
	}
	p.ref = p.base + "/" + p.branch
	return p, nil
}

// onlyThere says that a remote has never been fetched, so that nothing can be compared with it.
func (t *tree) onlyThere(ctx context.Context, remote string) bool {
	out, err := t.read(ctx, "for-each-ref", "--count=1", "refs/remotes/"+remote+"/")
	return err == nil && out == ""
}

// defaultBranch is what a remote's HEAD was when it was cloned, else the usual names, else nothing.
func (t *tree) defaultBranch(ctx context.Context, remote string) string {
	if s, err := t.line(ctx, "symbolic-ref", "--quiet", "--short", "refs/remotes/"+remote+"/HEAD"); err == nil {
		if b, ok := strings.CutPrefix(s, remote+"/"); ok {
			return b
		}
	}
	for _, b := range []string{"main", "master", "trunk", "develop"} {
		if t.yes(ctx, "rev-parse", "--verify", "--quiet", "refs/remotes/"+remote+"/"+b) {
			return b
		}
	}
	return ""
}
