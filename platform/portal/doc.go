// Package portal is the form with which a call that is not granted becomes one that is: an HTTP server that draws pages and
// answers programs. What is granted is the registry's to say, who may change it is decided by who is signed in, and what can be
// called is package endpoint's. It must not know git, meshes, editors or how messages are delivered.
//
// # Pages
//
// HTML that is whole without JavaScript. Everybody who is signed in sees all of it. Addresses in it are relative, for a proxy that
// shows the portal under a path.
//
//	GET  /                     the services
//	GET  /services/NAME        whose it is, what it calls, who calls it, its endpoints
//	GET  /request?caller=&callee=&method=&method=&environment=&reason=&environments=
//	                           the form, filled with these. A link has no authority: nothing is done by following it, and whoever made
//	                           it decides nothing. Unknown parameters are left alone
//	POST /request              303 to /requests/ID; 422: the form again with what is wrong; 409: the form again with what changed
//	                           since it was drawn; 401: a sign-in that leads back to the form as it was filled
//	GET  /requests/ID          what became of it
//	GET  /sign-in/to/WORD      the same as /sign-in?to=PATH, with the path in base64url
//	GET  /sign-in, POST /sign-in, GET /sign-in/start, GET /sign-in/callback, POST /sign-out
//	GET  /healthz              200, without a sign-in and under any Host
//
// A form carries a number of its own, the revision that it was drawn from and what it promised. A request's ID is a digest
// of that number, of its author and of its content, so the same form sent twice is one change.
//
// # For programs
//
// Authorization: Bearer TOKEN; cookies do not count. The token is the local agent's, one that may only read, or an ID token
// of the OIDC provider for the portal's client.
//
//	GET  /v1/services          {"revision", "services": [{"name", "team", "description", "repository", "access": "open|review",
//	                           "endpoints": [{"method", "description"}], "calls": [grant]}], "problems": [api.Problem]}
//	GET  /v1/grants?caller=    {"revision", "caller", "grants": [grant]}; one for each service that is governed, or that it has a
//	                           grant for. grant: {"service", "governed", "methods": [pattern], "reason", "environments": "shared|fresh"}
//	                           With Accept: text/event-stream the same as events "grants", now and at every change; a comment every 15 s.
//	                           The stream ends where the registry cannot be read: keep what you have, and come back
//	POST /v1/requests          {"id", "caller", "callee", "methods": [pattern], "reason", "environments"} -> 201, a result. id is a number of
//	                           the sender's choice, 8 to 64 of A-Z a-z 0-9 _ -; the same one with the same content is one change
//	GET  /v1/requests/ID       a result: {"id", "caller", "callee", "methods", "reason", "environments", "granted", "in_force", "review",
//	                           "revision", "why", "changed": [method], "link"}. Known until the portal ends, the last thousand
//
// A refusal is RFC 9457's application/problem+json: {"type": "about:blank", "title", "status", "detail", "code", "hint"}. Codes:
// unauthorized (401), read-only, cross-origin (403), no-such-request (404), not-governed (409), bad-request (400, 413, 415, 422), bad-name
// (400), wrong-host (421), registry and what the registry says (502), busy (503).
//
// # Who is there
//
// Options.Local: the one user of this machine. A one-time code is exchanged for a session by POST /sign-in. It comes there
// by a file of mode 0600 that a browser is started with (OpeningFile), by the fragment of an address that an editor opens
// (SignInURL), or typed. It is in no query, no log and no argument of a process. Options.OIDC: the provider's answer, by
// the authorization code flow with PKCE, state and nonce; only a verified address is somebody.
//
// # What it defends
//
//	another site's form        a strict cookie, Sec-Fetch-Site and Origin, and a token in each form
//	DNS rebinding              the Host header must be the portal's. Where an editor forwards the port under another name, only the sign-in
//	                           with a code of SignInURL is open to that name, and its session is good under no third one
//	framing                    frame-ancestors 'none'. Options.Frames lets VS Code's own pages, whose schemes no site has; the cookie is
//	                           partitioned there
//	script by a name           html/template, and a Content-Security-Policy without inline
//	open redirect              a sign-in leads to a path of the portal only
//	floods                     limits of bodies, headers, times, requests at once, and of all that is kept
package portal
