//go:build unix

package review

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	bench "fairlead.dev/test/bench/repo"
	"fairlead.dev/test/gitea"
)

// BenchmarkReview measures what a person waits for in a repository of 10,000 files and 50,000 commits on a Gitea on this machine: from
// the button to the plan with its suggestions, and from the last click to the open draft; the first time, when the history is read,
// apart. The floor is git commit, git push, and one request to open a draft.
func BenchmarkReview(b *testing.B) {
	g := gitea.Start(b)
	r := newRepo(b)
	if err := os.RemoveAll(r.work); err != nil {
		b.Fatal(err)
	}
	size := bench.Large
	if os.Getenv("FAIRLEAD_BENCH_SMALL") != "" { // to try the bench itself
		size = bench.Size{Commits: 500, Files: 100, People: 10, Seed: 1}
	}
	if err := bench.Make(b.Context(), r.work, size); err != nil {
		b.Fatal(err)
	}
	token := g.User(b, "mira")
	web := g.Repo(b, "mira", "shop")
	r.file(r.home+"/credentials", "http://mira:"+token+"@"+strings.TrimPrefix(g.URL, "http://")+"\n")
	r.git("config", "--global", "credential.helper", "store --file="+r.home+"/credentials")
	r.git("checkout", "-q", "main")
	r.git("remote", "add", "origin", web)
	r.git("push", "-q", "origin", "main")
	g.Filled(b, "mira/shop")
	r.git("fetch", "-q", "origin")
	o := r.options()
	o.Memory = &Memory{}
	defer o.Memory.Close()
	o.now = func() time.Time { return bench.End }
	// once makes a review of five edited files on a branch of its own.
	n := 0
	once := func() (plan, create time.Duration) {
		n++
		r.git("switch", "-qc", fmt.Sprintf("change-%d", n), "--no-track", "origin/main")
		var files []string
		for i := range 5 {
			name := bench.Path((n*7 + i) % size.Files)
			text, err := os.ReadFile(filepath.Join(r.work, name))
			if err != nil {
				b.Fatal(err)
			}
			r.file(name, fmt.Sprintf("// %d\n%s", n, text))
			files = append(files, name)
		}
		start := time.Now()
		p, err := Plan(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		plan = time.Since(start)
		if len(p.Reviewers) == 0 || len(p.Changes) != 5 {
			b.Fatalf("%+v", p)
		}
		start = time.Now()
		res, err := Create(b.Context(), o, api.ReviewRequest{State: p.State, Files: files, Message: fmt.Sprintf("change %d", n)})
		if err != nil || !res.Made || !res.Draft {
			b.Fatalf("%+v %v", res, err)
		}
		return plan, time.Since(start)
	}
	firstPlan, firstCreate := once()
	o.Memory.wg.Wait() // the rest of the history
	var plans, creates, sums, floors []time.Duration
	for b.Loop() {
		p, c := once()
		plans, creates, sums = append(plans, p), append(creates, c), append(sums, p+c)
		branch := fmt.Sprintf("floor-%d", n)
		r.git("switch", "-qc", branch, "--no-track", "origin/main")
		r.file("floor.txt", branch)
		r.git("add", "floor.txt")
		start := time.Now()
		r.git("commit", "-q", "-m", branch)
		r.git("push", "-q", "origin", branch)
		g.API(b, token, http.MethodPost, "/repos/mira/shop/pulls", map[string]string{"head": branch, "base": "main", "title": "WIP: " + branch}, nil)
		floors = append(floors, time.Since(start))
	}
	b.ReportMetric(0, "ns/op")
	for unit, all := range map[string][]time.Duration{"s/first": {firstPlan + firstCreate}, "s/plan": plans, "s/create": creates, "s/draft": sums, "s/floor": floors} {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2].Seconds(), unit)
	}
}
