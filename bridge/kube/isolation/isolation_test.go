package isolation

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var space = Space{Environment: "orders-ann", Namespace: "fairlead-shop-orders-ann", Staging: "shop"}

func TestRefer(t *testing.T) {
	ref := func(n string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: n} }
	service := &corev1.PodSpec{
		ImagePullSecrets: []corev1.LocalObjectReference{ref("pull")},
		InitContainers:   []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("all")}}, {SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("all-secret")}}}}},
		Containers: []corev1.Container{{Env: []corev1.EnvVar{{Name: "PLAIN", Value: "x"},
			{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("key"), Key: "a"}}},
			{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("key-secret"), Key: "b"}}},
			{Name: "C", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}},
		Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("files")}}},
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref(rootCA)}}},
			{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "files-secret"}}},
			{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("some")}}, {Secret: &corev1.SecretProjection{LocalObjectReference: ref("some-secret")}}}}}},
		},
	}
	fresh := &corev1.PodSpec{ServiceAccountName: "db", Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "db"}}}}}
	want := References{ConfigMaps: []string{"all", "files", "key", "some"}, Secrets: []string{"all-secret", "files-secret", "key-secret", "pull", "some-secret"},
		Claims: []string{"data"}, Accounts: []string{"db", Name}}
	if d := cmp.Diff(want, Refer(service, fresh)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(References{Accounts: []string{"db"}}, Refer(nil, fresh)); d != "" {
		t.Errorf("without a service of staging's (-want +got):\n%s", d)
	}
}

func TestAdapt(t *testing.T) {
	pod := &corev1.PodSpec{DNSConfig: &corev1.PodDNSConfig{Searches: []string{"corp.example"}}}
	space.Adapt(pod, "cluster.local")
	space.Adapt(pod, "cluster.local")
	if pod.ServiceAccountName != Name || !slices.Equal(pod.DNSConfig.Searches, []string{"shop.svc.cluster.local", "corp.example"}) {
		t.Errorf("%+v", pod)
	}
	alone := &corev1.PodSpec{ServiceAccountName: "orders"}
	Space{Namespace: "x"}.Adapt(alone, "cluster.local")
	if alone.ServiceAccountName != "orders" || alone.DNSConfig != nil {
		t.Errorf("%+v", alone)
	}
}

// What staging grants by its service account, beside pulling images, is left out.
func TestServiceAccount(t *testing.T) {
	a := space.ServiceAccount("orders", &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "orders", Annotations: map[string]string{"iam.example/role": "admin"}, Labels: map[string]string{"cloud.example/use": "true"}},
		Secrets: []corev1.ObjectReference{{Name: "token"}}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}, AutomountServiceAccountToken: new(false)})
	if len(a.Annotations) > 0 || len(a.Labels) != 1 || len(a.Secrets) > 0 || len(a.ImagePullSecrets) != 1 || *a.AutomountServiceAccountToken {
		t.Errorf("%+v", a)
	}
	if s := space.Secret(&corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}); s != nil {
		t.Errorf("a token is copied: %+v", s)
	}
	s := space.Secret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop", UID: "1", OwnerReferences: []metav1.OwnerReference{{Name: "o"}}, Annotations: map[string]string{"a": "b"}},
		Type: corev1.SecretTypeBasicAuth, Data: map[string][]byte{"password": []byte("p")}, Immutable: new(true)})
	if s.Namespace != space.Namespace || s.UID != "" || len(s.OwnerReferences)+len(s.Annotations) > 0 || s.Immutable != nil || s.Type != corev1.SecretTypeBasicAuth || string(s.Data["password"]) != "p" {
		t.Errorf("%+v", s)
	}
}

func TestQuota(t *testing.T) {
	q := space.Quota(corev1.ResourceList{corev1.ResourcePods: resource.MustParse("99"), "count/jobs.batch": resource.MustParse("3")}).Spec.Hard
	for name, want := range map[corev1.ResourceName]string{"pods": "99", "count/jobs.batch": "3", "services.loadbalancers": "0", "requests.memory": "32Gi"} {
		if got := q[name]; got.String() != want {
			t.Errorf("%s: %s, want %s", name, got.String(), want)
		}
	}
	if again := space.Quota(nil).Spec.Hard[corev1.ResourcePods]; again.String() != "30" {
		t.Errorf("another environment's quota is changed too: %s", again.String())
	}
}

func TestPolicy(t *testing.T) {
	svc := func(ns, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Selector: map[string]string{"app": name}, Ports: ports}}
	}
	outside := svc("shop", "outside", "10.0.0.9")
	outside.Spec.Selector = nil
	p := space.Policy([]*corev1.Service{
		svc("shop", "redis", "10.0.0.1", corev1.ServicePort{Port: 6379}),
		svc("finance", "rates", "10.0.0.2", corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("http")}, corev1.ServicePort{Port: 53, TargetPort: intstr.FromInt32(5300), Protocol: corev1.ProtocolUDP}),
		svc("shop", "db", corev1.ClusterIPNone, corev1.ServicePort{Port: 5432}), outside}, []netip.Prefix{netip.MustParsePrefix("10.20.3.4/16")})
	b, err := json.Marshal(p.Spec)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"podSelector":{},"ingress":[{"from":[{"podSelector":{}}]}],"egress":[{"to":[{"podSelector":{}}]},` +
		`{"ports":[{"protocol":"UDP","port":53},{"protocol":"UDP","port":5353}]},{"ports":[{"protocol":"TCP","port":53},{"protocol":"TCP","port":5353}]},` +
		`{"ports":[{"protocol":"TCP","port":6379}],"to":[{"podSelector":{"matchLabels":{"app":"redis"}},"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"shop"}}}]},` +
		`{"ports":[{"protocol":"TCP","port":"http"},{"protocol":"UDP","port":5300}],"to":[{"podSelector":{"matchLabels":{"app":"rates"}},"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"finance"}}}]},` +
		`{"to":[{"podSelector":{"matchLabels":{"app":"db"}},"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"shop"}}}]},` +
		`{"to":[{"ipBlock":{"cidr":"0.0.0.0/0","except":["10.0.0.0/8","100.64.0.0/10","169.254.0.0/16","172.16.0.0/12","192.168.0.0/16"]}},{"ipBlock":{"cidr":"::/0","except":["fc00::/7","fe80::/10"]}},{"ipBlock":{"cidr":"10.20.0.0/16"}}]}],` +
		`"policyTypes":["Ingress","Egress"]}`
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for a, want := range map[string]bool{"1.1.1.1": true, "10.1.2.3": false, "::ffff:10.1.2.3": false, "169.254.169.254": false, "172.31.0.1": false, "172.32.0.1": true, "2606:4700::1": true, "fd00::1": false} {
		if got := Public(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s is public: %v", a, got)
		}
	}
}

func TestCarried(t *testing.T) {
	got := Carried(map[string]string{"pod-security.kubernetes.io/enforce": "baseline", "istio-injection": "enabled", "istio.io/rev": "canary", "istio-injection-x": "no",
		"kubernetes.io/metadata.name": "shop", "team": "shop", "argocd.argoproj.io/instance": "shop", "openshift.io/sa.scc.uid-range": "1000/10"})
	want := map[string]string{"pod-security.kubernetes.io/enforce": "baseline", "istio-injection": "enabled", "istio.io/rev": "canary", "openshift.io/sa.scc.uid-range": "1000/10"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
