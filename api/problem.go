package api

import (
	"errors"
	"strconv"
)

// Severity grades a Problem.
type Severity string

const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
	SeverityInfo    Severity = "info"
)

// Problem is something that went wrong, in words for a person. It has one owner, who raises it and clears it.
// It is an error, so that it can travel up a call chain to the border where it is shown.
type Problem struct {
	// Code is a stable name in kebab-case, such as "build-failed" or "base-missing"; programs match on it.
	Code     string   `json:"code"`
	Severity Severity `json:"severity,omitempty"` // empty means error
	Message  string   `json:"message"`            // what happened, without a final period
	Hint     string   `json:"hint,omitempty"`     // what to do now
	// File, Line and Column (both from 1, Column in bytes) say where, if it has a place.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// EndColumn is behind the last byte of the place, where it is on one line and known.
	EndColumn int `json:"end_column,omitempty"`
	// Owner is who raised it and clears it: "build", "settings", "environment", "sync", "process", "debug" or "calls"; empty where it
	// is told once and not kept.
	Owner string `json:"owner,omitempty"`
	// Related are further places that belong to it, the innermost first: a panic's other frames.
	Related []Place `json:"related,omitempty"`
	// Link is a page that helps (CodeNotGranted: the form on which access is requested). It has no authority in it.
	Link string `json:"link,omitempty"`
	// Call is what was refused (CodeNotGranted).
	Call *Call `json:"call,omitempty"`
	// Missing lists the blobs that a pod lacks (CodeBlobMissing).
	Missing []Digest `json:"missing,omitempty"`
}

// Problems lists the problems that an error is made of (errors.Join). What is none becomes one of the given code, with
// the error's words.
func Problems(err error, code string) []*Problem {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*Problem
		for _, e := range many.Unwrap() {
			out = append(out, Problems(e, code)...)
		}
		return out
	}
	var p *Problem
	if errors.As(err, &p) {
		return []*Problem{p}
	}
	return []*Problem{{Code: code, Message: err.Error()}}
}

// Place is a position in a source file with what is to be said there.
type Place struct {
	File    string `json:"file"`
	Line    int    `json:"line"`             // from 1
	Column  int    `json:"column,omitempty"` // in bytes, from 1
	Message string `json:"message"`
}

// Error returns the message, with its place in front as far as it has one.
func (p *Problem) Error() string {
	switch {
	case p.File == "":
		return p.Message
	case p.Line == 0:
		return p.File + ": " + p.Message
	case p.Column == 0:
		return p.File + ":" + strconv.Itoa(p.Line) + ": " + p.Message
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column) + ": " + p.Message
}

// The codes that programs on both sides of the connection act on.
const (
	CodeBaseMissing  = "base-missing" // a patch against a blob that the pod does not have: send it whole
	CodeBlobCorrupt  = "blob-corrupt" // what arrived has another digest, size or format than announced: send it whole
	CodeBlobMissing  = "blob-missing" // a manifest names blobs that are not staged; Missing lists them
	CodeDiskFull     = "disk-full"    // no space left in the pod; what ran goes on running
	CodeBadManifest  = "bad-manifest" // a path, mode or name that the pod refuses
	CodeStartFailed  = "start-failed" // the new executable could not be started
	CodeStale        = "stale"        // a generation older than what the pod has
	CodeHeld         = "held"         // another agent is attached
	CodeTakenOver    = "taken-over"   // another agent has taken the environment over
	CodeUnauthorized = "unauthorized" // wrong token
	CodeLogsDropped  = "logs-dropped" // lines were lost because the reader was slower than the service
	CodeGone         = "gone"         // the environment was removed
	CodeLost         = "connection-lost"
	CodeNotYours     = "not-yours"    // the environment is another user's, and only followed here
	CodeAsleep       = "asleep"       // the environment is scaled to zero
	CodeCallsUnseen  = "calls-unseen" // the pod cannot stand before the calls of its service
	CodeNotGranted   = "rpc-not-authorized"
	CodeNoLogs       = "no-logs" // the lines of the environment's other containers may not be read
)
