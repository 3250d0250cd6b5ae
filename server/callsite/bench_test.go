package callsite

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/tools/txtar"

	"fairlead.dev/api"
	"fairlead.dev/syncer/build"
)

// large makes a service of 300 packages in layers: each imports some of the layer below, a third of them makes requests by
// net/http, and one in ten calls billing by its generated client.
func large(t testing.TB) (dir string) {
	dir = app(t)
	var files []txtar.File
	const layers, width = 10, 30
	for l := range layers {
		for i := range width {
			var b bytes.Buffer
			name := fmt.Sprintf("p%d_%d", l, i)
			n := l*width + i
			fmt.Fprintf(&b, "package %s\n\nimport (\n\t\"context\"\n\t\"fmt\"\n\t\"strings\"\n", name)
			if n%3 == 0 {
				b.WriteString("\t\"net/http\"\n")
			}
			if n%10 == 0 {
				b.WriteString("\t\"example.com/app/billingpb\"\n")
			}
			below := []string{}
			if l > 0 {
				for k := range 4 {
					below = append(below, fmt.Sprintf("p%d_%d", l-1, (i*7+k*5)%width))
				}
			}
			for _, d := range below {
				fmt.Fprintf(&b, "\t\"example.com/app/large/%s\"\n", d)
			}
			b.WriteString(")\n\n")
			fmt.Fprintf(&b, "// T is what %s works on.\ntype T struct {\n\tName string\n\tItems map[string][]int\n\tNext *T\n}\n\n", name)
			for f := range 12 {
				fmt.Fprintf(&b, `// F%[1]d does one of the things that a service does.
func (t *T) F%[1]d(ctx context.Context, in []string) (map[string]int, error) {
	out := make(map[string]int, len(in))
	for i, s := range in {
		if strings.HasPrefix(s, "x%[1]d") {
			return nil, fmt.Errorf("item %%d of %%s: %%q", i, t.Name, s)
		}
		out[strings.ToUpper(s)] += i * %[1]d
		t.Items[s] = append(t.Items[s], i)
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	default:
	}
	return out, nil
}

`, f)
			}
			if n%3 == 0 {
				fmt.Fprintf(&b, "func (t *T) Fetch(base string) {\n\thttp.Get(base + \"/v%d/items/\" + t.Name)\n}\n\n", n)
			}
			if n%10 == 0 {
				call := "Refund"
				if n == 150 {
					call = "Charge"
				}
				fmt.Fprintf(&b, "func (t *T) Pay(ctx context.Context, c billingpb.BillingClient) {\n\tc.%s(ctx, &billingpb.ChargeRequest{Id: t.Name})\n}\n\n", call)
			}
			b.WriteString("func Run(ctx context.Context) {\n\tt := &T{}\n\tt.F0(ctx, nil)\n")
			for _, d := range below {
				fmt.Fprintf(&b, "\t%s.Run(ctx)\n", d)
			}
			b.WriteString("}\n")
			files = append(files, txtar.File{Name: name + "/" + name + ".go", Data: b.Bytes()})
		}
	}
	var b bytes.Buffer
	b.WriteString("package main\n\nimport (\n\t\"context\"\n")
	for i := range width {
		fmt.Fprintf(&b, "\t\"example.com/app/large/p%d_%d\"\n", layers-1, i)
	}
	b.WriteString(")\n\nfunc main() {\n\tctx := context.Background()\n")
	for i := range width {
		fmt.Fprintf(&b, "\tp%d_%d.Run(ctx)\n", layers-1, i)
	}
	b.WriteString("}\n")
	files = append(files, txtar.File{Name: "main.go", Data: b.Bytes()})
	dir = filepath.Join(dir, "large")
	write(t, dir, files)
	return dir
}

// heap is what is in use, in megabytes.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

func benchmark(b *testing.B, dir string, q Query, edited, text string) {
	queries := []Query{q}
	find := func(b *testing.B, f *Finder) {
		r, err := f.Find(b.Context(), queries)
		if err != nil {
			b.Fatal(err)
		}
		if len(r[0].Places) != 1 {
			b.Fatalf("%+v", r[0])
		}
	}
	cfg := build.Config{Target: api.Target{OS: "linux"}}
	find(b, finder(b, dir, cfg)) // fills the go command's cache
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			f := finder(b, dir, cfg)
			b.StartTimer()
			find(b, f)
		}
	})
	b.Run("warmed", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			f := finder(b, dir, cfg)
			if err := f.Warm(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			find(b, f)
		}
	})
	f := finder(b, dir, cfg)
	before := heap()
	find(b, f)
	kept := heap() - before
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			find(b, f)
		}
		b.ReportMetric(kept, "MB-kept")
	})
	name := filepath.Join(dir, filepath.FromSlash(edited))
	src, err := os.ReadFile(name)
	if err != nil {
		b.Fatal(err)
	}
	edit := func(b *testing.B, add string) {
		n := 0
		one := func() {
			n++
			if err := os.WriteFile(name, append(bytes.Clone(src), fmt.Sprintf(add, n)...), 0o644); err != nil {
				b.Fatal(err)
			}
			f.Invalidate([]string{name})
			find(b, f)
		}
		one()
		for b.Loop() {
			one()
		}
	}
	b.Run("body", func(b *testing.B) {
		edit(b, text+"\nfunc fairlead() int { return %d }\n")
	})
	b.Run("declaration", func(b *testing.B) { edit(b, text+"\nconst Fairlead = %d\n") })
}

func BenchmarkFindRPC(b *testing.B) {
	benchmark(b, large(b), Query{Call: api.Call{Method: "/billing.v1.Billing/Charge", Callee: "billing"}}, "p0_10/p0_10.go", "")
}

func BenchmarkFindHTTP(b *testing.B) {
	benchmark(b, large(b), Query{Call: api.Call{Method: "GET /v150/items/*", Callee: "billing"}}, "p0_10/p0_10.go", "")
}

// BenchmarkFindShop is a real service with 500 packages in its build, most of which are other modules'.
func BenchmarkFindShop(b *testing.B) {
	dir := b.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "test", "fixture", "shop"))); err != nil {
		b.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		b.Fatal(err)
	}
	text := "package search\n\nimport \"net/http\"\n\nfunc suggest(base string) { http.Get(base + \"/v1/suggestions\") }\n"
	if err := os.WriteFile(filepath.Join(dir, "internal", "search", "suggest.go"), []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	benchmark(b, filepath.Join(dir, "cmd", "shop"), Query{Call: api.Call{Method: "GET /v1/suggestions", Callee: "search"}}, "../../internal/money/money.go", "")
}
