package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
)

// debugTest builds the tests of a folder, brings them beside the service, and readies them to be debugged: dialTask opens
// the debugger that the program is launched in.
func (s *Session) debugTest(ctx context.Context, r api.DebugTest) (api.TaskStarted, error) {
	var started api.TaskStarted
	if err := s.notYours("tests are not run in it"); err != nil {
		return started, err
	}
	s.uses.note("a test")
	if _, err := s.environment(ctx); err != nil {
		return started, err
	}
	st, err := s.conn.Status(ctx)
	if err != nil {
		return started, err
	}
	builder, err := s.builds.builderFor(ctx, s.target())
	if err != nil {
		return started, err
	}
	if err := os.MkdirAll(s.builds.out, 0o700); err != nil {
		return started, err
	}
	res, err := builder.BuildTest(ctx, s.builds.out, r.Dir)
	if err != nil {
		return started, err
	}
	defer os.Remove(res.Path)
	task := api.Task{Executable: api.File{Path: filepath.Base(r.Dir) + ".test", Mode: 0o755, Size: res.Size, Digest: res.Digest}}
	if err := syncer.Send(ctx, s.conn, res.Digest, res.Path); err != nil {
		return started, err
	}
	if st.SharesFiles {
		task.Dir = r.Dir // a test reads what is beside it
	} else if task.Files, err = s.sendTestdata(ctx, r.Dir); err != nil {
		return started, err
	}
	return s.conn.StartTask(ctx, task)
}

// sendTestdata brings the folder testdata along, which the go command leaves to tests.
func (s *Session) sendTestdata(ctx context.Context, dir string) ([]api.File, error) {
	from := filepath.Join(dir, "testdata")
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var t syncer.Trees
	trees, sources, _, err := t.Read([]syncer.Folder{{Name: "testdata", Path: from}})
	if err != nil {
		return nil, err
	}
	files := trees[0].Files
	for i, f := range files {
		files[i].Path = "testdata/" + f.Path
		if f.Link == "" {
			if err := syncer.Send(ctx, s.conn, f.Digest, sources[f.Digest]); err != nil {
				return nil, fmt.Errorf("send testdata: %w", err)
			}
		}
	}
	return files, nil
}

func (s *Session) dialTask(ctx context.Context, id string) (net.Conn, error) {
	if err := s.notYours("the debugger is its owner's"); err != nil {
		return nil, err
	}
	return s.conn.DialTask(ctx, id)
}

func (s *Session) dialCore(ctx context.Context, path string) (net.Conn, api.DebugStart, error) {
	if err := s.notYours("the debugger is its owner's"); err != nil {
		return nil, api.DebugStart{}, err
	}
	return s.conn.DialCore(ctx, path)
}
