package lsp

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"go.lsp.dev/jsonrpc2"
	"go.lsp.dev/protocol"
	"go.lsp.dev/uri"
)

// capabilities are what the client can do, as far as it matters here.
type capabilities struct {
	name               string
	progress           bool
	showDocument       bool
	lensRefresh        bool
	configuration      bool
	codeActionLiterals bool
	markdown           bool
	snippets           bool
	fairlead           bool // it draws services itself
}

// editorSettings are what the editor sets for this server, in initializationOptions and by didChangeConfiguration.
type editorSettings struct {
	// Beside: the editor can show a web page beside the code, by window/showDocument without external.
	Beside bool `json:"beside"`
	// OpenBrowser says whether the service is opened in the browser when it is live for the first time after a run.
	OpenBrowser string `json:"openBrowser"` // "always", "ask" or "never"
	// On is where environments are made; empty leaves it to fairlead.yaml.
	On string `json:"on"`
	// CodeLens says whether there are lenses above func main.
	CodeLens bool `json:"codeLens"`
	// Trusted says whether what is in the workspace may be run.
	Trusted bool `json:"trusted"`
	// BuildDiagnostics says whether the errors of the last save's build are shown as diagnostics: "always", "never", or
	// "auto", which is always for this server. A server cannot see what gopls shows, so a client that can leaves out ours
	// where gopls says the same on the same line (ours have source "fairlead" and data.owner "build").
	BuildDiagnostics string `json:"buildDiagnostics"`
}

// folder is one workspace folder.
type folder struct {
	name, path, real string
}

// tree is a client's JSON of which only some members are looked at. Clients send all kinds of things in capabilities, and
// one that we do not even use must not keep the editor from starting.
type tree struct{ v any }

func (t tree) at(names ...string) tree {
	for _, n := range names {
		m, _ := t.v.(map[string]any)
		t.v = m[n]
	}
	return t
}

func (t tree) yes(names ...string) bool { b, _ := t.at(names...).v.(bool); return b }

func (t tree) str(names ...string) string { s, _ := t.at(names...).v.(string); return s }

func (t tree) strings(names ...string) []string {
	list, _ := t.at(names...).v.([]any)
	var out []string
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func (s *Server) initialize(params []byte) (any, error) {
	var p tree
	if err := json.Unmarshal(params, &p.v); err != nil {
		return nil, jsonrpc2.NewError(jsonrpc2.InvalidParams, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	caps := p.at("capabilities")
	s.caps = capabilities{
		name:               p.str("clientInfo", "name"),
		progress:           caps.yes("window", "workDoneProgress"),
		showDocument:       caps.yes("window", "showDocument", "support"),
		lensRefresh:        caps.yes("workspace", "codeLens", "refreshSupport"),
		configuration:      caps.yes("workspace", "configuration"),
		codeActionLiterals: caps.at("textDocument", "codeAction", "codeActionLiteralSupport").v != nil,
		markdown:           slices.Contains(caps.strings("textDocument", "hover", "contentFormat"), "markdown"),
		snippets:           caps.yes("textDocument", "completion", "completionItem", "snippetSupport"),
		fairlead:           caps.yes("experimental", "fairlead"),
	}
	for _, name := range caps.strings("general", "positionEncodings") {
		if e, ok := encodings[name]; ok {
			s.encoding = e // the first that we know: the client likes it best
			break
		}
	}
	for _, f := range list(p.at("workspaceFolders")) {
		s.addFolder(f.str("uri"), f.str("name"))
	}
	if len(s.folders) == 0 {
		s.addFolder(p.str("rootUri"), "")
	}
	if path := p.str("rootPath"); len(s.folders) == 0 && path != "" {
		s.addFolder(string(uri.File(path)), "")
	}
	s.configure(p.at("initializationOptions"))
	name := s.caps.name
	if v := p.str("clientInfo", "version"); name != "" && v != "" {
		name += " " + v
	}
	if name == "" {
		name = "an editor"
	}
	s.agent = s.opts.Agent(name)
	s.state = stateInitialized

	change := protocol.TextDocumentSyncKindIncremental
	var actions protocol.CodeActionProvider = protocol.Boolean(true)
	if s.caps.codeActionLiterals {
		actions = &protocol.CodeActionOptions{CodeActionKinds: []protocol.CodeActionKind{protocol.CodeActionKindQuickFix, kindSource}}
	}
	return &protocol.InitializeResult{
		ServerInfo: protocol.ServerInfo{Name: "fairlead", Version: protocol.NewOptional(s.opts.Version)},
		Capabilities: protocol.ServerCapabilities{
			PositionEncoding:       s.encoding.kind(),
			TextDocumentSync:       &protocol.TextDocumentSyncOptions{OpenClose: ptr(true), Change: &change, Save: protocol.Boolean(true)},
			CodeLensProvider:       &protocol.CodeLensOptions{},
			CodeActionProvider:     actions,
			CompletionProvider:     &protocol.CompletionOptions{TriggerCharacters: []string{":", " ", "-"}},
			HoverProvider:          protocol.Boolean(true),
			ExecuteCommandProvider: protocol.ExecuteCommandOptions{Commands: commandNames()},
			Workspace: &protocol.WorkspaceOptions{WorkspaceFolders: &protocol.WorkspaceFoldersServerCapabilities{
				Supported: ptr(true), ChangeNotifications: protocol.Boolean(true)}},
		},
	}, nil
}

func list(t tree) []tree {
	l, _ := t.v.([]any)
	out := make([]tree, len(l))
	for i, e := range l {
		out[i] = tree{e}
	}
	return out
}

func (s *Server) addFolder(text, name string) {
	u, err := uri.Parse(text)
	if err != nil || text == "" {
		return
	}
	if path := filePath(u); path != "" {
		s.folders = append(s.folders, folder{name: name, path: path, real: realPath(path)})
	}
}

// configure takes in what of the settings is given and right.
func (s *Server) configure(t tree) {
	oneOf := func(to *string, name string, values ...string) {
		v, ok := t.at(name).v.(string)
		switch {
		case !ok:
		case slices.Contains(values, v):
			*to = v
		default:
			s.log.Warn("a setting of the editor has no meaning", "name", name, "value", v)
		}
	}
	oneOf(&s.set.OpenBrowser, "openBrowser", "always", "ask", "never")
	oneOf(&s.set.On, "on", "", "local", "kubernetes")
	oneOf(&s.set.BuildDiagnostics, "buildDiagnostics", "auto", "always", "never")
	for name, to := range map[string]*bool{"codeLens": &s.set.CodeLens, "beside": &s.set.Beside, "trusted": &s.set.Trusted} {
		if v, ok := t.at(name).v.(bool); ok {
			*to = v
		}
	}
}

func (s *Server) initialized() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateInitialized {
		return
	}
	s.state = stateRunning
	// Attach outlives Serve: its end on purpose would release what is held.
	go s.agent.Attach(context.WithoutCancel(s.ctx), s.handle)
	if s.caps.configuration {
		s.spawn(s.pullConfiguration)
	}
	s.changed()
}

func (s *Server) pullConfiguration(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := s.client.Configuration(ctx, &protocol.ConfigurationParams{Items: []protocol.ConfigurationItem{{Section: ptr("fairlead")}}})
	if err != nil || len(answer) != 1 {
		s.log.Debug("the editor's configuration was not to be had", "err", err)
		return
	}
	var t tree
	if json.Unmarshal(answer[0], &t.v) == nil {
		s.reconfigure(t)
	}
}

func (s *Server) reconfigure(t tree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configure(t)
	s.changed()
}

func (s *Server) didChangeConfiguration(params []byte) error {
	var p tree
	if err := json.Unmarshal(params, &p.v); err != nil {
		return err
	}
	t := p.at("settings")
	switch m, _ := t.v.(map[string]any); {
	case m["fairlead"] != nil:
		s.reconfigure(t.at("fairlead"))
	case len(m) > 0:
		s.reconfigure(t)
	default:
		s.mu.Lock()
		pull := s.caps.configuration
		s.mu.Unlock()
		if pull {
			s.spawn(s.pullConfiguration)
		}
	}
	return nil
}

func (s *Server) didChangeWorkspaceFolders(p *protocol.DidChangeWorkspaceFoldersParams) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range p.Event.Removed {
		path := filePath(f.URI)
		s.folders = slices.DeleteFunc(s.folders, func(have folder) bool { return path != "" && samePath(have.path, path) })
	}
	for _, f := range p.Event.Added {
		s.addFolder(string(f.URI), f.Name)
	}
	s.publish.poke()
}
