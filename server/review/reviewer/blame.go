package reviewer

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Span is a range of lines of a file of the base, both ends from 1 and included.
type Span struct{ From, To int }

// Written is how many of the edited lines somebody wrote.
type Written struct {
	Email string
	Lines int
}

// maxSpans is how many edited spans a file has at most that is blamed: a change of everything says little of whose it was.
const maxSpans = 100

// Blame tells who wrote lines of files as they are at the history's tip. git reads the files' history for it, tenths of a
// second for each, so it is given a context with a deadline: missed are the files that were not done by then, were not there,
// or had more than 100 spans.
func (h *History) Blame(ctx context.Context, files map[string][]Span) (written []Written, missed []string) {
	var mu sync.Mutex
	lines := map[string]int{}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for file, spans := range files {
		if len(spans) == 0 {
			continue
		}
		if len(spans) > maxSpans {
			missed = append(missed, file)
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			got, err := h.blame(ctx, file, spans)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				missed = append(missed, file)
				return
			}
			for email, n := range got {
				lines[email] += n
			}
		})
	}
	wg.Wait()
	for email, n := range lines {
		written = append(written, Written{email, n})
	}
	slices.SortFunc(written, func(a, b Written) int { return cmp.Or(cmp.Compare(b.Lines, a.Lines), cmp.Compare(a.Email, b.Email)) })
	slices.Sort(missed)
	return written, missed
}

func (h *History) blame(ctx context.Context, file string, spans []Span) (map[string]int, error) {
	args := []string{"blame", "--incremental", "-w", "--no-textconv"} // that is a program of the repository's configuration
	for _, s := range spans {
		args = append(args, fmt.Sprintf("-L%d,%d", s.From, s.To))
	}
	lines := map[string]int{}
	err := h.git.run(ctx, nil, func(r io.Reader) error { return readBlame(r, lines) }, append(args, h.Tip, "--", file)...)
	return lines, err
}

// readBlame reads git blame --incremental: a header `hash from to count`, the commit's fields the first time, `filename` at
// the end of each.
func readBlame(r io.Reader, lines map[string]int) error {
	emails := map[string]string{}
	var hash string
	var count int
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		key, value, _ := strings.Cut(scan.Text(), " ")
		switch {
		case hash == "":
			f := strings.Fields(value)
			n := 0
			if len(f) == 3 {
				n, _ = strconv.Atoi(f[2])
			}
			if len(key) < 40 || n < 1 {
				return fmt.Errorf("%w: blame says %.80q", errLog, scan.Text())
			}
			hash, count = key, n
		case key == "author-mail":
			emails[hash] = strings.ToLower(strings.Trim(value, "<>"))
		case key == "filename":
			lines[emails[hash]] += count
			hash = ""
		}
	}
	return scan.Err()
}
