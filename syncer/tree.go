package syncer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
)

// Folder is one folder of plain files that travels to the pod.
type Folder struct {
	Name string // of the pod's tree
	Path string // here, absolute
	// Ignored says which files stay here; the path is relative to Path and slash-separated.
	Ignored func(rel string, dir bool) bool
}

// Trees reads synced folders. It remembers digests by size and modification time, so that an unchanged file is read
// once.
type Trees struct {
	mu    sync.Mutex
	known map[string]hashed
}

type hashed struct {
	size   int64
	mtime  time.Time
	digest api.Digest
}

// Read lists the folders' files, and where each content is found. A symbolic link travels as one where it stays in its
// folder, else it is a warning among the problems; so is what is neither file, folder nor link, and a file that differs
// from another only in case.
func (t *Trees) Read(folders []Folder) (trees []api.Tree, sources map[api.Digest]string, problems []*api.Problem, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = map[string]hashed{}
	}
	sources = map[api.Digest]string{}
	for _, f := range folders {
		tr := api.Tree{Name: f.Name, Files: []api.File{}}
		seen := map[string]string{}
		warn := func(p, why string) {
			problems = append(problems, &api.Problem{Code: "not-synced", Severity: api.SeverityWarning, File: p, Message: why})
		}
		err := filepath.WalkDir(f.Path, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) && p != f.Path {
					return nil // went away while we looked; its own event follows
				}
				return err
			}
			rel, err := filepath.Rel(f.Path, p)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			if rel == "." {
				return nil
			}
			if f.Ignored != nil && f.Ignored(rel, d.IsDir()) {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			if d.IsDir() {
				return nil
			}
			if other, dup := seen[strings.ToLower(rel)]; dup {
				warn(p, fmt.Sprintf("not synced: %q differs only in case", other))
				return nil
			}
			file := api.File{Path: rel}
			switch {
			case d.Type()&fs.ModeSymlink != 0:
				to, err := os.Readlink(p)
				if err != nil {
					return nil
				}
				to = filepath.ToSlash(to)
				if joined := path.Join(path.Dir(rel), to); path.IsAbs(to) || filepath.IsAbs(to) || joined == ".." || strings.HasPrefix(joined, "../") {
					warn(p, fmt.Sprintf("not synced: the link to %s leaves the folder", to))
					return nil
				}
				file.Link, file.Mode = to, 0o777
			case d.Type().IsRegular():
				fi, err := d.Info()
				if err != nil {
					return nil
				}
				dg, err := t.digest(p, fi)
				if err != nil {
					return fmt.Errorf("read %s: %w", rel, err)
				}
				file.Mode, file.Size, file.Digest = uint32(fi.Mode().Perm()), fi.Size(), dg
				sources[dg] = p
			default:
				warn(p, "not synced: neither a file nor a link")
				return nil
			}
			seen[strings.ToLower(rel)] = rel
			tr.Files = append(tr.Files, file)
			return nil
		})
		if err != nil {
			return nil, nil, problems, fmt.Errorf("sync %s: %w", f.Path, err)
		}
		trees = append(trees, tr)
	}
	return trees, sources, problems, nil
}

func (t *Trees) digest(p string, fi fs.FileInfo) (api.Digest, error) {
	// A file changed within the clock's step of its last look may have the same time: those are read again.
	if k, ok := t.known[p]; ok && k.size == fi.Size() && k.mtime.Equal(fi.ModTime()) && time.Since(k.mtime) > 2*time.Second {
		return k.digest, nil
	}
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	d := api.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
	t.known[p] = hashed{fi.Size(), fi.ModTime(), d}
	return d, nil
}
