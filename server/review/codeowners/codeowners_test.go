package codeowners

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The patterns are of the forges' own documentation.
func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		dialect Dialect
		pattern string
		yes, no string // with spaces
	}{
		{GitHub, "*", "a a/b .x/y", ""},
		{GitHub, "*.js", "a.js x/y/a.js", "a.jsx js"},
		{GitHub, "/build/logs/", "build/logs/a build/logs/a/b", "x/build/logs/a build/logs"},
		{GitHub, "docs/*", "docs/a.md", "docs/b/a.md x/docs/a.md"},
		{GitHub, "apps/", "apps/a x/apps/b/c", "apps"},
		{GitHub, "/docs/", "docs/a docs/b/c", "x/docs/a"},
		{GitHub, "**/logs", "logs/a build/logs/a deeply/nested/logs/x", "logsa"},
		{GitHub, "/apps/github", "apps/github apps/github/a", "apps/githubx x/apps/github"},
		{GitHub, "src/**/test.go", "src/test.go src/a/b/test.go", "x/src/test.go"},
		{GitHub, "a/**", "a/b a/b/c", "a b/a/c"},
		{GitHub, "/*", "a", "a/b"},
		{GitHub, "file?.go", "file1.go x/file2.go", "file.go file/.go"},
		{GitHub, `a\ b.go`, "", "a"},
		{GitHub, "a+(b).go", "a+(b).go", "aab.go"},
		{GitLab, "*", "a a/b .x", ""},
		{GitLab, "README.md", "README.md docs/README.md", "README.mdx"},
		{GitLab, "internal/README.md", "internal/README.md x/internal/README.md", "xinternal/README.md"},
		{GitLab, "/docs/*", "docs/index.md", "docs/projects/index.md x/docs/a"},
		{GitLab, "/docs/**/*.md", "docs/a.md docs/b/c/a.md", "docs/a.txt"},
		{GitLab, "/docs/", "docs/a docs/b/c", "docs x/docs/a"},
		{GitLab, "/docs", "docs", "docs/a"},
		{GitLab, "lib/", "lib/a x/lib/b/c", "lib"},
		{GitLab, "/a[0-9].go", "a1.go", "ab.go"},
		{GitLab, "/a[!0-9].go", "ab.go", "a1.go"},
		{Gitea, ".*\\\\.go", "a.go x/b.go", "a.gox ago"},
		{Gitea, "/docs/.*", "docs/a docs/b/c", "x/docs/a"},
		{Gitea, "!docs/.*", "a x/docs/a", "docs/a"},
		{Forgejo, "(server|web)/.*", "server/a web/b", "docs/a"},
	} {
		f := Parse([]byte(test.pattern+" @owner\n"), test.dialect)
		if len(f.Problems) > 0 {
			t.Errorf("%s %s: %v", test.dialect, test.pattern, f.Problems)
		}
		for _, file := range strings.Fields(test.yes) {
			if len(f.Match([]string{file})) != 1 {
				t.Errorf("%s: %s does not match %s", test.dialect, test.pattern, file)
			}
		}
		for _, file := range strings.Fields(test.no) {
			if len(f.Match([]string{file})) != 0 {
				t.Errorf("%s: %s matches %s", test.dialect, test.pattern, file)
			}
		}
	}
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		name    string
		dialect Dialect
		file    string
		changed string
		want    string // owner[:section][?], with spaces
	}{
		{"the last rule counts", GitHub, "* @a\n*.go @b c@x.org # why\n/x/ @org/team", "m.go x/m.go m.txt", "a b c@x.org org/team!"},
		{"a rule without owners frees", GitHub, "* @a\n/free/", "free/x", ""},
		{"a line that is none is left out", GitHub, "* @a\n!x @b\n[a].go @b\nm.go b\n", "m.go", "a"},
		{"a space in a path", GitHub, "* @a\n/a\\ b/ @b\n", "a", "a"},
		{"each section counts", GitLab, "* @all\n[Docs] @docs\n*.md\nspecial.md @one\n^[Web][2] @web\n*.md\n[docs]\n*.go @late", "a.md special.md m.go", "all docs:Docs one:Docs web:Web? late:Docs"},
		{"no rule of a section", GitLab, "[Docs] @docs\n*.md\n", "m.go", ""},
		{"what is excluded stays so", GitLab, "* @a\n!*.rb\n/x.rb @b\n", "x.rb y.go", "a"},
		{"roles and groups", GitLab, "* @@maintainer @group/sub @one\n", "a", "maintainer! group/sub! one"},
		{"what is no owner is looked over", GitLab, "LICENSE @legal this does not match janedoe@x.org\n", "LICENSE", "legal janedoe@x.org"},
		{"a number sign", GitLab, "\\#file @a\n# b @b\n", "#file", "a"},
		{"no approvals needed", GitLab, "[Web][0] @web\n*\n", "a", "web:Web?"},
		{"every rule counts", Gitea, ".* @a\n.*\\\\.go @b @org/team\n!.*\\\\.go c\n", "m.go", "a b org/team!"},
		{"what does not match", Gitea, "!docs/.* @c\n", "docs/a m.go", "c"},
		{"a bad expression", Gitea, "( @a\n.* @b\nx\n", "m", "b"},
		{"other line ends", GitHub, "\ufeff* @a\r\n", "x", "a"},
		{"empty", GitHub, "", "x", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, r := range Parse([]byte(test.file), test.dialect).Match(strings.Fields(test.changed)) {
				s := r.Owner
				if r.Team {
					s += "!"
				}
				if r.Section != "" {
					s += ":" + r.Section
				}
				if r.Optional {
					s += "?"
				}
				got = append(got, s)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRequiredSaysWhy(t *testing.T) {
	got := Parse([]byte("# owners\n*.go @a\n/x/ @a\n"), GitHub).Match([]string{"x/m.txt", "m.go", "n.go"})
	want := []Required{{Owner: "a", Line: 2, Files: []string{"x/m.txt", "m.go", "n.go"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestProblems(t *testing.T) {
	for dialect, file := range map[Dialect]string{GitHub: "* @a\n!x @b\n", Gitea: "* @a\nx\n", GitLab: "* @a\n[ ] @b\n"} {
		f := Parse([]byte(file), dialect)
		lines := ""
		for _, p := range f.Problems {
			lines += fmt.Sprint(p.Line, " ")
		}
		if lines != "2 " {
			t.Errorf("%s: problems at %q: %v", dialect, lines, f.Problems)
		}
	}
	if f := Parse(make([]byte, maxSize+1), GitHub); len(f.Problems) != 1 || len(f.Match([]string{"a"})) != 0 {
		t.Errorf("too large: %v", f.Problems)
	}
}

// Any file is read to its end in any dialect, and what it requires is of the change and of the file.
func FuzzParse(f *testing.F) {
	f.Add("* @a\n[Docs][2] @docs\n!x\n*.md\n/a/**/b[!x]? @@r @g/s x@y # c\n\\#f @b\n", "a/b/c.md")
	f.Add("^[x] @y\n(.*)\\.go @a\n[ü][", "ü.go")
	f.Fuzz(func(t *testing.T, file, changed string) {
		for _, d := range []Dialect{GitHub, GitLab, Gitea, Forgejo} {
			for _, r := range Parse([]byte(file), d).Match([]string{changed}) {
				if r.Owner == "" || len(r.Files) != 1 || r.Line < 1 || r.Line > strings.Count(file, "\n")+1 {
					t.Fatalf("%s: %+v", d, r)
				}
			}
		}
	})
}
