package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Shop is a copy of the service under edit, test/fixture/shop.
type Shop struct{ Dir string }

// CopyShop copies the service into a new folder.
func CopyShop(from, to string) (Shop, error) {
	return Shop{to}, os.CopyFS(to, os.DirFS(from))
}

// Main is the folder of its main package.
func (s Shop) Main() string { return filepath.Join(s.Dir, "cmd", "shop") }

// Edit changes a constant in one package and adds lines to main, so that the executable is one that the build cache has not
// seen. v is new each time.
func (s Shop) Edit(v string) error {
	p := filepath.Join(s.Dir, "internal", "version", "version.go")
	text, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	i := bytes.Index(text, []byte(`Version = "`))
	if i < 0 {
		return fmt.Errorf("%s has no Version", p)
	}
	i += len(`Version = "`)
	j := i + bytes.IndexByte(text[i:], '"')
	m := filepath.Join(s.Main(), "edit.go")
	lines, err := os.ReadFile(m)
	if errors.Is(err, os.ErrNotExist) {
		lines = []byte("package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n")
	} else if err != nil {
		return err
	}
	lines = fmt.Appendf(lines, "\nfunc init() {\n\tif len(os.Args) > 100000 {\n\t\tfmt.Fprintf(os.Stderr, \"%s: %%d arguments, %%q\\n\", len(os.Args), os.Args[0])\n\t}\n}\n", v)
	if err := os.WriteFile(m, lines, 0o644); err != nil {
		return err
	}
	return os.WriteFile(p, slices.Concat(text[:i], []byte(v), text[j:]), 0o644)
}
