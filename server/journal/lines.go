package journal

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"fairlead.dev/api"
)

// Log lines are understood by their form alone, whatever wrote them:
//
//	{"time":..,"level":"INFO","msg":"m","k":1}           slog, zap, logrus, zerolog in JSON
//	time=.. level=INFO msg="m" k=1                       slog's text, logrus without a terminal, logfmt
//	2026/03/01 12:00:00 INFO m k=1                       slog's default; the standard library's log has no level
//	INFO[0000] m k=1                                     logrus on a terminal
//	2026-03-01T12:00:00.000Z<TAB>INFO<TAB>a.go:1<TAB>m<TAB>{"k":1}  zap for development
//	12:00PM INF a.go:1 > m k=1                           zerolog's console
//	I0301 12:00:00.000000 1 a.go:1] m                    klog
//	[INFO] m, INFO: m, panic: m                          plain text
//
// Anything else is plain text without a level. The line's own time is left out: the event's is at hand, and comparable.
//
// The scanner looks at bytes, in one pass and without building maps: at 100,000 lines a second reflection would cost more
// than all the rest of the way. What it takes out are parts of the text; memory is allocated only for what was escaped.

// maxAttrs bounds what is taken out of a line; the text has the rest.
const maxAttrs = 64

// parser is one line on its way to be understood.
type parser struct {
	line  *api.Line
	level bool // it has been seen
	msg   bool
	time  bool
}

// parseLine understands one line of output; line's Attrs are used again.
func parseLine(text string, line *api.Line) {
	*line = api.Line{Attrs: line.Attrs[:0]}
	s := text
	if strings.IndexByte(s, 0x1b) >= 0 {
		s = stripANSI(s)
	}
	if s = strings.TrimSpace(s); s == "" {
		return
	}
	p := parser{line: line}
	if !(p.json(s) || p.logfmt(s) || p.stdlog(s) || p.logrus(s) || p.zap(s) || p.console(s) || p.klog(s)) {
		p.bare(s)
	}
	if line.Message == "" && len(line.Attrs) == 0 && line.Level == "" && len(s) != len(text) && strings.IndexByte(text, 0x1b) >= 0 {
		line.Message = s // without its colours
	}
}

// stripANSI leaves out escape sequences: colours and the like (ECMA-48 CSI), titles and links (OSC).
func stripANSI(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != 0x1b {
			b = append(b, s[i])
			continue
		}
		if i+1 == len(s) {
			break
		}
		switch i++; s[i] {
		case '[':
			for i++; i < len(s) && (s[i] < 0x40 || s[i] > 0x7e); i++ {
			}
		case ']':
			for i++; i < len(s) && s[i] != 0x07; i++ {
				if s[i] == 0x1b { // ESC \ ends it too
					i++
					break
				}
			}
		}
	}
	return string(b)
}

// levelOf is the level that a word means, or "".
func levelOf(s string) string {
	if i := strings.IndexAny(s, "+-"); i > 0 { // slog's levels in between: INFO+2
		if _, err := strconv.Atoi(s[i:]); err == nil {
			s = s[:i]
		}
	}
	var b [12]byte
	if len(s) > len(b) {
		return ""
	}
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b[i] = c
	}
	switch string(b[:len(s)]) {
	case "trace", "trc", "trac":
		return "trace"
	case "debug", "dbg", "debu":
		return "debug"
	case "info", "inf", "information", "notice":
		return "info"
	case "warn", "warning", "wrn":
		return "warn"
	case "error", "err", "erro":
		return "error"
	case "fatal", "ftl", "fata", "panic", "pnc", "pani", "dpanic", "critical", "crit", "alert", "emergency", "emerg":
		return "fatal"
	}
	return ""
}

// none takes back what was taken of a line that is of another form after all.
func (p *parser) none() bool {
	*p.line = api.Line{Attrs: p.line.Attrs[:0]}
	*p = parser{line: p.line}
	return false
}

// member takes one member of a structured line.
func (p *parser) member(key, value string) {
	switch key {
	case "level", "lvl", "severity", "log.level", "L":
		if l := levelOf(value); l != "" && !p.level {
			p.level, p.line.Level = true, l
			return
		}
	case "msg", "message", "M":
		if !p.msg {
			p.msg, p.line.Message = true, value
			return
		}
	case "time", "ts", "timestamp", "@timestamp", "T":
		if !p.time {
			p.time = true
			return
		}
	}
	p.attr(key, value)
}

func (p *parser) attr(key, value string) {
	if len(p.line.Attrs) < maxAttrs {
		p.line.Attrs = append(p.line.Attrs, [2]string{key, value})
	}
}

func (p *parser) json(s string) bool {
	return s[0] == '{' && p.object(s, false) || p.none()
}

// object takes the members of a JSON object that is the whole of s, one that is no string as its text: as attributes all,
// or as a structured line's.
func (p *parser) object(s string, attrs bool) bool {
	i := space(s, 1)
	if i < len(s) && s[i] == '}' {
		return i+1 == len(s)
	}
	for {
		key, n := quoted(s, i)
		if n < 0 {
			return false
		}
		if i = space(s, n); i == len(s) || s[i] != ':' {
			return false
		}
		if i = space(s, i+1); i == len(s) {
			return false
		}
		var value string
		if s[i] == '"' {
			if value, n = quoted(s, i); n < 0 {
				return false
			}
		} else {
			if n = skip(s, i); n < 0 {
				return false
			}
			value = s[i:n]
		}
		if attrs {
			p.attr(key, value)
		} else {
			p.member(key, value)
		}
		if i = space(s, n); i == len(s) {
			return false
		}
		switch s[i] {
		case ',':
			i = space(s, i+1)
		case '}':
			return i+1 == len(s)
		default:
			return false
		}
	}
}

func space(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return i
}

// quoted reads the JSON string at i and returns where it ends; -1 if there is none.
func quoted(s string, i int) (string, int) {
	if i >= len(s) || s[i] != '"' {
		return "", -1
	}
	i++
	for j := i; j < len(s); j++ {
		switch s[j] {
		case '"':
			return s[i:j], j + 1
		case '\\':
			return escaped(s, i, j)
		}
	}
	return "", -1
}

// escaped is quoted for a string that begins at i and has its first backslash at j.
func escaped(s string, i, j int) (string, int) {
	b := append(make([]byte, 0, 2*(j-i)+32), s[i:j]...)
	for j < len(s) {
		c := s[j]
		j++
		if c == '"' {
			return string(b), j
		}
		if c != '\\' {
			b = append(b, c)
			continue
		}
		if j == len(s) {
			return "", -1
		}
		c = s[j]
		j++
		switch c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r := hex4(s, j)
			if r < 0 {
				return "", -1
			}
			j += 4
			if 0xd800 <= r && r < 0xdc00 && strings.HasPrefix(s[j:], `\u`) { // the first half of a pair
				if r2 := hex4(s, j+2); 0xdc00 <= r2 && r2 < 0xe000 {
					r = 0x10000 + (r-0xd800)<<10 + (r2 - 0xdc00)
					j += 6
				}
			}
			b = utf8.AppendRune(b, r) // a lone half becomes U+FFFD
		default:
			return "", -1
		}
	}
	return "", -1
}

func hex4(s string, i int) rune {
	if i+4 > len(s) {
		return -1
	}
	r := rune(0)
	for _, c := range []byte(s[i : i+4]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// skip returns the end of the JSON value at i that is no string: an object or array by its brackets, else a word.
func skip(s string, i int) int {
	if s[i] != '{' && s[i] != '[' {
		j := i
		for j < len(s) && (s[j] == '-' || s[j] == '+' || s[j] == '.' || '0' <= s[j] && s[j] <= '9' || letter(s[j])) {
			j++
		}
		if j == i {
			return -1
		}
		return j
	}
	depth := 0
	for ; i < len(s); i++ {
		switch s[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
		}
	}
	return -1
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

// logfmt is a line of nothing but key=value, with a level or a message among them.
func (p *parser) logfmt(s string) bool {
	if _, _, n := pair(s, 0); n < 0 {
		return false
	}
	for i := 0; i < len(s); {
		key, value, n := pair(s, i)
		if n < 0 {
			return p.none()
		}
		p.member(key, value)
		for i = n; i < len(s) && s[i] == ' '; i++ {
		}
	}
	return p.level || p.msg || p.none()
}

// pair reads key=value at i, with the value quoted if need be, and returns where it ends; -1 if there is none.
func pair(s string, i int) (key, value string, end int) {
	start := i
	if i < len(s) && s[i] == '"' { // slog quotes keys with spaces
		var ok bool
		if key, i, ok = unquote(s, i); !ok || i >= len(s) || s[i] != '=' {
			return "", "", -1
		}
	} else {
		for i < len(s) && (letter(s[i]) || digit(s[i]) || s[i] == '_' || s[i] == '.' || s[i] == '-' || s[i] == '/' || s[i] == '@' || s[i] >= utf8.RuneSelf) {
			i++
		}
		if i == start || i == len(s) || s[i] != '=' {
			return "", "", -1
		}
		key = s[start:i]
	}
	i++
	if i < len(s) && s[i] == '"' {
		v, n, ok := unquote(s, i)
		if !ok || n < len(s) && s[n] != ' ' {
			return "", "", -1
		}
		return key, v, n
	}
	j := i
	for j < len(s) && s[j] != ' ' {
		j++
	}
	return key, s[i:j], j
}

// unquote reads a string that strconv.Quote made.
func unquote(s string, i int) (string, int, bool) {
	plain := true
	for j := i + 1; j < len(s); j++ {
		switch s[j] {
		case '\\':
			plain = false
			j++
		case '"':
			if plain {
				return s[i+1 : j], j + 1, true
			}
			v, err := strconv.Unquote(s[i : j+1])
			if err != nil {
				v = s[i+1 : j]
			}
			return v, j + 1, true
		}
	}
	return "", -1, false
}

// text takes a message that pairs may follow: the last words of s as far back as all are key=value.
func (p *parser) text(s string) {
	end, i := -1, 0
	for i < len(s) {
		if s[i] == ' ' {
			i++
			continue
		}
		_, _, n := pair(s, i)
		switch {
		case n < 0:
			end = -1
			for n = i; n < len(s) && s[n] != ' '; n++ {
			}
		case end < 0:
			end = i
		}
		i = n
	}
	if end >= 0 {
		for i = end; i < len(s); {
			key, value, n := pair(s, i)
			p.attr(key, value)
			for i = n; i < len(s) && s[i] == ' '; i++ {
			}
		}
		s = s[:end]
	}
	p.msg, p.line.Message = true, strings.TrimRight(s, " ")
}

// matches tells whether s begins as a pattern says: 0 a digit, A an upper-case letter, and the rest itself.
func matches(s, pattern string) bool {
	if len(s) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		switch c := s[i]; pattern[i] {
		case '0':
			if !digit(c) {
				return false
			}
		case 'A':
			if c < 'A' || c > 'Z' {
				return false
			}
		default:
			if c != pattern[i] {
				return false
			}
		}
	}
	return true
}

// place takes "file.go:12", followed by sep, from the front of s.
func (p *parser) place(s, sep string) string {
	at, rest, ok := strings.Cut(s, sep)
	if !ok || !isPlace(at) {
		return s
	}
	p.attr("source", at)
	return rest
}

func isPlace(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || !strings.HasSuffix(s[:i], ".go") || strings.ContainsAny(s, " \t") || i+1 == len(s) {
		return false
	}
	for _, c := range []byte(s[i+1:]) {
		if !digit(c) {
			return false
		}
	}
	return true
}

// stdlog is the standard library's log, which slog writes to as well if nobody set another handler.
func (p *parser) stdlog(s string) bool {
	if !matches(s, "0000/00/00 00:00:00") {
		return false
	}
	s = s[len("0000/00/00 00:00:00"):]
	if matches(s, ".000000") {
		s = s[len(".000000"):]
	}
	s = p.place(strings.TrimPrefix(s, " "), ": ")
	word, rest, _ := strings.Cut(s, " ")
	if l := levelOf(word); l != "" && word[0] >= 'A' && word[0] <= 'Z' && strings.ToUpper(word) == word {
		p.line.Level = l
		p.text(rest)
		return true
	}
	p.line.Message = s
	p.bare(s)
	return true
}

// logrus is its text for a terminal, or with full time stamps: INFO[0000] or INFO[2026-03-01T12:00:00Z].
func (p *parser) logrus(s string) bool {
	if !matches(s, "AAAA[") {
		return false
	}
	l := levelOf(s[:4])
	i := strings.IndexByte(s, ']')
	if l == "" || i < 0 || i > 48 || len(s) > i+1 && s[i+1] != ' ' {
		return false
	}
	p.line.Level = l
	p.text(strings.TrimLeft(s[i+1:], " "))
	return true
}

// zap is its console encoding: fields apart by tabs, the last an object.
func (p *parser) zap(s string) bool {
	if !digit(s[0]) {
		return false
	}
	_, rest, ok := strings.Cut(s, "\t")
	word, rest, ok2 := strings.Cut(rest, "\t")
	l := levelOf(word)
	if !ok || !ok2 || l == "" {
		return false
	}
	p.line.Level = l
	// A logger's name and the caller come before the message; a message alone has neither.
	field, more, ok := strings.Cut(rest, "\t")
	if next, _, _ := strings.Cut(more, "\t"); ok && isPlace(next) {
		p.attr("logger", field)
		rest = more
		field, more, ok = strings.Cut(rest, "\t")
	}
	if ok && isPlace(field) {
		p.attr("source", field)
		rest = more
	}
	if i := strings.LastIndex(rest, "\t{"); i >= 0 {
		n := len(p.line.Attrs)
		if p.object(rest[i+1:], true) {
			rest = rest[:i]
		} else {
			p.line.Attrs = p.line.Attrs[:n]
		}
	}
	p.line.Message = rest
	return true
}

// console is zerolog's, in its own colours or in none.
func (p *parser) console(s string) bool {
	// The time is one word of digits in any format that begins so, and then comes a level of three letters.
	when, rest, ok := strings.Cut(s, " ")
	if !ok || !digit(when[0]) && when != "<nil>" || len(when) > 40 || !matches(rest, "AAA") || len(rest) > 3 && rest[3] != ' ' {
		return false
	}
	l := levelOf(rest[:3])
	if l == "" {
		return false
	}
	p.line.Level = l
	rest = strings.TrimLeft(rest[3:], " ")
	p.text(p.place(rest, " > "))
	return true
}

func (p *parser) klog(s string) bool {
	if !matches(s, "A0000 00:00:00.000000 ") {
		return false
	}
	switch s[0] {
	case 'I':
		p.line.Level = "info"
	case 'W':
		p.line.Level = "warn"
	case 'E':
		p.line.Level = "error"
	case 'F':
		p.line.Level = "fatal"
	default:
		return false
	}
	i := strings.Index(s, "] ")
	if i < 0 {
		return p.none()
	}
	at := s[strings.LastIndexByte(s[:i], ' ')+1 : i]
	if !isPlace(at) {
		return p.none()
	}
	p.attr("source", at)
	s = s[i+2:]
	if msg, rest, ok := unquoteFirst(s); ok { // klog's structured form: "message" key=value
		p.text(rest)
		p.line.Message = msg
		return true
	}
	p.line.Message = s
	return true
}

func unquoteFirst(s string) (first, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	first, n, ok := unquote(s, 0)
	if !ok {
		return "", "", false
	}
	return first, strings.TrimLeft(s[n:], " "), true
}

// bare sets level and message of text that begins with a level as people write it, or with what the runtime writes when
// the process dies; else it leaves both.
func (p *parser) bare(s string) {
	switch {
	case strings.HasPrefix(s, "panic: "), strings.HasPrefix(s, "fatal error: "):
		p.line.Level = "fatal"
	case s != "" && s[0] == '[':
		if i := strings.IndexByte(s[:min(len(s), 16)], ']'); i > 0 {
			if l := levelOf(strings.TrimSpace(s[1:i])); l != "" {
				p.line.Level, p.line.Message = l, strings.TrimLeft(s[i+1:], " :")
			}
		}
	default:
		if i := strings.IndexByte(s[:min(len(s), 16)], ':'); i > 0 && s[0] >= 'A' && s[0] <= 'Z' && strings.ToUpper(s[:i]) == s[:i] {
			if l := levelOf(s[:i]); l != "" {
				p.line.Level, p.line.Message = l, strings.TrimLeft(s[i+1:], " ")
			}
		}
	}
}
