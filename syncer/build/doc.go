// Package build turns the source of a Go service into an executable for a pod, with the user's own go command. It owns
// three questions: which main package is meant (Find), which files on disk decide what that package becomes
// (Inputs), and what the compiler said, as problems with a place (Failure).
//
// It never writes a file of the user's: go.mod and go.sum stay as they are (in a workspace the go command may complete
// go.work.sum, whatever it is told), and everything that a build leaves behind lies in the folder that the caller gave. It must not know how edits are noticed, where the executable goes, or that
// there is an editor or a cluster. It starts goroutines only inside a call and ends them before the call returns.
package build
