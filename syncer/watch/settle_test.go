package watch

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// settleScript drives a settler the way that the loop does, and returns when it reported, in milliseconds.
type settleScript struct {
	events   map[int][]string // at ms
	locked   func(ms int) bool
	gone     func(ms int) bool
	duration int
}

func (c settleScript) run(s settler) (reports []int, paths [][]string) {
	start := time.Unix(1_000_000, 0)
	never := func(int) bool { return false }
	if c.locked == nil {
		c.locked = never
	}
	if c.gone == nil {
		c.gone = never
	}
	for ms := range c.duration {
		now := start.Add(time.Duration(ms) * time.Millisecond)
		for _, p := range c.events[ms] {
			s.add(p, now)
		}
		if s.check(now, func() bool { return c.locked(ms) }, func() bool { return c.gone(ms) }) {
			ps, _ := s.take()
			var names []string
			for p := range ps {
				names = append(names, p)
			}
			slices.Sort(names)
			reports, paths = append(reports, ms), append(paths, names)
		}
	}
	return reports, paths
}

func many(from, to, step int) map[int][]string {
	m := map[int][]string{}
	for i := from; i < to; i += step {
		m[i] = []string{fmt.Sprint(i)}
	}
	return m
}

func TestSettle(t *testing.T) {
	base := settler{rest: 5 * time.Millisecond, restBurst: 100 * time.Millisecond, cap: 2 * time.Second}
	between := func(from, to int) func(int) bool { return func(ms int) bool { return from <= ms && ms < to } }
	for _, tt := range []struct {
		name   string
		script settleScript
		want   []int
	}{
		{"nothing", settleScript{duration: 100}, nil},
		{"one event", settleScript{events: map[int][]string{10: {"a"}}, duration: 100}, []int{15}},
		{"each event begins the rest anew", settleScript{events: map[int][]string{10: {"a"}, 14: {"a"}, 18: {"b"}}, duration: 100}, []int{23}},
		{"two saves", settleScript{events: map[int][]string{10: {"a"}, 16: {"a"}}, duration: 100}, []int{15, 21}},
		{"many paths rest longer", settleScript{events: many(10, 40, 2), duration: 300}, []int{138}},
		{"many paths with pauses are one burst", settleScript{events: merge(many(10, 50, 4), many(130, 150, 4)), duration: 400}, []int{246}},
		{"what does not end is cut", settleScript{events: many(0, 4500, 4), duration: 5000}, []int{2000, 4004, 4596}},
		{"gone and back", settleScript{events: map[int][]string{10: {"a"}, 30: {"a"}}, gone: between(10, 30), duration: 200}, []int{35}},
		{"gone for good", settleScript{events: map[int][]string{10: {"a"}}, gone: between(10, 1000), duration: 200}, []int{60}},
		{"another file while one is gone", settleScript{events: map[int][]string{10: {"a"}, 20: {"b"}}, gone: between(10, 1000), duration: 200}, []int{70}},
		{"locked", settleScript{events: merge(many(10, 30, 2), many(400, 420, 2)), locked: between(5, 430), duration: 900}, []int{483}},
		{"locked, one file", settleScript{events: many(10, 11, 1), locked: between(5, 300), duration: 900}, []int{350}},
		{"locked longer than the cap", settleScript{events: many(0, 3000, 50), locked: between(0, 3100), duration: 6000}, []int{3150}},
		{"locked for ever", settleScript{events: many(0, 10, 10), locked: between(0, 100_000), duration: 8000}, []int{5050}},
		{"git is busy for long", settleScript{events: many(0, 8000, 100), locked: between(0, 8100), duration: 9000}, []int{8150}},
		{"what comes in late after a long lock", settleScript{events: many(0, 2600, 2), locked: between(0, 2500), duration: 4000}, []int{2648}},
		{"a lock left behind, and much written", settleScript{events: many(0, 31_000, 100), locked: between(0, 100_000), duration: 40_000}, []int{30_050, 35_150}},
		{"events after the lock", settleScript{events: merge(many(10, 30, 2), map[int][]string{305: {"x"}}), locked: between(5, 300), duration: 900}, []int{355}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, paths := tt.script.run(base)
			if !slices.Equal(got, tt.want) {
				t.Errorf("reported at %v ms, want %v", got, tt.want)
			}
			seen := map[string]bool{}
			for _, ps := range paths {
				for _, p := range ps {
					seen[p] = true
				}
			}
			for _, ps := range tt.script.events {
				for _, p := range ps {
					if !seen[p] {
						t.Errorf("%s was lost", p)
					}
				}
			}
		})
	}
}

func merge(ms ...map[int][]string) map[int][]string {
	out := map[int][]string{}
	for _, m := range ms {
		for k, v := range m {
			out[k] = append(out[k], v...)
		}
	}
	return out
}

// FuzzSettle checks what holds for any sequence: a burst ends, no later than its bounds allow, and no event is
// lost.
func FuzzSettle(f *testing.F) {
	f.Add([]byte{1, 2, 3, 200, 1, 1, 1}, []byte{10, 20}, []byte{5})
	f.Fuzz(func(t *testing.T, gaps, locks, gones []byte) {
		if len(gaps) > 200 {
			gaps = gaps[:200]
		}
		locks, gones = locks[:min(len(locks), 50)], gones[:min(len(gones), 50)]
		toggles := func(bs []byte) func(int) bool {
			return func(ms int) bool {
				at, on := 0, false
				for _, b := range bs {
					if at += int(b) * 10; at > ms {
						break
					}
					on = !on
				}
				return on
			}
		}
		events := map[int][]string{}
		at := 0
		for i, g := range gaps {
			at += int(g)
			events[at] = append(events[at], fmt.Sprint(i%40))
		}
		s := settler{rest: 5 * time.Millisecond, restBurst: 100 * time.Millisecond, cap: 2 * time.Second}
		c := settleScript{events: events, locked: toggles(locks), gone: toggles(gones), duration: at + 7000}
		reports, paths := c.run(s)
		from := -1
		for i, r := range reports {
			want := map[string]bool{}
			first := -1
			for ms := from + 1; ms <= r; ms++ {
				for _, p := range events[ms] {
					if first < 0 {
						first = ms
					}
					want[p] = true
				}
			}
			if len(want) != len(paths[i]) {
				t.Fatalf("report at %d has %d paths, want %d", r, len(paths[i]), len(want))
			}
			if r-first > 30_000+2000+200 {
				t.Fatalf("burst from %d was reported at %d", first, r)
			}
			from = r
		}
		for ms := from + 1; ms < c.duration; ms++ {
			if len(events[ms]) > 0 {
				t.Fatalf("event at %d was never reported", ms)
			}
		}
	})
}

// Events that nobody takes for long are not kept for ever: everything is looked at anew instead.
func TestMailboxIsBounded(t *testing.T) {
	b := mailbox{wake: make(chan struct{}, 1)}
	for range maxEvents {
		b.putEvents(event{path: "x"})
	}
	if m := b.take(); m.overflow || len(m.events) != maxEvents {
		t.Fatalf("%d events, overflow %v", len(m.events), m.overflow)
	}
	for range maxEvents + 1 {
		b.putEvents(event{path: "x"})
	}
	if m := b.take(); !m.overflow || len(m.events) > 1 {
		t.Errorf("%d events, overflow %v", len(m.events), m.overflow)
	}
}
