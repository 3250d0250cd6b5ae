package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/isolation"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// verdict is what the state of an environment's objects means to someone who waits for its pod.
type verdict struct {
	pod     *corev1.Pod  // runs; can be dialled
	waiting string       // or: what is waited for
	asked   *corev1.Pod  // the pod that waiting speaks of, if it is a pod
	problem *api.Problem // or: it will not come by itself
}

// crashLimit is how many restarts of the main container are waited for. One is what a killed supervisor takes; more
// come with waits that grow from 10 s.
const crashLimit = 3

// assess judges. d is nil when the Deployment does not exist.
func assess(d *appsv1.Deployment, pods []corev1.Pod, w wants) verdict {
	if d == nil {
		return verdict{problem: &api.Problem{Code: codeGone, Message: "the environment was deleted from the cluster", Hint: "start again with fairlead run, which makes a new one"}}
	}
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(b.Name, a.Name))
	})
	var old *corev1.Pod
	lost := ""
	for i := range pods {
		p := &pods[i]
		switch {
		case p.DeletionTimestamp != nil || w.shape != "" && p.Annotations[annShape] != w.shape:
			old = p
		case p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded:
			lost = fmt.Sprintf("pod %s ended: %s", p.Name, cmp.Or(oneLine(p.Status.Message), p.Status.Reason, string(p.Status.Phase)))
		default:
			return assessPod(p, w.main, w.avoid)
		}
	}
	if d.Status.ObservedGeneration >= d.Generation {
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				return refused(d, oneLine(c.Message))
			}
		}
	}
	switch {
	case old != nil:
		return verdict{waiting: fmt.Sprintf("waiting for the old pod %s to end", old.Name)}
	case d.Spec.Replicas != nil && *d.Spec.Replicas == 0:
		return verdict{problem: &api.Problem{Code: api.CodeAsleep, Message: fmt.Sprintf("the environment %s was scaled to zero", d.Name),
			Hint: fmt.Sprintf("a request to its local address wakes it, and so does fairlead run, or kubectl -n %s scale deployment/%s --replicas=1", d.Namespace, d.Name)}}
	case lost != "":
		return verdict{waiting: lost + "; waiting for its replacement"}
	}
	return verdict{waiting: "waiting for a pod to be made"}
}

// refused is the verdict on a pod that the API server does not take.
func refused(d *appsv1.Deployment, message string) verdict {
	// A new namespace gets its service account a moment after it is made; the controller tries again at once.
	if strings.Contains(message, "error looking up service account") {
		return verdict{waiting: "waiting for the namespace's service account"}
	}
	hint := "the cluster's own policy refused the pod; its administrators can tell what it asks for"
	switch {
	case strings.Contains(message, "violates PodSecurity"):
		hint = "the pod is like the staging Deployment's: it would be refused too. Give that Deployment the security context that the namespace asks for, or choose another namespace with --namespace"
	case strings.Contains(message, "exceeded quota: "+isolation.Name+","):
		hint = "that is the quota of the environment's own namespace: kubernetes.quota: in fairlead.yaml raises it"
	case strings.Contains(message, "exceeded quota"), strings.Contains(message, "failed quota"):
		hint = "make room in the namespace (fairlead status lists environments, fairlead stop removes one), or ask for a larger quota"
	}
	return verdict{problem: &api.Problem{Code: "pod-refused", Message: fmt.Sprintf("the cluster refuses the pod of %s: %s", d.Name, message), Hint: hint}}
}

func assessPod(p *corev1.Pod, main, avoid string) verdict {
	fail := func(code, hint, format string, args ...any) verdict {
		return verdict{problem: &api.Problem{Code: code, Message: "pod " + p.Name + ": " + fmt.Sprintf(format, args...), Hint: hint}}
	}
	wait := func(format string, args ...any) verdict {
		return verdict{waiting: "waiting for pod " + p.Name + ": " + fmt.Sprintf(format, args...), asked: p}
	}
	for _, st := range p.Status.ContainerStatuses {
		if st.Name == main && st.State.Running != nil {
			if st.ContainerID == avoid && avoid != "" {
				return wait("its container %s has just ended", main)
			}
			return verdict{pod: p}
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return wait("no node takes it yet: %s", cmp.Or(oneLine(c.Message), c.Reason))
		}
	}
	inits := len(p.Status.InitContainerStatuses)
	all := slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
	for i, st := range all {
		init := i < inits
		if !init && st.Name != main {
			continue // a sidecar that does not come up is staging's matter
		}
		image := containerImage(p, st)
		if t := cmp.Or(st.State.Terminated, st.LastTerminationState.Terminated); t != nil && t.ExitCode != 0 {
			text := oneLine(t.Message)
			if strings.Contains(text, "exec format error") {
				return fail("unsupported-arch", "run it on an amd64 or arm64 node, with nodeSelector in the staging Deployment", "container %s cannot run on node %s: %s", st.Name, p.Spec.NodeName, text)
			}
			what := fmt.Sprintf("exit code %d", t.ExitCode)
			if text != "" {
				what += ": " + text
			}
			switch {
			case t.Reason == "StartError" || t.Reason == "ContainerCannotRun":
				return verdict{problem: startProblem(p, st, cmp.Or(text, t.Reason))}
			case init && (st.Name == installContainer || st.RestartCount > 0):
				return fail("init-failed", fmt.Sprintf("kubectl -n %s logs %s -c %s tells more", p.Namespace, p.Name, st.Name), "init container %s failed: %s", st.Name, what)
			case !init && st.RestartCount >= crashLimit:
				return fail("pod-crash", fmt.Sprintf("kubectl -n %s logs %s -c %s --previous tells more", p.Namespace, p.Name, st.Name),
					"the supervisor ended %d times: %s%s", st.RestartCount+1, what, oom(t))
			case !init:
				return wait("its container %s restarts after %s%s", st.Name, what, oom(t))
			}
		}
		switch w := st.State.Waiting; {
		case w == nil:
			if init && st.State.Running != nil && (st.Started == nil || !*st.Started) && st.Name != installContainer {
				return wait("init container %s runs", st.Name)
			}
		case w.Reason == "ErrImagePull", w.Reason == "ImagePullBackOff", w.Reason == "InvalidImageName", w.Reason == "ErrImageNeverPull", w.Reason == "RegistryUnavailable", w.Reason == "ImageInspectError", w.Reason == "SignatureValidationFailed":
			return verdict{problem: imageProblem(p, st, cmp.Or(oneLine(w.Message), w.Reason))}
		case w.Reason == "CreateContainerConfigError", w.Reason == "CreateContainerError", w.Reason == "RunContainerError", w.Reason == "PreCreateHookError", w.Reason == "PostStartHookError":
			return verdict{problem: startProblem(p, st, cmp.Or(oneLine(w.Message), w.Reason))}
		case w.Reason == "CrashLoopBackOff":
			return wait("container %s: %s", st.Name, cmp.Or(oneLine(w.Message), w.Reason))
		case w.Reason == "ContainerCreating", init && w.Reason == "PodInitializing" && st.Name == installContainer:
			short, _, _ := strings.Cut(image, "@")
			return wait("getting image %s", short)
		}
	}
	if p.Spec.NodeName == "" {
		return wait("scheduling")
	}
	return wait("starting on node %s", p.Spec.NodeName)
}

// assessEvent is the Problem that an event of a waiting pod tells, if it is one that does not pass.
func assessEvent(p *corev1.Pod, ev *corev1.Event, main string) *api.Problem {
	if p == nil || ev.InvolvedObject.UID != p.UID {
		return nil
	}
	at, name, _ := strings.Cut(strings.TrimSuffix(ev.InvolvedObject.FieldPath, "}"), "{")
	if at != "spec.initContainers" && (at != "spec.containers" || name != main) {
		return nil
	}
	text := oneLine(ev.Message)
	st := corev1.ContainerStatus{Name: name}
	switch {
	case ev.Reason == "InspectFailed", ev.Reason == "Failed" && strings.HasPrefix(text, "Failed to pull image"):
		if _, why, ok := strings.Cut(text, `": `); ok && ev.Reason == "Failed" {
			text = why
		}
		return imageProblem(p, st, text)
	case ev.Reason != "Failed", strings.HasPrefix(text, "Error: ErrImage"), strings.HasPrefix(text, "Error: ImagePull"), strings.HasPrefix(text, "Error: Inval"),
		strings.Contains(text, "exec format error"): // these are told by the pod's status, at once and better
		return nil
	}
	return startProblem(p, st, strings.TrimPrefix(text, "Error: "))
}

func imageProblem(p *corev1.Pod, st corev1.ContainerStatus, text string) *api.Problem {
	image := containerImage(p, st)
	if strings.Contains(text, "no match for platform") {
		return &api.Problem{Code: "unsupported-arch", Message: fmt.Sprintf("pod %s: image %s is not there for node %s: %s", p.Name, image, p.Spec.NodeName, text),
			Hint: "run it on an amd64 or arm64 node, with nodeSelector in the staging Deployment"}
	}
	hint := "can the cluster pull that image? The registry that it pulls the supervisor from is the one given with --registry"
	if st.Name != installContainer {
		hint = "the image comes from the staging Deployment: does staging itself run?"
	}
	return &api.Problem{Code: "image-pull", Message: fmt.Sprintf("pod %s: image %s cannot be pulled: %s", p.Name, image, text), Hint: hint}
}

func startProblem(p *corev1.Pod, st corev1.ContainerStatus, text string) *api.Problem {
	return &api.Problem{Code: "pod-start", Message: fmt.Sprintf("pod %s: container %s cannot be started: %s", p.Name, st.Name, text),
		Hint: "kubectl -n " + p.Namespace + " describe pod " + p.Name + " tells more"}
}

func oom(t *corev1.ContainerStateTerminated) string {
	if t.Reason == "OOMKilled" {
		return " (out of memory: the limit is the staging Deployment's)"
	}
	return ""
}

func containerImage(p *corev1.Pod, st corev1.ContainerStatus) string {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if c.Name == st.Name {
			return c.Image
		}
	}
	return st.Image
}

// wants is a wait for an environment's pod.
type wants struct {
	namespace, name string
	main            string // container
	shape           string // that the pod must have; "" takes any
	avoid           string // ID of a main container that is known to have ended, whatever the pod's status still says
	tell            func(string)
}

// eventsAfter is how long a pod may wait in silence before its events are asked for. A missing volume is told there only,
// and what is wrong with the service's own container ten seconds before the pod's status tells it.
const eventsAfter = 1500 * time.Millisecond

// errRelist says that a watch ended and the state must be read anew.
var errRelist = errors.New("watch ended")

// pod waits until the environment's pod runs, by watching pod and Deployment. An API server that goes away ends the wait:
// whoever waits decides whether to try again.
func (c *client) pod(ctx context.Context, w wants) (*corev1.Pod, error) {
	selector := labelEnvironment + "=" + w.name
	last := ""
	for {
		pods, err := c.kube.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return nil, c.waitError("look for the environment's pod", err, ctx, last)
		}
		// The usual case: it is there, and one question was enough.
		if v := assess(&appsv1.Deployment{}, slices.Clone(pods.Items), w); v.pod != nil {
			return v.pod, nil
		}
		p, err := c.watchPod(ctx, w, selector, pods, &last)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, errRelist) {
			return nil, c.waitError("wait for the environment's pod", err, ctx, last)
		}
	}
}

// waitError adds what was waited for to a time that ran out.
func (c *client) waitError(act string, err error, ctx context.Context, last string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && last != "" {
		return &api.Problem{Code: "pod-not-ready", Message: "it took too long: " + last, Hint: "try again; kubectl describe tells more of the pod"}
	}
	return c.explain(act, err)
}

func (c *client) watchPod(ctx context.Context, w wants, selector string, pods *corev1.PodList, last *string) (*corev1.Pod, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	one := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", w.name).String()}
	ds, err := c.kube.AppsV1().Deployments(w.namespace).List(ctx, one)
	if err != nil {
		return nil, err
	}
	var d *appsv1.Deployment
	for i := range ds.Items {
		if ds.Items[i].Name == w.name {
			d = &ds.Items[i]
		}
	}
	one.ResourceVersion = ds.ResourceVersion
	dw, err := c.kube.AppsV1().Deployments(w.namespace).Watch(ctx, one)
	if err != nil {
		return nil, err
	}
	defer dw.Stop()
	pw, err := c.kube.CoreV1().Pods(w.namespace).Watch(ctx, metav1.ListOptions{LabelSelector: selector, ResourceVersion: pods.ResourceVersion})
	if err != nil {
		return nil, err
	}
	defer pw.Stop()
	have := map[string]corev1.Pod{}
	for _, p := range pods.Items {
		have[p.Name] = p
	}
	var (
		reasons  <-chan watch.Event // of the pod's events
		asked    string             // whose
		because  string
		patience = time.NewTimer(eventsAfter)
	)
	defer patience.Stop()
	for {
		list := make([]corev1.Pod, 0, len(have))
		for _, p := range have {
			list = append(list, p)
		}
		v := assess(d, list, w)
		switch {
		case v.pod != nil:
			return v.pod, nil
		case v.problem != nil:
			return nil, v.problem
		}
		*last = v.waiting
		if because != "" && v.asked != nil && v.asked.Name == asked {
			*last += " (" + because + ")"
		}
		w.tell(*last)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case e, ok := <-pw.ResultChan():
			p, isPod := e.Object.(*corev1.Pod)
			switch {
			case !ok || !isPod:
				return nil, relist(ctx)
			case e.Type == watch.Deleted:
				delete(have, p.Name)
			default:
				have[p.Name] = *p
			}
		case e, ok := <-dw.ResultChan():
			nd, isDep := e.Object.(*appsv1.Deployment)
			switch {
			case !ok || !isDep:
				return nil, relist(ctx)
			case nd.Name != w.name:
			case e.Type == watch.Deleted:
				d = nil
			default:
				d = nd
			}
		case <-patience.C:
			if v.asked != nil {
				asked = v.asked.Name
				ew, err := c.kube.CoreV1().Events(w.namespace).Watch(ctx, metav1.ListOptions{
					FieldSelector: fields.AndSelectors(fields.OneTermEqualSelector("involvedObject.name", asked), fields.OneTermEqualSelector("type", corev1.EventTypeWarning)).String()})
				if err == nil { // without the right to read events the reason is not told, that is all
					defer ew.Stop()
					reasons = ew.ResultChan()
				}
			}
		case e, ok := <-reasons:
			if !ok {
				reasons = nil
			} else if ev, isEvent := e.Object.(*corev1.Event); isEvent {
				if p := assessEvent(v.asked, ev, w.main); p != nil {
					return nil, p
				}
				because = oneLine(ev.Message)
			}
		}
	}
}

// relist is how a watch that ended goes on: with a short rest, so that an API server that ends every watch at once is not
// hammered.
func relist(ctx context.Context) error {
	t := time.NewTimer(200 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return errRelist
	case <-ctx.Done():
		return ctx.Err()
	}
}
