package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.dev/api"
)

func line(n int) *api.LogEvent {
	return &api.LogEvent{Header: api.Header{Type: api.KindLog, Generation: 1, Time: time.Unix(int64(n), 0).UTC()}, Stream: "stdout", Text: fmt.Sprintf("line %d", n)}
}

// of makes a line another container's.
func of(process string, l *api.LogEvent) *api.LogEvent {
	l.Process = process
	return l
}

func ready(n int) *api.ReadyEvent {
	return &api.ReadyEvent{Header: api.Header{Type: api.KindReady, Generation: api.Generation(n)}}
}

func read(t *testing.T, j *Journal, after uint64, logs bool, max int) []api.Entry {
	t.Helper()
	got, err := j.Read(t.Context(), after, logs, max)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// show is entries in short: E an event, L a line, with what was lost before.
func show(entries []api.Entry) string {
	var b strings.Builder
	for _, e := range entries {
		if e.Reset {
			b.WriteString("reset ")
		}
		if e.Dropped > 0 {
			fmt.Fprintf(&b, "-%d ", e.Dropped)
		}
		k := "E"
		if e.Line != nil {
			k = "L" + e.Line.Process
		}
		fmt.Fprintf(&b, "%s%d ", k, e.Seq)
	}
	return strings.TrimSpace(b.String())
}

func TestRead(t *testing.T) {
	j := New(Options{LogLines: 3, Events: 2})
	for i := range 5 {
		j.Append(line(i))
	}
	j.Append(ready(1)) // 6
	j.Append(of("db-0/db", line(5)))
	j.Append(ready(2)) // 8
	for _, c := range []struct {
		after uint64
		logs  bool
		max   int
		want  string
	}{
		{0, true, 0, "-3 L4 L5 E6 Ldb-0/db7 E8"},
		{0, false, 0, "E6 E8"},
		{2, true, 0, "-1 L4 L5 E6 Ldb-0/db7 E8"},
		{3, true, 0, "L4 L5 E6 Ldb-0/db7 E8"},
		{5, true, 2, "E6 Ldb-0/db7"},
		{6, false, 0, "E8"},
		{7, true, 0, "E8"},
		{9, true, 0, "reset -3 L4 L5 E6 Ldb-0/db7 E8"},
		{1000, false, 1, "reset E6"},
	} {
		if got := show(read(t, j, c.after, c.logs, c.max)); got != c.want {
			t.Errorf("after %d logs %v max %d: %s, want %s", c.after, c.logs, c.max, got, c.want)
		}
	}
	if j.Last() != 8 {
		t.Errorf("last is %d", j.Last())
	}
}

// A flood of lines pushes no event out, and its memory is bounded by bytes too.
func TestBounds(t *testing.T) {
	j := New(Options{LogBytes: 10_000, LogLines: 1000})
	j.Append(ready(7))
	big := strings.Repeat("x", 900)
	for range 100_000 {
		j.Append(&api.LogEvent{Header: api.Header{Type: api.KindLog}, Text: big})
	}
	got := read(t, j, 0, true, 0)
	if got[0].Seq != 1 || got[0].Event.(*api.ReadyEvent).Generation != 7 {
		t.Fatalf("the event is gone: %s", show(got))
	}
	if n := len(got) - 1; n != 10_000/(900+lineCost) {
		t.Errorf("%d lines are kept", n)
	}
	if want := 100_000 - uint64(len(got)-1); got[1].Dropped != want {
		t.Errorf("%d dropped, want %d", got[1].Dropped, want)
	}
	if len(j.lines.buf) > 64 {
		t.Errorf("room for %d lines", len(j.lines.buf))
	}
	// The last line stays, however long.
	j.Append(&api.LogEvent{Header: api.Header{Type: api.KindLog}, Text: strings.Repeat("x", 20_000)})
	if got := show(read(t, j, j.Last()-1, true, 0)); got != fmt.Sprintf("L%d", j.Last()) {
		t.Errorf("the long line: %s", got)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := New(Options{})
		type answer struct {
			got string
			err error
		}
		start := func(ctx context.Context, after uint64, logs bool) chan answer {
			ch := make(chan answer, 1)
			go func() {
				got, err := j.Read(ctx, after, logs, 0)
				ch <- answer{show(got), err}
			}()
			synctest.Wait()
			return ch
		}
		ctx, cancel := context.WithCancel(t.Context())
		all, events, gone, beyond := start(t.Context(), 0, true), start(t.Context(), 0, false), start(ctx, 0, true), start(t.Context(), 2, true)
		cancel()
		if a := <-gone; !errors.Is(a.err, context.Canceled) {
			t.Errorf("cancelled: %v", a)
		}
		j.Append(line(1))
		if a := <-all; a.got != "L1" {
			t.Errorf("all: %v", a)
		}
		if a := <-beyond; a.got != "reset L1" {
			t.Errorf("beyond the end: %v", a)
		}
		synctest.Wait()
		select {
		case a := <-events:
			t.Errorf("a line woke the reader of events: %v", a)
		default:
		}
		j.Append(ready(1))
		if a := <-events; a.got != "E2" {
			t.Errorf("events: %v", a)
		}
		last := start(t.Context(), 2, true)
		j.Close()
		if a := <-last; a.err != io.EOF {
			t.Errorf("closed: %v", a)
		}
		if a := <-start(t.Context(), 1, true); a.got != "E2" {
			t.Errorf("what is left after the end: %v", a)
		}
		if j.Append(line(2)) != 0 || j.Append(ready(2)) != 0 {
			t.Error("a closed journal took an entry")
		}
	})
}
