package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge/kube/lease"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs name the plugins
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

// client is one API server, as one kubeconfig context reaches it.
type client struct {
	kube      kubernetes.Interface
	config    *rest.Config
	clock     *lease.Clock // the API server's
	context   string
	namespace string // the context's; empty when it names none
	server    string
	copyLimit time.Duration // how long a copy may take to get ready; 0 means copyLimit
}

// quiet keeps client-go off stderr, which is the agent's. It is process-wide because klog is.
var quiet = sync.OnceFunc(func() { klog.SetLogger(logr.Discard()) })

// kubeconfigs are the files that an environment's KUBECONFIG lists, or else the user's own, as clientcmd takes them from
// this process's environment.
func kubeconfigs(env []string) []string {
	var list []string
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, clientcmd.RecommendedConfigPathEnvVar+"="); ok {
			list = nil
			for _, p := range filepath.SplitList(v) {
				if p != "" && !slices.Contains(list, p) {
					list = append(list, p)
				}
			}
		}
	}
	if len(list) == 0 {
		return []string{clientcmd.RecommendedHomeFile}
	}
	return list
}

// connect reads the kubeconfig; it sends nothing yet.
func connect(o Options) (*client, error) {
	quiet()
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	if o.Env != nil {
		rules.Precedence = kubeconfigs(o.Env)
	}
	rules.WarnIfAllMissing = false
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.Context}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	raw, err := loader.RawConfig()
	if err != nil {
		p := &api.Problem{Code: "bad-kubeconfig", Message: "read the kubeconfig: " + oneLine(err.Error()),
			Hint: "correct the file, or name another with --kubeconfig"}
		if errors.Is(err, fs.ErrNotExist) {
			p.Hint = "name an existing file with --kubeconfig or $KUBECONFIG"
		}
		return nil, p
	}
	if o.Context == "" && o.Server != "" {
		if o.Context = contextTo(raw, o.Server); o.Context != "" {
			return connect(o)
		}
	}
	name := o.Context
	if name == "" {
		name = raw.CurrentContext
	}
	kctx := raw.Contexts[name]
	if kctx == nil && (o.Context != "" || len(raw.Contexts) > 0 || os.Getenv("KUBERNETES_SERVICE_HOST") == "") {
		return nil, noContext(o, name, slices.Collect(keys(raw.Contexts)))
	}
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, &api.Problem{Code: "bad-kubeconfig", Message: fmt.Sprintf("kubeconfig context %q: %s", name, oneLine(err.Error())),
			Hint: "correct it, or choose another with --context"}
	}
	ns := ""
	if kctx != nil {
		ns = kctx.Namespace
	} else {
		name = "in-cluster"
		ns, _, _ = loader.Namespace()
	}
	renewed(cfg, func() (*rest.Config, error) {
		return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	})
	cfg.QPS = -1 // the API server has its own fairness, and an Open is a dozen requests
	cfg.UserAgent = "fairlead/" + o.Version
	cfg.WarningHandler = nil
	cfg.WarningHandlerWithContext = warnings{o.Logger}
	clock := &lease.Clock{}
	asking := rest.CopyConfig(cfg) // exec streams have no use for it, and no answers
	asking.Wrap(clock.Wrap)
	set, err := kubernetes.NewForConfig(asking)
	if err != nil {
		return nil, &api.Problem{Code: "bad-kubeconfig", Message: fmt.Sprintf("kubeconfig context %q: %s", name, oneLine(err.Error())),
			Hint: "correct it, or choose another with --context"}
	}
	return &client{kube: set, config: cfg, clock: clock, context: name, namespace: ns, server: cfg.Host}, nil
}

// contextTo is the first of a kubeconfig's contexts, by name, that leads to an API server; empty where the current one does,
// or none.
func contextTo(raw clientcmdapi.Config, server string) string {
	leads := func(name string) bool {
		c := raw.Contexts[name]
		if c == nil || raw.Clusters[c.Cluster] == nil {
			return false
		}
		return strings.TrimSuffix(raw.Clusters[c.Cluster].Server, "/") == strings.TrimSuffix(server, "/")
	}
	if leads(raw.CurrentContext) {
		return ""
	}
	for _, name := range slices.Sorted(keys(raw.Contexts)) {
		if leads(name) {
			return name
		}
	}
	return ""
}

func noContext(o Options, name string, have []string) error {
	p := &api.Problem{Code: "no-context"}
	slices.Sort(have)
	switch {
	case len(have) == 0 && o.Kubeconfig != "":
		p.Message = o.Kubeconfig + " has no contexts"
		p.Hint = "name another file with --kubeconfig"
	case len(have) == 0:
		p.Message = "there is no kubeconfig"
		p.Hint = "name one with --kubeconfig or $KUBECONFIG, or run with --on local"
	case name == "":
		p.Message = "the kubeconfig has no current context"
		p.Hint = "choose one with --context: " + strings.Join(have, ", ")
	default:
		p.Message = fmt.Sprintf("the kubeconfig has no context %q", name)
		p.Hint = "choose one of these with --context: " + strings.Join(have, ", ")
	}
	return p
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// warnings writes what an API server warns of (deprecations, Pod Security) to our log instead of stderr.
type warnings struct{ log *slog.Logger }

func (w warnings) HandleWarningHeaderWithContext(ctx context.Context, _ int, _, text string) {
	if text != "" {
		w.log.InfoContext(ctx, "the API server warns", "warning", text)
	}
}

// oneLine makes one line of a message: an error is shown on one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
