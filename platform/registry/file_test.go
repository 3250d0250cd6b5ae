package registry

import (
	"fmt"
	"os"
	"path"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

func TestParseService(t *testing.T) {
	const head = "version: 1\nname: billing\n"
	for _, c := range []struct{ name, text, want string }{
		{"whole", head + "team: money\ndescription: |\n  Takes money.\nrepository: https://git.example.com/shop/billing\naccess: review\nports: [8080]\nendpoints:\n  - method: /b.B/C\ncalls:\n  - service: rates.finance\n    methods: [GET /v1/rates/*, \"*\", /r.R/*, POST /**]\n    reason: rates\n    environments: fresh\n", ""},
		{"keys without a value", head + "team:\ncalls:\n", ""},
		{"empty", "", "0: registry-syntax"},
		{"comments only", "# nothing\n", "0: registry-syntax"},
		{"syntax", head + "team: a: b\n", "3: registry-syntax"},
		{"two documents", head + "---\nname: x\n", "3: registry-syntax"},
		{"a list", "- 1\n", "1: registry-type"},
		{"no version", "name: billing\n", "1: registry-value"},
		{"version 2", "version: 2\nname: billing\n", "1: registry-value"},
		{"another name", "version: 1\nname: other\n", "2: registry-value"},
		{"unknown key", head + "acess: review\n", "3: registry-unknown-key"},
		{"twice", head + "team: a\nteam: b\n", "4: registry-duplicate"},
		{"access", head + "access: closed\n", "3: registry-value"},
		{"a number", head + "team: 7\n", "3: registry-type"},
		{"traversal", head + "team: ../x\n", "3: registry-value"},
		{"password in a URL", head + "repository: https://a:b@c/d\n", "3: registry-value"},
		{"script URL", head + "repository: javascript:alert(1)\n", "3: registry-value"},
		{"alias", head + "calls:\n  - &a {service: x, methods: [\"*\"]}\n  - *a\n", "4: registry-syntax; 5: registry-syntax"},
		{"half a segment", head + "calls:\n  - service: x\n    methods: [/a.B/C*]\n", "5: registry-value"},
		{"no method", head + "calls:\n  - service: x\n    methods: []\n", "5: registry-value"},
		{"service twice", head + "calls:\n  - service: x\n    methods: [\"*\"]\n  - service: x\n    methods: [\"*\"]\n", "6: registry-duplicate"},
		{"port", head + "ports: [0]\n", "3: registry-value"},
		{"too large", head + "description: \"" + strings.Repeat("x", maxFile) + "\"\n", "0: registry-too-large"},
		{"everything that is wrong", head + "a: 1\nb: 2\n", "3: registry-unknown-key; 4: registry-unknown-key"},
	} {
		s, problems := parseService("services/billing.yaml", "billing", []byte(c.text))
		if got := said(t, problems); got != c.want {
			t.Errorf("%s: got %q, want %q: %v", c.name, got, c.want, problems)
		}
		if (s == nil) != (len(problems) > 0) {
			t.Errorf("%s: a service and %d problems", c.name, len(problems))
		}
	}
}

func said(t *testing.T, problems []*api.Problem) string {
	t.Helper()
	var out []string
	for _, p := range problems {
		if p.File == "" || p.Message == "" || p.Hint == "" {
			t.Errorf("a problem without file, words or next step: %+v", p)
		}
		out = append(out, fmt.Sprintf("%d: %s", p.Line, p.Code))
	}
	return strings.Join(out, "; ")
}

func TestParseTeam(t *testing.T) {
	const head = "version: 1\nname: money\n"
	for _, c := range []struct{ name, text, want string }{
		{"whole", head + "changes: review\nmembers: [mira@example.com]\nnotify:\n  - slack: slack-money\n  - email: money@example.com\n  - webhook: https://hooks.example.com/x\n    secret: money-hmac\n", ""},
		{"a name with an address", head + "members: [Mira <mira@example.com>]\n", "3: registry-value"},
		{"nowhere", head + "notify:\n  - secret: x\n", "4: registry-value; 4: registry-value"},
		{"two places", head + "notify:\n  - {slack: a, email: a@b.c}\n", "4: registry-value"},
		{"the secret itself", head + "notify:\n  - slack: https://hooks.example.com/T0/B0/key\n", "4: registry-value"},
	} {
		_, problems := parseTeam("teams/money.yaml", "money", []byte(c.text))
		if got := said(t, problems); got != c.want {
			t.Errorf("%s: got %q, want %q: %v", c.name, got, c.want, problems)
		}
		for _, p := range problems {
			if strings.Contains(p.Message+p.Hint, "/T0/") {
				t.Errorf("a secret is repeated: %v", p)
			}
		}
	}
}

// One broken file takes nothing from the others, and is not open.
func TestSnapshot(t *testing.T) {
	remote := bare(t, map[string]string{
		"services/a.yaml": "version: 1\nname: a\ncalls:\n  - service: b\n    methods: [/b.B/C]\n  - service: c\n    methods: [\"*\"]\n  - service: d\n    methods: [\"*\"]\n",
		"services/b.yaml": "version: 1\nname: b\n", "services/c.yaml": "version: 1\nname: c\nbroken\n", "services/x.yml": "version: 1\n",
		"services/Up.yaml": "version: 1\nname: Up\n", "teams/t.yaml": "version: 1\nname: t\n", "README.md": "# ours\n", "services/sub/z.yaml": "version: 1\n",
	})
	s := snapshot(t, open(t, Options{Remote: remote}))
	var problems []string
	for _, p := range s.Problems {
		problems = append(problems, p.File+" "+p.Code)
	}
	if d := cmp.Diff([]string{"services/Up.yaml registry-file", "services/c.yaml registry-syntax", "services/sub registry-file", "services/x.yml registry-file"}, problems); d != "" {
		t.Error(d)
	}
	for callee, want := range map[string]string{"b": "true [/b.B/C]", "c": "true [*]", "d": "false []"} {
		if governed, patterns := s.Grants("a", callee); fmt.Sprint(governed, " ", patterns) != want {
			t.Errorf("a may call %s: %v %v, want %s", callee, governed, patterns, want)
		}
	}
	if governed, patterns := s.Grants("other", "b"); !governed || patterns != nil {
		t.Errorf("a caller without a file: %v %v", governed, patterns)
	}
	if s.Teams["t"] == nil || len(s.Callers("b")) != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestDecide(t *testing.T) {
	s := newSnapshot(nil, nil, nil)
	for _, svc := range []*Service{
		{Name: "open"}, {Name: "guarded", Team: "money", Access: AccessReview}, {Name: "nobodys", Access: AccessReview}, {Name: "direct", Team: "quick"}, {Name: "slow", Team: "careful"}, {Name: "closed", Team: "named"}, {Name: "lost", Team: "broken"}, {Name: "plain", Team: "unwritten"},
	} {
		s.Services[svc.Name] = svc
	}
	s.Teams = map[string]*Team{"money": {Name: "money"}, "quick": {Name: "quick", Changes: ChangesDirect}, "careful": {Name: "careful", Changes: ChangesReview}, "named": {Name: "named", Members: []string{"Mira@example.com"}}}
	s.broken = map[string]bool{"services/torn.yaml": true, "teams/broken.yaml": true}
	for _, c := range []struct {
		caller, callee, email string
		review                bool
		why                   string
	}{
		{"direct", "open", "", false, "open is open to everyone; team quick changes its files directly"},
		{"new", "open", "", false, "open is open to everyone; new has no team that reviews its changes"},
		{"plain", "open", "", false, "open is open to everyone; team unwritten has no file that asks for a review"},
		{"direct", "unknown", "", false, "unknown is not in the registry, so nobody reviews its callers; team quick changes its files directly"},
		{"direct", "guarded", "", true, "guarded is reviewed by its owners, team money"},
		{"direct", "nobodys", "", true, "nobodys is reviewed by its owners"},
		{"direct", "torn", "", true, "services/torn.yaml cannot be read, so what it says of access is not known"},
		{"slow", "open", "", true, "team careful reviews changes of its files"},
		{"lost", "open", "", true, "teams/broken.yaml cannot be read, so what it says of changes is not known"},
		{"closed", "open", "mira@example.com", false, "open is open to everyone; team named changes its files directly"},
		{"closed", "open", "mallory@example.com", true, "mallory@example.com is not a member of team named"},
		{"closed", "open", "", true, " is not a member of team named"},
	} {
		if got := Decide(s, c.caller, c.callee, c.email); got != (Decision{c.review, c.why}) {
			t.Errorf("%s calls %s: %+v, want %v %s", c.caller, c.callee, got, c.review, c.why)
		}
	}
}

// What is there stays as it is, to the letter, where a line can be added; where it cannot, comments and order stay.
func TestRender(t *testing.T) {
	const head = "# Ours.\nversion: 1\n\nname: a # the name\n\n"
	q := Request{Callee: "b", Methods: []string{"/b.B/C"}, Reason: "why: because"}
	entry := "- service: b\n  methods:\n    - /b.B/C\n  reason: 'why: because'\n"
	for _, c := range []struct{ name, old, want string }{
		{"no calls", head + "team: t", head + "team: t\ncalls:\n" + indent([]byte(entry), 2)},
		{"another callee", head + "calls:\n    # rates\n    - service: r # why\n      methods:\n          - GET /x # x\n\nteam: t\n", head + "calls:\n    # rates\n    - service: r # why\n      methods:\n          - GET /x # x\n" + indent([]byte(entry), 4) + "\nteam: t\n"},
		{"not indented", head + "calls:\n- service: r\n  methods: [\"*\"]\n# end\n", head + "calls:\n- service: r\n  methods: [\"*\"]\n" + entry + "# end\n"},
		{"another method", head + "calls:\n  - methods:\n    - /b.B/X\n\n    service: b\n    reason: old\n  - service: c\n    methods: [\"*\"]\n", head + "calls:\n  - methods:\n    - /b.B/X\n    - /b.B/C\n\n    service: b\n    reason: old\n  - service: c\n    methods: [\"*\"]\n"},
		{"in brackets", "# Ours.\nversion: 1\nname: a # the name\ncalls:\n  - service: b # it\n    methods: [/b.B/X]\n    reason: old\n", "# Ours.\nversion: 1\nname: a # the name\ncalls:\n  - service: b # it\n    methods: [/b.B/X, /b.B/C]\n    reason: old\n"},
		{"a reason that was missing", "version: 1\nname: a\ncalls:\n  - service: b # it\n    methods:\n      - /b.B/X\n", "version: 1\nname: a\ncalls:\n  - service: b # it\n    methods:\n      - /b.B/X\n      - /b.B/C\n    reason: 'why: because'\n"},
		{"an empty list", "version: 1\nname: a\ncalls: [] # none yet\n", "version: 1\nname: a\ncalls: # none yet\n" + indent([]byte(entry), 2)},
		{"nothing after calls", "version: 1\nname: a\ncalls: # none yet\nteam: t\n", "version: 1\nname: a\ncalls: # none yet\n" + indent([]byte(entry), 2) + "team: t\n"},
		{"all in braces", "{version: 1, name: a} # x\n", "{version: 1, name: a, calls: [{service: b, methods: [/b.B/C], reason: 'why: because'}]} # x\n"},
		{"a text of several lines last", "version: 1\nname: a\ncalls:\n  - service: r\n    methods: [\"*\"]\n    reason: |\n      one\n\n      - two\n", "version: 1\nname: a\ncalls:\n  - service: r\n    methods: [\"*\"]\n    reason: |\n      one\n\n      - two\n" + indent([]byte(entry), 2)},
	} {
		was, problems := parseService("f", "a", []byte(c.old))
		if len(problems) > 0 {
			t.Fatalf("%s: %v", c.name, problems[0])
		}
		want, _ := withGrant(was, q)
		got, err := render("f", []byte(c.old), was, want)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if d := cmp.Diff(c.want, string(got)); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
}

func TestWithGrant(t *testing.T) {
	s := &Service{Name: "a", Calls: []Grant{{Service: "b", Methods: []string{"/b.B/*", "/c.C/D"}, Environments: "fresh"}}}
	got, added := withGrant(s, Request{Callee: "b", Methods: []string{"/b.B/C", "/c.C/D", "/c.C/E", "*"}, Environments: "shared"})
	if d := cmp.Diff([]string{"/c.C/E", "*"}, added); d != "" {
		t.Error(d)
	}
	if got.Calls[0].Environments != "shared" || len(s.Calls[0].Methods) != 2 || s.Calls[0].Environments != "fresh" {
		t.Errorf("got %+v of %+v", got, s)
	}
}

func TestMethods(t *testing.T) {
	for s, ok := range map[string]bool{
		"*": true, "/a.B/C": true, "/a.B/*": true, "/a.B/**": true, "/**": true, "GET /": true, "GET /v1/things/*": true, "GET /v1/**": true, "GET /v1/": true, "DELETE /a/*/b": true, "POST /v1/things:batch": true,
		"": false, "/a": false, "a.B/C": false, "/a.B/C/D": false, "get /": false, "GET v1": false, "GET  /x": false, "GET /a/../b": false, "GET /a//b": false, "GET /**/b": false, "/a.B/C*": false, "/a B/C": false, "* /x": false, "GET /x?y=1": false, "GET /x#y": false, "GET /\"x\"": false, "GET /x\n": false, "/a.B/": false,
	} {
		wrong, hint := CheckPattern(s)
		if (wrong == "") != ok || (wrong == "") != (hint == "") {
			t.Errorf("%q: %q, %q", s, wrong, hint)
		}
	}
	if wrong, _ := CheckMethod("*"); wrong == "" {
		t.Error("* is no method of an endpoint")
	}
}

// The documentation's examples are right, and have every key.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		head string
		read func(file, name string, content []byte) []*api.Problem
		keys []reflect.Type
	}{
		{"services/checkout.yaml", func(f, n string, b []byte) []*api.Problem { _, p := parseService(f, n, b); return p }, []reflect.Type{reflect.TypeFor[Service](), reflect.TypeFor[Endpoint](), reflect.TypeFor[Grant]()}},
		{"teams/shop.yaml", func(f, n string, b []byte) []*api.Problem { _, p := parseTeam(f, n, b); return p }, []reflect.Type{reflect.TypeFor[Team](), reflect.TypeFor[Notify]()}},
	} {
		_, rest, found := strings.Cut(string(text), "```yaml\n# "+c.head+"\n")
		example, _, ended := strings.Cut(rest, "```")
		if !found || !ended {
			t.Fatalf("no example of %s", c.head)
		}
		if problems := c.read(c.head, strings.TrimSuffix(path.Base(c.head), ".yaml"), []byte(example)); len(problems) > 0 {
			t.Errorf("%s: %v", c.head, problems[0])
		}
		for _, typ := range c.keys {
			for i := range typ.NumField() {
				key, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
				if !strings.Contains(example, key+":") {
					t.Errorf("%s has no %s of %s", c.head, key, typ.Name())
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"version: 1\nname: a\n", "version: 1\nname: a\ncalls:\n  - service: b\n    methods: [/x.Y/Z, 'GET /a/*']\n    reason: |\n      x\n", "{version: 1, name: a, calls: []}", "a: &x [*x]\n", "? {a: b}\n: c\n", "version: 1\nname: a\ncalls:\n- {service: b, methods: ['*']} # x\n\n\n"} {
		f.Add([]byte(s), "/b.B/C", "why")
	}
	f.Fuzz(func(t *testing.T, text []byte, method, reason string) {
		parseTeam("teams/a.yaml", "a", text)
		s, problems := parseService("services/a.yaml", "a", text)
		if (s == nil) != (len(problems) > 0) {
			t.Fatalf("a service %v and problems %v", s, problems)
		}
		q, p := check(Request{ID: "request-1", Caller: "a", Callee: "b", Methods: []string{method}, Reason: reason, Author: mira})
		if s == nil || p != nil {
			return
		}
		// What can be read can be changed, or is refused; it never becomes another file.
		want, _ := withGrant(s, q)
		out, err := render("services/a.yaml", text, s, want)
		if err != nil {
			return
		}
		got, problems := parseService("services/a.yaml", "a", out)
		if len(problems) > 0 || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q: %v", text, out, problems)
		}
	})
}

// Where it stands who decides, for whoever wants to look at it; also of a file that says nothing else.
func TestPolicy(t *testing.T) {
	entries, content := []entry{}, map[string][]byte{}
	for name, text := range map[string]string{
		"services/review.yaml":  "# whose\nversion: 1\nname: review\n\naccess: review # always\n",
		"services/default.yaml": "version: 1\n# a name\nname: default\n",
		"services/broken.yaml":  "version: [\n",
	} {
		entries = append(entries, entry{"100644", name, name})
		content[name] = []byte(text)
	}
	s := newSnapshot(entries, nil, content)
	for callee, want := range map[string]int{"review": 5, "default": 3, "broken": 1, "nobody": 0} {
		file, text, line := s.Policy(callee)
		if line != want || file != "" && string(text) != string(content[file]) || (file == "") != (want == 0) {
			t.Errorf("%s: %s:%d %q", callee, file, line, text)
		}
	}
}
