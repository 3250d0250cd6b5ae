package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"fairlead.dev/api"
)

// parseService reads a file services/NAME.yaml. The problems are everything that is wrong with it; with any, there is no Service:
// half of a file that says who may call what is not a smaller one, it is another.
func parseService(file, name string, content []byte) (*Service, []*api.Problem) {
	var s Service
	r := reader{file: file}
	root := r.document(content)
	if root == nil || !r.structure(root, reflect.ValueOf(&s).Elem(), "") {
		return nil, r.problems
	}
	r.named(root, s.Name, name)
	seen := map[string]bool{}
	for i, g := range s.Calls {
		at := child(root, "calls", i)
		if seen[g.Service] {
			r.problem(at, "registry-duplicate", fmt.Sprintf("calls[%d]: %s is there twice", i, g.Service), "write all methods of one service in one entry")
		}
		seen[g.Service] = true
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return &s, nil
}

// parseTeam is parseService of a file teams/NAME.yaml.
func parseTeam(file, name string, content []byte) (*Team, []*api.Problem) {
	var t Team
	r := reader{file: file}
	root := r.document(content)
	if root == nil || !r.structure(root, reflect.ValueOf(&t).Elem(), "") {
		return nil, r.problems
	}
	r.named(root, t.Name, name)
	for i, n := range t.Notify {
		at, set := child(root, "notify", i), 0
		for _, s := range []string{n.Slack, n.Email, n.Webhook} {
			if s != "" {
				set++
			}
		}
		if set != 1 {
			r.problem(at, "registry-value", fmt.Sprintf("notify[%d]: one of slack, email and webhook is where it goes", i), "write each place as an entry of its own")
		}
		if n.Secret != "" && n.Webhook == "" {
			r.problem(at, "registry-value", fmt.Sprintf("notify[%d].secret: only a webhook is signed", i), "remove it")
		}
	}
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return &t, nil
}

// child is an entry of a list of the top level, for its line.
func child(root *yaml.Node, key string, i int) *yaml.Node {
	if list := value(root, key); list != nil && i < len(list.Content) {
		return list.Content[i]
	}
	return root
}

// value is what a mapping has under a key, or nil.
func value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// reader reads one file, and notes everything that is wrong with it.
type reader struct {
	file     string
	visits   int
	problems []*api.Problem
}

func (r *reader) problem(n *yaml.Node, code, message, hint string) bool {
	p := &api.Problem{Code: code, File: r.file, Message: message, Hint: hint}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	r.problems = append(r.problems, p)
	return false
}

// The library tells a syntax error's line only in its words.
var yamlLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)

// document parses one document, which is a mapping.
func (r *reader) document(content []byte) *yaml.Node {
	if len(content) > maxFile {
		r.problem(nil, "registry-too-large", fmt.Sprintf("the file is larger than %d KiB", maxFile>>10), "remove what is not of the registry")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		r.problem(nil, "registry-syntax", "the file is empty", "write version: 1 and name:, or remove the file")
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := dec.Decode(&more); err == nil {
		r.problem(&more, "registry-syntax", "the file has more than one document", "remove what follows ---")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	if len(doc.Content) != 1 {
		r.problem(&doc, "registry-syntax", "the file is empty", "write version: 1 and name:, or remove the file")
		return nil
	}
	return doc.Content[0]
}

func (r *reader) syntax(err error) {
	text := err.Error()
	p := &api.Problem{Code: "registry-syntax", File: r.file, Hint: "see the YAML of another file; values with : or # in them need quotes"}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		p.Line, _ = strconv.Atoi(m[1]) // without a line it is 0, which says so
		text = text[len(m[0]):]
	}
	p.Message = short(text)
	r.problems = append(r.problems, p)
}

func (r *reader) named(root *yaml.Node, got, want string) {
	if got != want {
		r.problem(value(root, "name"), "registry-value", fmt.Sprintf("name: %s is not what the file is called", got), "write name: "+want+", or rename the file")
	}
}

// structure reads a mapping into a struct, by its tags, and says whether nothing was wrong.
func (r *reader) structure(n *yaml.Node, v reflect.Value, path string) bool {
	t := v.Type()
	var keys, required []string
	index := map[string]int{}
	for i := range t.NumField() {
		key, opt, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		keys, index[key] = append(keys, key), i
		if opt == "" {
			required = append(required, key)
		}
	}
	if !r.kind(n, yaml.MappingNode, path, "a map with the keys "+strings.Join(keys, ", ")) {
		return false
	}
	ok, seen := true, map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		p := join(path, short(k.Value))
		f, known := index[k.Value]
		switch line, twice := seen[k.Value]; {
		case k.Kind != yaml.ScalarNode || !known:
			ok = r.problem(k, "registry-unknown-key", p+": unknown key", "the keys here are "+strings.Join(keys, ", "))
			continue
		case twice:
			ok = r.problem(k, "registry-duplicate", fmt.Sprintf("%s is set twice, first on line %d", p, line), "keep one of them")
			continue
		}
		seen[k.Value] = k.Line
		if c.Kind == yaml.ScalarNode && c.ShortTag() == "!!null" && !slices.Contains(required, k.Value) {
			continue // a key with nothing after it is not set
		}
		ok = r.value(c, v.Field(f), t.Field(f).Tag.Get("check"), p) && ok
	}
	for _, key := range required {
		if _, set := seen[key]; !set {
			ok = r.problem(n, "registry-value", join(path, key)+" is missing", "add it")
		}
	}
	return ok
}

func (r *reader) value(n *yaml.Node, v reflect.Value, check, path string) bool {
	if r.visits++; r.visits > maxVisits {
		if r.visits == maxVisits+1 {
			r.problem(n, "registry-too-large", "the file has too many values", "split the service")
		}
		return false
	}
	switch v.Kind() {
	case reflect.String:
		if !r.kind(n, yaml.ScalarNode, path, "text") {
			return false
		}
		if tag := n.ShortTag(); tag != "!!str" {
			return r.problem(n, "registry-type", path+": expected text, got "+short(n.Value), "put it in quotes")
		}
		if n.Value == "" && check != "text" {
			return r.problem(n, "registry-value", path+" is empty", "write a value, or remove the key")
		}
		v.SetString(n.Value)
	case reflect.Int:
		if !r.kind(n, yaml.ScalarNode, path, "a whole number") {
			return false
		}
		num, err := strconv.Atoi(n.Value)
		if err != nil || n.ShortTag() != "!!int" {
			return r.problem(n, "registry-type", path+": expected a whole number, got "+short(n.Value), "write a whole number")
		}
		v.SetInt(int64(num))
	case reflect.Slice:
		if !r.kind(n, yaml.SequenceNode, path, "a list") {
			return false
		}
		if len(n.Content) > maxList {
			return r.problem(n, "registry-too-large", fmt.Sprintf("%s has more than %d entries", path, maxList), "use patterns, such as /package.Service/*")
		}
		if len(n.Content) == 0 && check == "pattern" {
			return r.problem(n, "registry-value", path+" is empty", "name methods, or remove the entry")
		}
		ok := true
		for i, c := range n.Content {
			item := reflect.New(v.Type().Elem()).Elem()
			if r.value(c, item, check, path+"["+strconv.Itoa(i)+"]") {
				v.Set(reflect.Append(v, item))
			} else {
				ok = false
			}
		}
		return ok
	case reflect.Struct:
		return r.structure(n, v, path)
	default:
		panic("registry: no way to read " + v.Type().String())
	}
	if wrong, hint := checks[check](n.Value); wrong != "" {
		return r.problem(n, "registry-value", path+": "+wrong, hint)
	}
	return true
}

// kind says whether a node is of a kind. Aliases and anchors are refused: a file of ours has no need of them, and an edit of one
// place would change another.
func (r *reader) kind(n *yaml.Node, want yaml.Kind, path, what string) bool {
	if path == "" {
		path = "the file"
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return r.problem(n, "registry-syntax", path+": anchors and aliases are not read", "write the value out")
	case n.Kind != want:
		return r.problem(n, "registry-type", path+": expected "+what, "write "+what)
	}
	return true
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
