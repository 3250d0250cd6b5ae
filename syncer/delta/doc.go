// Package delta is what travels when a linked program changes a little. It owns the patch format, and knows nothing of
// files, connections or processes.
package delta
