// Package callsite finds where a service's source makes a call of which only the method is known, as a gate or a mesh tells
// it: "/billing.v1.Billing/Charge" of gRPC, "POST /v1/charges/*" of HTTP.
//
// It reads source with go/types, never by its text alone. What is read is little: a call through a selector names its method,
// so only packages in which that word stands can hold it, and of these only those that reach the package which declares it.
// Their function bodies are checked once and boiled down to facts (facts.go): calls, requests, and of which strings their
// arguments are made. Everything else is a question to the facts of many packages. Facts name things by words, not by
// objects of go/types, so that those of a package which did not change outlive what was made anew.
//
// It runs the go command to learn which packages there are, through syncer/build, and must not know who asks: neither
// sessions nor editors, nor where grants are kept. It starts goroutines only inside a call and ends them before the call
// returns.
package callsite
