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
//	POST shutdown                  the supervisor stops the service and leaves. 202
//	POST probe                     api.Probe; answers a kubelet's probe: 200 or 503. Needs the token too
//
// An error is an api.Problem in JSON with status 400, 401, 404, 409 or 500.
//
// The package must not know what is staged or how it is made, nor where the stream comes from (bridge/local, bridge/kube).
package bridge
