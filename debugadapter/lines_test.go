package debugadapter

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMapLines(t *testing.T) {
	for _, tt := range []struct {
		name  string
		a, b  string // lines, by spaces
		loose bool
		want  []int
	}{
		{"same", "a b c", "a b c", false, []int{0, 1, 2}},
		{"empty", "", "", false, []int{0}},
		{"line in front", "a b c", "x a b c", false, []int{1, 2, 3}},
		{"line in the middle", "a b c", "a x b c", false, []int{0, 2, 3}},
		{"line at the end", "a b", "a b x", false, []int{0, 1}},
		{"line removed", "a b c", "a c", false, []int{0, -1, 1}},
		{"two places", "a b c d e", "x a b d y e", false, []int{1, 2, -1, 3, 5}},
		{"moved down", "a b c d", "b c d a", false, []int{-1, 0, 1, 2}},
		{"edited in place", "a f(x,1) c", "a f(x,2) c", false, []int{0, 1, 2}},
		{"edited, with a line in front", "a f(x,1) c", "a new f(x,2) c", false, []int{0, 2, 3}},
		{"replaced", "a foo c", "a zzz c", false, []int{0, -1, 2}},
		{"replaced, loose", "a foo c", "a zzz c", true, []int{0, 1, 2}},
		{"replaced by more, loose", "a foo c", "a zzz yyy c", true, []int{0, -1, 3}},
		{"repeated lines", "{ x } { x }", "{ x } { y } { x }", false, []int{0, 1, 2, 6, 7, 8}},
		{"all other", "a b", "x y z", false, []int{-1, -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := mapLines(strings.Split(tt.a, " "), strings.Split(tt.b, " "), tt.loose)
			if tt.name == "repeated lines" { // which of the same lines is a matter of taste; order and content are not
				check(t, strings.Split(tt.a, " "), strings.Split(tt.b, " "), got)
				for i, n := range got {
					if n < 0 {
						t.Errorf("line %d is lost: %v", i, got)
					}
				}
				return
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("want -, got +:\n%s", d)
			}
		})
	}
}

func TestMapLinesIndent(t *testing.T) {
	got := mapLines([]string{"f() {", "\tg(x)", "}"}, []string{"f() {", "\tif ok {", "\t\tg(x)", "\t}", "}"}, false)
	if d := cmp.Diff([]int{0, 2, 4}, got); d != "" {
		t.Error(d)
	}
}

// A file that was written anew still finds the lines that it kept, and takes neither minutes nor gigabytes.
func TestMapLinesFar(t *testing.T) {
	var a, b []string
	for i := range 20_000 {
		a = append(a, strings.Repeat("a", i%50)+string(rune('α'+i%20)))
		b = append(b, strings.Repeat("b", i%50)+string(rune('א'+i%20)))
	}
	a[100], b[19_000] = "func kept() {", "func kept() {"
	a[15_000], b[19_500] = "func too() {", "func too() {"
	got := mapLines(a, b, false)
	if got[100] != 19_000 || got[15_000] != 19_500 {
		t.Errorf("the kept lines are at %d and %d", got[100], got[15_000])
	}
}

func check(t *testing.T, a, b []string, to []int) {
	t.Helper()
	if len(to) != len(a) {
		t.Fatalf("%d lines are mapped, of %d", len(to), len(a))
	}
	last := -1
	for i, n := range to {
		if n < 0 {
			continue
		}
		if n <= last || n >= len(b) {
			t.Fatalf("line %d is at %d, after %d, of %d: %v", i, n, last, len(b), to)
		}
		last = n
	}
}

func FuzzMapLines(f *testing.F) {
	f.Add("a\nb\nc", "a\nc", true)
	f.Add("a\nb\nb\na", "b\na\nb", false)
	f.Add("x := 1\ny", "x := 2\ny\nz", false)
	f.Fuzz(func(t *testing.T, x, y string, loose bool) {
		a, b := strings.Split(x, "\n"), strings.Split(y, "\n")
		to := mapLines(a, b, loose)
		check(t, a, b, to)
		if x == y {
			for i, n := range to {
				if n != i {
					t.Fatalf("the same text is mapped by %v", to)
				}
			}
		}
		// A shortest edit: what is the same on both ends stays.
		n := 0
		for i, j := range to {
			if j >= 0 && a[i] == b[j] {
				n++
			}
		}
		if want := lcs(a, b); len(a)*len(b) < 4000 && n < want {
			t.Fatalf("%d lines are kept, %d could be: %v", n, want, to)
		}
	})
}

// lcs is the length of the longest common subsequence, by the book.
func lcs(a, b []string) int {
	row := make([]int, len(b)+1)
	for i := range a {
		diag := 0
		for j := range b {
			up := row[j+1]
			if a[i] == b[j] {
				row[j+1] = diag + 1
			} else {
				row[j+1] = max(up, row[j])
			}
			diag = up
		}
	}
	return row[len(b)]
}
