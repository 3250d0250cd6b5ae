package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/test/freeport"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// wantErrorAndHint checks that a refusal is one line that says what happened and one that says what to do.
func wantErrorAndHint(t testing.TB, stderr string) {
	t.Helper()
	var errs, hints int
	for line := range strings.Lines(stderr) {
		switch {
		case strings.HasPrefix(line, "fairlead: error: "):
			errs++
		case strings.HasPrefix(line, "fairlead: hint: "):
			hints++
		case !strings.HasPrefix(line, "fairlead ") || strings.HasPrefix(line, "fairlead error:") || strings.HasPrefix(line, "fairlead hint:"):
			t.Errorf("stderr has %q", line) // what is done meanwhile may be told, and nothing else
		}
	}
	if errs != 1 || hints != 1 {
		t.Errorf("%d error lines and %d hint lines:\n%s", errs, hints, stderr)
	}
}

// What cannot be is refused in two lines, and nothing is left behind.
func TestRefusalsOfInput(t *testing.T) {
	const mod = "module example.com/x\n\ngo 1.26\n"
	const main = "package main\n\nfunc main() {}\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		args  []string // {dir} is the folder
		env   []string
		code  int
		want  []string
	}{
		{name: "no module", files: map[string]string{"main.go": main}, args: []string{"run", "{dir}"}, code: 1, want: []string{"go mod init"}},
		{name: "no Go at all", files: map[string]string{"README": "x"}, args: []string{"run", "{dir}"}, code: 1},
		{name: "no folder", args: []string{"run", "{dir}/nowhere"}, code: 1, want: []string{"nowhere"}},
		{name: "a file", files: map[string]string{"x": "x"}, args: []string{"run", "{dir}/x"}, code: 1},
		{name: "no main", files: map[string]string{"go.mod": mod, "x.go": "package x\n"}, args: []string{"run", "{dir}"}, code: 1, want: []string{"main"}},
		{name: "two mains", files: map[string]string{"go.mod": mod, "cmd/a/a.go": main, "cmd/b/b.go": main}, args: []string{"run", "{dir}"}, code: 1,
			want: []string{"cmd/a", "cmd/b", "--main"}},
		{name: "no such main", files: map[string]string{"go.mod": mod, "a.go": main}, args: []string{"run", "--main", "./cmd/c", "{dir}"}, code: 1, want: []string{"cmd/c"}},
		{name: "newer Go", files: map[string]string{"go.mod": "module example.com/x\n\ngo 1.99\n", "a.go": main}, args: []string{"run", "{dir}"}, code: 1, want: []string{"1.99"}},
		{name: "broken go.mod", files: map[string]string{"go.mod": "modul x\n", "a.go": main}, args: []string{"run", "{dir}"}, code: 1, want: []string{"go.mod"}},
		{name: "unknown flag", args: []string{"run", "--frobnicate"}, code: 2, want: []string{"--frobnicate"}},
		{name: "flag without value", args: []string{"run", "--on"}, code: 2, want: []string{"--on"}},
		{name: "unknown command", args: []string{"frobnicate"}, code: 2, want: []string{"frobnicate"}},
		{name: "two folders", args: []string{"run", "a", "b"}, code: 2, want: []string{"b"}},
		{name: "bad --on", files: map[string]string{"go.mod": mod, "a.go": main}, args: []string{"run", "--on", "kubernets", "{dir}"}, code: 2, want: []string{"kubernets", "kubernetes", "local"}},
		{name: "bad --since", args: []string{"logs", "--since", "yesterday"}, code: 2, want: []string{"yesterday"}},
		{name: "argument of status", args: []string{"status", "x"}, code: 2},
		{name: "argument of version", args: []string{"version", "x"}, code: 2},
		{name: "unknown environment", args: []string{"stop", "nobody"}, code: 1, want: []string{"nobody", "fairlead status"}},
		{name: "nothing to stop", args: []string{"stop"}, code: 1, want: []string{"fairlead run"}},
		{name: "no logs", args: []string{"logs"}, code: 1},
		{name: "nothing to open", args: []string{"open", "--print"}, code: 1},
		{name: "unknown key", files: map[string]string{"go.mod": mod, "a.go": main, "fairlead.yaml": "version: 1\nprot: 8080\n"}, args: []string{"run", "{dir}"}, code: 1,
			want: []string{"fairlead.yaml:2:1", "prot", "port"}},
		{name: "wrong type", files: map[string]string{"go.mod": mod, "a.go": main, "fairlead.yaml": "version: 1\nport: many\n"}, args: []string{"run", "{dir}"}, code: 1,
			want: []string{"fairlead.yaml:2:7", "port"}},
		{name: "no YAML", files: map[string]string{"go.mod": mod, "a.go": main, "fairlead.yaml": "version: [1\n"}, args: []string{"run", "{dir}"}, code: 1, want: []string{"fairlead.yaml"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newLocal(t)
			dir := t.TempDir()
			for name, text := range tt.files {
				write(t, filepath.Join(dir, name), text)
			}
			p.refused(t, tt.code, dir, tt.env, tt.args, tt.want...)
		})
	}
}

// refused checks one refusal, and that it left nothing.
func (p *place) refused(t *testing.T, code int, dir string, env, args []string, want ...string) {
	t.Helper()
	var all []string
	for _, a := range args {
		all = append(all, strings.ReplaceAll(a, "{dir}", dir))
	}
	r := p.m.fairleadEnv(t, dir, env, all...)
	if r.code != code {
		t.Errorf("exit %d, want %d", r.code, code)
	}
	if r.stdout != "" {
		t.Errorf("stdout has %q", r.stdout)
	}
	wantErrorAndHint(t, r.stderr)
	for _, w := range want {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("%q is not in\n%s", w, r.stderr)
		}
	}
	t.Log(r.stderr)
	p.wantNothing(t)
}

// The same for what is wrong with a cluster.
func TestRefusalsOfCluster(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	free := func() string { // a port of this machine that nothing listens on
		return "127.0.0.1:" + freeport.Get(t)
	}
	nobody := p.c.serviceAccount(t, p.ns, "nobody")
	elsewhere := p.c.rewrite(t, func(c *clientcmdapi.Config) {
		for _, cl := range c.Clusters {
			cl.Server = "https://" + free()
		}
	})
	stranger := p.c.rewrite(t, func(c *clientcmdapi.Config) {
		for n := range c.AuthInfos {
			c.AuthInfos[n] = &clientcmdapi.AuthInfo{Token: "not-a-token"}
		}
	})
	garbage := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, garbage, "{{{")
	none := "no-such-namespace"
	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"no such context", []string{"--kubeconfig", p.c.kubeconfig, "--context", "moon", "--registry", p.c.registry}, []string{"moon", "--context", "fairlead-test"}},
		{"no kubeconfig", []string{"--registry", p.c.registry}, []string{"--kubeconfig"}},
		{"no such kubeconfig", []string{"--kubeconfig", "/nowhere/config", "--registry", p.c.registry}, []string{"/nowhere/config"}},
		{"kubeconfig is garbage", []string{"--kubeconfig", garbage, "--registry", p.c.registry}, []string{garbage}},
		{"no registry", []string{"--kubeconfig", p.c.kubeconfig, "--namespace", p.ns}, []string{"--registry"}},
		{"unreachable registry", []string{"--kubeconfig", p.c.kubeconfig, "--namespace", p.ns, "--registry", free()}, []string{"registry"}},
		{"no registry's name", []string{"--kubeconfig", p.c.kubeconfig, "--namespace", p.ns, "--registry", "http://[x"}, []string{"registry"}},
		{"unreachable cluster", []string{"--kubeconfig", elsewhere, "--namespace", p.ns, "--registry", p.c.registry}, []string{"cannot be reached"}},
		{"wrong token", []string{"--kubeconfig", stranger, "--namespace", p.ns, "--registry", p.c.registry}, []string{"credentials"}},
		{"no permission", []string{"--kubeconfig", nobody, "--namespace", p.ns, "--registry", p.c.registry},
			[]string{"create deployments.apps", "create pods/exec", "patch secrets", "fairlead rbac", p.ns}},
		{"no permission, new namespace", []string{"--kubeconfig", nobody, "--namespace", none, "--registry", p.c.registry}, []string{"fairlead rbac"}},
		{"bad namespace", []string{"--kubeconfig", p.c.kubeconfig, "--namespace", "No_Such", "--registry", p.c.registry}, []string{"No_Such"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code := 1
			if tt.name == "bad namespace" || tt.name == "no registry's name" {
				code = 2
			}
			p.refused(t, code, s.dir, nil, append([]string{"run", "--on", "kubernetes", s.dir}, tt.args...), tt.want...)
			if _, err := p.c.kube.CoreV1().Namespaces().Get(t.Context(), none, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("namespace %s: %v", none, err)
			}
		})
	}
}

// --json says a refusal as an event too.
func TestRefusalInJSON(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--context", "moon")
	if code := a.ended(t); code != 1 {
		t.Errorf("exit %d", code)
	}
	a.wait(t, "the problem", isProblem("no-context"))
	wantErrorAndHint(t, a.stderr())
	p.wantNothing(t)
}

// Without Go there is nothing to build with. Fairlead looks for it beside the PATH too, so it is hidden by a mount.
func TestRefusalWithoutGo(t *testing.T) {
	if os.Getuid() != 0 {
		skip(t, "hiding the Go toolchain takes root")
	}
	p := newLocal(t)
	s := newTiny(t, "v1")
	script := "for d in /usr/local/go /usr/lib/go; do [ ! -d $d ] || mount -t tmpfs none $d || exit 99; done; PATH=/nowhere exec " + fairlead + " run " + s.dir
	cmd := exec.Command("unshare", "-m", "sh", "-c", script)
	cmd.Env = append(append([]string{}, p.m.env...), "GOROOT=")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	if cmd.Run(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit %d", cmd.ProcessState.ExitCode())
	}
	wantErrorAndHint(t, stderr.String())
	if !strings.Contains(stderr.String(), "install Go") {
		t.Error(stderr.String())
	}
	p.wantNothing(t)
}
