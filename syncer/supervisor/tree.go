package supervisor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"fairlead.dev/api"
)

// treeTemp begins the names of files that wait beside their place for the swap. A synced file cannot have it.
const treeTemp = ".fairlead-new-"

// tree is one synced folder in the pod. Everything goes through an os.Root, so that neither a name nor a symbolic link
// can lead outside it.
type tree struct {
	name string
	root *os.Root
}

// openTree opens the folder, which must be there or be creatable.
func openTree(name, dir string) (*tree, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open tree %s: %w", name, err)
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", name, err)
	}
	return &tree{name: name, root: r}, nil
}

// checkFiles refuses what no honest agent sends: absolute names, names that leave the tree, that are not clean, that
// differ only in case (they would be one file on the laptop they came from or go to), links that leave the tree, and
// a file that is another's folder.
func checkFiles(files []api.File) error {
	bad := func(f api.File, why string) error {
		return &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("file %q: %s", f.Path, why)}
	}
	seen := make(map[string]string, len(files))
	folders := map[string]bool{}
	for _, f := range files {
		switch {
		case f.Path == "" || !fs.ValidPath(f.Path) || f.Path == ".":
			return bad(f, "not a clean relative path")
		case strings.ContainsAny(f.Path, "\x00\\"):
			return bad(f, "a character that no synced file may have")
		case f.Mode&^0o777 != 0:
			return bad(f, fmt.Sprintf("mode %o has more than permission bits", f.Mode))
		case strings.HasPrefix(path.Base(f.Path), treeTemp):
			return bad(f, "a reserved name")
		}
		if f.Link != "" {
			to := path.Join(path.Dir(f.Path), f.Link)
			if path.IsAbs(f.Link) || to == ".." || strings.HasPrefix(to, "../") || strings.ContainsRune(f.Link, 0) {
				return bad(f, fmt.Sprintf("the link %q leaves the folder", f.Link))
			}
		} else if !validDigest(f.Digest) || f.Size < 0 || f.Size > maxBlob {
			return bad(f, "no digest or size")
		}
		key := strings.ToLower(f.Path)
		if other, dup := seen[key]; dup {
			return bad(f, fmt.Sprintf("the same name as %q but for case", other))
		}
		seen[key] = f.Path
		for d := path.Dir(key); d != "."; d = path.Dir(d) {
			folders[d] = true
		}
	}
	for d := range folders {
		if other, ok := seen[d]; ok {
			return &api.Problem{Code: api.CodeBadManifest, Message: fmt.Sprintf("file %q: also a folder", other)}
		}
	}
	return nil
}

// holds says whether the file is in the tree already: same kind and size, and put there with this digest (was).
func (t *tree) holds(f api.File, was map[string]api.File) bool {
	old, ok := was[f.Path]
	if !ok || old.Digest != f.Digest || old.Link != f.Link || old.Size != f.Size {
		return false
	}
	fi, err := t.root.Lstat(f.Path)
	if err != nil {
		return false
	}
	if f.Link != "" {
		to, err := t.root.Readlink(f.Path)
		return err == nil && to == f.Link
	}
	return fi.Mode().IsRegular() && fi.Size() == f.Size
}

// treeChange is what prepare has readied: commit cannot run out of space.
type treeChange struct {
	t      *tree
	place  []api.File // wait under their temporary names
	modes  []api.File // content is right, mode is not
	delete []string
}

func tempName(p string) string { return path.Join(path.Dir(p), treeTemp+path.Base(p)) }

// prepare writes what is new beside its place. On failure it removes what it wrote: the tree is as it was.
func (t *tree) prepare(files []api.File, was map[string]api.File, s *store) (c *treeChange, err error) {
	c = &treeChange{t: t}
	defer func() {
		if err != nil {
			c.abort()
		}
	}()
	want := make(map[string]bool, len(files))
	for _, f := range files {
		want[f.Path] = true
		if t.holds(f, was) {
			if f.Link == "" {
				if fi, err := t.root.Lstat(f.Path); err == nil && fi.Mode().Perm() != fs.FileMode(f.Mode) {
					c.modes = append(c.modes, f)
				}
			}
			continue
		}
		if err := t.makeFolder(path.Dir(f.Path)); err != nil {
			return c, writeProblem("sync "+f.Path, err)
		}
		c.place = append(c.place, f)
		tmp := tempName(f.Path)
		t.root.Remove(tmp)
		if f.Link != "" {
			err = t.root.Symlink(f.Link, tmp)
		} else {
			err = t.copyIn(tmp, f, s)
		}
		if err != nil {
			return c, writeProblem("sync "+f.Path, err)
		}
	}
	err = fs.WalkDir(t.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if p != "." && !d.IsDir() && !want[p] && !strings.HasPrefix(path.Base(p), treeTemp) {
			c.delete = append(c.delete, p)
		}
		return nil
	})
	if err != nil {
		return c, fmt.Errorf("sync %s: %w", t.name, err)
	}
	return c, nil
}

// makeFolder makes the folders above a file. A file or link in the way is not wanted (checkFiles) and goes.
func (t *tree) makeFolder(dir string) error {
	if dir == "." {
		return nil
	}
	for i := 0; i <= len(dir); i++ {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		fi, err := t.root.Lstat(dir[:i])
		if err == nil && !fi.IsDir() {
			if err := t.root.Remove(dir[:i]); err != nil {
				return err
			}
		}
	}
	return t.root.MkdirAll(dir, 0o755)
}

func (t *tree) copyIn(name string, f api.File, s *store) error {
	src, err := os.Open(s.path(f.Digest))
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	if err := dst.Chmod(fs.FileMode(f.Mode)); err != nil { // exact, whatever the umask
		return err
	}
	return dst.Close()
}

// abort removes what prepare wrote.
func (c *treeChange) abort() {
	for _, f := range c.place {
		c.t.root.Remove(tempName(f.Path))
	}
}

// commit deletes, renames and sets modes. It allocates no space.
func (c *treeChange) commit() error {
	var first error
	note := func(err error) {
		if err != nil && first == nil && !errors.Is(err, fs.ErrNotExist) {
			first = err
		}
	}
	for _, p := range c.delete {
		note(c.t.root.Remove(p))
	}
	for _, f := range c.place {
		if fi, err := c.t.root.Lstat(f.Path); err == nil && fi.IsDir() {
			note(c.t.root.RemoveAll(f.Path)) // what was a folder is a file now
		}
		note(c.t.root.Rename(tempName(f.Path), f.Path))
	}
	for _, f := range c.modes {
		note(c.t.root.Chmod(f.Path, fs.FileMode(f.Mode)))
	}
	for _, p := range c.delete { // folders that are empty now go too
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			if fi, err := c.t.root.Lstat(d); err != nil || !fi.IsDir() || c.t.root.Remove(d) != nil {
				break
			}
		}
	}
	if first != nil {
		return fmt.Errorf("sync %s: %w", c.t.name, first)
	}
	return nil
}
