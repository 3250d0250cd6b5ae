package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func testPorts() Ports {
	return Ports{API: 6001, EtcdClient: 6002, EtcdPeer: 6003, ControllerManager: 6004, Scheduler: 6005, Kubelet: 6006,
		KubeletHealth: 6007, ProxyHealth: 6008, ProxyMetrics: 6009, DNSHealth: 6010, DNSReady: 6011, Registry: 6012}
}

// field returns a value of a JSON document by its path.
func field(t *testing.T, doc []byte, path ...string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatal(err)
	}
	for _, key := range path {
		m, ok := v.(object)
		if !ok {
			t.Fatalf("%v: no object on the way", path)
		}
		v = m[key]
	}
	return v
}

func TestRenderedConfiguration(t *testing.T) {
	p := paths{"/state"}
	kubelet, proxy, cni := renderKubelet(p, testPorts()), renderProxy(p, testPorts()), renderCNI(p)
	for _, test := range []struct {
		doc  []byte
		path []string
		want any
	}{
		{kubelet, []string{"authentication", "anonymous", "enabled"}, false},
		{kubelet, []string{"authorization", "mode"}, "Webhook"},
		{kubelet, []string{"port"}, 6006.0},
		{kubelet, []string{"address"}, nodeAddress},
		{kubelet, []string{"cgroupRoot"}, "/fairlead-test"},
		{kubelet, []string{"cgroupDriver"}, "cgroupfs"},
		{kubelet, []string{"failCgroupV1"}, false},
		{kubelet, []string{"resolvConf"}, ""},
		{kubelet, []string{"containerRuntimeEndpoint"}, "unix:///state/containerd/containerd.sock"},
		{proxy, []string{"mode"}, "nftables"},
		{proxy, []string{"healthzBindAddress"}, "127.0.0.1:6008"},
		{proxy, []string{"conntrack", "maxPerCore"}, 0.0},
		{cni, []string{"name"}, networkName},
	} {
		if got := field(t, test.doc, test.path...); got != test.want {
			t.Errorf("%s: %v, want %v", strings.Join(test.path, "."), got, test.want)
		}
	}
	containerd := string(renderContainerd(p, testPorts(), "/usr/sbin/runc", "/usr/lib/cni"))
	for _, want := range []string{
		`root = "/state/containerd/root"`,
		`sandbox = "127.0.0.1:6012/pause:1"`,
		`restrict_oom_score_adj = true`,
		`bin_dirs = ["/usr/lib/cni"]`,
		`BinaryName = "/usr/sbin/runc"`,
	} {
		if !strings.Contains(containerd, want) {
			t.Errorf("containerd's configuration has no %s:\n%s", want, containerd)
		}
	}
	dns := string(renderDNS(p, testPorts()))
	if strings.Contains(dns, "forward") || !strings.Contains(dns, `kubeconfig "/state/config/coredns.kubeconfig"`) {
		t.Errorf("CoreDNS's configuration:\n%s", dns)
	}
}

// Nothing may listen beyond the machine, and no program may fall back on a
// folder that another cluster or the machine's own containerd uses.
func TestCommandsKeepToThemselves(t *testing.T) {
	p := paths{"/state"}
	s := &state{Ports: testPorts(), Parts: map[string]string{"kube": "/cache/kube", "etcd": "/cache/etcd",
		"containerd": "/cache/containerd", "coredns": "/cache/coredns", "edge": "/cache/edge"}}
	address := regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`)
	for _, c := range components() {
		path, args := c.command(p, s)
		if !strings.HasPrefix(path, "/cache/") {
			t.Errorf("%s: binary %s", c.name, path)
		}
		for _, a := range args {
			for _, ip := range address.FindAllString(a, -1) {
				if !slices.Contains([]string{"127.0.0.1", nodeAddress, "198.19.0.0"}, ip) {
					t.Errorf("%s: %s", c.name, a)
				}
			}
			if _, value, ok := strings.Cut(a, "=/"); ok && !strings.HasPrefix(value, "state/") && !strings.HasPrefix(value, "cache/") {
				t.Errorf("%s: %s", c.name, a)
			}
		}
	}
}

func TestComponentsComeAfterWhatTheyNeed(t *testing.T) {
	var before []string
	for _, c := range components() {
		for _, need := range c.first {
			if !slices.Contains(before, need) {
				t.Errorf("%s is started before %s", c.name, need)
			}
		}
		before = append(before, c.name)
	}
	if last := before[len(before)-1]; last != "kubelet" {
		t.Errorf("%s is stopped first, want kubelet, which would restart what is killed", last)
	}
	for _, name := range []string{"apiserver", "kube-apiserver", "kube-proxy", "proxy", "kubelet"} {
		if _, err := find(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := find("nonsense"); err == nil {
		t.Error("found nonsense")
	}
}

func TestRenderEnv(t *testing.T) {
	for dir, want := range map[string]string{
		"/state":   "FAIRLEAD_TEST_KUBECONFIG=/state/kubeconfig\n",
		"/my dir":  "FAIRLEAD_TEST_KUBECONFIG='/my dir/kubeconfig'\n",
		"/it's $x": `FAIRLEAD_TEST_KUBECONFIG='/it'\''s $x/kubeconfig'` + "\n",
	} {
		got := string(renderEnv(paths{dir}, testPorts()))
		if want += "FAIRLEAD_TEST_REGISTRY=127.0.0.1:6012\n"; got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

func TestRenderPKI(t *testing.T) {
	files, kubeconfigs, err := renderPKI(testPorts())
	if err != nil {
		t.Fatal(err)
	}
	roots, etcdRoots := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(files["ca.crt"])
	etcdRoots.AppendCertsFromPEM(files["etcd-ca.crt"])
	parse := func(name string) *x509.Certificate {
		t.Helper()
		if _, err := tls.X509KeyPair(files[name+".crt"], files[name+".key"]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		block, _ := pem.Decode(files[name+".crt"])
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	server := parse("apiserver")
	for _, host := range []string{"127.0.0.1", "localhost", nodeAddress, serviceAPI, "kubernetes.default.svc"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("API server as %s: %v", host, err)
		}
	}
	client := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := parse("admin").Verify(client); err != nil {
		t.Errorf("admin: %v", err)
	}
	// A user of the cluster must not be able to open its store.
	client.Roots = etcdRoots
	if _, err := parse("admin").Verify(client); err == nil {
		t.Error("etcd trusts the admin of Kubernetes")
	}
	if _, err := parse("etcd-client").Verify(client); err != nil {
		t.Errorf("etcd-client: %v", err)
	}
	admin := string(kubeconfigs["kubeconfig"])
	for _, want := range []string{
		"server: https://127.0.0.1:6001\n",
		"certificate-authority-data: " + base64.StdEncoding.EncodeToString(files["ca.crt"]) + "\n",
		"client-key-data: " + base64.StdEncoding.EncodeToString(files["admin.key"]) + "\n",
	} {
		if !strings.Contains(admin, want) {
			t.Errorf("kubeconfig has no %q", want)
		}
	}
	if got := strings.Count(string(kubeconfigs["kubelet.kubeconfig"]), `"system:node:node1"`); got != 2 {
		t.Errorf("the kubelet's kubeconfig names its user %d times, want 2", got)
	}
}

func TestChoosePorts(t *testing.T) {
	a, err := choosePorts()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	content, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var ports map[string]int
	if err := json.Unmarshal(content, &ports); err != nil {
		t.Fatal(err)
	}
	for name, port := range ports {
		if port == 0 || seen[port] {
			t.Errorf("%s: port %d", name, port)
		}
		seen[port] = true
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "file")
	if err := writeFile(path, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: mode %o, want %o", name, got, want)
		}
	}
}

func TestForeignFolder(t *testing.T) {
	p := paths{filepath.Join(t.TempDir(), "dir")}
	check := func(when string, want bool) {
		t.Helper()
		if got, err := p.isForeign(); err != nil || got != want {
			t.Errorf("%s: foreign %v, %v, want %v", when, got, err, want)
		}
	}
	check("absent", false)
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	check("empty", false)
	if err := os.WriteFile(p.in("thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	check("with a file", true)
	if err := p.saveState(&state{}); err != nil {
		t.Fatal(err)
	}
	check("with a state", false)
	if s, err := p.loadState(); err != nil || s.Ready {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestWait(t *testing.T) {
	never := func(context.Context) error { return errors.New("not yet") }
	t.Run("succeeds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			err := wait(t.Context(), time.Minute, nil, func(ctx context.Context) error {
				if time.Since(start) < 10*time.Second {
					return errors.New("not yet")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			err := wait(t.Context(), time.Minute, nil, never)
			if err == nil || err.Error() != "not yet (waited 1m0s)" {
				t.Error(err)
			}
		})
	})
	t.Run("ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan struct{})
			close(ended)
			if err := wait(t.Context(), time.Minute, ended, never); !errors.Is(err, errEnded) {
				t.Error(err)
			}
		})
	})
	t.Run("interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			stop := errors.New("stop")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(stop)
			if err := wait(ctx, time.Minute, nil, never); !errors.Is(err, stop) {
				t.Error(err)
			}
		})
	})
}

func TestStatusErrorNamesWhatFailed(t *testing.T) {
	err := &statusError{500, "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\nreadyz check failed\n"}
	if got := err.Error(); got != "status 500: [-]etcd failed: reason withheld" {
		t.Error(got)
	}
	err = &statusError{403, strings.Repeat("x", 1000)}
	if got := len(err.Error()); got > 400 {
		t.Errorf("%d bytes", got)
	}
}

func TestLastLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for content, want := range map[string]string{
		"":         "",
		"a\nb\n\n": ": b",
		"a\nError: unknown flag\nUsage:\n  more\n": ": Error: unknown flag",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastLine(path); got != want {
			t.Errorf("%q: %q, want %q", content, got, want)
		}
	}
}

func TestShimSocketsAreOnlyThose(t *testing.T) {
	p := paths{t.TempDir()}
	for id, content := range map[string]string{
		"a": `{"version":3,"address":"unix:///run/containerd/s/0123","protocol":"ttrpc"}`,
		"b": `{"address":"unix:///run/containerd/containerd.sock"}`,
		"c": `{"address":"unix:///run/containerd/s/../../../etc/passwd"}`,
		"d": `{`,
	} {
		if err := writeFile(p.in("containerd", "state", "io.containerd.runtime.v2.task", "k8s.io", id, "bootstrap.json"), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if got := shimSockets(p); !slices.Equal(got, []string{"/run/containerd/s/0123"}) {
		t.Errorf("sockets %q", got)
	}
}
