package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"fairlead.dev/test/cluster/internal/registry"
)

// live returns clients of the running cluster, or skips the test. The tests
// that use it run when FAIRLEAD_TEST_CLUSTER is 1, on the cluster that
// "cluster up" made; FAIRLEAD_TEST_DIR names its folder if it is not the usual
// one.
func live(t *testing.T) (*clients, *state, paths) {
	t.Helper()
	if os.Getenv("FAIRLEAD_TEST_CLUSTER") != "1" {
		const reason = "needs a running cluster: FAIRLEAD_TEST_CLUSTER is not 1"
		// A job without a cluster says so with 0; one that forgot must not be
		// green for having tested nothing.
		if os.Getenv("CI") == "true" && os.Getenv("FAIRLEAD_TEST_CLUSTER") != "0" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	dir := os.Getenv("FAIRLEAD_TEST_DIR")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(cache, "fairlead-test", "run")
	}
	p := paths{dir}
	s, err := p.loadState()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newClients(p, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c, s, p
}

// probe builds the program of testdata and returns the name of its image.
func probe(t *testing.T, s *state) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "probe")
	build := exec.Command("go", "build", "-o", binary, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	img, err := registry.Image(binary, "probe", "65532:65532")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	repository := registryAddress(s.Ports) + "/cluster-test/probe"
	if err := registry.Push(img, repository+":latest"); err != nil {
		t.Fatal(err)
	}
	return repository + "@" + digest.String()
}

// namespace makes a namespace under Pod Security "restricted".
func namespace(t *testing.T, c *clients) string {
	t.Helper()
	name := "cluster-test-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	must(t, c, http.MethodPost, "/api/v1/namespaces", object{
		"metadata": object{"name": name, "labels": object{"pod-security.kubernetes.io/enforce": "restricted"}},
	}, nil)
	t.Cleanup(func() { must(t, c, http.MethodDelete, "/api/v1/namespaces/"+name, nil, nil) })
	// A pod is refused until a controller has made the service account.
	eventually(t, func(ctx context.Context) error {
		return c.do(ctx, http.MethodGet, "/api/v1/namespaces/"+name+"/serviceaccounts/default", nil, nil)
	})
	return name
}

func must(t *testing.T, c *clients, method, path string, body, result any) {
	t.Helper()
	// Not t.Context(), which has ended when cleanups run.
	if err := c.do(context.Background(), method, path, body, result); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, check func(context.Context) error) {
	t.Helper()
	if err := wait(t.Context(), time.Minute, nil, check); err != nil {
		t.Fatal(err)
	}
}

// pod returns a pod that obeys "restricted".
func pod(name, image string) object {
	return object{
		"metadata": object{"name": name, "labels": object{"app": name}},
		"spec": object{
			"terminationGracePeriodSeconds": 0,
			"securityContext":               object{"runAsNonRoot": true, "seccompProfile": object{"type": "RuntimeDefault"}},
			"containers": []object{{
				"name":           "probe",
				"image":          image,
				"ports":          []object{{"containerPort": 8080}},
				"readinessProbe": object{"httpGet": object{"path": "/name", "port": 8080}, "periodSeconds": 1},
				"securityContext": object{
					"allowPrivilegeEscalation": false,
					"readOnlyRootFilesystem":   true,
					"capabilities":             object{"drop": []string{"ALL"}},
				},
			}},
		},
	}
}

// run makes the pod and waits until it is Ready.
func run(t *testing.T, c *clients, ns, name, image string) {
	t.Helper()
	start := time.Now()
	must(t, c, http.MethodPost, "/api/v1/namespaces/"+ns+"/pods", pod(name, image), nil)
	eventually(t, func(ctx context.Context) error {
		var got struct {
			Status struct {
				Phase      string
				Conditions []struct{ Type, Status string }
			}
		}
		if err := c.do(ctx, http.MethodGet, "/api/v1/namespaces/"+ns+"/pods/"+name, nil, &got); err != nil {
			return err
		}
		for _, condition := range got.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				return nil
			}
		}
		return fmt.Errorf("pod %s is %s, not ready: %v", name, got.Status.Phase, got.Status.Conditions)
	})
	t.Logf("pod %s ready after %s", name, time.Since(start).Round(10*time.Millisecond))
}

// text sends a GET and returns the answer as it is, whatever its status.
func text(ctx context.Context, h *http.Client, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := h.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestLivePodSecurityIsEnforced(t *testing.T) {
	c, s, _ := live(t)
	ns := namespace(t, c)
	bad := pod("bad", registryAddress(s.Ports)+"/pause:1")
	bad["spec"].(object)["hostNetwork"] = true
	err := c.do(t.Context(), http.MethodPost, "/api/v1/namespaces/"+ns+"/pods", bad, nil)
	refused, ok := errors.AsType[*statusError](err)
	if !ok || refused.code != http.StatusForbidden || !strings.Contains(refused.body, "PodSecurity") {
		t.Fatalf("a pod on the host's network: got %v, want a refusal by Pod Security", err)
	}
}

func TestLivePods(t *testing.T) {
	c, s, _ := live(t)
	image := probe(t, s)
	ns := namespace(t, c)
	run(t, c, ns, "server", image)
	run(t, c, ns, "client", image)
	must(t, c, http.MethodPost, "/api/v1/namespaces/"+ns+"/services", object{
		"metadata": object{"name": "server"},
		"spec":     object{"selector": object{"app": "server"}, "ports": []object{{"port": 80, "targetPort": 8080}}},
	}, nil)
	must(t, c, http.MethodPost, "/api/v1/namespaces/"+ns+"/services", object{
		"metadata": object{"name": "alias"},
		"spec":     object{"type": "ExternalName", "externalName": "server." + ns + ".svc.cluster.local"},
	}, nil)
	must(t, c, http.MethodPost, "/api/v1/namespaces/"+ns+"/services", object{
		"metadata": object{"name": "outside"},
		"spec":     object{"type": "ExternalName", "externalName": "outside.example"},
	}, nil)

	// ask has a pod do something, by way of the API server's proxy to it.
	ask := func(ctx context.Context, pod, act, key, value string) (string, error) {
		return text(ctx, c.admin, c.server+"/api/v1/namespaces/"+ns+"/pods/"+pod+":8080/proxy/"+act+"?"+url.Values{key: {value}}.Encode())
	}
	for _, test := range []struct{ name, pod, url, want string }{
		{"short name", "client", "http://server/name", "200 server"},
		{"full name", "client", "http://server." + ns + ".svc.cluster.local/name", "200 server"},
		{"external name", "client", "http://alias/name", "200 server"},
		// The way back to the sender itself needs more rewriting than others.
		// (The short name is the pod's own host name, which is not looked up.)
		{"own service", "server", "http://server." + ns + "/name", "200 server"},
		{"API server", "client", "https://kubernetes.default.svc/version", `"gitVersion"`},
		// Known, but without rights: the token is good and RBAC is on.
		{"rights", "client", "https://kubernetes.default.svc/api/v1/namespaces/" + ns + "/secrets", "system:serviceaccount:" + ns + ":default"},
	} {
		t.Run("reach by "+test.name, func(t *testing.T) {
			eventually(t, func(ctx context.Context) error {
				got, err := ask(ctx, test.pod, "get", "url", test.url)
				if err == nil && !strings.Contains(got, test.want) {
					err = fmt.Errorf("get %s from pod %s: %q, want %q in it", test.url, test.pod, got, test.want)
				}
				return err
			})
		})
	}
	for _, name := range []string{"absent", "outside", "www.example.com"} {
		t.Run("no such name "+name, func(t *testing.T) {
			start := time.Now()
			got, err := ask(t.Context(), "client", "lookup", "name", name)
			if err != nil || !strings.Contains(got, "no such host") {
				t.Errorf("look up %s: %q, %v, want no such host", name, got, err)
			}
			if d := time.Since(start); d > 4*time.Second { // a question that nobody answers takes five
				t.Errorf("look up %s: took %s", name, d)
			}
		})
	}

	t.Run("service from the machine", func(t *testing.T) {
		var svc struct{ Spec struct{ ClusterIP string } }
		must(t, c, http.MethodGet, "/api/v1/namespaces/"+ns+"/services/server", nil, &svc)
		got, err := text(t.Context(), c.plain, "http://"+svc.Spec.ClusterIP+"/name")
		if err != nil || got != "server" {
			t.Errorf("get from the machine: %q, %v, want %q", got, err, "server")
		}
	})

	t.Run("logs", func(t *testing.T) {
		got, err := text(t.Context(), c.admin, c.server+"/api/v1/namespaces/"+ns+"/pods/server/log")
		if err != nil || got != "probe: listening\n" {
			t.Errorf("logs: %q, %v", got, err)
		}
	})

	t.Run("exec", func(t *testing.T) { testExec(t, c, ns) })
}

// testExec runs a program in a pod over the websocket protocol v5: each message
// starts with the number of its channel.
func testExec(t *testing.T, c *clients, ns string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h := *c.admin
	transport := h.Transport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2 = false // websockets are HTTP/1.1 here
	transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	h.Transport = transport
	query := url.Values{"command": {"/probe", "upper"}, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
	conn, _, err := websocket.Dial(ctx, c.server+"/api/v1/namespaces/"+ns+"/pods/server/exec?"+query.Encode(), &websocket.DialOptions{
		HTTPClient:   &h,
		Subprotocols: []string{"v5.channel.k8s.io"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if got := conn.Subprotocol(); got != "v5.channel.k8s.io" {
		t.Fatalf("subprotocol %q", got)
	}
	const stdin, stdout, stderr, status = 0, 1, 2, 3
	if err := conn.Write(ctx, websocket.MessageBinary, append([]byte{stdin}, "hello"...)); err != nil {
		t.Fatal(err)
	}
	var got [4]bytes.Buffer
	for {
		_, message, err := conn.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			break
		}
		if err != nil {
			t.Fatalf("read: %v, after %q", err, got[status].String())
		}
		if len(message) > 0 && int(message[0]) < len(got) {
			got[message[0]].Write(message[1:])
		}
	}
	if got[stdout].String() != "HELLO" || got[stderr].String() != "done" || !strings.Contains(got[status].String(), `"message":"7"`) {
		t.Errorf("exec: stdout %q, stderr %q, status %s", got[stdout].String(), got[stderr].String(), got[status].String())
	}
}

func TestLiveServiceAccountToken(t *testing.T) {
	c, _, _ := live(t)
	ns := namespace(t, c)
	const group = "/apis/rbac.authorization.k8s.io/v1/namespaces/"
	must(t, c, http.MethodPost, group+ns+"/roles", object{
		"metadata": object{"name": "reader"},
		"rules":    []object{{"apiGroups": []string{""}, "resources": []string{"pods"}, "verbs": []string{"list"}}},
	}, nil)
	must(t, c, http.MethodPost, group+ns+"/rolebindings", object{
		"metadata": object{"name": "reader"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
		"subjects": []object{{"kind": "ServiceAccount", "name": "default", "namespace": ns}},
	}, nil)
	var made struct{ Status struct{ Token string } }
	must(t, c, http.MethodPost, "/api/v1/namespaces/"+ns+"/serviceaccounts/default/token", object{"spec": object{}}, &made)

	transport := c.admin.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.Certificates = nil
	user := &http.Client{Transport: bearer{made.Status.Token, transport}}
	defer user.CloseIdleConnections()
	// The authorizer learns of the new binding a moment later.
	eventually(t, func(ctx context.Context) error {
		return c.get(ctx, user, c.server+"/api/v1/namespaces/"+ns+"/pods")
	})
	err := c.get(t.Context(), user, c.server+"/api/v1/namespaces/"+ns+"/secrets")
	if s, ok := errors.AsType[*statusError](err); !ok || s.code != http.StatusForbidden {
		t.Errorf("list secrets as a reader of pods: got %v, want status 403", err)
	}
}

// bearer adds a token to requests.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(req)
}
