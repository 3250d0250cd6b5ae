// Command run is `make test`: it checks the form of the tree, builds what the tests drive, starts the test cluster where
// it can, and runs every test of every module. Under CI=true nothing may be left out.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// slow are the packages that drive real parts; they run one after the other, so that they do not starve each other on
// a small machine. Those of their tests that mostly wait, for pods, run three at once: that keeps two cores busy.
var slow = []string{"fairlead.dev/bridge/kube", "fairlead.dev/bridge/kube/lease", "fairlead.dev/bridge/kube/janitor", "fairlead.dev/platform/forge", "fairlead.dev/platform/registry", "fairlead.dev/server/review", "fairlead.dev/test/e2e", "fairlead.dev/test/editor"}

func main() {
	only := flag.String("only", "", "`names` of the steps to run, separated by commas; empty means all")
	onlyInstall := flag.Bool("install", false, "install what the editors' tests need, and run nothing")
	flag.Parse()
	if *onlyInstall {
		if err := install(); err != nil {
			fmt.Println("FAILED to install:", err)
			os.Exit(1)
		}
		return
	}
	wanted := strings.Split(*only, ",")
	start := time.Now()
	r := &runner{ci: os.Getenv("CI") == "true", env: os.Environ()}
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"format", r.format},
		{"vet", r.vet},
		{"build", r.build},
		{"cluster", r.cluster},
		{"gitea", r.gitea},
		{"tests", r.tests},
		{"tests of the cluster module", r.clusterTests},
		{"tests of the small modules", r.fixture},
		{"editors", r.editors},
		{"platforms", r.platforms},
	} {
		if *only != "" && !slices.Contains(wanted, s.name) {
			continue
		}
		t := time.Now()
		fmt.Printf("== %s\n", s.name)
		if err := s.do(); err != nil {
			r.failed = append(r.failed, s.name)
			fmt.Printf("== %s FAILED after %.0f s: %v\n", s.name, time.Since(t).Seconds(), err)
			if s.name == "build" {
				break
			}
			continue
		}
		fmt.Printf("== %s ok, %.0f s\n", s.name, time.Since(t).Seconds())
	}
	if r.dir != "" {
		os.RemoveAll(r.dir)
	}
	fmt.Printf("== all in %.0f s\n", time.Since(start).Seconds())
	if len(r.failed) > 0 {
		fmt.Printf("FAILED: %s\n", strings.Join(r.failed, ", "))
		os.Exit(1)
	}
}

type runner struct {
	ci     bool
	env    []string
	dir    string
	failed []string
}

func (r *runner) goRun(dir string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, r.env, os.Stdout, os.Stderr
	return cmd.Run()
}

func (r *runner) format() error {
	out, err := exec.Command("gofmt", "-l", ".").Output()
	if err != nil {
		return err
	}
	var bad []string
	for f := range strings.FieldsSeq(string(out)) {
		if !strings.Contains(filepath.ToSlash(f), "testdata/") {
			bad = append(bad, f)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("not formatted: %s", strings.Join(bad, " "))
	}
	return nil
}

func (r *runner) vet() error {
	return errors.Join(r.goRun(".", "vet", "./..."), r.goRun("test/cluster", "vet", "./..."), r.goRun("test/fixture/shop", "vet", "./..."), r.goRun("test/fixture/market", "vet", "./..."), r.goRun("test/authz", "vet", "./..."), r.goRun("examples/hello", "vet", "./..."))
}

// build makes the executable that the end-to-end tests drive, with its payload.
func (r *runner) build() error {
	dir, err := os.MkdirTemp("", "fairlead-test-")
	if err != nil {
		return err
	}
	r.dir = dir
	version := fmt.Sprintf("test-%d", time.Now().Unix())
	if err := r.goRun(".", "run", "./bridge/payload/gen", "-version", version, "-raw", dir); err != nil {
		return err
	}
	bin := filepath.Join(dir, "fairlead")
	if err := r.goRun(".", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -X main.version="+version, "-o", bin, "./cmd/fairlead"); err != nil {
		return err
	}
	r.env = append(r.env, "FAIRLEAD_TEST_BIN="+bin, "FAIRLEAD_PAYLOAD="+dir)
	return nil
}

// cluster starts the test cluster, or says why the tests that need it are skipped.
func (r *runner) cluster() error {
	for _, kv := range r.env {
		if strings.HasPrefix(kv, "FAIRLEAD_TEST_KUBECONFIG=") {
			fmt.Println("using the cluster that FAIRLEAD_TEST_KUBECONFIG names")
			return nil
		}
	}
	why := ""
	switch {
	case runtime.GOOS != "linux":
		why = "it needs Linux"
	case os.Geteuid() != 0:
		why = "it needs root"
	}
	if why == "" {
		cmd := exec.Command("go", "run", "./cmd/cluster", "up")
		cmd.Dir, cmd.Env, cmd.Stderr = "test/cluster", r.env, os.Stderr
		out, err := cmd.Output()
		if err == nil {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			kubeconfig := lines[len(lines)-1]
			reg, err := os.ReadFile(filepath.Join(filepath.Dir(kubeconfig), "registry"))
			if err != nil {
				return err
			}
			r.env = append(r.env, "FAIRLEAD_TEST_KUBECONFIG="+kubeconfig, "FAIRLEAD_TEST_REGISTRY="+string(bytes.TrimSpace(reg)), "FAIRLEAD_TEST_CLUSTER=1")
			return nil
		}
		why = "it did not start: " + err.Error()
	}
	if r.ci {
		return errors.New("no test cluster: " + why)
	}
	fmt.Printf("no test cluster: %s. The tests that need one are skipped.\n", why)
	return nil
}

func (r *runner) tests() error {
	out, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		return err
	}
	args := []string{"test", "-timeout", "20m"}
	for p := range strings.FieldsSeq(string(out)) {
		isSlow := false
		for _, s := range slow {
			isSlow = isSlow || p == s
		}
		if !isSlow {
			args = append(args, p)
		}
	}
	return errors.Join(r.goRun(".", args...), r.goRun(".", append([]string{"test", "-p", "1", "-parallel", "3", "-timeout", "45m"}, slow...)...))
}

func (r *runner) clusterTests() error {
	if !r.ci {
		r.env = append(r.env, "FAIRLEAD_TEST_CLUSTER="+map[bool]string{true: "1", false: "0"}[r.has("FAIRLEAD_TEST_KUBECONFIG")])
	}
	return r.goRun("test/cluster", "test", "./...")
}

func (r *runner) has(name string) bool { return r.value(name) != "" }

// value is a variable's of the environment that tests get: the last one counts.
func (r *runner) value(name string) string {
	v := ""
	for _, kv := range r.env {
		if rest, ok := strings.CutPrefix(kv, name+"="); ok {
			v = rest
		}
	}
	return v
}

func (r *runner) fixture() error {
	return errors.Join(r.goRun("test/fixture/shop", "test", "./..."), r.goRun("test/authz", "test", "./..."))
}
