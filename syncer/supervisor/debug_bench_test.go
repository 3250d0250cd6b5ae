//go:build linux

package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/syncer"
	"fairlead.dev/syncer/podtest"
)

// shop builds the fixture as a debug session has it: symbols, the service's own packages without optimisation.
func shop(tb testing.TB) (syncer.Executable, string) {
	tb.Helper()
	dir, err := filepath.Abs("../../test/fixture/shop")
	if err != nil {
		tb.Fatal(err)
	}
	out := filepath.Join(tb.TempDir(), "shop")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-gcflags=example.com/...=-N -l", "-ldflags=-compressdwarf=false", "-o", out, "./cmd/shop")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if b, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, b)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		tb.Fatal(err)
	}
	return syncer.Executable{Path: out, Digest: podtest.DigestOf(data), Size: int64(len(data)), Data: data}, filepath.Join(dir, "cmd/shop/main.go")
}

// state counts what must not grow: descriptors and goroutines.
func state() (fds, goroutines int) {
	ents, _ := os.ReadDir("/proc/self/fd")
	return len(ents), runtime.NumGoroutine()
}

// A swap under the debugger, from its request to the new process running with its breakpoint set. begin is until the old
// process is told to end, load Delve's part of that: its start, the attachment, the symbols; gap is from there to the new one's first
// instruction; MB/delve is Delve's
// resident memory at its peak.
func BenchmarkDebugSwap(b *testing.B) {
	for name, build := range map[string]func(testing.TB) (syncer.Executable, string){
		"small": func(tb testing.TB) (syncer.Executable, string) { return podtest.BuildDebug(tb, "one") }, "shop": shop,
	} {
		b.Run(name, func(b *testing.B) {
			exe, src := build(b)
			text, err := os.ReadFile(src)
			if err != nil {
				b.Fatal(err)
			}
			main := podtest.Line(b, string(text), "func main() {")
			s, err := New(Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			rec := &podtest.Recorder{}
			done := make(chan error)
			go func() { done <- s.Run(b.Context()) }()
			go s.Events(b.Context(), "", 0, func(b []byte) error { record(rec, b); return nil })
			defer func() { s.Shutdown(); <-done }()
			subject := podtest.Subject{Pod: s, Events: rec, DebugPod: podtest.DebugPod{Debug: s.Debug}}
			podtest.Ship(b, subject, podtest.Held(1, exe), exe)
			var total, begin, gap, load, rss time.Duration
			var last *podtest.Session
			swap := func(g api.Generation) {
				start := time.Now()
				if _, err := s.Swap(b.Context(), podtest.Held(g, exe)); err != nil {
					b.Fatal(err)
				}
				if last != nil {
					last.Close() // as the bridge does when Delve has
				}
				d, _ := podtest.Debug(b, subject, g)
				last = d
				d.Attach()
				d.Break(src, main+1)
				d.Go()
				end := time.Now()
				stopping := rec.Wait(b, "the old one to stop", func(e api.Event) bool {
					p, ok := e.(*api.ProcessEvent)
					return ok && p.Generation == g-1 && p.State == api.StateStopping
				}).Head().Time
				total, begin, gap = total+end.Sub(start), begin+stopping.Sub(start), gap+end.Sub(stopping)
				load += s.proc.dbg.load
				rss += time.Duration(rssOf(b, s.proc.dbg.cmd.Process.Pid))
			}
			swap(2)
			swap(3)
			fds, gs := state()
			total, begin, gap, load, rss = 0, 0, 0, 0, 0
			n := 0
			for b.Loop() {
				swap(api.Generation(4 + n))
				n++
			}
			ms := func(d time.Duration) float64 { return float64(d.Milliseconds()) / float64(n) }
			b.ReportMetric(ms(total), "ms/swap")
			b.ReportMetric(ms(begin), "ms/begin")
			b.ReportMetric(ms(load), "ms/load")
			b.ReportMetric(ms(gap), "ms/gap")
			b.ReportMetric(float64(rss)/float64(n)/1024, "MB/delve")
			f, g := state()
			b.Logf("%s, %d bytes: after %d swaps %d descriptors (%d), %d goroutines (%d)", name, exe.Size, n, f, fds, g, gs)
			if f > fds+10 || g > gs+20 {
				b.Errorf("it grows: %d descriptors, was %d; %d goroutines, was %d", f, fds, g, gs)
			}
		})
	}
}

// rssOf is a process's resident memory in KiB.
func rssOf(tb testing.TB, pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	n := 0
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			fmt.Sscan(v, &n)
		}
	}
	return n
}
