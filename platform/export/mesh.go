package export

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// istio writes an AuthorizationPolicy: Istio 1.22 or newer, whose paths have templates.
func istio(c *callee) (document, error) {
	d := document{notes: append(c.notes, "Methods are enforced by a sidecar or a waypoint; a ztunnel alone denies what has them.")}
	rules := []any{} // without one it allows nothing
	for _, from := range c.callers {
		rule := map[string]any{"from": []any{map[string]any{"source": map[string]any{
			"principals": []string{fmt.Sprintf("%s/ns/%s/sa/%s", c.opts.Domain, from.namespace, from.name)}}}}}
		if !from.all() {
			paths := map[string][]string{} // by the verb
			for _, p := range from.patterns {
				paths[p.verb] = append(paths[p.verb], istioPaths(p)...)
			}
			to := []any{}
			for _, verb := range slices.Sorted(maps.Keys(paths)) {
				to = append(to, map[string]any{"operation": map[string]any{"methods": []string{verb}, "paths": slices.Compact(slices.Sorted(slices.Values(paths[verb])))}})
			}
			rule["to"] = to
		}
		rules = append(rules, rule)
	}
	d.objects = []map[string]any{c.object("security.istio.io/v1", "AuthorizationPolicy", "fairlead-"+c.name, map[string]any{
		"selector": map[string]any{"matchLabels": c.labels(c.place)}, "action": "ALLOW", "rules": rules})}
	return d, nil
}

// istioPaths are a pattern's: exact, with a last * for any rest, or with a template's {*} and {**}.
func istioPaths(p pattern) []string {
	path := p.path(as, "{*}")
	switch {
	case !p.rest:
		return []string{path}
	case path == "":
		return []string{"/*"}
	case p.literal():
		return []string{path, path + "/*"}
	}
	return []string{path, path + "/{**}"}
}

// linkerd writes a Server for each port, a route for each pattern, and who may use it.
func linkerd(c *callee) (document, error) {
	d := document{notes: c.notes}
	if len(c.ports) == 0 {
		d.notes = []string{fmt.Sprintf("NOT ENFORCED: Linkerd's policies are of a port, and services/%s.yaml has no ports.", c.service)} // and nobody is kept out
		return d, nil
	}
	var parents []any
	for _, port := range c.ports {
		name := fmt.Sprintf("fairlead-%s-%d", c.name, port)
		d.objects = append(d.objects, c.object("policy.linkerd.io/v1beta3", "Server", name, map[string]any{
			"podSelector": map[string]any{"matchLabels": c.labels(c.place)}, "port": port, "accessPolicy": "deny"}))
		parents = append(parents, map[string]any{"group": "policy.linkerd.io", "kind": "Server", "name": name})
	}
	patterns := map[string]pattern{}
	for _, from := range c.callers {
		for _, p := range from.patterns {
			patterns[p.text] = p
		}
	}
	if len(patterns) > 0 {
		d.notes = append(d.notes, "Linkerd answers what no route here has with 404, and asks for a route of their own for the kubelet's probes.")
	}
	names := slices.Sorted(maps.Keys(patterns))
	for i, name := range names {
		p := patterns[name]
		// A request takes the most specific route alone. So each has everyone whose patterns allow all of it.
		var refs []any
		for _, from := range c.callers {
			if slices.ContainsFunc(from.patterns, func(q pattern) bool { return q.covers(p) }) {
				refs = append(refs, map[string]any{"kind": "ServiceAccount", "name": from.name, "namespace": from.namespace})
			}
		}
		for _, other := range names[i+1:] {
			if q := patterns[other]; p.meets(q) && !p.covers(q) && !q.covers(p) {
				d.notes = append(d.notes, fmt.Sprintf("NARROWER THAN GRANTED: what both %s and %s allow is decided by one of them.", p.text, q.text))
			}
		}
		sum := sha256.Sum256([]byte(p.text))
		object := "fairlead-" + c.name + "-" + hex.EncodeToString(sum[:4])
		var matches []any
		if p.all {
			matches = []any{map[string]any{"path": map[string]any{"type": "PathPrefix", "value": "/"}}}
		} else {
			matches = []any{map[string]any{"method": p.verb, "path": linkerdPath(p)}}
		}
		d.objects = append(d.objects,
			c.object("policy.linkerd.io/v1beta3", "HTTPRoute", object, map[string]any{"parentRefs": parents, "rules": []any{map[string]any{"matches": matches}}}),
			c.object("policy.linkerd.io/v1alpha1", "MeshTLSAuthentication", object, map[string]any{"identityRefs": refs}),
			c.object("policy.linkerd.io/v1alpha1", "AuthorizationPolicy", object, map[string]any{
				"targetRef":                  map[string]any{"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": object},
				"requiredAuthenticationRefs": []any{map[string]any{"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": object}},
			}))
	}
	return d, nil
}

func linkerdPath(p pattern) map[string]any {
	switch path := p.path(as, ""); {
	case p.literal() && !p.rest:
		return map[string]any{"type": "Exact", "value": path}
	case p.literal():
		return map[string]any{"type": "PathPrefix", "value": or(path, "/")}
	}
	return map[string]any{"type": "RegularExpression", "value": expression(p)}
}

// expression is a pattern as a regular expression of a whole path.
func expression(p pattern) string {
	e := p.path(regexp.QuoteMeta, "[^/]+")
	switch {
	case p.rest && e == "":
		return "/.*"
	case p.rest:
		return e + "(/.*)?"
	}
	return e
}

// cilium writes a CiliumNetworkPolicy.
func cilium(c *callee) (document, error) {
	d := document{notes: c.notes}
	var ports []any
	for _, p := range c.ports {
		ports = append(ports, map[string]any{"port": fmt.Sprint(p), "protocol": "TCP"})
	}
	ingress := []any{}
	for _, from := range c.callers {
		labels := c.labels(from.place)
		labels["k8s:io.kubernetes.pod.namespace"] = from.namespace
		rule := map[string]any{"fromEndpoints": []any{map[string]any{"matchLabels": labels}}}
		switch {
		case len(ports) == 0 && !from.all():
			d.notes = append(d.notes, fmt.Sprintf("WIDER THAN GRANTED: %s is let in to everything, and not only to %s: Cilium's rules for methods are of a port, and services/%s.yaml has no ports.", from.service, from.words(), c.service))
		case len(ports) > 0:
			to := map[string]any{"ports": ports}
			if !from.all() {
				var http []any
				for _, p := range from.patterns {
					http = append(http, map[string]any{"method": p.verb, "path": expression(p)})
				}
				to["rules"] = map[string]any{"http": http}
			}
			rule["toPorts"] = []any{to}
		}
		ingress = append(ingress, rule)
	}
	if len(ingress) == 0 {
		ingress = append(ingress, map[string]any{}) // Cilium's way to say nobody
	}
	d.objects = []map[string]any{c.object("cilium.io/v2", "CiliumNetworkPolicy", "fairlead-"+c.name, map[string]any{
		"endpointSelector": map[string]any{"matchLabels": c.labels(c.place)}, "ingress": ingress})}
	return d, nil
}

// networkPolicy writes Kubernetes' own, which knows who calls, and nothing of what.
func networkPolicy(c *callee) (document, error) {
	d := document{notes: c.notes}
	ingress := []any{}
	for _, from := range c.callers {
		rule := map[string]any{"from": []any{map[string]any{
			"namespaceSelector": map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": from.namespace}},
			"podSelector":       map[string]any{"matchLabels": c.labels(from.place)},
		}}}
		if len(c.ports) > 0 {
			var ports []any
			for _, p := range c.ports {
				ports = append(ports, map[string]any{"port": p, "protocol": "TCP"})
			}
			rule["ports"] = ports
		}
		ingress = append(ingress, rule)
		if !from.all() {
			d.notes = append(d.notes, fmt.Sprintf("WIDER THAN GRANTED: %s is let in to everything, and not only to %s: a NetworkPolicy knows no methods.", from.service, from.words()))
		}
	}
	d.objects = []map[string]any{c.object("networking.k8s.io/v1", "NetworkPolicy", "fairlead-"+c.name, map[string]any{
		"podSelector": map[string]any{"matchLabels": c.labels(c.place)}, "policyTypes": []string{"Ingress"}, "ingress": ingress})}
	return d, nil
}
