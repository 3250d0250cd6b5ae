package kube

import (
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAssessCopy(t *testing.T) {
	now := metav1.Now()
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}}
	for name, c := range map[string]struct {
		edit    func(*corev1.Pod)
		health  api.DependencyHealth
		detail  string
		code    string // of the problem, where it can never start
		failing string
	}{
		"ready": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}, api.HealthReady, "", "", ""},
		"of a former shape": {func(p *corev1.Pod) { p.Annotations[dependency.AnnShape] = "old" }, api.HealthStarting, "waiting for a pod", "", ""},
		"of another":        {func(p *corev1.Pod) { p.Labels[dependency.LabelName] = "other" }, api.HealthStarting, "waiting for a pod", "", ""},
		"ending":            {func(p *corev1.Pod) { p.DeletionTimestamp = &now }, api.HealthStarting, "waiting for a pod", "", ""},
		"not ready":         {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = running }, api.HealthStarting, "runs and is not ready", "", "db"},
		"image":             {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = waiting("ErrImagePull", "no such image") }, api.HealthFailed, "no such image", "image-pull", ""},
		"missing secret": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = waiting("CreateContainerConfigError", "secret \"pg\" not found")
		}, api.HealthFailed, "secret \"pg\" not found", "pod-start", ""},
		"image of an init": {func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", State: waiting("ImagePullBackOff", "gone")}}
		}, api.HealthFailed, "gone", "image-pull", ""},
		"first crash": {func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = ended }, api.HealthStarting, "exit code 3; it is started again", "", "db"},
		"crashes": {func(p *corev1.Pod) {
			st := &p.Status.ContainerStatuses[0]
			st.State, st.LastTerminationState, st.RestartCount = waiting("CrashLoopBackOff", ""), ended, copyCrashes
		}, api.HealthFailed, "exit code 3, 3 times", "", "db"},
		"no node": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "pod has unbound immediate PersistentVolumeClaims"}}
		}, api.HealthStarting, "unbound immediate PersistentVolumeClaims", "", ""},
	} {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "env-db-1", Labels: map[string]string{dependency.LabelName: "db"}, Annotations: map[string]string{dependency.AnnShape: "new"}},
			Spec:   corev1.PodSpec{Containers: []corev1.Container{{Name: "db", Image: "db:1"}}},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "db", State: waiting("ContainerCreating", "")}}}}
		older := *p.DeepCopy()
		older.Name, older.CreationTimestamp = "env-db-0", metav1.NewTime(now.Add(-time.Hour))
		p.CreationTimestamp = now
		older.Labels[dependency.LabelName] = "elsewhere"
		c.edit(&p)
		s := assessCopy("db", []corev1.Pod{older, p}, "new")
		code := ""
		if s.problem != nil {
			code = s.problem.Code
		}
		if s.health != c.health || !strings.Contains(s.detail, c.detail) || code != c.code || s.failing != c.failing {
			t.Errorf("%s: %+v (%s)", name, s, code)
		}
	}
}

func TestWhyReplacedByDependencies(t *testing.T) {
	with := func(fresh, shape string) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{annTemplate: "shop/checkout", annFresh: fresh, annShape: shape}}, Spec: appsv1.DeploymentSpec{Replicas: new(int32(1))}}
	}
	for want, pair := range map[string][2]*appsv1.Deployment{
		"its fresh dependencies are now db, redis":            {with("", "a"), with("db,redis", "b")},
		"its dependencies are shared again":                   {with("db", "a"), with("", "b")},
		"its making was broken off":                           {with("", shapeAnchor), with("db", "b")},
		"the staging Deployment or the settings have changed": {with("db", "a"), with("db", "b")},
	} {
		if got := whyReplaced(pair[0], pair[1]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The pod's names lead to copies, and its shape tells.
func TestDeploymentWithAliases(t *testing.T) {
	b := testBlueprint(t, staging(t))
	plain, _ := b.deployment()
	b.fresh, b.aliases = []string{"db"}, []dependency.Alias{{Service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "db"}}, IP: "10.0.0.1", Names: []string{"db", "db.shop"}}}
	d, _ := b.deployment()
	if h := d.Spec.Template.Spec.HostAliases; len(h) != 1 || h[0].IP != "10.0.0.1" || strings.Join(h[0].Hostnames, " ") != "db db.shop" {
		t.Errorf("%+v", h)
	}
	if d.Annotations[annFresh] != "db" || d.Annotations[annShape] == plain.Annotations[annShape] || plain.Annotations[annFresh] != "" {
		t.Errorf("%v, without: %v", d.Annotations, plain.Annotations)
	}
}
