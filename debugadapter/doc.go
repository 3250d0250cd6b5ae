// Package debugadapter is a DAP proxy between an editor and debug sessions that come and go: the editor's session belongs
// to the developer, the one behind it to a process. It owns the protocol: the editor's breakpoints and where their lines
// are in the code that runs, what a redeploy must not show, what is answered while there is no process. It must not know
// who builds, ships and starts: a Host finds the process, and dials its debugger.
//
// Messages are forwarded raw, member by member. Typed decoding would lose what this version has no name for, and refuse
// what it does not know.
package debugadapter
