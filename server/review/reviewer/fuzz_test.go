package reviewer

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// What is damaged is refused or is a whole index, all of whose numbers can be used.
func FuzzIndex(f *testing.F) {
	x := extend(nil, []record{
		{hash: 1, time: 10, authors: []identity{{"A B", "a@x"}}, landed: identity{"C", "c@x"}, reviewed: []identity{{"D", ""}}, files: []string{"a/b", "a/c"}},
		{hash: 2, parents: []id{1}, time: 5, authors: []identity{{"C", "c@x"}}, files: []string{"a/d"}, moved: []move{{"a/b", "a/d"}}},
	}, "tip", "")
	whole := x.encode()
	f.Add(whole[:len(whole)-4])
	f.Add([]byte(magic))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, body []byte) {
		sealed := seal(body) // else the checksum alone would be tested
		x, err := decode(sealed)
		if err != nil {
			return
		}
		h := newHistory(x, x.people)
		h.Rank(Change{Author: "A <a@x>", Files: []File{{Path: "a/d"}}, Time: now}, Known{})
		for i := range h.Commits() {
			h.At(i)
		}
		extend(x, []record{{hash: 99, authors: []identity{{"N", "n@x"}}, files: []string{"n"}}}, "tip", "")
		if _, err := decode(x.encode()); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}

// Whatever git would print, it is read to its end or refused.
func FuzzLog(f *testing.F) {
	hash := strings.Repeat("1a", 20)
	commit := "\x00" + hash + "\x00" + hash + "\x001700000000\x00A B\x00a@x\x00C\x00c@x\x00subject\x00Reviewed-by: D <d@x>\n\x00\x00"
	f.Add([]byte(commit + "\nM\x00a.go\x00R100\x00b\x00c\x00" + commit + commit + "\nA\x00x/f\x00D\x00y/f\x00"))
	f.Add([]byte(commit))
	f.Add([]byte("\x00" + hash))
	f.Fuzz(func(t *testing.T, in []byte) {
		var records []record
		err := readLog(bytes.NewReader(in), func(c record) error {
			records = append(records, c)
			return nil
		})
		for _, c := range records {
			for _, name := range c.files {
				if name == "" || len(c.files) > maxFiles {
					t.Fatalf("files %q", c.files)
				}
			}
			for _, who := range append(c.authors, c.reviewed...) {
				if strings.ContainsAny(who.name+who.email, "\n\x00<>") {
					t.Fatalf("identity %q", who)
				}
			}
		}
		if err == nil && len(in) > 0 && len(records) == 0 {
			t.Fatalf("%q was read as nothing", in)
		}
		x := extend(nil, records, "tip", "")
		if _, err := decode(x.encode()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzBlame(f *testing.F) {
	hash := strings.Repeat("1a", 20)
	f.Add(hash + " 1 1 3\nauthor-mail <a@x>\nfilename a.go\n" + hash + " 9 9 1\nfilename a.go\n")
	f.Fuzz(func(t *testing.T, in string) {
		lines := map[string]int{}
		if err := readBlame(strings.NewReader(in), lines); err != nil {
			return
		}
		for who, n := range lines {
			if n < 1 {
				t.Fatalf("%q wrote %d lines", who, n)
			}
		}
	})
}

// The seeds are what git prints: its real output is read by the same parser.
func TestLogOfGit(t *testing.T) {
	r := newRepo(t)
	r.commit(ann, "one\n\nReviewed-by: Bob Best <bob@x.org>\n", "a b.go", "dir/ü.go")
	r.commit(ann, "none")
	r.git(nil, "mv", "a b.go", "c.go")
	r.commit(ann, "moved")
	cmd := exec.Command("git", append([]string{"-C", r.dir}, logArgs...)...)
	cmd.Stdin = strings.NewReader(r.git(nil, "rev-list", "--reverse", "main") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []record
	if err := readLog(bytes.NewReader(out), func(c record) error { got = append(got, c); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || strings.Join(got[0].files, "|") != "a b.go|dir/ü.go" || len(got[1].files) != 0 || len(got[2].moved) != 1 || got[2].moved[0] != (move{"a b.go", "c.go"}) {
		t.Errorf("read %+v", got)
	}
	if err := readLog(bytes.NewReader(out[:len(out)-3]), func(record) error { return nil }); err == nil {
		t.Error("what was cut short was read")
	}
}
