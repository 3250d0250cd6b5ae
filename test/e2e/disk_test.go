package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"fairlead.dev/api"
)

// No space is left for what was saved: that is told, what ran goes on, and the next save after there is space works.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		skip(t, "mounting a small file system takes root")
	}
	// The executable has some 6 MB: there is no space to build it, or none for the environment's copy.
	for name, sub := range map[string]string{"build": "", "environment": "fairlead/local"} {
		t.Run(name, func(t *testing.T) {
			p := newLocal(t)
			dir := filepath.Join(p.m.state, sub)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64m,mode=700"); err != nil {
				skip(t, "mounting a small file system: "+err.Error())
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			s := newTiny(t, "v1")
			a := p.run(t, s.dir, "--", "-port", p.port(t))
			a.live(t, "v1")
			s.edit(t, "v2")
			a.live(t, "v2")
			before := a.running(t, "v2")
			filler := filepath.Join(dir, "filler")
			fill(t, filler, 512<<10)
			a.skipAll()
			s.edit(t, "v3")
			pr := a.wait(t, "the problem", isProblem(api.CodeDiskFull)).(*api.ProblemEvent)
			t.Logf("%+v", pr.Problem)
			if pr.Message == "" || pr.Hint == "" {
				t.Errorf("%+v", pr.Problem)
			}
			if got, err := get(a.url(t) + "/version"); err != nil || got != "v2" {
				t.Errorf("%q answers (%v), want v2", got, err)
			}
			if now := p.m.status(t); len(now) != 1 || now[0].Pod == nil || now[0].Pod.PID != before.PID || now[0].Pod.State != api.StateRunning {
				t.Errorf("now %+v, before %+v", now, before)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			s.edit(t, "v4")
			a.live(t, "v4")
			a.running(t, "v4")
			if code := a.interrupt(t); code != 0 {
				t.Errorf("exit %d", code)
			}
			p.wantNothing(t)
		})
	}
}

// fill writes a file that leaves so much space.
func fill(t testing.TB, path string, free int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, int64(st.Bavail)*st.Bsize-free)); err != nil {
		t.Fatal(err)
	}
}
