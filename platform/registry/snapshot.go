package registry

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"fairlead.dev/api"
)

// Snapshot is what the registry says at one revision. It is never changed.
type Snapshot struct {
	Revision string // of the commit; empty where the repository has none yet
	Time     time.Time
	Services map[string]*Service // by name, those whose file can be read
	Teams    map[string]*Team
	// Problems are what is wrong with files, in the order of their names. A file with one says nothing; the others hold.
	Problems []*api.Problem

	broken map[string]bool // paths of files that say nothing
	files  map[string]file // by path, so that the next snapshot reads only what is new
}

// file is one file as it was read.
type file struct {
	blob     string // its name in git
	text     []byte // of a service's, for edits
	service  *Service
	team     *Team
	problems []*api.Problem
}

const (
	services = "services/"
	teams    = "teams/"
)

func servicePath(name string) string { return services + name + ".yaml" }
func teamPath(name string) string    { return teams + name + ".yaml" }

// Grants says whether calls of the callee are governed, and by which patterns the caller may call it. A callee without a file is
// not governed. One whose file cannot be read is: nobody has said that it is open.
func (s *Snapshot) Grants(caller, callee string) (governed bool, patterns []string) {
	if s.Services[callee] == nil && !s.broken[servicePath(callee)] {
		return false, nil
	}
	if g := s.Grant(caller, callee); g != nil {
		patterns = g.Methods
	}
	return true, patterns
}

// Grant is what the caller's file says of the callee, or nil.
func (s *Snapshot) Grant(caller, callee string) *Grant {
	from := s.Services[caller]
	if from == nil {
		return nil
	}
	for i := range from.Calls {
		if from.Calls[i].Service == callee {
			return &from.Calls[i]
		}
	}
	return nil
}

// Callers lists who may call something of the callee, in order.
func (s *Snapshot) Callers(callee string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		if s.Grant(name, callee) != nil {
			out = append(out, name)
		}
	}
	return out
}

// Policy is where it stands who decides on new callers of a service: the path of its file, what that says, and the line of access:,
// or of name: where that is left out. Without a file the path is empty.
func (s *Snapshot) Policy(callee string) (file string, text []byte, line int) {
	f, ok := s.files[servicePath(callee)]
	if !ok || f.text == nil {
		return "", nil, 0
	}
	line = 1
	var doc yaml.Node
	if yaml.Unmarshal(f.text, &doc) == nil && len(doc.Content) > 0 {
		for _, key := range []string{"access", "name"} {
			if n := value(doc.Content[0], key); n != nil {
				line = n.Line
				break
			}
		}
	}
	return servicePath(callee), f.text, line
}

// Broken lists the paths of files that could not be read.
func (s *Snapshot) Broken() []string { return slices.Sorted(maps.Keys(s.broken)) }

// entry is a file of the tree.
type entry struct{ mode, blob, path string }

// newSnapshot makes one of a tree's entries; content reads those blobs that the last snapshot has not.
func newSnapshot(entries []entry, last *Snapshot, content map[string][]byte) *Snapshot {
	s := &Snapshot{Services: map[string]*Service{}, Teams: map[string]*Team{}, broken: map[string]bool{}, files: map[string]file{}}
	for _, e := range entries {
		f, known := file{}, false
		if last != nil {
			f, known = last.files[e.path]
			known = known && f.blob == e.blob
		}
		if !known {
			f = readFile(e, content[e.blob])
		}
		s.files[e.path] = f
		switch {
		case f.service != nil:
			s.Services[f.service.Name] = f.service
		case f.team != nil:
			s.Teams[f.team.Name] = f.team
		case strings.HasSuffix(e.path, ".yaml"):
			s.broken[e.path] = true
		}
		s.Problems = append(s.Problems, f.problems...)
	}
	return s
}

func readFile(e entry, content []byte) file {
	f := file{blob: e.blob}
	problem := func(code, message, hint string) file {
		f.problems = []*api.Problem{{Code: code, File: e.path, Message: message, Hint: hint}}
		return f
	}
	folder, base := path.Split(e.path)
	name, yaml := strings.CutSuffix(base, ".yaml")
	switch {
	case base == ".gitkeep" || base == "README.md":
		return f
	case e.mode != "100644" && e.mode != "100755":
		return problem("registry-file", "this is not a plain file", "a link, a folder or a submodule is not followed: write the file itself")
	case !yaml:
		return problem("registry-file", "this file is not read", "name it NAME.yaml, or move it out of "+folder)
	}
	if wrong, hint := CheckName(name); wrong != "" {
		return problem("registry-file", wrong, hint)
	}
	if folder == services {
		f.text = content
		f.service, f.problems = parseService(e.path, name, content)
	} else {
		f.team, f.problems = parseTeam(e.path, name, content)
	}
	return f
}

func sameEmail(a, b string) bool { return a != "" && strings.EqualFold(a, b) }
