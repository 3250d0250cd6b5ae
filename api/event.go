package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Kind is an event's "type" member.
type Kind string

const (
	KindEnvironment Kind = "environment"
	KindBuild       Kind = "build"
	KindTransfer    Kind = "transfer"
	KindProcess     Kind = "process"
	KindListening   Kind = "listening"
	KindReady       Kind = "ready"
	KindLog         Kind = "log"
	KindProblem     Kind = "problem"
	KindCall        Kind = "call"
)

// Event is one line of `fairlead run --json`, and one message of a pod's event stream: a JSON object with "type",
// "generation", "time" and the members of its type. Members are only ever added.
type Event interface{ Head() *Header }

// Header is what every event has.
type Header struct {
	Type       Kind       `json:"type"`
	Generation Generation `json:"generation"`
	Time       time.Time  `json:"time"` // RFC 3339, of the machine where it happened
	// Seq orders the events of one pod (process, listening, log, problem); 0 for the agent's own. A reader that
	// reconnects asks for what came after the last one it has.
	Seq uint64 `json:"seq,omitempty"`
}

// Head returns the header itself.
func (h *Header) Head() *Header { return h }

// EnvironmentEvent tells what is known or being done about the environment.
type EnvironmentEvent struct {
	Header
	Environment
	// State is "finding", "creating", "connecting", "connected", "lost", "waking", "stopping", "stopped" or "deleted".
	State string `json:"state"`
	// Reason says in words why, for "lost" and "waking", or what is being waited for.
	Reason string `json:"reason,omitempty"`
}

// Environment names an environment.
type Environment struct {
	Name      string `json:"name"`
	Service   string `json:"service"`
	Provider  string `json:"provider"` // "local" or "kubernetes"
	Context   string `json:"context,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Template  string `json:"template,omitempty"` // the Deployment it was made after, "namespace/name"
	Resumed   bool   `json:"resumed,omitempty"`  // it was there already
}

// BuildEvent ends a build. OK is false when it failed; a problem event per compiler message comes before it.
type BuildEvent struct {
	Header
	OK       bool   `json:"ok"`
	MS       int64  `json:"ms"`
	Digest   Digest `json:"digest,omitempty"`
	Size     int64  `json:"size,omitempty"` // of the executable, in bytes
	Canceled bool   `json:"canceled,omitempty"`
}

// TransferEvent ends a transfer. Bytes is what went over the connection.
type TransferEvent struct {
	Header
	Bytes int64 `json:"bytes"`
	Full  bool  `json:"full"` // the executable travelled whole, not as a difference
	MS    int64 `json:"ms"`
	Files int   `json:"files,omitempty"` // contents sent whole, the executable included
	// Reason says why it was full where a difference was expected.
	Reason string `json:"reason,omitempty"`
}

// ProcessEvent tells that the service's process changed state.
type ProcessEvent struct {
	Header
	State    State  `json:"state"`
	PID      int    `json:"pid,omitempty"`
	Digest   Digest `json:"digest,omitempty"`
	ExitCode *int   `json:"exit_code,omitempty"` // 128+n for signal n
	Reason   string `json:"reason,omitempty"`
	// Debugger: the process was started under the debugger, and waits for a debug session (state "starting").
	Debugger bool `json:"debugger,omitempty"`
	// Core is the path, in the pod, of the core file that the process left (state "exited").
	Core string `json:"core,omitempty"`
}

// ListeningEvent tells the ports that the service's process listens on, all of them, whenever they change.
type ListeningEvent struct {
	Header
	Ports []Port `json:"ports"`
}

// ReadyEvent tells that a generation answers. URL is empty for a service that listens on nothing.
type ReadyEvent struct {
	Header
	URL string `json:"url"`
	MS  int64  `json:"ms"` // since the save that led to it (since the start of the run for the first); 0 if it only is back after a loss
}

// LogEvent is one line that the service wrote, or another container of its environment, without its end of line.
type LogEvent struct {
	Header
	Stream  string `json:"stream"` // "stdout" or "stderr"
	Text    string `json:"text"`   // invalid UTF-8 replaced; cut after 16 KiB, the rest follows with Partial set on what was cut
	Partial bool   `json:"partial,omitempty"`
	// Dropped counts the lines lost just before this one, because the reader or the buffer could not keep up.
	Dropped uint64 `json:"dropped,omitempty"`
	// Process names the container that wrote it, "pod/container", if it is not the service's own. Kubernetes does not tell
	// which stream such a line came by: Stream is "stdout".
	Process string `json:"process,omitempty"`
}

// ProblemEvent tells of a Problem.
type ProblemEvent struct {
	Header
	Problem
}

// CallEvent tells of a call of the service that is new, or has another verdict than the last time.
type CallEvent struct {
	Header
	Seen
}

// DecodeEvent parses one event. An unknown type is an error.
func DecodeEvent(b []byte) (Event, error) {
	var h struct {
		Type Kind `json:"type"`
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("parse event: %w", err)
	}
	var e Event
	switch h.Type {
	case KindEnvironment:
		e = new(EnvironmentEvent)
	case KindBuild:
		e = new(BuildEvent)
	case KindTransfer:
		e = new(TransferEvent)
	case KindProcess:
		e = new(ProcessEvent)
	case KindListening:
		e = new(ListeningEvent)
	case KindReady:
		e = new(ReadyEvent)
	case KindLog:
		e = new(LogEvent)
	case KindProblem:
		e = new(ProblemEvent)
	case KindCall:
		e = new(CallEvent)
	default:
		return nil, fmt.Errorf("parse event: unknown type %q", h.Type)
	}
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("parse %s event: %w", h.Type, err)
	}
	return e, nil
}
