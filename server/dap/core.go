package dap

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unicode"

	"fairlead.dev/api"
)

// checkCore refuses what the debugger would only find out late or not at all: a core file that is none, an executable
// without symbols, and a core file of another executable.
func checkCore(core, exe string) error {
	c, err := elf.Open(core)
	if err != nil || c.Type != elf.ET_CORE {
		if err == nil {
			c.Close()
		}
		return &api.Problem{Code: "bad-core", Message: core + " is not a core file", Hint: "name the file that the dying process left (see core(5))"}
	}
	defer c.Close()
	x, err := elf.Open(exe)
	if err != nil {
		return &api.Problem{Code: "bad-core", Message: exe + " is not an executable for Linux", Hint: `name the executable that left the core file ("exe")`}
	}
	defer x.Close()
	if x.Section(".debug_info") == nil && x.Section(".zdebug_info") == nil {
		return &api.Problem{Code: api.CodeNoSymbols, Message: exe + " has no symbols", Hint: "build it without -ldflags=-s -w, from the same source with the same Go, and name that one"}
	}
	if c.Machine != x.Machine {
		return &api.Problem{Code: "bad-core", Message: fmt.Sprintf("the core file is of %v, %s is for %v", c.Machine, filepath.Base(exe), x.Machine), Hint: `name the executable that left the core file ("exe")`}
	}
	if !mapsExecutable(c, x) {
		return &api.Problem{Code: "bad-core", Message: fmt.Sprintf("the core file is not of this executable: %s", exe), Hint: `name the executable that left the core file ("exe"): the very build`}
	}
	return nil
}

// mapsExecutable says whether the core file's memory has the executable's build ID where the executable says that it is
// loaded. The kernel keeps the first page of a mapped executable in every core file (core(5), coredump_filter), and Go's
// linker puts the build ID note there. Where either cannot be found, nothing speaks against the two.
func mapsExecutable(core, exe *elf.File) bool {
	for _, name := range []string{".note.go.buildid", ".note.gnu.build-id"} {
		s := exe.Section(name)
		if s == nil || exe.Type != elf.ET_EXEC { // a position-independent one may be anywhere
			continue
		}
		want, err := s.Data()
		if err != nil {
			continue
		}
		for _, p := range core.Progs {
			if p.Type != elf.PT_LOAD || s.Addr < p.Vaddr || s.Addr+s.Size > p.Vaddr+p.Filesz {
				continue
			}
			got := make([]byte, s.Size)
			if _, err := p.ReadAt(got, int64(s.Addr-p.Vaddr)); err != nil {
				continue
			}
			return bytes.Equal(got, want)
		}
	}
	return true
}

// rule is a member of Delve's substitutePath: From is here, To is in the executable.
type rule struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// sourcePaths maps the sources of an executable that was built with -trimpath: of the module that dir is in, of the
// module cache, and of Go itself. The names in such an executable are "module/file.go", "module@version/file.go" and
// "net/http/server.go" (go help build). One that was built without has the paths of where it was built: those of here.
func sourcePaths(ctx context.Context, exe, dir string) []rule {
	info, err := buildinfo.ReadFile(exe)
	if err != nil {
		return nil
	}
	trimmed := false
	for _, s := range info.Settings {
		trimmed = trimmed || s.Key == "-trimpath" && s.Value == "true"
	}
	if !trimmed {
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", "env", "GOMODCACHE", "GOROOT", "GOMOD")
	cmd.Dir = dir
	out, err := cmd.Output()
	lines := strings.Split(strings.ReplaceAll(string(out), "\r", ""), "\n")
	if err != nil || len(lines) < 3 {
		return nil
	}
	cache, goroot, gomod := lines[0], lines[1], lines[2]
	var rules []rule
	if main := info.Main.Path; main != "" && modulePath(gomod) == main {
		root := filepath.Dir(gomod)
		rules = append(rules, rule{root, main})
		if v := info.Main.Version; v != "" && v != "(devel)" {
			rules = append(rules, rule{root, main + "@" + v})
		}
	}
	for _, d := range info.Deps {
		path, version := d.Path, d.Version
		if d.Replace != nil {
			if d.Replace.Version == "" { // a folder
				root := d.Replace.Path
				if !filepath.IsAbs(root) {
					root = filepath.Join(filepath.Dir(gomod), root)
				}
				rules = append(rules, rule{root, d.Path + "@" + d.Version}, rule{root, d.Path})
				continue
			}
			path, version = d.Replace.Path, d.Replace.Version
		}
		rules = append(rules, rule{filepath.Join(cache, filepath.FromSlash(escape(path)+"@"+escape(version))), path + "@" + version})
	}
	return append(rules, rule{filepath.Join(goroot, "src"), ""}) // last: an empty name is before every relative path
}

// escape is a module's path or version as the module cache's folders have it: capitals are "!" and the small letter (Go
// Modules Reference, "Module cache").
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsUpper(r) {
			b.WriteByte('!')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// modulePath reads the module line of a go.mod.
func modulePath(gomod string) string {
	b, err := os.ReadFile(gomod)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "module"); ok {
			rest, _, _ = strings.Cut(rest, "//")
			return strings.Trim(strings.TrimSpace(rest), `"`)
		}
	}
	return ""
}
