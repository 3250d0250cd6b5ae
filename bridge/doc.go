// Package bridge is the one connection between the agent and a pod. Over one byte stream (a unix socket for a local
// environment, an exec stream on Kubernetes) it runs a yamux session; each yamux stream carries one HTTP/1.1 request, so
// that every exchange has a name, a status and a cancel, and logs are a websocket.
//
// The endpoints, all below /v1 and all with "Authorization: Bearer TOKEN":
//
//	GET  status                    api.Status
//	POST stage                     header Fairlead-Blob: api.Blob in JSON; the body carries its bytes. 204
//	POST swap                      api.Manifest; answers api.Status
//	GET  attach?name&instance&take_over&keep   upgraded (101, "fairlead-attach"): held while the agent is attached; the pod
//	                               writes one api.Problem and closes when another agent takes over
//	GET  events?epoch&after&frames websocket; with frames=1 each binary message is an api.Frame, else each text message
//	                               a run of api events in JSON, one a line
//	GET  tunnel?port               upgraded (101, "fairlead-tunnel"): from then on the bytes of one connection to the service
//	POST outbound                  api.Outbound; answers the same with the ports that are listened on. It takes the place of the
//	                               one before at once: what is granted holds from the next call on
//	GET  calls                     what the service has called so far: a list of api.Seen
//	GET  debug?generation          upgraded (101, "fairlead-debug"), with header Fairlead-Debug: api.DebugStart in JSON: from
//	                               then on the Debug Adapter Protocol of Delve, which has the process: "initialize", then
//	                               "attach" with {"mode": "remote"}. It waits until the process of the generation (0: whatever
//	                               runs) is there with its debugger and the one before is gone, and attaches one that is
//	                               missing. A second stream ends the first. What a stream has set outlives it by a minute
//	GET  debug?task                the same for a task: one session of Delve, whose client launches (mode "exec") the program of
//	                               the answer to POST tasks. All that was started ends with the stream
//	GET  debug?core                the same for the core file that a process event told: "launch" with mode "core", that path and
//	                               the Program of the header
//	POST tasks                     api.Task, its blobs staged; answers api.TaskStarted. It is opened within a minute, or goes
//	POST debug/release             the debugger lets go of the process, which goes on. 204
//	POST shutdown                  the supervisor stops the service and leaves. 202
//	POST probe                     api.Probe; answers a kubelet's probe: 200 or 503. Needs the token too
//
// An error is an api.Problem in JSON with status 400, 401, 404, 409 or 500.
//
// The package must not know what is staged or how it is made, nor where the stream comes from (bridge/local, bridge/kube).
package bridge
