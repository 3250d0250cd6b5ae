package lsp

import (
	"context"

	"go.lsp.dev/protocol"

	"fairlead.dev/server/settings"
)

// hover says what a key of fairlead.yaml means.
func (s *Server) hover(p *protocol.HoverParams) func(context.Context) (any, error) {
	s.mu.Lock()
	d, enc, markdown := s.docs[p.TextDocument.URI], s.encoding, s.caps.markdown
	s.mu.Unlock()
	return func(context.Context) (any, error) {
		if d == nil || !d.isSettings() {
			return nil, nil
		}
		at := d.text.offset(p.Position, enc)
		path, line := yamlPath(d.text, at)
		if line.key == "" || at < line.at {
			return nil, nil
		}
		for _, k := range settings.Keys(path...) {
			if k.Name != line.key {
				continue
			}
			kind := protocol.MarkupKindPlainText
			if markdown {
				kind = protocol.MarkupKindMarkdown
			}
			where := d.text.span(span{line.at, line.at + len(line.key)}, enc)
			return &protocol.Hover{Contents: &protocol.MarkupContent{Kind: kind, Value: describe(k, markdown)}, Range: &where}, nil
		}
		return nil, nil
	}
}
