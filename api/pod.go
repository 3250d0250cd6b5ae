package api

import "time"

// Generation numbers the builds of one environment, from 1. Every event carries the generation it speaks of; a
// receiver drops what is older than what it already has. 0 means "nothing has been built or applied yet".
type Generation uint64

// Digest names content: "sha256:" and 64 lower-case hexadecimal digits.
type Digest string

// Target is what a pod's process must be built for, in Go's names.
type Target struct {
	OS   string `json:"os"`
	Arch string `json:"arch"`
}

// Encoding says how a blob's bytes travel.
type Encoding string

const (
	// EncodingRaw is the content itself.
	EncodingRaw Encoding = "raw"
	// EncodingZstd is the content as one zstd stream (RFC 8878).
	EncodingZstd Encoding = "zstd"
	// EncodingDelta is a patch in syncer/delta's format against the blob named Base.
	EncodingDelta Encoding = "delta"
	// EncodingPath carries no bytes: the pod takes the file at Path over. Only a pod that says Status.SharesFiles does.
	EncodingPath Encoding = "path"
)

// Blob announces one piece of content that is about to be staged. The pod stores it under Digest after it has verified
// that the content has that digest and Size bytes, and not before.
type Blob struct {
	// Digest may be empty with EncodingPath: the pod then stores the content under the digest that it finds, while the
	// agent is still making its own. A manifest that asks for another one is refused as ever.
	Digest   Digest   `json:"digest"`
	Size     int64    `json:"size"`
	Encoding Encoding `json:"encoding"`
	Base     Digest   `json:"base,omitempty"` // EncodingDelta: the blob that the patch is against
	Path     string   `json:"path,omitempty"` // EncodingPath: an absolute path
}

// File is one entry of a manifest. Path is slash-separated, relative and clean; a path that is absolute, leaves its tree
// or differs from another only in case is refused by the pod.
type File struct {
	Path   string `json:"path"`
	Mode   uint32 `json:"mode"` // permission bits only (0o777)
	Size   int64  `json:"size"`
	Digest Digest `json:"digest,omitempty"` // empty for a link
	Link   string `json:"link,omitempty"`   // a symbolic link's target, relative and inside the tree
}

// Tree is the whole content of one synced folder. What it does not list is deleted from the pod's copy.
type Tree struct {
	Name  string `json:"name"` // one of the names that the pod was started with; the pod knows the folder
	Files []File `json:"files"`
}

// Process says how the service is started.
type Process struct {
	Args []string `json:"args,omitempty"`
	// Dir is the working directory; empty keeps the supervisor's own, which in a container is the image's.
	Dir string `json:"dir,omitempty"`
	// Env is added to the supervisor's own environment, as KEY=VALUE.
	Env []string `json:"env,omitempty"`
	// Port is the service's main port where it is known; 0 leaves it to be found.
	Port int `json:"port,omitempty"`
	// Hosts are the Host header names that the tunnel takes beside localhost and loopback addresses.
	Hosts []string `json:"hosts,omitempty"`
	// Grace is how long a process may go on after SIGTERM, beyond the requests in flight, before SIGKILL.
	// 0 means the default, 80 ms.
	Grace time.Duration `json:"grace,omitempty"` // in nanoseconds
	// Debug starts it under the debugger: it stands before its first instruction until a debug session of its generation
	// has set its breakpoints, or nobody has come for one within ten seconds.
	Debug bool `json:"debug,omitempty"`
}

// Manifest is one generation, complete: what it lists is what the pod runs after Swap, whatever was there before.
type Manifest struct {
	Generation Generation `json:"generation"`
	Executable File       `json:"executable"` // Path is a base name
	Trees      []Tree     `json:"trees,omitempty"`
	Process    Process    `json:"process"`
}

// State is what the service's process is doing.
type State string

const (
	StateEmpty    State = "empty"    // nothing has been applied yet
	StateStopping State = "stopping" // told to end; requests through the tunnel are held
	StateStarting State = "starting" // started, and listening on nothing yet
	StateRunning  State = "running"  // listening, or up for a second without listening on anything
	StateExited   State = "exited"   // ended by itself
	StateFailed   State = "failed"   // could not be started
)

// Port is one TCP port that the service's process group listens on.
type Port struct {
	Port     int  `json:"port"`
	Loopback bool `json:"loopback,omitempty"` // bound to a loopback address only
	Main     bool `json:"main,omitempty"`     // the one that a browser is opened on
}

// Status is what a pod says of itself. It is the only source for what runs: the agent believes nothing else.
type Status struct {
	Version     string     `json:"version"` // of fairlead-pod
	Target      Target     `json:"target"`
	SharesFiles bool       `json:"shares_files,omitempty"` // it can read the agent's files (EncodingPath)
	Generation  Generation `json:"generation"`             // of the last manifest that was swapped in
	Digest      Digest     `json:"digest,omitempty"`       // of the executable that the current process was started from
	State       State      `json:"state"`
	PID         int        `json:"pid,omitempty"`
	ExitCode    *int       `json:"exit_code,omitempty"` // 128+n for signal n
	Ports       []Port     `json:"ports,omitempty"`
	Blobs       []Digest   `json:"blobs,omitempty"`  // what a patch can be made against
	Seq         uint64     `json:"seq"`              // of the newest event
	Epoch       string     `json:"epoch"`            // changes when the supervisor itself starts anew: sequence numbers restart at 1
	Holder      string     `json:"holder,omitempty"` // the agent that is attached, as it named itself
	Started     time.Time  `json:"started"`          // of the supervisor
	LastUse     time.Time  `json:"last_use"`         // last request, attachment or swap
	// Debugger: a debugger is attached to the process.
	Debugger bool `json:"debugger,omitempty"`
}

// Probe is a kubelet's probe of the service, as the supervisor gets it.
type Probe struct {
	Kind    string        `json:"kind"`              // "readiness", "liveness" or "startup"
	HTTP    string        `json:"http,omitempty"`    // ":PORT/PATH", or
	TCP     string        `json:"tcp,omitempty"`     // ":PORT", or
	GRPC    string        `json:"grpc,omitempty"`    // ":PORT[/SERVICE]" (grpc.health.v1)
	Exec    []string      `json:"exec,omitempty"`    // a command in the pod
	Scheme  string        `json:"scheme,omitempty"`  // for HTTP: "http" (default) or "https"
	Host    string        `json:"host,omitempty"`    // for HTTP: the Host header
	Timeout time.Duration `json:"timeout,omitempty"` // in nanoseconds; 0 means a second
}
