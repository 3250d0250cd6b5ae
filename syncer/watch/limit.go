package watch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"fairlead.dev/api"
)

// The codes of the problems that Options.Problems is given.
const (
	CodeWatchLimit     = "watch-limit"     // the operating system watches no more folders for us: the rest are polled
	CodeWatchInstances = "watch-instances" // the operating system watches nothing for us: all is polled
	CodeRootMissing    = "root-missing"    // the workspace's folder is gone
)

// report tells the caller what stands in the way, if that has changed.
func (l *loop) report() {
	if l.ctx.Err() != nil {
		return // a first look that was cut short has found nothing, which would read as a folder that is gone
	}
	var ps []*api.Problem
	polled := l.poll.len()
	switch {
	case l.src == nil:
		ps = append(ps, instancesProblem(l.openErr, sysctl))
	case polled > 0:
		ps = append(ps, limitProblem(l.limitErr, polled, len(l.nodes), sysctl))
	}
	if n := l.nodes[l.root]; n == nil || n.anchor {
		ps = append(ps, &api.Problem{
			Code: CodeRootMissing, Message: "the workspace's folder " + l.root + " is gone",
			Hint: "put it back; it is watched again as soon as it is there",
		})
	}
	same := slices.EqualFunc(ps, l.told, func(a, b *api.Problem) bool { return a.Code == b.Code })
	if same && polled <= 2*l.polled { // not anew for every folder that is made
		return
	}
	l.told, l.polled = ps, polled
	for _, p := range ps {
		l.log.Warn(p.Message, "code", p.Code, "hint", p.Hint)
	}
	if l.opt.Problems != nil {
		l.opt.Problems(ps)
	}
}

const instead = "looked at about once a second instead of being watched"

func limitProblem(err error, polled, all int, sysctl func(string) int) *api.Problem {
	p := &api.Problem{
		Code: CodeWatchLimit, Severity: api.SeverityWarning,
		Message: fmt.Sprintf("%d of %d folders cannot be watched (%v): they are %s", polled, all, err, instead),
		Hint:    "add what need not be watched to .gitignore",
	}
	const name = "fs.inotify.max_user_watches"
	switch {
	case errors.Is(err, syscall.ENOSPC) && runtime.GOOS == "linux":
		p.Message = fmt.Sprintf("%s%s is used up: %d of %d folders are %s", name, value(sysctl(name)), polled, all, instead)
		p.Hint = raise(name, sysctl(name), 524288)
	case errors.Is(err, syscall.EMFILE):
		p.Message = fmt.Sprintf("the limit of open files is used up: %d of %d folders are %s", polled, all, instead)
		p.Hint = "raise it with: ulimit -n 65536; or add what need not be watched to .gitignore"
	}
	return p
}

func instancesProblem(err error, sysctl func(string) int) *api.Problem {
	const instead = "all folders are " + instead
	const name = "fs.inotify.max_user_instances"
	if errors.Is(err, syscall.EMFILE) && runtime.GOOS == "linux" && canOpen() {
		return &api.Problem{
			Code: CodeWatchInstances, Severity: api.SeverityWarning,
			Message: name + value(sysctl(name)) + " is used up: " + instead,
			Hint:    raise(name, sysctl(name), 512),
		}
	}
	return &api.Problem{
		Code: CodeWatchInstances, Severity: api.SeverityWarning,
		Message: fmt.Sprintf("the operating system watches no files for us (%v): %s", err, instead),
		Hint:    "raise the limit of open files (ulimit -n), or end programs that hold many",
	}
}

// canOpen tells the two limits apart that give the same error: that of the user's inotify instances, and that of this
// process's open files.
func canOpen() bool {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

func value(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (%d)", n)
}

func raise(name string, now, least int) string {
	return fmt.Sprintf("raise it with: sudo sysctl -w %s=%d (and put the same into /etc/sysctl.d to keep it)",
		name, max(least, 2*now))
}

// sysctl reads a kernel setting; 0 if there is none.
func sysctl(name string) int {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}
