package dependency

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	prefix = "fairlead.dev/"
	// LabelSeed is of a seed's pod, which must not be taken for one of the copy.
	LabelSeed = prefix + "seed"
	// AnnShape is a digest of a copy as it was drawn, as opposed to what the API server made of it with its defaults.
	AnnShape = prefix + "shape"
	// AnnSeeds is the UID of the workload that a seed was run for.
	AnnSeeds = prefix + "seeds"
)

// Environment is whose copies are drawn.
type Environment struct {
	Name, Namespace string
	// UID is that of the environment's Deployment: it owns every copy, so that its deletion takes them.
	UID types.UID
	// Own says that the namespace is the environment's own: a copy has its original's name there.
	Own bool
	// Adapt, if not nil, changes a pod of a copy to what the namespace has.
	Adapt func(*corev1.PodSpec)
}

// place makes a pod reach copies, and fits it to the namespace.
func (e Environment) place(pod *corev1.PodSpec, aliases []Alias) {
	Reach(pod, aliases)
	if e.Adapt != nil {
		e.Adapt(pod)
	}
}

// Owns says whether an object is a copy that this environment made. The owner's UID must agree, whatever labels say.
func (e Environment) Owns(o metav1.Object) bool {
	return o.GetLabels()[LabelOf] == e.Name && slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool {
		return r.Kind == "Deployment" && r.Name == e.Name && r.UID == e.UID
	})
}

// CopyName is the name of a copy. A StatefulSet's pods have its name and eleven characters in a label, which has at most 63.
func (e Environment) CopyName(name string) string {
	n := e.Name + "-" + name
	if e.Own {
		n = name
	}
	if len(n) > 52 {
		h := sha256.Sum256([]byte(n))
		n = n[:52-9] + "-" + hex.EncodeToString(h[:4])
	}
	return n
}

func (e Environment) meta(name, dependency string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: e.Namespace, Labels: e.labels(dependency), Annotations: map[string]string{},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: e.Name, UID: e.UID}}}
}

func (e Environment) labels(dependency string) map[string]string {
	return map[string]string{LabelOf: e.Name, LabelName: dependency}
}

// ServiceCopies draws the Services of a fresh copy, one for each that leads to the original. All have an address, where the
// original has none too: hostAliases need one, and a pod's own changes.
func (d *Found) ServiceCopies(e Environment) []*corev1.Service {
	var out []*corev1.Service
	for _, s := range d.Services {
		c := &corev1.Service{ObjectMeta: e.meta(e.CopyName(s.Name), d.Name), Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, Selector: e.labels(d.Name), Ports: d.ports(s),
			SessionAffinity: s.Spec.SessionAffinity, PublishNotReadyAddresses: s.Spec.PublishNotReadyAddresses,
		}}
		setShape(&c.ObjectMeta, c.Spec)
		out = append(out, c)
	}
	return out
}

// ports are those of a Service. Whoever uses one without an address speaks to the pods themselves, at any port of theirs.
func (d *Found) ports(s *corev1.Service) []corev1.ServicePort {
	var out []corev1.ServicePort
	has := func(p corev1.ServicePort) bool {
		return slices.ContainsFunc(out, func(o corev1.ServicePort) bool { return o.Port == p.Port && o.Protocol == p.Protocol })
	}
	for _, p := range s.Spec.Ports {
		out = append(out, corev1.ServicePort{Name: p.Name, Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), AppProtocol: p.AppProtocol, Port: p.Port, TargetPort: p.TargetPort})
	}
	if s.Spec.ClusterIP == corev1.ClusterIPNone && d.Behind != nil {
		for _, c := range d.Behind.Template().Spec.Containers {
			for _, p := range c.Ports {
				if sp := (corev1.ServicePort{Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), Port: p.ContainerPort, TargetPort: intstr.FromInt32(p.ContainerPort)}); !has(sp) {
					out = append(out, sp)
				}
			}
		}
	}
	if len(out) > 1 {
		for i := range out { // several must have names
			out[i].Name = cmp.Or(out[i].Name, fmt.Sprintf("p%d-%s", out[i].Port, strings.ToLower(string(out[i].Protocol))))
		}
	}
	return out
}

// withoutPort lists the Services of which no copy can be made, as Kubernetes gives no address to one without a port.
func (d *Found) withoutPort() (out []string) {
	for _, s := range d.Services {
		if len(d.ports(s)) == 0 {
			out = append(out, s.Name)
		}
	}
	return out
}

// Alias is the address of a copied Service under all names of its original.
type Alias struct {
	Service *corev1.Service // the original
	IP      string
	Names   []string
}

// AliasOf makes one of a Service's copy, when it has its address.
func (d *Found) AliasOf(original *corev1.Service, ip string) Alias {
	n, ns := original.Name, original.Namespace
	a := Alias{Service: original, IP: ip, Names: []string{n, n + "." + ns, n + "." + ns + ".svc", n + "." + ns + ".svc.cluster.local"}}
	if s := d.StatefulSet(); s != nil && original.Spec.ClusterIP == corev1.ClusterIPNone {
		pod := s.Name + "-0."
		for _, n := range slices.Clone(a.Names) {
			a.Names = append(a.Names, pod+n)
		}
	}
	for _, h := range d.hosts[n] {
		if !slices.Contains(a.Names, h) && validation.IsDNS1123Subdomain(h) == nil { // the API server takes no other
			a.Names = append(a.Names, h)
		}
	}
	return a
}

// StatefulSet is the one behind a dependency; nil where there is none.
func (d *Found) StatefulSet() *appsv1.StatefulSet {
	if d.Behind == nil {
		return nil
	}
	return d.Behind.StatefulSet
}

// Reach makes the names of originals lead to their copies in a pod: by its hosts file, and by the variables that
// Kubernetes makes of Services, which are written out as the copy's. Names that are looked up as SRV records still lead to
// the original, as do addresses that the service has from elsewhere.
func Reach(pod *corev1.PodSpec, aliases []Alias) {
	if len(aliases) == 0 {
		return
	}
	var out []corev1.HostAlias
	for _, a := range aliases {
		out = append(out, corev1.HostAlias{IP: a.IP, Hostnames: slices.Clone(a.Names)})
	}
	// After ours, since the first line with a name counts.
	for _, h := range pod.HostAliases {
		if i := slices.IndexFunc(out, func(o corev1.HostAlias) bool { return o.IP == h.IP }); i >= 0 {
			out[i].Hostnames = append(out[i].Hostnames, h.Hostnames...)
			continue
		}
		out = append(out, h)
	}
	pod.HostAliases = out
	link(pod, aliases)
}

// Link writes out the variables that Kubernetes makes of the Services in a pod's own namespace, for a pod in another one.
func Link(pod *corev1.PodSpec, services []*corev1.Service) {
	var all []Alias
	for _, s := range services {
		all = append(all, Alias{Service: s, IP: s.Spec.ClusterIP})
	}
	link(pod, all)
}

func link(pod *corev1.PodSpec, aliases []Alias) {
	if pod.EnableServiceLinks != nil && !*pod.EnableServiceLinks {
		return
	}
	var env []corev1.EnvVar
	for _, a := range aliases {
		env = append(env, links(a)...)
	}
	for _, cs := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range cs {
			var own []corev1.EnvVar
			for _, e := range env {
				if !slices.ContainsFunc(cs[i].Env, func(o corev1.EnvVar) bool { return o.Name == e.Name }) {
					own = append(own, e)
				}
			}
			cs[i].Env = append(own, cs[i].Env...) // before what uses them
		}
	}
}

// links are the variables of a Service, as the kubelet makes them.
func links(a Alias) (out []corev1.EnvVar) {
	ports := a.Service.Spec.Ports
	if a.Service.Spec.ClusterIP == corev1.ClusterIPNone || a.IP == "" || len(ports) == 0 {
		return nil // the kubelet makes none either
	}
	p := linkPrefix(a.Service.Name)
	set := func(name, value string) { out = append(out, corev1.EnvVar{Name: p + name, Value: value}) }
	set("_SERVICE_HOST", a.IP)
	set("_SERVICE_PORT", strconv.Itoa(int(ports[0].Port)))
	url := func(sp corev1.ServicePort) string {
		return strings.ToLower(string(cmp.Or(sp.Protocol, corev1.ProtocolTCP))) + "://" + a.IP + ":" + strconv.Itoa(int(sp.Port))
	}
	set("_PORT", url(ports[0]))
	for _, sp := range ports {
		n := strconv.Itoa(int(sp.Port))
		if sp.Name != "" {
			set("_SERVICE_PORT_"+linkPrefix(sp.Name), n)
		}
		proto := string(cmp.Or(sp.Protocol, corev1.ProtocolTCP))
		one := "_PORT_" + n + "_" + proto
		set(one, url(sp))
		set(one+"_PROTO", strings.ToLower(proto))
		set(one+"_PORT", n)
		set(one+"_ADDR", a.IP)
	}
	return out
}

// Copy is the workload of a fresh copy, with its claims.
type Copy struct {
	Claims      []*corev1.PersistentVolumeClaim
	Deployment  *appsv1.Deployment // or
	StatefulSet *appsv1.StatefulSet
	Notes       []string // what of the original could not be kept
}

// Claims lists the claims that the pods of a dependency's Deployment or StatefulSet name.
func (d *Found) Claims() (out []string) {
	for _, v := range d.Behind.Template().Spec.Volumes {
		if v.PersistentVolumeClaim != nil && !slices.Contains(out, v.PersistentVolumeClaim.ClaimName) {
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		}
	}
	return out
}

// WorkloadCopy draws the workload of a fresh copy: one replica, volumes that are new and empty. claims are the originals'
// by name; images are what the original's pods run, by container ("sha256:..."), where that is known.
func (d *Found) WorkloadCopy(e Environment, claims map[string]*corev1.PersistentVolumeClaim, images map[string]string, aliases []Alias) (Copy, error) {
	var out Copy
	pod := *d.Behind.Template().DeepCopy()
	for _, n := range Detach(&pod) {
		out.Notes = append(out.Notes, d.Name+": "+n)
	}
	pod.ObjectMeta = metav1.ObjectMeta{Labels: e.labels(d.Name), Annotations: pod.Annotations}
	for _, cs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range cs {
			cs[i].Image = atDigest(cs[i].Image, images[cs[i].Name])
		}
	}
	for i := range pod.Spec.Volumes {
		v := pod.Spec.Volumes[i].PersistentVolumeClaim
		if v == nil {
			continue
		}
		original := claims[v.ClaimName]
		if original == nil {
			return out, fmt.Errorf("claim %s of %s is not known", v.ClaimName, d.Workload)
		}
		name := e.CopyName(v.ClaimName)
		out.addClaim(e, d, name, original.Spec)
		v.ClaimName = name
	}
	e.place(&pod.Spec, aliases)
	name := e.CopyName(d.Name)
	selector := &metav1.LabelSelector{MatchLabels: e.labels(d.Name)}
	if s := d.Behind.StatefulSet; s != nil {
		c := &appsv1.StatefulSet{ObjectMeta: e.meta(name, d.Name), Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(1)), Selector: selector, Template: pod, ServiceName: e.CopyName(d.Services[0].Name), RevisionHistoryLimit: new(int32(0)),
			// With one pod there is no order. In order, an update would wait for a pod that it is to mend.
			PodManagementPolicy: appsv1.ParallelPodManagement,
			UpdateStrategy:      appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				// Scaled to zero is asleep: its data stays.
				WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
		}}
		for _, t := range s.Spec.VolumeClaimTemplates {
			// Made here under the name that the controller looks for: it is the environment's from its first moment.
			out.addClaim(e, d, t.Name+"-"+name+"-0", t.Spec)
			c.Spec.VolumeClaimTemplates = append(c.Spec.VolumeClaimTemplates, corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Name: t.Name, Labels: e.labels(d.Name)}, Spec: emptyClaim(t.Spec)})
		}
		setShape(&c.ObjectMeta, c.Spec)
		mark(&c.Spec.Template, c.Annotations[AnnShape])
		out.StatefulSet = c
		return out, nil
	}
	c := &appsv1.Deployment{ObjectMeta: e.meta(name, d.Name), Spec: appsv1.DeploymentSpec{
		Replicas: new(int32(1)), Selector: selector, Template: pod, RevisionHistoryLimit: new(int32(0)),
		Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}, // most volumes have one user at a time
	}}
	setShape(&c.ObjectMeta, c.Spec)
	mark(&c.Spec.Template, c.Annotations[AnnShape])
	out.Deployment = c
	return out, nil
}

func (c *Copy) addClaim(e Environment, d *Found, name string, spec corev1.PersistentVolumeClaimSpec) {
	p := &corev1.PersistentVolumeClaim{ObjectMeta: e.meta(name, d.Name), Spec: emptyClaim(spec)}
	setShape(&p.ObjectMeta, p.Spec)
	c.Claims = append(c.Claims, p)
}

// emptyClaim asks for a volume of the same kind, and for nobody's data.
func emptyClaim(s corev1.PersistentVolumeClaimSpec) corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{AccessModes: slices.Clone(s.AccessModes), Resources: *s.Resources.DeepCopy(),
		StorageClassName: s.StorageClassName, VolumeMode: s.VolumeMode}
}

// SeedJob draws the Job that fills a fresh copy, after a Job or a CronJob's template. workload is the UID of the copy: it
// is run once for each.
func (d *Found) SeedJob(e Environment, spec batchv1.JobSpec, workload types.UID, aliases []Alias) *batchv1.Job {
	pod := *spec.Template.DeepCopy()
	Detach(&pod)
	pod.ObjectMeta = metav1.ObjectMeta{Labels: map[string]string{LabelOf: e.Name, LabelSeed: d.Name}, Annotations: pod.Annotations}
	e.place(&pod.Spec, aliases)
	j := &batchv1.Job{ObjectMeta: e.meta(e.CopyName("seed-"+d.Name), d.Name), Spec: batchv1.JobSpec{
		Parallelism: spec.Parallelism, Completions: spec.Completions, CompletionMode: spec.CompletionMode, BackoffLimit: spec.BackoffLimit,
		ActiveDeadlineSeconds: spec.ActiveDeadlineSeconds, PodFailurePolicy: spec.PodFailurePolicy, Template: pod,
	}}
	j.Annotations[AnnSeeds] = string(workload)
	setShape(&j.ObjectMeta, j.Spec)
	return j
}

// Detach takes from a pod template what ties it to its own replicas and their nodes. The notes say, for a person, what
// could not be kept.
func Detach(t *corev1.PodTemplateSpec) (notes []string) {
	maps.DeleteFunc(t.Annotations, func(k, _ string) bool {
		// A restart of staging is none of ours, and a scraped development pod would spoil staging's figures.
		return k == "kubectl.kubernetes.io/restartedAt" || strings.HasPrefix(k, "prometheus.io/") || strings.HasPrefix(k, prefix)
	})
	s := &t.Spec
	s.NodeName = ""
	// These spread staging's replicas over nodes; with them our one pod might fit on none.
	s.TopologySpreadConstraints = nil
	if s.Affinity != nil {
		s.Affinity.PodAntiAffinity = nil
	}
	if s.HostNetwork {
		s.HostNetwork = false // its ports on the node are taken by staging
		notes = append(notes, "the staging pod uses the node's network; the environment's has its own")
	}
	for _, cs := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range cs {
			c := &cs[i]
			for j := range c.Ports {
				c.Ports[j].HostPort, c.Ports[j].HostIP = 0, ""
			}
			// Server-side apply refuses what the API server itself only warns of.
			c.Ports = lastOf(c.Ports, func(p corev1.ContainerPort) string {
				return strconv.Itoa(int(p.ContainerPort)) + "/" + string(p.Protocol)
			})
			c.Env = lastOf(c.Env, func(e corev1.EnvVar) string { return e.Name })
		}
	}
	s.ImagePullSecrets = lastOf(s.ImagePullSecrets, func(r corev1.LocalObjectReference) string { return r.Name })
	return notes
}

// lastOf drops all but the last entry of each key, which is the one that counts.
func lastOf[T any](in []T, key func(T) string) []T {
	seen := map[string]bool{}
	var out []T
	for _, v := range slices.Backward(in) {
		if !seen[key(v)] {
			seen[key(v)] = true
			out = append(out, v)
		}
	}
	slices.Reverse(out)
	return out
}

// Images are the digests that a pod runs, by container, where it runs what the template says.
func Images(t *corev1.PodTemplateSpec, pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	want := map[string]string{}
	for _, c := range slices.Concat(t.Spec.InitContainers, t.Spec.Containers) {
		want[c.Name] = c.Image
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if want[c.Name] != c.Image {
			delete(want, c.Name)
		}
	}
	for _, st := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		// An ID that is of no repository is of the node's own store, and means nothing elsewhere.
		if _, digest, ok := strings.Cut(st.ImageID, "@"); ok && want[st.Name] != "" && strings.HasPrefix(digest, "sha256:") && len(digest) == len("sha256:")+64 {
			out[st.Name] = digest
		}
	}
	return out
}

// atDigest is an image of that very digest.
func atDigest(image, digest string) string {
	if digest == "" || strings.Contains(image, "@") {
		return image
	}
	slash := strings.LastIndexByte(image, '/')
	if colon := strings.LastIndexByte(image, ':'); colon > slash {
		image = image[:colon]
	}
	return image + "@" + digest
}

// mark puts the shape on the pods too, so that one of a former shape is not taken for ready.
func mark(t *corev1.PodTemplateSpec, shape string) {
	if t.Annotations == nil {
		t.Annotations = map[string]string{}
	}
	t.Annotations[AnnShape] = shape
}

func setShape(m *metav1.ObjectMeta, spec any) {
	b, err := json.Marshal(spec)
	if err != nil {
		panic(err) // plain data of Kubernetes' own types
	}
	h := sha256.Sum256(b)
	m.Annotations[AnnShape] = hex.EncodeToString(h[:8])
}
