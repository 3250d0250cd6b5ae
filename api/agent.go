package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Agent is what the agent says of itself (GET /v1/agent, and the first message of an attachment).
type Agent struct {
	Version string    `json:"version"` // a front end of another version must not go on
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// DAP is the path of a unix socket on which the agent speaks the Debug Adapter Protocol; empty where it has none.
	DAP string `json:"dap,omitempty"`
}

// RunRequest asks for a service's environment: the one that is there is joined, else it is made (POST /v1/run).
type RunRequest struct {
	// Client is the attachment that holds the environment: while it lasts, and a minute beyond, the environment stays.
	Client string `json:"client"`
	// Dir is the absolute path of the folder to run: the working directory of a local service.
	Dir string `json:"dir,omitempty"`
	// Path is, in place of Dir and Main, the absolute path of a main package's folder or of a file in it. Its service's
	// folder is then the one that it runs from already, else the root of the module, where `go run` is usually started.
	Path string `json:"path,omitempty"`
	// Main is the main package, "./folder" relative to Dir or an import path; empty leaves it to be found.
	Main string `json:"main,omitempty"`
	// Args are the service's arguments; null leaves them to the settings.
	Args []string `json:"args"`
	// On, Kubeconfig, Context, Namespace and Registry are the flags of the same names; empty leaves them to the settings.
	On         string `json:"on,omitempty"`
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Context    string `json:"context,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	Registry   string `json:"registry,omitempty"`
	// Fresh and Shared name dependencies; what is named in neither is left to the settings.
	Fresh  []string `json:"fresh,omitempty"`
	Shared []string `json:"shared,omitempty"`
	// Env is the front end's environment, as KEY=VALUE: what builds and local services see, whoever started the agent.
	Env []string `json:"env,omitempty"`
	// ServiceEnv is added to the service's environment, as KEY=VALUE.
	ServiceEnv []string `json:"service_env,omitempty"`
	// Keep leaves the environment running when nobody holds it any more.
	Keep bool `json:"keep,omitempty"`
	// TakeOver puts an agent of another machine or state folder out.
	TakeOver bool `json:"take_over,omitempty"`
}

// JoinRequest asks to follow an environment that somebody else made (POST /v1/join): its logs, state and address, and to
// change nothing of it.
type JoinRequest struct {
	Client string `json:"client"` // as in RunRequest
	// Environment is its name, Namespace where it is; without a namespace it is looked for in all.
	Environment string `json:"environment"`
	Namespace   string `json:"namespace,omitempty"`
	// Kubeconfig and Context say which cluster; empty takes the user's own, as kubectl does. Cluster is an API server's
	// address: a context that leads there goes before the current one. It is only compared.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	Context    string `json:"context,omitempty"`
	Cluster    string `json:"cluster,omitempty"`
	// Env is the front end's environment, as KEY=VALUE: KUBECONFIG is looked up there.
	Env []string `json:"env,omitempty"`
}

// RunAnswer names the session that the request led to.
type RunAnswer struct {
	Name    string `json:"name"` // of the environment
	Service string `json:"service"`
	Joined  bool   `json:"joined"`          // it ran already
	Why     string `json:"why,omitempty"`   // how the main package was found, in words, and what a joined one has otherwise
	After   uint64 `json:"after,omitempty"` // the journal's sequence number before what the request led to
}

// Phase is what is being done for a service, as a front end shows it.
type Phase string

const (
	PhaseOpening  Phase = "opening"  // the environment is being found, made or connected
	PhaseBuilding Phase = "building" // what ran before goes on running
	PhaseShipping Phase = "shipping"
	PhaseWaiting  Phase = "waiting"  // the last save is built and waits for the process that stands in the debugger
	PhaseStarting Phase = "starting" // the new process is there and does not answer yet
	PhaseLive     Phase = "live"     // the last save runs
	PhaseFailed   Phase = "failed"   // the last save does not build or ship; what ran before goes on running
	PhaseDown     Phase = "down"     // the process ended; the next save starts it again
	PhaseLost     Phase = "lost"     // the connection is lost; it is tried again
	PhaseWaking   Phase = "waking"   // the environment was asleep, and was woken; requests wait for it
	PhaseStopping Phase = "stopping"
	PhaseEnded    Phase = "ended" // the session is over; Problems say why if it was not asked for
)

// Service is all that the agent says of one service under edit. A front end gets it whole at every change and draws it.
type Service struct {
	Environment
	// Dir is the folder that was asked for, Package the main package's, Module its module's: absolute paths.
	Dir     string `json:"dir"`
	Package string `json:"package,omitempty"`
	Module  string `json:"module,omitempty"`

	Phase  Phase  `json:"phase"`
	Detail string `json:"detail,omitempty"` // what is waited for, or why it is so, in a few words for a person
	// Working is the generation that the phases building, shipping and starting are about.
	Working Generation `json:"working,omitempty"`
	// Since is when the phase began.
	Since time.Time `json:"since"`

	// Generation, Digest, Process and PID are what the pod says that it runs.
	Generation Generation `json:"generation"`
	Digest     Digest     `json:"digest,omitempty"`
	Process    State      `json:"process"`
	PID        int        `json:"pid,omitempty"`
	ExitCode   *int       `json:"exit_code,omitempty"`
	// URL is the main port's address on this machine; Ports are all of them.
	URL   string    `json:"url,omitempty"`
	Ports []Forward `json:"ports"`
	// MS is how long the last generation took from the save until it answered; 0 if it was no save.
	MS int64 `json:"ms,omitempty"`

	// Joined: the environment is Owner's. This agent follows it, and changes nothing of it.
	Joined bool   `json:"joined,omitempty"`
	Owner  string `json:"owner,omitempty"`
	// Dependencies are what the service calls, as far as they are known, and how they are.
	Dependencies []Dependency `json:"dependencies,omitempty"`
	// Debug is the debug session that there is; null without one.
	Debug *Debug `json:"debug,omitempty"`
	// Core is the path in the pod of the core file that the last process left; empty without one.
	Core string `json:"core,omitempty"`

	// Review is the one that was made last of a change in the service's repository; null without one.
	Review *ReviewRef `json:"review,omitempty"`

	// Clients are the front ends that hold the environment, as they name themselves.
	Clients []string `json:"clients"`
	Keep    bool     `json:"keep,omitempty"`
	// KeepUntil is until when it lives without any of them; absent where it does not.
	KeepUntil time.Time `json:"keep_until,omitzero"`
	// Problems are those that stand now. Each has an owner, which replaces its own only.
	Problems []Problem `json:"problems"`
}

// Forward is one of the service's ports and its tunnel on this machine.
type Forward struct {
	Port  int    `json:"port"`  // the service's
	Local int    `json:"local"` // on 127.0.0.1 here
	URL   string `json:"url"`
	Main  bool   `json:"main,omitempty"`
}

// Update is one message of an attachment (GET /v1/attach, websocket): the first has Agent, then one for every service
// that there is, then one with Synced; after that whatever changes, in order.
type Update struct {
	Agent  *Agent `json:"agent,omitempty"`
	Synced bool   `json:"synced,omitempty"`
	// Service is new or has changed. One in PhaseEnded is told once and is gone.
	Service *Service `json:"service,omitempty"`
	// Name and Event: what happened to the service of that name, except its log lines.
	Name  string          `json:"name,omitempty"`
	Event json.RawMessage `json:"event,omitempty"`
	// Due is an environment without a session that goes soon. Each is told once, over restarts of the agent too.
	Due *Due `json:"due,omitempty"`
}

// KeepRequest makes a session live without a front end (POST /v1/services/NAME/keep).
type KeepRequest struct {
	Until time.Time `json:"until,omitzero"` // zero: it ends with its last front end again
}

// DependencyRequest switches a dependency of an environment that is there (POST /v1/services/NAME/dependencies). It holds
// for that environment until it is switched again, also under another agent.
type DependencyRequest struct {
	Name string         `json:"name"`
	Mode DependencyMode `json:"mode"` // shared or fresh
}

// FormRequest asks for the page on which access to a callee is requested (POST /v1/services/NAME/form).
type FormRequest struct {
	Callee  string   `json:"callee"`
	Methods []string `json:"methods,omitempty"` // ticked already
	// Page is "service" for the callee's own page in place of the form.
	Page string `json:"page,omitempty"`
}

// FormAnswer is where that page is. The address signs in, once: it is no link to pass on.
type FormAnswer struct {
	URL string `json:"url"`
}

// CancelRequest breaks off what is under way (POST /v1/services/NAME/cancel).
type CancelRequest struct {
	// What is "environment" (the session ends), "build" or "transfer" (what ran before goes on running until the next
	// save).
	What string `json:"what"`
}

// SavedRequest tells of files that an editor has just written (POST /v1/saved): absolute paths.
type SavedRequest struct {
	Paths []string `json:"paths"`
}

// JournalAccess is where a front end reads a service's journal by websocket on loopback, as a browser or an editor's
// extension can: the token goes into the Authorization header as "Bearer TOKEN" or, where headers cannot be set, into
// the subprotocol list as "fairlead.bearer.TOKEN" beside "fairlead.journal.v1".
type JournalAccess struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// Entry is one line of a journal's websocket messages: what happened, in order, log lines with what was understood of
// them.
type Entry struct {
	// Seq orders the journal of one session; a reader that reconnects asks for what came after the last one it has.
	Seq uint64 `json:"seq"`
	// Event is one event as in `fairlead run --json`.
	Event Event `json:"event"`
	// Line is what was understood of a log event, or a call that was not simply allowed in words; nil for others.
	Line *Line `json:"line,omitempty"`
	// Dropped counts the log lines that were lost to this reader just before this entry.
	Dropped uint64 `json:"dropped,omitempty"`
	// Journal names the journal, on the first entry of every connection. A reader that reconnects sends it back beside its
	// resume point, since another journal (of an agent that was started again) has other numbers.
	Journal string `json:"journal,omitempty"`
	// Reset is set on the first entry if the reader's resume point is not this journal's: it gets all that there is, and
	// forgets what it has.
	Reset bool `json:"reset,omitempty"`
}

// UnmarshalJSON parses an entry, its event by DecodeEvent.
func (e *Entry) UnmarshalJSON(b []byte) error {
	type plain Entry // without this method
	in := struct {
		*plain
		Event json.RawMessage `json:"event"`
	}{plain: (*plain)(e)}
	if err := json.Unmarshal(b, &in); err != nil {
		return fmt.Errorf("parse entry: %w", err)
	}
	e.Event = nil
	if len(in.Event) == 0 {
		return nil
	}
	ev, err := DecodeEvent(in.Event)
	if err != nil {
		return err
	}
	e.Event = ev
	return nil
}

// Line is what was understood of a log line: JSON of slog, zap, logrus or zerolog, logfmt, the standard library's log,
// or plain text.
type Line struct {
	// Level is "trace", "debug", "info", "warn", "error" or "fatal"; empty if the line has none.
	Level   string `json:"level,omitempty"`
	Message string `json:"message,omitempty"` // empty: the text is the message
	// Attrs are the line's other members in their order, each [name, value as text].
	Attrs [][2]string `json:"attrs,omitempty"`
	// Process is the event's: empty for the service itself, else "pod/container".
	Process string `json:"process,omitempty"`
	// Refused is the call that was not granted, where the line is about one: access to it can be requested.
	Refused *Call `json:"refused,omitempty"`
}
