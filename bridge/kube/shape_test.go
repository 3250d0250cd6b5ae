package kube

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (go test -update writes it anew):\n%s", file, d)
	}
}

func staging(t *testing.T) *appsv1.Deployment {
	t.Helper()
	b, err := os.ReadFile("testdata/staging.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := new(appsv1.Deployment)
	if err := yaml.UnmarshalStrict(b, d); err != nil {
		t.Fatal(err)
	}
	return d
}

const testToken = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func testSpec() bridge.Spec {
	return bridge.Spec{Name: "checkout-ann-3f2a", Service: "checkout", Owner: "ann@desk", Dir: "/home/ann/checkout", Branch: "feature/x",
		Token: testToken, Version: "1.2.3", Trees: map[string]string{"static": "/srv/static", "pages": "/srv/pages"}}
}

func testBlueprint(t *testing.T, template *appsv1.Deployment) blueprint {
	t.Helper()
	b := blueprint{spec: testSpec(), namespace: "shop", template: template, image: "registry.test/fairlead-pod@sha256:abc", payload: "feed",
		created: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)}
	if template != nil {
		name, err := serviceContainer(template, b.spec.Service)
		if err != nil {
			t.Fatal(err)
		}
		b.container = name
	}
	return b
}

func TestDeploymentFromTemplate(t *testing.T) {
	src := staging(t)
	before := src.DeepCopy()
	d, notes := testBlueprint(t, src).deployment()
	b, err := yaml.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "environment.yaml", b)
	if diff := cmp.Diff([]string{"not carried over from the staging Deployment: the headers of the readiness probe"}, notes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before, src); diff != "" {
		t.Errorf("the template was changed:\n%s", diff)
	}
	if strings.Contains(string(b), testToken) {
		t.Error("the token is in the Deployment")
	}
}

func TestDeploymentFromNothing(t *testing.T) {
	b := testBlueprint(t, nil)
	b.spec.Trees = nil
	d, notes := b.deployment()
	y, err := yaml.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "environment-bare.yaml", y)
	if notes != nil {
		t.Error(notes)
	}
	b.base = "base:1"
	if d, _ = b.deployment(); d.Spec.Template.Spec.Containers[0].Image != "base:1" || d.Spec.Template.Spec.InitContainers[0].Image != b.image {
		t.Error("a base image is for the service's container, and for no other")
	}
}

// What ties a staging pod to its node or to its own replicas would keep the environment's pod from starting there.
func TestNothingOfTheNode(t *testing.T) {
	src := staging(t)
	s := &src.Spec.Template.Spec
	s.HostNetwork, s.NodeName = true, "node7"
	s.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1}}
	s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{}, NodeAffinity: &corev1.NodeAffinity{}}
	for i := range s.Containers {
		s.Containers[i].Ports = append(s.Containers[i].Ports, corev1.ContainerPort{ContainerPort: 8443, HostPort: 443, HostIP: "192.0.2.1"})
	}
	d, notes := testBlueprint(t, src).deployment()
	got := d.Spec.Template.Spec
	if got.HostNetwork || got.NodeName != "" || got.TopologySpreadConstraints != nil || got.Affinity.PodAntiAffinity != nil || got.Affinity.NodeAffinity == nil {
		t.Errorf("host network %v, node %q, spread %v, affinity %+v", got.HostNetwork, got.NodeName, got.TopologySpreadConstraints, got.Affinity)
	}
	for _, c := range got.Containers {
		for _, p := range c.Ports {
			if p.HostPort != 0 || p.HostIP != "" {
				t.Errorf("container %s: %+v", c.Name, p)
			}
		}
	}
	if !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "the node's network") }) {
		t.Errorf("nothing is said of the network: %q", notes)
	}
}

// No selector that finds staging's pods may find the environment's: it would be sent staging's requests.
func TestLabelsNeverMatchStaging(t *testing.T) {
	src := staging(t)
	d, _ := testBlueprint(t, src).deployment()
	pod := labels.Set(d.Spec.Template.Labels)
	theirs := src.Spec.Template.Labels
	for k, v := range theirs { // a Service selects by any non-empty subset, and one pair must be in it
		if labels.SelectorFromSet(labels.Set{k: v}).Matches(pod) {
			t.Errorf("a Service that selects %s=%s finds the environment's pod", k, v)
		}
	}
	if sel, err := labels.Parse("app"); err != nil || sel.Matches(pod) {
		t.Errorf("a selector of the key app finds the environment's pod (%v)", err)
	}
	if labels.SelectorFromSet(d.Spec.Selector.MatchLabels).Matches(labels.Set(theirs)) {
		t.Error("the environment's Deployment selects staging's pods")
	}
	if !labels.SelectorFromSet(d.Spec.Selector.MatchLabels).Matches(pod) {
		t.Error("the environment's Deployment does not select its own pod")
	}
}

func TestShapeChangesWith(t *testing.T) {
	shape := func(edit func(*blueprint)) string {
		b := testBlueprint(t, staging(t))
		if edit != nil {
			edit(&b)
		}
		d, _ := b.deployment()
		return d.Annotations[annShape]
	}
	same := shape(nil)
	for name, edit := range map[string]func(*blueprint){
		"the time":    func(b *blueprint) { b.created = time.Now() },
		"the branch":  func(b *blueprint) { b.spec.Branch = "main" },
		"the version": func(b *blueprint) { b.spec.Version = "9" },
		"staging's replicas": func(b *blueprint) {
			b.template.Spec.Replicas = new(int32(9))
			b.template.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] = "now"
		},
	} {
		if shape(edit) != same {
			t.Errorf("the pod would be replaced because of %s", name)
		}
	}
	for name, edit := range map[string]func(*blueprint){
		"the token": func(b *blueprint) { b.spec.Token = strings.Repeat("f", 64) },
		"the image": func(b *blueprint) { b.image = "other" },
		"a tree":    func(b *blueprint) { b.spec.Trees["more"] = "/more" },
		"a variable": func(b *blueprint) {
			b.template.Spec.Template.Spec.Containers[1].Env[0].Value = "other"
		},
	} {
		if shape(edit) == same {
			t.Errorf("the pod would not be replaced because of %s", name)
		}
	}
}

func TestApplyConfigurationSaysTheSame(t *testing.T) {
	d, _ := testBlueprint(t, staging(t)).deployment()
	ac, err := applied(d)
	if err != nil {
		t.Fatal(err)
	}
	a, err := yaml.Marshal(ac)
	if err != nil {
		t.Fatal(err)
	}
	back := new(appsv1.Deployment)
	if err := yaml.UnmarshalStrict(a, back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, back); diff != "" {
		t.Error(diff)
	}
}

func TestInstallUnderRoot(t *testing.T) {
	src := staging(t)
	src.Spec.Template.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(0))}
	d, _ := testBlueprint(t, src).deployment()
	sc := d.Spec.Template.Spec.InitContainers[0].SecurityContext
	if sc.RunAsUser == nil || *sc.RunAsUser == 0 {
		t.Error("the init container inherits root and says that it must not be root")
	}
	for _, v := range d.Spec.Template.Spec.Volumes {
		if v.Secret != nil && v.Name == "fairlead-token" && *v.Secret.DefaultMode != 0o444 {
			t.Errorf("mode %o: without fsGroup nobody but root could read the token", *v.Secret.DefaultMode)
		}
	}
}

func TestServiceContainer(t *testing.T) {
	for _, c := range []struct {
		names []string
		ann   string
		want  string
	}{
		{[]string{"istio-proxy", "app"}, "", "app"},
		{[]string{"a", "checkout", "b"}, "a", "checkout"},
		{[]string{"a", "b"}, "b", "b"},
		{[]string{"a", "b"}, "gone", "a"},
		{[]string{"a", "dep"}, "a", "dep"},
		{[]string{"istio-proxy"}, "", ""},
	} {
		d := &appsv1.Deployment{}
		d.Name = "dep"
		d.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/default-container": c.ann}
		for _, n := range c.names {
			d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers, corev1.Container{Name: n})
		}
		got, err := serviceContainer(d, "checkout")
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%v: %q, %v; want %q", c.names, got, err, c.want)
		}
	}
}

func TestCheckSpec(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*bridge.Spec)
		code string
	}{
		"good":             {func(*bridge.Spec) {}, ""},
		"name":             {func(s *bridge.Spec) { s.Name = "Not_A_Label" }, "bad-spec"},
		"long name":        {func(s *bridge.Spec) { s.Name = strings.Repeat("a", 64) }, "bad-spec"},
		"no token":         {func(s *bridge.Spec) { s.Token = "" }, "bad-spec"},
		"relative":         {func(s *bridge.Spec) { s.Trees = map[string]string{"a": "b"} }, "bad-tree"},
		"unclean":          {func(s *bridge.Spec) { s.Trees = map[string]string{"a": "/b/../c"} }, "bad-tree"},
		"root":             {func(s *bridge.Spec) { s.Trees = map[string]string{"a": "/"} }, "bad-tree"},
		"colon":            {func(s *bridge.Spec) { s.Trees = map[string]string{"a": "/a:b"} }, "bad-tree"},
		"on us":            {func(s *bridge.Spec) { s.Trees = map[string]string{"a": "/fairlead/work"} }, "bad-tree"},
		"on the token":     {func(s *bridge.Spec) { s.Trees = map[string]string{"a": "/fairlead-token"} }, "bad-tree"},
		"twice":            {func(s *bridge.Spec) { s.Trees = map[string]string{"a": "/a", "b": "/a"} }, "bad-tree"},
		"name with equals": {func(s *bridge.Spec) { s.Trees = map[string]string{"a=b": "/a"} }, "bad-tree"},
	} {
		s := testSpec()
		c.edit(&s)
		wantCode(t, name, checkSpec(s), c.code)
	}
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	if err == nil {
		t.Errorf("%s: no error, want %s", what, code)
		return
	}
	p := asProblem(err)
	if p.Code != code {
		t.Errorf("%s: %s (%v), want %s", what, p.Code, err, code)
	}
	wantShown(t, p)
}

// wantShown checks what every Problem owes the person who sees it.
func wantShown(t *testing.T, p *api.Problem) {
	t.Helper()
	if p.Message == "" || strings.ContainsAny(p.Message+p.Hint, "\n\r") || strings.HasSuffix(p.Message, ".") {
		t.Errorf("%s: message %q", p.Code, p.Message)
	}
	if p.Hint == "" {
		t.Errorf("%s: no hint: %s", p.Code, p.Message)
	}
	if strings.Contains(p.Message+p.Hint, testToken) {
		t.Errorf("%s: the token is in it", p.Code)
	}
}
