package kube

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestProcess(t *testing.T) {
	image := func(entry, cmd []string) func(context.Context) (*v1.Config, error) {
		return func(context.Context) (*v1.Config, error) {
			return &v1.Config{Entrypoint: entry, Cmd: cmd, Env: []string{"FROM_IMAGE=yes", "B=image"}}, nil
		}
	}
	none := func(context.Context) (*v1.Config, error) { return nil, errors.New("no\nregistry") }
	env := []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(A)"}, {Name: "C", ValueFrom: &corev1.EnvVarSource{}}, {Name: "D", Value: "x$(C)"}}
	for name, c := range map[string]struct {
		container corev1.Container
		image     func(context.Context) (*v1.Config, error)
		want      []string
		notes     string // part of them
	}{
		"command and args":        {corev1.Container{Command: []string{"/svc", "run"}, Args: []string{"-x"}}, none, []string{"run", "-x"}, ""},
		"command alone":           {corev1.Container{Command: []string{"/svc"}}, none, nil, ""},
		"image's entrypoint":      {corev1.Container{Args: []string{"-x"}}, image([]string{"/svc", "go"}, []string{"dropped"}), []string{"go", "-x"}, ""},
		"image's entrypoint, cmd": {corev1.Container{}, image([]string{"/svc"}, []string{"serve"}), []string{"serve"}, ""},
		"image's cmd alone":       {corev1.Container{}, image(nil, []string{"/svc", "serve"}), []string{"serve"}, ""},
		"image says nothing":      {corev1.Container{}, image(nil, nil), nil, ""},
		"image not to be had":     {corev1.Container{Image: "reg/x", Args: []string{"-x"}}, none, []string{"-x"}, "what reg/x starts could not be read"},
		"variables":               {corev1.Container{Command: []string{"/svc"}, Args: []string{"$(A)", "$(B)", "$$(A)", "$A"}, Env: env}, none, []string{"1", "11", "$(A)", "$A"}, ""},
		"unknown variables":       {corev1.Container{Command: []string{"/svc"}, Args: []string{"$(C)", "$(D)", "$(C)"}, Env: env}, none, []string{"$(C)", "$(D)", "$(C)"}, "use $(C), $(D), which"},
		"image's variables":       {corev1.Container{Args: []string{"$(FROM_IMAGE)", "$(B)"}, Env: env}, image([]string{"/svc"}, nil), []string{"yes", "11"}, ""},
		"tini":                    {corev1.Container{Command: []string{"/sbin/tini", "-s", "--", "/svc", "-x"}}, none, []string{"-x"}, ""},
		"tini without dashes":     {corev1.Container{Command: []string{"tini", "/svc", "-x"}}, none, []string{"-x"}, ""},
		"shell":                   {corev1.Container{Command: []string{"/bin/sh", "-c", "exec /svc -x"}}, none, nil, "args: in fairlead.yaml"},
		"shell under an init":     {corev1.Container{Command: []string{"dumb-init", "bash", "-c", "exec /svc -x"}}, none, nil, "through bash"},
		"script":                  {corev1.Container{Args: []string{"/svc"}}, image([]string{"/entrypoint.sh"}, nil), nil, "through entrypoint.sh"},
	} {
		p, notes := process(t.Context(), &c.container, c.image)
		if d := cmp.Diff(c.want, p.Args); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		all := strings.Join(notes, "\n")
		if (c.notes == "") != (all == "") || !strings.Contains(all, c.notes) || len(notes) > 1 {
			t.Errorf("%s: notes %q, want %q", name, notes, c.notes)
		}
	}
	src := staging(t)
	p, notes := process(t.Context(), &src.Spec.Template.Spec.Containers[1], none)
	want := api.Process{Args: []string{"serve", "--db=postgres://db/shop", "--pod=$(POD)", "--price=$(DB_URL)"}, Dir: "/srv", Port: 8080}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "$(POD)") {
		t.Error(notes)
	}
}

func TestMainPort(t *testing.T) {
	port := func(name string, n int32) corev1.ContainerPort {
		return corev1.ContainerPort{Name: name, ContainerPort: n}
	}
	for _, c := range []struct {
		ports []corev1.ContainerPort
		probe *corev1.Probe
		want  int
	}{
		{nil, nil, 0},
		{[]corev1.ContainerPort{port("", 1)}, nil, 1},
		{[]corev1.ContainerPort{port("grpc", 1), port("http", 2)}, nil, 2},
		{[]corev1.ContainerPort{port("http-metrics", 1), port("http-api", 2), port("web", 3)}, nil, 3},
		{[]corev1.ContainerPort{port("http-metrics", 1), port("http-api", 2)}, nil, 2},
		{[]corev1.ContainerPort{port("a", 1), port("b", 2)}, nil, 0},
		{[]corev1.ContainerPort{port("a", 1), port("b", 2)}, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("b")}}}, 2},
		{nil, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(9)}}}, 9},
		{nil, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8}}}, 8},
		{[]corev1.ContainerPort{{ContainerPort: 53, Protocol: corev1.ProtocolUDP}, port("", 1)}, nil, 1},
	} {
		if got := mainPort(&corev1.Container{Ports: c.ports, ReadinessProbe: c.probe}); got != c.want {
			t.Errorf("%v: %d, want %d", c.ports, got, c.want)
		}
	}
}

func TestProbesThroughSupervisor(t *testing.T) {
	c := corev1.Container{
		Ports:          []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("missing")}}},
		LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")}}, InitialDelaySeconds: 7, PeriodSeconds: 11, TimeoutSeconds: 3},
		StartupProbe:   &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9}}, FailureThreshold: 4},
	}
	lost := throughSupervisor(&c)
	if d := cmp.Diff([]string{"the readiness probe (no port named missing)"}, lost); d != "" {
		t.Error(d)
	}
	if c.ReadinessProbe != nil {
		t.Error("a probe that cannot be asked would make the pod unready for ever")
	}
	if d := cmp.Diff("--tcp :8080", strings.Join(c.LivenessProbe.Exec.Command[10:], " ")); d != "" {
		t.Error(d)
	}
	if p := c.LivenessProbe; p.InitialDelaySeconds != 7 || p.PeriodSeconds != 11 || p.TimeoutSeconds != 5 || p.TCPSocket != nil {
		t.Errorf("timings: %+v", p)
	}
	if d := cmp.Diff("--grpc :9", strings.Join(c.StartupProbe.Exec.Command[10:], " ")); d != "" {
		t.Error(d)
	}
}

// kubernetesExpand is the kubelet's own algorithm (third_party/forked/golang/expansion, not importable), written down
// again: what expand must agree with.
func kubernetesExpand(in string, vars map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(in); i++ {
		if in[i] != '$' || i+1 == len(in) {
			b.WriteByte(in[i])
			continue
		}
		switch in[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(in[i+2:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			name := in[i+2 : i+2+end]
			if v, ok := vars[name]; ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += 2 + end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "$(", "$()", "$(A)", "$$(A)", "$$$(A)", "$(A", "$($(A))", "a$(A)b$(B)c", "$(A$(B))", "$(\n)", "$a$(A)"} {
		f.Add(s)
	}
	vars := map[string]string{"A": "1", "B": "$(A)", "": "empty"}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			t.Skip("Kubernetes' JSON has no such string")
		}
		got, unknown := dependency.Expand(s, vars)
		if want := kubernetesExpand(s, vars); got != want {
			t.Errorf("expand(%q) = %q, Kubernetes makes %q", s, got, want)
		}
		for _, u := range unknown {
			if !strings.Contains(s, u) {
				t.Errorf("expand(%q): unknown %q", s, u)
			}
		}
	})
}

func FuzzParseDenial(f *testing.F) {
	f.Add(`deployments.apps is forbidden: User "u" cannot list resource "deployments" in API group "apps" in the namespace "shop"`)
	f.Add(`pods "x" is forbidden: User "u" cannot create resource "pods/exec" in API group "" in the namespace "a"`)
	f.Add(`namespaces is forbidden: User "u" cannot create resource "namespaces" in API group "" at the cluster scope`)
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseDenial(s)
		if !ok {
			return
		}
		if d.verb == "" || d.resource == "" || !strings.Contains(s, d.verb) || !strings.Contains(s, d.resource) {
			t.Errorf("%q: %+v", s, d)
		}
		wantShown(t, d.problem())
	})
}

func TestParseDenial(t *testing.T) {
	d, ok := parseDenial(`pods "x" is forbidden: User "u" cannot create resource "pods/exec" in API group "" in the namespace "a"`)
	if want := (denial{verb: "create", resource: "pods/exec", namespace: "a"}); !ok || d != want {
		t.Errorf("%+v", d)
	}
	if got := d.rule(); got != `- {apiGroups: [""], resources: ["pods/exec"], verbs: ["create"]}` {
		t.Error(got)
	}
	if got := together([]denial{d, {verb: "get", group: "apps", resource: "deployments", namespace: "a"}}).Message; got != "you may not create pods/exec in namespace a; nor get deployments.apps in namespace a" {
		t.Error(got)
	}
}
