package kube

import (
	"context"
	"time"

	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/lease"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// EnvironmentSelector is the label selector of what belongs to environments. What it finds need not be one:
// IsEnvironment tells.
const EnvironmentSelector = labelEnvironment

// Cluster is one API server, for who looks after environments of others (package janitor).
type Cluster struct {
	c *client
	o Options
}

// Connect reads the kubeconfig, or finds that this runs in a pod; it sends nothing yet.
func Connect(opts Options) (*Cluster, error) {
	o := opts.withDefaults()
	c, err := connect(o)
	if err != nil {
		return nil, err
	}
	return &Cluster{c, o}, nil
}

// Kube is the client. Clock learns from its answers.
func (cl *Cluster) Kube() kubernetes.Interface { return cl.c.kube }

// Clock is the API server's.
func (cl *Cluster) Clock() *lease.Clock { return cl.c.clock }

// Context and Namespace are the kubeconfig's; Namespace is empty where it names none. Server is the API server's address.
func (cl *Cluster) Context() string   { return cl.c.context }
func (cl *Cluster) Namespace() string { return cl.c.namespace }
func (cl *Cluster) Server() string    { return cl.c.server }

// Explain makes an API error one that a person can act on.
func (cl *Cluster) Explain(act string, err error) error { return cl.c.explain(act, err) }

// Environments lists the Deployments of environments in Options.Namespace, or in every namespace that may be listed. In
// names that namespace; empty means all.
func (cl *Cluster) Environments(ctx context.Context, f Filter) (ds []appsv1.Deployment, in string, err error) {
	return cl.c.deployments(ctx, cl.o, f)
}

// IsEnvironment tells whether a Deployment is an environment, by its labels, its annotations and its own UID.
func IsEnvironment(d *appsv1.Deployment) bool { return isOurs(d) }

// Stored is what a Deployment says of its environment.
func (cl *Cluster) Stored(d *appsv1.Deployment) bridge.Stored { return cl.c.stored(d) }

// Remove deletes an environment's Deployment if it is still the very object d, and waits until it is gone, which with
// foreground deletion is when its pods are. Its Secret goes with it: the cluster's garbage collector deletes what a Deployment that is gone owned, so a janitor
// needs no right to any Secret. The error of a Deployment that has changed since is apierrors.IsConflict.
func (cl *Cluster) Remove(ctx context.Context, d *appsv1.Deployment) error {
	policy := metav1.DeletePropagationForeground
	err := cl.c.kube.AppsV1().Deployments(d.Namespace).Delete(ctx, d.Name, metav1.DeleteOptions{PropagationPolicy: &policy,
		Preconditions: &metav1.Preconditions{UID: &d.UID, ResourceVersion: &d.ResourceVersion}})
	if apierrors.IsConflict(err) {
		return err
	}
	if err != nil && !isNotFound(err) {
		return cl.c.explain("delete environment "+d.Name, err)
	}
	return cl.c.deploymentGone(ctx, d.Namespace, d.Name, d.UID, cl.o.Progress)
}

// MadeNamespace tells whether a namespace is one that was made for an environment, by its own UID, for which one, and
// when an environment was last made in it, by the API server's clock.
func MadeNamespace(n *corev1.Namespace) (environment string, opened time.Time, ok bool) {
	return n.Annotations[annMadeFor], namespaceOpened(n), madeByUs(n)
}

// RemoveNamespace deletes a namespace that was made for an environment and in which there is nothing else, if it is still
// the very object n, and waits until it is gone. kept says why it is still there.
func (cl *Cluster) RemoveNamespace(ctx context.Context, n *corev1.Namespace) (kept string, err error) {
	return cl.c.deleteNamespace(ctx, n.Name, n.Annotations[annMadeFor], n.ResourceVersion, cl.o.Progress)
}
