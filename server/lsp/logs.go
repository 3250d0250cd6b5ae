package lsp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.lsp.dev/uri"

	"fairlead.dev/api"
)

const (
	logLines = 5000
	// A journal has no mark for "this is all there is now"; when nothing has come for so long, it is.
	logQuiet = 150 * time.Millisecond
	logMost  = 3 * time.Second
)

// logs writes the last lines of a service into a file and opens it: for editors without a view of their own.
func (s *Server) logs(ctx context.Context, svc api.Service) error {
	lines, err := s.lastLines(ctx, svc.Name)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.opts.StateDir, "logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	name := filepath.Join(dir, strings.Map(fileName, svc.Name)+".log")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "")), 0o600); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	if !s.showDocument(ctx, string(uri.File(name)), false) {
		s.show(messageInfo, "Fairlead: the log of "+svc.Environment.Service+" is in "+name)
	}
	return nil
}

func fileName(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
		return r
	}
	return '_'
}

var errEnough = errors.New("enough")

// lastLines reads the journal up to what has been written by now.
func (s *Server) lastLines(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, logMost, errEnough)
	defer cancel()
	ctx, quiet := context.WithCancelCause(ctx)
	defer quiet(nil)
	t := time.AfterFunc(2*time.Second, func() { quiet(errEnough) }) // longer for the first, which needs a connection
	defer t.Stop()
	var lines []string
	err := s.agent.Journal(ctx, name, 0, true, func(e api.Entry) error {
		t.Reset(logQuiet)
		if line := logLine(e); line != "" {
			lines = append(lines, line)
		}
		if len(lines) >= 2*logLines {
			lines = append(lines[:0], lines[len(lines)-logLines:]...)
		}
		return ctx.Err()
	})
	if len(lines) > logLines {
		lines = lines[len(lines)-logLines:]
	}
	if err != nil && context.Cause(ctx) != errEnough {
		return nil, err
	}
	return lines, nil
}

// logLine is an entry as a line of a file.
func logLine(e api.Entry) string {
	head := ""
	if e.Dropped > 0 {
		head = fmt.Sprintf("-- %d lines were lost here --\n", e.Dropped)
	}
	if e.Event == nil {
		return head
	}
	at := e.Event.Head().Time.Local().Format("15:04:05.000") + " "
	switch ev := e.Event.(type) {
	case *api.LogEvent:
		if e.Line != nil && e.Line.Process != "" {
			at += "[" + e.Line.Process + "] "
		}
		return head + at + ev.Text + "\n"
	case *api.ReadyEvent:
		return head + at + strings.TrimRight(fmt.Sprintf("-- generation %d is live %s", ev.Generation, ev.URL), " ") + " --\n"
	case *api.ProblemEvent:
		return head + at + "-- " + withHint(&api.Problem{Message: ev.Problem.Error(), Hint: ev.Hint}) + " --\n"
	}
	return head
}
