package server

import (
	"regexp"
	"strconv"
	"strings"

	"fairlead.dev/api"
	"fairlead.dev/server/callsite"
	"fairlead.dev/server/crash"
)

// A call is seen at the gate, which knows nothing of the goroutine that makes it. But a service that logs the error that it gets says
// which one it is: the refusal's words have caller, method and callee. So of several lines that make a call, the one is taken near which
// its error was logged (log.Lshortfile, slog's AddSource, zap, zerolog, logrus), or that a panic's stack names.

// saysRefused is what every refusal of the gate has in it (outbound, denial.message).
func saysRefused(text, caller string, call api.Call) bool {
	return strings.Contains(text, caller+" may not call "+call.Method+" of "+call.Callee+" yet")
}

var (
	// sourceMember is slog's source in JSON, and logrus's without its function.
	sourceMember = regexp.MustCompile(`"file":"([^"]+\.go)","line":([0-9]{1,6})\b`)
	sourceText   = regexp.MustCompile(`([\w./\\@~+-]+\.go):([0-9]{1,6})\b`)
)

const (
	maxSources = 8   // of one log line
	maxSource  = 500 // bytes of a file's name
)

// sources are the places in source that a log line names, as frames without a function.
func sources(text string) []callsite.Frame {
	var out []callsite.Frame
	for _, re := range []*regexp.Regexp{sourceMember, sourceText} {
		for _, m := range re.FindAllStringSubmatch(text, maxSources) {
			if n, err := strconv.Atoi(m[2]); err == nil && len(out) < maxSources && len(m[1]) <= maxSource {
				out = append(out, callsite.Frame{File: m[1], Line: n})
			}
		}
	}
	return out
}

// logged takes what the service wrote: where a refusal's words and a place are in it, the call's line is looked for anew.
func (c *calls) logged(e *api.LogEvent) {
	if e.Process == "" {
		c.near(e.Generation, e.Text, func() []callsite.Frame { return sources(e.Text) })
	}
}

// crashed is logged for a panic, whose stack is the places.
func (c *calls) crashed(g api.Generation, k *crash.Crash) {
	c.near(g, k.Message, func() []callsite.Frame {
		var out []callsite.Frame
		for _, f := range k.Frames {
			if !f.Creator {
				out = append(out, callsite.Frame{Func: f.Func, File: f.File, Line: f.Line}, callsite.Frame{File: f.File, Line: f.Line})
			}
		}
		return out
	})
}

// near takes over where a refusal was met with, once for each call. Lines of before the last edit are those of another source.
func (c *calls) near(g api.Generation, text string, places func() []callsite.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 || g <= c.stale || !strings.Contains(text, " may not call ") { // by the hundred thousand
		return
	}
	for call, s := range c.seen {
		if s.Verdict != api.CallDenied || c.stacks[call] != nil || !saysRefused(text, c.s.cfg.Spec.Service, call) {
			continue
		}
		if at := places(); len(at) > 0 {
			c.stacks[call] = at
			c.edits++ // it is looked for anew, and shown where it was until then
			wakeUp(c.look)
		}
	}
}
