package forge

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
	"fairlead.dev/test/gitea"
)

// BenchmarkGrant is how long a grant that another machine has pushed takes until an agent's registry tells it; from there on it is the
// way of every grant. ms/submit is the push itself, from the form's being sent. make bench-grant.
func BenchmarkGrant(b *testing.B) {
	bare := filepath.Join(b.TempDir(), "bare.git")
	if out, err := exec.Command("git", "init", "-q", "--bare", bare).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	b.Run("bare", func(b *testing.B) { benchGrant(b, bare, false) })
	// The Gitea is built and started by the first that needs it.
	g := sync.OnceValue(func() string {
		s := gitea.Start(b)
		token, remote, dir := s.User(b, "mira"), s.Repo(b, "mira", "registry"), b.TempDir()
		for name, text := range map[string]string{
			"credentials": strings.Replace(remote, "http://", "http://mira:"+token+"@", 1) + "\n",
			"gitconfig":   "[credential]\n\thelper = store --file=" + filepath.Join(dir, "credentials") + "\n\tuseHttpPath = true\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
		}
		b.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(dir, "gitconfig"))
		return remote
	})
	b.Run("gitea/expected", func(b *testing.B) { benchGrant(b, g(), true) })
	b.Run("gitea/polled", func(b *testing.B) { benchGrant(b, g(), false) })
}

// expected says that a form was opened here: the remote is asked more often then.
func benchGrant(b *testing.B, remote string, expected bool) {
	open := func() *registry.Registry {
		r, err := registry.Open(b.Context(), registry.Options{Dir: b.TempDir(), Remote: remote})
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	here, there := open(), open()
	if expected {
		here.Expect(time.Hour)
	}
	told := make(chan *registry.Snapshot, 64)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		here.Watch(ctx, func(s *registry.Snapshot, err error) {
			if err != nil {
				b.Log(err)
			} else if s != nil {
				told <- s
			}
		})
	})
	var submit, until []time.Duration
	for i := 0; b.Loop(); i++ {
		<-time.After(rand.N(2 * time.Second)) // anywhere between two looks
		method := fmt.Sprintf("/%s.B/M%d", name()[:8], i)
		began := time.Now()
		if _, err := there.Submit(b.Context(), registry.Request{ID: name(), Caller: "orders", Callee: "billing", Methods: []string{method}, Author: registry.Author{Name: "Mira", Email: "mira@example.com"}}); err != nil {
			b.Fatal(err)
		}
		pushed := time.Now()
		submit = append(submit, pushed.Sub(began))
		for s := range told {
			if g := s.Grant("orders", "billing"); g != nil && api.Granted(g.Methods, method) {
				break
			}
		}
		until = append(until, time.Since(pushed))
	}
	for unit, all := range map[string][]time.Duration{"submit": submit, "until": until} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms/"+unit)
		b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, "ms/"+unit+"-most")
	}
	b.ReportMetric(0, "ns/op") // it has the waits in it
}

func name() string { return strings.ToLower(crand.Text()) }
