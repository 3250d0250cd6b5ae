package review

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// section is something that is known of the change, for the review's text.
type section struct {
	id    string // in the markers
	title string // where no heading of the template is for it
	// heading finds the template's heading for it.
	heading *regexp.Regexp
	text    string // empty: nothing is known
}

var (
	headingSummary = regexp.MustCompile(`(?i)\b(summary|description|what|changes?|overview|purpose|why|motivation|about)\b`)
	headingTicket  = regexp.MustCompile(`(?i)\b(tickets?|issues?|jira|linear|links?|related|references?|fixes|closes)\b`)
	headingTest    = regexp.MustCompile(`(?i)\b(test(s|ed|ing)?|verif(y|ied|ication)|qa|how to test|validation)\b`)
	headingEnv     = regexp.MustCompile(`(?i)\b(environments?|preview|staging|demo|try it)\b`)
)

// A section stands between two comments, the first with a digest of what is between: what its author has edited is not written over.
var marked = regexp.MustCompile(`(?s)<!-- fairlead:([a-z]+) ([0-9a-f]{8}) -->\n(.*?)\n<!-- /fairlead:([a-z]+) -->`)

func digest(s string) string {
	sum := sha256.Sum256([]byte(strings.TrimSpace(s)))
	return hex.EncodeToString(sum[:4])
}

func (s section) block() string {
	text := strings.TrimSpace(s.text)
	return "<!-- fairlead:" + s.id + " " + digest(text) + " -->\n" + text + "\n<!-- /fairlead:" + s.id + " -->"
}

var headingLine = regexp.MustCompile(`(?m)^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$`)

// fill writes what is known into a template: below the heading that is for it, or in sections of its own at the end.
func fill(tmpl string, sections []section) string {
	body := strings.TrimRight(tmpl, " \t\r\n")
	for _, s := range sections {
		if strings.TrimSpace(s.text) == "" {
			continue
		}
		at := -1
		for _, h := range headings(body) {
			if s.heading.MatchString(body[h[2]:h[3]]) && !strings.HasPrefix(strings.TrimSpace(body[h[1]:]), "<!-- fairlead:") {
				at = h[1]
				break
			}
		}
		if at < 0 {
			if body != "" {
				body += "\n\n"
			}
			if tmpl != "" || s.id != "summary" {
				body += "## " + s.title + "\n\n"
			}
			body += s.block()
			continue
		}
		rest := strings.TrimLeft(body[at:], "\r\n")
		body = body[:at] + "\n\n" + s.block()
		if rest != "" {
			body += "\n\n" + rest
		}
	}
	return body + "\n"
}

// headings are the lines of headings outside of code and comments, as headingLine finds them.
func headings(s string) [][]int {
	var out [][]int
	for _, m := range headingLine.FindAllStringSubmatchIndex(s, -1) {
		before := s[:m[0]]
		if strings.Count(before, "<!--") != strings.Count(before, "-->") || strings.Count("\n"+before, "\n```")%2 == 1 {
			continue
		}
		out = append(out, m)
	}
	return out
}

// refresh writes what is known now into a review's text as it is on its forge. A section that its author has edited stays, one that
// they have removed stays away, and nothing else is touched.
func refresh(body string, sections []section) string {
	body = strings.ReplaceAll(body, "\r\n", "\n") // as forges send what a form has sent them
	return marked.ReplaceAllStringFunc(body, func(m string) string {
		f := marked.FindStringSubmatch(m)
		if f[1] != f[4] || digest(f[3]) != f[2] {
			return m
		}
		for _, s := range sections {
			if s.id == f[1] && strings.TrimSpace(s.text) != "" {
				return s.block()
			}
		}
		return m
	})
}
