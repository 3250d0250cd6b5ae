package lease

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Policy says how long what is not used stays. Zero is for ever.
type Policy struct {
	Sleep  time.Duration // unused for that long, it is scaled to zero
	Delete time.Duration // asleep for that long, it is deleted
}

// DefaultPolicy is what an environment has that says nothing.
var DefaultPolicy = Policy{Sleep: 2 * time.Hour, Delete: 3 * 24 * time.Hour}

const (
	// warnBefore is how long before it is put to sleep or deleted an environment is said to be due.
	warnBefore = 10 * time.Minute
	// precision is that of managedFields: a use is up to a second younger than its stamp.
	precision = time.Second
	// recordLimit is how long an environment may be without its UID: it is written right after the Deployment is made.
	recordLimit = 10 * time.Minute
	// longest bounds what a duration or a time in an annotation can mean: a hundred years is a mistake.
	longest = 100 * 365 * 24 * time.Hour
)

// State is what a Deployment says of its lease.
type State struct {
	Policy
	Created     time.Time
	LastUse     time.Time // by the API server's clock
	LastUseWhy  string
	KeepUntil   time.Time // zero: it is not kept
	Asleep      bool
	AsleepSince time.Time // zero: nobody has written down since when
	// Unrecorded: it does not have its own UID. It is just being made, or was made in some other way.
	Unrecorded bool
	// Bad is what cannot be understood, each in words. Such an environment is kept.
	Bad []string
}

// Read parses what a Deployment says, with a policy for one that says none. Anyone who may write to the Deployment may
// have written it: nothing of it is trusted to be well formed.
func Read(d *appsv1.Deployment, fallback Policy) State {
	s := State{Policy: fallback, Created: d.CreationTimestamp.Time, LastUseWhy: words(d.Annotations[annUsedWhy])}
	s.Unrecorded = d.UID == "" || d.Annotations[MadeUID] != string(d.UID)
	s.Asleep = d.Spec.Replicas != nil && *d.Spec.Replicas == 0
	bad := func(name, want string) {
		s.Bad = append(s.Bad, fmt.Sprintf("annotation %s is not %s: %q", name, want, words(d.Annotations[name])))
	}
	for name, into := range map[string]*time.Duration{annSleepAfter: &s.Sleep, annDeleteAfter: &s.Delete} {
		text, ok := d.Annotations[name]
		if !ok {
			continue
		}
		if text == never {
			*into = 0
		} else if v, err := time.ParseDuration(text); err != nil || v <= 0 || v > longest {
			bad(name, "a duration or \"never\"")
		} else {
			*into = v
		}
	}
	for name, into := range map[string]*time.Time{annKeepUntil: &s.KeepUntil, annAsleepSince: &s.AsleepSince} {
		text, ok := d.Annotations[name]
		if !ok {
			continue
		}
		if v, err := time.Parse(time.RFC3339, text); err != nil {
			bad(name, "a time")
		} else {
			*into = v
		}
	}
	stamped := false
	s.LastUse = s.Created
	for _, m := range d.ManagedFields {
		if m.Time == nil || !isUse(m) {
			continue
		}
		stamped = stamped || m.Manager == managerUse
		if m.Time.After(s.LastUse) {
			s.LastUse = m.Time.Time
		}
	}
	if d.Annotations[annUsed] != "" && !stamped {
		// Something strips managedFields, or this is a restored backup: when it was used cannot be told.
		s.Bad = append(s.Bad, "its managedFields do not say when it was last used")
	}
	return s
}

// isUse tells whether a write of the Deployment means that somebody wants the environment. Scaling does, but has no stamp:
// see Woken.
func isUse(m metav1.ManagedFieldsEntry) bool {
	return m.Manager == managerUse || m.Manager == managerOpen && m.Subresource == ""
}

// words makes one short line of an annotation.
func words(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)), " ")
	if r := []rune(s); len(r) > 80 {
		s = string(r[:80]) + "..."
	}
	return s
}

// Action is what is to be done with an environment.
type Action string

const (
	Keep  Action = "keep"
	Warn  Action = "warn" // it is put to sleep or deleted soon
	Sleep Action = "sleep"
	// Woken: somebody scaled up what was asleep, without Fairlead. That is a use, and is to be written down as one, since
	// the API server stamps no change of the scale subresource.
	Woken  Action = "woken"
	Delete Action = "delete"
)

// Decision is what is to be done now, and when to look again.
type Decision struct {
	Action Action    `json:"action"`
	Why    string    `json:"why"`            // in words for a person
	At     time.Time `json:"at,omitzero"`    // when the decision is another one if nothing happens; zero: never
	Then   Action    `json:"then,omitempty"` // what comes next if it stays unused: Sleep or Delete
	Due    time.Time `json:"due,omitzero"`   // when that comes
}

// Decide says what is to be done with an environment at a time.
func Decide(s State, now time.Time) Decision {
	if len(s.Bad) > 0 {
		return Decision{Action: Keep, Why: strings.Join(s.Bad, "; ")}
	}
	if s.Unrecorded {
		if young := s.Created.Add(recordLimit); now.Before(young) {
			return Decision{Action: Keep, Why: "it is just being made", At: young}
		}
		return Decision{Action: Keep, Why: "it does not have its own UID in annotation " + MadeUID + ", so Fairlead may not have made it"}
	}
	if !s.Asleep && !s.AsleepSince.IsZero() {
		return Decision{Action: Woken, Why: "it was scaled up"}
	}
	d := Decision{Then: Sleep}
	limit, since, what := s.Sleep, s.LastUse.Add(precision), "unused since "
	if s.Asleep {
		d.Then, limit, what = Delete, s.Delete, "asleep since "
		switch {
		case s.AsleepSince.IsZero():
			// Scaled to zero by somebody: its sleep begins when that is written down.
			return Decision{Action: Sleep, Why: "it was scaled to zero"}
		case s.AsleepSince.After(since):
			since = s.AsleepSince
		}
	}
	if limit == 0 {
		d.Action, d.Then, d.Why = Keep, "", "its policy lets it stay for ever"
		if s.KeepUntil.After(now) {
			d.Why = "it is kept until " + stamp(s.KeepUntil)
		}
		return d
	}
	d.Due = since.Add(limit)
	if s.KeepUntil.After(d.Due) {
		d.Due = s.KeepUntil
	}
	warn := d.Due.Add(-min(warnBefore, limit/2))
	switch {
	case !now.Before(d.Due):
		d.Action = d.Then
		d.Why = what + stamp(since)
	case !now.Before(warn):
		d.Action, d.At = Warn, d.Due
		d.Why = what + stamp(since)
	case s.KeepUntil.After(now):
		d.Action, d.At = Keep, warn
		d.Why = "it is kept until " + stamp(s.KeepUntil)
	case s.Asleep:
		d.Action, d.At = Keep, warn
		d.Why = what + stamp(since)
	default:
		d.Action, d.At = Keep, warn
		d.Why = "used " + stamp(s.LastUse)
		if s.LastUseWhy != "" {
			d.Why += ": " + s.LastUseWhy
		}
	}
	return d
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
