package forge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"fairlead.dev/api"
)

// remote is a git remote's address, read.
type remote struct {
	scheme string // ssh, https, http, file
	host   string // without a port
	port   string
	path   string // without slashes at its ends and without .git
}

func (r remote) String() string {
	if r.scheme == "file" {
		return r.path
	}
	h := r.host
	if strings.Contains(h, ":") {
		h = "[" + h + "]"
	}
	if r.port != "" {
		h += ":" + r.port
	}
	return r.scheme + "://" + h + "/" + r.path
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$`)

// parseRemote reads an address as git takes it, as `git remote get-url` prints it: a URL, HOST:PATH for ssh, or a folder.
func parseRemote(s string) (remote, *api.Problem) {
	bad := func(why string) (remote, *api.Problem) {
		return remote{}, &api.Problem{Code: "forge-remote", Message: why, Hint: "a review can be opened where the remote is as https://git.example.com/team/shop.git or git@git.example.com:team/shop.git"}
	}
	if s == "" || strings.HasPrefix(s, "-") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return bad("the remote's address cannot be read")
	}
	if !strings.Contains(s, "://") {
		host, path, ok := strings.Cut(s, ":")
		if !ok || strings.ContainsAny(host, `/\`) || len(host) == 1 { // a folder, also one of Windows
			return remote{scheme: "file", path: s}, nil
		}
		s = "ssh://" + host + "/" + strings.TrimPrefix(path, "/")
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("the remote's address cannot be read") // err has it whole, and a password may be in it
	}
	r := remote{scheme: strings.TrimPrefix(strings.ToLower(u.Scheme), "git+"), host: strings.ToLower(u.Hostname()), port: u.Port()}
	switch r.scheme {
	case "file":
		r.path = u.Path
		return r, nil
	case "ssh", "https", "http":
	default:
		return bad("the remote's address has the scheme " + clean(u.Scheme) + ", which no forge has")
	}
	if !hostPattern.MatchString(r.host) && net.ParseIP(r.host) == nil {
		return bad("the remote's address has no host")
	}
	r.path = strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	for seg := range strings.SplitSeq(r.path, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return bad("the remote's address has no owner and repository")
		}
	}
	return r, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// web is where the forge's pages are: by ssh, at https on the same host.
func (r remote) web() string {
	h := r.host
	if strings.Contains(h, ":") {
		h = "[" + h + "]"
	}
	if r.scheme == "ssh" {
		return "https://" + h
	}
	if r.port != "" {
		h += ":" + r.port
	}
	return r.scheme + "://" + h
}

// split is the forge's address and the repository's path on it. What stands before owner/repository is a forge below a path; GitLab's
// groups may be nested, so only a given address tells these apart there.
func (r remote) split(kind Kind, given string) (base, path string, _ *api.Problem) {
	base, path = r.web(), r.path
	if given != "" {
		base = given
		if u, err := url.Parse(given); err == nil && r.scheme != "ssh" {
			path = strings.TrimPrefix(path, strings.Trim(u.Path, "/")+"/")
		}
	}
	if kind == Gerrit {
		return base, strings.TrimPrefix(path, "a/"), nil // /a/ asks for a sign-in
	}
	segments := strings.Split(path, "/")
	n := len(segments)
	if n < 2 || !validPath(path) {
		return "", "", &api.Problem{Code: "forge-remote", Message: r.String() + " has no owner and repository", Hint: "write the remote as https://git.example.com/team/shop.git"}
	}
	if kind != GitLab && n > 2 {
		if given == "" && kind != Plain {
			base += "/" + strings.Join(segments[:n-2], "/")
		}
		path = strings.Join(segments[n-2:], "/")
	}
	return base, path, nil
}

// known are the hosts whose forge need not be asked. The second is where its pages are.
func known(host string) (kind Kind, pages string) {
	switch host {
	case "github.com", "www.github.com", "ssh.github.com": // the last is ssh on port 443
		return GitHub, "https://github.com"
	case "gitlab.com", "altssh.gitlab.com":
		return GitLab, "https://gitlab.com"
	case "codeberg.org", "gitea.com":
		return Gitea, "https://" + host
	case "bitbucket.org", "altssh.bitbucket.org":
		return Plain, "https://bitbucket.org"
	case "git.sr.ht":
		return Plain, "https://git.sr.ht"
	}
	if strings.HasSuffix(host, ".ghe.com") {
		return GitHub, "https://" + host
	}
	if name, ok := strings.CutSuffix(host, ".googlesource.com"); ok {
		return Gerrit, "https://" + strings.TrimSuffix(name, "-review") + "-review.googlesource.com"
	}
	return "", ""
}

// Open finds the forge that a git remote is on. It fails where the remote or the options are wrong; a forge that is not known, or does not
// answer, is a Plain one with the reason in Why. No token is sent.
func Open(ctx context.Context, address string, o Options) (*Forge, error) {
	r, p := parseRemote(address)
	if p != nil {
		return nil, p
	}
	if _, ok := names[o.Kind]; o.Kind != "" && !ok {
		return nil, &api.Problem{Code: "forge-kind", Message: "there is no forge of the kind " + clean(short(string(o.Kind))), Hint: "it is one of github, gitlab, gitea (also for Forgejo), gerrit, git"}
	}
	if r.scheme == "file" {
		return &Forge{Kind: Plain, Path: r.path, remote: r, Why: &api.Problem{Code: "forge-none", Message: "the remote is a folder, so there is no forge", Hint: "push the branch to a forge to have it reviewed there"}}, nil
	}
	given := ""
	if o.URL != "" {
		u, err := url.Parse(o.URL)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
			return nil, &api.Problem{Code: "forge-url", Message: "the forge's address is not a URL of https", Hint: "write it as https://git.example.com"}
		}
		given = strings.TrimSuffix(u.Scheme+"://"+u.Host+u.EscapedPath(), "/")
	}
	kind, why := o.Kind, (*api.Problem)(nil)
	host := r.host
	if given != "" {
		u, _ := url.Parse(given) // it was one
		host = strings.ToLower(u.Hostname())
	}
	if k, pages := known(host); given == "" || k != "" {
		if k == "" && r.scheme == "ssh" {
			if real := sshHost(ctx, r.host); real != r.host {
				r.host = real
				k, pages = known(real)
			}
		}
		if kind == "" {
			kind = k
		}
		given = pages
		if k == Plain {
			why = &api.Problem{Code: "forge-unknown", Message: "Fairlead does not know the API of " + r.host, Hint: "push the branch, and open its review there"}
		}
	}
	// The token would be readable on the way, and so would the answers.
	if r.scheme == "http" && given == "" && !loopback(r.host) {
		return nil, &api.Problem{Code: "forge-remote", Message: r.host + " is asked without TLS, so it is given no token", Hint: "use the remote's https or ssh address"}
	}
	if kind == Plain && why == nil {
		why = &api.Problem{Code: "forge-none", Message: "it is set up as no forge", Hint: "push the branch, and have it reviewed as you do"}
	}
	if kind == "" {
		var err error
		if kind, why, err = detect(ctx, r, given, o.Transport); err != nil {
			return nil, err
		}
	}
	base, path, p := r.split(kind, given)
	if p != nil {
		return nil, p
	}
	f := &Forge{Kind: kind, URL: base, Path: path, Why: why, remote: r}
	f.client = newClient(kind, base, r, o)
	f.driver = newDriver(f)
	return f, nil
}

func newDriver(f *Forge) driver {
	switch f.Kind {
	case GitHub:
		return &githubAPI{f}
	case GitLab:
		return &gitlabAPI{f}
	case Gitea:
		return &giteaAPI{f}
	}
	return nil
}

// sshHost is a host's real name, where the user's ssh configuration gives it another one: git@work:team/shop.git.
func sshHost(ctx context.Context, host string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh", "-G", "--", host).Output()
	if err != nil {
		return host // there is no ssh: git has another one, and the name is all there is
	}
	for l := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), "hostname "); ok && (hostPattern.MatchString(name) || net.ParseIP(name) != nil) {
			return strings.ToLower(name)
		}
	}
	return host
}

// detect asks a host that is not known what it is, without a token: what answers may be anything. A forge that only talks to who is signed in
// still says so in its own way.
func detect(ctx context.Context, r remote, given string, t http.RoundTripper) (Kind, *api.Problem, error) {
	var first error
	for _, kind := range []Kind{Gitea, GitLab, GitHub, Gerrit} {
		base, _, p := r.split(kind, given)
		if p != nil {
			continue
		}
		c := newClient(kind, base, r, Options{Transport: t})
		c.tries, c.http.Timeout = 1, 5*time.Second // who is away is a plain remote, and that is told
		is, err := c.is(ctx)
		switch {
		case ctx.Err() != nil:
			return "", nil, ctx.Err()
		case is:
			return kind, nil, nil
		case first == nil:
			first = err
		}
		if p := (*api.Problem)(nil); errors.As(err, &p) && p.Code == "forge-away" {
			break // it will not be there for the others either
		}
	}
	var p *api.Problem
	if errors.As(first, &p) {
		p.Hint = "where its forge has another address, name it in " + URLVariable + "; where there is none, " + KindVariable + "=git says so"
		return Plain, p, nil
	}
	base, _, _ := r.split(Plain, given)
	return Plain, &api.Problem{Code: "forge-unknown", Message: base + " answers as none of GitHub, GitLab, Gitea, Forgejo and Gerrit", Hint: fmt.Sprintf("say which it is in %s, and its address in %s where that is another", KindVariable, URLVariable)}, nil
}

// Compare is the page on which a branch is compared with its base, and its review opened by hand; "" where Fairlead knows none.
func (f *Forge) Compare(head Head, base string) string {
	page := f.URL + "/" + f.Path
	switch {
	case f.Kind == GitHub || f.Kind == Gitea:
		from := escapePath(head.Branch)
		if head.Owner != "" {
			from = url.PathEscape(head.Owner) + ":" + from
		}
		return page + "/compare/" + escapePath(base) + "..." + from
	case f.Kind == GitLab:
		if head.Owner != "" {
			page = f.URL + "/" + head.Owner + "/" + head.Repo
		}
		return page + "/-/merge_requests/new?" + url.Values{"merge_request[source_branch]": {head.Branch}, "merge_request[target_branch]": {base}}.Encode()
	case f.remote.host == "bitbucket.org" || f.remote.host == "altssh.bitbucket.org":
		return page + "/pull-requests/new?" + url.Values{"source": {head.Branch}, "dest": {base}}.Encode()
	}
	return ""
}

func escapePath(b string) string { return strings.ReplaceAll(url.PathEscape(b), "%2F", "/") }
