package kube

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/dependency"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
)

// imageLimit bounds the look at an image's own command. Without it the service starts with the arguments that the
// Deployment gives, which is right for most.
const imageLimit = 5 * time.Second

// process tells how the template's container starts its process. image is asked only when the container leaves the
// command to its image. The notes are for a person.
func process(ctx context.Context, tc *corev1.Container, image func(context.Context) (*v1.Config, error)) (p api.Process, notes []string) {
	p.Dir = tc.WorkingDir
	p.Port = mainPort(tc)
	vars := literals(tc.Env)
	line := slices.Clone(tc.Command)
	if len(line) == 0 {
		ictx, cancel := context.WithTimeout(ctx, imageLimit)
		cfg, err := image(ictx)
		cancel()
		if err != nil {
			notes = append(notes, fmt.Sprintf("what %s starts could not be read, only the Deployment's args are used: %s", tc.Image, oneLine(err.Error())))
			line = []string{""}
		} else {
			line = slices.Clone(cfg.Entrypoint)
			if len(tc.Args) == 0 {
				line = append(line, cfg.Cmd...)
			}
			for _, kv := range cfg.Env {
				if k, v, ok := strings.Cut(kv, "="); ok {
					if _, set := vars[k]; !set {
						vars[k] = v
					}
				}
			}
		}
	}
	// The kubelet expands what the Deployment says, not what the image says; an image's $(X) is rare enough for one rule.
	line = append(line, tc.Args...)
	var unknown []string
	for i := range line {
		var u []string
		line[i], u = dependency.Expand(line[i], vars)
		unknown = append(unknown, u...)
	}
	line = withoutInit(line)
	switch {
	case len(line) == 0:
	case isShell(line[0]):
		notes = append(notes, fmt.Sprintf("the staging Deployment starts the service through %s, so its arguments cannot be told: write them under args: in fairlead.yaml", path.Base(line[0])))
	default:
		if len(line) > 1 {
			p.Args = line[1:]
		}
	}
	if len(unknown) > 0 && p.Args != nil {
		slices.Sort(unknown)
		notes = append(notes, fmt.Sprintf("the service's arguments use %s, which only the cluster knows: write them under args: in fairlead.yaml", strings.Join(slices.Compact(unknown), ", ")))
	}
	return p, notes
}

// withoutInit drops an init for containers that comes before the service: the supervisor is one.
func withoutInit(line []string) []string {
	for len(line) > 0 {
		switch path.Base(line[0]) {
		case "tini", "tini-static", "dumb-init", "catatonit":
		default:
			return line
		}
		line = line[1:]
		for len(line) > 0 && strings.HasPrefix(line[0], "-") {
			end := line[0] == "--"
			line = line[1:]
			if end {
				break
			}
		}
	}
	return line
}

// isShell tells whether an executable interprets what follows, so that the service's own arguments are not visible.
func isShell(exe string) bool {
	b := path.Base(exe)
	switch b {
	case "sh", "bash", "ash", "dash", "zsh", "ksh", "busybox", "env":
		return true
	}
	return strings.HasSuffix(b, ".sh")
}

// mainPort is the port that people and other services use.
func mainPort(c *corev1.Container) int {
	var tcp []corev1.ContainerPort
	for _, p := range c.Ports {
		if p.Protocol == "" || p.Protocol == corev1.ProtocolTCP {
			tcp = append(tcp, p)
		}
	}
	for _, like := range []func(string) bool{
		func(n string) bool { return n == "http" || n == "web" },
		func(n string) bool { return strings.HasPrefix(n, "http") && !strings.Contains(n, "metrics") },
	} {
		for _, p := range tcp {
			if like(p.Name) {
				return int(p.ContainerPort)
			}
		}
	}
	if len(tcp) == 1 {
		return int(tcp[0].ContainerPort)
	}
	if r := c.ReadinessProbe; r != nil {
		var n int
		switch {
		case r.HTTPGet != nil:
			n, _ = portNumber(r.HTTPGet.Port, c.Ports)
		case r.TCPSocket != nil:
			n, _ = portNumber(r.TCPSocket.Port, c.Ports)
		case r.GRPC != nil:
			n = int(r.GRPC.Port)
		}
		return n
	}
	return 0
}

// literals are the variables whose values the Deployment says itself; each may use those before it, as in the kubelet.
func literals(env []corev1.EnvVar) map[string]string {
	vars := map[string]string{}
	for _, e := range env {
		if e.ValueFrom != nil {
			delete(vars, e.Name)
			continue
		}
		v, unknown := dependency.Expand(e.Value, vars)
		if len(unknown) > 0 {
			// It may be one that is set from elsewhere; a half-known value helps nobody.
			delete(vars, e.Name)
			continue
		}
		vars[e.Name] = v
	}
	return vars
}
