package export

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// The engines' own definitions are read from their released modules, which the go command checks by their sums. They are not
// dependencies of anything: nothing is compiled.
var released = []struct {
	engine, module, sum, file string
}{
	{"istio", "istio.io/api@v1.32.0", "h1:37mJvg9I0biYZAEQF+MATs4FNeCpXEIVO3LFpVb6iNM=", "kubernetes/customresourcedefinitions.gen.yaml"},
	{"cilium", "github.com/cilium/cilium@v1.20.2", "h1:dqiEGIcXc+gqCLYG/l7VCFJ8GHyb4HUrwbZOpkX5dL8=", "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml"},
}

// linkerdVariable names a folder with Linkerd's definitions as its Helm chart linkerd-crds makes them. Linkerd is in no module that
// could be had here, so without it, its export is only compared with testdata, which was checked against them (docs/registry.md).
const linkerdVariable = "FAIRLEAD_TEST_LINKERD_CRDS"

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	resources   = map[string]string{"AuthorizationPolicy": "authorizationpolicies", "CiliumNetworkPolicy": "ciliumnetworkpolicies", "NetworkPolicy": "networkpolicies",
		"Server": "servers", "HTTPRoute": "httproutes", "MeshTLSAuthentication": "meshtlsauthentications"}
)

// The API server itself says whether the policies are right, strictly, by the engines' own definitions.
func TestSchemas(t *testing.T) {
	file := os.Getenv("FAIRLEAD_TEST_KUBECONFIG")
	if file == "" {
		const why = "FAIRLEAD_TEST_KUBECONFIG does not name a cluster (test/cluster makes one)"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := cl.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Create(t.Context(),
		&unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"generateName": "export-test-"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Delete(context.Background(), ns.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	check := func(t *testing.T, engine string) {
		n := 0
		for _, o := range objects(t, export(t, engine)) {
			n++
			o.SetNamespace(ns.GetName()) // dry run or not, a namespace has to be there
			if err := dryRun(t, cl, o); err != nil {
				t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
			}
		}
		if n == 0 {
			t.Fatal("no object")
		}
		// The check itself can fail: a key that is wrong is refused.
		o := objects(t, export(t, engine))[0]
		o.SetNamespace(ns.GetName())
		if err := unstructured.SetNestedField(o.Object, "x", "spec", "acton"); err != nil {
			t.Fatal(err)
		}
		if err := dryRun(t, cl, o); err == nil || !strings.Contains(err.Error(), "acton") {
			t.Errorf("a wrong key: %v", err)
		}
	}
	t.Run("networkpolicy", func(t *testing.T) { check(t, "networkpolicy") })
	for _, r := range released {
		t.Run(r.engine, func(t *testing.T) {
			define(t, cl, filepath.Join(moduleFolder(t, r.module, r.sum), filepath.FromSlash(r.file)), func(name string) bool {
				return name == "authorizationpolicies.security.istio.io" || strings.HasSuffix(name, ".cilium.io")
			})
			check(t, r.engine)
		})
	}
	if dir := os.Getenv(linkerdVariable); dir != "" {
		t.Run("linkerd", func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
			if err != nil || len(files) == 0 {
				t.Fatalf("no definitions in %s: %v", dir, err)
			}
			for _, f := range files {
				define(t, cl, f, func(string) bool { return true })
			}
			check(t, "linkerd")
		})
	}
}

// moduleFolder is where the go command has a module.
func moduleFolder(t *testing.T, module, sum string) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GO111MODULE=on", "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	var m struct{ Dir, Sum, Error string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	if err != nil || m.Error != "" || m.Sum != sum {
		t.Fatalf("get %s: %v %s, sum %s", module, err, m.Error, m.Sum)
	}
	return m.Dir
}

func objects(t *testing.T, text []byte) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for _, doc := range strings.Split("\n"+string(text), "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if len(o) > 0 {
			out = append(out, &unstructured.Unstructured{Object: o})
		}
	}
	return out
}

// define makes the definitions of a file known to the API server, and takes back what it made.
func define(t *testing.T, cl dynamic.Interface, file string, wanted func(string) bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, o := range objects(t, text) {
		if o.GetKind() != "CustomResourceDefinition" || !wanted(o.GetName()) {
			continue
		}
		found++
		unstructured.RemoveNestedField(o.Object, "status")
		if _, err := cl.Resource(definitions).Create(t.Context(), o, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			continue // it is somebody else's, and stays
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cl.Resource(definitions).Delete(context.Background(), o.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	if found == 0 {
		t.Fatalf("%s defines nothing that is used", file)
	}
}

// dryRun has the API server look at an object as if it were made. It learns of a new definition a moment after it has accepted it.
func dryRun(t *testing.T, cl dynamic.Interface, o *unstructured.Unstructured) error {
	t.Helper()
	gv, err := schema.ParseGroupVersion(o.GetAPIVersion())
	if err != nil {
		return err
	}
	if resources[o.GetKind()] == "" {
		return fmt.Errorf("the test does not know %s", o.GetKind())
	}
	deadline := time.After(time.Minute)
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		_, err := cl.Resource(gv.WithResource(resources[o.GetKind()])).Namespace(o.GetNamespace()).Create(t.Context(), o,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
		if !apierrors.IsNotFound(err) {
			tick.Stop()
			return err
		}
		select {
		case <-tick.C:
		case <-deadline:
			return err
		}
	}
}
