// Command edit measures the inner loop: from a save to the first answer of the new code, beside a floor in the same run.
//
// The floor is an incremental `go build` with the same flags and the start of the process until it answers. Floor and
// Fairlead take turns, edit by edit, each edit being new to the build cache, so that a machine that is busy for a while
// is busy for both. An edit adds lines to the main package and changes a constant in another.
//
//	go run ./test/bench/edit -fairlead bin/fairlead -on local,kubernetes -n 7
//
// It writes one JSON object a mode to stdout: milliseconds and bytes, each as minimum, median and maximum.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/test/bench/measure"
	"fairlead.dev/test/freeport"
)

var (
	fairlead   = flag.String("fairlead", "bin/fairlead", "the `executable` to measure")
	service    = flag.String("service", "test/fixture/shop", "the `folder` of the service (a copy of it is edited)")
	on         = flag.String("on", "local", "comma-separated `providers`: local, kubernetes")
	kubeconfig = flag.String("kubeconfig", "", "for kubernetes (default: the test cluster's)")
	registry   = flag.String("registry", "", "for kubernetes (default: the test cluster's)")
	edits      = flag.Int("n", 7, "edits that count, a mode")
	warm       = flag.Int("warm", 2, "edits before those")
	drain      = flag.Duration("drain", 3*time.Second, "how long the slow service drains in the second mode of each provider; 0 leaves that mode out")
	verbose    = flag.Bool("v", false, "tell each edit on stderr")
)

type report struct {
	Mode       string         `json:"mode"`
	N          int            `json:"n"`
	FloorMS    measure.Spread `json:"floor_ms"`    // go build and start, until it answers
	TotalMS    measure.Spread `json:"total_ms"`    // save until the new code answers
	OverheadMS measure.Spread `json:"overhead_ms"` // beyond the build inside this very edit and the start of the floor beside it
	BesideMS   measure.Spread `json:"beside_ms"`   // total less the floor of the same turn
	BuildMS    measure.Spread `json:"build_ms"`    // of it: the build
	TransferMS measure.Spread `json:"transfer_ms"`
	Bytes      measure.Spread `json:"bytes"`
	Percent    measure.Spread `json:"bytes_percent"` // of the executable
	Size       int64          `json:"size"`
	FirstMS    float64        `json:"first_ms"`       // `fairlead run` until ready, warm build cache
	FirstFloor float64        `json:"first_floor_ms"` // go build of unchanged source to a new file, and start
}

func main() {
	flag.Parse()
	measure.Cluster(kubeconfig, registry)
	for _, p := range strings.Split(*on, ",") {
		modes := []time.Duration{0}
		if *drain > 0 {
			modes = append(modes, *drain)
		}
		for _, d := range modes {
			r, err := run(p, d)
			if err != nil {
				fmt.Fprintf(os.Stderr, "edit: error: %s: %v\n", p, err)
				os.Exit(1)
			}
			json.NewEncoder(os.Stdout).Encode(r)
		}
	}
}

// bench is one mode under measurement.
type bench struct {
	dir, src string
	native   bool
	edit     int
	floorCmd *exec.Cmd
	port     int
	client   *http.Client
}

func run(provider string, drain time.Duration) (r report, err error) {
	r.Mode = provider
	if drain > 0 {
		r.Mode += "-drain"
	}
	dir, err := os.MkdirTemp("", "bench-edit-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, src: filepath.Join(dir, "src"), native: provider == "local", client: &http.Client{Timeout: 30 * time.Second}}
	if err := os.CopyFS(b.src, os.DirFS(*service)); err != nil {
		return r, err
	}
	if b.port, err = freeport.Find(); err != nil {
		return r, err
	}
	defer b.stopFloor()
	own, err := freeport.Find()
	if err != nil {
		return r, err
	}

	// The first builds fill the cache; they are nobody's figure. A package's folder is part of its key there, so both
	// copies of the source are built.
	if _, err := b.build(); err != nil {
		return r, err
	}
	if err := b.goBuild(b.src, os.DevNull); err != nil {
		return r, err
	}
	// A first run links: there is no executable yet that the go command could find up to date.
	if err := os.Remove(filepath.Join(b.dir, "floor-bin")); err != nil {
		return r, err
	}
	start := time.Now()
	if _, err := b.build(); err != nil {
		return r, err
	}
	if err := b.startFloor(); err != nil {
		return r, err
	}
	r.FirstFloor = measure.MS(time.Since(start))

	args := []string{"run", b.src, "--json", "--on", provider}
	if provider == "kubernetes" {
		args = append(args, "--kubeconfig", *kubeconfig, "--registry", *registry)
	}
	args = append(args, "--", "-port", strconv.Itoa(own))
	if drain > 0 {
		args = append(args, "-drain", drain.String())
	}
	start = time.Now()
	a, err := startAgent(args)
	if err != nil {
		return r, err
	}
	defer a.stop()
	ready, err := a.wait("ready", func(e api.Event) bool { r, ok := e.(*api.ReadyEvent); return ok && r.URL != "" })
	if err != nil {
		return r, err
	}
	r.FirstMS = measure.MS(time.Since(start))
	url := ready.(*api.ReadyEvent).URL

	var floors, totals, overheads, besides, builds, transfers, sent, percents []float64
	for i := range *warm + *edits {
		if err := b.change(); err != nil {
			return r, err
		}
		// The floor's turn is built elsewhere, so that the agent's watcher has no part in it: the same source, copied.
		t0 := time.Now()
		fb, err := b.build()
		if err != nil {
			return r, err
		}
		if err := b.startFloor(); err != nil {
			return r, err
		}
		floor := measure.MS(time.Since(t0))

		want := b.next()
		mark := a.seen()
		t0 = time.Now()
		if err := b.save(want); err != nil {
			return r, err
		}
		// Nothing can answer anew before it is built; to ask all the while would take the compiler's processors away,
		// which the floor has for itself.
		if _, err := a.after(mark, func(e api.Event) bool { v, ok := e.(*api.BuildEvent); return ok && v.OK }); err != nil {
			return r, err
		}
		if err := b.until(url, want, 2*time.Minute); err != nil {
			return r, err
		}
		total := measure.MS(time.Since(t0))
		be, err := a.after(mark, func(e api.Event) bool { v, ok := e.(*api.BuildEvent); return ok && v.OK })
		if err != nil {
			return r, err
		}
		te, err := a.after(mark, func(e api.Event) bool { _, ok := e.(*api.TransferEvent); return ok })
		if err != nil {
			return r, err
		}
		build, transfer := be.(*api.BuildEvent), te.(*api.TransferEvent)
		start := floor - fb
		over := total - float64(build.MS) - start
		if *verbose {
			fmt.Fprintf(os.Stderr, "%s edit %d: floor %.0f (build %.0f) total %.0f build %d overhead %.0f transfer %d ms %d bytes full=%v\n",
				r.Mode, b.edit, floor, fb, total, build.MS, over, transfer.MS, transfer.Bytes, transfer.Full)
		}
		if i < *warm {
			continue
		}
		floors, totals, overheads, besides = append(floors, floor), append(totals, total), append(overheads, over), append(besides, total-floor)
		builds, transfers = append(builds, float64(build.MS)), append(transfers, float64(transfer.MS))
		sent, percents = append(sent, float64(transfer.Bytes)), append(percents, 100*float64(transfer.Bytes)/float64(build.Size))
		r.Size = build.Size
	}
	r.N = len(totals)
	r.FloorMS, r.TotalMS, r.OverheadMS, r.BesideMS = measure.Of(floors), measure.Of(totals), measure.Of(overheads), measure.Of(besides)
	r.BuildMS, r.TransferMS, r.Bytes, r.Percent = measure.Of(builds), measure.Of(transfers), measure.Of(sent), measure.Of(percents)
	return r, nil
}

// floorDir is where the floor is built: a second copy of the source.
func (b *bench) floorDir() string { return filepath.Join(b.dir, "floor") }

func (b *bench) next() string { return fmt.Sprintf("edit-%d-ours", b.edit) }

// change makes a new edit for the floor; save makes one for Fairlead.
func (b *bench) change() error {
	b.edit++
	return measure.Shop{Dir: b.floorDir()}.Edit(fmt.Sprintf("edit-%d-floor", b.edit))
}

func (b *bench) save(v string) error { return measure.Shop{Dir: b.src}.Edit(v) }

// build is the floor's build, with the flags and the environment of Fairlead's.
func (b *bench) build() (float64, error) {
	if _, err := os.Stat(b.floorDir()); err != nil {
		if err := os.CopyFS(b.floorDir(), os.DirFS(*service)); err != nil {
			return 0, err
		}
	}
	b.stopFloor()
	t0 := time.Now()
	if err := b.goBuild(b.floorDir(), filepath.Join(b.dir, "floor-bin")); err != nil {
		return 0, err
	}
	return measure.MS(time.Since(t0)), nil
}

func (b *bench) goBuild(dir, out string) error {
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "./cmd/shop")
	cmd.Dir = dir
	cmd.Env = os.Environ()
	if !b.native {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func (b *bench) startFloor() error {
	cmd := exec.Command(filepath.Join(b.dir, "floor-bin"), "-port", strconv.Itoa(b.port))
	cmd.Dir = b.floorDir()
	if err := cmd.Start(); err != nil {
		return err
	}
	b.floorCmd = cmd
	return b.until(fmt.Sprintf("http://127.0.0.1:%d", b.port), "", time.Minute)
}

func (b *bench) stopFloor() {
	if b.floorCmd != nil {
		b.floorCmd.Process.Kill()
		b.floorCmd.Wait()
		b.floorCmd = nil
	}
}

// until asks every millisecond until the service answers with v ("" takes any answer).
func (b *bench) until(url, v string, limit time.Duration) error {
	last := ""
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		resp, err := b.client.Get(url + "/version")
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		last = fmt.Sprintf("%d %s", resp.StatusCode, body)
		if resp.StatusCode == 200 && (v == "" || strings.Contains(string(body), v)) {
			return nil
		}
	}
	return fmt.Errorf("%s never answered %q; the last answer was %.200q", url, v, last)
}

// agent is a running `fairlead run --json`.
type agent struct {
	cmd  *exec.Cmd
	errs bytes.Buffer

	mu     sync.Mutex
	events []api.Event
	wake   chan struct{}
	ended  bool
}

func startAgent(args []string) (*agent, error) {
	a := &agent{cmd: exec.Command(*fairlead, args...), wake: make(chan struct{})}
	a.cmd.Stderr = &a.errs
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		sc := bufio.NewScanner(out)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			e, err := api.DecodeEvent(sc.Bytes())
			if err != nil {
				continue
			}
			a.mu.Lock()
			a.events = append(a.events, e)
			close(a.wake)
			a.wake = make(chan struct{})
			a.mu.Unlock()
		}
		a.mu.Lock()
		a.ended = true
		close(a.wake)
		a.wake = make(chan struct{})
		a.mu.Unlock()
	}()
	return a, nil
}

func (a *agent) seen() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.events)
}

func (a *agent) wait(what string, ok func(api.Event) bool) (api.Event, error) {
	e, err := a.after(0, ok)
	if err != nil {
		return nil, fmt.Errorf("wait for %s: %w", what, err)
	}
	return e, nil
}

// after returns the first event from number n on that ok accepts.
func (a *agent) after(n int, ok func(api.Event) bool) (api.Event, error) {
	limit := time.After(3 * time.Minute)
	for {
		a.mu.Lock()
		for ; n < len(a.events); n++ {
			if ok(a.events[n]) {
				defer a.mu.Unlock()
				return a.events[n], nil
			}
		}
		wake, ended := a.wake, a.ended
		a.mu.Unlock()
		if ended {
			return nil, fmt.Errorf("fairlead ended: %s", a.errs.String())
		}
		select {
		case <-wake:
		case <-limit:
			return nil, errors.New("it did not come within 3 minutes")
		}
	}
}

func (a *agent) stop() {
	a.cmd.Process.Signal(syscall.SIGINT)
	done := make(chan struct{})
	go func() { a.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(90 * time.Second):
		a.cmd.Process.Kill()
	}
}
