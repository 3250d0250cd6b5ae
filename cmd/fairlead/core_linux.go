package main

import (
	"context"
	"io"

	"fairlead.dev/bridge/local"
)

// coreDebugger starts a debugger for core files of this machine.
func coreDebugger(f folders) func(context.Context) (io.ReadWriteCloser, error) {
	return func(ctx context.Context) (io.ReadWriteCloser, error) { return local.Debugger(ctx, f.local()) }
}
