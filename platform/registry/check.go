package registry

import (
	"net/mail"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what is read. A registry of thousands of services is far below them; a file above them is a mistake or an attack.
const (
	maxFile    = 256 << 10
	maxFiles   = 20_000 // of services and teams together
	maxList    = 2_000  // entries of one list
	maxText    = 2_000  // bytes of a description or a reason
	maxMethod  = 512
	maxName    = 128
	maxVisits  = 50_000 // nodes of one file
	maxMethods = 500    // of one request
)

var (
	namePattern   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)
	verbPattern   = regexp.MustCompile(`^[A-Z]{1,16}$`)
	secretPattern = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_.]{0,62}$`)
	idPattern     = regexp.MustCompile(`^[-A-Za-z0-9_]{8,64}$`)
	// What a segment of a path may have: RFC 3986's pchar, so no space, quote or control character; "*" is looked at apart.
	segmentPattern = regexp.MustCompile(`^[-A-Za-z0-9._~!$&'()+,;=:@%]*$`)
)

// checks are what fields name in their tags: each says what is wrong with a value, and what to write instead.
var checks = map[string]func(string) (wrong, hint string){
	"":             func(string) (string, string) { return "", "" },
	"version":      oneOf("1"),
	"name":         CheckName,
	"text":         checkText,
	"url":          checkURL,
	"method":       CheckMethod,
	"pattern":      CheckPattern,
	"email":        checkEmail,
	"secret":       checkSecret,
	"port":         checkPort,
	"access":       oneOf(string(AccessOpen), string(AccessReview)),
	"changes":      oneOf(string(ChangesDirect), string(ChangesReview)),
	"environments": oneOf(EnvironmentsShared, EnvironmentsFresh),
}

func oneOf(values ...string) func(string) (string, string) {
	return func(s string) (string, string) {
		for _, v := range values {
			if s == v {
				return "", ""
			}
		}
		return strconv.Quote(short(s)) + " is not known here", "write " + strings.Join(values, " or ")
	}
}

// CheckName says what is wrong with the name of a service or a team, or "". A name is one safe segment of a path and of a
// branch's name.
func CheckName(s string) (wrong, hint string) {
	if len(s) > maxName || !namePattern.MatchString(s) {
		return strconv.Quote(short(s)) + " is not a name", "use lower-case letters, digits and dashes, such as billing, or rates.finance for one of another namespace"
	}
	return "", ""
}

// CheckMethod says what is wrong with the method of an endpoint or a call, or "".
func CheckMethod(s string) (wrong, hint string) { return checkMethod(s, false) }

// CheckPattern says what is wrong with a pattern of methods, or "".
func CheckPattern(s string) (wrong, hint string) {
	if s == "*" {
		return "", ""
	}
	return checkMethod(s, true)
}

func checkMethod(s string, pattern bool) (wrong, hint string) {
	const form = "write /package.Service/Method for gRPC, or POST /v1/charges for HTTP"
	verb, path, http := strings.Cut(s, " ")
	if !http {
		verb, path = "", s
	}
	segments := strings.Split(path, "/")
	switch {
	case len(s) > maxMethod:
		return "a method of " + strconv.Itoa(len(s)) + " bytes is too long", form
	case http && !verbPattern.MatchString(verb), segments[0] != "", len(segments) < 2:
		return strconv.Quote(short(s)) + " is not a method", form
	}
	for i, seg := range segments[1:] {
		last := i == len(segments)-2
		switch {
		case seg == "**" && pattern && last, seg == "*":
		case seg == "**":
			return strconv.Quote(short(s)) + ": ** stands for what ends the path", "write * for one segment"
		case strings.Contains(seg, "*"):
			return strconv.Quote(short(s)) + ": * stands for a whole segment", "write it alone between slashes, as in GET /v1/things/*"
		case seg == "." || seg == "..", seg == "" && !(http && last), !segmentPattern.MatchString(seg):
			return strconv.Quote(short(s)) + " is not a method", form
		}
	}
	if !http && len(segments) != 3 && segments[len(segments)-1] != "**" {
		return strconv.Quote(short(s)) + " is not a method", form
	}
	return "", ""
}

func checkText(s string) (wrong, hint string) {
	switch {
	case len(s) > maxText:
		return "a text of " + strconv.Itoa(len(s)) + " bytes is too long", "write at most " + strconv.Itoa(maxText)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && unicode.IsControl(r) }):
		return "the text has a control character", "remove it"
	}
	return "", ""
}

func checkURL(s string) (wrong, hint string) {
	const form = "write it as https://git.example.com/shop/billing"
	u, err := url.Parse(s)
	switch {
	case len(s) > maxText || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return strconv.Quote(short(s)) + " is not an http(s) URL", form
	case u.User != nil:
		return "a URL has no user or password in it", form
	}
	return "", ""
}

func checkEmail(s string) (wrong, hint string) {
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s || len(s) > 254 || strings.ContainsAny(s, "<>\n\r\x00") {
		return strconv.Quote(short(s)) + " is not an e-mail address", "write the address alone, such as mira@example.com"
	}
	return "", ""
}

func checkSecret(s string) (wrong, hint string) {
	if !secretPattern.MatchString(s) {
		// It may be the secret itself: it is not repeated.
		return "this is not the name of a secret", "write its name, such as slack-checkout; the portal is given the secret under that name"
	}
	return "", ""
}

func checkPort(s string) (wrong, hint string) {
	if n, err := strconv.Atoi(s); err != nil || n < 1 || n > 65535 {
		return short(s) + " is not a port", "write a number from 1 to 65535"
	}
	return "", ""
}

// short keeps what a message quotes readable.
func short(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "..."
	}
	return s
}
