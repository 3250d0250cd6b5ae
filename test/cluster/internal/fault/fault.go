// Package fault carries an error together with what a person can do about it.
// It knows nothing of clusters: any package of the module may return one.
package fault

import "errors"

// Error is a failure that the person at the keyboard can end. The command
// prints Err as its error line and Hint as its hint line.
type Error struct {
	Err  error
	Hint string
}

// Error implements error; the hint is not part of the message, because the
// message may be wrapped and end up in the middle of a line.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives errors.Is and errors.As the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns err with a hint.
func New(err error, hint string) error { return &Error{Err: err, Hint: hint} }

// Hint returns the hint of the outermost Error in err's chain, or "".
func Hint(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}
