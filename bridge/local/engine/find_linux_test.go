package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.dev/api"
)

// program is an executable that says its version.
func program(t *testing.T, dir, name, says string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "#!/bin/sh\necho '%s'\n", says), 0o755); err != nil {
		t.Fatal(err)
	}
}

// PATH goes first; of what packages put elsewhere the newest; what is too old, or lacks a part, is none.
func TestFindBinaries(t *testing.T) {
	root := t.TempDir()
	was := installs[PostgreSQL]
	t.Cleanup(func() { installs[PostgreSQL] = was })
	in := was
	in.places = []string{filepath.Join(root, "pg", "*", "bin")}
	installs[PostgreSQL] = in
	for _, v := range []string{"9.6.1", "13.4", "15.1", "9.9"} {
		bin := filepath.Join(root, "pg", v, "bin")
		program(t, bin, "postgres", "postgres (PostgreSQL) "+v+" (Debian)")
		program(t, bin, "initdb", "")
		program(t, bin, "psql", "")
	}
	program(t, filepath.Join(root, "pg", "16.0", "bin"), "postgres", "postgres (PostgreSQL) 16.0") // without initdb
	b, err := Installed(PostgreSQL, []string{"PATH=/nowhere"})
	if err != nil || b.Version != "15.1" || b.Init != filepath.Join(root, "pg", "15.1", "bin", "initdb") {
		t.Errorf("%+v, %v", b, err)
	}
	onPath := filepath.Join(root, "mine")
	program(t, onPath, "postgres", "postgres (PostgreSQL) 12.3")
	program(t, onPath, "initdb", "")
	b, err = Installed(PostgreSQL, []string{"PATH=" + onPath})
	if err != nil || b.Version != "12.3" || b.Client == "" {
		t.Errorf("%+v, %v", b, err)
	}
	data := filepath.Join(root, "PG_VERSION")
	for major, want := range map[string]string{"13": "13.4", "12": "12.3", "14": ""} {
		if err := os.WriteFile(data, []byte(major+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", onPath)
		got, err := matching(b, data)
		var p *api.Problem
		if want == "" {
			if !errors.As(err, &p) || p.Code != "engine-version" || p.Hint == "" {
				t.Errorf("data of %s: %+v, %v", major, got, err)
			}
		} else if err != nil || got.Version != want {
			t.Errorf("data of %s: %+v, %v", major, got, err)
		}
	}
	in.places = nil
	installs[PostgreSQL] = in
	var p *api.Problem
	if _, err := Installed(PostgreSQL, nil); !errors.As(err, &p) || p.Code != "no-engine" || p.Hint == "" || !strings.Contains(p.Message, "PostgreSQL 10") {
		t.Errorf("%v", err)
	}
}

func TestHowToInstall(t *testing.T) {
	for release, want := range map[string]string{
		"ID=debian\n": "sudo apt-get install postgresql",
		"NAME=x\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n": "sudo apt-get install postgresql",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n":    "sudo dnf install postgresql-server",
		"ID=alpine":                      "sudo apk add postgresql",
		"ID=opensuse-leap\nID_LIKE=suse": "sudo zypper install postgresql-server",
		"ID=nixos":                       "install it, or put the folder of its programs on PATH",
		"":                               "install it, or put the folder of its programs on PATH",
	} {
		if got := howToInstall(PostgreSQL, release); got != want {
			t.Errorf("%q: %q, want %q", release, got, want)
		}
	}
}
