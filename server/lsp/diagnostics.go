package lsp

import (
	"cmp"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.lsp.dev/protocol"
	"go.lsp.dev/uri"

	"fairlead.dev/api"
	"fairlead.dev/server/settings"
)

// mark is one problem and where it stands. The agent gives a line of what was saved; in an open document it moves along
// with what is typed, and goes when its text is deleted.
type mark struct {
	problem  api.Problem
	path     string
	anchored bool // at is its place in the open document
	at       span
	gone     bool // its text was deleted
}

// mark takes in a service's problems. A mark whose problem stands unchanged stays where it has moved to, unless another
// build has said it again: then it is about the text as it was saved last.
func (s *Server) mark(svc *service, before api.Service) {
	again := svc.Phase == api.PhaseFailed && (before.Phase != api.PhaseFailed || !svc.Since.Equal(svc.failed))
	if svc.Phase == api.PhaseFailed {
		svc.failed = svc.Since
	}
	old := svc.marks
	svc.marks = make([]*mark, 0, len(svc.Problems))
	if svc.Joined { // no file here is what it is made of
		return
	}
	for _, p := range svc.Problems {
		if p.File != "" && !filepath.IsAbs(p.File) {
			p.File = filepath.Join(svc.Dir, p.File)
		}
		i := slices.IndexFunc(old, func(m *mark) bool { return reflect.DeepEqual(m.problem, p) })
		if i >= 0 && !(again && p.Owner == "build") {
			svc.marks = append(svc.marks, old[i])
			old = slices.Delete(slices.Clone(old), i, i+1)
			continue
		}
		m := &mark{problem: p}
		if p.File != "" {
			m.path = realPath(p.File)
			if d := s.open(m.path); d != nil {
				m.anchor(d)
			}
		}
		svc.marks = append(svc.marks, m)
	}
}

// anchor finds the problem's place in an open document: the line is one of what was saved, and what was typed since has
// moved it.
func (m *mark) anchor(d *document) {
	m.anchored, m.gone = true, false
	if m.problem.Line == 0 {
		return
	}
	saved, edits := d.saved, d.edits
	if len(edits) > 0 {
		// A build that the file watcher began can have failed before the editor says that it has saved: then what is on the
		// disk is what was built, and the edits are in it.
		if b, err := os.ReadFile(d.path); err == nil && string(b) != saved.s {
			saved = newText(strings.ToValidUTF8(string(b), "\uFFFD"))
			e, _ := difference(saved.s, d.text.s)
			edits = []edit{e}
			if saved.s == d.text.s {
				edits = nil
			}
		}
	}
	m.at = saved.of(&m.problem)
	for _, e := range edits {
		to, there := m.at.move(e)
		if !there {
			m.gone = true
			return
		}
		m.at = to
	}
}

func (s *Server) anchorAll(d *document) {
	for _, svc := range s.services {
		for _, m := range svc.marks {
			if m.path != "" && samePath(m.path, d.path) {
				m.anchor(d)
			}
		}
	}
}

func (s *Server) hasMarks(d *document) bool {
	for _, svc := range s.services {
		for _, m := range svc.marks {
			if m.anchored && samePath(m.path, d.path) {
				return true
			}
		}
	}
	return false
}

// place is where a line and a column (both from 1, the column in bytes) are in a text, up to the end of the token there;
// without a column, or with one that is not there, the whole line without its indentation.
func (t text) place(line, column int, token bool) span {
	if line < 1 {
		line = 1
	}
	start, end := t.line(line - 1)
	at := start + column - 1
	if column < 1 || at >= end {
		for start < end && (t.s[start] == ' ' || t.s[start] == '\t') {
			start++
		}
		return span{start, end}
	}
	if token {
		end = min(end, tokenEnd(t.s, at))
	}
	return span{at, end}
}

// of is a problem's place: as far as it says, else up to the end of the token there.
func (t text) of(p *api.Problem) span {
	at := t.place(p.Line, p.Column, true)
	if _, end := t.line(max(p.Line, 1) - 1); p.Column > 0 && p.EndColumn > p.Column {
		at.end = min(max(at.end, at.start+p.EndColumn-p.Column), end)
	}
	return at
}

// publishDiagnostics brings what the editor shows to what is so. It runs on a pulse and nowhere else, so that what it
// sends is in order.
func (s *Server) publishDiagnostics() {
	for _, p := range s.diagnostics() {
		if err := s.client.PublishDiagnostics(s.ctx, p); err != nil {
			s.log.Debug("publish diagnostics", "err", err)
			return
		}
	}
}

// diagnostics lists what must be sent: of documents whose diagnostics have changed, or whose version has while they have
// some.
func (s *Server) diagnostics() []*protocol.PublishDiagnosticsParams {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateRunning {
		return nil
	}
	want := map[uri.URI]*protocol.PublishDiagnosticsParams{}
	texts := map[string]*text{}
	textOf := func(path string) *text {
		t, ok := texts[path]
		if !ok {
			if read, there := s.read(path); there {
				t = &read
			}
			texts[path] = t
		}
		return t
	}
	add := func(path string, d protocol.Diagnostic) {
		u := s.uriOf(path)
		p := want[u]
		if p == nil {
			p = &protocol.PublishDiagnosticsParams{URI: u}
			if doc := s.docs[u]; doc != nil {
				p.Version = protocol.NewOptional(doc.version)
			}
			want[u] = p
		}
		// Two services that share a package say the same twice.
		same := func(o protocol.Diagnostic) bool { return o.Range == d.Range && reflect.DeepEqual(o.Message, d.Message) }
		if !slices.ContainsFunc(p.Diagnostics, same) {
			p.Diagnostics = append(p.Diagnostics, d)
		}
	}
	checked := map[string]bool{} // settings files that are open: checked here as they are typed
	for _, d := range s.docs {
		if !d.isSettings() {
			continue
		}
		checked[d.path] = true
		for _, p := range s.check(d) {
			add(d.path, s.diagnostic(p, d.text.span(d.text.place(p.Line, p.Column, true), s.encoding), ""))
		}
	}
	for _, name := range sortedNames(s.services) {
		svc := s.services[name]
		for _, m := range svc.marks {
			p := &m.problem
			switch {
			case m.gone, p.Severity == api.SeverityInfo && p.File == "", p.Owner == "build" && s.set.BuildDiagnostics == "never":
				continue
			case p.Owner == "settings" && checked[m.path]:
				continue
			case p.File == "":
				if home := s.homeOf(svc, p); home.path != "" {
					if t := textOf(home.path); t != nil {
						add(home.path, s.diagnostic(p, t.span(t.place(home.line, 0, false), s.encoding), name))
					}
				}
				continue
			}
			t := textOf(m.path)
			if t == nil {
				add(m.path, s.diagnostic(p, protocol.Range{}, name)) // it was deleted, perhaps: still better said than not
				continue
			}
			at := t.of(p)
			if m.anchored {
				at = m.at
			}
			add(m.path, s.diagnostic(p, t.span(at, s.encoding), name))
		}
	}
	for pkg, problems := range s.refused {
		for _, p := range problems {
			path := realPath(p.File)
			if p.File == "" || checked[path] {
				if p.File != "" {
					continue
				}
				home := entryOf(pkg)
				if t := textOf(home.path); home.path != "" && t != nil {
					add(home.path, s.diagnostic(p, t.span(t.place(home.line, 0, false), s.encoding), ""))
				}
				continue
			}
			if t := textOf(path); t != nil {
				add(path, s.diagnostic(p, t.span(t.place(p.Line, p.Column, true), s.encoding), ""))
			}
		}
	}

	var out []*protocol.PublishDiagnosticsParams
	for u, p := range want {
		b, err := protocol.Marshal(p)
		if err != nil {
			s.log.Error("encode diagnostics", "err", err)
			continue
		}
		if s.published[u] != string(b) {
			s.published[u] = string(b)
			out = append(out, p)
		}
	}
	for u := range s.published {
		if want[u] == nil {
			delete(s.published, u)
			p := &protocol.PublishDiagnosticsParams{URI: u, Diagnostics: []protocol.Diagnostic{}}
			if d := s.docs[u]; d != nil {
				p.Version = protocol.NewOptional(d.version)
			}
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *protocol.PublishDiagnosticsParams) int { return cmp.Compare(a.URI, b.URI) })
	return out
}

func sortedNames(m map[string]*service) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// diagnosticData is what a client can tell ours apart by.
type diagnosticData struct {
	Owner   string `json:"owner,omitempty"`
	Service string `json:"service,omitempty"`
}

func (s *Server) diagnostic(p *api.Problem, r protocol.Range, service string) protocol.Diagnostic {
	message := p.Message
	if p.Hint != "" {
		message += "\n" + p.Hint
	}
	d := protocol.Diagnostic{Range: r, Severity: protocol.DiagnosticSeverityError, Source: protocol.NewOptional("fairlead"),
		Message: protocol.String(message), Data: protocol.LSPAny(raw(diagnosticData{p.Owner, service}))}
	switch p.Severity {
	case api.SeverityWarning:
		d.Severity = protocol.DiagnosticSeverityWarning
	case api.SeverityInfo:
		d.Severity = protocol.DiagnosticSeverityInformation
	}
	if p.Code != "" {
		d.Code = protocol.String(p.Code)
	}
	if p.Link != "" {
		d.CodeDescription = protocol.CodeDescription{Href: uri.URI(p.Link)} // as it is: uri.Parse would encode the query's "&" and "="
	}
	for _, rel := range p.Related {
		path := realPath(rel.File)
		if !filepath.IsAbs(path) {
			continue
		}
		where := protocol.Range{Start: protocol.Position{Line: uint32(max(rel.Line-1, 0))}, End: protocol.Position{Line: uint32(max(rel.Line-1, 0))}}
		if t, ok := s.read(path); ok {
			where = t.span(t.place(rel.Line, rel.Column, true), s.encoding)
		}
		d.RelatedInformation = append(d.RelatedInformation, protocol.DiagnosticRelatedInformation{Location: protocol.Location{URI: s.uriOf(path), Range: where}, Message: rel.Message})
	}
	return d
}

// homeOf is where a problem without a place is shown, so that nothing is silent: in fairlead.yaml, on the key that it is
// about as far as that is known, else on func main.
func (s *Server) homeOf(svc *service, p *api.Problem) place {
	if svc.home != nil {
		if _, err := os.Stat(svc.home.path); err == nil {
			return *svc.home
		}
	}
	var at place
	dir := svc.Package
	if dir == "" {
		dir = svc.Dir
	}
	l, _ := settings.Load(settings.Options{Dir: dir, User: "-", ReadFile: s.readFile})
	if l.File != "" {
		at = place{l.File, 1}
		for _, key := range []string{"kubernetes.namespace", "kubernetes.context", "kubernetes", "on"} {
			if file, line, ok := settings.Place(l.Origin(key)); ok && svc.Provider == "kubernetes" && file == l.File {
				at.line = line
				break
			}
		}
	} else {
		at = entryOf(dir)
	}
	svc.home = &at
	return at
}

// entryOf finds func main in a folder's files, or at least a package clause.
func entryOf(dir string) place {
	names, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	var first place
	for _, name := range names {
		d := &document{path: name}
		if !d.isGo() {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		d.text = newText(string(b))
		found := d.find()
		if found.is {
			return place{name, int(d.text.position(found.at.start, utf8Bytes).Line) + 1}
		}
		if first.path == "" {
			first = place{name, 1 + strings.Count(d.text.s[:max(0, strings.Index("\n"+d.text.s, "\npackage "))], "\n")}
		}
	}
	return first
}
