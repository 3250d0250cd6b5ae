package review

import (
	"context"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"fairlead.dev/api"
)

func itoa(n int) string { return strconv.Itoa(n) }

// count is a number of things in words: "1 file", "2 files".
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return itoa(n) + " " + thing
}

var (
	prefixed     = regexp.MustCompile(`^[-\w./ ,]{1,40}: \S`)
	conventional = regexp.MustCompile(`^(feat|fix|docs|chore|test|refactor|perf|build|ci|style)(\([-\w./]+\))?!?: \S`)
	// What git writes behind the second @@ is the function that a change is in: "func (s *Store) Add(x int) error {".
	goFunc = regexp.MustCompile(`^@@ [^@]* @@ (?:func (?:\([^)]*?([A-Za-z_]\w*)(?:\[[^\]]*\])?\) )?([A-Za-z_]\w*)|type ([A-Za-z_]\w*) )`)
)

// proposeMessage makes a commit's subject of what is picked: where the change is, in the way that the repository's own subjects name
// that, and what it touches. It is a beginning for a person who knows why.
func (t *tree) proposeMessage(ctx context.Context, changes []api.ReviewChange) string {
	var files []api.ReviewChange
	for _, c := range changes {
		if c.Picked {
			files = append(files, c)
		}
	}
	if len(files) == 0 {
		for _, c := range changes {
			if c.Kind != "submodule" {
				files = append(files, c)
			}
		}
	}
	if len(files) == 0 {
		return ""
	}
	paths := make([]string, len(files))
	for i, c := range files {
		paths[i] = c.Path
	}
	verb := map[string]string{"untracked": "add", "added": "add", "deleted": "remove", "renamed": "rename"}[files[0].Kind]
	if slices.ContainsFunc(files, func(c api.ReviewChange) bool { return c.Kind != files[0].Kind }) {
		verb = ""
	}
	what := t.touched(ctx, paths)
	if verb != "" || what == "" {
		what = names(paths)
	}
	if verb == "" {
		verb = "change"
	}
	subject := verb + " " + what
	style := t.style(ctx)
	switch area := areaOf(paths); {
	case style == "conventional":
		kind := "feat"
		switch {
		case all(paths, func(p string) bool { return strings.HasSuffix(p, ".md") || strings.HasPrefix(p, "docs/") }):
			kind = "docs"
		case all(paths, func(p string) bool { return strings.Contains(p, "_test.") || strings.Contains(p, "/testdata/") }):
			kind = "test"
		case verb == "change":
			kind = "fix"
		}
		if area != "" {
			kind += "(" + path.Base(area) + ")"
		}
		subject = kind + ": " + subject
	case style == "area" && area != "":
		subject = area + ": " + subject
	default:
		subject = strings.ToUpper(subject[:1]) + subject[1:]
	}
	return cut(subject, 72) // as git's own documentation advises, and hosts cut
}

// style is how the repository's last subjects begin: "conventional", "area" or neither.
func (t *tree) style(ctx context.Context) string {
	out, err := t.read(ctx, "log", "--no-merges", "-n", "30", "--format=%s")
	if err != nil {
		return ""
	}
	var conv, area, n int
	for s := range strings.Lines(out) {
		n++
		if conventional.MatchString(s) {
			conv++
		} else if prefixed.MatchString(s) {
			area++
		}
	}
	switch {
	case 2*conv > n:
		return "conventional"
	case 2*(conv+area) > n:
		return "area"
	}
	return ""
}

// touched names up to two functions or types of Go that the files' changes are in; empty where there are none.
func (t *tree) touched(ctx context.Context, paths []string) string {
	out, err := t.read(ctx, append([]string{"diff", "--no-ext-diff", "--no-textconv", "--unified=0", "HEAD", "--"}, literal(paths)...)...)
	if err != nil {
		return ""
	}
	var all []string
	goFile := false
	for l := range strings.Lines(out) {
		if strings.HasPrefix(l, "+++ ") {
			goFile = strings.HasSuffix(strings.TrimRight(l, "\t\n"), ".go")
		}
		m := goFunc.FindStringSubmatch(l)
		if m == nil || !goFile {
			continue
		}
		name := m[2] + m[3]
		if m[1] != "" {
			name = m[1] + "." + m[2]
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	switch {
	case len(all) == 0:
		return ""
	case len(all) == 1:
		return all[0]
	case len(all) == 2:
		return all[0] + " and " + all[1]
	}
	return all[0] + ", " + all[1] + " and " + itoa(len(all)-2) + " more"
}

func names(paths []string) string {
	switch n := len(paths); {
	case n == 1:
		return path.Base(paths[0])
	case n == 2:
		return path.Base(paths[0]) + " and " + path.Base(paths[1])
	default:
		return path.Base(paths[0]) + " and " + itoa(n-1) + " more files"
	}
}

// areaOf is the folder that all paths are in, without what says nothing: "server/calls" of internal/server/calls. Empty: the top.
func areaOf(paths []string) string {
	dir := path.Dir(paths[0])
	for _, p := range paths[1:] {
		for dir != "." && !strings.HasPrefix(p, dir+"/") {
			dir = path.Dir(dir)
		}
	}
	parts := slices.DeleteFunc(strings.Split(dir, "/"), func(s string) bool { return s == "." || s == "internal" || s == "pkg" || s == "src" })
	return strings.Join(parts[max(0, len(parts)-2):], "/")
}

func all(paths []string, f func(string) bool) bool {
	return !slices.ContainsFunc(paths, func(p string) bool { return !f(p) })
}

// cut shortens text to whole words.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[:n]
	if i := strings.LastIndexByte(s, ' '); i > n/2 {
		s = s[:i]
	}
	return strings.ToValidUTF8(strings.TrimRight(s, " ,"), "")
}

// literal has git take paths as they are: a file may be called "*.go".
func literal(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = ":(top,literal)" + p
	}
	return out
}
