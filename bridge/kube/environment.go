package kube

import (
	"context"
	"fmt"
	"sync"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/dependency"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Environment is one on a cluster. It has no goroutine of its own.
type Environment struct {
	c         *client
	opts      Options
	namespace string
	name      string
	uid       types.UID // of the Deployment
	container string
	secret    string
	joined    bool // it is another's, and its token is asked for in the pod
	target    api.Target
	process   api.Process
	wishes    map[string]api.DependencyWish // as it was opened
	listed    map[string]api.DependencyMode // by the registry, then

	mu     sync.Mutex
	info   api.Environment
	waking []string // the dependencies whose copies were woken and are to be waited for
	ended  string   // ID of the container of which the node last said that it has ended
}

var _ bridge.Environment = (*Environment)(nil)

// newEnvironment is a handle on a Deployment that is ours.
func newEnvironment(c *client, o Options, d *appsv1.Deployment) *Environment {
	e := &Environment{c: c, opts: o, namespace: d.Namespace, name: d.Name, uid: d.UID, info: c.describe(d), target: api.Target{OS: "linux", Arch: "amd64"}}
	for _, ct := range d.Spec.Template.Spec.Containers {
		if len(ct.Command) > 0 && ct.Command[0] == podBinary {
			e.container = ct.Name
		}
	}
	for _, v := range d.Spec.Template.Spec.Volumes {
		for _, ct := range d.Spec.Template.Spec.Containers {
			for _, m := range ct.VolumeMounts {
				if m.MountPath == tokenDir && m.Name == v.Name && v.Secret != nil {
					e.secret = v.Secret.SecretName
				}
			}
		}
	}
	return e
}

// Info names the environment; Pod is the one that was last dialled or waited for.
func (e *Environment) Info() api.Environment {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.info
}

// UID is that of its Deployment.
func (e *Environment) UID() string { return string(e.uid) }

func (e *Environment) setPod(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.info.Pod = name
}

func (e *Environment) setEnded(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = id
}

func (e *Environment) lastEnded() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ended
}

// Target is linux and the node's architecture where the node or the template tells it, else amd64: the supervisor's
// status is what counts.
func (e *Environment) Target() api.Target { return e.target }

// Process is how the staging Deployment starts the service.
func (e *Environment) Process() api.Process { return e.process }

// Close lets go of the environment, which stays as it is.
func (e *Environment) Close() error { return nil }

// Delete removes the Deployment, its pod, the copies of dependencies, the Secret and, if we made it and it is empty, the namespace, and waits until
// they are gone. It touches nothing that the environment did not make.
func (e *Environment) Delete(ctx context.Context) error {
	tell := e.opts.Progress
	// Listed before the Deployment goes, and removed by name after it: the garbage collector does the same in its own time,
	// and what it has already taken is gone.
	copies, err := e.c.owned(ctx, dependency.Environment{Name: e.name, Namespace: e.namespace, UID: e.uid})
	if err != nil {
		return err
	}
	d, err := e.c.kube.AppsV1().Deployments(e.namespace).Get(ctx, e.name, metav1.GetOptions{})
	switch {
	case isNotFound(err):
	case err != nil:
		return e.c.explain("delete environment "+e.name, err)
	case !isOurs(d) || d.UID != e.uid:
		return &api.Problem{Code: codeNameTaken, Message: fmt.Sprintf("Deployment %s in namespace %s is not the one that this environment made; it was left alone", e.name, e.namespace),
			Hint: "fairlead status lists the environments that there are"}
	default:
		tell("deleting environment " + e.name)
		policy := metav1.DeletePropagationForeground
		err := e.c.kube.AppsV1().Deployments(e.namespace).Delete(ctx, e.name, metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &e.uid}})
		if err != nil && !isNotFound(err) {
			return e.c.explain("delete environment "+e.name, err)
		}
	}
	// Told to go now, since the cluster lets five seconds pass before it does anything (namespaceDeletionGracePeriod of the
	// namespace controller): the pods end meanwhile.
	n, kept, err := e.c.dropNamespace(ctx, e.namespace, e.name, "", tell)
	if err != nil {
		return err
	}
	if err := e.deleteSecret(ctx); err != nil {
		return err
	}
	if err := e.c.removeOwned(ctx, copies, tell); err != nil {
		return err
	}
	if err := e.c.deploymentGone(ctx, e.namespace, e.name, e.uid, tell); err != nil {
		return err
	}
	if err := e.c.podsGone(ctx, e.namespace, labelEnvironment+"="+e.name, tell); err != nil {
		return err
	}
	if len(copies) > 0 {
		if err := e.c.podsGone(ctx, e.namespace, dependency.LabelOf+"="+e.name, tell); err != nil {
			return err
		}
	}
	if n != nil {
		return e.c.namespaceGone(ctx, n, tell)
	}
	if kept != "" {
		tell(kept)
	}
	return nil
}

// deleteSecret deletes the token. Its name holds a hash of the token and comes from a Deployment that is ours, so it can
// be no other's.
func (e *Environment) deleteSecret(ctx context.Context) error {
	if e.secret == "" {
		return nil
	}
	err := e.c.kube.CoreV1().Secrets(e.namespace).Delete(ctx, e.secret, metav1.DeleteOptions{})
	if err != nil && !isNotFound(err) {
		return e.c.explain("delete the environment's Secret", err)
	}
	return nil
}

// deploymentGone waits until a Deployment is no longer there. With foreground deletion its pods go before it.
func (c *client) deploymentGone(ctx context.Context, ns, name string, uid types.UID, tell func(string)) error {
	ds := c.kube.AppsV1().Deployments(ns)
	return c.gone(ctx, "wait for Deployment "+name+" to be gone", name, uid,
		func(o metav1.ListOptions) (runtime.Object, error) { return ds.List(ctx, o) },
		func(o metav1.ListOptions) (watch.Interface, error) { return ds.Watch(ctx, o) },
		func() { tell("waiting for the pod to end") })
}

// podsGone waits until no pod with a label is left, those included that lost their Deployment.
func (c *client) podsGone(ctx context.Context, ns, label string, tell func(string)) error {
	act := "wait for the environment's pod to be gone"
	sel := metav1.ListOptions{LabelSelector: label}
	for {
		l, err := c.kube.CoreV1().Pods(ns).List(ctx, sel)
		if err != nil {
			return c.explain(act, err)
		}
		if len(l.Items) == 0 {
			return nil
		}
		tell("waiting for pod " + l.Items[0].Name + " to end")
		sel.ResourceVersion = l.ResourceVersion
		w, err := c.kube.CoreV1().Pods(ns).Watch(ctx, sel)
		if err != nil {
			return c.explain(act, err)
		}
		sel.ResourceVersion = ""
		if err := untilDeleted(ctx, w, ""); err != nil {
			return c.explain(act, err)
		}
	}
}

func eachItem(l runtime.Object, f func(metav1.Object)) error {
	return meta.EachListItem(l, func(o runtime.Object) error {
		a, err := meta.Accessor(o)
		if err == nil {
			f(a)
		}
		return err
	})
}
