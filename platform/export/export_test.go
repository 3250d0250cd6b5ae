package export

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.dev/api"
	"fairlead.dev/platform/registry"
)

var update = flag.Bool("update", false, "write testdata anew")

// snapshot has what each engine can and cannot express.
func snapshot() *registry.Snapshot {
	s := &registry.Snapshot{Revision: "0123456789abcdef0123456789abcdef01234567", Services: map[string]*registry.Service{}}
	for _, svc := range []registry.Service{
		{Name: "billing", Ports: []int{9090}},
		{Name: "catalog", Ports: []int{8080, 8081}},
		{Name: "rates.finance"},
		{Name: "lonely", Ports: []int{8080}},
		{Name: "checkout", Calls: []registry.Grant{
			{Service: "billing", Methods: []string{"/billing.v1.Billing/Refund", "/billing.v1.Billing/Charge"}},
			{Service: "catalog", Methods: []string{"GET /v1/things/*", "POST /v1/things", "GET /v1/**"}},
			{Service: "rates.finance", Methods: []string{"GET /v1/rates/*"}},
			{Service: "unknown", Methods: []string{"*"}},
		}},
		{Name: "orders", Calls: []registry.Grant{
			{Service: "billing", Methods: []string{"/billing.v1.Billing/*", "/*/Check", "POST /v1/charges"}},
			{Service: "catalog", Methods: []string{"GET /*/things/**"}},
		}},
		{Name: "admin.tools", Calls: []registry.Grant{{Service: "billing", Methods: []string{"*"}}}},
	} {
		s.Services[svc.Name] = &svc
	}
	return s
}

func export(t *testing.T, engine string) []byte {
	t.Helper()
	docs, err := Export(snapshot(), engine, Options{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for i, d := range docs {
		if i > 0 {
			b.WriteString("---\n")
		}
		b.Write(d.Text)
		for _, n := range d.Notes {
			if !strings.Contains(string(d.Text), n) {
				t.Errorf("%s, %s: the text does not say %q", engine, d.Service, n)
			}
		}
	}
	return b.Bytes()
}

func TestExport(t *testing.T) {
	for _, engine := range Engines() {
		got := export(t, engine)
		if !bytes.Equal(got, export(t, engine)) {
			t.Errorf("%s: twice is not the same", engine)
		}
		file := filepath.Join("testdata", engine+".txt")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s (-update writes it anew):\n%s", engine, d)
		}
	}
}

func TestExportRefuses(t *testing.T) {
	var p *api.Problem
	if _, err := Export(snapshot(), "consul", Options{}); !errors.As(err, &p) || p.Code != "export-engine" || !strings.Contains(p.Hint, "istio") {
		t.Errorf("an engine that is none: %v", err)
	}
	s := snapshot()
	s.Services["a.b.c"] = &registry.Service{Name: "a.b.c"}
	if _, err := Export(s, "istio", Options{}); !errors.As(err, &p) || p.Code != "export-name" {
		t.Errorf("a name with two dots: %v", err)
	}
}

// What each engine's form of a pattern allows is what the registry grants.
func TestPatterns(t *testing.T) {
	patterns := []string{"/a.B/C", "/a.B/*", "/a.B/**", "/*/C", "/**", "/*/*", "GET /", "GET /v1/things", "GET /v1/things/*", "GET /v1/**", "GET /**", "GET /*/things/**", "POST /v1/*/x", "GET /v1.0/a"}
	methods := []string{"/a.B/C", "/a.B/D", "/b.B/C", "/aXB/C", "GET /", "GET /v1", "GET /v1/", "GET /v1/things", "GET /v1/things/7", "GET /v1/things/7/x", "GET /v2/things", "GET /v2/things/1/2", "POST /v1/y/x", "POST /v1/things", "GET /v1x0/a", "GET /v1.0/a", "GET /xv1/things"}
	for _, text := range patterns {
		p := parse(text)
		for _, m := range methods {
			want := api.Granted([]string{text}, m)
			verb, path, http := strings.Cut(m, " ")
			if !http {
				verb, path = "POST", m
			}
			if http == p.grpc {
				continue // engines see gRPC as a POST; the registry tells them apart
			}
			if got := p.verb == verb && regexp.MustCompile("^(?:"+expression(p)+")$").MatchString(path); got != want {
				t.Errorf("%s of %s by expression %s: %v, want %v", m, text, expression(p), got, want)
			}
			if got := p.verb == verb && slices.ContainsFunc(istioPaths(p), func(s string) bool { return istioMatches(s, path) }); got != want {
				t.Errorf("%s of %s by Istio's %v: %v, want %v", m, text, istioPaths(p), got, want)
			}
			if g, ok := grpcPath(p); p.grpc && ok && starMatches(g, path) != want {
				t.Errorf("%s of %s by grpc-go's %s: %v, want %v", m, text, g, !want, want)
			}
		}
		for _, other := range patterns {
			q := parse(other)
			for _, m := range methods {
				inP, inQ := api.Granted([]string{text}, m), api.Granted([]string{other}, m)
				if inQ && !inP && p.covers(q) {
					t.Errorf("%s covers %s, but not %s", text, other, m)
				}
				if inP && inQ && !p.meets(q) {
					t.Errorf("%s and %s have nothing in common but %s", text, other, m)
				}
			}
			if p.grpc == q.grpc && p.covers(q) && !p.meets(q) {
				t.Errorf("%s covers %s, and has nothing in common", text, other)
			}
		}
	}
}

// starMatches is what Istio and grpc-go do with one * at an end.
func starMatches(s, path string) bool {
	switch {
	case strings.HasSuffix(s, "*"):
		return strings.HasPrefix(path, strings.TrimSuffix(s, "*"))
	case strings.HasPrefix(s, "*"):
		return strings.HasSuffix(path, strings.TrimPrefix(s, "*"))
	}
	return s == path
}

// istioMatches is Istio's documentation of paths, as an expression.
func istioMatches(s, path string) bool {
	if !strings.Contains(s, "{") {
		return starMatches(s, path)
	}
	e := regexp.QuoteMeta(s)
	e = strings.ReplaceAll(e, regexp.QuoteMeta("{**}"), ".*")
	e = strings.ReplaceAll(e, regexp.QuoteMeta("{*}"), "[^/]+")
	return regexp.MustCompile("^" + e + "$").MatchString(path)
}
