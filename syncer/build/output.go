package build

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"fairlead.dev/api"
)

// Failure is a build that the user's source made fail: what the compiler said, at least one Problem.
type Failure struct {
	Problems []*api.Problem
	Output   string // as the go command wrote it
}

// Error returns the first problem and how many there are.
func (f *Failure) Error() string {
	s := "build: " + f.Problems[0].Error()
	if n := len(f.Problems) - 1; n > 0 {
		s += " (and " + strconv.Itoa(n) + " more)"
	}
	return s
}

// Unwrap gives errors.As the problems, the first one first.
func (f *Failure) Unwrap() []error {
	errs := make([]error, len(f.Problems))
	for i, p := range f.Problems {
		errs[i] = p
	}
	return errs
}

// codeFailed is the code of what the compiler says of the source; the other codes are those that classify gives.
const codeFailed = "build-failed"

// message is a problem with what the go command said around it.
type message struct {
	*api.Problem
	pkg     string // the package that it is about, where that is said
	imports string // an import cycle: the path whose import in File closes it
}

// outputReader reads the output of `go build` and `go list`.
type outputReader struct {
	dir   string                         // where the command ran
	dirOf func(importPath string) string // the folder of a package of the main modules, else ""; may be nil
	out   []message
	pkg   string       // of the last "# pkg" line
	cur   *api.Problem // what indented lines belong to
	stack []frame      // a "package X / imports Y" block
	eat   bool         // the rest of the block adds nothing
	ld    bool         // in the output of an external linker
}

// frame is one line of an import stack.
type frame struct{ path, file string }

var (
	reInFunction = regexp.MustCompile(`^(In file included from |\s+from )|: (In function|In member function|At top level|Assembler messages)\b.*:$|: in function .*:$`)
	reSnippet    = regexp.MustCompile(`^\s*\d*\s*\|`)
	reMixed      = regexp.MustCompile(`^found packages (\S+) \((.+?)\) and (\S+) \((.+?)\) in (.+)$`)
	reNewerGo    = regexp.MustCompile(`requires go ?>= ?v?([0-9][0-9a-z.]*)|download go([0-9][0-9a-z.]*) |module requires Go ([0-9][0-9a-z.]*)`)
	reNoPackage  = regexp.MustCompile(`(?:no required module provides package|cannot find module providing package|cannot find package) "?([^\s;":]+)`)
	reNotStd     = regexp.MustCompile(`^package (\S+) is not in (?:std|GOROOT)`)
	reExcluded   = regexp.MustCompile(`build constraints exclude all Go files in (.+)$`)
	reTool       = regexp.MustCompile(`^\S*[/\\]pkg[/\\]tool[/\\]\S*?[/\\](\w+)(?:\.exe)?: `)
	reToDoIt     = regexp.MustCompile(`;? to (?:add(?: it| them)?|update it|download):?$`)
)

// parseOutput turns what the go command wrote into problems, in its order. Paths become absolute. dirOf may be nil.
func parseOutput(dir string, dirOf func(string) string, output string) []message {
	p := &outputReader{dir: dir, dirOf: dirOf}
	for line := range strings.Lines(output) {
		p.line(strings.TrimRight(line, "\r\n"))
	}
	p.endStack()
	for _, m := range p.out {
		classify(m, dirOf)
	}
	return p.out
}

func (p *outputReader) line(line string) {
	// A stack goes on with indented lines only, and every other kind of line but the indented ends what was being read.
	indented := strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "  ")
	text := strings.TrimSpace(line)
	if len(p.stack) > 0 {
		if indented && p.stackLine(text) {
			return
		}
		p.endStack()
	}
	switch {
	case text == "":
		return
	case strings.HasPrefix(line, "# "):
		p.pkg, _, _ = strings.Cut(line[2:], " ")
		p.cur, p.eat, p.ld = nil, false, false
		return
	case indented:
		p.continued(line, text)
		return
	}

	file, ln, col, msg, located := splitLocation(strings.TrimPrefix(line, "go: "))
	if located {
		if p.ld {
			p.continued(line, text)
			return
		}
		p.eat = false
		p.located(file, ln, col, msg)
		return
	}
	if p.eat || reInFunction.MatchString(line) || noise(text) {
		return
	}
	if p.ld {
		p.linker(line, text)
		return
	}
	if text == "too many errors" {
		p.tooMany()
		return
	}
	if rest, ok := strings.CutPrefix(line, "package "); ok {
		if path, msg, ok := strings.Cut(rest, ": "); !ok && !strings.Contains(path, " ") {
			p.stack = []frame{{path: path}}
			return
		} else if ok && !strings.Contains(path, " ") {
			p.add(message{Problem: problem(msg), pkg: path})
			return
		}
	}
	p.plain(text)
}

// plain reads a line that has no place.
func (p *outputReader) plain(text string) {
	text = reTool.ReplaceAllString(strings.TrimSpace(strings.TrimPrefix(text, "go: ")), "$1: ")
	if text == "" {
		return
	}
	m := message{Problem: problem(text), pkg: p.pkg}
	if rest, ok := strings.CutPrefix(text, "warning: "); ok && rest != "" {
		m.Severity, m.Message = api.SeverityWarning, rest
	}
	switch {
	case strings.HasPrefix(text, "flag provided but not defined"), strings.Contains(text, "checksum mismatch"), strings.Contains(text, "SECURITY ERROR"):
		p.eat = true // a usage message or an explanation of some lines follows
	case strings.Contains(text, ": running ") && strings.Contains(text, " failed: "):
		p.ld = true
	}
	if f := reMixed.FindStringSubmatch(text); f != nil {
		m.File, m.Line = p.abs(filepath.Join(f[5], f[2])), 1
	}
	p.add(m)
}

// linker reads a line of an external linker's output: first the command that was run, then what it said.
func (p *outputReader) linker(line, text string) {
	if strings.Contains(line, " -o ") || p.cur == nil {
		return
	}
	p.cur.Message += "\n" + text
}

func (p *outputReader) located(file string, line, col int, msg string) {
	switch {
	case msg == "too many errors":
		p.tooMany()
		return
	case strings.HasPrefix(msg, "note: ") && p.cur != nil:
		p.cur.Message += "\n" + msg
		return
	}
	m := message{Problem: problem(msg), pkg: p.pkg}
	if rest, ok := strings.CutPrefix(msg, "warning: "); ok {
		m.Message, m.Severity = rest, api.SeverityWarning
	}
	for _, prefix := range []string{"fatal error: ", "error: ", "Error: "} {
		m.Message = strings.TrimPrefix(m.Message, prefix)
	}
	if f := p.place(file); f != "" {
		m.File, m.Line, m.Column = f, line, col
	}
	p.add(m)
	// An explanation or a stack of calls follows.
	p.eat = strings.Contains(msg, "checksum mismatch") || strings.Contains(msg, "internal compiler error")
}

// continued adds an indented line to the message before it.
func (p *outputReader) continued(line, text string) {
	if p.eat || p.cur == nil || reSnippet.MatchString(line) {
		return
	}
	if file, ln, col, msg, ok := splitLocation(text); ok {
		// "other declaration of F": the path as seen from here says less than the file's name.
		text = filepath.Base(file) + ":" + strconv.Itoa(ln)
		if col > 0 {
			text += ":" + strconv.Itoa(col)
		}
		text += ": " + msg
	}
	if cut := reToDoIt.FindStringIndex(p.cur.Message); cut != nil && cut[0] > 0 && p.cur.Hint == "" {
		p.cur.Message, p.cur.Hint = p.cur.Message[:cut[0]], "run `"+text+"`"
		return
	}
	p.cur.Message += "\n" + text
}

// tooMany says at the last message that the compiler stopped there.
func (p *outputReader) tooMany() {
	if p.cur != nil && p.cur.Hint == "" {
		p.cur.Hint = "there are more errors after this one: the compiler stops at ten"
	}
}

// stackLine reads one line of an import stack: "imports PATH", "imports PATH from FILE", either with ": MESSAGE", or a
// message with a place. It says whether the line was one of these.
func (p *outputReader) stackLine(text string) bool {
	rest, ok := strings.CutPrefix(text, "imports ")
	if !ok {
		if file, ln, col, msg, ok := splitLocation(text); ok {
			p.stack = nil
			p.located(file, ln, col, msg)
			return true
		}
		return false
	}
	rest, msg, last := strings.Cut(rest, ": ")
	path, file, _ := strings.Cut(rest, " from ")
	p.stack = append(p.stack, frame{strings.TrimSpace(path), strings.TrimSpace(file)})
	if last {
		p.stackEnds(msg)
	}
	return true
}

// stackEnds makes the message of an import stack.
func (p *outputReader) stackEnds(msg string) {
	stack := p.stack
	p.stack = nil
	end := stack[len(stack)-1]
	if msg == "import cycle not allowed" {
		first := 0
		for i, f := range stack {
			if f.path == end.path {
				first = i
				break
			}
		}
		names := make([]string, 0, len(stack)-first)
		for _, f := range stack[first:] {
			names = append(names, f.path)
		}
		msg += ": " + strings.Join(names, " -> ")
	}
	m := message{Problem: problem(msg), pkg: end.path}
	if len(stack) > 1 && end.file != "" && p.dirOf != nil {
		if d := p.dirOf(stack[len(stack)-2].path); d != "" {
			m.File, m.Line, m.imports = filepath.Join(d, end.file), 1, end.path
		}
	}
	p.add(m)
}

// endStack ends an import stack without a message of its own.
func (p *outputReader) endStack() {
	if len(p.stack) > 0 {
		path := p.stack[0].path
		p.stack = nil
		p.add(message{Problem: problem("cannot load package " + path), pkg: path})
	}
}

func (p *outputReader) add(m message) {
	if m.Message = strings.TrimSpace(m.Message); m.Message == "" {
		m.Message = "error"
	}
	p.out = append(p.out, m)
	p.cur = m.Problem
}

// place makes the path of a compiler message absolute. It is empty for what is no file of the user's.
func (p *outputReader) place(file string) string {
	if file == "" || file[0] == '<' || strings.HasPrefix(file, "$WORK") {
		return ""
	}
	if !strings.ContainsAny(file, `/\`) && p.pkg != "" && p.dirOf != nil {
		// The go command writes paths with a folder; a bare name was given by a //line comment, beside its source.
		if d := p.dirOf(p.pkg); d != "" {
			return filepath.Join(d, file)
		}
	}
	return p.abs(file)
}

func (p *outputReader) abs(file string) string {
	if filepath.IsAbs(file) {
		return filepath.Clean(file)
	}
	return filepath.Join(p.dir, file)
}

func problem(msg string) *api.Problem {
	return &api.Problem{Code: codeFailed, Severity: api.SeverityError, Message: strings.TrimSpace(msg)}
}

// noise says whether a line of output is no message.
func noise(text string) bool {
	for _, prefix := range []string{
		"go: downloading ", "go: finding ", "go: extracting ", "go: added ", "go: upgraded ", "go: found ",
		"compilation terminated.", "gcc errors for preamble:", "asm: assembly of ", "collect2: ", "exit status ",
	} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return text == "cgo:" || strings.HasPrefix(text, "go: errors parsing ") || strings.HasPrefix(text, "errors parsing ")
}

// splitLocation splits "path:line:col: message" and "path:line: message". A path may have a drive letter and spaces.
func splitLocation(s string) (file string, line, col int, msg string, ok bool) {
	from := 0
	if len(s) > 2 && s[1] == ':' && (s[2] == '\\' || s[2] == '/') {
		from = 2
	}
	for i := from; ; i++ {
		n := strings.IndexByte(s[i:], ':')
		if n < 0 {
			return "", 0, 0, "", false
		}
		i += n
		if i == 0 {
			return "", 0, 0, "", false
		}
		l, rest, found := leadingNumber(s[i+1:])
		if !found {
			continue
		}
		c := 0
		if n, after, found := leadingNumber(rest); found {
			c, rest = n, after
		}
		if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		file = s[:i]
		if strings.Contains(file, ": ") || strings.ContainsAny(file, "\t\"") || strings.Contains(file, "://") {
			return "", 0, 0, "", false
		}
		return file, l, c, strings.TrimSpace(rest), true
	}
}

// leadingNumber reads "123:" at the start of s.
func leadingNumber(s string) (n int, rest string, ok bool) {
	i := 0
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	if i == 0 || i > 9 || i == len(s) || s[i] != ':' {
		return 0, s, false
	}
	n, _ = strconv.Atoi(s[:i])
	return n, s[i+1:], n > 0
}

// classify gives a message its code and, where the go command does not say it already, what to do.
func classify(m message, dirOf func(string) string) {
	text := m.Message
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	hint := func(h string) {
		if m.Hint == "" {
			m.Hint = h
		}
	}
	m.Message = reToDoIt.ReplaceAllString(text, "") // for what has no line after it
	if m.Message == "" {
		m.Message = text
	}
	switch {
	case has("internal compiler error"):
		hint("this is a mistake in the Go compiler: try another Go version")
	case has("requires go >= ", "requires go>=", "toolchain not available", "module requires Go "):
		m.Code = "go-too-old"
		version := "a newer Go"
		if v := reNewerGo.FindStringSubmatch(text); v != nil {
			version = "Go " + strings.TrimRight(v[1]+v[2]+v[3], ".") + " or newer"
		}
		hint("install " + version + " from https://go.dev/dl, or set GOTOOLCHAIN=auto so that the go command fetches it")
	case reNoPackage.MatchString(text):
		m.Code = "missing-package"
		path := reNoPackage.FindStringSubmatch(text)[1]
		if dirOf != nil && dirOf(path) != "" {
			m.Hint = "correct the import, or put a Go file into " + dirOf(path)
			break
		}
		hint("run `go get " + path + "`")
	case reNotStd.MatchString(text):
		m.Code = "missing-package"
		hint("correct the import: a package of your own begins with its module's path, one of others with a host name")
	case has("replacement directory ") && has(" does not exist"):
		m.Code = "missing-package"
		hint("correct the replace line in go.mod (or go.work), or bring the folder there")
	case reMixed.MatchString(text):
		hint("give all files of the folder the same package name, or move one of them")
	case has("missing go.sum entry"):
		m.Code = "missing-go-sum"
		hint("run `go mod tidy`")
	case has("checksum mismatch"):
		m.Code = "checksum-mismatch"
		hint("find out why the module changed; if that is right, delete its lines from go.sum and run `go mod download`")
	case has("updates to go.mod needed", "updates to go.sum needed", "updates to go.work needed"):
		m.Code = "go-mod-outdated"
		hint("run `go mod tidy`")
	case has("inconsistent vendoring"):
		m.Code, m.Hint = "vendor-outdated", "run `go mod vendor` (`go work vendor` in a workspace)"
		m.Message, _, _ = strings.Cut(m.Message, "\nTo ignore the vendor directory")
	case has("no matching files found") && has("pattern "):
		m.Code = "embed-missing"
		hint("create the file, or correct the //go:embed pattern")
	case has("import cycle not allowed"):
		m.Code = "import-cycle"
		hint("move what both packages need into a third one")
	case has("C compiler ") && has(" not found"):
		m.Code = "cgo-no-compiler"
		hint("install a C compiler (gcc or clang), or build without cgo: CGO_ENABLED=0")
	case has("requires cgo; enable cgo"):
		m.Code = "cgo-disabled"
		hint("set CGO_ENABLED=1, with a C compiler for the target in CC, or build without this flag")
	case reExcluded.MatchString(text):
		m.Code = "no-go-files"
		hint("the package has no Go file for this target: look at its build constraints")
	case has("function main is undeclared in the main package"):
		hint("add func main to the package")
	case has("relocation target ", "undefined reference", "duplicated definition of symbol", ": running gcc failed", ": running clang failed"):
		m.Code = "link-failed"
	case has("not one of the workspace modules", "does not contain modules listed in go.work"):
		m.Code = "not-in-workspace"
		hint("run `go work use` for the module, or set GOWORK=off")
	case has("go.mod file not found"):
		m.Code = "no-module"
		hint("run `go mod init`, or start in the folder of a Go module")
	case has("flag provided but not defined", "unknown flag -", "parsing $GOFLAGS", "parsing %GOFLAGS%"):
		m.Code = "bad-build-flag"
		hint("correct GOFLAGS or the build flags in the configuration")
	case has("unsupported GOOS/GOARCH pair"):
		m.Code = "bad-target"
		hint("this Go cannot build for that system: `go tool dist list` names those that it can")
	case has("no space left on device"):
		m.Code = "disk-full"
		hint("make space on the disk of the build cache and on that of Fairlead's state (~/.local/state/fairlead): `go clean -cache` frees what older builds left")
	case has(": signal: killed"):
		m.Code = "build-killed"
		hint("the system ended the compiler, most likely for want of memory: close something, or build with -p=1")
	case strings.HasSuffix(m.File, "go.mod"), strings.HasSuffix(m.File, "go.work"):
		hint("correct this line: `go help mod edit` and `go help work` tell what the file may hold")
	case has("dial tcp", "module lookup disabled", "unrecognized import path", "could not read Username", "i/o timeout", "410 Gone", "404 Not Found"):
		m.Code = "module-download"
		hint("see that the network and GOPROXY (GOPRIVATE for a private module) are right, then run `go mod download`")
	}
}
