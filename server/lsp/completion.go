package lsp

import (
	"context"
	"strings"

	"go.lsp.dev/protocol"

	"fairlead.dev/server/settings"
)

// completion offers fairlead.yaml's keys where a key can be, and the values of those that have a list of them.
func (s *Server) completion(p *protocol.CompletionParams) func(context.Context) (any, error) {
	s.mu.Lock()
	d, enc, markdown := s.docs[p.TextDocument.URI], s.encoding, s.caps.markdown
	s.mu.Unlock()
	return func(context.Context) (any, error) {
		list := &protocol.CompletionList{Items: []protocol.CompletionItem{}}
		if d == nil || !d.isSettings() {
			return list, nil
		}
		at := d.text.offset(p.Position, enc)
		path, line := yamlPath(d.text, at)
		from := at
		for from > 0 && !strings.ContainsRune(" \t\r\n:-[,", rune(d.text.s[from-1])) || from > line.at && d.text.s[from-1] == '-' && from-1 >= line.at {
			from--
		}
		replaced := d.text.span(span{from, at}, enc)
		doc := func(k settings.Key) protocol.InlayHintTooltip {
			kind := protocol.MarkupKindPlainText
			if markdown {
				kind = protocol.MarkupKindMarkdown
			}
			return &protocol.MarkupContent{Kind: kind, Value: describe(k, markdown)}
		}
		if before := d.text.s[line.at:max(at, line.at)]; strings.Contains(before, ":") { // in a value
			for _, k := range settings.Keys(path...) {
				if k.Name != line.key {
					continue
				}
				for _, v := range k.Values {
					list.Items = append(list.Items, protocol.CompletionItem{Label: v, Kind: protocol.CompletionItemKindEnumMember, Documentation: doc(k),
						TextEdit: &protocol.TextEdit{Range: replaced, NewText: v}})
				}
			}
			return list, nil
		}
		for i, k := range settings.Keys(path...) {
			after := ": "
			if k.Kind != "text" && k.Kind != "number" && k.Kind != "duration" {
				after = ":"
			}
			if strings.HasPrefix(d.text.s[at:], ":") {
				after = ""
			}
			list.Items = append(list.Items, protocol.CompletionItem{Label: k.Name, Kind: protocol.CompletionItemKindProperty, Detail: protocol.NewOptional(k.Kind),
				Documentation: doc(k), SortText: protocol.NewOptional(string(rune('a'+i/26)) + string(rune('a'+i%26))),
				TextEdit: &protocol.TextEdit{Range: replaced, NewText: k.Name + after}})
		}
		return list, nil
	}
}

// describe is a key's documentation.
func describe(k settings.Key, markdown bool) string {
	code := func(s string) string {
		if markdown {
			return "`" + s + "`"
		}
		return s
	}
	var b strings.Builder
	if markdown {
		b.WriteString("**" + k.Name + "** (" + k.Kind + ")\n\n" + k.Doc)
	} else {
		b.WriteString(k.Name + " (" + k.Kind + ")\n\n" + strings.ReplaceAll(k.Doc, "`", ""))
	}
	var facts []string
	if len(k.Values) > 0 {
		quoted := make([]string, len(k.Values))
		for i, v := range k.Values {
			quoted[i] = code(v)
		}
		facts = append(facts, "One of "+strings.Join(quoted, ", "))
	}
	if k.Default != "" {
		facts = append(facts, "Default: "+code(k.Default))
	}
	if k.Example != "" {
		facts = append(facts, "Example: "+code(k.Name+": "+k.Example))
	}
	if len(facts) > 0 {
		b.WriteString("\n\n" + strings.Join(facts, "\n\n"))
	}
	return b.String()
}
