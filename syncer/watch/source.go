package watch

import (
	"errors"
	"runtime"
	"time"

	"github.com/fsnotify/fsnotify"
)

// source is what the operating system offers. The tests have one that fails.
type source interface {
	Add(folder string) error
	Remove(folder string) error
	Close() error
	// Next blocks until there is an event. It returns errOverflow if some were lost, and false once the source is closed.
	Next() (event, error, bool)
}

var errOverflow = errors.New("events were lost")

type op uint8

const (
	opCreate op = 1 << iota
	opWrite
	opRemove // or moved away
	opChmod
)

type event struct {
	path string
	op   op
	at   time.Time
}

type fsnotifySource struct{ w *fsnotify.Watcher }

func openFsnotify() (source, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return fsnotifySource{w}, nil
}

func (s fsnotifySource) Add(folder string) error {
	if runtime.GOOS == "windows" {
		// The default is 64 KiB for each folder, and one cannot ask for all that lies below a folder at once.
		return s.w.AddWith(folder, fsnotify.WithBufferSize(8<<10))
	}
	return s.w.Add(folder)
}

func (s fsnotifySource) Remove(folder string) error { return s.w.Remove(folder) }
func (s fsnotifySource) Close() error               { return s.w.Close() }

func (s fsnotifySource) Next() (event, error, bool) {
	select {
	case e, ok := <-s.w.Events:
		if !ok {
			return event{}, nil, false
		}
		ev := event{path: e.Name, at: time.Now()}
		if e.Has(fsnotify.Create) {
			ev.op |= opCreate
		}
		if e.Has(fsnotify.Write) {
			ev.op |= opWrite
		}
		if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
			ev.op |= opRemove
		}
		if e.Has(fsnotify.Chmod) {
			ev.op |= opChmod
		}
		return ev, nil, true
	case err, ok := <-s.w.Errors:
		if !ok {
			return event{}, nil, false
		}
		if errors.Is(err, fsnotify.ErrEventOverflow) {
			err = errOverflow
		}
		return event{}, err, true
	}
}
