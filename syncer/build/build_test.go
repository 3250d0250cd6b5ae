package build

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
)

// The test's own executable stands in for a compiler that takes its time (-toolexec): it starts another of itself, both
// connect to the address given, and they wait to be killed.
const hangAt = "FAIRLEAD_TEST_HANG"

func TestMain(m *testing.M) {
	if addr := os.Getenv(hangAt); addr != "" {
		hang(addr)
	}
	os.Setenv("GOPROXY", "off") // a test that needs the network is wrong
	os.Exit(m.Run())
}

func hang(addr string) {
	exe, err := os.Executable()
	if err != nil {
		os.Exit(3)
	}
	if len(os.Args) < 2 || os.Args[1] != "child" {
		cmd := exec.Command(exe, "child")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr // keeps the go command's pipes open
		if cmd.Start() != nil {
			os.Exit(3)
		}
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		os.Exit(3)
	}
	io.Copy(io.Discard, conn)
	os.Exit(0)
}

func TestBuild(t *testing.T) {
	dir := write(t, "go.mod", gomod("example.com/m"), "main.go", "package main\n\nvar version = \"none\"\n\nfunc main() { println(version) }\n")
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			before := snapshot(t, dir)
			b := builder(t, dir, FindOptions{Config: Config{Target: api.Target{OS: "linux", Arch: arch}, Flags: []string{"-ldflags=-X main.version=one"}, Env: []string{"GOFLAGS='-ldflags=-X main.version=zero'"}}})
			out := t.TempDir()
			res, err := b.Build(t.Context(), Request{OutDir: out})
			if err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(res.Path)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(content)
			if res.Digest != api.Digest("sha256:"+hex.EncodeToString(sum[:])) || !slices.Equal(res.Data, content) || res.Size != int64(len(content)) || res.Same || res.Duration <= 0 {
				t.Errorf("the result does not fit its file: %s, %d bytes, same %v, %v", res.Digest, res.Size, res.Same, res.Duration)
			}
			f, err := elf.Open(res.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != want {
				t.Errorf("machine %v", f.Machine)
			}
			if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
				t.Error("there are symbols")
			}
			if runtime.GOOS == "linux" && runtime.GOARCH == arch {
				got, err := exec.Command(res.Path).CombinedOutput()
				if err != nil || string(got) != "one\n" {
					t.Errorf("it says %q, %v", got, err)
				}
			}
			if left := entries(t, out); len(left) != 1 {
				t.Errorf("left in the output folder: %v", left)
			}
			if after := snapshot(t, dir); !slices.Equal(before, after) {
				t.Errorf("the build changed the module: %v, before %v", after, before)
			}
		})
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func TestBuildDebug(t *testing.T) {
	dir := write(t, "go.mod", gomod("example.com/m"), "main.go", mainGo)
	b := builder(t, dir, FindOptions{Config: Config{Target: api.Target{OS: "linux", Arch: "amd64"}, Env: []string{"GOFLAGS='-ldflags=-s -w'"}}})
	res, err := b.Build(t.Context(), Request{OutDir: t.TempDir(), Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(res.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info := f.Section(".debug_info")
	if info == nil || f.Section(".symtab") == nil {
		t.Fatal("there are no symbols")
	}
	if info.Flags&elf.SHF_COMPRESSED != 0 {
		t.Error("DWARF is compressed")
	}
	data, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	r := data.Reader()
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			t.Fatalf("no unit of main: %v", err)
		}
		name, _ := e.Val(0x03).(string) // DW_AT_name
		if name == "example.com/m" || name == "main" {
			producer, _ := e.Val(0x25).(string) // DW_AT_producer
			if !strings.Contains(producer, "-N") || !strings.Contains(producer, "-l") {
				t.Errorf("main was compiled with %q", producer)
			}
			return
		}
		if e.Tag == 0x11 { // DW_TAG_compile_unit
			r.SkipChildren()
		}
	}
}

func TestBuildAgain(t *testing.T) {
	dir := write(t, "go.mod", gomod("example.com/m"), "main.go", "package main\n\nfunc main() { println(1) }\n")
	b := builder(t, dir, FindOptions{})
	out := t.TempDir()
	build := func(prev *Result) Result {
		t.Helper()
		res, err := b.Build(t.Context(), Request{OutDir: out, Previous: prev})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	same := func(a, b Result) bool {
		t.Helper()
		x, err := os.Stat(a.Path)
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.Stat(b.Path)
		if err != nil {
			t.Fatal(err)
		}
		return os.SameFile(x, y)
	}
	first := build(nil)
	second := build(&first)
	if !second.Same || second.Digest != first.Digest || second.Path == first.Path || &second.Data[0] != &first.Data[0] {
		t.Errorf("again: %v, %s, %s", second.Same, second.Digest, second.Path)
	}
	if !same(first, second) {
		t.Error("it was linked again")
	}

	put(t, dir, "main.go", "package main\n\nfunc main() { println(2) }\n")
	third := build(&second)
	if third.Same || third.Digest == first.Digest || same(second, third) {
		t.Error("a change went unnoticed")
	}
	if content, err := os.ReadFile(first.Path); err != nil || !slices.Equal(content, first.Data) {
		t.Errorf("the next build wrote into the previous executable: %v", err)
	}

	put(t, dir, "main.go", "package main\n\nfunc main() { println(1) }\n")
	back := build(&third)
	if back.Same || back.Digest != first.Digest {
		t.Errorf("back to the first source: %s, first %s", back.Digest, first.Digest)
	}

	// As after a restart of the agent, which keeps the path and the digest.
	kept := build(&Result{Path: back.Path, Digest: back.Digest})
	if !kept.Same || !same(kept, back) || !slices.Equal(kept.Data, back.Data) {
		t.Error("a kept executable was not used")
	}
	if r := build(&Result{Path: filepath.Join(out, "gone"), Digest: back.Digest}); !r.Same {
		t.Error("equal content is not the same")
	}
	for _, at := range []int64{int64(len(kept.Data) - 6), 0} {
		// kept.Path and back.Path are one file; the second round damages the first round's damage further.
		f, err := os.OpenFile(kept.Path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("damage"), at); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if r := build(&Result{Path: kept.Path, Digest: kept.Digest}); r.Digest != kept.Digest || !slices.Equal(r.Data, kept.Data) || same(r, kept) {
			t.Errorf("an executable damaged at %d was used", at)
		}
	}
}

// Linked is told of a complete file under its last name, once for each that was linked.
func TestBuildLinked(t *testing.T) {
	dir := write(t, "go.mod", gomod("example.com/m"), "main.go", mainGo)
	b := builder(t, dir, FindOptions{})
	out := t.TempDir()
	told := ""
	linked := func(path string, size int64) {
		content, err := os.ReadFile(path)
		sum := sha256.Sum256(content)
		if told += fmt.Sprintf("%s sha256:%x\n", path, sum); err != nil || int64(len(content)) != size {
			t.Errorf("told of %d bytes, read %d: %v", size, len(content), err)
		}
	}
	first, err := b.Build(t.Context(), Request{OutDir: out, Linked: linked})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s %s\n", first.Path, first.Digest); told != want || first.Data != nil {
		t.Errorf("told %q, want %q; %d bytes kept", told, want, len(first.Data))
	}
	told = ""
	again, err := b.Build(t.Context(), Request{OutDir: out, Previous: &first, Linked: linked})
	if err != nil || !again.Same || told != "" {
		t.Errorf("nothing to link: %v, same %v, told %q", err, again.Same, told)
	}
	for _, r := range []Result{first, again} {
		os.Remove(r.Path)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := b.Build(ctx, Request{OutDir: out, Linked: func(string, int64) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled when it was linked: %v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestBuildCancelled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, "go.mod", gomod("example.com/m"), "main.go", mainGo)
	b := builder(t, dir, FindOptions{Config: Config{Flags: []string{"-toolexec=" + exe}}})
	b.tool.env = append(b.tool.env, hangAt+"="+l.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := t.TempDir()
	ended := make(chan error, 1)
	go func() {
		_, err := b.Build(ctx, Request{OutDir: out})
		ended <- err
	}()
	var conns []net.Conn
	for range 2 { // the compiler and what it started
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the build ended with %v", err)
	}
	for _, c := range conns {
		// Only the end of the process at the other end of the connection ends this.
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d, %v", n, err)
		}
	}
	if left := entries(t, out); len(left) != 0 {
		t.Errorf("left in the output folder: %v", left)
	}
}

// TestBuildModuleUntouched asks for what -mod=mod would add to go.mod.
func TestBuildModuleUntouched(t *testing.T) {
	const mainY = "package main\n\nimport _ \"example.com/y\"\n\nfunc main() {}\n"
	dir := write(t, "go.mod", gomod("example.com/m"), "main.go", mainY)
	before := snapshot(t, dir)
	env := append(moduleProxy(t), "GOFLAGS=-modcacherw -mod=mod")
	b := builder(t, dir, FindOptions{Config: Config{Env: env}})
	if _, err := b.Inputs(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := b.Build(t.Context(), Request{OutDir: t.TempDir()})
	var failure *Failure
	if !errors.As(err, &failure) || failure.Problems[0].Code != "missing-package" || failure.Problems[0].Hint != "run `go get example.com/y`" {
		t.Errorf("the build ended with %v", err)
	}
	if after := snapshot(t, dir); !slices.Equal(before, after) {
		t.Errorf("the module changed: %v, before %v", after, before)
	}

	// With what the hint says it builds.
	cmd := exec.Command("go", "get", "example.com/y")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), append(env, "GOFLAGS=-modcacherw", "PWD="+dir)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if _, err := b.Build(t.Context(), Request{OutDir: t.TempDir()}); err != nil {
		t.Error(err)
	}
}

func TestBuildWorkspaceTagsEnv(t *testing.T) {
	dir := write(t, shop...)
	put(t, dir, "shop/cmd/shop/needs.go", "//go:build !(one && two && three)\n\npackage main\n\nvar _ = needsTags\n")
	b := builder(t, dir, FindOptions{Main: "./shop/cmd/shop", Config: Config{Tags: []string{"one"}, Flags: []string{"-tags", "two"}, Env: []string{"GOFLAGS=-tags=three"}}})
	if _, err := b.Build(t.Context(), Request{OutDir: t.TempDir()}); err != nil {
		t.Error(err)
	}
}

func TestCgoEnabled(t *testing.T) {
	t.Setenv("CGO_ENABLED", "")
	t.Setenv("GOFLAGS", "")
	envFile := filepath.Join(write(t, "env", "CGO_ENABLED=1\n"), "env")
	for _, tt := range []struct {
		name string
		cfg  Config
		off  bool
	}{
		{"native", Config{Native: true}, false},
		{"pod of the same system", Config{Target: api.Target{OS: runtime.GOOS, Arch: runtime.GOARCH}}, true},
		{"native for another system", Config{Native: true, Target: api.Target{OS: "plan9", Arch: "amd64"}}, true},
		{"set in the configuration", Config{Env: []string{"CGO_ENABLED=1"}}, false},
		{"set with go env -w", Config{Env: []string{"GOENV=" + envFile}}, false},
	} {
		dir := write(t, "go.mod", gomod("example.com/m"))
		tt.cfg.Env = append([]string{"GOENV=off"}, tt.cfg.Env...)
		tool, err := newTool(t.Context(), dir, tt.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if tool.cgoOff != tt.off || slices.Contains(tool.env, "CGO_ENABLED=0") != tt.off {
			t.Errorf("%s: off is %v", tt.name, tool.cgoOff)
		}
	}
}

func TestReadDigest(t *testing.T) {
	for _, n := range []int{0, 1, 1<<20 - 1, 1 << 20, 3<<20 + 7} {
		want := make([]byte, n)
		for i := range want {
			want[i] = byte(i * 7)
		}
		got, digest, err := readDigest(strings.NewReader(string(want)), int64(n))
		sum := sha256.Sum256(want)
		if err != nil || !slices.Equal(got, want) || digest != api.Digest("sha256:"+hex.EncodeToString(sum[:])) {
			t.Errorf("%d bytes: %s, %v", n, digest, err)
		}
		if _, _, err := readDigest(strings.NewReader(string(want)), int64(n)+1); err == nil {
			t.Errorf("%d bytes: the end of the file went unnoticed", n)
		}
	}
}

var benchDir = flag.String("bench-dir", "", "the service that BenchmarkBuild builds; a small web server without it")

// BenchmarkBuild compares Build with the go command by hand, in turns because machines are noisy: each links the same
// unchanged program to a new path. It reports medians in milliseconds; "over" is of the differences.
func BenchmarkBuild(b *testing.B) {
	dir := *benchDir
	if dir == "" {
		dir = write(b, "go.mod", gomod("example.com/m"), "main.go", "package main\n\nimport \"net/http\"\n\nfunc main() { http.ListenAndServe(\":0\", nil) }\n")
	}
	bl := builder(b, dir, FindOptions{})
	out := b.TempDir()
	res, err := bl.Build(b.Context(), Request{OutDir: out})
	if err != nil {
		b.Fatal(err)
	}
	var hand, ours, over, unchanged, digest, inputs []time.Duration
	timed := func(list *[]time.Duration, f func() error) {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		*list = append(*list, time.Since(start))
	}
	for b.Loop() {
		file := filepath.Join(out, "by-hand")
		timed(&hand, func() error {
			args := append([]string{"build", "-o", file}, bl.tool.flags.build(false, nil)...)
			return bl.tool.run(b.Context(), bl.svc.ModuleDir, nil, nil, append(args, "--", bl.svc.ImportPath)...)
		})
		os.Remove(file)
		var r Result
		timed(&ours, func() error {
			r, err = bl.Build(b.Context(), Request{OutDir: out})
			return err
		})
		os.Remove(r.Path)
		over = append(over, ours[len(ours)-1]-hand[len(hand)-1])
		timed(&unchanged, func() error {
			r, err = bl.Build(b.Context(), Request{OutDir: out, Previous: &res})
			return err
		})
		os.Remove(r.Path)
		timed(&digest, func() error {
			f, err := os.Open(res.Path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, _, err = readDigest(f, res.Size)
			return err
		})
		timed(&inputs, func() error {
			_, err := bl.Inputs(b.Context())
			return err
		})
	}
	for name, list := range map[string][]time.Duration{"hand-ms": hand, "build-ms": ours, "over-ms": over, "unchanged-ms": unchanged, "digest-ms": digest, "inputs-ms": inputs} {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name)
	}
	b.ReportMetric(float64(res.Size)/1e6, "MB")
	b.ReportMetric(0, "ns/op")
}
