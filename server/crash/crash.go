// Package crash finds in what a Go process writes to its standard error what it says when it dies of a panic or of a
// fatal error of the runtime, and when net/http has caught a handler's panic, and gives it a place in the user's source.
//
// It is pure, and must not know where the lines come from.
package crash

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"fairlead.dev/api"
)

// Crash is one panic or fatal error.
type Crash struct {
	Code    string // "panic" or "fatal"
	Message string // its text, of several lines if it has them
	Frames  []Frame
	// Served: net/http caught it, and the process lives on.
	Served bool
}

// Frame is one call of the goroutine's stack, the innermost first.
type Frame struct {
	Func    string // with its package's path; empty arguments
	File    string // as the executable has it
	Line    int
	Creator bool // not a call: the goroutine was started there
}

// The bounds of what one crash may take: what is longer is cut, so that nothing that a process writes makes the agent
// grow.
const (
	maxMessage = 4096
	maxFrames  = 100
	// maxBefore is how many lines may lie between the panic's text and its stack ("goroutine 1 [running]:").
	maxBefore = 200
)

type where int

const (
	outside where = iota
	text          // after the first line, before the stack
	skipped       // a stack of the runtime's own, before that of the goroutine
	stack         // between two frames
	frame         // a call was read, and its file comes
)

// Parser reads the lines of one process. The zero value is ready.
type Parser struct {
	at     where
	now    Crash
	before int
	fn     Frame
}

var (
	reServed = regexp.MustCompile(`(?:^|\s)http2?: panic serving (\S+): (.*)$`)
	// goroutine 1 [running]:   goroutine 7 gp=0x1 m=0 mp=0x2 [chan receive, locked to thread]:
	reGoroutine = regexp.MustCompile(`^goroutine \d+ (?:gp=\S+ m=\S+ (?:mp=\S+ )?)?\[[^\]]*\](?: \{[^}]*\})?:$`)
	// "	/src/main.go:10 +0x1d", on Windows with a drive's letter
	reFile = regexp.MustCompile(`^\t(.+):(\d+)(?: \+0x[0-9a-f]+)?(?: fp=\S+ sp=\S+ pc=\S+)?$`)
)

// Line takes the next line, without its end, and returns the crash that it ends, or nil.
func (p *Parser) Line(line string) *Crash {
	line = strings.TrimSuffix(line, "\r")
	if c, begins := begin(line); begins {
		if p.at == text && !c.Served && !p.now.Served && c.Code == p.now.Code {
			p.add(line) // a panic while another one was under way; the runtime prints the oldest first
			return nil
		}
		done := p.End()
		p.at, p.now = text, c
		return done
	}
	switch p.at {
	case text, skipped:
		switch {
		case reGoroutine.MatchString(line):
			p.at = stack
		case line == "runtime stack:":
			p.at = skipped
		case p.before >= maxBefore:
			p.reset() // only a line that began like a panic's
		case p.at == text && line != "" && !p.now.Served:
			p.add(line)
		}
		p.before++
	case stack:
		fn, ok := call(line)
		if !ok {
			return p.End()
		}
		p.fn, p.at = fn, frame
	case frame:
		m := reFile.FindStringSubmatch(line)
		if m == nil {
			return p.End()
		}
		p.fn.File = m[1]
		p.fn.Line, _ = strconv.Atoi(m[2])
		p.at = stack
		if len(p.now.Frames) < maxFrames {
			p.now.Frames = append(p.now.Frames, p.fn)
		}
		if p.fn.Creator { // the last of every goroutine but the first
			return p.End()
		}
	}
	return nil
}

// End returns what is complete of a crash when the process has ended.
func (p *Parser) End() *Crash {
	c := p.now
	p.reset()
	if len(c.Frames) == 0 {
		return nil
	}
	c.Message = strings.TrimRight(c.Message, "\n")
	return &c
}

func (p *Parser) reset() { *p = Parser{} }

func begin(line string) (Crash, bool) {
	if s, ok := strings.CutPrefix(line, "panic: "); ok {
		return Crash{Code: "panic", Message: cut(s)}, true
	}
	if s, ok := strings.CutPrefix(line, "fatal error: "); ok {
		return Crash{Code: "fatal", Message: cut(s)}, true
	}
	if !strings.Contains(line, ": panic serving ") {
		return Crash{}, false
	}
	if m := reServed.FindStringSubmatch(line); m != nil {
		return Crash{Code: "panic", Message: cut(m[2]), Served: true}, true
	}
	return Crash{}, false
}

// add appends a line of the text. Of the runtime's own remarks those are left out that help nobody.
func (p *Parser) add(line string) {
	if strings.HasPrefix(line, "[signal ") && strings.Contains(line, "code=") || strings.HasPrefix(line, "runtime: ") {
		return
	}
	line = strings.TrimPrefix(line, "\t") // nested panics and the further lines of a value
	line = strings.TrimPrefix(line, "panic: ")
	p.now.Message = cut(p.now.Message + "\n" + line)
}

func cut(s string) string {
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage], "")
	}
	return s
}

// call parses a frame's first line: "main.(*shop).order(0xc000, {0x1, 0x2})", "created by main.main in goroutine 1",
// "panic({0x1, 0x2?})".
func call(line string) (Frame, bool) {
	if s, ok := strings.CutPrefix(line, "created by "); ok {
		s, _, _ = strings.Cut(s, " in goroutine ")
		return Frame{Func: s, Creator: true}, s != ""
	}
	if line == "" || line[0] == ' ' || line[0] == '\t' || !strings.HasSuffix(line, ")") && !strings.Contains(line, ") fp=") && !strings.HasSuffix(line, "...") {
		return Frame{}, false
	}
	// The arguments begin at the last "(" that no ")." of a method's receiver closes; type arguments are "[...]".
	open := strings.LastIndexByte(line, '(')
	if open <= 0 || strings.ContainsAny(line[:open], " \t") {
		return Frame{}, false
	}
	return Frame{Func: line[:open]}, true
}

// Source says which files are the user's own.
type Source struct {
	// Modules maps the paths of the user's modules to their folders.
	Modules map[string]string
}

// find returns the absolute path of a file of the user's own. Executables that were built with -trimpath have module
// paths for folders.
func (s Source) find(file string) (string, bool) {
	if strings.Contains(file, "@") && strings.Contains(filepath.ToSlash(file), "/mod/") || strings.Contains(filepath.ToSlash(file), "/vendor/") {
		return "", false // the module cache may lie anywhere, and so may a module with what it depends on
	}
	for path, dir := range s.Modules {
		if rel, ok := strings.CutPrefix(file, path+"/"); ok && !filepath.IsAbs(file) {
			return filepath.Join(dir, filepath.FromSlash(rel)), true
		}
		if rel, err := filepath.Rel(dir, file); err == nil && filepath.IsAbs(file) && filepath.IsLocal(rel) {
			return filepath.Clean(file), true
		}
	}
	return "", false
}

// Problem says it to a person, at the innermost frame in the user's own source, with the others of it beside.
func (c *Crash) Problem(src Source) *api.Problem {
	p := &api.Problem{Code: c.Code, Severity: api.SeverityError, Owner: "process", Hint: "the next save starts it again"}
	first, rest, _ := strings.Cut(c.Message, "\n")
	p.Message = "panic: " + first
	switch {
	case c.Served:
		p.Message, p.Hint = "panic in a request: "+first, "the service goes on; the next save clears this"
	case c.Code == "fatal":
		p.Message = "fatal error: " + first
	}
	if rest != "" {
		p.Message += "\n" + rest
	}
	for _, f := range c.Frames {
		file, ok := src.find(f.File)
		if !ok {
			continue
		}
		if p.File == "" && !f.Creator {
			p.File, p.Line = file, f.Line
			continue
		}
		what := "called from here, in " + f.Func
		if f.Creator {
			what = "the goroutine was started here, in " + f.Func
		}
		p.Related = append(p.Related, api.Place{File: file, Line: f.Line, Message: what})
	}
	if p.File == "" && len(p.Related) > 0 { // only its start is the user's
		p.File, p.Line, p.Related = p.Related[0].File, p.Related[0].Line, p.Related[1:]
	}
	if p.File == "" {
		p.Message += fmt.Sprintf(" (in %s)", c.Frames[0].Func)
	}
	return p
}
