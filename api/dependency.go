package api

// DependencyMode says how an environment has a dependency.
type DependencyMode string

const (
	DependencyShared   DependencyMode = "shared"   // its name leads to the stable copy in staging
	DependencyFresh    DependencyMode = "fresh"    // its name leads to a copy of the environment's own, which began empty
	DependencyExternal DependencyMode = "external" // it is outside of the cluster's Services, and left as it is
	DependencyOff      DependencyMode = "off"      // it was found and is none: the settings say so
)

// DependencyHealth is how the workload behind a dependency is.
type DependencyHealth string

const (
	HealthUnknown  DependencyHealth = ""         // nobody may look, or there is nothing to look at
	HealthReady    DependencyHealth = "ready"    // it takes requests
	HealthStarting DependencyHealth = "starting" // it does not yet
	HealthFailed   DependencyHealth = "failed"   // it will not by itself; Detail says why
)

// Dependency is something that a service under edit calls.
type Dependency struct {
	// Name is the Service's, or the host of an external one.
	Name string `json:"name"`
	// Also are the other Services that lead to the same workload.
	Also      []string `json:"also,omitempty"`
	Namespace string   `json:"namespace,omitempty"`
	Ports     []int    `json:"ports,omitempty"`
	// Engine is "postgresql", "mysql" or "redis" where it is one.
	Engine string         `json:"engine,omitempty"`
	Mode   DependencyMode `json:"mode"`
	// Workload is what runs behind it, as "StatefulSet/postgres"; empty where nothing of the namespace does.
	Workload string `json:"workload,omitempty"`
	// Seed names the Job or CronJob whose copy fills a fresh one.
	Seed string `json:"seed,omitempty"`
	// Why says where it was found, as "DATABASE_URL of Deployment orders". It never has a value in it, since values hold
	// passwords.
	Why    []string         `json:"why"`
	Health DependencyHealth `json:"health,omitempty"`
	Detail string           `json:"detail,omitempty"` // why it is not ready, in a few words for a person
}

// DependencyWish is what the settings or a front end say of one dependency.
type DependencyWish struct {
	Mode DependencyMode `json:"mode"` // shared, fresh or off
	Seed string         `json:"seed,omitempty"`
}

// DependencyReport is what is known of a service's dependencies.
type DependencyReport struct {
	Dependencies []Dependency `json:"dependencies"`
	// Notes say, for a person, what was seen and not understood, or not read.
	Notes []string `json:"notes,omitempty"`
	// Problems are the wishes that cannot be fulfilled.
	Problems []*Problem `json:"problems,omitempty"`
}
