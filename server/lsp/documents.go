package lsp

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"go.lsp.dev/protocol"
	"go.lsp.dev/uri"

	"fairlead.dev/server/settings"
)

// document is one version of an open document. It is never changed: a request keeps the one that it began with.
type document struct {
	uri     uri.URI
	path    string // of the file, with symbolic links followed
	version int32
	text    text
	saved   text   // as it was saved last, which is what a build speaks of
	edits   []edit // from there to text

	once   sync.Once
	looked atomic.Bool
	entry  entry // func main, once it was looked for
	prior  *span // where it was in the version before, moved along; nil if it is not known
}

const maxEdits = 100_000 // nobody types that much between two saves; what is said of the text is then left where it is

// filePath returns the path of a file URI, or "" for another scheme: those documents have nothing to build.
func filePath(u uri.URI) string {
	if u.Scheme() != "file" || u.Path() == "" {
		return ""
	}
	p := u.FsPath()
	if !filepath.IsAbs(p) {
		return ""
	}
	return filepath.Clean(p)
}

// realPath follows symbolic links as far as the path exists.
func realPath(p string) string {
	if real, err := filepath.EvalSymlinks(p); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(p)); err == nil {
		return filepath.Join(dir, filepath.Base(p))
	}
	return p
}

// samePath compares paths as the platform's usual file system does.
func samePath(a, b string) bool {
	if runtime.GOOS == "windows" {
		return strings.EqualFold(a, b)
	}
	return a == b
}

func (d *document) isGo() bool {
	return strings.HasSuffix(d.path, ".go") && !strings.HasSuffix(d.path, "_test.go")
}
func (d *document) isSettings() bool { return filepath.Base(d.path) == settings.FileName }

func (s *Server) didOpen(p *protocol.DidOpenTextDocumentParams) {
	path := filePath(p.TextDocument.URI)
	if path == "" {
		return // untitled:, git: and others are no files
	}
	d := &document{uri: p.TextDocument.URI, path: realPath(path), version: p.TextDocument.Version, text: newText(p.TextDocument.Text)}
	d.saved = d.text
	s.mu.Lock()
	defer s.mu.Unlock()
	s.docs[d.uri] = d
	s.anchorAll(d)
	s.publish.poke()
}

// didChangeParams is decoded here: package protocol takes a change whose range it cannot read for one of the whole text.
type didChangeParams struct {
	TextDocument   protocol.VersionedTextDocumentIdentifier `json:"-"`
	Document       json.RawMessage                          `json:"textDocument"`
	ContentChanges []struct {
		Range *struct {
			Start, End struct{ Line, Character *uint32 }
		} `json:"range"`
		Text *string `json:"text"`
	} `json:"contentChanges"`
}

func (s *Server) didChange(raw []byte) error {
	var p didChangeParams
	bad := json.Unmarshal(raw, &p)
	if p.Document != nil {
		if err := decode(p.Document, &p.TextDocument); err != nil {
			return err // without knowing the document there is nothing to be done
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.docs[p.TextDocument.URI]
	if old == nil {
		return bad
	}
	d := &document{uri: old.uri, path: old.path, version: p.TextDocument.Version, text: old.text, saved: old.saved, edits: old.edits, prior: old.known()}
	for _, c := range p.ContentChanges {
		if bad != nil || c.Text == nil || c.Range != nil && (c.Range.Start.Line == nil || c.Range.Start.Character == nil || c.Range.End.Line == nil || c.Range.End.Character == nil) {
			// From here on our text is another than the editor's, and every place in it wrong. It is read from disk until the
			// document is opened anew.
			s.log.Warn("a change could not be read; the document is taken for closed", "uri", d.uri)
			s.close(old)
			return bad
		}
		var e edit
		with := strings.ToValidUTF8(*c.Text, "\uFFFD")
		if c.Range == nil {
			e, with = difference(d.text.s, with)
		} else {
			at := func(line, char *uint32) int {
				return d.text.offset(protocol.Position{Line: *line, Character: *char}, s.encoding)
			}
			e = edit{span: span{at(c.Range.Start.Line, c.Range.Start.Character), at(c.Range.End.Line, c.Range.End.Character)}, n: len(with)}
			if e.end < e.start {
				e.start, e.end = e.end, e.start
			}
		}
		d.text = d.text.replace(e.span, with)
		s.edited(d, e)
	}
	s.docs[d.uri] = d
	if s.hasMarks(d) || d.isSettings() {
		s.publish.poke()
	}
	return nil
}

// edited notes one edit and moves what is marked in the text.
func (s *Server) edited(d *document, e edit) {
	if d.edits = append(d.edits, e); len(d.edits) > maxEdits {
		d.saved, d.edits = d.text, nil
	}
	if d.prior != nil {
		if to, there := d.prior.move(e); there {
			d.prior = &to
		} else {
			d.prior = nil
		}
	}
	for _, svc := range s.services {
		for _, m := range svc.marks {
			if m.anchored && !m.gone && samePath(m.path, d.path) {
				if to, there := m.at.move(e); there {
					m.at = to
				} else {
					m.gone = true
				}
			}
		}
	}
}

// difference is the smallest edit at one place that makes a text another: an editor that sends whole texts, and a
// formatter that replaces all, leave what is marked elsewhere where it is.
func difference(old, now string) (edit, string) {
	start := 0
	for start < len(old) && start < len(now) && old[start] == now[start] {
		start++
	}
	for start > 0 && start < len(old) && !utf8.RuneStart(old[start]) || start > 0 && start < len(now) && !utf8.RuneStart(now[start]) {
		start--
	}
	end, to := len(old), len(now)
	for end > start && to > start && old[end-1] == now[to-1] {
		end--
		to--
	}
	for end < len(old) && !utf8.RuneStart(old[end]) || to < len(now) && !utf8.RuneStart(now[to]) {
		end++
		to++
	}
	return edit{span{start, end}, to - start}, now[start:to]
}

func (s *Server) didSave(p *protocol.DidSaveTextDocumentParams) {
	path := filePath(p.TextDocument.URI)
	if path == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.docs[p.TextDocument.URI]; d != nil {
		path = d.path
		s.docs[d.uri] = &document{uri: d.uri, path: d.path, version: d.version, text: d.text, saved: d.text, prior: d.known()}
	} else {
		path = realPath(path)
	}
	if filepath.Base(path) == settings.FileName {
		clear(s.refused) // the next run says what is wrong still
	}
	s.save(path)
	s.publish.poke() // settings are checked against files
}

func (s *Server) didClose(p *protocol.DidCloseTextDocumentParams) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.docs[p.TextDocument.URI]; d != nil {
		s.close(d)
	}
}

func (s *Server) close(d *document) {
	delete(s.docs, d.uri)
	for _, svc := range s.services {
		for _, m := range svc.marks {
			if samePath(m.path, d.path) {
				m.anchored, m.gone = false, false // what is on the disk has the error still
			}
		}
	}
	s.publish.poke()
}

// open returns the open document of a file, or nil.
func (s *Server) open(path string) *document {
	for _, d := range s.docs {
		if samePath(d.path, path) {
			return d
		}
	}
	return nil
}

// uriOf is how the editor names a file: as the document that is open, or below the workspace folder that it opened,
// which may be reached by a symbolic link.
func (s *Server) uriOf(path string) uri.URI {
	if d := s.open(path); d != nil {
		return d.uri
	}
	for _, f := range s.folders {
		if f.real != f.path {
			if rel, err := filepath.Rel(f.real, path); err == nil && filepath.IsLocal(rel) {
				return uri.File(filepath.Join(f.path, rel))
			}
		}
	}
	return uri.File(path)
}

// read returns a file's text as the editor has it, and whether it is there.
func (s *Server) read(path string) (text, bool) {
	if d := s.open(path); d != nil {
		return d.text, true
	}
	const most = 32 << 20
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() || st.Size() > most {
		return text{}, false
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return text{}, false
	}
	return newText(string(b)), true
}
