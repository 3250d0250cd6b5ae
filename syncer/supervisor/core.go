package supervisor

import (
	"context"
	"debug/elf"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fairlead.dev/api"
)

// dump is a core file that a process of the service has left, and what it was started from.
type dump struct {
	path   string
	gen    api.Generation
	digest api.Digest
}

// findCore finds the core file of a process that has just ended with one, "" where it is not in this file system.
func findCore(p *process, sig syscall.Signal) string {
	b, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		return ""
	}
	pattern := strings.TrimRight(string(b), "\n")
	if pattern == "" || pattern[0] == '|' { // a program of the node's gets it
		return ""
	}
	if b, err := os.ReadFile("/proc/sys/kernel/core_uses_pid"); err == nil && strings.TrimSpace(string(b)) != "0" && !strings.Contains(pattern, "%p") {
		pattern += ".%p"
	}
	dir := p.cmd.Dir
	if dir == "" {
		dir, _ = os.Getwd()
	}
	return newestCore(corePattern(pattern, dir, p, sig), p.start)
}

// corePattern makes a glob of the kernel's core pattern (core(5)); what cannot be known here is anything.
func corePattern(pattern, dir string, p *process, sig syscall.Signal) string {
	host, _ := os.Hostname()
	exe := filepath.Base(p.exe)
	quote := func(s string) string {
		return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
	}
	known := map[byte]string{'%': "%", 'p': fmt.Sprint(p.pid), 'e': exe[:min(len(exe), 15)], 's': fmt.Sprint(int(sig)), // a name has 15 bytes
		'u': fmt.Sprint(os.Getuid()), 'g': fmt.Sprint(os.Getgid()), 'h': host, 'f': exe, 'E': strings.ReplaceAll(p.exe, "/", "!")}
	var out strings.Builder
	if !strings.HasPrefix(pattern, "/") {
		out.WriteString(quote(dir) + "/")
	}
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' {
			out.WriteString(quote(pattern[i : i+1]))
			continue
		}
		if i++; i == len(pattern) {
			break
		}
		if v, ok := known[pattern[i]]; ok {
			out.WriteString(quote(v))
		} else {
			out.WriteByte('*')
		}
	}
	return out.String()
}

// newestCore is the newest core file of a glob that is not older than a time.
func newestCore(glob string, since time.Time) string {
	names, _ := filepath.Glob(glob)
	var best string
	newest := since.Add(-time.Second) // file systems have coarse times
	for _, n := range names {
		fi, err := os.Lstat(n)
		if err != nil || !fi.Mode().IsRegular() || fi.ModTime().Before(newest) {
			continue
		}
		f, err := elf.Open(n)
		if err != nil {
			continue
		}
		if f.Type == elf.ET_CORE {
			best, newest = n, fi.ModTime()
		}
		f.Close()
	}
	return best
}

// offerCore remembers the core file that a process has left: the newest only.
func (s *Supervisor) offerCore(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.core != "" {
		s.core = &dump{p.core, p.gen, p.digest}
	}
}

// offered is the digest of the executable of the core file that is offered, as long as that is there.
func (s *Supervisor) offered() (api.Digest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core == nil {
		return "", false
	}
	if _, err := os.Lstat(s.core.path); err != nil {
		s.core = nil
		return "", false
	}
	return s.core.digest, true
}

// DebugCore opens a debug stream for the core file that was told last, and no other file: one session of Delve, whose client
// launches with mode "core", this path and the program of the answer. Its error is an *api.Problem with CodeNoProcess,
// CodeNoMemory or CodeNoDebugger.
func (s *Supervisor) DebugCore(_ context.Context, path string) (net.Conn, api.DebugStart, error) {
	s.used()
	digest, ok := s.offered()
	s.mu.Lock()
	c := s.core
	s.mu.Unlock()
	if !ok || c == nil || c.path != path {
		return nil, api.DebugStart{}, &api.Problem{Code: api.CodeNoProcess, Message: fmt.Sprintf("the service has left no core file %s, or it is gone", path),
			Hint: "only the newest is offered"}
	}
	program := s.store.path(digest)
	if err := symbolProblem(program); err != nil {
		return nil, api.DebugStart{}, debugProblem(err)
	}
	if fi, err := os.Stat(program); err == nil && !s.roomFor(fi.Size()) {
		return nil, api.DebugStart{}, noMemory(fi.Size())
	}
	conn, err := s.oneSession("", nil, func() {})
	if err != nil {
		return nil, api.DebugStart{}, err
	}
	return conn, api.DebugStart{Generation: c.gen, Program: program}, nil
}
