package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
)

// fairlead runs the command line in this process.
func fairlead(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, &out, &errs); code != want {
		t.Fatalf("fairlead %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, &out, &errs)
	}
	return out.String(), errs.String()
}

// registryFolder is a home for state and settings, with what writes files below it and what runs git in its folder registry.
func registryFolder(t *testing.T) (dir string, write func(name, text string), git func(args ...string)) {
	dir = t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	write = func(name, text string) {
		t.Helper()
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git = func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=Mira", "-c", "user.email=mira@example.com"}, args...)...)
		cmd.Dir = filepath.Join(dir, "registry")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir, write, git
}

func TestRegistryCommand(t *testing.T) {
	dir, write, git := registryFolder(t)
	write("shop/go.mod", "module example.com/shop\n")
	t.Chdir(filepath.Join(dir, "shop"))
	if out, _ := fairlead(t, 0, "registry"); !strings.Contains(out, filepath.Join(dir, "state")) || !strings.Contains(out, "nothing is registered yet") {
		t.Errorf("without a setting: %s", out)
	}

	write("shop/fairlead.yaml", "registry: ../registry\n")
	if _, errs := fairlead(t, 1, "registry"); !strings.Contains(errs, "hint: make the repository") {
		t.Errorf("a registry that is not there: %s", errs)
	}
	write("registry/services/billing.yaml", "version: 1\nname: billing\n")
	write("registry/services/checkout.yaml", "version: 1\nname: checkout\nteam: shop\ncalls:\n  - service: billing\n    methods: [/b.B/Charge, POST /charges]\n")
	write("registry/services/torn.yaml", "version: 1\nnme: torn\n")
	git("init", "-q", "-b", "main")
	git("add", "-A")
	git("commit", "-q", "-m", "first")
	out, errs := fairlead(t, 1, "registry")
	if !strings.Contains(out, "checkout  shop  open    billing   -") || !strings.Contains(errs, "services/torn.yaml:2:1: nme: unknown key") {
		t.Errorf("a broken file beside others:\n%s%s", out, errs)
	}
	out, _ = fairlead(t, 0, "registry", "--json")
	var r registryJSON
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Services) != 2 || r.Services[1].Calls[0].Environments != "shared" || r.Services[0].Callers[0] != "checkout" || len(r.Problems) != 2 {
		t.Errorf("%v: %s", err, out)
	}
	if out, errs := fairlead(t, 1, "registry", "export", "--to", "istio"); out != "" || !strings.Contains(errs, "torn.yaml") {
		t.Errorf("a registry that is not whole was exported:\n%s%s", out, errs)
	}

	git("rm", "-q", "services/torn.yaml")
	git("commit", "-q", "-m", "mended")
	if out, _ := fairlead(t, 0, "registry", "export", "--to", "istio", "--namespace", "shop", "--service", "billing"); !strings.Contains(out, "cluster.local/ns/shop/sa/checkout") || strings.Contains(out, "---") {
		t.Errorf("Istio: %s", out)
	}
	into := t.TempDir()
	if _, errs := fairlead(t, 0, "registry", "export", "--to", "grpc", "--dir", into); !strings.Contains(errs, "note: billing: LEFT OUT: checkout may call POST /charges") {
		t.Errorf("what is left out is not said: %s", errs)
	}
	for _, name := range []string{"billing.json", "checkout.json"} {
		if b, err := os.ReadFile(filepath.Join(into, name)); err != nil || !json.Valid(b) {
			t.Errorf("%s: %v\n%s", name, err, b)
		}
	}
	for _, args := range [][]string{{"--to", "grpc"}, {"--to", "consul"}, {}} {
		if _, errs := fairlead(t, 2, append([]string{"registry", "export"}, args...)...); !strings.Contains(errs, "--") {
			t.Errorf("export %v: %s", args, errs)
		}
	}
	if _, errs := fairlead(t, 1, "registry", "export", "--to", "istio", "--service", "nobody"); !strings.Contains(errs, "no service nobody") {
		t.Errorf("a service that is not there: %s", errs)
	}
}

// What the registry lists is a dependency where it is found on this machine; what fairlead.yaml says goes before it.
func TestRegisteredDependencies(t *testing.T) {
	dir, write, git := registryFolder(t)
	write("shop/go.mod", "module example.com/shop\n\ngo 1.24\n")
	for _, name := range []string{"orders", "billing", "stock", "tax"} {
		write("shop/cmd/"+name+"/main.go", "package main\n\nfunc main() {}\n")
	}
	write("shop/fairlead.yaml", "registry: ../registry\nenv:\n  DATABASE_URL: postgres://orders:x@{{db}}/orders\ndependencies:\n  stock: {main: ./cmd/stock}\n  tax: shared\n")
	calls := ""
	for _, c := range []string{"billing", "db", "mainframe", "orders", "stock, environments: fresh", "tax, environments: fresh"} {
		calls += "  - {service: " + c + ", methods: ['*']}\n"
	}
	write("registry/services/orders.yaml", "version: 1\nname: orders\ncalls:\n"+calls)
	git("init", "-q", "-b", "main")
	git("add", "-A")
	git("commit", "-q", "-m", "first")
	t.Chdir(filepath.Join(dir, "shop"))
	deps := func() (out []string, notes string) {
		t.Helper()
		text, _ := fairlead(t, 0, "deps", "--on", "local", "--main", "./cmd/orders", "--json")
		var r api.DependencyReport
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		for _, d := range r.Dependencies {
			out = append(out, fmt.Sprintf("%s %s %s: %s", d.Name, d.Mode, d.Engine, strings.Join(d.Why, ", ")))
		}
		return out, strings.Join(r.Notes, "\n")
	}
	want := []string{"billing shared : the registry", "db shared postgresql: DATABASE_URL of fairlead.yaml, the registry", "stock fresh : fairlead.yaml, the registry, as fresh", "tax shared : fairlead.yaml, the registry"}
	got, notes := deps()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !strings.Contains(notes, "the registry lists mainframe, which is no service of the workspace") {
		t.Errorf("notes: %s", notes)
	}
	// Away, it is what was read before, and that is said.
	if err := os.Rename(filepath.Join(dir, "registry"), filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	got, notes = deps()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !strings.Contains(notes, "is not known, or of before") {
		t.Errorf("notes: %s", notes)
	}
}
