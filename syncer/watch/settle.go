package watch

import "time"

// The defaults, from BenchmarkGap and BenchmarkSave on two cores under heavy load (a load average of 5 to 13). Medians,
// and the 99th percentile in brackets, of the pause between two events of one save: os.WriteFile 66 µs (2.6 ms), of
// 4 MiB 1.2 ms (12 ms), a file written in 64 chunks 6 µs (0.3 ms, at worst 3.5 ms), write and rename 62 µs (4 ms), the
// same with fsync 140 µs (24 ms), vim 32 µs (13 ms), gofmt -w of 20 files 2 µs (2.8 ms), a generator that formats 20
// files one by one 0.9 ms (12 ms), git checkout of 2,000 files 1 µs (0.1 ms, at worst 105 ms).
//
// The long pauses inside one file's save are those in which the file is empty or gone (at worst 27 ms, in vim between
// making the file and writing it) or in which it is complete already (fsync). The former can be seen by looking; so a
// file that has content rests ten times as long as the pauses between chunks are, and one that is empty or gone gets
// restGone. Of 100 saves of each kind, with 1 ms, two of those of five files at once came in two changes, and from 2 ms
// on none. From before the save to the receipt of its change it takes 0.6 to 1.5 ms more than Rest; 0.7 ms with Notify.
const (
	defaultRest      = 3 * time.Millisecond
	defaultRestBurst = 100 * time.Millisecond
	defaultCap       = 2 * time.Second

	few       = 8                     // paths: up to here a burst is a person's save, beyond it a program's
	restGone  = 50 * time.Millisecond // twice the worst case measured
	restLock  = 50 * time.Millisecond // after git: all has been written, but perhaps not all of it has arrived here
	lockCap   = 5 * time.Second       // how long a lock is waited for,
	lockMost  = 30 * time.Second      // and how long if files are still being written,
	lockBusy  = time.Second           // which is to say that the last event was no longer ago than this
	lockEvery = 5 * time.Millisecond
)

// settler decides when a burst of edits is over. It is pure: it is told the time, and has no timer.
type settler struct {
	rest, restBurst, cap time.Duration

	paths       map[string]span
	first, last time.Time
	until       time.Time // not before; zero for no such bound
	released    time.Time // when the lock was found to be gone, from which on cap counts then
	lock        lockState
}

type lockState int

const (
	lockUnseen lockState = iota
	lockSeen
	lockReleased
)

// span is when the events of one path came.
type span struct {
	first, last time.Time
}

// add notes an event.
func (s *settler) add(path string, now time.Time) {
	if s.paths == nil {
		s.paths = map[string]span{}
	}
	if len(s.paths) == 0 {
		s.first = now
	}
	if now.After(s.last) { // what a scan finds may come before older events
		s.last = now
	}
	if s.lock != lockSeen {
		s.until = time.Time{} // what was looked at has changed: look again after the ordinary rest
	}
	p, ok := s.paths[path]
	if !ok {
		p.first = now
	}
	p.last = now
	s.paths[path] = p
}

// remove forgets a path that has been dealt with otherwise.
func (s *settler) remove(path string) {
	delete(s.paths, path)
	if len(s.paths) == 0 {
		s.take()
	}
}

// due says when check is to be called next; the zero time means not before the next add.
func (s *settler) due() time.Time {
	if len(s.paths) == 0 {
		return time.Time{}
	}
	rest := s.rest
	switch {
	case s.lock == lockReleased:
		rest = max(rest, restLock)
	case s.lock == lockUnseen && len(s.paths) > few:
		rest = s.restBurst
	}
	due := s.last.Add(rest)
	from := s.first
	if s.lock == lockReleased {
		from = s.released
	}
	if limit := from.Add(max(s.cap, rest)); due.After(limit) {
		due = limit
	}
	if due.Before(s.until) {
		due = s.until
	}
	return due
}

// check says whether the burst is over. locked says whether the version control system is in the middle of an operation
// that may have caused it; unfinished whether a file looks as if it was being replaced. Both cost system calls, so they
// are only called when the burst would be over otherwise.
func (s *settler) check(now time.Time, locked, unfinished func() bool) bool {
	if due := s.due(); due.IsZero() || now.Before(due) {
		return false
	}
	if s.lock != lockReleased {
		switch {
		case s.mayWait(now) && locked():
			s.lock, s.until = lockSeen, now.Add(lockEvery)
			return false
		case s.lock == lockSeen:
			s.lock, s.released, s.until = lockReleased, now, now.Add(max(s.rest, restLock))
			return false
		}
	}
	if len(s.paths) <= few {
		wait := s.last.Add(restGone)
		if limit := s.first.Add(max(s.cap, restGone)); wait.After(limit) {
			wait = limit
		}
		if now.Before(wait) && unfinished() {
			s.until = wait
			return false
		}
	}
	return true
}

// mayWait says whether a lock is to be waited for. A machine that is slow or a work tree that is large may keep git busy
// for long; a lock that was left behind comes without more events.
func (s *settler) mayWait(now time.Time) bool {
	return now.Before(s.first.Add(lockCap)) || now.Before(s.last.Add(lockBusy)) && now.Before(s.first.Add(lockMost))
}

// take ends the burst and returns it.
func (s *settler) take() (paths map[string]span, first time.Time) {
	paths, first = s.paths, s.first
	*s = settler{rest: s.rest, restBurst: s.restBurst, cap: s.cap}
	return paths, first
}
