package lease

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestDecide(t *testing.T) {
	used := State{Policy: DefaultPolicy, Created: t0.Add(-time.Hour), LastUse: t0, LastUseWhy: "a save"}
	asleep := State{Policy: DefaultPolicy, Created: t0.Add(-time.Hour), LastUse: t0.Add(-3 * time.Hour), Asleep: true, AsleepSince: t0}
	with := func(s State, f func(*State)) State { f(&s); return s }
	sleeps, goes := t0.Add(2*time.Hour+time.Second), t0.Add(72*time.Hour)
	for name, c := range map[string]struct {
		s     State
		after time.Duration
		want  Decision // Why: a part of it
	}{
		"just used":          {used, 0, Decision{Keep, "used 2026-03-01 12:00:00Z: a save", sleeps.Add(-10 * time.Minute), Sleep, sleeps}},
		"soon to sleep":      {used, 111 * time.Minute, Decision{Warn, "unused since", sleeps, Sleep, sleeps}},
		"the last second":    {used, 2 * time.Hour, Decision{Warn, "unused since", sleeps, Sleep, sleeps}},
		"to sleep":           {used, 2*time.Hour + time.Second, Decision{Sleep, "unused since 2026-03-01 12:00:01Z", time.Time{}, Sleep, sleeps}},
		"asleep":             {asleep, time.Hour, Decision{Keep, "asleep since", goes.Add(-10 * time.Minute), Delete, goes}},
		"soon to go":         {asleep, 72*time.Hour - time.Minute, Decision{Warn, "asleep since", goes, Delete, goes}},
		"to go":              {asleep, 72 * time.Hour, Decision{Delete, "asleep since 2026-03-01 12:00:00Z", time.Time{}, Delete, goes}},
		"used while asleep":  {with(asleep, func(s *State) { s.LastUse = t0.Add(time.Hour) }), 72 * time.Hour, Decision{Keep, "asleep since 2026-03-01 13:00:01Z", t0.Add(73*time.Hour + time.Second - 10*time.Minute), Delete, t0.Add(73*time.Hour + time.Second)}},
		"scaled by somebody": {with(asleep, func(s *State) { s.AsleepSince = time.Time{} }), 1000 * time.Hour, Decision{Action: Sleep, Why: "it was scaled to zero"}},
		"woken by somebody":  {with(asleep, func(s *State) { s.Asleep = false }), 1000 * time.Hour, Decision{Action: Woken, Why: "it was scaled up"}},
		"kept":               {with(used, func(s *State) { s.KeepUntil = t0.Add(72 * time.Hour) }), 48 * time.Hour, Decision{Keep, "it is kept until 2026-03-04 12:00:00Z", goes.Add(-10 * time.Minute), Sleep, goes}},
		"soon kept no more":  {with(used, func(s *State) { s.KeepUntil = t0.Add(72 * time.Hour) }), 72*time.Hour - time.Second, Decision{Warn, "unused since", goes, Sleep, goes}},
		"kept for less":      {with(used, func(s *State) { s.KeepUntil = t0.Add(time.Hour) }), time.Minute, Decision{Keep, "it is kept until", sleeps.Add(-10 * time.Minute), Sleep, sleeps}},
		"kept asleep":        {with(asleep, func(s *State) { s.KeepUntil = goes.Add(time.Hour) }), 72 * time.Hour, Decision{Keep, "it is kept until", goes.Add(50 * time.Minute), Delete, goes.Add(time.Hour)}},
		"never sleeps":       {with(used, func(s *State) { s.Sleep = 0 }), 10000 * time.Hour, Decision{Action: Keep, Why: "for ever"}},
		"never goes":         {with(asleep, func(s *State) { s.Delete = 0 }), 10000 * time.Hour, Decision{Action: Keep, Why: "for ever"}},
		"short policy":       {with(used, func(s *State) { s.Sleep = 10 * time.Minute }), 4 * time.Minute, Decision{Keep, "used", t0.Add(5*time.Minute + time.Second), Sleep, t0.Add(10*time.Minute + time.Second)}},
		"being made":         {with(used, func(s *State) { s.Unrecorded, s.Created = true, t0 }), 9 * time.Minute, Decision{Action: Keep, Why: "just being made", At: t0.Add(10 * time.Minute)}},
		"made by whom":       {with(used, func(s *State) { s.Unrecorded = true }), 1000 * time.Hour, Decision{Action: Keep, Why: "may not have made it"}},
		"unreadable":         {with(asleep, func(s *State) { s.Bad = []string{"so and so"} }), 1000 * time.Hour, Decision{Action: Keep, Why: "so and so"}},
	} {
		got := Decide(c.s, t0.Add(c.after))
		if !strings.Contains(got.Why, c.want.Why) {
			t.Errorf("%s: why %q, want %q in it", name, got.Why, c.want.Why)
		}
		got.Why = c.want.Why
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// What is decided never changes before the time that was told, and does then.
func TestDecideTellsWhenToLookAgain(t *testing.T) {
	for _, s := range []State{
		{Policy: DefaultPolicy, LastUse: t0},
		{Policy: DefaultPolicy, LastUse: t0, KeepUntil: t0.Add(100 * time.Hour)},
		{Policy: DefaultPolicy, LastUse: t0, Asleep: true, AsleepSince: t0},
		{Policy: DefaultPolicy, Created: t0, LastUse: t0, Unrecorded: true},
		{Policy: Policy{Sleep: 2 * time.Second, Delete: time.Second}, LastUse: t0},
	} {
		now, steps := t0, 0
		for d := Decide(s, now); !d.At.IsZero(); d = Decide(s, now) {
			if steps++; steps > 5 || !d.At.After(now) {
				t.Fatalf("%+v: no progress at %v: %+v", s, now, d)
			}
			if before := Decide(s, d.At.Add(-time.Nanosecond)); before.Action != d.Action {
				t.Errorf("%+v: %v already before %v", s, before.Action, d.At)
			}
			now = d.At
			if after := Decide(s, now); after.Action == d.Action && after.Why == d.Why && after.At.Equal(d.At) {
				t.Errorf("%+v: still %v at %v", s, d.Action, now)
			}
		}
		if steps == 0 {
			t.Errorf("%+v: never looked at again", s)
		}
	}
}

func deployment(f func(*appsv1.Deployment)) *appsv1.Deployment {
	at := metav1.NewTime(t0)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "u", CreationTimestamp: metav1.NewTime(t0.Add(-time.Hour)), Annotations: map[string]string{MadeUID: "u", annUsed: "r", annUsedWhy: "a save"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: managerUse, Operation: metav1.ManagedFieldsOperationUpdate, Time: &at}}}}
	if f != nil {
		f(d)
	}
	return d
}

func TestRead(t *testing.T) {
	plain := State{Policy: DefaultPolicy, Created: t0.Add(-time.Hour), LastUse: t0, LastUseWhy: "a save"}
	with := func(f func(*State)) State { s := plain; f(&s); return s }
	later := metav1.NewTime(t0.Add(time.Minute))
	entry := func(manager, sub string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) {
			d.ManagedFields = append(d.ManagedFields, metav1.ManagedFieldsEntry{Manager: manager, Subresource: sub, Time: &later}, metav1.ManagedFieldsEntry{Manager: managerUse})
		}
	}
	note := func(name, value string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) { d.Annotations[name] = value }
	}
	for name, c := range map[string]struct {
		edit func(*appsv1.Deployment)
		want State
	}{
		"plain":  {nil, plain},
		"policy": {func(d *appsv1.Deployment) { note(annSleepAfter, "5m0s")(d); note(annDeleteAfter, "never")(d) }, with(func(s *State) { s.Sleep, s.Delete = 5*time.Minute, 0 })},
		"kept":   {note(annKeepUntil, "2026-03-02T12:00:00Z"), with(func(s *State) { s.KeepUntil = t0.Add(24 * time.Hour) })},
		"asleep": {func(d *appsv1.Deployment) {
			d.Spec.Replicas = new(int32(0))
			note(annAsleepSince, "2026-03-01T11:00:00Z")(d)
		}, with(func(s *State) { s.Asleep, s.AsleepSince = true, t0.Add(-time.Hour) })},
		"opened later":   {entry(managerOpen, ""), with(func(s *State) { s.LastUse = later.Time })},
		"edited later":   {entry("kubectl-edit", ""), plain},
		"a controller's": {entry("kube-controller-manager", "status"), plain},
		"janitor's own":  {entry(managerJanitor, ""), plain},
		"keep is no use": {entry(managerKeep, ""), plain},
		"never renewed":  {func(d *appsv1.Deployment) { d.Annotations = map[string]string{MadeUID: "u"}; d.ManagedFields = nil }, with(func(s *State) { s.LastUse, s.LastUseWhy = s.Created, "" })},
		"copied":         {note(MadeUID, "another"), with(func(s *State) { s.Unrecorded = true })},
		"not recorded":   {func(d *appsv1.Deployment) { delete(d.Annotations, MadeUID) }, with(func(s *State) { s.Unrecorded = true })},
		"control codes":  {note(annUsedWhy, "a\x1b[2J \n b\u009b"), with(func(s *State) { s.LastUseWhy = "a [2J b" })},
		"too many words": {note(annUsedWhy, strings.Repeat("x", 1000)), with(func(s *State) { s.LastUseWhy = strings.Repeat("x", 80) + "..." })},
		"no managedFields": {func(d *appsv1.Deployment) { d.ManagedFields = nil }, with(func(s *State) {
			s.LastUse = s.Created
			s.Bad = []string{"its managedFields do not say when it was last used"}
		})},
		"bad duration": {note(annSleepAfter, "soon"), with(func(s *State) {
			s.Bad = []string{`annotation fairlead.dev/sleep-after is not a duration or "never": "soon"`}
		})},
		"no duration": {note(annDeleteAfter, ""), with(func(s *State) {
			s.Bad = []string{`annotation fairlead.dev/delete-after is not a duration or "never": ""`}
		})},
		"negative": {note(annDeleteAfter, "-1h"), with(func(s *State) {
			s.Bad = []string{`annotation fairlead.dev/delete-after is not a duration or "never": "-1h"`}
		})},
		"zero": {note(annDeleteAfter, "0s"), with(func(s *State) {
			s.Bad = []string{`annotation fairlead.dev/delete-after is not a duration or "never": "0s"`}
		})},
		"a thousand years": {note(annDeleteAfter, "8760000h"), with(func(s *State) {
			s.Bad = []string{`annotation fairlead.dev/delete-after is not a duration or "never": "8760000h"`}
		})},
		"bad time": {note(annKeepUntil, "tomorrow"), with(func(s *State) { s.Bad = []string{`annotation fairlead.dev/keep-until is not a time: "tomorrow"`} })},
	} {
		if d := cmp.Diff(c.want, Read(deployment(c.edit), DefaultPolicy)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Whatever an annotation says, reading and deciding end, and nothing unreadable is put to sleep or deleted.
func FuzzRead(f *testing.F) {
	f.Add("2h", "never", "2026-03-01T12:00:00Z", "", true)
	f.Add("", "1ns", "x", "9999-12-31T23:59:59Z", false)
	f.Fuzz(func(t *testing.T, sleep, del, keep, asleep string, zero bool) {
		d := deployment(func(d *appsv1.Deployment) {
			for k, v := range map[string]string{annSleepAfter: sleep, annDeleteAfter: del, annKeepUntil: keep, annAsleepSince: asleep} {
				d.Annotations[k] = v
			}
			if zero {
				d.Spec.Replicas = new(int32(0))
			}
		})
		s := Read(d, DefaultPolicy)
		got := Decide(s, t0.Add(200*365*24*time.Hour))
		if len(s.Bad) > 0 && (got.Action != Keep || got.Why == "") {
			t.Errorf("%+v: %+v", s, got)
		}
		if got.Action == Delete && (!s.Asleep || s.KeepUntil.After(t0.Add(200*365*24*time.Hour))) {
			t.Errorf("%+v: %+v", s, got)
		}
	})
}
