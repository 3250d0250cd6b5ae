// Package registry keeps what is known of services, and who may call what, as files in a git repository: each change is a
// commit with an author and a reason. It knows git, and neither forms nor notifications.
package registry

import (
	"time"
)

// Access is how a new call of a service is decided.
type Access string

const (
	AccessOpen   Access = "open"   // whoever asks is granted
	AccessReview Access = "review" // the service's owners review it
)

// Changes is how a team's own files are changed.
type Changes string

const (
	ChangesDirect Changes = "direct" // by a commit
	ChangesReview Changes = "review" // by a branch that is reviewed
)

// Service is a file services/NAME.yaml.
type Service struct {
	Version     int    `yaml:"version"` // 1
	Name        string `yaml:"name"`    // as the file
	Team        string `yaml:"team,omitempty"`
	Description string `yaml:"description,omitempty"`
	Repository  string `yaml:"repository,omitempty"` // an http(s) URL
	Access      Access `yaml:"access,omitempty"`     // empty means open
	// Endpoints are what can be called of it, where it says so itself; see api.Call.Method for their form.
	Endpoints []Endpoint `yaml:"endpoints,omitempty"`
	// Calls are what it may call.
	Calls []Grant `yaml:"calls,omitempty"`
}

// Endpoint is one method of a service.
type Endpoint struct {
	Method      string `yaml:"method"`
	Description string `yaml:"description,omitempty"`
}

// Grant is what a service may call of one other.
type Grant struct {
	Service string   `yaml:"service"`
	Methods []string `yaml:"methods"` // patterns, as api.Granted has them
	Reason  string   `yaml:"reason,omitempty"`
	// Environments is how ephemeral environments of the caller have the callee: "shared" (also when empty) or "fresh".
	Environments string `yaml:"environments,omitempty"`
}

// Team is a file teams/NAME.yaml.
type Team struct {
	Version int     `yaml:"version"` // 1
	Name    string  `yaml:"name"`
	Changes Changes `yaml:"changes,omitempty"` // empty means direct
	// Members may change what the team owns: e-mail addresses. Nobody named means anybody who is signed in.
	Members []string `yaml:"members,omitempty"`
	Notify  []Notify `yaml:"notify,omitempty"`
}

// Notify is where a team hears of changes. One member is set. Secrets are named, never written: the portal looks NAME up.
type Notify struct {
	Slack   string `yaml:"slack,omitempty"`   // the name of the secret that is an incoming webhook's URL
	Email   string `yaml:"email,omitempty"`   // an address
	Webhook string `yaml:"webhook,omitempty"` // an http(s) URL
	Secret  string `yaml:"secret,omitempty"`  // the name of the secret that the webhook's HMAC is made with
}

// Request is what the form submits: one caller, one callee.
type Request struct {
	ID           string // of this submission; the same ID twice is one change
	Caller       string
	Callee       string
	Methods      []string
	Reason       string
	Environments string // "shared" or "fresh"
	Author       Author // who is signed in, never what the form says
	// Base is the revision that the form was made from. A newer one matters only where it changed one of the two services.
	Base string
}

// Author is who makes a change.
type Author struct{ Name, Email string }

// Result is what became of a request.
type Result struct {
	Granted  bool      // it is in force
	Review   string    // the URL of the review, or of the branch where the remote is no forge; empty where Granted
	Branch   string    // of the review
	Revision string    // the commit
	Why      string    // which rule decided, for a person, as "billing is open to everyone; team checkout changes its files directly"
	Changed  []string  // what is new in the file; empty: all of it was granted before
	Time     time.Time // of the commit
}
