package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"fairlead.dev/test/cluster/internal/machine"
)

// The cluster's own network. 198.18.0.0/15 is set aside for tests between
// devices, so it is neither on the internet nor, as a rule, in an office.
const (
	networkName = "fairlead-test"
	nodeName    = "node1"
	nodeAddress = "198.18.0.1" // of the link: the node, the DNS server, the pods' gateway
	podNetwork  = "198.18.0.0/24"
	serviceNet  = "198.19.0.0/16" // wide, so that a Service seldom gets the address that another had a moment ago
	serviceAPI  = "198.19.0.1"    // the first of serviceNet is always the kubernetes service
	domain      = "cluster.local"
	cgroupName  = "fairlead-test"
)

// maxDir keeps the longest socket path below what the kernel takes, 107 bytes,
// and its name's last part may get a suffix.
const maxDir = 107 - len("/kubelet/pod-resources/kubelet.sock") - len(".tmp-1234567890")

// Ports are those on loopback, or on the link where the comment says so.
type Ports struct {
	API               int `json:"api"` // also on the link, by the relay
	EtcdClient        int `json:"etcdClient"`
	EtcdPeer          int `json:"etcdPeer"`
	ControllerManager int `json:"controllerManager"`
	Scheduler         int `json:"scheduler"`
	Kubelet           int `json:"kubelet"` // on the link
	KubeletHealth     int `json:"kubeletHealth"`
	ProxyHealth       int `json:"proxyHealth"`
	ProxyMetrics      int `json:"proxyMetrics"`
	DNSHealth         int `json:"dnsHealth"`
	DNSReady          int `json:"dnsReady"`
	Registry          int `json:"registry"`
}

// choosePorts takes the customary port for each purpose if it is free, and any
// other if not: a leftover, or another program's, must not stop a test run.
func choosePorts() (Ports, error) {
	var p Ports
	// All stay open until the last is chosen, so that none is chosen twice.
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	for _, want := range []struct {
		port      *int
		customary int
	}{
		{&p.API, 6443},
		{&p.EtcdClient, 2379},
		{&p.EtcdPeer, 2380},
		{&p.ControllerManager, 10257},
		{&p.Scheduler, 10259},
		{&p.Kubelet, 10250},
		{&p.KubeletHealth, 10248},
		{&p.ProxyHealth, 10256},
		{&p.ProxyMetrics, 10249},
		{&p.DNSHealth, 10244},
		{&p.DNSReady, 10245},
		{&p.Registry, 5000},
	} {
		// Of every address, so that a port is refused which another program
		// holds on the link or on all of them.
		l, err := net.Listen("tcp4", ":"+strconv.Itoa(want.customary))
		if err != nil {
			l, err = net.Listen("tcp4", ":0")
		}
		if err != nil {
			return Ports{}, fmt.Errorf("choose ports: %w", err)
		}
		open = append(open, l)
		*want.port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

// state is what one cluster remembers from one command to the next.
type state struct {
	// Ready is set when up has finished: without it the cluster is half made.
	Ready bool `json:"ready"`
	// Generation names the sources that the cluster was made from.
	Generation string `json:"generation"`
	Ports      Ports  `json:"ports"`
	// Parts are the folders of the binaries by the name of the part.
	Parts map[string]string `json:"parts"`
	// Sysctls are the kernel settings to go back to.
	Sysctls machine.Sysctls `json:"sysctls"`
}

// paths are the places in a state folder.
type paths struct{ dir string }

func (p paths) in(elem ...string) string {
	return filepath.Join(append([]string{p.dir}, elem...)...)
}

func (p paths) state() string              { return p.in("state.json") }
func (p paths) kubeconfig() string         { return p.in("kubeconfig") }
func (p paths) registry() string           { return p.in("registry") }
func (p paths) env() string                { return p.in("env") }
func (p paths) logs() string               { return p.in("logs") }
func (p paths) log(name string) string     { return p.in("logs", name+".log") }
func (p paths) pidfile(name string) string { return p.in("pids", name+".json") }
func (p paths) pki(name string) string     { return p.in("pki", name) }
func (p paths) config(name string) string  { return p.in("config", name) }
func (p paths) containerd() string         { return p.in("containerd", "containerd.sock") }

// lock is beside the folder, as the folder itself is removed.
func (p paths) lock() string { return p.dir + ".lock" }

// loadState returns the remembered state, fs.ErrNotExist if there is none.
func (p paths) loadState() (*state, error) {
	content, err := os.ReadFile(p.state())
	if err != nil {
		return nil, fmt.Errorf("read the cluster's state: %w", err)
	}
	var s state
	if err := json.Unmarshal(content, &s); err != nil {
		return nil, fmt.Errorf("read the cluster's state %s: %w", p.state(), err)
	}
	return &s, nil
}

func (p paths) saveState(s *state) error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write the cluster's state: %w", err)
	}
	return writeFile(p.state(), append(content, '\n'))
}

// writeFile writes a file for its owner's eyes, whole or not at all.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path+".tmp", content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// isForeign reports whether there is something in dir that no cluster wrote:
// down removes the whole folder, which must not be somebody's home.
func (p paths) isForeign() (bool, error) {
	if _, err := os.Stat(p.state()); err == nil {
		return false, nil
	}
	entries, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", p.dir, err)
	}
	return len(entries) > 0, nil
}
