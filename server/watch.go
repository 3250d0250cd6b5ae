package server

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/watch"
)

// watch follows the workspace's files and tells the loop what it must do: build, when what the executable is made of
// has changed, or ship, when only a synced folder has.
func (s *Session) watch(ctx context.Context) error {
	if s.cfg.Command != "" { // no file of ours makes it another
		close(s.watching)
		<-ctx.Done()
		return nil
	}
	extra := func() []string {
		var dirs []string
		if in := s.builds.inputs.Load(); in != nil {
			dirs = append(dirs, in.Dirs()...)
		}
		for _, f := range s.cfg.Folders {
			dirs = append(dirs, filepath.Join(f.Path, "..."))
		}
		for _, f := range s.cfg.SettingsFiles {
			dirs = append(dirs, filepath.Dir(f))
		}
		return dirs
	}
	told := map[string]bool{} // what stands in the way of watching; used by the watcher's goroutine only
	w, err := watch.New(watch.Options{
		Root: s.cfg.Service.ModuleDir, Extra: extra(), Logger: s.cfg.Logger, Rest: s.cfg.Rest,
		Relevant: s.relevant,
		Problems: func(ps []*api.Problem) {
			s.note(watched{ps})
			now := map[string]bool{}
			for _, p := range ps {
				if now[p.Error()] = true; told[p.Error()] {
					continue // it stands still
				}
				s.emit(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: s.keep.get().Generation}, Problem: *p})
			}
			told = now
		},
	})
	if err != nil {
		return err
	}
	s.watcher.Store(w)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	go func() { // the first build reads the files once every later edit is noticed
		select {
		case <-w.Ready():
		case <-ctx.Done():
		}
		close(s.watching)
	}()
	listed := make(chan bool, 1) // whether it could be done
	list := func() {
		go func() { // ends with ctx: the go command is killed then
			err := s.builds.list(ctx, s.target())
			if err != nil && ctx.Err() == nil {
				// The build says what is wrong with the source; until it is mended every Go file counts.
				s.cfg.Logger.Debug("list the inputs", "err", err)
			}
			select {
			case listed <- err == nil:
			default:
			}
		}()
	}
	list()
	listing := true
	again := false
	for {
		select {
		case err := <-done:
			if listing {
				<-listed
			}
			return err
		case ok := <-listed:
			w.SetExtra(extra())
			if listing = again; again {
				again = false
				list()
			} else if ok {
				s.builds.stale.Store(false)
			}
		case c := <-w.Changes():
			now := syncer.Change{Saved: c.First, Build: c.Overflow, Files: c.Overflow}
			if now.Saved.IsZero() {
				now.Saved = time.Now()
			}
			var paths []string
			for _, f := range c.Files {
				if s.isSettings(f.Path) && s.reload() {
					now.Build, now.Files = true, true
				}
				if s.builds.relevant(f.Path) {
					now.Build = true
					paths = append(paths, f.Path)
				}
				if s.synced(f.Path) {
					now.Files = true
				}
			}
			in := s.builds.inputs.Load()
			stale := in == nil || c.Overflow || in.Stale(paths)
			if stale {
				// Before the build begins: what is written from then on, it may not have read.
				s.builds.stale.Store(true)
			}
			if now.Build {
				s.calls.edited(paths) // none after an overflow
			}
			if now.Build || now.Files {
				s.loop.Changed(now)
			}
			if stale {
				if listing {
					again = true
				} else {
					listing = true
					list()
				}
			}
		}
	}
}

// relevant says whether a change of the file is the session's business.
func (s *Session) relevant(p string) bool {
	return s.isSettings(p) || (s.builds.relevant(p) || s.synced(p)) && (s.cfg.Ignored == nil || !s.cfg.Ignored(p))
}

func (s *Session) isSettings(path string) bool {
	return s.cfg.Reload != nil && slices.Contains(s.cfg.SettingsFiles, path)
}

// synced says whether a path lies in a folder that travels along.
func (s *Session) synced(path string) bool {
	for _, f := range s.cfg.Folders {
		rel, err := filepath.Rel(f.Path, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			continue
		}
		if f.Ignored == nil || !f.Ignored(filepath.ToSlash(rel), false) {
			return true
		}
	}
	return false
}
