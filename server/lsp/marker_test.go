package lsp

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	units "unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what the server says into testdata/*.txtar")

// TestMarkers opens the first file of each archive in testdata, in which ‸ is the cursor, and compares what the server
// says there with the archive's other sections: complete, hover, problems, fix (the text after the first quick fix),
// lenses and actions. A section that is there is compared; go test -update writes it anew.
func TestMarkers(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 8 {
		t.Fatalf("%d archives: %v", len(archives), err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			first := ar.Files[0]
			before, after, _ := strings.Cut(string(first.Data), "‸")
			text := before + after
			dir := workspace(t, map[string]string{"go.mod": "module x\n", first.Name: text})
			path := filepath.Join(dir, first.Name)
			e := startEditor(t, newFakeAgent(t))
			e.initialize(dir, nil)
			u := e.open(path, text)
			pos := lspPos{strings.Count(before, "\n"), len(units.Encode([]rune(before[strings.LastIndexByte(before, '\n')+1:])))}
			at := map[string]any{"textDocument": map[string]any{"uri": u}, "position": pos}
			for i := range ar.Files[1:] {
				section := &ar.Files[1+i]
				var b strings.Builder
				switch section.Name {
				case "complete":
					var list struct {
						Items []struct {
							Label, Detail string
							TextEdit      struct {
								Range   lspRange
								NewText string
							}
						}
					}
					e.must("textDocument/completion", at, &list)
					for _, it := range list.Items {
						fmt.Fprintf(&b, "%s (%s) %d:%d-%d %q\n", it.Label, it.Detail, it.TextEdit.Range.Start.Line, it.TextEdit.Range.Start.Character, it.TextEdit.Range.End.Character, it.TextEdit.NewText)
					}
				case "hover":
					var h *struct {
						Contents struct{ Value string }
						Range    lspRange
					}
					e.must("textDocument/hover", at, &h)
					if h != nil {
						fmt.Fprintf(&b, "%d:%d-%d\n%s\n", h.Range.Start.Line, h.Range.Start.Character, h.Range.End.Character, h.Contents.Value)
					}
				case "problems":
					e.notify("textDocument/didChange", map[string]any{"textDocument": map[string]any{"uri": u, "version": 2}, "contentChanges": []any{map[string]any{"text": text}}})
					p := e.diagnostics(u, "problems", func(p published) bool { return p.Version != nil && *p.Version == 2 })
					for _, d := range p.Diagnostics {
						fmt.Fprintf(&b, "%d:%d-%d %s: %s\n", d.Range.Start.Line, d.Range.Start.Character, d.Range.End.Character, d.Code, strings.ReplaceAll(d.Message, "\n", " | "))
					}
				case "fix":
					var actions []struct {
						Title string
						Edit  struct {
							Changes map[string][]struct {
								Range   lspRange
								NewText string
							}
						}
					}
					e.must("textDocument/codeAction", map[string]any{"textDocument": map[string]any{"uri": u}, "range": lspRange{pos, pos}, "context": map[string]any{"diagnostics": []any{}}}, &actions)
					for _, a := range actions {
						fmt.Fprintf(&b, "# %s\n", a.Title)
						for _, edit := range a.Edit.Changes[u] {
							lines := strings.SplitAfter(text, "\n")
							l := lines[edit.Range.Start.Line]
							lines[edit.Range.Start.Line] = l[:edit.Range.Start.Character] + edit.NewText + l[edit.Range.End.Character:]
							b.WriteString(strings.Join(lines, ""))
						}
					}
				case "lenses":
					for _, l := range e.lenses(u) {
						fmt.Fprintf(&b, "%d:%d-%d %s\n", l.Range.Start.Line, l.Range.Start.Character, l.Range.End.Character, l.Command.Title)
					}
				case "actions":
					var actions []struct{ Title string }
					e.must("textDocument/codeAction", map[string]any{"textDocument": map[string]any{"uri": u}, "range": lspRange{pos, pos}, "context": map[string]any{"diagnostics": []any{}}}, &actions)
					for _, a := range actions {
						b.WriteString(a.Title + "\n")
					}
				default:
					t.Fatalf("there is no section %q", section.Name)
				}
				if *update {
					section.Data = []byte(b.String())
				} else if d := cmp.Diff(string(section.Data), b.String()); d != "" {
					t.Errorf("%s: %s", section.Name, d)
				}
			}
			if *update {
				if err := os.WriteFile(name, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
