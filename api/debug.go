package api

// DebugStart is what a debug stream of a pod begins with: the process that the debugger at its other end holds.
type DebugStart struct {
	Generation Generation `json:"generation"`
	PID        int        `json:"pid"`
	// Fresh: it stands before its first instruction, and goes on when the first session is configured.
	Fresh bool `json:"fresh,omitempty"`
	// Stopped: it stands where it has stood, or stopped meanwhile, since a former session's stream broke off.
	Stopped bool `json:"stopped,omitempty"`
	// Program is the absolute path, in the pod, of the executable that the stream is for, where its client launches: a task's,
	// or the one that left a core file.
	Program string `json:"program,omitempty"`
}

// DebugHeader carries a DebugStart, in JSON, in the answer that opens a debug stream.
const DebugHeader = "Fairlead-Debug"

// What a save does while the process stands in the debugger.
const (
	OnSaveContinue = "continue" // it is swapped in when the process goes on
	OnSaveNow      = "now"      // it is swapped in at once
	OnSaveNever    = "never"    // it stays out until it is asked for, debugging ends, or a later save is made while the process runs
)

// Debug is a debug session of a service, as a front end shows it.
type Debug struct {
	By      string `json:"by"`                // the front end that debugs, as it names itself
	Ready   bool   `json:"ready,omitempty"`   // the process that runs can be debugged; else it is being built for it
	Stopped bool   `json:"stopped,omitempty"` // it stands in the debugger
	OnSave  string `json:"on_save"`
	// Waiting is the generation that is built and waits for the process to go on; 0 if none does.
	Waiting Generation `json:"waiting,omitempty"`
}

// DebugCommand is what a front end that debugs says (a message of GET /v1/services/NAME/debug, websocket): each member that
// is set.
type DebugCommand struct {
	Stopped *bool  `json:"stopped,omitempty"`
	OnSave  string `json:"on_save,omitempty"`
	Restart bool   `json:"restart,omitempty"` // the same code in a fresh process, at once
}

// DebugEvent is what it is told: one member is set.
type DebugEvent struct {
	Building Generation `json:"building,omitempty"` // a build of it begins
	Process  Generation `json:"process,omitempty"`  // its process is there to be debugged
	Gone     string     `json:"gone,omitempty"`     // there is no process: why, for a person
	Note     string     `json:"note,omitempty"`     // a line for a person
}

// DebugChoice answers what a save does while the process stands (POST /v1/services/NAME/debug/choice).
type DebugChoice struct {
	OnSave string `json:"on_save,omitempty"`
	Apply  bool   `json:"apply,omitempty"` // what waits is swapped in at once
}

// DebugTest asks for the tests of a folder to be debugged beside the service (POST /v1/services/NAME/debug/test, answered
// by a TaskStarted).
type DebugTest struct {
	Dir string `json:"dir"` // absolute path of the package's folder
}

// Task is a program that is debugged beside the service: a test. It lives as long as its debug stream.
type Task struct {
	Executable File     `json:"executable"`       // Path is a base name; the blob must be staged
	Files      []File   `json:"files,omitempty"`  // of its working directory, as in a Tree: testdata
	Folder     string   `json:"folder,omitempty"` // below the working directory's root: where it is started, relative and clean
	Args       []string `json:"args,omitempty"`
	// Dir is the working directory instead, where the pod shares the agent's files.
	Dir string   `json:"dir,omitempty"`
	Env []string `json:"env,omitempty"` // added to the service's, as KEY=VALUE
}

// TaskStarted is a task that is ready: its debug stream is to be opened within a minute, and its program launched there.
type TaskStarted struct {
	ID      string `json:"id"`
	Program string `json:"program"` // absolute path, in the pod
	Dir     string `json:"dir"`     // where it is to be started: absolute path, in the pod
}

// The codes of debugging.
const (
	CodeNoProcess  = "no-process"  // the generation does not run (any more): its debugger cannot be had
	CodeNoPtrace   = "no-ptrace"   // the kernel or the container refuses debuggers
	CodeNoSymbols  = "no-symbols"  // the executable was built without symbols
	CodeNoMemory   = "no-memory"   // the pod's memory limit leaves no room for a debugger
	CodeNoDebugger = "no-debugger" // the debugger did not start, or ended
	CodeDebugHeld  = "debug-held"  // another front end debugs the service already
	CodeTaskLimit  = "task-limit"  // too many tests are being debugged at a time
	CodeDebugAway  = "debug-away"  // who debugged is not there any more
)
