package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/dependency"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// elsewhereLimit bounds how many hosts are looked for in other namespaces.
const elsewhereLimit = 16

// FindDependencies tells what the service of a Spec depends on, and how that is in its environment if there is one. It
// changes nothing.
func FindDependencies(ctx context.Context, spec bridge.Spec, opts Options) (api.DependencyReport, error) {
	o := opts.withDefaults()
	c, err := connect(o)
	if err != nil {
		return api.DependencyReport{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, contactLimit)
	defer cancel()
	return c.findDependencies(ctx, spec, o)
}

func (c *client) findDependencies(ctx context.Context, spec bridge.Spec, o Options) (api.DependencyReport, error) {
	ns, name, err := c.choosePlace(ctx, spec.Name, spec.Service, o)
	if err != nil {
		return api.DependencyReport{}, err
	}
	staging, err := c.deployment(ctx, ns, name)
	if err != nil {
		return api.DependencyReport{}, c.explain("look for the staging Deployment", err)
	}
	if staging == nil || staging.Labels[labelEnvironment] != "" {
		return api.DependencyReport{}, &api.Problem{Code: "no-template", Message: fmt.Sprintf("there is no Deployment %s in namespace %s, whose dependencies could be found", name, ns),
			Hint: "say where it is with --namespace, or what it is called with template: in fairlead.yaml"}
	}
	in := []string{ns}
	if o.Isolation != "" {
		in = append(in, ownNamespace(ns, spec.Name))
	}
	var env *appsv1.Deployment
	for _, at := range in {
		d, err := c.deployment(ctx, at, spec.Name)
		if err != nil && (at == ns || !apierrors.IsForbidden(err)) {
			return api.DependencyReport{}, c.explain("look for the environment", err)
		}
		if d != nil && isOurs(d) {
			env = d
		}
	}
	l := c.landscape(ctx, in, func() *appsv1.Deployment { return staging }, spec)
	if l.err != nil {
		return api.DependencyReport{}, l.err
	}
	if env == nil {
		return api.DependencyReport{Dependencies: l.list(), Notes: append(l.lost, l.Notes...), Problems: l.Problems}, nil
	}
	of := dependency.Environment{Name: env.Name, Namespace: env.Namespace, UID: env.UID}
	// A copy that only the flag of a run asked for may be of something that only another copy needs.
	if w := l.wishesWithCopies(of); len(w) > len(spec.Dependencies) {
		spec.Dependencies = w
		if l = c.landscape(ctx, in, func() *appsv1.Deployment { return staging }, spec); l.err != nil {
			return api.DependencyReport{}, l.err
		}
	}
	return api.DependencyReport{Dependencies: c.inEnvironment(ctx, of, l), Notes: append(l.lost, l.Notes...), Problems: l.Problems}, nil
}

// wishesWithCopies are the wishes, and a fresh one for each copy that there is and that they say nothing of.
func (l *landscape) wishesWithCopies(env dependency.Environment) map[string]api.DependencyWish {
	out := map[string]api.DependencyWish{}
	maps.Copy(out, l.in.Wishes)
	for i := range l.own {
		s := &l.own[i]
		if name := s.Labels[dependency.LabelName]; env.Owns(s) && out[name].Mode == "" {
			out[name] = api.DependencyWish{Mode: api.DependencyFresh}
		}
	}
	return out
}

// Dependencies tells what the environment's service depends on and how each is now. What is fresh is so because there is
// a copy, whatever the settings say by now.
func (e *Environment) Dependencies(ctx context.Context) ([]api.Dependency, error) {
	tns, name, ok := strings.Cut(e.Info().Template, "/")
	if !ok {
		return nil, nil
	}
	staging, err := e.c.deployment(ctx, tns, name)
	if err != nil {
		return nil, e.c.explain("look for the staging Deployment", err)
	}
	if staging == nil {
		return nil, &api.Problem{Code: "no-template", Message: fmt.Sprintf("the staging Deployment %s/%s is gone, and with it what tells the dependencies", tns, name),
			Hint: "the environment goes on as it is; bring the Deployment back to see them"}
	}
	l := e.c.landscape(ctx, []string{tns, e.namespace}, func() *appsv1.Deployment { return staging }, bridge.Spec{Name: e.name, Service: e.Info().Service, Dependencies: e.wishes, Registered: e.listed})
	if l.err != nil {
		return nil, l.err
	}
	return e.c.inEnvironment(ctx, dependency.Environment{Name: e.name, Namespace: e.namespace, UID: e.uid}, l), nil
}

// landscape is what is around a service.
type landscape struct {
	dependency.Result
	in   dependency.Input
	own  []corev1.Service // of copies that the environment has, or that another of its name had
	lost []string         // what could not be looked at, for a person
	err  error            // why nothing was found
}

// list is what was found, in plain values.
func (l *landscape) list() []api.Dependency {
	out := []api.Dependency{}
	for _, d := range l.Dependencies {
		out = append(out, d.Dependency)
	}
	return out
}

// fresh are those of which copies are wanted.
func (l *landscape) fresh() (out []*dependency.Found) {
	for _, d := range l.Dependencies {
		if d.Mode == api.DependencyFresh {
			out = append(out, d)
		}
	}
	return out
}

// landscape looks at a namespace, the first of those given, and finds the dependencies of a service in it; and its copies
// in all of them. staging is waited for, and may give nil.
func (c *client) landscape(ctx context.Context, in []string, staging func() *appsv1.Deployment, spec bridge.Spec) *landscape {
	ns := in[0]
	l := &landscape{in: dependency.Input{Namespace: ns, ConfigMaps: map[string]map[string]string{}, Elsewhere: map[string]*corev1.Service{}, Wishes: spec.Dependencies, Registered: spec.Registered}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	may := func(what, lost string, err error) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case apierrors.IsForbidden(err):
			if !slices.Contains(l.lost, lost) {
				l.lost = append(l.lost, lost)
			}
		case err != nil:
			l.err = first(l.err, c.explain(what, err))
		default:
			return true
		}
		return false
	}
	wg.Go(func() {
		s, err := c.kube.CoreV1().Services(ns).List(ctx, metav1.ListOptions{})
		if may("list the Services", "dependencies are not found: you may not list Services (fairlead rbac prints the rule)", err) {
			l.in.Services = s.Items
		}
	})
	var elsewhere []corev1.Service
	for _, other := range in[1:] {
		if other == ns {
			continue
		}
		wg.Go(func() {
			// Whoever may not look there has made nothing there.
			if s, err := c.kube.CoreV1().Services(other).List(ctx, metav1.ListOptions{LabelSelector: dependency.LabelOf + "=" + spec.Name}); err == nil {
				mu.Lock()
				defer mu.Unlock()
				elsewhere = append(elsewhere, s.Items...)
			}
		})
	}
	wg.Go(func() {
		d, err := c.kube.AppsV1().Deployments(ns).List(ctx, metav1.ListOptions{})
		if may("list the Deployments", "what runs behind a Service is not known: you may not list Deployments", err) {
			l.in.Deployments = d.Items
		}
	})
	wg.Go(func() {
		s, err := c.kube.AppsV1().StatefulSets(ns).List(ctx, metav1.ListOptions{})
		if may("list the StatefulSets", "what runs behind a Service is not known: you may not list StatefulSets (fairlead rbac prints the rule)", err) {
			l.in.StatefulSets = s.Items
		}
	})
	l.in.Staging = staging()
	wg.Wait()
	for _, s := range slices.Concat(l.in.Services, elsewhere) {
		if s.Labels[dependency.LabelOf] == spec.Name {
			l.own = append(l.own, s)
		}
	}
	if l.in.Staging != nil {
		// Which container it is has been checked, or will be, by whoever gave it.
		l.in.Container, _ = serviceContainer(l.in.Staging, spec.Service)
	}
	if l.err != nil {
		return l
	}
	for _, name := range dependency.ConfigMaps(l.in) {
		wg.Go(func() {
			m, err := c.kube.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
			if isNotFound(err) {
				return // an optional one, or staging's own mistake
			}
			if may("read ConfigMap "+name, "dependencies that only a ConfigMap names are not found: you may not get ConfigMaps (fairlead rbac prints the rule)", err) {
				mu.Lock()
				defer mu.Unlock()
				l.in.ConfigMaps[name] = m.Data
			}
		})
	}
	wg.Wait()
	if l.err != nil {
		return l
	}
	l.Result = dependency.Find(l.in)
	hosts := l.Elsewhere()
	for _, name := range slices.Concat(slices.Collect(maps.Keys(spec.Dependencies)), slices.Collect(maps.Keys(spec.Registered))) {
		if strings.Count(name, ".") == 1 && !slices.Contains(hosts, name) {
			hosts = append(hosts, name)
		}
	}
	slices.Sort(hosts)
	for _, h := range hosts[:min(len(hosts), elsewhereLimit)] {
		svc, other, _ := strings.Cut(h, ".")
		wg.Go(func() {
			// Whoever may not look there sees a host of the internet.
			if s, err := c.kube.CoreV1().Services(other).Get(ctx, svc, metav1.GetOptions{}); err == nil {
				mu.Lock()
				defer mu.Unlock()
				l.in.Elsewhere[h] = s
			}
		})
	}
	wg.Wait()
	if len(l.in.Elsewhere) > 0 {
		l.Result = dependency.Find(l.in)
	}
	return l
}

// inEnvironment tells the dependencies as the environment has them.
func (c *client) inEnvironment(ctx context.Context, env dependency.Environment, l *landscape) []api.Dependency {
	copies := map[string]bool{} // names
	for i := range l.own {
		if s := &l.own[i]; env.Owns(s) {
			copies[s.Labels[dependency.LabelName]] = true
		}
	}
	var states map[string]copyState
	if len(copies) > 0 {
		states = c.copyStates(ctx, env, slices.Sorted(maps.Keys(copies)))
	}
	out := l.list()
	for i := range out {
		d := &out[i]
		if !copies[d.Name] {
			if d.Mode == api.DependencyFresh {
				d.Health, d.Detail = api.HealthStarting, "the next fairlead run makes the copy; until then it is shared"
			}
			continue
		}
		if d.Mode == api.DependencyShared {
			d.Mode = api.DependencyFresh
		}
		s := states[d.Name]
		d.Health, d.Detail = s.health, s.detail
	}
	return out
}
