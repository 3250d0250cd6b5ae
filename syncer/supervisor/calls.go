package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer/supervisor/redirect"
)

// called is told of a call by the gate before them.
func (s *Supervisor) called(c api.Seen) {
	s.mu.Lock()
	var g api.Generation
	if s.manifest != nil {
		g = s.manifest.Generation
	}
	s.mu.Unlock()
	s.ring.addState(&api.CallEvent{Header: api.Header{Type: api.KindCall, Generation: g, Time: time.Now()}, Seen: c})
}

// Outbound says what is to become of the service's calls (outbound.Gate.Set), and is kept for a supervisor that is started anew in
// the same folder: its service has these addresses.
func (s *Supervisor) Outbound(ctx context.Context, o api.Outbound) (api.Outbound, error) {
	select {
	case <-s.began:
	case <-ctx.Done():
		return api.Outbound{}, ctx.Err()
	}
	s.outbound.Lock() // what is kept is what holds
	defer s.outbound.Unlock()
	now, err := s.calls.Set(o)
	if err != nil {
		return api.Outbound{}, err
	}
	b, err := json.Marshal(now)
	if err == nil {
		p := filepath.Join(s.opts.Dir, "outbound.json")
		if err = os.WriteFile(p+".new", b, 0o600); err == nil {
			err = os.Rename(p+".new", p)
		}
	}
	if err != nil {
		return api.Outbound{}, writeProblem("save what is granted", err)
	}
	return now, nil
}

// leadConnections leads a process's connections to dependencies to the gate before those, until the last of what it started has
// ended. Where the kernel does not allow that they are not seen, and that is told.
func (s *Supervisor) leadConnections(g api.Generation, asked net.Conn) {
	defer asked.Close()
	unseen := func(err error) {
		s.ring.addState(&api.ProblemEvent{Header: api.Header{Type: api.KindProblem, Generation: g, Time: time.Now()},
			Problem: api.Problem{Code: api.CodeCallsUnseen, Severity: api.SeverityWarning, Owner: "calls", Message: "what the service calls is not seen here: " + err.Error(),
				Hint: "its calls are let through; the node needs Linux 5.9, and a seccomp profile that allows seccomp(2) and process_vm_writev(2)"}})
	}
	l, err := redirect.Take(asked.(*net.UnixConn))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF): // it did not start; that is told elsewhere
	case err != nil:
		unseen(err)
	default:
		l.Run(s.life, s.calls.Redirect, unseen)
	}
}

// Calls is what the service has called so far.
func (s *Supervisor) Calls(context.Context) ([]api.Seen, error) { return s.calls.Calls(), nil }

// restoreCalls sets what a former supervisor of the folder had. Where it cannot, the agent says it again.
func (s *Supervisor) restoreCalls() {
	b, err := os.ReadFile(filepath.Join(s.opts.Dir, "outbound.json"))
	if err != nil {
		return
	}
	var o api.Outbound
	if err = json.Unmarshal(b, &o); err == nil {
		_, err = s.calls.Set(o)
	}
	if err != nil {
		s.opts.Logger.Warn("the dependencies' addresses are not as they were; waiting for an agent", "err", err)
	}
}
