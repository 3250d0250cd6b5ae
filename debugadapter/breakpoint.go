package debugadapter

import (
	"bytes"
	"encoding/json"
	"slices"
)

// mark is one breakpoint of the client's. Its id is the proxy's, and lives as long as the client wants the breakpoint.
type mark struct {
	id   int
	want obj // in the client's words
	// line is where the client has it: what it sent, or was told last. at is what line refers to, and stays what the client
	// meant when its line is not in the code that runs, so that the code can come back.
	line   int
	at     *text
	atLine int
	told   obj // what is to be said of it
	said   obj // what the client was told last
}

// list is what one request sets: the breakpoints of a file, the function breakpoints, and so on.
type list struct {
	command string
	path    string // of setBreakpoints
	args    obj
	marks   []*mark
	dropped string // why none of them is set: instruction and data breakpoints of a process that is gone
}

// has finds a list, or makes it. A list that was emptied stays: the debugger may still have what was in it.
func (s *session) list(command, path string) *list {
	key := pathKey(path)
	for _, l := range s.lists {
		if l.command == command && pathKey(l.path) == key {
			return l
		}
	}
	l := &list{command: command, path: path}
	s.lists = append(s.lists, l)
	return l
}

// take replaces what the list has by what the client wants. A breakpoint that it sent before at the same place keeps its id.
func (s *session) take(l *list, args obj) {
	l.args, l.dropped = args, ""
	old := l.marks
	l.marks = nil
	var now *text
	if l.path != "" {
		now = s.src.now(l.path)
	}
	for _, want := range args.list("breakpoints") {
		m := &mark{want: want}
		same := func(o *mark) bool { return l.identity(o.want, o.line) == l.identity(want, want.num("line")) }
		if i := slices.IndexFunc(old, same); i >= 0 {
			m.id = old[i].id
			old = slices.Delete(slices.Clone(old), i, i+1)
		} else {
			s.lastID++
			m.id = s.lastID
		}
		m.line = want.num("line")
		m.at, m.atLine = now, m.line
		l.marks = append(l.marks, m)
	}
}

// identity is what makes two breakpoints of a list the same for the client.
func (l *list) identity(want obj, line int) string {
	switch l.command {
	case "setBreakpoints":
		return string(raw([]int{line, want.num("column")}))
	case "setFunctionBreakpoints":
		return want.str("name")
	case "setInstructionBreakpoints":
		return want.str("instructionReference") + string(want["offset"])
	}
	return want.str("dataId")
}

// The reasons why a breakpoint waits, or is no more.
const (
	notInCode   = "not in the code that runs: waits for the next build"
	fileChanged = "the file was changed since the code that runs was built: waits for the next build"
	addressGone = "the process with these addresses is gone: set it again from the disassembly"
	dataGone    = "the variable went with its process: set it again when the new one stands"
)

// request is what the debugger is to be asked, and the marks in it. The others are told why not.
func (s *session) request(l *list) (obj, []*mark) {
	args := obj{}
	for k, v := range l.args {
		if k != "lines" { // the deprecated form of breakpoints
			args[k] = v
		}
	}
	var sent []*mark
	wants := []obj{}
	for _, m := range l.marks {
		if l.dropped != "" {
			m.told = unset(m, l, l.dropped)
			continue
		}
		want := m.want
		if l.command == "setBreakpoints" {
			line, why := s.runningLine(l.path, m)
			if why != "" {
				m.told = unset(m, l, why)
				continue
			}
			if line != want.num("line") {
				want = clone(want)
				want["line"] = raw(line)
			}
		}
		wants = append(wants, want)
		sent = append(sent, m)
	}
	args["breakpoints"] = raw(wants)
	return args, sent
}

// runningLine is where a mark is in the code that runs, or why it is not there.
func (s *session) runningLine(path string, m *mark) (line int, why string) {
	if m.at == nil {
		return m.atLine, ""
	}
	built, state := s.src.built(path)
	switch state {
	case foreign:
		return m.atLine, ""
	case newer:
		return 0, fileChanged
	}
	line, ok := s.src.line(m.at, built, m.atLine, true)
	if !ok {
		return 0, notInCode
	}
	return line, ""
}

// settle moves marks along to the code that runs, once that is what is on disk: from then on the next build's lines are
// found from it. What has no place in it stays where the client put it.
func (s *session) settle(l *list) {
	if l.command != "setBreakpoints" {
		return
	}
	for _, m := range l.marks {
		if m.at == nil {
			continue
		}
		now := s.src.now(l.path)
		built, state := s.src.built(l.path)
		if state != known || !built.same(now) {
			continue
		}
		if line, ok := s.src.line(m.at, built, m.atLine, true); ok {
			m.at, m.atLine, m.line = built, line, line
		}
	}
}

// answered notes what the debugger said about the marks that were sent to it.
func (s *session) answered(be *backend, l *list, sent []*mark, m obj) {
	if !m.is("success") {
		for _, k := range sent {
			k.told = unset(k, l, reason(m))
		}
		return
	}
	got := m.sub("body").list("breakpoints")
	for i, k := range sent {
		if i >= len(got) {
			k.told = unset(k, l, "the debugger does not know it")
			continue
		}
		b := got[i]
		if id := b.num("id"); id != 0 {
			be.ids[id] = k
		}
		b["id"] = raw(k.id)
		s.showLine(b)
		if b["line"] == nil && l.command == "setBreakpoints" && !b.is("verified") && k.line != k.want.num("line") {
			b["line"] = raw(k.line)
		}
		k.told = b
	}
}

// unset tells of a breakpoint that is in no code.
func unset(m *mark, l *list, why string) obj {
	b := obj{"id": raw(m.id), "verified": raw(false), "message": raw(why)}
	if l.command == "setBreakpoints" && m.line > 0 {
		b["line"] = raw(m.line)
		if src := l.args["source"]; src != nil {
			b["source"] = src
		}
	}
	return b
}

// showLine turns the line of something that has a source into the line of the file as it is now.
func (s *session) showLine(b obj) bool {
	path, line := b.sub("source").str("path"), b.num("line")
	if path == "" || line == 0 {
		return false
	}
	if now, ok := s.src.shown(path, line); ok && now != line {
		b["line"] = raw(now)
		return true
	}
	return false
}

// reason is why a request failed, in the debugger's words.
func reason(m obj) string {
	if f := m.sub("body").sub("error").str("format"); f != "" {
		return f
	}
	if f := m.str("message"); f != "" {
		return f
	}
	return "the debugger refused it"
}

// waiting makes all marks of the list unverified.
func (l *list) waiting(why string) {
	for _, m := range l.marks {
		m.told = unset(m, l, why)
	}
}

// body answers the client's request for the marks.
func body(marks []*mark) json.RawMessage {
	all := make([]obj, len(marks))
	for i, m := range marks {
		m.said = m.told
		all[i] = m.told
	}
	return raw(obj{"breakpoints": raw(all)})
}

// changed says whether the client must hear of it.
func changed(before, after obj) bool {
	for _, k := range []string{"verified", "line", "message"} {
		a, b := before[k], after[k]
		if k == "verified" && len(a) == 0 {
			a = raw(false)
		}
		if k == "verified" && len(b) == 0 {
			b = raw(false)
		}
		if !bytes.Equal(a, b) {
			return true
		}
	}
	return false
}

func clone(m obj) obj {
	out := make(obj, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}
