package build

import (
	"archive/zip"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"fairlead.dev/api"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what was got into the test data")

// write puts files into a fresh folder. Names are slash-separated; "a -> b" makes a symbolic link.
func write(t testing.TB, files ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, files...)
	return dir
}

// put writes name, content, name, content, ... below dir.
func put(t testing.TB, dir string, files ...string) {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(dir, filepath.FromSlash(files[i]))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// builder makes a Builder for the main package in dir.
func builder(t testing.TB, dir string, opts FindOptions) *Builder {
	t.Helper()
	svc, err := Find(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(t.Context(), svc, opts.Config)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// show writes a problem on one line, without what differs between machines.
func show(dir string, p *api.Problem) string {
	place := "-"
	if p.File != "" {
		place = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	s := fmt.Sprintf("%s %s %s\n    message: %q\n    hint: %q", p.Code, p.Severity, place, p.Message, p.Hint)
	s = regexp.MustCompile(`running go [0-9.]+`).ReplaceAllString(s, "running go VERSION")
	return strings.NewReplacer(dir, "$DIR", runtime.GOROOT(), "$GOROOT").Replace(s)
}

// TestCompilerOutput builds modules that do not build. The lines of an archive's comment that begin with "env " are the
// configuration's environment.
func TestCompilerOutput(t *testing.T) {
	files, err := filepath.Glob("testdata/output/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg := Config{Target: api.Target{OS: "linux", Arch: "amd64"}, Env: []string{"GOTOOLCHAIN=local", "GOFLAGS=-buildvcs=false", "GOPROXY=off", "LC_ALL=C"}}
			for line := range strings.Lines(string(ar.Comment)) {
				if kv, ok := strings.CutPrefix(strings.TrimSpace(line), "env "); ok {
					cfg.Env = append(cfg.Env, kv)
				}
				switch strings.TrimSpace(line) {
				case "native":
					if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
						t.Skip("a C compiler's own words differ elsewhere: linux/amd64 only")
					}
					if _, err := exec.LookPath("gcc"); err != nil {
						skip(t, "gcc is not installed")
					}
					cfg.Native = true
				case "target arm64":
					cfg.Target.Arch = "arm64"
				case "proxy":
					cfg.Env = append(cfg.Env, moduleProxy(t)...)
				}
			}
			dir := write(t)
			want := -1
			for i, f := range ar.Files {
				if f.Name == "want" {
					want = i
					continue
				}
				put(t, dir, f.Name, string(f.Data))
			}
			before := snapshot(t, dir)

			var got []string
			svc, err := Find(t.Context(), dir, FindOptions{Config: cfg})
			if err == nil {
				var b *Builder
				if b, err = New(t.Context(), svc, cfg); err != nil {
					t.Fatal(err)
				}
				out := t.TempDir()
				_, err = b.Build(t.Context(), Request{OutDir: out})
				if left, _ := os.ReadDir(out); len(left) > 0 {
					t.Errorf("the failed build left %v", left)
				}
			}
			var failure *Failure
			var one *api.Problem
			switch {
			case errors.As(err, &failure):
				for _, p := range failure.Problems {
					got = append(got, show(dir, p))
				}
			case errors.As(err, &one):
				got = append(got, show(dir, one))
			default:
				t.Fatalf("the build ended with %v", err)
			}
			text := strings.Join(got, "\n") + "\n"
			if after := snapshot(t, dir); !slices.Equal(before, after) {
				t.Errorf("the build changed the module: %v, before %v", after, before)
			}
			if *update {
				if want < 0 {
					ar.Files = append(ar.Files, txtar.File{Name: "want"})
					want = len(ar.Files) - 1
				}
				ar.Files[want].Data = []byte(text)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want < 0 {
				t.Fatalf("no file want; got\n%s", text)
			}
			if d := cmp.Diff(string(ar.Files[want].Data), text); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

// skip skips a test for want of something, which under CI=true is an error.
func skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("under CI nothing is skipped: ", reason)
	}
	t.Skip(reason)
}

// moduleProxy serves the module example.com/y v1.0.0 from files, into a module cache of its own.
func moduleProxy(t testing.TB) []string {
	t.Helper()
	var z bytes.Buffer
	w := zip.NewWriter(&z)
	const mod = "module example.com/y\n\ngo 1.24\n"
	for name, content := range map[string]string{"go.mod": mod, "y.go": "package y\n\nfunc Y() int { return 1 }\n"} {
		f, err := w.Create("example.com/y@v1.0.0/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := write(t,
		"example.com/y/@v/list", "v1.0.0\n",
		"example.com/y/@v/v1.0.0.info", `{"Version":"v1.0.0"}`,
		"example.com/y/@v/v1.0.0.mod", mod,
		"example.com/y/@v/v1.0.0.zip", z.String())
	slash := filepath.ToSlash(dir)
	if slash[0] != '/' {
		slash = "/" + slash
	}
	return []string{"GOPROXY=file://" + slash, "GOSUMDB=off", "GOMODCACHE=" + t.TempDir(), "GOFLAGS=-modcacherw"}
}

// snapshot lists a folder's files with their size and time.
func snapshot(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		out = append(out, fmt.Sprint(p, st.Size(), st.ModTime().UnixNano(), st.Mode()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRecordedOutput reads what other versions and systems have written.
func TestRecordedOutput(t *testing.T) {
	dir := "/w"
	if runtime.GOOS == "windows" {
		dir = `C:\w`
	}
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	modules := []Module{{Path: "example.com/m", Dir: dir}, {Path: "example.com/m/sub", Dir: at("elsewhere")}}
	for _, tt := range []struct {
		name, output string
		want         []api.Problem
	}{
		{"nothing", "", nil},
		{"progress only", "go: downloading example.com/y v1.0.0\ngo: finding module for package example.com/y\n", nil},
		{"warning", "# example.com/m\n./a.go:1:2: warning: odd\nld: warning: -no_pie is deprecated\n", []api.Problem{
			{Code: codeFailed, Severity: api.SeverityWarning, Message: "odd", File: at("a.go"), Line: 1, Column: 2},
			{Code: codeFailed, Severity: api.SeverityError, Message: "ld: warning: -no_pie is deprecated"},
		}},
		{"spaces and CRLF", "# example.com/m\r\n./my code/a.go:10:2: undefined: x\r\n", []api.Problem{
			{Code: codeFailed, Severity: api.SeverityError, Message: "undefined: x", File: at("my code/a.go"), Line: 10, Column: 2},
		}},
		{"old cycle", "package example.com/m\n\timports example.com/m/a\n\timports example.com/m/a: import cycle not allowed\n", []api.Problem{
			{Code: "import-cycle", Severity: api.SeverityError, Message: "import cycle not allowed: example.com/m/a -> example.com/m/a", Hint: "move what both packages need into a third one"},
		}},
		{"cycle in another module", "package example.com/m\n\timports example.com/m/sub/a from main.go\n\timports example.com/m/sub/a from a.go: import cycle not allowed\n", []api.Problem{
			{Code: "import-cycle", Severity: api.SeverityError, Message: "import cycle not allowed: example.com/m/sub/a -> example.com/m/sub/a", Hint: "move what both packages need into a third one", File: at("elsewhere/a/a.go"), Line: 1},
		}},
		{"network", "go: example.com/y@v1.0.0: Get \"https://proxy.example/x.mod\": dial tcp 192.0.2.1:443: connect: connection refused\n", []api.Problem{
			{Code: "module-download", Severity: api.SeverityError, Message: "example.com/y@v1.0.0: Get \"https://proxy.example/x.mod\": dial tcp 192.0.2.1:443: connect: connection refused",
				Hint: "see that the network and GOPROXY (GOPRIVATE for a private module) are right, then run `go mod download`"},
		}},
		{"killed", "# example.com/m\n/usr/local/go/pkg/tool/linux_amd64/link: signal: killed\n", []api.Problem{
			{Code: "build-killed", Severity: api.SeverityError, Message: "link: signal: killed", Hint: "the system ended the compiler, most likely for want of memory: close something, or build with -p=1"},
		}},
		{"disk full", "# example.com/m\nwrite $WORK/b001/_pkg_.a: no space left on device\n", []api.Problem{
			{Code: "disk-full", Severity: api.SeverityError, Message: "write $WORK/b001/_pkg_.a: no space left on device", Hint: "make space on the disk of the build cache and on that of Fairlead's state (~/.local/state/fairlead): `go clean -cache` frees what older builds left"},
		}},
		{"toolchain", "go: download go1.99.0 for linux/amd64: toolchain not available\n", []api.Problem{
			{Code: "go-too-old", Severity: api.SeverityError, Message: "download go1.99.0 for linux/amd64: toolchain not available", Hint: "install Go 1.99.0 or newer from https://go.dev/dl, or set GOTOOLCHAIN=auto so that the go command fetches it"},
		}},
		{"outdated", "go: updates to go.mod needed; to update it:\n\tgo mod tidy\n", []api.Problem{
			{Code: "go-mod-outdated", Severity: api.SeverityError, Message: "updates to go.mod needed", Hint: "run `go mod tidy`"},
		}},
		{"compiler bug", "# example.com/m\n<autogenerated>:1: internal compiler error: oops\n\ngoroutine 1 [running]:\nmain.main()\n\t/usr/local/go/src/x.go:12 +0x1\n", []api.Problem{
			{Code: codeFailed, Severity: api.SeverityError, Message: "internal compiler error: oops", Hint: "this is a mistake in the Go compiler: try another Go version"},
		}},
		{"cgo files", "# runtime/cgo\n$WORK/b001/_cgo_export.c:3:10: fatal error: 'stdlib.h' file not found\n", []api.Problem{
			{Code: codeFailed, Severity: api.SeverityError, Message: "'stdlib.h' file not found"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []api.Problem
			for _, m := range parseOutput(dir, dirOf(modules), tt.output) {
				got = append(got, *m.Problem)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestSplitLocation(t *testing.T) {
	for _, tt := range []struct {
		in        string
		file      string
		line, col int
		msg       string
	}{
		{"a.go:1:2: m", "a.go", 1, 2, "m"},
		{"a.go:1: m: n", "a.go", 1, 0, "m: n"},
		{`C:\a b\x.go:12:34: m`, `C:\a b\x.go`, 12, 34, "m"},
		{"D:/x.go:12: m", "D:/x.go", 12, 0, "m"},
		{"../x.go:3:4:m", "", 0, 0, ""},
		{"x:y.go:3:4: m", "x:y.go", 3, 4, "m"},
		{"a.go:0:0: m", "", 0, 0, ""},
		{"a.go:99999999999: m", "", 0, 0, ""},
		{"a.go:1:2:", "a.go", 1, 2, ""},
		{"Get \"https://h:443: x", "", 0, 0, ""},
		{"no place", "", 0, 0, ""},
		{":1:2: m", "", 0, 0, ""},
		{"", "", 0, 0, ""},
	} {
		file, line, col, msg, ok := splitLocation(tt.in)
		if file != tt.file || line != tt.line || col != tt.col || msg != tt.msg || ok != (tt.file != "") {
			t.Errorf("splitLocation(%q) = %q, %d, %d, %q, %v", tt.in, file, line, col, msg, ok)
		}
	}
}

func FuzzParseOutput(f *testing.F) {
	files, _ := filepath.Glob("testdata/output/*.txtar")
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, a := range ar.Files {
			if a.Name == "want" {
				f.Add(string(a.Data))
			}
		}
	}
	f.Add("# example.com/m\n./a.go:1:2: x\n\tcontinued\n./a.go:3:4: too many errors\n")
	f.Add("package example.com/m\n\timports example.com/m/a from main.go\n\timports example.com/m from a.go: import cycle not allowed\n")
	f.Add("a.go:1:2: no required module provides package x/y; to add it:\n\tgo get x/y\n")
	f.Add("# m\nlink: running gcc failed: exit status 1\n/usr/bin/gcc -o x\n/usr/bin/ld: a.go:3: undefined reference\n")
	dir, err := filepath.Abs("w")
	if err != nil {
		f.Fatal(err)
	}
	modules := []Module{{Path: "example.com/m", Dir: dir}}
	f.Fuzz(func(t *testing.T, output string) {
		for _, m := range parseOutput(dir, dirOf(modules), output) {
			switch {
			case m.Message == "" || m.Code == "" || m.Severity == "":
				t.Errorf("empty: %+v", m.Problem)
			case m.File != "" && (!filepath.IsAbs(m.File) || m.Line < 1):
				t.Errorf("place: %+v", m.Problem)
			case m.File == "" && (m.Line != 0 || m.Column != 0):
				t.Errorf("place without a file: %+v", m.Problem)
			}
		}
	})
}
