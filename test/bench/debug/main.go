// Command debug measures debugging: from a save to a breakpoint that is hit in the new code, what a step costs, and what a
// hundred redeploys in one session leave behind.
//
//	go run ./test/bench/debug -fairlead bin/fairlead -pod bin/fairlead-pod -on local,kubernetes -n 7 -redeploys 100
//
// The breakpoint is in main, so that the start of the process leads to it. The floor is an incremental `go build` with the
// same flags and Delve's own start on the result until it stops there: the same Delve, in a process of its own, spoken to
// directly. Floor and Fairlead take turns, edit by edit, each edit being new to the build cache. Steps are measured in turns
// too: `next` until it has stopped and the stack is there.
//
// It writes one JSON object a mode to stdout: milliseconds, each as minimum, median and maximum.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fairlead.dev/test/bench/measure"
)

var (
	fairlead   = flag.String("fairlead", "bin/fairlead", "the `executable` to measure")
	pod        = flag.String("pod", "bin/fairlead-pod", "the pod's `executable` for this machine, whose Delve is the floor's")
	service    = flag.String("service", "test/fixture/shop", "the `folder` of the service (copies of it are edited)")
	on         = flag.String("on", "local", "comma-separated `providers`: local, kubernetes")
	kubeconfig = flag.String("kubeconfig", "", "for kubernetes (default: the test cluster's)")
	registry   = flag.String("registry", "", "for kubernetes (default: the test cluster's)")
	edits      = flag.Int("n", 7, "edits that count, a mode")
	warm       = flag.Int("warm", 1, "edits before those")
	steps      = flag.Int("steps", 100, "steps that count, each way")
	redeploys  = flag.Int("redeploys", 100, "redeploys of a small service in one session, on this machine; 0 leaves them out")
	verbose    = flag.Bool("v", false, "tell each edit on stderr")
)

type report struct {
	Mode     string         `json:"mode"`
	N        int            `json:"n"`
	Size     int64          `json:"size"`      // of the executable with symbols
	FloorMS  measure.Spread `json:"floor_ms"`  // go build, and Delve's start until it stands in main
	BuildMS  measure.Spread `json:"build_ms"`  // of it: the build
	TotalMS  measure.Spread `json:"total_ms"`  // save until the client is told of the stop
	BesideMS measure.Spread `json:"beside_ms"` // total less the floor of the same turn
	StepMS   measure.Spread `json:"step_ms"`   // through Fairlead
	DirectMS measure.Spread `json:"step_direct_ms"`
	// PathMS and AdaptedMS are steps over one connection to the environment, without the adapter and with it.
	PathMS    measure.Spread `json:"step_path_ms"`
	AdaptedMS measure.Spread `json:"step_adapted_ms"`
}

func main() {
	flag.Parse()
	measure.Cluster(kubeconfig, registry)
	fail := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "debug: error: %s: %v\n", what, err)
			os.Exit(1)
		}
	}
	for _, p := range strings.Split(*on, ",") {
		if p == "" {
			continue
		}
		r, err := run(p)
		fail(p, err)
		fail(p, json.NewEncoder(os.Stdout).Encode(r))
	}
	if *redeploys > 0 {
		r, err := endure(*redeploys)
		fail("redeploys", err)
		fail("redeploys", json.NewEncoder(os.Stdout).Encode(r))
	}
}

// run is one provider.
func run(provider string) (r report, err error) {
	r.Mode = provider
	dir, err := os.MkdirTemp("", "bench-debug-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	ours, floors := source{measure.Shop{Dir: filepath.Join(dir, "ours")}}, source{measure.Shop{Dir: filepath.Join(dir, "floor")}}
	for _, s := range []source{ours, floors} {
		if err := os.CopyFS(s.Dir, os.DirFS(*service)); err != nil {
			return r, err
		}
	}
	if provider == "kubernetes" {
		text := fmt.Sprintf("version: 1\non: kubernetes\nkubernetes: {kubeconfig: %s, registry: %s}\n", *kubeconfig, *registry)
		if err := os.WriteFile(filepath.Join(ours.Dir, "fairlead.yaml"), []byte(text), 0o644); err != nil {
			return r, err
		}
	}
	// An agent of its own, so that nobody else's doings are measured.
	os.Setenv("FAIRLEAD_AGENT", agentSocket(dir))
	defer os.Unsetenv("FAIRLEAD_AGENT")
	exe := filepath.Join(dir, "floor-bin")
	if _, err := floors.build(exe, provider == "local"); err != nil { // fills the build cache
		return r, err
	}
	c, err := startFairlead()
	if err != nil {
		return r, err
	}
	defer c.close()
	if err := c.begin("launch", map[string]any{"program": ours.Main(), "args": []string{"-port", freePort()}, "on": provider}, ours); err != nil {
		return r, err
	}
	thread, err := c.stopped()
	if err != nil {
		return r, err
	}
	var direct, through, floorsMS, builds, totals, beside []float64
	for i := range *warm + *edits {
		if through, err = c.step(thread, *steps/(*warm+*edits)+1, through); err != nil {
			return r, err
		}
		if err := c.call("continue", map[string]any{"threadId": thread}, nil); err != nil {
			return r, err
		}
		if err := floors.Edit(fmt.Sprintf("floor-%d", i)); err != nil {
			return r, err
		}
		start := time.Now()
		if r.Size, err = floors.build(exe, provider == "local"); err != nil {
			return r, err
		}
		built := time.Since(start)
		d, dt, err := stoppedDirectly(exe, floors)
		if err != nil {
			return r, fmt.Errorf("the floor: %w", err)
		}
		floor := time.Since(start)
		if direct, err = d.step(dt, *steps/(*warm+*edits)+1, direct); err != nil {
			return r, err
		}
		d.close()

		start = time.Now()
		if err := ours.Edit(fmt.Sprintf("ours-%d", i)); err != nil {
			return r, err
		}
		if thread, err = c.stopped(); err != nil {
			return r, err
		}
		total := time.Since(start)
		if *verbose {
			fmt.Fprintf(os.Stderr, "%s edit %d: floor %.0f (build %.0f), total %.0f\n", provider, i, measure.MS(floor), measure.MS(built), measure.MS(total))
		}
		if i < *warm {
			continue
		}
		floorsMS, builds = append(floorsMS, measure.MS(floor)), append(builds, measure.MS(built))
		totals, beside = append(totals, measure.MS(total)), append(beside, measure.MS(total)-measure.MS(floor))
	}
	r.N = len(totals)
	r.FloorMS, r.BuildMS, r.TotalMS, r.BesideMS = measure.Of(floorsMS), measure.Of(builds), measure.Of(totals), measure.Of(beside)
	r.StepMS, r.DirectMS = measure.Of(through), measure.Of(direct)
	if err := c.call("disconnect", map[string]any{"terminateDebuggee": false}, nil); err != nil { // it stays for a while, as after an editor
		return r, err
	}
	r.PathMS, r.AdaptedMS, err = stepPath(agentSocket(dir), ours, provider, *warm+*edits)
	return r, err
}
