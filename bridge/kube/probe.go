package kube

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// minProbeTimeout leaves the supervisor time to answer for a process that is just being swapped, and the kubelet time
// to start the probe's process on a busy node; the default of one second does not.
const minProbeTimeout = 5

// throughSupervisor makes the probes of the container under edit go through the supervisor, which answers itself while
// the process is swapped or is held in a debugger. It returns what it could not carry over.
func throughSupervisor(c *corev1.Container) (lost []string) {
	for _, p := range []struct {
		kind  string
		probe *corev1.Probe
	}{{"startup", c.StartupProbe}, {"readiness", c.ReadinessProbe}, {"liveness", c.LivenessProbe}} {
		if p.probe == nil {
			continue
		}
		p.probe.TimeoutSeconds = max(p.probe.TimeoutSeconds, minProbeTimeout)
		what, tail, note := probeArgs(p.probe.ProbeHandler, c.Ports)
		if what == nil && tail == nil {
			lost = append(lost, fmt.Sprintf("the %s probe (%s)", p.kind, note))
			switch p.kind {
			case "startup":
				c.StartupProbe = nil
			case "readiness":
				c.ReadinessProbe = nil
			case "liveness":
				c.LivenessProbe = nil
			}
			continue
		}
		if note != "" {
			lost = append(lost, fmt.Sprintf("%s of the %s probe", note, p.kind))
		}
		// The supervisor gets a second less than the kubelet gives, so that its reason arrives.
		timeout := time.Duration(p.probe.TimeoutSeconds-1) * time.Second
		cmd := []string{podBinary, "probe", "--socket", podSocket, "--token-file", tokenFile, "--kind", p.kind, "--timeout", timeout.String()}
		cmd = append(cmd, what...)
		if tail != nil {
			cmd = append(append(cmd, "--"), tail...)
		}
		p.probe.ProbeHandler = corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: cmd}}
	}
	return lost
}

// probeArgs says a probe's handler in the words of fairlead-pod probe. note is what does not fit in them; with both nil
// the probe cannot be said at all.
func probeArgs(h corev1.ProbeHandler, ports []corev1.ContainerPort) (flags, command []string, note string) {
	switch {
	case h.Exec != nil:
		if len(h.Exec.Command) == 0 {
			return nil, nil, "it has no command"
		}
		return nil, h.Exec.Command, ""
	case h.HTTPGet != nil:
		port, ok := portNumber(h.HTTPGet.Port, ports)
		if !ok {
			return nil, nil, "no port named " + h.HTTPGet.Port.String()
		}
		path := h.HTTPGet.Path
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		flags = []string{"--http", ":" + strconv.Itoa(port) + path}
		if h.HTTPGet.Scheme == corev1.URISchemeHTTPS {
			flags = append(flags, "--scheme", "https")
		}
		for _, hd := range h.HTTPGet.HTTPHeaders {
			if strings.EqualFold(hd.Name, "Host") {
				flags = append(flags, "--host", hd.Value)
			} else {
				note = "the headers"
			}
		}
		return flags, nil, note
	case h.TCPSocket != nil:
		port, ok := portNumber(h.TCPSocket.Port, ports)
		if !ok {
			return nil, nil, "no port named " + h.TCPSocket.Port.String()
		}
		return []string{"--tcp", ":" + strconv.Itoa(port)}, nil, ""
	case h.GRPC != nil:
		at := ":" + strconv.Itoa(int(h.GRPC.Port))
		if h.GRPC.Service != nil && *h.GRPC.Service != "" {
			at += "/" + *h.GRPC.Service
		}
		return []string{"--grpc", at}, nil, ""
	}
	return nil, nil, "of a kind that is not known"
}

// portNumber resolves a port that may be given by its name.
func portNumber(p intstr.IntOrString, ports []corev1.ContainerPort) (int, bool) {
	if p.Type == intstr.Int {
		return int(p.IntVal), true
	}
	for _, cp := range ports {
		if cp.Name == p.StrVal {
			return int(cp.ContainerPort), true
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil && n > 0 && n < 1<<16 {
		return n, true
	}
	return 0, false
}
