// Package api holds the values that cross a process boundary: between the agent and a pod, and between the agent and
// its front ends. It has no behaviour beyond encoding and imports nothing but the standard library, so that any part
// may import it and none can be reached through it.
package api
