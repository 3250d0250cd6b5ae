package registry

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// maxBlind is how long the files of a repository's refs are trusted: their times have the kernel's tick, in which a second push
// may be hidden.
const maxBlind = 5 * time.Second

// Expect tells that somebody waits for a change, in a form or a review: until d is over, the remote is asked twice a second.
func (r *Registry) Expect(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if until := time.Now().Add(d); until.After(r.expected) {
		r.expected = until
		close(r.hurry)
		r.hurry = make(chan struct{})
	}
}

// Watch calls notify with the snapshot now and at every change, until ctx ends. What this process changes itself is told at once;
// what others push, within a second where the remote is on this machine or a change is expected (Expect), else at the next poll.
// Where the remote is away, notify is called once with the last snapshot that is known (or nil) and the problem, and again when
// it is back. It runs no goroutine.
func (r *Registry) Watch(ctx context.Context, notify func(*Snapshot, error)) {
	dir := localDir(r.git.remote)
	var told *Snapshot
	var toldErr string
	var seen []os.FileInfo
	var asked time.Time
	first := true
	for ctx.Err() == nil {
		r.mu.Lock()
		s, changed, hurry, expected := r.last, r.changed, r.hurry, time.Now().Before(r.expected)
		r.mu.Unlock()
		var err error
		// The refs' files are looked at before git is asked, so that what is pushed in between is another next time.
		now := refFiles(dir, r.opts.Branch)
		if first || toldErr != "" || len(now) == 0 || !same(now, seen) || time.Since(asked) > maxBlind {
			asked = time.Now()
			if s, err = r.Snapshot(ctx); ctx.Err() != nil {
				return
			}
			seen = now
			r.mu.Lock()
			changed = r.changed
			if err == nil {
				s = r.last
			}
			r.mu.Unlock()
		}
		words := ""
		if err != nil {
			words = err.Error()
			seen = nil
		}
		if first || s != told || words != toldErr {
			first, told, toldErr = false, s, words
			notify(s, err)
		}
		wait := r.opts.Poll
		switch {
		case wait > 0:
		case dir != "":
			wait = pollLocal
		default:
			wait = pollRemote
		}
		if expected {
			wait = min(wait, pollExpected)
		}
		t := time.NewTimer(wait)
		select {
		case <-changed:
		case <-hurry:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// refFiles are the files whose change says that a ref of a repository on this machine may be another. It costs a few stats, where
// asking git costs a process; git is asked when one changed. None: it is no folder that we know, and git is asked each time.
func refFiles(dir, branch string) []os.FileInfo {
	if dir == "" {
		return nil
	}
	var out []os.FileInfo
	for _, d := range []string{dir, filepath.Join(dir, ".git")} {
		if _, err := os.Stat(filepath.Join(d, "objects")); err != nil {
			continue
		}
		// A loose ref is renamed into its folder; several are packed into one file; reftable is a list of tables.
		heads := "refs/heads"
		if b, err := os.ReadFile(filepath.Join(d, "HEAD")); err == nil && branch == "" {
			branch = strings.TrimPrefix(strings.TrimSpace(string(b)), "ref: refs/heads/")
		}
		for _, f := range []string{"HEAD", heads, path.Join(heads, path.Dir(branch)), "packed-refs", "reftable/tables.list"} {
			st, err := os.Stat(filepath.Join(d, filepath.FromSlash(f)))
			if err != nil {
				st = nil
			}
			out = append(out, st)
		}
	}
	return out
}

func same(a, b []os.FileInfo) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && (!os.SameFile(a[i], b[i]) || !a[i].ModTime().Equal(b[i].ModTime()) || a[i].Size() != b[i].Size()) {
			return false
		}
	}
	return true
}
