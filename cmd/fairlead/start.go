package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"fairlead.dev/api"
)

// agentLog is the detached agent's log, in the state folder. maxLog bounds it: what is older is kept once more, as
// agent.log.old.
const (
	agentLog = "agent.log"
	maxLog   = 1 << 20
)

// startAgent starts an agent in the background and returns when it answers. Its own error is returned as it is.
func startAgent(ctx context.Context, f folders) error {
	fail := func(format string, args ...any) error {
		return &api.Problem{Code: "agent-start", Message: "start the agent: " + fmt.Sprintf(format, args...), Hint: "run fairlead agent to see what it says"}
	}
	exe, err := os.Executable()
	if err != nil {
		return fail("%v", err)
	}
	path := filepath.Join(f.state, agentLog)
	log, err := openLog(path)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(exe, "agent", "--detached")
	cmd.Dir = filepath.VolumeName(path) + string(filepath.Separator) // holds no folder of the user's
	cmd.Stderr = log.file                                            // what the runtime says of a crash
	detach(cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fail("%v", err)
	}
	if err := cmd.Start(); err != nil {
		return fail("%v", err)
	}
	said := make(chan string, 1)
	go func() { // ends with the agent's first line, or the agent
		line, _ := bufio.NewReader(out).ReadString('\n')
		said <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done(): // it answers the next one, or leaves by itself
		cmd.Process.Release()
		return ctx.Err()
	case line := <-said:
		if line == ready {
			go cmd.Wait() // it may end before this process does
			return nil
		}
		err := cmd.Wait()
		var p api.Problem
		if json.Unmarshal([]byte(line), &p) == nil && p.Message != "" {
			return &p
		}
		return fail("it ended at once (%v); see %s", err, path)
	}
}

// logFile is a log with a bound.
type logFile struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64
}

func openLog(path string) (*logFile, error) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	l := &logFile{path: path}
	if err == nil {
		err = l.open()
	}
	if err != nil {
		return nil, &api.Problem{Code: "agent-start", Message: "open the agent's log: " + err.Error(), Hint: "make " + filepath.Dir(path) + " a folder that you can write to"}
	}
	return l, nil
}

func (l *logFile) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fi, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	l.file, l.size = file, fi.Size()
	return nil
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > maxLog {
		l.file.Close()
		os.Rename(l.path, l.path+".old")
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
