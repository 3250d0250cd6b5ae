package kube

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Filter says which environments are wanted; an empty field takes any.
type Filter struct {
	Name, Service, Owner string
}

func (f Filter) selector() string {
	s := []string{labelEnvironment}
	if f.Name != "" {
		s[0] += "=" + f.Name
	}
	if f.Service != "" {
		s = append(s, labelService+"="+f.Service)
	}
	if f.Owner != "" {
		s = append(s, labelOwner+"="+ownerHash(f.Owner))
	}
	return strings.Join(s, ",")
}

// Find lists the environments in Options.Namespace or, when that is empty, in every namespace that may be listed.
func Find(ctx context.Context, opts Options, f Filter) ([]bridge.Stored, error) {
	o := opts.withDefaults()
	c, err := connect(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, contactLimit)
	defer cancel()
	return c.find(ctx, o, f)
}

func (c *client) find(ctx context.Context, o Options, f Filter) ([]bridge.Stored, error) {
	ds, ns, err := c.deployments(ctx, o, f)
	if err != nil {
		return nil, err
	}
	pods := map[string]string{} // by namespace and environment
	if len(ds) > 0 {
		if l, err := c.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: f.selector()}); err == nil {
			for _, p := range l.Items {
				if p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed {
					pods[p.Namespace+"/"+p.Labels[labelEnvironment]] = p.Name
				}
			}
		}
	}
	var out []bridge.Stored
	for i := range ds {
		d := &ds[i]
		s := c.stored(d)
		s.Pod = pods[d.Namespace+"/"+d.Name]
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b bridge.Stored) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// deployments lists those of environments. ns is the namespace that was listed; "" means all of them.
func (c *client) deployments(ctx context.Context, o Options, f Filter) (ds []appsv1.Deployment, ns string, err error) {
	sel := metav1.ListOptions{LabelSelector: f.selector()}
	l, err := c.kube.AppsV1().Deployments(o.Namespace).List(ctx, sel)
	if o.Namespace == "" && apierrors.IsForbidden(err) {
		ns = cmp.Or(c.namespace, metav1.NamespaceDefault)
		l, err = c.kube.AppsV1().Deployments(ns).List(ctx, sel)
	} else {
		ns = o.Namespace
	}
	if err != nil {
		return nil, "", c.explain("look for environments", err)
	}
	return slices.DeleteFunc(l.Items, func(d appsv1.Deployment) bool { return !isOurs(&d) }), ns, nil
}

// isOurs tells whether a Deployment is an environment. The name must be the label's, and a recorded UID its own: a
// Deployment that was copied from ours, labels and annotations and all, is somebody else's. One without a recorded UID
// is one whose making was broken off; its owner's next Open records it, and nobody else touches it.
func isOurs(d *appsv1.Deployment) bool {
	if made := d.Annotations[lease.MadeUID]; made != "" && made != string(d.UID) {
		return false
	}
	return d.Labels[labelEnvironment] == d.Name && d.Annotations[annShape] != "" &&
		d.Spec.Selector != nil && d.Spec.Selector.MatchLabels[labelEnvironment] == d.Name
}

// stored is what a Deployment says of its environment.
func (c *client) stored(d *appsv1.Deployment) bridge.Stored {
	s := bridge.Stored{Environment: c.describe(d), Owner: d.Annotations[annOwner], Branch: d.Annotations[annBranch], Dir: d.Annotations[annDir]}
	s.Created, _ = time.Parse(time.RFC3339, d.Annotations[annCreated])
	if s.Created.IsZero() {
		s.Created = d.CreationTimestamp.Time
	}
	return s
}

func (c *client) describe(d *appsv1.Deployment) api.Environment {
	return api.Environment{Name: d.Name, Service: d.Labels[labelService], Provider: "kubernetes", Context: c.context,
		Namespace: d.Namespace, Template: d.Annotations[annTemplate], Resumed: true}
}

// Lookup returns an environment that is there, to dial it or to delete it; it makes and changes nothing. name and
// namespace are as Find gave them. Its Target and Process are not known.
func Lookup(ctx context.Context, opts Options, namespace, name string) (*Environment, error) {
	o := opts.withDefaults()
	c, err := connect(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, contactLimit)
	defer cancel()
	return c.lookup(ctx, o, namespace, name)
}

func (c *client) lookup(ctx context.Context, o Options, namespace, name string) (*Environment, error) {
	d, err := c.kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	if isNotFound(err) || err == nil && !isOurs(d) {
		return nil, &api.Problem{Code: codeGone, Message: "there is no environment " + name + " in namespace " + namespace, Hint: "fairlead status lists those that there are"}
	}
	if err != nil {
		return nil, c.explain("look for the environment", err)
	}
	return newEnvironment(c, o, d), nil
}

// names gives those of a list of any kind.
func names(l runtime.Object, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	var out []string
	err = eachItem(l, func(o metav1.Object) { out = append(out, o.GetName()) })
	return out, err
}
