package watch

// Matcher compiles patterns of .gitignore's syntax, for folders that are not a repository's: rel is slash-separated and
// relative to the folder that the patterns speak of. A file below an ignored folder is ignored too.
func Matcher(patterns []string) func(rel string, dir bool) bool {
	var ps []pattern
	for _, text := range patterns {
		if p, ok := parsePattern(text); ok {
			ps = append(ps, p)
		}
	}
	if len(ps) == 0 {
		return func(string, bool) bool { return false }
	}
	r := &rules{patterns: ps}
	return func(rel string, dir bool) bool {
		for i := range len(rel) {
			if rel[i] == '/' && r.ignored(rel[:i], true) {
				return true
			}
		}
		return r.ignored(rel, dir)
	}
}
