package debugadapter

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write configuration.json anew")

// TestMembers sees that what editors complete is what is read: the same names, the same types, the same values. From
// configuration.json the editors' files are made.
func TestMembers(t *testing.T) {
	got, err := json.MarshalIndent(Members(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "configuration.json"
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
		t.Errorf("%s is stale; run make generate (-old +new):\n%s", file, d)
	}

	read := map[string]func(json.RawMessage) error{}
	for name, f := range fields() {
		read[name] = func(v json.RawMessage) error { return f(&Config{}, v) }
	}
	for name, f := range display() {
		read[name] = f
	}
	for _, m := range Members() {
		f := read[m.Name]
		if f == nil {
			t.Errorf("%s is said and not read", m.Name)
			continue
		}
		delete(read, m.Name)
		if m.Text == "" || !m.Launch && !m.Attach {
			t.Errorf("%s says too little: %+v", m.Name, m)
		}
		for kind, v := range map[string]string{"string": `"x"`, "boolean": `true`, "integer": `1`, "strings": `["x"]`, "map": `{"X": "x"}`, "paths": `[{"from": "/a", "to": "/b"}]`} {
			if kind == "string" && m.Enum != nil {
				continue // below
			}
			if err := f(json.RawMessage(v)); (err == nil) != (kind == m.Type) {
				t.Errorf("%s is said to be %s; of %s: %v", m.Name, m.Type, v, err)
			}
		}
		if m.Enum == nil {
			continue
		}
		for _, c := range m.Enum {
			if err := f(json.RawMessage(`"` + c.Value + `"`)); err != nil || c.Text == "" {
				t.Errorf("%s can be %+v: %v", m.Name, c, err)
			}
		}
		// Whoever adds a value to the reader's list adds it here.
		others := []string{"debug", "test", "core", "remote", "local", "exec", "replay", "auto", "kubernetes", "continue", "now", "never", "x"}
		for _, v := range others {
			if slices.ContainsFunc(m.Enum, func(c Choice) bool { return c.Value == v }) {
				continue
			}
			if err := f(json.RawMessage(`"` + v + `"`)); err == nil {
				t.Errorf("%s can be %q and does not say so", m.Name, v)
			}
		}
	}
	for name := range read {
		t.Errorf("%s is read and not said", name)
	}
}
