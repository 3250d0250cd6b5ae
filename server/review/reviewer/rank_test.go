package reviewer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fairlead.dev/server/review/codeowners"
	"github.com/google/go-cmp/cmp"
)

// now is when the changes of these tests are made.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// past makes records without git: days ago, who, who reviewed it, files.
type past struct {
	ago      int
	who      string
	reviewed string // with commas
	files    string // with spaces
}

func historyOf(t *testing.T, list ...past) *History {
	t.Helper()
	var records []record
	for i, p := range list {
		author, ok := parseIdentity(p.who)
		if !ok {
			t.Fatal(p.who)
		}
		r := record{hash: id(i + 1), time: now.AddDate(0, 0, -p.ago).Unix(), authors: []identity{author}, landed: author, files: strings.Fields(p.files)}
		if i > 0 {
			r.parents = []id{id(i)}
		}
		for who := range strings.SplitSeq(p.reviewed, ",") {
			if w, ok := parseIdentity(who); ok {
				r.reviewed = append(r.reviewed, w)
			}
		}
		records = append(records, r)
	}
	x := extend(nil, records, "tip", "")
	return newHistory(x, x.people)
}

func names(r Ranking) string {
	var out []string
	for _, s := range r.Suggestions {
		out = append(out, strings.Fields(s.Name)[0])
	}
	return strings.Join(out, " ")
}

func repeat(n int, p past) []past {
	var out []past
	for i := range n {
		q := p
		q.ago += n - i
		out = append(out, q)
	}
	return out
}

func join(lists ...[]past) []past {
	var out []past
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func TestOrder(t *testing.T) {
	change := func(files ...string) Change {
		c := Change{Author: ann, Time: now}
		for _, f := range files {
			c.Files = append(c.Files, File{Path: f})
		}
		return c
	}
	for _, test := range []struct {
		name    string
		history []past
		change  Change
		known   Known
		want    string
	}{
		{"who wrote the file before who wrote beside it before who wrote elsewhere",
			[]past{{10, dan, "", "web/x.go"}, {10, cyd, "", "server/b.go"}, {10, bob, "", "server/a.go"}}, change("server/a.go"), Known{}, "Bob Cyd Dan"},
		{"the nearer folder", []past{{10, bob, "", "a/z/f.go"}, {10, cyd, "", "a/b/c/f.go"}}, change("a/b/g.go"), Known{}, "Cyd Bob"},
		{"who reviewed the file counts as well", []past{{10, ann, cyd, "server/a.go"}, {10, dan, "", "web/x.go"}}, change("server/a.go"), Known{}, "Cyd Dan"},
		{"who reviews this author before who reviews others", []past{{10, dan, bob, "x/1.go"}, {10, ann, cyd, "y/1.go"}}, change("z/new.go"), Known{}, "Cyd Dan Bob"},
		{"who did it lately before who did it then", []past{{170, bob, "", "a.go"}, {2, cyd, "", "a.go"}}, change("a.go"), Known{}, "Cyd Bob"},
		{"nobody who has done nothing for half a year", []past{{184, bob, "", "a.go"}, {180, cyd, "", "b.go"}}, change("a.go"), Known{}, "Cyd"},
		{"no programs", []past{{3, "dependabot[bot] <49699333+dependabot[bot]@users.noreply.github.com>", "", "a.go"}, {2, "Renovate Bot <r@x.org>", "", "a.go"},
			{2, "CI <ci@x.org>", "", "a.go"}, {1, "Ben Abbott <abbott@x.org>", "", "a.go"}}, change("a.go"), Known{}, "Ben"},
		{"not the author, under any of their names", []past{{3, "Ann Able <ann@home.org>", "", "a.go"}, {3, "annie <ann@x.org>", "", "a.go"}, {3, bob, "", "b.go"}}, change("a.go"), Known{}, "Bob"},
		{"not who wrote it as well", []past{{3, cyd, "", "a.go"}, {3, bob, "", "b.go"}}, Change{Author: ann, With: []string{cyd}, Files: []File{{Path: "a.go"}}, Time: now}, Known{}, "Bob"},
		{"whose lines they are", []past{{3, bob, "", "a.go"}, {3, cyd, "", "a.go"}}, Change{Author: ann, Files: []File{{Path: "a.go"}}, Lines: []Written{{"cyd@x.org", 9}}, Time: now}, Known{}, "Cyd Bob"},
		{"more of the file whose lines are edited", []past{{3, bob, "", "a.go"}, {3, cyd, "", "b.go"}}, Change{Author: ann, Files: []File{{"a.go", 1}, {"b.go", 100}}, Time: now}, Known{}, "Cyd Bob"},
		{"a large change says little of each folder", []past{{3, bob, "", "s/1 s/2 s/3 s/4 s/5 s/6 s/7 s/8 s/9 s/10 s/11 s/12 s/13 s/14 s/15 s/16 s/17 s/18 s/19 s/20"}, {3, cyd, "", "s/1"}}, change("s/a"), Known{}, "Cyd Bob"},
		{"of the same the one who reviews less", join(repeat(20, past{1, dan, bob, "x.go"}), []past{{1, dan, cyd, "y.go"}, {1, dan, bob + "," + cyd, "a.go"}}), change("a.go"), Known{}, "Dan Cyd Bob"},
		{"who has fewer reviews waiting", []past{{3, bob, "", "a.go"}, {3, cyd, "", "a.go"}}, change("a.go"), Known{Logins: map[string]string{"Bob@x.org": "bobby"}, Open: map[string]int{"Bobby": 3}}, "Cyd Bob"},
		{"who can be asked", []past{{3, bob, "", "a.go"}, {3, cyd, "", "a.go"}}, change("a.go"), Known{Assignable: []string{"CYD@x.org"}}, "Cyd"},
		{"nobody can be asked", []past{{3, bob, "", "a.go"}}, change("a.go"), Known{Assignable: []string{}}, ""},
		{"who is away", []past{{3, "Bob Best <9+bobby@users.noreply.github.com>", "", "a.go"}, {3, cyd, "", "a.go"}}, change("a.go"), Known{Absent: []string{"bobby"}}, "Cyd"},
		{"no files", []past{{3, bob, "", "a.go"}}, change(), Known{}, "Bob"},
		{"no history", nil, change("a.go"), Known{}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := historyOf(t, test.history...).Rank(test.change, test.known)
			if names(got) != test.want {
				t.Errorf("%s; not %s", names(got), test.want)
				for _, s := range got.Suggestions {
					t.Logf("%.3f %s: %s", s.Score, s, s.Why)
				}
			}
			for _, s := range got.Suggestions {
				if s.Why == "" || strings.Contains(s.Why, "\n") {
					t.Errorf("%s: why is %q", s, s.Why)
				}
			}
		})
	}
}

func TestWhy(t *testing.T) {
	h := historyOf(t, join(
		repeat(6, past{100, bob, cyd, "server/calls.go"}),
		repeat(4, past{10, cyd, bob, "server/calls.go"}),
		repeat(3, past{5, ann, dan, "web/page.go"}),
		[]past{{3, bob, "", "server/calls.go"}, {2, ann, cyd, "server/x.go"}, {1, "Eve Ende <eve@x.org>", "", "cmd/main.go"}})...)
	got := h.Rank(Change{Author: ann, Files: []File{{Path: "server/calls.go"}}, Time: now, Lines: []Written{{"cyd@x.org", 30}, {"gone@x.org", 10}}}, Known{})
	why := map[string]string{}
	for _, s := range got.Suggestions {
		why[s.Name] = s.Why
	}
	want := map[string]string{
		"Bob Best": "wrote 64 % and reviewed 40 % of the changes to server/calls.go, last 3 days ago; wrote 7 changes and reviewed 4 in server/ in the last year",
		"Cyd Cole": "reviewed 1 of your last 4; wrote 30 of the 40 lines that are edited",
		"Dan Dale": "reviewed 3 of your last 4",
		"Eve Ende": "active in this repository, last yesterday",
	}
	if diff := cmp.Diff(want, why); diff != "" {
		t.Error(diff)
	}
}

func TestCodeOwnersMustBeAsked(t *testing.T) {
	h := historyOf(t,
		past{300, "Old Timer <old@x.org>", "", "a.go"},
		past{5, "Bob Best <7+bobby@users.noreply.github.com>", "", "a.go"},
		past{4, cyd, "", "b.go"}, past{3, cyd, "", "b.go"}, past{3, dan, "", "a.go"}, past{2, ann, "", "z.go"})
	owners := codeowners.Parse([]byte("* @bobby\n*.go @bobby @nova old@x.org @ann eve@x.org @org/team @org/empty\n"), codeowners.GitHub).Match([]string{"a.go", "b.go"})
	known := Known{Logins: map[string]string{"ann@x.org": "ann", "cyd@x.org": "cyd-c", "dan@x.org": "dan-d"}, Absent: []string{"bobby"},
		Members: map[string][]string{"org/team": {"Cyd-C", "dan-d", "ann", "new"}}}
	got := h.Rank(Change{Author: ann, With: []string{"Eve Ende <Eve@x.org>"}, Files: []File{{Path: "a.go"}}, Owners: owners, Time: now}, known)
	type row struct{ Who, Login, Team, Why string }
	var rows []row
	for _, s := range got.Suggestions {
		if s.Required {
			rows = append(rows, row{s.Name, s.Login, s.Team, s.Why})
		}
	}
	want := []row{
		{"Dan Dale", "dan-d", "org/team", "the best of org/team, which CODEOWNERS names for a.go and 1 more; wrote 33 % of the changes to a.go, last 3 days ago"},
		{"Bob Best", "bobby", "", "CODEOWNERS line 2 names them for a.go and 1 more; away at the moment; wrote 33 % of the changes to a.go, last 5 days ago"},
		{"nova", "nova", "", "CODEOWNERS line 2 names them for a.go and 1 more; nothing of them in the history"},
		{"Old Timer", "", "", "CODEOWNERS line 2 names them for a.go and 1 more; not seen here since August 2025; wrote 33 % of the changes to a.go, last 10 months ago"},
	}
	byName := cmp.Transformer("byName", func(rows []row) map[string]row {
		m := map[string]row{}
		for _, r := range rows {
			m[r.Who] = r
		}
		return m
	})
	if diff := cmp.Diff(want, rows, byName); diff != "" {
		t.Error(diff)
	}
	if rows[0].Who != "Dan Dale" || names(got) == "" || got.Suggestions[len(got.Suggestions)-1].Name != "Cyd Cole" {
		t.Errorf("the order is %s", names(got))
	}
	var teams []string
	for _, team := range got.Teams {
		teams = append(teams, team.Name)
	}
	if strings.Join(teams, " ") != "org/team org/empty" {
		t.Errorf("teams %v", got.Teams)
	}
}

func TestBefore(t *testing.T) {
	h := historyOf(t, past{9, bob, cyd, "a.go"}, past{8, cyd, dan, "a.go"}, past{7, dan, "", "a.go"})
	got := h.Before(1).Rank(Change{Author: ann, Files: []File{{Path: "a.go"}}, Time: now.AddDate(0, 0, -8)}, Known{})
	if names(got) != "Bob Cyd" && names(got) != "Cyd Bob" {
		t.Errorf("before the second commit: %s", names(got))
	}
	for _, s := range got.Suggestions {
		if strings.Contains(s.Why, "50 %") {
			t.Errorf("the reason knows of later: %s", s.Why)
		}
	}
}

func TestIdentities(t *testing.T) {
	for who, want := range map[string]bool{
		"Gopher Robot <gobot@golang.org>": true, "dependabot[bot] <x@users.noreply.github.com>": true, "GitHub <noreply@github.com>": true,
		"build-bot <b@x.org>": true, "renovate <bot@renovateapp.com>": true, "X <svc@p.iam.gserviceaccount.com>": true,
		"Talbot Botha <talbot@x.org>": false, "Robotti <r@x.org>": false, "Ann <12+ann@users.noreply.github.com>": false, "Lucia Cibot <lucia@x.org>": false,
	} {
		i, _ := parseIdentity(who)
		if isBot(i) != want {
			t.Errorf("%s is a program: %v", who, !want)
		}
	}
	people, who := unite([]identity{{"Ann Able", "ann@x.org"}, {"Ann  able", "a@home.org"}, {"ann", "ANN@x.org"}, {"root", "root@localhost"}, {"Bob Best", "root@localhost"}, {"Ann", "other@x.org"}}, []int64{1, 5, 9, 1, 1, 1})
	if who[0] != who[1] || who[0] != who[2] || who[3] == who[4] || who[0] == who[5] || len(people) != 4 {
		t.Errorf("%v of %+v", who, people)
	}
	people, who = unite([]identity{{"Ann Able", "ann@x.org"}, {"Renovate Bot", "ann@x.org"}}, []int64{1, 2})
	if who[0] == who[1] || people[who[0]].bot || !people[who[1]].bot {
		t.Errorf("a program with its owner's address is its owner: %+v", people)
	}
	people, who = unite([]identity{{"Ann Able", "ann@x.org"}, {"Ann Able", "a@home.org"}, {"ann", "ANN@x.org"}}, []int64{1, 5, 9})
	if p := people[who[0]]; p.Name != "ann" || p.Email != "ANN@x.org" || len(p.Emails) != 2 {
		t.Errorf("the last name and address used: %+v", p)
	}
}

func BenchmarkLoadAndRank(b *testing.B) {
	var records []record
	for i := range 50_000 {
		who := func(n int) identity { return identity{fmt.Sprintf("Person N%d", n), fmt.Sprintf("p%d@x.org", n)} }
		r := record{hash: id(i + 1), parents: []id{id(i)}, time: now.Unix() - int64(50_000-i)*3600, authors: []identity{who(i * 7 % 300)}, landed: who(i * 7 % 300), reviewed: []identity{who(i * 11 % 300)}}
		for f := range 3 {
			n := (i*31 + f*i%17) % 10_000
			r.files = append(r.files, fmt.Sprintf("field%d/area%d/package%d/file%d.go", n/1000, n/100%10, n/10%10, n%10))
		}
		records = append(records, r)
	}
	data := extend(nil, records, "tip", "").encode()
	b.ReportMetric(float64(len(data))/1e6, "MB")
	for b.Loop() {
		x, err := decode(data)
		if err != nil {
			b.Fatal(err)
		}
		h := newHistory(x, x.people)
		if r := h.Rank(Change{Author: "<p1@x.org>", Files: []File{{Path: "field1/area1/package1/file1.go"}}, Time: now}, Known{}); len(r.Suggestions) == 0 {
			b.Fatal("nobody")
		}
	}
}
