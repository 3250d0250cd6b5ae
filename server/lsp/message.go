package lsp

import (
	"context"
	"time"

	"go.lsp.dev/protocol"

	"fairlead.dev/api"
)

const (
	messageError   = protocol.MessageTypeError
	messageWarning = protocol.MessageTypeWarning
	messageInfo    = protocol.MessageTypeInfo
)

func messageType(s api.Severity) protocol.MessageType {
	switch s {
	case api.SeverityWarning:
		return messageWarning
	case api.SeverityInfo:
		return messageInfo
	}
	return messageError
}

// show shows a message. It is not called with the lock held: it writes to the editor.
func (s *Server) show(t protocol.MessageType, text string) {
	if err := s.client.ShowMessage(s.ctx, &protocol.ShowMessageParams{Type: t, Message: text}); err != nil {
		s.log.Debug("show a message", "err", err)
	}
}

// ask shows a message with buttons and returns the one that was pressed, or "". A user may take an hour.
func (s *Server) ask(ctx context.Context, t protocol.MessageType, text string, actions ...string) string {
	p := &protocol.ShowMessageRequestParams{Type: t, Message: text}
	for _, a := range actions {
		p.Actions = append(p.Actions, protocol.MessageActionItem{Title: a})
	}
	answer, err := s.client.ShowMessageRequest(ctx, p)
	if err != nil || answer == nil {
		return ""
	}
	return answer.Title
}

// shorter bounds what a client may take for a small thing that is waited for.
func shorter(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 5*time.Second)
}
