//go:build linux && (amd64 || arm64)

package debugadapter

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"fairlead.dev/debugadapter/daptest"
)

// BenchmarkStep is what a key press costs: next, until it has stopped and the stack is there. Directly and through the
// proxy in turn, so that the machine's moods are the same for both.
func BenchmarkStep(b *testing.B) {
	path := filepath.Join(b.TempDir(), "main.go")
	v := compile(b, path, fixture(b, "ticker"))
	d := startDelve(b, v.exe)
	conn, _, err := d.dial()
	if err != nil {
		b.Fatal(err)
	}
	direct := daptest.New(b, conn)
	direct.Must("initialize", daptest.Initialize())
	direct.Must("attach", daptest.M{"mode": "remote"})
	direct.Must("setBreakpoints", daptest.Lines(path, v.here))
	direct.Must("configurationDone", nil)
	p := newPod(b)
	p.deploy(path, v)
	proxied, _ := serve(b, p)
	launch(b, proxied, path, v.here)
	clients := []*daptest.Client{direct, proxied}
	var took [2][]time.Duration
	var at [2]int
	for i, c := range clients {
		at[i] = c.Stopped().ThreadID
		c.Must("setBreakpoints", daptest.Lines(path))
	}
	for b.Loop() {
		for i, c := range clients {
			start := time.Now()
			c.Must("next", daptest.M{"threadId": at[i]})
			at[i] = c.Stopped().ThreadID
			c.Frames(at[i])
			took[i] = append(took[i], time.Since(start))
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	direct50, proxied50 := took[0][len(took[0])/2], took[1][len(took[1])/2]
	b.ReportMetric(ms(direct50), "direct-ms")
	b.ReportMetric(ms(proxied50), "proxied-ms")
	b.ReportMetric(ms(proxied50-direct50), "difference-ms")
	b.ReportMetric(0, "ns/op")
}
