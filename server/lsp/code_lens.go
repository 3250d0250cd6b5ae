package lsp

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"go.lsp.dev/protocol"

	"fairlead.dev/api"
)

// codeLens draws the service above its func main.
func (s *Server) codeLens(p *protocol.CodeLensParams) func(context.Context) (any, error) {
	s.mu.Lock()
	d, on, enc := s.docs[p.TextDocument.URI], s.set.CodeLens, s.encoding
	s.mu.Unlock()
	return func(context.Context) (any, error) {
		lenses := []protocol.CodeLens{}
		if d != nil && on && d.isTest() {
			return testLenses(d, enc), nil
		}
		if d == nil || !d.isGo() || !on {
			return lenses, nil
		}
		at := d.find()
		if !at.is {
			return lenses, nil
		}
		for _, c := range s.offers(d) {
			lenses = append(lenses, protocol.CodeLens{Range: d.text.span(at.at, enc), Command: c.command()})
		}
		return lenses, nil
	}
}

// offer is one thing that can be done with a service, as a lens and as an action show it.
type offer struct {
	title  string
	action string // the title where no lens stands beside it; empty for what is no action
	name   string // the command
	args   any
	kind   protocol.CodeActionKind
}

func (o offer) command() protocol.Command {
	return protocol.Command{Title: o.title, Command: o.name, Arguments: []protocol.LSPAny{protocol.LSPAny(raw(o.args))}}
}

// named is the argument of commands about a service.
type named struct {
	Name string `json:"name,omitempty"`
	Port int    `json:"port,omitempty"`
	What string `json:"what,omitempty"`
	// Hours is how long fairlead.keep keeps it from now on; 0 keeps it no longer.
	Hours float64 `json:"hours,omitempty"`
	// Dependency is made Mode, "shared" or "fresh", by fairlead.dependency.
	Dependency string             `json:"dependency,omitempty"`
	Mode       api.DependencyMode `json:"mode,omitempty"`
}

// offers lists what can be done with the service of a main package's document.
func (s *Server) offers(d *document) []offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc := s.serviceOf(filepath.Dir(d.path))
	if svc == nil {
		title := "▶ Run in environment"
		run := offer{title: title, action: "Fairlead: Run in environment", name: commandRun, args: runArgs{URI: string(d.uri)}, kind: kindSource + ".run"}
		debug := offer{title: "Debug", action: "Fairlead: Debug in environment", name: commandDebug, args: runArgs{URI: string(d.uri)}, kind: kindSource + ".debug"}
		out := []offer{run, debug}
		if p := s.endedWith[filepath.Dir(d.path)]; p != nil {
			out = append(out, offer{title: "ended: " + short(p.Message), name: commandRun, args: runArgs{URI: string(d.uri)}})
		}
		return out
	}
	me := named{Name: svc.Name}
	text := stateText(&svc.Service)
	if s.link.agent == nil {
		text = "the agent is gone: reconnecting"
	}
	out := []offer{{title: text, action: "Fairlead: Details (" + text + ")", name: commandDetails, args: me, kind: kindSource + ".details"}}
	out = append(out, debugOffers(&svc.Service, string(d.uri))...)
	if svc.URL != "" {
		out = append(out, offer{title: "Open in browser", action: "Fairlead: Open in browser", name: commandOpen, args: me, kind: kindSource + ".open"})
	}
	out = append(out, offer{title: "Logs", action: "Fairlead: Show logs", name: commandLogs, args: me, kind: kindSource + ".logs"})
	if svc.Phase != api.PhaseStopping {
		out = append(out, offer{title: "Stop", action: "Fairlead: Stop", name: commandStop, args: me, kind: kindSource + ".stop"})
	}
	return out
}

// serviceOf returns the service whose main package is in a folder.
func (s *Server) serviceOf(dir string) *service {
	for _, svc := range s.services {
		if svc.Package != "" && (samePath(svc.Package, dir) || samePath(realPath(svc.Package), dir)) {
			return svc
		}
	}
	return nil
}

// stateText says in a few words what a service is doing.
func stateText(svc *api.Service) string {
	why := func(text string) string {
		if svc.Detail != "" {
			return text + ": " + short(svc.Detail)
		}
		return text
	}
	switch svc.Phase {
	case api.PhaseOpening:
		return why("opening the environment")
	case api.PhaseBuilding:
		return "building"
	case api.PhaseShipping:
		return "shipping"
	case api.PhaseWaiting:
		if svc.Debug != nil && svc.Debug.OnSave == api.OnSaveNever {
			return "built, waits until you restart or swap it in"
		}
		return "built, waits: stopped in the debugger"
	case api.PhaseStarting:
		return "starting"
	case api.PhaseLive:
		if svc.MS > 0 {
			return "live in " + duration(time.Duration(svc.MS)*time.Millisecond)
		}
		return "live"
	case api.PhaseFailed:
		return "failed: " + reason(svc, "the last save does not build")
	case api.PhaseDown:
		return "ended: " + reason(svc, "the process ended")
	case api.PhaseLost:
		return "disconnected: " + reason(svc, "the connection is lost")
	case api.PhaseWaking:
		return why("waking the environment")
	case api.PhaseStopping:
		return "stopping"
	}
	return string(svc.Phase)
}

// reason is why a service is in the state that it is in: the agent's words, else its first problem.
func reason(svc *api.Service, otherwise string) string {
	for i := range svc.Problems {
		p := &svc.Problems[i]
		if p.Severity != api.SeverityError && p.Severity != "" {
			continue
		}
		if svc.Detail != "" && p.File == "" {
			break
		}
		text := p.Message
		if p.File != "" {
			text = fmt.Sprintf("%s:%d: %s", filepath.Base(p.File), p.Line, p.Message)
		}
		return short(text)
	}
	if svc.Detail != "" {
		return short(svc.Detail)
	}
	return otherwise
}

// short keeps a text on a lens.
func short(s string) string {
	out := []rune{}
	for _, r := range s {
		if r == '\n' || len(out) == 90 {
			return string(out) + "…"
		}
		out = append(out, r)
	}
	return string(out)
}

func duration(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// lensesAgain is when the editor is asked a second time after the last change: VS Code drops the request that it is about
// to make when its editor loses the focus, and would show "building" until it has it back.
const lensesAgain = time.Second

// refreshLenses asks the editor to ask again. One request at a time: the next says what came meanwhile.
func (s *Server) refreshLenses() { s.refreshLensesOnce(true) }

func (s *Server) refreshLensesOnce(again bool) {
	s.mu.Lock()
	if !s.caps.lensRefresh || s.state != stateRunning || s.refreshing {
		busy := s.refreshing
		s.mu.Unlock()
		if busy {
			s.after(100*time.Millisecond, s.lenses.poke)
		}
		return
	}
	s.refreshing = true
	s.refreshes++
	count := s.refreshes
	s.mu.Unlock()
	s.spawn(func(ctx context.Context) {
		ctx, cancel := shorter(ctx)
		defer cancel()
		if err := s.client.CodeLensRefresh(ctx); err != nil {
			s.log.Debug("refresh lenses", "err", err)
		}
		s.mu.Lock()
		s.refreshing = false
		s.mu.Unlock()
	})
	if again {
		s.after(lensesAgain, func() {
			s.mu.Lock()
			last := s.refreshes == count
			s.mu.Unlock()
			if last {
				s.refreshLensesOnce(false)
			}
		})
	}
}
