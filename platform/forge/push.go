package forge

import (
	"regexp"
	"strings"

	"fairlead.dev/api"
)

// refusals are what forges say to a push that they refuse, in lower case, and what it means. The first that fits is taken.
var refusals = []struct {
	words []string
	code  string
	what  string
	hint  string
}{
	{[]string{"missing change-id", "missing or invalid change-id"}, "forge-change-id", "Gerrit refused the push: a commit has no Change-Id",
		"install Gerrit's commit-msg hook (from /tools/hooks/commit-msg of its address, into the folder that `git rev-parse --git-path hooks` prints), then git commit --amend --no-edit"},
	{[]string{"no new changes"}, "forge-nothing", "Gerrit has these commits already", "commit something new, or change the commit with git commit --amend"},
	{[]string{"gh009", "push cannot contain secrets", "secret push protection"}, "forge-secret", "the forge refused the push: it found a secret in the commits", "take it out of the commits that have it, and replace the secret where it is used"},
	{[]string{"gh001", "larger than maximum", "exceeds github's file size limit", "file size limit"}, "forge-large", "the forge refused the push: a file is too large", "have git lfs track it, or take it out of the commits"},
	{[]string{"archived"}, "forge-archived", "the repository is archived, so it can only be read", "have it unarchived, or push to the one that replaces it"},
	{[]string{"gh006", "gh013", "protected branch", "branch is protected", "rule violations", "prohibited by gerrit", "not allowed to push code to protected"}, "forge-protected", "the branch is protected, so the push was refused", "push to a branch of your own; its review changes the protected one"},
	{[]string{"non-fast-forward", "fetch first", "stale info", "remote contains work"}, "forge-behind", "the branch has commits on the forge that are not here", "get them with git pull --rebase; Fairlead never overwrites them"},
	{[]string{"shallow update not allowed"}, "forge-shallow", "the clone is shallow, and the forge takes no push of it", "git fetch --unshallow"},
	{[]string{"permission denied (publickey", "authentication failed", "could not read username", "terminal prompts disabled", "host key verification failed"}, "forge-push-login", "git could not sign in to push", "see that `git ls-remote` works in this folder: add the ssh key to the forge, or sign in to git's credential helper"},
	{[]string{"returned error: 403", "permission to", "not allowed to push", "access denied", "you do not have permission", "not have write access", "user permission denied"}, "forge-push-denied", "you may not push to this repository", "fork it and push to the fork, or ask for the right to write"},
	{[]string{"repository not found", "does not appear to be a git repository", "returned error: 404", "project you were looking for could not be found"}, "forge-missing", "the forge has no such repository, or does not show it to you", "correct the remote: git remote set-url"},
	{[]string{"could not resolve host", "connection refused", "connection timed out", "network is unreachable"}, "forge-away", "the forge cannot be reached to push", "try again when it answers"},
	{[]string{"hook declined"}, "forge-hook", "a hook of the forge refused the push", "do as it says, and push again"},
}

var password = regexp.MustCompile(`://[^/@\s]*@`)

// PushProblem says what the output of a `git push` that failed (LC_ALL=C) means and what to do, with the forge's own words; nil where it is
// nothing that is known.
func PushProblem(output string) *api.Problem {
	low := strings.ToLower(output)
	for _, r := range refusals {
		for _, w := range r.words {
			if !strings.Contains(low, w) {
				continue
			}
			p := &api.Problem{Code: r.code, Message: r.what, Hint: r.hint}
			if s := remoteWords(output); s != "" {
				p.Message += ": " + s
			}
			return p
		}
	}
	return nil
}

// remoteWords are what the server itself said, or else git's own error.
func remoteWords(output string) string {
	var words, other []string
	for l := range strings.Lines(output) {
		l = strings.TrimSpace(clean(l))
		if s, ok := strings.CutPrefix(l, "remote:"); ok {
			if s = strings.TrimSpace(s); s != "" {
				words = append(words, s)
			}
		} else if strings.HasPrefix(l, "fatal:") || strings.HasPrefix(l, "error:") || strings.HasPrefix(l, "!") {
			other = append(other, l)
		}
	}
	if len(words) == 0 {
		words = other
	}
	return short(password.ReplaceAllString(strings.Join(words, " "), "://"))
}
