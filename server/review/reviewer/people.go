package reviewer

import (
	"context"
	"regexp"
	"strings"
)

// Person is somebody of the history, under all names and addresses that are theirs.
type Person struct {
	Name   string   // the last one used
	Email  string   // the last one used that reaches somebody
	Emails []string // all, in lower case
	Logins []string // on forges, as far as addresses tell them (1234+login@users.noreply.github.com)
	bot    bool
}

func (p Person) String() string { return p.Name + " <" + p.Email + ">" }

var (
	// botWord is a word of a name or of an address's local part that only programs have. Talbot and Abbott are people.
	botWord = regexp.MustCompile(`(?i)(^|[^\pL])(bot|robot|gobot|bors|renovate|dependabot|greenkeeper|weblate|jenkins|travis|copybara|kokoro|trybot|luci|ci|actions-user|github-actions)($|[^\pL])`)
	// service is an address that no person reads.
	service = regexp.MustCompile(`(?i)^no-?reply@|^do-?not-?reply@|@noreply\.(github|gitlab)\.com$|\.gserviceaccount\.com$|\[bot\]|^github-actions@|@bots?\.`)
	// noreply are the addresses that forges give to people who keep theirs for themselves.
	noreply = regexp.MustCompile(`(?i)^(?:\d+[+-])?([a-z\d][-a-z\d._]*)@users\.noreply\.[a-z\d.-]+$`)
)

func isBot(i identity) bool {
	local, _, _ := strings.Cut(i.email, "@")
	return strings.Contains(i.name, "[bot]") || botWord.MatchString(i.name) || botWord.MatchString(local) || service.MatchString(i.email)
}

// nobodys are addresses that git makes up or that many leave in place: they say nothing about who it is.
func nobodys(email string) bool {
	_, host, ok := strings.Cut(email, "@")
	return !ok || host == "" || host == "localhost" || host == "(none)" || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".(none)") ||
		strings.HasSuffix(host, ".localdomain") || host == "example.com" || service.MatchString(email)
}

// fullName is a name by which two addresses are one person's, in lower case, or "": it has two words at least.
func fullName(name string) string {
	words := strings.Fields(strings.ToLower(name))
	if len(words) < 2 || strings.Join(words, " ") == "your name" {
		return ""
	}
	return strings.Join(words, " ")
}

// mailmap gives each identity its name in the repository's mailmap, by git, which knows where one can be.
func mailmap(ctx context.Context, g git, people []identity) ([]identity, error) {
	var in strings.Builder
	var asked []int
	for i, p := range people {
		if p.email != "" { // one without an address is none that git would take
			asked = append(asked, i)
			in.WriteString(p.name + " <" + p.email + ">\n")
		}
	}
	out := append([]identity(nil), people...)
	if len(asked) == 0 {
		return out, nil
	}
	lines, err := g.lines(ctx, strings.NewReader(in.String()), "check-mailmap", "--stdin")
	if err != nil {
		return nil, err
	}
	if len(lines) != len(asked) {
		return nil, errLog
	}
	for n, line := range lines {
		if who, ok := parseIdentity(line); ok {
			out[asked[n]] = who
		}
	}
	return out, nil
}

// unite finds the persons behind identities: equal by address or by full name. It returns each identity's person. used is
// when each identity was last used.
func unite(identities []identity, used []int64) ([]Person, []int32) {
	parent := make([]int32, len(identities))
	for i := range parent {
		parent[i] = int32(i)
	}
	root := func(i int32) int32 {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	first := map[string]int32{}
	join := func(key string, i int32) {
		if j, ok := first[key]; ok {
			parent[root(i)] = root(j)
		} else {
			first[key] = i
		}
	}
	for n, p := range identities {
		i, email := int32(n), strings.ToLower(p.email)
		if isBot(p) {
			join("program "+strings.ToLower(p.name)+" "+email, i)
			continue
		}
		if !nobodys(email) {
			join("email "+email, i)
		}
		if full := fullName(p.name); full != "" {
			join("name "+full, i)
		}
	}

	var people []Person
	person := make([]int32, len(identities))
	number := map[int32]int32{}
	type latest struct{ name, email int64 }
	var last []latest
	for n, p := range identities {
		r := root(int32(n))
		at, ok := number[r]
		if !ok {
			at = int32(len(people))
			number[r] = at
			people, last = append(people, Person{bot: isBot(identities[r])}), append(last, latest{-1, -1})
		}
		person[n] = at
		who, email := &people[at], strings.ToLower(p.email)
		if when := used[n] + 1; p.name != "" && when > last[at].name {
			who.Name, last[at].name = p.name, when
		}
		hidden := noreply.FindStringSubmatch(p.email)
		when := used[n] + 1
		if hidden != nil || nobodys(email) {
			when = 0 // only where there is no other
		}
		if p.email != "" && when > last[at].email {
			who.Email, last[at].email = p.email, when
		}
		if email != "" && !contains(who.Emails, email) {
			who.Emails = append(who.Emails, email)
		}
		if hidden != nil && !contains(who.Logins, hidden[1]) {
			who.Logins = append(who.Logins, hidden[1])
		}
	}
	for i := range people {
		if people[i].Name == "" {
			people[i].Name, _, _ = strings.Cut(people[i].Email, "@")
		}
	}
	return people, person
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if strings.EqualFold(l, s) {
			return true
		}
	}
	return false
}
