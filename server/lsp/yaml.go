package lsp

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fairlead.dev/api"
	"fairlead.dev/server/settings"
)

// check reads an open fairlead.yaml as the agent will, with the text as it is typed.
func (s *Server) check(d *document) []*api.Problem {
	_, problems := settings.Load(settings.Options{Dir: filepath.Dir(d.path), User: s.opts.UserSettings, ReadFile: func(name string) ([]byte, error) {
		if samePath(realPath(name), d.path) {
			return []byte(d.text.s), nil
		}
		return os.ReadFile(name)
	}})
	return slices.DeleteFunc(problems, func(p *api.Problem) bool { return !samePath(p.File, d.path) })
}

// readFile reads a file as the editor has it. The lock is held.
func (s *Server) readFile(name string) ([]byte, error) {
	if d := s.open(name); d != nil {
		return []byte(d.text.s), nil
	}
	return os.ReadFile(name)
}

// yamlLine is one line of a file as far as its indentation goes. It is read by hand, not by the YAML library: what is
// being typed is hardly ever valid.
type yamlLine struct {
	indent int    // of the key; behind a dash, of what follows it
	dash   int    // where the dash is, or -1
	key    string // "" if there is none
	value  string // after the colon
	at     int    // where the key begins
	blank  bool
}

func readYAMLLine(t text, n int) yamlLine {
	start, end := t.line(n)
	s := t.s[start:end]
	l := yamlLine{dash: -1, at: start}
	i := 0
	for i < len(s) && s[i] == ' ' {
		i++
	}
	for i < len(s) && s[i] == '-' && (i+1 == len(s) || s[i+1] == ' ') {
		if l.dash < 0 {
			l.dash = i
		}
		i++
		for i < len(s) && s[i] == ' ' {
			i++
		}
	}
	l.indent, l.at = i, start+i
	rest := s[i:]
	if rest == "" || rest[0] == '#' {
		l.blank = l.dash < 0
		return l
	}
	if j := strings.Index(rest+" ", ": "); j > 0 && !strings.ContainsAny(rest[:j], "{}[]#") || strings.HasSuffix(rest, ":") && !strings.ContainsAny(rest, "{}[]#") {
		if j < 0 {
			j = len(rest) - 1
		}
		l.key = strings.Trim(rest[:j], `"' `)
		l.value = strings.TrimSpace(rest[min(len(rest), j+1):])
	}
	return l
}

// yamlPath is the keys that lead to a place in a file, by indentation, and the line that the place is on. The path does
// not have the line's own key. A list's entries count for nothing in a path.
func yamlPath(t text, offset int) ([]string, yamlLine) {
	n, found := slices.BinarySearch(t.lines, offset)
	if !found {
		n--
	}
	here := readYAMLLine(t, n)
	indent := here.indent
	if here.blank || here.key == "" && here.dash < 0 {
		// Nothing stands here yet: what is typed will begin at the cursor, or where the line's text does.
		start, _ := t.line(n)
		if indent = min(here.indent, offset-start); here.blank {
			indent = offset - start
		}
	}
	var path []string
	inItem := here.dash >= 0
	if inItem {
		// The keys of an entry are those of the map behind its dash, whose list belongs to a key at the dash's depth or less.
		path, n = parents(t, n, here.dash+1)
	} else {
		path, n = parents(t, n, indent)
	}
	slices.Reverse(path)
	return path, here
}

// parents lists, innermost first, the keys above line n that are less indented.
func parents(t text, n, indent int) ([]string, int) {
	var path []string
	for n--; n >= 0 && indent > 0; n-- {
		l := readYAMLLine(t, n)
		if l.blank {
			continue
		}
		if l.dash >= 0 && l.indent <= indent && l.dash < indent {
			// We are in this entry; its list's key is at the dash's depth or less.
			if l.indent < indent && l.key != "" && l.value == "" {
				path = append(path, l.key)
			}
			indent = l.dash + 1
			continue
		}
		if l.key != "" && l.dash < 0 && l.indent < indent {
			if l.value == "" || strings.HasPrefix(l.value, "#") || strings.HasPrefix(l.value, "&") {
				path = append(path, l.key)
			}
			indent = l.indent
		}
	}
	return path, n
}
