package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

// Gitea is a repository on a Gitea or a Forgejo: a registry.Reviewer.
type Gitea struct {
	place
	token   string
	client  *http.Client
	version string
}

const (
	maxAnswer = 8 << 20
	pageSize  = 50 // Gitea's own limit
	maxPages  = 40 // 2,000 open reviews
)

// OpenGitea finds the forge of a git remote, and asks whether it is one. The token has the rights to read the repository, and to write
// pull requests.
func OpenGitea(ctx context.Context, remote, token string) (*Gitea, error) {
	p, err := find(remote)
	if err != nil {
		return nil, err
	}
	if token, err = checkToken(token, "the caller"); err != nil {
		return nil, err
	}
	g := &Gitea{place: p, client: &http.Client{Timeout: 30 * time.Second,
		// The token goes to the forge that was named, and nowhere that it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	var v struct {
		Version string `json:"version"`
	}
	// Without the token at first: what is no Gitea is not given it.
	status, err := g.call(ctx, http.MethodGet, p.base+"/api/v1/version", nil, &v)
	if g.token = token; status == http.StatusUnauthorized || status == http.StatusForbidden {
		status, err = g.call(ctx, http.MethodGet, p.base+"/api/v1/version", nil, &v)
	}
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return nil, g.refused("ask for its version", status, "")
	case status != http.StatusOK || v.Version == "":
		return nil, &api.Problem{Code: "forge-unknown", Message: p.base + " is not a Gitea or a Forgejo", Hint: "without a forge that is known, a review is a branch: unset " + TokenVariable}
	}
	g.version = v.Version
	return g, nil
}

// FromEnvironment is the forge of a git remote, by the token of the environment. Without a token it is nil: a review is a branch then.
func FromEnvironment(ctx context.Context, remote string, getenv func(string) string) (registry.Reviewer, error) {
	token, err := Token(getenv)
	if err != nil || token == "" {
		return nil, err
	}
	g, err := OpenGitea(ctx, remote, token)
	if err != nil {
		return nil, err // not g, which would be a Reviewer that is not nil
	}
	return g, nil
}

// Version is what the forge says of itself.
func (g *Gitea) Version() string { return g.version }

// pull is what we read of a pull request.
type pull struct {
	HTMLURL string `json:"html_url"`
	State   string `json:"state"`
	Head    struct {
		Ref    string `json:"ref"`
		SHA    string `json:"sha"`
		RepoID int64  `json:"repo_id"`
	} `json:"head"`
	Base struct {
		RepoID int64 `json:"repo_id"`
	} `json:"base"`
}

// Pending says whether a review of the branch is open.
func (g *Gitea) Pending(ctx context.Context, branch string) (bool, error) {
	p, err := g.find(ctx, "open", maxPages, func(p pull) bool { return p.Head.Ref == branch })
	return p != nil, err
}

// Draft opens a draft review, or returns the one that there is: an open one of the branch, or a closed one of this very commit.
func (g *Gitea) Draft(ctx context.Context, r registry.Review) (string, error) {
	there := func() (string, error) {
		p, err := g.find(ctx, "open", maxPages, func(p pull) bool { return p.Head.Ref == r.Branch })
		if p == nil && err == nil {
			// One page: who submits again what was closed does so soon after.
			p, err = g.find(ctx, "closed", 1, func(p pull) bool { return p.Head.Ref == r.Branch && p.Head.SHA == r.Head })
		}
		if p == nil || err != nil {
			return "", err
		}
		return g.link(p.HTMLURL)
	}
	if u, err := there(); u != "" || err != nil {
		return u, err
	}
	// Gitea knows a draft by its title.
	send := map[string]string{"title": "WIP: " + r.Title, "head": r.Branch, "base": r.Base, "body": r.Body}
	var made pull
	status, err := g.call(ctx, http.MethodPost, g.repository()+"/pulls", send, &made)
	switch {
	case err != nil:
		return "", err
	case status == http.StatusConflict: // another was faster
		u, err := there()
		if u == "" && err == nil {
			err = g.refused("open a review", status, "it says that there is one, and lists none")
		}
		return u, err
	case status != http.StatusCreated:
		return "", g.refused("open a review", status, "")
	}
	return g.link(made.HTMLURL)
}

// link is a page of the forge's. What it answers is shown to people who click on it.
func (g *Gitea) link(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return "", &api.Problem{Code: "forge-answer", Message: g.base + " answered with a review that has no address", Hint: "correct ROOT_URL of the forge"}
	}
	return u.String(), nil
}

func (g *Gitea) repository() string {
	return g.base + "/api/v1/repos/" + url.PathEscape(g.owner) + "/" + url.PathEscape(g.repo)
}

// find looks for a pull request from the repository itself. Gitea has no way to ask for those of one branch: what it finds by base
// and head is any of them, the oldest closed one for instance.
func (g *Gitea) find(ctx context.Context, state string, pages int, is func(pull) bool) (*pull, error) {
	for page := 1; page <= pages; page++ {
		var list []pull
		q := url.Values{"state": {state}, "sort": {"recentupdate"}, "limit": {strconv.Itoa(pageSize)}, "page": {strconv.Itoa(page)}}
		status, err := g.call(ctx, http.MethodGet, g.repository()+"/pulls?"+q.Encode(), nil, &list)
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK {
			return nil, g.refused("list the reviews", status, "")
		}
		for _, p := range list {
			if p.Head.RepoID == p.Base.RepoID && is(p) {
				return &p, nil
			}
		}
		if len(list) == 0 {
			break
		}
	}
	return nil, nil
}

func (g *Gitea) refused(act string, status int, why string) *api.Problem {
	p := &api.Problem{Code: "forge-refused", Message: fmt.Sprintf("%s does not let Fairlead %s in %s/%s: %d %s", g.base, act, g.owner, g.repo, status, http.StatusText(status))}
	if why != "" {
		p.Message += ": " + why
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		p.Hint = "give the token in " + TokenFileVariable + " the rights to read repositories and to write issues and pull requests"
	case http.StatusNotFound:
		p.Hint = "see that the token's owner may read the repository, and that it has pull requests"
	default:
		p.Hint = "the branch is pushed: open its review there by hand"
	}
	return p
}

// call makes one request, and reads a good answer into v.
func (g *Gitea) call(ctx context.Context, method, address string, body, v any) (int, error) {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, send)
	if err != nil {
		return 0, err
	}
	if g.token != "" {
		req.Header.Set("Authorization", "token "+g.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	res, err := g.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, &api.Problem{Code: "forge-away", Message: "the forge " + g.base + " cannot be reached: " + clean(err.Error()), Hint: "submit it again when it answers; it will not be made twice"}
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return res.StatusCode, nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(v); err != nil {
		return res.StatusCode, &api.Problem{Code: "forge-answer", Message: g.base + " answered with what is not its API's: " + clean(err.Error()), Hint: "see that the address is a Gitea's or a Forgejo's"}
	}
	return res.StatusCode, nil
}

func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
