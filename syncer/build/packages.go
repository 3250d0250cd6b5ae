package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Package is one of the packages that the service is made of, for who reads its source.
type Package struct {
	ImportPath, Name, Dir string
	Files                 []string // absolute; those that count for the target, and those that cannot be parsed
	Imports               []string
	Standard              bool
	// Own: its source is the user's to edit. It lies in a main module, or in one that is replaced by a folder.
	Own bool
	// Broken: the go command could not read all of it, so that Imports may lack some.
	Broken bool
}

// Packages lists what the service is made of, as it is now, and what decides that this list holds. Packages that cannot be
// built are in it with what can be known of them. Extra import paths are listed with what they depend on.
func (b *Builder) Packages(ctx context.Context, extra ...string) ([]Package, *Inputs, error) {
	listed, err := b.deps(ctx, extra...)
	if err != nil {
		return nil, nil, err
	}
	pkgs := make([]Package, 0, len(listed))
	for _, l := range listed {
		if l.Dir == "" {
			continue
		}
		p := Package{ImportPath: l.ImportPath, Name: l.Name, Dir: l.Dir, Imports: l.Imports, Standard: l.Standard, Broken: l.Error != nil}
		for _, name := range slices.Concat(l.GoFiles, l.CgoFiles) {
			p.Files = append(p.Files, filepath.Join(l.Dir, name))
		}
		if m := l.Module; m != nil && !l.Standard {
			// What is vendored or in the module cache has a version, unless a folder stands in for it.
			p.Own = (m.Main || m.Replace != nil && m.Replace.Version == "") && !within(l.Dir, filepath.Join(b.svc.ModuleDir, "vendor")) &&
				(b.svc.GoWork == "" || !within(l.Dir, filepath.Join(filepath.Dir(b.svc.GoWork), "vendor")))
		}
		if p.Own && l.Error != nil {
			p.Files = append(p.Files, unlisted(l)...)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs, newInputs(b.svc, b.tool, listed), nil
}

// unlisted returns the Go files of a package's folder that the go command leaves out because it cannot parse them.
func unlisted(l goPackage) []string {
	entries, err := os.ReadDir(l.Dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || name[0] == '.' || name[0] == '_' ||
			slices.Contains(l.GoFiles, name) || slices.Contains(l.CgoFiles, name) || slices.Contains(l.IgnoredGoFiles, name) {
			continue
		}
		out = append(out, filepath.Join(l.Dir, name))
	}
	return out
}

// Exports returns the files with the export data of packages, which the go command compiles where its cache does not have
// them. A package that does not compile has none.
func (b *Builder) Exports(ctx context.Context, importPaths []string) (map[string]string, error) {
	if len(importPaths) == 0 {
		return nil, nil
	}
	args := append([]string{"list", "-e", "-export", "-json=ImportPath,Export"}, b.tool.flags.list()...)
	out, err := b.tool.output(ctx, b.svc.ModuleDir, append(append(args, "--"), importPaths...)...)
	if err != nil {
		return nil, b.listError(err)
	}
	files := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p struct{ ImportPath, Export string }
		if err := dec.Decode(&p); err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		if p.Export != "" {
			files[p.ImportPath] = p.Export
		}
	}
	return files, nil
}
