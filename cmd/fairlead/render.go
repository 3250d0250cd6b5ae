package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"fairlead.dev/api"
)

// renderer shows events.
type renderer interface{ show(api.Event) }

// jsonRenderer writes one object a line: the contract of --json.
type jsonRenderer struct{ enc *json.Encoder }

func newJSONRenderer(w io.Writer) *jsonRenderer {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &jsonRenderer{enc}
}

func (r *jsonRenderer) show(e api.Event) { r.enc.Encode(e) }

// textRenderer writes for people: the service's lines on stdout as they are, Fairlead's own on stderr with a mark.
type textRenderer struct {
	mu       sync.Mutex
	out, err io.Writer
	service  string
	color    bool
	dir      string
	wasLive  bool   // what is told of the first time is the time since the start
	partial  bool   // the line written last goes on
	process  string // who wrote it
}

func (r *textRenderer) paint(code, s string) string {
	if !r.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (r *textRenderer) say(format string, args ...any) {
	fmt.Fprintf(r.err, "%s %s\n", r.paint("36", "fairlead"), fmt.Sprintf(format, args...))
}

func (r *textRenderer) show(e api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := e.(type) {
	case *api.EnvironmentEvent:
		switch e.State {
		case "creating", "connecting":
			r.say("%s", clean(e.Reason))
		case "connected":
			where := e.Provider
			if e.Namespace != "" {
				where = fmt.Sprintf("%s, namespace %s", e.Provider, e.Namespace)
			}
			r.say("environment %s (%s)", e.Name, where)
		case "lost":
			r.say("%s %s; trying again", r.paint("33", "disconnected:"), clean(e.Reason))
		case "waking":
			r.say("%s %s", r.paint("33", "waking the environment:"), clean(e.Reason))
		case "stopping":
			if e.Reason == "" {
				e.Reason = "removing the environment"
			}
			r.say("%s", clean(e.Reason))
		case "stopped":
			r.say("%s", clean(e.Reason))
		case "deleted":
			r.say("removed")
		}
	case *api.BuildEvent:
		switch {
		case e.Canceled:
		case e.OK:
			r.say("built generation %d in %s", e.Generation, ms(e.MS))
		default:
			r.say("%s generation %d does not build; what ran goes on running", r.paint("31", "failed:"), e.Generation)
		}
	case *api.TransferEvent:
		what := "the difference"
		if e.Full {
			what = "the whole executable"
		}
		if e.Bytes > 0 {
			r.say("shipped %s, %s, in %s", what, size(e.Bytes), ms(e.MS))
		}
		if e.Reason != "" && e.Generation > 1 {
			r.say("  whole, because %s", clean(e.Reason))
		}
	case *api.ProcessEvent:
		switch e.State {
		case api.StateExited, api.StateFailed:
			r.say("%s %s; the next save starts it again", r.paint("31", "down:"), clean(e.Reason))
			if e.Core != "" {
				r.say("hint: it left a core file: fairlead debug --core %s --service %s, or open it from your editor", clean(e.Core), clean(r.service))
			}
		}
	case *api.ReadyEvent:
		if e.URL != "" && e.MS == 0 {
			r.wasLive = true
			r.say("%s %s runs generation %d again", r.paint("32", "live:"), e.URL, e.Generation)
			return
		}
		if e.URL == "" {
			r.say("%s generation %d runs, and listens on no port", r.paint("32", "live:"), e.Generation)
			return
		}
		since := "save"
		if !r.wasLive {
			since = "start"
		}
		r.wasLive = true
		r.say("%s %s runs generation %d, %s after the %s", r.paint("32", "live:"), e.URL, e.Generation, ms(e.MS), since)
	case *api.LogEvent:
		if e.Dropped > 0 {
			r.say("%s %d lines of the log were dropped: the service writes faster than they can be shown", r.paint("33", "dropped:"), e.Dropped)
		}
		r.line(e)
	case *api.CallEvent:
		what := clean(strings.TrimSpace(e.Method + " of " + e.Callee))
		switch e.Verdict {
		case api.CallDenied:
			r.say("%s the call of %s is not granted; fairlead access prints where that is requested", r.paint("31", "denied:"), what)
		case api.CallWarned:
			r.say("%s the call of %s is not granted, and was let through", r.paint("33", "warning:"), what)
		case api.CallRefused:
			r.say("%s %s refused the call of %s", r.paint("33", "warning:"), clean(e.By), what)
		}
	case *api.ProblemEvent:
		mark := r.paint("31", "error:")
		if e.Severity == api.SeverityWarning {
			mark = r.paint("33", "warning:")
		}
		text := clean(e.Problem.Error())
		if r.dir != "" {
			text = strings.ReplaceAll(text, r.dir+string(os.PathSeparator), "")
		}
		r.say("%s %s", mark, text)
		if e.Hint != "" {
			r.say("hint: %s", clean(e.Hint))
		}
	}
}

// line writes a log line. Those of other containers begin with the container's name; a long line that comes in parts is
// broken off when another's comes between.
func (r *textRenderer) line(e *api.LogEvent) {
	if r.partial && r.process != e.Process {
		fmt.Fprintln(r.out)
		r.partial = false
	}
	text := e.Text
	if !r.partial && e.Process != "" {
		text = "[" + e.Process[strings.LastIndexByte(e.Process, '/')+1:] + "] " + text
	}
	if r.partial, r.process = e.Partial, e.Process; r.partial {
		fmt.Fprint(r.out, text)
	} else {
		fmt.Fprintln(r.out, text)
	}
}

func ms(n int64) string {
	if n < 10_000 {
		return fmt.Sprintf("%d ms", n)
	}
	return fmt.Sprintf("%.1f s", float64(n)/1000)
}

func size(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d KB", n/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// isTerminal says whether a person reads w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}
