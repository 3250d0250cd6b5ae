package build

import (
	"strings"
	"testing"

	"fairlead.dev/api"
	"github.com/google/go-cmp/cmp"
)

func TestFlags(t *testing.T) {
	modules := []Module{{Path: "example.com/m"}, {Path: "example.com/n"}}
	for _, tt := range []struct {
		name    string
		goflags string
		flags   []string
		tags    []string
		debug   bool
		want    []string // GOFLAGS, then the arguments of go build
	}{
		{name: "none", want: []string{"-buildvcs=false", "-ldflags=-s -w"}},
		{name: "debug", debug: true, want: []string{"-buildvcs=false", "-trimpath=false",
			"-gcflags=example.com/m/...=-N -l", "-gcflags=example.com/n/...=-N -l", "-ldflags=-compressdwarf=false"}},
		{name: "GOFLAGS' own are kept and writing is not", goflags: "-mod=mod -trimpath --race -buildvcs=true -v -x",
			want: []string{"-mod=readonly -trimpath --race -buildvcs=false", "-ldflags=-s -w"}},
		{name: "vendor", goflags: "-mod=vendor", want: []string{"-mod=vendor -buildvcs=false", "-ldflags=-s -w"}},
		{name: "linker flags are joined, the last of a kind wins as before",
			goflags: `'-ldflags=-X "main.v=a b" -extldflags=-static' -ldflags=all=-w`,
			flags:   []string{"-ldflags", "example.com/m/...=-X=main.v=c", "-race"},
			want: []string{"-buildvcs=false", "-race", "-ldflags=-s -w", `-ldflags=-s -w -X "main.v=a b" -extldflags=-static`,
				"-ldflags=all=-s -w -w", "-ldflags=example.com/m/...=-s -w -X=main.v=c"}},
		{name: "empty linker flags", goflags: "-ldflags=", want: []string{"-buildvcs=false", "-ldflags=-s -w", "-ldflags=-s -w"}},
		{name: "malformed linker flags are for the go command to refuse", goflags: "-ldflags=foo", want: []string{"-buildvcs=false", "-ldflags=-s -w", "-ldflags=foo"}},
		{name: "stripping is undone for the debugger", goflags: "'-ldflags=-s -w -X=a=b' -gcflags=-m -gcflags=all=-d=checkptr", debug: true,
			want: []string{"-buildvcs=false", "-trimpath=false", "-gcflags=example.com/m/...=-N -l", "-gcflags=example.com/n/...=-N -l", "-gcflags=-m -N -l", "-gcflags=all=-d=checkptr",
				"-ldflags=-compressdwarf=false", "-ldflags=-compressdwarf=false -s -w -X=a=b -s=false -w=false"}},
		{name: "paths are not trimmed for the debugger", goflags: "-trimpath", flags: []string{"-trimpath"}, debug: true,
			want: []string{"-trimpath -buildvcs=false", "-trimpath", "-trimpath=false", "-gcflags=example.com/m/...=-N -l", "-gcflags=example.com/n/...=-N -l", "-ldflags=-compressdwarf=false"}},
		{name: "tags from everywhere", goflags: "-tags=b,a", flags: []string{"-tags=x y"}, tags: []string{"c", "a"},
			want: []string{"-buildvcs=false", "-tags=a,b,c,x,y", "-ldflags=-s -w"}},
		{name: "quotes inside a word", goflags: `-gcflags=-d='x' "-asmflags=-D=a b"`, want: []string{`'-asmflags=-D=a b' -buildvcs=false`, "-gcflags=-d='x'", "-ldflags=-s -w"}},
		{name: "an open quote is for the go command to refuse", goflags: `'-ldflags=-s`, want: []string{`'-ldflags=-s`, "-ldflags=-s -w"}},
		{name: "mod in the configuration", flags: []string{"-mod", "mod", "-buildvcs", "-p=1"}, want: []string{"-buildvcs=false", "-mod=readonly", "-p=1", "-ldflags=-s -w"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := parseFlags(tt.goflags, tt.flags, tt.tags)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, append([]string{f.goflags}, f.build(tt.debug, modules)...)); d != "" {
				t.Errorf("flags (-want +got):\n%s", d)
			}
		})
	}
}

func TestFlagsRefused(t *testing.T) {
	for _, flags := range [][]string{{"race"}, {"-o", "x"}, {"--json"}, {"-C=/"}, {"-ldflags"}, {""}, {"-n"}} {
		_, err := parseFlags("", flags, nil)
		if p, ok := err.(*api.Problem); !ok || p.Code != "bad-build-flag" || p.Hint == "" {
			t.Errorf("parseFlags(%q): %v", flags, err)
		}
	}
}

func FuzzQuoted(f *testing.F) {
	for _, s := range []string{"", "-a -b", `'a b' "c'd" e"f`, "'", " \t\n'' x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := splitQuoted(s)
		if err != nil {
			return
		}
		again, err := splitQuoted(joinQuoted(words))
		if err != nil || strings.Join(again, "\x00") != strings.Join(words, "\x00") || len(again) != len(words) {
			t.Errorf("splitQuoted(%q) = %q, joined %q, split again %q, %v", s, words, joinQuoted(words), again, err)
		}
	})
}
