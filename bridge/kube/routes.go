package kube

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Routes are the ports of the dependencies whose calls can be judged, as they were when the environment was opened or its
// dependencies were last looked at: shared or fresh, the service connects to the address of a Service, and is led to a gate in its
// pod. What has no such address is not seen: a Service without one (headless), and hosts outside of the cluster.
func (e *Environment) Routes() []api.OutboundRoute {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.routes)
}

func (e *Environment) setRoutes(r []api.OutboundRoute) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.routes = r
}

// routes are those of what was found. copies are the Services of the environment's own copies.
func routes(l *landscape, copies []corev1.Service) []api.OutboundRoute {
	var out []api.OutboundRoute
	taken := map[string]bool{}
	for _, d := range l.Dependencies {
		if d.Engine != "" || d.Namespace == "" || d.Mode == api.DependencyOff { // a database's protocol is not judged
			continue
		}
		callee, services := d.Name, d.Services
		if d.Namespace != l.in.Namespace {
			callee = d.Name + "." + d.Namespace
			if s := l.in.Elsewhere[callee]; s != nil {
				services = []*corev1.Service{s}
			}
		}
		var copied []*corev1.Service
		for i := range copies {
			if copies[i].Labels[dependency.LabelName] == d.Name {
				copied = append(copied, &copies[i])
			}
		}
		for _, s := range slices.Concat(copied, services) {
			for _, r := range routesTo(callee, s) {
				if !taken[r.Target] {
					taken[r.Target] = true
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// unseen says, for a person, of which dependencies no call can be seen though their protocol might be one that is.
func unseen(l *landscape) []string {
	var out []string
	for _, d := range l.Dependencies {
		if d.Engine != "" || d.Namespace != l.in.Namespace || d.Mode != api.DependencyShared || len(d.Services) == 0 {
			continue
		}
		if !slices.ContainsFunc(d.Services, func(s *corev1.Service) bool { return len(routesTo(d.Name, s)) > 0 }) {
			out = append(out, "calls of "+d.Name+" are not seen: its Service has no address of its own, or only ports of UDP")
		}
	}
	return out
}

// routesTo are the ports of a Service at each of its addresses. A port that is UDP's too is left alone: what connects to it is not
// told apart (DNS, HTTP/3).
func routesTo(callee string, s *corev1.Service) []api.OutboundRoute {
	var out []api.OutboundRoute
	addresses := s.Spec.ClusterIPs
	if len(addresses) == 0 {
		addresses = []string{s.Spec.ClusterIP}
	}
	for _, a := range addresses {
		ip, err := netip.ParseAddr(a)
		if err != nil { // none, or not yet
			continue
		}
		for _, p := range s.Spec.Ports {
			udp := slices.ContainsFunc(s.Spec.Ports, func(o corev1.ServicePort) bool { return o.Port == p.Port && o.Protocol == corev1.ProtocolUDP })
			if udp || p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
				continue
			}
			out = append(out, api.OutboundRoute{Callee: callee, Listen: "127.0.0.1:0", Target: net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(int(p.Port))), Redirect: true})
		}
	}
	return out
}

// copiedServices are the Services of an environment's copies.
func (c *client) copiedServices(ctx context.Context, env dependency.Environment) ([]corev1.Service, error) {
	list, err := c.kube.CoreV1().Services(env.Namespace).List(ctx, metav1.ListOptions{LabelSelector: dependency.LabelOf + "=" + env.Name})
	if err != nil {
		return nil, fmt.Errorf("list the Services of the copies: %w", err)
	}
	return slices.DeleteFunc(list.Items, func(s corev1.Service) bool { return !env.Owns(&s) }), nil
}
