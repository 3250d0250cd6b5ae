package server

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
)

// The steps that are no events: they shape what front ends draw, and are no line of `fairlead run --json`.
type (
	// building: a build of the generation has begun.
	building struct{ gen api.Generation }
	// shipping: the generation is on its way into the pod.
	shipping struct{ gen api.Generation }
	// forwards are the service's ports here, all of them.
	forwards struct{ ports []api.Forward }
	// settingsRead: fairlead.yaml was read again, with these problems.
	settingsRead struct{ problems []*api.Problem }
	// watched is what stands in the way of watching, all of it.
	watched struct{ problems []*api.Problem }
	// anew: another supervisor answers, and nothing that the former one said is true any more.
	anew struct{}
	// crashed: the service wrote that it panicked.
	crashed struct{ problem *api.Problem }
	// depends is how the service's dependencies are, all of them.
	depends struct{ all []api.Dependency }
	// kept: the environment stays in its cluster until then, used or not.
	kept struct{ until time.Time }
	// switched: the environment has its dependencies like that from now on.
	switched struct{ wishes map[string]api.DependencyWish }
	// reviewed: there is a review of the change now.
	reviewed struct{ review *api.ReviewRef }
	// callsSeen are the calls that stand refused, and what stands in the way of judging them: all of it.
	callsSeen struct{ problems []*api.Problem }
	// debugged: the debug session is like that now; nil: there is none.
	debugged struct{ debug *api.Debug }
	// leaving: the session is being ended, in words for what.
	leaving struct{ why string }
	// over: the session has ended.
	over struct{ err error }
)

// The keys under which standing problems are replaced; they are owners, but for those that share their owner's name with
// another.
const (
	keyBuild       = "build"
	keySettings    = "settings"
	keyEnvironment = "environment"
	keySync        = "sync"
	keyWatch       = "watch" // owner "sync"
	keyProcess     = "process"
	keyDebug       = "debug"
	keyNeeds       = "dependencies"
	keyCalls       = "calls"
	keyLogs        = "logs" // owner "environment"; a connection that is there again does not clear it
)

var keys = []string{keyEnvironment, keyLogs, keySettings, keyBuild, keySync, keyWatch, keyProcess, keyDebug, keyNeeds, keyCalls}

// state makes an api.Service of what happens in a session. It is pure: times come with the steps.
type state struct {
	svc      api.Service
	problems map[string][]api.Problem
	pending  []api.Problem // of the build under way

	env        string // the last EnvironmentEvent's state
	envReason  string
	lost       string    // why the connection was lost last
	working    api.Phase // building or shipping, else ""
	canceled   string    // why nothing of the last save runs, if it was broken off
	buildWrong bool
	shipWrong  bool
	ready      api.Generation // that answers; 0 for none
	reason     string         // of the process's state
	debugGen   api.Generation // that the last problem of debugging is about
	stop       string
	kept       time.Time // until when a cluster keeps it
	stopping   bool
	ended      bool
}

func newState(svc api.Service, now time.Time) *state {
	s := &state{svc: svc, problems: map[string][]api.Problem{}}
	if s.svc.Ports == nil {
		s.svc.Ports = []api.Forward{}
	}
	if s.svc.Clients == nil {
		s.svc.Clients = []string{}
	}
	s.svc.Process = api.StateEmpty
	s.refresh(now)
	return s
}

// service returns a copy that later steps leave alone.
func (s *state) service() *api.Service {
	c := s.svc
	if c.Debug != nil {
		debug := *c.Debug
		c.Debug = &debug
	}
	c.Dependencies = slices.Clone(c.Dependencies)
	c.Ports, c.Clients, c.Problems = slices.Clone(c.Ports), slices.Clone(c.Clients), slices.Clone(c.Problems)
	return &c
}

// apply takes a step: an api.Event or one of the above. It says whether a front end has to be told.
func (s *state) apply(step any, now time.Time) bool {
	switch e := step.(type) {
	case *api.LogEvent:
		return false
	case *api.EnvironmentEvent:
		s.environment(e)
	case building:
		s.working, s.svc.Working, s.canceled = api.PhaseBuilding, e.gen, ""
		s.pending = nil
	case *api.BuildEvent:
		s.built(e)
	case shipping:
		s.working, s.svc.Working, s.canceled = api.PhaseShipping, e.gen, ""
		s.shipWrong = false
	case *api.TransferEvent:
		if s.working == api.PhaseShipping {
			s.working = ""
		}
		s.shipWrong = false
		delete(s.problems, keySync)
	case *api.ProcessEvent:
		s.process(e)
	case *api.ReadyEvent:
		s.ready, s.svc.URL, s.svc.MS = e.Generation, e.URL, e.MS
		s.svc.Generation = max(s.svc.Generation, e.Generation)
		delete(s.problems, keyProcess)
	case *api.ProblemEvent:
		s.problem(e)
	case forwards:
		s.svc.Ports = e.ports
	case settingsRead:
		s.replace(keySettings, keySettings, e.problems)
	case watched:
		s.replace(keyWatch, keySync, e.problems)
	case anew:
		s.svc.Process, s.svc.PID, s.svc.ExitCode, s.svc.Digest, s.ready = api.StateEmpty, 0, nil, "", 0
	case crashed:
		s.replace(keyProcess, keyProcess, []*api.Problem{e.problem})
	case debugged:
		s.svc.Debug = e.debug
		if e.debug == nil {
			delete(s.problems, keyDebug)
		}
	case kept:
		if s.kept.Equal(e.until) {
			return false
		}
		s.kept = e.until
	case depends:
		s.depends(e.all)
	case reviewed:
		s.svc.Review = e.review
	case callsSeen:
		s.replace(keyCalls, keyCalls, e.problems)
	case leaving:
		s.stopping, s.stop = true, e.why
	case over:
		s.over(e.err)
	}
	s.refresh(now)
	return true
}

func (s *state) environment(e *api.EnvironmentEvent) {
	s.svc.Environment = e.Environment
	if e.State == "connecting" && s.env == "lost" { // what is waited for; it is lost all the same, and why is not forgotten
		s.envReason = s.lost + "; " + e.Reason
		return
	}
	if e.State == "connecting" && s.env == "waking" { // what of it is waited for
		s.envReason = e.Reason
		return
	}
	s.env, s.envReason = e.State, e.Reason
	switch e.State {
	case "lost":
		s.lost = e.Reason
		hint := "it is tried again; what is saved meanwhile is shipped then"
		if s.svc.Joined {
			hint = "it is tried again; its owner can say more"
		}
		s.replace(keyEnvironment, keyEnvironment, []*api.Problem{{Code: api.CodeLost, Severity: api.SeverityWarning, Message: e.Reason, Hint: hint}})
	case "connected", "waking":
		delete(s.problems, keyEnvironment)
	case "stopping":
		s.stopping = true
	}
}

func (s *state) built(e *api.BuildEvent) {
	if s.working == api.PhaseBuilding && s.svc.Working == e.Generation {
		s.working = ""
	}
	if e.Canceled {
		s.canceled = "the build was canceled"
		return
	}
	s.buildWrong = !e.OK
	s.problems[keyBuild], s.pending = s.pending, nil
}

func (s *state) process(e *api.ProcessEvent) {
	s.svc.Process, s.svc.PID, s.svc.ExitCode = e.State, e.PID, e.ExitCode
	s.svc.Generation, s.reason = e.Generation, e.Reason
	if e.Digest != "" {
		s.svc.Digest = e.Digest
	}
	switch e.State {
	case api.StateStarting:
		s.svc.Core = ""
		if e.Generation > s.debugGen {
			delete(s.problems, keyDebug)
		}
	case api.StateRunning: // a service that listens on nothing is told by ready too
		s.drop(keyProcess, api.CodeStartFailed)
	case api.StateExited, api.StateFailed:
		s.svc.Core = e.Core
		s.ready = 0
		s.svc.URL = ""
		s.svc.Ports = []api.Forward{}
		s.svc.PID = 0
	}
	if e.State == api.StateStarting && s.ready != e.Generation {
		s.ready = 0
	}
}

func (s *state) problem(e *api.ProblemEvent) {
	p := e.Problem
	switch {
	case p.Code == api.CodeStartFailed: // the pod's, or the transfer's that led to it: nothing runs any more
		p.Owner = keyProcess
		s.add(keyProcess, p)
		if s.working == api.PhaseShipping {
			s.working = ""
		}
	case p.Owner == keyBuild:
		s.pending = append(s.pending, p)
	case p.Code == syncer.CodeTransferCanceled:
		s.canceled = "the transfer was canceled"
		if s.working == api.PhaseShipping {
			s.working = ""
		}
	case p.Owner == keySync:
		if isError(&p) {
			s.shipWrong = true
			if s.working == api.PhaseShipping {
				s.working = ""
			}
		}
		s.add(keySync, p)
	case p.Code == api.CodeNoLogs:
		s.add(keyLogs, p)
	case p.Owner == keyEnvironment, p.Owner == keyDebug:
		if p.Owner == keyDebug {
			s.debugGen = e.Generation
		}
		s.add(p.Owner, p)
	}
}

// depends takes over how the dependencies are. One that cannot be used is a warning: the service itself may run.
func (s *state) depends(all []api.Dependency) {
	s.svc.Dependencies = all
	var ps []*api.Problem
	for _, d := range all {
		if d.Health == api.HealthFailed {
			ps = append(ps, dependencyFailed(d))
		}
	}
	s.replace(keyNeeds, keyNeeds, ps)
}

func (s *state) over(err error) {
	s.ended = true
	var ps []*api.Problem
	if err != nil {
		ps = api.Problems(err, "failed")
	}
	s.replace(keyEnvironment, keyEnvironment, ps)
	delete(s.problems, keyLogs) // what its owner says now is why it ended
}

func isError(p *api.Problem) bool { return p.Severity == "" || p.Severity == api.SeverityError }

func (s *state) replace(key, owner string, ps []*api.Problem) {
	var list []api.Problem
	for _, p := range ps {
		q := *p
		q.Owner = owner
		list = append(list, q)
	}
	s.problems[key] = list
}

func (s *state) add(key string, p api.Problem) {
	s.drop(key, p.Code)
	s.problems[key] = append(s.problems[key], p)
}

// drop forgets the problems of a code: one that is told again replaces itself.
func (s *state) drop(key, code string) {
	s.problems[key] = slices.DeleteFunc(slices.Clone(s.problems[key]), func(p api.Problem) bool { return p.Code == code })
}

// refresh works out the phase and the list of problems.
func (s *state) refresh(now time.Time) {
	phase, detail := s.phase()
	if phase != s.svc.Phase || s.svc.Since.IsZero() {
		s.svc.Since = now
	}
	s.svc.Phase, s.svc.Detail = phase, detail
	if phase != api.PhaseBuilding && phase != api.PhaseShipping && phase != api.PhaseWaiting && phase != api.PhaseStarting {
		if s.working == "" {
			s.svc.Working = 0
		}
	}
	s.svc.Problems = []api.Problem{}
	for _, k := range keys {
		s.svc.Problems = append(s.svc.Problems, s.problems[k]...)
	}
}

func (s *state) phase() (api.Phase, string) {
	svc := &s.svc
	switch {
	case s.ended:
		return api.PhaseEnded, s.stop
	case s.stopping:
		if s.env == "stopping" && s.envReason != "" {
			return api.PhaseStopping, s.envReason
		}
		return api.PhaseStopping, s.stop
	case s.env == "lost":
		return api.PhaseLost, s.envReason
	case s.env == "waking":
		return api.PhaseWaking, s.envReason
	case s.env != "connected":
		return api.PhaseOpening, s.envReason
	case s.working == api.PhaseBuilding:
		return api.PhaseBuilding, ""
	case s.working == api.PhaseShipping && svc.Debug != nil && svc.Debug.Waiting != 0:
		return api.PhaseWaiting, waitsFor(svc.Debug.OnSave)
	case s.working == api.PhaseShipping:
		return api.PhaseShipping, ""
	case s.buildWrong:
		return api.PhaseFailed, s.first(keyBuild)
	case s.shipWrong:
		return api.PhaseFailed, s.first(keySync)
	case s.canceled != "":
		return api.PhaseFailed, s.canceled
	case svc.Process == api.StateExited || svc.Process == api.StateFailed:
		return api.PhaseDown, s.downReason()
	case s.ready != 0 && svc.Process != api.StateStopping:
		return api.PhaseLive, ""
	}
	return api.PhaseStarting, ""
}

func (s *state) first(key string) string {
	for _, p := range s.problems[key] {
		if isError(&p) {
			if p.File == "" {
				return oneLine(p.Message)
			}
			at := filepath.Base(p.File)
			if p.Line != 0 {
				at += ":" + strconv.Itoa(p.Line)
			}
			return at + ": " + oneLine(p.Message)
		}
	}
	return ""
}

func (s *state) downReason() string {
	if d := s.first(keyProcess); d != "" {
		return d
	}
	return s.reason
}

func oneLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}
