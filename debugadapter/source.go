package debugadapter

import (
	"os"
	"runtime"
	"strings"
	"time"

	"fairlead.dev/api"
)

// No source file is larger; what is generated beyond this is not edited by hand, and its lines are taken as they are.
const maxSource = 4 << 20

// A file's time is as fine as the kernel's tick: two saves within it look like one.
const tick = 50 * time.Millisecond

// text is what a file said at some time. It is never changed.
type text struct {
	raw   string
	lines []string
}

func (t *text) same(o *text) bool { return t == o || t != nil && o != nil && t.raw == o.raw }

// sources knows what files say now, and what they said when the code that runs was built. It belongs to the session's
// goroutine.
type sources struct {
	disk    map[string]*onDisk
	builds  map[api.Generation]*build // begun, and not older than what runs
	running *build
	maps    map[mapping][]int
}

type onDisk struct {
	text     *text
	modified time.Time
	size     int64
	read     time.Time
}

// build is what the sources of one generation said. texts has only files that somebody asked about in time.
type build struct {
	began time.Time
	texts map[string]*text
}

type mapping struct {
	from, to *text
	loose    bool
}

func newSources(began time.Time) *sources {
	return &sources{
		disk:    map[string]*onDisk{},
		builds:  map[api.Generation]*build{},
		running: &build{began: began, texts: map[string]*text{}},
		maps:    map[mapping][]int{},
	}
}

// pathKey is what paths are compared by: as the client sent them, but a drive's letter comes in both cases.
func pathKey(path string) string { return pathKeyOn(runtime.GOOS, path) }

func pathKeyOn(goos, path string) string {
	if goos == "windows" && len(path) > 1 && path[1] == ':' {
		return strings.ToLower(path[:1]) + strings.ReplaceAll(path[1:], `\`, "/")
	}
	return path
}

// now is what the file says; nil if it cannot be read or is too large.
func (s *sources) now(path string) *text {
	key := pathKey(path)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxSource {
		delete(s.disk, key)
		return nil
	}
	d := s.disk[key]
	if d != nil && d.modified.Equal(info.ModTime()) && d.size == info.Size() && d.read.Sub(d.modified) > tick {
		return d.text
	}
	read := time.Now()
	b, err := os.ReadFile(path)
	if err != nil {
		delete(s.disk, key)
		return nil
	}
	t := &text{raw: string(b)}
	if d != nil && d.text.raw == t.raw {
		t = d.text
	} else {
		t.lines = strings.Split(strings.ReplaceAll(t.raw, "\r\n", "\n"), "\n")
	}
	s.disk[key] = &onDisk{text: t, modified: info.ModTime(), size: info.Size(), read: read}
	return t
}

// building keeps what the files say, since that is what the build reads.
func (s *sources) building(g api.Generation, paths []string) {
	b := &build{began: time.Now(), texts: map[string]*text{}}
	for _, p := range paths {
		if t := s.now(p); t != nil {
			b.texts[pathKey(p)] = t
		}
	}
	s.builds[g] = b
}

// runs says which generation's code is there to be debugged. A generation whose build was not told is taken to be made of
// what runs already, or of what is on disk.
func (s *sources) runs(g api.Generation) {
	if b := s.builds[g]; b != nil {
		s.running = b
	}
	for old := range s.builds {
		if old < g {
			delete(s.builds, old)
		}
	}
	clear(s.maps) // they hold texts that nobody needs any more
}

type knowledge int

const (
	known   knowledge = iota
	newer             // the file was changed since the build began, and nobody kept what it said then
	foreign           // no file that can be read: lines are what they are
)

// built is what the file said when the running code was built.
func (s *sources) built(path string) (*text, knowledge) {
	key := pathKey(path)
	if t := s.running.texts[key]; t != nil {
		return t, known
	}
	t := s.now(path)
	if t == nil {
		return nil, foreign
	}
	if s.disk[key].modified.After(s.running.began) {
		return nil, newer
	}
	s.running.texts[key] = t
	return t, known
}

// line finds a line (from 1) of one text in another.
func (s *sources) line(from, to *text, line int, loose bool) (int, bool) {
	if from.same(to) || from == nil || to == nil {
		return line, true
	}
	if line < 1 || line > len(from.lines) {
		return line, false
	}
	k := mapping{from, to, loose}
	m, ok := s.maps[k]
	if !ok {
		if len(s.maps) > 256 {
			clear(s.maps)
		}
		m = mapLines(from.lines, to.lines, loose)
		s.maps[k] = m
	}
	if m[line-1] < 0 {
		return line, false
	}
	return m[line-1] + 1, true
}

// shown is where a line of the running code is in the file as it is now. false: it is not there any more.
func (s *sources) shown(path string, line int) (int, bool) {
	b := s.running.texts[pathKey(path)]
	if b == nil {
		return line, true
	}
	now := s.now(path)
	if now == nil {
		return line, true
	}
	return s.line(b, now, line, false)
}
