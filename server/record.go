package server

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fairlead.dev/api"
)

// Record is what this machine remembers of an environment: the next agent goes on with it, and `fairlead status`,
// `logs`, `open` and `stop` find the environment by it. It holds the environment's token and is readable by its owner
// only.
type Record struct {
	Version     int             `json:"version"` // of this format: 1
	Environment api.Environment `json:"environment"`
	Kubeconfig  string          `json:"kubeconfig,omitempty"`
	Dir         string          `json:"dir"`               // the folder that was asked for
	Package     string          `json:"package,omitempty"` // the main package's
	Module      string          `json:"module,omitempty"`  // its module's
	Token       string          `json:"token"`
	Ports       map[int]int     `json:"ports,omitempty"` // the service's port to the one here
	Main        int             `json:"main,omitempty"`  // the service's main port
	URL         string          `json:"url,omitempty"`   // of the agent that runs now
	Agent       string          `json:"agent,omitempty"` // that agent, as "user@host (pid N)"
	PID         int             `json:"pid,omitempty"`
	Generation  api.Generation  `json:"generation,omitempty"` // the last one given out
	Since       time.Time       `json:"since"`
	// KeepUntil is until when a local environment is to live without a front end.
	KeepUntil time.Time `json:"keep_until,omitzero"`
	// Switched are the dependencies that were switched while the environment was there, and hold as long as it does.
	Switched map[string]api.DependencyMode `json:"switched,omitempty"`
	// Gates are the ports here at which the service calls its dependencies on this machine, by their names.
	Gates map[string]int `json:"gates,omitempty"`
	// Review is the one that was made last of a change in the service's repository.
	Review *api.ReviewRef `json:"review,omitempty"`
	// Joined: the environment is another's, and is only followed. Token is then of no use.
	Joined bool `json:"joined,omitempty"`
}

// Records keeps a Record per environment below one folder.
type Records struct{ Dir string }

// Folder is where what belongs to an environment is kept.
func (r Records) Folder(name string) string { return filepath.Join(r.Dir, name) }

func (r Records) file(name string) string { return filepath.Join(r.Folder(name), "record.json") }

// Load reads an environment's record, or begins one with a new token.
func (r Records) Load(name string) (Record, error) {
	b, err := os.ReadFile(r.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		var t [32]byte
		rand.Read(t[:])
		return Record{Version: 1, Token: hex.EncodeToString(t[:]), Since: time.Now(), Ports: map[int]int{}}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("read the environment's record: %w", err)
	}
	var rec Record
	if err := json.Unmarshal(b, &rec); err != nil || rec.Version != 1 || len(rec.Token) < 32 {
		return Record{}, &api.Problem{Code: "bad-record", Message: fmt.Sprintf("%s is not an environment's record", r.file(name)),
			Hint: "remove that file; an environment it spoke of is then found by its labels with fairlead stop"}
	}
	if rec.Ports == nil {
		rec.Ports = map[int]int{}
	}
	return rec, nil
}

// Save writes a record, whole or not at all.
func (r Records) Save(rec Record) error {
	name := rec.Environment.Name
	b, err := json.MarshalIndent(rec, "", "\t")
	if err == nil {
		err = os.MkdirAll(r.Folder(name), 0o700)
	}
	if err == nil {
		tmp := fmt.Sprintf("%s.%d", r.file(name), os.Getpid())
		if err = os.WriteFile(tmp, b, 0o600); err == nil {
			err = os.Rename(tmp, r.file(name))
		}
	}
	if err != nil {
		return fmt.Errorf("write the environment's record: %w", err)
	}
	return nil
}

// Remove forgets an environment that is gone.
func (r Records) Remove(name string) error { return os.RemoveAll(r.Folder(name)) }

// All lists the records; those that cannot be read are left out.
func (r Records) All() []Record {
	files, _ := filepath.Glob(filepath.Join(r.Dir, "*", "record.json"))
	var out []Record
	for _, f := range files {
		rec, err := r.Load(filepath.Base(filepath.Dir(f)))
		if err == nil && rec.Environment.Name == filepath.Base(filepath.Dir(f)) {
			out = append(out, rec)
		}
	}
	return out
}

// keeper is a record that several goroutines of a session change.
type keeper struct {
	mu   sync.Mutex
	recs Records
	rec  Record
}

func (k *keeper) change(f func(*Record)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.rec)
	return k.recs.Save(k.rec)
}

func (k *keeper) get() Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rec
}
