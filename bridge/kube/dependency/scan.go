package dependency

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// scan looks at all values that containers of a pod are given. owner is who has them, as "Deployment orders".
func (f *finder) scan(owner string, pod *corev1.PodSpec, cs []corev1.Container) {
	for i := range cs {
		f.scanContainer(owner, pod, &cs[i])
	}
}

func (f *finder) scanContainer(owner string, pod *corev1.PodSpec, c *corev1.Container) {
	vars := f.links()
	look := func(name, value, where string) {
		for _, a := range addresses(value) {
			f.take(name, a, where)
		}
	}
	for _, from := range c.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			data := f.ConfigMaps[from.ConfigMapRef.Name]
			for _, k := range slices.Sorted(maps.Keys(data)) {
				vars[from.Prefix+k] = data[k]
				look(from.Prefix+k, data[k], fmt.Sprintf("%s of ConfigMap %s", k, from.ConfigMapRef.Name))
			}
		case from.SecretRef != nil:
			f.note("the variables that %s takes from Secret %s are not read: declare a dependency that only they name under dependencies: in fairlead.yaml", owner, from.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		where := e.Name + " of " + owner
		value := e.Value
		if v := e.ValueFrom; v != nil {
			delete(vars, e.Name)
			switch {
			case v.SecretKeyRef != nil:
				if namesAddress(e.Name) {
					f.note("%s may name a dependency: it is in Secret %s under %s, which is not read; declare it under dependencies: in fairlead.yaml", where, v.SecretKeyRef.Name, v.SecretKeyRef.Key)
				}
				continue
			case v.ConfigMapKeyRef != nil:
				var ok bool
				if value, ok = f.ConfigMaps[v.ConfigMapKeyRef.Name][v.ConfigMapKeyRef.Key]; !ok {
					continue
				}
			default:
				continue
			}
		} else {
			value, _ = Expand(value, vars)
		}
		vars[e.Name] = value
		look(e.Name, value, where)
	}
	flag := ""
	for _, arg := range slices.Concat(c.Command, c.Args) {
		arg, _ = Expand(arg, vars)
		name, value, ok := strings.Cut(arg, "=")
		switch {
		case strings.HasPrefix(arg, "-") && ok:
			name = strings.TrimLeft(name, "-")
			look(name, value, fmt.Sprintf("argument %s of %s", name, owner))
			flag = ""
		case strings.HasPrefix(arg, "-"):
			flag = strings.TrimLeft(arg, "-")
		case flag != "":
			look(flag, arg, fmt.Sprintf("argument %s of %s", flag, owner))
			flag = ""
		default:
			look("", arg, "an argument of "+owner)
		}
	}
	for _, m := range c.VolumeMounts {
		for _, v := range pod.Volumes {
			if v.Name != m.Name {
				continue
			}
			for _, p := range mapped(v) {
				data := f.ConfigMaps[p.name]
				for _, k := range slices.Sorted(maps.Keys(data)) {
					if p.keys == nil || slices.Contains(p.keys, k) {
						fileValues(data[k], func(key, value string) {
							look(key, value, fmt.Sprintf("%s in %s of ConfigMap %s", key, k, p.name))
						})
					}
				}
			}
		}
	}
}

// links are the variables that Kubernetes makes of each Service, with the Service's name in place of its address: what is
// built of them leads to it.
func (f *finder) links() map[string]string {
	vars := map[string]string{}
	for name, s := range f.services {
		prefix := linkPrefix(name)
		vars[prefix+"_SERVICE_HOST"] = name
		if len(s.Spec.Ports) > 0 {
			vars[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
		}
	}
	return vars
}

func linkPrefix(service string) string {
	return strings.ToUpper(strings.ReplaceAll(service, "-", "_"))
}

// part is a ConfigMap in a volume. keys is nil for all of them.
type part struct {
	name string
	keys []string
}

func mapped(v corev1.Volume) (out []part) {
	items := func(name string, items []corev1.KeyToPath) {
		p := part{name: name}
		for _, i := range items {
			p.keys = append(p.keys, i.Key)
		}
		out = append(out, p)
	}
	if v.ConfigMap != nil {
		items(v.ConfigMap.Name, v.ConfigMap.Items)
	}
	if v.Projected != nil {
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				items(s.ConfigMap.Name, s.ConfigMap.Items)
			}
		}
	}
	return out
}

// fileValues calls look for each value of a configuration file: of YAML and JSON by their structure, of others line by
// line.
func fileValues(text string, look func(key, value string)) {
	var tree any
	if len(text) <= 1<<20 && yaml.Unmarshal([]byte(text), &tree) == nil {
		_, ok := tree.(map[string]any)
		if _, list := tree.([]any); list { // the parser is content with "[section]" and does not look at the rest
			ok = strings.HasPrefix(strings.TrimSpace(text), "-") || json.Valid([]byte(text))
		}
		if ok {
			walk("", tree, look)
			return
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "//") || strings.HasPrefix(line, ";") {
			continue
		}
		if m := fileLine.FindStringSubmatch(line); m != nil && !strings.HasPrefix(m[2], "//") {
			look(m[1], strings.TrimRight(m[2], ";, "))
		} else { // a server's own language, as "proxy_pass http://a;". A first word need not be a name, so none is told.
			look("a line", line)
		}
	}
}

// fileLine is a line of an ini, properties or TOML file.
var fileLine = regexp.MustCompile(`^["']?([A-Za-z0-9_.-]+)["']?\s*(?:=>|=|:)\s*(.+)$`)

func walk(key string, v any, look func(key, value string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			walk(k, v[k], look)
		}
	case []any:
		for _, e := range v {
			walk(key, e, look)
		}
	case string:
		look(key, v)
	}
}

var reference = regexp.MustCompile(`\$(?:\$|\(([^)]*)\))`)

// Expand replaces each $(NAME) by its value as Kubernetes does: $$ is a dollar that starts no reference, and a name that
// is not known stays as it is (and is returned).
func Expand(s string, vars map[string]string) (out string, unknown []string) {
	out = reference.ReplaceAllStringFunc(s, func(m string) string {
		if m == "$$" {
			return "$"
		}
		name := m[2 : len(m)-1]
		if v, ok := vars[name]; ok {
			return v
		}
		unknown = append(unknown, m)
		return m
	})
	return out, unknown
}
