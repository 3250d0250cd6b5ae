package debugadapter

import (
	"context"
	"encoding/json"
	"io"

	"fairlead.dev/api"
)

// Host finds or makes what is to be debugged.
type Host interface {
	// Begin finds or makes what a launch or attach request means. It may take long: progress is told what is being done.
	// Its error (an *api.Problem where there is something to do) is the request's answer.
	Begin(ctx context.Context, r Request, progress func(string)) (Begun, error)
}

// Request is a launch or an attach request.
type Request struct {
	Attach bool
	Config Config
	Client string // clientName of initialize, else clientID; may be empty
}

// Begun is what a session is about. Exactly one is set.
type Begun struct {
	Service Service // survives redeploys
	Program *Program
}

// Service is a process that is replaced by newer ones, and the debuggers that hold them.
type Service interface {
	// Events tells of builds and processes, in order. It is closed when the service is over for good; then Err says why.
	Events() <-chan Event
	Err() error
	// Dial opens a DAP connection to the debugger of the process of that generation: Delve with the process held already,
	// to be spoken to with initialize, attach {"mode":"remote"}. It fails with api.CodeNoProcess when another one, or none,
	// runs by now.
	Dial(ctx context.Context, g api.Generation) (io.ReadWriteCloser, api.DebugStart, error)
	// Stopped tells whether the process stands in the debugger, so that a save's swap can wait. Called at every change;
	// must not block.
	Stopped(stopped bool)
	// Restart runs the same code in a fresh process. Process events follow.
	Restart(ctx context.Context) error
	// End lets go: breakpoints are gone, the process goes on. terminate: what launch made is not wanted any more.
	End(terminate bool) error
}

// EventKind says what an Event tells.
type EventKind int

const (
	// Building: a build of Generation begins. What its sources say now is what the generation will be made of.
	Building EventKind = iota + 1
	// Process: the process of Generation is there to be debugged. A fresh process of the same generation is told again.
	Process
	// Gone: there is no process, and none is on its way. Text says why.
	Gone
	// Note: Text is a line for the debug console.
	Note
)

// Event is something that happened to a Service.
type Event struct {
	Kind       EventKind
	Generation api.Generation // of Building and Process
	Text       string         // of Gone and Note, for a person
}

// Program is one process whose end is the session's: a test, or a core file.
type Program struct {
	Conn io.ReadWriteCloser // a debugger that waits for initialize and launch
	// Launch is the arguments of the launch request that the debugger gets, merged over the client's display options.
	Launch json.RawMessage
	Close  func() // may be nil
	// Again is built and started anew, for a restart request; nil: not offered.
	Again func(ctx context.Context) (*Program, error)
}
