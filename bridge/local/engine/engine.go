// Package engine runs PostgreSQL, MariaDB and Redis as dependencies on this machine, by the binaries that are installed:
// without a cluster, a container or root. It owns an engine's folder: what is in it, how it is filled the first time, who
// may log in, and how the engine is started, asked and ended.
//
// It must not know what depends on an engine, nor how its process is supervised: Run is one process, from its start to
// SIGTERM.
//
// # The folder
//
//	spec.json     what the engine is to be (0600: it has a password)
//	lock          held by whoever runs or removes it, and by the engine itself: flock(2)
//	problem.json  why it ended; not there while it runs
//	db/           the data, with the password of the engine's own administrator
//	db.new/       the same while it is made; renamed when it is whole, removed by the next start when not
package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"fairlead.dev/api"
)

// The engines, as api.Dependency.Engine names them.
const (
	PostgreSQL = "postgresql"
	MySQL      = "mysql"
	Redis      = "redis"
)

// Grace is how long an engine may take to end after SIGTERM: it writes its data first.
const Grace = endLimit + 5*time.Second

// endLimit is how long it is waited for before it is killed. All of it fits into the 30 s that a local environment's removal
// waits for its supervisor.
const endLimit = 20 * time.Second

// Spec says what one folder's engine is to be.
type Spec struct {
	Name string `json:"name"` // of the dependency, for messages
	Kind string `json:"kind"`
	Port int    `json:"port"` // on 127.0.0.1
	// Lasting data survives the machine's end. Other data is written as fast as can be.
	Lasting bool `json:"lasting,omitempty"`
	// Seed is a file that fills a new folder, as Login. Empty: it begins empty.
	Seed  string `json:"seed,omitempty"`
	Login Login  `json:"login"`
}

// Login is what a service logs in with: a role with its password, and the database that is the role's own.
type Login struct {
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Database string `json:"database,omitempty"`
}

// Binaries are an engine's installed programs.
type Binaries struct {
	Kind    string
	Version string // as "15.18"
	Server  string // absolute, as the others
	Init    string // makes a data folder; none for Redis
	Client  string // none for Redis
}

// String names what runs, for a person.
func (b Binaries) String() string { return b.Server + " " + b.Version }

// Title is an engine's name for a person.
func Title(kind string) string {
	return map[string]string{PostgreSQL: "PostgreSQL", MySQL: "MariaDB", Redis: "Redis"}[kind]
}

// Write puts the spec into an engine's folder, whole or not at all.
func Write(dir string, s Spec) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of %s: %w", s.Name, err)
	}
	return writeJSON(filepath.Join(dir, "spec.json"), s)
}

// read reads a folder's spec; fs.ErrNotExist where there is none.
func read(dir string) (Spec, error) {
	var s Spec
	b, err := os.ReadFile(filepath.Join(dir, "spec.json"))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil || Title(s.Kind) == "" || s.Port < 1 || s.Port > 65535 {
		return s, &api.Problem{Code: "bad-engine", Message: filepath.Join(dir, "spec.json") + " says no engine", Hint: "remove that file, and run again"}
	}
	return s, nil
}

// Trouble is why a folder's engine ended by itself; empty where it did not.
func Trouble(dir string) string {
	var p api.Problem
	if b, err := os.ReadFile(filepath.Join(dir, "problem.json")); err == nil && json.Unmarshal(b, &p) == nil {
		return p.Error()
	}
	return ""
}

// HasData says whether a folder has data that was made whole.
func HasData(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "db"))
	return err == nil
}

func writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		tmp := fmt.Sprintf("%s.%d", name, os.Getpid())
		if err = os.WriteFile(tmp, b, 0o600); err == nil {
			err = os.Rename(tmp, name)
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	return nil
}

// Port is what an engine of this folder is to listen on: what is wanted, else what it had, so that services that know the
// address find it there again; else 0.
func Port(dir string, want int, free func(int) bool) int {
	if want != 0 {
		return want
	}
	s, err := read(dir)
	if err != nil || !(Runs(dir) || free(s.Port)) {
		return 0
	}
	return s.Port
}

// Reset removes an engine's folder with its data. One that runs is left alone.
func Reset(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := tryLock(dir)
	if err != nil {
		return err
	}
	if unlock == nil {
		return &api.Problem{Code: "engine-runs", Message: "its engine runs", Hint: "end what uses it: fairlead status lists it, fairlead stop ends it"}
	}
	defer unlock()
	// Half of the data is none: it goes by the name of what is not whole.
	half := filepath.Join(dir, "db.new")
	err = os.RemoveAll(half)
	if err == nil {
		err = os.Rename(filepath.Join(dir, "db"), half)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the data: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the data: %w", err)
	}
	return nil
}
