package watch

import (
	"path/filepath"
	"strings"
)

// rules are the ignore patterns of one file and, through outer, of those that are consulted after it. A chain is
// immutable: nodes share it, and a changed file makes a new one.
//
// go-git's gitignore package was tried and not taken: it has no [!a] classes and no \-escapes on Windows, lets
// "!name" and "!*/" re-include whatever lies below a folder that matches, and takes "a/**" to cover "a" itself, so that
// a "!a/keep" after it is lost. TestIgnoreAgainstGit compares this one with git itself.
type rules struct {
	outer    *rules
	base     string // the folder that the patterns are relative to
	patterns []pattern
	repo     *repo // the repository that the folder belongs to, nil if none
}

// ignored says whether path, which is below r.base, is to be ignored. It does not look at the folders that path is in:
// whoever walks down asks for each of them first.
func (r *rules) ignored(path string, isDir bool) bool {
	name := filepath.Base(path)
	for ; r != nil; r = r.outer {
		if len(r.patterns) == 0 {
			continue
		}
		rel, ok := strings.CutPrefix(path, r.base)
		if !ok {
			continue
		}
		rel = strings.TrimPrefix(filepath.ToSlash(rel), "/")
		for i := len(r.patterns) - 1; i >= 0; i-- {
			if p := &r.patterns[i]; p.match(rel, name, isDir) {
				return !p.negated
			}
		}
	}
	return false
}

// pattern is one line of an ignore file.
type pattern struct {
	negated bool
	dirOnly bool
	// name is matched against the last element of the path, anywhere below the file; if it is empty, segments are
	// matched against all of it.
	name     string
	literal  bool // name has nothing special in it
	segments []string
}

// parsePatterns parses an ignore file as git does.
func parsePatterns(text string) []pattern {
	var ps []pattern
	text = strings.TrimPrefix(text, "\ufeff")
	for line := range strings.Lines(text) {
		// git takes away the \r before the \n, also where the \n is missing.
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if p, ok := parsePattern(line); ok {
			ps = append(ps, p)
		}
	}
	return ps
}

func parsePattern(line string) (pattern, bool) {
	if strings.HasPrefix(line, "#") || strings.Contains(line, "\x00") {
		return pattern{}, false
	}
	line = trimTrailingSpaces(line)
	var p pattern
	line, p.negated = strings.CutPrefix(line, "!")
	line, p.dirOnly = strings.CutSuffix(line, "/")
	if line == "" {
		return pattern{}, false
	}
	anchored := strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	segments, ok := splitPattern(line)
	if !ok {
		return pattern{}, false // git never matches a pattern that is not well formed
	}
	if anchored {
		p.segments = segments
		return p, true
	}
	p.name = line
	p.literal = !strings.ContainsAny(line, `*?[\`)
	return p, true
}

// trimTrailingSpaces removes trailing spaces that no backslash protects.
func trimTrailingSpaces(s string) string {
	end := len(s) // of what is kept
	spaces := false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
			if !spaces {
				end, spaces = i, true
			}
		case '\\':
			i++
			if i == len(s) {
				return s
			}
			end, spaces = len(s), false
		default:
			end, spaces = len(s), false
		}
	}
	return s[:end]
}

// splitPattern splits a pattern at its slashes, and says whether it is well formed.
func splitPattern(s string) (segments []string, ok bool) {
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '/':
			segments = append(segments, s[start:i])
			start = i + 1
		case '\\':
			i++
			if i == len(s) {
				return nil, false
			}
			if s[i] == '/' { // an escaped slash is a slash
				if seg := s[start : i-1]; isStarStar(seg) {
					segments = append(segments, "*", seg) // which, to git, cannot stand for nothing before such a slash
				} else {
					segments = append(segments, seg)
				}
				start = i + 1
			}
		case '[':
			_, n := matchClass(s[i:], 0)
			if n == 0 {
				return nil, false
			}
			i += n - 1
		}
	}
	return append(segments, s[start:]), true
}

func (p *pattern) match(rel, name string, isDir bool) bool {
	switch {
	case p.dirOnly && !isDir:
		return false
	case p.literal:
		return p.name == name
	case p.name != "":
		return glob(p.name, name)
	}
	return globSegments(p.segments, rel)
}

// globSegments matches a whole path. It backtracks to the last "**" only, which is enough, and takes time proportional
// to the product of the lengths at worst: an ignore file comes with a repository and may be hostile.
func globSegments(pat []string, path string) bool {
	segs := strings.Split(path, "/")
	p, s := 0, 0
	starP, starS := -1, 0
	for s < len(segs) {
		if p < len(pat) {
			if isStarStar(pat[p]) {
				// A trailing ** stands for at least one element, which s < len(segs) grants.
				if p == len(pat)-1 {
					return true
				}
				starP, starS = p, s
				p++
				continue
			}
			if glob(pat[p], segs[s]) {
				p, s = p+1, s+1
				continue
			}
		}
		if starP < 0 {
			return false
		}
		starS++
		p, s = starP+1, starS
	}
	return p == len(pat)
}

func isStarStar(s string) bool { return len(s) >= 2 && strings.Trim(s, "*") == "" }

// glob matches one element of a path, byte by byte as git does.
func glob(pat, s string) bool {
	p, i := 0, 0
	starP, starI := -1, 0
	for i < len(s) {
		if p < len(pat) {
			n := 0 // bytes of the pattern that matched s[i]
			switch c := pat[p]; c {
			case '*':
				starP, starI = p, i
				p++
				continue
			case '?':
				n = 1
			case '\\':
				if p+1 < len(pat) && pat[p+1] == s[i] {
					n = 2
				}
			case '[':
				if ok, l := matchClass(pat[p:], s[i]); ok {
					n = l
				}
			default:
				if c == s[i] {
					n = 1
				}
			}
			if n > 0 {
				p, i = p+n, i+1
				continue
			}
		}
		if starP < 0 {
			return false
		}
		starI++
		p, i = starP+1, starI
	}
	for p < len(pat) && pat[p] == '*' {
		p++
	}
	return p == len(pat)
}

// matchClass matches c against the character class that pat begins with, and returns the class's length, which is 0 for
// one that is not well formed. The odd corners are wildmatch's.
func matchClass(pat string, c byte) (matched bool, length int) {
	i := 1
	negated := i < len(pat) && (pat[i] == '!' || pat[i] == '^')
	if negated {
		i++
	}
	var prev byte // the start of a range, if "-" follows
	for first := true; ; first = false {
		if i >= len(pat) {
			return false, 0
		}
		b := pat[i]
		if b == ']' && !first {
			break
		}
		switch {
		case b == '\\':
			i++
			if i >= len(pat) {
				return false, 0
			}
			b = pat[i]
			matched = matched || b == c
		case b == '-' && prev != 0 && i+1 < len(pat) && pat[i+1] != ']':
			i++
			b = pat[i]
			if b == '\\' {
				i++
				if i >= len(pat) {
					return false, 0
				}
				b = pat[i]
			}
			matched = matched || prev <= c && c <= b
			b = 0
		case b == '[' && i+1 < len(pat) && pat[i+1] == ':':
			end := strings.IndexByte(pat[i+2:], ']')
			if end < 0 {
				return false, 0
			}
			name, ok := strings.CutSuffix(pat[i+2:i+2+end], ":")
			if !ok { // not a class after all: a "[" like any other
				matched = matched || c == '['
				break
			}
			in, ok := posixClass(name, c)
			if !ok {
				return false, 0
			}
			matched = matched || in
			i += 2 + end
			b = 0
		default:
			matched = matched || b == c
		}
		prev = b
		i++
	}
	return matched != negated && c != '/', i + 1
}

func posixClass(name string, c byte) (in, ok bool) {
	lower, upper, digit := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9'
	graph := c > ' ' && c < 0x7f
	switch name {
	case "alnum":
		in = lower || upper || digit
	case "alpha":
		in = lower || upper
	case "blank":
		in = c == ' ' || c == '\t'
	case "cntrl":
		in = c < ' ' || c == 0x7f
	case "digit":
		in = digit
	case "graph":
		in = graph
	case "lower":
		in = lower
	case "print":
		in = graph || c == ' '
	case "punct":
		in = graph && !lower && !upper && !digit
	case "space":
		in = c == ' ' || '\t' <= c && c <= '\r'
	case "upper":
		in = upper
	case "xdigit":
		in = digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
	default:
		return false, false
	}
	return in, true
}

// isStore says whether a folder of that name is a version control system's own, which never holds anything to build.
func isStore(name string) bool {
	switch name {
	case ".git", ".hg", ".svn", ".jj", ".sl", ".bzr":
		return true
	}
	return false
}

// isScratch says whether a file of that name is an editor's or the desktop's own: a swap file, a backup, a lock, a file
// made to see whether one can be made, the temporary of an atomic save.
func isScratch(name string) bool {
	if name == "" {
		return false
	}
	switch name {
	case ".DS_Store", "Thumbs.db", "desktop.ini", ".directory":
		return true
	}
	switch first, last := name[0], name[len(name)-1]; {
	case last == '~': // vim, emacs, nano, gedit: backups and undo files
		return true
	case strings.HasPrefix(name, ".#"), first == '#' && last == '#' && len(name) > 1: // emacs: lock, auto-save
		return true
	case strings.HasPrefix(name, ".~lock."), strings.HasPrefix(name, ".goutputstream-"), // desktop programs
		strings.HasPrefix(name, ".nfs"), strings.HasPrefix(name, ".fuse_hidden"): // removed while open
		return true
	case strings.HasSuffix(name, "___jb_tmp___"), strings.HasSuffix(name, "___jb_old___"): // JetBrains
		return true
	case strings.HasSuffix(name, ".kate-swp"), strings.Contains(name, ".kak."): // kate, kakoune
		return true
	}
	// vim: .name.swp, then .swo down to .swa; .swx and .swpx are made to find out about the file system. Without the
	// leading dot on Windows and with "shortname".
	if ext := filepath.Ext(name); len(ext) >= 4 && strings.HasPrefix(ext, ".sw") && (len(ext) == 4 || ext == ".swpx") &&
		'a' <= ext[3] && ext[3] <= 'x' && (name[0] == '.' || ext == ".swp") {
		return true
	}
	return isProbe(name)
}

// isProbe says whether name is what vim makes to learn whether it may write into a folder: 4913, and if that is taken,
// 123 more each time.
func isProbe(name string) bool {
	if len(name) < 4 || len(name) > 5 {
		return false
	}
	n := 0
	for _, c := range []byte(name) {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n >= 4913 && (n-4913)%123 == 0
}
