package forge

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"fairlead.dev/api"
)

// GerritPush is a push that opens a change on Gerrit, or gives it its next patch set: Documentation/user-upload.txt of Gerrit, "Push Options". What
// the change says is its commits' messages, each of which needs a Change-Id.
type GerritPush struct {
	Base string // the branch that the change is for
	// Ready publishes the change; otherwise it is work in progress, also if it was ready.
	Ready     bool
	Topic     string
	Reviewers []string // e-mail addresses or usernames
	CC        []string
	Hashtags  []string
	Message   string // a comment on the change
}

// What git lets a ref have, less the comma that ends an option and the percent sign that begins them all.
var (
	gerritValue = regexp.MustCompile(`^[-A-Za-z0-9_.+@/#=!$&'();<>|{}]+$`)
	gerritName  = regexp.MustCompile(`^[-A-Za-z0-9_.+@]+$`)
)

// Refspec is the refspec to be pushed. All of it is in the ref, since push options take a server that is set up for them; only Message may have
// any character.
func (p GerritPush) Refspec() (string, error) {
	problem := func(what, s string) error {
		return &api.Problem{Code: "forge-draft", Message: fmt.Sprintf("Gerrit cannot be told %s %s in a push: it has characters that end an option or a ref", what, strconv.Quote(short(s))), Hint: "leave it out, and set it on the change's page"}
	}
	base := strings.TrimPrefix(p.Base, "refs/heads/")
	if !validBranch(base) || strings.ContainsAny(base, "%,") {
		return "", problem("the branch", p.Base)
	}
	options := []string{"wip"}
	if p.Ready {
		options[0] = "ready"
	}
	for _, o := range []struct {
		key, what string
		values    []string
		pattern   *regexp.Regexp
	}{{"topic", "the topic", strings.Fields(p.Topic), gerritValue}, {"r", "the reviewer", p.Reviewers, gerritName}, {"cc", "the reader", p.CC, gerritName}, {"hashtag", "the hashtag", p.Hashtags, gerritValue}} {
		if o.key == "topic" && len(o.values) > 1 {
			return "", problem(o.what, p.Topic)
		}
		for _, v := range o.values {
			if !o.pattern.MatchString(v) {
				return "", problem(o.what, v)
			}
			options = append(options, o.key+"="+v)
		}
	}
	if p.Message != "" {
		options = append(options, "m="+gerritMessage(p.Message))
	}
	ref := "refs/for/" + base + "%" + strings.Join(options, ",")
	// What git check-ref-format refuses beside single characters.
	if strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.Contains(ref, "//") || strings.Contains(ref, "/.") || strings.HasSuffix(ref, "/") || strings.HasSuffix(ref, ".") || strings.HasSuffix(ref, ".lock") || strings.Contains(ref, ".lock/") {
		return "", problem("the options", strings.Join(options, ","))
	}
	return "HEAD:" + ref, nil
}

// gerritMessage writes a comment as user-upload.txt asks for it: _ for a space, and percent-encoding for whatever is not a letter or a digit.
func gerritMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			b.WriteByte('_')
		case c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// GerritChange is a change as Gerrit tells of it after a push.
type GerritChange struct {
	Number  int
	URL     string
	Subject string
	Draft   bool // work in progress
	New     bool // made by this push
}

var (
	gerritLine = regexp.MustCompile(`^remote:\s+(https?://[^\s/]+/(?:\S*/)?([0-9]+))/?\s+(.*?)((?:\s+\[[A-Z ]+\])*)\s*$`)
	changeID   = regexp.MustCompile(`(?m)^Change-Id: I[0-9a-f]{40}$`)
)

// HasChangeID says whether a commit's message has what Gerrit tells a change by.
func HasChangeID(message string) bool { return changeID.MatchString(message) }

// GerritChanges are the changes that the output of a push tells of, in its order: that of the commits.
func GerritChanges(output string) []GerritChange {
	var out []GerritChange
	updated := false
	for l := range strings.Lines(output) {
		if strings.Contains(l, "Updated Changes") { // of Gerrit before 2.15, which wrote headings and not what is new
			updated = true
		}
		m := gerritLine.FindStringSubmatch(clean(strings.TrimRight(l, "\r\n")))
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			continue
		}
		c := GerritChange{Number: n, URL: m[1], Subject: strings.TrimSpace(m[3]), Draft: strings.Contains(m[4], "[WIP]")}
		c.New = strings.Contains(m[4], "[NEW]") || !updated && strings.Contains(output, "New Changes")
		out = append(out, c)
	}
	return out
}
