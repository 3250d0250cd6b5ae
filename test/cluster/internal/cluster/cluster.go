// Package cluster brings up, checks and takes down a one-node Kubernetes of
// real parts: etcd, the Kubernetes programs, containerd, CoreDNS and a registry.
//
// All its files are in one state folder, and there is one cluster on a machine
// at a time, since the node's network and control groups are the machine's.
// The package owns the configuration of the programs and the order of things;
// it must not know what is tested with the cluster.
package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"fairlead.dev/test/cluster/internal/fault"
	"fairlead.dev/test/cluster/internal/lock"
	"fairlead.dev/test/cluster/internal/machine"
	"fairlead.dev/test/cluster/internal/part"
	"fairlead.dev/test/cluster/internal/process"
)

// Cluster is the cluster of one state folder; it need not run.
type Cluster struct {
	// Dir is the state folder, an absolute path.
	Dir string
	// Cache holds or builds the programs.
	Cache *part.Cache
	// Progress is told what is done.
	Progress func(format string, args ...any)
}

// How long to wait for a program that has just been started. They take a tenth
// of it; a machine that compiles on all processors at once takes the rest.
const (
	startTime = 2 * time.Minute
	mendTime  = 45 * time.Second
)

func (c *Cluster) paths() paths { return paths{c.Dir} }

// Kubeconfig is the administrator's kubeconfig file.
func (c *Cluster) Kubeconfig() string { return c.paths().kubeconfig() }

func (c *Cluster) link() machine.Link {
	return machine.Link{Name: networkName, Address: nodeAddress, Services: serviceNet}
}

func (c *Cluster) firewall() machine.Firewall {
	return machine.Firewall{Pods: podNetwork, Comment: networkName}
}

// enter checks what every act needs and takes the cluster's lock.
func (c *Cluster) enter(ctx context.Context) (leave func(), err error) {
	if os.Geteuid() != 0 {
		return nil, fault.New(errors.New("run a cluster: not root"), "a node makes mounts, networks and control groups: use sudo, with -E to keep the cache")
	}
	if len(c.Dir) > maxDir {
		return nil, fault.New(fmt.Errorf("use %s: its path is longer than %d, and sockets in it would be refused", c.Dir, maxDir), "choose a shorter folder with --dir")
	}
	// The link says so too, should somebody have removed half of the folder.
	owner, _ := c.link().Owner()
	if foreign, err := c.paths().isForeign(); err != nil {
		return nil, err
	} else if foreign && owner != c.Dir {
		return nil, fault.New(fmt.Errorf("use %s: it has files in it that no cluster wrote", c.Dir), "choose another folder with --dir, or empty it")
	}
	if err := os.MkdirAll(filepath.Dir(c.Dir), 0o755); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	return lock.Take(ctx, c.paths().lock())
}

// generation names the sources of all parts. A cluster of another generation
// is replaced, so that nobody tests with the parts of last week.
func (c *Cluster) generation() (string, error) {
	h := sha256.New()
	for _, p := range part.Parts() {
		key, err := p.Key(c.Cache.Source)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, p.Name, key)
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16], nil
}

// Build builds what is missing from the cache.
func (c *Cluster) Build(ctx context.Context) (map[string]string, error) {
	dirs := map[string]string{}
	for _, p := range part.Parts() {
		dir, err := c.Cache.Ensure(ctx, p)
		if err != nil {
			return nil, err
		}
		dirs[p.Name] = dir
	}
	return dirs, nil
}

// Up makes sure that the cluster runs and is healthy. One that is comes back
// at once; of one that lost a part, the part is started again; everything else
// is taken down and made anew.
func (c *Cluster) Up(ctx context.Context) error {
	leave, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	generation, err := c.generation()
	if err != nil {
		return err
	}
	p := c.paths()
	s, err := p.loadState()
	if err == nil && s.Ready && s.Generation == generation {
		if c.isHealthy(ctx, s) {
			return nil
		}
		err := c.mend(ctx, s)
		if err == nil || ctx.Err() != nil {
			return err
		}
		c.Progress("cannot mend it: %v; starting afresh", err)
	}
	if missing := machine.MissingPackages(); len(missing) > 0 {
		return fault.New(
			fmt.Errorf("start a cluster: programs are missing from this machine (Debian packages: %s)", strings.Join(missing, " ")),
			"install them with: go run ./cmd/cluster install (in test/cluster)")
	}
	if err := c.refuseOthers(ctx); err != nil {
		return err
	}
	// Before anything is taken down: a build that fails leaves what runs alone.
	parts, err := c.Build(ctx)
	if err != nil {
		return err
	}
	if err := c.teardown(ctx, false); err != nil {
		return err
	}
	start := time.Now()
	if err := c.create(ctx, generation, parts); err != nil {
		// Not the caller's context: after Ctrl-C there is still much to undo.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if downErr := c.teardown(undo, true); downErr != nil {
			c.Progress("while cleaning up: %v", downErr)
		}
		return fault.New(err, "the logs are kept in "+p.logs())
	}
	c.Progress("ready in %s", time.Since(start).Round(100*time.Millisecond))
	return nil
}

// refuseOthers returns an error if another cluster has the machine.
func (c *Cluster) refuseOthers(ctx context.Context) error {
	owner, ok := c.link().Owner()
	if ok && owner != c.Dir {
		g, err := machine.FindCgroup(cgroupName)
		if err != nil {
			return err
		}
		members, err := g.Members()
		if err != nil {
			return err
		}
		if len(members) > 0 {
			return fault.New(fmt.Errorf("start a cluster: another runs on this machine, from %s", owner), "take it down first: cluster down --dir "+owner)
		}
		return c.link().Delete(ctx) // of a cluster whose folder and processes are gone
	}
	if ok {
		return nil
	}
	tables, err := machine.ProxyTables(ctx)
	if err != nil {
		return err
	}
	if len(tables) > 0 {
		return fault.New(errors.New("start a cluster: this machine is a node of another Kubernetes (there are kube-proxy's tables)"), "use a machine of your own, or delete the tables with nft if they are a leftover")
	}
	return nil
}

// isHealthy reports whether everything runs and works.
func (c *Cluster) isHealthy(ctx context.Context, s *state) bool {
	for _, r := range c.examine(ctx, s) {
		if r.Err != nil {
			return false
		}
	}
	for _, path := range []string{c.paths().kubeconfig(), c.paths().registry(), c.paths().env()} {
		if _, err := os.Stat(path); err != nil {
			return false
		}
	}
	return true
}

// mend starts the parts that do not run and waits until all work.
func (c *Cluster) mend(ctx context.Context, s *state) error {
	g, err := machine.FindCgroup(cgroupName)
	if err != nil {
		return err
	}
	p := c.paths()
	if owner, _ := c.link().Owner(); owner != c.Dir {
		return errors.New("the cluster's network link is gone")
	}
	// What is started must be what was built.
	for _, part := range part.Parts() {
		if _, err := c.Cache.Ensure(ctx, part); err != nil {
			return err
		}
	}
	cl, err := newClients(p, s)
	if err != nil {
		return err
	}
	defer cl.close()
	for _, part := range components() {
		if _, ok := part.running(p); ok {
			continue
		}
		c.Progress("%s does not run: starting it again", part.name)
		if err := c.launch(ctx, part, s, g, cl, mendTime); err != nil {
			return err
		}
	}
	for _, part := range components() {
		err := wait(ctx, mendTime, nil, func(ctx context.Context) error { return part.check(ctx, cl, s, p) })
		if err != nil {
			return fmt.Errorf("wait for %s: %w", part.name, err)
		}
	}
	return c.publish(s)
}

// create makes the cluster. What it leaves when it fails, teardown removes.
func (c *Cluster) create(ctx context.Context, generation string, parts map[string]string) error {
	p := c.paths()
	ports, err := choosePorts()
	if err != nil {
		return err
	}
	sysctls, err := machine.ReadSysctls()
	if err != nil {
		return err
	}
	s := &state{Generation: generation, Ports: ports, Parts: parts, Sysctls: sysctls}
	if err := p.saveState(s); err != nil {
		return err
	}
	if err := c.writeFiles(s); err != nil {
		return err
	}
	if err := c.link().Create(ctx, c.Dir); err != nil {
		return err
	}
	if err := c.firewall().Open(ctx); err != nil {
		return err
	}
	g, err := machine.FindCgroup(cgroupName)
	if err != nil {
		return err
	}
	if err := g.Create(); err != nil {
		return err
	}
	cl, err := newClients(p, s)
	if err != nil {
		return err
	}
	defer cl.close()

	// First all that needs no other, then the API server, then its clients.
	ended := map[string]<-chan struct{}{}
	for _, part := range components() {
		for _, need := range part.first {
			if err := c.await(ctx, need, ended[need], s, cl, startTime); err != nil {
				return err
			}
		}
		if ended[part.name], err = part.start(p, s, g); err != nil {
			return err
		}
	}
	if err := cl.allowDNS(ctx); err != nil {
		return err
	}
	for _, part := range components() {
		if err := c.await(ctx, part.name, ended[part.name], s, cl, startTime); err != nil {
			return err
		}
	}
	if err := wait(ctx, startTime, nil, cl.namespaceReady); err != nil {
		return fmt.Errorf("wait for the default namespace: %w", err)
	}
	s.Ready = true
	if err := c.publish(s); err != nil {
		return err
	}
	return p.saveState(s)
}

// await waits until a part works.
func (c *Cluster) await(ctx context.Context, name string, ended <-chan struct{}, s *state, cl *clients, most time.Duration) error {
	part, err := find(name)
	if err != nil {
		return err
	}
	p := c.paths()
	err = wait(ctx, most, ended, func(ctx context.Context) error { return part.check(ctx, cl, s, p) })
	if errors.Is(err, errEnded) {
		return fmt.Errorf("wait for %s: %w%s", name, err, lastLine(p.log(name)))
	}
	if err != nil {
		return fmt.Errorf("wait for %s: %w", name, err)
	}
	return nil
}

// launch starts one part of a cluster that is otherwise there, and waits for it.
func (c *Cluster) launch(ctx context.Context, part component, s *state, g *machine.Cgroup, cl *clients, most time.Duration) error {
	ended, err := part.start(c.paths(), s, g)
	if err != nil {
		return err
	}
	return c.await(ctx, part.name, ended, s, cl, most)
}

// lastLine returns what a log says went wrong, as the rest of an error line.
// Kubernetes prints its help after an error, so the last line that looks like
// an error is preferred to the last line.
func lastLine(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	last, lastError := "", ""
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		last = line
		low := strings.ToLower(line)
		if strings.Contains(low, "error") || strings.Contains(low, "fatal") || strings.Contains(low, "panic") {
			lastError = line
		}
	}
	if lastError != "" {
		last = lastError
	}
	const most = 400
	if len(last) > most {
		last = last[:most] + "..."
	}
	if last == "" {
		return ""
	}
	return ": " + last
}

// writeFiles writes keys and configuration.
func (c *Cluster) writeFiles(s *state) error {
	p := c.paths()
	files, kubeconfigs, err := renderPKI(s.Ports)
	if err != nil {
		return err
	}
	all := map[string][]byte{
		p.config("containerd.toml"):  renderContainerd(p, s.Ports, machine.Find("runc"), machine.CNIDir()),
		p.config("kubelet.json"):     renderKubelet(p, s.Ports),
		p.config("kube-proxy.json"):  renderProxy(p, s.Ports),
		p.config("Corefile"):         renderDNS(p, s.Ports),
		p.in("cni", "pods.conflist"): renderCNI(p),
	}
	for name, content := range files {
		all[p.pki(name)] = content
	}
	for name, content := range kubeconfigs {
		all[p.config(name)] = content
	}
	for path, content := range all {
		if err := writeFile(path, content); err != nil {
			return err
		}
	}
	for _, dir := range []string{p.logs(), p.in("pids"), p.in("tmp"), p.in("registry-data")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the state folder: %w", err)
		}
	}
	return nil
}

// publish writes the files that tests read. They come last, so that their
// being there means something.
func (c *Cluster) publish(s *state) error {
	p := c.paths()
	admin, err := os.ReadFile(p.config("kubeconfig"))
	if err != nil {
		return fmt.Errorf("publish the cluster: %w", err)
	}
	for path, content := range map[string][]byte{
		p.kubeconfig(): admin,
		p.registry():   []byte(registryAddress(s.Ports) + "\n"),
		p.env():        renderEnv(p, s.Ports),
	} {
		if err := writeFile(path, content); err != nil {
			return err
		}
	}
	return nil
}

// Down takes the cluster down and removes its state. Without one it does nothing.
func (c *Cluster) Down(ctx context.Context) error {
	leave, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return c.teardown(ctx, false)
}

// teardown undoes everything, whatever is there of it: it trusts the state
// folder only for what the kernel cannot tell. With keepLogs it leaves the logs,
// and the state file as a mark that the folder is the cluster's.
func (c *Cluster) teardown(ctx context.Context, keepLogs bool) error {
	p := c.paths()
	owner, isUp := c.link().Owner()
	_, stateErr := os.Stat(p.state())
	if stateErr != nil && owner != c.Dir {
		return nil
	}
	s, err := p.loadState()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Progress("%v; going on without", err) // a damaged file must not keep a cluster up
	}
	sockets := shimSockets(p) // while their addresses are there to read
	parts := components()
	for i := len(parts) - 1; i >= 0; i-- {
		if err := parts[i].stop(ctx, p); err != nil {
			// A damaged pidfile; the control group still knows the process.
			c.Progress("%v", err)
		}
		if parts[i].name != "kubelet" || isUp && owner != c.Dir {
			continue
		}
		// Now that nothing restarts them, and while containerd is there to
		// clean up after them.
		g, err := machine.FindCgroup(cgroupName)
		if err != nil {
			return err
		}
		if err := g.KillPods(ctx); err != nil {
			return err
		}
	}
	// All below is the machine's, and so it is only touched if this cluster is
	// the one that has it.
	if !isUp || owner == c.Dir {
		g, err := machine.FindCgroup(cgroupName)
		if err != nil {
			return err
		}
		if err := g.KillAll(ctx); err != nil {
			return err
		}
		for _, path := range sockets {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove a shim's socket: %w", err)
			}
		}
		if err := machine.UnmountBelow(c.Dir); err != nil {
			return err
		}
		if isUp {
			if err := machine.DeleteProxyTables(ctx); err != nil {
				return err
			}
		}
		if err := c.firewall().Close(ctx); err != nil {
			return err
		}
		if err := machine.RemoveTraces(c.Dir, networkName); err != nil {
			return err
		}
		if err := g.Remove(); err != nil {
			return err
		}
		if s != nil {
			if err := s.Sysctls.Restore(); err != nil {
				return err
			}
		}
		if err := c.link().Delete(ctx); err != nil {
			return err
		}
	}
	return c.removeState(keepLogs)
}

// shimSockets returns the sockets of containerd's shims, which are in a folder
// that cannot be configured and stay behind when a shim is killed.
func shimSockets(p paths) []string {
	files, _ := filepath.Glob(p.in("containerd", "state", "io.containerd.runtime.v2.task", "*", "*", "bootstrap.json"))
	var sockets []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the container ended meanwhile, and removed it itself
		}
		var shim struct {
			Address string `json:"address"`
		}
		if err := json.Unmarshal(content, &shim); err != nil {
			continue
		}
		// Only where sockets of shims are: this is going to be removed.
		if path, ok := strings.CutPrefix(shim.Address, "unix://"); ok && filepath.Dir(path) == "/run/containerd/s" {
			sockets = append(sockets, path)
		}
	}
	return sockets
}

// removeState removes the state folder, the state file last: without it what
// is left would be taken for somebody else's files.
func (c *Cluster) removeState(keepLogs bool) error {
	p := c.paths()
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the cluster's state: %w", err)
	}
	for _, e := range entries {
		path := p.in(e.Name())
		if path == p.state() || keepLogs && path == p.logs() {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove the cluster's state: %w", err)
		}
	}
	if keepLogs {
		return nil
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return fmt.Errorf("remove the cluster's state: %w", err)
	}
	return nil
}

// running takes the lock and loads the state of a cluster that up has made.
func (c *Cluster) running(ctx context.Context) (*state, func(), error) {
	leave, err := c.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := c.paths().loadState()
	if err == nil && !s.Ready {
		err = fs.ErrNotExist
	}
	if err != nil {
		leave()
		if errors.Is(err, fs.ErrNotExist) {
			err = fault.New(fmt.Errorf("find the cluster in %s: none is up", c.Dir), "start it with: cluster up")
		}
		return nil, nil, err
	}
	return s, leave, nil
}

// Stop ends one part and returns when its process is gone.
func (c *Cluster) Stop(ctx context.Context, name string) error {
	part, err := find(name)
	if err != nil {
		return err
	}
	_, leave, err := c.running(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return part.stop(ctx, c.paths())
}

// Start starts one part and returns when it works.
func (c *Cluster) Start(ctx context.Context, name string) error {
	part, err := find(name)
	if err != nil {
		return err
	}
	s, leave, err := c.running(ctx)
	if err != nil {
		return err
	}
	defer leave()
	g, err := machine.FindCgroup(cgroupName)
	if err != nil {
		return err
	}
	cl, err := newClients(c.paths(), s)
	if err != nil {
		return err
	}
	defer cl.close()
	return c.launch(ctx, part, s, g, cl, startTime)
}

// Report is how one part is.
type Report struct {
	Name string
	PID  int // 0 if it does not run
	// Memory is what it holds in bytes, shared pages included.
	Memory int64
	// Err is nil if it works.
	Err error
}

// Status returns a report on each part. The error is a fault if there is no
// cluster at all.
func (c *Cluster) Status(ctx context.Context) ([]Report, error) {
	s, err := c.paths().loadState()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !s.Ready {
		return nil, fault.New(fmt.Errorf("find the cluster in %s: none is up", c.Dir), "start it with: cluster up")
	}
	if err != nil {
		return nil, err
	}
	return c.examine(ctx, s), nil
}

func (c *Cluster) examine(ctx context.Context, s *state) []Report {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	p := c.paths()
	cl, clientErr := newClients(p, s)
	if clientErr == nil {
		defer cl.close()
	}
	parts := components()
	reports := make([]Report, len(parts))
	done := make(chan struct{})
	for i, part := range parts {
		go func() {
			defer func() { done <- struct{}{} }()
			r := &reports[i]
			r.Name = part.name
			id, ok := part.running(p)
			switch {
			case !ok:
				r.Err = errors.New("it does not run")
			case clientErr != nil:
				r.Err = clientErr
			default:
				r.PID, r.Memory = id.PID, resident(id)
				r.Err = part.check(ctx, cl, s, p)
			}
		}()
	}
	for range parts {
		<-done
	}
	return reports
}

// resident returns the memory of a process; 0 if it cannot be told.
func resident(id process.ID) int64 {
	content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id.PID), "statm"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(content))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
