package watch

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRandom does random things to files and folders, in quick and in slow succession, and has a receiver that reads
// again whatever is reported. In the end it must know exactly what there is.
func TestRandom(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testRandom(t, uint64(seed)) })
	}
}

func testRandom(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	root := t.TempDir()
	folders := []string{"a", "b", "a/c", "a/c/d", "b/c", "e", "e/f/g"}
	path := func() string { // of a folder that may exist
		return filepath.Join(root, filepath.FromSlash(folders[rng.IntN(len(folders))]))
	}
	file := func() string { return filepath.Join(path(), fmt.Sprintf("f%d.go", rng.IntN(3))) }
	n := 0
	text := func() []byte {
		n++
		return fmt.Appendf(nil, "%d %d", seed, n)
	}
	step := func() {
		// Errors are as good as anything else here: a folder is not there, or not empty.
		switch rng.IntN(12) {
		case 0, 1, 2:
			os.WriteFile(file(), text(), 0o644)
		case 3:
			p := file()
			os.WriteFile(p+"~", text(), 0o644)
			os.Rename(p+"~", p)
		case 4:
			os.Remove(file())
		case 5:
			os.Rename(file(), file())
		case 6, 7:
			os.MkdirAll(path(), 0o755)
		case 8, 9:
			os.Rename(path(), path())
		case 10:
			p := path()
			os.MkdirAll(p, 0o755)
			os.WriteFile(filepath.Join(p, "f0.go"), text(), 0o644)
		case 11:
			if rng.IntN(3) == 0 {
				os.RemoveAll(path())
			}
		}
	}
	for range 20 {
		step()
	}
	disk := func() map[string]string {
		got := map[string]string{}
		must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || isScratch(d.Name()) {
				return err
			}
			b, err := os.ReadFile(p)
			got[p] = string(b)
			return err
		}))
		return got
	}
	opt := Options{Root: root}
	switch seed % 3 {
	case 1: // some folders are polled
		var left atomic.Int64
		left.Store(4)
		opt.open, opt.poll, opt.retry = limited(&left), time.Millisecond, 5*time.Millisecond
	case 2: // events are lost now and then
		var losing atomic.Bool
		tell := make(chan struct{})
		opt.open = lossy(&losing, tell)
		ordinary := step
		step = func() {
			if rng.IntN(50) == 0 {
				losing.Store(true)
				ordinary()
				ordinary()
				losing.Store(false)
				tell <- struct{}{}
			}
			ordinary()
		}
	}
	r := start(t, opt)
	view := disk()
	receive := func(c Change) {
		if c.Overflow {
			clear(view)
			maps.Copy(view, disk())
		}
		for _, f := range c.Files {
			b, err := os.ReadFile(f.Path)
			if err != nil {
				delete(view, f.Path)
			} else {
				view[f.Path] = string(b)
			}
		}
	}
	for range 300 {
		step()
		// Not to wait for anything: the pauses are a part of what is tried.
		pause := time.Duration(0)
		if rng.IntN(20) == 0 {
			pause = time.Duration(rng.IntN(8)) * time.Millisecond
		}
		select {
		case c := <-r.Changes():
			receive(c)
		case <-time.After(pause):
		}
	}
	for deadline := time.After(patience); !maps.Equal(view, disk()); {
		select {
		case c := <-r.Changes():
			receive(c)
		case <-deadline:
			t.Fatalf("what is there (-) and what was reported (+):\n%s", cmp.Diff(disk(), view))
		}
	}
}
