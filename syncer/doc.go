// Package syncer turns edits into a restarted process: a change set starts a build, a good build becomes the wanted
// generation, and what the pod lacks of it travels as a difference, is verified there and swapped in.
//
// The loop is level-triggered: it holds what is wanted and asks the pod what it runs, so that a lost connection, a
// replaced pod or a failed transfer needs no case of its own.
//
// The package must not know how the pod is reached (Pod is all it needs), nor who shows what it tells.
package syncer
