package lsp

import (
	"context"
	"fmt"
	"time"

	"fairlead.dev/api"
)

// The answers to an environment that is due.
const (
	answerKeep  = "Keep for a day"
	answerStop  = "Stop it now"
	answerLeave = "Leave it"
)

// askDue asks what is to become of an environment that nobody uses. The agent tells each once, and one editor only.
func (s *Server) askDue(ctx context.Context, d api.Due) {
	becomes := "is put to sleep"
	if d.Then == "delete" {
		becomes = "is deleted"
	}
	text := fmt.Sprintf("Fairlead: nobody uses the environment %s of %s (namespace %s). It %s at %s.", d.Name, d.Service, d.Namespace, becomes, d.At.Local().Format(time.DateTime))
	var err error
	done := ""
	switch s.ask(ctx, messageWarning, text, answerKeep, answerStop, answerLeave) {
	case answerKeep:
		done, err = "is kept for a day", s.agent.AnswerDue(ctx, d.ID, api.DueKeep)
	case answerStop:
		done, err = "is removed", s.agent.AnswerDue(ctx, d.ID, api.DueStop)
	default:
		return
	}
	if err != nil {
		s.show(messageError, "Fairlead: "+d.Name+": "+errorText(err))
		return
	}
	s.show(messageInfo, "Fairlead: "+d.Name+" "+done)
}
