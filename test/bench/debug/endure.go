package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"fairlead.dev/test/bench/measure"
)

// endured is what a session of many redeploys has used, in its tenth and in its last: descriptors and resident memory of
// every process that lives as long; Delve is another one in each redeploy.
type endured struct {
	Mode      string           `json:"mode"`
	Redeploys int              `json:"redeploys"`
	Hits      int              `json:"hits"` // of the breakpoint, in the code of that redeploy
	Early     map[string]usage `json:"early"`
	Late      map[string]usage `json:"late"`
}

type usage struct {
	FDs     int   `json:"fds"`
	RSSKB   int64 `json:"rss_kb"`
	Threads int   `json:"threads"`
}

const small = `package main

import "time"

const edit = %q

func main() {
	println(edit)
	for {
		time.Sleep(time.Hour)
	}
}
`

// endure redeploys a small service under one debug session on this machine, and looks what its processes have used.
func endure(n int) (r endured, err error) {
	r.Mode, r.Redeploys = "redeploys", n
	dir, err := os.MkdirTemp("", "bench-debug-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	// An agent of its own, so that nobody else's doings are measured.
	os.Setenv("FAIRLEAD_AGENT", filepath.Join(dir, "agent.sock"))
	defer os.Unsetenv("FAIRLEAD_AGENT")
	s := source{measure.Shop{Dir: filepath.Join(dir, "small")}}
	write := func(v string) error {
		return os.WriteFile(filepath.Join(s.Main(), "main.go"), fmt.Appendf(nil, small, v), 0o644)
	}
	if err := os.MkdirAll(s.Main(), 0o755); err != nil {
		return r, err
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "go.mod"), []byte("module example.com/small\n\ngo 1.26\n"), 0o644); err != nil {
		return r, err
	}
	if err := write("edit-0"); err != nil {
		return r, err
	}
	c, err := startFairlead()
	if err != nil {
		return r, err
	}
	defer c.close()
	if err := c.begin("launch", map[string]any{"program": s.Main(), "on": "local"}, s); err != nil {
		return r, err
	}
	for i := 0; ; i++ {
		thread, err := c.stopped()
		if err != nil {
			return r, fmt.Errorf("redeploy %d: %w", i, err)
		}
		if i > 0 {
			r.Hits++
		}
		switch i {
		case min(10, n):
			r.Early = uses(dir, c.cmd.Process.Pid)
		case n:
			r.Late = uses(dir, c.cmd.Process.Pid)
			return r, c.call("disconnect", map[string]any{"terminateDebuggee": true}, nil)
		}
		if err := c.call("continue", map[string]any{"threadId": thread}, nil); err != nil {
			return r, err
		}
		if err := write(fmt.Sprintf("edit-%d", i+1)); err != nil {
			return r, err
		}
	}
}

// uses looks at this bench's processes: the front end, the agent of its socket, the supervisor.
func uses(dir string, front int) map[string]usage {
	out := map[string]usage{"fairlead dap": use(front)}
	pids, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range pids {
		pid, _ := strconv.Atoi(filepath.Base(p))
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if !strings.Contains(string(env), "FAIRLEAD_AGENT="+dir) || len(args) < 2 {
			continue
		}
		switch {
		case args[1] == "agent":
			out["fairlead agent"] = use(pid)
		case strings.Contains(args[0], "fairlead-pod") && args[1] == "run":
			out["supervisor"] = use(pid)
		}
	}
	return out
}

func use(pid int) (u usage) {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	u.FDs = len(fds)
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "VmRSS:":
			u.RSSKB, _ = strconv.ParseInt(f[1], 10, 64)
		case len(f) > 1 && f[0] == "Threads:":
			u.Threads, _ = strconv.Atoi(f[1])
		}
	}
	return u
}
