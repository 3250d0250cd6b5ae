package watch

import (
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// Matcher compiles patterns of .gitignore's syntax, for folders that are not a repository's: rel is slash-separated and
// relative to the folder that the patterns speak of. A file below an ignored folder is ignored too.
func Matcher(patterns []string) func(rel string, dir bool) bool {
	if len(patterns) == 0 {
		return func(string, bool) bool { return false }
	}
	ps := make([]gitignore.Pattern, 0, len(patterns))
	for _, p := range patterns {
		ps = append(ps, gitignore.ParsePattern(p, nil))
	}
	m := gitignore.NewMatcher(ps)
	return func(rel string, dir bool) bool {
		parts := strings.Split(rel, "/")
		for i := 1; i < len(parts); i++ {
			if m.Match(parts[:i], true) {
				return true
			}
		}
		return m.Match(parts, dir)
	}
}
