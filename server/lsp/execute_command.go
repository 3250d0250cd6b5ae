package lsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.lsp.dev/jsonrpc2"
	"go.lsp.dev/protocol"
	"go.lsp.dev/uri"

	"fairlead.dev/api"
)

const (
	commandRun     = "fairlead.run"
	commandJoin    = "fairlead.join"
	commandStop    = "fairlead.stop"
	commandKeep    = "fairlead.keep"
	commandOpen    = "fairlead.open"
	commandLogs    = "fairlead.logs"
	commandCancel  = "fairlead.cancel"
	commandRestart = "fairlead.restartAgent"
	commandDetails = "fairlead.details"

	commandDependency = "fairlead.dependency"
	commandAccess     = "fairlead.requestAccess"

	commandReview       = "fairlead.review"
	commandReviewPlan   = "fairlead.reviewPlan"
	commandReviewCreate = "fairlead.reviewCreate"
)

func commandNames() []string {
	return []string{commandRun, commandJoin, commandStop, commandKeep, commandDependency, commandAccess, commandOpen, commandLogs, commandCancel, commandRestart, commandDetails, commandDebug, commandDebugTest, commandDebugCore, commandDebugChoice, commandReview, commandReviewPlan, commandReviewCreate}
}

// executeCommand does what a person asked for. Each command has one argument, an object; what it leaves out is the only
// one there is, or is asked for. An error is the answer's: editors show that themselves.
func (s *Server) executeCommand(p *protocol.ExecuteCommandParams) func(context.Context) (any, error) {
	var arg json.RawMessage
	if len(p.Arguments) > 0 {
		arg = json.RawMessage(p.Arguments[0])
	}
	name := p.Command
	return func(ctx context.Context) (any, error) {
		switch name {
		case commandRun:
			var a runArgs
			if err := argument(arg, &a); err != nil {
				return nil, err
			}
			return s.runCommand(ctx, a)
		case commandJoin:
			var a joinArgs
			if err := argument(arg, &a); err != nil {
				return nil, err
			}
			return s.joinCommand(ctx, a)
		case commandDebug:
			var a runArgs
			if err := argument(arg, &a); err != nil {
				return nil, err
			}
			return s.debugCommand(ctx, a)
		case commandDebugTest:
			return nil, debuggerProblem(`{"mode": "test", "program": FOLDER, "args": ["-test.run=^TestName$"]}`)
		case commandDebugCore:
			return nil, debuggerProblem(`{"mode": "core", "service": NAME, "coreFilePath": CORE}`)
		case commandDebugChoice:
			var a debugChoiceArgs
			if err := argument(arg, &a); err != nil {
				return nil, err
			}
			return nil, s.debugChoice(ctx, a)
		case commandRestart:
			return nil, s.restartAgent(ctx)
		case commandAccess:
			var a accessArgs
			if err := argument(arg, &a); err != nil {
				return nil, err
			}
			svc, err := s.choose(ctx, a.Name)
			if err != nil {
				return nil, err
			}
			return nil, s.requestAccess(ctx, svc, a)
		case commandReview, commandReviewPlan:
			var a reviewArgs
			if err := argument(arg, &a); err != nil {
				return nil, err
			}
			if name == commandReviewPlan {
				return s.reviewPlan(ctx, a)
			}
			return s.review(ctx, a)
		case commandReviewCreate:
			var a api.ReviewRequest
			if err := argument(arg, &a); err != nil {
				return nil, err
			}
			return s.reviewCreate(ctx, a)
		case commandStop, commandKeep, commandDependency, commandOpen, commandLogs, commandCancel, commandDetails:
		default:
			return nil, jsonrpc2.NewError(jsonrpc2.InvalidParams, "there is no command "+name)
		}
		var a named
		if err := argument(arg, &a); err != nil {
			return nil, err
		}
		svc, err := s.choose(ctx, a.Name)
		if err != nil {
			return nil, err
		}
		switch name {
		case commandStop:
			return nil, s.stop(ctx, svc.Name)
		case commandKeep:
			return nil, s.keep(ctx, svc, a.Hours)
		case commandDependency:
			return nil, s.switchDependency(ctx, svc, a)
		case commandOpen:
			return nil, s.openCommand(ctx, svc, a.Port)
		case commandLogs:
			return nil, s.logs(ctx, svc)
		case commandCancel:
			return nil, s.cancelWork(ctx, svc, a.What)
		}
		s.show(messageInfo, details(&svc))
		return nil, nil
	}
}

func argument(raw json.RawMessage, into any) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return jsonrpc2.NewError(jsonrpc2.InvalidParams, "the command's argument: "+err.Error())
	}
	return nil
}

// choose finds the service that a command is about.
func (s *Server) choose(ctx context.Context, name string) (api.Service, error) {
	s.mu.Lock()
	all, problem := s.list(), s.link.problem
	s.mu.Unlock()
	if name != "" {
		for _, svc := range all {
			if svc.Name == name || svc.Environment.Service == name {
				return svc, nil
			}
		}
		return api.Service{}, &api.Problem{Code: "no-service", Message: "no service " + name + " runs", Hint: "run it first"}
	}
	switch {
	case len(all) == 0 && problem != nil:
		return api.Service{}, problem
	case len(all) == 0:
		return api.Service{}, &api.Problem{Code: "no-service", Message: "no service runs", Hint: "open a service's main.go and run it in an environment"}
	case len(all) == 1:
		return all[0], nil
	}
	names := make([]string, len(all))
	for i, svc := range all {
		names[i] = svc.Name
	}
	answer := s.ask(ctx, messageInfo, "Fairlead: which service?", names...)
	if i := slices.Index(names, answer); i >= 0 {
		return all[i], nil
	}
	return api.Service{}, context.Canceled
}

// runArgs is what a run can be told. Paths are absolute.
type runArgs struct {
	URI  string `json:"uri,omitempty"`  // a document of the main package, or its folder
	Dir  string `json:"dir,omitempty"`  // the folder to run
	Main string `json:"main,omitempty"` // the main package, as in api.RunRequest
	On   string `json:"on,omitempty"`
}

func (s *Server) runCommand(ctx context.Context, a runArgs) (any, error) {
	s.mu.Lock()
	set, folders := s.set, slices.Clone(s.folders)
	s.mu.Unlock()
	if !set.Trusted {
		return nil, &api.Problem{Code: "untrusted", Message: "this workspace is not trusted, so nothing in it is run", Hint: "trust the workspace in the editor first"}
	}
	r := api.RunRequest{Dir: a.Dir, Main: a.Main, On: a.On, Env: s.opts.Environ}
	if r.On == "" {
		r.On = set.On
	}
	if a.Dir == "" && a.URI != "" {
		u, err := uri.Parse(a.URI)
		path := ""
		if err == nil {
			path = filePath(u)
		}
		if path == "" {
			return nil, &api.Problem{Code: "no-folder", Message: a.URI + " is not a file on this machine", Hint: "save it in the folder of a Go service"}
		}
		r.Path = realPath(path)
	}
	if r.Dir == "" && r.Path == "" {
		dir, err := s.chooseFolder(ctx, folders)
		if err != nil {
			return nil, err
		}
		r.Dir = dir
	}
	if r.Dir != "" && !filepath.IsAbs(r.Dir) {
		return nil, &api.Problem{Code: "no-folder", Message: r.Dir + " is not an absolute path", Hint: "give the folder's whole path"}
	}
	answer, err := s.run(ctx, r, true)
	if err != nil {
		return nil, err
	}
	return raw(answer), nil
}

func (s *Server) chooseFolder(ctx context.Context, folders []folder) (string, error) {
	switch len(folders) {
	case 0:
		return "", &api.Problem{Code: "no-folder", Message: "no folder is open", Hint: "open the folder of a Go service"}
	case 1:
		return folders[0].real, nil
	}
	names := make([]string, len(folders))
	for i, f := range folders {
		if names[i] = f.name; f.name == "" {
			names[i] = filepath.Base(f.path)
		}
	}
	answer := s.ask(ctx, messageInfo, "Fairlead: run which folder?", names...)
	if i := slices.Index(names, answer); i >= 0 {
		return folders[i].real, nil
	}
	return "", context.Canceled
}

// folderOf is a path itself where it is a folder, else the folder that it is in.
func folderOf(path string) string {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

// run asks the agent for an environment and remembers that this editor did.
func (s *Server) run(ctx context.Context, r api.RunRequest, open bool) (api.RunAnswer, error) {
	pkg := r.Dir
	if r.Path != "" {
		pkg = folderOf(r.Path)
	}
	if strings.HasPrefix(r.Main, ".") {
		pkg = filepath.Join(r.Dir, filepath.FromSlash(r.Main))
	}
	answer, err := s.agent.Run(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed()
	if err != nil {
		// What is wrong in a file is shown there too, until a run goes through.
		s.refused[pkg] = nil
		if problems := api.Problems(err, "agent"); ctx.Err() == nil {
			s.refused[pkg] = problems
			var texts []string
			for _, p := range problems {
				texts = append(texts, withHint(&api.Problem{Message: p.Error(), Hint: p.Hint}))
			}
			const most = 3 // the rest is in the diagnostics
			if len(texts) > most {
				texts = append(texts[:most], "…")
			}
			err = errors.New(strings.Join(texts, "; "))
		}
		return answer, err
	}
	delete(s.refused, pkg)
	delete(s.endedWith, pkg)
	h := &held{request: r, open: open && s.set.OpenBrowser != "never"}
	s.held[answer.Name] = h
	if svc := s.services[answer.Name]; svc != nil && h.open && svc.Phase == api.PhaseLive && svc.URL != "" {
		h.open = false
		now, url := svc.Service, svc.URL
		s.spawn(func(ctx context.Context) { s.openAfterRun(ctx, now, url) })
	}
	return answer, nil
}

func (s *Server) stop(ctx context.Context, name string) error {
	s.mu.Lock()
	delete(s.held, name)
	s.mu.Unlock()
	return s.agent.Stop(ctx, name)
}

// keepMost is the longest that an editor can keep an environment for: what is said by a click is forgotten.
const keepMost = 30 * 24 * time.Hour

// keep keeps an environment for hours from now on, used or not.
func (s *Server) keep(ctx context.Context, svc api.Service, hours float64) error {
	if hours < 0 || hours > keepMost.Hours() {
		return jsonrpc2.NewError(jsonrpc2.InvalidParams, fmt.Sprintf("hours must be from 0 to %.0f", keepMost.Hours()))
	}
	var until time.Time
	if hours > 0 {
		until = time.Now().Add(time.Duration(hours * float64(time.Hour)))
	}
	return s.agent.KeepUntil(ctx, svc.Name, until)
}

// cancelWork breaks off what is under way.
func (s *Server) cancelWork(ctx context.Context, svc api.Service, what string) error {
	if what == "" {
		if what = workOf(svc.Phase); what == "" {
			return &api.Problem{Code: "nothing-to-cancel", Message: svc.Environment.Service + " is " + stateText(&svc) + ": there is nothing to cancel", Hint: "stop it, if that is meant"}
		}
	}
	return s.agent.Cancel(ctx, svc.Name, what)
}

// details is what the lens with the state shows.
func details(svc *api.Service) string {
	var b strings.Builder
	b.WriteString("Fairlead, " + svc.Environment.Service + ": " + stateText(svc))
	add := func(name, value string) {
		if value != "" {
			b.WriteString("\n" + name + ": " + value)
		}
	}
	add("environment", svc.Name+" on "+svc.Provider)
	if svc.Joined {
		add("owner", svc.Owner+"; it is followed from here, and nothing of it is changed")
	}
	add("folder", svc.Dir)
	var urls []string
	for _, f := range svc.Ports {
		urls = append(urls, f.URL)
	}
	add("open", strings.Join(urls, " "))
	add("held by", strings.Join(svc.Clients, ", "))
	if !svc.Since.IsZero() {
		add("since", svc.Since.Local().Format(time.TimeOnly))
	}
	for i := range svc.Problems {
		if i == 5 {
			add("problem", "…")
			break
		}
		add("problem", withHint(&api.Problem{Message: svc.Problems[i].Error(), Hint: svc.Problems[i].Hint}))
	}
	return b.String()
}
