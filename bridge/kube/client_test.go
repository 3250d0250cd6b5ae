package kube

import (
	"os"
	"path/filepath"
	"testing"
)

// A link names an API server: the current context goes before others that lead there, and is taken where none does.
func TestContextByServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	const config = `apiVersion: v1
kind: Config
current-context: mine
clusters:
- {name: one, cluster: {server: "https://one.example:6443"}}
- {name: two, cluster: {server: "https://two.example/"}}
contexts:
- {name: mine, context: {cluster: one, user: u}}
- {name: z, context: {cluster: two, user: u}}
- {name: b, context: {cluster: two, user: u}}
- {name: a, context: {cluster: one, user: u}}
- {name: broken, context: {cluster: nothing, user: u}}
users:
- {name: u, user: {token: t}}
`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ context, server, want, host string }{
		{"", "", "mine", "https://one.example:6443"},
		{"", "https://one.example:6443", "mine", "https://one.example:6443"},
		{"", "https://two.example", "b", "https://two.example/"},
		{"", "https://three.example", "mine", "https://one.example:6443"},
		{"z", "https://one.example:6443", "z", "https://two.example/"},
	} {
		cl, err := connect(Options{Kubeconfig: file, Context: c.context, Server: c.server}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if cl.context != c.want || cl.server != c.host {
			t.Errorf("%+v: context %q, server %q", c, cl.context, cl.server)
		}
	}
}
