package kube

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestAssess(t *testing.T) {
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	ended := func(code int32, reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}}
	}
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	pod := func(edit func(*corev1.Pod)) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Annotations: map[string]string{annShape: "s"}}, Spec: corev1.PodSpec{NodeName: "n",
			InitContainers: []corev1.Container{{Name: installContainer, Image: "sup"}, {Name: "migrate", Image: "mig"}}, Containers: []corev1.Container{{Name: "svc", Image: "img"}}}}
		edit(&p)
		return p
	}
	install := func(s corev1.ContainerState) corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: installContainer, State: s}, {Name: "migrate", State: waiting("PodInitializing", "")}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "svc", State: waiting("PodInitializing", "")}}
		})
	}
	main := func(st corev1.ContainerStatus) corev1.Pod {
		return pod(func(p *corev1.Pod) {
			st.Name = "svc"
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: installContainer, State: ended(0, "Completed", "")}, {Name: "migrate", State: ended(0, "Completed", "")}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "side", State: waiting("ImagePullBackOff", "")}, st}
		})
	}
	dep := func(edit func(*appsv1.Deployment)) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "ns"}, Spec: appsv1.DeploymentSpec{Replicas: new(int32(1))}}
		if edit != nil {
			edit(d)
		}
		return d
	}
	failing := func(message string) *appsv1.Deployment {
		return dep(func(d *appsv1.Deployment) {
			d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: message}}
		})
	}
	now := metav1.Now()
	for name, c := range map[string]struct {
		d    *appsv1.Deployment
		pods []corev1.Pod
		want string // "pod", "wait: PART" or "CODE: PART"
	}{
		"deleted":       {nil, nil, "gone: deleted"},
		"no pod yet":    {dep(nil), nil, "wait: for a pod to be made"},
		"scaled down":   {dep(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) }), nil, "asleep: scaled to zero"},
		"pod security":  {failing(`pods "p" is forbidden: violates PodSecurity "restricted:latest"`), nil, "pod-refused: violates PodSecurity"},
		"quota":         {failing(`pods "p" is forbidden: exceeded quota: q`), nil, "pod-refused: exceeded quota"},
		"new namespace": {failing(`pods "p" is forbidden: error looking up service account ns/default: serviceaccount "default" not found`), nil, "wait: service account"},
		"old failure": {dep(func(d *appsv1.Deployment) {
			d.Generation = 2
			d.Status.ObservedGeneration = 1
			d.Status.Conditions = failing("old").Status.Conditions
		}), nil, "wait: for a pod to be made"},
		"unscheduled": {dep(nil), []corev1.Pod{pod(func(p *corev1.Pod) { p.Spec.NodeName = "" })}, "wait: scheduling"},
		"unschedulable": {dep(nil), []corev1.Pod{pod(func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are\n available"}}
		})}, "wait: no node takes it yet: 0/3 nodes are available"},
		"pulling":           {dep(nil), []corev1.Pod{install(waiting("PodInitializing", ""))}, "wait: getting image sup"},
		"pull fails":        {dep(nil), []corev1.Pod{install(waiting("ErrImagePull", "not found"))}, "image-pull: sup cannot be pulled: not found"},
		"bad name":          {dep(nil), []corev1.Pod{install(waiting("InvalidImageName", ""))}, "image-pull: InvalidImageName"},
		"no platform":       {dep(nil), []corev1.Pod{install(waiting("ErrImagePull", "no match for platform in manifest"))}, "unsupported-arch: node n"},
		"wrong arch":        {dep(nil), []corev1.Pod{install(ended(255, "StartError", "exec /fairlead-pod: exec format error"))}, "unsupported-arch: exec format error"},
		"install fails":     {dep(nil), []corev1.Pod{install(ended(1, "Error", "no space\nleft"))}, "init-failed: no space left"},
		"install runs":      {dep(nil), []corev1.Pod{install(runs)}, "wait: starting"},
		"service runs":      {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{State: runs})}, "pod"},
		"service has ended": {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{State: runs, ContainerID: "dead"})}, "wait: has just ended"},
		"service pulls":     {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{State: waiting("ContainerCreating", "")})}, "wait: getting image img"},
		"service no image":  {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{State: waiting("ImagePullBackOff", "back-off")})}, "image-pull: img cannot be pulled"},
		"no config map":     {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{State: waiting("CreateContainerConfigError", `configmap "c" not found`)})}, "pod-start: configmap"},
		"crashed once":      {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{RestartCount: 1, State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(137, "Error", "")})}, "wait: restarts after exit code 137"},
		"out of memory":     {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{RestartCount: 1, State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(137, "OOMKilled", "")})}, "wait: out of memory"},
		"crashes":           {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{RestartCount: 3, State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(2, "Error", "")})}, "pod-crash: ended 4 times"},
		"cannot start":      {dep(nil), []corev1.Pod{main(corev1.ContainerStatus{State: ended(128, "StartError", "permission denied")})}, "pod-start: permission denied"},
		"migration runs": {dep(nil), []corev1.Pod{pod(func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: installContainer, State: ended(0, "Completed", "")}, {Name: "migrate", State: runs}}
		})}, "wait: init container migrate runs"},
		"migration fails once": {dep(nil), []corev1.Pod{pod(func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "migrate", State: ended(1, "Error", "")}}
		})}, "wait: starting"},
		"migration fails": {dep(nil), []corev1.Pod{pod(func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "migrate", RestartCount: 1, State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(1, "Error", "no database")}}
		})}, "init-failed: migrate failed: exit code 1: no database"},
		"ending":      {dep(nil), []corev1.Pod{pod(func(p *corev1.Pod) { p.DeletionTimestamp = &now })}, "wait: old pod p"},
		"other shape": {dep(nil), []corev1.Pod{pod(func(p *corev1.Pod) { p.Annotations[annShape] = "t" })}, "wait: old pod p"},
		"evicted":     {dep(nil), []corev1.Pod{pod(func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" })}, "wait: ended: Evicted"},
		"newest": {dep(nil), []corev1.Pod{
			pod(func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour)) }),
			func() corev1.Pod {
				p := main(corev1.ContainerStatus{State: runs})
				p.CreationTimestamp = now
				return p
			}()}, "pod"},
	} {
		v := assess(c.d, c.pods, wants{main: "svc", shape: "s", avoid: "dead"})
		var got string
		switch {
		case v.pod != nil:
			got = "pod"
		case v.problem != nil:
			got = v.problem.Code + ": " + v.problem.Message
			wantShown(t, v.problem)
		default:
			got = "wait: " + v.waiting
		}
		kind, part, _ := strings.Cut(c.want, ": ")
		ok := strings.HasPrefix(got, kind)
		any := false
		for p := range strings.SplitSeq(part, "|") {
			any = any || strings.Contains(got, p)
		}
		if !ok || !any {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAssessEvent(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "1"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "svc", Image: "img"}, {Name: "side"}}}}
	const svc = "spec.containers{svc}"
	for _, c := range []struct{ uid, field, reason, message, want string }{
		{"1", svc, "Failed", "Failed to pull image \"img\": not found", "image-pull"},
		{"1", svc, "InspectFailed", "Failed to apply default image tag", "image-pull"},
		{"1", svc, "Failed", "Failed to pull image \"img\": no match for platform in manifest", "unsupported-arch"},
		{"1", svc, "Failed", "Error: ErrImagePull", ""},
		{"1", svc, "Failed", "Error: InvalidImageName", ""},
		{"1", svc, "Failed", "Error: configmap \"c\" not found", "pod-start"},
		{"1", "spec.initContainers{migrate}", "Failed", "Error: no", "pod-start"},
		{"1", svc, "BackOff", "Back-off restarting", ""},
		{"1", "", "FailedMount", "secret not found", ""},
		{"1", "spec.containers{side}", "Failed", "Failed to pull image", ""},
		{"0", svc, "Failed", "Failed to pull image", ""},
	} {
		ev := &corev1.Event{Reason: c.reason, Message: c.message, InvolvedObject: corev1.ObjectReference{UID: types.UID(c.uid), FieldPath: c.field}}
		got := ""
		if pr := assessEvent(p, ev, "svc"); pr != nil {
			got = pr.Code
			wantShown(t, pr)
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.reason, c.message, got, c.want)
		}
	}
	if assessEvent(nil, &corev1.Event{}, "svc") != nil {
		t.Error("an event of no pod")
	}
}
