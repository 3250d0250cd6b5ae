package watch

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestIgnore(t *testing.T) {
	for _, tt := range []struct {
		file string
		yes  []string // a folder's ends in /
		no   []string
	}{
		{"*.log", []string{"a.log", "d/a.log"}, []string{"a.logs", "log"}},
		{"/bin", []string{"bin", "bin/"}, []string{"d/bin"}},
		{"bin/", []string{"bin/", "d/bin/"}, []string{"bin"}},
		{"a/b", []string{"a/b"}, []string{"x/a/b"}},
		{"**/a/b", []string{"a/b", "x/a/b", "x/y/a/b"}, []string{"a/x/b"}},
		{"a/**/b", []string{"a/b", "a/x/b", "a/x/y/b", "a/b/x/b"}, []string{"b", "a/c"}},
		{"a/**", []string{"a/x", "a/x/y"}, []string{"a/", "a"}},
		{"*\n!*/\n!*.go", []string{"x.txt", "d/x.txt"}, []string{"d/", "a.go", "d/a.go"}},
		{"[!a].go", []string{"b.go"}, []string{"a.go"}},
		{"[]-a].go", []string{"].go", "^.go", "a.go"}, []string{"b.go"}},
		{"x[[:digit:]]", []string{"x1"}, []string{"xa", "x:"}},
		{"\\#a\n\\!b\na\\ \nb  \nc\r\n", []string{"#a", "!b", "a ", "b", "c"}, []string{"a", "b  "}},
		{"# a\n\n/\n  \n", nil, []string{"# a", "a"}},
		{"[a\nb\\", nil, []string{"[a", "a", "b", "b\\"}},
		{"a*b*c", []string{"abc", "aXbYc", "abbcc"}, []string{"acb", "ab/c"}},
		{"d/*.x", []string{"d/a.x"}, []string{"d/e/a.x"}},
		{"?.x", []string{"a.x"}, []string{"ab.x", ".x"}},
	} {
		r := &rules{base: filepath.FromSlash("/w"), patterns: parsePatterns(tt.file)}
		check := func(paths []string, want bool) {
			for _, p := range paths {
				name, dir := strings.CutSuffix(p, "/")
				if got := r.ignored(filepath.FromSlash("/w/"+name), dir); got != want {
					t.Errorf("%q: ignored(%q) = %v", tt.file, p, got)
				}
			}
		}
		check(tt.yes, true)
		check(tt.no, false)
	}
}

// TestIgnoreAgainstGit compares with git itself, on patterns made of the characters that matter.
func TestIgnoreAgainstGit(t *testing.T) {
	isolateGit(t)
	dir := t.TempDir()
	git(t, dir, "init", "-q")
	for _, p := range []string{
		"a", "b.go", "ab", "A", "x.log", "]", "-", "a b", "!a", "#a", "d/a", "d/b.go", "d/d/a", "d/e/f/a", "d/e/f/ab.log",
		"e/a", "e/d/a/b/c", "e/x.log", "f/[a]", "f/a*", "f/\\", "ba/a", "ba/b/ba",
	} {
		p = filepath.Join(dir, p)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, nil, 0o644))
	}
	var paths []string
	var isDir []bool
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == ".git" {
			return filepath.SkipDir
		}
		if p != dir {
			rel, _ := filepath.Rel(dir, p)
			paths, isDir = append(paths, filepath.ToSlash(rel)), append(isDir, d.IsDir())
		}
		return nil
	}))
	tokens := []string{
		"a", "b", "d", "e", "f", "*", "*", "**", "**/", "/**", "/", "/", "?", "[ab]", "[!a]", "[^b]", "[a-c]", "[]a]", "[[:alpha:]]",
		"[!]]", "[a", "]", "-", "\\", "\\*", ".go", ".log", "*.log", "!", "#", " ", "\\ ", "A", "[[:x:]]", "[[:a]", "[\\]]", "[b-\\d]", "[a/]",
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rounds := 400
	if testing.Short() {
		rounds = 50
	}
	for range rounds {
		var files [2]string // of the top, and of d
		for i := range files {
			var b strings.Builder
			for range 1 + rng.IntN(4) {
				if rng.IntN(4) == 0 {
					b.WriteByte('!')
				}
				for range 1 + rng.IntN(5) {
					b.WriteString(tokens[rng.IntN(len(tokens))])
				}
				b.WriteByte('\n')
			}
			// git cuts off what precedes the first special character, and so comes to take "a**/b" for "a" and "**/b".
			// Its manual says otherwise; this is not copied.
			if files[i] = b.String(); cutStars.MatchString(files[i]) {
				files[i] = ""
			}
		}
		must(t, os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(files[0]), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "d", ".gitignore"), []byte(files[1]), 0o644))

		c := exec.Command("git", "check-ignore", "--no-index", "-z", "--stdin")
		c.Dir = dir
		c.Stdin = strings.NewReader(strings.Join(paths, "\x00") + "\x00")
		out, err := c.Output()
		if err != nil && c.ProcessState.ExitCode() != 1 {
			t.Fatal(err)
		}
		want := map[string]bool{}
		for p := range bytes.SplitSeq(out, []byte{0}) {
			want[string(p)] = true
		}
		top := &rules{base: dir, patterns: parsePatterns(files[0])}
		sub := &rules{base: filepath.Join(dir, "d"), patterns: parsePatterns(files[1]), outer: top}
		got := map[string]bool{}
		for i, p := range paths {
			r := top
			if strings.HasPrefix(p, "d/") {
				r = sub
			}
			got[p] = got[pathDir(p)] || r.ignored(filepath.Join(dir, filepath.FromSlash(p)), isDir[i])
			if got[p] != want[p] {
				t.Errorf("%s: got %v, git says %v, with .gitignore\n%s--- and d/.gitignore\n%s", p, got[p], want[p], files[0], files[1])
			}
		}
		if t.Failed() {
			return
		}
	}
}

var cutStars = regexp.MustCompile(`(?m)^!?/?[^*?\[\\\n]*[^*?\[\\\n/!]\*\*`)

func pathDir(p string) string {
	i := strings.LastIndexByte(p, '/')
	return p[:max(i, 0)]
}

// FuzzIgnore looks for patterns that crash, that take long, or whose meaning depends on what surrounds them.
func FuzzIgnore(f *testing.F) {
	f.Add("*.log\n!/a/**/b[!x-z]\\ \n", "a/b/c")
	f.Add("[[:alpha:]", "a")
	f.Add(strings.Repeat("**/", 30)+"x\n"+strings.Repeat("*a", 30), strings.Repeat("a/", 60)+strings.Repeat("a", 60))
	f.Fuzz(func(t *testing.T, file, path string) {
		if path == "" || strings.Contains(path, "//") || strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") {
			return
		}
		ps := parsePatterns(file)
		r := &rules{base: "/w", patterns: ps}
		got := r.ignored("/w/"+path, true)
		// The last pattern that matches decides, whatever comes before.
		want := false
		for _, p := range ps {
			one := rules{base: "/w", patterns: []pattern{p}}
			hit := one.ignored("/w/"+path, true)
			if p.negated {
				q := p
				q.negated = false
				if (&rules{base: "/w", patterns: []pattern{q}}).ignored("/w/"+path, true) {
					want = false
				}
			} else if hit {
				want = true
			}
		}
		if got != want {
			t.Errorf("%q on %q: %v, want %v", file, path, got, want)
		}
		// A name without special characters matches itself, and with each character escaped too.
		base := filepath.Base(path)
		if !strings.ContainsAny(base, "\x00\n\r") && base != "." && base != ".." {
			var esc strings.Builder
			for i := range len(base) {
				esc.WriteByte('\\')
				esc.WriteByte(base[i])
			}
			if p, ok := parsePattern(esc.String()); !ok || !p.match(path, base, true) {
				t.Errorf("%q does not match itself escaped as %q", base, esc.String())
			}
		}
	})
}

func TestScratch(t *testing.T) {
	for name, want := range map[string]bool{
		".main.go.swp": true, ".main.go.swo": true, ".main.go.swx": true, ".main.go.swpx": true, "main.swp": true,
		"main.go~": true, "4913": true, "5036": true, ".#main.go": true, "#main.go#": true, ".DS_Store": true,
		"main.go___jb_tmp___": true, "main.go___jb_old___": true, ".goutputstream-ABC": true, ".main.go.kate-swp": true,
		".nfs000123": true,
		"main.go":    false, "4914": false, "main.swift": false, ".swift": false, "a.sw": false, "#": false, "": false, "12": false,
		".env": false, "x.swt": false, ".gitignore": false, "go.mod": false,
	} {
		if got := isScratch(name); got != want {
			t.Errorf("isScratch(%q) = %v", name, got)
		}
	}
}

func FuzzResolveGitFile(f *testing.F) {
	f.Add("gitdir: ../.git/worktrees/x\n")
	f.Add("gitdir:/a/b")
	f.Add("nonsense")
	f.Fuzz(func(t *testing.T, text string) {
		got := resolveGitFile("/w", text)
		if got != "" && (!filepath.IsAbs(got) || filepath.Clean(got) != got || strings.Contains(got, "\n")) {
			t.Errorf("%q gives %q", text, got)
		}
	})
}

// TestIgnoreFiles checks where rules are taken from: a work tree of its own with Root below its top.
func TestIgnoreFiles(t *testing.T) {
	isolateGit(t)
	main := t.TempDir()
	git(t, main, "init", "-q", "-b", "one")
	git(t, main, "commit", "-q", "--allow-empty", "-m", "x")
	top := filepath.Join(t.TempDir(), "tree")
	git(t, main, "worktree", "add", "-q", "-b", "two", top)
	write(t, filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "git", "ignore"), "by-default\n")
	write(t, filepath.Join(main, ".git", "info", "exclude"), "by-exclude\n")
	write(t, filepath.Join(top, ".gitignore"), "by-top\nagain\n")
	write(t, filepath.Join(top, "svc", ".gitignore"), "by-middle\n")
	write(t, filepath.Join(top, "svc", "a", ".gitignore"), "by-root\n!again\n")
	write(t, filepath.Join(top, "svc", "a", "sub", ".gitignore"), "by-sub\n")
	root := filepath.Join(top, "svc", "a")

	ignored := func() (got []string) {
		l := &loop{known: map[string]*repo{}, global: globalPatterns(t.Context(), root)}
		r := l.rulesAbove(root).with(root).with(filepath.Join(root, "sub"))
		for _, name := range []string{"by-default", "by-config", "by-exclude", "by-top", "by-middle", "by-root", "by-sub", "again", "other"} {
			if r.ignored(filepath.Join(root, "sub", name), false) {
				got = append(got, name)
			}
		}
		if r.repo == nil || !strings.Contains(r.repo.gitDir, "worktrees") || r.repo.common != filepath.Join(main, ".git") {
			t.Errorf("repository %+v", r.repo)
		}
		return got
	}
	want := []string{"by-default", "by-exclude", "by-top", "by-middle", "by-root", "by-sub"}
	if got := ignored(); !slices.Equal(got, want) {
		t.Errorf("ignored %v, want %v", got, want)
	}
	write(t, filepath.Join(os.Getenv("HOME"), "mine"), "by-config\n")
	git(t, main, "config", "--global", "core.excludesFile", "~/mine")
	want[0] = "by-config"
	if got := ignored(); !slices.Equal(got, want) {
		t.Errorf("ignored %v, want %v", got, want)
	}
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	must(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	must(tb, os.WriteFile(path, []byte(text), 0o644))
}
