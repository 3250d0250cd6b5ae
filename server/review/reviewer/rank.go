package reviewer

import (
	"strings"
	"time"

	"fairlead.dev/server/review/codeowners"
)

// Change is what reviewers are looked for.
type Change struct {
	Author string   // Name <email>
	With   []string // who else wrote it, and does not review it either
	Files  []File
	Lines  []Written // whose lines it edits, from Blame; may be nil
	Owners []codeowners.Required
	Time   time.Time // now; what was later is not looked at less, so it is the caller's to be right
}

// File is one that the change edits, under the name that it has on the branch that the change goes to.
type File struct {
	Path  string
	Lines int // that are edited; 0 is unknown
}

// Known is what a forge knows more. People are their logins or addresses there. The zero value knows nothing.
type Known struct {
	Logins     map[string]string   // address -> login
	Assignable []string            // who can be asked; nil is unknown
	Absent     []string            // who is away
	Open       map[string]int      // reviews that wait for somebody already
	Members    map[string][]string // of teams, by their names in CODEOWNERS without the @
}

// Suggestion is somebody who can review the change.
type Suggestion struct {
	Name  string
	Email string
	Login string // empty where it is unknown
	// Score is the sum of points (see weights). It orders the suggestions of one change and means nothing across changes.
	Score float64
	// Why is one line for the author: "wrote 40 % of the changes to calls.go, last 3 days ago; reviewed 5 of your last 9".
	Why string
	// Required is set where CODEOWNERS names them, or a team of theirs: then Team is that team.
	Required bool
	Team     string

	person int32
}

func (s Suggestion) String() string { return s.Name + " <" + s.Email + ">" }

// Ranking is what Rank found.
type Ranking struct {
	// Suggestions has who is required first, and both parts from the best down.
	Suggestions []Suggestion
	// Teams are the teams that must be asked, with the reason, whoever of them is suggested.
	Teams []Team
}

// Team is a team that CODEOWNERS names.
type Team struct{ Name, Why string }

// weights are what a share of 1 in something is worth, in points. They are those of a conditional logit: a point more makes
// somebody e times as likely to be who reviews. Fitted on golang/tools, on 3,000 changes before the last 1,000, and rounded.
// docs/reviewers.md tells what each is for.
type weights struct {
	wrote, reviewed             float64 // of the changes to the edited files
	wroteBeside, reviewedBeside float64 // of those to their folders, a level up counting half
	familiar                    float64 // of the reviews of this author's changes
	lately                      float64 // reviewed this author; halves in 20 days
	active                      float64 // did anything; halves in 20 days
	busy                        float64 // of all reviews of late: who has the most is spared
	lines                       float64 // of the lines that are edited; not fitted: blame of thousands of changes takes hours
	open                        float64 // for each doubling of the reviews that wait; not fitted: git does not know them
}

var fitted = weights{wrote: 2, reviewed: 1.7, wroteBeside: 0.75, reviewedBeside: 1.9, familiar: 0.5, lately: 2.5, active: 3.8, busy: -1.2,
	lines: 2, open: -0.4}

const (
	// former is how long somebody has done nothing who is not suggested any more.
	former = 183 * 24 * time.Hour
	// byLanding is how much of a review it is to have committed or merged what another wrote, where nothing says more.
	byLanding = 0.5
	// broad is how many files a change can have and still say all that it says about the folders of each.
	broad = 10
)

// Rank suggests reviewers for a change.
func (h *History) Rank(c Change, k Known) Ranking {
	r := &ranking{history: h, change: c, known: k, author: h.find(c.Author), authors: map[int32]bool{}, now: c.Time.Unix(),
		evidence: make([]evidence, len(h.people)), logins: map[string]string{}, open: map[string]int{}}
	for email, login := range k.Logins {
		r.logins[strings.ToLower(email)] = login
	}
	for who, n := range k.Open {
		r.open[strings.ToLower(who)] = n
	}
	for _, a := range append([]string{c.Author}, c.With...) {
		h.mark(a, r.authors)
	}
	r.collect()
	r.score(fitted)
	return r.suggest()
}

// ranking is one Rank under way.
type ranking struct {
	history *History
	change  Change
	known   Known
	author  int32          // or none: somebody new
	authors map[int32]bool // who cannot review it
	now     int64

	logins map[string]string // the forge's, by address in lower case
	open   map[string]int    // the forge's, by lower case

	evidence []evidence // by person
	exact    []touch    // commits that changed an edited file
}

// touch is a commit that changed an edited file.
type touch struct{ commit, file int32 }
