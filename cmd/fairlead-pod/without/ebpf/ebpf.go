// Package ebpf stands in for github.com/cilium/ebpf in the pod's executable. Delve uses that library for one thing, the
// `trace --ebpf` command, which needs privileges that a pod has not; leaving it out makes fairlead-pod a megabyte
// smaller. It has just the names that Delve's pkg/proc/internal/ebpf mentions, and every act is refused.
package ebpf

import (
	"errors"
	"io"
)

// ErrLeftOut is what every act returns.
var ErrLeftOut = errors.New("eBPF is left out of this build of Delve")

// UpdateAny is a flag of Map.Update.
const UpdateAny = 0

type (
	Map               struct{}
	MapSpec           struct{}
	Program           struct{}
	ProgramSpec       struct{}
	CollectionOptions struct{}
	CollectionSpec    struct{}
)

func LoadCollectionSpecFromReader(io.ReaderAt) (*CollectionSpec, error) { return nil, ErrLeftOut }
func (*CollectionSpec) LoadAndAssign(any, *CollectionOptions) error     { return ErrLeftOut }
func (*Map) Update(key, value any, flags int) error                     { return ErrLeftOut }
func (*Map) Close() error                                               { return nil }
func (*Program) Close() error                                           { return nil }
