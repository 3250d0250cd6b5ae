package watch

import "testing"

func TestMatcher(t *testing.T) {
	m := Matcher([]string{"*.psd", "/gen/", "!keep.psd"})
	for rel, want := range map[string]bool{"a.psd": true, "x/a.psd": true, "keep.psd": false, "gen/a.txt": true, "x/gen/a.txt": false, "a.txt": false} {
		if got := m(rel, false); got != want {
			t.Errorf("%s: ignored %v, want %v", rel, got, want)
		}
	}
	if Matcher(nil)("a", false) {
		t.Error("no pattern ignores something")
	}
}
