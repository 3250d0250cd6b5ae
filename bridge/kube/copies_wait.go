package kube

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// copyLimit is how long a copy may take to get ready before the service starts without it.
	copyLimit = 90 * time.Second
	// copyCrashes is how many times a container of a copy may end before it is given up: two restarts take some 15 s.
	copyCrashes = 2
	// seedLimit bounds a seed.
	seedLimit = 10 * time.Minute
	// lastLines are what is shown of a container that fails.
	lastLines = 5
)

// copyState is how a copy is.
type copyState struct {
	health  api.DependencyHealth
	detail  string
	problem *api.Problem // it can never start
	pod     *corev1.Pod  // that detail speaks of
	failing string       // its container that has lines to show
}

// assessCopy judges the pods of one copy.
func assessCopy(name string, pods []corev1.Pod, shape string) copyState {
	var p *corev1.Pod
	for i := range pods {
		o := &pods[i]
		if o.Labels[dependency.LabelName] == name && o.DeletionTimestamp == nil && (shape == "" || o.Annotations[dependency.AnnShape] == shape) &&
			(p == nil || o.CreationTimestamp.After(p.CreationTimestamp.Time)) {
			p = o
		}
	}
	if p == nil {
		return copyState{health: api.HealthStarting, detail: "waiting for a pod to be made"}
	}
	if isReady(p) {
		return copyState{health: api.HealthReady, pod: p}
	}
	return assessCopyPod(p)
}

// assessCopyPod says why a pod of a copy or of a seed does not run.
func assessCopyPod(p *corev1.Pod) copyState {
	s := copyState{health: api.HealthStarting, pod: p}
	waits := func(format string, args ...any) copyState {
		s.detail = "pod " + p.Name + ": " + fmt.Sprintf(format, args...)
		return s
	}
	never := func(pr *api.Problem) copyState {
		pr.Hint = "it is like staging's: does that run? Otherwise leave the dependency shared under dependencies: in fairlead.yaml"
		s.health, s.detail, s.problem = api.HealthFailed, pr.Message, pr
		return s
	}
	for _, st := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := st.State.Waiting; w != nil {
			switch w.Reason {
			case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "SignatureValidationFailed":
				return never(imageProblem(p, st, cmp.Or(oneLine(w.Message), w.Reason)))
			case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
				return never(startProblem(p, st, cmp.Or(oneLine(w.Message), w.Reason)))
			}
		}
		t := cmp.Or(st.State.Terminated, st.LastTerminationState.Terminated)
		if t == nil || t.ExitCode == 0 {
			continue
		}
		s.failing = st.Name
		what := fmt.Sprintf("container %s ended with exit code %d%s", st.Name, t.ExitCode, oom(t))
		if st.RestartCount >= copyCrashes || p.Spec.RestartPolicy == corev1.RestartPolicyNever {
			s.health = api.HealthFailed
			return waits("%s, %d times", what, st.RestartCount+1)
		}
		return waits("%s; it is started again", what)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return waits("no node takes it yet: %s", cmp.Or(oneLine(c.Message), c.Reason))
		}
	}
	for _, st := range p.Status.ContainerStatuses {
		if st.State.Running != nil && !st.Ready {
			s.failing = st.Name
			return waits("container %s runs and is not ready yet", st.Name)
		}
	}
	return waits("starting")
}

// copyStates tells how copies are now.
func (c *client) copyStates(ctx context.Context, env dependency.Environment, names []string) map[string]copyState {
	out := map[string]copyState{}
	pods, err := c.kube.CoreV1().Pods(env.Namespace).List(ctx, metav1.ListOptions{LabelSelector: dependency.LabelOf + "=" + env.Name})
	if err != nil {
		return out
	}
	shapes, refusals, asleep := c.copyWorkloads(ctx, env)
	for _, n := range names {
		s := assessCopy(n, pods.Items, shapes[n])
		switch why := refusals[n]; {
		case s.pod != nil:
		case asleep[n]:
			s.health, s.detail = api.HealthUnknown, "asleep with its environment"
		case why != "":
			s.health, s.detail = api.HealthFailed, why
		}
		out[n] = c.withReason(ctx, env, s)
	}
	return out
}

// copyWorkloads tells the shape that each copy's pod must have, why the cluster refuses to make it, and which are asleep.
func (c *client) copyWorkloads(ctx context.Context, env dependency.Environment) (shapes, refusals map[string]string, asleep map[string]bool) {
	shapes, refusals, asleep = map[string]string{}, map[string]string{}, map[string]bool{}
	sel := metav1.ListOptions{LabelSelector: dependency.LabelOf + "=" + env.Name}
	if ds, err := c.kube.AppsV1().Deployments(env.Namespace).List(ctx, sel); err == nil {
		for i := range ds.Items {
			d := &ds.Items[i]
			if !env.Owns(d) {
				continue
			}
			name := d.Labels[dependency.LabelName]
			shapes[name] = d.Annotations[dependency.AnnShape]
			_, asleep[name] = d.Annotations[annAsleep]
			for _, cond := range d.Status.Conditions {
				if cond.Type == appsv1.DeploymentReplicaFailure && cond.Status == corev1.ConditionTrue && d.Status.ObservedGeneration >= d.Generation {
					refusals[name] = oneLine(cond.Message)
				}
			}
		}
	}
	if ss, err := c.kube.AppsV1().StatefulSets(env.Namespace).List(ctx, sel); err == nil {
		for i := range ss.Items {
			s := &ss.Items[i]
			if !env.Owns(s) {
				continue
			}
			name := s.Labels[dependency.LabelName]
			shapes[name] = s.Annotations[dependency.AnnShape]
			if _, asleep[name] = s.Annotations[annAsleep]; asleep[name] {
				continue
			}
			if s.Status.Replicas == 0 { // it has no condition for this; its events tell
				refusals[name] = c.lastWarning(ctx, env.Namespace, s, "FailedCreate")
			}
		}
	}
	return shapes, refusals, asleep
}

// lastWarning is what the newest warning about an object says; "" where there is none, or where events may not be read.
func (c *client) lastWarning(ctx context.Context, ns string, o metav1.Object, reason string) string {
	l, err := c.kube.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(o.GetUID()) + ",type=" + corev1.EventTypeWarning})
	if err != nil {
		return ""
	}
	var last *corev1.Event
	for i := range l.Items {
		e := &l.Items[i]
		if e.InvolvedObject.UID == o.GetUID() && (reason == "" || e.Reason == reason) && (last == nil || !e.LastTimestamp.Before(&last.LastTimestamp)) {
			last = e
		}
	}
	if last == nil {
		return ""
	}
	return oneLine(last.Message)
}

// withReason adds what events and logs tell of a copy that is not ready.
func (c *client) withReason(ctx context.Context, env dependency.Environment, s copyState) copyState {
	if s.health == api.HealthReady || s.pod == nil || s.problem != nil {
		return s
	}
	if w := c.lastWarning(ctx, env.Namespace, s.pod, ""); w != "" {
		s.detail += " (" + w + ")"
	}
	if lines := c.tail(ctx, s.pod, s.failing); lines != "" {
		s.detail += "; its last lines: " + lines
	}
	return s
}

// tail is what a container wrote last, as far as it may be read.
func (c *client) tail(ctx context.Context, p *corev1.Pod, container string) string {
	if container == "" {
		return ""
	}
	o := &corev1.PodLogOptions{Container: container, TailLines: new(int64(lastLines)), LimitBytes: new(int64(4096))}
	for _, st := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		o.Previous = o.Previous || st.Name == container && st.State.Waiting != nil && st.LastTerminationState.Terminated != nil
	}
	r, err := c.kube.CoreV1().Pods(p.Namespace).GetLogs(p.Name, o).Stream(ctx)
	if err != nil {
		return ""
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return ""
	}
	var out []string
	for l := range strings.Lines(string(b)) {
		if l = oneLine(l); l != "" {
			out = append(out, l)
		}
	}
	return strings.Join(out, " | ")
}

// copiesReady waits until each copy is ready or has failed, for copyLimit at most. The error is of one that can never
// start.
func (c *client) copiesReady(ctx context.Context, env dependency.Environment, names []string, tell func(string)) (map[string]copyState, error) {
	wctx, cancel := context.WithTimeout(ctx, cmp.Or(c.copyLimit, copyLimit))
	defer cancel()
	sel := dependency.LabelOf + "=" + env.Name
	shapes, refusals, _ := c.copyWorkloads(wctx, env)
	look := time.NewTicker(2 * time.Second) // for what pods do not tell: refusals
	defer look.Stop()
	states := map[string]copyState{}
	told := map[string]string{} // the last of each: what happens to one copy is no news of the others
	for {
		l, err := c.kube.CoreV1().Pods(env.Namespace).List(wctx, metav1.ListOptions{LabelSelector: sel})
		if err != nil {
			return states, c.explain("look for the pods of fresh dependencies", err)
		}
		w, err := c.kube.CoreV1().Pods(env.Namespace).Watch(wctx, metav1.ListOptions{LabelSelector: sel, ResourceVersion: l.ResourceVersion})
		if err != nil {
			return states, c.explain("watch the pods of fresh dependencies", err)
		}
		pods := map[string]corev1.Pod{}
		for _, p := range l.Items {
			pods[p.Name] = p
		}
		for open := true; open; {
			list := slices.Collect(maps.Values(pods))
			settled := true
			for _, n := range names {
				s := assessCopy(n, list, shapes[n])
				if s.pod == nil && refusals[n] != "" {
					v := refused(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: env.CopyName(n)}}, refusals[n])
					s.detail = refusals[n]
					if s.problem = v.problem; s.problem != nil {
						s.health = api.HealthFailed
					}
				}
				states[n] = s
				if s.problem != nil {
					w.Stop()
					p := *s.problem
					p.Message = "dependency " + n + ": " + p.Message
					return states, &p
				}
				if s.health == api.HealthStarting {
					settled = false
					if told[n] != s.detail {
						told[n] = s.detail
						tell("dependency " + n + ": " + s.detail)
					}
				}
			}
			if settled || wctx.Err() != nil {
				w.Stop()
				if ctx.Err() != nil {
					return states, c.explain("wait for the fresh dependencies", ctx.Err())
				}
				for n, s := range states {
					states[n] = c.withReason(ctx, env, s)
				}
				return states, nil
			}
			select {
			case e, ok := <-w.ResultChan():
				p, isPod := e.Object.(*corev1.Pod)
				switch {
				case !ok || !isPod:
					open = false
				case e.Type == watch.Deleted:
					delete(pods, p.Name)
				default:
					pods[p.Name] = *p
				}
			case <-look.C:
				shapes, refusals, _ = c.copyWorkloads(wctx, env)
			case <-wctx.Done():
			}
		}
		w.Stop()
		if err := relist(wctx); err != errRelist && ctx.Err() != nil {
			return states, c.explain("wait for the fresh dependencies", ctx.Err())
		}
	}
}

// tellUnready says which copies the service starts without, and why.
func tellUnready(states map[string]copyState, tell func(string)) {
	for _, name := range slices.Sorted(maps.Keys(states)) {
		if s := states[name]; s.health != api.HealthReady {
			tell(fmt.Sprintf("dependency %s is not ready, and the service starts all the same: %s", name, s.detail))
		}
	}
}

// seed reads the Job that a dependency names, or the CronJob's template.
func (c *client) seed(ctx context.Context, ns string, d *dependency.Found) (batchv1.JobSpec, error) {
	act := "read the seed of dependency " + d.Name
	j, err := c.kube.BatchV1().Jobs(ns).Get(ctx, d.Seed, metav1.GetOptions{})
	if err == nil {
		return j.Spec, nil
	}
	if !isNotFound(err) {
		return batchv1.JobSpec{}, c.explain(act, err)
	}
	cj, err := c.kube.BatchV1().CronJobs(ns).Get(ctx, d.Seed, metav1.GetOptions{})
	if isNotFound(err) {
		return batchv1.JobSpec{}, &api.Problem{Code: "no-seed", Message: fmt.Sprintf("%s: there is no Job and no CronJob %s in namespace %s", act, d.Seed, ns),
			Hint: "correct seed: under dependencies: in fairlead.yaml"}
	}
	if err != nil {
		return batchv1.JobSpec{}, c.explain(act, err)
	}
	return cj.Spec.JobTemplate.Spec, nil
}

// fill runs a copy's seed once, and waits for it. A seed that failed is told and not run again: half of it may be there.
func (cp *copying) fill(ctx context.Context, d *dependency.Found) (copyState, error) {
	op := cp.op
	ctx, cancel := context.WithTimeout(ctx, seedLimit)
	defer cancel()
	jobs := op.c.jobs(cp.env.Namespace)
	want := d.SeedJob(cp.env, cp.seeds[d.Name], cp.uids[d.Name], cp.aliases)
	// One that was run for a former copy says nothing about this one.
	if have, err := jobs.get(ctx, want.Name); err == nil && cp.env.Owns(have) && have.GetAnnotations()[dependency.AnnSeeds] != want.Annotations[dependency.AnnSeeds] {
		if err := remove(ctx, jobs, have.GetName(), have.GetUID()); err != nil {
			return copyState{}, op.c.explain("delete Job "+want.Name, err)
		}
	}
	made, err := op.ensure(ctx, cp.env, jobs, want)
	if err != nil {
		return copyState{}, err
	}
	op.o.Progress("filling dependency " + d.Name + " by a copy of Job " + d.Seed)
	name, uid := made.GetName(), made.GetUID()
	failed := func(why string, pods []corev1.Pod) copyState {
		s := copyState{health: api.HealthFailed, detail: "its seed " + d.Seed + " failed: " + why}
		for i := range pods {
			if st := pods[i].Status.ContainerStatuses; len(st) > 0 {
				if lines := op.c.tail(ctx, &pods[i], st[0].Name); lines != "" {
					s.detail += "; its last lines: " + lines
					break
				}
			}
		}
		return s
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		j, err := op.c.kube.BatchV1().Jobs(cp.env.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil || j.UID != uid {
			return copyState{}, op.c.explain("wait for the seed of dependency "+d.Name, cmp.Or(err, fmt.Errorf("another Job has its name")))
		}
		pods, err := op.c.kube.CoreV1().Pods(cp.env.Namespace).List(ctx, metav1.ListOptions{LabelSelector: dependency.LabelOf + "=" + cp.env.Name + "," + dependency.LabelSeed + "=" + d.Name})
		if err != nil {
			return copyState{}, op.c.explain("look for the pod of a seed", err)
		}
		for _, c := range j.Status.Conditions {
			if c.Status != corev1.ConditionTrue {
				continue
			}
			switch c.Type {
			case batchv1.JobComplete:
				return copyState{health: api.HealthReady}, nil
			case batchv1.JobFailed:
				return failed(cmp.Or(oneLine(c.Message), c.Reason), pods.Items), nil
			}
		}
		for i := range pods.Items {
			if p := &pods.Items[i]; p.DeletionTimestamp == nil {
				if s := assessCopyPod(p); s.problem != nil {
					return failed(s.problem.Message, nil), nil
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return copyState{}, op.c.explain("wait for the seed of dependency "+d.Name, ctx.Err())
		}
	}
}
