// Package dap is a front end of the agent, as server/lsp is: for each debug session of an editor it finds or makes the
// environment, claims the service's debugger, and gives the debug adapter what it needs of both. It goes on when the agent
// is lost: it attaches again, asks again for what was launched, and claims the debugger again.
//
// It must not know the protocol: messages are debugadapter's.
package dap
