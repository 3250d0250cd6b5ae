package forge

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
)

// A remote is written by whoever wrote the repository: whatever it is, the API's addresses that are made of it stay on its host and below the
// repository's path.
func FuzzRemote(f *testing.F) {
	for _, s := range []string{"https://github.com/a/b.git", "git@h:a/b", "ssh://u:p@h:22/x/../a/b", "http://127.0.0.1:1/a/b%2f..%2fc", "https://h/a/b?c#d", "ext::x", "https://[::1]/a/b", "https://h\\@e/a/b", "git+ssh://h/~a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, p := parseRemote(s)
		if p != nil || r.scheme == "file" {
			return
		}
		for _, kind := range []Kind{GitHub, GitLab, Gitea} {
			base, path, p := r.split(kind, "")
			if p != nil {
				continue
			}
			u, err := url.Parse(base + "/api/v1/repos/" + path)
			if err != nil || !strings.EqualFold(u.Hostname(), r.host) || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
				t.Errorf("%q: %s and %s", s, base, path)
			}
			for seg := range strings.SplitSeq(path, "/") {
				if seg == "" || seg == "." || seg == ".." {
					t.Errorf("%q: the path is %s", s, path)
				}
			}
		}
	})
}

// What a forge says ends in a terminal, and what it says of a next page in a request.
func FuzzAnswer(f *testing.F) {
	f.Add(`{"message":"a","errors":[{"message":"b"},{"field":"c","code":"d"},"e"]}`, `<https://h/x?page=2>; rel="next"`, "remote: x\n! [remote rejected] (no new changes)")
	f.Add(`{"message":{"a":["b\u001b[0m"]},"error":{"c":[[]]}}`, `<?page=2>;rel=next,<`, "remote:   https://h/c/x/+/12 s [WIP] [NEW]\r\n")
	f.Fuzz(func(t *testing.T, body, link, output string) {
		words := errorText([]byte(body))
		if p := PushProblem(output); p != nil {
			words += p.Message
		}
		for _, c := range GerritChanges(output) {
			words += c.URL + c.Subject
		}
		if strings.ContainsFunc(words, unicode.IsControl) {
			t.Errorf("a control character in %q", words)
		}
		if next := nextPage(http.Header{"Link": {link}}, nil); strings.ContainsAny(next, " \n#") {
			t.Errorf("the next page of %q is %q", link, next)
		}
	})
}
