package settings

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// field is one key of a struct, as its tags describe it.
type field struct {
	key        string
	index      []int
	check      string
	loose      bool // numbers and booleans are taken as written where text is expected
	repository bool // not in the user's file
	required   bool
	short      bool // a text in place of the map is this key's value
	def        string
	example    string
	name       string // of the Go field
}

// fields lists a struct's keys, those of an inlined struct included.
func fields(t reflect.Type) []field {
	var out []field
	for sf := range structFields(t) {
		key, opt, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		if opt == "inline" {
			for _, f := range fields(sf.Type) {
				f.index = append([]int{sf.Index[0]}, f.index...)
				out = append(out, f)
			}
			continue
		}
		out = append(out, field{
			key: key, index: sf.Index, check: sf.Tag.Get("check"), loose: sf.Tag.Get("loose") == "true",
			repository: sf.Tag.Get("scope") == "repository", required: sf.Tag.Get("required") == "true", short: sf.Tag.Get("short") == "true",
			def: sf.Tag.Get("default"), example: sf.Tag.Get("example"), name: sf.Name,
		})
	}
	return out
}

func structFields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

var durationType = reflect.TypeFor[time.Duration]()

// value reads a node into v and says whether it could. What is wrong is reported and leaves v as it was.
func (r *reader) value(n *yaml.Node, v reflect.Value, f field, path string) bool {
	at := n // an alias is reported where it stands
	n = resolve(n)
	if r.visits++; r.visits > maxVisits {
		if r.visits == maxVisits+1 {
			r.problem(at, "settings-too-large", "too many values", "remove aliases (*name) of aliases")
		}
		return false
	}
	if isNull(n) {
		return false // a key with nothing after it is not set
	}
	switch {
	case v.Type() == durationType:
		const want = "a duration such as 500ms or 3s"
		if !r.scalar(at, n, path, want, "!!str") {
			return false
		}
		d, err := time.ParseDuration(n.Value)
		if err != nil {
			return r.wrong(at, path, want, describe(n))
		}
		if d < 0 {
			return r.invalid(at, path, "a duration is not negative", "write 0s or more")
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		tags := []string{"!!str"}
		if f.loose {
			tags = append(tags, "!!int", "!!float", "!!bool", "!!timestamp")
		}
		if !r.scalar(at, n, path, "text", tags...) {
			return false
		}
		s, ok := r.check(at, f.check, path, n.Value)
		if !ok {
			return false
		}
		v.SetString(s)
	case v.Kind() == reflect.Int:
		if !r.scalar(at, n, path, "a whole number", "!!int") {
			return false
		}
		num, err := strconv.Atoi(n.Value)
		if err != nil {
			return r.wrong(at, path, "a whole number", describe(n))
		}
		if _, ok := r.check(at, f.check, path, n.Value); !ok {
			return false
		}
		v.SetInt(int64(num))
	case v.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return r.wrong(at, path, "a list", describe(n))
		}
		list := reflect.MakeSlice(v.Type(), 0, min(len(n.Content), 16))
		for i, c := range n.Content {
			item, p := reflect.New(v.Type().Elem()).Elem(), path+"["+strconv.Itoa(i)+"]"
			if isNull(resolve(c)) {
				r.wrong(c, p, "a value", "nothing")
			} else if r.value(c, item, f, p) {
				list = reflect.Append(list, item)
			}
		}
		v.Set(list)
	case v.Kind() == reflect.Map:
		return r.mapping(at, n, v, f, path)
	case v.Kind() == reflect.Struct:
		return r.structure(at, n, v, path)
	default:
		panic("settings: no way to read " + v.Type().String())
	}
	r.from(at, path)
	return true
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// scalar says whether a node is a scalar with one of the tags, and reports it if not.
func (r *reader) scalar(at, n *yaml.Node, path, want string, tags ...string) bool {
	if n.Kind == yaml.ScalarNode && slices.Contains(tags, n.ShortTag()) {
		return true
	}
	return r.wrong(at, path, want, describe(n))
}

// mapping reads a map: names to texts or dependencies, which are added to what is there, or the services.
func (r *reader) mapping(at, n *yaml.Node, v reflect.Value, f field, path string) bool {
	if n.Kind != yaml.MappingNode {
		return r.wrong(at, path, "a map", describe(n))
	}
	out := reflect.MakeMap(v.Type())
	for k, e := range v.Seq2() {
		out.SetMapIndex(k, e)
	}
	names := f.check
	if names == "env" {
		names = "env-name"
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := resolve(n.Content[i]), n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			r.wrong(n.Content[i], path, "a name", describe(k))
			continue
		}
		p := join(path, k.Value)
		if line, twice := seen[k.Value]; twice {
			r.twice(n.Content[i], p, line)
			continue
		}
		seen[k.Value] = k.Line
		if _, ok := r.check(n.Content[i], names, p, k.Value); !ok {
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		ok := true
		switch {
		case e.Type() == reflect.TypeFor[Dependency]():
			if isNull(resolve(c)) {
				ok = r.wrong(c, p, "a mode", "nothing")
				break
			}
			short := resolve(c).Kind == yaml.ScalarNode
			if had := out.MapIndex(reflect.ValueOf(k.Value)); short && had.IsValid() {
				e.Set(had) // a flag that says the mode leaves the seed
			}
			ok = r.value(c, e, field{}, p)
			d := e.Interface().(Dependency)
			switch {
			case !ok || short:
			case d.Seed != "" && !filepath.IsAbs(d.Seed) && d.Mode != "fresh":
				ok = r.invalid(c, p+".seed", "only a fresh dependency is filled by a Job", "set mode: fresh, or remove seed")
			case d.Main != "" && d.Run != "":
				ok = r.invalid(c, p+".run", "it is either a command or a main package", "remove main or run")
			case d.Engine != "" && d.Main+d.Run != "":
				ok = r.invalid(c, p+".engine", "it is either an engine or what main or run say", "remove engine, or the other")
			case d.User == "" && d.Password+d.Database != "" && d.Engine != "redis":
				ok = r.invalid(c, p+".user", "a password or a database is whose?", "write user:")
			}
			if d.Engine == "mariadb" {
				d.Engine = "mysql"
			}
			e.Set(reflect.ValueOf(d))
		case e.Kind() == reflect.Struct:
			outer := r.service
			r.service = true
			r.value(c, e, field{}, p) // with what is right of it
			r.service = outer
		case isNull(resolve(c)):
			ok = r.wrong(c, p, "text", "nothing")
		default:
			ok = r.value(c, e, field{check: "text-or-empty", loose: f.loose}, p)
		}
		if ok {
			out.SetMapIndex(reflect.ValueOf(k.Value), e)
		}
	}
	v.Set(out)
	r.from(at, path)
	return true
}

// structure reads a map with known keys.
func (r *reader) structure(at, n *yaml.Node, v reflect.Value, path string) bool {
	known := fields(v.Type())
	keys := make([]string, len(known))
	for i, f := range known {
		keys[i] = f.key
	}
	if n.Kind == yaml.ScalarNode {
		for _, f := range known {
			if f.short {
				return r.value(at, v.FieldByIndex(f.index), f, path)
			}
		}
	}
	if n.Kind != yaml.MappingNode {
		return r.wrong(at, path, "a map with the keys "+strings.Join(keys, ", "), describe(n))
	}
	seen := map[string]int{}
	all := true
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		name := resolve(k).Value
		p := join(path, name)
		j := slices.Index(keys, name)
		switch line, twice := seen[name]; {
		case twice:
			all = r.twice(k, p, line)
			continue
		case j < 0 || resolve(k).Kind != yaml.ScalarNode:
			all = r.unknown(k, name, path, keys)
			continue
		case r.user && known[j].repository:
			all = r.problem(k, "settings-place", p+" is a setting of a repository, not of a user", "set it in the repository's "+FileName)
			continue
		}
		seen[name] = k.Line
		if !r.value(n.Content[i+1], v.FieldByIndex(known[j].index), known[j], p) {
			all = false
			if isNull(resolve(n.Content[i+1])) && known[j].required {
				delete(seen, name)
			}
		}
	}
	for _, f := range known {
		if _, ok := seen[f.key]; f.required && !ok {
			all = r.problem(at, "settings-value", join(path, f.key)+" is missing", "add it, for example "+f.key+": "+f.example)
		}
	}
	return all
}

// from notes where a value comes from.
func (r *reader) from(n *yaml.Node, path string) {
	switch {
	case r.service || path == "":
	case r.file == "":
		r.origins[path] = r.flag
	default:
		r.origins[path] = r.file + ":" + strconv.Itoa(n.Line)
	}
}

func (r *reader) wrong(n *yaml.Node, path, want, got string) bool {
	if path == "" {
		path = "the file"
	}
	hint := "write " + want
	if want == "text" {
		hint = "write text; a number or true and false need quotes"
	}
	return r.problem(n, "settings-type", fmt.Sprintf("%s: expected %s, got %s", path, want, got), hint)
}

func (r *reader) invalid(n *yaml.Node, path, message, hint string) bool {
	return r.problem(n, "settings-value", path+": "+message, hint)
}

func (r *reader) twice(n *yaml.Node, path string, line int) bool {
	return r.problem(n, "settings-duplicate", fmt.Sprintf("%s is set twice, first on line %d", path, line), "keep one of them")
}

func (r *reader) unknown(n *yaml.Node, name, path string, keys []string) bool {
	p := join(path, name)
	if name == "" {
		p = join(path, "this key")
	}
	hint := "the keys here are " + strings.Join(keys, ", ")
	switch near, other := nearest(name, keys), elsewhere(name); {
	case name == "<<":
		hint = "merge keys are not read: write the keys out, or use services"
	case near != "":
		hint = "did you mean " + strconv.Quote(near) + "?"
	case other != "":
		hint = "it is a key of " + other
	}
	return r.problem(n, "settings-unknown-key", p+": unknown key", hint)
}

// elsewhere says where a key belongs that is unknown where it stands.
func elsewhere(name string) string {
	var found []string
	for _, f := range fields(reflect.TypeFor[file]()) {
		if f.key == name {
			return "the top level"
		}
		t := reflect.TypeFor[file]().FieldByIndex(f.index).Type
		if t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			continue
		}
		for _, g := range fields(t) {
			if g.key == name {
				found = append(found, f.key)
			}
		}
	}
	return strings.Join(found, " and of ")
}

// describe says what a node is, for a person.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a map"
	}
	s := n.Value
	if runes := []rune(s); len(runes) > 40 {
		s = string(runes[:40]) + "..."
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + s
	case "!!bool":
		return s
	case "!!str":
		return "the text " + strconv.Quote(s)
	}
	return strconv.Quote(s)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// nearest returns the candidate that a misspelt name most likely means, or "".
func nearest(name string, candidates []string) string {
	best, most := "", max(1, len(name)/3)
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if d := distance(strings.ToLower(name), c, most); d <= most {
			best, most = c, d-1
		}
	}
	return best
}

// distance is the number of characters to insert, delete, replace or swap with their neighbour, or more than most.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
