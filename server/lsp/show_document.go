package lsp

import (
	"context"
	"fmt"

	"go.lsp.dev/protocol"
	"go.lsp.dev/uri"

	"fairlead.dev/api"
)

// openAfterRun opens the browser the first time that a service is live after a run of this editor, as its user wants it.
func (s *Server) openAfterRun(ctx context.Context, svc api.Service, url string) {
	s.mu.Lock()
	how := s.set.OpenBrowser
	s.mu.Unlock()
	if how == "never" || how == "ask" && s.ask(ctx, messageInfo, "Fairlead: "+svc.Environment.Service+" is live at "+url, "Open in browser") == "" {
		return
	}
	s.openBrowser(ctx, svc.Environment.Service, url)
}

// openCommand opens one of the service's ports in the browser.
func (s *Server) openCommand(ctx context.Context, svc api.Service, port int) error {
	url := svc.URL
	if port != 0 {
		url = ""
		for _, f := range svc.Ports {
			if f.Port == port {
				url = f.URL
			}
		}
	}
	if url == "" {
		p := &api.Problem{Code: "not-listening", Message: svc.Environment.Service + " listens on no port", Hint: "wait until it is live, or look at its logs"}
		if port != 0 {
			p.Message = fmt.Sprintf("%s does not listen on port %d", svc.Environment.Service, port)
		}
		return p
	}
	s.openBrowser(ctx, svc.Environment.Service, url)
	return nil
}

// openBrowser shows a page outside of the editor. An editor that cannot is told the address.
func (s *Server) openBrowser(ctx context.Context, name, url string) {
	if !s.showDocument(ctx, url, true) {
		s.show(messageInfo, "Fairlead: "+name+" is live at "+url)
	}
}

func (s *Server) showDocument(ctx context.Context, url string, external bool) bool {
	s.mu.Lock()
	can := s.caps.showDocument
	s.mu.Unlock()
	if _, err := uri.Parse(url); !can || err != nil {
		return false
	}
	ctx, cancel := shorter(ctx)
	defer cancel()
	p := &protocol.ShowDocumentParams{URI: uri.URI(url), TakeFocus: ptr(true)}
	if external {
		p.External = ptr(true)
	}
	answer, err := s.client.ShowDocument(ctx, p)
	return err == nil && answer != nil && answer.Success
}
