package lsp

import (
	"context"
	"slices"
	"time"
)

// save tells the agent of a file that was just written, so that the loop begins before the watcher has noticed. Which
// sessions it concerns is the agent's to know.
func (s *Server) save(path string) {
	if len(s.services) == 0 {
		return
	}
	if !slices.Contains(s.saved, path) {
		s.saved = append(s.saved, path)
	}
	select {
	case s.saving <- struct{}{}:
	default:
	}
}

// saveLoop tells saves in order, and those that come while one is told together: "save all" is one build.
func (s *Server) saveLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.saving:
		}
		s.mu.Lock()
		paths := s.saved
		s.saved = nil
		s.mu.Unlock()
		if len(paths) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := s.agent.Saved(ctx, paths...); err != nil {
			s.log.Warn("tell a save", "err", err) // the watcher sees it a moment later
		}
		cancel()
	}
}
