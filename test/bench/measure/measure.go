// Package measure is what the benchmarks share: figures over several runs, the test cluster, and the service that is
// edited.
package measure

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Spread is a figure over several runs.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// Of makes a Spread of the runs' figures.
func Of(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(v))
	return Spread{s[0], s[len(s)/2], s[len(s)-1]}
}

// MS is a time in milliseconds.
func MS(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Cluster gives kubeconfig and registry the test cluster's values where they are empty (test/cluster/README.md).
func Cluster(kubeconfig, registry *string) {
	cache, err := os.UserCacheDir()
	if err != nil || *kubeconfig != "" {
		return
	}
	state := filepath.Join(cache, "fairlead-test", "run")
	*kubeconfig = filepath.Join(state, "kubeconfig")
	if b, err := os.ReadFile(filepath.Join(state, "registry")); err == nil && *registry == "" {
		*registry = strings.TrimSpace(string(b))
	}
}
