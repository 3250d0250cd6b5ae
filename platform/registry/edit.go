package registry

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"fairlead.dev/api"
)

// withGrant returns a service that may also call what the request asks for, and the methods that are new in it.
func withGrant(s *Service, q Request) (*Service, []string) {
	out := *s
	out.Calls = slices.Clone(s.Calls)
	i := slices.IndexFunc(out.Calls, func(g Grant) bool { return g.Service == q.Callee })
	if i < 0 {
		g := Grant{Service: q.Callee, Methods: slices.Clone(q.Methods), Reason: q.Reason}
		if q.Environments == EnvironmentsFresh {
			g.Environments = EnvironmentsFresh
		}
		out.Calls = append(out.Calls, g)
		return &out, q.Methods
	}
	g := &out.Calls[i]
	var added []string
	for _, m := range q.Methods {
		// What a pattern of the file allows already is not written beside it.
		if !slices.ContainsFunc(g.Methods, func(have string) bool {
			return have == m || api.Granted([]string{have}, m) && !strings.Contains(m, "*")
		}) {
			added = append(added, m)
		}
	}
	g.Methods = append(slices.Clone(g.Methods), added...)
	if g.Reason == "" {
		g.Reason = q.Reason
	}
	// Who asks for a shared one has what a missing key says.
	if q.Environments != "" && q.Environments != g.Environments && (q.Environments == EnvironmentsFresh || g.Environments != "") {
		g.Environments = q.Environments
	}
	return &out, added
}

// render is the text of a file that says what want says, made of old so that its comments, order and blank lines stay. The first
// way inserts lines; where the file is written in a form that lines cannot be inserted into, the second writes it anew from its
// nodes, which keeps comments and order. What is made is read again: it says exactly what was wanted, or the way is not taken.
func render(file string, old []byte, was, want *Service) ([]byte, error) {
	if old == nil {
		return encode(want)
	}
	for _, way := range []func([]byte, *Service, *Service) ([]byte, error){insertLines, rewriteNodes} {
		text, err := way(old, was, want)
		if err != nil {
			continue // a form that this way does not know; the last error is told below
		}
		if got, problems := parseService(file, want.Name, text); len(problems) == 0 && reflect.DeepEqual(got, want) {
			return text, nil
		}
	}
	return nil, &api.Problem{Code: "registry-edit", File: file, Message: "the file is written in a way that it cannot be changed in", Hint: "add the entry under calls: by hand"}
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

var errForm = errors.New("not in block form")

// insertLines adds the lines of a new entry of calls, or of new methods, and nothing else.
func insertLines(old []byte, was, want *Service) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(old, &doc); err != nil || len(doc.Content) != 1 {
		return nil, errForm
	}
	root := doc.Content[0]
	lines := strings.SplitAfter(string(old), "\n")
	if last := lines[len(lines)-1]; last == "" {
		lines = lines[:len(lines)-1]
	} else {
		lines[len(lines)-1] += "\n"
	}
	calls := value(root, "calls")
	if root.Style&yaml.FlowStyle != 0 {
		return nil, errForm
	}
	if len(was.Calls) < len(want.Calls) {
		entry, err := encode(want.Calls[len(was.Calls):])
		if err != nil {
			return nil, err
		}
		if calls == nil {
			return splice(lines, len(lines), "calls:\n"+indent(entry, 2)), nil
		}
		if calls.Kind != yaml.SequenceNode || calls.Style&yaml.FlowStyle != 0 || len(calls.Content) == 0 {
			return nil, errForm
		}
		return splice(lines, lastLine(calls), indent(entry, dash(lines, calls.Content[0]))), nil
	}
	for i := range want.Calls {
		if reflect.DeepEqual(was.Calls[i], want.Calls[i]) {
			continue
		}
		methods := value(calls.Content[i], "methods")
		if methods == nil || methods.Style&yaml.FlowStyle != 0 {
			return nil, errForm
		}
		added, err := encode(want.Calls[i].Methods[len(was.Calls[i].Methods):])
		if err != nil {
			return nil, err
		}
		// A reason or a mode that changes too is found by the caller, who compares, and written by the other way.
		return splice(lines, lastLine(methods), indent(added, dash(lines, methods.Content[0]))), nil
	}
	return old, nil
}

// lastLine is the last line that a node begins something on. A text of several lines goes on after it; what is inserted there is
// found wrong by the caller.
func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}

// dash is how far the dash before an entry is indented.
func dash(lines []string, entry *yaml.Node) int {
	return max(0, strings.Index(lines[entry.Line-1], "-"))
}

func indent(text []byte, by int) string {
	var b strings.Builder
	for l := range strings.Lines(string(text)) {
		b.WriteString(strings.Repeat(" ", by) + l)
	}
	return b.String()
}

func splice(lines []string, after int, text string) []byte {
	return []byte(strings.Join(lines[:after], "") + text + strings.Join(lines[after:], ""))
}

// rewriteNodes changes the file's nodes, and writes them.
func rewriteNodes(old []byte, was, want *Service) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(old, &doc); err != nil || len(doc.Content) != 1 {
		return nil, errForm
	}
	root := doc.Content[0]
	calls := value(root, "calls")
	switch {
	case calls == nil:
		calls = &yaml.Node{Kind: yaml.SequenceNode}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "calls"}, calls)
	case calls.Kind != yaml.SequenceNode: // a key with nothing after it
		*calls = yaml.Node{Kind: yaml.SequenceNode, HeadComment: calls.HeadComment, LineComment: calls.LineComment, FootComment: calls.FootComment}
	case len(calls.Content) == 0 && root.Style&yaml.FlowStyle == 0:
		calls.Style = 0 // calls: [] becomes a list of lines, whose comment the library writes only behind the key
		for i := 0; i+1 < len(root.Content); i += 2 {
			if root.Content[i+1] == calls && root.Content[i].LineComment == "" {
				root.Content[i].LineComment, calls.LineComment = calls.LineComment, ""
			}
		}
	}
	for i, g := range want.Calls {
		if i < len(was.Calls) && reflect.DeepEqual(was.Calls[i], g) {
			continue
		}
		var n yaml.Node
		if err := n.Encode(g); err != nil {
			return nil, fmt.Errorf("write YAML: %w", err)
		}
		if i >= len(calls.Content) {
			calls.Content = append(calls.Content, &n)
			continue
		}
		entry := calls.Content[i]
		for k := 0; k+1 < len(n.Content); k += 2 {
			key, v := n.Content[k], n.Content[k+1]
			switch had := value(entry, key.Value); {
			case had == nil:
				entry.Content = append(entry.Content, key, v)
			case key.Value == "methods":
				had.Content = append(had.Content, v.Content[len(had.Content):]...)
			case had.Value != v.Value:
				had.Value, had.Tag, had.Style, had.Kind = v.Value, v.Tag, v.Style, v.Kind
			}
		}
	}
	return encode(&doc)
}
