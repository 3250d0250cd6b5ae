package cluster

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"fairlead.dev/test/cluster/internal/pki"
)

// renderKubeconfig returns a kubeconfig with everything in it, so that a copy
// of the file works elsewhere on the machine.
func renderKubeconfig(server, user string, ca, cert, key []byte) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: fairlead-test
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: fairlead-test
  context:
    cluster: fairlead-test
    user: %[3]s
current-context: fairlead-test
`, server, b64(ca), strconv.Quote(user), b64(cert), b64(key))
}

// renderContainerd returns containerd's configuration. It names a place below
// the state folder for everything that has a default elsewhere.
func renderContainerd(p paths, ports Ports, runc, cniDir string) []byte {
	q := strconv.Quote // a Go string without odd characters is a TOML string
	return fmt.Appendf(nil, `version = 3
root = %s
state = %s
imports = []
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = %s

[plugins.'io.containerd.internal.v1.opt']
  path = %s

[plugins.'io.containerd.nri.v1.nri']
  disable = true

# The disk may lie after a power failure: the state is thrown away then anyway.
[plugins.'io.containerd.metadata.v1.bolt']
  no_sync = true

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %s

[plugins.'io.containerd.cri.v1.runtime']
  # Kubernetes asks for a negative score for sandboxes, which a machine
  # without CAP_SYS_RESOURCE refuses and runc then dies of.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [%s]
  conf_dir = %s
  use_internal_loopback = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = %s
  Root = %s
  SystemdCgroup = false
`,
		q(p.in("containerd", "root")), q(p.in("containerd", "state")),
		q(p.containerd()), q(p.in("containerd", "opt")),
		q(fmt.Sprintf("127.0.0.1:%d/pause:1", ports.Registry)),
		q(cniDir), q(p.in("cni")), q(runc), q(p.in("containerd", "runc")))
}

// renderCNI returns the network of the pods: a point-to-point link each, see
// machine.Link. There is no address translation on the way out, so that no
// test reaches beyond the machine by accident.
func renderCNI(p paths) []byte {
	return mustJSON(object{
		"cniVersion": "1.0.0",
		"name":       networkName,
		"plugins": []object{{
			"type":   "ptp",
			"ipMasq": false,
			"ipam": object{
				"type":    "host-local",
				"dataDir": p.in("cni-addresses"),
				"ranges":  [][]object{{{"subnet": podNetwork, "gateway": nodeAddress}}},
				"routes":  []object{{"dst": "0.0.0.0/0"}},
			},
		}},
	})
}

// renderKubelet returns the kubelet's configuration, as JSON, which is YAML.
func renderKubelet(p paths, ports Ports) []byte {
	return mustJSON(object{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  nodeAddress,
		"port":                     ports.Kubelet,
		"healthzBindAddress":       "127.0.0.1",
		"healthzPort":              ports.KubeletHealth,
		"readOnlyPort":             0,
		"tlsCertFile":              p.pki("kubelet.crt"),
		"tlsPrivateKeyFile":        p.pki("kubelet.key"),
		"authentication":           object{"anonymous": object{"enabled": false}, "webhook": object{"enabled": true}, "x509": object{"clientCAFile": p.pki("ca.crt")}},
		"authorization":            object{"mode": "Webhook"},
		"containerRuntimeEndpoint": "unix://" + p.containerd(),
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               "/" + cgroupName,
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"enforceNodeAllocatable":   []string{},
		// -999, the default, takes a capability that containers lack.
		"oomScoreAdj":   0,
		"clusterDomain": domain,
		"clusterDNS":    []string{nodeAddress},
		// Empty: the names that the machine's own network knows must not make
		// a test pass here and fail elsewhere.
		"resolvConf":             "",
		"podLogsDir":             p.in("pod-logs"),
		"volumePluginDir":        p.in("kubelet", "volume-plugins"),
		"makeIPTablesUtilChains": false,
		// A full developer's disk is no reason to evict pods or drop images.
		"evictionHard":                object{"memory.available": "100Mi"},
		"imageGCHighThresholdPercent": 100,
		"serializeImagePulls":         false,
		"registryPullQPS":             0,
		"eventRecordQPS":              0,
		"kubeAPIQPS":                  200,
		"kubeAPIBurst":                400,
	})
}

// renderProxy returns kube-proxy's configuration.
func renderProxy(p paths, ports Ports) []byte {
	return mustJSON(object{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"clientConnection":   object{"kubeconfig": p.config("kube-proxy.kubeconfig")},
		"hostnameOverride":   nodeName,
		"bindAddress":        nodeAddress,
		"clusterCIDR":        podNetwork,
		"healthzBindAddress": "127.0.0.1:" + strconv.Itoa(ports.ProxyHealth),
		"metricsBindAddress": "127.0.0.1:" + strconv.Itoa(ports.ProxyMetrics),
		"oomScoreAdj":        0,
		// A second between changes, the default, is most of the time that a
		// test waits for a service.
		"nftables": object{"minSyncPeriod": "50ms"},
		// Zero leaves the machine's own settings alone.
		"conntrack": object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	})
}

// renderDNS returns CoreDNS's configuration. Names outside the cluster do not
// exist: with nowhere to forward them a server refuses, which resolvers take
// for a broken server and ask again.
func renderDNS(p paths, ports Ports) []byte {
	return fmt.Appendf(nil, `%[1]s in-addr.arpa {
    bind %[2]s
    errors
    health 127.0.0.1:%[3]d
    ready 127.0.0.1:%[4]d
    kubernetes %[1]s in-addr.arpa {
        kubeconfig %[5]q fairlead-test
        pods insecure
        ttl 1
    }
}
. {
    bind %[2]s
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`, domain, nodeAddress, ports.DNSHealth, ports.DNSReady, p.config("coredns.kubeconfig"))
}

// renderEnv returns shell assignments. They are quoted only where a shell needs
// it, since CI systems read such lines too, and take quotes for content.
func renderEnv(p paths, ports Ports) []byte {
	quote := func(s string) string {
		if !strings.ContainsAny(s, " \t\n'\"\\$`|&;<>()*?[]#~{}!") {
			return s
		}
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return fmt.Appendf(nil, "FAIRLEAD_TEST_KUBECONFIG=%s\nFAIRLEAD_TEST_REGISTRY=%s\n",
		quote(p.kubeconfig()), quote(registryAddress(ports)))
}

func registryAddress(ports Ports) string { return "127.0.0.1:" + strconv.Itoa(ports.Registry) }

func apiAddress(ports Ports) string { return "https://127.0.0.1:" + strconv.Itoa(ports.API) }

func etcdAddress(port int) string { return "https://127.0.0.1:" + strconv.Itoa(port) }

// renderPKI returns the key and certificate files by name, and the kubeconfig
// files that carry some of them.
func renderPKI(ports Ports) (files, kubeconfigs map[string][]byte, err error) {
	ca, err := pki.NewAuthority("fairlead-test")
	if err != nil {
		return nil, nil, err
	}
	// etcd has an authority of its own: it knows no rights, so a certificate
	// of the least user of the cluster would open all of it.
	etcdCA, err := pki.NewAuthority("fairlead-test-etcd")
	if err != nil {
		return nil, nil, err
	}
	_, saKey, err := pki.NewKey()
	if err != nil {
		return nil, nil, err
	}
	files = map[string][]byte{
		"ca.crt": ca.CertPEM, "ca.key": ca.KeyPEM,
		"etcd-ca.crt":         etcdCA.CertPEM,
		"service-account.key": saKey,
	}
	issue := func(from *pki.Authority, file string, s pki.Subject) error {
		cert, key, err := from.Issue(s)
		if err != nil {
			return err
		}
		files[file+".crt"], files[file+".key"] = cert, key
		return nil
	}
	loopback := []string{"localhost", "127.0.0.1"}
	for _, c := range []struct {
		from *pki.Authority
		file string
		who  pki.Subject
	}{
		{etcdCA, "etcd", pki.Subject{Name: "etcd", Hosts: loopback}},
		{etcdCA, "etcd-client", pki.Subject{Name: "kube-apiserver"}},
		{ca, "apiserver", pki.Subject{Name: "kube-apiserver", Hosts: append([]string{
			nodeAddress, serviceAPI, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain,
		}, loopback...)}},
		{ca, "apiserver-kubelet", pki.Subject{Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}}},
		{ca, "controller-manager", pki.Subject{Name: "kube-controller-manager", Hosts: loopback}},
		{ca, "scheduler", pki.Subject{Name: "kube-scheduler", Hosts: loopback}},
		{ca, "kubelet", pki.Subject{Name: "system:node:" + nodeName, Groups: []string{"system:nodes"}, Hosts: []string{nodeName, nodeAddress}}},
		{ca, "admin", pki.Subject{Name: "fairlead-test-admin", Groups: []string{"system:masters"}}},
	} {
		if err := issue(c.from, c.file, c.who); err != nil {
			return nil, nil, err
		}
	}

	server := apiAddress(ports)
	kubeconfigs = map[string][]byte{}
	for file, who := range map[string]pki.Subject{
		"controller-manager.kubeconfig": {Name: "system:kube-controller-manager"},
		"scheduler.kubeconfig":          {Name: "system:kube-scheduler"},
		"kubelet.kubeconfig":            {Name: "system:node:" + nodeName, Groups: []string{"system:nodes"}},
		"kube-proxy.kubeconfig":         {Name: "system:kube-proxy"},
		"coredns.kubeconfig":            {Name: dnsUser},
	} {
		cert, key, err := ca.Issue(who)
		if err != nil {
			return nil, nil, err
		}
		kubeconfigs[file] = renderKubeconfig(server, who.Name, ca.CertPEM, cert, key)
	}
	kubeconfigs["kubeconfig"] = renderKubeconfig(server, "admin", ca.CertPEM, files["admin.crt"], files["admin.key"])
	return files, kubeconfigs, nil
}

// object is a JSON object.
type object = map[string]any

// mustJSON panics on values that have no JSON form, which no input can cause.
func mustJSON(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(b, '\n')
}
