package reviewer

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// most is how many are suggested: nobody reads on, and each has a reason that costs something.
const most = 20

// find is the person that `Name <email>`, an address in <>, or a name is in the history, or none.
func (h *History) find(who string) int32 {
	i, _ := parseIdentity(who)
	if p, ok := h.byEmail[strings.ToLower(i.email)]; ok {
		return p
	}
	if p, ok := h.byName[fullName(i.name)]; ok {
		return p
	}
	return none
}

// mark puts all persons that `Name <email>` can be into a set: the address can be one's and the name another's, where nothing in
// the history joins them.
func (h *History) mark(who string, in map[int32]bool) {
	i, _ := parseIdentity(who)
	if p, ok := h.byEmail[strings.ToLower(i.email)]; ok {
		in[p] = true
	}
	if p, ok := h.byName[fullName(i.name)]; ok {
		in[p] = true
	}
	for n, known := range h.index.people { // an address that is nobody's (example.com) with the very name beside it is somebody's
		if strings.EqualFold(known.email, i.email) && known.name == i.name {
			in[h.who[n]] = true
		}
	}
}

// handles has who a login or an address is, in lower case.
func (r *ranking) handles() map[string]int32 {
	all := map[string]int32{}
	for p := range r.history.people {
		for _, l := range r.history.people[p].Logins {
			all[strings.ToLower(l)] = int32(p)
		}
	}
	for email, p := range r.history.byEmail {
		all[email] = p
	}
	for email, login := range r.known.Logins {
		if p, ok := r.history.byEmail[strings.ToLower(email)]; ok {
			all[strings.ToLower(login)] = p
		}
	}
	return all
}

// names are the person's addresses and logins, in lower case.
func (r *ranking) names(p int32) []string {
	who := r.history.people[p]
	names := slices.Clone(who.Emails)
	for _, l := range who.Logins {
		names = append(names, strings.ToLower(l))
	}
	if l := r.login(p); l != "" {
		names = append(names, strings.ToLower(l))
	}
	return names
}

func (r *ranking) login(p int32) string {
	who := r.history.people[p]
	for _, e := range who.Emails {
		if l := r.logins[e]; l != "" {
			return l
		}
	}
	if len(who.Logins) > 0 {
		return who.Logins[len(who.Logins)-1]
	}
	return ""
}

func (r *ranking) waiting(p int32) int {
	n := 0
	if len(r.open) > 0 {
		for _, name := range r.names(p) {
			n = max(n, r.open[name])
		}
	}
	return n
}

// among is whether one of a person's names is in a set.
func (r *ranking) among(set map[string]bool, p int32) bool {
	return len(set) > 0 && slices.ContainsFunc(r.names(p), func(n string) bool { return set[n] })
}

func lowered(list []string) map[string]bool {
	set := map[string]bool{}
	for _, s := range list {
		set[strings.ToLower(s)] = true
	}
	return set
}

// suggest puts who is required before who is good.
func (r *ranking) suggest() Ranking {
	absent, assignable := lowered(r.known.Absent), lowered(r.known.Assignable)
	can := func(p int32) bool {
		return !r.among(absent, p) && (r.known.Assignable == nil || r.among(assignable, p))
	}
	var order []int32
	for p := range r.evidence {
		if r.candidate(int32(p)) && can(int32(p)) {
			order = append(order, int32(p))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		x, y := r.history.people[a], r.history.people[b]
		return cmp.Or(cmp.Compare(r.evidence[b].points, r.evidence[a].points), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Email, y.Email))
	})
	rank := map[int32]int{}
	for n, p := range order {
		rank[p] = n
	}

	why := newReasons(r)
	required, teams, taken := r.required(rank, absent)
	out := Ranking{Teams: teams, Suggestions: required}
	for i := range out.Suggestions {
		if s := &out.Suggestions[i]; s.person != none {
			if more := why.of(s.person); more != "" {
				s.Why += "; " + more
			}
		}
	}
	for _, p := range order {
		if len(out.Suggestions) >= most {
			break
		}
		if !taken[p] {
			s := r.suggestion(p)
			s.Why = why.of(p)
			out.Suggestions = append(out.Suggestions, s)
		}
	}
	return out
}

func (r *ranking) suggestion(p int32) Suggestion {
	who := r.history.people[p]
	return Suggestion{Name: who.Name, Email: who.Email, Login: r.login(p), Score: r.evidence[p].points, person: p}
}

// required are the owners that CODEOWNERS names, as people: of a team the one who ranks best, where its members are known. They
// are in it whatever the history says of them; that they are away or were not seen for long is said.
func (r *ranking) required(rank map[int32]int, absent map[string]bool) (people []Suggestion, teams []Team, taken map[int32]bool) {
	handles := r.handles()
	taken = map[int32]bool{}
	for _, o := range r.change.Owners {
		reason := fmt.Sprintf("CODEOWNERS line %d names them for %s", o.Line, several(o.Files))
		if o.Section != "" {
			reason += fmt.Sprintf(" (section %s", o.Section)
			if o.Optional {
				reason += ", optional"
			}
			reason += ")"
		}
		if o.Team {
			teams = append(teams, Team{o.Owner, strings.Replace(reason, "names them", "names it", 1)})
			best := int32(none)
			for _, m := range r.known.Members[o.Owner] {
				if p, ok := handles[strings.ToLower(m)]; ok {
					if n, is := rank[p]; is && (best == none || n < rank[best]) {
						best = p
					}
				}
			}
			if best == none || taken[best] {
				continue
			}
			s := r.suggestion(best)
			s.Required, s.Team, s.Why = true, o.Owner, "the best of "+o.Owner+", which CODEOWNERS names for "+several(o.Files)
			people, taken[best] = append(people, s), true
			continue
		}
		p, ok := handles[strings.ToLower(o.Owner)]
		if !ok { // the forge knows them, the history does not
			s := Suggestion{Name: o.Owner, Required: true, Why: reason + "; nothing of them in the history", person: none}
			if strings.Contains(o.Owner, "@") {
				s.Email = o.Owner
			} else {
				s.Login = o.Owner
			}
			if !r.isAuthor(o.Owner) && !slices.ContainsFunc(people, func(q Suggestion) bool { return q.person == none && strings.EqualFold(q.Name, s.Name) }) {
				people = append(people, s)
			}
			continue
		}
		if r.authors[p] || taken[p] {
			continue
		}
		s := r.suggestion(p)
		s.Required, s.Why = true, reason
		if s.Login == "" && !strings.Contains(o.Owner, "@") {
			s.Login = o.Owner
		}
		switch e := r.evidence[p]; {
		case r.among(absent, p):
			s.Why += "; away at the moment"
		case e.last > 0 && !r.candidate(p) && !r.history.people[p].bot:
			s.Why += "; not seen here since " + time.Unix(e.last, 0).UTC().Format("January 2006")
		}
		people, taken[p] = append(people, s), true
	}
	slices.SortStableFunc(people, func(a, b Suggestion) int { return cmp.Compare(b.Score, a.Score) })
	return people, teams, taken
}

// isAuthor is whether a login or address that the history does not know is the author's own.
func (r *ranking) isAuthor(handle string) bool {
	for _, a := range append([]string{r.change.Author}, r.change.With...) {
		who, _ := parseIdentity(a)
		if strings.EqualFold(who.email, handle) || strings.EqualFold(r.logins[strings.ToLower(who.email)], handle) {
			return true
		}
	}
	return false
}

// several names one of the files, and how many more there are.
func several(files []string) string {
	switch len(files) {
	case 0:
		return "the change"
	case 1:
		return clean(files[0])
	default:
		return fmt.Sprintf("%s and %d more", clean(files[0]), len(files)-1)
	}
}

// reasons has the counts that reasons are made of.
type reasons struct {
	r       *ranking
	files   []fileCount // of the edited files
	asked   int         // of the author's last changes that somebody reviewed
	helped  map[int32]int
	folders []string                // of the edited files, from their own to the outermost
	beside  []map[int32]folderCount // by folder and person, in the last year
	lines   int
	written map[int32]int // of the edited lines
}

type fileCount struct {
	changes, reviewed int
	by                map[int32]*personCount
}

type personCount struct {
	wrote, reviewed int
	last            int64
}

type folderCount struct{ wrote, reviewed int }

// asked is of how many of the author's last changes a reason speaks.
const asked = 9

func newReasons(r *ranking) *reasons {
	w := &reasons{r: r, files: make([]fileCount, len(r.change.Files)), helped: map[int32]int{}, written: map[int32]int{}}
	h := r.history
	for _, t := range r.exact {
		c, f := &h.index.commits[t.commit], &w.files[t.file]
		if f.by == nil {
			f.by = map[int32]*personCount{}
		}
		of := func(p int32) *personCount {
			if f.by[p] == nil {
				f.by[p] = &personCount{}
			}
			f.by[p].last = max(f.by[p].last, c.time)
			return f.by[p]
		}
		if !c.merge {
			f.changes++
			for _, a := range c.authors {
				of(h.who[a]).wrote++
			}
		}
		if by := h.reviewers(c); len(by) > 0 {
			f.reviewed++
			for _, p := range by {
				of(p).reviewed++
			}
		}
	}
	for n := h.prefix - 1; n >= 0 && w.asked < asked && r.author != none; n-- {
		c := &h.index.commits[n]
		if len(c.authors) == 0 || h.who[c.authors[0]] != r.author {
			continue
		}
		if by := h.reviewers(c); len(by) > 0 {
			w.asked++
			for _, p := range by {
				w.helped[p]++
			}
		}
	}
	w.countFolders()
	for _, l := range r.change.Lines {
		w.lines += l.Lines
		if p := h.find("<" + l.Email + ">"); p != none {
			w.written[p] += l.Lines
		}
	}
	return w
}

// reviewers are the persons who reviewed a commit, each once: by trailers, or else who landed it.
func (h *History) reviewers(c *commit) []int32 {
	var out []int32
	for _, p := range c.reviewed {
		if !h.wrote(c, h.who[p]) {
			out = appendNew(out, h.who[p])
		}
	}
	if len(c.reviewed) == 0 && c.landed != none && !h.wrote(c, h.who[c.landed]) {
		out = append(out, h.who[c.landed])
	}
	return out
}

func (w *reasons) countFolders() {
	if len(w.r.change.Files) == 0 {
		return
	}
	h, x := w.r.history, w.r.history.index
	common := path.Dir(w.r.change.Files[0].Path)
	for _, f := range w.r.change.Files {
		for common != "." && !strings.HasPrefix(f.Path, common+"/") {
			common = path.Dir(common)
		}
	}
	if common == "." { // nothing in common but the root: then that of the first
		common = path.Dir(w.r.change.Files[0].Path)
	}
	type span struct{ from, to int32 }
	var spans []span
	for dir := common; dir != "." && dir != "/"; dir = path.Dir(dir) {
		from, _ := slices.BinarySearch(x.paths, dir+"/")
		to, _ := slices.BinarySearch(x.paths, dir+"0") // '0' follows '/'
		w.folders, spans = append(w.folders, dir), append(spans, span{int32(from), int32(to)})
		w.beside = append(w.beside, map[int32]folderCount{})
	}
	for n := range x.commits[:h.prefix] {
		c := &x.commits[n]
		if w.r.days(c.time) > 365 {
			continue
		}
		for i, s := range spans {
			if at, _ := slices.BinarySearch(c.files, s.from); at == len(c.files) || c.files[at] >= s.to {
				continue
			}
			if !c.merge {
				for _, a := range c.authors {
					f := w.beside[i][h.who[a]]
					f.wrote++
					w.beside[i][h.who[a]] = f
				}
			}
			for _, p := range h.reviewers(c) {
				f := w.beside[i][p]
				f.reviewed++
				w.beside[i][p] = f
			}
		}
	}
}

// of is the reason for a person: the two things that got them the most points.
func (w *reasons) of(p int32) string {
	e := w.r.evidence[p]
	type reason struct {
		points float64
		text   string
	}
	all := []reason{
		{e.lines, w.ofLines(p)},
		{e.wrote + e.reviewed, w.ofFiles(p)},
		{e.wroteBeside + e.reviewedBeside, w.ofFolder(p)},
		{e.familiar + e.lately, w.ofAuthor(p)},
	}
	slices.SortStableFunc(all, func(a, b reason) int { return cmp.Compare(b.points, a.points) })
	var out []string
	for _, r := range all {
		if r.text != "" && len(out) < 2 {
			out = append(out, r.text)
		}
	}
	if len(out) == 0 && e.last > 0 && !w.r.authors[p] {
		out = append(out, "active in this repository, last "+ago(w.r.days(e.last)))
	}
	return strings.Join(out, "; ")
}

func (w *reasons) ofLines(p int32) string {
	switch n := w.written[p]; {
	case n > 0 && w.lines == 1:
		return "wrote the line that is edited"
	case n > 0 && n == w.lines:
		return fmt.Sprintf("wrote all %d lines that are edited", n)
	case n > 0:
		return fmt.Sprintf("wrote %d of the %d lines that are edited", n, w.lines)
	}
	return ""
}

// ofFiles speaks of the file of which they know the most.
func (w *reasons) ofFiles(p int32) string {
	best, share := -1, 0.0
	for i, f := range w.files {
		if c := f.by[p]; c != nil {
			if s := float64(c.wrote)/float64(max(f.changes, 1)) + float64(c.reviewed)/float64(max(f.reviewed, 1)); s > share {
				best, share = i, s
			}
		}
	}
	if best < 0 {
		return ""
	}
	f, c := w.files[best], w.files[best].by[p]
	name, last := clean(w.r.change.Files[best].Path), ", last "+ago(w.r.days(c.last))
	wrote, reviewed := percent(c.wrote, f.changes), percent(c.reviewed, f.reviewed)
	switch {
	case c.reviewed == 0:
		return fmt.Sprintf("wrote %s of the changes to %s%s", wrote, name, last)
	case c.wrote == 0:
		return fmt.Sprintf("reviewed %s of the changes to %s%s", reviewed, name, last)
	default:
		return fmt.Sprintf("wrote %s and reviewed %s of the changes to %s%s", wrote, reviewed, name, last)
	}
}

func (w *reasons) ofFolder(p int32) string {
	for i, folder := range w.folders {
		c, ok := w.beside[i][p]
		if !ok {
			continue
		}
		what := fmt.Sprintf("wrote %s and reviewed %d", count(c.wrote, "change"), c.reviewed)
		if c.reviewed == 0 {
			what = fmt.Sprintf("wrote %s", count(c.wrote, "change"))
		} else if c.wrote == 0 {
			what = fmt.Sprintf("reviewed %s", count(c.reviewed, "change"))
		}
		return what + " in " + clean(folder) + "/ in the last year"
	}
	return ""
}

func (w *reasons) ofAuthor(p int32) string {
	if n := w.helped[p]; n > 0 {
		if w.asked == 1 {
			return "reviewed your last change"
		}
		return fmt.Sprintf("reviewed %d of your last %d", n, w.asked)
	}
	if e := w.r.evidence[p]; e.lastOfAuthor > 0 {
		return "reviewed you last " + ago(w.r.days(e.lastOfAuthor))
	}
	return ""
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func percent(n, of int) string {
	if n > 0 && n*100 < of {
		return "under 1 %"
	}
	return fmt.Sprintf("%d %%", (n*100+of/2)/max(of, 1))
}

// ago is a time in the unit in which one thinks of it.
func ago(days int) string {
	switch {
	case days == 0:
		return "today"
	case days == 1:
		return "yesterday"
	case days < 60:
		return fmt.Sprintf("%d days ago", days)
	case days < 730:
		return fmt.Sprintf("%d months ago", (days+15)/30)
	default:
		return fmt.Sprintf("%d years ago", (days+182)/365)
	}
}
