package journal

import (
	"strings"

	"fairlead.dev/api"
)

// refusal finds in a text the words with which the gate refuses a call ("orders may not call GET /x of billing yet"): a service that logs
// the error that it got is to lead to the form as well as the gate's own event does. Anybody may write such words; they only fill a form in.
func refusal(text string) *api.Call {
	_, rest, ok := strings.Cut(text, " may not call ")
	if !ok {
		return nil
	}
	method, rest, ok := strings.Cut(rest, " of ")
	callee, _, yet := strings.Cut(rest, " yet")
	if !ok || !yet || method == "" || len(method) > 1024 || callee == "" || len(callee) > 253 || strings.ContainsAny(callee, " \t\"") {
		return nil
	}
	return &api.Call{Callee: callee, Method: method}
}

// call is an event of a call in words, with what can be asked for. One that was allowed is not worth a line.
func call(e *api.CallEvent) *api.Line {
	what := strings.TrimSpace(e.Method + " of " + e.Callee)
	c := e.Call
	switch e.Verdict {
	case api.CallDenied:
		return &api.Line{Level: "error", Message: what + " is not granted: the call was refused", Refused: &c}
	case api.CallWarned:
		return &api.Line{Level: "warn", Message: what + " is not granted; the call was let through", Refused: &c}
	case api.CallRefused: // whether the registry could grant it is not known here
		return &api.Line{Level: "warn", Message: e.By + " refused the call of " + what}
	}
	return nil
}
