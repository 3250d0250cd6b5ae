package kube

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"
	"fairlead.dev/bridge/kube/isolation"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }

// choosePlace tells which namespace an environment goes to and which Deployment is its template, before the cluster is
// asked for either.
func (c *client) choosePlace(ctx context.Context, name, service string, o Options) (ns, template string, err error) {
	template = service
	tns := ""
	if o.Template != "" {
		template = o.Template
		if before, after, ok := strings.Cut(o.Template, "/"); ok {
			tns, template = before, after
		}
	}
	switch {
	case o.Namespace != "" && tns != "" && tns != o.Namespace:
		return "", "", &api.Problem{Code: "template-elsewhere", Message: fmt.Sprintf("the staging Deployment %s is not in namespace %s, and a pod can use only what is in its own namespace", o.Template, o.Namespace),
			Hint: "make the environment there with --namespace " + tns}
	case cmp.Or(o.Namespace, tns, c.namespace) != "":
		return cmp.Or(o.Namespace, tns, c.namespace), template, nil
	}
	// No one said where: beside the staging Deployment if that is in "default", else in a namespace of its own.
	d, err := c.kube.AppsV1().Deployments(metav1.NamespaceDefault).Get(ctx, template, metav1.GetOptions{})
	switch {
	case err == nil && d.Labels[labelEnvironment] == "":
		return metav1.NamespaceDefault, template, nil
	case err == nil, isNotFound(err), apierrors.IsForbidden(err):
		return aloneNamespace(name), template, nil
	}
	return "", "", c.explain("look for the staging Deployment", err)
}

// aloneNamespace is that of an environment that is like no staging.
func aloneNamespace(name string) string { return namespaceName("fairlead-" + name) }

// ownNamespace is that of an environment that is like what is in a staging namespace.
func ownNamespace(staging, name string) string {
	return namespaceName("fairlead-" + staging + "-" + name)
}

func namespaceName(n string) string {
	if len(n) > 63 {
		n = n[:63-9] + "-" + shortHash(n, 8)
	}
	return n
}

// makeNamespace makes a namespace and records that we did. like is the staging namespace that it is to be treated like; nil
// where there is none: then it is under Pod Security "restricted". One that has appeared meanwhile is used, and is not ours.
func (c *client) makeNamespace(ctx context.Context, ns, environment string, like *corev1.Namespace) (made *corev1.Namespace, err error) {
	m := metav1.ObjectMeta{Name: ns, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}, Annotations: map[string]string{}}
	if like != nil {
		m.Labels, m.Annotations = isolation.Carried(like.Labels), isolation.Carried(like.Annotations)
		m.Labels[isolation.LabelStaging] = like.Name
	}
	m.Labels[labelEnvironment], m.Annotations[annMadeFor] = environment, environment
	n, err := c.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: m}, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		return nil, nil
	}
	if err != nil {
		return nil, c.explain("make namespace "+ns, err)
	}
	return n, c.recordNamespace(ctx, n)
}

// recordNamespace writes a namespace's own UID into it. Until that is done nobody deletes it; the next Open catches up.
func (c *client) recordNamespace(ctx context.Context, n *corev1.Namespace) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": n.UID, "annotations": map[string]string{annMadeUID: string(n.UID)}}})
	if err != nil {
		return fmt.Errorf("record namespace %s: %w", n.Name, err)
	}
	_, err = c.kube.CoreV1().Namespaces().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return c.explain("record namespace "+n.Name, err)
}

// touchNamespace tells that an environment is being made in a namespace of ours: whoever would delete it because it is
// empty named the resource version that it had before, or sees by the time of this write that it is in use.
func (c *client) touchNamespace(ctx context.Context, n *corev1.Namespace) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": n.UID, "annotations": map[string]string{annOpened: rand.Text()}}})
	if err != nil {
		return fmt.Errorf("use namespace %s: %w", n.Name, err)
	}
	_, err = c.kube.CoreV1().Namespaces().Patch(ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return err
}

// namespaceOpened is when an environment was last made in a namespace of ours, by the API server's clock.
func namespaceOpened(n *corev1.Namespace) time.Time {
	at := n.CreationTimestamp.Time
	for _, m := range n.ManagedFields {
		if m.Manager == fieldManager && m.Time != nil && m.Time.After(at) {
			at = m.Time.Time
		}
	}
	return at
}

// madeByUs tells whether a namespace is one that we made: it says so, and it is the very one that said so.
func madeByUs(n *corev1.Namespace) bool {
	return n.Annotations[annMadeFor] != "" && n.UID != "" && n.Annotations[annMadeUID] == string(n.UID)
}

// deleteNamespace deletes a namespace that we made and in which there is nothing else, and waits until it is gone. version,
// if not empty, is the resource version that it must still have. kept says why it is still there.
func (c *client) deleteNamespace(ctx context.Context, ns, environment, version string, tell func(string)) (kept string, err error) {
	n, kept, err := c.dropNamespace(ctx, ns, environment, version, tell)
	if n == nil || err != nil {
		return kept, err
	}
	return "", c.namespaceGone(ctx, n, tell)
}

// dropNamespace is deleteNamespace without the wait; nil: there is none that goes.
func (c *client) dropNamespace(ctx context.Context, ns, environment, version string, tell func(string)) (n *corev1.Namespace, kept string, err error) {
	n, err = c.kube.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
	switch {
	case isNotFound(err):
		return nil, "", nil
	case apierrors.IsForbidden(err):
		return nil, "", nil // who may not look at namespaces has made none
	case err != nil:
		return nil, "", c.explain("look at namespace "+ns, err)
	case !madeByUs(n):
		return nil, "", nil
	case n.DeletionTimestamp != nil:
		return n, "", nil
	}
	used := fmt.Sprintf("namespace %s is kept: it was just used", ns)
	if version != "" && n.ResourceVersion != version {
		return nil, used, nil
	}
	if other, err := c.others(ctx, ns, environment); err != nil {
		return nil, fmt.Sprintf("namespace %s is kept: whether it is empty cannot be told: %s", ns, oneLine(err.Error())), nil
	} else if other != "" {
		return nil, fmt.Sprintf("namespace %s is kept: there is %s in it", ns, other), nil
	}
	tell("deleting namespace " + ns)
	err = c.kube.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &n.UID, ResourceVersion: &n.ResourceVersion}})
	switch {
	case isNotFound(err):
		return nil, "", nil
	case apierrors.IsConflict(err): // something was written to it after it was looked at: an environment is being made in it
		return nil, used, nil
	case err != nil:
		return nil, "", c.explain("delete namespace "+ns, err)
	}
	return n, "", nil
}

// others names something in a namespace that the environment did not bring; "" when there is nothing.
func (c *client) others(ctx context.Context, ns, environment string) (string, error) {
	theirs := metav1.ListOptions{LabelSelector: labelEnvironment + "!=" + environment + "," + dependency.LabelOf + "!=" + environment, Limit: 2}
	core, apps := c.kube.CoreV1(), c.kube.AppsV1()
	lists := []struct {
		kind string
		list func() ([]string, error)
	}{
		{"Deployment", func() ([]string, error) { l, err := apps.Deployments(ns).List(ctx, theirs); return names(l, err) }},
		{"StatefulSet", func() ([]string, error) { l, err := apps.StatefulSets(ns).List(ctx, theirs); return names(l, err) }},
		{"pod", func() ([]string, error) { l, err := core.Pods(ns).List(ctx, theirs); return names(l, err) }},
		{"Service", func() ([]string, error) { l, err := core.Services(ns).List(ctx, theirs); return names(l, err) }},
		{"PersistentVolumeClaim", func() ([]string, error) {
			l, err := core.PersistentVolumeClaims(ns).List(ctx, theirs)
			return names(l, err)
		}},
		{"ConfigMap", func() ([]string, error) {
			all := theirs
			all.Limit = 0 // the cluster's own come first or last
			l, err := core.ConfigMaps(ns).List(ctx, all)
			return names(l, err)
		}},
	}
	for _, l := range lists {
		have, err := l.list()
		if err != nil {
			return "", err
		}
		for _, n := range have {
			// Controllers of the cluster put these into every namespace.
			if l.kind == "ConfigMap" && (n == "kube-root-ca.crt" || n == "openshift-service-ca.crt" || n == "istio-ca-root-cert" || n == "linkerd-identity-trust-roots") {
				continue
			}
			return l.kind + " " + n, nil
		}
	}
	return "", nil
}

// namespaceGone waits until a namespace is no longer there.
func (c *client) namespaceGone(ctx context.Context, n *corev1.Namespace, tell func(string)) error {
	tell("waiting for namespace " + n.Name + " to be gone")
	spaces := c.kube.CoreV1().Namespaces()
	return c.gone(ctx, "wait for namespace "+n.Name+" to be gone", n.Name, n.UID,
		func(o metav1.ListOptions) (runtime.Object, error) { return spaces.List(ctx, o) },
		func(o metav1.ListOptions) (watch.Interface, error) { return spaces.Watch(ctx, o) }, nil)
}

// gone waits until an object is no longer there. still, if not nil, is called while it is.
func (c *client) gone(ctx context.Context, act, name string, uid types.UID, list func(metav1.ListOptions) (runtime.Object, error),
	follow func(metav1.ListOptions) (watch.Interface, error), still func()) error {
	for {
		o := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
		l, err := list(o)
		if err != nil {
			return c.explain(act, err)
		}
		there := false
		if err := eachItem(l, func(m metav1.Object) { there = there || m.GetName() == name && m.GetUID() == uid }); err != nil {
			return c.explain(act, err)
		}
		if !there {
			return nil
		}
		if still != nil {
			still()
		}
		if o.ResourceVersion, err = meta.NewAccessor().ResourceVersion(l); err != nil {
			return c.explain(act, err)
		}
		w, err := follow(o)
		if err != nil {
			return c.explain(act, err)
		}
		if err := untilDeleted(ctx, w, name); err != nil {
			return c.explain(act, err)
		}
	}
}

// untilDeleted reads a watch until an object (any, if name is empty) is deleted, or until the watch ends.
func untilDeleted(ctx context.Context, w watch.Interface, name string) error {
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok || e.Type == watch.Error {
				if err := relist(ctx); err != errRelist {
					return err
				}
				return nil
			}
			m, err := meta.Accessor(e.Object)
			if err == nil && e.Type == watch.Deleted && (name == "" || m.GetName() == name) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
