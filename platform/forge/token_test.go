package forge

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The file, the variable, and which remote they are meant for.
func TestOwnToken(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "  secret-1\n")
	write(t, filepath.Join(dir, "empty"), "\n")
	write(t, filepath.Join(dir, "lines"), "a\nX-Header: b\n")
	for _, c := range []struct {
		file, value, want string
		fails             bool
	}{
		{"", "", "", false}, {"", "secret-2", "secret-2", false}, {"token", "secret-2", "secret-1", false}, {"empty", "secret-2", "", true}, {"gone", "", "", true}, {"lines", "", "", true}, {"", "a b", "", true},
	} {
		env := map[string]string{TokenVariable: c.value, URLVariable: "https://git.example.com"}
		if c.file != "" {
			env[TokenFileVariable] = filepath.Join(dir, c.file)
		}
		got, err := ownToken(func(k string) string { return env[k] })
		if (err != nil) != c.fails || !c.fails && got.value != c.want {
			t.Errorf("%+v: %q, %v", c, got.value, err)
		}
		if err != nil && (code(t, err) != "forge-token" || strings.Contains(err.Error(), "X-Header")) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	bare := map[string]string{TokenVariable: secret}
	if _, err := ownToken(func(k string) string { return bare[k] }); code(t, err) != "forge-token" || !strings.Contains(told(err).Hint, URLVariable) {
		t.Errorf("a token that is for no forge: %v", err)
	}
	env := map[string]string{TokenVariable: secret, KindVariable: "GitLab", URLVariable: "https://git.example.com/lab"}
	getenv := func(k string) string { return env[k] }
	if o := FromEnv(getenv, "git@git.example.com:team/shop.git"); o.Kind != GitLab || o.URL != env[URLVariable] || len(o.Sources) != 1 {
		t.Errorf("meant: %+v", o)
	}
	if o := FromEnv(getenv, "https://evil.example.com/team/shop.git"); o.Kind != "" || len(o.Sources) != 0 {
		t.Errorf("another host: %+v", o)
	}
}

// Where a user's token is found, and for which host. The configuration files are as their commands write them; git and its helper are real.
func TestUserToken(t *testing.T) {
	home := t.TempDir()
	for name, text := range map[string]string{
		".config/gh/hosts.yml": "github.com:\n    users:\n        mira:\n            oauth_token: gho_file\n    oauth_token: gho_file\n    user: mira\n    git_protocol: ssh\n" +
			"ghes.example.com:\n    users:\n        mira:\n    user: mira\n    git_protocol: https\n",
		".config/glab-cli/config.yml": "git_protocol: ssh\nhosts:\n    gitlab.com:\n        token: !!null glpat-file\n        api_host: gitlab.com\n        api_protocol: https\n" +
			"    lab.example.com:\n        token:\n        use_keyring: \"true\"\n        user: mira\n",
		".config/tea/config.yml":  "logins:\n    - name: main\n      url: https://tea.example.com\n      token: tea-default\n      default: true\n    - name: other\n      url: https://tea.example.com\n      token: tea-other\n      default: false\npreferences:\n    editor: false\n",
		".tea/tea.yml":            "logins:\n    - name: old\n      url: https://old.example.com\n      token: tea-old\n",
		"bad/gh/hosts.yml":        "github.com: [\noauth_token: " + secret + "\n",
		"bad/glab-cli/config.yml": "hosts:\n    gitlab.com:\n        token: \"two words\"\n",
		"bin/gh":                  "#!/bin/sh\n[ \"$*\" = \"auth token --hostname ghes.example.com\" ] && echo gho_keyring\n",
		"bin/glab":                "#!/bin/sh\n[ \"$*\" = \"config get token --host lab.example.com\" ] && echo glpat-keyring\n",
		"credentials":             "https://mira:from-helper@git.example.com\nhttps://mira:no%20token@password.example.com\n",
		"gitconfig":               "[credential]\n\thelper = store --file=" + filepath.Join(home, "credentials") + "\n",
	} {
		name = filepath.Join(home, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", filepath.Join(home, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	prompt := filepath.Join(home, "prompted")
	write(t, filepath.Join(home, "askpass"), "#!/bin/sh\ntouch "+prompt+"\necho typed\n")
	if err := os.Chmod(filepath.Join(home, "askpass"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		remote string
		kind   Kind
		env    string
		want   string // token from
	}{
		{"git@github.com:a/b", "", "", "gho_file in " + home + "/.config/gh/hosts.yml"},
		{"git@github.com:a/b", "", "GITHUB_TOKEN=ghp_2", "ghp_2 of GITHUB_TOKEN"},
		{"git@github.com:a/b", "", "GITHUB_TOKEN=ghp_2 GH_TOKEN=ghp_1", "ghp_1 of GH_TOKEN"},
		{"git@github.com:a/b", "", "GH_TOKEN=ghp_1 FAIRLEAD_FORGE_TOKEN=own FAIRLEAD_FORGE_URL=https://github.com", "own of FAIRLEAD_FORGE_TOKEN"},
		{"ssh://git@ssh.github.com:443/a/b", "", "FAIRLEAD_FORGE_TOKEN=own FAIRLEAD_FORGE_URL=https://github.com", "own of FAIRLEAD_FORGE_TOKEN"},
		{"https://evil.example.com/a/b", GitHub, "FAIRLEAD_FORGE_TOKEN=own", "forge-token"},
		{"git@github.com:a/b", "", "GH_TOKEN=ghp_1 FAIRLEAD_FORGE_TOKEN=own FAIRLEAD_FORGE_URL=https://git.example.com", "ghp_1 of GH_TOKEN"},
		{"git@github.com:a/b", "", "GH_ENTERPRISE_TOKEN=ghp_3", "gho_file in " + home + "/.config/gh/hosts.yml"},
		{"https://acme.ghe.com/a/b", "", "GH_TOKEN=ghp_1", "ghp_1 of GH_TOKEN"},
		{"https://ghes.example.com/a/b", GitHub, "GH_TOKEN=ghp_1", "gho_keyring of gh auth token"},
		{"https://ghes.example.com/a/b", GitHub, "GH_ENTERPRISE_TOKEN=ghp_3 GH_HOST=ghes.example.com", "ghp_3 of GH_ENTERPRISE_TOKEN"},
		{"https://evil.example.com/a/b", GitHub, "GH_TOKEN=ghp_1 GH_ENTERPRISE_TOKEN=ghp_3 GITLAB_TOKEN=x GITEA_TOKEN=y", ""},
		{"git@gitlab.com:a/b", "", "", "glpat-file in " + home + "/.config/glab-cli/config.yml"},
		{"git@gitlab.com:a/b", "", "GITLAB_TOKEN=glpat-1", "glpat-1 of GITLAB_TOKEN"},
		{"git@gitlab.com:a/b", "", "GITLAB_TOKEN=glpat-1 GITLAB_HOST=https://lab.example.com", "glpat-file in " + home + "/.config/glab-cli/config.yml"},
		{"git@lab.example.com:a/b", GitLab, "GITLAB_TOKEN=glpat-1", "glpat-keyring of glab config get"},
		{"git@lab.example.com:a/b", GitLab, "OAUTH_TOKEN=glpat-2 GITLAB_HOST=lab.example.com", "glpat-2 of OAUTH_TOKEN"},
		{"git@tea.example.com:a/b", Gitea, "", "tea-default in " + home + "/.config/tea/config.yml"},
		{"git@tea.example.com:a/b", Gitea, "GITEA_TOKEN=tea-1", "tea-default in " + home + "/.config/tea/config.yml"},
		{"git@tea.example.com:a/b", Gitea, "GITEA_TOKEN=tea-1 GITEA_INSTANCE_URL=https://tea.example.com", "tea-1 of GITEA_TOKEN"},
		{"git@old.example.com:a/b", Gitea, "", "tea-old in " + home + "/.tea/tea.yml"},
		{"git@git.example.com:a/b", Gitea, "", "from-helper of git credential fill"},
		{"https://git.example.com/a/b", GitLab, "", "from-helper of git credential fill"},
		{"https://password.example.com/a/b", Gitea, "", ""},
		{"https://nobody.example.com/a/b", Gitea, "", ""},
		{"git@github.com:a/b", "", "XDG_CONFIG_HOME=" + home + "/bad", "forge-token"},
		{"git@gitlab.com:a/b", "", "XDG_CONFIG_HOME=" + home + "/bad", "forge-token"},
		{"git@github.com:a/b", "", "XDG_CONFIG_HOME=" + home + "/none", ""},
	} {
		u := User{Home: home, Dir: home, Env: append(strings.Fields(c.env), "PATH="+os.Getenv("PATH"), "HOME="+home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+filepath.Join(home, "gitconfig"),
			"GIT_ASKPASS="+filepath.Join(home, "askpass"), "SSH_ASKPASS="+filepath.Join(home, "askpass"))}
		o := u.Options(c.remote)
		if o.Kind == "" {
			o.Kind = c.kind
		}
		f, err := Open(t.Context(), c.remote, o)
		if err != nil {
			t.Fatal(err)
		}
		from, ok, err := f.Authenticated(t.Context())
		got := ""
		switch {
		case err != nil:
			got = code(t, err)
		case ok:
			got = f.client.token.value + " " + from
		}
		if got != c.want {
			t.Errorf("%s with %q: %q, want %q (%v)", c.remote, c.env, got, c.want, err)
		}
	}
	if _, err := os.Stat(prompt); err == nil {
		t.Error("a password was asked for")
	}
	// Also where the repository's own configuration asks for a prompt.
	repo := filepath.Join(home, "repo")
	if out, err := exec.Command("git", "init", "--quiet", repo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("git", "-C", repo, "config", "core.askPass", filepath.Join(home, "askpass")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	u := User{Home: home, Dir: repo, Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}}
	e := environment{getenv: func(string) string { return "" }, home: home, run: u.run}
	if tok, err := e.helpers(t.Context(), Target{Kind: Gitea, Host: "git.example.com", path: "a/b", scheme: "https"}); err != nil || tok.value != "" {
		t.Errorf("without a helper: %v, %v", tok, err)
	}
	if _, err := os.Stat(prompt); err == nil {
		t.Error("a password was asked for, as the repository's configuration says")
	}

	tok, err := newToken(secret, "of a test")
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", tok, tok, tok, tok); strings.Contains(s, secret) {
		t.Errorf("printed: %s", s)
	}
}
