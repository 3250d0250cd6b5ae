package bridge

import (
	"context"
	"io"
	"time"

	"fairlead.dev/api"
)

// Spec says which environment is wanted. A provider (bridge/local, bridge/kube) makes it or finds the one that a former
// run of the same Spec left.
type Spec struct {
	Name    string // DNS label, unique for user, workspace, service and branch
	Service string // DNS label: the service's name, and that of the staging Deployment it is like
	Owner   string // who: "user@host"
	Dir     string // absolute path of the service's folder
	Branch  string // of the workspace; may be empty
	Token   string // the environment's secret: 64 hexadecimal digits
	Version string // of the agent; the pod's side must have the same
	// Trees are the synced folders: name to the absolute path in the pod.
	Trees map[string]string
	// Dependencies are the wishes of the settings, by name. What is not named is found, and shared.
	Dependencies map[string]api.DependencyWish
	// Registered are the services that the registry's record says it calls, each shared or fresh: candidates, which a wish goes before.
	Registered map[string]api.DependencyMode
	// Keep leaves the environment running when the agent goes (local; on Kubernetes it always stays).
	Keep bool
}

// Environment is one that exists: something to dial.
type Environment interface {
	// Info names it.
	Info() api.Environment
	// Target is what its process must be built for.
	Target() api.Target
	// Process is what the environment knows of how the service is started (the staging Deployment's arguments,
	// working directory and port); the zero value where it knows nothing.
	Process() api.Process
	// Dial opens one byte stream to the supervisor's socket. It is called again after a loss; its error says why the
	// pod cannot be reached, as an *api.Problem where there is something to do about it. It waits, within ctx, for a
	// pod that is just being replaced.
	Dial(ctx context.Context) (io.ReadWriteCloser, error)
	// Delete removes what the environment created and waits until it is gone.
	Delete(ctx context.Context) error
	// Close lets go of it; what it runs stays, as far as the provider lets it stay.
	Close() error
}

// Progress is told what a provider is doing, in a few words for a person, as "waiting for pod x: pulling image".
type Progress func(message string)

// Stored is an environment as `fairlead status` finds it, without the agent that made it.
type Stored struct {
	api.Environment
	Owner   string    `json:"owner"`
	Branch  string    `json:"branch,omitempty"`
	Dir     string    `json:"dir,omitempty"`
	Created time.Time `json:"created"`
}
