package registry

import "time"

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
	// Version of the file's format: 1.
	Version int `yaml:"version" check:"version"`
	// Name of the service, as the file is called: what others call it by, such as `billing`, or `rates.finance` for the service
	// rates of the namespace finance.
	Name string `yaml:"name" check:"name"`
	// Team that owns it: a file in teams/.
	Team string `yaml:"team,omitempty" check:"name"`
	// Description for a person who looks for what to call.
	Description string `yaml:"description,omitempty" check:"text"`
	// Repository is where its source is: an http(s) URL.
	Repository string `yaml:"repository,omitempty" check:"url"`
	// Access is how a new call of it is decided: `open` (also when it is missing) grants it to whoever asks, `review` asks its owners.
	Access Access `yaml:"access,omitempty" check:"access"`
	// Ports are where it is called. Only exports need them: Linkerd, and Cilium's rules for methods.
	Ports []int `yaml:"ports,omitempty" check:"port"`
	// Endpoints are what can be called of it, where it says so itself.
	Endpoints []Endpoint `yaml:"endpoints,omitempty"`
	// Calls are what it may call.
	Calls []Grant `yaml:"calls,omitempty"`
}

// Endpoint is one method of a service.
type Endpoint struct {
	// Method is `/billing.v1.Billing/Charge` of gRPC, or `POST /v1/charges` of HTTP, where `*` stands for an identifier.
	Method string `yaml:"method" check:"method"`
	// Description for a person who chooses.
	Description string `yaml:"description,omitempty" check:"text"`
}

// Grant is what a service may call of one other.
type Grant struct {
	// Service is the name of the one that is called.
	Service string `yaml:"service" check:"name"`
	// Methods are patterns: a method in which `*` stands for one segment of the path, and a last `**` for any number of them.
	// `*` alone is everything, also what is not seen.
	Methods []string `yaml:"methods" check:"pattern"`
	// Reason why it is called, for a person who reviews.
	Reason string `yaml:"reason,omitempty" check:"text"`
	// Environments is how ephemeral environments of the caller have the callee: `shared` (also when it is missing) or `fresh`.
	Environments string `yaml:"environments,omitempty" check:"environments"`
}

// Team is a file teams/NAME.yaml.
type Team struct {
	// Version of the file's format: 1.
	Version int `yaml:"version" check:"version"`
	// Name of the team, as the file is called.
	Name string `yaml:"name" check:"name"`
	// Changes of the files that it owns are `direct` (also when it is missing), by a commit, or by `review`.
	Changes Changes `yaml:"changes,omitempty" check:"changes"`
	// Members may change what the team owns: e-mail addresses. Nobody named means anybody who is signed in.
	Members []string `yaml:"members,omitempty" check:"email"`
	// Notify is where the team hears of changes.
	Notify []Notify `yaml:"notify,omitempty"`
}

// Notify is one place where a team hears of changes: one of slack, email and webhook. Secrets are named, never written: the
// portal looks the name up.
type Notify struct {
	// Slack is the name of the secret that is an incoming webhook's URL.
	Slack string `yaml:"slack,omitempty" check:"secret"`
	// Email is an address.
	Email string `yaml:"email,omitempty" check:"email"`
	// Webhook is an http(s) URL.
	Webhook string `yaml:"webhook,omitempty" check:"url"`
	// Secret is the name of the secret that the webhook's HMAC is made with.
	Secret string `yaml:"secret,omitempty" check:"secret"`
}

// Request is what the form submits: one caller, one callee.
type Request struct {
	ID           string // of this submission: 8 to 64 letters, digits, - and _. The same ID twice is one change
	Caller       string
	Callee       string
	Methods      []string
	Reason       string
	Environments string // "shared" (also when empty) or "fresh"
	Author       Author // who is signed in, never what the form says
	// Base is the revision that the form was made from, or "". A newer one matters only where the callee has lost a method since
	// then that is asked for, or is gone.
	Base string
}

// Author is who makes a change.
type Author struct{ Name, Email string }

// Result is what became of a request.
type Result struct {
	Granted  bool      // it is in force
	Review   string    // the URL of the review, or where one is opened; empty where Granted, and where the remote is no known forge
	Branch   string    // of the review
	Revision string    // the commit
	Why      string    // which rule decided, for a person, as "billing is open to everyone; team checkout changes its files directly"
	Changed  []string  // the methods that are new in the file; with nothing else changed, empty means that all was granted before
	Repeated bool      // this ID was submitted before: nothing was changed now
	Time     time.Time // of the commit
}
