package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
)

// BenchmarkCallDenied is the time from before a request to a service, whose answer needs a call that is not granted, until the
// refused call is a problem on its line. first/op: the session's first call, made as soon as the service answers, before
// anything of its source was read for this. written/op: one that was just written and saved. Medians and the most.
// make bench-denied.
func BenchmarkCallDenied(b *testing.B) {
	p := newLocal(b)
	w := newWorkspace(b, map[string]string{
		"orders":  "    env: {CALLS: \"{{billing}}\"}\n    dependencies: {billing: shared}\n",
		"billing": "    name: billing\n",
	})
	p.register(b, w.dir, map[string]string{"services/billing.yaml": "version: 1\nname: billing\naccess: open\n"})
	dir := w.service("orders")
	var first, written []time.Duration
	denied := func(a *agent, path, method string) (took time.Duration) {
		b.Helper()
		eventually(b, "the service's answer", func() error {
			start := time.Now()
			if _, err := get(a.url(b) + path); err != nil {
				return err
			}
			for ; time.Since(start) < patience; time.Sleep(2 * time.Millisecond) {
				all := p.refusedCalls(b, a)
				if i := slices.IndexFunc(all, func(p api.Problem) bool { return p.Call.Method == method && p.Line > 0 }); i >= 0 {
					took = time.Since(start)
					return nil
				}
			}
			return fmt.Errorf("%s is not marked", method)
		})
		return took
	}
	begin := func() *agent {
		b.Helper()
		a := p.run(b, dir)
		a.wait(b, "the service's address", func(e api.Event) bool { r, ok := e.(*api.ReadyEvent); return ok && r.URL != "" })
		return a
	}
	end := func(a *agent) {
		b.Helper()
		p.m.ok(b, dir, "stop")
		<-a.done
	}
	n := 0
	for b.Loop() {
		a := begin()
		first = append(first, denied(a, "/", "GET /alone"))
		end(a)
		a = begin()
		n++
		path := fmt.Sprintf("/path%d", n)
		write(b, filepath.Join(dir, "more.go"), strings.NewReplacer("/twice", path, "/both", path).Replace(twice))
		w.edit(b, "orders", path)
		eventually(b, "the new code", func() error {
			if said, err := get(a.url(b) + "/alone"); err != nil || !strings.Contains(said, path) { // which calls nobody
				return fmt.Errorf("%q %v", said, err)
			}
			return nil
		})
		written = append(written, denied(a, path, "GET "+path))
		end(a)
	}
	for name, all := range map[string][]time.Duration{"first": first, "written": written} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Milliseconds()), "ms/"+name)
		b.ReportMetric(float64(all[len(all)-1].Milliseconds()), "ms/"+name+"-most")
	}
}
