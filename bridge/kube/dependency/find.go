package dependency

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strings"

	"fairlead.dev/api"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Labels of a copy's objects and pods. They are none of the environment's own, by which its pod is found and its Deployment
// selects: a copy's pod must not be taken for it.
const (
	LabelOf   = "fairlead.dev/dependency-of" // the environment's name
	LabelName = "fairlead.dev/dependency"    // the dependency's
)

// labelEnvironment marks the Deployment of an environment, which is no workload of staging.
const labelEnvironment = "fairlead.dev/environment"

// Input is what there is in the staging namespace.
type Input struct {
	Namespace string
	// Staging is the service's own Deployment, Container the one in it that runs the service.
	Staging      *appsv1.Deployment
	Container    string
	Services     []corev1.Service
	Deployments  []appsv1.Deployment
	StatefulSets []appsv1.StatefulSet
	// ConfigMaps are those that could be read, by name (see ConfigMaps).
	ConfigMaps map[string]map[string]string
	// Elsewhere are Services of other namespaces by "name.namespace" (see Elsewhere).
	Elsewhere map[string]*corev1.Service
	// Wishes are what the settings say, by name.
	Wishes map[string]api.DependencyWish
	// Registered are what the registry's record of the service says it calls, by name: shared or fresh where no wish says another.
	Registered map[string]api.DependencyMode
}

// named are the names that the settings and the registry have, sorted.
func (in *Input) named() []string {
	names := map[string]bool{}
	for name := range in.Wishes {
		names[name] = true
	}
	for name := range in.Registered {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Found is a dependency, with what a copy of it is made from.
type Found struct {
	api.Dependency
	// Services of the namespace that lead to the workload; the first is the one that the dependency is named after.
	Services []*corev1.Service
	// Behind is the workload; nil where there is none to copy.
	Behind *Workload
	// hosts are the names that values have for it, by Service.
	hosts map[string][]string
	// fixed says which value has an address in place of a name: no copy can take its place there.
	fixed string
}

// Result is what was found.
type Result struct {
	Dependencies []*Found // by name
	// Notes say, for a person, what was seen and not understood, or not read.
	Notes []string
	// Problems are the wishes that cannot be fulfilled.
	Problems []*api.Problem
}

// Workload is a Deployment or a StatefulSet.
type Workload struct {
	Deployment  *appsv1.Deployment
	StatefulSet *appsv1.StatefulSet
}

// Kind is "Deployment" or "StatefulSet".
func (w *Workload) Kind() string {
	if w.StatefulSet != nil {
		return "StatefulSet"
	}
	return "Deployment"
}

// Name is the object's.
func (w *Workload) Name() string {
	if w.StatefulSet != nil {
		return w.StatefulSet.Name
	}
	return w.Deployment.Name
}

// Template is that of its pods.
func (w *Workload) Template() *corev1.PodTemplateSpec {
	if w.StatefulSet != nil {
		return &w.StatefulSet.Spec.Template
	}
	return &w.Deployment.Spec.Template
}

func (w *Workload) String() string { return w.Kind() + "/" + w.Name() }

// ready says whether a pod of it takes requests.
func (w *Workload) ready() bool {
	if w.StatefulSet != nil {
		return w.StatefulSet.Status.ReadyReplicas > 0
	}
	return w.Deployment.Status.ReadyReplicas > 0
}

// ConfigMaps lists the ConfigMaps that Find looks into: those of the service, and of what is wanted fresh.
func ConfigMaps(in Input) []string {
	f := newFinder(in)
	names := map[string]bool{}
	add := func(s *corev1.PodSpec) {
		for _, c := range slices.Concat(s.InitContainers, s.Containers) {
			for _, e := range c.EnvFrom {
				if e.ConfigMapRef != nil {
					names[e.ConfigMapRef.Name] = true
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
					names[e.ValueFrom.ConfigMapKeyRef.Name] = true
				}
			}
			for _, m := range c.VolumeMounts {
				for _, v := range s.Volumes {
					if v.Name != m.Name {
						continue
					}
					for _, p := range mapped(v) {
						names[p.name] = true
					}
				}
			}
		}
	}
	if in.Staging != nil {
		add(&in.Staging.Spec.Template.Spec)
	}
	for _, name := range in.named() {
		if s := f.services[name]; s != nil && f.wanted([]string{name}) == api.DependencyFresh {
			if b := f.behind(s); b != nil {
				add(&b.Template().Spec)
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Elsewhere lists the hosts of a first Result that may be Services of other namespaces, as "name.namespace". Without
// having looked they cannot be told from hosts of the internet, as "example.com" is one too.
func (r Result) Elsewhere() []string {
	var out []string
	for _, d := range r.Dependencies {
		if strings.Count(d.Name, ".") == 1 && net.ParseIP(d.Name) == nil {
			out = append(out, d.Name)
		}
	}
	return out
}

type finder struct {
	Input
	services map[string]*corev1.Service // of the namespace
	own      map[string]bool            // Services that lead to the service itself
	found    map[string]*Found          // by what there can be one copy of
	scanned  map[string]bool
	notes    []string
	problems []*api.Problem
}

func newFinder(in Input) *finder {
	f := &finder{Input: in, services: map[string]*corev1.Service{}, own: map[string]bool{}, found: map[string]*Found{}, scanned: map[string]bool{}}
	for i := range in.Services {
		s := &in.Services[i]
		if s.Labels[LabelOf] != "" {
			continue // a copy, of this environment or of another
		}
		f.services[s.Name] = s
		if in.Staging != nil && selects(s, in.Staging.Spec.Template.Labels) {
			f.own[s.Name] = true
		}
	}
	return f
}

func selects(s *corev1.Service, labels map[string]string) bool {
	for k, v := range s.Spec.Selector {
		if labels[k] != v {
			return false
		}
	}
	return len(s.Spec.Selector) > 0
}

// Find finds the dependencies of a service.
func Find(in Input) Result {
	f := newFinder(in)
	if s := in.Staging; s != nil {
		pod := &s.Spec.Template.Spec
		cs := slices.Clone(pod.InitContainers)
		for _, c := range pod.Containers {
			if c.Name == in.Container || in.Container == "" {
				cs = append(cs, c)
			}
		}
		f.scan("Deployment "+s.Name, pod, cs)
	}
	for _, name := range in.named() {
		f.declare(name)
	}
	// What is fresh has dependencies of its own. Those that are fresh too are scanned in turn; a loop ends here.
	for again := true; again; {
		again = false
		for _, key := range slices.Sorted(maps.Keys(f.found)) {
			d := f.found[key]
			if f.mode(d); d.Mode != api.DependencyFresh || d.Behind == nil || f.scanned[key] {
				continue
			}
			f.scanned[key], again = true, true
			pod := &d.Behind.Template().Spec
			f.scan(d.Behind.Kind()+" "+d.Behind.Name(), pod, slices.Concat(pod.InitContainers, pod.Containers))
		}
	}
	for _, name := range in.named() {
		f.check(name)
	}
	r := Result{Notes: f.notes, Problems: f.problems}
	for _, d := range f.found {
		f.mode(d)
		if i := slices.Index(d.Why, byRegistry); i >= 0 && d.Mode == api.DependencyFresh && f.wish(names(d)).Mode == "" {
			d.Why[i] += ", as fresh" // it has decided that
		}
		f.complete(d)
		r.Dependencies = append(r.Dependencies, d)
	}
	slices.SortFunc(r.Dependencies, func(a, b *Found) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	})
	return r
}

// names are all that a dependency is called by.
func names(d *Found) []string {
	names := []string{d.Name}
	for _, s := range d.Services {
		names = append(names, s.Name)
	}
	if d.Namespace != "" {
		names = append(names, d.Name+"."+d.Namespace)
	}
	return names
}

// wish is what the settings say under the first of some names of which they say anything.
func (f *finder) wish(names []string) api.DependencyWish {
	for _, n := range names {
		if w, ok := f.Wishes[n]; ok {
			return w
		}
	}
	return api.DependencyWish{}
}

// wanted is the mode that the settings, and where these say none, the registry want under some names; empty: neither says one.
func (f *finder) wanted(names []string) api.DependencyMode {
	mode := f.wish(names).Mode
	for _, n := range names {
		mode = cmp.Or(mode, f.Registered[n])
	}
	return mode
}

func (f *finder) mode(d *Found) {
	names := names(d)
	switch mode := f.wanted(names); {
	case mode == api.DependencyFresh || mode == api.DependencyOff:
		d.Mode, d.Seed = mode, f.wish(names).Seed
	case d.Namespace == "":
		d.Mode = api.DependencyExternal
	default:
		d.Mode = api.DependencyShared
	}
}

// byRegistry is why a dependency that the registry lists is one.
const byRegistry = "the registry"

// declare takes a dependency that the settings or the registry name, whether a value names it or not.
func (f *finder) declare(name string) {
	var why []string
	if _, ok := f.Wishes[name]; ok {
		why = append(why, "fairlead.yaml or a flag")
	}
	if _, ok := f.Registered[name]; ok {
		why = append(why, byRegistry)
	}
	for _, where := range why {
		if s := f.services[name]; s != nil && !f.own[name] {
			f.add(f.keyOf(s), f.foundOf(s), where)
			continue
		}
		svc, ns, ok := strings.Cut(name, ".")
		if s := f.Elsewhere[name]; ok && s != nil {
			f.add(name, &Found{Dependency: api.Dependency{Name: svc, Namespace: ns}, Services: nil}, where)
		}
	}
}

// check reports the wish of a name that nothing has, and the fresh one that cannot be made. What the registry lists need not be there:
// other places have it.
func (f *finder) check(name string) {
	wish, wished := f.Wishes[name]
	var d *Found
	for _, c := range f.found {
		if c.Name == name || c.Namespace != "" && c.Name+"."+c.Namespace == name || slices.ContainsFunc(c.Services, func(s *corev1.Service) bool { return s.Name == name }) {
			d = c
		}
	}
	bad := func(hint, format string, args ...any) {
		f.problems = append(f.problems, &api.Problem{Code: "bad-dependency", Message: "dependency " + name + ": " + fmt.Sprintf(format, args...), Hint: hint})
	}
	const shared = "leave it shared under dependencies: in fairlead.yaml"
	switch {
	case d == nil && !wished:
		if !f.own[name] {
			f.note("the registry lists %s, and there is no such Service in namespace %s", name, f.Namespace)
		}
	case d == nil && f.own[name]:
		bad("remove it from dependencies: in fairlead.yaml", "Service %s leads to the service itself", name)
	case d == nil && wish.Mode == api.DependencyOff:
		f.notes = append(f.notes, fmt.Sprintf("%s is off in the settings, and nothing names it", name))
	case d == nil:
		bad("correct the name under dependencies: in fairlead.yaml; fairlead deps lists what was found", "there is no Service %s in namespace %s", name, f.Namespace)
	case f.wanted([]string{name}) != api.DependencyFresh || f.wanted(names(d)) != api.DependencyFresh:
	case d.Namespace == "":
		bad("set it to off, or remove it, under dependencies: in fairlead.yaml", "it is outside of the cluster, so it cannot be copied")
	case d.Namespace != f.Namespace:
		bad(shared, "it is in namespace %s, and a copy can use only what is in its own namespace", d.Namespace)
	case d.Behind == nil:
		bad(shared, "no Deployment and no StatefulSet runs behind Service %s, so there is nothing to copy", d.Name)
	case d.fixed != "":
		bad("write its name in place of the address, or "+shared, "%s has the address of Service %s in place of its name, and would still lead to staging", d.fixed, d.Name)
	case len(d.withoutPort()) > 0:
		bad("name the port in the Service, or "+shared, "neither Service %s nor a container behind it names a port", d.withoutPort()[0])
	}
}

// keyOf is what there can be one copy of: the workload, or the Service where nothing of the namespace is behind it.
func (f *finder) keyOf(s *corev1.Service) string {
	if b := f.behind(s); b != nil {
		return b.String()
	}
	return "Service/" + s.Name
}

func (f *finder) foundOf(s *corev1.Service) *Found {
	d := &Found{Dependency: api.Dependency{Name: s.Name, Namespace: f.Namespace}, Services: []*corev1.Service{s}, hosts: map[string][]string{}}
	if d.Behind = f.behind(s); d.Behind == nil {
		return d
	}
	d.Workload = d.Behind.String()
	// Every other way to the same pods leads to the same copy, whether a value names it or not.
	for _, name := range slices.Sorted(maps.Keys(f.services)) {
		o := f.services[name]
		if name != s.Name && selects(o, d.Behind.Template().Labels) {
			d.Services = append(d.Services, o)
		}
	}
	return d
}

// behind is the workload that a Service leads to. Of several, as of a canary, it is the one of the Service's name, else
// the first.
func (f *finder) behind(s *corev1.Service) *Workload {
	var all []*Workload
	for i := range f.Deployments {
		if d := &f.Deployments[i]; d.Labels[labelEnvironment] == "" && d.Labels[LabelOf] == "" && selects(s, d.Spec.Template.Labels) {
			all = append(all, &Workload{Deployment: d})
		}
	}
	for i := range f.StatefulSets {
		if d := &f.StatefulSets[i]; d.Labels[LabelOf] == "" && selects(s, d.Spec.Template.Labels) {
			all = append(all, &Workload{StatefulSet: d})
		}
	}
	slices.SortFunc(all, func(a, b *Workload) int { return cmp.Compare(a.String(), b.String()) })
	for _, w := range all {
		if w.Name() == s.Name {
			return w
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

func (f *finder) add(key string, d *Found, where string) *Found {
	if had := f.found[key]; had != nil {
		d = had
	} else {
		f.found[key] = d
	}
	if !slices.Contains(d.Why, where) {
		d.Why = append(d.Why, where)
	}
	return d
}

// complete fills in what is told of a dependency.
func (f *finder) complete(d *Found) {
	for _, s := range d.Services {
		if s.Name != d.Name {
			d.Also = append(d.Also, s.Name)
		}
		for _, p := range s.Spec.Ports {
			if !slices.Contains(d.Ports, int(p.Port)) {
				d.Ports = append(d.Ports, int(p.Port))
			}
		}
	}
	if d.Behind != nil {
		for _, c := range d.Behind.Template().Spec.Containers {
			if e := engines[imageBase(c.Image)]; e != "" {
				d.Engine = e
			}
		}
		d.Health = api.HealthStarting
		if d.Behind.ready() {
			d.Health = api.HealthReady
		}
	}
	for _, p := range d.Ports {
		if d.Engine == "" {
			d.Engine = enginePorts[p]
		}
	}
}

var (
	engines = map[string]string{
		"postgres": "postgresql", "postgresql": "postgresql", "postgis": "postgresql", "pgvector": "postgresql", "timescaledb": "postgresql",
		"timescaledb-ha": "postgresql", "mysql": "mysql", "mysql-server": "mysql", "mariadb": "mysql", "percona": "mysql", "percona-server": "mysql",
		"redis": "redis", "valkey": "redis", "keydb": "redis", "redis-stack": "redis", "redis-stack-server": "redis",
	}
	engineSchemes = map[string]string{"postgres": "postgresql", "postgresql": "postgresql", "pgx": "postgresql", "mysql": "mysql", "mariadb": "mysql",
		"redis": "redis", "rediss": "redis", "valkey": "redis", "valkeys": "redis"}
	enginePorts = map[int]string{5432: "postgresql", 3306: "mysql", 6379: "redis"}
)

// imageBase is an image's name without registry, path, tag and digest.
func imageBase(image string) string {
	image, _, _ = strings.Cut(image, "@")
	base := path.Base(image)
	base, _, _ = strings.Cut(base, ":")
	return base
}

// take considers one address that a value of this name has.
func (f *finder) take(name string, a address, where string) {
	named := namesAddress(name)
	if a.plain() && !named {
		return
	}
	host := a.host
	if ip := net.ParseIP(host); ip != nil {
		for _, s := range f.services {
			if slices.Contains(append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP), host) && !f.own[s.Name] {
				d := f.add(f.keyOf(s), f.foundOf(s), where)
				d.fixed = cmp.Or(d.fixed, where)
				return
			}
		}
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() {
			return
		}
		f.external(named, a, where)
		return
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return
	}
	svc, ns, exact := f.split(host)
	switch s := f.services[svc]; {
	case ns == f.Namespace && s != nil:
		// "redis:7" is an image as well: without a sign that it is an address, the port must be the Service's.
		if f.own[svc] || a.scheme == "" && !a.keyed && !named && !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return int(p.Port) == a.port }) {
			return
		}
		d := f.add(f.keyOf(s), f.foundOf(s), where)
		if !slices.Contains(d.hosts[svc], host) {
			d.hosts[svc] = append(d.hosts[svc], host)
		}
		d.Engine = cmp.Or(d.Engine, engineSchemes[a.scheme])
	case ns == f.Namespace:
		if (exact || !strings.Contains(host, ".")) && a.scheme != "" && !a.unsure {
			f.note("%s names %s, and there is no such Service in namespace %s", where, svc, f.Namespace)
		}
	case exact || f.Elsewhere[svc+"."+ns] != nil:
		d := f.add(svc+"."+ns, &Found{Dependency: api.Dependency{Name: svc, Namespace: ns}}, where)
		d.Engine = cmp.Or(d.Engine, engineSchemes[a.scheme])
		if s := f.Elsewhere[svc+"."+ns]; s != nil && len(d.Ports) == 0 {
			for _, p := range s.Spec.Ports {
				d.Ports = append(d.Ports, int(p.Port))
			}
		}
		if a.port != 0 && !slices.Contains(d.Ports, a.port) {
			d.Ports = append(d.Ports, a.port)
		}
	default:
		f.external(named, a, where)
	}
}

// split tells the Service and the namespace that a host would be. exact says that it can be nothing else.
func (f *finder) split(host string) (svc, ns string, exact bool) {
	p := strings.Split(host, ".")
	own := func(i int) bool {
		return f.services[p[i]] != nil && f.services[p[i]].Spec.ClusterIP == corev1.ClusterIPNone
	}
	switch {
	case len(p) == 1:
		return p[0], f.Namespace, false
	case len(p) == 2 && own(1): // a pod of a StatefulSet: "kafka-0.kafka"
		return p[1], f.Namespace, false
	case len(p) >= 3 && p[2] == "svc":
		return p[0], p[1], true
	case len(p) >= 4 && p[3] == "svc":
		return p[1], p[2], true
	case len(p) == 3 && p[2] == f.Namespace && own(1):
		return p[1], p[2], false
	case len(p) == 2:
		return p[0], p[1], false
	}
	return host, "", false
}

// external takes a host that is no Service, where the value is clearly an address.
func (f *finder) external(named bool, a address, where string) {
	if a.unsure || !strings.ContainsAny(a.host, ".:") || a.scheme == "" && !a.keyed && (a.port == 0 || !named) {
		return
	}
	d := f.add(a.host, &Found{Dependency: api.Dependency{Name: a.host}}, where)
	d.Engine = cmp.Or(d.Engine, engineSchemes[a.scheme])
	if a.port != 0 && !slices.Contains(d.Ports, a.port) {
		d.Ports = append(d.Ports, a.port)
	}
}

func (f *finder) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(f.notes, n) {
		f.notes = append(f.notes, n)
	}
}
