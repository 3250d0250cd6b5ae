// Package journal keeps what happened in one session, its log lines included, and gives it to readers: in the process by
// Read, to front ends by websocket. It understands log lines (lines.go) at the moment somebody reads them.
//
// # The wire
//
// GET /v1/services/NAME/journal?after=N&logs=0|1&journal=ID, upgraded to a websocket. The server sends text messages, each
// a run of entries, one api.Entry in JSON a line, at most about 64 KiB a message (one long line may be more). A message is
// sent as soon as there is something; only while lines come by the thousand do they wait a few milliseconds for company.
//
//   - after is the seq of the last entry the reader has; it gets what came after that. None or 0: from the oldest kept.
//   - logs=0 leaves the log lines out.
//   - journal is the member "journal" of the first entry of an earlier connection. It names this journal: the sequence
//     numbers of another one (the agent was started again) mean nothing here.
//
// The event of a log line has "process", "pod/container", if another container than the service's wrote it; "line" has it
// too, beside what was understood of the text: level, message, attrs, and refused, the call that was not granted where the line is
// about one. The event of such a call has a "line" as well.
//
// A reader with another journal's resume point, or one beyond the end, gets everything from the oldest entry kept, and
// that entry has "reset":true. Lines that were overwritten before a reader came for them are counted in "dropped" of the
// next entry it gets. After the last entry of a journal that has ended the server closes with status 1000; every other
// end is a lost connection, to be made anew. A reader that takes nothing for half a minute is cut off, and may come back
// with its resume point. What the reader sends is not read beyond keeping the connection alive.
//
// # Who may read
//
// Serve asks nobody: the agent's private unix socket has done so. On TCP loopback, where every process and every web page
// of this machine can connect, Loopback stands before it: the Host header (against DNS rebinding), the Origin header
// (against web pages) and the agent's token must be right, and no answer says more than which of them was wrong.
//
// The package must not know what a session is, nor where events come from.
package journal
