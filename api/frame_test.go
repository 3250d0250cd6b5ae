package api_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

func decode(t *testing.T, b []byte) (got []api.Event) {
	t.Helper()
	if err := api.DecodeFrame(b, func(e api.Event) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFrame(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	line := func(seq uint64, gen api.Generation, at time.Time, stream, text string, dropped uint64, partial bool) api.Event {
		return &api.LogEvent{Header: api.Header{Type: api.KindLog, Generation: gen, Time: at, Seq: seq}, Stream: stream, Text: text, Dropped: dropped, Partial: partial}
	}
	process := &api.ProcessEvent{Header: api.Header{Type: api.KindProcess, Generation: 2, Seq: 12, Time: at}, State: api.StateRunning, PID: 7}
	var f api.Frame
	if f.Len() != 0 || f.Bytes() != nil {
		t.Error("an empty frame is not empty")
	}
	for range 2 { // the second time in the same memory
		f.Reset()
		f.AddLine(10, 1, at, false, false, 9, []byte("first"))
		f.AddLine(11, 1, at, true, true, 0, []byte("bad \xff\xfe \u20ac\x00\n"))
		b, err := json.Marshal(process)
		if err != nil {
			t.Fatal(err)
		}
		f.AddEvent(b)
		f.AddEvent([]byte(`{"type":"of a newer pod"}`))
		f.AddLine(13, 2, at.Add(-time.Hour), false, false, 0, nil)
		f.AddLine(1<<63, 1, time.Unix(0, 0).UTC(), false, false, 1<<40, []byte("far"))
		want := []api.Event{
			line(10, 1, at, "stdout", "first", 9, false),
			line(11, 1, at, "stderr", "bad \ufffd\ufffd \u20ac\x00\n", 0, true),
			process,
			line(13, 2, at.Add(-time.Hour), "stdout", "", 0, false),
			line(1<<63, 1, time.Unix(0, 0).UTC(), "stdout", "far", 1<<40, false),
		}
		if d := cmp.Diff(want, decode(t, f.Bytes())); d != "" {
			t.Error(d)
		}
		if f.Lines() != 4 {
			t.Errorf("%d lines", f.Lines())
		}
	}
	for i := range f.Len() { // cut anywhere, it is refused
		if err := api.DecodeFrame(f.Bytes()[:i], func(api.Event) error { return nil }); err == nil {
			t.Errorf("cut at %d it was taken", i)
		}
	}
}

// At a hundred lines a frame, what is allocated for one is its share of a slab.
func TestFrameAllocations(t *testing.T) {
	var f api.Frame
	text := bytes.Repeat([]byte("x"), 100)
	for i := range uint64(100) {
		f.AddLine(i+1, 1, time.Unix(1, int64(i)), false, false, 0, text)
	}
	b := f.Bytes()
	if n := testing.AllocsPerRun(100, func() { api.DecodeFrame(b, func(api.Event) error { return nil }) }); n > 12 {
		t.Errorf("%v allocations for 100 lines", n)
	}
	if n := testing.AllocsPerRun(100, func() { f.Reset(); f.AddLine(1, 1, time.Unix(1, 0), false, false, 0, text) }); n > 0 {
		t.Errorf("%v allocations to add a line", n)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	var fr api.Frame
	fr.AddLine(10, 1, time.Unix(1, 0), false, false, 9, []byte("first"))
	fr.AddEvent([]byte(`{"type":"ready","url":"x"}`))
	fr.AddLine(11, 2, time.Unix(2, 0), true, true, 0, []byte("\xff"))
	f.Add(bytes.Clone(fr.Bytes()))
	f.Add([]byte{1, 255, 255, 255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		api.DecodeFrame(b, func(e api.Event) error {
			if n++; n > len(b) {
				t.Fatal("more events than bytes")
			}
			if _, err := json.Marshal(e); err != nil && e.Head().Time.Year() < 10000 && e.Head().Time.Year() >= 0 {
				t.Fatal(err)
			}
			return nil
		})
	})
}
