package review

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"fairlead.dev/api"
)

var (
	// As Jira's and Linear's keys are: letters, a hyphen, a number. In a branch's name they may be in lower case.
	keyPattern = regexp.MustCompile(`(?i)(^|[^a-z0-9])([a-z][a-z0-9]{1,9}-[1-9][0-9]{0,6})($|[^a-z0-9-]|-)`)
	// A number at the beginning of a branch's name or of one of its parts, as GitLab and GitHub make of an issue: 12-wrong-total.
	numberPattern = regexp.MustCompile(`(?i)(?:^|/)(?:(?:gh|issue|issues|fix|fixes|bug)[-_#])?#?([1-9][0-9]{0,6})(?:[-_]|$)`)
	// A trailer, or a line that forges read: Fixes #12, Closes: SHOP-12, Refs team/shop#12, or an issue's address.
	trailerPattern = regexp.MustCompile(`(?im)^\s*(close[sd]?|fix(?:e[sd])?|resolve[sd]?|implement(?:s|ed)?|ref(?:s|erences)?|updates?|ticket|issue|jira|linear|part of|see)\s*:?\s+(\S+)\s*$`)
	issuePattern   = regexp.MustCompile(`^([-\w.]+(?:/[-\w.]+)*)?#([1-9][0-9]{0,6})$`)
	exactKey       = regexp.MustCompile(`^[A-Z][A-Z0-9]{1,9}-[1-9][0-9]{0,6}$`)
)

// Names that look like a key and are none: what is in branch names of programs and versions.
var noKeys = map[string]bool{"UTF": true, "SHA": true, "ISO": true, "RFC": true, "CVE": true, "HTTP": true, "TLS": true, "PR": true, "MR": true, "V": true, "GO": true, "PYTHON": true, "NODE": true, "RELEASE": true, "STEP": true, "PHASE": true, "PART": true, "DAY": true, "WEEK": true, "TEST": true,
	"GH": true, "ISSUE": true, "ISSUES": true, "FIX": true, "FIXES": true, "BUG": true, "FEATURE": true, "HOTFIX": true}

// ticket is what a change is for.
type ticket struct {
	api.ReviewTicket
	repository string // of a forge's issue; empty: the review's own
	number     int    // of a forge's issue, else 0
	closes     bool   // who wrote the commits says that it ends with the change
}

// parseTicket reads one as a person writes it: SHOP-12, #12, team/shop#12 or an address.
func parseTicket(s string) (ticket, bool) {
	s = strings.TrimRight(strings.TrimSpace(s), ".,;)")
	var t ticket
	if u, err := url.Parse(s); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil {
		t.Key, t.URL = s, s
		parts := strings.Split(strings.Trim(u.Path, "/"), "/")
		last := parts[len(parts)-1]
		for i, p := range parts { // /browse/SHOP-12 of Jira, /team/issue/SHOP-12/title of Linear
			if exactKey.MatchString(p) && i > 0 {
				t.Key = p
				return t, true
			}
		}
		if n, err := strconv.Atoi(last); err == nil && n > 0 && len(parts) >= 4 && parts[len(parts)-2] == "issues" {
			t.Key = "#" + last
			return t, true
		}
		return ticket{}, false
	}
	if m := issuePattern.FindStringSubmatch(s); m != nil {
		t.Key, t.repository = s, m[1]
		t.number, _ = strconv.Atoi(m[2])
		return t, true
	}
	if up := strings.ToUpper(s); exactKey.MatchString(up) && !noKeys[up[:strings.IndexByte(up, '-')]] {
		t.Key = up
		return t, true
	}
	return ticket{}, false
}

// findTicket looks for what the change is for: in the commits' own words, then in the branch's name. There a key in lower case counts
// only where it is known that there is a tracker with keys: patch-1 and change-2 are none.
func findTicket(branch string, messages []string, tracker bool) *ticket {
	for _, m := range messages {
		for _, f := range trailerPattern.FindAllStringSubmatch(m, -1) {
			if t, ok := parseTicket(f[2]); ok {
				verb := strings.ToLower(f[1])
				t.closes = strings.HasPrefix(verb, "clos") || strings.HasPrefix(verb, "fix") || strings.HasPrefix(verb, "resolv") || strings.HasPrefix(verb, "implement")
				t.From = "a commit's message"
				return &t
			}
		}
	}
	for at := 0; ; {
		m := keyPattern.FindStringSubmatchIndex(branch[at:])
		if m == nil {
			break
		}
		if key := branch[at+m[4] : at+m[5]]; !tracker && key != strings.ToUpper(key) {
			at += m[5]
			continue
		}
		if t, ok := parseTicket(branch[at+m[4] : at+m[5]]); ok {
			t.From = "the branch's name"
			return &t
		}
		at += m[5]
	}
	if m := numberPattern.FindStringSubmatch(branch); m != nil {
		if t, ok := parseTicket("#" + m[1]); ok {
			t.From = "the branch's name"
			return &t
		}
	}
	for _, m := range messages {
		subject, _, _ := strings.Cut(m, "\n")
		if k := keyPattern.FindStringSubmatch(subject); k != nil && exactKey.MatchString(k[2]) {
			if t, ok := parseTicket(k[2]); ok {
				t.From = "a commit's subject"
				return &t
			}
		}
	}
	return nil
}

// address fills in where a ticket is, by the pattern of the settings ("https://acme.atlassian.net/browse/{key}").
func (t *ticket) address(pattern string) {
	if t.URL == "" && t.number == 0 && pattern != "" {
		t.URL = strings.ReplaceAll(pattern, "{key}", url.PathEscape(t.Key))
	}
}

// line is how the review's text names it: as its forge links it, or as its own tracker's forge integration reads it. A forge's issue is
// closed by the merge where the commits say that it is.
func (t *ticket) line(issue func(repository string, number int) string) string {
	switch {
	case t.number > 0:
		ref := issue(t.repository, t.number)
		if ref == "" {
			ref = t.Key
		}
		if t.closes {
			return "Closes " + ref
		}
		return "Refs " + ref
	case t.URL != "" && t.URL != t.Key:
		return "[" + t.Key + "](" + t.URL + ")"
	}
	return t.Key
}
