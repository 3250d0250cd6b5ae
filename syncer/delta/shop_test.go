package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// edit is a change of the fixture service: in a file, old becomes new.
type edit struct {
	name, file string
	replace    []string
}

// edits are what people do between two builds, each with what it is hard for.
var edits = []edit{
	{"constant", "internal/version/version.go", []string{`"v1"`, `"v2"`}},                                                          // nothing moves
	{"longer-constant", "internal/version/version.go", []string{`"v1"`, `"v1, a little longer"`}},                                  // strings move
	{"main", "cmd/shop/main.go", []string{"\tselect {\n\tcase err := <-failed", mainLines + "\tselect {\n\tcase err := <-failed"}}, // the end of the text moves
	{"middle", "internal/web/web.go", []string{"\t\treturn s.desk.Place(q)", "\t\ts.Log.Info(\"an order arrives\", \"from\", r.RemoteAddr)\n\t\treturn s.desk.Place(q)"}},
	{"leaf", "internal/rounding/rounding.go", []string{"package rounding\n", "package rounding\n\nimport \"fmt\"\n", // half of the text and all types move
		"\tif b < 0 {", "\tif b == 0 {\n\t\tpanic(zero{a})\n\t}\n\tif b < 0 {",
		"// Share splits", "type zero struct{ a int64 }\n\nfunc (z zero) Error() string { return fmt.Sprintf(\"%d divided by zero\", z.a) }\n\n// Share splits"}},
	{"import", "internal/catalog/catalog.go", []string{`"encoding/json"`, "\"encoding/csv\"\n\t\"encoding/json\"", // everything moves, by many distances
		`"slices"`, "\"slices\"\n\t\"strings\"",
		"\tslices.SortFunc(c.products", csvLines + "\tslices.SortFunc(c.products"}},
}

const (
	mainLines = "\tfor i, a := range os.Args {\n\t\tlog.Info(fmt.Sprintf(\"argument %d of %d\", i, len(os.Args)), \"value\", a)\n\t}\n\n"
	csvLines  = "\tif rows, err := csv.NewReader(strings.NewReader(string(shelf))).ReadAll(); err == nil && len(rows) == 0 {\n" +
		"\t\treturn nil, fmt.Errorf(\"load catalog: it is empty\")\n\t}\n"
)

// flavour is a way to build.
type flavour struct {
	name  string
	flags []string
}

// most is how large a patch may be for an edit that adds lines, in percent of the binary: the promise that is made to
// users. What is measured is lower, and differs by a few hundredths with the length of the checkout's own path, which
// is in the debug information.
const most = 2

var flavours = []flavour{
	{"stripped", []string{"-ldflags=-s -w"}},
	{"debug", []string{"-gcflags=example.com/shop/...=-N -l", "-ldflags=-compressdwarf=false"}},
}

// shop builds the fixture service for a pod, with an edit or (nil) without.
func shop(tb testing.TB, f flavour, e *edit) []byte {
	tb.Helper()
	root, err := filepath.Abs("../../test/fixture/shop")
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	args := append([]string{"build", "-buildvcs=false", "-o", filepath.Join(dir, "shop")}, f.flags...)
	if e != nil {
		file := filepath.Join(root, filepath.FromSlash(e.file))
		before, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		after := string(before)
		for i := 0; i < len(e.replace); i += 2 {
			if strings.Count(after, e.replace[i]) != 1 {
				tb.Fatalf("%s: %q is not there once", e.file, e.replace[i])
			}
			after = strings.Replace(after, e.replace[i], e.replace[i+1], 1)
		}
		edited := filepath.Join(dir, "edited.go")
		if err := os.WriteFile(edited, []byte(after), 0o600); err != nil {
			tb.Fatal(err)
		}
		overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: edited}})
		if err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
			tb.Fatal(err)
		}
		args = append(args, "-overlay", filepath.Join(dir, "overlay.json"))
	}
	cmd := exec.CommandContext(tb.Context(), "go", append(args, "./cmd/shop")...)
	cmd.Dir = root
	// For one target, so that the numbers mean the same everywhere; without cgo, which a cross build would not have.
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build the fixture service: %v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "shop"))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestShop: patches between real binaries stay small, both ways.
func TestShop(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a service ten times")
	}
	for _, f := range flavours {
		old := shop(t, f, nil)
		x := NewIndex(old)
		for _, e := range edits {
			if f.name == "debug" && e.name != "main" && e.name != "import" {
				continue // each build takes two seconds
			}
			t.Run(f.name+"/"+e.name, func(t *testing.T) {
				content := shop(t, f, &e)
				percent := roundTrip(t, x, content)
				back := roundTrip(t, NewIndex(content), old)
				t.Logf("%.3f %% of %.1f MB, back %.3f %%", percent, float64(len(content))/1e6, back)
				most := float64(most)
				if e.name == "constant" {
					most = 0.02
				}
				if max(percent, back) > most {
					t.Errorf("at most %.2f %% expected", most)
				}
			})
		}
	}
}

func roundTrip(t *testing.T, x *Index, content []byte) (percent float64) {
	t.Helper()
	var patch, out bytes.Buffer
	if err := Diff(t.Context(), &patch, x, content); err != nil {
		t.Fatal(err)
	}
	percent = float64(patch.Len()) * 100 / float64(len(content))
	if err := Apply(t.Context(), &out, &patch, x.Old(), int64(len(content))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), content) {
		t.Fatal("the content differs")
	}
	return percent
}

func BenchmarkShop(b *testing.B) {
	for _, f := range flavours {
		old := shop(b, f, nil)
		x := NewIndex(old)
		b.Run(f.name+"/index", func(b *testing.B) {
			b.SetBytes(int64(len(old)))
			for b.Loop() {
				NewIndex(old)
			}
		})
		for _, e := range edits {
			content := shop(b, f, &e)
			var patch bytes.Buffer
			b.Run(f.name+"/"+e.name+"/diff", func(b *testing.B) {
				b.SetBytes(int64(len(content)))
				for b.Loop() {
					patch.Reset()
					if err := Diff(b.Context(), &patch, x, content); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(patch.Len())*100/float64(len(content)), "patch-%")
			})
			b.Run(f.name+"/"+e.name+"/apply", func(b *testing.B) {
				b.SetBytes(int64(len(content)))
				for b.Loop() {
					if err := Apply(b.Context(), io.Discard, bytes.NewReader(patch.Bytes()), old, int64(len(content))); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		whole := func(b *testing.B, do func(context.Context, io.Writer, io.Reader) error, in []byte) (n int) {
			b.SetBytes(int64(len(old)))
			var out bytes.Buffer
			for b.Loop() {
				out.Reset()
				if err := do(b.Context(), &out, bytes.NewReader(in)); err != nil {
					b.Fatal(err)
				}
			}
			return out.Len()
		}
		b.Run(f.name+"/whole/compress", func(b *testing.B) {
			n := whole(b, Compress, old)
			b.ReportMetric(float64(n)*100/float64(len(old)), "patch-%")
		})
		var packed bytes.Buffer
		if err := Compress(b.Context(), &packed, bytes.NewReader(old)); err != nil {
			b.Fatal(err)
		}
		b.Run(f.name+"/whole/decompress", func(b *testing.B) {
			whole(b, func(ctx context.Context, w io.Writer, r io.Reader) error { return Decompress(ctx, w, r, 1<<40) }, packed.Bytes())
		})
	}
}
