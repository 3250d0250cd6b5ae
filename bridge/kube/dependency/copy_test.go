package dependency

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fairlead.dev/api"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write testdata/copy.yaml anew")

var testEnvironment = Environment{Name: "orders-ann", Namespace: "shop", UID: "uid-of-env"}

// original is a StatefulSet with one of everything that is not copied as it is.
const original = `
metadata:
  name: postgres
  namespace: shop
  uid: uid-of-original
  resourceVersion: "7"
  generation: 3
  labels: {app: postgres}
  annotations: {a: b}
  ownerReferences: [{apiVersion: x/v1, kind: Operator, name: o, uid: u}]
  finalizers: [x/y]
spec:
  replicas: 3
  serviceName: postgres-headless
  podManagementPolicy: OrderedReady
  updateStrategy: {type: OnDelete}
  selector: {matchLabels: {app: postgres}}
  template:
    metadata:
      labels: {app: postgres}
      annotations: {prometheus.io/scrape: "true", keep: me}
    spec:
      nodeName: n
      hostNetwork: true
      serviceAccountName: postgres
      hostAliases: [{ip: 10.0.0.1, hostnames: [x]}, {ip: 127.0.0.1, hostnames: [z]}]
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: host}]}}
      containers:
        - name: db
          image: registry.test:5000/postgres:16
          ports: [{containerPort: 5432, hostPort: 5432}]
          env:
            - {name: POSTGRES_PASSWORD, valueFrom: {secretKeyRef: {name: pg, key: password}}}
            - {name: BILLING_SERVICE_HOST, value: mine}
          volumeMounts: [{name: data, mountPath: /data}, {name: extra, mountPath: /extra}]
      volumes: [{name: extra, persistentVolumeClaim: {claimName: extra}}]
  volumeClaimTemplates:
    - metadata: {name: data, labels: {a: b}, uid: x}
      spec: {accessModes: [ReadWriteOnce], storageClassName: fast, volumeName: pv-7, resources: {requests: {storage: 1Gi}}, dataSource: {kind: VolumeSnapshot, name: s}}
      status: {phase: Bound}
status: {readyReplicas: 3}
`

func TestCopy(t *testing.T) {
	in := shop(t)
	for i := range in.StatefulSets {
		if in.StatefulSets[i].Name == "postgres" {
			if err := yaml.UnmarshalStrict([]byte(original), &in.StatefulSets[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	in.Services = append(in.Services, corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "postgres-headless", Namespace: "shop", UID: "x", ResourceVersion: "1"},
		Spec:       corev1.ServiceSpec{ClusterIP: "None", Selector: map[string]string{"app": "postgres"}, PublishNotReadyAddresses: true}})
	for i := range in.Services {
		if s := &in.Services[i]; s.Name == "postgres" {
			s.UID, s.ResourceVersion = "uid", "9"
			s.Spec.Type, s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.ExternalIPs = corev1.ServiceTypeNodePort, "10.96.1.1", []string{"10.96.1.1"}, []string{"192.0.2.1"}
			s.Spec.Ports[0].NodePort = 30001
		}
	}
	in.Wishes = map[string]api.DependencyWish{"postgres": {Mode: api.DependencyFresh}, "billing": {Mode: api.DependencyFresh}}
	r := Find(in)
	if r.Problems != nil {
		t.Fatal(r.Problems)
	}
	at := slices.IndexFunc(r.Dependencies, func(d *Found) bool { return d.Name == "postgres" })
	bill := slices.IndexFunc(r.Dependencies, func(d *Found) bool { return d.Name == "billing" })
	d, b := r.Dependencies[at], r.Dependencies[bill]
	if c := cmp.Diff([]string{"extra"}, d.Claims()); c != "" {
		t.Error(c)
	}
	claims := map[string]*corev1.PersistentVolumeClaim{"extra": {Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, VolumeName: "pv-8",
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}}}
	aliases := []Alias{b.AliasOf(b.Services[0], "10.0.0.1"), d.AliasOf(d.Services[1], "10.0.0.2")}
	c, err := d.WorkloadCopy(testEnvironment, claims, map[string]string{"db": "sha256:" + strings.Repeat("a", 64)}, aliases)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"postgres: the staging pod uses the node's network; the environment's has its own"}, c.Notes); d != "" {
		t.Error(d)
	}
	var out strings.Builder
	write := func(o metav1.Object) {
		if !testEnvironment.Owns(o) {
			t.Errorf("%s is not known to be ours", o.GetName())
		}
		y, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n" + string(y))
	}
	for _, s := range d.ServiceCopies(testEnvironment) {
		write(s)
	}
	for _, p := range c.Claims {
		write(p)
	}
	write(c.StatefulSet)
	file := filepath.Join("testdata", "copy.yaml")
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := d.WorkloadCopy(testEnvironment, nil, nil, nil); err == nil {
		t.Error("a copy without the claim that its pod names")
	}
}

func TestCopyName(t *testing.T) {
	long := Environment{Name: strings.Repeat("e", 60)}
	a, b := long.CopyName("a"), long.CopyName("b")
	if len(a) != 52 || a == b || testEnvironment.CopyName("db") != "orders-ann-db" {
		t.Errorf("%q %q", a, b)
	}
}

func TestOwns(t *testing.T) {
	own := testEnvironment.meta("x", "db")
	for name, change := range map[string]func(*metav1.ObjectMeta){
		"label of another":      func(m *metav1.ObjectMeta) { m.Labels[LabelOf] = "other" },
		"no owner":              func(m *metav1.ObjectMeta) { m.OwnerReferences = nil },
		"a former environment":  func(m *metav1.ObjectMeta) { m.OwnerReferences[0].UID = "former" },
		"an owner of that name": func(m *metav1.ObjectMeta) { m.OwnerReferences[0].Kind = "StatefulSet" },
	} {
		m := own.DeepCopy()
		change(m)
		if testEnvironment.Owns(m) {
			t.Errorf("%s: taken for ours", name)
		}
	}
	if !testEnvironment.Owns(&own) {
		t.Error("ours is not")
	}
}

func TestImages(t *testing.T) {
	tmpl := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "r:5000/x:1"}, {Name: "b", Image: "y:2"}, {Name: "c", Image: "z"}}}}
	digest := "sha256:" + strings.Repeat("0", 64)
	pod := &corev1.Pod{Spec: *tmpl.Spec.DeepCopy(), Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
		{Name: "a", ImageID: "docker-pullable://other/x@" + digest}, {Name: "b", ImageID: "y@" + digest}, {Name: "c", ImageID: digest}}}}
	pod.Spec.Containers[1].Image = "y:1" // of a rollout that is under way
	if d := cmp.Diff(map[string]string{"a": digest}, Images(tmpl, pod)); d != "" {
		t.Error(d)
	}
	for image, want := range map[string]string{"x": "x@" + digest, "x:1": "x@" + digest, "r:5000/x": "r:5000/x@" + digest, "r:5000/x:1": "r:5000/x@" + digest, "x@sha256:1": "x@sha256:1"} {
		if got := atDigest(image, digest); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
	if got := atDigest("x:1", ""); got != "x:1" {
		t.Error(got)
	}
}

func TestLinks(t *testing.T) {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "my-db"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "pg", Port: 5432}, {Port: 53, Protocol: corev1.ProtocolUDP}}}}
	var got []string
	for _, e := range links(Alias{Service: s, IP: "10.0.0.1"}) {
		got = append(got, fmt.Sprintf("%s=%s", e.Name, e.Value))
	}
	want := []string{"MY_DB_SERVICE_HOST=10.0.0.1", "MY_DB_SERVICE_PORT=5432", "MY_DB_PORT=tcp://10.0.0.1:5432", "MY_DB_SERVICE_PORT_PG=5432",
		"MY_DB_PORT_5432_TCP=tcp://10.0.0.1:5432", "MY_DB_PORT_5432_TCP_PROTO=tcp", "MY_DB_PORT_5432_TCP_PORT=5432", "MY_DB_PORT_5432_TCP_ADDR=10.0.0.1",
		"MY_DB_PORT_53_UDP=udp://10.0.0.1:53", "MY_DB_PORT_53_UDP_PROTO=udp", "MY_DB_PORT_53_UDP_PORT=53", "MY_DB_PORT_53_UDP_ADDR=10.0.0.1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
