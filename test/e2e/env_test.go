package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// envLine is a line of `fairlead env list --json`.
type envLine struct {
	Name, Service, Namespace, Provider, Owner, State, Why string
	LastUse                                               time.Time `json:"last_use"`
}

func (p *place) envs(t testing.TB, args ...string) (all []envLine) {
	t.Helper()
	for line := range strings.Lines(p.m.ok(t, p.m.root, append([]string{"env", "list", "--json"}, args...)...)) {
		var l envLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, l)
	}
	return all
}

// A local environment that is kept outlives its front end, and goes when it is kept no longer.
func TestEnvLocal(t *testing.T) {
	p := newLocal(t)
	s := newTiny(t, "v1")
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	if all := p.envs(t); len(all) != 1 || all[0].State != "live" || !strings.HasPrefix(all[0].Why, "held by") || all[0].Service != "tiny" {
		t.Errorf("%+v", all)
	}
	if out := p.m.ok(t, s.dir, "env", "keep", "--for", "3d"); !strings.Contains(out, "is kept until") {
		t.Error(out)
	}
	if code := a.interrupt(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if all := p.envs(t); len(all) != 1 || all[0].State != "live" || !strings.HasPrefix(all[0].Why, "it is kept until") {
		t.Fatalf("%+v", all)
	}
	if out := p.m.ok(t, s.dir, "env", "gc"); !strings.Contains(out, "environments of this machine go with their last front end") {
		t.Error(out)
	}
	if text := p.m.ok(t, s.dir, "env", "list"); !strings.Contains(text, "goes in 2d23h") {
		t.Error(text)
	}
	said := p.m.fairlead(t, s.dir, "env", "share")
	if said.code != 1 || !strings.Contains(said.stderr, "hint: run the service on a cluster") {
		t.Errorf("%+v", said)
	}
	p.m.ok(t, s.dir, "env", "keep", "--off")
	p.wantNothing(t)
	for _, args := range [][]string{{"keep"}, {"keep", "--for", "soon"}, {"keep", "--for", "1h", "--off"}, {"keep", "--until", "tomorrow"}, {"list", "x"}, {"what"}} {
		if said := p.m.fairlead(t, s.dir, append([]string{"env"}, args...)...); said.code != 2 || !strings.Contains(said.stderr, "fairlead: error: ") {
			t.Errorf("env %v: %+v", args, said)
		}
	}
}

// An environment on Kubernetes: its agent renews its lease; kept it outlives its front end; unused it sleeps, wakes with
// the next run, sleeps again and goes.
// It runs alone: every agent of the same owner tells what is due.
func TestEnvKubernetes(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	write(t, s.dir+"/fairlead.yaml", "version: 1\nlease: {sleep: 5m, delete: 1d}\n")
	at := []string{"--kubeconfig", p.c.kubeconfig, "--namespace", p.ns}
	env := func(args ...string) []string { return append(append([]string{"env"}, args...), at...) }
	a := p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	var last time.Time
	var name string
	eventually(t, "the lease to be renewed", func() error {
		all := p.envs(t, at...)
		if len(all) != 1 || all[0].State != "used" || !strings.HasPrefix(all[0].Why, "used ") || !strings.Contains(all[0].Why, "it was opened") || all[0].Owner == "" {
			return fmt.Errorf("%+v", all)
		}
		last, name = all[0].LastUse, all[0].Name
		return nil
	})
	if last.IsZero() {
		t.Error("when it was used last is not known")
	}
	ds := p.c.kube.AppsV1().Deployments(p.ns)
	d, err := ds.Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ann := d.Annotations; ann["fairlead.dev/sleep-after"] != "5m0s" || ann["fairlead.dev/delete-after"] != "24h0m0s" || ann["fairlead.dev/made-uid"] != string(d.UID) {
		t.Errorf("%v", ann)
	}
	if out := p.m.ok(t, s.dir, env("gc")...); !strings.Contains(out, "nothing to do: 1 environments stay") {
		t.Error(out)
	}
	share := p.m.ok(t, s.dir, "env", "share")
	if !strings.Contains(share, "kubectl -n "+p.ns+" port-forward deployment/"+name) {
		t.Error(share)
	}
	secrets, err := p.c.kube.CoreV1().Secrets(p.ns).List(context.Background(), metav1.ListOptions{})
	if err != nil || len(secrets.Items) != 1 {
		t.Fatalf("%d Secrets, %v", len(secrets.Items), err)
	}
	if strings.Contains(share, string(secrets.Items[0].Data["token"])) {
		t.Error("the token is in what is shared")
	}

	if out := p.m.ok(t, s.dir, "env", "keep", "--for", "3d"); !strings.Contains(out, name+" is kept until") {
		t.Error(out)
	}
	a.interrupt(t)
	if got, err := ds.Get(context.Background(), name, metav1.GetOptions{}); err != nil || got.UID != d.UID || *got.Spec.Replicas != 1 {
		t.Fatalf("what is kept did not stay: %v", err)
	}

	// Forgotten: what its lease says is written into the past by way of its policy, since the stamps are the server's.
	p.m.ok(t, s.dir, "env", "keep", name, "--off")
	forget := func() {
		t.Helper()
		if _, err := ds.Patch(context.Background(), name, "application/merge-patch+json", []byte(`{"metadata":{"annotations":{"fairlead.dev/sleep-after":"1ms","fairlead.dev/delete-after":"1ms"}}}`), metav1.PatchOptions{FieldManager: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	gc := func(says string) {
		t.Helper()
		eventually(t, says, func() error {
			if out := p.m.ok(t, s.dir, env("gc")...); !strings.Contains(out, says) {
				return errors.New(out)
			}
			return nil
		})
	}
	if out := p.m.ok(t, s.dir, env("gc", "--dry-run")...); strings.Contains(out, "put to sleep") && !strings.Contains(out, "would be put to sleep") {
		t.Error(out)
	}
	gc("put to sleep: " + p.ns + "/" + name)
	if all := p.envs(t, at...); len(all) != 1 || all[0].State != "asleep" {
		t.Errorf("%+v", all)
	}
	a = p.run(t, s.dir, "--", "-port", p.port(t))
	a.live(t, "v1")
	if got, err := ds.Get(context.Background(), name, metav1.GetOptions{}); err != nil || got.UID != d.UID || got.Annotations["fairlead.dev/sleep-after"] != "5m0s" {
		t.Errorf("it was not woken: %v", err)
	}

	// Scaled to zero by somebody under its session: nothing wakes it but a request, which is answered by the new pod.
	url := a.url(t)
	if _, err := ds.Patch(context.Background(), name, "application/merge-patch+json", []byte(`{"spec":{"replicas":0}}`), metav1.PatchOptions{}, "scale"); err != nil {
		t.Fatal(err)
	}
	environment := func(state, reason string) {
		t.Helper()
		a.wait(t, state, func(e api.Event) bool {
			env, ok := e.(*api.EnvironmentEvent)
			return ok && env.State == state && strings.Contains(env.Reason, reason)
		})
	}
	environment("lost", "was scaled to zero")
	wakes := func(reason string) {
		t.Helper()
		patient := http.Client{Timeout: 4 * time.Minute}
		resp, err := patient.Get(url + "/version")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || strings.TrimSpace(string(b)) != "v1" {
			t.Errorf("%s: %s %q, %v", reason, resp.Status, b, err)
		}
		environment("waking", reason)
	}
	wakes("a request")
	// Put to sleep while its agent is there, which wakes it by itself.
	forget()
	gc("put to sleep: " + p.ns + "/" + name)
	wakes("")
	// A changed lease holds at once.
	write(t, s.dir+"/fairlead.yaml", "version: 1\nlease: {sleep: 7m, delete: 2d}\n")
	eventually(t, "the changed lease to hold", func() error {
		d, err := ds.Get(context.Background(), name, metav1.GetOptions{})
		if err == nil && (d.Annotations["fairlead.dev/sleep-after"] != "7m0s" || d.Annotations["fairlead.dev/delete-after"] != "48h0m0s") {
			err = fmt.Errorf("%v", d.Annotations)
		}
		return err
	})
	a.kill(t) // the laptop dies, with its agent
	for _, pid := range a.agents() {
		killWait(t, pid)
	}
	forget()
	gc("put to sleep: " + p.ns + "/" + name)
	// Another folder's run tells of it: by its new agent, from what the cluster says.
	other := newTiny(t, "v1")
	b := p.run(t, other.dir, "--", "-port", p.port(t))
	b.live(t, "v1")
	eventually(t, "what is due to be told", func() error {
		log, err := os.ReadFile(p.m.state + "/fairlead/agent.log") // with --json there is no line for a person
		if err == nil && !strings.Contains(string(log), "an environment is due\" name="+name) {
			err = errors.New(string(log))
		}
		return err
	})
	b.interrupt(t)
	gc("deleted: " + p.ns + "/" + name)
	if out := p.m.ok(t, s.dir, env("list", "--gone")...); !strings.Contains(out, name) || !strings.Contains(out, "asleep since") || !strings.Contains(out, "(fairlead env gc)") {
		t.Error(out)
	}
	eventually(t, "nothing to be left in the cluster", func() error {
		if left := p.c.objects(t, p.ns); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	// The record of the laptop that died is forgotten with the next command that finds it gone.
	if err := os.RemoveAll(p.m.state); err != nil {
		t.Fatal(err)
	}
}
