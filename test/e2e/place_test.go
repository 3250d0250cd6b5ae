package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// place is where a test's environment is: on this machine, or in a namespace of the test's own.
type place struct {
	m    *machine
	on   string
	args []string // of every run
	c    *cluster // nil for local
	ns   string
}

func newLocal(t testing.TB) *place {
	t.Helper()
	return &place{m: newMachine(t), on: "local", args: []string{"--on", "local"}}
}

// newKube makes a namespace whose pods are held to Pod Security's "restricted". Environments are in it, too.
func newKube(t testing.TB) *place {
	t.Helper()
	p := newIsolated(t)
	dir := filepath.Join(p.m.root, "home", ".config", "fairlead")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.yaml"), "version: 1\nkubernetes: {isolation: none}\n")
	return p
}

// newIsolated makes such a namespace for staging alone: environments have their own, as they have where nothing is set.
func newIsolated(t testing.TB) *place {
	t.Helper()
	c := realCluster(t)
	ns := c.namespace(t)
	p := &place{m: newMachine(t), on: "kubernetes", c: c, ns: ns}
	p.args = []string{"--on", "kubernetes", "--kubeconfig", c.kubeconfig, "--namespace", ns, "--registry", c.registry}
	return p
}

// both runs a test on both providers.
func both(t *testing.T, f func(t *testing.T, p *place)) {
	t.Run("local", func(t *testing.T) { f(t, newLocal(t)) })
	t.Run("kubernetes", func(t *testing.T) { f(t, newKube(t)) })
}

// podProcesses are the processes of the environment's pods, as this machine (which is the cluster's node) sees them.
func (p *place) podProcesses(t testing.TB) []int {
	t.Helper()
	if p.c == nil {
		return p.m.processes()
	}
	l, err := p.c.kube.CoreV1().Pods(p.ns).List(context.Background(), metav1.ListOptions{LabelSelector: "fairlead.dev/environment"})
	if err != nil {
		return nil // the API server is away: whoever asks asks again
	}
	var marks [][]byte
	for _, pod := range l.Items {
		marks = append(marks, []byte("pod"+string(pod.UID)), []byte("pod"+strings.ReplaceAll(string(pod.UID), "-", "_")))
	}
	return processesWhere(func(pid int) bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		for _, m := range marks {
			if bytes.Contains(b, m) {
				return true
			}
		}
		return false
	})
}

// supervisors are the processes of the pod's side.
func (p *place) supervisors(t testing.TB) []int {
	t.Helper()
	return p.with(t, func(pid int) bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		f := strings.Split(string(b), "\x00")
		return strings.HasPrefix(executable(pid), "fairlead-pod") && len(f) > 1 && f[1] == "run"
	})
}

// services are the processes that the supervisor started itself.
func (p *place) services(t testing.TB) []int {
	t.Helper()
	sup := map[int]bool{}
	for _, pid := range p.supervisors(t) {
		sup[pid] = true
	}
	return p.with(t, func(pid int) bool {
		return sup[parent(pid)] && !strings.HasPrefix(executable(pid), "fairlead-pod")
	})
}

func (p *place) with(t testing.TB, f func(pid int) bool) []int {
	t.Helper()
	var out []int
	for _, pid := range p.podProcesses(t) {
		if f(pid) {
			out = append(out, pid)
		}
	}
	return out
}

// one returns the only element.
func one(t testing.TB, what string, pids []int) int {
	t.Helper()
	if len(pids) != 1 {
		t.Fatalf("%s: %v, want one", what, pids)
	}
	return pids[0]
}

// wantNothing checks that nothing of an environment is left: no process, folder, socket or record, no object.
func (p *place) wantNothing(t testing.TB) {
	t.Helper()
	within(t, patience, "nothing left", func() error {
		if pids := p.m.processes(); len(pids) > 0 {
			return fmt.Errorf("processes %v: %s", pids, describe(pids))
		}
		var left []string
		for _, d := range []string{p.m.state, p.m.run} {
			filepath.WalkDir(d, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() && path == filepath.Join(p.m.state, "fairlead", "registry") {
					return filepath.SkipDir // no environment's
				}
				if err == nil && !e.IsDir() && !strings.HasPrefix(e.Name(), "agent.") { // the agent itself stays for a minute
					left = append(left, path)
				}
				return nil
			})
		}
		for _, d := range []string{"fairlead/env/*", "fairlead/local/*"} {
			dirs, _ := filepath.Glob(filepath.Join(p.m.state, d))
			left = append(left, dirs...)
		}
		if p.c != nil {
			left = append(left, p.c.objects(t, p.ns)...)
		}
		if len(left) > 0 {
			return fmt.Errorf("left: %s", strings.Join(left, ", "))
		}
		return nil
	})
}

func describe(pids []int) string {
	var s []string
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		s = append(s, strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " ")))
	}
	return strings.Join(s, "; ")
}
