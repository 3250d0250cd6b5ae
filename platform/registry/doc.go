// Package registry keeps what is known of services, and who may call what, as files in a git repository: each change is a
// commit with an author and a reason. It knows git, and neither forms nor notifications.
//
//	services/NAME.yaml   Service: who owns it, who may call it, what it may call
//	teams/NAME.yaml      Team: how its files are changed, by whom, who hears of it
//
// # The API
//
//	Open(ctx, Options) (*Registry, error)        no network: what is wrong with the options
//	Registry.Snapshot(ctx) (*Snapshot, error)    asks the remote. Where it is away: the last snapshot known, and the problem
//	Registry.Watch(ctx, func(*Snapshot, error))  now, and at every change, until ctx ends; blocks
//	Registry.Submit(ctx, Request) (Result, error)
//	Registry.Expect(d)                           somebody waits: the remote is asked twice a second until d is over
//	Registry.Last() *Snapshot                    the last one that is known, without asking; or nil
//	Registry.Where() string, Embedded() bool     the remote, for a person; whether it is the default
//
//	Snapshot.Revision, Time, Services, Teams, Problems
//	Snapshot.Grants(caller, callee) (governed bool, patterns []string)
//	Snapshot.Grant(caller, callee) *Grant
//	Snapshot.Callers(callee) []string
//	Decide(*Snapshot, caller, callee, email) Decision    pure: review or not, and why
//	CheckName, CheckMethod, CheckPattern, CheckRemote    what a file may have, for forms
//
// A review is opened by Options.Reviewer: forge.FromEnvironment is one, where there is a forge and a token, or a page to open it by hand.
//
// Every error is an *api.Problem, or the context's.
//
// # How
//
// A clone without a work tree lies below Options.Dir, so nothing that the repository contains is ever run, filtered or followed.
// A commit is made from objects, and pushed with the tip that it was made on as a condition. If the tip is another by then, the
// edit is made again on that. A process that is killed in between leaves objects that nobody refers to; the same request again
// finds its ID in the history, or not.
package registry
