// Package process starts the cluster's programs so that they outlive the
// command that started them, and finds and ends them again later.
//
// A program is known by its pid, the time it started and the boot it started
// in. A pid alone is not enough: the kernel gives it to someone else, and a
// test tool that then kills it has killed a stranger.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ID is the identity of a running process.
type ID struct {
	PID int `json:"pid"`
	// Start is field 22 of /proc/PID/stat: clock ticks between boot and start.
	Start uint64 `json:"start"`
	// Boot is the kernel's id of the boot that Start counts from.
	Boot string `json:"boot"`
}

// Spec is a program to start.
type Spec struct {
	Name string
	// Path is the binary, Args are its arguments without the name.
	Path string
	Args []string
	// Env is the whole environment: the caller's proxies and credentials
	// must not leak into a cluster.
	Env []string
	Dir string
	// Log is appended to, so that the reason of a crash survives a restart.
	Log string
	// PIDFile is where the identity is written.
	PIDFile string
	// Adopt, if set, is called with the new pid before Start returns.
	Adopt func(pid int) error
}

// Start starts s in a session of its own and writes its pidfile. The returned
// channel is closed when the program ends while this process is alive to see
// it, by the one goroutine that Start leaves behind.
func Start(s Spec) (<-chan struct{}, error) {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env, cmd.Dir = s.Env, s.Dir
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own keeps a Ctrl-C at the terminal from the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the log has the reason
	}()
	err = func() error {
		id, err := Identify(cmd.Process.Pid)
		if err != nil {
			return err
		}
		if s.Adopt != nil {
			if err := s.Adopt(id.PID); err != nil {
				return err
			}
		}
		return id.Save(s.PIDFile)
	}()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		// It ended at once. That is for the one who waits for it to report,
		// who can also tell why from its log.
		<-ended
		return ended, nil
	}
	if err != nil {
		_ = cmd.Process.Kill()
		<-ended
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	return ended, nil
}

// Identify returns the identity of the live process that now has pid.
// The error is fs.ErrNotExist when there is none; a zombie counts as none.
func Identify(pid int) (ID, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		// ESRCH: it ended between open and read.
		if errors.Is(err, syscall.ESRCH) {
			err = fs.ErrNotExist
		}
		return ID{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	state, start, err := parseStat(string(stat))
	if err != nil {
		return ID{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	if state == 'Z' || state == 'X' {
		return ID{}, fmt.Errorf("identify process %d: %w", pid, fs.ErrNotExist)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ID{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	return ID{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// parseStat returns the state and the start time of a /proc/PID/stat line.
// The program's name, in parentheses, may itself hold spaces and parentheses:
// fields are counted from the last closing one.
func parseStat(line string) (state byte, start uint64, err error) {
	i := strings.LastIndexByte(line, ')')
	if i < 0 {
		return 0, 0, fmt.Errorf("parse stat: no name in %q", line)
	}
	fields := strings.Fields(line[i+1:])
	const stateField, startField = 3 - 3, 22 - 3 // numbered from 1, and two are cut off
	if len(fields) <= startField || len(fields[stateField]) != 1 {
		return 0, 0, fmt.Errorf("parse stat: %d fields after the name", len(fields))
	}
	start, err = strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("parse stat: %w", err)
	}
	return fields[stateField][0], start, nil
}

// Save writes the identity to path, whole or not at all.
func (id ID) Save(path string) error {
	content, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("write pidfile: %w", err)
	}
	temp := path + ".tmp"
	if err := os.WriteFile(temp, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("write pidfile: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write pidfile: %w", err)
	}
	return nil
}

// Load reads a pidfile. The error is fs.ErrNotExist when there is none.
func Load(path string) (ID, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return ID{}, fmt.Errorf("read pidfile: %w", err)
	}
	var id ID
	if err := json.Unmarshal(content, &id); err != nil {
		return ID{}, fmt.Errorf("read pidfile %s: %w", path, err)
	}
	if id.PID <= 1 {
		// 0 and negative numbers mean process groups to kill(2), 1 is init.
		return ID{}, fmt.Errorf("read pidfile %s: bad pid %d", path, id.PID)
	}
	return id, nil
}

// Alive reports whether the process that id names still runs.
func (id ID) Alive() bool {
	now, err := Identify(id.PID)
	return err == nil && now == id
}

// Signal sends sig to the process id names, and to no other.
// It returns os.ErrProcessDone when that process is gone.
func (id ID) Signal(sig syscall.Signal) error {
	// The handle pins the process (a pidfd): identity is checked after taking
	// it, so that a pid recycled in between is never signalled.
	p, err := os.FindProcess(id.PID)
	if err != nil {
		return fmt.Errorf("signal process %d: %w", id.PID, err)
	}
	defer p.Release()
	if !id.Alive() {
		return os.ErrProcessDone
	}
	if err := p.Signal(sig); err != nil {
		return fmt.Errorf("signal process %d: %w", id.PID, err)
	}
	return nil
}

// Stop ends the process: SIGTERM, and SIGKILL if it is still there after
// grace. It returns when the process is gone.
func (id ID) Stop(ctx context.Context, grace time.Duration) error {
	if err := id.Signal(syscall.SIGTERM); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return err
	}
	if id.wait(ctx, grace) {
		return nil
	}
	if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	const unkillable = 10 * time.Second // a process in an uninterruptible wait
	if !id.wait(ctx, unkillable) {
		return fmt.Errorf("stop process %d: it does not end", id.PID)
	}
	return nil
}

// wait polls, as nothing but a parent can wait for a process's end without a
// pidfd of its own, and 10 ms is nothing beside what the programs take.
func (id ID) wait(ctx context.Context, most time.Duration) bool {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for id.Alive() {
		select {
		case <-ctx.Done():
			return false
		case <-deadline.C:
			return !id.Alive()
		case <-tick.C:
		}
	}
	return true
}
