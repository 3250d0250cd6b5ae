package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/dependency"
	"fairlead.dev/bridge/kube/isolation"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

// lookupLimit bounds the question where a host outside of the cluster is.
const lookupLimit = 2 * time.Second

// site is a namespace that the environment is in, or could be.
type site struct {
	namespace   string
	ns          *corev1.Namespace // nil when it does not exist, or when we may not look
	nsMissing   bool
	nsErr       error              // why it is not known
	existing    *appsv1.Deployment // by the environment's name, whoever made it
	existingErr error
	missing     []denial // rights to make an environment there
}

// look looks at a site. own says that it would be the environment's own, which takes more rights.
func (c *client) look(ctx context.Context, ns, name string, own bool) *site {
	s := &site{namespace: ns}
	var wg sync.WaitGroup
	wg.Go(func() { s.existing, s.existingErr = c.deployment(ctx, ns, name) })
	n, err := c.kube.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
	switch {
	case err == nil:
		s.ns = n
	case isNotFound(err):
		s.nsMissing = true
	case !apierrors.IsForbidden(err):
		s.nsErr = err
	}
	s.missing = c.missingRights(ctx, ns, s.nsMissing)
	if own {
		if apierrors.IsForbidden(err) {
			s.missing = append(s.missing, denial{verb: "get", resource: "namespaces"})
		}
		s.missing = append(s.missing, c.missingFor(ctx, ns, furnishGrants())...)
	}
	wg.Wait()
	return s
}

// madeFor tells whether the namespace was made for the environment, or is to be.
func (s *site) madeFor(environment string) bool {
	if s.nsMissing {
		return true
	}
	return s.ns != nil && s.ns.Annotations[annMadeFor] == environment && (madeByUs(s.ns) || s.ns.Annotations[annMadeUID] == "")
}

// has says whether there is an environment of ours.
func (s *site) has() bool { return s != nil && s.existing != nil && isOurs(s.existing) }

// settle decides between the namespace that was given and one of the environment's own. One that is there stays where it is.
func (s *survey) settle(ctx context.Context, c *client, spec bridge.Spec, o Options, given, own *site) error {
	s.site, s.model = given, given.ns
	elsewhere := func(is, wanted string) error {
		return &api.Problem{Code: "isolation-changed", Message: fmt.Sprintf("the environment %s is in %s, and isolation: asks for %s", spec.Name, is, wanted),
			Hint: "end it with fairlead stop, and start it again"}
	}
	switch {
	case own == nil: // nobody asked
		return nil
	case given.nsMissing || given.ns != nil && given.madeFor(spec.Name): // it was given to it alone
		s.isolated = o.Isolation != IsolationNone && len(c.missingFor(ctx, given.namespace, furnishGrants())) == 0
		return nil
	case given.has():
		if o.Isolation == IsolationNamespace {
			return elsewhere("namespace "+given.namespace+", beside staging", "a namespace of its own")
		}
		return nil
	case own.has() && o.Isolation == IsolationNone:
		return elsewhere("its own namespace "+own.namespace, "none")
	case o.Isolation == IsolationNone:
		return nil
	}
	why := ""
	missing := slices.Concat(own.missing, s.unreadable(ctx, c))
	switch {
	case own.nsErr != nil:
		return c.explain("look at namespace "+own.namespace, own.nsErr)
	case !own.madeFor(spec.Name) && (own.ns != nil || len(missing) == 0):
		why = "namespace " + own.namespace + " was not made for it"
	case len(missing) > 0 && !own.has():
		why = "you may not " + missing[0].String()
	}
	if why == "" {
		s.site, s.isolated = own, true
		return nil
	}
	if o.Isolation == IsolationNamespace {
		if len(missing) > 0 {
			return together(missing)
		}
		return &api.Problem{Code: codeNameTaken, Message: why, Hint: "choose another name with name: in fairlead.yaml, or isolation: none"}
	}
	s.beside = fmt.Sprintf("the environment is in staging's namespace %s, with no quota, network policy and service account of its own: %s", given.namespace, why)
	return nil
}

// unreadable are the rights that are missing to copy what the pods name.
func (s *survey) unreadable(ctx context.Context, c *client) []denial {
	refs := isolation.Refer(s.pods()...)
	var asked []denial
	for _, n := range refs.Secrets {
		asked = append(asked, denial{verb: "get", resource: "secrets", namespace: s.staging, name: n})
	}
	for _, n := range refs.ConfigMaps {
		asked = append(asked, denial{verb: "get", resource: "configmaps", namespace: s.staging, name: n})
	}
	for _, n := range refs.Claims {
		asked = append(asked, denial{verb: "get", resource: "persistentvolumeclaims", namespace: s.staging, name: n})
	}
	return c.denials(ctx, asked)
}

// pods are the service's, as staging has it, and those of what is wanted fresh.
func (s *survey) pods() []*corev1.PodSpec {
	out := []*corev1.PodSpec{nil}
	if s.template != nil && s.template.Labels[labelEnvironment] == "" {
		out[0] = &s.template.Spec.Template.Spec
	}
	for _, d := range s.around.fresh() {
		if d.Behind != nil {
			out = append(out, &d.Behind.Template().Spec)
		}
	}
	return out
}

// space is the environment's own namespace, as it is drawn.
func (op *opening) space() isolation.Space {
	s := isolation.Space{Environment: op.spec.Name, Namespace: op.namespace}
	if op.staging != op.namespace {
		s.Staging = op.staging
	}
	return s
}

// like is the namespace that a new one is treated like; nil where there is none.
func (op *opening) like() *corev1.Namespace {
	if op.staging == op.namespace {
		return nil
	}
	return op.model
}

// shared are the Services that lead to what is not copied.
func (op *opening) shared() (out []*corev1.Service) {
	for _, d := range op.around.Dependencies {
		if d.Mode == api.DependencyShared {
			out = append(out, d.Services...)
		}
	}
	for _, s := range op.around.in.Elsewhere {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *corev1.Service) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	return out
}

// adapt gives what changes a pod to an isolated environment's namespace; nil where it is in staging's.
func (op *opening) adapt() func(*corev1.PodSpec) {
	if !op.isolated {
		return nil
	}
	space, shared := op.space(), op.shared()
	shared = slices.DeleteFunc(shared, func(s *corev1.Service) bool { return s.Namespace != op.staging })
	return func(pod *corev1.PodSpec) {
		space.Adapt(pod, op.o.Domain)
		dependency.Link(pod, shared)
	}
}

// furnish puts into the environment's own namespace all but its pods. It is done at every Open: staging's ConfigMaps and
// Secrets may have changed, and what is shared too.
func (op *opening) furnish(ctx context.Context) error {
	if !op.isolated || op.furnished {
		return nil
	}
	space := op.space()
	set, err := op.o.quota()
	if err != nil {
		return err
	}
	egress, err := op.o.egress()
	if err != nil {
		return err
	}
	pods := op.pods()
	for _, d := range op.around.fresh() {
		if d.Seed == "" {
			continue
		}
		job, err := op.c.seed(ctx, op.staging, d)
		if err != nil {
			return err
		}
		pods = append(pods, &job.Template.Spec)
	}
	var refs isolation.References
	if space.Staging != "" {
		refs = isolation.Refer(pods...)
	}
	if pods[0] == nil && !slices.Contains(refs.Accounts, isolation.Name) { // a pod of ours, which is like none
		refs.Accounts = append(refs.Accounts, isolation.Name)
	}
	core := op.c.kube.CoreV1()
	type task func() error
	tasks := []task{
		func() error { return applyObject(ctx, core.ResourceQuotas(op.namespace), space.Quota(set)) },
		func() error { return applyObject(ctx, core.LimitRanges(op.namespace), space.LimitRange()) },
		func() error {
			policy := space.Policy(op.shared(), append(egress, op.outside(ctx)...))
			return applyObject(ctx, op.c.kube.NetworkingV1().NetworkPolicies(op.namespace), policy)
		},
	}
	secret := func(name string) error {
		original, err := core.Secrets(op.staging).Get(ctx, name, metav1.GetOptions{})
		if isNotFound(err) { // an optional one; else the pod will say that it lacks
			return nil
		}
		if err != nil {
			return err
		}
		if s := space.Secret(original); s != nil {
			return applyObject(ctx, core.Secrets(op.namespace), s)
		}
		op.o.Progress("not taken over from staging: Secret " + name + ", a service account's token")
		return nil
	}
	for _, name := range refs.Accounts {
		tasks = append(tasks, func() error {
			// Whoever may not read staging's makes one without its secrets for pulling images.
			was := name
			if name == isolation.Name {
				was = "default"
			}
			original, err := core.ServiceAccounts(op.staging).Get(ctx, was, metav1.GetOptions{})
			if err != nil {
				original = nil
			} else if err := each(original.ImagePullSecrets, func(r corev1.LocalObjectReference) error { return secret(r.Name) }); err != nil && !apierrors.IsForbidden(err) {
				return err
			}
			return applyObject(ctx, core.ServiceAccounts(op.namespace), space.ServiceAccount(name, original))
		})
	}
	for _, name := range refs.Secrets {
		tasks = append(tasks, func() error { return secret(name) })
	}
	for _, name := range refs.ConfigMaps {
		tasks = append(tasks, func() error {
			original, err := core.ConfigMaps(op.staging).Get(ctx, name, metav1.GetOptions{})
			if isNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			return applyObject(ctx, core.ConfigMaps(op.namespace), space.ConfigMap(original))
		})
	}
	for _, name := range refs.Claims {
		tasks = append(tasks, func() error {
			original, err := core.PersistentVolumeClaims(op.staging).Get(ctx, name, metav1.GetOptions{})
			if isNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			_, err = core.PersistentVolumeClaims(op.namespace).Create(ctx, space.Claim(original), metav1.CreateOptions{FieldManager: fieldManager})
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			if err == nil {
				op.o.Progress("volume " + name + " is new and empty: a pod cannot have one of another namespace")
			}
			return err
		})
	}
	err = each(tasks, func(t task) error { return t() })
	if op.meanwhile(err) {
		return op.again(ctx)
	}
	if err != nil {
		return op.c.explain("furnish namespace "+op.namespace, err)
	}
	op.furnished = true
	return nil
}

// outside are the addresses of hosts outside of the cluster that a policy would keep the service from.
func (op *opening) outside(ctx context.Context) []netip.Prefix {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	var mu sync.Mutex
	var out []netip.Prefix
	var wg sync.WaitGroup
	for _, d := range op.around.Dependencies {
		if d.Mode != api.DependencyExternal {
			continue
		}
		wg.Go(func() {
			host := d.Name
			found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			if err != nil {
				op.o.Progress(fmt.Sprintf("where %s is cannot be told here: if it is no public host, name its range under kubernetes.egress: in fairlead.yaml", host))
				return
			}
			for _, a := range found {
				if a = a.Unmap().WithZone(""); !isolation.Public(a) && !a.IsLoopback() {
					mu.Lock()
					out = append(out, netip.PrefixFrom(a, a.BitLen()))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out)
}

// quota reads Options.Quota.
func (o Options) quota() (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	for name, v := range o.Quota {
		q, err := resource.ParseQuantity(v)
		if err != nil {
			return nil, &api.Problem{Code: "bad-quota", Message: fmt.Sprintf("quota of %s: %q: %s", name, v, oneLine(err.Error())), Hint: "correct kubernetes.quota: in fairlead.yaml; an example is 16Gi"}
		}
		out[corev1.ResourceName(name)] = q
	}
	return out, nil
}

// egress reads Options.Egress.
func (o Options) egress() (out []netip.Prefix, err error) {
	for _, v := range o.Egress {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			return nil, &api.Problem{Code: "bad-egress", Message: fmt.Sprintf("egress: %q is no range of addresses", v), Hint: "correct kubernetes.egress: in fairlead.yaml; an example is 10.20.0.0/16"}
		}
		out = append(out, p)
	}
	return out, nil
}

// patcher is what typed clients have in common for an apply.
type patcher[T any] interface {
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, o metav1.PatchOptions, subresources ...string) (T, error)
}

// applyObject makes an object or brings it to what is wanted, by server-side apply.
func applyObject[T object](ctx context.Context, k patcher[T], want T) error {
	kinds, _, err := scheme.Scheme.ObjectKinds(want)
	if err != nil {
		return fmt.Errorf("encode %s: %w", want.GetName(), err)
	}
	want.GetObjectKind().SetGroupVersionKind(kinds[0])
	defer want.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	b, err := json.Marshal(want)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", kinds[0].Kind, want.GetName(), err)
	}
	_, err = k.Patch(ctx, want.GetName(), types.ApplyPatchType, b, metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)})
	return err
}
