package debugadapter

import "github.com/google/go-dap"

// capabilities are Delve's own, since it is what answers, and what the proxy adds. A test compares them with the real
// Delve's answer. The processes are on Linux, so data breakpoints are there whatever the editor runs on.
func capabilities() dap.Capabilities {
	return dap.Capabilities{
		SupportsConfigurationDoneRequest:  true,
		SupportsConditionalBreakpoints:    true,
		SupportsHitConditionalBreakpoints: true,
		SupportsDelayedStackTraceLoading:  true,
		SupportsFunctionBreakpoints:       true,
		SupportsInstructionBreakpoints:    true,
		SupportsDataBreakpoints:           true,
		SupportsExceptionInfoRequest:      true,
		SupportsSetVariable:               true,
		SupportsEvaluateForHovers:         true,
		SupportsClipboardContext:          true,
		SupportsSteppingGranularity:       true,
		SupportsLogPoints:                 true,
		SupportsDisassembleRequest:        true,
		SupportsReadMemoryRequest:         true,
		SupportsWriteMemoryRequest:        true,
		ExceptionBreakpointFilters: []dap.ExceptionBreakpointsFilter{
			{Filter: "unrecovered-panic", Label: "Unrecovered Panics", Default: true},
			{Filter: "runtime-fatal-throw", Label: "Fatal Throws", Default: true},
		},

		SupportsRestartRequest:   true, // ours: a fresh process, the session stays
		SupportTerminateDebuggee: true,
		SupportsCancelRequest:    true, // of the progress of a launch, and of what waits
	}
}
