package review

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

func TestFindTicket(t *testing.T) {
	issue := func(repository string, n int) string { return repository + "#" + itoa(n) }
	for _, c := range []struct{ branch, message, key, line, from string }{
		{"SHOP-12-wrong-total", "x", "SHOP-12", "[SHOP-12](https://t/SHOP-12)", "the branch's name"},
		{"mira/shop-12_wrong", "x", "SHOP-12", "[SHOP-12](https://t/SHOP-12)", "the branch's name"},
		{"12-wrong-total", "x", "#12", "Refs #12", "the branch's name"},
		{"fix/issue-12", "x", "#12", "Refs #12", "the branch's name"},
		{"gh-77", "x", "#77", "Refs #77", "the branch's name"},
		{"utf-8-names", "x", "", "", ""},
		{"release-2-1", "x", "", "", ""},
		{"main", "x\n\nFixes #7", "#7", "Closes #7", "a commit's message"},
		{"main", "x\n\nFixes team/shop#7.", "team/shop#7", "Closes team/shop#7", "a commit's message"},
		{"SHOP-1", "x\n\nRefs: SHOP-2", "SHOP-2", "[SHOP-2](https://t/SHOP-2)", "a commit's message"},
		{"main", "x\n\nSee https://linear.app/acme/issue/ENG-5/a-title", "ENG-5", "[ENG-5](https://linear.app/acme/issue/ENG-5/a-title)", "a commit's message"},
		{"main", "x\n\nSee https://example.com/about", "", "", ""},
		{"main", "SHOP-3: x", "SHOP-3", "[SHOP-3](https://t/SHOP-3)", "a commit's subject"},
		{"main", "handle UTF-8 and SHA-256", "", "", ""},
	} {
		tk := findTicket(c.branch, []string{c.message}, true)
		if tk == nil {
			if c.key != "" {
				t.Errorf("%s %q: nothing", c.branch, c.message)
			}
			continue
		}
		tk.address("https://t/{key}")
		if got := tk.line(issue); tk.Key != c.key || got != c.line || tk.From != c.from {
			t.Errorf("%s %q: %s, %q, %s", c.branch, c.message, tk.Key, got, tk.From)
		}
	}
	for branch, want := range map[string]bool{"patch-1": false, "change-2-more": false, "SHOP-2": true} {
		if got := findTicket(branch, nil, false); (got != nil) != want {
			t.Errorf("%s without a tracker: %+v", branch, got)
		}
	}
	for in, want := range map[string]string{"shop-9": "SHOP-9", " #4,": "#4", "a/b#4": "a/b#4", "https://git.example.com/a/b/issues/4": "#4", "four": "", "#0": "", "https://x": ""} {
		if tk, ok := parseTicket(in); tk.Key != want || ok != (want != "") {
			t.Errorf("%q: %q", in, tk.Key)
		}
	}
}

func TestReadConfig(t *testing.T) {
	got := readConfig("remote.pushdefault\nold\x00remote.origin.url\nhttps://a:secret@x\x00http.https://x/.extraheader\nAuthorization: secret\x00branch.Feature.x.merge\nrefs/heads/a\nb\x00submodule.recurse\x00remote.pushdefault\nnew\x00")
	want := map[string]string{"remote.pushdefault": "new", "branch.Feature.x.merge": "refs/heads/a\nb", "submodule.recurse": "true"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReadStatus(t *testing.T) {
	h := " N... 100644 100644 100644 aaaa bbbb "
	out := strings.Join([]string{"1 .M" + h + "a b.go", "1 M." + h + "staged.go", "1 A." + h + "new.go", "1 MM" + h + "part.go", "1 .D" + h + "gone.go", "1 .M S.M. 160000 160000 160000 aaaa aaaa sub",
		"2 R. N... 100644 100644 100644 aaaa bbbb R100 to.go", "from.go", "u UU N... 1 2 3 4 a b c clash.go", "? extra\nline", ""}, "\x00")
	got, clash, partly := readStatus(out)
	want := []api.ReviewChange{{Path: "a b.go", Kind: "modified"}, {Path: "staged.go", Kind: "modified", Staged: true, Picked: true}, {Path: "new.go", Kind: "added", Staged: true, Picked: true},
		{Path: "part.go", Kind: "modified", Staged: true, Picked: true},
		{Path: "gone.go", Kind: "deleted"}, {Path: "sub", Kind: "submodule"}, {Path: "to.go", Kind: "renamed", Staged: true, Picked: true},
		{Path: "from.go", Kind: "deleted", Staged: true, Picked: true}, {Path: "extra\nline", Kind: "untracked"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([][]string{{"clash.go"}, {"part.go"}}, [][]string{clash, partly}); d != "" {
		t.Error(d)
	}
	if got, _, _ := readStatus("1 .M" + h + "a.go\x00? b.go\x00"); !got[0].Picked || got[1].Picked {
		t.Errorf("without anything staged: %+v", got)
	}
}

func TestChooseTemplate(t *testing.T) {
	one := []template{{".github/pull_request_template.md", ""}}
	all := append(one, template{".github/PULL_REQUEST_TEMPLATE/docs.md", ""}, template{".github/PULL_REQUEST_TEMPLATE/billing_change.md", ""}, template{".github/PULL_REQUEST_TEMPLATE/bugfix.md", ""}, template{".github/PULL_REQUEST_TEMPLATE/migration.md", ""})
	for _, c := range []struct {
		name   string
		all    []template
		files  []string
		branch string
		rules  map[string]string
		want   string
	}{
		{"the only one", one, []string{"docs/a.md"}, "x", nil, "pull_request_template"},
		{"by kind", all, []string{"README.md", "docs/b.md", "x.go"}, "x", nil, "docs"},
		{"less than half", all, []string{"README.md", "y.go", "x.go"}, "x", nil, "pull_request_template"},
		{"by folder", all, []string{"services/billing/main.go", "services/billing/x_test.go"}, "x", nil, "billing_change"},
		{"by branch", all, []string{"y.go"}, "fix/total", nil, "bugfix"},
		{"folders before the branch", all, []string{"db/1.sql"}, "fix/total", nil, "migration"},
		{"by a rule", all, []string{"services/billing/main.go"}, "x", map[string]string{"services/**": "docs.md", "other/**": "bugfix"}, "docs"},
		{"a rule of a template that is not there", all, []string{"services/billing/main.go"}, "x", map[string]string{"services/**": "none"}, "billing_change"},
	} {
		got := chooseTemplate(c.all, c.files, c.branch, c.rules)
		if got == nil || !namesTemplate(got.path, c.want) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if chooseTemplate(nil, []string{"x"}, "x", nil) != nil {
		t.Error("of none")
	}
	for pattern, want := range map[string]bool{"docs/**": true, "**/b.md": true, "docs/*.md": false, "docs/a/*.md": true, "**": true, "a/**": false, "[": false} {
		if got := matchPath(pattern, "docs/a/b.md"); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}

const tmpl = `<!-- Thanks!
## Summary of how to write one
-->
## What and why

<!-- say it -->

` + "```\n# Testing is fun\n```" + `

## How was this tested?

- [ ] by hand

## Checklist
- [ ] docs
`

func sections(summary, tests string) []section {
	return []section{{id: "summary", title: "Summary", heading: headingSummary, text: summary}, {id: "ticket", title: "Ticket", heading: headingTicket, text: "Closes #4"},
		{id: "tests", title: "Tested", heading: headingTest, text: tests}, {id: "environment", title: "Environment", heading: headingEnv}}
}

func TestFill(t *testing.T) {
	got := fill(tmpl, sections("- one\n- two", "Run in x"))
	want := `<!-- Thanks!
## Summary of how to write one
-->
## What and why

<!-- fairlead:summary ` + digest("- one\n- two") + ` -->
- one
- two
<!-- /fairlead:summary -->

<!-- say it -->

` + "```\n# Testing is fun\n```" + `

## How was this tested?

<!-- fairlead:tests ` + digest("Run in x") + ` -->
Run in x
<!-- /fairlead:tests -->

- [ ] by hand

## Checklist
- [ ] docs

## Ticket

<!-- fairlead:ticket ` + digest("Closes #4") + ` -->
Closes #4
<!-- /fairlead:ticket -->
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	bare := fill("", []section{{id: "summary", title: "Summary", heading: headingSummary, text: "why"}})
	if !strings.HasPrefix(bare, "<!-- fairlead:summary") {
		t.Errorf("without a template: %q", bare)
	}
}

// What the author has edited, removed or added stays; what is still as it was written is brought up to date.
func TestRefresh(t *testing.T) {
	body := fill(tmpl, sections("- one", "Run in x"))
	edited := strings.Replace(body, "Run in x", "Run in x, and by Ann", 1)
	edited = strings.Replace(edited, "- [ ] docs", "- [x] docs", 1)
	i, j := strings.Index(edited, "## Ticket"), len(edited)
	edited = strings.ReplaceAll(edited[:i]+edited[j:], "\n", "\r\n")
	got := refresh(edited, sections("- one\n- two", "Run in y"))
	for want, n := range map[string]int{"- one\n- two": 1, "and by Ann": 1, "Run in y": 0, "- [x] docs": 1, "Closes": 0, "\r": 0} {
		if strings.Count(got, want) != n {
			t.Errorf("%q %d times, want %d:\n%s", want, strings.Count(got, want), n, got)
		}
	}
	if again := refresh(got, sections("- one\n- two", "Run in y")); again != got {
		t.Errorf("a second time:\n%s", cmp.Diff(got, again))
	}
}

// What a person writes is never lost, whatever it is.
func FuzzRefresh(f *testing.F) {
	f.Add(tmpl, "- one", "own words")
	f.Add("## Summary\n<!-- fairlead:summary 00000000 -->\nx\n<!-- /fairlead:summary -->\n", "<!-- /fairlead:summary -->", "y")
	f.Fuzz(func(t *testing.T, tmpl, summary, own string) {
		own = strings.ReplaceAll(own, "\r\n", "\n")
		if strings.Contains(own, "fairlead:") || strings.Contains(tmpl, "fairlead:") {
			return
		}
		body := fill(tmpl, sections(summary, "t"))
		got := refresh(body+own, sections(summary+"!", "u"))
		if !strings.HasSuffix(got, own) {
			t.Fatalf("%q became %q", body+own, got)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add("1 .M N... 100644 100644 100644 aaaa bbbb a.go\x002 R. N... 1 2 3 a b R100 to\x00from\x00? x\x00u UU N... 1 2 3 4 a b c d\x00")
	f.Fuzz(func(t *testing.T, out string) {
		changes, _, _ := readStatus(out)
		for _, c := range changes {
			if c.Path == "" || c.Kind == "" {
				t.Fatalf("%+v", c)
			}
		}
	})
}

func FuzzTicket(f *testing.F) {
	f.Add("SHOP-12-x", "Fixes #3")
	f.Fuzz(func(t *testing.T, branch, message string) {
		tk := findTicket(branch, []string{message}, true)
		if tk == nil {
			return
		}
		tk.address("https://t/{key}")
		if l := tk.line(func(r string, n int) string { return r + "#" + itoa(n) }); strings.ContainsAny(l, "\n\r") || tk.Key == "" {
			t.Fatalf("%+v is %q", tk, l)
		}
	})
}

func TestEdited(t *testing.T) {
	files, spans := edited("diff --git a/x.go b/x.go\n--- a/x.go\n+++ b/x.go\n@@ -3,2 +3 @@ func f() {\n-a\n-b\n+c\n@@ -9,0 +9,4 @@\ndiff --git a/n.go b/n.go\nnew file mode 100644\n--- /dev/null\n+++ b/n.go\n@@ -0,0 +1,2 @@\ndiff --git \"a/\\303\\274.go\" \"b/\\303\\274.go\"\n--- \"a/\\303\\274.go\"\n+++ \"b/\\303\\274.go\"\n@@ -1 +1 @@\n")
	type f struct {
		Path  string
		Lines int
	}
	var got []f
	for _, x := range files {
		got = append(got, f{x.Path, x.Lines})
	}
	if d := cmp.Diff([]f{{"x.go", 6}, {"n.go", 2}, {"ü.go", 1}}, got); d != "" {
		t.Error(d)
	}
	if s := spans["x.go"]; len(s) != 1 || s[0].From != 3 || s[0].To != 4 || len(spans["n.go"]) != 0 {
		t.Errorf("%+v", spans)
	}
}

func TestSlug(t *testing.T) {
	for in, want := range map[string]string{"Fix the (wrong) total!": "fix-the-wrong-total", "server/calls: ürgent": "server-calls-rgent", "": "", "--": ""} {
		if got := slug(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	for in, want := range map[string]string{"x\n\nbody\nmore\n\nSigned-off-by: A <a@b>\nChange-Id: I1": "body\nmore", "": "", "x\n\nSigned-off-by: A": ""} {
		_, text, _ := strings.Cut(in, "\n")
		if got := withoutTrailers(text); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// What nobody waits for is done later, once at a time, and not after the end.
func TestMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Memory{}
		var done, ended int
		m.meanwhile(func(context.Context) { done++ })
		m.meanwhile(func(context.Context) { done += 10 })
		time.Sleep(meanwhileAfter - 1)
		synctest.Wait()
		if done != 0 {
			t.Error("it was not left for later")
		}
		time.Sleep(1)
		synctest.Wait()
		if done != 1 {
			t.Errorf("done %d", done)
		}
		m.meanwhile(func(context.Context) { done++ })
		end := m.begin()
		time.Sleep(5 * meanwhileAfter)
		synctest.Wait()
		if done != 1 {
			t.Error("it was begun while a draft was waited for")
		}
		end()
		time.Sleep(meanwhileAfter)
		synctest.Wait()
		if done != 2 {
			t.Error("it was not begun after the draft")
		}
		m.meanwhile(func(ctx context.Context) { <-ctx.Done(); ended++ })
		time.Sleep(meanwhileAfter)
		synctest.Wait()
		m.Close()
		m.meanwhile(func(context.Context) { ended += 10 })
		time.Sleep(meanwhileAfter)
		if ended != 1 {
			t.Errorf("ended %d", ended)
		}
	})
}
