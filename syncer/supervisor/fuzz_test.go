//go:build linux

package supervisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fairlead.dev/api"
)

// Whatever names a manifest has: what is accepted lands inside the tree, and nothing outside changes.
func FuzzTree(f *testing.F) {
	for _, s := range []string{"a", "a/b", "../x", "/etc/x", "a/../b", "A", "a\x00", "a/.", "..", ".fairlead-new-a", "é", strings.Repeat("d/", 40) + "f"} {
		f.Add(s, "b", "c")
		f.Add("b", s, s)
	}
	f.Fuzz(func(t *testing.T, one, two, link string) {
		dir := t.TempDir()
		outside := filepath.Join(dir, "outside")
		if err := os.MkdirAll(filepath.Join(dir, "tree"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(outside, []byte("untouched"), 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := newStore(filepath.Join(dir, "store"), false)
		if err != nil {
			t.Fatal(err)
		}
		b := api.Blob{Digest: "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", Size: 1, Encoding: api.EncodingRaw} // "x"
		if err := st.stage(t.Context(), b, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		files := []api.File{{Path: one, Mode: 0o644, Size: 1, Digest: b.Digest}, {Path: two, Mode: 0o777, Link: link}}
		if link == "" {
			files = files[:1]
		}
		if checkFiles(files) != nil {
			return
		}
		tr, err := openTree("t", filepath.Join(dir, "tree"))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := tr.prepare(files, nil, st); err == nil {
			c.commit()
		}
		ents, err := os.ReadDir(dir)
		if err != nil || len(ents) != 3 {
			t.Fatalf("beside the tree: %v %v", ents, err)
		}
		if got, err := os.ReadFile(outside); err != nil || string(got) != "untouched" {
			t.Fatalf("the file outside: %q %v", got, err)
		}
	})
}

func FuzzParseListeners(f *testing.F) {
	f.Add([]byte("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100 0 0 10 0\n"))
	f.Add([]byte("   0: 00000000000000000000000001000000:1F90 0:0 0A 0 0 0 0 0 42\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range parseListeners(b, map[uint64]bool{42: true}) {
			if l.inode != 42 || !l.addr.IsValid() {
				t.Fatalf("%+v", l)
			}
		}
	})
}

func TestParseListeners(t *testing.T) {
	text := "head\n   0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 42\n   1: 00000000:0050 00000000:0000 0A 0 0 0 0 0 43\n" +
		"   2: 00000000000000000000000001000000:1F91 0:0 0A 0 0 0 0 0 44\n   3: 0100007F:1F92 0:0 01 0 0 0 0 0 42\n"
	got := parseListeners([]byte(text), map[uint64]bool{42: true, 43: true, 44: true})
	want := []string{"127.0.0.1:8080", "127.0.0.1:80", "[::1]:8081"}
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i := range got {
		if got[i].dialAddr() != want[i] {
			t.Errorf("%s, want %s", got[i].dialAddr(), want[i])
		}
	}
}

// Both ways to find a process's descendants agree.
func TestDescendants(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & sleep 60; true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var ds []int
	for end := time.Now().Add(10 * time.Second); len(ds) < 2 && time.Now().Before(end); {
		ds = descendants(cmd.Process.Pid, nil)
	}
	defer func() {
		for _, pid := range ds {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	slices.Sort(ds)
	all := everyChild()(cmd.Process.Pid)
	slices.Sort(all)
	if len(ds) != 2 || !slices.Equal(ds, all) {
		t.Fatalf("by the threads %v, by every process %v", ds, all)
	}
}
