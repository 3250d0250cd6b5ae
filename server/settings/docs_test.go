package settings

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write settings.md and fairlead.schema.json anew")

// TestDocumentation sees that what is published agrees with the struct's comments.
func TestDocumentation(t *testing.T) {
	docs := comments(t)
	for name, got := range map[string]string{"settings.md": markdown(docs), "fairlead.schema.json": makeSchema(t, docs)} {
		if *update {
			if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s is stale; run go test ./server/settings -update (-old +new):\n%s", name, d)
		}
	}
}

// comments returns the comment of every field of this package's structs, by "Type.Field", in one line.
func comments(t *testing.T) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "settings.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		ts, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		st, ok := ts.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range st.Fields.List {
			for _, name := range field.Names {
				text := strings.Join(strings.Fields(field.Doc.Text()), " ")
				if text == "" {
					t.Errorf("%s.%s has no comment", ts.Name, name)
				}
				out[ts.Name.Name+"."+name.Name] = text
			}
		}
		return false
	})
	return out
}

// keyed is a field with the type that it belongs to.
type keyed struct {
	field
	typ   reflect.Type
	owner string
}

func keysOf(t reflect.Type) []keyed {
	var out []keyed
	for _, f := range fields(t) {
		owner := t
		for _, i := range f.index[:len(f.index)-1] {
			owner = owner.Field(i).Type
		}
		out = append(out, keyed{f, t.FieldByIndex(f.index).Type, owner.Name()})
	}
	return out
}

// says turns a Go comment, which begins with the field's name, into a sentence about the key.
func says(docs map[string]string, k keyed) string {
	text := docs[k.owner+"."+k.name]
	if rest, ok := strings.CutPrefix(text, k.name+" "); ok {
		text = "`" + k.key + "` " + rest
	}
	return text
}

func markdown(docs map[string]string) string {
	var b strings.Builder
	b.WriteString(`<!-- Made from the comments in settings.go by this package's test (go test ./server/settings -update). -->

# Settings

Nothing needs to be set. What is, comes from these places, each going before those above it:

1. the default,
2. the repository's ` + "`fairlead.yaml`" + `: the nearest one in the service's folder or above, up to the repository's root,
3. the user's own ` + "`fairlead/config.yaml`" + ` in the system's folder for configuration (` + "`~/.config`" + ` on Linux,
   ` + "`~/Library/Application Support`" + ` on macOS, ` + "`%AppData%`" + ` on Windows),
4. flags, or the editor.

A list replaces the one before it; ` + "`env`" + ` is added to, name by name. A key with nothing after it is not set. A key that is
unknown or has a value of the wrong kind is an error, with its line.

` + "```yaml\nversion: 1\nname: orders\nport: 8080\nkubernetes:\n  namespace: shop\nsync:\n  - from: ./templates\n    to: /app/templates\n```\n\n")
	table(&b, docs, "", reflect.TypeFor[file]())
	return b.String()
}

func table(b *strings.Builder, docs map[string]string, prefix string, t reflect.Type) {
	for _, k := range keysOf(t) {
		name := prefix + k.key
		fmt.Fprintf(b, "## `%s`\n\n%s\n\n", name, says(docs, k))
		facts := []string{"Kind: " + kind(k.typ)}
		if r := rules[k.check]; len(r.enum) > 0 {
			facts = append(facts, "one of `"+strings.Join(r.enum, "`, `")+"`")
		} else if r.least != r.most {
			facts = append(facts, fmt.Sprintf("from %d to %d", r.least, r.most))
		} else if r.want != "" && !strings.HasPrefix(r.want, "text") {
			facts = append(facts, r.want)
		}
		if k.required {
			facts = append(facts, "needed")
		}
		if k.def != "" {
			facts = append(facts, "default `"+k.def+"`")
		}
		if k.repository {
			facts = append(facts, "not in the user's file")
		}
		if k.example != "" {
			facts = append(facts, "for example `"+k.key+": "+k.example+"`")
		}
		fmt.Fprintf(b, "%s.\n\n", strings.Join(facts, "; "))
		switch sub := k.typ; {
		case sub.Kind() == reflect.Struct:
			table(b, docs, name+".", sub)
		case sub.Kind() == reflect.Slice && sub.Elem().Kind() == reflect.Struct:
			table(b, docs, name+"[].", sub.Elem())
		case sub.Kind() == reflect.Map && sub.Elem() == reflect.TypeFor[Dependency]():
			table(b, docs, name+".NAME.", sub.Elem())
		}
	}
}

// object is a JSON object that keeps its order.
type object []any // key, value, key, value

func (o object) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i := 0; i < len(o); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(o[i])
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(o[i+1])
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

func makeSchema(t *testing.T, docs map[string]string) string {
	t.Helper()
	root := append(object{
		"$schema", "https://json-schema.org/draft/2020-12/schema",
		"$id", "https://fairlead.dev/fairlead.schema.json",
		"title", "fairlead.yaml",
		"description", "What can be set for Fairlead in a repository.",
		"$comment", "Made from the comments in server/settings/settings.go by its package's test.",
	}, objectSchema(docs, reflect.TypeFor[file]())...)
	root = append(root, "$defs", object{"service", objectSchema(docs, reflect.TypeFor[Settings]()), "dependency", objectSchema(docs, reflect.TypeFor[Dependency]())})
	b, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(json.RawMessage(b)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func objectSchema(docs map[string]string, t reflect.Type) object {
	props, required := object{}, []string{}
	for _, k := range keysOf(t) {
		s := object{"description", says(docs, k)}
		s = append(s, valueSchema(docs, k.typ, k.field)...)
		if k.def != "" {
			s = append(s, "default", k.def)
		}
		if k.example != "" {
			var example any
			if err := yaml.Unmarshal([]byte(k.example), &example); err != nil {
				panic(err)
			}
			if k.typ == durationType {
				example = k.example
			}
			s = append(s, "examples", []any{example})
		}
		props = append(props, k.key, s)
		if k.required {
			required = append(required, k.key)
		}
	}
	out := object{"type", "object", "properties", props}
	if len(required) > 0 {
		out = append(out, "required", required)
	}
	return append(out, "additionalProperties", false)
}

func valueSchema(docs map[string]string, t reflect.Type, f field) object {
	r := rules[f.check]
	switch {
	case t == durationType:
		return object{"type", "string", "pattern", r.pattern.String()}
	case t.Kind() == reflect.Int:
		if r.least == r.most {
			return object{"const", r.least}
		}
		return object{"type", "integer", "minimum", r.least, "maximum", r.most}
	case t.Kind() == reflect.String && len(r.enum) > 0:
		return object{"enum", r.enum}
	case t.Kind() == reflect.String:
		types := any("string")
		if f.loose {
			types = []string{"string", "number", "boolean"}
		}
		return object{"type", types, "pattern", r.pattern.String()}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return object{"type", "array", "items", objectSchema(docs, t.Elem())}
	case t.Kind() == reflect.Slice:
		return object{"type", "array", "items", valueSchema(docs, t.Elem(), f)}
	case t.Kind() == reflect.Map && t.Elem() == reflect.TypeFor[Dependency]():
		return object{"type", "object", "propertyNames", object{"pattern", r.pattern.String()},
			"additionalProperties", object{"anyOf", []any{object{"enum", rules["mode"].enum}, object{"$ref", "#/$defs/dependency"}}}}
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
		return object{"type", "object", "propertyNames", object{"pattern", r.pattern.String()},
			"additionalProperties", object{"anyOf", []any{object{"$ref", "#/$defs/service"}, object{"type", "null"}}}}
	case t.Kind() == reflect.Map:
		return object{"type", "object", "propertyNames", object{"pattern", rules["env-name"].pattern.String()},
			"additionalProperties", object{"type", []string{"string", "number", "boolean"}}}
	}
	return objectSchema(docs, t)
}

// TestTags sees that every key has a check that exists, and that its example and default are right.
func TestTags(t *testing.T) {
	keys := 0
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for _, k := range keysOf(typ) {
			keys++
			sub := k.typ
			if sub.Kind() == reflect.Slice {
				sub = sub.Elem()
			}
			if sub.Kind() == reflect.Struct {
				walk(sub)
				continue
			}
			if sub.Kind() == reflect.Map && sub.Elem() == reflect.TypeFor[Dependency]() {
				walk(sub.Elem())
			}
			if _, ok := rules[k.check]; !ok {
				t.Errorf("%s.%s: no check %q", k.owner, k.name, k.check)
			}
			if k.check == "from" || sub.Kind() == reflect.Map && k.check == "label" {
				continue
			}
			for _, text := range []string{k.example, k.def} {
				if text == "" {
					continue
				}
				var n yaml.Node
				if err := yaml.Unmarshal([]byte(text), &n); err != nil {
					t.Fatal(err)
				}
				r := &reader{file: k.owner + "." + k.name, root: t.TempDir(), origins: map[string]string{}, fail: func(p *apiProblem) { t.Error(p, p.Hint) }}
				if !r.value(n.Content[0], reflect.New(k.typ).Elem(), k.field, k.key) {
					t.Errorf("%s.%s: %s is not right", k.owner, k.name, text)
				}
			}
		}
	}
	walk(reflect.TypeFor[file]())
	if keys < 25 {
		t.Errorf("%d keys: the walk misses some", keys)
	}
	if d := Defaults(); d.Grace.String() != "80ms" || d.On != "local" || d.Calls.Mode != "enforce" || d.Lease != (Lease{Sleep: "2h", Delete: "3d"}) {
		t.Error("the defaults differ from the tags")
	}
}
