package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"fairlead.dev/api"
	agent "fairlead.dev/server/client"
	"fairlead.dev/test/bench/measure"
)

// crowdReport is of many environments on one cluster, held by one agent.
type crowdReport struct {
	What    string         `json:"what"`
	N       int            `json:"n"`
	UpMS    float64        `json:"up_ms"`   // until the last is live, builds included
	EachMS  measure.Spread `json:"each_ms"` // from the request until live
	GoneMS  float64        `json:"gone_ms"`
	Objects map[string]int `json:"objects"` // in the cluster while all are up, by kind, beyond what was there before
	Left    map[string]int `json:"left"`    // of those when all are gone
	// AgentMB is the agent's resident memory before the first, and with all of them.
	AgentMB [2]float64 `json:"agent_mb"`
}

const crowdSource = `package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	panic(http.ListenAndServe(":8080", nil))
}
`

// crowd makes many environments by one agent, each of a service of its own, and removes them.
func crowd(ctx context.Context) (r crowdReport, err error) {
	r = crowdReport{What: fmt.Sprintf("%d environments", *many), N: *many, Objects: map[string]int{}, Left: map[string]int{}}
	s, err := newStaging(ctx)
	if err != nil {
		return r, err
	}
	defer s.close()
	if err := s.service(ctx, "like", nil); err != nil {
		return r, err
	}
	dir, err := os.MkdirTemp("", "bench-env-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	before, err := s.count(ctx)
	if err != nil {
		return r, err
	}
	a, pid, stop, err := startAgent(ctx, dir)
	if err != nil {
		return r, err
	}
	defer stop()
	r.AgentMB[0] = residentMB(pid)

	live := map[string]chan struct{}{}
	var mu sync.Mutex             // of live and failed
	failed := map[string]string{} // the last problem of each
	of := func(name string) chan struct{} {
		mu.Lock()
		defer mu.Unlock()
		if live[name] == nil {
			live[name] = make(chan struct{})
		}
		return live[name]
	}
	actx, detach := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer detach()
	wg.Go(func() {
		a.Attach(actx, func(u agent.Update) {
			svc := u.Service
			if svc == nil {
				return
			}
			c := of(svc.Name)
			for _, p := range svc.Problems {
				say("%s: %s", svc.Name, p.Message)
				mu.Lock()
				failed[svc.Name] = p.Message
				mu.Unlock()
			}
			if svc.Phase == api.PhaseLive || svc.Phase == api.PhaseEnded {
				select {
				case <-c:
				default:
					close(c)
				}
			}
		})
	})
	start := time.Now()
	var each []float64
	var errs []error
	next := make(chan int)
	var runs sync.WaitGroup
	for range *atOnce {
		runs.Go(func() {
			for i := range next {
				took, err := s.runOne(ctx, a, dir, i, of)
				mu.Lock()
				each = append(each, took)
				if err != nil {
					errs = append(errs, fmt.Errorf("environment %d: %w (%v)", i, err, failed))
				}
				mu.Unlock()
			}
		})
	}
	for i := range *many {
		next <- i
	}
	close(next)
	runs.Wait()
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	r.UpMS, r.EachMS, r.AgentMB[1] = measure.MS(time.Since(start)), measure.Of(each), residentMB(pid)
	up, err := s.count(ctx)
	if err != nil {
		return r, err
	}
	for kind, n := range up {
		if n -= before[kind]; n != 0 {
			r.Objects[kind] = n
		}
	}
	all, err := a.Services(ctx)
	if err != nil {
		return r, err
	}
	if len(all) != *many {
		return r, fmt.Errorf("the agent has %d services", len(all))
	}
	start = time.Now()
	var gone sync.WaitGroup
	for _, svc := range all {
		gone.Go(func() {
			if err := a.StopAndWait(ctx, svc.Name); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	gone.Wait()
	r.GoneMS = measure.MS(time.Since(start))
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	after, err := s.count(ctx)
	if err != nil {
		return r, err
	}
	for kind, n := range after {
		if n -= before[kind]; n != 0 {
			r.Left[kind] = n
		}
	}
	if len(r.Left) > 0 {
		return r, fmt.Errorf("left in the cluster: %v", r.Left)
	}
	return r, nil
}

// runOne makes one service and its environment, and waits until it is live.
func (s *staging) runOne(ctx context.Context, a *agent.Client, dir string, i int, of func(string) chan struct{}) (float64, error) {
	src := filepath.Join(dir, fmt.Sprintf("svc%02d", i))
	if err := os.Mkdir(src, 0o755); err != nil {
		return 0, err
	}
	for name, text := range map[string]string{
		"go.mod": fmt.Sprintf("module example.com/svc%02d\n\ngo 1.26\n", i), "main.go": crowdSource, "fairlead.yaml": "version: 1\nkubernetes: {template: like, isolation: none}\n",
	} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	start := time.Now()
	ans, err := a.Run(ctx, api.RunRequest{Client: a.ID(), Dir: src, On: "kubernetes", Kubeconfig: *kubeconfig, Registry: *registry, Namespace: s.namespace, Env: os.Environ()})
	if err != nil {
		return 0, err
	}
	select {
	case <-of(ans.Name):
	case <-ctx.Done():
		return 0, fmt.Errorf("%s is not live", ans.Name)
	}
	took := measure.MS(time.Since(start))
	all, err := a.Services(ctx)
	if err != nil {
		return 0, err
	}
	if i := slices.IndexFunc(all, func(s api.Service) bool { return s.Name == ans.Name }); i < 0 || all[i].Phase == api.PhaseEnded {
		return 0, errors.New("its session has ended")
	}
	say("%s is live after %.0f ms", ans.Name, took)
	return took, nil
}

// startAgent starts an agent with folders of its own.
func startAgent(ctx context.Context, dir string) (*agent.Client, int, func(), error) {
	socket := filepath.Join(dir, "agent.sock")
	cmd := exec.CommandContext(ctx, *fairlead, "agent")
	cmd.Env = append(os.Environ(), "FAIRLEAD_AGENT="+socket, "XDG_STATE_HOME="+dir, "XDG_RUNTIME_DIR="+dir)
	log, err := os.Create(filepath.Join(dir, "agent.log"))
	if err != nil {
		return nil, 0, nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, 0, nil, err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop := func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			cmd.Process.Kill()
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		info, err := agent.New(agent.Options{Socket: socket, Name: "bench"}).Agent(ctx)
		if err == nil {
			return agent.New(agent.Options{Socket: socket, Name: "bench", Version: info.Version}), cmd.Process.Pid, stop, nil
		}
		select {
		case <-ended:
		default:
			if time.Now().Before(end) {
				continue
			}
		}
		stop()
		said, _ := os.ReadFile(log.Name())
		return nil, 0, nil, fmt.Errorf("the agent does not answer: %w\n%s", err, said)
	}
}

// residentMB is a process's resident memory.
func residentMB(pid int) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return n / 1024
		}
	}
	return 0
}

// count is how many objects of each kind the namespace has. Events are left out: they go by themselves.
func (s *staging) count(ctx context.Context) (map[string]int, error) {
	lists, err := s.kube.Discovery().ServerPreferredNamespacedResources()
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(s.config)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, l := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "get"}}, lists) {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, res := range l.APIResources {
			if slices.Contains([]string{"Event", "PodMetrics"}, res.Kind) {
				continue
			}
			items, err := dyn.Resource(gv.WithResource(res.Name)).Namespace(s.namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", res.Kind, err)
			}
			out[res.Kind] += len(items.Items)
		}
	}
	return out, nil
}
