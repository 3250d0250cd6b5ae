package fairlead_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// edges is which package of ours may import which: a new edge is a line in a review. ARCHITECTURE.md says why.
var edges = map[string][]string{
	"api":                           {},
	"bridge":                        {"api"},
	"bridge/payload":                {"api"},
	"bridge/payload/gen":            {"bridge/payload"},
	"bridge/local":                  {"api", "bridge", "bridge/payload"},
	"bridge/local/engine":           {"api"},
	"bridge/kube":                   {"api", "bridge", "bridge/kube/dependency", "bridge/kube/isolation", "bridge/kube/lease"},
	"bridge/kube/dependency":        {"api"},
	"bridge/kube/isolation":         {},
	"bridge/kube/lease":             {"api"},
	"bridge/kube/janitor":           {"api", "bridge", "bridge/kube", "bridge/kube/lease"},
	"syncer":                        {"api", "syncer/delta"},
	"syncer/build":                  {"api"},
	"syncer/delta":                  {},
	"syncer/watch":                  {"api"},
	"syncer/supervisor":             {"api", "syncer/delta", "syncer/supervisor/outbound", "syncer/supervisor/redirect", "syncer/supervisor/wire"},
	"syncer/supervisor/outbound":    {"api", "syncer/supervisor/wire"},
	"syncer/supervisor/redirect":    {},
	"syncer/supervisor/wire":        {},
	"syncer/supervisor/delve":       {},
	"syncer/podtest":                {"api", "syncer", "syncer/delta"},
	"debugadapter":                  {"api"},
	"debugadapter/daptest":          {},
	"server":                        {"api", "bridge", "server/callsite", "server/crash", "server/journal", "syncer", "syncer/build", "syncer/watch"},
	"server/client":                 {"api"},
	"server/callsite":               {"api", "syncer/build"},
	"server/crash":                  {"api"},
	"server/dap":                    {"api", "debugadapter", "server/client"},
	"server/journal":                {"api"},
	"server/review":                 {"api", "platform/forge", "server/review/codeowners", "server/review/reviewer"},
	"server/review/codeowners":      {},
	"server/review/reviewer":        {"api", "server/review/codeowners"},
	"server/settings":               {"api"},
	"server/lsp":                    {"api", "server/settings"},
	"platform/registry":             {"api"},
	"platform/endpoint":             {"platform/registry"},
	"platform/notify":               {"api", "platform/registry"},
	"platform/portal":               {"api", "platform/endpoint", "platform/registry"},
	"platform/forge":                {"api", "platform/registry"},
	"platform/export":               {"api", "platform/registry"},
	"cmd/fairlead":                  {"api", "bridge", "bridge/kube", "bridge/kube/janitor", "bridge/kube/lease", "bridge/local", "bridge/local/engine", "bridge/payload", "debugadapter", "platform/endpoint", "platform/export", "platform/forge", "platform/notify", "platform/portal", "platform/registry", "server", "server/client", "server/dap", "server/lsp", "server/review", "server/settings", "syncer", "syncer/build", "syncer/watch"},
	"cmd/fairlead-platform":         {"api", "bridge/kube", "bridge/kube/janitor", "bridge/kube/lease", "platform/endpoint", "platform/forge", "platform/notify", "platform/portal", "platform/registry", "server/settings"},
	"cmd/fairlead-pod":              {"api", "bridge", "syncer/supervisor", "syncer/supervisor/delve"},
	"test/bench/edit":               {"api", "test/bench/measure", "test/freeport"},
	"test/bench/env":                {"api", "bridge", "bridge/kube", "bridge/payload", "server/client", "test/bench/measure", "test/image"},
	"test/bench/measure":            {},
	"test/bench/debug":              {"api", "server/client", "test/bench/measure", "test/freeport"},
	"test/bench/lsp":                {},
	"test/bench/logs":               {"api", "bridge", "bridge/kube", "bridge/local", "bridge/payload", "server", "server/journal", "syncer/build", "test/bench/measure", "test/freeport"},
	"test/bench/repo":               {},
	"test/bench/reviewer":           {"server/review/reviewer", "test/bench/measure", "test/bench/repo"},
	"test/demo":                     {"api"},
	"test/editor":                   {},
	"test/freeport":                 {},
	"test/image":                    {},
	"test/e2e":                      {"api", "debugadapter/daptest", "server/client"},
	"test/gitea":                    {"test/freeport"},
	"test/gitea/serve":              {"test/gitea"},
	"test/run":                      {"test/gitea"},
	"cmd/fairlead-pod/without/ebpf": {},
}

// homes is where a library may be imported, and nowhere else.
var homes = map[string][]string{
	"k8s.io/": {"bridge/kube", "bridge/kube/dependency", "bridge/kube/isolation", "bridge/kube/lease", "bridge/kube/janitor",
		"test/bench/env",   // there to be the floor: plain workloads
		"test/bench/logs"}, // there to be the rival: kubectl's own log stream
	"github.com/google/go-containerregistry/": {"bridge/kube", "test/image"},
	"github.com/fsnotify/fsnotify":            {"syncer/watch"},
	"github.com/go-delve/delve/":              {"syncer/supervisor/delve"},
	"github.com/google/go-dap":                {"debugadapter", "debugadapter/daptest", "syncer/podtest", "test/bench/debug"},
	"github.com/hashicorp/yamux":              {"bridge"},
	"github.com/gorilla/websocket":            {"bridge", "server", "server/client", "server/journal", "test/bench/logs"},
	"github.com/spf13/":                       {"cmd/fairlead", "cmd/fairlead-platform"},
	"github.com/klauspost/compress":           {"syncer/delta", "bridge/payload", "bridge/payload/gen"},
	"go.lsp.dev/":                             {"server/lsp"},
	"go.yaml.in/yaml":                         {"server/settings", "platform/registry", "platform/export", "platform/endpoint", "platform/forge"},
	"github.com/coreos/go-oidc/":              {"platform/portal"},
	"golang.org/x/oauth2":                     {"platform/portal"},
	"golang.org/x/tools/go/gcexportdata":      {"server/callsite"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,GoFiles"}, args...)...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOFLAGS=")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

const module = "fairlead.dev/"

func TestEdges(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if len(p.GoFiles) == 0 { // tests only
			continue
		}
		seen[name] = true
		allowed, known := edges[name]
		if !known {
			t.Errorf("package %s is not in the table of arch_test.go", name)
		}
		for _, i := range p.Imports {
			if ours, ok := strings.CutPrefix(i, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: not in the table of arch_test.go", name, ours)
			}
			for lib, home := range homes {
				if strings.HasPrefix(i+"/", lib) || strings.HasPrefix(i, lib) {
					if !slices.Contains(home, name) {
						t.Errorf("%s imports %s, whose home is %v", name, i, home)
					}
				}
			}
		}
	}
	if len(seen) < 12 {
		t.Fatalf("only %d packages were seen", len(seen))
	}
}

// The pod's side links no Kubernetes client, no watcher, no command-line library: its imports are a security statement.
func TestPodImports(t *testing.T) {
	for _, p := range list(t, "./cmd/fairlead-pod") {
		for _, d := range p.Deps {
			for _, bad := range []string{"k8s.io/", "github.com/fsnotify", "github.com/google/go-containerregistry", "github.com/spf13", "fairlead.dev/server", "fairlead.dev/bridge/kube", "fairlead.dev/syncer/watch", "fairlead.dev/syncer/build"} {
				if strings.HasPrefix(d, bad) {
					t.Errorf("fairlead-pod links %s", d)
				}
			}
		}
	}
}
