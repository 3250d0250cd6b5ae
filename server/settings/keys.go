package settings

import (
	_ "embed"
	"encoding/json"
	"reflect"
	"sync"
)

// schema is made of the struct's comments by this package's test, which also sees that it is up to date. At run time it
// is where the comments are.
//
//go:embed fairlead.schema.json
var schema []byte

// Schema returns the JSON schema of fairlead.yaml.
func Schema() []byte { return schema }

// Key is one key of the file, for an editor.
type Key struct {
	Name     string
	Doc      string
	Kind     string   // in words: "text", "list of maps"
	Values   []string // all that it can have, where that is a list
	Default  string
	Example  string
	Required bool
}

// Keys lists the keys of the map that a path of keys leads to, in the order of the documentation; none if it leads to
// something else. A list's entries count for nothing in a path.
func Keys(path ...string) []Key {
	t := reflect.TypeFor[file]()
	node := parsedSchema()
	for _, name := range path {
		switch {
		case t.Kind() == reflect.Map && t.Elem() == reflect.TypeFor[Dependency](): // a dependency's own name
			t, node = t.Elem(), member(parsedSchema(), "$defs", "dependency")
			continue
		case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct: // a service's own name
			t, node = t.Elem(), member(parsedSchema(), "$defs", "service")
			continue
		case t.Kind() != reflect.Struct || t == durationType:
			return nil
		}
		found := false
		for _, f := range fields(t) {
			if f.key == name {
				t, node, found = t.FieldByIndex(f.index).Type, member(node, "properties", name), true
				break
			}
		}
		if !found {
			return nil
		}
		if t.Kind() == reflect.Slice {
			t, node = t.Elem(), member(node, "items")
		}
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var out []Key
	for _, f := range fields(t) {
		doc, _ := member(node, "properties", f.key)["description"].(string)
		out = append(out, Key{Name: f.key, Doc: doc, Kind: kind(t.FieldByIndex(f.index).Type), Values: rules[f.check].enum,
			Default: f.def, Example: f.example, Required: f.required})
	}
	return out
}

// Nearest returns the candidate that a misspelt name most likely means, or "".
func Nearest(name string, candidates []string) string { return nearest(name, candidates) }

// Place splits what Origin says into file and line, where it is one.
func Place(origin string) (file string, line int, ok bool) {
	file, line = place(origin)
	return file, line, file != ""
}

var parsedSchema = sync.OnceValue(func() map[string]any {
	var v map[string]any
	if err := json.Unmarshal(schema, &v); err != nil {
		panic("settings: the schema is no JSON: " + err.Error())
	}
	return v
})

func member(v map[string]any, names ...string) map[string]any {
	for _, n := range names {
		v, _ = v[n].(map[string]any)
	}
	return v
}

// kind names a type for a person.
func kind(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Int:
		return "number"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "list of maps"
	case t.Kind() == reflect.Slice:
		return "list of texts"
	case t.Kind() == reflect.Map && t.Elem() == reflect.TypeFor[Dependency]():
		return "map of dependencies"
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
		return "map of services"
	case t.Kind() == reflect.Map:
		return "map of texts"
	}
	return "map"
}
