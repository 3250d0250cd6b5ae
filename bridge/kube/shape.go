package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/dependency"
	"fairlead.dev/bridge/kube/isolation"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
)

// blueprint is what a Deployment is made from.
type blueprint struct {
	spec      bridge.Spec
	namespace string
	template  *appsv1.Deployment // nil when there is no staging Deployment
	container string             // of template: the one that runs the service
	image     string             // the supervisor's, by digest
	base      string             // without a template: what the service runs in; empty means image
	payload   string             // digest of what image was made of
	created   time.Time
	fresh     []string           // names of the dependencies that aliases lead to
	aliases   []dependency.Alias // of copies
	staging   string             // in a namespace of its own: the one that it is like
	adapt     func(*corev1.PodSpec)
}

// graceSeconds is how long a pod may take to end: the supervisor needs a moment to stop the service, and a developer
// who waits for a new pod should not wait for the drain of one that gets no requests.
const graceSeconds = 5

// deployment draws the Deployment. notes say, for a person, what of the template could not be kept.
func (b blueprint) deployment() (d *appsv1.Deployment, notes []string) {
	var pod corev1.PodTemplateSpec
	if b.template != nil {
		notes = b.fromTemplate(&pod)
	} else {
		b.fromNothing(&pod)
	}
	main := container(&pod.Spec, b.mainContainer())
	b.putSupervisor(&pod, main)
	dependency.Reach(&pod.Spec, b.aliases)
	if b.adapt != nil {
		b.adapt(&pod.Spec)
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations["kubectl.kubernetes.io/default-container"] = main.Name
	pod.Labels = b.labels()
	pod.Spec.TerminationGracePeriodSeconds = new(int64(graceSeconds))
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways

	d = &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: b.spec.Name, Namespace: b.namespace, Labels: b.labels(), Annotations: map[string]string{
			annOwner: b.spec.Owner, annBranch: b.spec.Branch, annDir: b.spec.Dir, annVersion: b.spec.Version,
			annCreated: b.created.UTC().Format(time.RFC3339), annPayload: b.payload,
		}},
		Spec: appsv1.DeploymentSpec{
			Replicas:             new(int32(1)),
			RevisionHistoryLimit: new(int32(0)),
			Strategy:             appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			Selector:             &metav1.LabelSelector{MatchLabels: map[string]string{labelEnvironment: b.spec.Name}},
			Template:             pod,
		},
	}
	if b.template != nil {
		d.Annotations[annTemplate] = b.template.Namespace + "/" + b.template.Name
	}
	if b.staging != "" {
		d.Labels[isolation.LabelStaging] = b.staging
	}
	if len(b.fresh) > 0 {
		d.Annotations[annFresh] = strings.Join(b.fresh, ",")
	}
	shape := shapeOf(d.Spec)
	d.Annotations[annShape] = shape
	d.Spec.Template.Annotations[annShape] = shape
	return d, notes
}

// shapeOf is a digest of what we want, as opposed to what the API server made of it with its defaults.
func shapeOf(s appsv1.DeploymentSpec) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // plain data of Kubernetes' own types
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

func (b blueprint) labels() map[string]string {
	return map[string]string{labelEnvironment: b.spec.Name, labelService: b.spec.Service, labelOwner: ownerHash(b.spec.Owner)}
}

func (b blueprint) mainContainer() string {
	if b.template != nil {
		return b.container
	}
	return b.spec.Service
}

// fromTemplate copies the staging pod, less what ties it to its own replicas.
func (b blueprint) fromTemplate(pod *corev1.PodTemplateSpec) (notes []string) {
	src := b.template.Spec.Template.DeepCopy()
	notes = dependency.Detach(src)
	pod.Annotations, pod.Spec = src.Annotations, src.Spec
	s := &pod.Spec
	c := container(s, b.container)
	c.Lifecycle = nil
	c.Stdin, c.StdinOnce, c.TTY = false, false, false
	for _, l := range throughSupervisor(c) {
		notes = append(notes, "not carried over from the staging Deployment: "+l)
	}
	return notes
}

// fromNothing is the pod of a service that has no staging Deployment: it passes Pod Security "restricted".
func (b blueprint) fromNothing(pod *corev1.PodTemplateSpec) {
	base := b.base
	if base == "" {
		base = b.image
	}
	uid, _ := strconv.ParseInt(imageUser, 10, 64)
	pod.Spec = corev1.PodSpec{
		// The service gets no access to the API server that nobody asked for.
		AutomountServiceAccountToken: new(false),
		EnableServiceLinks:           new(false),
		SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: &uid, RunAsGroup: &uid,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Containers: []corev1.Container{{
			Name: b.mainContainer(), Image: base,
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi")}},
			SecurityContext: restricted(),
			VolumeMounts:    []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}},
		}},
		Volumes: []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}
}

// restricted is a container's part of Pod Security "restricted", and a read-only root besides.
func restricted() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsNonRoot: new(true), AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// putSupervisor brings fairlead-pod into the pod and makes it the main container's process.
func (b blueprint) putSupervisor(pod *corev1.PodTemplateSpec, main *corev1.Container) {
	s := &pod.Spec
	bin := freeVolume(s, "fairlead")
	s.Volumes = append(s.Volumes, corev1.Volume{Name: bin, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	token := freeVolume(s, "fairlead-token")
	mode := int32(0o444) // any user of the pod, because which one the image has is not known
	if s.SecurityContext != nil && s.SecurityContext.FSGroup != nil {
		mode = 0o440
	}
	s.Volumes = append(s.Volumes, corev1.Volume{Name: token, VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: secretName(b.spec), DefaultMode: &mode}}})

	main.Command = []string{podBinary}
	main.Args = []string{"run", "--dir", workDir, "--socket", podSocket, "--token-file", tokenFile}
	mount(main, corev1.VolumeMount{Name: bin, MountPath: binDir})
	mount(main, corev1.VolumeMount{Name: token, MountPath: tokenDir, ReadOnly: true})
	for i, name := range treeNames(b.spec) {
		v := freeVolume(s, "fairlead-tree-"+strconv.Itoa(i))
		s.Volumes = append(s.Volumes, corev1.Volume{Name: v, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		mount(main, corev1.VolumeMount{Name: v, MountPath: b.spec.Trees[name]})
		main.Args = append(main.Args, "--tree", name+"="+b.spec.Trees[name])
	}
	main.TerminationMessagePolicy = corev1.TerminationMessageReadFile

	install := corev1.Container{
		Name: installContainer, Image: b.image,
		Command: []string{"/fairlead-pod", "install", podBinary},
		// The same as the service's container: it costs the pod nothing, and a quota that asks for limits is content.
		Resources:                *main.Resources.DeepCopy(),
		VolumeMounts:             []corev1.VolumeMount{{Name: bin, MountPath: binDir}},
		SecurityContext:          restricted(),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
	install.Resources.Claims = nil
	// Its image says who it runs as, unless the pod says root.
	if sc := s.SecurityContext; sc != nil && sc.RunAsUser != nil && *sc.RunAsUser == 0 {
		uid, _ := strconv.ParseInt(imageUser, 10, 64)
		install.SecurityContext.RunAsUser = &uid
	}
	s.InitContainers = append([]corev1.Container{install}, s.InitContainers...)
}

// mount puts a volume at a path, in place of what the template has there.
func mount(c *corev1.Container, m corev1.VolumeMount) {
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(o corev1.VolumeMount) bool { return path.Clean(o.MountPath) == m.MountPath })
	c.VolumeMounts = append(c.VolumeMounts, m)
}

// freeVolume is a volume name that the template does not use.
func freeVolume(s *corev1.PodSpec, want string) string {
	name := want
	for i := 2; slices.ContainsFunc(s.Volumes, func(v corev1.Volume) bool { return v.Name == name }); i++ {
		name = fmt.Sprintf("%s-%d", want, i)
	}
	return name
}

func container(s *corev1.PodSpec, name string) *corev1.Container {
	for i := range s.Containers {
		if s.Containers[i].Name == name {
			return &s.Containers[i]
		}
	}
	return nil
}

// sidecars are containers that are no service. A pod template rarely names them, since most are injected later.
var sidecars = []string{"istio-proxy", "linkerd-proxy", "envoy", "kuma-sidecar", "consul-dataplane", "cloud-sql-proxy", "cloudsql-proxy",
	"vault-agent", "otel-collector", "opentelemetry-collector", "jaeger-agent", "datadog-agent", "fluent-bit", "fluentd", "filebeat",
	"oauth2-proxy", "kube-rbac-proxy", "daprd"}

// serviceContainer chooses the container of a staging Deployment that runs the service.
func serviceContainer(d *appsv1.Deployment, service string) (string, error) {
	pod := d.Spec.Template
	for _, want := range []string{service, d.Name, pod.Annotations["kubectl.kubernetes.io/default-container"]} {
		if want != "" && container(&pod.Spec, want) != nil {
			return want, nil
		}
	}
	for _, c := range pod.Spec.Containers {
		if !slices.Contains(sidecars, c.Name) {
			return c.Name, nil
		}
	}
	return "", &api.Problem{Code: "no-container", Message: fmt.Sprintf("the staging Deployment %s/%s has no container that could be the service", d.Namespace, d.Name),
		Hint: "name another Deployment under template: in fairlead.yaml, or a container like the service"}
}

// platform is what the template says of the node: "" where it says nothing.
func platform(s *corev1.PodSpec) (os, arch string) {
	os, arch = s.NodeSelector[corev1.LabelOSStable], s.NodeSelector[corev1.LabelArchStable]
	if s.OS != nil && os == "" {
		os = string(s.OS.Name)
	}
	if a := s.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, e := range t.MatchExpressions {
				if e.Key == corev1.LabelArchStable && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 && arch == "" {
					arch = e.Values[0]
				}
			}
		}
	}
	return os, arch
}

// applied makes an apply configuration of a Deployment: the same JSON, without what the API server owns.
func applied(d *appsv1.Deployment) (*appsac.DeploymentApplyConfiguration, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode the deployment: %w", err)
	}
	ac := new(appsac.DeploymentApplyConfiguration)
	if err := json.Unmarshal(b, ac); err != nil {
		return nil, fmt.Errorf("encode the deployment: %w", err)
	}
	ac.Status = nil
	return ac, nil
}
