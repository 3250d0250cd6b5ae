package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// largeTree makes 50,000 files in 2,600 folders, with a .gitignore in every hundredth and a tenth of the folders more
// that are ignored.
func largeTree(b *testing.B) string {
	root := b.TempDir()
	text := []byte("package a\n\nfunc F() int { return 1 }\n")
	n := 0
	for i := range 100 {
		for j := range 26 {
			dir := filepath.Join(root, fmt.Sprintf("d%02d", i))
			if j > 0 {
				dir = filepath.Join(dir, fmt.Sprintf("e%d", j%5), fmt.Sprintf("f%d", j))
			}
			must(b, os.MkdirAll(dir, 0o755))
			for k := 0; k < 20 && n < 50_000; k++ {
				ext := ".go"
				if k%2 == 1 {
					ext = ".txt"
				}
				must(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d%s", k, ext)), text, 0o644))
				n++
			}
		}
		write(b, filepath.Join(root, fmt.Sprintf("d%02d", i), ".gitignore"), "*.log\n/e1/f1/out/\n!keep.log\nbuild-*/\n")
		for j := range 26 {
			write(b, filepath.Join(root, fmt.Sprintf("d%02d/build-%d/x", i, j), "x.go"), "package x\n")
		}
	}
	write(b, root+"/.gitignore", "# rules\n*.o\n*.a\n*.so\nnode_modules/\n/dist\n/out/**\n**/tmp/*.x\n.idea/\n*.test\ncoverage.*\n")
	must(b, os.Mkdir(root+"/.git", 0o755))
	return root
}

// BenchmarkStart measures how long it takes until a large workspace is watched, and what that costs: heap-MiB is what
// remains after all is known (the .go files are the relevant ones).
func BenchmarkStart(b *testing.B) {
	root := largeTree(b)
	var heap, nodes, learn, rss float64
	var ready []time.Duration
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		rssBefore := resident()
		learnt := make(chan struct{}, 100)
		w, err := New(Options{
			Root:     root,
			Relevant: func(p string) bool { return strings.HasSuffix(p, ".go") },
			epoch:    time.Now().Add(time.Hour), learn: func() { learnt <- struct{}{} },
		})
		must(b, err)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error)
		start := time.Now()
		go func() { done <- w.Run(ctx) }()
		<-w.Ready()
		ready = append(ready, time.Since(start))
		b.StopTimer()
		for range 10 { // 20,000 files at most, of a thousand each; several may come at once
			select {
			case <-learnt:
			case <-time.After(time.Second):
			}
		}
		learn = float64(time.Since(start).Milliseconds())
		runtime.GC()
		runtime.ReadMemStats(&after)
		heap = float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
		rss = resident() - rssBefore
		look := make(chan int)
		w.mail.put(func(m *mail) { m.look = append(m.look, func(l *loop) { look <- len(l.nodes) }) })
		nodes = float64(<-look)
		cancel()
		must(b, <-done)
		b.StartTimer()
	}
	slices.Sort(ready)
	b.ReportMetric(float64(ready[len(ready)/2].Microseconds())/1000, "ready-ms")
	b.ReportMetric(heap, "heap-MiB")
	b.ReportMetric(rss, "resident-MiB")
	b.ReportMetric(nodes, "folders")
	b.ReportMetric(learn, "known-ms")
	b.ReportMetric(0, "ns/op")
}

// resident returns the process's resident memory in MiB, where it can be read.
func resident() float64 {
	text, _ := os.ReadFile("/proc/self/statm")
	var size, pages int
	fmt.Sscan(string(text), &size, &pages)
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// BenchmarkIdle measures what nothing costs.
func BenchmarkIdle(b *testing.B) {
	root := largeTree(b)
	b.ResetTimer()
	r := start(b, Options{Root: root, Relevant: func(p string) bool { return filepath.Base(p) == "barrier" }})
	<-time.After(3 * time.Second) // what the start left to be collected
	before := cpuTime()
	for range b.N {
		<-time.After(time.Second)
	}
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/s")
	r.quiet()
}

// BenchmarkSave measures from before a save to the receipt of its change, and into how many changes a save falls apart,
// by Rest.
func BenchmarkSave(b *testing.B) {
	small := make([]byte, 8<<10)
	for i := range small {
		small[i] = 'a' + byte(i%26)
	}
	for _, save := range []struct {
		name string
		save func(dir string) error
	}{
		{"write", func(dir string) error { return os.WriteFile(dir+"/a.go", small, 0o644) }},
		{"chunks", func(dir string) error {
			f, err := os.Create(dir + "/a.go")
			if err != nil {
				return err
			}
			for i := range 8 {
				if _, err := f.Write(small[i<<10 : (i+1)<<10]); err != nil {
					return err
				}
			}
			return f.Close()
		}},
		{"atomic", func(dir string) error {
			if err := os.WriteFile(dir+"/a.go.tmp", small, 0o644); err != nil {
				return err
			}
			return os.Rename(dir+"/a.go.tmp", dir+"/a.go")
		}},
		{"backup", func(dir string) error {
			os.Rename(dir+"/a.go", dir+"/a.go~")
			f, err := os.Create(dir + "/a.go")
			if err != nil {
				return err
			}
			if _, err := f.Write(small); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			return os.Remove(dir + "/a.go~")
		}},
		{"notify", func(dir string) error { return os.WriteFile(dir+"/a.go", small, 0o644) }},
		{"few", func(dir string) error { // save all
			for _, n := range []string{"a", "b", "c", "d", "e"} {
				if err := os.WriteFile(dir+"/"+n+".go", small, 0o644); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		for _, rest := range []time.Duration{1, 2, 4, 8} {
			rest *= time.Millisecond
			if save.name == "notify" && rest != 4*time.Millisecond {
				continue
			}
			b.Run(fmt.Sprintf("%s/rest=%v", save.name, rest), func(b *testing.B) {
				root := b.TempDir()
				write(b, root+"/a.go", "package a\n")
				r := start(b, Options{Root: root, Rest: rest, Relevant: func(p string) bool { return strings.HasSuffix(p, ".go") }})
				var changes atomic.Int64
				var took []time.Duration
				var n int
				for b.Loop() {
					n++
					copy(small, fmt.Appendf(nil, "%08d", n))
					start := time.Now()
					must(b, save.save(root))
					if save.name == "notify" {
						r.Notify(root + "/a.go")
					}
					end := (<-chan time.Time)(nil)
					for open := true; open; {
						select {
						case <-r.Changes():
							changes.Add(1)
							if end == nil {
								took = append(took, time.Since(start))
								end = time.After(70 * time.Millisecond)
							}
						case <-end:
							open = false
						case <-time.After(patience):
							b.Fatal("no change")
						}
					}
				}
				slices.Sort(took)
				at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
				b.ReportMetric(at(0.5), "p50-ms")
				b.ReportMetric(at(0.9), "p90-ms")
				b.ReportMetric(at(0.99), "p99-ms")
				b.ReportMetric(float64(changes.Load())/float64(n), "changes/op")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
