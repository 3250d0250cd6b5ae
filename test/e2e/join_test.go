package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// A colleague with an agent and an account of his own, which has the rights that share prints and no others, follows an
// environment: its address, its lines, its saves. The owner is not disturbed by his coming and going, and he is told when
// the owner ends it.
func TestJoin(t *testing.T) {
	p := newKube(t)
	s := newTiny(t, "v1")
	owner := p.run(t, s.dir)
	owner.live(t, "v1")
	say(t, owner.url(t), "before")
	name := owner.wait2(t).Name

	var shared struct {
		Environment, Namespace, Cluster, Join, Link, Forward string
		Port                                                 int
	}
	if err := json.Unmarshal([]byte(p.m.ok(t, s.dir, "env", "share", "--json")), &shared); err != nil {
		t.Fatal(err)
	}
	if shared.Join != "fairlead join "+p.ns+"/"+name || shared.Link != "vscode://fairlead.fairlead/join?cluster="+url.QueryEscape(shared.Cluster)+"&environment="+name+"&namespace="+p.ns || shared.Port != 8080 {
		t.Errorf("%+v", shared)
	}
	text := p.m.ok(t, s.dir, "env", "share")
	for _, want := range []string{shared.Join, shared.Link, shared.Forward} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in what share prints:\n%s", want, text)
		}
	}
	if secret := p.token(t); strings.Contains(text, secret) {
		t.Error("the token is in what is shared")
	}

	colleague := &place{m: newMachine(t), on: p.on, c: p.c, ns: p.ns}
	config := p.c.serviceAccount(t, p.ns, "colleague")
	argv := func(config string) []string {
		return []string{"join", "--json", "--kubeconfig", config, p.ns + "/" + name}
	}
	if r := colleague.m.fairlead(t, colleague.m.root, argv(config)...); r.code != 1 || !strings.Contains(r.stderr, "may not get deployments") {
		t.Errorf("without any right: %+v", r)
	}
	p.grant(t, "colleague", text[strings.Index(text, "none to Secrets"):strings.Index(text, "Without Fairlead")])
	for arg, want := range map[string]string{p.ns + "/nobody": "there is no environment nobody", "a b/x": "no namespace's name", "x/": "no environment's name"} {
		if r := colleague.m.fairlead(t, colleague.m.root, "join", "--kubeconfig", config, arg); r.code != 1 || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("join %s: %+v", arg, r)
		}
	}

	join := func(config string) *agent { return colleague.start(t, nil, colleague.m.root, argv(config)) }
	b := join(config)
	b.live(t, "v1")
	b.wait(t, "what was written before", isLine("before"))
	say(t, b.url(t), "to both")
	owner.wait(t, "the line", isLine("to both"))
	b.wait(t, "the line", isLine("to both"))
	if all := colleague.m.status(t); len(all) != 1 || all[0].Pod == nil || all[0].Pod.Holder == "" || strings.Contains(all[0].Pod.Holder, fmt.Sprintf("pid %d", b.pid(t))) {
		t.Errorf("the colleague's status: %+v", all)
	}
	eventually(t, "the lease to say who uses it", func() error {
		d, err := p.c.kube.AppsV1().Deployments(p.ns).Get(context.Background(), name, metav1.GetOptions{})
		if err != nil || !strings.Contains(fmt.Sprint(d.Annotations), "follows it") {
			return fmt.Errorf("%v", d.Annotations)
		}
		return nil
	})
	s.edit(t, "v2")
	owner.live(t, "v2")
	b.live(t, "v2")

	// By a command and by an interrupt: what he ends is his own following.
	if out := colleague.m.ok(t, colleague.m.root, "stop", name); out != "left "+name+"\n" {
		t.Errorf("stop says %q", out)
	}
	if code := b.ended(t); code != 1 || !strings.Contains(b.stderr(), "followed no longer") {
		t.Errorf("exit %d: %s", code, b.stderr())
	}
	b = join(p.c.kubeconfig) // who might do more does no more
	b.live(t, "v2")
	if code := b.interrupt(t); code != 0 {
		t.Errorf("exit %d: %s", code, b.stderr())
	}
	colleague.wantNothingHere(t)
	owner.running(t, "v2")
	p.wantRestarts(t, 0)
	if n := owner.count(0, isEnv("lost")); n > 0 {
		t.Errorf("the owner's connection was lost %d times", n)
	}

	b = join(config)
	b.live(t, "v2")
	if code := owner.interrupt(t); code != 0 {
		t.Errorf("exit %d: %s", code, owner.stderr())
	}
	if code := b.ended(t); code != 1 || !strings.Contains(b.stderr(), "has ended the environment "+name) {
		t.Errorf("exit %d: %s", code, b.stderr())
	}
	wantErrorAndHint(t, b.stderr())
	colleague.wantNothingHere(t)
	p.wantNothing(t)
}

// say makes the service write a line.
func say(t testing.TB, address, text string) {
	t.Helper()
	if _, err := get(address + "/say?text=" + url.QueryEscape(text)); err != nil {
		t.Fatal(err)
	}
}

// token is the secret of the only environment.
func (p *place) token(t testing.TB) string {
	t.Helper()
	l, err := p.c.kube.CoreV1().Secrets(p.ns).List(context.Background(), metav1.ListOptions{LabelSelector: "fairlead.dev/environment"})
	if err != nil || len(l.Items) != 1 || len(l.Items[0].Data["token"]) != 64 {
		t.Fatalf("%d Secrets, %v", len(l.Items), err)
	}
	return string(l.Items[0].Data["token"])
}

// grant gives a service account the rules that stand, one a line, in a text.
func (p *place) grant(t testing.TB, account, text string) {
	t.Helper()
	var rules []rbacv1.PolicyRule
	for line := range strings.Lines(text) {
		rule, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if !ok {
			continue
		}
		var r rbacv1.PolicyRule
		if err := yaml.Unmarshal([]byte(rule), &r); err != nil {
			t.Fatalf("%v: %s", err, rule)
		}
		rules = append(rules, r)
	}
	if len(rules) == 0 {
		t.Fatalf("no rule is in:\n%s", text)
	}
	ctx, meta := context.Background(), metav1.ObjectMeta{Name: account}
	if _, err := p.c.kube.RbacV1().Roles(p.ns).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.c.kube.RbacV1().RoleBindings(p.ns).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: p.ns}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// wantNothingHere checks that this machine remembers nothing; what is in the cluster is another's.
func (p *place) wantNothingHere(t testing.TB) {
	t.Helper()
	q := *p
	q.c = nil
	q.wantNothing(t)
}
