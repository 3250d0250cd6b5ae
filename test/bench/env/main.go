// Command env measures what an environment on Kubernetes costs: to start it with ten shared dependencies, beside none; with
// five fresh copies (PostgreSQL, MariaDB, Redis and two services), beside the same five workloads started plainly together with
// an environment that needs none, since a sixth pod is not free on a small machine; and fifty
// of them on one cluster, with all that there is afterwards.
//
//	go run ./test/bench/env -n 5 -many 50
//
// What is compared takes turns, round by round, so that a machine that is busy for a while is busy for all. A start ends when
// the pod can be dialled and the copies are ready. It writes one JSON object a question to stdout: milliseconds, each as
// minimum, median and maximum.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/bridge"
	"fairlead.dev/bridge/kube"
	"fairlead.dev/bridge/payload"
	"fairlead.dev/test/bench/measure"
)

var (
	fairlead   = flag.String("fairlead", "bin/fairlead", "the `executable` whose agent holds the many")
	market     = flag.String("market", "test/fixture/market", "the `folder` of the services that are depended on")
	kubeconfig = flag.String("kubeconfig", "", "of the cluster (default: the test cluster's)")
	registry   = flag.String("registry", "", "that the cluster pulls from (default: the test cluster's)")
	rounds     = flag.Int("n", 5, "rounds that count; 0 leaves out what takes turns")
	warm       = flag.Int("warm", 1, "rounds before those: they fetch images")
	many       = flag.Int("many", 50, "environments at the same time; 0 leaves them out")
	atOnce     = flag.Int("at-once", 4, "how many of those are asked for at the same time")
	verbose    = flag.Bool("v", false, "tell on stderr what is being done")
)

// sharedReport is what ten shared dependencies cost.
type sharedReport struct {
	What     string         `json:"what"`
	N        int            `json:"n"`
	NoneMS   measure.Spread `json:"none_ms"`
	SharedMS measure.Spread `json:"shared_ms"`
	BesideMS measure.Spread `json:"beside_ms"` // with ten less with none, of the same round
	GoalMS   float64        `json:"goal_ms"`   // for the median of it
}

// freshReport is what five fresh copies cost.
type freshReport struct {
	What      string                    `json:"what"`
	N         int                       `json:"n"`
	AloneMS   map[string]measure.Spread `json:"alone_ms"`       // each of the five, started plainly and alone
	SlowestMS measure.Spread            `json:"slowest_ms"`     // the slowest of those in each round
	FiveMS    measure.Spread            `json:"five_ms"`        // all five at once, started plainly, until the last is ready
	FloorMS   measure.Spread            `json:"floor_ms"`       // the five, and an environment that needs none of them: six pods, as a fresh one has
	FreshMS   measure.Spread            `json:"fresh_ms"`       // an environment with copies of the five
	BesideMS  measure.Spread            `json:"beside_ms"`      // it less the floor of the same round
	FiveBesMS measure.Spread            `json:"beside_five_ms"` // it less the five of the same round: five pods, one fewer than it has
	Ratio     float64                   `json:"ratio"`          // its median over the floor's
	GoalMS    float64                   `json:"goal_ms"`        // for the median of beside
}

func main() {
	flag.Parse()
	measure.Cluster(kubeconfig, registry)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // what was made is removed then too
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "env: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	out := json.NewEncoder(os.Stdout)
	if *rounds > 0 {
		s, f, err := turns(ctx)
		if err != nil {
			return err
		}
		if err := out.Encode(s); err != nil {
			return err
		}
		if err := out.Encode(f); err != nil {
			return err
		}
	}
	if *many > 0 {
		m, err := crowd(ctx)
		if err != nil {
			return err
		}
		return out.Encode(m)
	}
	return nil
}

func say(format string, args ...any) {
	if *verbose {
		fmt.Fprintf(os.Stderr, time.Now().Format("05.000 ")+format+"\n", args...)
	}
}

// turns measures an environment without dependencies, with ten shared ones, and with five fresh ones.
func turns(ctx context.Context) (s sharedReport, f freshReport, err error) {
	alone, err := newStaging(ctx)
	if err != nil {
		return s, f, err
	}
	defer alone.close()
	around, err := newStaging(ctx)
	if err != nil {
		return s, f, err
	}
	defer around.close()
	if err := alone.service(ctx, "none", nil); err != nil {
		return s, f, err
	}
	copied, err := around.deployMarket(ctx)
	if err != nil {
		return s, f, err
	}
	shared, err := around.deployTen(ctx)
	if err != nil {
		return s, f, err
	}
	if err := around.service(ctx, "shared", shared); err != nil {
		return s, f, err
	}
	if err := around.service(ctx, "fresh", copied); err != nil {
		return s, f, err
	}
	if err := around.ready(ctx, "", len(copied)+len(shared)); err != nil {
		return s, f, err
	}
	var none, ten, tenBeside, slowest, plains, floors, five, fiveBeside, sixBeside []float64
	each := map[string][]float64{}
	for i := range *warm + *rounds {
		a, err := alone.open(ctx, "none", nil)
		if err != nil {
			return s, f, err
		}
		b, err := around.open(ctx, "shared", nil)
		if err != nil {
			return s, f, err
		}
		one := map[string]float64{}
		for _, name := range copied {
			if one[name], err = around.plain(ctx, name); err != nil {
				return s, f, err
			}
		}
		plain, err := around.plain(ctx, copied...)
		if err != nil {
			return s, f, err
		}
		six, err := beside(ctx, around, copied, alone)
		if err != nil {
			return s, f, err
		}
		c, err := around.open(ctx, "fresh", copied)
		if err != nil {
			return s, f, err
		}
		say("round %d: none %.0f, shared %.0f, alone %v, five plain %.0f, six plain %.0f, five fresh %.0f", i, a, b, one, plain, six, c)
		if i < *warm {
			continue
		}
		none, ten, tenBeside = append(none, a), append(ten, b), append(tenBeside, b-a)
		plains, floors, five = append(plains, plain), append(floors, six), append(five, c)
		fiveBeside, sixBeside = append(fiveBeside, c-plain), append(sixBeside, c-six)
		worst := 0.0
		for name, v := range one {
			each[name] = append(each[name], v)
			worst = max(worst, v)
		}
		slowest = append(slowest, worst)
	}
	s = sharedReport{What: "10 shared dependencies", N: len(ten), NoneMS: measure.Of(none), SharedMS: measure.Of(ten), BesideMS: measure.Of(tenBeside), GoalMS: 1000}
	f = freshReport{What: "5 fresh dependencies", N: len(five), AloneMS: map[string]measure.Spread{}, SlowestMS: measure.Of(slowest), FiveMS: measure.Of(plains),
		FloorMS: measure.Of(floors), FreshMS: measure.Of(five), BesideMS: measure.Of(sixBeside), FiveBesMS: measure.Of(fiveBeside), GoalMS: 2000}
	for name, v := range each {
		f.AloneMS[name] = measure.Of(v)
	}
	f.Ratio = f.FreshMS.Median / f.FloorMS.Median
	return s, f, nil
}

// beside is how long it takes when the five are started plainly while an environment that needs none of them is opened.
func beside(ctx context.Context, around *staging, copied []string, alone *staging) (float64, error) {
	type end struct {
		took float64
		err  error
	}
	opened := make(chan end, 1)
	go func() {
		took, err := alone.open(ctx, "none", nil)
		opened <- end{took, err}
	}()
	took, err := around.plain(ctx, copied...)
	o := <-opened
	return max(took, o.took), errors.Join(err, o.err)
}

// open makes an environment of a staging service and removes it again. The time is that of the start.
func (s *staging) open(ctx context.Context, service string, fresh []string) (float64, error) {
	var b [40]byte
	rand.Read(b[:])
	spec := bridge.Spec{Name: service + "-" + hex.EncodeToString(b[:3]), Service: service, Owner: "bench@here", Dir: "/bench/" + service,
		Token: hex.EncodeToString(b[8:]), Version: "bench", Dependencies: map[string]api.DependencyWish{}}
	for _, name := range fresh {
		spec.Dependencies[name] = api.DependencyWish{Mode: api.DependencyFresh}
	}
	var late string
	start := time.Now()
	e, err := kube.Open(ctx, spec, kube.Options{Kubeconfig: *kubeconfig, Registry: *registry, Namespace: s.namespace, Payload: payload.Executable, Version: "bench",
		Progress: func(m string) {
			say("  %5.0f %s", measure.MS(time.Since(start)), m)
			late = m
		}})
	if err != nil {
		return 0, fmt.Errorf("%w (the last step: %s)", err, late)
	}
	took := measure.MS(time.Since(start))
	deps, err := e.Dependencies(ctx)
	if err != nil {
		return 0, err
	}
	for _, name := range fresh {
		if i := slices.IndexFunc(deps, func(d api.Dependency) bool { return d.Name == name }); i < 0 || deps[i].Mode != api.DependencyFresh || deps[i].Health != api.HealthReady {
			return 0, fmt.Errorf("dependency %s is not fresh and ready: %+v", name, deps)
		}
	}
	return took, e.Delete(ctx)
}
