package kube

import (
	"testing"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What has an address and speaks something that may be read is led through the gate, a copy beside staging's; the rest is not.
func TestRoutes(t *testing.T) {
	service := func(name, ns string, ips []string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Spec: corev1.ServiceSpec{ClusterIP: ips[0], ClusterIPs: ips, Ports: ports}}
	}
	tcp := func(n int32) corev1.ServicePort { return corev1.ServicePort{Port: n, Protocol: corev1.ProtocolTCP} }
	found := func(name, ns string, mode api.DependencyMode, services ...*corev1.Service) *dependency.Found {
		return &dependency.Found{Dependency: api.Dependency{Name: name, Namespace: ns, Mode: mode}, Services: services}
	}
	db := found("db", "shop", api.DependencyShared, service("db", "shop", []string{"10.0.0.5"}, tcp(5432)))
	db.Engine = "postgresql"
	l := &landscape{in: dependency.Input{Namespace: "shop", Elsewhere: map[string]*corev1.Service{
		"rates.finance": service("rates", "finance", []string{"10.0.0.9"}, tcp(80)), "gone.finance": nil}}}
	l.Dependencies = []*dependency.Found{
		found("billing", "shop", api.DependencyFresh, service("billing", "shop", []string{"10.0.0.1", "fd00::1"}, tcp(80), corev1.ServicePort{Port: 9090}), service("billing-old", "shop", []string{"10.0.0.2"}, tcp(80))),
		found("queue", "shop", api.DependencyShared, service("queue", "shop", []string{"None"}, tcp(80))),
		found("dns", "shop", api.DependencyShared, service("dns", "shop", []string{"10.0.0.3"}, tcp(53), corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}, tcp(8080))),
		found("noise", "shop", api.DependencyOff, service("noise", "shop", []string{"10.0.0.4"}, tcp(80))),
		db,
		found("rates", "finance", api.DependencyShared),
		found("gone", "finance", api.DependencyShared),
		found("api.stripe.com", "", api.DependencyExternal),
	}
	copied := service("env-billing", "fairlead-env", []string{"10.0.0.7"}, tcp(80))
	copied.Labels = map[string]string{dependency.LabelName: "billing"}
	var got []string
	for _, r := range routes(l, []corev1.Service{*copied}) {
		if !r.Redirect || r.Listen != "127.0.0.1:0" {
			t.Errorf("%+v", r)
		}
		got = append(got, r.Callee+" "+r.Target)
	}
	want := []string{"billing 10.0.0.7:80", "billing 10.0.0.1:80", "billing 10.0.0.1:9090", "billing [fd00::1]:80", "billing [fd00::1]:9090", "billing 10.0.0.2:80", "dns 10.0.0.3:8080", "rates.finance 10.0.0.9:80"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"calls of queue are not seen: its Service has no address of its own, or only ports of UDP"}, unseen(l)); d != "" {
		t.Error(d)
	}
}
