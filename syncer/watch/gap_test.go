package watch

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// BenchmarkGap measures what Rest and the other defaults were chosen from: how long the pauses between the events of
// one save are, and how long a file that is being replaced looks empty or is not there. Run it by hand:
//
//	go test ./syncer/watch -run '^$' -bench Gap -benchtime 200x
//
// A pause is measured where the event is received, as the watcher sees it.
func BenchmarkGap(b *testing.B) {
	small, large := make([]byte, 4<<10), make([]byte, 4<<20)
	b.Run("WriteFile4K", func(b *testing.B) {
		benchGap(b, func(dir string, i int) { must(b, os.WriteFile(dir+"/a.go", small, 0o644)) })
	})
	b.Run("WriteFile4M", func(b *testing.B) {
		benchGap(b, func(dir string, i int) { must(b, os.WriteFile(dir+"/a.go", large, 0o644)) })
	})
	b.Run("Chunks", func(b *testing.B) { // as io.Copy and buffered writers do it
		benchGap(b, func(dir string, i int) {
			f, err := os.Create(dir + "/a.go")
			must(b, err)
			for range 64 {
				_, err := f.Write(small)
				must(b, err)
			}
			must(b, f.Close())
		})
	})
	b.Run("Atomic", func(b *testing.B) {
		benchGap(b, func(dir string, i int) {
			must(b, os.WriteFile(dir+"/a.go.tmp", small, 0o644))
			must(b, os.Rename(dir+"/a.go.tmp", dir+"/a.go"))
		})
	})
	b.Run("AtomicSync", func(b *testing.B) { // with fsync, as careful editors do it
		benchGap(b, func(dir string, i int) {
			f, err := os.Create(dir + "/a.go.tmp")
			must(b, err)
			_, err = f.Write(small)
			must(b, err)
			must(b, f.Sync())
			must(b, f.Close())
			must(b, os.Rename(dir+"/a.go.tmp", dir+"/a.go"))
		})
	})
	b.Run("Backup", func(b *testing.B) { // vim's order, without vim's start
		benchGap(b, func(dir string, i int) {
			must(b, os.Rename(dir+"/a.go", dir+"/a.go~"))
			f, err := os.Create(dir + "/a.go")
			must(b, err)
			_, err = f.Write(small)
			must(b, err)
			must(b, f.Sync())
			must(b, f.Close())
			must(b, os.Remove(dir+"/a.go~"))
		})
	})
	b.Run("Vim", func(b *testing.B) { benchGapCommand(b, "vim", "-u", "NONE", "-N", "-es", "+s/^/x/", "+wq", "a.go") })
	b.Run("VimFile", func(b *testing.B) {
		benchGapCommand(b, "vim", "-u", "NONE", "-N", "--not-a-term", "+set backup", "+s/^/x/", "+wq", "a.go")
	})
	b.Run("SedInPlace", func(b *testing.B) { benchGapCommand(b, "sed", "-i", "1s/^/x/", "a.go") })
	b.Run("Gofmt20", func(b *testing.B) {
		benchGap(b, func(dir string, i int) {
			for n := range 20 {
				must(b, os.WriteFile(fmt.Sprintf("%s/f%d.go", dir, n), []byte("package  a\n"), 0o644))
			}
		}, "gofmt", "-w", ".")
	})
	b.Run("Generate20", func(b *testing.B) { // a generator that formats each file before it writes it
		benchGap(b, func(dir string, i int) {
			for n := range 20 {
				generateSource(b, filepath.Join(dir, fmt.Sprintf("f%d.go", n)), i)
			}
		})
	})
	b.Run("Checkout2000", func(b *testing.B) {
		dir := checkoutRepo(b, 2000)
		benchGapIn(b, dir, func(i int) { git(b, dir, "checkout", "-q", []string{"one", "two"}[i%2]) })
	})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func generateSource(tb testing.TB, path string, seed int) {
	var s strings.Builder
	s.WriteString("package a\n")
	for n := range 300 {
		fmt.Fprintf(&s, "func f%d_%d() int {\n\treturn %d\n}\n", seed, n, n)
	}
	src, err := formatSource([]byte(s.String()))
	must(tb, err)
	must(tb, os.WriteFile(path, src, 0o644))
}

func benchGapCommand(b *testing.B, name string, args ...string) {
	if _, err := exec.LookPath(name); err != nil {
		b.Skipf("%s is not installed", name)
	}
	benchGap(b, func(dir string, i int) {}, append([]string{name}, args...)...)
}

func benchGap(b *testing.B, save func(dir string, i int), command ...string) {
	dir := b.TempDir()
	must(b, os.WriteFile(dir+"/a.go", []byte("package a\n"), 0o644))
	benchGapIn(b, dir, func(i int) {
		save(dir, i)
		if len(command) > 0 {
			c := exec.Command(command[0], command[1:]...)
			c.Dir = dir
			if out, err := c.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
}

func benchGapIn(b *testing.B, dir string, save func(i int)) {
	w, err := fsnotify.NewWatcher()
	must(b, err)
	defer w.Close()
	must(b, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if d.Name() == ".git" {
			return fs.SkipDir
		}
		return w.Add(p)
	}))
	var gaps, firsts, absents, empties []time.Duration
	var count int
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		done := make(chan struct{})
		go func() { save(i); close(done) }()
		var last time.Time
		gone := map[string]time.Time{}
		end := (<-chan time.Time)(nil)
		for open := true; open; {
			select {
			case e := <-w.Events:
				now := time.Now()
				count++
				if last.IsZero() {
					firsts = append(firsts, now.Sub(start))
				} else {
					gaps = append(gaps, now.Sub(last))
				}
				last = now
				switch st, err := os.Lstat(e.Name); {
				case err != nil || st.Size() == 0:
					if _, ok := gone[e.Name]; !ok {
						gone[e.Name] = now
					}
				default:
					if t, ok := gone[e.Name]; ok {
						delete(gone, e.Name)
						if e.Has(fsnotify.Create) {
							absents = append(absents, now.Sub(t))
						} else {
							empties = append(empties, now.Sub(t))
						}
					}
				}
			case <-done:
				done, end = nil, time.After(20*time.Millisecond)
			case <-end:
				open = false
			}
		}
	}
	b.ReportMetric(float64(count)/float64(b.N), "events/op")
	report := func(name string, d []time.Duration) {
		if len(d) == 0 {
			return
		}
		slices.Sort(d)
		at := func(q float64) float64 { return float64(d[int(q*float64(len(d)-1))].Microseconds()) }
		b.ReportMetric(at(0.5), name+"-p50-µs")
		b.ReportMetric(at(0.99), name+"-p99-µs")
		b.ReportMetric(at(1), name+"-max-µs")
	}
	report("first", firsts)
	report("gap", gaps)
	report("gone", absents)
	report("empty", empties)
	b.ReportMetric(0, "ns/op")
}
