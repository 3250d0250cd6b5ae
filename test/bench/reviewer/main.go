// Command reviewer measures the suggestion of reviewers. On a repository whose commits name their reviewers (Reviewed-by
// trailers) it asks, for each of the last N changes, who should review it, given only what came before it, and counts how
// often one who did is among the first. Beside it are baselines that need no ranking. Without a repository it measures how
// long the first index and a later suggestion take, on one that it makes: 50,000 commits, 10,000 files. It writes JSON.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"fairlead.dev/server/review/reviewer"
	"fairlead.dev/test/bench/measure"
	"fairlead.dev/test/bench/repo"
)

func main() {
	dir := flag.String("repo", "", "the repository, bare or not; without it one is made, and times are measured on it")
	rev := flag.String("rev", "HEAD", "its branch")
	n := flag.Int("n", 1000, "how many of the last changes")
	skip := flag.Int("skip", 0, "how many changes at the end are left out: 1000 gives the ones before the last 1,000")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *rev, *n, *skip); err != nil {
		fmt.Fprintln(os.Stderr, "bench-reviewers:", err)
		os.Exit(1)
	}
}

type result struct {
	Commits  int            `json:"commits"`
	Changes  int            `json:"changes,omitempty"` // with a reviewer who is not the author
	Hits     map[string]hit `json:"hits,omitempty"`
	FirstMS  float64        `json:"first_index_ms"`
	FirstCPU float64        `json:"of_it_cpu_ms"` // git's processes and this one's: what an idle machine has no less of
	LaterMS  measure.Spread `json:"later_open_and_rank_ms"`
	RankMS   measure.Spread `json:"of_it_rank_ms"`
	IndexMB  float64        `json:"index_mb"`
	MadeInMS float64        `json:"repository_made_in_ms,omitempty"`
}

func run(ctx context.Context, dir, rev string, n, skip int) error {
	cache, err := os.MkdirTemp("", "fl-reviewers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache)
	var out result
	judged := dir != ""
	if !judged {
		dir = filepath.Join(cache, "repo")
		began := time.Now()
		if err := repo.Make(ctx, dir, repo.Large); err != nil {
			return err
		}
		rev, out.MadeInMS = "main", measure.MS(time.Since(began))
	}
	src := reviewer.Source{Dir: dir, Rev: rev, Cache: filepath.Join(cache, "index")}
	began, cpu := time.Now(), cpuTime()
	h, err := reviewer.Open(ctx, src)
	if err != nil {
		return err
	}
	out.FirstMS, out.FirstCPU, out.Commits = measure.MS(time.Since(began)), measure.MS(cpuTime()-cpu), h.Commits()
	if err := times(ctx, src, &out); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(src.Cache, "*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			out.IndexMB += float64(info.Size()) / 1e6
		}
	}
	if judged {
		written, err := authorDates(ctx, dir, h.Tip)
		if err != nil {
			return err
		}
		if out.Changes, out.Hits, err = judge(ctx, h, written, n, skip); err != nil {
			return err
		}
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

// cpuTime is what this process and those that it has waited for have used.
func cpuTime() time.Duration {
	var all time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var use syscall.Rusage
		if err := syscall.Getrusage(who, &use); err == nil {
			all += time.Duration(use.Utime.Nano() + use.Stime.Nano())
		}
	}
	return all
}

// times measures a suggestion as a press of the button has it: the index is read, git is asked whether anything is new.
func times(ctx context.Context, src reviewer.Source, out *result) error {
	var later, rank []float64
	for i := range 20 {
		began := time.Now()
		h, err := reviewer.Open(ctx, src)
		if err != nil {
			return err
		}
		opened := time.Now()
		change := h.At(h.Commits() - 1 - i).Change
		if len(h.Rank(change, reviewer.Known{}).Suggestions) == 0 {
			return errors.New("nobody was suggested")
		}
		later, rank = append(later, measure.MS(time.Since(began))), append(rank, measure.MS(time.Since(opened)))
	}
	out.LaterMS, out.RankMS = measure.Of(later), measure.Of(rank)
	return nil
}

// hit is how often somebody who reviewed it was the first, among the first three, and the mean of 1/place.
type hit struct {
	Top1 float64 `json:"top1_percent"`
	Top3 float64 `json:"top3_percent"`
	MRR  float64 `json:"mean_reciprocal_rank"`
}

func (h *hit) count(order, right []string) {
	for i, who := range order {
		if !slices.Contains(right, who) {
			continue
		}
		if i == 0 {
			h.Top1++
		}
		if i < 3 {
			h.Top3++
		}
		h.MRR += 1 / float64(i+1)
		return
	}
}

func (h *hit) of(n int) hit {
	return hit{100 * h.Top1 / float64(n), 100 * h.Top3 / float64(n), h.MRR / float64(n)}
}

// counted are the changes that somebody reviewed other than the author, the last n of them before the last skip.
func counted(h *reviewer.History, n, skip int) map[int]bool {
	is := map[int]bool{}
	for i := h.Commits() - 1; i >= 0 && len(is) < n+skip; i-- {
		if p := h.At(i); len(p.ReviewedBy) > 0 && !p.Merge {
			is[i] = len(is) >= skip
		}
	}
	return is
}

// authorDates are when commits were written, which the index does not keep, by the first 16 digits of their hashes.
func authorDates(ctx context.Context, dir, tip string) (map[string]time.Time, error) {
	out, err := exec.CommandContext(ctx, "git", "-C", dir, "log", "--format=%H %at", tip).Output()
	if err != nil {
		return nil, fmt.Errorf("git log: %w", err)
	}
	dates := map[string]time.Time{}
	for line := range strings.Lines(string(out)) {
		var hash string
		var at int64
		if _, err := fmt.Sscan(line, &hash, &at); err != nil {
			return nil, fmt.Errorf("git log says %q: %w", line, err)
		}
		dates[hash[:16]] = time.Unix(at, 0)
	}
	return dates, nil
}

// asWritten is the number of commits that had landed when the i-th was written: a review is asked for then, and what landed
// until it did tells something of who reviews these days.
func asWritten(h *reviewer.History, i int, written time.Time) int {
	for i > 0 && h.At(i-1).Time.After(written) {
		i--
	}
	return i
}

func judge(ctx context.Context, h *reviewer.History, written map[string]time.Time, n, skip int) (int, map[string]hit, error) {
	is := counted(h, n, skip)
	by := map[string]*hit{}
	count := func(name string, order, right []string) {
		if by[name] == nil {
			by[name] = &hit{}
		}
		by[name].count(order, right)
	}
	rank := func(i int, c reviewer.Change) (order []string) {
		for _, s := range h.Before(i).Rank(c, reviewer.Known{}).Suggestions {
			order = append(order, s.String())
		}
		return order
	}
	base := newBaselines()
	changes := 0
	for i := range h.Commits() {
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		p := h.At(i)
		if is[i] {
			if changes++; changes%100 == 0 {
				fmt.Fprintf(os.Stderr, "%d of %d changes\n", changes, n)
			}
			count("fairlead", rank(i, p.Change), p.ReviewedBy)
			early := p.Change
			early.Time = written[p.Hash]
			count("fairlead, by what had landed when the change was written", rank(asWritten(h, i, early.Time), early), p.ReviewedBy)
			for name, order := range base.orders(p) {
				count(name, order, p.ReviewedBy)
			}
		}
		base.learn(p)
	}
	if changes == 0 {
		return 0, nil, errors.New("no commit of the repository names who reviewed it (Reviewed-by, Acked-by, Approved-by)")
	}
	hits := map[string]hit{}
	for name, h := range by {
		hits[name] = h.of(changes)
	}
	return changes, hits, nil
}

// baselines are orders that need no ranking, of what was learned so far.
type baselines struct {
	wrote, reviewed map[string]map[string]*seen // by file and person
	reviewers       map[string]*seen
}

type seen struct {
	times int
	last  int64
}

func newBaselines() *baselines {
	return &baselines{map[string]map[string]*seen{}, map[string]map[string]*seen{}, map[string]*seen{}}
}

func (b *baselines) learn(p reviewer.Past) {
	add := func(to map[string]*seen, who string) {
		if to[who] == nil {
			to[who] = &seen{}
		}
		to[who].times++
		to[who].last = max(to[who].last, p.Time.Unix())
	}
	for _, who := range p.ReviewedBy {
		add(b.reviewers, who)
	}
	for _, f := range p.Files {
		for of, people := range map[*map[string]map[string]*seen][]string{&b.wrote: p.WroteBy, &b.reviewed: p.ReviewedBy} {
			if (*of)[f.Path] == nil {
				(*of)[f.Path] = map[string]*seen{}
			}
			for _, who := range people {
				add((*of)[f.Path], who)
			}
		}
	}
}

func (b *baselines) orders(p reviewer.Past) map[string][]string {
	sum := func(of map[string]map[string]*seen) map[string]*seen {
		all := map[string]*seen{}
		for _, f := range p.Files {
			for who, s := range of[f.Path] {
				if all[who] == nil {
					all[who] = &seen{}
				}
				all[who].times += s.times
				all[who].last = max(all[who].last, s.last)
			}
		}
		return all
	}
	order := func(all map[string]*seen, by func(*seen) int64) []string {
		var out []string
		for who := range all {
			if !slices.Contains(p.WroteBy, who) {
				out = append(out, who)
			}
		}
		slices.SortFunc(out, func(x, y string) int {
			return cmp.Or(cmp.Compare(by(all[y]), by(all[x])), cmp.Compare(all[y].last, all[x].last), cmp.Compare(x, y))
		})
		return out
	}
	times, last := func(s *seen) int64 { return int64(s.times) }, func(s *seen) int64 { return s.last }
	return map[string][]string{
		"last author of the files":            order(sum(b.wrote), last),
		"most frequent author of the files":   order(sum(b.wrote), times),
		"most frequent reviewer of the files": order(sum(b.reviewed), times),
		"most frequent reviewer of all":       order(b.reviewers, times),
	}
}
