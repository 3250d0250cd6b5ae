package isolation

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	// LabelStaging, of a namespace and of an environment's Deployment in it, is the namespace that it is like.
	LabelStaging = "fairlead.dev/staging"
	// Name is that of the objects of which there is one in a namespace.
	Name = "fairlead"

	labelEnvironment = "fairlead.dev/environment"
)

// Space is a namespace of one environment.
type Space struct {
	// Environment and Namespace are its names; Staging is the namespace whose names resolve in it, or empty.
	Environment, Namespace, Staging string
}

func (s Space) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: s.Namespace, Labels: map[string]string{labelEnvironment: s.Environment}}
}

// carried are the labels and annotations of a staging namespace that say how the cluster treats the pods in it: without
// them a pod might be refused that runs in staging, or stand outside of its mesh.
var carried = []string{"pod-security.kubernetes.io/", "istio-injection", "istio.io/", "linkerd.io/", "config.linkerd.io/", "kuma.io/", "openshift.io/sa.scc."}

// Carried gives those entries of a map that a namespace takes over from staging's.
func Carried(of map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range of {
		if slices.ContainsFunc(carried, func(p string) bool {
			return k == p || strings.HasSuffix(p, "/") && strings.HasPrefix(k, p) || strings.HasSuffix(p, ".") && strings.HasPrefix(k, p)
		}) {
			out[k] = v
		}
	}
	return out
}

// Account is the service account that a pod gets in place of the one that the template names. The name is kept, except
// for that of every namespace's own, which a controller makes in its own time.
func Account(pod *corev1.PodSpec) string {
	if n := cmp.Or(pod.ServiceAccountName, pod.DeprecatedServiceAccount, "default"); n != "default" {
		return n
	}
	return Name
}

// ServiceAccount draws one without rights: nothing binds a role to it, and what a cloud grants by annotations is left out.
// original may be nil.
func (s Space) ServiceAccount(name string, original *corev1.ServiceAccount) *corev1.ServiceAccount {
	a := &corev1.ServiceAccount{ObjectMeta: s.meta(name)}
	if original != nil {
		a.ImagePullSecrets = slices.Clone(original.ImagePullSecrets)
		a.AutomountServiceAccountToken = original.AutomountServiceAccountToken
	}
	return a
}

// Adapt changes a pod so that it finds in the environment's namespace what it found in staging's. domain is the cluster's.
func (s Space) Adapt(pod *corev1.PodSpec, domain string) {
	pod.ServiceAccountName, pod.DeprecatedServiceAccount = Account(pod), ""
	if s.Staging == "" {
		return
	}
	// What is not in the environment's namespace is looked for in staging's: with that every short name resolves, also of a
	// pod of a StatefulSet, and SRV records too.
	if pod.DNSConfig == nil {
		pod.DNSConfig = &corev1.PodDNSConfig{}
	}
	search := s.Staging + ".svc." + domain
	if !slices.Contains(pod.DNSConfig.Searches, search) {
		pod.DNSConfig.Searches = append([]string{search}, pod.DNSConfig.Searches...)
	}
}

// Limits that hold where the settings say nothing. They are far above what a service with some fresh dependencies takes,
// and far below what hurts a cluster.
var quota = corev1.ResourceList{
	corev1.ResourcePods:                   resource.MustParse("30"),
	corev1.ResourceServices:               resource.MustParse("30"),
	corev1.ResourceServicesLoadBalancers:  resource.MustParse("0"),
	corev1.ResourceServicesNodePorts:      resource.MustParse("0"),
	corev1.ResourcePersistentVolumeClaims: resource.MustParse("20"),
	corev1.ResourceRequestsStorage:        resource.MustParse("100Gi"),
	corev1.ResourceRequestsCPU:            resource.MustParse("16"),
	corev1.ResourceRequestsMemory:         resource.MustParse("32Gi"),
}

// Quota draws what the environment may take. set goes before what holds otherwise, resource by resource.
func (s Space) Quota(set corev1.ResourceList) *corev1.ResourceQuota {
	hard := quota.DeepCopy()
	maps.Copy(hard, set)
	return &corev1.ResourceQuota{ObjectMeta: s.meta(Name), Spec: corev1.ResourceQuotaSpec{Hard: hard}}
}

// LimitRange draws what a container asks for that says nothing: with a quota of cpu and memory it would be refused.
func (s Space) LimitRange() *corev1.LimitRange {
	return &corev1.LimitRange{ObjectMeta: s.meta(Name), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer,
		DefaultRequest: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")}}}}}
}

// within are the ranges that no public host has (RFC 1918, 6598, 3927, 4193, 4291): pods, Services, nodes, a cloud's
// metadata service, what else is in the network.
var within = map[string][]string{
	"0.0.0.0/0": {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"},
	"::/0":      {"fc00::/7", "fe80::/10"},
}

// Policy draws the network policy: nothing from outside of the namespace, and to outside only names, shared dependencies,
// the public internet, and the ranges of egress. shared are Services with a selector, of any namespace.
func (s Space) Policy(shared []*corev1.Service, egress []netip.Prefix) *networkingv1.NetworkPolicy {
	here := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}
	p := &networkingv1.NetworkPolicy{ObjectMeta: s.meta(Name), Spec: networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: here}},
		Egress: []networkingv1.NetworkPolicyEgressRule{
			{To: here},
			// Where a cluster's DNS is differs: pods of kube-system, an address of the node, another port behind the Service.
			{Ports: ports(corev1.ProtocolUDP, 53, 5353)}, {Ports: ports(corev1.ProtocolTCP, 53, 5353)},
		},
	}}
	for _, svc := range shared {
		if len(svc.Spec.Selector) == 0 {
			continue
		}
		r := networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: svc.Namespace}},
			PodSelector:       &metav1.LabelSelector{MatchLabels: svc.Spec.Selector}}}}
		// Whoever uses one without an address speaks to the pods themselves, at any port of theirs.
		if svc.Spec.ClusterIP != corev1.ClusterIPNone {
			for _, sp := range svc.Spec.Ports {
				// A policy sees the pod's port, not the Service's.
				target := sp.TargetPort
				if target == (intstr.IntOrString{}) {
					target = intstr.FromInt32(sp.Port)
				}
				r.Ports = append(r.Ports, networkingv1.NetworkPolicyPort{Protocol: new(cmp.Or(sp.Protocol, corev1.ProtocolTCP)), Port: &target})
			}
		}
		p.Spec.Egress = append(p.Spec.Egress, r)
	}
	var out []networkingv1.NetworkPolicyPeer
	for _, all := range slices.Sorted(maps.Keys(within)) {
		out = append(out, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: all, Except: within[all]}})
	}
	for _, e := range egress {
		out = append(out, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: e.Masked().String()}})
	}
	p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: out})
	return p
}

func ports(protocol corev1.Protocol, numbers ...int32) (out []networkingv1.NetworkPolicyPort) {
	for _, n := range numbers {
		out = append(out, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: new(intstr.FromInt32(n))})
	}
	return out
}

// Public says whether an address is one that Policy lets through without being told.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	for _, ranges := range within {
		for _, r := range ranges {
			if netip.MustParsePrefix(r).Contains(a) {
				return false
			}
		}
	}
	return true
}

// ConfigMap draws a copy of one of staging's.
func (s Space) ConfigMap(original *corev1.ConfigMap) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: s.meta(original.Name), Data: original.Data, BinaryData: original.BinaryData}
}

// Secret draws a copy of one of staging's; nil for a service account's token, which is a right.
func (s Space) Secret(original *corev1.Secret) *corev1.Secret {
	if original.Type == corev1.SecretTypeServiceAccountToken {
		return nil
	}
	return &corev1.Secret{ObjectMeta: s.meta(original.Name), Type: original.Type, Data: original.Data}
}

// Claim draws a new, empty volume in place of one of staging's, which no pod of another namespace can have.
func (s Space) Claim(original *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: s.meta(original.Name), Spec: corev1.PersistentVolumeClaimSpec{AccessModes: slices.Clone(original.Spec.AccessModes),
		Resources: *original.Spec.Resources.DeepCopy(), StorageClassName: original.Spec.StorageClassName, VolumeMode: original.Spec.VolumeMode}}
}
