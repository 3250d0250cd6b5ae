package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"fairlead.dev/api"
	"go.yaml.in/yaml/v3"
)

// FileName is the name of the repository's file.
const FileName = "fairlead.yaml"

// Options says where settings are looked for.
type Options struct {
	// Dir is the service's folder. The repository's file is the nearest fairlead.yaml there or above, up to the
	// repository's root.
	Dir string
	// Service names one of the file's services. Empty chooses by Dir.
	Service string
	// User is the user's own file; empty is fairlead/config.yaml in os.UserConfigDir, "-" is none.
	User string
	// Flags go before everything else.
	Flags []Flag
	// ReadFile reads a file, in place of os.ReadFile: an editor's unsaved text, for one.
	ReadFile func(name string) ([]byte, error)
}

// Flag is one setting from the command line or an editor.
type Flag struct {
	Name   string   // as the user knows it, for messages: "--port"
	Key    string   // in the file: "kubernetes.context"
	Values []string // one for a single value; for env, NAME=VALUE each
}

// Loaded is what the sources come to.
type Loaded struct {
	Settings          // paths in Main (where it is a folder), Sync and Kubeconfig are absolute
	Service  string   // the entry of services that was taken, or ""
	Services []string // the entries of services, sorted
	File     string   // the repository's file, or ""
	User     string   // the user's file, or "" if there is none
	Root     string   // the repository's root; without one, the outermost module around Dir, or Dir
	origins  map[string]string
}

// Origin says where the value of a key ("kubernetes.context", "env.PORT") comes from: "default", a file with its line,
// or a flag's name.
func (l *Loaded) Origin(key string) string {
	if o, ok := l.origins[key]; ok {
		return o
	}
	return "default"
}

// forgetOwn takes back what the top level of a file says of its own service alone, where another main package is asked for.
func (l *Loaded) forgetOwn() {
	d := Defaults()
	l.Name, l.Args, l.Port, l.Dependencies = d.Name, d.Args, d.Port, d.Dependencies
	for origin := range l.origins {
		switch key, _, _ := strings.Cut(origin, "."); key {
		case "name", "args", "port", "dependencies":
			delete(l.origins, origin)
		}
	}
}

// Load reads all sources. It reports everything that is wrong at once; what is right is set all the same, so that an
// editor has something to work with while its user types. The settings are to be used for a run only if there is no
// problem of severity error.
func Load(opts Options) (*Loaded, []*api.Problem) {
	l := &Loaded{Settings: Defaults(), origins: map[string]string{}}
	var found []*api.Problem
	fail := func(p *api.Problem) { found = append(found, p) }
	if opts.ReadFile == nil {
		opts.ReadFile = os.ReadFile
	}
	dir, err := filepath.Abs(opts.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		fail(&api.Problem{Code: "settings-unreadable", Severity: api.SeverityError, Message: "look for settings: " + err.Error(), Hint: "give the folder of a Go service"})
		return l, found
	}

	l.Root = repositoryRoot(dir)
	var rep file
	if name, data := findFile(dir, l.Root, opts.ReadFile, fail); name != "" {
		l.File = name
		r := &reader{file: name, base: filepath.Dir(name), root: l.Root, fail: fail, origins: l.origins}
		n := r.parse(data)
		r.top(n, &rep, &l.Settings)
		if main := mainFlag(opts.Flags, dir); filepath.IsAbs(main) && (filepath.IsAbs(l.Main) && main != l.Main || l.Main == "" && !within(main, r.base)) {
			l.forgetOwn()
		}
		l.Services = slices.Sorted(maps.Keys(rep.Services))
		l.Service = chooseService(&rep, l.Services, opts.Service, dir, mainFlag(opts.Flags, dir))
		if l.Service == "" && opts.Service != "" && len(l.Services) > 0 {
			fail(unknownService(name, opts.Service, l.Services))
		}
		if l.Service != "" {
			// A second reader, so that problems are not said twice.
			again := &reader{file: name, base: r.base, root: l.Root, fail: func(*api.Problem) {}, origins: l.origins}
			again.into(child(child(n, "services"), l.Service), &l.Settings)
			if l.Name == "" {
				l.Name = l.Service
			}
		}
	}

	user := opts.User
	if user == "" {
		if d, err := os.UserConfigDir(); err == nil {
			user = filepath.Join(d, "fairlead", "config.yaml")
		}
	}
	if user != "" && user != "-" {
		data, err := opts.ReadFile(user)
		switch {
		case err == nil:
			l.User = user
			r := &reader{file: user, base: filepath.Dir(user), user: true, fail: fail, origins: l.origins}
			r.top(r.parse(data), new(file), &l.Settings)
		case !errors.Is(err, fs.ErrNotExist) || opts.User != "":
			fail(unreadable(user, err))
		}
	}

	for _, f := range opts.Flags {
		r := &reader{flag: f.Name, key: f.Key, base: dir, root: l.Root, fail: fail, origins: l.origins}
		r.set(f, &l.Settings)
	}
	checkSync(l, fail)
	return l, found
}

func unreadable(name string, err error) *api.Problem {
	return &api.Problem{Code: "settings-unreadable", Severity: api.SeverityError, Message: "read settings: " + err.Error(), Hint: "make the file readable, or remove it", File: name, Line: 1}
}

func unknownService(file, name string, have []string) *api.Problem {
	p := &api.Problem{Code: "settings-service", Severity: api.SeverityError, File: file, Line: 1, Message: "there is no service " + strconv.Quote(name)}
	p.Hint = "the services are " + strings.Join(have, ", ")
	if near := nearest(name, have); near != "" {
		p.Hint = "did you mean " + strconv.Quote(near) + "?"
	}
	return p
}

// repositoryRoot finds how far up the repository's file may lie: to the folder with the version control's data; without
// that to the outermost module or workspace around dir; without that not at all.
func repositoryRoot(dir string) string {
	outermost := dir
	for d := dir; ; d = filepath.Dir(d) {
		for _, name := range []string{".git", ".jj", ".hg", ".svn"} {
			if _, err := os.Lstat(filepath.Join(d, name)); err == nil {
				return d
			}
		}
		for _, name := range []string{"go.mod", "go.work"} {
			if _, err := os.Stat(filepath.Join(d, name)); err == nil {
				outermost = d
			}
		}
		if d == filepath.Dir(d) {
			return outermost
		}
	}
}

// findFile reads the nearest file from dir up to root.
func findFile(dir, root string, read func(string) ([]byte, error), fail func(*api.Problem)) (string, []byte) {
	for d := dir; ; d = filepath.Dir(d) {
		name := filepath.Join(d, FileName)
		data, err := read(name)
		if err == nil {
			return name, data
		}
		if !errors.Is(err, fs.ErrNotExist) {
			fail(unreadable(name, err))
			return "", nil
		}
		if other := filepath.Join(d, "fairlead.yml"); fileExists(other) {
			fail(&api.Problem{Code: "settings-unreadable", Severity: api.SeverityWarning, File: other, Line: 1, Message: "fairlead.yml is not read", Hint: "rename it to " + FileName})
		}
		if d == root || d == filepath.Dir(d) {
			return "", nil
		}
	}
}

func fileExists(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular()
}

// mainFlag is the main package that a flag names, as the file's entries have theirs, or "".
func mainFlag(flags []Flag, dir string) string {
	for _, f := range flags {
		if f.Key == "main" && len(f.Values) == 1 {
			return (&reader{base: dir}).mainPath(f.Values[0])
		}
	}
	return ""
}

// chooseService picks an entry of services: the one that is named, the one with the main package that was asked for, or
// the only one whose main package (without one, whose name) fits the folder.
func chooseService(f *file, names []string, want, dir, main string) string {
	if want != "" {
		if slices.Contains(names, want) {
			return want
		}
		return ""
	}
	found := ""
	for _, name := range names {
		if main != "" && f.Services[name].Main == main {
			if found != "" {
				found = ""
				break
			}
			found = name
		}
	}
	if found != "" {
		return found
	}
	for _, name := range names {
		its := f.Services[name].Main
		if filepath.IsAbs(main) && filepath.IsAbs(its) {
			continue // it is of another one
		}
		fits := its == "" && filepath.Base(dir) == name || filepath.IsAbs(its) && (within(its, dir) || within(dir, its))
		if !fits {
			continue
		}
		if found != "" {
			return ""
		}
		found = name
	}
	return found
}

// checkSync checks what can be said only of all entries together.
func checkSync(l *Loaded, fail func(*api.Problem)) {
	for i, a := range l.Sync {
		for _, b := range l.Sync[:i] {
			if a.To != "" && b.To != "" && (a.To == b.To || strings.HasPrefix(a.To, b.To+"/") || strings.HasPrefix(b.To, a.To+"/")) {
				p := &api.Problem{
					Code: "settings-value", Severity: api.SeverityError,
					Message: fmt.Sprintf("sync: %s and %s in the pod overlap: what one does not have is deleted from the other", b.To, a.To),
					Hint:    "let each entry have a folder of its own",
				}
				p.File, p.Line = place(l.Origin("sync"))
				fail(p)
			}
		}
	}
}

// place splits an origin into its file and line.
func place(origin string) (string, int) {
	i := strings.LastIndexByte(origin, ':')
	if i < 0 {
		return "", 0
	}
	line, err := strconv.Atoi(origin[i+1:])
	if err != nil {
		return "", 0
	}
	return origin[:i], line
}

// reader takes one source into settings.
type reader struct {
	file    string // for messages and positions; empty for a flag
	flag    string // and its key
	key     string
	base    string // what relative paths are relative to
	root    string // what `from` must stay in; empty in the user's file, which has none
	user    bool
	fail    func(*api.Problem)
	origins map[string]string
	data    []byte // the file's content
	lines   []int  // where its lines begin, as the YAML library counts them
	visits  int
	count   int  // of problems
	service bool // inside services: what is there is checked, but not where a value comes from
}

const (
	maxSize = 1 << 20
	// An alias in a list of aliases multiplies: a file of a megabyte could ask for billions of values.
	maxVisits = 100_000
	// Nobody reads more, and an editor draws them all.
	maxProblems = 100
)

// parse parses a file. The node is nil where there is nothing to read.
func (r *reader) parse(data []byte) *yaml.Node {
	if len(data) > maxSize {
		r.problem(nil, "settings-too-large", fmt.Sprintf("the file has %d bytes, and %d are the most", len(data), maxSize), "remove what is not a setting")
		return nil
	}
	r.data, r.lines = data, lineStarts(data)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := decode(dec, &doc); err != nil {
		if !errors.Is(err, io.EOF) {
			r.syntax(err)
		}
		return nil
	}
	if err := decode(dec, &more); err == nil {
		r.problem(&more, "settings-syntax", "a second document begins here", "a settings file is one document: remove the ---")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

// decode decodes one document. The YAML library panics on some malformed input; for a file that a person is typing
// that is an error like any other.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: %v", p)
		}
	}()
	return dec.Decode(n)
}

var reYAMLLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

func (r *reader) syntax(err error) {
	m := reYAMLLine.FindStringSubmatch(err.Error())
	n := &yaml.Node{Line: 1, Column: 1}
	if line, err := strconv.Atoi(m[1]); err == nil {
		n.Line = min(line, max(1, len(r.lines)))
	}
	text, _, _ := strings.Cut(err.Error()[len(m[0]):], "\n")
	for _, s := range []string{"node content", "'-' indicator", "expected key", "',' or ", "<document start>", "directive", "tag handle"} {
		if m[1] != "" && strings.Contains(text, s) {
			n.Line = min(n.Line+1, max(1, len(r.lines))) // the library counts lines from 0 in its parser's errors, from 1 in its scanner's
			break
		}
	}
	r.problem(n, "settings-syntax", "not valid YAML: "+text, "look at the indentation, quotes and brackets on this line and the one before")
}

// problem reports something about a node. It returns false, for the caller to return.
func (r *reader) problem(n *yaml.Node, code, message, hint string) bool {
	if r.count++; r.count > maxProblems {
		return false
	}
	p := &api.Problem{Code: code, Severity: api.SeverityError, Message: message, Hint: hint, File: r.file}
	switch {
	case r.file == "":
		p.Message = r.flag + strings.TrimPrefix(message, r.key)
	case n == nil || n.Line == 0:
		p.Line = 1
	default:
		p.Line, p.Column = r.position(n)
	}
	r.fail(p)
	return false
}

// position returns a node's line and its column in bytes, as editors count. The YAML library counts characters, and takes
// more than line feeds for the end of a line.
func (r *reader) position(n *yaml.Node) (line, column int) {
	if n.Line < 1 || n.Line > len(r.lines) {
		return 1 + bytes.Count(r.data, []byte("\n")), 1
	}
	at := r.lines[n.Line-1]
	for left := n.Column - 1; left > 0 && at < len(r.data); left-- {
		_, size := utf8.DecodeRune(r.data[at:])
		at += size
	}
	before := r.data[:at]
	return 1 + bytes.Count(before, []byte("\n")), at - bytes.LastIndexByte(before, '\n')
}

// lineStarts returns where the lines begin, as the YAML library counts them.
func lineStarts(data []byte) []int {
	starts := []int{0}
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		if c == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			size = 2
		}
		i += size
		switch c {
		case '\n', '\r', '\u0085', '\u2028', '\u2029':
			starts = append(starts, i)
		}
	}
	return starts
}

// top reads a whole file: its own keys and services into f, and what it sets for all services into s.
func (r *reader) top(n *yaml.Node, f *file, s *Settings) {
	if n == nil {
		return
	}
	if v := child(n, "version"); v != nil {
		if num, err := strconv.Atoi(resolve(v).Value); err == nil && num > 1 {
			// Its keys may be ones that this program does not know yet.
			r.problem(v, "settings-version", fmt.Sprintf("version %d is newer than this program, which reads version 1", num), "install a newer fairlead, or use version: 1")
			return
		}
	}
	f.Settings = *s
	r.value(n, reflect.ValueOf(f).Elem(), field{}, "")
	*s = f.Settings
}

// into reads a service's entry over what is set already.
func (r *reader) into(n *yaml.Node, s *Settings) {
	if n != nil {
		r.value(n, reflect.ValueOf(s).Elem(), field{}, "")
	}
}

// set takes in a flag.
func (r *reader) set(f Flag, s *Settings) {
	v := reflect.ValueOf(s).Elem()
	var fl field
	for part := range strings.SplitSeq(f.Key, ".") {
		found := false
		for _, fl = range fields(v.Type()) {
			if fl.key == part {
				v, found = v.FieldByIndex(fl.index), true
				break
			}
		}
		if !found {
			panic("settings: a flag sets " + f.Key + ", which is no key")
		}
	}
	n := &yaml.Node{}
	switch v.Kind() {
	case reflect.Slice:
		n.Kind = yaml.SequenceNode
		for _, s := range f.Values {
			n.Content = append(n.Content, text(s))
		}
	case reflect.Map:
		n.Kind = yaml.MappingNode
		for _, s := range f.Values {
			name, value, ok := strings.Cut(s, "=")
			if !ok {
				r.problem(nil, "settings-type", r.key+": "+strconv.Quote(s)+" is no NAME=VALUE", "write "+f.Name+" NAME=VALUE")
				continue
			}
			n.Content = append(n.Content, text(name), text(value))
		}
	default:
		if len(f.Values) != 1 {
			panic("settings: a flag sets " + f.Key + " to several values")
		}
		n = text(f.Values[0])
		if _, err := strconv.Atoi(n.Value); err == nil && v.Kind() == reflect.Int {
			n.Tag = "!!int"
		}
	}
	r.value(n, v, fl, f.Key)
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// child returns the value of a key in a map, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if resolve(n.Content[i]).Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// resolve follows aliases.
func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// within says whether path is dir or lies in it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
