// Command logs measures what a service's log lines go through: service, supervisor, cluster connection, agent, websocket
// client; and beside it, in turns, `kubectl logs -f`: the same service writes the same lines to the stdout of a pod of
// its own, and the API server's log stream is followed through client-go as kubectl does.
//
// Every line says when it was written and which it is; clients count each and compare clocks (it is one machine). The
// lines go at 100,000 a second for throughput and at 1,000 a second for delay.
//
//	go run ./test/bench/logs -rounds 3
//
// It writes one JSON object a round and mode to stdout, and then one a rate with medians over the rounds and ratios.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"fairlead.dev/test/bench/measure"
)

var (
	kubeconfig = flag.String("kubeconfig", "", "of the cluster (default: the test cluster's)")
	registry   = flag.String("registry", "", "that the cluster pulls from (default: the test cluster's)")
	source     = flag.String("service", "test/fixture/chatter", "the `folder` of the service")
	modes      = flag.String("modes", "fairlead,kubectl", "comma-separated `modes`: fairlead, local (no cluster), kubectl")
	rates      = flag.String("rates", "100000/20s,1000/10s", "comma-separated `rates`: lines a second/time")
	rounds     = flag.Int("rounds", 3, "of every rate and mode, in turns")
	profile    = flag.String("profile", "", "write a CPU profile of agent and journal to this `file`")
	asClient   = flag.String("client", "", "for its own use: read a journal or a pod's log")
	verbose    = flag.Bool("v", false, "tell on stderr what is being done")
)

// counted is what a client saw of one run.
type counted struct {
	Lines   int     `json:"lines"` // distinct
	Missing int     `json:"missing"`
	Twice   int     `json:"twice"`
	Dropped int     `json:"dropped"` // told by the stream to be lost
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
	// Rate is lines over the time from the first written to the last received.
	Rate  float64 `json:"lines_s"`
	Bytes int64   `json:"bytes"` // that the client read
}

type round struct {
	Mode  string `json:"mode"`
	Rate  int    `json:"rate"`
	For   string `json:"for"`
	Round int    `json:"round"`
	counted
	Written int                `json:"written"`
	WroteMS int64              `json:"wrote_ms"` // how long the service took to write them
	CPU     map[string]float64 `json:"cpu_s"`    // CPU seconds by process, the writing included
	Load    string             `json:"load"`     // of the machine before it began
}

type summary struct {
	Rate      int                `json:"rate"`
	Rounds    int                `json:"rounds"`
	Lossless  map[string]int     `json:"lossless_rounds"`
	LinesS    map[string]float64 `json:"lines_s"` // medians, as below
	Missing   map[string]float64 `json:"missing"`
	WroteMS   map[string]float64 `json:"wrote_ms"`
	P50       map[string]float64 `json:"p50_ms"`
	P99       map[string]float64 `json:"p99_ms"`
	CPUTotal  map[string]float64 `json:"cpu_s"`
	P99Ratio  float64            `json:"p99_ratio,omitempty"`     // fairlead over kubectl
	RateRatio float64            `json:"lines_s_ratio,omitempty"` // the same
	CPURatio  float64            `json:"cpu_ratio,omitempty"`
}

// place is where the service runs in one mode, and how its lines are read.
type place interface {
	// url is where the service answers.
	url() string
	// client starts a process that reads the lines of a run.
	client(ctx context.Context, run string, lines int) *exec.Cmd
	close()
}

func main() {
	flag.Parse()
	if *asClient != "" {
		if err := readAsClient(*asClient, flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "logs: client:", err)
			os.Exit(1)
		}
		return
	}
	measure.Cluster(kubeconfig, registry)
	if err := rounded(); err != nil {
		fmt.Fprintln(os.Stderr, "logs: error:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) {
	if *verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

// rounded runs every rate and mode, in turns.
func rounded() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "bench-logs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the rival's pod runs the executable from here, as another user
		return err
	}
	places := map[string]place{}
	defer func() {
		for _, p := range places {
			p.close()
		}
	}()
	names := strings.Split(*modes, ",")
	var c *cluster
	if slices.Contains(names, "fairlead") || slices.Contains(names, "kubectl") {
		if c, err = newCluster(ctx); err != nil {
			return err
		}
		defer c.close()
	}
	for _, m := range names {
		say("making %s", m)
		var p place
		switch m {
		case "fairlead":
			p, err = startSession(ctx, dir, c)
		case "local":
			p, err = startSession(ctx, dir, nil)
		case "kubectl":
			p, err = c.startRival(ctx, dir)
		default:
			err = fmt.Errorf("unknown mode %q", m)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
		places[m] = p
	}
	out := json.NewEncoder(os.Stdout)
	for _, rf := range strings.Split(*rates, ",") {
		r, f, _ := strings.Cut(rf, "/")
		rate, err := strconv.Atoi(r)
		if err != nil {
			return fmt.Errorf("rates: %w", err)
		}
		d, err := time.ParseDuration(f)
		if err != nil {
			return fmt.Errorf("rates: %w", err)
		}
		var all []round
		for n := range *rounds {
			for i := range names { // in turns, each first as often as the others
				m := names[(i+n)%len(names)]
				res, err := one(ctx, places[m], m, rate, d, n)
				if err != nil {
					return fmt.Errorf("%s at %d lines/s: %w", m, rate, err)
				}
				if err := out.Encode(res); err != nil {
					return err
				}
				all = append(all, res)
			}
		}
		if err := out.Encode(summarize(rate, names, all)); err != nil {
			return err
		}
	}
	return nil
}

// one lets the service write for a time and a client read it.
func one(ctx context.Context, p place, mode string, rate int, d time.Duration, n int) (r round, err error) {
	r = round{Mode: mode, Rate: rate, For: d.String(), Round: n, Load: load()}
	run := fmt.Sprintf("%s-%d-%d-%d", mode, rate, n, time.Now().UnixNano())
	total := int(int64(rate) * int64(d) / int64(time.Second))
	ctx, cancel := context.WithTimeout(ctx, 4*d+time.Minute)
	defer cancel()
	cmd := p.client(ctx, run, total)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer cmd.Process.Kill()
	said := bufio.NewReader(pipe)
	if line, err := said.ReadString('\n'); err != nil || line != "ready\n" {
		return r, fmt.Errorf("the client does not begin: %q %v", line, err)
	}
	before := cpu()
	stopProfile := startProfile(mode)
	wrote, err := write(ctx, p.url(), run, rate, d)
	if err != nil {
		return r, err
	}
	r.Written, r.WroteMS = wrote.Lines, wrote.MS
	if err := json.NewDecoder(said).Decode(&r.counted); err != nil {
		return r, fmt.Errorf("the client's answer: %w", err)
	}
	stopProfile()
	r.CPU = used(before, cpu())
	in.Close()
	if err := cmd.Wait(); err != nil {
		return r, err
	}
	return r, nil
}

type wrote struct {
	Lines int
	MS    int64
}

func write(ctx context.Context, url, run string, rate int, d time.Duration) (w wrote, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/write?run=%s&rate=%d&for=%s", url, run, rate, d), nil)
	if err != nil {
		return w, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return w, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return w, fmt.Errorf("the service answers %s: %s", resp.Status, b)
	}
	return w, json.NewDecoder(resp.Body).Decode(&w)
}

func summarize(rate int, names []string, all []round) summary {
	s := summary{Rate: rate, Rounds: *rounds, Lossless: map[string]int{}, LinesS: map[string]float64{}, Missing: map[string]float64{}, WroteMS: map[string]float64{},
		P50: map[string]float64{}, P99: map[string]float64{}, CPUTotal: map[string]float64{}}
	for _, m := range names {
		mid := func(f func(round) float64) float64 {
			var v []float64
			for _, r := range all {
				if r.Mode == m {
					v = append(v, f(r))
				}
			}
			slices.Sort(v)
			return v[len(v)/2]
		}
		for _, r := range all {
			if r.Mode == m && r.Missing == 0 && r.Twice == 0 && r.Lines == r.Written {
				s.Lossless[m]++
			}
		}
		s.LinesS[m] = mid(func(r round) float64 { return r.counted.Rate })
		s.Missing[m] = mid(func(r round) float64 { return float64(r.Missing) })
		s.WroteMS[m] = mid(func(r round) float64 { return float64(r.WroteMS) })
		s.P50[m] = mid(func(r round) float64 { return r.P50 })
		s.P99[m] = mid(func(r round) float64 { return r.P99 })
		s.CPUTotal[m] = mid(func(r round) float64 {
			t := 0.0
			for _, v := range r.CPU {
				t += v
			}
			return t
		})
	}
	ratio := func(m map[string]float64) float64 {
		if m["kubectl"] == 0 {
			return 0
		}
		return float64(int(1000*m["fairlead"]/m["kubectl"])) / 1000
	}
	s.P99Ratio, s.RateRatio, s.CPURatio = ratio(s.P99), ratio(s.LinesS), ratio(s.CPUTotal)
	return s
}
