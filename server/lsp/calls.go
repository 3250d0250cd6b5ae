package lsp

import (
	"context"
	"slices"

	"go.lsp.dev/protocol"

	"fairlead.dev/api"
)

// callFixes are what can be done about refused calls in a range of a document: the form, filled in.
func (s *Server) callFixes(d *document, r protocol.Range, literals bool) []protocol.CommandOrCodeAction {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []protocol.CommandOrCodeAction
	offer := func(title string, a accessArgs, about []protocol.Diagnostic, preferred bool) {
		c := protocol.Command{Title: title, Command: commandAccess, Arguments: []protocol.LSPAny{protocol.LSPAny(raw(a))}}
		if !literals {
			out = append(out, &c)
			return
		}
		out = append(out, &protocol.CodeAction{Title: title, Command: c, Kind: ptr(protocol.CodeActionKindQuickFix), Diagnostics: about, IsPreferred: ptr(preferred)})
	}
	for _, name := range sortedNames(s.services) {
		svc := s.services[name]
		for _, m := range svc.marks {
			p := &m.problem
			if p.Code != api.CodeNotGranted || p.Link == "" || p.Call == nil || m.gone || !samePath(m.path, d.path) {
				continue
			}
			at := d.text.of(p)
			if m.anchored {
				at = m.at
			}
			where := d.text.span(at, s.encoding)
			if where.Start.Line > r.End.Line || where.End.Line < r.Start.Line {
				continue
			}
			about := []protocol.Diagnostic{s.diagnostic(p, where, name)}
			callee := p.Call.Callee
			offer("Request access to "+p.Call.Method+" of "+callee, accessArgs{named{Name: name}, callee, []string{p.Call.Method}, ""}, about, true)
			if all := svc.refused(callee); len(all) > 1 {
				offer("Request access to all methods of "+callee+" that were called", accessArgs{named{Name: name}, callee, all, ""}, about, false)
			}
			offer("Open "+callee+" in the service registry", accessArgs{named{Name: name}, callee, nil, "service"}, about, false)
		}
	}
	return out
}

// refused are the methods of a callee that stand refused.
func (s *service) refused(callee string) []string {
	var out []string
	for _, p := range s.Problems {
		if p.Code == api.CodeNotGranted && p.Call != nil && p.Call.Callee == callee && !slices.Contains(out, p.Call.Method) {
			out = append(out, p.Call.Method)
		}
	}
	return out
}

// accessArgs is the argument of fairlead.requestAccess.
type accessArgs struct {
	named
	Callee  string   `json:"callee"`
	Methods []string `json:"methods,omitempty"`
	Page    string   `json:"page,omitempty"` // "service": the callee's own page
}

// requestAccess opens the form on which access to a callee is requested, filled in. Without a callee it is the first that has refused.
func (s *Server) requestAccess(ctx context.Context, svc api.Service, a accessArgs) error {
	one := &service{Service: svc}
	for _, p := range svc.Problems {
		if a.Callee == "" && p.Code == api.CodeNotGranted && p.Call != nil {
			a.Callee = p.Call.Callee
		}
	}
	if a.Callee == "" {
		return &api.Problem{Code: "nothing-refused", Message: "no call of " + svc.Environment.Service + " stands refused", Hint: "fairlead deps --observed lists what it calls"}
	}
	if len(a.Methods) == 0 && a.Page == "" {
		a.Methods = one.refused(a.Callee)
	}
	url, err := s.agent.Form(ctx, svc.Name, api.FormRequest{Callee: a.Callee, Methods: a.Methods, Page: a.Page})
	if err != nil {
		return err
	}
	s.mu.Lock()
	external := !s.set.Beside
	s.mu.Unlock()
	if !s.showDocument(ctx, url, external) {
		s.show(messageInfo, "Fairlead: request access at "+url)
	}
	return nil
}
