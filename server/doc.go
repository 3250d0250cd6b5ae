// Package server is the agent: it holds one Session per service under edit and introduces the engines (syncer, bridge)
// to each other there, and tells front ends what happens. It must not know Kubernetes, nor how a front end draws what it
// is told.
//
// # The endpoints
//
// On the private unix socket, HTTP/1.1, JSON in api's types. Who can connect is the user; there is no token.
//
//	GET  /v1/agent                        api.Agent
//	GET  /v1/attach?client=ID&name=NAME&asks
//	                                      websocket: one api.Update a message. The presence of a front end, of an ID that it
//	                                      chose. Closed with 1000, all that it holds is released at once; lost, after a minute.
//	                                      With asks it can ask its user, what becomes of an environment that is due, say
//	POST /v1/run                          api.RunRequest -> api.RunAnswer, when the settings and the main package are known
//	POST /v1/join                         api.JoinRequest -> api.RunAnswer, when the environment was found. It is another user's:
//	                                      its session follows it, and stop leaves it as it is
//	GET  /v1/services                     {"services": [api.Service]}
//	POST /v1/services/NAME/stop?by&wait   202: the session ends and its environment goes, whoever holds or keeps it. With
//	                                      wait 204 when it is gone, or the problems
//	POST /v1/services/NAME/leave?client   204; the last holder's leaving ends the session
//	POST /v1/services/NAME/keep           api.KeepRequest -> 204; it lives without a holder until then
//	POST /v1/services/NAME/dependencies   api.DependencyRequest -> 204, when it is switched; an error leaves it as it was
//	POST /v1/services/NAME/review         api.ReviewRef -> 204: a front end has made it of the change under edit
//	GET  /v1/services/NAME/calls          {"calls": [api.Seen]}: what the service has been seen to call
//	POST /v1/services/NAME/form           api.FormRequest -> api.FormAnswer: the page on which access is asked for, filled in
//	POST /v1/services/NAME/cancel         api.CancelRequest -> 204
//	POST /v1/saved                        api.SavedRequest -> 204
//	GET  /v1/services/NAME/access         api.JournalAccess
//	GET  /v1/services/NAME/journal        websocket, see package journal; that of a session that ended is there for a minute
//	GET  /v1/services/NAME/debug?client=ID&name=NAME&on_save=
//	                                      websocket: a debug session. api.DebugCommand from the front end, api.DebugEvent to it. 409
//	                                      where another front end has it
//	GET  /v1/services/NAME/debug/stream?client=ID&generation=N
//	                                      upgraded (101, "fairlead-debug", api.DebugHeader): DAP with the debugger of that
//	                                      generation's process. 409 where it does not run. With task=ID or core=PATH in place of
//	                                      both: a debugger of its own for a test or a core file
//	POST /v1/services/NAME/debug/test     api.DebugTest -> api.TaskStarted, when it is built and in the pod
//	POST /v1/services/NAME/debug/choice   api.DebugChoice -> 204
//	POST /v1/due/ID                       api.DueRequest -> 204, when it is done
//	POST /v1/shutdown?force               202; 409 while there are sessions, unless force
//
// On TCP loopback only the journals, with a token (journal.Loopback).
//
// A refusal is {"problems": [api.Problem]} with 400 (no front end means that), 404 (no such service), 409 (in use, or
// just leaving), 413 (too big), 426 (no websocket) or 422 (everything that is the user's to mend).
package server
