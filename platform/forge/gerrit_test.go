package forge

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// A push to Gerrit: the refspec is given to the real git, and a real receiving git has a hook that reads it as user-upload.txt says Gerrit does,
// looks for the Change-Id, and answers in Gerrit's words.
func TestGerritPush(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", append([]string{"-c", "user.name=Mira", "-c", "user.email=mira@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := git(args...); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	server, work := filepath.Join(dir, "server.git"), filepath.Join(dir, "work")
	must("init", "--quiet", "--bare", server)
	must("init", "--quiet", "--initial-branch=fix", work)
	hook := `#!/bin/sh
while read old new ref; do
	printf '%s\n' "$ref" > ` + filepath.Join(dir, "ref") + `
	case $ref in refs/for/*) ;; *) echo "ERROR: $ref: prohibited by Gerrit"; exit 1;; esac
	if ! git cat-file commit $new | grep -q '^Change-Id: I'; then
		echo "ERROR: commit $(echo $new | cut -c1-7): missing Change-Id in message footer"; exit 1
	fi
	state="[NEW]"; case $ref in *%wip*) state="[WIP] [NEW]";; esac
	echo "Processing changes: refs: 1, new: 1, done"
	echo; echo SUCCESS; echo
	echo "  https://review.example.com/c/shop/+/1234 Charge once [v2] $state"
done
`
	if err := os.WriteFile(filepath.Join(server, "hooks", "pre-receive"), []byte(hook), 0o700); err != nil {
		t.Fatal(err)
	}
	push := func(spec string) (ref, out string, err error) {
		t.Helper()
		out, err = git("-C", work, "push", "--porcelain", server, spec)
		b, _ := os.ReadFile(filepath.Join(dir, "ref")) // not there: the hook was not asked
		return strings.TrimSpace(string(b)), out, err
	}
	must("-C", work, "commit", "--quiet", "--allow-empty", "-m", "Charge once")
	p := GerritPush{Base: "main"}
	spec, err := p.Refspec()
	if err != nil {
		t.Fatal(err)
	}
	if _, out, err := push(spec); err == nil || code(t, PushProblem(out)) != "forge-change-id" || len(GerritChanges(out)) != 0 {
		t.Errorf("without a Change-Id: %v, %+v\n%s", err, PushProblem(out), out)
	}
	message := "Charge once [v2]\n\nChange-Id: I" + strings.Repeat("0f", 20)
	if HasChangeID("Charge once") || !HasChangeID(message) {
		t.Error("the Change-Id is not seen")
	}
	must("-C", work, "commit", "--quiet", "--amend", "--allow-empty", "-m", message)
	p = GerritPush{Base: "release/1.2", Topic: "driver/i42", Reviewers: []string{"jo@example.com", "lee+x@example.com"}, CC: []string{"ann"}, Hashtags: []string{"billing", "q4"}, Message: "A _first_ try: 50%, ok~?"}
	if spec, err = p.Refspec(); err != nil {
		t.Fatal(err)
	}
	ref, out, err := push(spec)
	if want := "refs/for/release/1.2%wip,topic=driver/i42,r=jo@example.com,r=lee+x@example.com,cc=ann,hashtag=billing,hashtag=q4,m=A_%5Ffirst%5F_try%3A_50%25%2C_ok%7E%3F"; err != nil || ref != want {
		t.Fatalf("pushed to %s, want %s: %v\n%s", ref, want, err, out)
	}
	if got, want := GerritChanges(out), []GerritChange{{Number: 1234, URL: "https://review.example.com/c/shop/+/1234", Subject: "Charge once [v2]", Draft: true, New: true}}; !reflect.DeepEqual(got, want) {
		t.Errorf("told %+v of\n%s", got, out)
	}
	if _, out, err := push("HEAD:refs/heads/main"); err == nil || code(t, PushProblem(out)) != "forge-protected" {
		t.Errorf("past the review: %v, %v", err, PushProblem(out))
	}
	// Each character either passes through git as it is, or is refused here.
	for c := rune(' '); c < 0x80; c++ {
		for _, p := range []GerritPush{{Base: "main", Topic: "a" + string(c) + "b"}, {Base: "main", Hashtags: []string{"a" + string(c) + "b"}}, {Base: "main", Message: string(c) + "b", Ready: true}} {
			spec, err := p.Refspec()
			if err != nil {
				code(t, err)
				if p.Message != "" {
					t.Errorf("%q is not said in a message: %v", c, err)
				}
				continue
			}
			if out, err := git("check-ref-format", strings.TrimPrefix(spec, "HEAD:")); err != nil {
				t.Errorf("%q: git does not take %s: %v %s", c, spec, err, out)
			}
			if n := strings.Count(spec, ","); n != 1 || (c == '%' || c == ',') && p.Message == "" {
				t.Errorf("%q ends an option: %s", c, spec)
			}
		}
	}
	for name, p := range map[string]GerritPush{
		"no base": {}, "an option as a base": {Base: "main%submit"}, "a range": {Base: "main", Topic: "a..b"}, "a reviewer who submits": {Base: "main", Reviewers: []string{"a,submit"}},
		"a name with a space": {Base: "main", CC: []string{"Jo Lee"}}, "two topics": {Base: "main", Topic: "a b"}, "a lock": {Base: "main", Hashtags: []string{"a.lock"}},
	} {
		if spec, err := p.Refspec(); err == nil || code(t, err) != "forge-draft" {
			t.Errorf("%s: %s, %v", name, spec, err)
		}
	}
	older := "remote: New Changes:\nremote:   http://review.example.com/77 Charge once\nremote: \n"
	if got := GerritChanges(older); len(got) != 1 || got[0] != (GerritChange{Number: 77, URL: "http://review.example.com/77", Subject: "Charge once", New: true}) {
		t.Errorf("an older one: %+v", got)
	}
	if got := GerritChanges(strings.Replace(older, "New", "Updated", 1)); len(got) != 1 || got[0].New {
		t.Errorf("an older one, updated: %+v", got)
	}
}

// What forges say to a push: in their documentation's words. Gitea's own are in TestGitea.
func TestPushProblem(t *testing.T) {
	for output, want := range map[string]string{
		"remote: error: GH006: Protected branch update failed for refs/heads/main.\nremote: error: Changes must be made through a pull request.\n! [remote rejected] main -> main (protected branch hook declined)": "forge-protected",
		"remote: error: GH013: Repository rule violations found for refs/heads/main.\n":                                                                            "forge-protected",
		"remote: error: GH009: Secrets detected! This push failed.\n":                                                                                              "forge-secret",
		"remote: - Push cannot contain secrets\nremote: error: GH013: Repository rule violations found for refs/heads/x.\n":                                        "forge-secret",
		"remote: error: GH001: Large files detected.\n":                                                                                                            "forge-large",
		"remote: GitLab: You are not allowed to push code to protected branches on this project.\n ! [remote rejected] main -> main (pre-receive hook declined)\n": "forge-protected",
		"ERROR: Permission to team/shop.git denied to mira.\nfatal: Could not read from remote repository.\n":                                                      "forge-push-denied",
		"fatal: unable to access 'https://user:" + secret + "@github.com/team/shop.git/': The requested URL returned error: 403\n":                                 "forge-push-denied",
		"ERROR: This repository was archived so it is read-only.\n":                                                                                                "forge-archived",
		"git@github.com: Permission denied (publickey).\nfatal: Could not read from remote repository.\n":                                                          "forge-push-login",
		"fatal: could not read Username for 'https://github.com': terminal prompts disabled\n":                                                                     "forge-push-login",
		" ! [rejected]        fix -> fix (non-fast-forward)\nerror: failed to push some refs\n":                                                                    "forge-behind",
		" ! [rejected]        fix -> fix (fetch first)\n":                                                                                                          "forge-behind",
		"remote: ERROR: Repository not found.\n":                                                                                                                   "forge-missing",
		"ssh: Could not resolve hostname git.example.com: Name or service not known\nfatal: Could not resolve host: git.example.com":                               "forge-away",
		" ! [remote rejected] HEAD -> refs/for/main (no new changes)\n":                                                                                            "forge-nothing",
		"remote: run the linter first\n ! [remote rejected] fix -> fix (pre-receive hook declined)\n":                                                              "forge-hook",
		"Everything up-to-date\n": "",
	} {
		p := PushProblem(output)
		if p == nil != (want == "") || p != nil && code(t, p) != want {
			t.Errorf("%q: %+v, want %s", output, p, want)
		}
		if p != nil && strings.ContainsAny(fmt.Sprint(p.Message), "\n\r") {
			t.Errorf("%q: %q is not a line", output, p.Message)
		}
	}
}
