package dependency

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.dev/api"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// shop is testdata/shop.yaml, of which the Deployment orders is the service.
func shop(t *testing.T) Input {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "shop.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Namespace: "shop", Container: "orders", ConfigMaps: map[string]map[string]string{}, Elsewhere: map[string]*corev1.Service{}}
	for doc := range strings.SplitSeq(string(b), "\n---\n") {
		read := func(to any) {
			if err := yaml.UnmarshalStrict([]byte(doc), to); err != nil {
				t.Fatal(err)
			}
		}
		var m metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
			t.Fatal(err)
		}
		switch m.Kind {
		case "Deployment":
			var d appsv1.Deployment
			if read(&d); d.Name == "orders" {
				in.Staging = &d
			}
			in.Deployments = append(in.Deployments, d)
		case "StatefulSet":
			var s appsv1.StatefulSet
			read(&s)
			in.StatefulSets = append(in.StatefulSets, s)
		case "ConfigMap":
			var c corev1.ConfigMap
			read(&c)
			in.ConfigMaps[c.Name] = c.Data
		case "Service":
			var s corev1.Service
			if read(&s); s.Namespace == "shop" {
				in.Services = append(in.Services, s)
			} else {
				in.Elsewhere[s.Name+"."+s.Namespace] = &s
			}
		}
	}
	return in
}

// told is a Result as the tests below write it.
func told(r Result) (out []string) {
	for _, d := range r.Dependencies {
		s := fmt.Sprintf("%s %s", d.Name, d.Mode)
		for _, v := range []struct{ key, value string }{{"ns", d.Namespace}, {"also", strings.Join(d.Also, ",")}, {"engine", d.Engine}, {"by", d.Workload}, {"health", string(d.Health)}} {
			if v.value != "" && v.value != "shop" {
				s += " " + v.key + "=" + v.value
			}
		}
		out = append(out, fmt.Sprintf("%s %v: %s", s, d.Ports, strings.Join(d.Why, "; ")))
	}
	return out
}

func TestFind(t *testing.T) {
	in := shop(t)
	if d := cmp.Diff([]string{"files", "orders"}, ConfigMaps(in)); d != "" {
		t.Error(d)
	}
	r := Find(in)
	want := []string{
		"api.stripe.com external []: STRIPE_URL of Deployment orders",
		"auth shared ns=iam [9000]: AUTH_URL of Deployment orders",
		"billing shared by=Deployment/billing health=starting [8080]: argument billing of Deployment orders",
		"kafka shared by=StatefulSet/kafka health=starting [9092]: brokers of ConfigMap orders; KAFKA_BROKERS of Deployment orders",
		"legacy-v2 shared [81]: LEGACY of Deployment orders",
		"mailer shared []: argument mailer-addr of Deployment orders",
		"mysql shared engine=mysql [3306]: host in app.ini of ConfigMap files",
		"postgres shared engine=postgresql by=StatefulSet/postgres health=ready [5432]: argument database of Deployment orders; DATABASE_URL of Deployment orders",
		"rates shared ns=finance [7000 7001]: RATES_ADDR of Deployment orders",
		"redis-master shared also=redis engine=redis by=StatefulSet/redis health=starting [6379]: REDIS_ADDR of ConfigMap orders",
		"search shared [9200]: host in app.yaml of ConfigMap files",
		"stats shared [1]: STATS_HOST of Deployment orders",
		"web shared [80]: a line in nginx.conf of ConfigMap files",
	}
	if d := cmp.Diff(want, told(r)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	notes := []string{
		"the variables that Deployment orders takes from Secret orders are not read: declare a dependency that only they name under dependencies: in fairlead.yaml",
		"AUDIT_DSN of Deployment orders may name a dependency: it is in Secret orders under audit, which is not read; declare it under dependencies: in fairlead.yaml",
		"GONE_URL of Deployment orders names gone, and there is no such Service in namespace shop",
	}
	if d := cmp.Diff(notes, r.Notes); d != "" || r.Problems != nil {
		t.Errorf("%v (-want +got):\n%s", r.Problems, d)
	}
	if s := fmt.Sprint(told(r), r.Notes); strings.Contains(s, "hunter2") || strings.Contains(s, "secret ") {
		t.Errorf("a password is told: %s", s)
	}
	// Without having looked, a host of two parts is one of the internet.
	in.Elsewhere = nil
	if d := cmp.Diff([]string{"rates.finance"}, Find(in).Elsewhere()); d != "" {
		t.Error(d)
	}
}

func TestWishes(t *testing.T) {
	in := shop(t)
	in.Wishes = map[string]api.DependencyWish{"billing": {Mode: api.DependencyFresh}, "redis": {Mode: api.DependencyFresh, Seed: "fill"}, "web": {Mode: api.DependencyOff},
		"billing-db": {Mode: api.DependencyFresh}, "noise": {Mode: api.DependencyShared}, "never": {Mode: api.DependencyOff}}
	got := map[string]string{}
	r := Find(in)
	for _, d := range r.Dependencies {
		got[d.Name] = fmt.Sprintf("%s %s: %s", d.Mode, d.Seed, strings.Join(d.Why, "; "))
	}
	const declared = "fairlead.yaml or a flag"
	for name, want := range map[string]string{
		"billing":      "fresh : argument billing of Deployment orders; " + declared + "; BACK_URL of Deployment billing-db",
		"redis-master": "fresh fill: REDIS_ADDR of ConfigMap orders; " + declared + "; REDIS of Deployment billing",
		"web":          "off : a line in nginx.conf of ConfigMap files; " + declared,
		"billing-db":   "fresh : " + declared + "; DB_URL of Deployment billing",
		"noise":        "shared : " + declared,
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if len(r.Problems) > 0 || !strings.Contains(strings.Join(r.Notes, "\n"), "never is off") {
		t.Errorf("%v %q", r.Problems, r.Notes)
	}

	for name, words := range map[string]string{
		"typo": "there is no Service typo", "orders": "leads to the service itself", "api.stripe.com": "outside of the cluster", "auth": "in namespace iam",
		"rates.finance": "in namespace finance", "mailer": "nothing to copy", "stats": "nothing to copy",
	} {
		in.Wishes = map[string]api.DependencyWish{name: {Mode: api.DependencyFresh}}
		ps := Find(in).Problems
		if len(ps) != 1 || ps[0].Code != "bad-dependency" || !strings.Contains(ps[0].Message, words) || ps[0].Hint == "" {
			t.Errorf("%s: %v", name, ps)
		}
	}
	// With something to copy, an address in place of the name is what is in the way.
	in.Deployments = append(in.Deployments, appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "stats"}, Spec: appsv1.DeploymentSpec{
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "stats"}}}}})
	in.Wishes = map[string]api.DependencyWish{"stats": {Mode: api.DependencyFresh}}
	if ps := Find(in).Problems; len(ps) != 1 || !strings.Contains(ps[0].Message, "STATS_HOST of Deployment orders has the address") {
		t.Errorf("%v", ps)
	}
	// Neither an environment nor a copy is a part of staging.
	for i := range in.Deployments {
		if in.Deployments[i].Name == "billing" {
			in.Deployments[i].Labels = map[string]string{LabelOf: "env"}
		}
	}
	in.Wishes = nil
	for _, d := range Find(in).Dependencies {
		if d.Name == "billing" && d.Workload != "Deployment/billing-canary" {
			t.Errorf("%+v", d)
		}
	}
}

// What the registry lists is a dependency, and how it wants it holds where the settings say nothing, under any name.
func TestRegistered(t *testing.T) {
	in := shop(t)
	in.Wishes = map[string]api.DependencyWish{"redis-master": {Mode: api.DependencyShared}}
	in.Registered = map[string]api.DependencyMode{"noise": api.DependencyShared, "billing": api.DependencyFresh, "redis": api.DependencyFresh, "orders": api.DependencyFresh, "nowhere": api.DependencyFresh}
	r := Find(in)
	got := map[string]string{}
	for _, d := range r.Dependencies {
		got[d.Name] = fmt.Sprintf("%s: %s", d.Mode, strings.Join(d.Why, "; "))
	}
	for name, want := range map[string]string{
		"billing":      "fresh: argument billing of Deployment orders; the registry, as fresh",
		"redis-master": "shared: REDIS_ADDR of ConfigMap orders; the registry; fairlead.yaml or a flag; REDIS of Deployment billing",
		"noise":        "shared: the registry",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	notes := strings.Join(r.Notes, "\n")
	if len(r.Problems) > 0 || !strings.Contains(notes, "the registry lists nowhere, and there is no such Service in namespace shop") || strings.Contains(notes, "lists orders") {
		t.Errorf("%v %q", r.Problems, r.Notes)
	}
	in.Registered = map[string]api.DependencyMode{"auth.iam": api.DependencyFresh}
	if ps := Find(in).Problems; len(ps) != 1 || !strings.Contains(ps[0].Message, "in namespace iam") || !strings.Contains(ps[0].Hint, "leave it shared") {
		t.Errorf("%v", ps)
	}
}
