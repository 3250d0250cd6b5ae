package kube

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"fairlead.dev/api"

	authv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// grant is what one rule of the Role allows, and why it is asked for. The Role that is printed, the rights that are
// checked and the rule lines of a Problem all come from here.
type grant struct {
	group, resource string
	verbs           []string
	why             string
	optional        bool // works without; what is lost is in why
}

// grants are those in the environment's namespace.
func grants() []grant {
	return []grant{
		{group: "apps", resource: "deployments", verbs: []string{"get", "list", "watch", "create", "patch", "delete"},
			why: "the environment is a Deployment; the staging Deployment is read as its template"},
		{resource: "secrets", verbs: []string{"create", "patch", "delete"},
			why: "the environment's token is a Secret; none is ever read"},
		{resource: "pods", verbs: []string{"list", "watch"},
			why: "find the environment's pod and wait until it runs"},
		{resource: "pods/exec", verbs: []string{"create"},
			why: "the connection: one exec stream to the supervisor in the pod"},
		{resource: "pods/log", verbs: []string{"get"}, optional: true,
			why: "optional: shows what the environment's other containers write, beside the service's own lines"},
		{resource: "events", verbs: []string{"list", "watch"}, optional: true,
			why: "optional: says why a pod waits, such as a volume that cannot be mounted"},
		{resource: "services", verbs: []string{"get", "list", "watch", "create", "update", "delete"}, optional: true,
			why: "optional: without list, dependencies are not found; the rest is for fresh copies of them"},
		{group: "apps", resource: "statefulsets", verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}, optional: true,
			why: "optional: without list, it is not known what runs behind a Service; the rest is for fresh copies (patch puts them to sleep and wakes them)"},
		{resource: "configmaps", verbs: []string{"get"}, optional: true,
			why: "optional: without it, dependencies that only a ConfigMap names are not found"},
		{group: "apps", resource: "deployments", verbs: []string{"update"}, optional: true,
			why: "optional: brings a fresh copy up to date"},
		{resource: "persistentvolumeclaims", verbs: []string{"get", "list", "watch", "create", "delete"}, optional: true,
			why: "optional: fresh copies of what keeps data; theirs are new and empty"},
		{group: "batch", resource: "jobs", verbs: []string{"get", "list", "watch", "create", "delete"}, optional: true,
			why: "optional: runs a copy of the Job that is to fill a fresh dependency"},
		{group: "batch", resource: "cronjobs", verbs: []string{"get"}, optional: true,
			why: "optional: the same, where it is a CronJob"},
	}
}

// copyGrants are those that fresh copies take, and their seeds.
func copyGrants(seed bool) (out []grant) {
	for _, g := range grants() {
		switch g.resource {
		case "services", "statefulsets", "persistentvolumeclaims":
			out = append(out, g)
		case "deployments":
			if g.optional {
				out = append(out, g)
			}
		case "jobs":
			if seed {
				out = append(out, g)
			}
		}
	}
	return out
}

// namespaceGrants are what a namespace of the environment's own takes besides. Namespaces are not in a namespace, so
// these need a ClusterRole.
func namespaceGrants() []grant {
	return []grant{
		{resource: "namespaces", verbs: []string{"get", "list", "watch", "create", "patch", "delete"},
			why: "make a namespace for the environment, and delete it when it is empty again"},
		{resource: "services", verbs: []string{"list"}, why: "see what is in the namespace: one with anything of somebody else's in it is kept"},
		{resource: "configmaps", verbs: []string{"list"}, why: "the same: what is in the namespace"},
		{resource: "persistentvolumeclaims", verbs: []string{"list"}, why: "the same: what is in the namespace"},
		{group: "apps", resource: "statefulsets", verbs: []string{"list"}, why: "the same: what is in the namespace"},
	}
}

// furnishGrants are what such a namespace is furnished with.
func furnishGrants() []grant {
	verbs := []string{"create", "patch"}
	return []grant{
		{resource: "resourcequotas", verbs: verbs, why: "limit what the environment takes"},
		{resource: "limitranges", verbs: verbs, why: "the same, for containers that ask for nothing"},
		{resource: "serviceaccounts", verbs: verbs, why: "service accounts without rights"},
		{resource: "configmaps", verbs: verbs, why: "copies of the ConfigMaps that the pods name"},
		{resource: "persistentvolumeclaims", verbs: []string{"create"}, why: "new volumes in place of those that the staging pod has"},
		{group: "networking.k8s.io", resource: "networkpolicies", verbs: verbs, why: "let the environment reach what it depends on and nothing else"},
	}
}

// stagingGrants are what that takes in the staging namespace.
func stagingGrants() []grant {
	return []grant{
		{resource: "secrets", verbs: []string{"get"}, why: "an environment in a namespace of its own has copies of the Secrets that its pods name; resourceNames may list them"},
		{resource: "serviceaccounts", verbs: []string{"get"}, why: "the same, of the secrets for pulling images"},
	}
}

// usesOnly are the verbs that an environment takes that is there already.
func usesOnly(d denial) bool {
	return d.resource == "pods" || d.resource == "pods/exec" || d.resource == "deployments" && slices.Contains([]string{"get", "list", "watch"}, d.verb)
}

// Check tells which rights are missing to make an environment there, one Problem each, and whether cluster and registry
// can be reached. It changes nothing.
func Check(ctx context.Context, opts Options) []*api.Problem {
	o := opts.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, contactLimit)
	defer cancel()
	var image []*api.Problem
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := pingRegistry(ctx, o); err != nil {
			image = append(image, asProblem(err))
		}
	})
	c, err := connect(o)
	if err != nil {
		wg.Wait()
		return append([]*api.Problem{asProblem(err)}, image...)
	}
	ns := cmp.Or(o.Namespace, c.namespace, metav1.NamespaceDefault)
	// Whether the namespace is there decides which rights are needed; one that may not be asked for is taken to be.
	missing := false
	if _, err := c.kube.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); err != nil {
		missing = isNotFound(err)
		if err := c.explain("look at namespace "+ns, err); !missing && asProblem(err).Code != codeForbidden {
			wg.Wait()
			return append([]*api.Problem{asProblem(err)}, image...)
		}
	}
	var all []*api.Problem
	for _, d := range c.missingRights(ctx, ns, missing) {
		all = append(all, d.problem())
	}
	wg.Wait()
	return append(all, image...)
}

// missingRights asks about every right that is needed, all at once. An API server that does not answer such questions
// denies nothing: the act itself will tell.
func (c *client) missingRights(ctx context.Context, ns string, makeNamespace bool) []denial {
	var asked []denial
	for _, g := range grants() {
		for _, v := range g.verbs {
			if !g.optional {
				asked = append(asked, denial{verb: v, group: g.group, resource: g.resource, namespace: ns})
			}
		}
	}
	if makeNamespace {
		asked = append(asked, denial{verb: "create", resource: "namespaces"}, denial{verb: "patch", resource: "namespaces"}, denial{verb: "delete", resource: "namespaces"})
	}
	return c.denials(ctx, asked)
}

// missingFor asks about all verbs of some grants, optional or not.
func (c *client) missingFor(ctx context.Context, ns string, gs []grant) []denial {
	var asked []denial
	for _, g := range gs {
		for _, v := range g.verbs {
			asked = append(asked, denial{verb: v, group: g.group, resource: g.resource, namespace: ns})
		}
	}
	return c.denials(ctx, asked)
}

// denials are those of the rights that are not there.
func (c *client) denials(ctx context.Context, asked []denial) []denial {
	no := make([]bool, len(asked))
	var wg sync.WaitGroup
	for i, d := range asked {
		wg.Go(func() {
			resource, sub, _ := strings.Cut(d.resource, "/")
			r, err := c.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authv1.SelfSubjectAccessReview{
				Spec: authv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authv1.ResourceAttributes{
					Namespace: d.namespace, Verb: d.verb, Group: d.group, Resource: resource, Subresource: sub, Name: d.name}},
			}, metav1.CreateOptions{})
			no[i] = err == nil && !r.Status.Allowed
		})
	}
	wg.Wait()
	var out []denial
	for i, d := range asked {
		if no[i] {
			out = append(out, d)
		}
	}
	return out
}

// RoleOptions name whom a Role is for. Everything may be empty: a placeholder is printed.
type RoleOptions struct {
	Namespace string
	// User, Group or ServiceAccount ("NAMESPACE/NAME") is who gets it.
	User, Group, ServiceAccount string
	// OwnNamespace adds the ClusterRole that a namespace per environment takes.
	OwnNamespace bool
}

// Role is the least that Fairlead needs, as YAML with a reason for each rule, and the binding that grants it.
func Role(o RoleOptions) []byte {
	ns := cmp.Or(o.Namespace, "NAMESPACE")
	var b bytes.Buffer
	fmt.Fprintf(&b, "# What Fairlead needs in namespace %s to make, use and delete environments there.\n", ns)
	fmt.Fprintf(&b, "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: fairlead\n  namespace: %s\nrules:\n", ns)
	gs := grants()
	if o.OwnNamespace {
		gs = append(gs, stagingGrants()...)
	}
	writeRules(&b, gs)
	fmt.Fprintf(&b, "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata:\n  name: fairlead\n  namespace: %s\nroleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: Role\n  name: fairlead\n", ns)
	writeSubject(&b, o)
	if !o.OwnNamespace {
		return b.Bytes()
	}
	b.WriteString("---\n# Only for environments that get a namespace of their own (isolation: in fairlead.yaml).\n")
	b.WriteString("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: fairlead\nrules:\n")
	writeRules(&b, slices.Concat(namespaceGrants(), furnishGrants(), grants()))
	b.WriteString("---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata:\n  name: fairlead\nroleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  name: fairlead\n")
	writeSubject(&b, o)
	return b.Bytes()
}

func writeRules(b *bytes.Buffer, gs []grant) {
	for _, g := range gs {
		fmt.Fprintf(b, "# %s\n- apiGroups: [%q]\n  resources: [%q]\n  verbs: [%s]\n", g.why, g.group, g.resource, quoted(g.verbs))
	}
}

func quoted(ss []string) string {
	q := make([]string, len(ss))
	for i, s := range ss {
		q[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(q, ", ")
}

func writeSubject(b *bytes.Buffer, o RoleOptions) {
	b.WriteString("subjects:\n")
	switch {
	case o.ServiceAccount != "":
		ns, name, ok := strings.Cut(o.ServiceAccount, "/")
		if !ok {
			ns, name = cmp.Or(o.Namespace, "NAMESPACE"), o.ServiceAccount
		}
		fmt.Fprintf(b, "- kind: ServiceAccount\n  name: %s\n  namespace: %s\n", name, ns)
	case o.Group != "":
		fmt.Fprintf(b, "- apiGroup: rbac.authorization.k8s.io\n  kind: Group\n  name: %q\n", o.Group)
	default:
		fmt.Fprintf(b, "- apiGroup: rbac.authorization.k8s.io\n  kind: User\n  name: %q\n", cmp.Or(o.User, "USER"))
	}
}
