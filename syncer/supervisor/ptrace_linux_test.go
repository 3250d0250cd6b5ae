package supervisor

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// wander gives the scheduler every reason to go on with main on another thread.
func wander() {
	for range 4 {
		go func() {
			for {
				time.Sleep(time.Microsecond)
			}
		}()
	}
	for range 20 {
		time.Sleep(100 * time.Microsecond)
	}
}

// A service is started by the process's first thread, whatever came before.
func TestBecomeOnTheFirstThread(t *testing.T) {
	for range 5 {
		cmd := exec.Command(os.Args[0], becomeService, letTrace, "/bin/echo", "it runs")
		cmd.Env = append(os.Environ(), "WANDER=1")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "it runs\n" {
			t.Errorf("%v: %s", err, out)
		}
	}
}
