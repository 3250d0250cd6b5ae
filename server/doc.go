// Package server is the agent: it holds one Session per service under edit and introduces the engines (syncer, bridge)
// to each other there. It must not know Kubernetes, nor how a front end draws what it is told.
package server
