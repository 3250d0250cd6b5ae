package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.dev/api"
)

// {{NAME}} is the Service's address in a cluster; what is no dependency stays as it is.
func TestExpandInCluster(t *testing.T) {
	dir := t.TempDir()
	yaml := "version: 1\non: kubernetes\nargs: ['-billing={{billing}}', '{{.Template}}']\nenv: {HOST: '{{billing.host}}', PORT: '{{ billing.port }}', OTHER: '{{other}}'}\ndependencies:\n  billing: {port: 9090}\n  cache: shared\n"
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "fairlead.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(yaml)
	c, err := loadSettings(dir, "", runOptions{dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(append(c.process.Args, c.process.Env...), " "); got != "-billing=billing:9090 {{.Template}} HOST=billing OTHER={{other}} PORT=9090" {
		t.Errorf("%q", got)
	}
	write(strings.Replace(yaml, "{{other}}", "{{cache}}", 1))
	var p *api.Problem
	if _, err := loadSettings(dir, "", runOptions{dir: dir}); !errors.As(err, &p) || !strings.Contains(p.Message, "{{cache}}") || !strings.Contains(p.Hint, "port:") {
		t.Errorf("%v", err)
	}
}
