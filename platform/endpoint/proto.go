package endpoint

import (
	"strings"
	"unicode/utf8"

	"fairlead.dev/platform/registry"
)

func goodMethod(s string) bool {
	wrong, _ := registry.CheckMethod(s)
	return wrong == ""
}

// parseProto finds the methods of a .proto file's services. It reads what decides them, a package, services and their rpc, and steps
// over the rest; a file that protoc would refuse gives what can be found in it.
func parseProto(src string) []Endpoint {
	l := &lexer{src: src}
	var out []Endpoint
	pkg := ""
	for t := l.next(); t != ""; t = l.next() {
		switch t {
		case "package":
			pkg = l.until(";")
		case "service":
			name := l.next()
			if l.next() != "{" {
				continue
			}
			if pkg != "" {
				name = pkg + "." + name
			}
			out = append(out, parseService(l, name)...)
		case ";", "}": // skip leaves a brace that ends nothing
		default:
			l.skip(t)
		}
	}
	return out
}

func parseService(l *lexer, service string) []Endpoint {
	var out []Endpoint
	for t := l.next(); t != "" && t != "}"; t = l.next() {
		switch t {
		case "rpc":
			comment := l.comment
			name := l.next()
			if m := "/" + service + "/" + name; goodMethod(m) && len(out) < maxEndpoints {
				out = append(out, Endpoint{Method: m, Description: comment, Sources: []Source{Proto}})
			}
			l.skip(name)
		case ";":
		default:
			l.skip(t)
		}
	}
	return out
}

// lexer cuts a .proto file into words and marks. comment is what stood right before the last token.
type lexer struct {
	src     string
	comment string
	back    string
}

func word(c byte) bool {
	return c == '_' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

// next is the next token, or "" at the end. A string is a token `"`.
func (l *lexer) next() string {
	if l.back != "" {
		t := l.back
		l.back = ""
		return t
	}
	l.comment = ""
	for l.src != "" {
		c := l.src[0]
		switch {
		case c == '\n':
			// A blank line ends what a comment belongs to.
			if rest := strings.TrimLeft(l.src[1:], " \t\r"); strings.HasPrefix(rest, "\n") {
				l.comment = ""
			}
			l.src = l.src[1:]
		case c == ' ' || c == '\t' || c == '\r':
			l.src = l.src[1:]
		case strings.HasPrefix(l.src, "//"):
			line, rest, _ := strings.Cut(l.src, "\n")
			l.comment += strings.TrimLeft(line, "/ ") + "\n"
			l.src = rest
			if t := strings.TrimLeft(rest, " \t\r"); strings.HasPrefix(t, "\n") {
				l.comment = ""
			}
		case strings.HasPrefix(l.src, "/*"):
			text, rest, _ := strings.Cut(l.src[2:], "*/")
			for line := range strings.Lines(text) {
				l.comment += strings.TrimLeft(strings.TrimSpace(line), "* ") + "\n"
			}
			l.src = rest
		case c == '"' || c == '\'':
			l.src = l.src[1:]
			for l.src != "" && l.src[0] != c && l.src[0] != '\n' {
				l.src = l.src[min(len(l.src), 1+strings.Count(l.src[:1], `\`)):]
			}
			l.src = l.src[min(1, len(l.src)):]
			return `"`
		case word(c):
			i := 1
			for i < len(l.src) && word(l.src[i]) {
				i++
			}
			t := l.src[:i]
			l.src = l.src[i:]
			return t
		default:
			l.src = l.src[1:]
			return string(rune(c))
		}
	}
	return ""
}

// until joins the tokens up to a mark.
func (l *lexer) until(end string) string {
	var b strings.Builder
	for t := l.next(); t != "" && t != end && b.Len() < 1000; t = l.next() {
		b.WriteString(t)
	}
	return b.String()
}

// skip steps over a statement that began with a token: to its semicolon, or to the end of its block. A brace that ends the block
// around it is left.
func (l *lexer) skip(t string) {
	depth := 0
	for ; t != ""; t = l.next() {
		switch t {
		case "{":
			depth++
		case "}":
			if depth == 0 {
				l.back = t
				return
			}
			if depth--; depth == 0 {
				return
			}
		case ";":
			if depth == 0 {
				return
			}
		}
	}
}
