package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/test/freeport"
)

// called is a service that answers with its name, its constant and its process, and then with what the services answer whose
// addresses are in CALLS.
const called = `package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	port := flag.String("port", "", "")
	flag.Parse()
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "NAME %s %d;", version, os.Getpid())
		if r.URL.Path == "/alone" {
			return
		}
		for _, addr := range strings.Fields(os.Getenv("CALLS")) {
			resp, err := http.Get("http://" + addr + "/alone")
			if err != nil {
				fmt.Fprintf(w, "%v;", err)
				continue
			}
			io.Copy(w, resp.Body)
			resp.Body.Close()
		}
	})
	panic(http.ListenAndServe(":"+cmp.Or(os.Getenv("PORT"), *port), nil))
}
`

// workspace is a module with several services.
type workspace struct{ dir string }

// newWorkspace has a main package for each name, and a fairlead.yaml with an entry for each.
func newWorkspace(t testing.TB, entries map[string]string) workspace {
	t.Helper()
	w := workspace{t.TempDir()}
	write(t, filepath.Join(w.dir, "go.mod"), "module example.com/workspace\n\ngo 1.24\n")
	yaml := "version: 1\nservices:\n"
	for name, entry := range entries {
		write(t, filepath.Join(w.dir, "cmd", name, "main.go"), strings.ReplaceAll(called, "NAME", name))
		w.edit(t, name, "v1")
		if entry != "" {
			yaml += fmt.Sprintf("  %s:\n    main: ./cmd/%[1]s\n    args: [-port, \"%s\"]\n%s", name, freeport.Get(t), entry)
		}
	}
	write(t, filepath.Join(w.dir, "fairlead.yaml"), yaml)
	return w
}

func (w workspace) service(name string) string { return filepath.Join(w.dir, "cmd", name) }

func (w workspace) edit(t testing.TB, name, version string) {
	t.Helper()
	write(t, filepath.Join(w.service(name), "version.go"), fmt.Sprintf("package main\n\nconst version = %q\n", version))
}

// says waits until the service answers with all of the texts.
func (a *agent) says(t testing.TB, want ...string) string {
	t.Helper()
	var body string
	eventually(t, "an answer with "+strings.Join(want, ", "), func() error {
		url := ""
		for _, e := range a.all() {
			if r, ok := e.(*api.ReadyEvent); ok {
				url = r.URL
			}
		}
		if url == "" {
			return fmt.Errorf("it is not ready")
		}
		var err error
		if body, err = get(url); err != nil {
			return err
		}
		for _, s := range want {
			if !strings.Contains(body, s) {
				return fmt.Errorf("it says %q", body)
			}
		}
		return nil
	})
	return body
}

// process is the pid that a service said.
func process(t testing.TB, body, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(body, name+" ")
	if !ok {
		t.Fatalf("%q does not name %s", body, name)
	}
	pid, _, _ := strings.Cut(strings.Fields(rest)[1], ";")
	return pid
}

// deps is what fairlead deps lists, by name.
func (p *place) deps(t testing.TB, dir string) map[string]api.Dependency {
	t.Helper()
	var r struct{ Dependencies []api.Dependency }
	if err := json.Unmarshal([]byte(p.m.ok(t, dir, "deps", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	out := map[string]api.Dependency{}
	for _, d := range r.Dependencies {
		out[d.Name] = d
	}
	return out
}

// Another service of the workspace and a command come up before the service that calls them, and are brought up to date
// and ended with it.
func TestLocalDependencies(t *testing.T) {
	p := newLocal(t)
	w := newWorkspace(t, map[string]string{
		"front":   "    env: {CALLS: \"{{billing}} {{rates.host}}:{{rates.port}}\"}\n    dependencies:\n      billing: {ready: /healthz}\n      rates: {run: \"go run ./cmd/rates -port {{port}}\"}\n      noise: off\n",
		"billing": "    env: {}\n",
		"rates":   "",
	})
	if d := p.deps(t, w.service("front")); d["billing"].Health != "" || d["billing"].Workload != "services: billing" || d["rates"].Workload == "" {
		t.Errorf("before it runs: %+v", d)
	}
	a := p.run(t, w.service("front"))
	before := a.says(t, "front v1", "billing v1", "rates v1")
	for name, d := range p.deps(t, w.service("front")) {
		if d.Health != api.HealthReady || d.Mode != api.DependencyShared {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if r := p.m.fairlead(t, w.service("front"), "deps", "--fresh", "billing"); r.code != 1 || !strings.Contains(r.stderr, "on this machine dependencies are not switched") || !strings.Contains(r.stderr, "run it again with --fresh billing") {
		t.Errorf("%+v", r)
	}
	w.edit(t, "billing", "v2")
	now := a.says(t, "billing v2")
	if process(t, now, "front") != process(t, before, "front") || process(t, now, "rates") != process(t, before, "rates") {
		t.Errorf("it was %q, and is %q", before, now)
	}
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit %d: %s", code, a.stderr())
	}
	p.wantNothing(t)
}

// A shared one is one for all that call it, and for who runs it; a fresh one is the environment's own. It goes with the last
// that holds it.
func TestLocalDependencySharedAndFresh(t *testing.T) {
	p := newLocal(t)
	w := newWorkspace(t, map[string]string{
		"front":   "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: shared}\n",
		"back":    "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: shared}\n",
		"admin":   "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: fresh}\n",
		"billing": "    env: {}\n",
	})
	front, back, admin := p.run(t, w.service("front")), p.run(t, w.service("back")), p.run(t, w.service("admin"))
	ours := process(t, front.says(t, "billing v1"), "billing")
	if theirs := process(t, back.says(t, "billing v1"), "billing"); theirs != ours {
		t.Errorf("two copies of a shared one: %s and %s", ours, theirs)
	}
	if fresh := process(t, admin.says(t, "billing v1"), "billing"); fresh == ours {
		t.Error("the fresh one is the shared one")
	}
	billing := p.run(t, w.service("billing"))
	if own := process(t, billing.says(t, "billing v1"), "billing"); own != ours {
		t.Errorf("who runs it has another: %s and %s", own, ours)
	}
	billing.interrupt(t)
	front.interrupt(t)
	if still := process(t, back.says(t, "billing v1"), "billing"); still != ours {
		t.Errorf("it was %s, and is %s", ours, still)
	}
	w.edit(t, "billing", "v2")
	back.says(t, "billing v2")
	admin.says(t, "billing v2")
	back.interrupt(t)
	admin.interrupt(t)
	p.wantNothing(t)
}

// A service waits for a dependency that does not build, says why, and goes on with the save that mends it.
func TestLocalDependencyBroken(t *testing.T) {
	p := newLocal(t)
	w := newWorkspace(t, map[string]string{
		"front":   "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: shared, ghost: shared}\n",
		"billing": "    env: {}\n",
	})
	write(t, filepath.Join(w.service("billing"), "broken.go"), "package main\n\nvar x = undefinedThing\n")
	a := p.run(t, w.service("front"))
	a.wait(t, "the reason", func(e api.Event) bool {
		v, ok := e.(*api.EnvironmentEvent)
		return ok && strings.Contains(v.Reason, "waiting for billing") && strings.Contains(v.Reason, "undefinedThing")
	})
	write(t, filepath.Join(w.service("billing"), "broken.go"), "package main\n")
	a.says(t, "front v1", "billing v1")
	ghost := false
	for _, e := range a.all() {
		v, ok := e.(*api.ProblemEvent)
		ghost = ghost || ok && v.Code == "dependency-failed" && strings.HasPrefix(v.Message, "ghost ") && v.Severity == api.SeverityWarning
	}
	if d := p.deps(t, w.service("front"))["ghost"]; !ghost || d.Health != api.HealthFailed || d.Detail == "" {
		t.Errorf("one that nobody knows how to run: told %v, %+v", ghost, d)
	}
	a.interrupt(t)
	p.wantNothing(t)
}

// A dependency that is another module runs in its own folder, with its own settings. One that ends is waited for, its last line is told,
// and the save that mends it lets the service begin.
func TestLocalDependencyOfAnotherModule(t *testing.T) {
	p := newLocal(t)
	dir := t.TempDir()
	for _, name := range []string{"front", "billing"} {
		main := strings.ReplaceAll(called, "NAME", name)
		if name == "billing" {
			main = strings.Replace(main, "\tflag.Parse()\n", "\tflag.Parse()\n\tversion, err := os.ReadFile(os.Getenv(\"VERSION_FILE\"))\n\tif err != nil {\n\t\tfmt.Println(err, os.Getenv(\"CALLS\"))\n\t\tos.Exit(1)\n\t}\n", 1)
		}
		write(t, filepath.Join(dir, name, "go.mod"), "module example.com/"+name+"\n\ngo 1.24\n")
		write(t, filepath.Join(dir, name, "main.go"), main)
		write(t, filepath.Join(dir, name, "version.go"), "package main\n\nconst version = \"v1\"\n")
	}
	write(t, filepath.Join(dir, ".git", "HEAD"), "ref: refs/heads/main\n")
	write(t, filepath.Join(dir, "front", "fairlead.yaml"), fmt.Sprintf("services:\n  front:\n    main: .\n    args: [-port, \"%s\"]\n    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: {main: ../billing}}\n", freeport.Get(t)))
	write(t, filepath.Join(dir, "billing", "fairlead.yaml"), fmt.Sprintf("args: [-port, \"%s\"]\nenv: {VERSION_FILE: version.txt}\n", freeport.Get(t)))
	a := p.run(t, filepath.Join(dir, "front"))
	a.wait(t, "why billing ended", func(e api.Event) bool {
		v, ok := e.(*api.ProblemEvent)
		return ok && v.Code == "dependency-failed" && v.Message == "billing cannot be used: the service exited with code 1: open version.txt: no such file or directory"
	})
	write(t, filepath.Join(dir, "billing", "version.txt"), "v7\n")
	write(t, filepath.Join(dir, "billing", "version.go"), "package main\n\nconst version = \"v2\"\n")
	a.says(t, "front v1", "billing v7")
	a.interrupt(t)
	p.wantNothing(t)
}

// Two that need each other both come up, and both go.
func TestLocalDependencyLoop(t *testing.T) {
	p := newLocal(t)
	w := newWorkspace(t, map[string]string{
		"front":   "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: shared}\n",
		"billing": "    env: {CALLS: \"{{front}}\"}\n    dependencies: {front: shared}\n",
	})
	a := p.run(t, w.service("front"))
	a.says(t, "front v1", "billing v1")
	a.interrupt(t)
	p.wantNothing(t)
}

// An agent that is killed leaves dependencies to the next one, which leaves nothing.
func TestLocalDependencyAgentKilled(t *testing.T) {
	p := newLocal(t)
	w := newWorkspace(t, map[string]string{
		"front":   "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: shared}\n",
		"billing": "    env: {}\n",
	})
	a := p.run(t, w.service("front"))
	a.says(t, "billing v1")
	supervisors := p.supervisors(t)
	a.skipAll()
	killWait(t, a.pid(t))
	a.wait(t, "connected", isEnv("connected"))
	a.says(t, "billing v1")
	if now := p.supervisors(t); len(now) != 2 || !slices.Equal(now, supervisors) {
		t.Errorf("supervisors %v, were %v", now, supervisors)
	}
	w.edit(t, "billing", "v2")
	a.says(t, "billing v2")
	a.interrupt(t)
	p.wantNothing(t)
}

// A dependency that somebody stops is begun again while it is wanted, and called at its new address.
func TestLocalDependencyStopped(t *testing.T) {
	p := newLocal(t)
	w := newWorkspace(t, map[string]string{
		"front":   "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: shared}\n",
		"billing": "    env: {}\n",
	})
	a := p.run(t, w.service("front"))
	was := process(t, a.says(t, "billing v1"), "billing")
	var s struct{ Name, Service string }
	for line := range strings.Lines(p.m.ok(t, w.dir, "status", "--json")) {
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		if s.Service == "billing" {
			break
		}
	}
	p.m.ok(t, w.dir, "stop", s.Name)
	eventually(t, "another billing", func() error {
		if now := process(t, a.says(t, "billing v1"), "billing"); now == was {
			return fmt.Errorf("it is %s still", now)
		}
		return nil
	})
	a.interrupt(t)
	p.wantNothing(t)
}
