// Package codeowners reads CODEOWNERS files as the forges do, each in its own language, and tells who must be asked about
// the files of a change. It is pure: who reads the file from where is the caller's. It must not know git's history, nor who
// the owners are.
package codeowners

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Dialect is a forge's language of CODEOWNERS.
type Dialect string

// The dialects. Forgejo's is Gitea's, with a place more.
const (
	GitHub  Dialect = "github"
	GitLab  Dialect = "gitlab"
	Gitea   Dialect = "gitea"
	Forgejo Dialect = "forgejo"
)

// Places are where a forge looks for the file: the first that is there counts.
func (d Dialect) Places() []string {
	switch d {
	case GitLab:
		return []string{"CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS"}
	case Gitea:
		return []string{"CODEOWNERS", "docs/CODEOWNERS", ".gitea/CODEOWNERS"}
	case Forgejo:
		return []string{"CODEOWNERS", "docs/CODEOWNERS", ".gitea/CODEOWNERS", ".forgejo/CODEOWNERS"}
	default:
		return []string{".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"}
	}
}

// maxSize is GitHub's limit, above which it reads nothing of a file.
const maxSize = 3 << 20

// File is a CODEOWNERS file that was read.
type File struct {
	// Problems are lines that the forge leaves out as well, by number, and why.
	Problems []Problem
	dialect  Dialect
	sections []section
}

// Problem is a line that cannot be used.
type Problem struct {
	Line    int
	Message string
}

// section is a part of GitLab's files whose rules stand for themselves. The other dialects have one, without a name.
type section struct {
	name     string
	optional bool
	rules    []rule
}

type rule struct {
	line    int
	pattern *regexp.Regexp
	negate  bool // GitLab: files that belong to nobody; Gitea: those that do not match
	owners  []string
}

// Required is an owner who must be asked, and why.
type Required struct {
	// Owner is as it was written, without the @: a login, an address, or a team (org/team, GitLab's group/sub as well).
	Owner string
	// Team is set where it cannot be a person: org/team, or GitLab's roles (@@developer). A GitLab group of one word looks like a person.
	Team bool
	// Optional is set in GitLab's optional sections: the forge asks, but does not insist.
	Optional bool
	Section  string
	Line     int      // of the first rule that names them
	Files    []string // of the change
}

// Parse reads a file. What a line has wrong is in Problems, and the other lines count, as on the forges.
func Parse(data []byte, d Dialect) *File {
	f := &File{dialect: d}
	if len(data) > maxSize {
		f.Problems = append(f.Problems, Problem{1, fmt.Sprintf("the file is larger than %d MB, and is not read", maxSize>>20)})
		return f
	}
	f.sections = []section{{}}
	current, defaults := 0, []string(nil)
	n := 0
	for text := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		n++
		text = strings.TrimRight(text, "\r\n")
		if d == GitLab {
			if head, ok, err := sectionHead(text); err != "" {
				f.Problems = append(f.Problems, Problem{n, err})
				continue
			} else if ok {
				current, defaults = f.section(head), head.owners
				continue
			}
		}
		words := split(text, d)
		if len(words) == 0 {
			continue
		}
		r, err := d.rule(words, defaults)
		if err != "" {
			f.Problems = append(f.Problems, Problem{n, err})
			continue
		}
		r.line = n
		f.sections[current].rules = append(f.sections[current].rules, r)
	}
	return f
}

// split makes words of a line. Gitea takes a backslash away from any character, also from a regular expression's.
func split(line string, d Dialect) []string {
	var words []string
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	escaped := false
	for i, r := range line {
		switch {
		case escaped:
			if d != Gitea && d != Forgejo && r != ' ' && (r != '#' || d == GitHub) { // of the path's pattern, where it means the same
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == ' ' || r == '\t':
			end()
		case r == '#' && (d != GitLab || strings.TrimSpace(line[:i]) == ""): // GitLab knows no comment behind a rule
			end()
			return words
		default:
			word.WriteRune(r)
		}
	}
	end()
	return words
}

type head struct {
	name     string
	optional bool
	owners   []string
}

// headPattern is GitLab's: ^[Name][2] @owner. The number of approvals is a rule of the forge's; who can give one is what counts here.
var headPattern = regexp.MustCompile(`^(\^)?\[([^\]]*)\](?:\[(\d*)\])?(?:\s+(.*))?$`)

func sectionHead(line string) (head, bool, string) {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "[") && !strings.HasPrefix(line, "^[") {
		return head{}, false, ""
	}
	m := headPattern.FindStringSubmatch(line)
	if m == nil { // GitLab reads it as a rule, and so do we
		return head{}, false, ""
	}
	name := strings.TrimSpace(m[2])
	if name == "" {
		return head{}, false, "a section needs a name"
	}
	h := head{name: name, optional: m[1] != ""}
	if n, err := strconv.Atoi(m[3]); err == nil && n == 0 {
		h.optional = true
	}
	for _, o := range split(m[4], GitLab) {
		if isOwner(o, GitLab) {
			h.owners = append(h.owners, o)
		}
	}
	return h, true, ""
}

// section is the number of a head's section: of the same name are one, and it is optional if all of them are.
func (f *File) section(h head) int {
	for i, s := range f.sections {
		if i > 0 && strings.EqualFold(s.name, h.name) {
			f.sections[i].optional = s.optional && h.optional
			return i
		}
	}
	f.sections = append(f.sections, section{name: h.name, optional: h.optional})
	return len(f.sections) - 1
}

func isOwner(word string, d Dialect) bool {
	if d == Gitea || d == Forgejo {
		return strings.TrimPrefix(word, "@") != ""
	}
	at := strings.LastIndexByte(word, '@')
	return at >= 0 && at < len(word)-1
}

func (d Dialect) rule(words, defaults []string) (rule, string) {
	var r rule
	pattern := words[0]
	for _, w := range words[1:] {
		if !isOwner(w, d) {
			if d == GitLab {
				continue // it looks over what is none
			}
			return r, fmt.Sprintf("%s is no owner: write @login, @org/team or an address", strconv.Quote(w))
		}
		r.owners = append(r.owners, w)
	}
	if d != GitHub {
		pattern, r.negate = strings.CutPrefix(pattern, "!")
	}
	var expr string
	switch d {
	case Gitea, Forgejo:
		if len(r.owners) == 0 {
			return r, "a rule needs an owner"
		}
		expr = "^" + strings.TrimPrefix(pattern, "/") + "$"
	case GitLab:
		if len(r.owners) == 0 {
			r.owners = defaults
		}
		expr = glob(pattern, true)
	default:
		if strings.HasPrefix(pattern, "!") || strings.ContainsAny(pattern, "[]") {
			return r, "GitHub reads neither ! nor [ ] in a pattern"
		}
		expr = glob(pattern, false)
	}
	var err error
	if r.pattern, err = regexp.Compile(expr); err != nil {
		return r, "the pattern cannot be read: " + err.Error()
	}
	return r, ""
}

// glob makes a regular expression of a pattern. GitHub's are those of .gitignore: a slash within binds it to the root, and a
// folder stands for all in it. GitLab's are bound by a slash at their beginning only, and a folder needs one at its end.
func glob(pattern string, gitlab bool) string {
	bound := strings.HasPrefix(pattern, "/")
	p := strings.TrimPrefix(pattern, "/")
	folder := strings.HasSuffix(p, "/")
	if !gitlab && strings.Contains(strings.TrimSuffix(p, "/"), "/") {
		bound = true
	}
	var b strings.Builder
	b.WriteString(`^`)
	if !bound {
		b.WriteString(`(?:.*/)?`)
	}
	body := strings.TrimSuffix(p, "/")
	for i := 0; i < len(body); i++ {
		rest := body[i:]
		begins := i == 0 || body[i-1] == '/'
		switch {
		case begins && strings.HasPrefix(rest, "**/"):
			b.WriteString(`(?:.*/)?`)
			i += 2
		case begins && rest == "**":
			b.WriteString(`.*`)
			i++
		case rest[0] == '*':
			b.WriteString(`[^/]*`)
		case rest[0] == '?':
			b.WriteString(`[^/]`)
		case rest[0] == '\\' && len(rest) > 1:
			b.WriteString(regexp.QuoteMeta(rest[1:2]))
			i++
		case gitlab && rest[0] == '[' && strings.IndexByte(rest, ']') > 1:
			end := strings.IndexByte(rest, ']')
			set := strings.ReplaceAll(rest[1:end], `\`, `\\`)
			set = strings.ReplaceAll(set, "[", `\[`)
			if set[0] == '!' {
				set = "^" + set[1:]
			}
			b.WriteString("[" + set + "]")
			i += end
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
		}
	}
	switch {
	case body == "" && p == "": // "/" alone
		b.WriteString(`.*$`)
	case folder:
		b.WriteString(`/.*$`)
	case gitlab:
		b.WriteString(`$`)
	case strings.HasSuffix(body, "/*") || bound && body == "*": // of GitHub's documentation: what is in the folder, not below
		b.WriteString(`$`)
	default:
		b.WriteString(`(?:/.*)?$`)
	}
	return b.String()
}

// Match tells who must be asked about files, in the order of the file's lines.
func (f *File) Match(files []string) []Required {
	var out []Required
	for _, s := range f.sections {
		for _, file := range files {
			file = strings.TrimPrefix(file, "/")
			for _, r := range f.matching(s, file) {
				for _, o := range r.owners {
					out = add(out, owner(o, f.dialect), s, r.line, file)
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Required) int { return a.Line - b.Line })
	return out
}

// matching are the rules that count for a file: on GitHub and in a section of GitLab's the last that matches, on Gitea each.
func (f *File) matching(s section, file string) []rule {
	if f.dialect == Gitea || f.dialect == Forgejo {
		var all []rule
		for _, r := range s.rules {
			if r.pattern.MatchString(file) != r.negate {
				all = append(all, r)
			}
		}
		return all
	}
	for _, r := range s.rules {
		if r.negate && r.pattern.MatchString(file) {
			return nil
		}
	}
	for _, r := range slices.Backward(s.rules) {
		if !r.negate && r.pattern.MatchString(file) {
			return []rule{r}
		}
	}
	return nil
}

func owner(word string, d Dialect) Required {
	name := strings.TrimPrefix(word, "@")
	role := d == GitLab && strings.HasPrefix(name, "@")
	return Required{Owner: strings.TrimPrefix(name, "@"), Team: role || strings.HasPrefix(word, "@") && strings.Contains(name, "/") ||
		(d == Gitea || d == Forgejo) && strings.Contains(name, "/")}
}

func add(to []Required, who Required, s section, line int, file string) []Required {
	for i := range to {
		if strings.EqualFold(to[i].Owner, who.Owner) && to[i].Team == who.Team && to[i].Section == s.name {
			if !slices.Contains(to[i].Files, file) {
				to[i].Files = append(to[i].Files, file)
			}
			to[i].Line = min(to[i].Line, line)
			return to
		}
	}
	who.Section, who.Optional, who.Line, who.Files = s.name, s.optional, line, []string{file}
	return append(to, who)
}
