// Package ringbuf stands in for github.com/cilium/ebpf/ringbuf.
package ringbuf

import (
	"time"

	"github.com/cilium/ebpf"
)

type (
	Reader struct{}
	Record struct{ RawSample []byte }
)

func NewReader(*ebpf.Map) (*Reader, error) { return nil, ebpf.ErrLeftOut }
func (*Reader) Read() (Record, error)      { return Record{}, ebpf.ErrLeftOut }
func (*Reader) Close() error               { return nil }
func (*Reader) SetDeadline(time.Time)      {}
