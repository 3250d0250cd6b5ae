package e2e

import (
	"strings"
	"testing"
)

// wantErrorAndHint checks that a refusal is one line that says what happened and one that says what to do.
func wantErrorAndHint(t testing.TB, stderr string) {
	t.Helper()
	var errs, hints int
	for line := range strings.Lines(stderr) {
		switch {
		case strings.HasPrefix(line, "fairlead: error: "):
			errs++
		case strings.HasPrefix(line, "fairlead: hint: "):
			hints++
		default:
			t.Errorf("stderr has %q", line)
		}
	}
	if errs != 1 || hints != 1 {
		t.Errorf("%d error lines and %d hint lines:\n%s", errs, hints, stderr)
	}
}
