package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// dnsUser is who CoreDNS is to the API server.
const dnsUser = "fairlead-test:coredns"

// clients talk to the programs of a running cluster.
type clients struct {
	server             string
	admin, etcd, plain *http.Client
}

func newClients(p paths, s *state) (*clients, error) {
	admin, err := tlsClient(p.pki("ca.crt"), p.pki("admin.crt"), p.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	etcd, err := tlsClient(p.pki("etcd-ca.crt"), p.pki("etcd-client.crt"), p.pki("etcd-client.key"))
	if err != nil {
		return nil, err
	}
	return &clients{
		server: apiAddress(s.Ports),
		admin:  admin,
		etcd:   etcd,
		plain:  &http.Client{Transport: &http.Transport{}}, // unlike the default, without the caller's proxy
	}, nil
}

func tlsClient(ca, cert, key string) (*http.Client, error) {
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificates: none in %s", ca)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		ForceAttemptHTTP2: true,
	}}, nil
}

// close ends idle connections, which would keep a stopping server waiting.
func (c *clients) close() {
	for _, h := range []*http.Client{c.admin, c.etcd, c.plain} {
		h.CloseIdleConnections()
	}
}

// get returns nil when the answer is 2xx.
func (c *clients) get(ctx context.Context, h *http.Client, url string) error {
	return c.send(ctx, h, http.MethodGet, url, nil, nil)
}

// do sends a request to the API server as the administrator. The body and the
// result are JSON; either may be nil.
func (c *clients) do(ctx context.Context, method, path string, body, result any) error {
	return c.send(ctx, c.admin, method, c.server+path, body, result)
}

// statusError is an answer that is not 2xx.
type statusError struct {
	code int
	body string
}

// Error keeps to what is wrong: a health endpoint lists forty checks that are
// right around the one that failed, marked [-].
func (e *statusError) Error() string {
	text := fmt.Sprintf("status %d", e.code)
	failed := ""
	for line := range strings.Lines(e.body) {
		if strings.HasPrefix(line, "[-]") {
			failed += ": " + strings.TrimSpace(line)
		}
	}
	if failed != "" {
		return text + failed
	}
	const most = 300
	body := strings.TrimSpace(e.body)
	if len(body) > most {
		body = body[:most] + "..."
	}
	return text + ": " + body
}

func (c *clients) send(ctx context.Context, h *http.Client, method, url string, body, result any) error {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", strings.ToLower(method), url, err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return fmt.Errorf("%s %s: %w", strings.ToLower(method), url, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := h.Do(req)
	if err != nil {
		return err // net/http names the method and the address itself
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", strings.ToLower(method), url, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %w", strings.ToLower(method), url, &statusError{resp.StatusCode, string(b)})
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(b, result); err != nil {
		return fmt.Errorf("%s %s: %w", strings.ToLower(method), url, err)
	}
	return nil
}

// nodeReady returns nil when the node is ready for pods.
func (c *clients) nodeReady(ctx context.Context) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
		Spec struct {
			Taints []struct{ Key string }
		}
	}
	if err := c.do(ctx, http.MethodGet, "/api/v1/nodes/"+nodeName, nil, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type != "Ready" {
			continue
		}
		if condition.Status != "True" {
			return fmt.Errorf("node is not ready: %s", condition.Message)
		}
		// A controller takes the taint off a moment after the node is ready;
		// until then no pod is placed.
		for _, t := range node.Spec.Taints {
			if strings.HasPrefix(t.Key, "node.kubernetes.io/") {
				return fmt.Errorf("node is not ready: tainted %s", t.Key)
			}
		}
		return nil
	}
	return errors.New("node is not ready: it has not said so yet")
}

// namespaceReady returns nil when pods can be made in the default namespace:
// both things are made by controllers, and a pod before them is refused or hangs.
func (c *clients) namespaceReady(ctx context.Context) error {
	for _, path := range []string{"serviceaccounts/default", "configmaps/kube-root-ca.crt"} {
		if err := c.do(ctx, http.MethodGet, "/api/v1/namespaces/default/"+path, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// allowDNS gives CoreDNS the right to read what names are made of.
func (c *clients) allowDNS(ctx context.Context) error {
	const group = "rbac.authorization.k8s.io"
	for _, o := range []struct {
		resource string
		object   object
	}{
		{"clusterroles", object{
			"apiVersion": group + "/v1", "kind": "ClusterRole",
			"metadata": object{"name": dnsUser},
			"rules": []object{
				{"apiGroups": []string{""}, "resources": []string{"services", "pods", "namespaces"}, "verbs": []string{"list", "watch"}},
				{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": []string{"list", "watch"}},
			},
		}},
		{"clusterrolebindings", object{
			"apiVersion": group + "/v1", "kind": "ClusterRoleBinding",
			"metadata": object{"name": dnsUser},
			"roleRef":  object{"apiGroup": group, "kind": "ClusterRole", "name": dnsUser},
			"subjects": []object{{"apiGroup": group, "kind": "User", "name": dnsUser}},
		}},
	} {
		err := c.do(ctx, http.MethodPost, "/apis/"+group+"/v1/"+o.resource, o.object, nil)
		if s, ok := errors.AsType[*statusError](err); ok && s.code == http.StatusConflict {
			continue
		}
		if err != nil {
			return fmt.Errorf("allow CoreDNS to read: %w", err)
		}
	}
	return nil
}

// wait calls check until it returns nil. The last answer is the error when the
// time is up or when ended says that there is nothing left to wait for.
func wait(ctx context.Context, most time.Duration, ended <-chan struct{}, check func(context.Context) error) error {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// One hanging answer must not use up the time of all.
		once, cancelOnce := context.WithTimeout(ctx, 2*time.Second)
		err := check(once)
		cancelOnce()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx) // the last answer is only that of a request cut off
		case <-deadline.C:
			return fmt.Errorf("%w (waited %s)", err, most)
		case <-tick.C:
		}
	}
}

// errEnded says that a program ended while it was waited for.
var errEnded = errors.New("it ended by itself")
