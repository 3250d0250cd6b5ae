package kube

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/isolation"
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
		in := []string{ns}
		if ns != "" {
			for i := range ds {
				if !slices.Contains(in, ds[i].Namespace) {
					in = append(in, ds[i].Namespace)
				}
			}
		}
		for _, ns := range in {
			l, err := c.kube.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: f.selector()})
			if err != nil {
				continue
			}
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

// deployments lists those of environments: of a namespace, with those that are like it in namespaces of their own, or in
// all. ns is the namespace; "" means all.
func (c *client) deployments(ctx context.Context, o Options, f Filter) (ds []appsv1.Deployment, ns string, err error) {
	list := func(ns, selector string) error {
		l, err := c.kube.AppsV1().Deployments(ns).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err == nil {
			ds = append(ds, l.Items...)
		}
		return err
	}
	if ns = o.Namespace; ns == "" {
		err = list("", f.selector())
		if apierrors.IsForbidden(err) {
			ns = cmp.Or(c.namespace, metav1.NamespaceDefault)
		}
	}
	if ns != "" {
		if err = list(ns, f.selector()); err == nil {
			err = c.isolated(ctx, ns, f.selector(), list)
		}
	}
	if err != nil {
		return nil, "", c.explain("look for environments", err)
	}
	ds = slices.DeleteFunc(ds, func(d appsv1.Deployment) bool { return !isOurs(&d) })
	slices.SortFunc(ds, func(a, b appsv1.Deployment) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return slices.CompactFunc(ds, func(a, b appsv1.Deployment) bool { return a.UID == b.UID }), ns, nil
}

// isolated lists what is in namespaces of its own and like a staging namespace. Whoever may see neither all Deployments nor
// namespaces has made none.
func (c *client) isolated(ctx context.Context, staging, selector string, list func(ns, selector string) error) error {
	err := list("", selector+","+isolation.LabelStaging+"="+staging)
	if !apierrors.IsForbidden(err) {
		return err
	}
	spaces, err := c.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: IsolatedSelector(staging)})
	if apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range spaces.Items {
		if err := list(n.Name, selector); err != nil && !apierrors.IsForbidden(err) {
			return err
		}
	}
	return nil
}

// IsolatedSelector selects the namespaces that were made for one environment each and are like a staging namespace.
func IsolatedSelector(staging string) string {
	return labelEnvironment + "," + isolation.LabelStaging + "=" + staging
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
