package lsp

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"go.lsp.dev/protocol"
	"go.lsp.dev/uri"

	"fairlead.dev/server/settings"
)

// kindSource is the kind of our actions for a client that asks for kinds.
const kindSource protocol.CodeActionKind = "source.fairlead"

// codeActionParams has of the protocol's only what is used: clients send back diagnostics of all servers in it, and one
// that package protocol refuses must not cost the others their actions.
type codeActionParams struct {
	TextDocument protocol.TextDocumentIdentifier
	Range        protocol.Range
	Only         []string
}

func (p *codeActionParams) UnmarshalJSON(b []byte) error {
	var w struct {
		TextDocument json.RawMessage `json:"textDocument"`
		Range        json.RawMessage `json:"range"`
		Context      struct {
			Only []string `json:"only"`
		} `json:"context"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	p.Only = w.Context.Only
	if err := protocol.Unmarshal(w.TextDocument, &p.TextDocument); err != nil {
		return err
	}
	return protocol.Unmarshal(w.Range, &p.Range)
}

// codeAction offers on the line of func main what its lenses do, for editors without lenses and for hands on the
// keyboard; and on a key of fairlead.yaml that does not exist the one that was meant.
func (s *Server) codeAction(p *codeActionParams) func(context.Context) (any, error) {
	s.mu.Lock()
	d, enc, literals := s.docs[p.TextDocument.URI], s.encoding, s.caps.codeActionLiterals
	s.mu.Unlock()
	return func(context.Context) (any, error) {
		actions := []protocol.CommandOrCodeAction{}
		switch {
		case d == nil:
		case d.isSettings() && literals && asked(p.Only, protocol.CodeActionKindQuickFix):
			for _, a := range s.settingsFixes(d, p.Range) {
				actions = append(actions, a)
			}
		case d.isGo():
			if asked(p.Only, protocol.CodeActionKindQuickFix) {
				actions = append(actions, s.callFixes(d, p.Range, literals)...)
			}
			at := d.find()
			if !at.is {
				break
			}
			line := d.text.span(at.at, enc).Start.Line
			if p.Range.Start.Line > line || p.Range.End.Line < line {
				break
			}
			for _, o := range s.offers(d) {
				if o.action == "" || !asked(p.Only, o.kind) {
					continue
				}
				c := o.command()
				c.Title = o.action
				if !literals {
					actions = append(actions, &c)
					continue
				}
				// Without a kind an action is in the plain list of every editor; with "source" VS Code shows it only in the
				// menu of source actions. So it has its kind only where kinds were asked for.
				a := &protocol.CodeAction{Title: o.action, Command: c}
				if len(p.Only) > 0 {
					a.Kind = ptr(o.kind)
				}
				actions = append(actions, a)
			}
		}
		return actions, nil
	}
}

// asked says whether a kind is among those that a client wants: "source" asks for all below it.
func asked(only []string, kind protocol.CodeActionKind) bool {
	return len(only) == 0 || slices.ContainsFunc(only, func(o string) bool {
		return o == "" || string(kind) == o || strings.HasPrefix(string(kind), o+".")
	})
}

// settingsFixes turns unknown keys into the ones that were meant.
func (s *Server) settingsFixes(d *document, r protocol.Range) []*protocol.CodeAction {
	s.mu.Lock()
	enc := s.encoding
	s.mu.Unlock()
	var out []*protocol.CodeAction
	for _, p := range s.check(d) {
		if p.Code != "settings-unknown-key" {
			continue
		}
		at := d.text.place(p.Line, p.Column, true)
		where := d.text.span(at, enc)
		if where.Start.Line > r.End.Line || where.End.Line < r.Start.Line {
			continue
		}
		key := strings.Trim(d.text.s[at.start:at.end], `"'`)
		path, _ := yamlPath(d.text, at.start)
		var names []string
		for _, k := range settings.Keys(path...) {
			names = append(names, k.Name)
		}
		near := settings.Nearest(key, names)
		if near == "" {
			continue
		}
		out = append(out, &protocol.CodeAction{
			Title: "Change to " + near, Kind: ptr(protocol.CodeActionKindQuickFix), IsPreferred: ptr(true),
			Diagnostics: []protocol.Diagnostic{s.diagnostic(p, where, "")},
			Edit:        &protocol.WorkspaceEdit{Changes: map[uri.URI][]protocol.TextEdit{d.uri: {{Range: where, NewText: near}}}},
		})
	}
	return out
}
