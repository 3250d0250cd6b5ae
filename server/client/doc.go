// Package client is the front ends' side of the agent: it finds the agent, has it started where there is none, stays
// attached to it, and calls it. The command line, the language server and tests use it.
//
// It must not know how an agent is started (Options.Start), what an environment is made of, nor how a front end draws
// what it is told. It starts goroutines only inside a call and ends them before the call returns.
package client
