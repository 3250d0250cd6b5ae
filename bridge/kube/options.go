package kube

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube/lease"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Options say where environments are made and of what.
type Options struct {
	// Kubeconfig is a file; empty takes $KUBECONFIG, then the user's own, then the pod that this runs in.
	Kubeconfig string
	// Env is where KUBECONFIG is looked up, as KEY=VALUE; nil is this process's environment.
	Env []string
	// Context is one of the kubeconfig's; empty takes its current one.
	Context string
	// Server is an API server's address, by which a context is chosen where Context is empty: the current one if it leads
	// there, or none does. It is only compared, since it may come by a link.
	Server string
	// Namespace is where staging is; empty takes the context's. One that does not exist is made, for the environment.
	Namespace string
	// Isolation says whether the environment has a namespace of its own; empty is IsolationNone, and does not look whether
	// there is one in such a namespace.
	Isolation Isolation
	// Quota and Egress are for a namespace of the environment's own: what it may take, by resource, beside what holds
	// anyway; and ranges (CIDR) that its network policy lets it reach.
	Quota  map[string]string
	Egress []string
	// Domain is the cluster's, "cluster.local" if empty.
	Domain string
	// Registry is HOST[:PORT][/PATH] that this machine can push to and the cluster can pull from.
	Registry string
	// Image is what the service runs in when there is no staging Deployment; empty means an image that holds nothing
	// but the supervisor and CABundle.
	Image string
	// Template names the staging Deployment, as NAME or NAMESPACE/NAME, when it has another name than the service.
	Template string
	// Payload gives the static linux executable of fairlead-pod for one of "amd64" and "arm64". An error that is
	// errors.ErrUnsupported leaves that architecture out.
	Payload func(arch string) ([]byte, error)
	// Lease says how long the environment stays when it is not used; nil says nothing of it, and leaves what it has.
	Lease *lease.Policy
	// CABundle is put at /etc/ssl/certs/ca-certificates.crt of the supervisor's image; it may be empty.
	CABundle []byte
	// Version is the agent's, for the API server's log. Open takes the Spec's.
	Version string
	// Logger may be nil.
	Logger *slog.Logger
	// Progress may be nil; it is called by one goroutine at a time.
	Progress bridge.Progress
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	o.Domain = cmp.Or(o.Domain, "cluster.local")
	say := o.Progress
	var mu sync.Mutex
	last := ""
	o.Progress = func(m string) {
		mu.Lock()
		defer mu.Unlock()
		if m == last { // the same words again are no progress
			return
		}
		last = m
		o.Logger.Debug("progress", "message", m)
		if say != nil {
			say(m)
		}
	}
	return o
}

// Isolation says whether an environment has a namespace of its own.
type Isolation string

const (
	// IsolationAuto gives it one where that may be made and filled.
	IsolationAuto Isolation = "auto"
	// IsolationNamespace gives it one, and fails where that cannot be.
	IsolationNamespace Isolation = "namespace"
	// IsolationNone puts it into staging's namespace, with names of its own.
	IsolationNone Isolation = "none"
)

// checkSpec refuses what would only be refused later, by the API server and in its own words.
func checkSpec(s bridge.Spec) error {
	bad := func(format string, args ...any) error {
		return &api.Problem{Code: "bad-spec", Message: "environment: " + fmt.Sprintf(format, args...),
			Hint: "give the service another name with name: in fairlead.yaml"}
	}
	for what, name := range map[string]string{"name": s.Name, "service": s.Service} {
		if e := validation.IsDNS1123Label(name); len(e) > 0 {
			return bad("%s %q: %s", what, name, strings.Join(e, "; "))
		}
	}
	if s.Token == "" {
		return bad("it has no token")
	}
	seen := map[string]string{}
	for _, name := range treeNames(s) {
		dir := s.Trees[name]
		var why string
		switch {
		case !path.IsAbs(dir) || path.Clean(dir) != dir || dir == "/":
			why = "is not a clean absolute path"
		case strings.ContainsAny(dir, ":"):
			why = "has a colon, which Kubernetes allows in no mount path"
		case within(dir, binDir) || within(dir, tokenDir) || within(binDir, dir):
			why = "is where the supervisor lives"
		case seen[dir] != "":
			why = "is already that of " + seen[dir]
		case name == "" || strings.Contains(name, "="):
			why = fmt.Sprintf("has a name (%q) that is empty or contains =", name)
		}
		if why != "" {
			return &api.Problem{Code: "bad-tree", Message: fmt.Sprintf("synced folder %q: %s %s", name, dir, why),
				Hint: "change its path in the pod under sync: in fairlead.yaml"}
		}
		seen[dir] = name
	}
	return nil
}

// within tells whether a path is dir or inside it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func treeNames(s bridge.Spec) []string {
	names := make([]string, 0, len(s.Trees))
	for n := range s.Trees {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// shortHash is n hexadecimal digits of the SHA-256 of text.
func shortHash(text string, n int) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])[:n]
}

func ownerHash(owner string) string { return shortHash("owner\n"+owner, 16) }

// secretName depends on the token, so that another token is another Secret, which needs neither the right to read
// Secrets nor the right to change one. Eight digits of a hash say nothing of 256 random bits.
func secretName(s bridge.Spec) string { return s.Name + "-" + shortHash("token\n"+s.Token, 8) }
