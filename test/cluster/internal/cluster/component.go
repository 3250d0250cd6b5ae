package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"fairlead.dev/test/cluster/internal/fault"
	"fairlead.dev/test/cluster/internal/machine"
	"fairlead.dev/test/cluster/internal/process"
)

// component is one program of the cluster.
type component struct {
	name string
	// command returns the binary and its arguments.
	command func(p paths, s *state) (path string, args []string)
	// check returns nil when the program does its work, not just runs.
	check func(ctx context.Context, c *clients, s *state, p paths) error
	// first are the components that it cannot start without.
	first []string
}

// grace is what a program gets between SIGTERM and SIGKILL. The API server
// would wait for its watchers; their state is thrown away or, after a stop of
// one part, they connect again.
const grace = 2 * time.Second

// components are all programs, in the order in which they are started. They
// are stopped in the opposite order, so that the kubelet, being last, stops
// restarting pods before anything else goes.
func components() []component {
	return []component{
		{
			name: "registry",
			command: func(p paths, s *state) (string, []string) {
				return binary(s, "edge", "registry"), []string{
					"-listen=" + registryAddress(s.Ports),
					"-dir=" + p.in("registry-data"),
					"-pause=" + binary(s, "edge", "pause"),
				}
			},
			check: func(ctx context.Context, c *clients, s *state, _ paths) error {
				return c.get(ctx, c.plain, "http://"+registryAddress(s.Ports)+"/v2/pause/manifests/1")
			},
		},
		{
			name: "relay",
			command: func(_ paths, s *state) (string, []string) {
				port := strconv.Itoa(s.Ports.API)
				return binary(s, "edge", "relay"), []string{net.JoinHostPort(nodeAddress, port), "127.0.0.1:" + port}
			},
			check: func(ctx context.Context, _ *clients, s *state, _ paths) error {
				return dial(ctx, "tcp", net.JoinHostPort(nodeAddress, strconv.Itoa(s.Ports.API)))
			},
		},
		{
			name:    "etcd",
			command: etcdCommand,
			check: func(ctx context.Context, c *clients, s *state, _ paths) error {
				return c.get(ctx, c.etcd, etcdAddress(s.Ports.EtcdClient)+"/health")
			},
		},
		{
			name: "containerd",
			command: func(p paths, s *state) (string, []string) {
				return binary(s, "containerd", "containerd"), []string{"--config=" + p.config("containerd.toml")}
			},
			check: func(ctx context.Context, _ *clients, _ *state, p paths) error {
				return dial(ctx, "unix", p.containerd())
			},
		},
		{
			name:    "apiserver",
			command: apiserverCommand,
			check: func(ctx context.Context, c *clients, s *state, _ paths) error {
				return c.get(ctx, c.admin, apiAddress(s.Ports)+"/readyz")
			},
			first: []string{"etcd"},
		},
		{
			name:    "controller-manager",
			command: controllerManagerCommand,
			check: func(ctx context.Context, c *clients, s *state, _ paths) error {
				return c.get(ctx, c.admin, "https://127.0.0.1:"+strconv.Itoa(s.Ports.ControllerManager)+"/healthz")
			},
			first: []string{"apiserver"},
		},
		{
			name: "scheduler",
			command: func(p paths, s *state) (string, []string) {
				return binary(s, "kube", "kube"), []string{"kube-scheduler",
					"--kubeconfig=" + p.config("scheduler.kubeconfig"),
					"--leader-elect=false",
					"--bind-address=127.0.0.1",
					"--secure-port=" + strconv.Itoa(s.Ports.Scheduler),
					"--tls-cert-file=" + p.pki("scheduler.crt"),
					"--tls-private-key-file=" + p.pki("scheduler.key"),
				}
			},
			check: func(ctx context.Context, c *clients, s *state, _ paths) error {
				return c.get(ctx, c.admin, "https://127.0.0.1:"+strconv.Itoa(s.Ports.Scheduler)+"/healthz")
			},
			first: []string{"apiserver"},
		},
		{
			name: "kube-proxy",
			command: func(p paths, s *state) (string, []string) {
				return binary(s, "kube", "kube"), []string{"kube-proxy", "--config=" + p.config("kube-proxy.json")}
			},
			check: func(ctx context.Context, c *clients, s *state, _ paths) error {
				return c.get(ctx, c.plain, "http://127.0.0.1:"+strconv.Itoa(s.Ports.ProxyHealth)+"/healthz")
			},
			first: []string{"apiserver"},
		},
		{
			name: "coredns",
			command: func(p paths, s *state) (string, []string) {
				return binary(s, "coredns", "coredns"), []string{"-conf=" + p.config("Corefile")}
			},
			check: func(ctx context.Context, c *clients, s *state, _ paths) error {
				return c.get(ctx, c.plain, "http://127.0.0.1:"+strconv.Itoa(s.Ports.DNSReady)+"/ready")
			},
			first: []string{"apiserver"},
		},
		{
			name: "kubelet",
			command: func(p paths, s *state) (string, []string) {
				return binary(s, "kube", "kube"), []string{"kubelet",
					"--config=" + p.config("kubelet.json"),
					"--kubeconfig=" + p.config("kubelet.kubeconfig"),
					"--root-dir=" + p.in("kubelet"),
					"--cert-dir=" + p.in("kubelet", "pki"),
					"--hostname-override=" + nodeName,
					"--node-ip=" + nodeAddress,
				}
			},
			check: func(ctx context.Context, c *clients, s *state, _ paths) error {
				if err := c.get(ctx, c.plain, "http://127.0.0.1:"+strconv.Itoa(s.Ports.KubeletHealth)+"/healthz"); err != nil {
					return err
				}
				return c.nodeReady(ctx)
			},
			first: []string{"apiserver", "containerd"},
		},
	}
}

func etcdCommand(p paths, s *state) (string, []string) {
	client, peer := etcdAddress(s.Ports.EtcdClient), etcdAddress(s.Ports.EtcdPeer)
	return binary(s, "etcd", "etcd"), []string{
		"--name=default",
		"--data-dir=" + p.in("etcd"),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		"--client-cert-auth",
		"--trusted-ca-file=" + p.pki("etcd-ca.crt"),
		"--cert-file=" + p.pki("etcd.crt"),
		"--key-file=" + p.pki("etcd.key"),
		"--peer-client-cert-auth",
		"--peer-trusted-ca-file=" + p.pki("etcd-ca.crt"),
		"--peer-cert-file=" + p.pki("etcd.crt"),
		"--peer-key-file=" + p.pki("etcd.key"),
		// The data outlives a killed process, which is all that tests ask.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func apiserverCommand(p paths, s *state) (string, []string) {
	return binary(s, "kube", "kube"), []string{"kube-apiserver",
		"--etcd-servers=" + etcdAddress(s.Ports.EtcdClient),
		"--etcd-cafile=" + p.pki("etcd-ca.crt"),
		"--etcd-certfile=" + p.pki("etcd-client.crt"),
		"--etcd-keyfile=" + p.pki("etcd-client.key"),
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(s.Ports.API),
		"--advertise-address=" + nodeAddress, // where the relay listens
		"--tls-cert-file=" + p.pki("apiserver.crt"),
		"--tls-private-key-file=" + p.pki("apiserver.key"),
		"--client-ca-file=" + p.pki("ca.crt"),
		"--kubelet-certificate-authority=" + p.pki("ca.crt"),
		"--kubelet-client-certificate=" + p.pki("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + p.pki("apiserver-kubelet.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc." + domain,
		"--service-account-key-file=" + p.pki("service-account.key"),
		"--service-account-signing-key-file=" + p.pki("service-account.key"),
		"--service-cluster-ip-range=" + serviceNet,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--profiling=false",
	}
}

func controllerManagerCommand(p paths, s *state) (string, []string) {
	return binary(s, "kube", "kube"), []string{"kube-controller-manager",
		"--kubeconfig=" + p.config("controller-manager.kubeconfig"),
		"--service-account-private-key-file=" + p.pki("service-account.key"),
		"--root-ca-file=" + p.pki("ca.crt"),
		"--use-service-account-credentials",
		// Tests may ask for certificates of users with few rights.
		"--cluster-signing-cert-file=" + p.pki("ca.crt"),
		"--cluster-signing-key-file=" + p.pki("ca.key"),
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(s.Ports.ControllerManager),
		"--tls-cert-file=" + p.pki("controller-manager.crt"),
		"--tls-private-key-file=" + p.pki("controller-manager.key"),
		"--flex-volume-plugin-dir=" + p.in("kubelet", "volume-plugins"),
		// The defaults are for a cluster that many share; here they only make
		// the one test wait.
		"--kube-api-qps=200",
		"--kube-api-burst=400",
	}
}

func binary(s *state, part, name string) string { return filepath.Join(s.Parts[part], name) }

func dial(ctx context.Context, network, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// find returns the component of that name; the names that Kubernetes itself
// uses will do too.
func find(name string) (component, error) {
	names := ""
	for _, c := range components() {
		if c.name == name || "kube-"+c.name == name || c.name == "kube-"+name {
			return c, nil
		}
		names += " " + c.name
	}
	return component{}, fault.New(fmt.Errorf("find part %q: there is none of that name", name), "the parts are"+names)
}

// start starts the component; nothing happens when it runs already.
func (c component) start(p paths, s *state, g *machine.Cgroup) (ended <-chan struct{}, err error) {
	if id, err := process.Load(p.pidfile(c.name)); err == nil && id.Alive() {
		return nil, nil
	}
	path, args := c.command(p, s)
	return process.Start(process.Spec{
		Name: c.name,
		Path: path,
		Args: args,
		Env: []string{
			// containerd finds its shim beside itself.
			"PATH=" + s.Parts["containerd"] + ":" + machine.SearchPath,
			"HOME=" + p.dir,
			"TMPDIR=" + p.in("tmp"),
		},
		Dir:     p.dir,
		Log:     p.log(c.name),
		PIDFile: p.pidfile(c.name),
		Adopt:   g.Adopt,
	})
}

// stop ends the component; nothing happens when it does not run.
func (c component) stop(ctx context.Context, p paths) error {
	id, err := process.Load(p.pidfile(c.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	if err := id.Stop(ctx, grace); err != nil {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	return nil
}

// running reports whether the component's process is there.
func (c component) running(p paths) (process.ID, bool) {
	id, err := process.Load(p.pidfile(c.name))
	if err != nil {
		return process.ID{}, false
	}
	return id, id.Alive()
}
