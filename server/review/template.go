package review

import (
	"context"
	"path"
	"regexp"
	"slices"
	"strings"

	"fairlead.dev/platform/forge"
)

// template is a file that a review's text begins as.
type template struct {
	path, text string
}

const maxTemplate = 64 << 10

// templateFolders are where each forge documents its templates, in its order: GitHub ("About issue and pull request templates"; the
// names are of any case), GitLab ("Description templates"), Gitea and Forgejo ("Issue and Pull Request templates").
var templateFolders = map[forge.Kind][]string{
	forge.GitHub: {".github", "", "docs"},
	forge.GitLab: {".gitlab/merge_request_templates"},
	forge.Gitea:  {".forgejo", ".gitea", ".gitlab", ".github", "", "docs"},
}

// templates lists those that the base branch has: the one that the forge itself would take first.
func (t *tree) templates(ctx context.Context, base string, kind forge.Kind) ([]template, error) {
	folders, ok := templateFolders[kind]
	if !ok {
		folders = slices.Concat(templateFolders[forge.GitHub], templateFolders[forge.GitLab], templateFolders[forge.Gitea])
	}
	// Only these folders: a whole tree may have a hundred thousand files.
	args := []string{"ls-tree", "-r", "-z", "--full-tree", "--name-only", base, "--"}
	for _, f := range []string{".github", ".gitlab/merge_request_templates", ".gitea", ".forgejo", "docs", "PULL_REQUEST_TEMPLATE", "pull_request_template"} { // the last two are GitHub's
		args = append(args, f+"/")
	}
	below, err := t.read(ctx, args...)
	if err != nil {
		return nil, err
	}
	above, err := t.read(ctx, "ls-tree", "-z", "--full-tree", "--name-only", base)
	if err != nil {
		return nil, err
	}
	var files []string
	for p := range strings.SplitSeq(below+above, "\x00") {
		if p != "" && !slices.Contains(files, p) {
			files = append(files, p)
		}
	}
	slices.Sort(files)
	var one, more []string
	for _, folder := range folders {
		for _, f := range files {
			low := strings.ToLower(f)
			dir, name := path.Split(low)
			dir = strings.TrimSuffix(dir, "/")
			ext := path.Ext(name)
			if ext != ".md" && ext != ".txt" || slices.Contains(one, f) || slices.Contains(more, f) {
				continue
			}
			switch {
			case folder == ".gitlab/merge_request_templates":
				if dir == folder && name == "default.md" {
					one = append(one, f)
				} else if dir == folder && ext == ".md" {
					more = append(more, f)
				}
			case dir == folder && strings.TrimSuffix(name, ext) == "pull_request_template":
				one = append(one, f)
			case dir == strings.TrimPrefix(folder+"/pull_request_template", "/"):
				more = append(more, f)
			}
		}
	}
	var out []template
	for _, f := range slices.Concat(one, more) {
		text, err := t.read(ctx, "cat-file", "blob", base+":"+f)
		if err != nil {
			return nil, err
		}
		if len(text) <= maxTemplate {
			out = append(out, template{f, strings.ReplaceAll(withoutFrontMatter(text), "\r\n", "\n")})
		}
	}
	return out, nil
}

var frontMatter = regexp.MustCompile(`(?s)\A---\r?\n.*?\r?\n---\r?\n`)

// withoutFrontMatter leaves out the YAML that Gitea's templates may begin with.
func withoutFrontMatter(s string) string {
	return strings.TrimLeft(frontMatter.ReplaceAllString(s, ""), "\r\n")
}

var word = regexp.MustCompile(`[a-z0-9]+`)

// kinds say what templates' names mean beside folders of these names: how a file shows that it is of that kind.
var kinds = map[string]func(path string) bool{
	"docs":     isDocs,
	"doc":      isDocs,
	"document": isDocs, "documentation": isDocs,
	"test": isTest, "tests": isTest,
	"ci":       isCI,
	"workflow": isCI,
	"frontend": func(p string) bool {
		return hasExt(p, ".ts", ".tsx", ".js", ".jsx", ".css", ".scss", ".vue", ".svelte", ".html")
	},
	"web": func(p string) bool {
		return hasExt(p, ".ts", ".tsx", ".js", ".jsx", ".css", ".scss", ".vue", ".svelte", ".html")
	},
	"backend":   func(p string) bool { return hasExt(p, ".go", ".java", ".py", ".rb", ".rs", ".cs") },
	"api":       func(p string) bool { return hasExt(p, ".proto", ".graphql") },
	"proto":     func(p string) bool { return hasExt(p, ".proto") },
	"database":  isMigration,
	"migration": isMigration, "migrations": isMigration, "schema": isMigration,
	"infra":     isInfra,
	"terraform": isInfra, "infrastructure": isInfra, "helm": isInfra,
	"dependency": isDependency, "dependencies": isDependency, "deps": isDependency,
}

func hasExt(p string, exts ...string) bool { return slices.Contains(exts, path.Ext(p)) }
func isDocs(p string) bool                 { return hasExt(p, ".md", ".rst", ".adoc") || strings.HasPrefix(p, "docs/") }
func isTest(p string) bool {
	return strings.Contains(p, "_test.") || strings.Contains(p, ".test.") || strings.Contains(p, "testdata/")
}
func isCI(p string) bool {
	return strings.HasPrefix(p, ".github/workflows/") || strings.HasPrefix(p, ".gitea/workflows/") || strings.HasPrefix(p, ".ci/") || p == ".gitlab-ci.yml"
}
func isMigration(p string) bool { return hasExt(p, ".sql") }
func isInfra(p string) bool     { return hasExt(p, ".tf", ".tfvars") || path.Base(p) == "Chart.yaml" }
func isDependency(p string) bool {
	return slices.Contains([]string{"go.mod", "go.sum", "package.json", "package-lock.json"}, path.Base(p))
}

// chooseTemplate takes, of several, the one that the edited files are of: what the settings say of their paths, then the one whose name
// names their folders or their kind, for at least half of them; else the forge's own choice. rules map patterns to names.
func chooseTemplate(all []template, files []string, branch string, rules map[string]string) *template {
	if len(all) == 0 {
		return nil
	}
	share := func(f func(path string) bool) float64 {
		n := 0
		for _, p := range files {
			if f(p) {
				n++
			}
		}
		return float64(n) / float64(max(len(files), 1))
	}
	var best *template
	most := 0.0
	patterns := make([]string, 0, len(rules))
	for pattern := range rules {
		patterns = append(patterns, pattern)
	}
	slices.Sort(patterns)
	for _, pattern := range patterns {
		s := share(func(p string) bool { return matchPath(pattern, p) })
		for i := range all {
			if s > most && namesTemplate(all[i].path, rules[pattern]) {
				best, most = &all[i], s
			}
		}
	}
	if best != nil && most >= 0.5 {
		return best
	}
	best, most = nil, 0
	for i := range all {
		name := strings.ToLower(strings.TrimSuffix(path.Base(all[i].path), path.Ext(all[i].path)))
		if name == "pull_request_template" || name == "default" {
			continue
		}
		for _, w := range word.FindAllString(name, -1) {
			if w == "pull" || w == "request" || w == "template" || w == "merge" || w == "pr" || w == "mr" {
				continue
			}
			s := share(func(p string) bool {
				if k := kinds[w]; k != nil && k(p) {
					return true
				}
				for dir := range strings.SplitSeq(strings.ToLower(path.Dir(p)), "/") {
					if dir == w || slices.Contains(word.FindAllString(dir, -1), w) {
						return true
					}
				}
				return false
			})
			if first, _, ok := strings.Cut(strings.ToLower(branch), "/"); ok && (first == w || first == "fix" && (w == "bug" || w == "bugfix" || w == "fix") || first == "feat" && w == "feature") {
				s = max(s, 0.5) // who calls the branch so has said what it is
			}
			if s > most {
				best, most = &all[i], s
			}
		}
	}
	if best != nil && most >= 0.5 {
		return best
	}
	return &all[0]
}

// namesTemplate says whether a person means a template by its path, its file's name, or that without its end.
func namesTemplate(p, name string) bool {
	base := path.Base(p)
	return p == name || strings.EqualFold(base, name) || strings.EqualFold(strings.TrimSuffix(base, path.Ext(base)), name)
}

// matchPath says whether a path is one of a pattern, in which * is part of a name and ** any folders: docs/**, **/*.sql.
func matchPath(pattern, p string) bool {
	ps, ns := strings.Split(strings.Trim(pattern, "/"), "/"), strings.Split(p, "/")
	var match func(ps, ns []string) bool
	match = func(ps, ns []string) bool {
		if len(ps) == 0 {
			return len(ns) == 0
		}
		if ps[0] == "**" {
			for i := range len(ns) + 1 {
				if match(ps[1:], ns[i:]) {
					return true
				}
			}
			return false
		}
		if len(ns) == 0 {
			return false
		}
		ok, err := path.Match(ps[0], ns[0])
		return err == nil && ok && match(ps[1:], ns[1:])
	}
	return match(ps, ns)
}
