// Package lsp is the language server: it draws for an editor what the agent says, and passes on what the editor's user
// asks for. It owns the open documents, where a problem stands in a text that is being edited, and the words of lenses,
// actions and messages. One file per request.
//
// It must not know how an environment is made, built or shipped: the agent (Agent) decides, this package shows. It is the
// only importer of go.lsp.dev. It runs in the front end's process, answers before the agent is there, and goes on when the
// agent is lost.
//
// Who runs when: notifications are handled one after the other on the connection's reading goroutine and never wait for
// the editor. A request is prepared there too, so that it sees the documents as they were when it was sent, and is then
// answered on a goroutine of its own. What is sent unasked (diagnostics, refreshed lenses, services) comes from pulses,
// which gather what happens in quick succession. Serve ends them all before it returns.
package lsp
