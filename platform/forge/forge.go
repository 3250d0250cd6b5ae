// Package forge opens draft reviews on the forge that a git remote is on. It knows forges' APIs, and neither git nor what is reviewed.
//
// Gitea, and Forgejo, which has the same API, are spoken to by their documented REST with net/http: three requests. Their SDK was
// left out: it is five modules more for what fits one file, and it takes no context of a single request.
package forge

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"

	"fairlead.dev/api"
)

// The variables that the token is taken from: the name of a file, or the token itself.
const (
	TokenFileVariable = "FAIRLEAD_FORGE_TOKEN_FILE"
	TokenVariable     = "FAIRLEAD_FORGE_TOKEN"
)

// Token is the forge's from the environment, or "" where none is set. The file goes before the variable.
func Token(getenv func(string) string) (string, error) {
	name := getenv(TokenFileVariable)
	if name == "" {
		return checkToken(getenv(TokenVariable), TokenVariable)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", &api.Problem{Code: "forge-token", Message: "read the forge's token: " + err.Error(), Hint: "correct " + TokenFileVariable}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", &api.Problem{Code: "forge-token", Message: "read the forge's token: " + err.Error(), Hint: "correct " + TokenFileVariable}
	}
	t, err := checkToken(strings.TrimSpace(string(b)), name)
	if err == nil && t == "" {
		err = &api.Problem{Code: "forge-token", Message: name + " is empty", Hint: "write the forge's token into it"}
	}
	return t, err
}

// What RFC 9110 lets a credential have; a line's end in it would be a header of its own.
var tokenPattern = regexp.MustCompile(`^[-A-Za-z0-9._~+/=]{1,1000}$`)

func checkToken(t, from string) (string, error) {
	if t != "" && !tokenPattern.MatchString(t) {
		return "", &api.Problem{Code: "forge-token", Message: "what " + from + " has is not a token", Hint: "make one in the forge's settings, with the right to write to repositories and pull requests"}
	}
	return t, nil
}

// place is a repository on a forge.
type place struct{ base, owner, repo string } // base is the forge's address without a slash at its end

// find tells a repository by its git remote. By ssh, the forge is taken to be at https on the same host.
func find(remote string) (place, error) {
	fail := func(why string) (place, error) {
		return place{}, &api.Problem{Code: "forge-remote", Message: why, Hint: "a review can be opened where registry: is a URL as https://git.example.com/team/registry.git"}
	}
	if !strings.Contains(remote, "://") {
		host, path, ok := strings.Cut(remote, ":")
		if !ok || strings.HasPrefix(remote, "/") {
			return fail("the registry " + remote + " is on no forge")
		}
		remote = "ssh://" + host + "/" + path
	}
	u, err := url.Parse(remote)
	if err != nil || u.Hostname() == "" {
		return fail("the registry's address cannot be read")
	}
	segments := strings.Split(strings.Trim(strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), ".git"), "/"), "/")
	if len(segments) < 2 {
		return fail("the registry's address has no owner and repository")
	}
	for _, s := range segments {
		if s == "" || s == "." || s == ".." {
			return fail("the registry's address has no owner and repository")
		}
	}
	n := len(segments)
	p := place{owner: segments[n-2], repo: segments[n-1]}
	switch u.Scheme {
	case "ssh":
		p.base = "https://" + u.Hostname()
	case "https":
		p.base = "https://" + u.Host
	case "http":
		// The token would be readable on the way.
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fail(fmt.Sprintf("%s is asked without TLS, so it is given no token", u.Host))
		}
		p.base = "http://" + u.Host
	default:
		return fail("the registry's address has the scheme " + u.Scheme + ", which no forge has")
	}
	if n > 2 { // a forge below a path
		p.base += "/" + strings.Join(segments[:n-2], "/")
	}
	return p, nil
}
